//! What is done to a store, and where it is interrupted.

use std::fmt;
use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tidelog_disk::CrashDevice;
use tidelog_pages::{Append, PageServer, StorageEntry, StoreOptions, StoreRequest};
use tidelog_types::BudgetLimits;
use tidelog_types::limits::Limits;

use crate::cut::Cut;
use crate::full;
use tidelog_testing::Rng;
use tidelog_testing::store::{Run, Shape, files, observe, seed};

/// Lives of a store, one after the other on the same device: each but the last ends with its
/// owner killed or the power cut.
const LIVES: usize = 4;
/// Calls within which the right one for something is looked for.
const WITHIN: u64 = 40;

/// Requests to a store, by a seed.
#[derive(Clone, Debug)]
pub struct Script {
    /// Decides everything. Of an odd one, flushes complete later than they are asked for.
    seed: u64,
    /// Turns of some requests and a flush, in each life at most.
    turns: usize,
    /// All but the last.
    lives: Vec<Life>,
    cuts: Vec<u64>,
    contents: Contents,
}

/// A life that does not end by itself.
#[derive(Clone, Copy, Debug)]
struct Life {
    /// After which of its calls it ends.
    end: u64,
    /// The call at which the device is full.
    full_at: Option<u64>,
}

impl Script {
    /// The script of this seed, which was carried out once as a whole.
    ///
    /// # Errors
    ///
    /// What does not hold of it, where power cuts are part of it.
    pub fn new(seed: u64, turns: usize) -> Result<Self, String> {
        let made = catch_unwind(AssertUnwindSafe(|| {
            let contents = Contents::default();
            let mut script = Self { seed, turns, lives: Vec::new(), cuts: Vec::new(), contents };
            for life in 0..LIVES - 1 {
                let before = script.run(u64::MAX)?.calls_before;
                script.lives.push(Life { end: u64::MAX, full_at: None });
                script.find_full(life, before)?;
                script.find_end(life, before)?;
            }
            script.carry_out()?;
            Ok(script)
        }));
        made.unwrap_or_else(|_| Err("it panicked".to_owned()))
    }

    /// The disk calls after which the power is cut: all but those that, as reads do, change
    /// nothing in what a cut may leave.
    #[must_use]
    pub fn cuts(&self) -> &[u64] {
        &self.cuts
    }

    /// What is in it.
    #[must_use]
    pub fn contents(&self) -> Contents {
        self.contents
    }

    /// What decides it.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    fn holds_flushes(&self) -> bool {
        self.seed % 2 == 1
    }

    /// Whether it is about a few large entries, each image of which takes as long as a hundred.
    pub(crate) fn is_large(&self) -> bool {
        self.shape() == Shape::Large
    }

    fn shape(&self) -> Shape {
        match self.seed % 15 {
            0..=4 => Shape::Mixed,
            5 => Shape::Staged,
            6..=9 => Shape::Sectors,
            10 => Shape::Large,
            _ => Shape::Parts,
        }
    }

    /// Small, so that the log changes over every few turns.
    pub(crate) fn options(&self) -> StoreOptions {
        let log_size_max = [12, 20, 32][(self.seed / 2 % 3) as usize] * 1024;
        // Entries of two pages and more are written as they are put together.
        let log_buffer_size_max = if self.is_large() { 256 } else { 6 } * 1024;
        // A read takes many turns, and goes on while other things happen.
        let mut limits = Limits { read_chunk_pages: 1, ..Limits::DEFAULT };
        if self.shape() == Shape::Parts {
            // So do an entry and a change-over.
            limits.frame_pages_max = 2;
            limits.slice = BudgetLimits { pages: 3, bytes: 12 * 1024, ..limits.slice };
        }
        StoreOptions {
            log_size_max,
            log_rest_size_max: log_size_max / 3,
            pool_pages_max: 16,
            log_buffer_size_max,
            limits,
            ..StoreOptions::default()
        }
    }

    /// In some lives, a call by chance at which a full device makes appends fail.
    fn find_full(&mut self, life: usize, before: u64) -> Result<(), String> {
        let chance = self.rng(life).next();
        let mut start = 3 + chance % 30;
        let is_each = matches!(self.shape(), Shape::Sectors | Shape::Parts) && life > 0;
        if !is_each && life % 2 == self.seed as usize / 2 % 2 {
            return Ok(());
        }
        if self.shape() == Shape::Parts {
            // It has room for the first parts.
            self.lives[life].full_at = Some(u64::MAX);
            let amid_parts = &self.run(u64::MAX)?.amid_parts[life];
            let count = amid_parts.len().max(1) as u64;
            start = amid_parts.get((chance % count) as usize).map_or(start, |call| call + 1);
        }
        let refused = self.run(before)?.run.failed.len();
        for call in start..start + WITHIN {
            self.lives[life].full_at = Some(call);
            if self.run(before + call + WITHIN)?.run.failed.len() > refused {
                return Ok(());
            }
        }
        self.lives[life].full_at = None;
        Ok(())
    }

    /// A call by chance, but one that leaves something un-flushed: otherwise nothing would come of
    /// the end.
    fn find_end(&mut self, life: usize, before: u64) -> Result<(), String> {
        let length = self.run(u64::MAX)?.calls_before - before;
        let first = self.lives[life].full_at.map_or(5, |call| call + 3).min(length);
        let chance = self.rng(life).next() % WITHIN;
        for place in 0..WITHIN {
            let end = first + (chance + place) % (length + 1 - first);
            self.lives[life].end = u64::MAX;
            let device = self.run(before + end)?.run.device;
            self.lives[life].end = end;
            if (2..12).contains(&device.unflushed_sectors()) {
                break;
            }
        }
        Ok(())
    }

    fn rng(&self, life: usize) -> Rng {
        Rng::new((self.seed << 8) + life as u64)
    }

    /// Carries all of it out, and takes note of what was in it.
    fn carry_out(&mut self) -> Result<(), String> {
        let Lived { run, cuts, .. } = self.run(u64::MAX)?;
        let last = run.history.len() - 1;
        if run.is_broken || run.durable != run.history[last].0 {
            return Err("not all became durable".to_owned());
        }
        if run.failed.is_empty()
            && let Some(wrong) = &run.wrong_compaction
        {
            return Err(format!("a wrong compaction: {wrong:?}"));
        }
        let opened = PageServer::open_with(files(&run.device), seed(&run.device), self.options());
        let (mut server, report) = opened.map_err(|error| error.to_string())?;
        if report.cut.is_some() || run.find(&observe(&mut server, &run.device)) != Some(last) {
            return Err("not the last state at its end".to_owned());
        }
        self.cuts = cuts;
        let kills = (0..self.lives.len()).filter(|life| self.is_kill(*life)).count();
        let cuts = self.lives.len() - kills;
        let change_overs = report.generation - 1;
        drop(server);
        full::heals(&run.device.kill())?;
        self.contents = Contents::of(&run, change_overs, kills as u64, cuts as u64);
        Ok(())
    }

    /// The script with the power cut after this call.
    ///
    /// # Panics
    ///
    /// If the script before it does not hold, which it did when it was made.
    #[must_use]
    pub fn cut(&self, call: u64) -> Cut<'_> {
        let lived = self.run(call).expect("BUG: it held when it was made");
        Cut::new(self, call, lived.run)
    }

    /// The script up to this call.
    fn run(&self, cut: u64) -> Result<Lived, String> {
        let device = CrashDevice::new();
        device.hold_flushes(self.holds_flushes());
        let mut run = Run::new(device, self.seed, self.options());
        run.workload.shape = self.shape();
        run.rests = Some(Rng::new(!self.seed));
        let (mut calls_before, mut cuts, mut amid_parts) = (0, vec![0], Vec::new());
        for life in 0.. {
            let known = self.lives.get(life);
            let end = known.map_or(u64::MAX, |known| known.end);
            run.device.power_off_after(end.min(cut - calls_before));
            if let Some(call) = known.and_then(|known| known.full_at) {
                run.fill_up_at(call);
            }
            if let Some(mut server) = run.open() {
                run.turns(&mut server, if self.is_large() { 2 } else { self.turns });
                if known.is_none() {
                    run.end(&mut server);
                }
            }
            let calls = calls_before + run.device.calls();
            // A life begins with other knowledge than the one before it ended with.
            cuts.push(calls_before + 1);
            let changing = run.device.changing_calls().into_iter().filter(|call| *call > 1);
            cuts.extend(changing.map(|call| calls_before + call));
            amid_parts.push(std::mem::take(&mut run.amid_parts));
            if known.is_none() || cut <= calls {
                return Ok(Lived { run, calls_before, cuts, amid_parts });
            }
            calls_before = calls;
            let what = |what| format!("after call {calls}, at the end of a life: {what}");
            self.interrupt(&mut run, life).map_err(what)?;
        }
        unreachable!("the last life ends by itself")
    }

    fn is_kill(&self, life: usize) -> bool {
        // Where appends are being taken back, a kill leaves open whether they are.
        self.lives[life].full_at.is_none() && (self.seed / 3 + life as u64).is_multiple_of(2)
    }

    /// Ends a life.
    fn interrupt(&self, run: &mut Run, life: usize) -> Result<(), String> {
        let mut rng = self.rng(life);
        let is_kill = self.is_kill(life);
        let device = if is_kill {
            if rng.one_in(2) {
                run.device.fail_flushes();
            }
            run.device.kill()
        } else {
            run.device.crash(&mut |versions| rng.below(versions))
        };
        device.hold_flushes(self.holds_flushes());
        run.go_on_with(device, !is_kill)
    }
}

/// A script up to some call.
struct Lived {
    run: Run,
    /// Calls of the lives before the one that it came to.
    calls_before: u64,
    /// Calls after which a power cut may leave something else than after the one before.
    cuts: Vec<u64>,
    /// Of each life, the calls behind which an append was recorded in part.
    amid_parts: Vec<Vec<u64>>,
}

/// What has to be in the scripts, in the order of the counts.
const NAMES: [&str; 15] = [
    "timeline entries",
    "trims",
    "storage entries",
    "entries of several frames",
    "entries cut",
    "names taken",
    "journals begun",
    "records",
    "documents destroyed",
    "compactions",
    "change-overs",
    "of a store at rest or a day old",
    "owners killed",
    "power cuts before the last",
    "requests refused by a full device",
];

/// How much of everything is in some scripts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Contents([u64; NAMES.len()]);

impl Contents {
    fn of(run: &Run, change_overs: u64, kills: u64, cuts: u64) -> Self {
        let mut appends: Vec<&Append> = Vec::new();
        for request in &run.requests {
            if let StoreRequest::Append { append, .. } = request {
                appends.push(append);
            }
        }
        let sum = |count: fn(&Append) -> usize| appends.iter().map(|it| count(it) as u64).sum();
        let is_large =
            |entry: &&StorageEntry| entry.set.pages.len() > Limits::DEFAULT.frame_pages_max;
        Self([
            sum(|append| append.timeline.len()),
            sum(|append| usize::from(append.trim_timeline.is_some())),
            sum(|append| append.storage.len()),
            appends.iter().flat_map(|append| &append.storage).filter(is_large).count() as u64,
            sum(|append| usize::from(append.is_cut)),
            sum(|append| usize::from(append.take_name.is_some())),
            sum(|append| {
                let begun = [append.begin_timeline.is_some(), append.begin_storage.is_some()];
                begun.into_iter().filter(|begun| *begun).count()
            }),
            sum(|append| usize::from(append.record.is_some())),
            (run.requests.len() - appends.len()) as u64,
            run.compactions_answered,
            change_overs,
            run.rest_change_overs,
            kills,
            cuts,
            run.failed.len() as u64,
        ])
    }

    fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES.into_iter().zip(self.0)
    }

    /// What is missing altogether.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.named().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }
}

impl AddAssign for Contents {
    fn add_assign(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<String> =
            self.named().map(|(name, count)| format!("{count} {name}")).collect();
        f.write_str(&named.join(", "))
    }
}

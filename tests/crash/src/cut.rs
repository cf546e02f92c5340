//! A cut of a script, and what is checked of each image.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tidelog_disk::{CrashDevice, Grown};
use tidelog_pages::{Append, PageServer, StoreOptions, StoreRequest, Ticket};
use tidelog_types::DocumentKey;

use crate::choices::{Combinations, by_chance};
use crate::{ImageName, Script};
use tidelog_testing::Rng;
use tidelog_testing::store::{
    Model, OWNER, Run, Server, files, observe, plain, poll_all, seed, settle, ticket_of,
    with_ticket,
};

/// Un-flushed sectors up to which every combination is an image.
const SECTORS_MAX: usize = 16;
/// Combinations of versions up to which a sector may survive in one between the oldest and the
/// newest.
const COMBINATIONS_MAX: usize = 1 << SECTORS_MAX;
/// Images by chance where there are more sectors.
const CHANCES: u64 = 200;
/// Images of a cut in which blocks are torn, at most.
const TORN: u64 = 100;
/// Of the others, one in so many.
const GOES_ON_ONE_IN: usize = 24;
/// Where all images are looked at.
const DEEP: Depth = Depth { go_on: 16, second_cuts: 16 };
/// Where only few are.
const SHALLOW: Depth = Depth { go_on: 6, second_cuts: 6 };

/// How far images are gone on with: appended to, and cut again.
#[derive(Clone, Copy, Debug)]
struct Depth {
    /// So many images of a cut, the first ones.
    go_on: u64,
    /// Images of each second cut, at most: all combinations, or some by chance.
    second_cuts: usize,
}

/// A script whose power was cut.
pub struct Cut<'a> {
    script: &'a Script,
    call: u64,
    run: Run,
    /// What may be found: the last state that somebody was told is durable, and those after it.
    states: Vec<Model>,
    /// The first of them that may be found where no block is torn.
    at_rest: usize,
    /// What led to the one behind each of them.
    requests: Vec<Option<StoreRequest>>,
    depth: Depth,
}

impl<'a> Cut<'a> {
    pub(crate) fn new(script: &'a Script, call: u64, run: Run) -> Self {
        let found = run.told_or_later();
        let at_rest = run.durable_or_later().start - found.start;
        let states = run.history[found.clone()].iter().map(|(_, model)| plain(model)).collect();
        let next = |index: usize| {
            let (ticket, _) = run.history.get(index + 1)?;
            run.requests.iter().find(|request| ticket_of(request) == *ticket).cloned()
        };
        let requests = found.map(next).collect();
        Self { script, call, run, states, at_rest, requests, depth: DEEP }
    }

    /// Checks every image, or gives the first that does not hold, and why.
    ///
    /// # Errors
    ///
    /// The image's name, and what was found.
    pub fn check_all(&self) -> Result<u64, (ImageName, String)> {
        let killed = self.check_killed().map_err(|what| (ImageName::Killed, what))?;
        let checked = match self.combinations() {
            Some(combinations) => self.check_combinations(combinations),
            None => self.check_some(CHANCES),
        };
        Ok(killed + checked? + self.check_torn(TORN)?)
    }

    /// Checks every image where there are few, and else so many by chance.
    ///
    /// # Errors
    ///
    /// As [`check_all`](Self::check_all).
    pub fn check_few(mut self, few: u64) -> Result<u64, (ImageName, String)> {
        self.depth = SHALLOW;
        let count_max = usize::try_from(few).unwrap_or(usize::MAX);
        let killed = self.check_killed().map_err(|what| (ImageName::Killed, what))?;
        let checked = match Combinations::of(&self.run.device, count_max) {
            Some(combinations) => self.check_combinations(combinations),
            None => self.check_some(few),
        };
        Ok(killed + checked? + self.check_torn(few.min(TORN))?)
    }

    fn check_combinations(
        &self,
        mut combinations: Combinations,
    ) -> Result<u64, (ImageName, String)> {
        let mut count = 0;
        for number in 0.. {
            let choose = &mut |versions| combinations.choose(versions);
            let image = self.run.device.crash_with(grown(number), choose);
            let name = ImageName::Combination(number);
            count += self.check(number, &image, self.at_rest).map_err(|what| (name, what))?;
            if !combinations.advance() {
                break;
            }
        }
        Ok(count)
    }

    fn check_some(&self, count: u64) -> Result<u64, (ImageName, String)> {
        let mut checked = 0;
        for number in 0..count {
            let name = ImageName::Chance(number);
            let image = self.by_chance(number);
            checked += self.check(number, &image, self.at_rest).map_err(|what| (name, what))?;
        }
        Ok(checked)
    }

    fn check_torn(&self, count_max: u64) -> Result<u64, (ImageName, String)> {
        let mut checked = 0;
        for number in 0..count_max {
            let Some(image) = self.torn(number) else { break };
            let name = ImageName::Torn(number);
            checked += self.check(number, &image, 0).map_err(|what| (name, what))?;
        }
        Ok(checked)
    }

    /// Blocks are torn in every combination where there are few, and by chance where there are
    /// more.
    fn torn(&self, number: u64) -> Option<CrashDevice> {
        let mut choices = Vec::new();
        drop(self.run.device.tear(&mut |versions| {
            choices.push(versions);
            versions - 1
        }));
        let count = choices.iter().fold(1, |count: u64, it| count.saturating_mul(*it as u64));
        if count > TORN {
            let mut rng = self.rng(number);
            // All torn, then each by chance.
            return Some(self.run.device.tear(&mut |versions| match number {
                0 => 1,
                _ => rng.below(versions),
            }));
        }
        let mut rest = number;
        let image = self.run.device.tear(&mut |versions| {
            let choice = rest % versions as u64;
            rest /= versions as u64;
            usize::try_from(choice).expect("BUG: few versions")
        });
        (number < count).then_some(image)
    }

    /// The owner is killed while the power stays on, after a flush that failed or without one, and
    /// the next one opens what lies in the caches of the system: nothing of it is called durable
    /// before it is.
    fn check_killed(&self) -> Result<u64, String> {
        let clean = self.run.device.kill();
        clean.fail_flushes();
        let killed = self.check_gone_on(&self.run.device.kill())?;
        let failed = |what| format!("after a flush that failed: {what}");
        Ok(killed + self.check_gone_on(&clean.kill()).map_err(failed)?)
    }

    fn check_gone_on(&self, device: &CrashDevice) -> Result<u64, String> {
        let checked = catch_unwind(AssertUnwindSafe(|| {
            device.hold_flushes(true);
            let at_rest = device.crash(&mut |versions| versions - 1);
            let found = observe(&mut open(&at_rest, StoreOptions::default())?, &at_rest);
            let mut server = open(device, StoreOptions::default())?;
            let document = DocumentKey::new("never there", "").expect("a good name");
            server.serve(OWNER, StoreRequest::Destroy { ticket: Ticket(1), document });
            server.flush();
            let is_durable = !poll_all(&mut server).is_empty();
            for survives in [false, true] {
                let left = device.crash(&mut |versions| if survives { versions - 1 } else { 0 });
                let observed = observe(&mut open(&left, StoreOptions::default())?, &left);
                if is_durable && observed != found {
                    return Err("what was found was called durable, and got lost".to_owned());
                }
                if !self.states[self.at_rest..].contains(&observed) {
                    let durable = self.run.durable;
                    return Err(format!("survives {survives}: not a state since {durable:?}"));
                }
            }
            let torn = device.tear(&mut |_| 1);
            let observed = observe(&mut open(&torn, StoreOptions::default())?, &torn);
            if !self.states.contains(&observed) {
                return Err(format!("torn: not a state since {:?}", self.run.durable));
            }
            settle(&mut server, device);
            let left = device.crash(&mut |_| 0);
            if observe(&mut open(&left, StoreOptions::default())?, &left) != found {
                return Err("what was flushed after a kill got lost".to_owned());
            }
            Ok(5)
        }));
        checked.unwrap_or_else(|_| Err("it panicked".to_owned()))
    }

    /// Checks one image again.
    ///
    /// # Errors
    ///
    /// What was found.
    pub fn check_one(&self, name: ImageName) -> Result<(), String> {
        let mut first = self.at_rest;
        let (number, image) = match name {
            ImageName::Killed => return self.check_killed().map(|_| ()),
            ImageName::Chance(number) => (number, self.by_chance(number)),
            ImageName::Torn(number) => {
                first = 0;
                (number, self.torn(number).ok_or("there is no such image")?)
            }
            ImageName::Combination(number) => {
                let mut combinations = self.combinations().ok_or("too many sectors")?;
                for _ in 0..number {
                    let _ = self.run.device.crash(&mut |versions| combinations.choose(versions));
                    if !combinations.advance() {
                        return Err("there is no such image".to_owned());
                    }
                }
                let choose = &mut |versions| combinations.choose(versions);
                (number, self.run.device.crash_with(grown(number), choose))
            }
        };
        self.check(number, &image, first).map(|_| ())
    }

    /// All combinations, unless there are too many sectors.
    fn combinations(&self) -> Option<Combinations> {
        let is_few = self.run.device.unflushed_sectors() <= SECTORS_MAX;
        let only_newest = || Combinations::new(true);
        is_few.then(|| {
            Combinations::of(&self.run.device, COMBINATIONS_MAX).unwrap_or_else(only_newest)
        })
    }

    fn by_chance(&self, number: u64) -> CrashDevice {
        let rng = &mut self.rng(number);
        self.run.device.crash_with(grown(number), &mut by_chance(rng, number))
    }

    fn rng(&self, number: u64) -> Rng {
        Rng::new((self.script.seed() << 40) ^ (self.call << 16) ^ number)
    }

    /// Checks an image, in which one of the states from `first` on has to be, and those that it
    /// leads to if it is gone on with. Gives how many.
    fn check(&self, number: u64, image: &CrashDevice, first: usize) -> Result<u64, String> {
        let checked = catch_unwind(AssertUnwindSafe(|| {
            let go_on = if self.script.is_large() { 2 } else { self.depth.go_on };
            let goes_on = number < go_on || Rng::new(number).one_in(GOES_ON_ONE_IN);
            // With the script's own sizes it may change over right away.
            let sizes = if goes_on { self.script.options() } else { StoreOptions::default() };
            let again = image.crash(&mut |versions| versions - 1);
            let mut server = open(image, sizes)?;
            if server.epoch() < self.run.granted {
                return Err(format!("epoch {} was granted, and is forgotten", self.run.granted));
            }
            let observed = observe(&mut server, image);
            let mut allowed = self.states.iter().enumerate().skip(first);
            let Some((found, _)) = allowed.find(|(_, state)| **state == observed) else {
                return Err(format!("not a state since {:?}", self.run.durable));
            };
            if !goes_on {
                return Ok(1);
            }
            // Appended to once what was found is known to be durable, or at once.
            if number.is_multiple_of(2) {
                image.hold_flushes(true);
                return self.go_on(number, image, server, found);
            }
            again.hold_flushes(true);
            self.go_on(number, &again, open(&again, sizes)?, found)
        }));
        checked.unwrap_or_else(|_| Err("it panicked".to_owned()))
    }

    /// A store that was opened after a cut is appended to, as its owner would who hands over again
    /// what was lost, and the power is cut again, before the flush and after it: what the first
    /// cut tore never comes back.
    fn go_on(
        &self,
        number: u64,
        image: &CrashDevice,
        mut server: Server,
        found: usize,
    ) -> Result<u64, String> {
        let request = match self.requests.get(found).and_then(Option::as_ref) {
            Some(request) => with_ticket(request.clone(), Ticket(1)),
            None => {
                let mut append = Append::to(DocumentKey::new("after", "").expect("a good name"));
                append.record = Some(vec![found as u8; 40].into());
                StoreRequest::Append { ticket: Ticket(1), append }
            }
        };
        let before = &self.states[found];
        let mut after = before.clone();
        after.apply(&request);
        let after = plain(&after);
        server.serve(OWNER, request);
        server.flush();
        let mut count = 1;
        let Depth { second_cuts, .. } = self.depth;
        let mut combinations = Combinations::of(image, second_cuts);
        let mut rng = Rng::new(number);
        for second in 0..second_cuts {
            let left = match &mut combinations {
                Some(combinations) => image.crash(&mut |versions| combinations.choose(versions)),
                None => image.crash(&mut by_chance(&mut rng, second as u64)),
            };
            let mut server = open(&left, StoreOptions::default())?;
            let observed = observe(&mut server, &left);
            if observed != *before && observed != after {
                return Err(format!("after a second cut, {second}: what the first tore is back"));
            }
            count += 1;
            if combinations.as_mut().is_some_and(|combinations| !combinations.advance()) {
                break;
            }
        }
        // What was found was not called durable: it may lie in the block in which a torn tail was
        // cut off.
        let torn = image.tear(&mut |_| rng.below(3));
        let observed = observe(&mut open(&torn, StoreOptions::default())?, &torn);
        if observed != after && !self.states[..=found].contains(&observed) {
            return Err("after a second cut that tore blocks: not what was there".to_owned());
        }
        settle(&mut server, image);
        drop(server);
        for survives in [false, true] {
            let left = image.crash(&mut |versions| if survives { versions - 1 } else { 0 });
            let mut server = open(&left, StoreOptions::default())?;
            if observe(&mut server, &left) != after {
                return Err("a cut tail came back, or an append got lost".to_owned());
            }
            count += 1;
        }
        Ok(count)
    }
}

/// What stands in files that became longer before this image was left.
fn grown(number: u64) -> Grown {
    if number % 3 == 1 { Grown::Garbage } else { Grown::Zeros }
}

fn open(image: &CrashDevice, sizes: StoreOptions) -> Result<Server, String> {
    let opened = PageServer::open_with(files(image), seed(image), sizes);
    match opened {
        Ok((server, report)) if report.damage.is_none() => Ok(server),
        Ok((_, report)) => Err(format!("a sound device is said to be damaged: {report:?}")),
        Err(error) => Err(format!("it cannot be opened: {error}")),
    }
}

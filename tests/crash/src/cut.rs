//! A script, a cut of it, and what is checked of each image.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tidelog_disk::CrashDevice;
use tidelog_pages::{Append, PageServer, StoreOptions, StoreRequest, Ticket};
use tidelog_types::DocumentKey;

use crate::ImageName;
use crate::choices::{Combinations, by_chance};
use crate::common::{
    Model, OWNER, Rng, Run, Server, files, is_same, observe, plain, run_with, settle,
};

/// Un-flushed sectors up to which every combination is an image.
const SECTORS_MAX: usize = 16;
/// Combinations of versions up to which a sector may survive in one between the oldest and the
/// newest.
const COMBINATIONS_MAX: usize = 1 << SECTORS_MAX;
/// Images by chance where there are more sectors.
const CHANCES: u64 = 200;
/// One image in so many is gone on with: appended to, and cut again.
const GOES_ON_ONE_IN: u64 = 16;

/// Requests to a store, by a seed.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    /// Decides everything. Of an odd one, flushes complete later than they are asked for.
    pub seed: u64,
    /// Turns of some requests and a flush.
    pub turns: usize,
}

impl Script {
    fn device(self) -> CrashDevice {
        let device = CrashDevice::new();
        device.hold_flushes(self.seed % 2 == 1);
        device
    }

    /// Small, so that the log changes over every few turns.
    fn options(self) -> StoreOptions {
        let log_size_max = [12, 20, 32][(self.seed / 2 % 3) as usize] * 1024;
        // Entries of two pages and more are written as they are put together.
        StoreOptions { log_size_max, pool_pages_max: 8, log_buffer_size_max: 6 * 1024 }
    }

    fn run(self, device: CrashDevice) -> Run {
        run_with(device, self.seed, self.turns, self.options())
    }

    /// How many disk calls the whole script makes; it is checked that all went well.
    ///
    /// # Panics
    ///
    /// If it did not, or if the script is too short to show anything.
    #[must_use]
    pub fn calls(self) -> u64 {
        let whole = self.run(self.device());
        assert!(!whole.is_broken && whole.failed.is_empty(), "nothing was told to fail");
        let last = whole.history.len() - 1;
        assert_eq!(whole.durable, whole.history[last].0, "all became durable");
        let opened = PageServer::open_with(files(&whole.device), self.options());
        let (mut server, report) = opened.expect("a whole store");
        assert!(report.generation >= 3, "too few change-overs: {report:?}");
        assert!(whole.compactions_answered > 0, "no compactions");
        assert_eq!(whole.wrong_compaction, None);
        assert_eq!(report.cut, None);
        assert_eq!(whole.find(&observe(&mut server, &whole.device)), Some(last));
        whole.device.calls()
    }

    /// The script with the power cut after this call.
    #[must_use]
    pub fn cut(self, call: u64) -> Cut {
        let device = self.device();
        device.power_off_after(call);
        let run = self.run(device);
        let states = run.durable_or_later();
        let states = run.history[states].iter().map(|(_, model)| plain(model)).collect();
        Cut { script: self, call, run, states }
    }
}

/// A script whose power was cut.
pub struct Cut {
    script: Script,
    call: u64,
    run: Run,
    /// What may be found: the last durable state and those after it.
    states: Vec<Model>,
}

impl Cut {
    /// Checks every image, or gives the first that does not hold, and why.
    ///
    /// # Errors
    ///
    /// The image's name, and what was found.
    pub fn check_all(&self) -> Result<u64, (ImageName, String)> {
        let mut count = 0;
        let mut check = |name: ImageName, image: CrashDevice| {
            count += 1;
            self.check(name, &image).map_err(|what| (name, what))
        };
        match self.combinations() {
            Some(mut combinations) => {
                for number in 0.. {
                    let image =
                        self.run.device.crash(&mut |versions| combinations.choose(versions));
                    check(ImageName::Combination(number), image)?;
                    if !combinations.advance() {
                        break;
                    }
                }
            }
            None => {
                for number in 0..CHANCES {
                    check(ImageName::Chance(number), self.by_chance(number))?;
                }
            }
        }
        Ok(count)
    }

    /// Checks some images by chance, also where every combination could be.
    ///
    /// # Errors
    ///
    /// As [`check_all`](Self::check_all).
    pub fn check_some(&self, count: u64) -> Result<u64, (ImageName, String)> {
        for number in 0..count {
            let name = ImageName::Chance(number);
            self.check(name, &self.by_chance(number)).map_err(|what| (name, what))?;
        }
        Ok(count)
    }

    /// Checks one image again.
    ///
    /// # Errors
    ///
    /// What was found.
    pub fn check_one(&self, name: ImageName) -> Result<(), String> {
        let image = match name {
            ImageName::Chance(number) => self.by_chance(number),
            ImageName::Combination(number) => {
                let mut combinations = self.combinations().ok_or("too many sectors")?;
                for _ in 0..number {
                    let _ = self.run.device.crash(&mut |versions| combinations.choose(versions));
                    if !combinations.advance() {
                        return Err("there is no such image".to_owned());
                    }
                }
                self.run.device.crash(&mut |versions| combinations.choose(versions))
            }
        };
        self.check(name, &image)
    }

    /// All combinations, unless there are too many sectors.
    fn combinations(&self) -> Option<Combinations> {
        if self.run.device.unflushed_sectors() > SECTORS_MAX {
            return None;
        }
        let mut count = 1_usize;
        let _ = self.run.device.crash(&mut |versions| {
            count = count.saturating_mul(versions);
            versions - 1
        });
        Some(Combinations::new(count > COMBINATIONS_MAX))
    }

    fn by_chance(&self, number: u64) -> CrashDevice {
        let seed = (self.script.seed << 40) ^ (self.call << 16) ^ number;
        self.run.device.crash(&mut by_chance(&mut Rng::new(seed), number))
    }

    fn check(&self, name: ImageName, image: &CrashDevice) -> Result<(), String> {
        let (ImageName::Combination(number) | ImageName::Chance(number)) = name;
        let checked = catch_unwind(AssertUnwindSafe(|| {
            let goes_on = number % GOES_ON_ONE_IN == 3;
            // With the script's own sizes it may change over right away.
            let sizes = if goes_on { self.script.options() } else { StoreOptions::default() };
            let mut server = open(image, sizes)?;
            let observed = observe(&mut server, image);
            let Some(found) = self.states.iter().position(|state| *state == observed) else {
                return Err(format!("not a state since {:?}", self.run.durable));
            };
            if goes_on {
                self.go_on(image, server, found)?;
            }
            Ok(())
        }));
        checked.unwrap_or_else(|_| Err("it panicked".to_owned()))
    }

    /// A store that was opened after a cut works, and what the cut tore never comes back.
    fn go_on(&self, image: &CrashDevice, mut server: Server, found: usize) -> Result<(), String> {
        let mut append = Append::to(DocumentKey::new("after", "").expect("a good name"));
        append.record = Some(vec![found as u8; 40].into());
        let request = StoreRequest::Append { ticket: Ticket(1), append };
        let mut expected = self.states[found].clone();
        expected.apply(&request);
        server.serve(OWNER, request);
        server.flush();
        settle(&mut server, image);
        drop(server);
        for survives in [false, true] {
            let left = image.crash(&mut |versions| if survives { versions - 1 } else { 0 });
            let mut server = open(&left, StoreOptions::default())?;
            if !is_same(&observe(&mut server, &left), &expected) {
                return Err("a cut tail came back, or an append got lost".to_owned());
            }
        }
        Ok(())
    }
}

fn open(image: &CrashDevice, sizes: StoreOptions) -> Result<Server, String> {
    let opened = PageServer::open_with(files(image), sizes);
    opened.map(|(server, _)| server).map_err(|error| format!("it cannot be opened: {error}"))
}

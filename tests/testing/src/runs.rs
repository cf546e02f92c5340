//! Random operations against a plain model: how many, from which seeds, and how to replay a run.
//!
//! `TIDELOG_OPERATIONS=1000000 cargo test --release ... model` does that many operations a test
//! instead of a few; `TIDELOG_SEED=n` does the one run of that seed.

use crate::Rng;

/// Says which run it was, if it panics.
struct Running {
    name: &'static str,
    seed: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: this was TIDELOG_SEED={}", self.name, self.seed);
        }
    }
}

/// Calls `run` with seeds from 1 on, each of which answers how many operations it did, until
/// there were enough.
pub fn runs(name: &'static str, enough: u64, mut run: impl FnMut(&mut Rng) -> u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let enough = number("TIDELOG_OPERATIONS").unwrap_or(enough);
    let only: Option<u64> = number("TIDELOG_SEED");
    let (mut done, mut seed) = (0, only.unwrap_or(1));
    loop {
        let running = Running { name, seed };
        done += run(&mut Rng::new(running.seed));
        if done >= enough || only.is_some() {
            break;
        }
        seed += 1;
    }
    println!("{name}: {done} operations, the last by seed {seed}");
}

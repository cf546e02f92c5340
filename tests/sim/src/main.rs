//! The simulator's command line.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context as _, bail};
use tidelog_planted::{Hunt, Look};
use tidelog_sim::{Outcome, Told, Work, World};
use tidelog_types::probe::{self, Probe};

/// A tenth of a world is spent in the allocator of the C library.
#[cfg(not(target_arch = "wasm32"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
usage: tidelog-sim --seed N [--verbose]           one world, and its trace hash
       tidelog-sim --seeds A..B [--until-failure] a range of worlds, up to the first failure
       tidelog-sim --tasks N [--verbose]          one world with tasks
       tidelog-sim --tasks A..B [--until-failure] a range of them
       tidelog-sim --runs N [--verbose]           one world with tasks and runs of a workflow
       tidelog-sim --runs A..B [--until-failure]  a range of them
       tidelog-sim --traces A..B                  their trace hashes alone
       tidelog-sim --planted [NAME..]             every planted fault must be noticed, or these";

/// Where planted faults are looked for, and nothing may fail without one.
const HUNT: Hunt<'_> = Hunt {
    folder: "sim",
    package: "tidelog-sim",
    look: Look {
        args: &["--seeds", HUNTED, "--until-failure"],
        // Each change of what worlds do moves rare faults to other ones.
        args_further: Some(&["--seeds", HUNTED_FURTHER, "--until-failure"]),
        args_at: &["--seed"],
    },
    other_worlds: &[
        ("tasks", look_in(&["--tasks", HUNTED, "--until-failure"], &["--tasks"])),
        ("runs", look_in(&["--runs", HUNTED, "--until-failure"], &["--runs"])),
    ],
};
const HUNTED: &str = "0..1990";
const HUNTED_FURTHER: &str = "1990..8000";

const fn look_in<'a>(args: &'a [&'a str], args_at: &'a [&'a str]) -> Look<'a> {
    Look { args, args_further: None, args_at }
}

fn main() -> anyhow::Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let all_hold = match words.as_slice() {
        ["--seed", seed, rest @ ..] if matches!(rest, [] | ["--verbose"]) => {
            one(seed.parse().context("--seed takes a number")?, told(rest), World::new)
        }
        [kind @ ("--tasks" | "--runs"), seed, rest @ ..]
            if !seed.contains("..") && matches!(rest, [] | ["--verbose"]) =>
        {
            let seed = seed.parse().with_context(|| format!("{kind} takes a number or A..B"))?;
            one(seed, told(rest), make(kind))
        }
        ["--seeds", seeds, rest @ ..] if matches!(rest, [] | ["--until-failure"]) => {
            range(parse_range(seeds)?, !rest.is_empty(), World::new)
        }
        [kind @ ("--tasks" | "--runs"), seeds, rest @ ..]
            if matches!(rest, [] | ["--until-failure"]) =>
        {
            range(parse_range(seeds)?, !rest.is_empty(), make(kind))
        }
        ["--traces", seeds] => traces(parse_range(seeds)?),
        ["--planted", names @ ..] => HUNT.check(names)?,
        _ => bail!(USAGE),
    };
    Ok(if all_hold { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How a world of a seed is made.
type Make = fn(u64, Told) -> World;

fn make(kind: &str) -> Make {
    if kind == "--runs" { World::with_runs } else { World::with_tasks }
}

fn told(words: &[&str]) -> Told {
    if words.is_empty() { Told::Trace } else { Told::Everything }
}

fn parse_range(text: &str) -> anyhow::Result<Range<u64>> {
    let (start, end) = text.split_once("..").context("a range is A..B")?;
    Ok(start.parse()?..end.parse()?)
}

/// Worlds that have to enter each rare branch. Faults are looked for in fewer: none is noticed by
/// that.
const LONG_RUN: u64 = 2_000;

fn one(seed: u64, told: Told, make: Make) -> bool {
    println!("seeds {seed}..{}", seed + 1);
    let failed = !run(seed, told, make);
    say_probes(&probe::counts().into_iter().collect());
    println!("{} passed, {} failed", u8::from(!failed), u8::from(failed));
    !failed
}

fn range(seeds: Range<u64>, until_failure: bool, make: Make) -> bool {
    println!("seeds {}..{}", seeds.start, seeds.end);
    let Worlds { outcomes, reached } = Worlds::run(seeds, make, until_failure, Told::Nothing);
    let failed: Vec<u64> =
        outcomes.iter().filter(|(_, outcome)| outcome.is_none()).map(|(seed, _)| *seed).collect();
    if !failed.is_empty() {
        println!("failed seeds: {failed:?}; replay one by its number, with --verbose");
    }
    let works = outcomes.values().flatten().map(|outcome| outcome.work);
    println!("most work: {}", works.fold(Work::default(), Work::max));
    say_probes(&reached);
    let never = never_reached(outcomes.len() as u64, &reached);
    if !never.is_empty() {
        println!("FAILED: a run of so many worlds has to reach {never:?}");
    }
    println!("{} passed, {} failed", outcomes.len() - failed.len(), failed.len());
    failed.is_empty() && never.is_empty()
}

/// What became of each world, by its seed, and how often all of them entered each rare branch.
struct Worlds {
    outcomes: BTreeMap<u64, Option<Outcome>>,
    reached: BTreeMap<Probe, u64>,
}

impl Worlds {
    /// Runs them on all cores; up to the first failure on one, since whoever wants no more than
    /// that may run many such searches at once.
    fn run(seeds: Range<u64>, make: Make, until_failure: bool, told: Told) -> Self {
        let seeds = Mutex::new(seeds);
        let next = || seeds.lock().expect("BUG: a thread panicked").next();
        let work = || {
            let mut outcomes = Vec::new();
            while let Some(seed) = next() {
                let outcome = outcome(seed, told, make);
                let ends = until_failure && outcome.is_none();
                outcomes.push((seed, outcome));
                if ends {
                    break;
                }
            }
            (outcomes, probe::counts())
        };
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = if until_failure { 1 } else { cores };
        let mut worlds = Self { outcomes: BTreeMap::new(), reached: BTreeMap::new() };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            for thread in threads {
                let (outcomes, counts) = thread.join().expect("BUG: worlds panic for themselves");
                worlds.outcomes.extend(outcomes);
                counts.iter().for_each(|(probe, count)| {
                    *worlds.reached.entry(*probe).or_default() += count;
                });
            }
        });
        worlds
    }
}

/// The rare branches that so many worlds had to enter, and did not.
fn never_reached(worlds: u64, reached: &BTreeMap<Probe, u64>) -> Vec<Probe> {
    let never = reached.iter().filter(|(_, count)| **count == 0).map(|(probe, _)| *probe);
    if worlds < LONG_RUN { Vec::new() } else { never.collect() }
}

/// Prints a line of seed and trace of each.
fn traces(seeds: Range<u64>) -> bool {
    let Worlds { outcomes, .. } = Worlds::run(seeds, World::new, false, Told::Trace);
    for (seed, outcome) in &outcomes {
        outcome.iter().for_each(|outcome| println!("{seed} {}", outcome.trace));
    }
    outcomes.values().all(Option::is_some)
}

/// Says how often each rare branch was entered.
fn say_probes(reached: &BTreeMap<Probe, u64>) {
    let (reached, unreached): (Vec<_>, Vec<_>) = reached.iter().partition(|(_, count)| **count > 0);
    let reached: Vec<String> =
        reached.iter().map(|(probe, count)| format!("{probe:?} {count}")).collect();
    let unreached: Vec<&Probe> = unreached.into_iter().map(|(probe, _)| probe).collect();
    println!("reached: {}", reached.join(", "));
    println!("not reached: {unreached:?}");
}

/// Runs one world and tells all about it.
fn run(seed: u64, told: Told, make: Make) -> bool {
    let outcome = outcome(seed, told, make);
    if let Some(outcome) = &outcome {
        println!("{}\ntrace {}", outcome.summary, outcome.trace);
    }
    outcome.is_some()
}

/// How a world ended, or nothing once it was said what did not hold.
fn outcome(seed: u64, told: Told, make: Make) -> Option<Outcome> {
    let what = match std::panic::catch_unwind(|| make(seed, told).run()) {
        Ok(Ok(outcome)) => return Some(outcome),
        Ok(Err(what)) => what,
        Err(_) => "it panicked".to_owned(),
    };
    let what: String = what.chars().take(7000).collect();
    println!("seed {seed} FAILED: {what}");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_has_to_reach_every_rare_branch() {
        let counts = [(Probe::TornTailCut, 3), (Probe::FilesShed, 0), (Probe::PageRotten, 1)];
        assert_eq!(never_reached(LONG_RUN, &counts.into()), [Probe::FilesShed]);
        assert_eq!(never_reached(LONG_RUN - 1, &counts.into()), []);
        assert_eq!(never_reached(LONG_RUN, &[counts[0], counts[2]].into()), []);
    }

    #[test]
    fn faults_are_looked_for_in_less_than_a_long_run() {
        let seeds = parse_range(HUNTED).expect("a range");
        assert!(seeds.end - seeds.start < LONG_RUN);
    }
}

//! `tidelog-sim --seed N [--verbose]` runs one world; `--seeds A..B` runs a range of them.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use tidelog_sim::World;

fn main() -> anyhow::Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let verbose = args.iter().any(|arg| arg == "--verbose");
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).cloned()
    };
    let seeds = if let Some(seed) = value("--seed") {
        let seed: u64 = seed.parse().context("--seed takes a number")?;
        seed..seed + 1
    } else if let Some(range) = value("--seeds") {
        let (start, end) = range.split_once("..").context("--seeds takes A..B")?;
        start.parse()?..end.parse()?
    } else {
        bail!("usage: tidelog-sim --seed N [--verbose] | --seeds A..B");
    };
    println!("seeds {}..{}", seeds.start, seeds.end);
    let one = seeds.end - seeds.start == 1;
    let (mut passed, mut failed) = (0_u64, Vec::new());
    for seed in seeds {
        let run = std::panic::catch_unwind(|| World::new(seed, verbose && one).run());
        match run {
            Ok(Ok(outcome)) => {
                passed += 1;
                if one {
                    println!("{}\ntrace {}", outcome.summary, outcome.trace);
                }
            }
            Ok(Err(what)) => {
                println!("seed {seed} FAILED: {what}");
                failed.push(seed);
            }
            Err(_) => {
                println!("seed {seed} FAILED: it panicked");
                failed.push(seed);
            }
        }
    }
    if !failed.is_empty() {
        println!("failed seeds: {failed:?}; replay one with: npm run sim -- --seed N --verbose");
    }
    println!("{passed} passed, {} failed", failed.len());
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

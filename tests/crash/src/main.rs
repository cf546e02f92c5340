//! The command line of `npm run crash`.

use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, bail};
use tidelog_crash::{ImageName, Script};

const USAGE: &str = "\
usage: tidelog-crash                         all scripts
       tidelog-crash --seeds A..B            these scripts
       tidelog-crash --replay SEED:CUT:IMAGE one image";

/// Scripts of a whole run.
const SEEDS: Range<u64> = 0..10;
const TURNS: usize = 16;
/// With fewer images a whole run has not shown what it is for.
const IMAGES_MIN: u64 = 1_000_000;
/// Cuts between two lines that say how far it has come.
const CUTS_A_LINE: usize = 200;

fn main() -> anyhow::Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let holds = match words.as_slice() {
        [] => sweep(SEEDS, IMAGES_MIN),
        ["--seeds", seeds] => {
            let (start, end) = seeds.split_once("..").context(USAGE)?;
            sweep(start.parse()?..end.parse()?, 1)
        }
        ["--replay", image] => replay(image)?,
        _ => bail!(USAGE),
    };
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn script(seed: u64) -> Script {
    Script { seed, turns: TURNS }
}

fn replay(text: &str) -> anyhow::Result<bool> {
    let parts: Vec<&str> = text.split(':').collect();
    let [seed, call, image] = parts.as_slice() else { bail!(USAGE) };
    let name: ImageName = image.parse()?;
    let checked = script(seed.parse()?).cut(call.parse()?).check_one(name);
    match &checked {
        Ok(()) => println!("image {text} holds"),
        Err(what) => println!("image {text} FAILED: {what}"),
    }
    Ok(checked.is_ok())
}

/// How far a sweep has come, for all of its threads.
#[derive(Default)]
struct Progress {
    next: AtomicUsize,
    done: AtomicUsize,
    images: AtomicU64,
    has_failed: AtomicBool,
    failure: Mutex<Option<String>>,
}

/// Checks all images of all cuts of these scripts, at least so many, up to the first that fails.
fn sweep(seeds: Range<u64>, images_min: u64) -> bool {
    println!("scripts {}..{}", seeds.start, seeds.end);
    let began = Instant::now();
    let cuts: Vec<(u64, u64)> =
        seeds.flat_map(|seed| (0..=script(seed).calls()).map(move |call| (seed, call))).collect();
    let progress = Progress::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((seed, call)) =
                    cuts.get(progress.next.fetch_add(1, Ordering::Relaxed))
                    && !progress.has_failed.load(Ordering::Relaxed)
                {
                    one_cut(*seed, *call, cuts.len(), &progress);
                }
            });
        }
    });
    let failure = progress.failure.into_inner().expect("BUG: a thread panicked");
    if let Some(failure) = &failure {
        println!("{failure}");
    }
    println!("{:.0} s", began.elapsed().as_secs_f64());
    let images = progress.images.into_inner();
    if failure.is_none() && images < images_min {
        println!("too few: {images_min} are wanted");
    }
    println!("{images} crash images");
    failure.is_none() && images >= images_min
}

fn one_cut(seed: u64, call: u64, cuts: usize, progress: &Progress) {
    match script(seed).cut(call).check_all() {
        Ok(count) => {
            let images = progress.images.fetch_add(count, Ordering::Relaxed) + count;
            let done = progress.done.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(CUTS_A_LINE) {
                println!("    {done} of {cuts} cuts, {images} images");
            }
        }
        Err((image, what)) => {
            progress.has_failed.store(true, Ordering::Relaxed);
            let mut failure = progress.failure.lock().expect("BUG: a thread panicked");
            failure.get_or_insert_with(|| {
                let name = format!("{seed}:{call}:{image}");
                format!("image {name} FAILED: {what}\nreplay: npm run crash -- --replay {name}")
            });
        }
    }
}

//! The command line of `npm run crash`.

use std::fmt::Display;
use std::ops::Range;
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, bail};
use tidelog_crash::damage::Rest;
use tidelog_crash::{Contents, ImageName, Script};
use tidelog_planted::{Hunt, Look};

const USAGE: &str = "\
usage: tidelog-crash                         all scripts
       tidelog-crash --seeds A..B            these scripts
       tidelog-crash --few                   some damage, and all scripts with few images
       tidelog-crash --replay SEED:CUT:IMAGE one image
       tidelog-crash --replay SEED           one script, without a cut
       tidelog-crash --planted [NAME..]      every planted fault must be found, or these";

/// Scripts of a whole run.
const SEEDS: Range<u64> = 0..30;
const TURNS: usize = 5;
/// A few images of each cut are enough to notice a planted fault.
const HUNT: Hunt<'_> = Hunt {
    folder: "crash",
    package: "tidelog-crash",
    look: Look { args: &["--few"], args_further: None, args_at: &["--replay"] },
    other_worlds: &[],
};
/// With fewer images a whole run has not shown what it is for.
const IMAGES_MIN: u64 = 1_000_000;
/// Images of a cut where only few are looked at.
const FEW: u64 = 24;
/// One bit of the log in so many is flipped where only few are: a prime, so that it is each of a
/// byte in turn.
const FEW_BITS_STEP: usize = 1009;
/// And of its end without a mark.
const FEW_TAIL_BITS_STEP: usize = 43;
/// Cuts between two lines that say how far it has come.
const CUTS_A_LINE: usize = 200;

fn main() -> anyhow::Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let holds = match words.as_slice() {
        [] => sweep(SEEDS, u64::MAX, IMAGES_MIN),
        ["--few"] => damage() && sweep(SEEDS, FEW, 1),
        ["--seeds", seeds] => {
            let (start, end) = seeds.split_once("..").context(USAGE)?;
            sweep(start.parse()?..end.parse()?, u64::MAX, 1)
        }
        ["--planted", names @ ..] => HUNT.check(names)?,
        ["--replay", image] => replay(image)?,
        _ => bail!(USAGE),
    };
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A store at rest is whole without one of the copies of a header, and says what it lacks without a
/// bit of its log.
fn damage() -> bool {
    let judged = catch_unwind(|| {
        let rest = Rest::new(|| 0);
        Ok((
            rest.flip_headers()?,
            rest.flip_each(FEW_BITS_STEP)?,
            Rest::made_again(|| 0).flip_destruction(FEW_TAIL_BITS_STEP)?,
            rest.flip_pairs(FEW_BITS_STEP)?,
            rest.flip_unmarked(FEW_TAIL_BITS_STEP)?,
            Rest::changed_over(|| 0).flip_sealed(FEW_TAIL_BITS_STEP)?,
        ))
    });
    match judged.unwrap_or_else(|_| Err("it panicked".to_owned())) {
        Ok((headers, bits, destruction, pairs, unmarked, sealed)) => {
            println!("damaged headers: {headers}; bits of the log: {bits}; two of them: {pairs}");
            println!("bits of a destruction: {destruction}");
            println!("bits of its end without a mark: {unmarked}; that were sealed: {sealed}");
        }
        Err(what) => {
            println!("damage FAILED: {what}");
            return false;
        }
    }
    true
}

/// The script of a seed, or what does not hold of it even without another cut.
fn script(seed: u64) -> Result<Script, String> {
    let failed = |what| format!("script {seed} FAILED: {what}\n{}", replay_of(seed));
    Script::new(seed, TURNS).map_err(failed)
}

fn replay_of(name: impl Display) -> String {
    format!("replay: npm run crash -- --replay {name}")
}

fn replay(text: &str) -> anyhow::Result<bool> {
    let parts: Vec<&str> = text.split(':').collect();
    let checked = match parts.as_slice() {
        [seed] => script(seed.parse()?)
            .map(|script| println!("script {text} holds: {}", script.contents())),
        [seed, call, image] => {
            let (call, name) = (call.parse()?, image.parse()?);
            let checked = script(seed.parse()?).and_then(|script| {
                let checked = script.cut(call).check_one(name);
                checked.map_err(|what| format!("image {text} FAILED: {what}"))
            });
            checked.map(|()| println!("image {text} holds"))
        }
        _ => bail!(USAGE),
    };
    if let Err(failure) = &checked {
        println!("{failure}");
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
fn sweep(seeds: Range<u64>, images_per_cut: u64, images_min: u64) -> bool {
    println!("scripts {}..{}", seeds.start, seeds.end);
    let began = Instant::now();
    let scripts: Result<Vec<Script>, String> = seeds.map(script).collect();
    let progress = Progress::default();
    let failure = match scripts {
        Ok(scripts) => {
            check(&scripts, images_per_cut, &progress);
            progress.failure.into_inner().expect("BUG: a thread panicked").or_else(|| {
                // A range of one's own may be too small to have everything in it.
                let missing = contents(&scripts).missing();
                let lacks = images_min >= IMAGES_MIN && !missing.is_empty();
                lacks.then(|| format!("the scripts have none of: {missing:?}"))
            })
        }
        Err(failure) => Some(failure),
    };
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

fn contents(scripts: &[Script]) -> Contents {
    let mut contents = Contents::default();
    scripts.iter().for_each(|script| contents += script.contents());
    contents
}

/// Checks all cuts of all scripts, with all threads.
fn check(scripts: &[Script], images_per_cut: u64, progress: &Progress) {
    println!("    {}", contents(scripts));
    let cuts = |script| Script::cuts(script).iter().map(move |call| (script, *call));
    let mut cuts: Vec<(&Script, u64)> = scripts.iter().flat_map(cuts).collect();
    // What only one script can show is not looked at last.
    cuts.sort_by_key(|(_, call)| *call);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((script, call)) =
                    cuts.get(progress.next.fetch_add(1, Ordering::Relaxed))
                    && !progress.has_failed.load(Ordering::Relaxed)
                {
                    let cut = script.cut(*call);
                    let checked = match images_per_cut {
                        u64::MAX => cut.check_all(),
                        few => cut.check_few(few),
                    };
                    let name = format!("{}:{call}", script.seed());
                    progress.note(&name, checked, cuts.len());
                }
            });
        }
    });
}

impl Progress {
    fn note(&self, cut: &str, checked: Result<u64, (ImageName, String)>, cuts: usize) {
        match checked {
            Ok(count) => {
                let images = self.images.fetch_add(count, Ordering::Relaxed) + count;
                let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
                if done.is_multiple_of(CUTS_A_LINE) {
                    println!("    {done} of {cuts} cuts, {images} images");
                }
            }
            Err((image, what)) => {
                self.has_failed.store(true, Ordering::Relaxed);
                let mut failure = self.failure.lock().expect("BUG: a thread panicked");
                failure.get_or_insert_with(|| {
                    let name = format!("{cut}:{image}");
                    format!("image {name} FAILED: {what}\n{}", replay_of(&name))
                });
            }
        }
    }
}

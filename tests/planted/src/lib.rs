//! Faults planted into a copy of the product, each of which its tests have to notice.
//!
//! A simulator, or a sweep, that never fails proves little unless it is known to fail. Each file in
//! a folder `planted/` says which lines of the product to break. One copy is built with all of
//! them, each behind a [switch](switches) that is off; then the copy's own program runs once with
//! each of them on, until something fails, and once with none, which is to fail nowhere.
//!
//! # What this crate does not know
//!
//! What is looked for, and how: it starts a program, and reads a line.

mod copy;
pub mod switches;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::copy::Copied;

/// Says in the environment of a program of the copy which fault is switched on, by its name.
pub const VARIABLE: &str = "TIDELOG_PLANTED";

/// Stands for the product as it is, where names of faults stand.
const NO_FAULT: &str = "no fault";

/// Who looks for the faults.
#[derive(Clone, Copy, Debug)]
pub struct Hunt<'a> {
    /// The folder in `tests/` of the package with the program and its folder `planted/`.
    pub folder: &'a str,
    /// The package, and its program of the same name.
    pub package: &'a str,
    /// Where faults are looked for that [name no other worlds](Fault::worlds).
    pub look: Look<'a>,
    /// By their names the other worlds in which faults are looked for.
    pub other_worlds: &'a [(&'a str, Look<'a>)],
}

/// How a program looks for a fault.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// What the program is asked to do: to look until something fails, and then to print a line
    /// with `FAILED: ` in it.
    pub args: &'a [&'a str],
    /// The same for a fault that is not noticed so, where it is looked for further.
    pub args_further: Option<&'a [&'a str]>,
    /// The same for [where a fault was noticed](Fault::noticed_at) alone, which comes behind.
    pub args_at: &'a [&'a str],
}

/// A change that breaks the product.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Where, from the root of the repository.
    pub file: String,
    /// What is there, exactly once.
    pub from: String,
    /// What stands there instead.
    pub to: String,
    /// Where it was noticed, if that takes long to find: looked at before all else.
    #[serde(default)]
    pub noticed_at: Option<String>,
    /// In which [other worlds](Hunt::other_worlds) of its hunt it is looked for.
    #[serde(default)]
    pub worlds: Option<String>,
}

/// The faults of all hunts, by their names: `FOLDER/FILE`. They are in one copy, so that all hunts
/// share it.
pub(crate) type Faults = BTreeMap<String, Fault>;

impl Hunt<'_> {
    /// Looks for the named faults, or for all, and then without a fault as well. Says whether each
    /// was noticed, and nothing else.
    ///
    /// # Errors
    ///
    /// If there is no such fault, or the copy cannot be built.
    pub fn check(&self, names: &[&str]) -> Result<bool> {
        let root = root()?;
        let faults = faults(&root.join("tests"))?;
        let mut wanted = self.wanted(&faults, names)?;
        if names.is_empty() {
            wanted.push_front(NO_FAULT);
        }
        let copied = copy::build(&root, self.package, &faults)?;

        let (count, failed) = (wanted.len(), AtomicUsize::new(0));
        let queue = Mutex::new(wanted);
        let next = || queue.lock().expect("BUG: a thread panicked").pop_front();
        let look = || {
            while let Some(name) = next() {
                match self.look_for(name, faults.get(name), &copied) {
                    Ok(noticed) => println!("{name}: {noticed}"),
                    Err(error) => {
                        failed.fetch_add(1, Ordering::Relaxed);
                        println!("{name}: FAILED: {error:#}");
                    }
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(look))));
        let failed = failed.into_inner();
        println!("{} passed, {failed} failed", count - failed);
        Ok(failed == 0)
    }

    fn wanted<'a>(&self, faults: &'a Faults, names: &[&str]) -> Result<VecDeque<&'a str>> {
        let prefix = format!("{}/", self.folder);
        let of_this = faults.keys().filter_map(|name| Some((name, name.strip_prefix(&prefix)?)));
        let wanted = of_this.filter(|(_, short)| names.is_empty() || names.contains(short));
        let wanted: VecDeque<&str> = wanted.map(|(name, _)| name.as_str()).collect();
        let is_all = names.is_empty() || wanted.len() == names.len();
        ensure!(is_all && !wanted.is_empty(), "no such fault in tests/{prefix}planted");
        Ok(wanted)
    }

    fn look_in(&self, worlds: Option<&str>) -> Result<Look<'_>> {
        let Some(wanted) = worlds else { return Ok(self.look) };
        let found = self.other_worlds.iter().find(|(name, _)| *name == wanted);
        let (_, look) = found.with_context(|| format!("there are no worlds {wanted:?}"))?;
        Ok(*look)
    }

    /// Says how a fault is noticed, or [none](NO_FAULT) is not.
    ///
    /// # Errors
    ///
    /// If it is not, or cannot be planted any more; or if something fails without a fault.
    fn look_for(&self, name: &str, fault: Option<&Fault>, copied: &Copied) -> Result<String> {
        if let Some(why) = copied.outdated.get(name) {
            bail!("{why}: adapt the fault");
        }
        let package = self.package;
        let Look { args, args_further, args_at } =
            self.look_in(fault.and_then(|fault| fault.worlds.as_deref()))?;
        let look_for = |name: &str, args: &[&str]| -> Result<(ExitStatus, String)> {
            let output = Command::new(&copied.program).args(args).env(VARIABLE, name).output()?;
            Ok((output.status, String::from_utf8_lossy(&output.stdout).into_owned()))
        };
        let look = |args: &[&str]| look_for(name, args);
        let is_failure = |line: &str| line.contains(" FAILED: ");
        let is_noticed = |(_, text): &(ExitStatus, String)| text.lines().any(is_failure);
        let noticed_at = fault.and_then(|fault| fault.noticed_at.as_deref());
        let there = noticed_at.map(|place| look(&[args_at, &[place]].concat())).transpose()?;
        let near = match there.filter(is_noticed) {
            Some(there) => there,
            None => look(args)?,
        };
        let (status, text) = match args_further.filter(|_| fault.is_some() && !is_noticed(&near)) {
            Some(args) => look(args)?,
            None => near,
        };
        let found = text.lines().find(|line| is_failure(line));
        // There nobody has looked whether something fails without the fault.
        let place = found.and_then(|line| line.strip_prefix("seed ")?.split(' ').next());
        if let Some(place) = place.filter(|_| fault.is_some()) {
            let without = look_for(NO_FAULT, &[args_at, &[place]].concat())?;
            ensure!(!is_noticed(&without), "it fails at {place} without the fault as well");
        }
        match found {
            None if name == NO_FAULT && status.success() => Ok("nothing fails".to_owned()),
            Some(line) if name == NO_FAULT => bail!("{line}"),
            Some(line) => Ok(format!(
                "{}\n    {}",
                line.chars().take(150).collect::<String>(),
                text.lines().last().unwrap_or_default()
            )),
            None if status.success() => bail!("{package} {args:?} did not notice it"),
            None => bail!("{package} ended with {status} and no word"),
        }
    }
}

/// The repository.
fn root() -> Result<PathBuf> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?)
}

fn faults(tests: &Path) -> Result<Faults> {
    let mut faults = Faults::new();
    for folder in fs::read_dir(tests)? {
        let folder = folder?.path();
        let Ok(planted) = fs::read_dir(folder.join("planted")) else { continue };
        for entry in planted {
            let path = entry?.path();
            let names = [&folder, &path].map(|it| it.file_stem().unwrap_or_default());
            let [folder, name] = names.map(|it| it.to_string_lossy());
            let text = fs::read_to_string(&path)?;
            let fault = toml::from_str(&text).with_context(|| path.display().to_string())?;
            faults.insert(format!("{folder}/{name}"), fault);
        }
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_can_be_planted() {
        let root = root().expect("a repository");
        let faults = faults(&root.join("tests")).expect("faults");
        assert!(!faults.is_empty());
        let (_, outdated) = copy::broken(&root, &faults).expect("their files");
        assert!(outdated.is_empty(), "adapt these: {outdated:?}");
    }
}

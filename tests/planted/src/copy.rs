//! The copy of the product that has the faults, and how it is built.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::Faults;
use crate::switches::Source;

/// What of the repository goes into the copy.
const COPIED: [&str; 8] = [
    "crates",
    "tests",
    "js/src",
    "js/package.json",
    "js/tsconfig.json",
    "Cargo.toml",
    "Cargo.lock",
    ".cargo",
];

/// A program of the copy.
#[derive(Debug)]
pub(crate) struct Copied {
    pub program: PathBuf,
    /// Why some faults are not in it.
    pub outdated: BTreeMap<String, String>,
}

/// Builds the program of this package in the copy.
pub(crate) fn build(root: &Path, package: &str, faults: &Faults) -> Result<Copied> {
    // This program is <target>/release/<name>.
    let program = std::env::current_exe()?;
    let folder = program.parent().and_then(Path::parent).context("no target folder")?;
    let folder = folder.join("planted");
    let (source, target) = (folder.join("src"), folder.join("target"));
    fs::create_dir_all(&source)?;
    // Another hunt may be about to do the same.
    let lock = File::create(folder.join("lock"))?;
    lock.lock()?;
    let (broken, outdated) = broken(root, faults)?;
    for name in COPIED {
        copy_newer(root, &source, Path::new(name), &broken)?;
    }
    cargo_build(root, &source, &target, package)?;
    Ok(Copied { program: target.join("release").join(package), outdated })
}

/// The files with faults in them, and why some faults are in none.
pub(crate) fn broken(
    root: &Path,
    faults: &Faults,
) -> Result<(BTreeMap<PathBuf, String>, BTreeMap<String, String>)> {
    let (mut broken, mut outdated) = (BTreeMap::new(), BTreeMap::new());
    for file in faults.values().map(|fault| &fault.file).collect::<BTreeSet<_>>() {
        let text = fs::read_to_string(root.join(file)).with_context(|| file.clone())?;
        let mut source = Source::new(file, &text);
        for (name, fault) in faults.iter().filter(|(_, fault)| fault.file == *file) {
            if let Err(why) = source.plant(name, fault) {
                outdated.insert(name.clone(), why.to_string());
            }
        }
        broken.insert(PathBuf::from(file), source.woven());
    }
    Ok((broken, outdated))
}

/// Makes `name` in the copy what it is in the repository, but for the broken files. What is the
/// same already is left alone, so that cargo need not build it again.
fn copy_newer(
    root: &Path,
    copy: &Path,
    name: &Path,
    broken: &BTreeMap<PathBuf, String>,
) -> Result<()> {
    let (from, to) = (root.join(name), copy.join(name));
    if from.is_dir() {
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(&to)? {
            let entry = entry?.file_name();
            if !from.join(&entry).exists() {
                remove(&to.join(&entry))?;
            }
        }
        for entry in fs::read_dir(&from)? {
            let entry = entry?.file_name();
            if entry != "node_modules" {
                copy_newer(root, copy, &name.join(entry), broken)?;
            }
        }
        return Ok(());
    }
    let content = match broken.get(name) {
        Some(broken) => broken.as_bytes().to_vec(),
        None => fs::read(&from)?,
    };
    if fs::read(&to).ok().as_ref() != Some(&content) {
        fs::create_dir_all(to.parent().context("no folder")?)?;
        fs::write(&to, content).with_context(|| to.display().to_string())?;
    }
    Ok(())
}

fn cargo_build(root: &Path, source: &Path, target: &Path, package: &str) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut build = Command::new(cargo);
    // What `cargo run` told this program about itself would make build scripts run again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let of_cargo_run = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
        if of_cargo_run.iter().any(|prefix| text.starts_with(prefix)) {
            build.env_remove(&name);
        }
    }
    build
        .current_dir(source)
        .args(["build", "--quiet", "--release", "--package", package])
        // Building it takes longer than running it.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_INCREMENTAL", "1")
        .env("CARGO_TARGET_DIR", target)
        .env("TIDELOG_TSC", root.join("node_modules/.bin/tsc"))
        // A planted fault may leave something unused.
        .env("RUSTFLAGS", "--cap-lints=allow");
    ensure!(build.status()?.success(), "the copy does not compile");
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.with_context(|| path.display().to_string())
}

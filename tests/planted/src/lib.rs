//! Faults planted into a copy of the product, each of which its tests have to notice.
//!
//! A simulator, or a sweep, that never fails proves little unless it is known to fail. Each file in
//! a folder `planted/` says which lines of the product to break; the copy is built with that one
//! change, and its own program runs until something fails.
//!
//! # What this crate does not know
//!
//! What is looked for, and how: it starts a program, and reads a line.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

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

/// Who looks for the faults.
#[derive(Clone, Copy, Debug)]
pub struct Hunt<'a> {
    /// The folder of the package with the program and its folder `planted/`, from the root of the
    /// repository.
    pub folder: &'a str,
    /// The package, and its program of the same name.
    pub package: &'a str,
    /// What the program is asked to do: to look until something fails, and then to print a line
    /// with `FAILED: ` in it.
    pub args: &'a [&'a str],
}

/// A change that breaks the product.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fault {
    /// Where, from the root of the repository.
    file: String,
    /// What is there, exactly once.
    from: String,
    /// What stands there instead.
    to: String,
}

impl Hunt<'_> {
    /// Plants the named faults, or all, one after the other. Says whether each was noticed.
    ///
    /// # Errors
    ///
    /// If there is no such fault, or nothing can be planted here.
    pub fn check(&self, names: &[&str]) -> Result<bool> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        // This program is <target>/release/<name>.
        let program = std::env::current_exe()?;
        let target = program.parent().and_then(Path::parent).context("no target folder")?;
        let copy = target.join("planted/src");
        let ground = Ground { hunt: *self, copy, target: target.join("planted/target") };

        let faults = faults(&root.join(self.folder).join("planted"), names)?;
        let mut unnoticed = 0;
        for (name, fault) in &faults {
            println!("{name}: one fault in {}", fault.file);
            if let Err(error) = ground.is_noticed(&root, fault) {
                unnoticed += 1;
                println!("{name}: FAILED: {error:#}");
            }
        }
        println!("{} passed, {unnoticed} failed", faults.len() - unnoticed);
        Ok(unnoticed == 0)
    }
}

/// The faults in `folder`, sorted by the files that they change, so that little is built again.
fn faults(folder: &Path, names: &[&str]) -> Result<Vec<(String, Fault)>> {
    let mut faults: Vec<(String, Fault)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if names.is_empty() || names.contains(&name.as_str()) {
            let text = fs::read_to_string(&path)?;
            let fault = toml::from_str(&text).with_context(|| path.display().to_string())?;
            faults.push((name, fault));
        }
    }
    ensure!(!faults.is_empty(), "no such fault in {}", folder.display());
    faults.sort_by(|(a, left), (b, right)| (&left.file, a).cmp(&(&right.file, b)));
    Ok(faults)
}

/// Where faults are planted.
struct Ground<'a> {
    hunt: Hunt<'a>,
    copy: PathBuf,
    target: PathBuf,
}

impl Ground<'_> {
    /// # Errors
    ///
    /// If it is not noticed, or cannot be planted any more.
    fn is_noticed(&self, root: &Path, fault: &Fault) -> Result<()> {
        let product = fs::read_to_string(root.join(&fault.file)).context(fault.file.clone())?;
        let found = product.matches(&fault.from).count();
        ensure!(found == 1, "{} has its lines {found} times: adapt the fault", fault.file);
        let broken = product.replacen(&fault.from, &fault.to, 1);

        for name in COPIED {
            self.copy_newer(root, Path::new(name), Some((Path::new(&fault.file), &broken)))?;
        }
        self.build(root)?;

        let Hunt { package, args, .. } = self.hunt;
        let mut program = Command::new(self.target.join("release").join(package));
        let output = program.args(args).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let failure = text.lines().find(|line| line.contains(" FAILED: "));
        match failure {
            Some(line) => {
                println!("    noticed: {}", line.chars().take(150).collect::<String>());
                println!("    {}", text.lines().last().unwrap_or_default());
            }
            None if output.status.success() => bail!("{package} {args:?} did not notice it"),
            None => bail!("{package} ended with {} and no word", output.status),
        }
        Ok(())
    }

    /// Makes `name` in the copy what it is in the repository, but for the broken file. What is the
    /// same already is left alone, so that cargo need not build it again.
    fn copy_newer(&self, root: &Path, name: &Path, broken: Option<(&Path, &str)>) -> Result<()> {
        let (from, to) = (root.join(name), self.copy.join(name));
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
                    self.copy_newer(root, &name.join(entry), broken)?;
                }
            }
            return Ok(());
        }
        let content = match broken {
            Some((file, broken)) if file == name => broken.as_bytes().to_vec(),
            _ => fs::read(&from)?,
        };
        if fs::read(&to).ok().as_ref() != Some(&content) {
            fs::write(&to, content).with_context(|| to.display().to_string())?;
        }
        Ok(())
    }

    fn build(&self, root: &Path) -> Result<()> {
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
            .current_dir(&self.copy)
            .args(["build", "--quiet", "--release", "--package", self.hunt.package])
            // Building it takes longer than running it.
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_INCREMENTAL", "1")
            .env("CARGO_TARGET_DIR", &self.target)
            .env("TIDELOG_TSC", root.join("node_modules/.bin/tsc"))
            // A planted fault may leave something unused.
            .env("RUSTFLAGS", "--cap-lints=allow");
        ensure!(build.status()?.success(), "the copy does not compile with it");
        Ok(())
    }
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.with_context(|| path.display().to_string())
}

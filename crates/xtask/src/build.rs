//! From sources to what is published: the npm package in `js/` and the server's binary.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::repo::{Repo, Stamp};
use crate::report::Report;
use crate::setup::{self, Needs};
use crate::{run, wasm};

/// The apps in `examples/`.
pub const EXAMPLES: [&str; 2] = ["todo", "music"];

/// `cargo xtask build`.
pub fn command(repo: &Repo) -> Result<()> {
    let mut report = Report::default();
    if report.step("setup", || setup::setup(repo, Needs::Build)) {
        build(repo, &mut report);
    }
    report.finish(false)
}

/// Builds the package and the server as steps of `report`. Says whether both are there.
pub fn build(repo: &Repo, report: &mut Report) -> bool {
    report.step("wasm", || wasm::build(repo, wasm::Size::Smallest))
        && report.step("npm package", || package(repo))
        && report.step("server", || server(repo))
}

/// Compiles js/ into js/dist, and the workers' entry points into js/dist/worker.
pub fn package(repo: &Repo) -> Result<()> {
    for project in ["js", "worker"] {
        run::succeed(run::program(repo.npm_bin("tsc"), &repo.root).args(["-p", project]))?;
    }
    name_build(&repo.root.join("js/dist"))
}

/// What stands for the build in a release's name until there is one.
const NO_BUILD: &str = "+00000000";

/// Names the build after what is in it: tabs of two builds of one release must not share a core,
/// since nothing says that they understand each other.
fn name_build(dist: &Path) -> Result<()> {
    let mut hasher = DefaultHasher::new();
    let mut named = Vec::new();
    for folder in ["", "wasm", "worker"].map(|name| dist.join(name)) {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|it| it == "js" || it == "wasm"));
        files.sort();
        for file in files {
            let content = fs::read(&file)?;
            (file.file_name(), &content).hash(&mut hasher);
            if let Ok(text) = String::from_utf8(content)
                && text.contains(NO_BUILD)
            {
                named.push((file, text));
            }
        }
    }
    let build = format!("+{:08x}", hasher.finish() >> 32);
    for (file, text) in named {
        fs::write(file, text.replace(NO_BUILD, &build))?;
    }
    Ok(())
}

/// The server's binary.
pub fn server(repo: &Repo) -> Result<()> {
    let mut cargo = run::cargo(&repo.root, "build");
    run::succeed(cargo.args(["--quiet", "--release", "--package", "tidelog-server"]))?;
    let built = repo.target.join("release/tidelog");
    let promised = repo.server();
    if built != promised {
        replace(&built, &promised)?;
    }
    Ok(())
}

/// Copies beside the old one and renames, since the old one may be running.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("BUG: the server lies in a folder")?;
    fs::create_dir_all(folder)?;
    let beside = to.with_extension("new");
    fs::copy(from, &beside).with_context(|| format!("cannot copy {from:?}"))?;
    fs::rename(&beside, to)?;
    Ok(())
}

/// Builds the examples into `examples/*/dist`, those whose sources or whose package have changed.
pub fn examples(repo: &Repo) -> Result<()> {
    for name in EXAMPLES {
        let folder = repo.root.join("examples").join(name);
        if !folder.join("package.json").is_file() {
            bail!("examples/{name} has no package.json");
        }
        let stamp = Stamp::new(repo, &format!("example-{name}"))
            .path(&folder)?
            .path(&repo.root.join("examples/shared"))?
            .path(&repo.root.join("js/dist"))?
            .path(&repo.root.join("package-lock.json"))?;
        if stamp.is_fresh() && folder.join("dist/index.html").is_file() {
            continue;
        }
        let mut npm = run::program("npm", &repo.root);
        run::succeed(npm.args(["run", "--silent", "build", "--workspace"]).arg(&folder))?;
        stamp.save()?;
    }
    Ok(())
}

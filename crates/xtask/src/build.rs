//! From sources to what is published: the npm package in `js/` and the server's binary.

use std::fs;
use std::path::Path;

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
    Ok(())
}

fn server(repo: &Repo) -> Result<()> {
    let mut cargo = run::cargo(&repo.root);
    run::succeed(cargo.args(["build", "--quiet", "--release", "--package", "tidelog-server"]))?;
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

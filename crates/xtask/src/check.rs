//! The fast part of the tests: format, lints, layers, types and unit tests.

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::repo::Repo;
use crate::report::{self, Outcome, Report, Tally};
use crate::setup::{self, Needs};
use crate::wasm::MODULES;
use crate::{build, layers, run, tidy};

/// `cargo xtask check`.
pub fn command(repo: &Repo) -> Result<()> {
    let mut report = Report::default();
    if report.step("setup", || setup::setup(repo, Needs::Build)) {
        check(repo, &mut report);
    }
    report.finish(true)
}

/// All fast checks, as steps of `report`; each runs whatever became of those before it.
pub fn check(repo: &Repo, report: &mut Report) {
    report.step("format of Rust", || cargo(repo, "fmt", &["--all", "--check"]));
    report.step("layers", || layers::check(repo));
    report.step("tidy", || tidy::check(repo));
    report.step("lints of Rust", || {
        // Apart, since cargo would unite the features of their dependencies and compile them twice.
        lint(repo, &["--workspace", "--exclude", "xtask", "--all-targets"])?;
        lint(repo, &["--package", "xtask", "--all-targets"])?;
        // As it ships: what tests bring along may have features that it lacks.
        lint(repo, &["--package", "tidelog-server", "--bins"])
    });
    report.step("lints of Rust for WebAssembly", || {
        let target = ["--target", "wasm32-unknown-unknown"];
        lint(repo, &[&["--package", "tidelog-world"], &target[..]].concat())?;
        MODULES.iter().try_for_each(|(feature, _)| {
            let features = ["--no-default-features", "--features", feature];
            lint(repo, &[&["--package", "tidelog-browser"], &target[..], &features].concat())
        })
    });
    report.step("docs of Rust", || docs(repo));
    report.step("format and lints of TypeScript", || biome(repo));
    report.step("types of TypeScript", || types(repo));
    report.suite("unit tests of Rust", || {
        let mut outcome = cargo_test(repo, &["--workspace", "--exclude", "xtask"])?;
        outcome += cargo_test(repo, &["--package", "xtask"])?;
        Ok(outcome)
    });
    report.suite("unit tests of TypeScript", || vitest(repo));
}

fn cargo(repo: &Repo, name: &str, args: &[&str]) -> Result<()> {
    run::succeed(run::cargo(&repo.root, name).args(args))
}

fn lint(repo: &Repo, args: &[&str]) -> Result<()> {
    cargo(repo, "clippy", &[&["--quiet"], args, &["--", "-D", "warnings"]].concat())
}

/// Links in comments that lead nowhere.
fn docs(repo: &Repo) -> Result<()> {
    let mut cargo = run::cargo(&repo.root, "doc");
    // What the lints have looked at is there; xtask has dependencies of its own.
    cargo.args(["--quiet", "--workspace", "--exclude", "xtask"]);
    cargo.args(["--no-deps", "--document-private-items"]);
    run::succeed(cargo.env("RUSTDOCFLAGS", "-D warnings"))
}

/// What deny.toml says, but for advisories: those are elsewhere, and change without us.
pub fn dependencies(repo: &Repo) -> Result<()> {
    let deny = setup::cargo_deny(repo)?;
    let mut deny = run::program(deny, &repo.root);
    run::succeed(deny.args(["--locked", "check", "licenses", "bans", "sources"]))
}

fn cargo_test(repo: &Repo, args: &[&str]) -> Result<Outcome> {
    let mut cargo = run::cargo(&repo.root, "test");
    cargo.args(["--quiet", "--no-fail-fast"]).args(args);
    let (succeeded, lines) = run::lines_of(&mut cargo)?;
    report::judge_cargo(succeeded, &lines)
}

fn biome(repo: &Repo) -> Result<()> {
    let folders = ["js", "worker", "create", "docs", "examples", "tests"];
    let present: Vec<_> = folders.iter().filter(|name| repo.root.join(name).is_dir()).collect();
    if present.is_empty() {
        bail!("there is no TypeScript to check");
    }
    let mut biome = run::program(repo.npm_bin("biome"), &repo.root);
    run::succeed(biome.args(["check", "--error-on-warnings"]).args(present))
}

/// The package first: the others read its declarations.
fn types(repo: &Repo) -> Result<()> {
    build::package(repo)?;
    let tests = ["js/test", "create/test", "tests/browser", "tests/bench"].map(str::to_owned);
    let examples = build::EXAMPLES.map(|name| format!("examples/{name}"));
    for folder in tests.into_iter().chain(examples) {
        if repo.root.join(&folder).join("tsconfig.json").is_file() {
            let mut tsc = run::program(repo.npm_bin("tsc"), &repo.root);
            run::succeed(tsc.args(["--noEmit", "-p", &folder]))?;
        }
    }
    Ok(())
}

/// Files named `*.test.ts` below `folder`.
fn unit_tests_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && name != "node_modules" && name != "dist" {
            found.extend(unit_tests_below(&path));
        } else if name.ends_with(".test.ts") {
            found.push(path);
        }
    }
    found
}

fn vitest(repo: &Repo) -> Result<Outcome> {
    let folders =
        ["js", "worker", "create", "examples", "tests/bench"].map(|name| repo.root.join(name));
    let files: Vec<_> = folders.iter().flat_map(|folder| unit_tests_below(folder)).collect();
    if files.is_empty() {
        bail!("there are no unit tests in js, worker, create, examples and tests/bench");
    }
    let result = env::temp_dir().join(format!("tidelog-vitest-{}.json", std::process::id()));
    let mut vitest = run::program(repo.npm_bin("vitest"), &repo.root);
    vitest.args(["run", "--reporter=default", "--reporter=json"]);
    vitest.arg(format!("--outputFile.json={}", result.display())).args(files);
    let (succeeded, lines) = run::lines_of(&mut vitest)?;
    let counts: serde_json::Value = serde_json::from_slice(&fs::read(&result)?)?;
    fs::remove_file(&result)?;
    let count = |name: &str| counts[name].as_u64().unwrap_or(0);
    let tally = Tally { passed: count("numPassedTests"), failed: count("numFailedTests") };
    report::judge(succeeded, tally, || report::last_lines(&lines))
}

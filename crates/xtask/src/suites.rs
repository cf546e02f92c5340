//! `cargo xtask test`: every check and every suite. A suite that ran no test has failed.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

use crate::repo::Repo;
use crate::report::{self, Outcome, Report};
use crate::setup::{self, Needs};
use crate::{build, check, crash, run, start};

/// What can be asked for by name.
pub const NAMES: [&str; 10] = [
    "check", "licenses", "wasm", "sim", "planted", "stranger", "node", "browser", "bundlers",
    "webkit",
];

/// What runs only where it is asked for: it says nothing of what most changes change, and takes
/// long, since a tool or a copy of the product is compiled first.
const ASKED_FOR: [&str; 2] = ["licenses", "planted"];

/// What runs programs of the product.
const OF_PROGRAMS: [&str; 7] = ["wasm", "sim", "stranger", "node", "browser", "bundlers", "webkit"];

/// Crates with tests that run inside browsers' workers.
const BROWSER_CRATES: [&str; 2] = ["tidelog-sqlite", "tidelog-browser"];

/// The package whose tests in browsers compare what seeds give there with what they give natively.
const SIMULATOR: &str = "tidelog-sim";

/// So many of the simulator's seeds, from the first.
const COMPARED_SEEDS: u64 = 100;

/// The seeds of each run, the same each time; TIDELOG_SIM_SEEDS asks for so many fresh ones.
const SIM_SEEDS: Range<u64> = 0..2_000;

/// Those of worlds with tasks, which take three times as long each.
const SIM_TASK_SEEDS: Range<u64> = 60_000..60_120;

/// Those of worlds that have runs of a workflow as well.
const SIM_RUN_SEEDS: Range<u64> = 70_000..70_050;

/// Runs the named suites, or all. The last line printed is `N passed, M failed`.
pub fn test(repo: &Repo, names: &[&str]) -> Result<()> {
    let wanted = |name: &str| match names {
        [] if ASKED_FOR.contains(&name) => false,
        [] => name != "webkit" || cfg!(target_os = "linux"),
        names => names.contains(&name),
    };
    let mut report = Report::default();
    let needs = if wanted("webkit") { Needs::WebKit } else { Needs::Browsers };
    if !report.step("setup", || setup::setup(repo, needs)) {
        return report.finish(true);
    }
    if wanted("check") {
        check::check(repo, &mut report);
    }
    if wanted("licenses") {
        report.step("licenses and sources of dependencies", || check::dependencies(repo));
    }
    if OF_PROGRAMS.into_iter().any(wanted) && !report.step("programs", || build::programs(repo)) {
        return report.finish(true);
    }
    if wanted("wasm") {
        wasm(repo, &mut report);
    }
    if wanted("sim") {
        report.suite("simulator", || sim(repo, "--seeds", SIM_SEEDS));
        report.suite("simulator, with tasks", || sim(repo, "--tasks", SIM_TASK_SEEDS));
        report.suite("simulator, with runs", || sim(repo, "--runs", SIM_RUN_SEEDS));
    }
    if wanted("planted") {
        report.suite("faults planted for the simulator", || {
            planted(start::simulator(repo, "release"))
        });
        report.suite("faults planted for the crash sweep", || planted(crash::sweep(repo)));
    }
    if wanted("stranger") {
        report.suite("a stranger's client", || scripts(repo, "tests/stranger", 1));
    }
    let needs_package = ["node", "browser", "bundlers", "webkit"].into_iter().any(wanted);
    if needs_package && build::packages(repo, &mut report) {
        if wanted("node") {
            report.suite("Node, end to end", || scripts(repo, "tests/node", 2));
        }
        if wanted("browser") && report.step("examples", || build::examples(repo)) {
            report.suite("browsers, end to end", || scripts(repo, "tests/browser", 2));
        }
        if wanted("bundlers") && report.step("bundlers", || setup::bundlers(repo)) {
            report.suite("bundlers, end to end", || scripts(repo, "tests/bundlers", 1));
        }
        if wanted("webkit") {
            report.suite("WebKit, end to end", || scripts(repo, "tests/webkit", 1));
        }
    }
    report.finish(true)
}

/// Rust's own tests in both browsers; each test binary says in which kind of worker it runs.
fn wasm(repo: &Repo, report: &mut Report) {
    for package in BROWSER_CRATES {
        in_workers(repo, report, package, || {
            let mut cargo = cargo_test(repo, package)?;
            cargo.args(["--lib", "--tests"]);
            Ok(cargo)
        });
    }
    let mut traces = String::new();
    let is_known = report.step("traces of the simulator", || {
        traces = native_traces(repo)?;
        Ok(())
    });
    if is_known {
        in_workers(repo, report, SIMULATOR, || {
            let mut cargo = cargo_test(repo, SIMULATOR)?;
            // Compiled as what browsers download.
            cargo.args(["--test", "browser", "--profile", "wasm"]);
            cargo.env("TIDELOG_SIM_TRACES", &traces);
            Ok(cargo)
        });
    }
}

/// Lines of a seed and the hash of all that happened in its world.
fn native_traces(repo: &Repo) -> Result<String> {
    let Range { start, .. } = SIM_SEEDS;
    let seeds = format!("{start}..{}", start + COMPARED_SEEDS);
    let mut simulator = simulator(repo);
    let traces = run::stdout_of(simulator.args(["--traces", &seeds]));
    let traces =
        traces.with_context(|| format!("one of the seeds {seeds} fails: npm test -- sim"))?;
    ensure!(traces.lines().count() as u64 == COMPARED_SEEDS, "not a line for each of {seeds}");
    Ok(traces)
}

fn in_workers(
    repo: &Repo,
    report: &mut Report,
    package: &str,
    tests: impl Fn() -> Result<Command>,
) {
    let compiled =
        report.step(&format!("{package} for browsers"), || run::succeed(tests()?.arg("--no-run")));
    if !compiled {
        return;
    }
    for browser in ["Chromium", "Firefox"] {
        report.suite(&format!("{package} in workers of {browser}"), || {
            let mut cargo = tests()?;
            if browser == "Firefox" {
                let driver = setup::geckodriver(repo).context("geckodriver is missing")?;
                cargo.env("GECKODRIVER", driver).env_remove("CHROMEDRIVER");
            } else {
                let driver = env::var_os("CHROMEDRIVER").unwrap_or_else(|| "chromedriver".into());
                cargo.env("CHROMEDRIVER", driver).env_remove("GECKODRIVER");
            }
            let (succeeded, lines) = run::lines_of(&mut cargo)?;
            report::judge_cargo(succeeded, &lines)
        });
    }
}

fn cargo_test(repo: &Repo, package: &str) -> Result<Command> {
    let runner = format!("{} test-runner", env::current_exe()?.display());
    let mut cargo = run::cargo(&repo.root, "test");
    cargo
        .args(["--no-fail-fast", "--target", "wasm32-unknown-unknown", "--package", package])
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER", runner)
        .env("WASM_BINDGEN_TEST_WEBDRIVER_JSON", repo.root.join("tests/webdriver.json"))
        // Most pages are not cross-origin isolated, so neither are the tests.
        .env("WASM_BINDGEN_TEST_NO_ORIGIN_ISOLATION", "1")
        .env("WASM_BINDGEN_TEST_DRIVER_TIMEOUT", "60")
        .env("WASM_BINDGEN_TEST_TIMEOUT", "300");
    Ok(cargo)
}

/// The same seeds each time, so that a run says something of what changed; or as many as
/// TIDELOG_SIM_SEEDS says that no run had before, by the clock. The simulator prints those that
/// failed.
fn sim(repo: &Repo, worlds: &str, known: Range<u64>) -> Result<Outcome> {
    let Range { start, end } = match env::var("TIDELOG_SIM_SEEDS") {
        Ok(text) => {
            let count: u64 = text.parse().context("TIDELOG_SIM_SEEDS is no number")?;
            let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
            let start = u64::try_from(now_ms)?;
            start..start + count
        }
        Err(_) => known,
    };
    let seeds = format!("{start}..{end}");
    println!("    seeds {seeds}");
    let mut simulator = simulator(repo);
    let (succeeded, lines) = run::lines_of(simulator.args([worlds, &seeds]))?;
    report::judge_summary(succeeded, &lines)
}

/// As [`build::programs`] has built it.
fn simulator(repo: &Repo) -> Command {
    run::program(repo.target.join("release/tidelog-sim"), &repo.root)
}

/// Each fault planted in a copy of the product has to be noticed.
fn planted(mut program: Command) -> Result<Outcome> {
    let (succeeded, lines) = run::lines_of(program.arg("--planted"))?;
    report::judge_summary(succeeded, &lines)
}

/// The scripts in a folder, which know of the product what is public: so many at a time, which is
/// more than one where they wait for most of their time.
fn scripts(repo: &Repo, folder: &str, at_once: usize) -> Result<Outcome> {
    let scripts = scripts_in(&repo.root.join(folder));
    if scripts.is_empty() {
        bail!("there are no tests in {folder}");
    }
    let mut node = run::program("node", &repo.root);
    start::browsers(repo, &mut node);
    // A test that failed may have left something open: the run ends all the same.
    node.args(["--test", "--test-force-exit", "--test-reporter=spec"]);
    node.arg(format!("--test-concurrency={at_once}"));
    node.args(scripts);
    let (succeeded, lines) = run::lines_of(&mut node)?;
    report::judge_node(succeeded, &lines)
}

fn scripts_in(folder: &Path) -> Vec<PathBuf> {
    let folder = fs::read_dir(folder);
    let mut scripts: Vec<PathBuf> =
        folder.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    scripts.retain(|path| path.to_string_lossy().ends_with(".test.mjs"));
    scripts.sort();
    scripts
}

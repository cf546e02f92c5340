//! Commands that end in running something that was built: the server, the benchmarks, the
//! simulator.

use std::process::Command;

use anyhow::{Context, Result};

use crate::repo::Repo;
use crate::report::Report;
use crate::setup::{self, Needs};
use crate::{build, run, wasm};

const LISTEN: &str = "127.0.0.1:8787";

/// `cargo xtask start`: a server on its embedded store that also serves the examples.
pub fn start(repo: &Repo, args: &[String]) -> Result<()> {
    let mut report = Report::default();
    let built = report.step("setup", || setup::setup(repo, Needs::Build))
        && build::build(repo, &mut report)
        && report.step("examples", || build::examples(repo));
    if !built {
        return report.finish(false);
    }
    let given = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1)
    };
    let listen = given("--listen").map_or(LISTEN, String::as_str);
    let data = given("--data").map_or(".tidelog", String::as_str);
    println!();
    for name in build::EXAMPLES {
        println!("    http://{listen}/{name}/");
    }
    println!("\n    Ctrl-C stops; what was written stays in {data}\n");

    let mut server = run::program(repo.server(), &repo.root);
    server.args(["serve", "--dev", "--serve", "examples"]);
    for (name, value) in [("--data", data), ("--listen", listen)] {
        if given(name).is_none() {
            server.args([name, value]);
        }
    }
    become_program(server.args(args))
}

/// `cargo xtask bench`.
pub fn bench(repo: &Repo, args: &[String]) -> Result<()> {
    let mut report = Report::default();
    let built = report.step("setup", || setup::setup(repo, Needs::Browsers))
        && build::build(repo, &mut report)
        && report.step("wasm of the benchmarks", || wasm::build_bench(repo));
    if !built {
        return report.finish(false);
    }
    let mut node = run::program("node", &repo.root);
    browsers(repo, &mut node);
    become_program(node.arg("tests/bench/run.mjs").args(args))
}

/// `cargo xtask sim`. Its tabs run what the package's tabs do, which has to be compiled.
pub fn sim(repo: &Repo, args: &[String]) -> Result<()> {
    setup::setup(repo, Needs::Build)?;
    become_program(simulator(repo, "long").args(args))
}

/// The simulator, built with this profile, to be given its arguments.
pub fn simulator(repo: &Repo, profile: &str) -> Command {
    let mut cargo = run::cargo(&repo.root, "run");
    cargo.args(["--quiet", "--profile", profile, "--package", "tidelog-sim", "--"]);
    cargo
}

/// Tells scripts in tests/ where the browsers and the server are.
pub fn browsers(repo: &Repo, command: &mut Command) {
    command.env("TIDELOG_SERVER", repo.server());
    for (name, browser) in
        [("TIDELOG_CHROMIUM", setup::chromium()), ("TIDELOG_FIREFOX", setup::firefox())]
    {
        if let Some(browser) = browser {
            command.env(name, browser);
        }
    }
    if let Some(driver) = setup::geckodriver(repo) {
        command.env("GECKODRIVER", driver);
    }
}

/// Lets the program take our place, so that Ctrl-C and the exit code are its own.
#[cfg(unix)]
pub fn become_program(command: &mut Command) -> Result<()> {
    use std::os::unix::process::CommandExt;

    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {:?}", command.get_program()))
}

#[cfg(not(unix))]
pub fn become_program(command: &mut Command) -> Result<()> {
    let status =
        command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !status.success() {
        anyhow::bail!("it ended with {status}");
    }
    Ok(())
}

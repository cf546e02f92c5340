//! `cargo xtask crash`: what a store has to survive, all of it. And `golden`: what of it is kept.

use std::process::Command;

use anyhow::{Result, bail};

use crate::repo::Repo;
use crate::report::Report;
use crate::setup::{self, Needs};
use crate::start::{become_program, browsers};
use crate::{build, run};

const POWER_CUT: &str = "tests/power/power-cut.test.mjs";

/// Damage, a real power cut, and at last the crash images, whose count is the last line. With
/// arguments only what they ask for.
pub fn crash(repo: &Repo, args: &[String]) -> Result<()> {
    if args.is_empty() {
        let mut report = Report::default();
        let holds = report.step("damage", || run::succeed(&mut program(repo, "tidelog-damage")))
            && power_cut(repo, &mut report);
        if !holds {
            return report.finish(false);
        }
        println!("==> crash images");
    }
    become_program(sweep(repo).args(args))
}

/// `cargo xtask golden`: what lies in tests/golden of the present versions, written anew.
pub fn golden(repo: &Repo) -> Result<()> {
    // What a corpus begins with is made of the golden files.
    let writers: [(&str, &[&str]); 5] = [
        ("tidelog-pages", &["--test", "golden"]),
        ("tidelog-sync", &["--test", "golden"]),
        ("tidelog-client", &["--lib"]),
        ("tidelog-room", &["--lib"]),
        ("tidelog-crash", &["--test", "corpus"]),
    ];
    for (package, tests) in writers {
        let mut cargo = run::cargo(&repo.root, "test");
        cargo.args(["--quiet", "--package", package]).args(tests);
        run::succeed(cargo.args(["--", "--ignored", "write_the"]))?;
    }
    Ok(())
}

/// The sweep over crash images, to be given its arguments.
pub fn sweep(repo: &Repo) -> Command {
    program(repo, "tidelog-crash")
}

fn program(repo: &Repo, name: &str) -> Command {
    let mut cargo = run::cargo(&repo.root, "run");
    cargo.args(["--quiet", "--release", "--package", "tidelog-crash", "--bin", name, "--"]);
    cargo
}

/// Says why, where there can be none.
fn power_cut(repo: &Repo, report: &mut Report) -> bool {
    if let Some(obstacle) = obstacle() {
        println!("==> power cut under a browser: skipped, {obstacle}");
        return true;
    }
    report.step("setup", || setup::setup(repo, Needs::Browsers))
        && build::build(repo, report)
        && report.step("power cut under a browser", || cut_power(repo))
}

fn cut_power(repo: &Repo) -> Result<()> {
    let mut node = run::program("node", &repo.root);
    browsers(repo, &mut node);
    node.args(["--test", "--test-force-exit", "--test-reporter=spec", POWER_CUT]);
    let (succeeded, lines) = run::lines_of(&mut node)?;
    let tally = crate::report::count_node_tests(&lines);
    if !succeeded || tally.passed == 0 || tally.failed > 0 {
        bail!("the power cut: {tally}");
    }
    Ok(())
}

/// Why no file system can be mounted here.
fn obstacle() -> Option<String> {
    let id = run::stdout_of(Command::new("id").arg("-u")).unwrap_or_default();
    if id.trim() != "0" {
        return Some("which needs root, to mount a file system".to_owned());
    }
    let missing = ["mkfs.ext4", "losetup", "mount"].into_iter().find(|name| !run::on_path(name));
    missing.map(|name| format!("which needs {name}"))
}

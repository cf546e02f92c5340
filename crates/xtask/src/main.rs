//! The repository's commands: `cargo xtask <command>`; the npm scripts have the same names.
//!
//! # Where to start reading
//!
//! - [`COMMANDS`]: what there is.
//! - [`setup`]: what is installed, and how it is told to be there already.
//! - [`build`], [`wasm`]: from sources to the npm package and the server's binary.
//! - [`check`], [`suites`]: what must hold; a suite that ran no test has failed.
//! - [`layers`], [`tidy`]: the rules of this repository that no compiler knows.
//! - [`tools`]: wasm-bindgen's two programs, compiled in, so that their version is in Cargo.lock.
//!
//! # What this crate does not know
//!
//! The product. It names crates and folders, and never links them.

mod amalgamation;
mod bindings;
mod build;
mod check;
mod crash;
mod imports;
mod layers;
mod repo;
mod report;
mod run;
mod setup;
mod start;
mod suites;
mod tidy;
mod tools;
mod wasm;

use std::process::ExitCode;

use anyhow::Result;

use crate::repo::Repo;

const COMMANDS: &str = "\
cargo xtask <command>

  start [ARGS]     build all, serve the examples on http://127.0.0.1:8787; ARGS go to the server
  test [SUITE..]   every check and test; SUITE is any of: check, wasm, sim, stranger, node,
                   browser, bundlers, webkit; and licenses, planted, which run by name alone
  check            the fast part of test
  build            the npm package in js/ and the server at target/release/tidelog
  bench [ARGS]     the benchmarks, with the peers in the same run; --storage: the store alone
  sim ARGS         the simulator: --seed N replays one seed, --seeds A..B runs a range
  crash [ARGS]     every crash image of the store, all damage, and, as root, a real power cut;
                   --replay SEED:CUT:IMAGE is one image again, --planted [NAME..] the faults
                   planted for it
  golden           the golden files of the present formats, written anew: a change of a format

  setup [--browsers]   install what is missing; quick when nothing is
  wasm [--fast]        the npm package alone; --fast leaves out wasm-opt
  bindgen ARGS         wasm-bindgen
  test-runner ARGS     wasm-bindgen-test-runner
  install-links [DIR]  link both under their own names, for wasm-pack";

fn main() -> ExitCode {
    if let Some(result) = tools::run_by_own_name() {
        return exit_code(result);
    }
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    match dispatch(&command, &args) {
        Some(result) => exit_code(result),
        None => {
            eprintln!("{COMMANDS}");
            ExitCode::from(if matches!(command.as_str(), "help" | "--help" | "-h") { 0 } else { 2 })
        }
    }
}

/// `None` if there is no such command, or it takes no such arguments.
fn dispatch(command: &str, args: &[String]) -> Option<Result<()>> {
    let flags: Vec<&str> = args.iter().map(String::as_str).collect();
    Some(match (command, flags.as_slice()) {
        ("bindgen", _) => tools::bindgen(args),
        ("test-runner", _) => tools::test_runner(args),
        ("start", _) => Repo::find().and_then(|repo| start::start(&repo, args)),
        ("test", suites) if suites.iter().all(|name| suites::NAMES.contains(name)) => {
            Repo::find().and_then(|repo| suites::test(&repo, suites))
        }
        ("check", []) => Repo::find().and_then(|repo| check::command(&repo)),
        ("build", []) => Repo::find().and_then(|repo| build::command(&repo)),
        ("bench", _) => Repo::find().and_then(|repo| start::bench(&repo, args)),
        ("crash", _) => Repo::find().and_then(|repo| crash::crash(&repo, args)),
        ("golden", []) => Repo::find().and_then(|repo| crash::golden(&repo)),
        ("sim", _) => Repo::find().and_then(|repo| start::sim(&repo, args)),
        ("setup", []) => Repo::find().and_then(|repo| setup::setup(&repo, setup::Needs::Build)),
        ("setup", ["--browsers"]) => {
            Repo::find().and_then(|repo| setup::setup(&repo, setup::Needs::Browsers))
        }
        ("wasm", []) => Repo::find().and_then(|repo| wasm::command(&repo, wasm::Size::Smallest)),
        ("wasm", ["--fast"]) => {
            Repo::find().and_then(|repo| wasm::command(&repo, wasm::Size::AsCompiled))
        }
        ("install-links", []) => {
            Repo::find().and_then(|repo| tools::install_links(&repo.cache.join("bin")))
        }
        ("install-links", [dir]) => tools::install_links(dir.as_ref()),
        _ => return None,
    })
}

fn exit_code(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is::<report::Reported>() {
                eprintln!("error: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

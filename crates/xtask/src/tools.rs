//! wasm-bindgen's programs, as parts of this one.
//!
//! As a library of the same release as the crates that it works on, it cannot be of another
//! version, and building it costs a third of installing it.

use std::ffi::OsString;
use std::path::Path;
use std::{env, fs};

use anyhow::{Context, Result};
use wasm_bindgen_cli::{wasm_bindgen, wasm_bindgen_test_runner};

const BINDGEN: &str = "wasm-bindgen";
const TEST_RUNNER: &str = "wasm-bindgen-test-runner";

/// Acts as the tool whose name this program was called by, if it was.
pub fn run_by_own_name() -> Option<Result<()>> {
    let mut args = env::args_os();
    let name = args.next()?;
    match Path::new(&name).file_stem()?.to_str()? {
        BINDGEN => Some(wasm_bindgen::run_cli_with_args(env::args_os())),
        TEST_RUNNER => Some(wasm_bindgen_test_runner::run_cli_with_args(env::args_os())),
        _ => None,
    }
}

/// Makes JavaScript bindings.
pub fn bindgen(args: &[impl Into<OsString> + Clone]) -> Result<()> {
    wasm_bindgen::run_cli_with_args(named(BINDGEN, args))
}

/// Runs the tests in a `.wasm` file, where the environment says.
pub fn test_runner(args: &[impl Into<OsString> + Clone]) -> Result<()> {
    wasm_bindgen_test_runner::run_cli_with_args(named(TEST_RUNNER, args))
}

fn named(name: &str, args: &[impl Into<OsString> + Clone]) -> Vec<OsString> {
    std::iter::once(name.into()).chain(args.iter().cloned().map(Into::into)).collect()
}

/// Links both tools under their own names in `folder`, where wasm-pack finds them by PATH.
pub fn install_links(folder: &Path) -> Result<()> {
    let program = env::current_exe()?;
    fs::create_dir_all(folder)?;
    for name in [BINDGEN, TEST_RUNNER] {
        let link = folder.join(name);
        if link.is_symlink() || link.exists() {
            fs::remove_file(&link).with_context(|| format!("cannot replace {link:?}"))?;
        }
        make_link(&program, &link).with_context(|| format!("cannot make {link:?}"))?;
    }
    println!("{BINDGEN} and {TEST_RUNNER} are in {}; put it on your PATH", folder.display());
    Ok(())
}

#[cfg(unix)]
fn make_link(program: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(program, link)
}

#[cfg(not(unix))]
fn make_link(program: &Path, link: &Path) -> std::io::Result<()> {
    fs::copy(program, link.with_extension("exe")).map(|_| ())
}

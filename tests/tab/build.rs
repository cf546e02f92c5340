//! Compiles what a tab decides, `js/src/tab.ts`, so that simulated tabs run it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What runs in a simulated tab.
const MODULES: [&str; 8] =
    ["errors", "time", "call", "document", "core-link", "hearing", "lending", "tab"];

fn main() {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(variable("OUT_DIR"));
    let root = here.join("../..");
    println!("cargo::rerun-if-changed={}", root.join("js/src").display());
    println!("cargo::rerun-if-changed={}", root.join("js/tsconfig.json").display());
    println!("cargo::rerun-if-changed={}", here.join("tsconfig.json").display());
    println!("cargo::rerun-if-env-changed=TIDELOG_TSC");

    let status = Command::new(compiler(&here))
        .args(["--project".as_ref(), here.as_os_str()])
        .args(["--outDir".as_ref(), out.join("js").as_os_str()])
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "js/src/tab.ts cannot be compiled: run `cargo xtask setup` first"
    );
    for module in MODULES {
        let file = out.join("js").join(module).with_extension("js");
        assert!(fs::exists(&file).unwrap_or(false), "{} was not made", file.display());
    }
}

/// The TypeScript compiler: of a copy of the repository, that of the repository.
fn compiler(here: &Path) -> PathBuf {
    let named = env::var_os("TIDELOG_TSC").map(PathBuf::from);
    let mut above = here.ancestors().map(|folder| folder.join("node_modules/.bin/tsc"));
    named.or_else(|| above.find(|file| file.exists())).unwrap_or_else(|| "tsc".into())
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}

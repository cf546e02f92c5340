//! The dependency order of the rooms: crates depend downwards only.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::repo::Repo;
use crate::run;

/// What both sides of the socket are built of, from the bottom up. A crate may depend on those
/// before it.
const SHARED: [&str; 7] = [
    "tidelog-types",
    "tidelog-disk",
    "tidelog-journal",
    "tidelog-pages",
    "tidelog-sync",
    "tidelog-sqlite",
    "tidelog-document",
];

/// Over that the two sides, neither of which knows the other: what decides, and the shell around
/// it, of which the client has two.
const SIDES: [&[&str]; 3] = [
    &["tidelog-client", "tidelog-browser"],
    &["tidelog-client", "tidelog-native"],
    &["tidelog-access", "tidelog-room", "tidelog-server"],
];

/// What the tests of apps run, and our own tools, tests and benches, over the whole product:
/// nothing depends on them.
const ABOVE_ALL: [&str; 7] = [
    "tidelog-bench-storage",
    "tidelog-crash",
    "tidelog-sim",
    "tidelog-planted",
    "tidelog-tab",
    "tidelog-world",
    TESTING,
];

/// What the tests of any crate may use.
const TESTING: &str = "tidelog-testing";

/// Crates from outside that only one room may see, since it is the door to that world.
const DOORS: [(&[&str], &[&str]); 6] = [
    (&["tidelog-sqlite"], &["rusqlite", "sqlite-wasm-rs", "libsqlite3-sys", "rsqlite-vfs"]),
    (&["tidelog-browser"], &["wasm-bindgen", "wasm-bindgen-futures", "web-sys"]),
    // SQLite's C code asks its host for the time and for chance, in queries only.
    (&["tidelog-browser", "tidelog-sqlite"], &["js-sys"]),
    (&["tidelog-server"], &["axum", "tower-http"]),
    (&["tidelog-native", "tidelog-server"], &["tokio"]),
    (&["tidelog-access"], &["argon2", "aws-lc-rs", "jsonwebtoken", "pem"]),
];

/// Checks the workspace as cargo sees it.
pub fn check(repo: &Repo) -> Result<()> {
    let mut cargo = run::cargo(&repo.root, "metadata");
    let text = run::stdout_of(cargo.args(["--no-deps", "--format-version", "1"]))
        .context("cargo metadata failed")?;
    let breaches = breaches(&serde_json::from_str(&text)?);
    if !breaches.is_empty() {
        bail!("the rooms depend on each other in the wrong order:\n{}", breaches.join("\n"));
    }
    Ok(())
}

/// Every dependency that points upwards or sideways, as a line of text.
fn breaches(metadata: &Value) -> Vec<String> {
    let mut breaches = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let from = package["name"].as_str().unwrap_or_default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            let is_for_tests = dependency["kind"] == "dev";
            let is_allowed = may_depend(from, to) || (is_for_tests && to == TESTING);
            if !is_allowed || (!is_for_tests && is_anothers_door(from, to)) {
                breaches.push(format!("  {from} may not depend on {to}"));
            }
        }
    }
    breaches
}

fn may_depend(from: &str, to: &str) -> bool {
    if !to.starts_with("tidelog-") || ABOVE_ALL.contains(&from) {
        return true;
    }
    SIDES.iter().any(|side| {
        let height = |name| SHARED.iter().chain(*side).position(|it| *it == name);
        matches!((height(from), height(to)), (Some(from), Some(to)) if to < from)
    })
}

fn is_anothers_door(from: &str, to: &str) -> bool {
    let is_product = SHARED.iter().chain(SIDES.into_iter().flatten()).any(|it| *it == from);
    is_product
        && DOORS.iter().any(|(owners, crates)| !owners.contains(&from) && crates.contains(&to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rooms_of_this_workspace_depend_downwards_only() {
        let repo = Repo::find().expect("cargo knows this workspace");
        check(&repo).expect("downwards only");
    }

    #[test]
    fn a_dependency_upwards_or_sideways_is_noticed() {
        assert!(may_depend("tidelog-journal", "tidelog-disk"));
        assert!(may_depend("tidelog-server", "tidelog-document"));
        assert!(may_depend("tidelog-server", "tidelog-room"));
        assert!(may_depend("tidelog-server", "tidelog-access"));
        assert!(may_depend("tidelog-sim", "tidelog-room"));
        assert!(!may_depend("tidelog-disk", "tidelog-journal"));
        assert!(!may_depend("tidelog-room", "tidelog-server"));
        assert!(!may_depend("tidelog-room", "tidelog-client"));
        assert!(!may_depend("tidelog-client", "tidelog-access"));
        assert!(!may_depend("tidelog-browser", "tidelog-server"));
        assert!(!may_depend("tidelog-server", "tidelog-browser"));
        assert!(may_depend("tidelog-native", "tidelog-client"));
        assert!(!may_depend("tidelog-native", "tidelog-browser"));
        assert!(!may_depend("xtask", "tidelog-types"));
        assert!(!may_depend("tidelog-client", "tidelog-sim"));
        assert!(may_depend("tidelog-world", "tidelog-room"));
        assert!(may_depend("tidelog-world", "tidelog-client"));
        assert!(!may_depend("tidelog-browser", "tidelog-world"));
        assert!(!may_depend("tidelog-pages", TESTING), "only its tests may");
    }

    #[test]
    fn only_the_shell_sees_the_browser() {
        assert!(is_anothers_door("tidelog-client", "web-sys"));
        assert!(!is_anothers_door("tidelog-browser", "web-sys"));
        assert!(is_anothers_door("tidelog-document", "rusqlite"));
    }
}

//! Installs what is missing, says what it installs, and is quick when nothing is missing.
//!
//! On Debian and Ubuntu, as root or with a sudo that asks no password, packages come from apt.
//! Elsewhere every missing tool is named together with a way to get it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

use crate::repo::{Repo, Stamp};
use crate::{amalgamation, run};

/// The releases of Node.js that do, as Vite needs them.
const NODE: &str = "20.19 or 22.12 or newer";
const GECKODRIVER_VERSION: &str = "0.37.1";
const CARGO_DENY_VERSION: &str = "0.20.2";
const WASM_TARGET: &str = "wasm32-unknown-unknown";

/// What the command at hand cannot do without.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// Compilers and npm packages.
    Build,
    /// Also two browsers and their drivers.
    Browsers,
    /// Also a third, and a screen for it that nobody sees.
    WebKit,
}

/// A program of the system, and what brings it.
struct SystemTool {
    /// Any one of these on the path will do.
    programs: &'static [&'static str],
    debian: &'static str,
    ubuntu: &'static str,
    elsewhere: &'static str,
    needs: Needs,
}

const CHROMIUM: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
const FIREFOX: [&str; 2] = ["firefox-esr", "firefox"];

const SYSTEM_TOOLS: [SystemTool; 7] = [
    SystemTool {
        programs: &["clang"],
        debian: "clang",
        ubuntu: "clang",
        elsewhere: "clang with the wasm32 target, from the system's packages or https://llvm.org",
        needs: Needs::Build,
    },
    SystemTool {
        programs: &["make"],
        debian: "make",
        ubuntu: "make",
        elsewhere: "make, from the system's packages",
        needs: Needs::Build,
    },
    SystemTool {
        programs: &CHROMIUM,
        debian: "chromium",
        ubuntu: "chromium-browser",
        elsewhere: "Chromium or Chrome, https://www.chromium.org",
        needs: Needs::Browsers,
    },
    SystemTool {
        programs: &["chromedriver"],
        debian: "chromium-driver",
        ubuntu: "chromium-chromedriver",
        elsewhere: "chromedriver of the browser's version, https://chromedriver.chromium.org",
        needs: Needs::Browsers,
    },
    SystemTool {
        programs: &FIREFOX,
        debian: "firefox-esr",
        ubuntu: "firefox",
        elsewhere: "Firefox, https://www.mozilla.org/firefox",
        needs: Needs::Browsers,
    },
    SystemTool {
        programs: &["WebKitWebDriver"],
        debian: "webkit2gtk-driver",
        ubuntu: "webkit2gtk-driver",
        elsewhere: "the driver of WebKitGTK, https://webkitgtk.org",
        needs: Needs::WebKit,
    },
    SystemTool {
        programs: &["Xvfb"],
        debian: "xvfb",
        ubuntu: "xvfb",
        elsewhere: "Xvfb, https://www.x.org",
        needs: Needs::WebKit,
    },
];

/// Makes sure that all that `needs` names is there.
///
/// # Errors
///
/// Names what is missing and cannot be installed from here.
pub fn setup(repo: &Repo, needs: Needs) -> Result<()> {
    path(&repo.target)?;
    node()?;
    rust()?;
    system_tools(needs)?;
    if needs >= Needs::Browsers && geckodriver(repo).is_none() {
        install(repo, "geckodriver", GECKODRIVER_VERSION)?;
    }
    npm_packages(repo, &repo.root, "npm-packages")?;
    amalgamation::provide(repo)
}

/// The server's allocator, where it has one of its own, is built in the target folder by make,
/// which takes a path with a space for two.
fn path(target: &Path) -> Result<()> {
    let has_allocator = cfg!(all(target_os = "linux", target_env = "gnu"));
    let has_space = target.to_string_lossy().contains(char::is_whitespace);
    ensure!(
        !(has_allocator && has_space),
        "{}: the path may have no space; clone elsewhere, or set CARGO_TARGET_DIR",
        target.display()
    );
    Ok(())
}

fn node() -> Result<()> {
    let version = run::stdout_of(Command::new("node").arg("--version"))
        .with_context(|| format!("node is missing: Node.js {NODE}, https://nodejs.org"))?;
    if !is_node_fit(&version) {
        bail!("Node.js is {}, {NODE} is needed: https://nodejs.org", version.trim());
    }
    Ok(())
}

fn is_node_fit(version: &str) -> bool {
    let numbers = version.trim().trim_start_matches('v').split('.');
    let mut numbers = numbers.map(|number| number.parse::<u32>().unwrap_or(0));
    match (numbers.next(), numbers.next()) {
        (Some(20), Some(minor)) => minor >= 19,
        (Some(22), Some(minor)) => minor >= 12,
        (major, _) => major > Some(22),
    }
}

fn rust() -> Result<()> {
    let print = ["--print", "target-libdir", "--target", WASM_TARGET];
    let libdir = run::stdout_of(Command::new("rustc").args(print));
    if !libdir.is_some_and(|dir| Path::new(dir.trim()).is_dir()) {
        rustup(&["target", "add", WASM_TARGET], "Rust's standard library for WebAssembly")?;
    }
    for (program, component) in [("cargo-fmt", "rustfmt"), ("cargo-clippy", "clippy")] {
        if !run::is_fine(Command::new(program).arg("--version")) {
            rustup(&["component", "add", component], component)?;
        }
    }
    Ok(())
}

fn rustup(args: &[&str], what: &str) -> Result<()> {
    if !run::on_path("rustup") {
        bail!("{what} is missing: rustup {}, https://rustup.rs", args.join(" "));
    }
    println!("    installing {what}: rustup {}", args.join(" "));
    run::succeed(Command::new("rustup").args(args))
}

fn system_tools(needs: Needs) -> Result<()> {
    let is_missing = |tool: &&SystemTool| {
        tool.needs <= needs && !tool.programs.iter().any(|name| run::on_path(name))
    };
    let missing: Vec<&SystemTool> = SYSTEM_TOOLS.iter().filter(is_missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let Some(apt) = Apt::find() else {
        let list: Vec<_> = missing.iter().map(|tool| format!("  {}", tool.elsewhere)).collect();
        bail!("these are missing, and cannot be installed from here:\n{}", list.join("\n"));
    };
    let name = |tool: &&SystemTool| {
        if apt.is_ubuntu { tool.ubuntu } else { tool.debian }
    };
    apt.install(&missing.iter().map(name).collect::<Vec<_>>())
}

/// apt-get, where we may use it.
struct Apt {
    sudo: bool,
    is_ubuntu: bool,
}

impl Apt {
    fn find() -> Option<Self> {
        if !run::on_path("apt-get") {
            return None;
        }
        let is_root = run::stdout_of(Command::new("id").arg("-u"))?.trim() == "0";
        if !is_root && !run::is_fine(Command::new("sudo").args(["-n", "true"])) {
            return None;
        }
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let is_ubuntu = release.lines().any(|line| line == "ID=ubuntu");
        Some(Self { sudo: !is_root, is_ubuntu })
    }

    fn install(&self, packages: &[&str]) -> Result<()> {
        println!("    installing {}: apt-get install", packages.join(", "));
        run::succeed(self.command().args(["-qq", "update"]))?;
        run::succeed(self.command().args(["-qq", "--yes", "install"]).args(packages))
    }

    fn command(&self) -> Command {
        let quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
        let words: Vec<&str> = self.sudo.then_some("sudo").into_iter().chain(quiet).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command
    }
}

/// The browser's file: what drives it wants no mere name.
pub fn chromium() -> Option<PathBuf> {
    CHROMIUM.iter().find_map(|name| run::found_on_path(name))
}

/// The browser's file.
pub fn firefox() -> Option<PathBuf> {
    FIREFOX.iter().find_map(|name| run::found_on_path(name))
}

/// Firefox's driver: the one that GECKODRIVER names, ours, or the system's.
pub fn geckodriver(repo: &Repo) -> Option<PathBuf> {
    let named = env::var_os("GECKODRIVER").map(PathBuf::from);
    named.or_else(|| installed(repo, "geckodriver"))
}

/// What looks at licenses and sources of dependencies, installed where it is missing.
pub fn cargo_deny(repo: &Repo) -> Result<PathBuf> {
    if installed(repo, "cargo-deny").is_none() {
        install(repo, "cargo-deny", CARGO_DENY_VERSION)?;
    }
    installed(repo, "cargo-deny").context("cargo-deny is missing")
}

/// Our own, or the system's.
fn installed(repo: &Repo, name: &str) -> Option<PathBuf> {
    let ours = repo.cache.join("bin").join(name);
    if ours.is_file() { Some(ours) } else { run::found_on_path(name) }
}

/// Unoptimised, which takes half the time: none of them has much to do.
fn install(repo: &Repo, name: &str, version: &str) -> Result<()> {
    println!("    installing {name} {version}: cargo install, some minutes, once");
    let mut install = run::cargo(&repo.root, "install");
    install
        .args(["--quiet", "--debug", name, "--version", version])
        .arg("--root")
        .arg(&repo.cache)
        .env_remove("CARGO_TARGET_DIR");
    run::succeed(&mut install)
}

/// The bundlers that the package is tried in, and what makes a site of the docs. They are many, and
/// nothing else needs them.
pub fn bundlers(repo: &Repo) -> Result<()> {
    npm_packages(repo, &repo.root.join("tests/bundlers"), "npm-bundlers")?;
    npm_packages(repo, &repo.root.join("docs"), "npm-docs")
}

/// Installs what the lockfile in `folder` names; `step` is the name of its stamp.
fn npm_packages(repo: &Repo, folder: &Path, step: &str) -> Result<()> {
    let stamp = Stamp::new(repo, step).path(&folder.join("package-lock.json"))?;
    // npm writes this file last.
    if stamp.is_fresh() && folder.join("node_modules/.package-lock.json").is_file() {
        return Ok(());
    }
    println!("    installing npm packages: npm ci");
    let mut npm = run::program("npm", folder);
    run::succeed(npm.args(["ci", "--prefer-offline", "--no-audit", "--no-fund"]))?;
    stamp.save()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_is_as_new_as_vite_needs_it() {
        let is_fit = |version| is_node_fit(version);
        assert!(["v20.19.0\n", "v22.12.1", "v23.0.0", "v26.1.0"].into_iter().all(is_fit));
        assert!(!["v18.20.0", "v20.18.9", "v21.7.3", "v22.11.0", "none"].into_iter().any(is_fit));
    }
}

//! SQLite's source, once for both sides.
//!
//! Page images move between server and browser, so both must compile the very same SQLite. The
//! native build takes the amalgamation inside libsqlite3-sys; the browser's build is pointed, by
//! `.cargo/config.toml`, at a copy of it in `target/sqlite-amalgamation`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::repo::Repo;
use crate::run;

/// Copies the amalgamation if the one there is of another release of libsqlite3-sys.
pub fn provide(repo: &Repo) -> Result<()> {
    let lock = fs::read_to_string(repo.root.join("Cargo.lock")).unwrap_or_default();
    let version = locked_version(&lock, "libsqlite3-sys")
        .context("Cargo.lock names no libsqlite3-sys: crate tidelog-sqlite needs it")?;
    let folder = repo.local_target().join("sqlite-amalgamation");
    let marker = repo.local_target().join("sqlite-amalgamation.version");
    if fs::read_to_string(&marker).is_ok_and(|text| text == version) && folder.is_dir() {
        return Ok(());
    }
    println!("    SQLite's source of libsqlite3-sys {version} to {}", folder.display());
    let from = source_folder(repo)?;
    fs::create_dir_all(&folder)?;
    for name in ["sqlite3.c", "sqlite3.h", "sqlite3ext.h"] {
        fs::copy(from.join(name), folder.join(name))
            .with_context(|| format!("cannot copy {name} from {from:?}"))?;
        take_time(&from.join(name), &folder.join(name))?;
    }
    take_time(&from.join("sqlite3.c"), &folder)?;
    fs::write(&marker, version)?;
    Ok(())
}

/// Cargo compares times: with the original's, a new clone does not compile SQLite again.
fn take_time(from: &Path, to: &Path) -> Result<()> {
    let time = fs::metadata(from)?.modified()?;
    File::open(to)?.set_modified(time).with_context(|| format!("cannot set the time of {to:?}"))
}

fn source_folder(repo: &Repo) -> Result<PathBuf> {
    let output = run::cargo(&repo.root, "metadata")
        .args(["--format-version", "1", "--filter-platform", &host()?])
        .output()?;
    if !output.status.success() {
        bail!("cargo metadata failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "libsqlite3-sys")
        .and_then(|package| package["manifest_path"].as_str())
        .context("cargo metadata names no libsqlite3-sys")?;
    Ok(Path::new(manifest).with_file_name("sqlite3"))
}

fn host() -> Result<String> {
    let text = run::stdout_of(std::process::Command::new("rustc").arg("-vV"))
        .context("cannot run rustc")?;
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc -vV names no host")?.to_owned())
}

/// The version of `package` in the text of a Cargo.lock.
pub fn locked_version<'lock>(lock: &'lock str, package: &str) -> Option<&'lock str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_lock() {
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.2.3\"\n\n\
                    [[package]]\nname = \"b\"\nversion = \"4.5.6\"\n";
        assert_eq!(locked_version(lock, "b"), Some("4.5.6"));
        assert_eq!(locked_version(lock, "c"), None);
    }
}

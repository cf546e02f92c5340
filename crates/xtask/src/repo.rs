//! Where things lie: the clone, cargo's target folder, the cache outside the clone.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::run;

/// The clone that this program was built in.
pub struct Repo {
    /// The folder with the workspace's Cargo.toml.
    pub root: PathBuf,
    /// Cargo's target folder; CARGO_TARGET_DIR may have moved it out of the clone.
    pub target: PathBuf,
    /// Tools that belong to no clone.
    pub cache: PathBuf,
}

impl Repo {
    /// Asks cargo, so that every setting of the target folder is honoured.
    pub fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .context("BUG: crates/xtask lies two folders below the root")?
            .to_path_buf();
        let metadata = run::cargo(&root, "metadata")
            .args(["--no-deps", "--format-version", "1"])
            .output()
            .context("cannot run cargo")?;
        if !metadata.status.success() {
            bail!("cargo metadata failed:\n{}", String::from_utf8_lossy(&metadata.stderr));
        }
        let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout)?;
        let target = metadata["target_directory"]
            .as_str()
            .context("cargo metadata names no target_directory")?;
        Ok(Self { root, target: target.into(), cache: cache_dir()? })
    }

    /// The folder in the clone that other tools are told to look in, wherever cargo builds.
    pub fn local_target(&self) -> PathBuf {
        self.root.join("target")
    }

    /// The server's binary, at the place that is promised to users.
    pub fn server(&self) -> PathBuf {
        self.local_target().join("release/tidelog")
    }

    /// A program that an npm package brought.
    pub fn npm_bin(&self, name: &str) -> PathBuf {
        self.root.join("node_modules/.bin").join(name)
    }
}

fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir).join("tidelog"));
    }
    let home = env::home_dir().context("there is no home folder to keep tools in")?;
    Ok(home.join(".cache/tidelog"))
}

/// What a build step was made from, to know when it need not run again.
pub struct Stamp {
    file: PathBuf,
    inputs: DefaultHasher,
}

impl Stamp {
    /// The stamp of the step called `name`. It does not tell whether what the step made is still
    /// there.
    pub fn new(repo: &Repo, name: &str) -> Self {
        let file = repo.local_target().join("stamps").join(name);
        Self { file, inputs: DefaultHasher::new() }
    }

    /// Counts `text` as an input: a setting of the step.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        text.hash(&mut self.inputs);
        self
    }

    /// Counts a file, or every file below a folder, as an input. What is not there is one too.
    pub fn path(mut self, path: &Path) -> Result<Self> {
        path.hash(&mut self.inputs);
        for file in files_below(path)? {
            file.hash(&mut self.inputs);
            let content = fs::read(&file).with_context(|| format!("cannot read {file:?}"))?;
            content.hash(&mut self.inputs);
        }
        Ok(self)
    }

    /// Whether the step ran with these inputs before.
    pub fn is_fresh(&self) -> bool {
        fs::read_to_string(&self.file).is_ok_and(|text| text == self.value())
    }

    /// To be called when the step has succeeded.
    pub fn save(&self) -> Result<()> {
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&self.file, self.value()).with_context(|| format!("cannot write {:?}", self.file))
    }

    fn value(&self) -> String {
        format!("{:016x}\n", self.inputs.finish())
    }
}

/// Files below `path` in order, without what is built or installed there.
fn files_below(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(if path.exists() { vec![path.to_path_buf()] } else { Vec::new() });
    }
    let mut entries: Vec<PathBuf> =
        fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    entries.sort();
    let mut files = Vec::new();
    for entry in entries {
        let name = entry.file_name().unwrap_or_default();
        if name != "node_modules" && name != "dist" {
            files.extend(files_below(&entry)?);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_fresh_until_an_input_changes() {
        let root = env::temp_dir().join(format!("tidelog-stamp-{}", std::process::id()));
        let repo = Repo { root: root.clone(), target: root.clone(), cache: root.clone() };
        let stamp = Stamp::new(&repo, "a step").text("one");
        assert!(!stamp.is_fresh());
        stamp.save().expect("a temporary folder can be written");
        assert!(Stamp::new(&repo, "a step").text("one").is_fresh());
        assert!(!Stamp::new(&repo, "a step").text("two").is_fresh());
        fs::remove_dir_all(root).expect("it was just written");
    }
}

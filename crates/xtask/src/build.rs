//! From sources to what is published: the npm package in `js/` and the server's binary.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::repo::{Repo, Stamp};
use crate::report::Report;
use crate::setup::{self, Needs};
use crate::{run, wasm};

/// The apps in `examples/`.
pub const EXAMPLES: [&str; 6] = ["hello", "todo", "kanban-react", "music", "shared-list", "orders"];

/// `cargo xtask build`.
pub fn command(repo: &Repo) -> Result<()> {
    let mut report = Report::default();
    if report.step("setup", || setup::setup(repo, Needs::Build)) {
        build(repo, &mut report);
    }
    report.finish(false)
}

/// Builds the package and the server as steps of `report`. Says whether both are there.
pub fn build(repo: &Repo, report: &mut Report) -> bool {
    report.step("server", || server(repo)) && packages(repo, report)
}

/// Builds both npm packages, as steps of `report`, where the server's binary is there already.
pub fn packages(repo: &Repo, report: &mut Report) -> bool {
    report.step("wasm", || wasm::build(repo, wasm::Size::Smallest))
        && report.step("npm package", || package(repo))
        && report.step("npm package of the server", || server_package(repo))
}

/// Compiles js/ into js/dist, the workers' entry points into js/dist/worker, and what runs in Node
/// into js/dist/node.
pub fn package(repo: &Repo) -> Result<()> {
    for project in ["js", "worker", "js/src/node", "worker/src/node"] {
        run::succeed(run::program(repo.npm_bin("tsc"), &repo.root).args(["-p", project]))?;
    }
    name_build(&repo.root.join("js/dist"))
}

/// What stands for the build in a release's name until there is one.
const NO_BUILD: &str = "+00000000";

/// Names the build after what is in it: tabs of two builds of one release must not share a core,
/// since nothing says that they understand each other. The modules and what `wasm-bindgen` made
/// beside them name it too, since a page may have any of these from another deployment.
fn name_build(dist: &Path) -> Result<()> {
    let mut hasher = DefaultHasher::new();
    let mut scripts = Vec::new();
    let mut modules = Vec::new();
    for folder in ["", WASM, "worker"] {
        let entries = fs::read_dir(dist.join(folder)).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|it| it == "js" || it == "wasm"));
        files.sort();
        for file in files {
            let content = fs::read(&file)?;
            let mark = Mark::of(&file).filter(|_| folder == WASM);
            let content = mark.map_or(&*content, |mark| mark.without(&content));
            (file.file_name(), content).hash(&mut hasher);
            if let Some(mark) = mark {
                modules.push((file, content.to_vec(), mark));
            } else if let Ok(text) = std::str::from_utf8(content)
                && text.contains(NO_BUILD)
            {
                scripts.push((file, text.to_owned()));
            }
        }
    }
    let build = format!("{:08x}", hasher.finish() >> 32);
    for (file, text) in scripts {
        fs::write(file, text.replace(NO_BUILD, &format!("+{build}")))?;
    }
    for (file, content, mark) in modules {
        fs::write(file, mark.with(content, &build))?;
    }
    Ok(())
}

/// The folder of the modules and of their bindings, which are kept while their sources stay.
const WASM: &str = "wasm";

/// How many digits name a build.
const BUILD_DIGITS: usize = 8;

/// What stands around the digits of the build, at the end of a file.
#[derive(Clone, Copy)]
struct Mark {
    before: &'static [u8],
    after: &'static [u8],
}

impl Mark {
    /// A module's last section, a custom one: its size, the size of its name and its name, as
    /// `worker/src/shared.ts` looks for it.
    const MODULE: Self = Self { before: b"\0\x16\x0dtidelog-build", after: b"" };

    /// What the bindings of a module export, as `worker/src/shared.ts` is told it.
    const BINDINGS: Self = Self { before: b"\nexport const BUILD = '+", after: b"';\n" };

    fn of(file: &Path) -> Option<Self> {
        match file.extension()?.to_str()? {
            "wasm" => Some(Self::MODULE),
            "js" => Some(Self::BINDINGS),
            _ => None,
        }
    }

    fn with(self, mut content: Vec<u8>, build: &str) -> Vec<u8> {
        assert_eq!(build.len(), BUILD_DIGITS, "BUG: the section says how long it is");
        content.extend([self.before, build.as_bytes(), self.after].concat());
        content
    }

    /// A file as it was before its build was named.
    fn without(self, content: &[u8]) -> &[u8] {
        let named = content.strip_suffix(self.after);
        let named = named.and_then(|it| it.get(..it.len().checked_sub(BUILD_DIGITS)?));
        named.and_then(|it| it.strip_suffix(self.before)).unwrap_or(content)
    }
}

/// The server's binary.
pub fn server(repo: &Repo) -> Result<()> {
    release(repo, &["--package", "tidelog-server"])?;
    provide_server(repo)
}

/// All programs that the tests run: the server, the simulator, and the worker in Rust that takes
/// over runs. At once: for each of them alone cargo would unite the features of what they share
/// otherwise, and compile nearly all of it again.
pub fn programs(repo: &Repo) -> Result<()> {
    const PROGRAMS: [&str; 12] = [
        "--package",
        "tidelog-server",
        "--bin",
        "tidelog",
        "--package",
        "tidelog-sim",
        "--bin",
        "tidelog-sim",
        "--package",
        "tidelog-native",
        "--example",
        "worker",
    ];
    release(repo, &PROGRAMS)?;
    provide_server(repo)
}

fn release(repo: &Repo, programs: &[&str]) -> Result<()> {
    let mut cargo = run::cargo(&repo.root, "build");
    run::succeed(cargo.args(["--quiet", "--release"]).args(programs))
}

/// Puts the server where users are told that it is.
fn provide_server(repo: &Repo) -> Result<()> {
    let built = repo.target.join("release/tidelog");
    let promised = repo.server();
    if built != promised {
        replace(&built, &promised)?;
    }
    Ok(())
}

/// The server's package, ready for `npm pack target/npm/tidelog-server`: its template, and the
/// binary of the platform that this is.
fn server_package(repo: &Repo) -> Result<()> {
    let folder = repo.local_target().join("npm/tidelog-server");
    fs::create_dir_all(&folder)?;
    let template = repo.root.join("crates/server/npm");
    let manifest = read_manifest(&template.join("package.json"))?;
    let version = read_manifest(&repo.root.join("js/package.json"))?["version"].take();
    let manifest = for_platform(manifest, version, env::consts::OS, env::consts::ARCH)?;
    fs::write(folder.join("package.json"), serde_json::to_string_pretty(&manifest)? + "\n")?;
    fs::copy(template.join("README.md"), folder.join("README.md"))?;
    for license in ["LICENSE-MIT", "LICENSE-APACHE"] {
        fs::copy(repo.root.join(license), folder.join(license))?;
    }
    replace(&repo.server(), &folder.join("tidelog"))
}

fn read_manifest(file: &Path) -> Result<Value> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file:?}"))?;
    Ok(serde_json::from_str(&text)?)
}

/// The manifest of a package with a binary of this system and this processor, as Node names them.
fn for_platform(mut manifest: Value, version: Value, os: &str, arch: &str) -> Result<Value> {
    let node_os = match os {
        "linux" => "linux",
        "macos" => "darwin",
        _ => bail!("the server is built for Linux and macOS, and this is {os}"),
    };
    let node_cpu = match arch {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        _ => bail!("the server is built for x86_64 and aarch64, and this is {arch}"),
    };
    manifest["version"] = version;
    manifest["os"] = json!([node_os]);
    manifest["cpu"] = json!([node_cpu]);
    if cfg!(target_env = "gnu") {
        manifest["libc"] = json!(["glibc"]);
    }
    Ok(manifest)
}

/// Copies beside the old one and renames, since the old one may be running.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("BUG: the server lies in a folder")?;
    fs::create_dir_all(folder)?;
    let beside = to.with_extension("new");
    fs::copy(from, &beside).with_context(|| format!("cannot copy {from:?}"))?;
    fs::rename(&beside, to)?;
    Ok(())
}

/// Builds the examples into `examples/*/dist`, those whose sources or whose package have changed.
pub fn examples(repo: &Repo) -> Result<()> {
    for name in EXAMPLES {
        let folder = repo.root.join("examples").join(name);
        if !folder.join("package.json").is_file() {
            bail!("examples/{name} has no package.json");
        }
        let stamp = Stamp::new(repo, &format!("example-{name}"))
            .path(&folder)?
            .path(&repo.root.join("examples/shared"))?
            .path(&repo.root.join("js/dist"))?
            .path(&repo.root.join("package-lock.json"))?;
        if stamp.is_fresh() && folder.join("dist/index.html").is_file() {
            continue;
        }
        let mut npm = run::program("npm", &repo.root);
        run::succeed(npm.args(["run", "--silent", "build", "--workspace"]).arg(&folder))?;
        stamp.save()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_of_the_server_is_installed_on_the_platform_of_its_binary_alone() {
        let template = json!({ "name": "tidelog-server", "version": "0.0.0" });
        let on = |os, arch| for_platform(template.clone(), json!("1.2.3"), os, arch);
        let built = on("macos", "aarch64").expect("it is built there");
        assert_eq!(built["name"], "tidelog-server");
        assert_eq!(built["version"], "1.2.3");
        assert_eq!((&built["os"], &built["cpu"]), (&json!(["darwin"]), &json!(["arm64"])));
        assert!(on("plan9", "x86_64").is_err());
        assert!(on("linux", "m68k").is_err());
    }

    #[test]
    fn a_module_its_bindings_and_the_scripts_name_one_build_however_often_that_is_named() {
        let dist = std::env::temp_dir().join(format!("tidelog-build-{}", std::process::id()));
        fs::create_dir_all(dist.join("wasm")).expect("a folder");
        let files = ["release.js", "wasm/core_bg.wasm", "wasm/core.js"].map(|it| dist.join(it));
        let [script, module, bindings] = &files;
        let read = || files.each_ref().map(|file| fs::read(file).expect("a file"));
        let mut builds = Vec::new();
        let modules = [b"\0asm\x01\0\0\0".as_slice(), b"\0asm\x01\0\0\0\0\x02\x01x"];
        let calls = [b"export { wake };\n".as_slice(), b"export { nudge };\n"];
        for (bytes, call) in [(0, 0), (1, 0), (1, 1)].map(|(m, c)| (modules[m], calls[c])) {
            fs::write(module, bytes).expect("room for it");
            fs::write(bindings, call).expect("room for it");
            fs::write(script, "BUILD = '0.1.0+00000000'").expect("room for it");
            name_build(&dist).expect("it can be named");
            let named = read();
            let build = named[1][named[1].len() - BUILD_DIGITS..].to_vec();
            assert_eq!(named[0], [b"BUILD = '0.1.0+".as_slice(), &build, b"'"].concat());
            assert_eq!(named[1], [bytes, b"\0\x16\x0dtidelog-build", &build].concat());
            assert_eq!(named[2], [call, b"\nexport const BUILD = '+", &build, b"';\n"].concat());

            fs::write(script, "BUILD = '0.1.0+00000000'").expect("room for it");
            name_build(&dist).expect("it can be named");
            assert_eq!(read(), named);
            assert!(!builds.contains(&build));
            builds.push(build);
        }
        fs::remove_dir_all(&dist).expect("it is there");
    }
}

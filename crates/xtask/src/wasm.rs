//! The two WebAssembly modules: crate `tidelog-browser`, compiled once for each worker. And, made
//! in the same way, the one that `tidelog/testing` runs in Node, and the one of the benchmarks.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::bindings::{self, For};
use crate::repo::{Repo, Stamp};
use crate::setup::{self, Needs};
use crate::{build, imports, run, tools};

/// How much time to spend on making the modules small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// What is published.
    Smallest,
    /// Without wasm-opt, for a quick look while developing.
    AsCompiled,
}

/// A module: the feature of `tidelog-browser` that selects it, and its name among the files.
pub const MODULES: [(&str, &str); 2] = [("core", "core"), ("page-server", "page_server")];

/// The crate of the module that the tests of apps run in Node, and which no page downloads; its
/// name among the files.
const WORLD: (&str, &str) = ("tidelog-world", "world");

/// What the compiler emits and every browser with OPFS understands.
const WASM_FEATURES: [&str; 8] = [
    "--enable-simd",
    "--enable-bulk-memory",
    "--enable-bulk-memory-opt",
    "--enable-nontrapping-float-to-int",
    "--enable-sign-ext",
    "--enable-mutable-globals",
    "--enable-reference-types",
    "--enable-multivalue",
];

/// A browser compiles a function when it is first called. Left alone, wasm-opt makes all of the
/// core one function of 100 kB, since each part of it has one caller, and a page waits for that.
/// What the compiler must not put into one either is marked in the crates.
const SHRINK: [&str; 2] = ["-Oz", "--one-caller-inline-max-function-size=200"];

/// `cargo xtask wasm`: also the package around the modules, since they name its build.
pub fn command(repo: &Repo, size: Size) -> Result<()> {
    setup::setup(repo, Needs::Build)?;
    build(repo, size)?;
    build::package(repo)
}

/// Compiles all that the package carries.
pub fn build(repo: &Repo, size: Size) -> Result<()> {
    build_workers(repo, size)?;
    build_world(repo, size)
}

/// Compiles both into `js/dist/wasm`, unless their sources are those of the last time. Cargo cannot
/// say so: it keeps both modules under one name, and finds the one in the place of the other. What
/// comes after it is left out if the compiled module has not changed.
fn build_workers(repo: &Repo, size: Size) -> Result<()> {
    let folder = repo.root.join("js/dist/wasm");
    fs::create_dir_all(&folder)?;
    let sources = sources(repo, size, "wasm", &["server", "xtask", "room", "world"])?;
    let are_there = MODULES.iter().all(|(_, name)| {
        let is_there = |suffix: &str| folder.join(format!("{name}{suffix}")).is_file();
        is_there("_bg.wasm") && is_there(".js") && is_there(".d.ts")
    });
    if are_there && sources.is_fresh() {
        return Ok(());
    }
    for (feature, name) in MODULES {
        let features = ["--no-default-features", "--features", feature];
        let built = compile(repo, "tidelog-browser", &features)?;
        // The two builds share this path, so what is there is copied before the next one.
        let compiled = built.with_file_name(format!("{feature}.wasm"));
        fs::copy(&built, &compiled)?;
        finish(repo, size, &compiled, &folder, name, For::Package)?;
        declare(repo, &folder, name)?;
    }
    sources.save()
}

/// Compiles the world of tests into `js/dist/world`, unless its sources are those of the last time.
fn build_world(repo: &Repo, size: Size) -> Result<()> {
    let (package, name) = WORLD;
    let folder = repo.root.join("js/dist").join(name);
    fs::create_dir_all(&folder)?;
    let sources = sources(repo, size, "wasm-of-tests", &["server", "xtask", "browser"])?;
    let files = ["_bg.wasm", ".js"].map(|suffix| folder.join(format!("{name}{suffix}")));
    if files.iter().all(|file| file.is_file()) && sources.is_fresh() {
        return Ok(());
    }
    let compiled = compile(repo, package, &[])?;
    finish(repo, size, &compiled, &folder, name, For::Package)?;
    sources.save()
}

/// Compiles what the benchmark of the store calls into `target/bench-storage`.
pub fn build_bench(repo: &Repo) -> Result<()> {
    let folder = repo.local_target().join("bench-storage");
    fs::create_dir_all(&folder)?;
    let compiled = compile(repo, "tidelog-bench-storage", &[])?;
    finish(repo, Size::Smallest, &compiled, &folder, "bench_storage", For::Benches)
}

/// Makes what is published of a compiled module, unless that is there.
fn finish(
    repo: &Repo,
    size: Size,
    compiled: &Path,
    folder: &Path,
    name: &str,
    whom: For,
) -> Result<()> {
    let stamp = Stamp::new(repo, &format!("wasm-{name}"))
        .text(&format!("{} {}", settings(size), env!("CARGO_PKG_VERSION")))
        .path(compiled)?;
    let module = folder.join(format!("{name}_bg.wasm"));
    let bindings = folder.join(format!("{name}.js"));
    if stamp.is_fresh() && module.is_file() && bindings.is_file() {
        return Ok(());
    }
    bind(compiled, folder, name)?;
    if size == Size::Smallest {
        shorten(&module, &bindings, whom)?;
        shrink(repo, &module)?;
    }
    stamp.save()?;
    println!("    {name}: {} KiB", fs::metadata(&module)?.len() / 1024);
    Ok(())
}

/// What comes first in a declaration that is kept.
const DECLARED: &str = "/** Made by `cargo xtask wasm` of what crate `browser` exports. */\n";

/// In what a worker calls, this takes the place of all that begins with the other: each worker
/// compiles its module itself.
const INIT: [&str; 2] = [
    "export type InitInput",
    "export function initSync(options: { module: WebAssembly.Module }): unknown;\n\n\
     /** The build that this is of, as `xtask/build.rs` added it. */\n\
     export const BUILD: string;\n",
];

/// Keeps the types of what a module exports among the sources of the workers, so that those can be
/// checked where the module is not built.
fn declare(repo: &Repo, folder: &Path, name: &str) -> Result<()> {
    let made = fs::read_to_string(folder.join(format!("{name}.d.ts")))?;
    let (_, made) = made.split_once("/* eslint-disable */").context("not of wasm-bindgen")?;
    let (exports, _) = made.split_once(INIT[0]).context("nothing initialises the module")?;
    let kept = repo.root.join(format!("worker/wasm/{name}.d.ts"));
    let before = fs::read_to_string(&kept).ok();
    fs::write(&kept, [DECLARED, exports, INIT[1]].concat())?;
    run::succeed(
        run::program(repo.npm_bin("biome"), &repo.root)
            .args(["format", "--write", "--log-level=error"])
            .arg(&kept),
    )?;
    if before != Some(fs::read_to_string(&kept)?) {
        println!("    worker/wasm/{name}.d.ts has changed");
    }
    Ok(())
}

/// Everything that modules are made from: all crates but these.
fn sources(repo: &Repo, size: Size, name: &str, others: &[&str]) -> Result<Stamp> {
    let compiler = run::stdout_of(run::program("rustc", &repo.root).arg("-vV"));
    let mut stamp = Stamp::new(repo, name)
        .text(&format!("{} {compiler:?}", settings(size)))
        .path(&repo.root.join("Cargo.toml"))?
        .path(&repo.root.join("Cargo.lock"))?
        .path(&repo.root.join(".cargo/config.toml"))?;
    let mut crates = fs::read_dir(repo.root.join("crates"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<PathBuf>>>()?;
    crates.retain(|path| !others.iter().any(|other| path.ends_with(other)));
    crates.sort();
    for folder in crates {
        for part in ["Cargo.toml", "build.rs", "src"] {
            stamp = stamp.path(&folder.join(part))?;
        }
    }
    Ok(stamp)
}

/// What else the modules depend on.
fn settings(size: Size) -> String {
    format!("{size:?} {WASM_FEATURES:?} {SHRINK:?} {}", include_str!("bindings.rs"))
}

fn compile(repo: &Repo, package: &str, features: &[&str]) -> Result<PathBuf> {
    // `cargo rustc` and one crate type: with an rlib beside it, cargo leaves out LTO.
    let mut cargo = run::cargo(&repo.root, "rustc");
    cargo
        .args(["--quiet", "--package", package, "--lib"])
        .args(["--crate-type", "cdylib", "--target", "wasm32-unknown-unknown"])
        .args(["--profile", "wasm"])
        .args(features)
        .args(["--config", &without_paths(repo)?]);
    run::succeed(&mut cargo)?;
    let name = format!("{}.wasm", package.replace('-', "_"));
    let built = repo.target.join("wasm32-unknown-unknown/wasm").join(name);
    ensure!(built.is_file(), "cargo made no {built:?}");
    Ok(built)
}

/// The setting that keeps the folders of this machine out of the messages of panics, so that the
/// modules are the same wherever they are built.
fn without_paths(repo: &Repo) -> Result<String> {
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| Some(env::home_dir()?.join(".cargo")));
    let flags: Vec<String> = [(Some(repo.root.clone()), "/"), (cargo_home, "/cargo")]
        .into_iter()
        .filter_map(|(folder, name)| {
            Some(format!("--remap-path-prefix={}={name}", folder?.display()))
        })
        .collect();
    Ok(format!("target.wasm32-unknown-unknown.rustflags={}", serde_json::to_string(&flags)?))
}

fn bind(compiled: &Path, folder: &Path, name: &str) -> Result<()> {
    tools::bindgen(&[
        "--target".as_ref(),
        "web".as_ref(),
        "--remove-name-section".as_ref(),
        "--remove-producers-section".as_ref(),
        "--out-name".as_ref(),
        name.as_ref(),
        "--out-dir".as_ref(),
        folder.as_os_str(),
        compiled.as_os_str(),
    ])
    .with_context(|| format!("wasm-bindgen failed on {compiled:?}"))
}

/// See [`imports`]: in the module, and in the script that gives it what it imports; [`bindings`].
fn shorten(module: &Path, bindings: &Path, whom: For) -> Result<()> {
    let (shorter, names) = imports::shorten_module(&fs::read(module)?)?;
    let mut script = fs::read_to_string(bindings)?;
    for (long, short) in names {
        ensure!(script.contains(&long), "{bindings:?} does not know {long}");
        script = script.replace(&long, &short);
    }
    let script = bindings::trim(script, whom).with_context(|| format!("in {bindings:?}"))?;
    fs::write(module, shorter)?;
    Ok(fs::write(bindings, script)?)
}

fn shrink(repo: &Repo, module: &Path) -> Result<()> {
    let mut wasm_opt = run::program(repo.npm_bin("wasm-opt"), &repo.root);
    wasm_opt.args(WASM_FEATURES).args(SHRINK).arg(module).arg("-o").arg(module);
    run::succeed(&mut wasm_opt)
}

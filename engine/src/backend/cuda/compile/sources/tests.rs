//! Every kernel compiles to machine code, without spills: needs NVIDIA's compiler, but no GPU.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use self::variants::{VARIANTS, Variant};
use super::{HEADERS, SOURCES};
use crate::backend::cuda::compile::{Defines, compiler};
use crate::backend::cuda::libraries::Libraries;
use crate::backend::cuda::libraries::nvrtc::Nvrtc;

mod variants;

/// The oldest GPUs that kernels run on, and those they are tuned for.
const ARCHITECTURES: [&str; 2] = ["sm_80", "sm_90a"];

#[test]
fn every_kernel_is_embedded_and_checked() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let files = files_below(&folder, "");
    let embedded = SOURCES.iter().chain(HEADERS).map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(files, embedded, "engine/kernels and sources.rs");
    for (name, _) in SOURCES {
        assert!(VARIANTS.iter().any(|variant| variant.file == *name), "{name} has no variant");
    }
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "NVIDIA makes its compiler for Linux and Windows")]
fn kernels_compile_without_spills() {
    let environment = test_environment();
    let libraries =
        Libraries::new(environment.iter().flat_map(|dir| nvidia_folders(dir)).collect());
    let nvrtc = libraries.nvrtc().unwrap_or_else(|why| {
        panic!("{why}; `cargo xtask test --setup-only` installs the compiler for tests")
    });
    let jobs: Vec<(&Variant, &str)> = VARIANTS
        .iter()
        .flat_map(|variant| ARCHITECTURES.map(|architecture| (variant, architecture)))
        .filter(|(variant, architecture)| !variant.hopper_only || *architecture == "sm_90a")
        .collect();
    let failures = run_all(&jobs, |(variant, architecture)| check(nvrtc, variant, architecture));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Compiles one variant; what is wrong with it, if anything.
fn check(nvrtc: &Nvrtc, variant: &Variant, architecture: &str) -> Result<(), String> {
    let defines =
        variant.defines.iter().fold(Defines::of(variant.constants), |defines, define| match define
            .split_once('=')
        {
            Some((name, value)) => defines.with(name, value),
            None => defines.flag(define),
        });
    let mut options = compiler::options(&defines, architecture);
    options.push("--ptxas-options=-v".to_owned());
    let compiled = compiler::unit(variant.file, &options)
        .and_then(|unit| nvrtc.compile(&unit))
        .map_err(|why| why.to_string())?;
    assert!(compiled.cubin.starts_with(b"\x7fELF"), "machine code");
    // One line for each entry: `.. bytes stack frame, .. bytes spill stores, .. bytes spill loads`.
    let spilled: Vec<_> = compiled
        .log
        .lines()
        .filter(|line| line.contains("bytes spill stores"))
        .filter(|line| !line.contains(" 0 bytes spill stores, 0 bytes spill loads"))
        .collect();
    if spilled.is_empty() {
        return Ok(());
    }
    let Variant { file, defines, .. } = variant;
    Err(format!("{file} {defines:?} {architecture}: {}", spilled.join(";")))
}

/// Runs `job` on all cores; what failed.
fn run_all<T: Sync>(jobs: &[T], job: impl Fn(&T) -> Result<(), String> + Sync) -> Vec<String> {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(item) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(why) = job(item) {
                failures.lock().unwrap().push(why);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(work);
        }
    });
    failures.into_inner().unwrap()
}

/// Files in a folder and in those in it, as they are called from there.
fn files_below(folder: &Path, prefix: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .flat_map(|entry| {
            let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
            match entry.file_type().unwrap().is_dir() {
                true => files_below(&entry.path(), &format!("{name}/")),
                false => BTreeSet::from([name]),
            }
        })
        .collect()
}

/// The Python environment that `cargo xtask test` made, if it did: this program is in
/// `target/debug/deps`, the environment in `target/python`.
fn test_environment() -> Option<PathBuf> {
    let program = std::env::current_exe().unwrap();
    let environment = program.ancestors().nth(3)?.join("python");
    environment.join("made-from.txt").exists().then_some(environment)
}

/// Where an environment has NVIDIA's libraries.
fn nvidia_folders(environment: &Path) -> Vec<PathBuf> {
    let pythons = std::fs::read_dir(environment.join("lib")).into_iter().flatten();
    pythons
        .filter_map(Result::ok)
        .map(|python| python.path().join("site-packages/nvidia"))
        .flat_map(|nvidia| std::fs::read_dir(nvidia).into_iter().flatten())
        .filter_map(Result::ok)
        .map(|package| package.path().join("lib"))
        .collect()
}

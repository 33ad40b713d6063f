//! Kernels, compiled for the GPU at hand and for a model's constants, and kept on disk.
//!
//! A kernel file takes the compiler about a second, and a cubin loads in less than a millisecond.
//! So cubins are kept in a folder, under the hash of everything they were made from. The compiler's
//! version is kept with them: where there is another one now, it compiles them again, and where there is none
//! they serve as they are.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use parking_lot::Mutex;

use super::files::write_whole;
use super::sources::{self, HEADERS};
use crate::backend::cuda::driver::device::Device;
use crate::backend::cuda::driver::module::Module;
use crate::backend::cuda::libraries::nvrtc::{Compiled, Unit};
use crate::error::EngineError;

/// Begins a cached file, with the format's version. A hash of all that follows it comes next, then the
/// compiler's version, two words, then the cubin.
const CACHE_MARK: &[u8; 8] = b"baton\0c2";

/// Compiles and loads kernels for one device.
#[derive(Debug)]
pub(crate) struct Compiler {
    device: Device,
    /// Where cubins are kept; nowhere if `None`.
    cache: Option<PathBuf>,
    /// What this process has loaded, by key.
    loaded: Mutex<HashMap<blake3::Hash, Module>>,
}

/// The constants of a compilation: `-DNAME=value` and `-DNAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Defines {
    values: BTreeMap<String, Option<String>>,
}

/// Sizes that a kernel has from its twin, which alone says them: names and values.
pub(crate) type Constants = &'static [(&'static str, usize)];

pub(super) fn unit<'a>(file: &'a str, options: &'a [String]) -> Result<Unit<'a>, EngineError> {
    let source = sources::source(file)
        .ok_or_else(|| EngineError::Device(format!("there is no kernel file {file}")))?;
    Ok(Unit { name: file, source, headers: HEADERS, options })
}

pub(super) fn options(defines: &Defines, architecture: &str) -> Vec<String> {
    let mut options = vec![
        format!("--gpu-architecture={architecture}"),
        "--std=c++17".to_owned(),
        "-lineinfo".to_owned(),
    ];
    options.extend(defines.options());
    options
}

/// The hash of everything that decides what a kernel does.
fn key(unit: &Unit<'_>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut part = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    part(unit.name);
    part(unit.source);
    for (name, text) in unit.headers {
        part(name);
        part(text);
    }
    for option in unit.options {
        part(option);
    }
    hasher.finalize()
}

// === impl Compiler ===

impl Compiler {
    /// A compiler for `device`.
    ///
    /// - `cache`: the folder to keep cubins in, made when the first is written.
    ///
    /// # Errors
    /// None now: what is missing is told when something has to be compiled.
    pub(crate) fn new(device: &Device, cache: Option<PathBuf>) -> Result<Self, EngineError> {
        Ok(Self { device: device.clone(), cache, loaded: Mutex::default() })
    }

    /// The device it compiles for.
    #[must_use]
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Loads a kernel file with these constants, compiling it first if it was never before.
    ///
    /// # Errors
    /// [`EngineError::Device`] if it doesn't compile or load, or has to be compiled and the
    /// run-time compiler is missing.
    pub(crate) fn module(&self, file: &str, defines: &Defines) -> Result<Module, EngineError> {
        let options = options(defines, &self.device.properties().architecture());
        let unit = unit(file, &options)?;
        let key = key(&unit);
        if let Some(module) = self.loaded.lock().get(&key) {
            return Ok(module.clone());
        }
        let cubin = self.cubin(&unit, key)?;
        let module = Module::load(&self.device, file, &cubin)?;
        Ok(self.loaded.lock().entry(key).or_insert(module).clone())
    }

    /// As [`Compiler::module`] for many, at the same time. They are then found at once by
    /// [`Compiler::module`], too.
    ///
    /// # Errors
    /// As [`Compiler::module`]: the first that failed.
    pub(crate) fn modules(&self, units: &[(&str, Defines)]) -> Result<Vec<Module>, EngineError> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = units
                .iter()
                .map(|(file, defines)| scope.spawn(|| self.module(file, defines)))
                .collect();
            threads
                .into_iter()
                .map(|thread| {
                    let stopped = || EngineError::Device("a compiler's thread panicked".to_owned());
                    thread.join().unwrap_or_else(|_| Err(stopped()))
                })
                .collect()
        })
    }

    fn cubin(&self, unit: &Unit<'_>, key: blake3::Hash) -> Result<Vec<u8>, EngineError> {
        let file = self.cache.as_ref().map(|folder| {
            let stem = unit.name.trim_end_matches(".cu").replace('/', "-");
            folder.join(format!("{stem}-{}.cubin", &key.to_hex()[..32]))
        });
        let nvrtc = self.device.libraries().nvrtc();
        if let Some(kept) = file.as_deref().and_then(read_cached)
            && nvrtc.as_ref().map_or(true, |nvrtc| nvrtc.version() == kept.version)
        {
            return Ok(kept.cubin);
        }
        let nvrtc = nvrtc?;
        let start = Instant::now();
        let Compiled { cubin, log } = nvrtc.compile(unit)?;
        let made = Kept { version: nvrtc.version(), cubin };
        tracing::debug!(
            kernel = unit.name,
            milliseconds = start.elapsed().as_millis() as u64,
            %log,
            "compiled"
        );
        if let Some(file) = file
            && let Err(why) = write_cached(&file, &made)
        {
            // The next start compiles again; nothing else is lost.
            tracing::warn!(file = %file.display(), %why, "a compiled kernel can't be kept");
        }
        Ok(made.cubin)
    }
}

/// What a cached file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    /// Of the compiler: major, minor.
    version: (i32, i32),
    cubin: Vec<u8>,
}

/// Nothing if there is no such file or it is damaged.
fn read_cached(file: &Path) -> Option<Kept> {
    let bytes = fs::read(file).ok()?;
    let (hash, made) = bytes.strip_prefix(CACHE_MARK)?.split_at_checked(blake3::OUT_LEN)?;
    let (major, rest) = made.split_first_chunk()?;
    let (minor, cubin) = rest.split_first_chunk()?;
    let version = (i32::from_le_bytes(*major), i32::from_le_bytes(*minor));
    (blake3::hash(made).as_bytes() == hash).then(|| Kept { version, cubin: cubin.to_vec() })
}

fn write_cached(file: &Path, kept: &Kept) -> std::io::Result<()> {
    let (major, minor) = kept.version;
    let made = [&major.to_le_bytes(), &minor.to_le_bytes(), kept.cubin.as_slice()].concat();
    write_whole(file, &[CACHE_MARK, blake3::hash(&made).as_bytes().as_slice(), &made].concat())
}

// === impl Defines ===

impl Defines {
    /// None.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// What a kernel and its twin know alike.
    pub(crate) fn of(constants: Constants) -> Self {
        constants.iter().fold(Self::new(), |defines, (name, value)| defines.with(name, value))
    }

    /// With `-Dname=value`.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Display) -> Self {
        self.values.insert(name.to_owned(), Some(value.to_string()));
        self
    }

    /// With `-Dname`.
    #[must_use]
    pub(crate) fn flag(mut self, name: &str) -> Self {
        self.values.insert(name.to_owned(), None);
        self
    }

    fn options(&self) -> impl Iterator<Item = String> {
        self.values.iter().map(|(name, value)| match value {
            Some(value) => format!("-D{name}={value}"),
            None => format!("-D{name}"),
        })
    }
}

#[cfg(test)]
mod tests;

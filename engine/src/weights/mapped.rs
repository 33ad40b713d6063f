//! Memory-mapped files: the one place of the loader with `unsafe`.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::EngineError;

/// Maps a whole file for reading.
pub(super) fn map(file: &Path) -> Result<Mmap, EngineError> {
    let opened = File::open(file).map_err(|error| EngineError::io(file, &error))?;
    // SAFETY: the mapping is private and read-only, and `Mmap` keeps it alive as long as any slice
    // of it. What remains is the contract of every loader that maps files: whoever truncates a
    // checkpoint while it is being loaded stops the process with SIGBUS. Nothing is read from the
    // mapping after loading.
    unsafe { Mmap::map(&opened) }.map_err(|error| EngineError::io(file, &error))
}

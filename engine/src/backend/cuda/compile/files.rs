//! Files in the cache.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes a file whole or not at all, whoever else writes it at the same time. Makes its folder.
pub(crate) fn write_whole(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let nth = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let partial = file.with_extension(format!("{}.{nth}.partial", std::process::id()));
    let written = fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, file));
    if written.is_err() {
        // There may be none; what went wrong is told already.
        let _ = fs::remove_file(&partial);
    }
    written
}

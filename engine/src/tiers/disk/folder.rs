//! The folder that one worker keeps blocks in: whose it is, and what others have left there.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How the folders of models begin: nothing else is ever taken away.
pub(super) const PREFIX: &str = "kv-";

/// Of the disk's part one in so much may be other models': who goes back to one finds its blocks, as far as there is room.
const OTHERS_SHARE: u64 = 2;

/// A model's folder, in one that is locked.
pub(in crate::tiers) struct Folder {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

/// A folder of another model's blocks.
struct Other {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

// === impl Folder ===

impl Folder {
    /// Makes and locks `dir`, and makes the model's folder in it.
    ///
    /// # Errors
    /// What the system says, or that another worker has it.
    pub(in crate::tiers) fn open(dir: &Path, name: &str) -> std::io::Result<Self> {
        make(dir)?;
        let lock = open(&dir.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                Error::new(ErrorKind::ResourceBusy, "another worker keeps its KV blocks there")
            }
            TryLockError::Error(error) => error,
        })?;
        let path = dir.join(name);
        make(&path)?;
        Ok(Self { path, _lock: lock })
    }

    /// One of its files.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn file(&self, name: &str) -> std::io::Result<File> {
        open(&self.path.join(name))
    }

    /// Takes away what other models have left, those first that were used longest ago, until it is a part of `bytes`. Returns
    /// how many bytes are then left for this one.
    pub(in crate::tiers) fn reclaim(&self, bytes: u64) -> u64 {
        let mut others = self.others();
        others.sort_unstable_by_key(|other| std::cmp::Reverse(other.used));
        let mut kept = 0;
        for other in others {
            if kept + other.bytes <= bytes / OTHERS_SHARE {
                kept += other.bytes;
            } else {
                other.remove();
            }
        }
        bytes - kept
    }

    fn others(&self) -> Vec<Other> {
        let entries = self.path.parent().and_then(|dir| fs::read_dir(dir).ok());
        let paths = entries.into_iter().flatten().flatten().map(|entry| entry.path());
        paths.filter(|path| *path != self.path).filter_map(Other::at).collect()
    }
}

// === impl Other ===

impl Other {
    /// What is at `path`, if that is blocks.
    fn at(path: PathBuf) -> Option<Self> {
        let is_ours = path.file_name()?.to_str()?.starts_with(PREFIX);
        let blocks = fs::metadata(path.join("blocks")).ok().filter(|_| is_ours)?;
        let entries = fs::metadata(path.join("entries")).ok()?;
        Some(Self { path, bytes: blocks.len() + entries.len(), used: entries.modified().ok()? })
    }

    fn remove(self) {
        let Self { path, bytes, .. } = self;
        let removed = ["blocks", "entries"].map(|file| fs::remove_file(path.join(file)));
        let removed = removed.into_iter().collect::<Result<(), _>>();
        match removed.and_then(|()| fs::remove_dir(&path)) {
            Ok(()) => {
                tracing::info!(path = %path.display(), bytes, "KV blocks of another model are removed");
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "KV blocks of another model are in the way");
            }
        }
    }
}

/// Prompts can be read from what is in it: it is the owner's alone.
fn make(dir: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(folder: &Folder, bytes: usize) {
        folder.file("entries").unwrap();
        fs::write(folder.path.join("blocks"), vec![1; bytes]).unwrap();
    }

    #[test]
    fn a_folder_is_one_workers() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::open(dir.path(), "kv-a").unwrap();
        let second = Folder::open(dir.path(), "kv-a").map(|_| ()).unwrap_err();
        assert!(second.to_string().contains("another worker"), "{second}");
        drop(first);
        assert!(Folder::open(dir.path(), "kv-b").is_ok());
    }

    #[test]
    fn other_models_keep_half_at_most_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in [("kv-old", 60), ("kv-new", 30)] {
            filled(&Folder::open(dir.path(), name).unwrap(), bytes);
        }
        fs::create_dir(dir.path().join("kv-mine")).unwrap();
        fs::write(dir.path().join("kv-mine/notes"), "not blocks").unwrap();
        let own = Folder::open(dir.path(), "kv-own").unwrap();
        assert_eq!(own.reclaim(100), 70);
        assert!(!dir.path().join("kv-old").exists());
        assert!(dir.path().join("kv-new").exists() && dir.path().join("kv-mine/notes").exists());
        assert_eq!(own.reclaim(50), 50, "none has room");
        assert!(!dir.path().join("kv-new").exists());
    }
}

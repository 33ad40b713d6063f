//! What can be wrong with a model's small files.

use std::path::{Path, PathBuf};

/// A file could not be read, or doesn't say what it has to.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FolderError {
    /// The file could not be opened or read.
    #[error("{}: {reason}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file is incomplete, malformed, or asks for something that isn't supported.
    #[error("{}: `{field}`: {reason}", file.display())]
    Field {
        /// The file.
        file: PathBuf,
        /// The field in question, dotted when nested; `*` for the file as a whole.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
}

// === impl FolderError ===

impl FolderError {
    pub(crate) fn io(file: &Path, error: &std::io::Error) -> Self {
        Self::Io { file: file.to_owned(), reason: error.to_string() }
    }

    pub(crate) fn field(file: &Path, field: &str, reason: impl Into<String>) -> Self {
        Self::Field { file: file.to_owned(), field: field.to_owned(), reason: reason.into() }
    }
}

//! What can go wrong between a checkpoint and a token.

use std::path::{Path, PathBuf};

use model_folder::{FolderError, shortened};

/// Why the engine could not load a model or run a step.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum EngineError {
    /// A file of the model could not be opened or read.
    #[error("{}: {reason}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The model's configuration is incomplete, or asks for something the engine doesn't do.
    #[error("{}: {}{reason}", file.display(), named("", field))]
    Config {
        /// The file.
        file: PathBuf,
        /// The field in question, dotted when nested.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A weight file is damaged, or a tensor is missing or has another shape than the configuration says.
    #[error("{}: {}{reason}", file.display(), named("tensor ", tensor))]
    Weights {
        /// The file (the folder, when no file holds the tensor).
        file: PathBuf,
        /// The tensor; `*` for the file as a whole.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The engine can't work under the limits it was given.
    #[error("`{field}`: {reason}")]
    Limits {
        /// The field of [`crate::EngineConfig`].
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The step was refused before anything was written: the batch contradicts itself or the model.
    #[error("invalid batch: {0}")]
    InvalidBatch(String),
    /// The device failed; what it was writing is undefined.
    #[error("device: {0}")]
    Device(String),
}

/// Why a row of logits gives no token.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LogitsFault {
    /// The model computed a NaN or an infinity, or nothing else than minus infinity: damaged weights or memory,
    /// or an overflow.
    #[error("not finite")]
    NotFinite,
    /// The request bans every token.
    #[error("no token is left to choose")]
    NoCandidate,
}

/// A part of a file before what is wrong with it; nothing for the file as a whole.
fn named(kind: &str, part: &str) -> String {
    if part == "*" { String::new() } else { format!("{kind}`{part}`: ") }
}

// === impl EngineError ===

impl EngineError {
    pub(crate) fn io(file: &Path, error: &std::io::Error) -> Self {
        FolderError::io(file, error).into()
    }

    pub(crate) fn weights(file: &Path, tensor: &str, reason: impl Into<String>) -> Self {
        let (tensor, reason) = (shortened(tensor.to_owned()), shortened(reason.into()));
        Self::Weights { file: file.to_owned(), tensor, reason }
    }
}

impl From<FolderError> for EngineError {
    fn from(error: FolderError) -> Self {
        match error {
            FolderError::Io { file, reason } => Self::Io { file, reason },
            FolderError::Field { file, field, reason } => Self::Config { file, field, reason },
        }
    }
}

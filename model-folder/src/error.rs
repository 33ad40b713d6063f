//! What can be wrong with a model's small files.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Bytes of a name or a complaint that are shown: whatever a file holds in a field's place, the message fits a
/// terminal.
const SHOWN_BYTES_MAX: usize = 512;

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
    #[error("{}: {}{reason}", file.display(), named(field))]
    Field {
        /// The file.
        file: PathBuf,
        /// The field in question, dotted when nested; `*` for the file as a whole.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What the system says of a file, with what to do about it.
fn explain(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "is missing: a model's folder must be whole".to_owned(),
        ErrorKind::PermissionDenied => format!("{error}: this user must be let read it"),
        _ => error.to_string(),
    }
}

/// A field before what is wrong with it; nothing for the file as a whole.
fn named(field: &str) -> String {
    if field == "*" { String::new() } else { format!("`{field}`: ") }
}

// === impl FolderError ===

impl FolderError {
    /// A file that could not be opened or read.
    #[must_use]
    pub fn io(file: &Path, error: &std::io::Error) -> Self {
        Self::Io { file: file.to_owned(), reason: explain(error) }
    }

    pub(crate) fn field(file: &Path, field: &str, reason: impl Into<String>) -> Self {
        let (field, reason) = (shortened(field.to_owned()), shortened(reason.into()));
        Self::Field { file: file.to_owned(), field, reason }
    }
}

/// The text, or as much of it as is shown.
#[must_use]
pub fn shortened(mut text: String) -> String {
    if text.len() > SHOWN_BYTES_MAX {
        text.truncate(text.floor_char_boundary(SHOWN_BYTES_MAX));
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_about_a_large_value_is_a_line() {
        let error =
            FolderError::field(Path::new("config.json"), &"é".repeat(9_999), "x".repeat(1 << 20));
        let text = error.to_string();
        assert!(text.len() < 1_100 && text.ends_with("xxx..."), "{} bytes", text.len());
    }
}

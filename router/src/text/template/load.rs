//! Loading a model's chat template.

use std::path::{Path, PathBuf};

use model_folder::{FolderError, ModelFolder};

use super::ChatTemplate;

/// Why a model's chat template could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TemplateLoadError {
    /// A file is there, but can't be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The template has a syntax error.
    #[error("{}the chat template `{name}` has an error: {reason}", within(folder))]
    Syntax {
        /// Which template.
        name: String,
        /// What the template library says.
        reason: String,
        /// The model's folder, if it is from one.
        folder: Option<PathBuf>,
    },
}

// === impl TemplateLoadError ===

impl TemplateLoadError {
    /// The error of a template in `dir`.
    fn of(self, dir: &Path) -> Self {
        match self {
            Self::Syntax { name, reason, .. } => {
                Self::Syntax { name, reason, folder: Some(dir.to_owned()) }
            }
            other @ Self::Folder(_) => other,
        }
    }
}

fn within(folder: &Option<PathBuf>) -> String {
    folder.as_ref().map_or_else(String::new, |dir| format!("{}: ", dir.display()))
}

pub(super) fn from_folder(folder: &ModelFolder) -> Result<Option<ChatTemplate>, TemplateLoadError> {
    let templates = folder.chat_templates()?;
    if templates.is_empty() {
        return Ok(None);
    }
    let loaded = ChatTemplate::from_named(&templates, folder.special_tokens());
    loaded.map(Some).map_err(|error| error.of(folder.dir()))
}

/// Replaces `{% generation %}` blocks, which mark the assistant's tokens for training, by blocks
/// that do nothing but keep the same whitespace control.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(begin) = rest.find("{%") {
        let (before, tag) = rest.split_at(begin);
        result.push_str(before);
        // Behind the opening: in `{%}` the two share a character.
        let Some(end) = tag[2..].find("%}").map(|at| at + 2) else {
            rest = tag;
            break;
        };
        let (open, word, close) = tag_parts(&tag[2..end]);
        match word {
            "generation" => result.push_str(&format!("{{%{open} if true {close}%}}")),
            "endgeneration" => result.push_str(&format!("{{%{open} endif {close}%}}")),
            _ => result.push_str(&tag[..end + 2]),
        }
        rest = &tag[end + 2..];
    }
    result.push_str(rest);
    result
}

/// The whitespace control before and after a tag's words, and the words.
fn tag_parts(inside: &str) -> (&str, &str, &str) {
    let (open, inside) = inside.split_at(usize::from(inside.starts_with(['-', '+'])));
    let (inside, close) = inside.split_at(inside.len() - usize::from(inside.ends_with(['-', '+'])));
    (open, inside.trim(), close)
}

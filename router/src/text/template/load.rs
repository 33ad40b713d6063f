//! Loading a model's chat template.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use model_folder::{FolderError, ModelFolder, NamedTemplate, SpecialTokens};

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
    /// The conversations that it is asked to render at first, of a few words each, take too long.
    #[error(
        "{}the chat template takes more than {LOAD_MAX:?} for a conversation of a few words",
        within(folder)
    )]
    Endless {
        /// The model's folder.
        folder: Option<PathBuf>,
    },
}

/// Some thousand times what templates take on a slow machine. One operation on values that hold each other many times may
/// take for ever, whatever the number of its steps.
const LOAD_MAX: Duration = Duration::from_secs(20);

// === impl TemplateLoadError ===

impl TemplateLoadError {
    /// The error of a template in `dir`.
    fn of(self, dir: &Path) -> Self {
        match self {
            Self::Syntax { name, reason, .. } => {
                Self::Syntax { name, reason, folder: Some(dir.to_owned()) }
            }
            Self::Endless { .. } => Self::Endless { folder: Some(dir.to_owned()) },
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
    let loaded = in_time(templates, folder.special_tokens(), LOAD_MAX);
    loaded.map(Some).map_err(|error| error.of(folder.dir()))
}

/// Loads on a thread of its own, which is left behind if it doesn't end in time: the node then doesn't start.
fn in_time(
    templates: Vec<NamedTemplate>,
    special_tokens: SpecialTokens,
    time: Duration,
) -> Result<ChatTemplate, TemplateLoadError> {
    let (sender, loaded) = mpsc::sync_channel(1);
    let load = move || drop(sender.send(ChatTemplate::from_named(&templates, special_tokens)));
    let thread = std::thread::Builder::new().name("chat-template".into()).spawn(load);
    let endless = TemplateLoadError::Endless { folder: None };
    match thread.map(|_| loaded.recv_timeout(time)) {
        Ok(Ok(loaded)) => loaded,
        Ok(Err(_)) | Err(_) => Err(endless),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_does_not_end_is_told_as_such() {
        let grow = |name: &str| {
            format!(
                "{{% set {name} = namespace(x=['x']) %}}{{% for i in range(40) %}}\
                 {{% set {name}.x = [{name}.x, {name}.x] %}}{{% endfor %}}"
            )
        };
        let source = format!("{}{}{{{{ a.x == b.x }}}}", grow("a"), grow("b"));
        let templates = vec![NamedTemplate::new("default", &source)];
        let refused = in_time(templates, SpecialTokens::default(), Duration::from_millis(300));
        let error = refused.unwrap_err();
        assert!(matches!(error, TemplateLoadError::Endless { .. }), "{error}");
    }
}

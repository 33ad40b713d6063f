//! Message contents: one text, or a list of parts.

use serde_json::{Value as Json, json};

use super::{ChatRender, ChatTemplate};

/// A word no template contains.
const PROBE: &str = "zqprobe";

/// In which form a template reads a message's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentFormat {
    /// As one text; parts are joined.
    Text,
    /// As a list of parts; text is wrapped.
    Parts,
    /// Either.
    Both,
}

// === impl ContentFormat ===

impl ContentFormat {
    /// Finds out by rendering a message in both forms.
    pub(super) fn detect(template: &ChatTemplate) -> Self {
        let render = |content: Json| {
            let messages = vec![json!({"role": "user", "content": content})];
            template.render_as_is(ChatRender { messages, ..ChatRender::default() })
        };
        let text = render(json!(PROBE)).is_ok_and(|prompt| prompt.contains(PROBE));
        // A template that only knows text prints the list as it is, quotes and all.
        let parts = render(json!([{"type": "text", "text": PROBE}]))
            .is_ok_and(|prompt| prompt.contains(PROBE) && !prompt.contains(&format!("'{PROBE}'")));
        match (text, parts) {
            (true, true) => Self::Both,
            (false, true) => Self::Parts,
            (_, false) => Self::Text,
        }
    }

    /// Brings a message's content into a form that the template reads.
    pub(super) fn adapt(self, message: &mut Json) {
        let Some(content) = message.get_mut("content") else { return };
        match (self, &*content) {
            (Self::Text, Json::Array(parts)) => *content = joined(parts).into(),
            (Self::Parts, Json::String(text)) => {
                *content = json!([{"type": "text", "text": text}]);
            }
            _ => {}
        }
    }
}

/// The text of all parts, one a line.
fn joined(parts: &[Json]) -> String {
    let texts: Vec<&str> = parts
        .iter()
        .filter_map(|part| part.as_str().or_else(|| part.get("text")?.as_str()))
        .collect();
    texts.join("\n")
}

/// The last piece of text in a message's content.
pub(super) fn last_text_mut(message: &mut Json) -> Option<&mut String> {
    match message.get_mut("content")? {
        Json::String(text) => Some(text),
        Json::Array(parts) => {
            let texts = parts.iter_mut().rev().filter_map(|part| part.get_mut("text"));
            texts.filter_map(string_mut).next()
        }
        _ => None,
    }
}

fn string_mut(value: &mut Json) -> Option<&mut String> {
    if let Json::String(text) = value { Some(text) } else { None }
}

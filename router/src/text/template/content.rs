//! Message contents: one text, or a list of parts.

use serde_json::{Value as Json, json};

use super::{ChatRender, ChatTemplate};

/// A word no template contains.
pub(super) const PROBE: &str = "zqprobe";

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

/// How a template reads the contents of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContentHabits {
    format: ContentFormat,
    /// Beside tool calls, no content is something else than an empty one.
    absent: bool,
    /// It prints parts of type `thinking`, or the field `reasoning_content`.
    thinking: bool,
    reasoning: bool,
}

// === impl ContentFormat ===

impl ContentFormat {
    /// Finds out by rendering a message in both forms.
    fn detect(template: &ChatTemplate) -> Self {
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
    fn adapt(self, content: &mut Json) {
        match (self, &*content) {
            (Self::Text, Json::Array(_)) => *content = text_of(content).into(),
            (Self::Parts, Json::String(text)) => {
                *content = json!([{"type": "text", "text": text}]);
            }
            _ => {}
        }
    }
}

// === impl ContentHabits ===

impl ContentHabits {
    /// Those of a template of which nothing is known.
    pub(super) const UNKNOWN: Self =
        Self { format: ContentFormat::Text, absent: false, thinking: false, reasoning: false };

    pub(super) fn detect(template: &ChatTemplate) -> Self {
        let format = ContentFormat::detect(template);
        Self {
            format,
            absent: reads_absence(template, format),
            thinking: format != ContentFormat::Text && template.mentions("thinking"),
            reasoning: template.mentions("reasoning_content"),
        }
    }

    /// Brings a message's content into a form that the template reads.
    pub(super) fn adapt(self, message: &mut Json) {
        self.sort_out_thoughts(message);
        let calls = message.get("tool_calls").is_some();
        let Some(content) = message.get_mut("content") else { return };
        if content.is_null() && !(calls && self.absent) {
            *content = "".into();
        }
        self.format.adapt(content);
    }

    /// An assistant's thoughts go to where the template looks for them, or are left out: what of them
    /// belongs in a prompt is the template's to say.
    fn sort_out_thoughts(self, message: &mut Json) {
        let Some(Json::Array(parts)) = message.get_mut("content") else { return };
        if self.thinking || !parts.iter().any(is_thought) {
            return;
        }
        let thoughts: Vec<String> =
            parts.extract_if(.., |part| is_thought(part)).map(thought).collect();
        if parts.is_empty() {
            message["content"] = Json::Null;
        }
        if self.reasoning && message.get("reasoning_content").is_none_or(Json::is_null) {
            message["reasoning_content"] = thoughts.concat().into();
        }
    }
}

/// Whether a template takes note that there is no content beside tool calls, rather than break on it
/// or print `None`.
fn reads_absence(template: &ChatTemplate, format: ContentFormat) -> bool {
    let render = |mut content: Json| {
        format.adapt(&mut content);
        let function = json!({"name": PROBE, "arguments": {}});
        let calls = json!([{"id": "call_zq0", "type": "function", "function": function}]);
        let mut question = json!("hi");
        format.adapt(&mut question);
        let messages = vec![
            json!({"role": "user", "content": question}),
            json!({"role": "assistant", "content": content, "tool_calls": calls}),
        ];
        template.render_as_is(ChatRender { messages, ..ChatRender::default() })
    };
    let Ok(absent) = render(Json::Null) else { return false };
    let nones = |text: &str| text.matches("None").count();
    render("".into()).map_or(true, |empty| nones(&absent) <= nones(&empty))
}

fn is_thought(part: &Json) -> bool {
    matches!(part["type"].as_str(), Some("thinking" | "redacted_thinking" | "reasoning"))
}

/// The text of a thought; none of one that its author keeps secret.
fn thought(mut part: Json) -> String {
    ["thinking", "text", "reasoning"]
        .iter()
        .find_map(|field| match part.get_mut(*field).map(Json::take) {
            Some(Json::String(text)) => Some(text),
            _ => None,
        })
        .unwrap_or_default()
}

/// A content's text: that of all parts, one a line.
pub(super) fn text_of(content: &Json) -> String {
    let Json::Array(parts) = content else {
        return content.as_str().unwrap_or_default().to_owned();
    };
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

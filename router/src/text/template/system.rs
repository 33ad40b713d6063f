//! Where a template takes system messages, and bringing them there.
//!
//! Agents and chat front ends put system messages anywhere; many templates take one at the beginning,
//! or none, and refuse the whole conversation otherwise.

use serde_json::{Value as Json, json};

use super::content::{PROBE, text_of};
use super::{ChatRender, ChatTemplate};

/// Between the texts of messages that become one.
const BETWEEN: &str = "\n\n";

/// Where a template prints system messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SystemPlace {
    /// Wherever they are.
    Anywhere,
    /// At the beginning.
    First,
    /// Nowhere: it refuses them, or leaves them out.
    Nowhere,
}

// === impl SystemPlace ===

impl SystemPlace {
    /// Finds out by rendering conversations.
    pub(super) fn detect(template: &ChatTemplate) -> Self {
        let prints = |roles: &[(&str, &str)]| {
            let message = |(role, text): &(&str, &str)| json!({"role": role, "content": text});
            let messages = roles.iter().map(message).collect();
            let prompt = template.render(ChatRender { messages, ..ChatRender::default() });
            prompt.is_ok_and(|prompt| prompt.contains(PROBE))
        };
        let middle = [("user", "a"), ("assistant", "b"), ("system", PROBE), ("user", "c")];
        if prints(&middle) && prints(&[&[("system", "s")], &middle[..]].concat()) {
            Self::Anywhere
        } else if prints(&[("system", PROBE), ("user", "a")]) {
            Self::First
        } else {
            Self::Nowhere
        }
    }

    /// Brings all system messages to where the template prints them, as one.
    pub(super) fn merge(self, messages: &mut Vec<Json>) {
        let misplaced = match self {
            Self::Anywhere => 0..0,
            Self::First => 1..messages.len(),
            Self::Nowhere => 0..messages.len(),
        };
        if !messages[misplaced].iter().any(is_system) {
            return;
        }
        let text = take_system(messages);
        match messages.iter_mut().find(|message| message["role"] == "user") {
            Some(first) if self == Self::Nowhere => {
                first["content"] = joined([text, text_of(&first["content"])]).into();
            }
            _ => {
                let role = if self == Self::First { "system" } else { "user" };
                messages.insert(0, json!({"role": role, "content": text}));
            }
        }
    }
}

/// Takes the system messages out, and returns their text. Messages of the user that now follow each
/// other become one: templates want the roles to alternate.
fn take_system(messages: &mut Vec<Json>) -> String {
    let mut texts = Vec::new();
    let mut rest: Vec<Json> = Vec::with_capacity(messages.len());
    let mut gap = false;
    for message in messages.drain(..) {
        if is_system(&message) {
            texts.push(text_of(&message["content"]));
            gap = true;
            continue;
        }
        match rest.last_mut() {
            Some(last) if gap && last["role"] == "user" && message["role"] == "user" => {
                let both = [text_of(&last["content"]), text_of(&message["content"])];
                last["content"] = joined(both).into();
            }
            _ => rest.push(message),
        }
        gap = false;
    }
    *messages = rest;
    joined(texts)
}

fn joined(texts: impl IntoIterator<Item = String>) -> String {
    let texts: Vec<String> = texts.into_iter().filter(|text| !text.is_empty()).collect();
    texts.join(BETWEEN)
}

fn is_system(message: &Json) -> bool {
    message["role"] == "system"
}

//! OpenAI's chat messages, checked and brought into the form that templates read.

use serde_json::{Map, Value as Json, json};

use crate::RequestError;
use crate::api::ignored::Ignored;
use crate::http::body::kind;
use crate::text::ChatTemplate;

const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];

/// Fields of a message that say what it is, and those that clients send along out of habit.
const FIELDS: &[&str] = &[
    "annotations",
    "cache_control",
    "content",
    "name",
    "reasoning",
    "reasoning_content",
    "refusal",
    "role",
    "tool_call_id",
    "tool_calls",
];
/// The same for a part of a content.
const PART_FIELDS: &[&str] =
    &["annotations", "cache_control", "data", "refusal", "signature", "text", "thinking", "type"];

/// What a conversation is measured by.
pub(crate) struct MessageRules<'a> {
    /// The most messages.
    pub(crate) most: usize,
    /// Reads more fields than OpenAI's API has.
    pub(crate) template: Option<&'a ChatTemplate>,
}

// === impl MessageRules ===

impl MessageRules<'_> {
    /// Checks a conversation. Texts stay as they are; what has several spellings gets one: the
    /// arguments of tool calls, which OpenAI writes as JSON in a string, become what they say
    /// (templates print them as JSON themselves), and a content without parts is no content.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] naming the first field that is wrong.
    pub(crate) fn check(
        &self,
        messages: Json,
        ignored: &mut Ignored,
    ) -> Result<Vec<Json>, RequestError> {
        let Json::Array(mut messages) = messages else {
            let message = format!("`messages` is {}, not an array", kind(&messages));
            return Err(RequestError::invalid("messages", message));
        };
        if messages.is_empty() {
            return Err(RequestError::invalid(
                "messages",
                "`messages` is empty; send at least one",
            ));
        }
        if messages.len() > self.most {
            let message =
                format!("`messages` has {} entries, at most {}", messages.len(), self.most);
            return Err(RequestError::invalid("messages", message));
        }
        for (index, message) in messages.iter_mut().enumerate() {
            self.check_message(message, &format!("messages[{index}]"), ignored)?;
        }
        Ok(messages)
    }

    fn check_message(
        &self,
        message: &mut Json,
        at: &str,
        ignored: &mut Ignored,
    ) -> Result<(), RequestError> {
        let Json::Object(message) = message else {
            let problem = format!("`{at}` is {}, not an object", kind(message));
            return Err(RequestError::invalid(at, problem));
        };
        let role = role(message, at)?;
        ignored.note_all_but(at, message, |name| self.is_read(FIELDS, name))?;
        self.check_content(message, &role, at, ignored)?;
        check_tool_calls(message, &role, at)?;
        if role == "tool" && !message.get("tool_call_id").is_some_and(Json::is_string) {
            let problem = format!("`{at}` answers a tool call, but has no `tool_call_id`");
            return Err(RequestError::invalid(format!("{at}.tool_call_id"), problem));
        }
        Ok(())
    }

    fn check_content(
        &self,
        message: &mut Map<String, Json>,
        role: &str,
        at: &str,
        ignored: &mut Ignored,
    ) -> Result<(), RequestError> {
        let at = format!("{at}.content");
        match message.get_mut("content") {
            Some(Json::String(_)) => return Ok(()),
            Some(Json::Array(parts)) if !parts.is_empty() => {
                for (index, part) in parts.iter_mut().enumerate() {
                    self.check_part(part, role, &format!("{at}[{index}]"), ignored)?;
                }
                return Ok(());
            }
            Some(Json::Array(_)) if role != "assistant" => {}
            // An assistant that called tools has said nothing; a tool may have nothing to say.
            None | Some(Json::Null | Json::Array(_)) if role == "assistant" => {
                message.insert("content".to_owned(), Json::Null);
                return Ok(());
            }
            None | Some(Json::Null) if matches!(role, "tool" | "function") => {}
            None | Some(Json::Null) => {
                let problem = format!("`{at}` is missing, and the role is {role}");
                return Err(RequestError::invalid(at, problem));
            }
            Some(other) => {
                let problem = format!("`{at}` is {}, not a string or a list of parts", kind(other));
                return Err(RequestError::invalid(at, problem));
            }
        }
        message.insert("content".to_owned(), "".into());
        Ok(())
    }

    /// Checks a part of a content. All kinds of text become `text`; an assistant's thoughts stay, for
    /// the template to print or to leave out.
    fn check_part(
        &self,
        part: &mut Json,
        role: &str,
        at: &str,
        ignored: &mut Ignored,
    ) -> Result<(), RequestError> {
        let kind = part["type"].as_str().unwrap_or_default().to_owned();
        let field = match &*kind {
            "" => {
                let problem =
                    format!("`{at}` has no `type`; a part is {{\"type\": \"text\", ...}}");
                return Err(RequestError::invalid(format!("{at}.type"), problem));
            }
            "text" | "input_text" | "output_text" => "text",
            "refusal" => "refusal",
            "thinking" | "redacted_thinking" | "reasoning" if role == "assistant" => {
                return Ok(());
            }
            other => {
                let other: String = other.chars().take(64).collect();
                let problem = format!("`{at}` is of type `{other}`; this model reads text only");
                return Err(RequestError::unsupported(format!("{at}.type"), problem));
            }
        };
        if let Json::Object(fields) = &*part {
            ignored.note_all_but(at, fields, |name| self.is_read(PART_FIELDS, name))?;
        }
        match part.get_mut(field).map(Json::take) {
            Some(Json::String(text)) => *part = json!({"type": "text", "text": text}),
            Some(Json::Null) => *part = json!({"type": "text", "text": ""}),
            _ => {
                let problem = format!("`{at}` has no text");
                return Err(RequestError::invalid(format!("{at}.{field}"), problem));
            }
        }
        Ok(())
    }

    /// Whether a field has an effect: it is one of `known`, or the template knows its name.
    fn is_read(&self, known: &[&str], name: &str) -> bool {
        known.contains(&name) || self.template.is_some_and(|template| template.mentions(name))
    }
}

fn role(message: &Map<String, Json>, at: &str) -> Result<String, RequestError> {
    let problem = match message.get("role") {
        Some(Json::String(role)) if ROLES.contains(&role.as_str()) => return Ok(role.clone()),
        Some(Json::String(role)) => {
            let role: String = role.chars().take(64).collect();
            format!("`{role}` is no role; there are {}", ROLES.join(", "))
        }
        Some(other) => format!("`{at}.role` is {}, not a string", kind(other)),
        None => format!("`{at}` has no `role`"),
    };
    Err(RequestError::invalid(format!("{at}.role"), problem))
}

fn check_tool_calls(
    message: &mut Map<String, Json>,
    role: &str,
    at: &str,
) -> Result<(), RequestError> {
    let at = format!("{at}.tool_calls");
    match message.get_mut("tool_calls") {
        // Templates ask whether it is there.
        Some(Json::Null) => drop(message.shift_remove("tool_calls")),
        Some(Json::Array(calls)) if calls.is_empty() => drop(message.shift_remove("tool_calls")),
        Some(Json::Array(_)) if role != "assistant" => {
            let problem = format!("`{at}` is the assistant's to send, not the {role}'s");
            return Err(RequestError::invalid(at, problem));
        }
        Some(Json::Array(calls)) => {
            for (index, call) in calls.iter_mut().enumerate() {
                check_tool_call(call, &format!("{at}[{index}]"))?;
            }
        }
        Some(other) => {
            let problem = format!("`{at}` is {}, not an array", kind(other));
            return Err(RequestError::invalid(at, problem));
        }
        None => {}
    }
    Ok(())
}

fn check_tool_call(call: &mut Json, at: &str) -> Result<(), RequestError> {
    let function = call.get_mut("function").and_then(Json::as_object_mut);
    let Some(function) = function.filter(|f| f.get("name").is_some_and(Json::is_string)) else {
        let problem = format!("`{at}` has no `function` with a `name`");
        return Err(RequestError::invalid(format!("{at}.function"), problem));
    };
    let written = function.get_mut("arguments").map(Json::take).unwrap_or_default();
    let arguments = arguments(written).map_err(|problem| {
        let at = format!("{at}.function.arguments");
        RequestError::invalid(&*at, format!("`{at}` {problem}"))
    })?;
    function.insert("arguments".to_owned(), arguments.into());
    Ok(())
}

/// What a tool was called with. Clients write a call without arguments in several ways.
fn arguments(written: Json) -> Result<Map<String, Json>, String> {
    let parsed = match written {
        Json::String(text) if text.trim().is_empty() => Json::Null,
        Json::String(text) => serde_json::from_str(&text)
            .map_err(|error| format!("is no valid JSON: {error}; send a JSON object, or {{}}"))?,
        other => other,
    };
    match parsed {
        Json::Object(arguments) => Ok(arguments),
        Json::Null => Ok(Map::new()),
        other => Err(format!("is {}, not a JSON object", kind(&other))),
    }
}

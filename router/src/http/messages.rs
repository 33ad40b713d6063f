//! OpenAI's chat messages, checked and brought into the form that templates read.

use serde_json::{Map, Value as Json};

use super::body::kind;
use crate::RequestError;

const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];

/// Checks a conversation. Contents stay as they are; the arguments of tool calls, which OpenAI
/// writes as JSON in a string, become what they say: templates print them as JSON themselves.
pub(crate) fn check(messages: Json, most: usize) -> Result<Vec<Json>, RequestError> {
    let Json::Array(mut messages) = messages else {
        let message = format!("`messages` is {}, not an array", kind(&messages));
        return Err(RequestError::invalid("messages", message));
    };
    if messages.is_empty() {
        return Err(RequestError::invalid("messages", "`messages` is empty; send at least one"));
    }
    if messages.len() > most {
        let message = format!("`messages` has {} entries, at most {most}", messages.len());
        return Err(RequestError::invalid("messages", message));
    }
    for (index, message) in messages.iter_mut().enumerate() {
        check_message(message, &format!("messages[{index}]"))?;
    }
    Ok(messages)
}

fn check_message(message: &mut Json, at: &str) -> Result<(), RequestError> {
    let Json::Object(message) = message else {
        return Err(RequestError::invalid(
            at,
            format!("`{at}` is {}, not an object", kind(message)),
        ));
    };
    let role = match message.get("role") {
        Some(Json::String(role)) => role.clone(),
        Some(other) => {
            let problem = format!("`{at}.role` is {}, not a string", kind(other));
            return Err(RequestError::invalid(format!("{at}.role"), problem));
        }
        None => {
            let problem = format!("`{at}` has no `role`");
            return Err(RequestError::invalid(format!("{at}.role"), problem));
        }
    };
    if !ROLES.contains(&role.as_str()) {
        let problem = format!("`{role}` is no role; there are {}", ROLES.join(", "));
        return Err(RequestError::invalid(format!("{at}.role"), problem));
    }
    check_content(message, &role, at)?;
    check_tool_calls(message, &role, at)?;
    if role == "tool" && !message.get("tool_call_id").is_some_and(Json::is_string) {
        let problem = format!("`{at}` answers a tool call, but has no `tool_call_id`");
        return Err(RequestError::invalid(format!("{at}.tool_call_id"), problem));
    }
    Ok(())
}

fn check_content(
    message: &mut Map<String, Json>,
    role: &str,
    at: &str,
) -> Result<(), RequestError> {
    let at = format!("{at}.content");
    match message.get("content") {
        Some(Json::String(_)) => Ok(()),
        Some(Json::Array(parts)) => {
            if parts.is_empty() {
                return Err(RequestError::invalid(&*at, format!("`{at}` has no parts")));
            }
            let mut parts = parts.iter().enumerate();
            parts.try_for_each(|(index, part)| check_part(part, &format!("{at}[{index}]")))
        }
        // An assistant that called tools or refused has said nothing.
        None | Some(Json::Null) if role == "assistant" => Ok(()),
        None | Some(Json::Null) => {
            Err(RequestError::invalid(&*at, format!("`{at}` is missing, and the role is {role}")))
        }
        Some(other) => {
            let problem = format!("`{at}` is {}, not a string or a list of parts", kind(other));
            Err(RequestError::invalid(&*at, problem))
        }
    }
}

fn check_part(part: &Json, at: &str) -> Result<(), RequestError> {
    match part["type"].as_str() {
        Some("text") if part["text"].is_string() => Ok(()),
        Some("text") => {
            Err(RequestError::invalid(format!("{at}.text"), format!("`{at}` has no text")))
        }
        Some("refusal") if part["refusal"].is_string() => Ok(()),
        Some(other) => {
            let problem = format!("`{at}` is of type `{other}`; this model reads text only");
            Err(RequestError::unsupported(format!("{at}.type"), problem))
        }
        None => {
            let problem = format!("`{at}` has no `type`; a part is {{\"type\": \"text\", ...}}");
            Err(RequestError::invalid(format!("{at}.type"), problem))
        }
    }
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
        Some(Json::Array(_)) if role != "assistant" => {
            let problem = format!("`{at}` is the assistant's to send, not the {role}'s");
            return Err(RequestError::invalid(at, problem));
        }
        Some(Json::Array(calls)) if calls.is_empty() => drop(message.shift_remove("tool_calls")),
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
    if let Some(Json::String(arguments)) = function.get("arguments")
        && let Ok(parsed @ Json::Object(_)) = serde_json::from_str(arguments)
    {
        function.insert("arguments".to_owned(), parsed);
    }
    Ok(())
}

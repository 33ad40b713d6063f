//! The body of `POST /v1/chat/completions`.

use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::Value as Json;

use crate::Target;
use crate::fixtures::gateway::{Answer, OPEN};

pub(in crate::targets) const TARGET: Target = Target::new("chat", run);

fn run(body: &[u8]) {
    let answer = post("/v1/chat/completions", body);
    if answer.head.status() == StatusCode::OK {
        check(&answer, body, "chat.completion");
    }
}

/// Sends a JSON body, and checks what holds of all answers.
pub(super) fn post(path: &str, body: &[u8]) -> Answer {
    let request = Request::post(path).header("content-type", "application/json");
    let answer = OPEN.http(request.body(Body::from(body.to_vec())).expect("a request"));
    answer.check();
    answer
}

/// Checks an answer to a request that was taken.
pub(super) fn check(answer: &Answer, body: &[u8], object: &str) {
    let text = std::str::from_utf8(&answer.body).expect("an answer in UTF-8");
    // What was taken is JSON, but for halves of characters.
    let request: Json = serde_json::from_slice(body).unwrap_or_default();
    if !text.starts_with("data: ") {
        return check_whole(
            &serde_json::from_str(text).expect("an answer in JSON"),
            &request,
            object,
        );
    }
    let events = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    let (mut count, mut last) = (0, "");
    for event in events {
        (count, last) = (count + 1, event);
        if event != "[DONE]" {
            let event: Json = serde_json::from_str(event).expect("an event in JSON");
            assert!(event["error"].is_null(), "{event}");
        }
    }
    assert!(count > 1 && last == "[DONE]", "{text}");
}

fn check_whole(answer: &Json, request: &Json, object: &str) {
    assert!(answer["object"].as_str().is_some_and(|it| it.contains(object)), "{answer}");
    let choices = answer["choices"].as_array().expect("choices");
    for (choice, index) in choices.iter().zip(0_u64..) {
        assert_eq!(choice["index"], index);
        assert!(choice["finish_reason"].is_string(), "{choice}");
    }
    let usage = |name: &str| answer["usage"][name].as_u64().expect("a count");
    assert_eq!(usage("total_tokens"), usage("prompt_tokens") + usage("completion_tokens"));
    if object == "chat.completion" && request.is_object() {
        let wanted = request["n"].as_f64().map_or(1, |n| n as usize);
        assert_eq!(choices.len(), wanted, "{request}");
    }
}

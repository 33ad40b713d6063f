//! Bad input to the real server: each case is refused in OpenAI's shape, and it goes on serving.

use baton_tests::client::http::chat_body;
use baton_tests::model::NAME;
use baton_tests::{Client, Single};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// A request that must be refused.
struct Case {
    path: &'static str,
    body: String,
    /// The status wanted.
    status: u16,
    /// What the error has to name, in its `param` or its message; empty for whole-body errors.
    names: &'static str,
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_and_the_server_goes_on() {
    let single = Single::start(&["--body-kib-max", "256"]).await;
    let client = single.node.client();
    let mut complaints = Vec::new();
    let cases = cases();
    assert!(cases.len() >= 50, "{} cases", cases.len());
    for case in &cases {
        if let Err(complaint) = is_refused(&client, case).await {
            let body: String = case.body.chars().take(160).collect();
            complaints.push(format!("{} {body}\n    {complaint}", case.path));
        }
    }
    assert!(complaints.is_empty(), "{} cases:\n{}", complaints.len(), complaints.join("\n"));

    let answer = client.chat("Are you well?", 8).await.expect("the server goes on serving");
    assert_eq!(answer.flaw(), None);
    single.assert_clean().await;
}

async fn is_refused(client: &Client, case: &Case) -> Result<(), String> {
    let (status, headers, text) =
        client.post_bytes(case.path, "application/json", case.body.clone()).await;
    if status.as_u16() != case.status {
        return Err(format!("want {}, got {status}: {text}", case.status));
    }
    let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or("");
    if !kind.starts_with("application/json") {
        return Err(format!("content type {kind:?}"));
    }
    let value: Value = serde_json::from_str(&text).map_err(|error| format!("{text:?}: {error}"))?;
    let error = &value["error"];
    for field in ["message", "type"] {
        if error[field].as_str().is_none_or(str::is_empty) {
            return Err(format!("error.{field} is missing: {text}"));
        }
    }
    let named = format!("{} {}", error["param"], error["message"]);
    if named.contains(case.names) {
        Ok(())
    } else {
        Err(format!("want {:?} in {text}", case.names))
    }
}

/// The options that say how strictly conversations are taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_strict_server_refuses_fields_without_effect_and_takes_control_tokens_for_text() {
    let options = ["--strict-fields", "--merge-system-messages", "--control-tokens-as-text"];
    let strict = Single::start(&options).await;
    let client = strict.node.client();
    let mut body = chat_body("Hello", 4);
    body["temprature"] = 1.into();
    let (status, _, answer) = client.post(CHAT, &body).await;
    assert_eq!((status.as_u16(), &answer["error"]["param"]), (400, &json!("temprature")));

    let prompt_tokens = async |text: &str| {
        let (status, _, answer) = client.post(CHAT, &chat_body(text, 4)).await;
        assert_eq!(status.as_u16(), 200, "{answer}");
        answer["usage"]["prompt_tokens"].as_u64().expect("a count")
    };
    let spelled = prompt_tokens("<|im_end|><|im_end|><|im_end|><|im_end|>").await;
    assert!(spelled >= prompt_tokens("").await + 12, "{spelled}");
    strict.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_routes_and_methods_are_told_apart() {
    let single = Single::start(&[]).await;
    let client = single.node.client();
    assert_eq!(client.get("/v1/nothing").await.0, 404);
    assert_eq!(client.get(CHAT).await.0, 405);
    let (status, _, text) =
        client.post_bytes(CHAT, "text/plain", chat_body("hi", 4).to_string()).await;
    assert!(status == 200 || status == 400 || status == 415, "{status}: {text}");
}

fn cases() -> Vec<Case> {
    let mut cases = malformed_bodies();
    cases.extend(bad_chats());
    cases.extend(bad_completions());
    cases
}

fn malformed_bodies() -> Vec<Case> {
    let case = |body: &str, status| Case { path: CHAT, body: body.to_owned(), status, names: "" };
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let big = chat_body(&"x".repeat(300 << 10), 4).to_string();
    vec![
        case("", 400),
        case("{", 400),
        case("null", 400),
        case("[]", 400),
        case("\"chat\"", 400),
        case("{\"model\": }", 400),
        case("{\"messages\": \"hi\"}", 400),
        case("\u{0}\u{1}\u{2}", 400),
        case(&deep, 400),
        case(&big, 413),
    ]
}

/// A valid chat with one field replaced.
fn chat(field: &'static str, value: Value) -> Case {
    let mut body = chat_body("Hello", 4);
    body[field] = value;
    Case { path: CHAT, body: body.to_string(), status: 400, names: field }
}

fn bad_chats() -> Vec<Case> {
    let user = |content: Value| json!([{ "role": "user", "content": content }]);
    let mut unknown_model = chat("model", "gpt-nobody".into());
    unknown_model.status = 404;
    let mut no_messages = chat("messages", Value::Null);
    no_messages.body = json!({ "model": NAME }).to_string();
    vec![
        unknown_model,
        no_messages,
        chat("messages", json!([])),
        chat("messages", json!("Hello")),
        chat("messages", json!([1])),
        chat("messages", json!([{ "content": "no role" }])),
        chat("messages", json!([{ "role": "wizard", "content": "x" }])),
        chat("messages", json!([{ "role": 3, "content": "x" }])),
        chat("messages", user(json!(42))),
        chat("messages", user(json!({ "text": "x" }))),
        chat("messages", user(json!([{ "type": "image_url", "image_url": { "url": "x" } }]))),
        chat("messages", user(json!([{ "type": "text" }]))),
        chat("messages", json!([{ "role": "user" }])),
        chat("max_tokens", json!(0)),
        chat("max_tokens", json!(-1)),
        chat("max_tokens", json!("many")),
        chat("max_tokens", json!(1.5)),
        chat("temperature", json!(-0.1)),
        chat("temperature", json!(2.5)),
        chat("temperature", json!("hot")),
        chat("temperature", json!(1e300)),
        chat("top_p", json!(-0.5)),
        chat("top_p", json!(1.1)),
        chat("top_k", json!("all")),
        chat("min_p", json!(2)),
        chat("n", json!(0)),
        chat("n", json!(-3)),
        chat("n", json!(1_000_000)),
        chat("stop", json!(7)),
        chat("stop", json!([1, 2])),
        chat("stop", json!(vec!["x"; 1000])),
        chat("seed", json!("lucky")),
        chat("frequency_penalty", json!(3)),
        chat("presence_penalty", json!(-3)),
        chat("logit_bias", json!([1])),
        chat("logit_bias", json!({ "not a token": 1 })),
        chat("logit_bias", json!({ "5": 1000 })),
        chat("logit_bias", json!({ "99999999": 1 })),
        chat("logprobs", json!("yes")),
        chat("top_logprobs", json!(-1)),
        chat("top_logprobs", json!(1000)),
        chat("stream", json!("yes")),
        chat("stream_options", json!(true)),
        chat("stream_options", json!({ "include_usage": true })),
    ]
}

/// A valid completion with one field replaced.
fn completion(field: &'static str, value: Value) -> Case {
    let mut body = json!({ "model": NAME, "prompt": "Once", "max_tokens": 4 });
    body[field] = value;
    Case { path: COMPLETIONS, body: body.to_string(), status: 400, names: field }
}

fn bad_completions() -> Vec<Case> {
    vec![
        completion("prompt", Value::Null),
        completion("prompt", json!([])),
        completion("prompt", json!({})),
        completion("prompt", json!([[1, 2], "mixed"])),
        completion("prompt", json!([-1])),
        completion("prompt", json!([4_000_000_000u32])),
        completion("prompt", json!("word ".repeat(20_000))),
        completion("max_tokens", json!(-5)),
        completion("logprobs", json!(1000)),
        completion("n", json!(0)),
        completion("best_of", json!(5)),
        completion("suffix", json!(3)),
    ]
}

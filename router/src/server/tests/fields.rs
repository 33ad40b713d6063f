//! What well-known clients send, and OpenAI's own API doesn't always take.

use rstest::rstest;
use serde_json::{Value as Json, json};

use crate::testing::*;

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const IGNORED: &str = "x-baton-ignored-fields";

#[tokio::test]
async fn every_chunk_brings_the_usage_so_far_when_asked_to() {
    let router = TestRouter::playing(vec![says("abc")]).await;
    for (path, body) in [(CHAT, chat(json!({}))), (COMPLETIONS, completion(json!({})))] {
        let mut body = body;
        body["stream"] = true.into();
        // As guidellm sends it.
        body["stream_options"] = json!({"include_usage": true, "continuous_usage_stats": true});
        let answer = router.post(path, &body).await;
        assert_eq!(answer.header(IGNORED), "");
        let mut events = answer.events();
        assert_eq!(events.pop(), Some(json!("[DONE]")));
        let last = events.pop().unwrap();
        assert_eq!(last["choices"], json!([]));
        let counts: Vec<u64> =
            events.iter().map(|e| e["usage"]["completion_tokens"].as_u64().unwrap()).collect();
        assert!(counts.is_sorted() && counts.contains(&1) && counts.contains(&2), "{counts:?}");
        assert_eq!(events.last().unwrap()["usage"], last["usage"]);
        assert!(
            events.iter().all(|e| e["usage"]["prompt_tokens"] == last["usage"]["prompt_tokens"])
        );
    }
}

#[tokio::test]
async fn running_usage_alone_has_no_chunk_of_its_own() {
    let router = TestRouter::playing(vec![says("ab")]).await;
    let options = json!({"continuous_usage_stats": true});
    let body = chat(json!({"stream": true, "stream_options": options}));
    let events = router.post(CHAT, &body).await.events();
    let chunks = &events[..events.len() - 1];
    assert!(chunks.iter().all(|e| e["choices"][0].is_object() && e["usage"].is_object()));
}

#[tokio::test]
async fn fields_without_effect_are_named_in_a_header() {
    let router = TestRouter::playing(vec![says("x")]).await;
    let message = json!({"role": "user", "mood": "bad",
        "content": [{"type": "text", "text": "hi", "colour": "red", "cache_control": {}}]});
    let fields = json!({"temprature": 1, "messages": [message], "stream": true,
                        "stream_options": {"x": 1, "include_usage": true}});
    let answer = router.post(CHAT, &chat(fields)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let named = "temprature, stream_options.x, messages[0].mood, messages[0].content[0].colour";
    assert_eq!(answer.header(IGNORED), named);
    let body = completion(json!({"messages": [], "max_completion_tokens": 3}));
    let answer = router.post(COMPLETIONS, &body).await;
    assert_eq!((answer.status, answer.header(IGNORED)), (200, "messages, max_completion_tokens"));
    assert_eq!(router.post(CHAT, &chat(json!({"user": "u"}))).await.header(IGNORED), "");
    let misspelt = router.client.post(router.at(CHAT)).header("x-baton-itl-traget-ms", "20");
    let answer = misspelt.json(&chat(json!({"mood": 1}))).send().await.unwrap();
    assert_eq!(answer.headers()[IGNORED], "mood, x-baton-itl-traget-ms");
}

#[tokio::test]
async fn the_header_stays_small_and_plain_whatever_names_are_sent() {
    let router = TestRouter::playing(vec![says("x")]).await;
    let mut body = chat(json!({}));
    for index in 0..1000 {
        body[format!("f{index}")] = 1.into();
    }
    body["messages"][0]["é,\r\nSet-Cookie: x"] = 1.into();
    body["messages"][0]["z".repeat(100_000)] = 1.into();
    let answer = router.post(CHAT, &body).await;
    assert_eq!(answer.status, 200);
    let named = answer.header(IGNORED);
    assert!(named.starts_with("f0, f1, ") && named.ends_with(", and 986 more"), "{named}");
    body = chat(json!({}));
    body["é,\r\nx"] = 1.into();
    body["z".repeat(100_000)] = 1.into();
    let answer = router.post(CHAT, &body).await;
    assert_eq!(answer.header(IGNORED), format!("????x, {}...", "z".repeat(64)));
}

#[tokio::test]
async fn strictly_fields_without_effect_are_refused_as_openai_refuses_them() {
    let router =
        TestRouter::configured(vec![says("x")], |config| config.strict_fields = true).await;
    let message = |message: Json| json!({"messages": [message]});
    for (fields, param) in [
        (json!({"temprature": 1}), "temprature"),
        (json!({"stream": true, "stream_options": {"x": 1}}), "stream_options.x"),
        (message(json!({"role": "user", "content": "hi", "mood": 1})), "messages[0].mood"),
        (
            message(json!({"role": "user", "content": [{"type": "text", "text": "", "x": 1}]})),
            "messages[0].content[0].x",
        ),
    ] {
        let answer = router.post(CHAT, &chat(fields)).await;
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, &error["param"]), (400, &json!(param)), "{error}");
        assert_eq!(error["code"], "unrecognized_request_argument");
        let message = format!("Unrecognized request argument supplied: {param}");
        assert_eq!(error["message"], message);
    }
    let harmless = chat(json!({"user": "u", "metadata": {}, "functions": null}));
    assert_eq!(router.post(CHAT, &harmless).await.status, 200);
}

#[tokio::test]
async fn a_field_that_the_template_reads_has_an_effect() {
    let source = "{{ messages[0].mood }} {{ messages[0].content }}";
    let template = crate::text::ChatTemplate::from_source(source, Default::default()).unwrap();
    let router = TestRouter::configured(vec![says("x")], |config| {
        let model = crate::ServedModel { template: Some(template), ..model() };
        config.models = crate::ModelCatalog::new(vec![model.into()]).unwrap();
        config.strict_fields = true;
    })
    .await;
    let message = json!({"role": "user", "content": "hi", "mood": "good"});
    let answer = router.post(CHAT, &chat(json!({"messages": [message]}))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(prompt(&router), "good hi");
}

#[rstest]
#[case(r#"{"messages": [{"role": "user", "content": "hi\ud83d"}]}"#, "user\nhi\u{FFFD}<")]
#[case(r#"{"messages": [{"role": "user", "content": "\ude00\ud83d\ude00"}]}"#, "user\n\u{FFFD}😀<")]
#[case(r#"{"messages": [{"role": "user", "content": "\\ud83d\ud83d"}]}"#, "user\n\\ud83d\u{FFFD}<")]
#[case(
    r#"{"cut\ud83d": 1, "messages": [{"role": "user", "content": "hi", "x\udfff": 1}]}"#,
    "user\nhi<"
)]
#[tokio::test]
async fn half_a_character_becomes_a_replacement_character(
    #[case] body: &'static str,
    #[case] expected: &str,
) {
    let router = TestRouter::playing(vec![says("x")]).await;
    let send = router.client.post(router.at(CHAT)).header("content-type", "application/json");
    let answer = Answer::read(send.body(body).send().await.unwrap()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(prompt(&router).contains(expected), "{:?}", prompt(&router));
}

#[tokio::test]
async fn whole_numbers_may_be_written_with_a_point() {
    let router = TestRouter::playing(vec![says("x")]).await;
    let fields = json!({"max_tokens": 2.0, "min_tokens": 1.0, "n": 1.0, "top_k": 40.0, "seed": 7.0,
                        "stop_token_ids": [10.0]});
    let more = json!({"logprobs": true, "top_logprobs": 2.0, "max_completion_tokens": 3.0});
    let mut body = chat(fields.clone());
    more.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
    let answer = router.post(CHAT, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let mut body = completion(fields);
    body["logprobs"] = 1.0.into();
    body["prompt"] = json!([[104.0, 105.0]]);
    let answer = router.post(COMPLETIONS, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let requests = router.peer.requests();
    let (first, second) = (&requests[0].generation, &requests[1].generation);
    assert_eq!((first.stop.max_tokens, second.stop.max_tokens), (3, 2));
    assert_eq!((first.sampling.seed, first.sampling.top_k), (7, 40));
    assert_eq!((first.sampling.logprobs, second.sampling.logprobs), (Some(2), Some(1)));
    assert_eq!((&second.stop.stop_token_ids[..], &second.prompt[..]), (&[10][..], &[104, 105][..]));
}

#[tokio::test]
async fn hundreds_of_stop_strings_are_watched_for() {
    let router = TestRouter::playing(vec![says("one STOP200 two")]).await;
    let stops: Vec<String> = (0..256).map(|index| format!("STOP{index}.")).collect();
    let answer = router.post(CHAT, &chat(json!({"stop": stops}))).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "one STOP200 two");
    let stops: Vec<String> = (100..300).map(|index| format!("STOP{index}")).collect();
    let answer = router.post(CHAT, &chat(json!({"stop": stops}))).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "one ");
}

/// The prompt of the last request.
pub(super) fn prompt(router: &TestRouter) -> String {
    let requests = router.peer.requests();
    let prompt = &requests.last().unwrap().generation.prompt;
    model().tokenizer.decode(prompt, false).unwrap()
}

//! What strangers, and clients with keys, get to see and to use.

use std::time::Duration;

use cluster::ErrorCode;
use proto::v1::InferenceRequest;
use proto::v1::inference_client::InferenceClient;
use proto::v1::inference_request::Input;
use proto::v1::inference_response::Event;
use serde_json::{Value as Json, json};

use crate::callers::keys;
use crate::testing::*;

const CHAT: &str = "/v1/chat/completions";
/// Far more than is given back of anything.
const LONG: usize = 1 << 20;
const TOLD_BYTES_MAX: usize = 4096;

#[tokio::test]
async fn what_a_client_sent_comes_back_cut() {
    let router = TestRouter::playing(vec![says("x")]).await;
    let long = "x".repeat(LONG);
    let user = |content: Json| json!({"messages": [{"role": "user", "content": content}]});
    for fields in [
        json!({"model": long}),
        json!({"messages": [{"role": long, "content": "x"}]}),
        user(json!([{"type": long}])),
        json!({"tool_choice": long}),
        json!({"response_format": {"type": long}}),
        json!({"logit_bias": {long.as_str(): 1}}),
        json!({"temperature": long}),
        json!({"stop": {long.as_str(): 1}}),
        json!({"stream_options": {long.as_str(): true}}),
        json!({"guided_json": long, "functions": [long]}),
    ] {
        let answer = router.post(CHAT, &chat(fields.clone())).await;
        let field = fields.as_object().unwrap().keys().next().unwrap().clone();
        assert!((400..500).contains(&answer.status), "{field:.20}: {}", answer.status);
        assert!(answer.body.len() < TOLD_BYTES_MAX, "{field:.20}: {} bytes", answer.body.len());
    }
    let unknown = json!({"messages": [{"role": "user", "content": "x"}], "model": "test-model", long.as_str(): 1});
    let answer = router.post(CHAT, &unknown).await;
    assert!(answer.body.len() < TOLD_BYTES_MAX, "{} bytes", answer.body.len());
    let headers: usize = answer.headers.values().map(axum::http::HeaderValue::len).sum();
    assert!(headers < TOLD_BYTES_MAX, "{headers} bytes");
    let long_path = format!("/v1/{}", "y".repeat(20_000));
    assert!(router.get(&long_path).await.body.len() < TOLD_BYTES_MAX);
    assert!(router.get(&format!("/v1/models{long_path}")).await.body.len() < TOLD_BYTES_MAX);
}

#[tokio::test]
async fn grpc_statuses_stay_readable_whatever_was_sent() {
    let router = TestRouter::playing(vec![says("x")]).await;
    let mut client = InferenceClient::connect(router.grpc_url.clone()).await.unwrap();
    for length in [20_000, LONG] {
        let request =
            InferenceRequest { model: "\u{e9}".repeat(length), ..InferenceRequest::default() };
        let status = client.generate(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::NotFound, "{status}");
        assert!(status.message().len() < TOLD_BYTES_MAX);
    }
}

#[tokio::test]
async fn workers_are_named_to_those_only_who_debug() {
    for debug in [false, true] {
        let router =
            TestRouter::configured(vec![says("x")], |config| config.debug_headers = debug).await;
        let answer = router.post(CHAT, &chat(json!({}))).await;
        let named = ["x-baton-decode-worker", "x-baton-prefill-worker"]
            .map(|name| answer.headers.contains_key(name));
        assert_eq!(named, [debug; 2]);
        assert_eq!(answer.header("x-baton-path"), "handoff");
        let mut client = InferenceClient::connect(router.grpc_url.clone()).await.unwrap();
        let input = Some(Input::Text("x".into()));
        let request = InferenceRequest { input, ..InferenceRequest::default() };
        let mut stream = client.generate(request).await.unwrap().into_inner();
        while let Some(message) = stream.message().await.unwrap() {
            if let Some(Event::Usage(usage)) = message.event {
                assert_eq!(usage.decode_worker_id.is_empty(), !debug);
                assert_eq!(usage.prefill_worker_id.is_empty(), !debug);
            }
        }
    }
}

#[tokio::test]
async fn why_a_request_went_there_is_told_to_those_only_who_debug_and_ask() {
    for (debug, says_so, asked) in [
        (false, Some("1"), true),
        (true, None, false),
        (true, Some("0"), false),
        (true, Some("false"), false),
        (true, Some("1"), true),
        (true, Some("True"), true),
        (true, Some("yes"), true),
    ] {
        let router =
            TestRouter::configured(vec![says("x")], |config| config.debug_headers = debug).await;
        let mut request = router.client.post(router.at(CHAT)).json(&chat(json!({})));
        if let Some(value) = says_so {
            request = request.header("x-baton-explain", value);
        }
        let answer = Answer::read(request.send().await.unwrap()).await;
        let told = answer.headers.get("x-baton-placement").map(|told| told.to_str().unwrap());
        assert_eq!(told, (debug && asked).then_some(EXPLAINED));
        let is_explained = router.peer.requests()[0].explanation.is_some();
        assert_eq!(is_explained, debug && asked, "nobody writes down what nobody reads");
    }
}

/// A router with a file of keys.
pub(super) async fn with_keys(tables: &[(&str, &str)]) -> (TestRouter, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let table = |(name, more): &(&str, &str)| {
        format!(
            "[[key]]\nname = \"{name}\"\nsha256 = \"{}\"\n{more}\n",
            keys::hash(&format!("sk-{name}"))
        )
    };
    std::fs::write(&file, tables.iter().map(table).collect::<String>()).unwrap();
    let scripts = vec![
        [vec![started(), Step::Wait], text(0, "x"), vec![finished(0, words::FinishReason::Length)]]
            .concat(),
    ];
    let router = TestRouter::configured(scripts, |config| config.api_keys_file = Some(file)).await;
    (router, folder)
}

async fn ask_as(router: &TestRouter, name: &str) -> Answer {
    let request = router.client.post(router.at(CHAT)).header("x-api-key", format!("sk-{name}"));
    Answer::read(request.json(&chat(json!({}))).send().await.unwrap()).await
}

#[tokio::test]
async fn a_key_has_limits_and_says_how_it_stands() {
    let limits = "requests_per_minute = 2\ntokens_per_minute = 1000\ncontext_tokens_max = 100";
    let (router, _folder) = with_keys(&[("alice", limits), ("bob", "concurrent_max = 1")]).await;
    for remaining in ["1", "0"] {
        router.peer.go_on();
        let answer = ask_as(&router, "alice").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.header("x-ratelimit-limit-requests"), "2");
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), remaining);
        assert_ne!(
            answer.header("x-ratelimit-remaining-tokens"),
            "1000",
            "what it took is counted"
        );
    }
    let refused = ask_as(&router, "alice").await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (429, &json!("rate_limit_exceeded"))
    );
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");

    let first = {
        let request = router.client.post(router.at(CHAT)).header("api-key", "sk-bob");
        let sent = request.json(&chat(json!({"stream": true}))).send().await.unwrap();
        assert_eq!(sent.status(), 200);
        sent
    };
    assert_eq!(ask_as(&router, "bob").await.status, 429, "one at a time");
    drop(first);
    router.peer.cancelled(1).await;
    router.peer.go_on();
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while ask_as(&router, "bob").await.status != 200 {
        assert!(std::time::Instant::now() < deadline, "the turn comes back");
        router.peer.go_on();
    }
    let metrics = router.ask("/metrics").await.body;
    assert!(metrics.contains("baton_key_requests_total{key=\"alice\"} 2"), "{metrics}");
}

#[tokio::test]
async fn each_choice_counts_as_one_that_a_key_has_running() {
    let (router, _folder) = with_keys(&[("alice", "concurrent_max = 4")]).await;
    let ask = async |fields: Json| {
        let request = router.client.post(router.at(CHAT)).header("api-key", "sk-alice");
        request.json(&chat(fields)).send().await.unwrap()
    };
    let three = ask(json!({"n": 3, "stream": true})).await;
    assert_eq!(three.status(), 200);
    assert_eq!(ask(json!({"n": 2})).await.status(), 429, "three and two are more than four");
    assert_eq!(ask(json!({"stream": true})).await.status(), 200);
    let never = Answer::read(ask(json!({"n": 5})).await).await;
    assert_eq!((never.status, &never.json()["error"]["param"]), (400, &json!("n")));
}

/// A key that is taken out of the file while it is at work.
#[tokio::test]
async fn a_key_taken_away_starts_nothing_more_and_ends_what_it_began() {
    let (router, folder) = with_keys(&[("alice", "")]).await;
    let request = router.client.post(router.at(CHAT)).header("api-key", "sk-alice");
    let running = request.json(&chat(json!({"stream": true}))).send().await.unwrap();
    assert_eq!(running.status(), 200);

    std::fs::write(folder.path().join("keys.toml"), "# nobody").unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let known = async || {
        let models = router.client.get(router.at("/v1/models")).header("api-key", "sk-alice");
        models.send().await.unwrap().status() == 200
    };
    while known().await {
        assert!(std::time::Instant::now() < deadline, "the file is read again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(ask_as(&router, "alice").await.status, 401);
    router.peer.go_on();
    let answer = Answer::read(running).await;
    assert!(answer.body.ends_with("data: [DONE]\n\n"), "{}", answer.body);
}

#[tokio::test]
async fn tenants_have_prefix_caches_of_their_own() {
    let (router, _folder) = with_keys(&[
        ("one", "tenant = \"red\""),
        ("two", "tenant = \"red\""),
        ("three", "tenant = \"blue\""),
        ("four", ""),
    ])
    .await;
    for name in ["one", "two", "three", "four"] {
        router.peer.go_on();
        assert_eq!(ask_as(&router, name).await.status, 200);
    }
    let salts: Vec<_> =
        router.peer.requests().iter().map(|request| request.generation.salt.clone()).collect();
    assert_eq!(salts[0], salts[1]);
    assert_ne!(salts[0], salts[2]);
    assert_eq!(salts[3], words::TenantSalt::default());
}

#[tokio::test]
async fn failures_of_the_house_keep_its_names() {
    for code in [ErrorCode::Busy, ErrorCode::Unavailable, ErrorCode::Internal] {
        let router = TestRouter::playing(vec![vec![Step::Refuse(failure(code))]]).await;
        let answer = router.post(CHAT, &chat(json!({}))).await;
        for name in ["decode-", "prefill-", "127.0.0.1", "http://"] {
            assert!(!answer.body.contains(name), "{}", answer.body);
        }
        assert!(answer.headers.contains_key("x-request-id"));
    }
}

//! What those find who come to the wrong place, or from another page.

use reqwest::Method;
use rstest::rstest;
use serde_json::json;

use crate::testing::*;

/// The statuses after which litellm sends a deployment nothing for a while.
fn cools_down(status: u16) -> bool {
    matches!(status, 401 | 404 | 408 | 429) || status >= 500
}

#[rstest]
#[case("/v1/embeddings")]
#[case("/v1/responses")]
#[case("/v1/responses/resp_1")]
#[case("/v1/messages")]
#[case("/v1/messages/count_tokens")]
#[case("/v1/images/generations")]
#[case("/v1/audio/transcriptions")]
#[case("/v1/audio/speech")]
#[case("/v1/moderations")]
#[case("/v1/files")]
#[case("/v1/batches")]
#[case("/v1/fine_tuning/jobs")]
#[case("/v1/assistants")]
#[case("/v1/rerank")]
#[case("/v1/chat/completions/chatcmpl-1")]
#[case("/api/chat")]
#[case("/api/generate")]
#[case("/api/tags")]
#[case("/api/version")]
#[case("/tokenize")]
#[case("/chat/completions")]
#[case("/v1/v1/chat/completions")]
#[case("/openai/deployments/x/chat/completions")]
#[tokio::test]
async fn known_paths_that_are_not_served_say_what_is(#[case] path: &str) {
    let router = TestRouter::playing(vec![says("x")]).await;
    for method in [Method::POST, Method::GET] {
        let request = router.client.request(method, router.at(path)).json(&json!({}));
        let answer = Answer::read(request.send().await.unwrap()).await;
        let error = answer.json()["error"].clone();
        assert!(!cools_down(answer.status), "{path}: {}", answer.status);
        assert_eq!(error["code"], "unsupported_endpoint");
        assert_eq!(error["type"], "invalid_request_error");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("/v1/chat/completions, POST /v1/completions"), "{message}");
        assert!(message.contains(path), "{message}");
    }
}

#[rstest]
#[case("/v1/chat/completions/")]
#[case("/v1/completions//")]
#[case("/v1/models/")]
#[case("/health/")]
#[tokio::test]
async fn a_slash_too_much_is_told(#[case] path: &str) {
    let router = TestRouter::playing(vec![says("x")]).await;
    let answer = router.post(path, &json!({})).await;
    let error = answer.json()["error"].clone();
    assert_eq!((answer.status, &error["code"]), (400, &json!("unsupported_endpoint")));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("is not served: the slash at its end is too much"), "{message}");
}

#[tokio::test]
async fn other_paths_are_unknown_and_long_ones_are_cut() {
    let router = TestRouter::playing(vec![says("x")]).await;
    for path in ["/v1/nothing", "/v1/embeddingsx", "/apis"] {
        let answer = router.get(path).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (404, &json!("unknown_url")));
    }
    for prefix in ["/v1/files/", "/x"] {
        let answer = router.get(&format!("{prefix}{}", "y".repeat(10_000))).await;
        assert!(answer.body.len() < 600, "{}", answer.body);
    }
}

#[tokio::test]
async fn the_address_alone_says_what_this_is() {
    let router = TestRouter::configured(vec![says("x")], |config| {
        config.api_keys = vec!["sk-one".into()];
    })
    .await;
    for path in ["/", "/v1", "/v1/"] {
        let answer = router.get(path).await;
        assert_eq!((answer.status, &answer.json()["name"]), (200, &json!("baton")));
        assert_eq!(answer.json()["version"], env!("CARGO_PKG_VERSION"));
        assert!(answer.body.contains("/v1/chat/completions"));
    }
    let request = router.client.get(router.at("/")).header("accept", "text/html,*/*;q=0.8");
    let page = Answer::read(request.send().await.unwrap()).await;
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.body.contains("POST /v1/chat/completions"), "{}", page.body);
    assert_eq!(router.post("/", &json!({})).await.status, 405);
}

async fn preflight(router: &TestRouter, origin: &str) -> Answer {
    let request = router
        .client
        .request(Method::OPTIONS, router.at("/v1/chat/completions"))
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type,x-stainless-os");
    Answer::read(request.send().await.unwrap()).await
}

#[tokio::test]
async fn a_preflight_is_answered_with_what_was_asked() {
    for (any, origin, allowed) in [
        (false, "http://localhost:3000", "http://localhost:3000"),
        (false, "http://127.0.0.1:5173", "http://127.0.0.1:5173"),
        (false, "https://page.example", ""),
        (true, "https://page.example", "*"),
        (true, "null", "*"),
    ] {
        let router = TestRouter::configured(vec![says("x")], |config| config.cors = any).await;
        let answer = preflight(&router, origin).await;
        assert_eq!(answer.header("access-control-allow-origin"), allowed, "{origin}");
        if !allowed.is_empty() {
            assert_eq!(answer.status, 200);
            let headers = "authorization,content-type,x-stainless-os";
            assert_eq!(answer.header("access-control-allow-headers"), headers);
            assert_eq!(answer.header("access-control-allow-methods"), "POST");
            assert_eq!(answer.header("access-control-max-age"), "86400");
        }
    }
}

#[tokio::test]
async fn pages_read_answers_and_errors_alike() {
    let router = TestRouter::configured(vec![says("x")], |config| {
        config.api_keys = vec!["sk-one".into()];
    })
    .await;
    for key in ["sk-one", "sk-two"] {
        let request = router
            .client
            .post(router.at("/v1/chat/completions"))
            .header("origin", "http://localhost:3000")
            .bearer_auth(key)
            .json(&chat(json!({"temprature": 1})));
        let answer = Answer::read(request.send().await.unwrap()).await;
        assert_eq!(answer.status, if key == "sk-one" { 200 } else { 401 });
        assert_eq!(answer.header("access-control-allow-origin"), "http://localhost:3000");
        let exposed = answer.header("access-control-expose-headers");
        assert!(exposed.contains("x-baton-ignored-fields"), "{exposed}");
    }
}

/// litellm looks for the first sentence, LangChain for the second or for the code.
#[rstest]
#[case("/v1/chat/completions", chat(json!({"messages": [{"role": "user", "content": "x".repeat(300)}]})))]
#[case("/v1/chat/completions", chat(json!({"max_tokens": 10_000})))]
#[case("/v1/chat/completions", chat(json!({"max_completion_tokens": 256})))]
#[case("/v1/completions", completion(json!({"prompt": "x".repeat(255)})))]
#[case("/v1/completions", completion(json!({"prompt": "x".repeat(250)})))]
#[case("/v1/completions", completion(json!({"prompt": vec![65; 300]})))]
#[tokio::test]
async fn a_context_overflow_is_told_as_libraries_know_it(
    #[case] path: &str,
    #[case] body: serde_json::Value,
    #[values(true, false)] stream: bool,
) {
    let router = TestRouter::playing(vec![says("x")]).await;
    let mut body = body;
    body["stream"] = stream.into();
    let answer = router.post(path, &body).await;
    let error = answer.json()["error"].clone();
    assert_eq!((answer.status, &error["code"]), (400, &json!("context_length_exceeded")));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("This model's maximum context length is 256 tokens"), "{message}");
    assert!(message.contains("Input tokens exceed the configured limit"), "{message}");
}

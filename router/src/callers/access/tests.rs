use proto::v1::InferenceRequest;
use proto::v1::inference_client::InferenceClient;
use proto::v1::inference_request::Input;
use serde_json::json;
use tokio::task::yield_now;

use super::*;
use crate::testing::{Lines, Step, TestRouter, chat, completion, failure, says, started};

/// The lines of the log that tell of a call at `path`.
fn of<'a>(log: &'a str, path: &str) -> Vec<&'a str> {
    let path = format!("path={path} ");
    log.lines().filter(|line| line.contains(&path)).collect()
}

#[tokio::test]
async fn every_call_has_its_line() {
    let lines = Lines::captured();
    let router = TestRouter::playing(vec![says("ok")]).await;
    for stream in [false, true] {
        let answer = router.post("/v1/chat/completions", &chat(json!({"stream": stream}))).await;
        assert_eq!(answer.status, 200);
    }
    router.get("/v1/models").await;
    router.get("/nowhere?key=secret").await;
    router.get("/health").await;
    let log = lines.text();
    let served = of(&log, "/v1/chat/completions");
    assert_eq!(served.len(), 2, "{log}");
    for line in served {
        for part in ["INFO access: ", "method=POST", "status=200", "request_id=", "ttft_ms="] {
            assert!(line.contains(part), "no {part} in {line}");
        }
        for part in ["address=127.0.0.1", "prompt_tokens=", "output_tokens=2", "total_ms="] {
            assert!(line.contains(part), "no {part} in {line}");
        }
        assert!(!line.contains("reason="), "{line}");
    }
    assert!(of(&log, "/v1/models")[0].contains("status=200"), "{log}");
    assert!(of(&log, "/nowhere")[0].contains("status=404"), "{log}");
    assert!(!log.contains("secret"), "what follows a path may be a key: {log}");
    assert!(of(&log, "/health")[0].contains("DEBUG"), "{log}");
}

#[tokio::test]
async fn a_refusal_says_why_and_never_what_was_said() {
    let lines = Lines::captured();
    let router = TestRouter::configured(vec![says("ok")], |config| {
        config.api_keys = vec!["the-secret-key".into()];
    })
    .await;
    let stranger = router.post("/v1/chat/completions", &chat(json!({}))).await;
    assert_eq!(stranger.status, 401);
    let secret = "my secret plan";
    let wrong = [
        chat(json!({"messages": secret})),
        chat(json!({"messages": [{"role": secret, "content": "hi"}]})),
        chat(json!({"messages": [{"role": "user", "content": {"text": secret}}]})),
        chat(json!({"temperature": secret})),
        chat(json!({"stop": {secret: secret}})),
        chat(json!({"tool_choice": secret})),
        chat(json!({"response_format": {"type": secret}})),
        chat(json!({"tools": [secret]})),
        chat(json!({"model": secret})),
        chat(json!({ secret: 1, "max_tokens": 0 })),
    ];
    for body in &wrong {
        let url = router.at("/v1/chat/completions");
        let sent = router.client.post(url).bearer_auth("the-secret-key").json(body).send();
        assert!(sent.await.unwrap().status().is_client_error(), "{body}");
    }
    let broken = router.client.post(router.at("/v1/completions")).bearer_auth("the-secret-key");
    broken.body(format!("{{\"prompt\": \"{secret}\" x")).send().await.unwrap();
    let log = lines.text();
    assert!(!log.contains("secret"), "{log}");
    let refused = of(&log, "/v1/chat/completions");
    assert!(refused[0].contains("status=401") && refused[0].contains("no API key"), "{log}");
    assert!(refused[1].contains("client=default") && refused[1].contains("reason="), "{log}");
    let zero = refused.last().unwrap();
    assert!(zero.contains("`max_tokens` is 0, less than the minimum of 1"), "{log}");
    assert!(of(&log, "/v1/completions")[0].contains("not valid JSON"), "{log}");
}

#[tokio::test]
async fn calls_over_grpc_have_their_lines_too() {
    let lines = Lines::captured();
    let router = TestRouter::playing(vec![says("ok")]).await;
    let mut grpc = InferenceClient::connect(router.grpc_url.clone()).await.unwrap();
    let input = Some(Input::Text("x".into()));
    let request = InferenceRequest { input, ..InferenceRequest::default() };
    let mut answer = grpc.generate(request.clone()).await.unwrap().into_inner();
    while answer.message().await.unwrap().is_some() {}
    *router.peer.foreseen.lock() = Some(failure(cluster::ErrorCode::Busy));
    grpc.generate(request).await.unwrap_err();
    let log = lines.text();
    let calls = of(&log, "/baton.v1.Inference/Generate");
    for part in ["grpc_status=Ok", "output_tokens=2", "ttft_ms=", "address=127.0.0.1"] {
        assert!(calls[0].contains(part), "no {part} in {log}");
    }
    let refused = calls[1];
    assert!(
        refused.contains("grpc_status=ResourceExhausted") && refused.contains("reason="),
        "{log}"
    );
}

#[tokio::test]
async fn a_flood_of_refusals_is_counted_and_no_flood_of_lines() {
    let lines = Lines::captured();
    let access = AccessLog::new(true);
    for _ in 0..10_000 {
        let call = access.begin(Method::POST, "/v1/completions", RequestId("id".into()), None);
        call.answered(Status::Http(429));
        call.failed(Reason::own("rate_limit_exceeded", "too many"));
    }
    access.report();
    let log = lines.text();
    let written = of(&log, "/v1/completions").len();
    assert!((10..=1000).contains(&written), "{written} lines");
    let left_out = log.lines().last().unwrap();
    let count =
        format!("left out status=429 code=\"rate_limit_exceeded\" count={}", 10_000 - written);
    assert!(left_out.contains(&count), "want {count} in {left_out}");
}

#[tokio::test]
async fn switched_off_only_our_own_faults_are_told() {
    let lines = Lines::captured();
    let access = AccessLog::new(false);
    for status in [200, 429, 503] {
        let call = access.begin(Method::GET, "/", RequestId("id".into()), None);
        call.answered(Status::Http(status));
    }
    let log = lines.text();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains("WARN") && log.contains("status=503"), "{log}");
}

#[tokio::test]
async fn a_client_that_goes_away_is_told_of() {
    let lines = Lines::captured();
    let router = TestRouter::playing(vec![vec![started(), Step::Hang]]).await;
    let body = completion(json!({"stream": true}));
    let response = router.client.post(router.at("/v1/completions")).json(&body).send();
    drop(response.await.unwrap());
    router.peer.cancelled(1).await;
    while of(&lines.text(), "/v1/completions").is_empty() {
        yield_now().await;
    }
    let log = lines.text();
    assert!(log.contains("status=200") && log.contains("the client went away"), "{log}");
}

#[test]
fn a_line_is_cut_where_a_client_would_write_it() {
    let access = AccessLog::new(true);
    let call = access.begin(Method::GET, &"x".repeat(10_000), RequestId("id".into()), None);
    assert_eq!(call.0.path.len(), PATH_CHARS_MAX);
}

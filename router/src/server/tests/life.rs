use std::time::Duration;

use cluster::ErrorCode;
use proto::v1::inference_client::InferenceClient;
use proto::v1::inference_request::Input;
use proto::v1::inference_response::Event;
use proto::v1::{Chat, ChatMessage, FinishKind, InferenceRequest, ListModelsRequest, TokenIds};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use words::FinishReason;

use crate::testing::*;
use crate::{GatewayLimits, RouterError};

#[tokio::test]
async fn models_are_listed_under_every_name() {
    let router = TestRouter::playing(vec![says("x")]).await;
    let list = router.get("/v1/models").await.json();
    let ids: Vec<&str> =
        list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(
        (list["object"].as_str(), &ids[..]),
        (Some("list"), &["test-model", "org/alias"][..])
    );
    let alias = router.get("/v1/models/org/alias").await.json();
    assert_eq!((&alias["root"], &alias["max_model_len"]), (&json!("test-model"), &json!(256)));
    assert_eq!(router.get("/v1/models/nope").await.json()["error"]["code"], "model_not_found");
    let body = chat(json!({"model": "org/alias"}));
    assert_eq!(router.post("/v1/chat/completions", &body).await.json()["model"], "test-model");
}

#[tokio::test]
async fn readiness_says_why_not() {
    let router = TestRouter::playing(vec![says("x")]).await;
    assert_eq!(router.get("/health").await.status, 200);
    let ready = router.ask("/ready").await;
    let workers = json!({"prefill": 1, "decode": 2});
    let expected = json!({"ready": true, "workers": workers, "reasons": [], "fingerprints": []});
    assert_eq!((ready.status, ready.json()), (200, expected));
    {
        let mut readiness = router.peer.readiness.lock();
        readiness.ready = false;
        readiness.reasons.push("no decode worker".into());
    }
    let public = router.get("/ready").await;
    assert_eq!((public.status, public.json()), (503, json!({"ready": false})), "no more than that");
    assert_eq!(router.get("/metrics").await.status, 404);
    let ready = router.ask("/ready").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["reasons"], json!(["no decode worker"]));
}

#[tokio::test]
async fn metrics_follow_a_request() {
    let router = TestRouter::playing(vec![says("abc")]).await;
    router.post("/v1/chat/completions", &chat(json!({}))).await;
    router.post("/v1/chat/completions", &chat(json!({"temperature": 9}))).await;
    let answer = router.ask("/metrics").await;
    assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
    let prompt = router.peer.requests()[0].generation.prompt.len();
    for line in [
        "baton_requests_total{outcome=\"ok\",endpoint=\"chat\"} 1".to_owned(),
        "baton_requests_total{outcome=\"invalid\",endpoint=\"chat\"} 1".to_owned(),
        "baton_requests_by_path_total{path=\"handoff\"} 1".to_owned(),
        "baton_requests_running 0".to_owned(),
        "baton_tokenizer_queue_length 0".to_owned(),
        "baton_generation_tokens_total 3".to_owned(),
        "baton_cached_prompt_tokens_total 3".to_owned(),
        format!("baton_prompt_tokens_total {prompt}"),
        "baton_time_to_first_token_seconds_count{endpoint=\"chat\"} 1".to_owned(),
        "baton_time_per_output_token_seconds_count{endpoint=\"chat\"} 1".to_owned(),
        "baton_e2e_request_latency_seconds_count{endpoint=\"chat\"} 1".to_owned(),
        "baton_inter_token_latency_seconds_count 2".to_owned(),
    ] {
        assert!(answer.body.lines().any(|have| have == line), "{line} in\n{}", answer.body);
    }
}

#[tokio::test]
async fn targets_of_requests_are_counted_as_kept_or_not() {
    let router = TestRouter::playing(vec![says("abc")]).await;
    let request = router.client.post(router.at("/v1/chat/completions"));
    let request = request.header("x-baton-ttft-target-ms", "3600000");
    let request = request.header("x-baton-itl-target-ms", "3600000");
    assert_eq!(request.json(&chat(json!({}))).send().await.unwrap().status(), 200);
    router.post("/v1/chat/completions", &chat(json!({}))).await;
    let answer = router.ask("/metrics").await;
    let counted: Vec<_> =
        answer.body.lines().filter(|line| line.starts_with("baton_request_targets_")).collect();
    assert_eq!(counted.len(), 2, "{counted:?}");
    for target in ["ttft", "itl"] {
        let line = format!("baton_request_targets_total{{target=\"{target}\",kept=\"true\"}} 1");
        assert!(counted.contains(&line.as_str()), "{line} in {counted:?}");
    }
}

#[tokio::test]
async fn a_sane_request_id_is_kept_and_others_are_replaced() {
    let router = TestRouter::playing(vec![says("x")]).await;
    let send = |id: &'static str| {
        let request = router.client.post(router.at("/v1/chat/completions"));
        request.header("x-request-id", id).json(&chat(json!({}))).send()
    };
    assert_eq!(send("my-id.1").await.unwrap().headers()["x-request-id"], "my-id.1");
    assert_eq!(send("my-id.1").await.unwrap().headers()["x-request-id"], "my-id.1");
    let replaced = send("<script>").await.unwrap();
    assert_ne!(replaced.headers()["x-request-id"], "<script>");
    let ids: Vec<String> =
        router.peer.requests().iter().map(|r| r.generation.id.to_string()).collect();
    assert!(ids[0].starts_with("my-id.1.") && ids[0] != ids[1], "unique in the house: {ids:?}");
    assert!(!router.get("/health").await.header("x-request-id").is_empty());
}

#[tokio::test]
async fn with_keys_configured_only_their_owners_come_in() {
    let router = TestRouter::configured(vec![says("x")], |config| {
        config.api_keys = vec!["sk-one".into(), "sk-two".into()];
    })
    .await;
    for (header, status) in [
        (None, 401),
        (Some("sk-one"), 401),
        (Some("Bearer sk-on"), 401),
        (Some("Bearer sk-three"), 401),
        (Some("Basic sk-one"), 401),
        (Some("Bearer sk-two"), 200),
        (Some("bearer sk-one"), 200),
    ] {
        let mut request = router.client.get(router.at("/v1/models"));
        if let Some(header) = header {
            request = request.header("authorization", header);
        }
        let answer = Answer::read(request.send().await.unwrap()).await;
        assert_eq!(answer.status, status, "{header:?}");
        if status == 401 {
            assert_eq!(answer.json()["error"]["code"], "invalid_api_key");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    assert_eq!(router.get("/health").await.status, 200, "probes need no key");
    let mut grpc = InferenceClient::connect(router.grpc_url.clone()).await.unwrap();
    let refused = grpc.list_models(ListModelsRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_client_is_its_key_or_else_its_address() {
    let keys = TestRouter::configured(vec![says("x")], |config| {
        config.api_keys = vec!["sk-one".into(), "sk-two".into()];
    })
    .await;
    for key in ["sk-one", "sk-two", "sk-one"] {
        let request = keys.client.post(keys.at("/v1/chat/completions")).bearer_auth(key);
        assert_eq!(request.json(&chat(json!({}))).send().await.unwrap().status(), 200);
    }
    let [one, two, again] = keys.peer.requests().try_into().unwrap();
    assert_eq!(one.generation.client, again.generation.client);
    assert_ne!(one.generation.client, two.generation.client);

    let open = TestRouter::playing(vec![says("x")]).await;
    // Where nobody has a key, an invented one makes nobody else of its owner.
    for key in ["sk-one", "sk-two"] {
        let request = open.client.post(open.at("/v1/chat/completions")).bearer_auth(key);
        assert_eq!(request.json(&chat(json!({}))).send().await.unwrap().status(), 200);
    }
    let mut grpc = InferenceClient::connect(open.grpc_url.clone()).await.unwrap();
    let input = Some(Input::Text("x".into()));
    let request = InferenceRequest { input, ..InferenceRequest::default() };
    drop(grpc.generate(request).await.unwrap());
    let clients: Vec<_> = open.peer.requests().iter().map(|it| it.generation.client).collect();
    assert_eq!(clients, [crate::callers::client::of_address([127, 0, 0, 1].into()); 3]);
}

#[tokio::test]
async fn what_nobody_can_take_is_refused_before_it_is_read() {
    let router = TestRouter::playing(vec![says("x")]).await;
    *router.peer.foreseen.lock() = Some(failure(ErrorCode::Busy));
    let answer = router.post("/v1/chat/completions", &chat(json!({}))).await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.json()["error"]["code"], "rate_limit_exceeded");
    assert_eq!((answer.header("retry-after"), answer.header("retry-after-ms")), ("3", "2500"));
    let mut grpc = InferenceClient::connect(router.grpc_url.clone()).await.unwrap();
    let input = Some(Input::Text("x".into()));
    let request = InferenceRequest { input, ..InferenceRequest::default() };
    let refused = grpc.generate(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(cluster::retry::after(&refused), Some(Duration::from_millis(2500)));
    assert!(router.peer.requests().is_empty(), "nobody was asked");
}

#[tokio::test]
async fn over_the_limit_of_streams_is_429_and_room_returns() {
    let script =
        [vec![started(), Step::Wait], text(0, "x"), vec![finished(0, FinishReason::Length)]];
    let router = TestRouter::configured(vec![script.concat()], |config| {
        config.limits = GatewayLimits { streams: 1, ..GatewayLimits::default() };
    })
    .await;
    let body = chat(json!({"stream": true}));
    let first =
        router.client.post(router.at("/v1/chat/completions")).json(&body).send().await.unwrap();
    let second = router.post("/v1/chat/completions", &body).await;
    assert_eq!(second.status, 429);
    assert_eq!(second.header("retry-after"), "1");
    router.peer.go_on();
    assert_eq!(Answer::read(first).await.events().last(), Some(&json!("[DONE]")));
    router.peer.go_on();
    assert_eq!(router.post("/v1/chat/completions", &body).await.status, 200);
}

#[tokio::test]
async fn a_draining_router_finishes_what_it_has_and_takes_nothing_new() {
    let script =
        [vec![started(), Step::Wait], text(0, "x"), vec![finished(0, FinishReason::Length)]];
    let router = TestRouter::playing(vec![script.concat()]).await;
    let body = chat(json!({"stream": true}));
    let running =
        router.client.post(router.at("/v1/chat/completions")).json(&body).send().await.unwrap();
    let node = router.node.clone();
    let drain = tokio_util::task::TaskTracker::new()
        .spawn(async move { node.drain(Duration::from_secs(10)).await });
    router.node.draining().cancelled().await;
    while router.node.gate().is_open() {
        tokio::task::yield_now().await;
    }
    assert_eq!(router.post("/v1/chat/completions", &body).await.status, 503);
    assert_eq!(router.get("/ready").await.status, 503);
    router.peer.go_on();
    assert_eq!(Answer::read(running).await.events().last(), Some(&json!("[DONE]")));
    assert!(matches!(drain.await.unwrap(), cluster::node::Drained::Clean));
}

#[tokio::test]
async fn a_drain_that_takes_too_long_cuts_streams_with_an_error() {
    let router = TestRouter::playing(vec![vec![started(), token(0, 0, 65), Step::Hang]]).await;
    let body = chat(json!({"stream": true}));
    let running =
        router.client.post(router.at("/v1/chat/completions")).json(&body).send().await.unwrap();
    router.node.drain(Duration::from_millis(20)).await;
    let answer = Answer::read(running).await;
    assert_eq!(answer.events().last().unwrap()["error"]["code"], "unavailable");
    router.peer.cancelled(1).await;
}

#[tokio::test]
async fn kept_alive_connections_are_not_delayed() {
    let router = TestRouter::playing(vec![says("x")]).await;
    let mut stream = tokio::net::TcpStream::connect(router.addr).await.unwrap();
    let request = "GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    let begin = std::time::Instant::now();
    for _ in 0..20 {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut buffer = [0; 1024];
        assert!(stream.read(&mut buffer).await.unwrap() > 0);
    }
    // Nagle's algorithm would cost 40 ms each.
    assert!(begin.elapsed() < Duration::from_millis(400), "{:?}", begin.elapsed());
}

#[test]
fn limits_that_serve_nobody_are_refused() {
    for limits in [
        GatewayLimits { streams: 0, ..GatewayLimits::default() },
        GatewayLimits { choices: 1000, ..GatewayLimits::default() },
        GatewayLimits { request_timeout: Duration::ZERO, ..GatewayLimits::default() },
    ] {
        assert!(matches!(limits.validate(), Err(RouterError::Config { .. })), "{limits:?}");
    }
    GatewayLimits::default().validate().unwrap();
}

async fn grpc_events(
    router: &TestRouter,
    request: InferenceRequest,
) -> Result<Vec<Event>, tonic::Status> {
    let mut client = InferenceClient::connect(router.grpc_url.clone()).await.unwrap();
    let mut stream = client.generate(request).await?.into_inner();
    let mut events = Vec::new();
    while let Some(message) = stream.message().await? {
        events.push(message.event.unwrap());
    }
    Ok(events)
}

#[tokio::test]
async fn grpc_streams_the_same_text() {
    let script = [
        vec![started()],
        text(0, "é!"),
        vec![token(0, 3, EOS), finished(0, FinishReason::Stop(EOS))],
    ];
    let router = TestRouter::playing(vec![script.concat()]).await;
    let messages = vec![ChatMessage { role: "user".into(), content: "hi".into() }];
    let inputs = [
        Input::Text("hi".into()),
        Input::TokenIds(TokenIds { ids: vec![104, 105] }),
        Input::Chat(Chat { messages }),
    ];
    for input in inputs {
        let request =
            InferenceRequest { input: Some(input), logprobs: Some(1), ..Default::default() };
        let events = grpc_events(&router, request).await.unwrap();
        let Some(Event::Started(started)) = events.first() else { panic!("{events:?}") };
        assert_eq!(started.model, "test-model");
        let (mut text, mut tokens, mut logprobs) = (String::new(), Vec::new(), 0);
        for event in &events {
            if let Event::Delta(delta) = event {
                text.push_str(&delta.text);
                tokens.extend(&delta.token_ids);
                logprobs += delta.logprobs.len();
            }
        }
        assert_eq!((text.as_str(), &tokens[..]), ("é!", &[0xC3, 0xA9, 33, EOS][..]));
        assert_eq!(logprobs, tokens.len());
        let Some(Event::Usage(usage)) = events.last() else { panic!("{events:?}") };
        assert_eq!((usage.completion_tokens, usage.cached_tokens, usage.handoff), (4, 3, true));
        let ended = |event: &&Event| matches!(event, Event::Finished(f) if f.kind == FinishKind::Stop as i32);
        assert!(events.iter().any(|event| ended(&event)));
    }
}

#[tokio::test]
async fn grpc_refuses_what_http_refuses() {
    let router =
        TestRouter::playing(vec![vec![Step::Refuse(failure(cluster::ErrorCode::Busy))]]).await;
    let text = || Some(Input::Text("hi".into()));
    for (request, code, field) in [
        (InferenceRequest::default(), Code::InvalidArgument, "input"),
        (
            InferenceRequest { input: text(), temperature: Some(f32::NAN), ..Default::default() },
            Code::InvalidArgument,
            "temperature",
        ),
        (
            InferenceRequest { input: text(), model: "nope".into(), ..Default::default() },
            Code::NotFound,
            "nope",
        ),
        (
            InferenceRequest { input: text(), n: 10_000, ..Default::default() },
            Code::InvalidArgument,
            "n:",
        ),
        (
            InferenceRequest {
                input: Some(Input::TokenIds(TokenIds { ids: vec![9999] })),
                ..Default::default()
            },
            Code::InvalidArgument,
            "token_ids",
        ),
        (
            InferenceRequest { input: text(), ..Default::default() },
            Code::ResourceExhausted,
            "as scripted",
        ),
    ] {
        let status = grpc_events(&router, request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(field), "{status:?}");
    }
    let models = InferenceClient::connect(router.grpc_url.clone())
        .await
        .unwrap()
        .list_models(ListModelsRequest {})
        .await
        .unwrap()
        .into_inner()
        .models;
    assert_eq!((models[0].id.as_str(), models[0].context_tokens_max), ("test-model", 256));
}

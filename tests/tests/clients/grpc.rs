//! The gRPC service: text, token ids or a conversation in; text and token ids out.

use baton_tests::client::grpc::token_request;
use baton_tests::client::http::chat_body;
use baton_tests::client::raw::{grpc_message, post_grpc};
use baton_tests::model::NAME;
use baton_tests::node::Node;
use baton_tests::{Cluster, Single};
use bytes::Bytes;
use proto::v1;
use proto::v1::inference_request::Input;
use tonic::Code;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServiceResponse};
use tonic_reflection::pb::v1alpha;
use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient as ServerReflectionV1AlphaClient;

#[tokio::test(flavor = "multi_thread")]
async fn text_token_ids_and_conversations_are_answered() {
    let single = Single::start(&[]).await;
    let grpc = single.node.grpc().await;

    let tokens = grpc.generate(token_request(&[20, 21, 22, 23], 12)).await.expect("by token ids");
    assert_eq!(tokens.tokens().len(), 12);
    assert_eq!(tokens.finish[&0], v1::FinishKind::Length);
    assert_eq!((tokens.usage().prompt_tokens, tokens.usage().completion_tokens), (4, 12));

    let text = Input::Text("Once upon a time".to_owned());
    let text = grpc.generate(request(text)).await.expect("by text");
    assert!(!text.text().is_empty());

    let chat = Input::Chat(v1::Chat { messages: vec![message("user", "Hello!")] });
    let chat = grpc.generate(request(chat)).await.expect("by conversation");
    assert!(chat.usage().prompt_tokens > 1, "{:?}", chat.usage());
    single.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn choices_log_probabilities_and_seeds_are_kept_apart() {
    let single = Single::start(&[]).await;
    let grpc = single.node.grpc().await;
    let mut request = token_request(&[30, 31, 32, 33, 34], 16);
    request.n = 3;
    request.temperature = Some(1.2);
    request.seed = Some(7);
    request.logprobs = Some(2);

    let first = grpc.generate(request.clone()).await.expect("an answer");
    let second = grpc.generate(request.clone()).await.expect("an answer");
    request.seed = Some(8);
    let other = grpc.generate(request).await.expect("an answer");

    assert_eq!(first.tokens.len(), 3);
    assert_ne!(first.tokens[&0], first.tokens[&1], "choices differ");
    assert_eq!(first.tokens, second.tokens, "equal seeds, equal tokens");
    assert_ne!(first.tokens, other.tokens, "another seed, other tokens");
    for (choice, logprobs) in &first.logprobs {
        assert_eq!(logprobs.len(), first.tokens[choice].len());
        assert!(logprobs.iter().all(|entry| entry.logprob <= 0.0 && entry.top.len() == 2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_and_name_the_field() {
    let single = Single::start(&[]).await;
    let grpc = single.node.grpc().await;
    let valid = token_request(&[20, 21], 4);
    let cases: Vec<(&str, v1::InferenceRequest)> = vec![
        ("input", v1::InferenceRequest { input: None, ..valid.clone() }),
        ("input", token_request(&[], 4)),
        ("token", token_request(&[single.model.vocab_size], 4)),
        ("prompt", token_request(&vec![20; single.model.context_tokens_max as usize + 1], 4)),
        ("temperature", v1::InferenceRequest { temperature: Some(-1.0), ..valid.clone() }),
        ("temperature", v1::InferenceRequest { temperature: Some(f32::NAN), ..valid.clone() }),
        ("top_p", v1::InferenceRequest { top_p: Some(1.5), ..valid.clone() }),
        ("min_p", v1::InferenceRequest { min_p: Some(-0.1), ..valid.clone() }),
        (
            "repetition_penalty",
            v1::InferenceRequest { repetition_penalty: Some(0.0), ..valid.clone() },
        ),
        (
            "frequency_penalty",
            v1::InferenceRequest { frequency_penalty: Some(9.0), ..valid.clone() },
        ),
        ("logprobs", v1::InferenceRequest { logprobs: Some(10_000), ..valid.clone() }),
        ("n", v1::InferenceRequest { n: 100_000, ..valid.clone() }),
        ("stop", v1::InferenceRequest { stop: vec![String::new()], ..valid.clone() }),
        ("n", v1::InferenceRequest { n: u32::MAX, ..valid.clone() }),
        ("max_tokens", v1::InferenceRequest { max_tokens: Some(0), ..valid.clone() }),
        ("max_tokens", v1::InferenceRequest { max_tokens: Some(u32::MAX), ..valid.clone() }),
        ("min_tokens", v1::InferenceRequest { min_tokens: u32::MAX, ..valid.clone() }),
        (
            "min_tokens",
            v1::InferenceRequest { max_tokens: None, min_tokens: u32::MAX, ..valid.clone() },
        ),
        ("temperature", v1::InferenceRequest { temperature: Some(f32::INFINITY), ..valid.clone() }),
        ("top_p", v1::InferenceRequest { top_p: Some(f32::NAN), ..valid.clone() }),
        ("min_p", v1::InferenceRequest { min_p: Some(f32::MAX), ..valid.clone() }),
        (
            "repetition_penalty",
            v1::InferenceRequest { repetition_penalty: Some(f32::INFINITY), ..valid.clone() },
        ),
        (
            "presence_penalty",
            v1::InferenceRequest { presence_penalty: Some(f32::MIN), ..valid.clone() },
        ),
        ("logprobs", v1::InferenceRequest { logprobs: Some(u32::MAX), ..valid.clone() }),
        (
            "stop_token_ids",
            v1::InferenceRequest { stop_token_ids: vec![u32::MAX], ..valid.clone() },
        ),
        (
            "logit_bias",
            v1::InferenceRequest { logit_bias: vec![bias(u32::MAX, 1.0)], ..valid.clone() },
        ),
        (
            "logit_bias",
            v1::InferenceRequest { logit_bias: vec![bias(5, f32::NAN)], ..valid.clone() },
        ),
        (
            "logit_bias",
            v1::InferenceRequest { logit_bias: vec![bias(5, 1.0); 100_000], ..valid.clone() },
        ),
        ("token_ids", token_request(&[u32::MAX], 4)),
    ];
    for (field, request) in cases {
        let shown = format!("{request:?}").chars().take(200).collect::<String>();
        let status = grpc.generate(request).await.expect_err(&shown);
        assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status:?} for {shown}");
        assert!(status.message().contains(field), "want {field} in {:?}", status.message());
    }
    let unknown = v1::InferenceRequest { model: "nobody".to_owned(), ..valid.clone() };
    let status = grpc.generate(unknown).await.expect_err("an unknown model");
    assert_eq!(status.code(), Code::NotFound, "{status:?}");

    grpc.generate(valid).await.expect("the server goes on serving");
    single.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_health_and_reflection_are_served() {
    let single = Single::start(&[]).await;
    let grpc = single.node.grpc().await;

    let models = grpc.models().await.expect("the models");
    assert_eq!(models.len(), 1);
    assert_eq!(models[0].id, NAME);
    assert_eq!(models[0].context_tokens_max, single.model.context_tokens_max);

    let check = HealthCheckRequest { service: String::new() };
    let health = HealthClient::new(grpc.channel()).check(check).await.expect("health");
    assert_eq!(health.into_inner().status(), ServingStatus::Serving);

    let services = services(&grpc).await;
    let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"baton.v1.Inference"), "{names:?}");
    let older = older_services(&grpc).await;
    assert!(older.contains(&"baton.v1.Inference".to_owned()), "{older:?}");
}

async fn older_services(grpc: &baton_tests::Grpc) -> Vec<String> {
    let message_request =
        Some(v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()));
    let request = v1alpha::ServerReflectionRequest { host: String::new(), message_request };
    let mut answers = ServerReflectionV1AlphaClient::new(grpc.channel())
        .server_reflection_info(tokio_stream::once(request))
        .await
        .expect("reflection")
        .into_inner();
    let answer = answers.message().await.expect("an answer").expect("one answer");
    match answer.message_response {
        Some(v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list)) => {
            list.service.into_iter().map(|service| service.name).collect()
        }
        other => panic!("{other:?}"),
    }
}

async fn services(grpc: &baton_tests::Grpc) -> Vec<ServiceResponse> {
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = ServerReflectionRequest { host: String::new(), message_request };
    let mut answers = ServerReflectionClient::new(grpc.channel())
        .server_reflection_info(tokio_stream::once(request))
        .await
        .expect("reflection")
        .into_inner();
    let answer = answers.message().await.expect("an answer").expect("one answer");
    match answer.message_response {
        Some(MessageResponse::ListServicesResponse(list)) => list.service,
        other => panic!("{other:?}"),
    }
}

/// Messages that are none: what the library under the services calls its own fault.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_is_the_callers_mistake() {
    let mut cluster = Cluster::builder().prefill(0).decode(1).start().await;
    let port = |node: &Node| node.ports().grpc.expect("a gRPC port");
    let (router, worker) = (port(&cluster.router), port(&cluster.decode[0]));
    let broken = [
        grpc_message(b"no protobuf"),
        grpc_message(&[0x0a, 0xff, 0xff, 0xff, 0x0f]),
        Bytes::from_static(b"no frame, either"),
        Bytes::from_static(&[0, 0, 0, 0, 9, 1]),
        Bytes::new(),
    ];
    for (addr, path) in [
        (router, "/baton.v1.Inference/Generate"),
        (router, "/baton.v1.Inference/ListModels"),
        (router, "/grpc.health.v1.Health/Check"),
        (worker, "/baton.v1.Decode/Generate"),
        (worker, "/baton.v1.Worker/Report"),
    ] {
        for body in &broken {
            let status = post_grpc(addr, path, body.clone()).await;
            assert_eq!(status.code(), Code::InvalidArgument, "{path} {body:?}: {status:?}");
        }
    }
    let grpc = cluster.grpc().await;
    grpc.generate(token_request(&[20, 21], 4)).await.expect("all go on serving");
    cluster.assert_clean().await;
}

/// More sequences than a worker runs at once: known from what workers publish, before anything is sent to one.
#[tokio::test(flavor = "multi_thread")]
async fn more_choices_than_a_worker_runs_are_refused_by_the_router() {
    let builder = Cluster::builder().prefill(0).decode(1);
    let mut cluster = builder.worker_args(&["--sequences-max", "4"]).start().await;
    let grpc = cluster.grpc().await;
    let wide = |n: u32| v1::InferenceRequest { n, ..token_request(&[20, 21], 4) };
    grpc.generate(wide(4)).await.expect("as many as run");

    let status = grpc.generate(wide(5)).await.expect_err("one more");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().starts_with("n: 5 answers"), "{status:?}");
    let mut body = chat_body("Hello", 4);
    body["n"] = 5.into();
    let (code, _, answer) = cluster.client().post("/v1/chat/completions", &body).await;
    assert_eq!((code.as_u16(), &answer["error"]["param"]), (400, &"n".into()), "{answer}");
    let metrics = cluster.router.metrics().await;
    let refused = metrics.require("baton_placement_refusals_total", &[("reason", "too-wide")]);
    assert_eq!(refused, 2.0, "neither got past the router");
    cluster.assert_clean().await;
}

fn bias(token: u32, bias: f32) -> v1::LogitBias {
    v1::LogitBias { token, bias }
}

fn request(input: Input) -> v1::InferenceRequest {
    v1::InferenceRequest { input: Some(input), ..token_request(&[], 12) }
}

fn message(role: &str, content: &str) -> v1::ChatMessage {
    v1::ChatMessage { role: role.to_owned(), content: content.to_owned() }
}

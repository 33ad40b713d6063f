//! The gRPC service: text, token ids or a conversation in; text and token ids out.

use baton_tests::Single;
use baton_tests::client::grpc::token_request;
use baton_tests::model::NAME;
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

fn request(input: Input) -> v1::InferenceRequest {
    v1::InferenceRequest { input: Some(input), ..token_request(&[], 12) }
}

fn message(role: &str, content: &str) -> v1::ChatMessage {
    v1::ChatMessage { role: role.to_owned(), content: content.to_owned() }
}

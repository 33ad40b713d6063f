//! A message to the public gRPC service.

use prost::Message as _;
use proto::v1;
use proto::v1::inference_request::Input;
use tonic::Code;

use crate::Target;
use crate::fixtures::cluster::WORKER;
use crate::fixtures::gateway::OPEN;

pub(in crate::targets) const TARGET: Target = Target::new("inference", run).with_seeds(seeds);

/// Statuses stay below what a client takes for headers by default.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

fn run(message: &[u8]) {
    let status = OPEN.grpc("/baton.v1.Inference/Generate", message);
    let is_broken = v1::InferenceRequest::decode(message).is_err();
    // The library that reads messages calls what is none its own fault.
    let wanted = if is_broken {
        vec![Code::Internal]
    } else {
        vec![Code::Ok, Code::InvalidArgument, Code::NotFound]
    };
    assert!(wanted.contains(&status.code()), "{status:?}");
    assert!(status.message().len() <= MESSAGE_BYTES_MAX, "{} bytes", status.message().len());
    assert!(!status.message().contains(WORKER), "{status:?}");
}

fn seeds() -> Vec<Vec<u8>> {
    let message =
        |role: &str, content: &str| v1::ChatMessage { role: role.into(), content: content.into() };
    let chat =
        v1::Chat { messages: vec![message("system", "Be short."), message("user", "Hello!")] };
    let inputs = [
        Input::Text("Once upon a time".into()),
        Input::TokenIds(v1::TokenIds { ids: vec![1, 2, 300] }),
        Input::Chat(chat),
    ];
    let request = |input| v1::InferenceRequest {
        model: "demo".into(),
        input: Some(input),
        n: 2,
        max_tokens: Some(5),
        min_tokens: 1,
        stop: vec!["stop".into()],
        stop_token_ids: vec![3],
        temperature: Some(0.5),
        top_k: Some(4),
        top_p: Some(0.9),
        logit_bias: vec![v1::LogitBias { token: 5, bias: -1.0 }],
        seed: Some(7),
        logprobs: Some(2),
        timeout_ms: 10_000,
        ..v1::InferenceRequest::default()
    };
    inputs.into_iter().map(|input| request(input).encode_to_vec()).collect()
}

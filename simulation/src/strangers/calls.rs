//! What a stranger asks of a worker, as well made as a member's call.

use std::time::{Duration, Instant};

use cluster::rpc;
use cluster::security::NodeRole;
use futures::{StreamExt as _, stream};
use kv_cache::TokenId;
use proto::v1::decode_client::DecodeClient;
use proto::v1::kv_transfer_client::KvTransferClient;
use proto::v1::prefill_client::PrefillClient;
use proto::v1::push_request::Message;
use proto::v1::worker_client::WorkerClient;
use proto::{Sealed as _, v1};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use words::{
    ClientId, Generation, RequestId, Sampling, StopRules, Targets, TenantSalt, WorkerInfo,
};

/// How long a stranger waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A call that members make. Health is not among them: anybody may ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Report,
    Generate,
    Prefill,
    Push,
    Reflect,
}

// === impl Call ===

impl Call {
    pub(super) const ALL: [Self; 5] =
        [Self::Report, Self::Generate, Self::Prefill, Self::Push, Self::Reflect];

    /// Who may.
    pub(super) fn callers(self) -> &'static [NodeRole] {
        match self {
            Self::Report | Self::Generate => &[NodeRole::Router],
            Self::Prefill => &[NodeRole::Decode],
            Self::Push => &[NodeRole::Prefill],
            Self::Reflect => &[NodeRole::Router, NodeRole::Prefill, NodeRole::Decode],
        }
    }

    /// What it comes to.
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Report => "see its reports",
            Self::Generate => "have tokens generated",
            Self::Prefill => "have a prompt computed",
            Self::Push => "push pages",
            Self::Reflect => "list its services",
        }
    }

    /// Makes it.
    pub(super) async fn make(self, worker: &WorkerInfo, channel: Channel) -> Result<(), Status> {
        let deadline = cluster::clock::now() + PATIENCE;
        match self {
            Self::Report => {
                let request = v1::ReportRequest {
                    incarnation: worker.address.incarnation.0,
                    ..Default::default()
                };
                let request = rpc::request(request, deadline);
                WorkerClient::new(channel).report(request).await.map(drop)
            }
            Self::Generate => {
                let request = rpc::request(generate(worker, deadline), deadline);
                DecodeClient::new(channel).generate(request).await.map(drop)
            }
            Self::Prefill => {
                let request = rpc::request(prefill(worker, deadline), deadline);
                PrefillClient::new(channel).prefill(request).await.map(drop)
            }
            Self::Push => {
                let pushes = stream::iter([open(worker)]).chain(stream::pending());
                let request = rpc::request(pushes, deadline);
                KvTransferClient::new(channel).push(request).await.map(drop)
            }
            Self::Reflect => {
                let asked = stream::iter([reflect()]).chain(stream::pending());
                let request = rpc::request(asked, deadline);
                ServerReflectionClient::new(channel).server_reflection_info(request).await.map(drop)
            }
        }
    }
}

/// Whether somebody has looked at a call before it was refused.
pub(super) fn was_served(answer: &Result<(), Status>) -> bool {
    let Err(status) = answer else { return true };
    !matches!(
        status.code(),
        Code::Unavailable
            | Code::Unknown
            | Code::Unauthenticated
            | Code::PermissionDenied
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Internal
    )
}

fn generate(worker: &WorkerInfo, deadline: Instant) -> v1::GenerateRequest {
    let request = v1::GenerateRequest {
        generation: Some((&generation()).into()),
        deadline_ms: rpc::remaining_ms(deadline),
        incarnation: worker.address.incarnation.0,
        ..v1::GenerateRequest::default()
    };
    request.sealed(0)
}

fn prefill(worker: &WorkerInfo, deadline: Instant) -> v1::PrefillRequest {
    let target = v1::HandoffTarget {
        handoff_id: vec![1; 16],
        address: Some((&worker.address).into()),
        transports: worker.transports.clone(),
        held_blocks: 0,
        kv_layout: worker.fingerprint.kv_layout.to_string(),
    };
    let request = v1::PrefillRequest {
        generation: Some((&generation()).into()),
        deadline_ms: rpc::remaining_ms(deadline),
        incarnation: worker.address.incarnation.0,
        target: Some(target),
        ..v1::PrefillRequest::default()
    };
    request.sealed(0)
}

fn open(worker: &WorkerInfo) -> v1::PushRequest {
    let open = v1::Open {
        handoff_id: vec![1; 16],
        incarnation: worker.address.incarnation.0,
        kv_layout: worker.fingerprint.kv_layout.to_string(),
        epoch: 1,
        lanes: 1,
        lane: 0,
    };
    v1::PushRequest { message: Some(Message::Open(open)), seal: 0 }.sealed(0)
}

fn reflect() -> ServerReflectionRequest {
    let message_request = Some(MessageRequest::ListServices(String::new()));
    ServerReflectionRequest { host: String::new(), message_request }
}

fn generation() -> Generation {
    let prompt: Vec<TokenId> = vec![1, 2, 3];
    Generation {
        id: RequestId("stranger".into()),
        client: ClientId::default(),
        targets: Targets::default(),
        prompt: prompt.into(),
        generated: [].into(),
        choices: vec![0],
        sampling: Sampling::default(),
        stop: StopRules { max_tokens: 4, ..StopRules::default() },
        prompt_logprobs: None,
        salt: TenantSalt::default(),
    }
}

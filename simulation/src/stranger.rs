//! Somebody on the network who belongs to no cluster, and calls its workers all the same.

use std::sync::Arc;
use std::time::Duration;

use cluster::Membership;
use cluster::rpc::{self, Channels};
use cluster::security::{Identity, NodeRole, Security};
use kv_cache::TokenId;
use proto::v1;
use proto::v1::decode_client::DecodeClient;
use proto::v1::worker_client::WorkerClient;
use scheduler::{ClientId, Generation, RequestId, Sampling, StopRules, TenantSalt, WorkerInfo};
use tonic::{Code, Status};

use crate::nodes::{NAMESPACE, Place};

/// How often it tries everybody.
const EVERY: Duration = Duration::from_millis(2500);
/// How long it waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
const SECRET: &[u8] = b"not the secret of this cluster";

/// Calls every worker, plainly and under a name that it has signed itself. Nobody may answer.
pub async fn stranger(place: Place) {
    let membership = place.membership();
    let view = membership.view();
    let signed = Identity::new(NAMESPACE, NodeRole::Router, "stranger");
    let signed = Security::with_secret(SECRET, signed).expect("a secret that is long enough");
    let ways = [Security::open(), signed]
        .map(|security| Channels::over(Arc::new(place.wire.clone())).secured(&security));
    loop {
        tokio::time::sleep(EVERY).await;
        let workers: Vec<WorkerInfo> = view.borrow().workers.values().cloned().collect();
        for worker in &workers {
            try_all(worker, &ways, &place).await;
        }
    }
}

async fn try_all(worker: &WorkerInfo, ways: &[Channels], place: &Place) {
    for channels in ways {
        if let Some(what) = intrude(worker, channels).await {
            let worker = &worker.address.worker;
            place.verdicts.violated(format!("{worker} let a stranger {what}"));
        }
    }
}

/// What a worker let happen, if anything.
async fn intrude(worker: &WorkerInfo, channels: &Channels) -> Option<&'static str> {
    let channel = channels.get(&worker.address, worker.role);
    let incarnation = worker.address.incarnation.0;
    let deadline = cluster::clock::now() + PATIENCE;
    let request = v1::ReportRequest { incarnation };
    let report = WorkerClient::new(channel.clone()).report(rpc::request(request, deadline)).await;
    if was_served(&report) {
        return Some("see its reports");
    }
    let request = v1::GenerateRequest {
        generation: Some((&generation()).into()),
        deadline_ms: rpc::remaining_ms(deadline),
        incarnation,
        ..v1::GenerateRequest::default()
    };
    let tokens = DecodeClient::new(channel).generate(rpc::request(request, deadline)).await;
    was_served(&tokens).then_some("have tokens generated")
}

/// Whether somebody has looked at a call before it was refused.
fn was_served<T>(answer: &Result<T, Status>) -> bool {
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

fn generation() -> Generation {
    let prompt: Vec<TokenId> = vec![1, 2, 3];
    Generation {
        id: RequestId("stranger".into()),
        client: ClientId::default(),
        prompt: prompt.into(),
        generated: [].into(),
        choices: vec![0],
        sampling: Sampling::default(),
        stop: StopRules { max_tokens: 4, ..StopRules::default() },
        prompt_logprobs: None,
        salt: TenantSalt::default(),
    }
}

//! Servers and channels over real sockets.

#![allow(clippy::disallowed_methods, reason = "a test waits for what it spawned by itself")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cluster::rpc::{self, Channels, Listener, Purpose, Server};
use cluster::testing::{DEADLINE, Proxy, wait_until, worker};
use cluster::{ClusterError, ErrorCode, Lifecycle, Membership, MemoryMembership};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use proto::v1;
use proto::v1::decode_client::DecodeClient;
use proto::v1::decode_server::{Decode, DecodeServer};
use proto::v1::worker_client::WorkerClient;
use rstest::rstest;
use support::Worker;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use words::{Address, Incarnation, NodeState, Role, WorkerId, WorkerInfo};

async fn reports(channel: Channel, incarnation: u64) -> Result<Streaming<v1::LoadReport>, Status> {
    let request =
        rpc::request_without_deadline(v1::ReportRequest { incarnation, ..Default::default() });
    Ok(WorkerClient::new(channel).report(request).await?.into_inner())
}

fn channel_to(uri: String, purpose: Purpose) -> Channel {
    let (worker, incarnation) = (WorkerId::from("a"), Incarnation(1));
    Channels::new().channel(&Address { worker, incarnation, uri }, Role::Decode, purpose)
}

async fn watch_health(channel: Channel) -> Streaming<HealthCheckResponse> {
    let request = HealthCheckRequest { service: String::new() };
    HealthClient::new(channel).watch(request).await.unwrap().into_inner()
}

async fn next<T>(stream: &mut Streaming<T>) -> Result<Option<T>, Status> {
    timeout(DEADLINE, stream.message()).await.expect("something in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_the_nodes_state() {
    let worker = Worker::start("a", 1).await;
    let mut health =
        watch_health(Channels::new().get(&worker.info.address, worker.info.role)).await;
    while next(&mut health).await.unwrap().unwrap().status() != ServingStatus::Serving {}
    worker.node.drain(DEADLINE).await;
    while next(&mut health).await.unwrap().unwrap().status() != ServingStatus::NotServing {}
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_names_every_service() {
    let worker = Worker::start("a", 1).await;
    let channel = Channels::new().get(&worker.info.address, worker.info.role);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(channel);
    let answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
    let answer = next(&mut answers.into_inner()).await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for want in ["baton.v1.Worker", "baton.v1.Decode", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|name| name == want), "{want} in {names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_come_at_once_are_numbered_and_tell_changes_of_state() {
    let worker = Worker::start("a", 7).await;
    let mut stream =
        reports(Channels::new().get(&worker.info.address, worker.info.role), 7).await.unwrap();
    let first = next(&mut stream).await.unwrap().unwrap();
    assert_eq!((first.incarnation, first.running, first.free_blocks), (7, 3, 5));
    let second = next(&mut stream).await.unwrap().unwrap();
    assert!(second.sequence > first.sequence);
    worker.node.drain(DEADLINE).await;
    while next(&mut stream).await.unwrap().unwrap().state() != v1::NodeState::Draining {}
    worker.node.stop(DEADLINE).await;
    let mut last = NodeState::Draining;
    while let Some(report) = next(&mut stream).await.unwrap() {
        last = report.parts().unwrap().0;
    }
    assert_eq!(last, NodeState::Gone);
}

#[rstest]
#[case::any_life(0, None)]
#[case::this_life(7, None)]
#[case::an_earlier_life(6, Some(Code::FailedPrecondition))]
#[tokio::test(flavor = "multi_thread")]
async fn a_call_for_another_life_is_refused(#[case] incarnation: u64, #[case] want: Option<Code>) {
    let worker = Worker::start("a", 7).await;
    let opened =
        reports(Channels::new().get(&worker.info.address, worker.info.role), incarnation).await;
    assert_eq!(opened.err().map(|status| status.code()), want);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_ends_though_a_peer_holds_on() {
    let worker = Worker::start("a", 1).await;
    let mut endless =
        watch_health(Channels::new().get(&worker.info.address, worker.info.role)).await;
    next(&mut endless).await.unwrap();
    worker.node.stop(DEADLINE).await;
    timeout(DEADLINE, worker.server).await.expect("the server ends").unwrap();
    while let Ok(Some(_)) = next(&mut endless).await {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_breaks_its_connections_at_once() {
    let worker = Worker::start("a", 1).await;
    let channel = Channels::new().get(&worker.info.address, worker.info.role);
    let mut stream = reports(channel.clone(), 1).await.unwrap();
    next(&mut stream).await.unwrap();
    let info = worker.kill().await;
    let start = Instant::now();
    let broken = loop {
        match next(&mut stream).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a killed node can't end its streams in order"),
            Err(status) => break status,
        }
    };
    assert_eq!(ErrorCode::from(&broken), ErrorCode::Unavailable, "{broken:?}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let refused = reports(channel.clone(), 1).await.unwrap_err();
    assert_eq!(ErrorCode::from(&refused), ErrorCode::Unavailable, "{refused:?}");

    // The same channel finds the next life on the same port.
    let addr = info.address.uri.trim_start_matches("http://").parse().unwrap();
    let _again = Worker::start_at(addr, "a", 2).await;
    wait_until("the new life", async || reports(channel.clone(), 2).await.is_ok()).await;
}

#[rstest]
#[case::control(Purpose::Control)]
#[case::bulk(Purpose::Bulk { lane: 0 })]
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_peer_is_noticed_within_about_five_seconds(#[case] purpose: Purpose) {
    let worker = Worker::start("a", 1).await;
    let proxy = Proxy::start(worker.addr).await;
    let mut stream = reports(channel_to(proxy.uri(), purpose), 1).await.unwrap();
    next(&mut stream).await.unwrap();
    proxy.stall();
    let start = Instant::now();
    while let Ok(Some(_)) = next(&mut stream).await {}
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_call_that_is_not_answered() {
    let worker = Worker::start("a", 1).await;
    let proxy = Proxy::start(worker.addr).await;
    let channel = channel_to(proxy.uri(), Purpose::Control);
    let ask = |deadline| {
        let request = rpc::request(HealthCheckRequest::default(), deadline);
        let mut client = HealthClient::new(channel.clone());
        async move { client.check(request).await }
    };
    ask(rpc::deadline_from(10_000)).await.unwrap();
    proxy.stall();
    let start = Instant::now();
    let late = ask(rpc::deadline_from(100)).await.unwrap_err();
    assert_eq!(ErrorCode::from(&late), ErrorCode::Timeout, "{late:?}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_are_shared_by_uri_and_purpose_and_evicted_with_the_member() {
    let (store, channels) = (MemoryMembership::new(), Channels::new());
    let follow = tokio::spawn({
        let (channels, view) = (channels.clone(), store.view());
        async move { channels.follow(view).await }
    });
    let (mut a, mut b) = (worker("a", Role::Decode), worker("b", Role::Prefill));
    a.address.uri = "http://127.0.0.1:11".to_owned();
    b.address.uri = "http://127.0.0.1:12".to_owned();
    let a_registration = store.register(a.clone()).await.unwrap();
    let _b_registration = store.register(b.clone()).await.unwrap();
    for WorkerInfo { address, role, .. } in [&a, &a, &b] {
        drop(channels.get(address, *role));
        drop(channels.bulk(address, *role, 0));
    }
    assert_eq!(channels.len(), 4);
    a_registration.deregister().await;
    wait_until("a's channels to go", async || channels.len() == 2).await;
    follow.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_cannot_be_one_fails_its_calls_and_says_so() {
    let channel = channel_to("not a uri".to_owned(), Purpose::Control);
    let refused = reports(channel, 1).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let chain = format!("{refused:?}");
    assert!(chain.contains("not a uri"), "{chain}");
}

#[tokio::test]
async fn a_taken_port_is_refused_by_name() {
    let taken = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let refused = Listener::bind(taken.local_addr()).await.unwrap_err();
    let ClusterError::Bind { addr, .. } = refused else { panic!("{refused}") };
    assert_eq!(addr, taken.local_addr());
    assert_eq!(taken.uri("::1"), format!("http://[::1]:{}", addr.port()));
    assert_eq!(taken.uri("node-1"), format!("http://node-1:{}", addr.port()));
}

/// Answers without end, a KiB at a time, and counts what it was asked for.
#[derive(Clone, Default)]
struct Endless {
    messages: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl Decode for Endless {
    type GenerateStream = BoxStream<'static, Result<v1::GenerateResponse, Status>>;

    async fn generate(
        &self,
        _: tonic::Request<v1::GenerateRequest>,
    ) -> Result<tonic::Response<Self::GenerateStream>, Status> {
        let messages = self.messages.clone();
        let message = move || {
            messages.fetch_add(1, Ordering::Relaxed);
            let prefill_worker_id = "x".repeat(1 << 10);
            let started =
                v1::generate_response::Started { prefill_worker_id, ..Default::default() };
            let event = Some(v1::generate_response::Event::Started(started));
            Ok(v1::GenerateResponse { event, seal: 0 })
        };
        Ok(tonic::Response::new(stream::repeat_with(message).boxed()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_are_not_generated_and_hold_up_no_other() {
    const UNREAD: usize = 64;
    let (endless, node) = (Endless::default(), Lifecycle::new());
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let uri = listener.uri("127.0.0.1");
    let routes = Routes::new(DecodeServer::new(endless.clone()));
    let server = Server::new(listener, &node);
    let _serving = AbortOnDropHandle::new(tokio::spawn(server.serve(routes)));
    let mut client = DecodeClient::new(channel_to(uri, Purpose::Control));
    let mut unread = Vec::new();
    for _ in 0..UNREAD {
        unread.push(client.generate(v1::GenerateRequest::default()).await.unwrap());
    }
    let generated = || endless.messages.load(Ordering::Relaxed);
    wait_until("nothing to be generated", async || {
        let before = generated();
        tokio::time::sleep(Duration::from_millis(100)).await;
        before > 0 && before == generated()
    })
    .await;
    assert!(generated() < UNREAD * 128, "{} KiB for nobody", generated());

    let mut read = client.generate(v1::GenerateRequest::default()).await.unwrap().into_inner();
    for _ in 0..1000 {
        assert!(next(&mut read).await.unwrap().is_some());
    }
}

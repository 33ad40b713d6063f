//! Requests over real sockets to workers that fail as they are told.

#![allow(clippy::disallowed_methods, reason = "a test waits for what it spawned by itself")]

mod peer;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cluster::load::LoadConfig;
use cluster::rpc::Channels;
use cluster::telemetry::Metrics;
use cluster::testing::wait_for;
use cluster::{ErrorCode, Lifecycle, LoadWatcher, Membership as _, MemoryMembership, Shortage};
use kv_cache::TokenId;
use rstest::rstest;
use scheduler::{ClusterSnapshot, LeastLoad};
use words::{
    ClientId, FinishReason, Generation, RequestId, Sampling, StopRules, Targets, TenantSalt,
};

use self::peer::{Act, Peer};
use super::*;

const MODEL: &str = "m";
const TOKENS: u32 = 12;
const ANYWHERE: &str = "127.0.0.1:0";

/// A router's dispatcher, and the membership that it watches.
struct Scene {
    store: MemoryMembership,
    dispatcher: Dispatcher,
    metrics: Metrics,
    snapshots: tokio::sync::watch::Receiver<std::sync::Arc<ClusterSnapshot>>,
}

/// What came of a request.
#[derive(Debug, Default)]
struct Told {
    route: Option<Route>,
    tokens: Vec<Vec<TokenId>>,
    error: Option<DispatchError>,
}

impl Scene {
    fn new() -> Self {
        Self::wanting(None)
    }

    /// A router that was told which weights new requests go to.
    fn wanting(fingerprint: Option<&str>) -> Self {
        let (store, channels) = (MemoryMembership::new(), Channels::new());
        let config =
            LoadConfig { retry_limit: Duration::from_millis(100), ..LoadConfig::default() };
        let loads = LoadWatcher::start(store.view(), channels.clone(), config);
        let snapshots = loads.snapshots();
        let placer = Box::new(LeastLoad::default());
        let config = DispatcherConfig {
            model: MODEL.into(),
            loads,
            fingerprint: fingerprint.map(str::to_owned),
            placer,
            channels,
            admission: AdmissionConfig::default(),
        };
        let life = Lifecycle::new();
        life.serve();
        let metrics = Metrics::new();
        let dispatcher = Dispatcher::new(config, &metrics, life);
        Self { store, dispatcher, metrics, snapshots }
    }

    async fn peer(&self, id: &str, incarnation: u64, act: Act) -> Peer {
        self.peer_at(ANYWHERE.parse().unwrap(), id, incarnation, act).await
    }

    async fn peer_at(&self, addr: SocketAddr, id: &str, incarnation: u64, act: Act) -> Peer {
        let peer = Peer::start(&self.store, addr, id, incarnation, act).await;
        self.sees(&peer).await;
        peer
    }

    /// A peer with these weights.
    async fn peer_of(&self, weights: &str, id: &str, incarnation: u64, act: Act) -> Peer {
        let addr = ANYWHERE.parse().unwrap();
        let change = |info: &mut words::WorkerInfo| info.fingerprint.weights = weights.into();
        let peer = Peer::with(&self.store, addr, id, incarnation, act, change).await;
        self.sees(&peer).await;
        peer
    }

    /// Waits until requests may go to a peer.
    async fn sees(&self, peer: &Peer) {
        let there = |snapshot: &std::sync::Arc<ClusterSnapshot>| {
            let mut views = snapshot.workers.iter();
            views.any(|view| view.healthy && view.info.address == peer.info.address)
        };
        wait_for("a peer", &mut self.snapshots.clone(), there).await;
    }

    async fn start(
        &self,
        choices: u32,
        within: Duration,
    ) -> Result<GenerationStream, DispatchError> {
        self.start_pinned(choices, within, Pin::by_token()).await
    }

    async fn start_pinned(
        &self,
        choices: u32,
        within: Duration,
        pin: Pin,
    ) -> Result<GenerationStream, DispatchError> {
        let received = Instant::now();
        let deadline = received + within;
        self.dispatcher
            .generate(DispatchRequest {
                generation: generation(choices),
                received,
                deadline,
                pin,
                place: None,
                explanation: None,
            })
            .await
    }
}

fn generation(choices: u32) -> Generation {
    Generation {
        id: RequestId("r".into()),
        prompt: [1, 2, 3].into(),
        generated: [].into(),
        choices: (0..choices).collect(),
        sampling: Sampling::greedy(),
        stop: StopRules { max_tokens: TOKENS, ..StopRules::default() },
        prompt_logprobs: None,
        salt: TenantSalt::default(),
        client: ClientId::default(),
        targets: Targets::default(),
    }
}

fn token(choice: u32, index: u32) -> TokenId {
    100 * choice + index
}

/// Follows a request until so many tokens of each choice are there.
async fn read(stream: &mut GenerationStream, told: &mut Told, choices: usize, tokens: usize) {
    told.tokens.resize(choices, Vec::new());
    while told.tokens.iter().any(|choice| choice.len() < tokens) {
        match stream.next().await.expect("more events") {
            Ok(GenerationEvent::Tokens(fresh)) => {
                fresh.iter().for_each(|t| told.tokens[t.choice as usize].push(t.token));
            }
            Ok(GenerationEvent::Started(route)) => told.route = Some(route),
            Ok(_) => {}
            Err(error) => {
                told.error = Some(error);
                return;
            }
        }
    }
}

/// Follows a request to its end.
async fn finish(stream: &mut GenerationStream, told: &mut Told) {
    let mut finished = 0;
    told.tokens.resize(told.tokens.len().max(1), Vec::new());
    while let Some(event) = stream.next().await {
        match event {
            Ok(GenerationEvent::Tokens(fresh)) => {
                fresh.iter().for_each(|t| told.tokens[t.choice as usize].push(t.token));
            }
            Ok(GenerationEvent::Finished { reason, .. }) => {
                assert_eq!(reason, FinishReason::Length);
                finished += 1;
            }
            Ok(GenerationEvent::Started(route)) => told.route = Some(route),
            Ok(_) => {}
            Err(error) => told.error = Some(error),
        }
    }
    assert!(told.error.is_some() || finished == told.tokens.len(), "{told:?}");
}

fn assert_whole(told: &Told) {
    assert!(told.error.is_none(), "{told:?}");
    for (choice, tokens) in (0..).zip(&told.tokens) {
        let want: Vec<_> = (0..TOKENS).map(|index| token(choice, index)).collect();
        assert_eq!(*tokens, want, "choice {choice}");
    }
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_with_the_next_life_of_the_worker_it_lost() {
    let scene = Scene::new();
    let first = scene.peer("d", 1, Act::Tokens(3)).await;
    let addr = first.addr();
    let (mut stream, mut told) = (scene.start(1, LONG).await.unwrap(), Told::default());
    read(&mut stream, &mut told, 1, 3).await;
    first.kill().await;
    let second = scene.peer_at(addr, "d", 2, Act::Finish).await;
    finish(&mut stream, &mut told).await;
    assert_whole(&told);
    assert_eq!(second.calls.lock()[0].generation.as_ref().unwrap().generated.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_comes_and_goes_costs_no_stream() {
    let scene = Scene::new();
    let mut peer = scene.peer("d", 1, Act::Tokens(0)).await;
    let addr = peer.addr();
    let (mut stream, mut told) = (scene.start(2, LONG).await.unwrap(), Told::default());
    for life in 2..14 {
        // Each life takes the request and dies before a token.
        let taken = || async { !peer.calls.lock().is_empty() };
        cluster::testing::wait_until("the call", taken).await;
        peer.kill().await;
        peer = scene.peer_at(addr, "d", life, Act::Tokens(0)).await;
    }
    peer.kill().await;
    let _last = scene.peer_at(addr, "d", 99, Act::Finish).await;
    told.tokens.resize(2, Vec::new());
    finish(&mut stream, &mut told).await;
    assert_whole(&told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_answers_pings_and_nothing_else_is_given_up_long_before_the_deadline() {
    let scene = Scene::new();
    let mute = scene.peer("d0", 1, Act::Mute).await;
    let mut stream = scene.start(1, 2 * LONG).await.unwrap();
    let called = || async { !mute.calls.lock().is_empty() };
    cluster::testing::wait_until("the call", called).await;
    let _other = scene.peer("d1", 1, Act::Finish).await;
    let mut told = Told::default();
    tokio::time::timeout(LONG, finish(&mut stream, &mut told)).await.expect("goes elsewhere");
    assert_whole(&told);
}

#[tokio::test(flavor = "multi_thread")]
async fn choices_that_lost_their_worker_go_on_one_by_one() {
    let scene = Scene::new();
    let first = scene.peer("d", 1, Act::Tokens(5)).await;
    let addr = first.addr();
    let (mut stream, mut told) = (scene.start(3, LONG).await.unwrap(), Told::default());
    read(&mut stream, &mut told, 3, 5).await;
    first.kill().await;
    let _second = scene.peer_at(addr, "d", 2, Act::Finish).await;
    finish(&mut stream, &mut told).await;
    assert_whole(&told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_waits_for_a_worker_until_its_deadline_and_no_longer() {
    let scene = Scene::new();
    let first = scene.peer("d", 1, Act::Tokens(3)).await;
    let within = Duration::from_secs(2);
    let (mut stream, mut told) = (scene.start(1, within).await.unwrap(), Told::default());
    let started = Instant::now();
    read(&mut stream, &mut told, 1, 3).await;
    first.kill().await;
    finish(&mut stream, &mut told).await;
    assert!(started.elapsed() >= within - Duration::from_millis(100), "{:?}", started.elapsed());
    let error = told.error.expect("nobody came");
    assert_eq!(error.code, ErrorCode::Timeout);
    assert!(error.message.contains("waited for another"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_worker_a_new_request_is_refused_at_once() {
    let scene = Scene::new();
    let refused = scene.start(1, LONG).await.expect_err("nobody is there");
    assert_eq!(refused.code, ErrorCode::Unavailable);
    assert!(refused.retry_after.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_a_token_out_is_replaced() {
    let scene = Scene::new();
    let bad = scene.peer("d0", 1, Act::Gap).await;
    let _good = scene.peer("d1", 1, Act::Finish).await;
    // Workers that are alike take turns.
    for _ in 0..4 {
        let (mut stream, mut told) = (scene.start(1, LONG).await.unwrap(), Told::default());
        finish(&mut stream, &mut told).await;
        assert_whole(&told);
    }
    assert!(!bad.calls.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_finds_wrong_is_told_when_no_other_can_be_asked() {
    let scene = Scene::new();
    let peer = scene.peer("d", 1, Act::Refuse(tonic::Code::Internal)).await;
    let (mut stream, mut told) = (scene.start(1, LONG).await.unwrap(), Told::default());
    finish(&mut stream, &mut told).await;
    assert_eq!(told.error.expect("the fault").code, ErrorCode::Internal);
    assert_eq!(peer.calls.lock().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_workers_are_told_with_what_is_full_and_when_to_come_back() {
    let scene = Scene::new();
    let _peer = scene.peer("d", 1, Act::Full(Shortage::Room)).await;
    let (mut stream, mut told) = (scene.start(1, LONG).await.unwrap(), Told::default());
    finish(&mut stream, &mut told).await;
    let refused = told.error.expect("a refusal");
    let words =
        "all workers are busy: KV memory or places would be free too late; try again in 0.9 s";
    assert_eq!((refused.code, refused.message.as_str()), (ErrorCode::Busy, words));
    assert_eq!(refused.retry_after, Some(Duration::from_millis(900)));
    let counted = scene.metrics.encode();
    assert!(counted.contains("baton_worker_refusals_total{short=\"room\"} 1\n"), "{counted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_never_goes_on_from_other_weights() {
    let scene = Scene::new();
    let first = scene.peer_of("aa", "d0", 1, Act::Tokens(3)).await;
    let within = Duration::from_secs(2);
    let (mut stream, mut told) = (scene.start(1, within).await.unwrap(), Told::default());
    read(&mut stream, &mut told, 1, 3).await;
    let other = scene.peer_of("bb", "d1", 2, Act::Finish).await;
    first.kill().await;
    finish(&mut stream, &mut told).await;
    assert!(other.calls.lock().is_empty());
    let error = told.error.expect("nobody else may go on");
    assert_eq!((error.code, told.tokens[0].len()), (ErrorCode::Timeout, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_waits_for_its_own_weights_while_new_requests_go_to_others() {
    let scene = Scene::new();
    let first = scene.peer_of("aa", "d0", 1, Act::Tokens(3)).await;
    let (mut stream, mut told) = (scene.start(2, LONG).await.unwrap(), Told::default());
    read(&mut stream, &mut told, 2, 3).await;
    let _other = scene.peer_of("bb", "d1", 2, Act::Finish).await;
    first.kill().await;
    let (mut fresh, mut fresh_told) = (scene.start(1, LONG).await.unwrap(), Told::default());
    finish(&mut fresh, &mut fresh_told).await;
    assert_whole(&fresh_told);
    let _back = scene.peer_of("aa", "d2", 3, Act::Finish).await;
    finish(&mut stream, &mut told).await;
    assert_whole(&told);
}

#[tokio::test(flavor = "multi_thread")]
async fn before_its_first_token_an_answer_may_come_from_others_and_says_so() {
    let scene = Scene::new();
    let first = scene.peer_of("aa", "d0", 1, Act::Tokens(0)).await;
    let (mut stream, mut told) = (scene.start(1, LONG).await.unwrap(), Told::default());
    cluster::testing::wait_until("the call", async || !first.calls.lock().is_empty()).await;
    let other = scene.peer_of("bb", "d1", 2, Act::Finish).await;
    first.kill().await;
    finish(&mut stream, &mut told).await;
    assert_whole(&told);
    assert_eq!(told.route.expect("a route").fingerprint, other.info.fingerprint.name());
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_one_request_are_answered_from_the_same_weights() {
    let scene = Scene::new();
    let old = scene.peer_of("aa", "d0", 1, Act::Finish).await;
    let pin = Pin::by_placement();
    let _first = scene.start_pinned(1, LONG, pin.clone()).await.unwrap();
    let new = scene.peer_of("bb", "d1", 2, Act::Finish).await;
    let mut second = scene.start_pinned(1, LONG, pin).await.unwrap();
    let mut told = Told::default();
    finish(&mut second, &mut told).await;
    assert_whole(&told);
    assert!(new.calls.lock().is_empty());
    assert_eq!(old.calls.lock().len(), 2);
}

#[rstest]
#[case::the_newest(None, [0, 4])]
#[case::as_told(Some("aa"), [4, 0])]
#[tokio::test(flavor = "multi_thread")]
async fn new_requests_go_to_one_set_of_weights(
    #[case] wanted: Option<&str>,
    #[case] calls: [usize; 2],
) {
    let scene = Scene::wanting(wanted);
    let old = scene.peer_of("aa", "d0", 1, Act::Finish).await;
    let new = scene.peer_of("bb", "d1", 2, Act::Finish).await;
    for _ in 0..4 {
        let (mut stream, mut told) = (scene.start(1, LONG).await.unwrap(), Told::default());
        finish(&mut stream, &mut told).await;
        assert_whole(&told);
    }
    assert_eq!([old.calls.lock().len(), new.calls.lock().len()], calls);
    let readiness = scene.dispatcher.readiness();
    let there: Vec<_> = readiness.fingerprints.iter().map(|e| (&e.weights[..], e.decode)).collect();
    assert_eq!(there, [("bb", 1), ("aa", 1)]);
    assert!(readiness.ready && readiness.reasons.iter().any(|text| text.contains("2 different")));
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_that_nobody_has_are_not_replaced_by_others() {
    let scene = Scene::wanting(Some("cc"));
    let _other = scene.peer_of("aa", "d0", 1, Act::Finish).await;
    let refused = scene.start(1, LONG).await.expect_err("nobody has them");
    assert_eq!(refused.code, ErrorCode::Unavailable);
    let readiness = scene.dispatcher.readiness();
    assert!(!readiness.ready, "{readiness:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_no_worker_could_hold_together_are_told_as_such() {
    let scene = Scene::new();
    let _peer = scene.peer("d0", 1, Act::Finish).await;
    let refused = scene.start(1025, LONG).await.expect_err("1024 blocks are there");
    assert_eq!((refused.code, refused.retry_after), (ErrorCode::InvalidRequest, None));
    let told = refused.message;
    assert!(told.contains("1025 answers of up to 15 tokens") && told.contains("(`n`)"), "{told}");
    assert_eq!(refused.param, Some("n"));
}

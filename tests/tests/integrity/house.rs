//! Two decode workers, a prefill worker and a dispatcher that knows them by their hops.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_tests::wait_until;
use cluster::connections::ConnectionLimits;
use cluster::load::LoadConfig;
use cluster::membership::anchors::Anchors;
use cluster::rpc::Channels;
use cluster::security::Security;
use cluster::telemetry::Metrics;
use cluster::{
    ClusterError, Lifecycle, LoadWatcher, Members, Membership, MemoryMembership, Registration,
};
use engine::{
    Engine, EngineConfig, EngineHandle, Event, LoadFormat, Mode, ModelOptions, Submission,
};
use kv_transfer::transport::{Faults, Faulty, GrpcTransport, Transport, Transports};
use kv_transfer::{Sender, SenderConfig};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use router::dispatch::{
    AdmissionConfig, DispatchError, DispatchRequest, Dispatcher, DispatcherConfig, Explanation,
    Generate as _, GenerationEvent, Pin,
};
use scheduler::{ClusterSnapshot, HandoffPolicy, LeastLoad, PlacementRequest, Placer as _};
use tempfile::TempDir;
use tokio::sync::watch;
use words::{
    ClientId, FinishReason, Generation, RequestId, Role, SampledToken, Sampling, StopRules,
    Targets, TenantSalt, WorkerInfo,
};
use worker::WorkerConfig;
use worker::node::BoundWorker;

use crate::hop::{Damage, Hop};

const MODEL: &str = "tested";
const NAMESPACE: &str = "tests";
pub(crate) const EOS: u32 = 2;
const VOCAB: u32 = 97;
const CONFIG: &str = r#"{
    "architectures": ["Qwen3ForCausalLM"],
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "torch_dtype": "float32",
    "eos_token_id": 2
}"#;
const PATIENCE: Duration = Duration::from_secs(60);

/// What a request brings, choice by choice.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer(pub(crate) BTreeMap<u32, Spoken>);

/// What a choice brings: its tokens, and why it ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Spoken {
    pub(crate) tokens: Vec<SampledToken>,
    pub(crate) finished: Option<FinishReason>,
}

/// All of it, in this process.
pub(crate) struct House {
    pub(crate) damage: Arc<Damage>,
    dispatcher: Dispatcher,
    seen: watch::Receiver<Arc<ClusterSnapshot>>,
    reference: EngineHandle,
    workers: Vec<tokio::task::JoinHandle<()>>,
    leave: watch::Sender<bool>,
    _known: Vec<Registration>,
    _folder: TempDir,
}

/// A request like no other, but for the prefix that it shares with one in three.
pub(crate) fn some_work(number: usize, random: &mut ChaCha8Rng) -> Generation {
    let family = number as u32 % 3;
    let shared = (0..random.random_range(8..40)).map(|at| (family * 31 + at * 7) % VOCAB);
    let own: Vec<u32> =
        (0..random.random_range(1..12)).map(|_| random.random_range(3..VOCAB)).collect();
    Generation {
        id: RequestId(format!("request-{number}").into()),
        prompt: shared.chain(own).collect(),
        generated: [].into(),
        choices: vec![0],
        sampling: Sampling {
            temperature: 0.8,
            seed: random.random_range(0..u64::MAX),
            logit_bias: vec![(random.random_range(3..VOCAB), 1.5)],
            logprobs: number.is_multiple_of(2).then_some(2),
            ..Sampling::default()
        },
        stop: StopRules {
            max_tokens: 5,
            stop_token_ids: vec![random.random_range(3..VOCAB)],
            ..StopRules::default()
        },
        prompt_logprobs: None,
        salt: TenantSalt::default(),
        client: ClientId::default(),
        targets: Targets::default(),
    }
}

/// Hands every prompt over.
fn placer() -> LeastLoad {
    LeastLoad { handoff: HandoffPolicy::Always, ..LeastLoad::default() }
}

fn engine(folder: &Path) -> EngineConfig {
    EngineConfig {
        model_dir: folder.to_owned(),
        model: ModelOptions {
            kv_blocks: Some(256),
            block_tokens: 4,
            threads: Some(1),
            load_format: LoadFormat::Dummy { seed: 5 },
            ..ModelOptions::default()
        },
        batch_tokens_max: 64,
        sequences_max: 8,
        queue_max: 64,
        context_tokens_max: None,
        prefix_cache: true,
        targets: Targets::default(),
        tiers: engine::TierOptions::default(),
    }
}

// === impl Answer ===

impl Answer {
    fn hear(&mut self, token: SampledToken) {
        let choice = self.0.entry(token.choice).or_default();
        assert_eq!(choice.finished, None, "{token:?} comes behind the end");
        choice.tokens.push(token);
    }

    fn end(&mut self, choice: u32, reason: FinishReason) {
        let before = self.0.entry(choice).or_default().finished.replace(reason);
        assert_eq!(before, None, "choice {choice} ends twice");
    }
}

// === impl House ===

impl House {
    pub(crate) async fn start() -> Self {
        Self::start_with(Faults::default()).await
    }

    /// - `faults`: of what carries KV pages.
    pub(crate) async fn start_with(faults: Faults) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("config.json"), CONFIG).expect("a file in it");
        let (leave, left) = watch::channel(false);
        let (inside, seen) = (MemoryMembership::new(), MemoryMembership::new());
        let mut workers = Vec::new();
        for (name, role) in [("p0", Role::Prefill), ("d0", Role::Decode), ("d1", Role::Decode)] {
            let config = worker(name, role, engine(folder.path()));
            let doors = Doors { inside: inside.clone(), seen: seen.clone() };
            workers.push(run(config, doors, faults.clone(), left.clone()).await);
        }
        let members = inside.view();
        wait_until("three workers", PATIENCE, || async {
            let count = members.borrow().workers.len();
            if count == 3 { Ok(()) } else { Err(format!("{count} are there")) }
        })
        .await;
        let (damage, outside) = (Arc::<Damage>::default(), MemoryMembership::new());
        let infos: Vec<WorkerInfo> = members.borrow().workers.values().cloned().collect();
        let mut known = Vec::new();
        for mut info in infos {
            let real = info.clone();
            info.address.uri = Hop::start(&info.address.uri, damage.clone()).await;
            let behind = if info.role == Role::Prefill { info.clone() } else { real };
            known.push(outside.register(info).await.expect("a new name"));
            known.push(seen.register(behind).await.expect("a new name"));
        }
        let reference = Engine::start(&engine(folder.path()), &mut |_| ()).expect("an engine");
        let (dispatcher, seen) = dispatcher(&outside).await;
        Self { damage, dispatcher, seen, reference, workers, leave, _known: known, _folder: folder }
    }

    /// What `work` comes to on one engine, without any message.
    pub(crate) async fn reference(&self, work: &Generation) -> Answer {
        let work = Arc::new(work.clone());
        let submission = Submission::new(work, Mode::Generate);
        let mut events = self.reference.submit(submission).expect("room");
        let mut answer = Answer::default();
        while let Some(event) = events.recv().await {
            match event {
                Event::Token(token) => answer.hear(token),
                Event::Finished { choice, reason } => answer.end(choice, reason),
                Event::Failed(error) => panic!("{error}"),
                _ => {}
            }
        }
        answer
    }

    /// What the router expects a hand-off of `work` to add, seconds.
    pub(crate) fn handoff_s(&self, work: &Generation) -> f64 {
        let request = PlacementRequest::new(MODEL, work, 0);
        let placement = placer().place(&self.seen.borrow(), &request, Instant::now());
        placement.expect("room").terms.handoff_s
    }

    /// What a client gets that asks why `work` went where it went.
    pub(crate) async fn explained(&self, generation: Generation) -> String {
        let (received, pin) = (Instant::now(), Pin::by_token());
        let deadline = received + PATIENCE;
        let asked = Explanation::default();
        let explanation = Some(asked.clone());
        let request =
            DispatchRequest { generation, received, deadline, pin, place: None, explanation };
        let mut stream = self.dispatcher.generate(request).await.expect("room");
        while stream.next().await.is_some() {}
        asked.text().expect("a decision")
    }

    /// What a client gets.
    pub(crate) async fn answer(&self, work: &Generation) -> Result<Answer, DispatchError> {
        let received = Instant::now();
        let deadline = received + PATIENCE;
        let (generation, pin) = (work.clone(), Pin::by_token());
        let request =
            DispatchRequest { generation, received, deadline, pin, place: None, explanation: None };
        let mut stream = self.dispatcher.generate(request).await?;
        let mut answer = Answer::default();
        while let Some(event) = stream.next().await {
            match event? {
                GenerationEvent::Tokens(tokens) => {
                    tokens.into_iter().for_each(|token| answer.hear(token));
                }
                GenerationEvent::Finished { choice, reason } => answer.end(choice, reason),
                GenerationEvent::Started(_) | GenerationEvent::PromptLogprobs(_) => {}
            }
        }
        Ok(answer)
    }

    /// Lets the workers leave, which they do once nothing is left.
    pub(crate) async fn end(self) {
        self.leave.send_replace(true);
        for worker in self.workers {
            worker.await.expect("a worker that ends well");
        }
    }
}

fn worker(name: &str, role: Role, engine: EngineConfig) -> WorkerConfig {
    WorkerConfig {
        id: name.into(),
        namespace: NAMESPACE.into(),
        role,
        model: MODEL.into(),
        engine,
        listen: "127.0.0.1:0".parse().expect("an address"),
        admin: None,
        advertise_host: None,
        report_interval: Duration::from_millis(50),
        drain_deadline: Duration::from_secs(10),
        deadline_max: Duration::from_secs(3600),
        security: Security::open(),
        admin_certificates: None,
        insecure: false,
        credit_queue_max: 64,
        connections: ConnectionLimits::default(),
    }
}

/// Workers dial members only: they register where they are, and see prefill workers behind the hops.
struct Doors {
    inside: MemoryMembership,
    seen: MemoryMembership,
}

#[tonic::async_trait]
impl Membership for Doors {
    async fn register(&self, info: WorkerInfo) -> Result<Registration, ClusterError> {
        self.inside.register(info).await
    }

    fn view(&self) -> watch::Receiver<Arc<Members>> {
        self.seen.view()
    }

    fn anchors(&self) -> Anchors {
        self.seen.anchors()
    }

    async fn close(&self) {
        self.inside.close().await;
    }
}

async fn run(
    config: WorkerConfig,
    members: Doors,
    faults: Faults,
    mut left: watch::Receiver<bool>,
) -> tokio::task::JoinHandle<()> {
    let role = config.role;
    let bound = BoundWorker::bind(config).await.expect("free ports");
    tokio::spawn(async move {
        let members = Arc::new(members);
        let leave = async move { drop(left.wait_for(|&left| left).await) };
        let ended = match role {
            Role::Decode => decode_worker::run(bound, members, None, |_| (), leave).await,
            Role::Prefill => {
                let transports: Vec<Arc<dyn Transport>> =
                    vec![Arc::new(Faulty::new(Arc::new(GrpcTransport::new(1)), faults))];
                let sender = Sender::new(Transports::new(transports), SenderConfig::default());
                prefill_worker::run(bound, members, sender, |_| (), leave).await
            }
        };
        ended.expect("a worker that ends well");
    })
}

async fn dispatcher(
    members: &MemoryMembership,
) -> (Dispatcher, watch::Receiver<Arc<ClusterSnapshot>>) {
    let channels = Channels::new();
    let watching = LoadConfig { namespace: NAMESPACE.into(), ..LoadConfig::default() };
    let loads = LoadWatcher::start(members.view(), channels.clone(), watching);
    let snapshots = loads.snapshots();
    wait_until("three healthy workers", PATIENCE, || async {
        let healthy = snapshots.borrow().workers.iter().filter(|worker| worker.healthy).count();
        if healthy == 3 { Ok(()) } else { Err(format!("{healthy} are healthy")) }
    })
    .await;
    let placer = Box::new(placer());
    let config = DispatcherConfig {
        model: MODEL.into(),
        loads,
        fingerprint: None,
        placer,
        channels,
        admission: AdmissionConfig::default(),
    };
    let life = Lifecycle::new();
    life.serve();
    (Dispatcher::new(config, &Metrics::new(), life), snapshots)
}

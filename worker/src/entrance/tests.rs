//! The entrance of a worker with a model of random weights.

use cluster::ErrorCode;
use cluster::testing::wait_until;
use engine::{Engine, EngineConfig, LoadFormat, Mode, ModelOptions, Submission};
use futures::FutureExt as _;
use words::{RequestId, Sampling, StopRules, Targets, TenantSalt};

use super::*;

const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 97, "hidden_size": 48,
    "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 24, "max_position_embeddings": 256, "torch_dtype": "bfloat16", "eos_token_id": 2}"#;
const PLACES: u32 = 2;

fn engine() -> EngineHandle {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("config.json"), CONFIG).expect("a file in it");
    let model = ModelOptions {
        kv_blocks: Some(64),
        block_tokens: 16,
        threads: Some(1),
        load_format: LoadFormat::Dummy { seed: 5 },
        ..ModelOptions::default()
    };
    let config = EngineConfig {
        model_dir: folder.path().to_owned(),
        model,
        batch_tokens_max: 64,
        sequences_max: PLACES,
        queue_max: 64,
        context_tokens_max: None,
        prefix_cache: true,
        targets: Targets::default(),
        tiers: engine::TierOptions::default(),
    };
    Engine::start(&config, &mut |_| ()).expect("a model of random weights")
}

fn work(client: u64) -> Generation {
    Generation {
        id: RequestId("r".into()),
        prompt: vec![5; 20].into(),
        generated: Arc::default(),
        choices: vec![0],
        sampling: Sampling::greedy(),
        stop: StopRules { max_tokens: 200, ignore_eos: true, ..StopRules::default() },
        prompt_logprobs: None,
        salt: TenantSalt::default(),
        client: ClientId(client),
        targets: Targets::default(),
    }
}

fn refusal(refused: Result<Inside, WorkerError>) -> (Duration, Shortage) {
    match refused {
        Err(WorkerError::Busy { retry_after, shortage, .. }) => (retry_after, shortage),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was let in"),
    }
}

#[tokio::test]
async fn who_could_not_start_in_time_is_refused_at_once_and_the_rest_waits_its_turn() {
    let engine = engine();
    assert!(engine.stats().decode_step_s > 0.0, "a worker knows how fast it is from the start");
    let entrance = Entrance::for_sequences(engine.clone(), 8);
    // All of one client: another would have more room than there is.
    let ask = Ask::to_generate(&engine, &work(1), true);
    let now = || Some(clock::now());
    // However little time there is: who need not wait is not late.
    let first = entrance.enter(ask.starting_by(now())).await.expect("a place");
    let _second = entrance.enter(ask).await.expect("a place");

    let refused = entrance.enter(ask.starting_by(now())).now_or_never();
    let (after, short) = refusal(refused.expect("an answer at once"));
    assert_eq!(short, Shortage::Room);
    assert!(after > Duration::ZERO && after < Duration::from_secs(120), "{after:?}");
    assert_eq!(entrance.counts().waiting, 0);

    let mut waiting = Box::pin(entrance.enter(ask));
    assert!(waiting.as_mut().now_or_never().is_none());
    assert_eq!(entrance.counts().waiting, 1);
    drop(first);
    let third = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    drop(third.expect("its turn").expect("a place"));
    assert_eq!(entrance.counts().waiting, 0);
}

#[tokio::test]
async fn several_routers_that_know_nothing_of_each_other_fill_a_line_only_as_far_as_its_time() {
    let engine = engine();
    let entrance = Entrance::for_sequences(engine.clone(), 1000);
    let _inside = futures::future::try_join_all(
        (0..PLACES).map(|_| entrance.enter(Ask::to_generate(&engine, &work(1), true))),
    )
    .await
    .expect("places");
    // Each thinks that it is the only one. All that is inside has to end once for every two that wait.
    let stats = engine.stats();
    let crowd_s = stats.output.mean_or_usual() * stats.decode_step_s;
    let start_by = Some(clock::now() + Duration::from_secs_f64(5.0 * crowd_s));
    let mut waiting = Vec::new();
    for _ in 0..40 {
        let ask = Ask::to_generate(&engine, &work(1), true).starting_by(start_by);
        let mut entering = Box::pin(entrance.enter(ask));
        match entering.as_mut().now_or_never() {
            None => waiting.push(entering),
            Some(end) => assert_eq!(end.err().map(|error| error.code()), Some(ErrorCode::Busy)),
        }
    }
    assert!(waiting.len() <= 10, "{} wait", waiting.len());
}

#[tokio::test]
async fn steps_that_are_too_slow_already_take_nobody_else() {
    let engine = engine();
    let entrance = Entrance::for_sequences(engine.clone(), 8);
    let picky = Ask::to_generate(&engine, &work(2), true).with_steps_of(step_max(1));
    drop(entrance.enter(picky).await.expect("nobody is there"));

    let mut streams = Vec::new();
    wait_until("a sequence to run", async || {
        // Again and again, as they end within a tenth of a second.
        let work = Arc::new(work(1));
        let deadline = clock::now() + Duration::from_secs(60);
        let submission = Submission::new(work, Mode::Generate).by(deadline);
        streams.extend(engine.submit(submission).ok());
        engine.stats().running > 0
    })
    .await;
    // The readers stall, so what runs stays.
    let refused = entrance.enter(picky).now_or_never().expect("an answer at once");
    assert!(refusal(refused).0 > Duration::ZERO);
    let easy = picky.with_steps_of(step_max(0));
    drop(entrance.enter(easy).await.expect("a place"));
}

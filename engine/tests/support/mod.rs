//! A tiny real model with random weights, in an engine on the CPU.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use engine::{
    CudaOptions, Engine, EngineConfig, EngineHandle, Event, EventStream, LoadFormat, Mode,
    ModelOptions, Submission, TierOptions,
};
use kv_cache::TokenId;
use words::{
    ClientId, FinishReason, Generation, RequestId, Sampling, StopRules, Targets, TenantSalt,
};

/// Tokens of each choice, and its end.
pub(crate) type Answers = BTreeMap<u32, (Vec<TokenId>, FinishReason)>;

pub(crate) const VOCAB: u32 = 97;

pub(crate) const CONFIG: &str = r#"{
    "architectures": ["Qwen3ForCausalLM"],
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "torch_dtype": "bfloat16",
    "eos_token_id": 2
}"#;

/// What differs between the engines of these tests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) kv_blocks: u32,
    pub(crate) batch_tokens_max: u32,
    pub(crate) sequences_max: u32,
    pub(crate) prefix_cache: bool,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { kv_blocks: 256, batch_tokens_max: 64, sequences_max: 16, prefix_cache: true }
    }
}

/// Starts an engine on the CPU; all of them have the same weights.
pub(crate) fn start(sizes: Sizes) -> EngineHandle {
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(dir.path().join("config.json"), CONFIG).expect("a file in it");
    start_in(dir.path(), None, sizes)
}

/// Starts an engine over random weights for the configuration in `dir`.
///
/// - `cuda`: the GPU to start it on; `None` for the CPU.
pub(crate) fn start_in(dir: &Path, cuda: Option<CudaOptions>, sizes: Sizes) -> EngineHandle {
    start_above(dir, cuda, sizes, TierOptions::default())
}

/// The same, over slower memory.
pub(crate) fn start_above(
    dir: &Path,
    cuda: Option<CudaOptions>,
    sizes: Sizes,
    tiers: TierOptions,
) -> EngineHandle {
    let config = config(dir, cuda, sizes, tiers);
    Engine::start(&config, &mut |_| ()).expect("dummy weights always load")
}

/// What such an engine is told.
pub(crate) fn config(
    dir: &Path,
    cuda: Option<CudaOptions>,
    sizes: Sizes,
    tiers: TierOptions,
) -> EngineConfig {
    EngineConfig {
        model_dir: dir.to_owned(),
        model: ModelOptions {
            kv_blocks: Some(sizes.kv_blocks),
            threads: Some(1),
            cuda,
            load_format: LoadFormat::Dummy { seed: 5 },
            layer_group: 2,
            ..ModelOptions::default()
        },
        batch_tokens_max: sizes.batch_tokens_max,
        sequences_max: sizes.sequences_max,
        queue_max: 64,
        context_tokens_max: None,
        prefix_cache: sizes.prefix_cache,
        targets: Targets::default(),
        tiers,
    }
}

/// An engine that does one thing at a time, whole, and remembers nothing.
pub(crate) fn start_reference() -> EngineHandle {
    start(Sizes {
        batch_tokens_max: 600,
        sequences_max: 3,
        prefix_cache: false,
        ..Sizes::default()
    })
}

/// A prompt that looks random, the same for the same seed.
pub(crate) fn prompt(seed: u32, tokens: u32) -> Vec<TokenId> {
    let mix = |at: u32| (seed * 7919 + at).wrapping_mul(2_654_435_761) >> 7;
    (0..tokens).map(|at| 3 + mix(at) % (VOCAB - 3)).collect()
}

pub(crate) fn work(prompt: &[TokenId], max_tokens: u32, sampling: Sampling) -> Generation {
    Generation {
        id: RequestId("test".into()),
        prompt: prompt.into(),
        generated: Arc::new([]),
        choices: vec![0],
        sampling,
        stop: StopRules { max_tokens, ..StopRules::default() },
        prompt_logprobs: None,
        salt: TenantSalt::default(),
        client: ClientId::default(),
        targets: Targets::default(),
    }
}

/// Sampling with everything on.
pub(crate) fn seeded(seed: u64) -> Sampling {
    Sampling {
        temperature: 0.9,
        top_k: 40,
        top_p: 0.95,
        repetition_penalty: 1.1,
        presence_penalty: 0.3,
        frequency_penalty: 0.2,
        seed,
        ..Sampling::default()
    }
}

pub(crate) fn submit(engine: &EngineHandle, work: &Generation, mode: Mode) -> EventStream {
    let work = Arc::new(work.clone());
    engine.submit(Submission::new(work, mode)).expect("a submission that is taken")
}

pub(crate) async fn next(stream: &mut EventStream) -> Option<Event> {
    tokio::time::timeout(Duration::from_secs(60), stream.recv()).await.expect("the engine hangs")
}

/// Reads a stream to its end.
pub(crate) async fn answers(mut stream: EventStream) -> Answers {
    let (mut tokens, mut answers) = (BTreeMap::<u32, Vec<TokenId>>::new(), Answers::new());
    while let Some(event) = next(&mut stream).await {
        match event {
            Event::Token(token) => tokens.entry(token.choice).or_default().push(token.token),
            Event::Finished { choice, reason } => {
                answers.insert(choice, (tokens.remove(&choice).unwrap_or_default(), reason));
            }
            Event::Failed(error) => panic!("failed: {error}"),
            _ => {}
        }
    }
    answers
}

pub(crate) async fn generate(engine: &EngineHandle, work: &Generation) -> Answers {
    answers(submit(engine, work, Mode::Generate)).await
}

/// Checks that an engine with nothing to do holds nothing.
pub(crate) async fn assert_idle(engine: &EngineHandle) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while engine.pool().counts().active > 0 {
        assert!(std::time::Instant::now() < deadline, "{:?}", engine.pool().counts());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(engine.pool().counts().reserved, 0);
    assert_eq!(engine.live_blocks(), []);
    assert_eq!(engine.pool().audit(), Ok(()));
}

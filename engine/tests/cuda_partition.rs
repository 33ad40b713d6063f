//! Two engines of one process on one GPU, each with a part of it. Where there is no GPU nothing is
//! tested, and each test says so.
#![allow(clippy::print_stdout, reason = "what was measured, and why nothing was")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::backend::cuda::{PartitionSeat, SmPartition, SmSplit};
use engine::{
    CudaOptions, Engine, EngineConfig, EngineError, EngineHandle, Event, LoadFormat, Mode,
    ModelOptions, Submission,
};
use kv_cache::TokenId;
use rstest::rstest;
use scheduler::{Generation, PartitionTargets, RequestId, Role, Sampling, StopRules, TenantSalt};
use tempfile::TempDir;

const VOCAB: u32 = 1000;

/// Llama-3.1-8B's heads, an eighth as wide and of four layers.
const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 1000,
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "max_position_embeddings": 4096,
    "rope_theta": 500000.0,
    "torch_dtype": "bfloat16",
    "eos_token_id": 2
}"#;

/// Lengths of prompts; each is generated from alone, so that all runs make the same steps.
const PROMPTS: [u32; 6] = [1500, 3, 700, 64, 2000, 17];

/// Tokens of each answer.
const ANSWER: u32 = 96;

/// A model, a place for its compiled kernels and choices, and a GPU.
struct Setting {
    dir: TempDir,
    ordinal: usize,
}

// === impl Setting ===

impl Setting {
    fn new() -> Option<Self> {
        let Some(ordinal) = engine::cuda::first_usable() else {
            println!("skipped: no GPU that the kernels run on");
            return None;
        };
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("config.json"), CONFIG).expect("a file in it");
        Some(Self { dir, ordinal })
    }

    fn start(&self, seat: Option<PartitionSeat>) -> Result<EngineHandle, EngineError> {
        let cuda = CudaOptions {
            ordinal: self.ordinal,
            kernel_cache: Some(self.dir.path().join("kernels")),
            partition: seat,
            ..CudaOptions::default()
        };
        Engine::start(&config(self.dir.path(), cuda), &mut |_| ())
    }
}

fn config(dir: &Path, cuda: CudaOptions) -> EngineConfig {
    EngineConfig {
        model_dir: dir.to_owned(),
        model: ModelOptions {
            kv_blocks: Some(1024),
            load_format: LoadFormat::Dummy { seed: 5 },
            cuda: Some(cuda),
            ..ModelOptions::default()
        },
        batch_tokens_max: 1024,
        sequences_max: 16,
        queue_max: 64,
        context_tokens_max: None,
        prefix_cache: false,
    }
}

/// Greedy answers to all prompts, one after the other.
fn answers(engine: &EngineHandle) -> Vec<Vec<TokenId>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    PROMPTS.iter().map(|&tokens| runtime.block_on(answer(engine, tokens))).collect()
}

async fn answer(engine: &EngineHandle, prompt_tokens: u32) -> Vec<TokenId> {
    let mix = |at: u32| (prompt_tokens * 7919 + at).wrapping_mul(2_654_435_761) >> 7;
    let prompt: Vec<TokenId> = (0..prompt_tokens).map(|at| 3 + mix(at) % (VOCAB - 3)).collect();
    let work = Arc::new(Generation {
        id: RequestId("test".into()),
        prompt: prompt.into(),
        generated: Arc::default(),
        choices: vec![0],
        sampling: Sampling::greedy(),
        stop: StopRules { max_tokens: ANSWER, ignore_eos: true, ..StopRules::default() },
        prompt_logprobs: None,
        salt: TenantSalt::default(),
    });
    let submission = Submission { work, mode: Mode::Generate, deadline: None };
    let mut events = engine.submit(submission).expect("a submission that is taken");
    let mut tokens = Vec::new();
    loop {
        let event = tokio::time::timeout(Duration::from_secs(20), events.recv()).await;
        match event.expect("the engine hangs") {
            Some(Event::Token(token)) => tokens.push(token.token),
            Some(Event::Failed(error)) => panic!("failed: {error}"),
            Some(_) => {}
            None => return tokens,
        }
    }
}

#[rstest]
#[case::a_quarter(SmSplit::Decode(32), true)]
#[case::as_the_load_wants(SmSplit::Auto, true)]
#[case::by_priority(SmSplit::Off, false)]
fn two_engines_answer_as_one_alone(#[case] split: SmSplit, #[case] is_parted: bool) {
    let Some(setting) = Setting::new() else { return };
    let alone = setting.start(None).unwrap();
    let expected = answers(&alone);
    assert!(expected.iter().all(|answer| answer.len() == ANSWER as usize));
    drop(alone);
    // A target that no step meets lets the split change while it is in use.
    let targets = PartitionTargets { itl: Duration::from_micros(1), hold: Duration::ZERO };
    let partition = SmPartition::new(split, targets);
    let seats = [Role::Prefill, Role::Decode].map(|role| partition.seat(role));
    let engines = seats.each_ref().map(|seat| setting.start(Some(seat.clone())).unwrap());
    let began = Instant::now();
    std::thread::scope(|scope| {
        let runs = engines
            .each_ref()
            .map(|engine| scope.spawn(move || (0..4).map(|_| answers(engine)).collect::<Vec<_>>()));
        for (run, seat) in runs.into_iter().zip(&seats) {
            for answers in run.join().expect("an engine that answers") {
                assert_eq!(answers, expected, "{split:?}, {}", seat.role());
            }
        }
    });
    let [prefill, decode] = seats;
    println!(
        "{split:?}: {:?}, shares {:?} and {:?}, steps in them {} and {}, {} changes",
        began.elapsed(),
        prefill.share(),
        decode.share(),
        prefill.parted_steps(),
        decode.parted_steps(),
        decode.changes()
    );
    let shares = prefill.share().zip(decode.share());
    assert_eq!(shares.is_some(), is_parted);
    assert!(shares.is_none_or(|(prefill, decode)| (prefill + decode - 1.0).abs() < 1e-9));
    assert_eq!(prefill.parted_steps() > 0 && decode.parted_steps() > 0, is_parted);
}

#[test]
fn a_part_that_is_too_large_is_refused() {
    let Some(setting) = Setting::new() else { return };
    let partition = SmPartition::new(SmSplit::Decode(4096), PartitionTargets::default());
    let refused = setting.start(Some(partition.seat(Role::Decode)));
    let error = refused.expect_err("no GPU has as many").to_string();
    assert!(error.contains("4096 multiprocessors"), "{error}");
}

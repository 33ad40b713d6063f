//! Two engines of one process on one GPU, each with a part of it. Ignored unless asked for, as
//! `cargo xtask test` does where there is a GPU.
#![allow(clippy::print_stdout, reason = "what was measured")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::cuda::{PartitionSeat, SmPartition, SmSplit};
use engine::{
    CudaOptions, Engine, EngineConfig, EngineError, EngineHandle, Event, EventStream, FilledPages,
    LoadFormat, Mode, ModelOptions, Submission,
};
use kv_cache::{BlockHandle, BlockRef, BlockTable, Fence, PageRange, PeerPages, TokenId};
use rstest::rstest;
use scheduler::PartitionTargets;
use tempfile::TempDir;
use words::{
    ClientId, Generation, RequestId, Role, SampledToken, Sampling, StopRules, Targets, TenantSalt,
};

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
    fn new() -> Self {
        let ordinal = usable_gpu();
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("config.json"), CONFIG).expect("a file in it");
        Self { dir, ordinal }
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

fn usable_gpu() -> usize {
    engine::cuda::first_usable().expect("a GPU that the kernels run on")
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
        targets: Targets::default(),
        tiers: engine::TierOptions::default(),
    }
}

/// Greedy answers to all prompts, one after the other.
fn answers(engine: &EngineHandle) -> Vec<Vec<TokenId>> {
    PROMPTS.iter().map(|&tokens| alone(answer(engine, tokens))).collect()
}

async fn answer(engine: &EngineHandle, prompt_tokens: u32) -> Vec<TokenId> {
    tokens_of(submit(engine, prompt_tokens, Mode::Generate)).await
}

fn submit(engine: &EngineHandle, prompt_tokens: u32, mode: Mode) -> EventStream {
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
        client: ClientId::default(),
        targets: Targets::default(),
    });
    engine.submit(Submission::new(work, mode)).expect("a submission that is taken")
}

async fn next(events: &mut EventStream) -> Option<Event> {
    let event = tokio::time::timeout(Duration::from_secs(20), events.recv()).await;
    match event.expect("the engine hangs") {
        Some(Event::Failed(error)) => panic!("failed: {error}"),
        event => event,
    }
}

async fn tokens_of(mut events: EventStream) -> Vec<TokenId> {
    let mut tokens = Vec::new();
    while let Some(event) = next(&mut events).await {
        if let Event::Token(token) = event {
            tokens.push(token.token);
        }
    }
    tokens
}

/// A prompt that was computed on one engine and lies in the blocks of another.
struct HandedOver {
    /// Where it was computed.
    source: BlockTable,
    table: BlockTable,
    first: Vec<SampledToken>,
}

/// Copies pages on the device as they are announced, while the prompt is still being computed.
async fn hand_over(from: &EngineHandle, to: &EngineHandle, prompt_tokens: u32) -> HandedOver {
    let mut table = room_for(to, prompt_tokens);
    let mut events = submit(from, prompt_tokens, Mode::Prefill);
    while let Some(event) = next(&mut events).await {
        match event {
            Event::PagesFilled(pages) => copy(from, to, &pages, &table),
            Event::Prefilled { table: source, first, .. } => {
                table.set_tokens(prompt_tokens as usize);
                return HandedOver { source: *source, table, first };
            }
            _ => {}
        }
    }
    panic!("the prompt ended without a result")
}

fn room_for(engine: &EngineHandle, tokens: u32) -> BlockTable {
    let layout = &engine.info().layout;
    let blocks = layout.blocks_for(tokens as usize) as u32;
    let mut credit = engine.pool().reserve(blocks).expect("free blocks");
    let mut table = BlockTable::new(layout.block_tokens());
    while let Some(block) = credit.bind() {
        table.push(block);
    }
    table
}

fn references(blocks: &[BlockHandle]) -> Vec<BlockRef> {
    blocks.iter().map(BlockHandle::reference).collect()
}

fn copy(from: &EngineHandle, to: &EngineHandle, pages: &FilledPages, table: &BlockTable) {
    let first = pages.first_block as usize;
    let source = references(&pages.blocks);
    let target = references(&table.blocks()[first..first + source.len()]);
    let (from, to) = (from.region(), to.region());
    assert!(to.reaches(from.as_ref()), "one GPU, one model");
    let peer = PeerPages { region: from.as_ref(), blocks: &source, fence: pages.fence };
    let range = PageRange { layers: pages.layers.clone(), blocks: &target };
    to.copy_from(&range, &peer).expect("pages of both regions");
}

/// The bytes of a table's pages, all layers.
fn bytes_of(engine: &EngineHandle, table: &BlockTable) -> Vec<u8> {
    let region = engine.region();
    let blocks = references(table.blocks());
    let pages = PageRange { layers: 0..region.layout().layers(), blocks: &blocks };
    let mut bytes = vec![0; pages.pages() * region.layout().page_bytes()];
    region.gather(&pages, Fence::default(), &mut bytes).expect("pages of this region");
    bytes
}

async fn resume(to: &EngineHandle, prompt_tokens: u32, handed: HandedOver) -> Vec<TokenId> {
    let HandedOver { table, first, .. } = handed;
    let mut tokens = vec![first[0].token];
    tokens.extend(tokens_of(submit(to, prompt_tokens, Mode::Resume { table, first })).await);
    tokens
}

fn alone<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

#[rstest]
#[case::a_quarter(SmSplit::Decode(32), true)]
#[case::as_the_load_wants(SmSplit::Auto, true)]
#[case::by_priority(SmSplit::Off, false)]
#[ignore = "needs a GPU"]
fn two_engines_answer_as_one_alone(#[case] split: SmSplit, #[case] is_parted: bool) {
    let setting = Setting::new();
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

/// One after the other, so that both make the same steps as one engine does.
#[rstest]
#[case::everywhere(SmSplit::Off)]
#[case::in_parts(SmSplit::Auto)]
#[ignore = "needs a GPU"]
fn prompts_handed_over_on_the_device_are_answered_as_by_one_engine(#[case] split: SmSplit) {
    let setting = Setting::new();
    let single = setting.start(None).unwrap();
    let expected = answers(&single);
    drop(single);
    let partition = SmPartition::new(split, PartitionTargets::default());
    let [prefill, decode] = [Role::Prefill, Role::Decode]
        .map(|role| setting.start(Some(partition.seat(role))).unwrap());
    for round in 0..3 {
        for (&tokens, expected) in PROMPTS.iter().zip(&expected) {
            let got = alone(async {
                let handed = hand_over(&prefill, &decode, tokens).await;
                resume(&decode, tokens, handed).await
            });
            assert_eq!(got, *expected, "{split:?}, round {round}, prompt of {tokens}");
        }
    }
    assert_eq!(decode.stats().prefill_tokens, 0, "nothing was computed twice");
    for engine in [&prefill, &decode] {
        wait_until_free(engine);
    }
}

/// Whatever the steps were: what arrives is what was computed, and it is gone on with alike whether it
/// came on the device or by way of the host.
#[test]
#[ignore = "needs a GPU"]
fn prompts_handed_over_at_the_same_time_keep_apart() {
    let setting = Setting::new();
    let partition = SmPartition::new(SmSplit::Off, PartitionTargets::default());
    let [prefill, decode] = [Role::Prefill, Role::Decode]
        .map(|role| setting.start(Some(partition.seat(role))).unwrap());
    let prompts = PROMPTS.iter().flat_map(|&tokens| [tokens, tokens + 100]);
    let handed: Vec<(u32, HandedOver)> = std::thread::scope(|scope| {
        // Decode is at work meanwhile, in other blocks.
        let busy = scope.spawn(|| (0..2).for_each(|_| drop(answers(&decode))));
        let hand = |tokens| (tokens, alone(hand_over(&prefill, &decode, tokens)));
        let threads: Vec<_> = prompts.map(|tokens| scope.spawn(move || hand(tokens))).collect();
        busy.join().unwrap();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (tokens, handed) in handed {
        let bytes = bytes_of(&prefill, &handed.source);
        assert!(bytes == bytes_of(&decode, &handed.table), "prompt of {tokens}");
        let mut table = room_for(&decode, tokens);
        let blocks = references(table.blocks());
        let pages = PageRange { layers: 0..decode.info().layout.layers(), blocks: &blocks };
        decode.region().scatter(&pages, &bytes).unwrap();
        table.set_tokens(tokens as usize);
        let (source, first) =
            (BlockTable::new(decode.info().layout.block_tokens()), handed.first.clone());
        let by_host = alone(resume(&decode, tokens, HandedOver { source, table, first }));
        assert_eq!(by_host.len(), ANSWER as usize);
        assert_eq!(alone(resume(&decode, tokens, handed)), by_host, "prompt of {tokens}");
    }
    for engine in [&prefill, &decode] {
        wait_until_free(engine);
    }
}

fn wait_until_free(engine: &EngineHandle) {
    let deadline = Instant::now() + Duration::from_secs(20);
    alone(async {
        while engine.pool().counts().active > 0 {
            assert!(Instant::now() < deadline, "{:?}", engine.pool().counts());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
#[ignore = "needs a GPU"]
fn a_part_that_is_too_large_is_refused() {
    let setting = Setting::new();
    let partition = SmPartition::new(SmSplit::Decode(4096), PartitionTargets::default());
    let refused = setting.start(Some(partition.seat(Role::Decode)));
    let error = refused.expect_err("no GPU has as many").to_string();
    assert!(error.contains("4096 multiprocessors"), "{error}");
}

//! What a decode step costs the engine's thread, over a device that computes nothing.
//!
//! The engine as it serves: its loop on its thread, a model's checks of a batch, the batch as the GPU backend
//! describes it, readers on a runtime of their own. What a driver takes for a launch is not in it.
//!
//! Sketch, of a sequence in a step: some 400 bytes of what is known of it and its request are read and half of that
//! written, 280 bytes of block table are copied, and 48 bytes leave for its reader. Where all that lies in a core's
//! caches it is 200 to 300 ns of instructions. On a machine that has done something else meanwhile, every line of
//! 64 bytes that isn't beside another costs 100 ns: what counts then is in how many places things are.
#![allow(missing_docs, clippy::print_stdout)]

#[path = "step/device.rs"]
mod device;

use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use engine::cuda::measure::Description;
use engine::{
    Engine, EngineConfig, EngineHandle, EngineStats, LoadFormat, Mode, Model, ModelOptions,
    Submission,
};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use words::{ClientId, Generation, RequestId, Sampling, StopRules, TenantSalt};

use self::device::Device;

const BLOCK_TOKENS: u32 = 16;
const VOCAB: u32 = 1_000;
/// Long enough for all that is measured, behind a prompt of this length.
const CONTEXT_TOKENS: u32 = 4_096;
const PROMPT_TOKENS: u32 = 960;
/// So many tokens a sequence generates, where sequences end.
const OUTPUT_TOKENS: u32 = 96;

/// The steps that are measured.
const CASES: [Case; 3] = [
    Case { name: "warm", evicts: false, output_tokens: CONTEXT_TOKENS, window: 16 },
    Case { name: "evicted", evicts: true, output_tokens: CONTEXT_TOKENS, window: 16 },
    Case { name: "with-ends", evicts: false, output_tokens: OUTPUT_TOKENS, window: 96 },
];

const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 1000, "hidden_size": 16, "intermediate_size": 16,
    "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
    "max_position_embeddings": 8192, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "eos_token_id": [1, 2]
}"#;

#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    /// Whether other work uses the caches between steps.
    evicts: bool,
    /// What a sequence generates before the next takes its place. All end together.
    output_tokens: u32,
    /// Steps of which one mean is taken; the least of the means is what the machine's other work didn't disturb.
    window: u64,
}

/// An engine with some sequences that decode, and their readers.
struct Busy {
    case: Case,
    handle: EngineHandle,
    runtime: Runtime,
    readers: JoinSet<()>,
    least_us: f64,
}

// === impl Busy ===

impl Busy {
    fn start(case: Case, sequences: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .expect("a runtime");
        let handle = engine(sequences, case.evicts);
        let mut readers = JoinSet::new();
        for first in 0..sequences {
            let work = (first..).step_by(sequences as usize);
            let work = work.map(move |number| generation(number, case.output_tokens));
            readers.spawn_on(read(handle.clone(), work), runtime.handle());
        }
        let busy = Self { case, handle, runtime, readers, least_us: f64::INFINITY };
        // Of the first steps without a prompt some bring what they need for the first time.
        busy.wait_for(case.window);
        busy
    }

    /// Lets so many steps pass; returns what they cost.
    fn steps(&mut self, count: u64) -> Duration {
        let begun = self.handle.stats();
        let mut before = begun.clone();
        let mut after = before.clone();
        while after.decode_steps < begun.decode_steps + count {
            self.wait_for(before.decode_steps + self.case.window);
            after = self.handle.stats();
            self.least_us = self.least_us.min(host_us(&before, &after));
            before = after.clone();
        }
        Duration::from_secs_f64(host_us(&begun, &after) * count as f64 / 1e6)
    }

    fn wait_for(&self, decode_steps: u64) {
        self.runtime.block_on(async {
            while self.handle.stats().decode_steps < decode_steps {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.readers.abort_all();
    }
}

/// Hands in one piece of work after the other, and reads what comes of it.
async fn read(engine: EngineHandle, work: impl Iterator<Item = Generation>) {
    for work in work {
        let work = Arc::new(work);
        let submission = Submission::new(work, Mode::Generate);
        let mut events = engine.submit(submission).expect("a queue with room");
        while events.recv().await.is_some() {}
    }
}

/// What a step without prefill cost between two moments, microseconds.
fn host_us(before: &EngineStats, after: &EngineStats) -> f64 {
    let steps = after.decode_steps - before.decode_steps;
    (after.decode_host_s - before.decode_host_s) * 1e6 / steps as f64
}

fn engine(sequences: u32, evicts: bool) -> EngineHandle {
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(dir.path().join("config.json"), CONFIG).expect("a temporary folder");
    let table = CONTEXT_TOKENS / BLOCK_TOKENS;
    let blocks = (sequences + 1) * table;
    let options = ModelOptions {
        kv_blocks: Some(blocks),
        block_tokens: BLOCK_TOKENS,
        load_format: LoadFormat::Dummy { seed: 1 },
        ..ModelOptions::default()
    };
    let config = EngineConfig {
        model_dir: dir.path().to_owned(),
        model: options,
        batch_tokens_max: 8_192,
        sequences_max: sequences,
        queue_max: sequences,
        context_tokens_max: Some(CONTEXT_TOKENS),
        prefix_cache: true,
        targets: words::Targets::default(),
        tiers: engine::TierOptions::default(),
    };
    let model = Model::load_with(dir.path(), &config.model, &mut |_| (), |_, layout| {
        let description =
            Description::new(8_192, sequences as usize, table as usize, BLOCK_TOKENS as usize);
        let device = Device::new(layout, blocks, description);
        Ok(if evicts { device.evicting() } else { device })
    });
    Engine::start_with(model.expect("dummy weights"), &config).expect("a thread")
}

fn generation(number: u32, output_tokens: u32) -> Generation {
    Generation {
        id: RequestId(number.to_string().into()),
        prompt: (0..PROMPT_TOKENS).map(|at| (at * 37 + number * 11) % VOCAB).collect(),
        generated: Arc::default(),
        choices: vec![0],
        sampling: Sampling::greedy(),
        stop: StopRules { max_tokens: output_tokens, ..StopRules::default() },
        prompt_logprobs: None,
        salt: TenantSalt::default(),
        client: ClientId::default(),
        targets: words::Targets::default(),
    }
}

fn steps(criterion: &mut Criterion) {
    for case in CASES {
        let mut group = criterion.benchmark_group(format!("step/{}", case.name));
        group.sample_size(10).warm_up_time(Duration::from_millis(200));
        group.measurement_time(Duration::from_millis(1_200));
        for sequences in [1, 64, 256] {
            let mut busy = None;
            group.bench_function(format!("{sequences}-sequences"), |bencher| {
                let busy = busy.get_or_insert_with(|| Busy::start(case, sequences));
                bencher.iter_custom(|count| busy.steps(count));
            });
            busy.into_iter().for_each(|busy| println!("at least {:.1} us", busy.least_us));
        }
        group.finish();
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);

//! Engines on a GPU at work: whatever else they do, each request gets tokens that the CPU would have
//! chosen after the same ones, but for ties; and in the end nothing is held.

use std::path::Path;

use engine::backend::cpu::CpuBackend;
use engine::backend::cuda::CudaOptions;
use engine::{EngineHandle, Event, Mode, Model, SampleRow, sampler};
use kv_cache::TokenId;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rstest::rstest;
use words::{FinishReason, Generation, Sampling};

use crate::compare::farthest;
use crate::handoff::{HandedOff, disaggregated, hand_off};
use crate::models::{Source, blocks_of, gpu, logits_in_chunks, narrow_llama, some_tokens};
use crate::support::{
    Answers, CONFIG, Sizes, VOCAB, answers, assert_idle, generate, prompt, seeded, start_in,
    submit, work,
};

const KV_BLOCKS: u32 = 64;
const EOS: TokenId = 2;

/// The model of these tests on the CPU, and how far the GPU's logits are from its.
struct Oracle {
    source: Source,
    cuda: CudaOptions,
    cpu: Model<CpuBackend>,
    off: f32,
    tokens: usize,
    ties: usize,
}

// === impl Oracle ===

impl Oracle {
    fn new(source: Source) -> Self {
        let cuda = gpu(false);
        let (mut gpu, mut cpu) = (source.on_gpu(&cuda, KV_BLOCKS), source.on_cpu(KV_BLOCKS));
        let tokens = some_tokens(1, 400, VOCAB);
        let blocks = blocks_of(0, 400, KV_BLOCKS);
        let [got, want] = [
            logits_in_chunks(&mut gpu, &tokens, &blocks, &[400]),
            logits_in_chunks(&mut cpu, &tokens, &blocks, &[400]),
        ];
        let off = farthest(&got, &want);
        println!("{}: logits are off by {off:.3} at most", source.name);
        assert!(off < 0.3, "much more than rounding");
        Self { source, cuda, cpu, off, tokens: 0, ties: 0 }
    }

    fn tiny() -> Self {
        let config = serde_json::from_str(CONFIG).expect("a configuration");
        Self::new(Source::random("tiny", &config))
    }

    fn dir(&self) -> &Path {
        &self.source.dir
    }

    fn start(&self, sizes: Sizes) -> EngineHandle {
        start_in(self.dir(), Some(self.cuda.clone()), sizes)
    }

    /// Checks that an answer is what the CPU would have said.
    fn check(&mut self, work: &Generation, answers: &Answers) {
        let told: Vec<u32> = answers.keys().copied().collect();
        assert_eq!(told, work.choices, "{work:?}");
        for (&choice, (tokens, reason)) in answers {
            self.check_choice(work, choice, tokens);
            check_end(work, tokens, *reason);
        }
    }

    fn check_choice(&mut self, work: &Generation, choice: u32, tokens: &[TokenId]) {
        let context = work.context();
        let all = [&context[..], tokens].concat();
        let known = all.len() - 1;
        let blocks = blocks_of(0, known, KV_BLOCKS);
        let logits = logits_in_chunks(&mut self.cpu, &all[..known], &blocks, &[known]);
        let vocab = self.cpu.config().vocab_size as usize;
        let rows = logits.chunks(vocab).skip(context.len() - 1);
        for (at, (logits, &token)) in rows.zip(tokens).enumerate() {
            let output = &all[work.prompt.len()..context.len() + at];
            let row = SampleRow {
                row: 0,
                sampling: &work.sampling,
                choice,
                index: output.len() as u32,
                prompt: &work.prompt,
                output,
                banned: &[],
            };
            let want = sampler::sample(logits, &row).expect("a token").token;
            self.tokens += 1;
            if want != token {
                self.ties += 1;
                self.check_tie(logits, &row, (token, want));
            }
        }
    }

    /// What the GPU chose is what the CPU would choose, were its logits as far off.
    fn check_tie(&self, logits: &[f32], row: &SampleRow<'_>, (token, want): (TokenId, TokenId)) {
        let mut nudged = logits.to_vec();
        nudged[token as usize] += 1.5 * self.off;
        nudged[want as usize] -= 1.5 * self.off;
        let instead = sampler::sample(&nudged, row).expect("a token").token;
        let at = row.index;
        assert_eq!(instead, token, "token {at} of choice {}: no tie with {want}", row.choice);
    }

    fn report(&self) {
        let Self { tokens, ties, .. } = self;
        println!("{}: {tokens} tokens, {ties} ties", self.source.name);
        assert!(ties * 8 <= *tokens, "ties are not that frequent");
    }
}

fn check_end(work: &Generation, tokens: &[TokenId], reason: FinishReason) {
    let ends = |&token: &TokenId| token == EOS && !work.stop.ignore_eos;
    let early = tokens.iter().take(tokens.len().saturating_sub(1)).any(ends);
    assert!(!early, "went on after its end: {tokens:?}");
    let given = work.generated.len() + tokens.len();
    match reason {
        FinishReason::Stop(token) => {
            assert!(ends(&token) && tokens.last() == Some(&token), "{tokens:?}");
        }
        FinishReason::Length => assert_eq!(given, work.stop.max_tokens as usize),
    }
}

/// Requests of all kinds, some of which begin alike.
fn workload(seed: u64, count: u32) -> Vec<Generation> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|number| {
            let stem = prompt(number % 3, random.random_range(1..120));
            let tail = prompt(100 + number, random.random_range(0..20));
            let sampling =
                if random.random() { Sampling::greedy() } else { seeded(u64::from(number)) };
            let mut work = work(&[stem, tail].concat(), random.random_range(1..40), sampling);
            // Without penalties tokens go from step to step on the device.
            if random.random() {
                (work.sampling.repetition_penalty, work.sampling.presence_penalty) = (1.0, 0.0);
                work.sampling.frequency_penalty = 0.0;
            }
            if random.random_ratio(1, 4) {
                work.choices = vec![0, 1, 2];
            }
            work
        })
        .collect()
}

/// Submits at random moments of the engine's work, and reads everything.
async fn all_at_once(engine: &EngineHandle, works: &[Generation], seed: u64) -> Vec<Answers> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut running = Vec::new();
    for work in works {
        let (wait, before) = (random.random_range(0..12), engine.stats().steps);
        while engine.stats().steps < before + wait && engine.stats().running > 0 {
            tokio::task::yield_now().await;
        }
        running.push(answers(submit(engine, work, Mode::Generate)));
    }
    futures_in_order(running).await
}

async fn futures_in_order(running: Vec<impl Future<Output = Answers>>) -> Vec<Answers> {
    let mut all = Vec::new();
    for answers in running {
        all.push(answers.await);
    }
    all
}

#[rstest]
#[case::chunks_of_a_block(32, true)]
#[case::chunks_of_four_blocks(80, true)]
#[case::whole_prompts(600, true)]
#[case::without_a_cache(80, false)]
#[tokio::test]
#[ignore = "needs a GPU"]
async fn a_mixed_batch(
    #[case] batch_tokens_max: u32,
    #[case] prefix_cache: bool,
    #[values(false, true)] narrow: bool,
) {
    let mut oracle = if narrow { Oracle::new(narrow_llama()) } else { Oracle::tiny() };
    for seed in 1..4 {
        let works = workload(seed, 24);
        let engine = oracle.start(Sizes { batch_tokens_max, prefix_cache, ..Sizes::default() });
        let together = all_at_once(&engine, &works, seed).await;
        works.iter().zip(&together).for_each(|(work, answers)| oracle.check(work, answers));
        assert_idle(&engine).await;
    }
    oracle.report();
}

#[tokio::test]
#[ignore = "needs a GPU"]
async fn preemption() {
    let mut oracle = Oracle::tiny();
    let mut works: Vec<_> = (0..6)
        .map(|number| {
            let sampling =
                if number % 2 == 0 { Sampling::greedy() } else { seeded(u64::from(number)) };
            work(&prompt(number, 30 + number), 60, sampling)
        })
        .collect();
    works.iter_mut().for_each(|work| work.stop.ignore_eos = true);
    let engine = oracle.start(Sizes { kv_blocks: 14, ..Sizes::default() });
    // Nothing starts before all are there: the first could have ended by then.
    let memory = engine.pool().reserve(14).expect("nobody has any yet");
    let running = works.iter().map(|work| answers(submit(&engine, work, Mode::Generate))).collect();
    drop(memory);
    let together = futures_in_order(running).await;
    works.iter().zip(&together).for_each(|(work, answers)| oracle.check(work, answers));
    assert!(engine.stats().preemptions > 0, "memory was not short: {:?}", engine.stats());
    assert_idle(&engine).await;
    oracle.report();
}

#[tokio::test]
#[ignore = "needs a GPU"]
async fn a_cached_prefix_and_a_repeated_request() {
    let mut oracle = Oracle::tiny();
    let engine = oracle.start(Sizes::default());
    let work = work(&prompt(8, 100), 30, seeded(3));
    let cold = generate(&engine, &work).await;
    let cached = engine.stats().cached_tokens;
    let warm = generate(&engine, &work).await;
    assert_eq!(engine.stats().cached_tokens - cached, 96);
    assert_eq!(generate(&engine, &work).await, warm, "the same steps give the same tokens");
    [cold, warm].iter().for_each(|answers| oracle.check(&work, answers));
    assert_idle(&engine).await;
    let again = oracle.start(Sizes { prefix_cache: false, ..Sizes::default() });
    let first = generate(&again, &work).await;
    assert_eq!(generate(&again, &work).await, first, "the same steps give the same tokens");
    assert_idle(&again).await;
    oracle.report();
}

#[tokio::test]
#[ignore = "needs a GPU"]
async fn a_request_goes_on_elsewhere() {
    let mut oracle = Oracle::tiny();
    let engine = oracle.start(Sizes::default());
    let mut whole = work(&prompt(6, 45), 24, seeded(1));
    whole.stop.ignore_eos = true;
    let (tokens, _) = generate(&engine, &whole).await[&0].clone();
    for done in [1, 3, tokens.len() - 1] {
        let elsewhere = oracle.start(Sizes::default());
        let rest = Generation { generated: tokens[..done].into(), ..whole.clone() };
        let answers = generate(&elsewhere, &rest).await;
        oracle.check(&rest, &answers);
        assert_idle(&elsewhere).await;
    }
    oracle.report();
}

#[tokio::test]
#[ignore = "needs a GPU"]
async fn clients_that_leave() {
    let mut oracle = Oracle::tiny();
    for seed in 0..4 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let engine = oracle.start(Sizes { kv_blocks: 60, ..Sizes::default() });
        let works = workload(seed + 50, 40);
        let mut kept = Vec::new();
        for work in &works {
            let mut stream = submit(&engine, work, Mode::Generate);
            if random.random_ratio(1, 3) {
                kept.push((work, answers(stream)));
                continue;
            }
            for _ in 0..random.random_range(0..6) {
                if stream.recv().await.is_none() {
                    break;
                }
            }
        }
        for (work, answers) in kept {
            oracle.check(work, &answers.await);
        }
        assert_idle(&engine).await;
    }
    oracle.report();
}

#[rstest]
#[case::gpu_to_gpu(true, true)]
#[case::gpu_to_cpu(true, false)]
#[case::cpu_to_gpu(false, true)]
#[tokio::test]
#[ignore = "needs a GPU"]
async fn a_hand_off(#[case] from_gpu: bool, #[case] to_gpu: bool) {
    let mut oracle = Oracle::tiny();
    let start =
        |on_gpu: bool, sizes| start_in(oracle.dir(), on_gpu.then(|| oracle.cuda.clone()), sizes);
    let (prefill, decode) = (start(from_gpu, Sizes::default()), start(to_gpu, Sizes::default()));
    for (seed, tokens) in [(1, 1), (2, 16), (3, 17), (4, 130), (5, 400)] {
        for sampling in [Sampling::greedy(), seeded(77)] {
            let mut work = work(&prompt(seed, tokens), 40, sampling);
            if tokens == 17 {
                work.choices = vec![0, 1, 2];
            }
            let computed = decode.stats().prefill_tokens;
            let together = disaggregated(&prefill, &decode, &work).await;
            assert_eq!(decode.stats().prefill_tokens, computed, "nothing was computed twice");
            oracle.check(&work, &together);
        }
    }
    assert_idle(&prefill).await;
    assert_idle(&decode).await;
    oracle.report();
}

/// Many hand-offs at once, into a pool that is short: pages come in while steps run.
#[tokio::test]
#[ignore = "needs a GPU"]
async fn hand_offs_beside_running_sequences() {
    let mut oracle = Oracle::new(narrow_llama());
    let prefill = oracle.start(Sizes::default());
    let decode = oracle.start(Sizes { kv_blocks: 70, ..Sizes::default() });
    let mut works: Vec<_> = (0..12u32)
        .map(|seed| {
            let sampling = if seed % 2 == 0 { Sampling::greedy() } else { seeded(seed.into()) };
            work(&prompt(seed, 40 + 9 * seed), 50, sampling)
        })
        .collect();
    works.iter_mut().for_each(|work| work.stop.ignore_eos = true);
    let mut running = std::collections::VecDeque::new();
    for work in &works {
        if running.len() == 6 {
            let (work, first, stream) = running.pop_front().expect("some run");
            finish(&mut oracle, work, first, stream).await;
        }
        let HandedOff { table, first, .. } = hand_off(&prefill, &decode, work).await;
        let mode = Mode::Resume { table, first: first.clone() };
        running.push_back((work, first[0].token, submit(&decode, work, mode)));
    }
    for (work, first, stream) in running {
        finish(&mut oracle, work, first, stream).await;
    }
    assert_idle(&prefill).await;
    assert_idle(&decode).await;
    oracle.report();
}

#[tokio::test]
#[ignore = "needs a GPU"]
async fn prompts_are_scored() {
    let oracle = Oracle::tiny();
    let mut work = work(&prompt(4, 150), 1, Sampling::greedy());
    work.prompt_logprobs = Some(3);
    work.sampling.logprobs = Some(2);
    let mut scores = Vec::new();
    for cuda in [Some(oracle.cuda.clone()), None] {
        let engine = start_in(oracle.dir(), cuda, Sizes::default());
        let mut stream = submit(&engine, &work, Mode::Generate);
        let mut of_one = Vec::new();
        while let Some(event) = stream.recv().await {
            match event {
                Event::PromptLogprobs(more) => of_one.extend(more.into_iter().map(|it| it.logprob)),
                Event::Token(token) => of_one.extend(token.logprob),
                Event::Failed(error) => panic!("failed: {error}"),
                _ => {}
            }
        }
        assert_idle(&engine).await;
        scores.push(of_one);
    }
    assert_eq!((scores[0].len(), scores[1].len()), (150, 150));
    for (got, want) in scores[0].iter().zip(&scores[1]) {
        let near = |got: f32, want: f32| (got - want).abs() < 2.0 * oracle.off;
        assert!(near(got.logprob, want.logprob), "{got:?} for {want:?}");
        let tops = got.top.iter().zip(&want.top);
        assert!(tops.clone().count() >= 2 && tops.clone().all(|(got, want)| near(got.1, want.1)));
    }
}

async fn finish(
    oracle: &mut Oracle,
    work: &Generation,
    first: TokenId,
    stream: engine::EventStream,
) {
    let mut answers = answers(stream).await;
    answers.get_mut(&0).expect("an answer").0.insert(0, first);
    oracle.check(work, &answers);
}

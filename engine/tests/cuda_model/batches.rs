//! What a sequence gets doesn't depend on how its tokens are cut into steps, nor on who shares them.

use engine::backend::Backend;
use engine::backend::cuda::{CudaBackend, CudaOptions};
use engine::{Model, SampleRow, StepBatch};
use kv_cache::{BlockId, KvCodec, TokenId};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rstest::rstest;
use words::Sampling;

use crate::compare::errors;
use crate::models::{
    Part, Source, blocks_of, each, gpu, logits_in_chunks, narrow_llama, other_shapes, some_tokens,
    step_of,
};

/// As for logits of a whole prompt.
const BOUND: f64 = 2e-2;
const HALF_BOUND: f64 = BOUND / 5.0;

/// Of all models here but those of an odd one.
const VOCAB: u32 = 1000;

/// A sequence on its way through a model.
struct Sequence {
    tokens: Vec<TokenId>,
    blocks: Vec<BlockId>,
    done: usize,
    /// `[done, vocab]`.
    logits: Vec<f32>,
}

fn sequences(lengths: &[usize], pool: u32) -> Vec<Sequence> {
    let longest = lengths.iter().copied().max().expect("a sequence");
    let sequence = |(number, &length): (usize, &usize)| Sequence {
        tokens: some_tokens(number as u32 + 10, length, VOCAB),
        blocks: blocks_of(number, longest, pool),
        done: 0,
        logits: Vec::new(),
    };
    lengths.iter().enumerate().map(sequence).collect()
}

/// Runs all sequences to their ends in steps of random parts: single rows beside chunks.
fn run_mixed<B: Backend>(model: &mut Model<B>, sequences: &mut [Sequence], seed: u64) -> usize {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut steps = 0;
    while sequences.iter().any(|it| it.done < it.tokens.len()) {
        let mut taken = Vec::new();
        for (number, sequence) in sequences.iter().enumerate() {
            let left = sequence.tokens.len() - sequence.done;
            let rows = match random.random_range(0..8u32) {
                0 => 0,
                1..=4 => 1,
                5 => random.random_range(2..20),
                _ => random.random_range(2..300),
            };
            let rows = rows.min(left);
            (rows > 0).then(|| taken.push((number, sequence.done + rows)));
        }
        if taken.is_empty() {
            continue;
        }
        let part = |&(number, end): &(usize, usize)| {
            let Sequence { tokens, blocks, done, .. } = &sequences[number];
            Part { tokens: &tokens[..end], from: *done, blocks }
        };
        let parts: Vec<_> = taken.iter().map(part).collect();
        let batch = step_of(&parts);
        let rows: Vec<usize> = (0..batch.tokens.len()).collect();
        let logits = model.logits(&batch, &rows).expect("a valid batch");
        let mut logits = logits.as_slice();
        for (number, end) in taken {
            let sequence = &mut sequences[number];
            let rows = end - sequence.done;
            let part = logits.split_off(..rows * VOCAB as usize).expect("rows of logits");
            sequence.logits.extend_from_slice(part);
            sequence.done = end;
        }
        steps += 1;
    }
    steps
}

fn mixed(source: &Source, cuda: &CudaOptions, lengths: &[usize], seed: u64) {
    let kv_blocks = 600;
    let mut cpu = source.on_cpu(kv_blocks);
    let mut runs = Vec::new();
    for _ in 0..2 {
        let mut gpu = source.on_gpu(cuda, kv_blocks);
        let mut sequences = sequences(lengths, kv_blocks);
        let steps = run_mixed(&mut gpu, &mut sequences, seed);
        runs.push((steps, sequences));
    }
    let mut gpu = source.on_gpu(cuda, kv_blocks);
    let bound = if gpu.layout().codec == KvCodec::F16 { HALF_BOUND } else { BOUND };
    for (number, (got, again)) in runs[0].1.iter().zip(&runs[1].1).enumerate() {
        let Sequence { tokens, blocks, logits, .. } = got;
        let want = logits_in_chunks(&mut cpu, tokens, blocks, &[tokens.len()]);
        let alone = logits_in_chunks(&mut gpu, tokens, blocks, &[tokens.len()]);
        let (off, off_alone) =
            (errors(logits, &want, VOCAB as usize), errors(&alone, &want, VOCAB as usize));
        println!(
            "{}, seed {seed}, {} steps, sequence {number} of {} tokens: {off}; alone {off_alone}",
            source.name,
            runs[0].0,
            tokens.len()
        );
        assert!(off.worst < bound, "{off}");
        assert_same(logits, &again.logits, "a repeated run");
    }
}

fn assert_same(got: &[f32], want: &[f32], what: &str) {
    let differs = got.iter().zip(want).position(|(got, want)| got.to_bits() != want.to_bits());
    assert_eq!(differs, None, "{what} differs in its bits");
}

#[rstest]
#[ignore = "needs a GPU"]
fn chunks_beside_decode_rows(#[values(false, true)] portable: bool) {
    let cuda = gpu(portable);
    for seed in 0..2 {
        mixed(&narrow_llama(), &cuda, &[1, 6, 33, 200, 517, 1200], seed);
    }
}

#[rstest]
#[ignore = "needs a GPU"]
fn of_other_shapes(#[values(false, true)] portable: bool) {
    let cuda = gpu(portable);
    let even = other_shapes().into_iter().filter(|source| !source.name.contains("odd"));
    each(even, |source| mixed(&source.in_halves(), &cuda, &[1, 6, 33, 200, 417], 0));
}

/// Decode rows of `count` sequences behind contexts of all lengths.
fn decode_step(count: usize, seed: u32, pool: u32) -> (Vec<Sequence>, Vec<usize>) {
    let lengths: Vec<usize> =
        (0..count).map(|at| 2 + (at * 37 + seed as usize * 11) % 90).collect();
    (sequences(&lengths, pool), lengths)
}

fn last_rows(sequences: &[Sequence], lengths: &[usize]) -> StepBatch<'static> {
    let pairs = sequences.iter().zip(lengths);
    let parts: Vec<_> = pairs
        .map(|(it, &length)| Part {
            tokens: &it.tokens[..length],
            from: length - 1,
            blocks: &it.blocks,
        })
        .collect();
    step_of(&parts)
}

fn prefill(model: &mut Model<CudaBackend>, sequences: &[Sequence]) {
    for Sequence { tokens, blocks, .. } in sequences {
        let batch = step_of(&[Part { tokens: &tokens[..tokens.len() - 1], from: 0, blocks }]);
        model.step(&batch, &mut |_, _| ()).expect("a valid batch");
    }
}

#[rstest]
#[ignore = "needs a GPU"]
fn recorded_steps_give_the_bits_of_live_ones(
    #[values(false, true)] portable: bool,
    #[values(1, 3, 8, 16, 17, 50)] count: usize,
) {
    let cuda = gpu(portable);
    let source = narrow_llama();
    let kv_blocks = 400;
    let (sequences, lengths) = decode_step(count, 1, kv_blocks);
    let batch = last_rows(&sequences, &lengths);
    let rows: Vec<usize> = (0..count).collect();
    // The second run of a shape is recorded, the third only launched.
    let mut recorded = source.on_gpu(&cuda, kv_blocks);
    prefill(&mut recorded, &sequences);
    let runs: Vec<_> = (0..3).map(|_| recorded.logits(&batch, &rows).expect("valid")).collect();
    assert_same(&runs[1], &runs[0], "the recorded step");
    assert_same(&runs[2], &runs[0], "the launched step");
    // Of other contexts, whose step has the same shape.
    let (others, lengths) = decode_step(count, 2, kv_blocks);
    let batch = last_rows(&others, &lengths);
    prefill(&mut recorded, &others);
    let launched = recorded.logits(&batch, &rows).expect("a valid batch");
    let mut live = source.on_gpu(&cuda, kv_blocks);
    prefill(&mut live, &others);
    let want = live.logits(&batch, &rows).expect("a valid batch");
    assert_same(&launched, &want, "a recording with other contents");
    let mut cpu = source.on_cpu(kv_blocks);
    for (number, Sequence { tokens, blocks, .. }) in others.iter().enumerate() {
        let all = logits_in_chunks(&mut cpu, tokens, blocks, &[tokens.len()]);
        let vocab = VOCAB as usize;
        let want = &all[all.len() - vocab..];
        let off = errors(&launched[number * vocab..][..vocab], want, vocab);
        assert!(off.worst < BOUND, "sequence {number} of {} tokens: {off}", tokens.len());
    }
}

#[rstest]
#[ignore = "needs a GPU"]
fn tokens_go_from_step_to_step_on_the_device(#[values(1, 5, 16)] count: usize) {
    let cuda = gpu(false);
    let source = narrow_llama();
    let kv_blocks = 400;
    let steps = 40;
    let lengths: Vec<usize> = (0..count).map(|at| 3 + at * 5).collect();
    let begun = sequences(&lengths, kv_blocks);
    let answers: Vec<_> = [false, true]
        .map(|overlaps| {
            let mut model = source.on_gpu(&cuda, kv_blocks);
            prefill(&mut model, &begun);
            let blocks: Vec<_> =
                (0..count).map(|number| blocks_of(number, 200, kv_blocks)).collect();
            // Prefilled again, in blocks that have room for what comes.
            let mut tokens: Vec<_> = begun.iter().map(|it| it.tokens.clone()).collect();
            for (tokens, blocks) in tokens.iter().zip(&blocks) {
                let part = Part { tokens: &tokens[..tokens.len() - 1], from: 0, blocks };
                model.step(&step_of(&[part]), &mut |_, _| ()).expect("a valid batch");
            }
            generate(&mut model, &mut tokens, &blocks, steps, overlaps);
            tokens
        })
        .into();
    assert_eq!(answers[1], answers[0], "fed tokens");
    let distinct: std::collections::BTreeSet<_> = answers[0][0].iter().collect();
    assert!(distinct.len() > 5, "a lively answer: {:?}", answers[0][0]);
}

/// Appends `steps` greedy tokens to each sequence.
///
/// - `overlaps`: each step is submitted before the one before is collected.
fn generate(
    model: &mut Model<CudaBackend>,
    tokens: &mut [Vec<TokenId>],
    blocks: &[Vec<BlockId>],
    steps: usize,
    overlaps: bool,
) {
    let sampling = Sampling { temperature: 0.7, seed: 9, ..Sampling::default() };
    let mut flight = None;
    for index in 0..steps as u32 {
        let known: Vec<Vec<TokenId>> = tokens
            .iter()
            .map(|tokens| {
                let in_flight = usize::from(flight.is_some());
                [&tokens[..], &[0][..in_flight]].concat()
            })
            .collect();
        let parts: Vec<_> = known
            .iter()
            .zip(blocks)
            .map(|(tokens, blocks)| Part { tokens, from: tokens.len() - 1, blocks })
            .collect();
        let mut batch = step_of(&parts);
        if flight.is_some() {
            batch.fed =
                (0..tokens.len()).map(|row| engine::batch::FedRow { row, sample: row }).collect();
        }
        batch.samples = (0..tokens.len())
            .map(|row| SampleRow {
                row,
                sampling: &sampling,
                choice: row as u32,
                index,
                prompt: &[],
                output: &[],
                banned: &[],
            })
            .collect();
        let submitted = model.submit(&batch, &mut |_, _| ()).expect("a valid batch");
        let before = if overlaps { flight.replace(submitted) } else { Some(submitted) };
        before.into_iter().for_each(|step| append(model, tokens, step));
    }
    flight.into_iter().for_each(|step| append(model, tokens, step));
}

fn append(
    model: &mut Model<CudaBackend>,
    tokens: &mut [Vec<TokenId>],
    step: engine::model::PendingStep<CudaBackend>,
) {
    let output = model.collect(step).expect("a step that succeeds");
    for (tokens, sampled) in tokens.iter_mut().zip(output.samples) {
        tokens.push(sampled.expect("a token").token);
    }
}

/// More rows than are recorded, and more than logits are computed of at once.
#[rstest]
#[ignore = "needs a GPU"]
fn many_decode_rows(#[values(300, 600)] count: usize) {
    let mut cuda = gpu(false);
    cuda.sequences_max = 640;
    let source = narrow_llama().in_halves();
    let kv_blocks = 4000;
    let (sequences, lengths) = decode_step(count, 3, kv_blocks);
    let batch = last_rows(&sequences, &lengths);
    let rows: Vec<usize> = (0..count).collect();
    let mut model = source.on_gpu(&cuda, kv_blocks);
    prefill(&mut model, &sequences);
    let runs: Vec<_> = (0..3).map(|_| model.logits(&batch, &rows).expect("valid")).collect();
    assert_same(&runs[1], &runs[0], "a repeated step");
    assert_same(&runs[2], &runs[0], "a repeated step");
    let mut cpu = source.on_cpu(kv_blocks);
    let vocab = VOCAB as usize;
    for (number, Sequence { tokens, blocks, .. }) in sequences.iter().enumerate().step_by(7) {
        let all = logits_in_chunks(&mut cpu, tokens, blocks, &[tokens.len()]);
        let off = errors(&runs[0][number * vocab..][..vocab], &all[all.len() - vocab..], vocab);
        assert!(off.worst < HALF_BOUND, "row {number} of {} tokens: {off}", tokens.len());
    }
}

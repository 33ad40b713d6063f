//! Tokens and scores chosen on the GPU, against `engine::sampler` on the same logits.

use engine::sampler;
use engine::{LogitsFault, SampleRow, Sampled, ScoreRow, StepBatch};
use kv_cache::{BlockId, TokenId};
use rand::{Rng, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rstest::rstest;
use serde_json::json;
use words::{Sampling, TokenLogprob};

use crate::models::{Part, Source, blocks_of, gpu, some_tokens, step_of};

/// A logarithm or an exponential on the GPU is off by some units in the last place.
const NUDGE: f32 = 2e-4;

/// A model that is little more than its vocabulary.
fn wide(vocab: u32) -> Source {
    Source::random(
        &format!("vocabulary of {vocab}"),
        &json!({
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": vocab,
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 256,
            "torch_dtype": "bfloat16",
            "eos_token_id": 2,
        }),
    )
}

/// What a row is asked for, and what it borrows.
struct Asked {
    sampling: Sampling,
    choice: u32,
    index: u32,
    prompt: Vec<TokenId>,
    output: Vec<TokenId>,
    banned: Vec<TokenId>,
}

// === impl Asked ===

impl Asked {
    /// Parameters of all kinds, each often off.
    fn random(random: &mut impl Rng, vocab: u32) -> Self {
        let mut pick = |values: &[f32]| values[random.random_range(0..values.len())];
        let mut sampling = Sampling {
            temperature: pick(&[0.0, 0.0, 0.01, 0.3, 0.7, 1.0, 1.0, 1.5, 10.0]),
            top_p: pick(&[1.0, 1.0, 0.99, 0.9, 0.5, 0.05, 0.0]),
            min_p: pick(&[0.0, 0.0, 0.01, 0.1, 0.9, 1.0]),
            repetition_penalty: pick(&[1.0, 1.0, 1.1, 0.8, 2.0]),
            frequency_penalty: pick(&[0.0, 0.0, 0.2, -0.5, 2.0]),
            presence_penalty: pick(&[0.0, 0.0, 0.3, -1.0]),
            ..Sampling::default()
        };
        sampling.top_k = [0, 0, 1, 2, 40, 1000, vocab][random.random_range(0..7)];
        sampling.seed = random.random();
        sampling.logprobs =
            [None, None, Some(0), Some(1), Some(5), Some(20)][random.random_range(0..6)];
        let mut token = || random.random_range(0..vocab);
        // Some tokens occur often, in both.
        let seen: Vec<TokenId> = (0..30).map(|_| token()).collect();
        let mut some = |most: usize| -> Vec<TokenId> {
            let count = random.random_range(0..=most);
            (0..count).map(|_| seen[random.random_range(0..seen.len())]).collect()
        };
        let (prompt, output) = (some(60), some(100));
        let (biased, banned) =
            if some(1).is_empty() { (some(20), some(10)) } else { Default::default() };
        let mut distinct = biased;
        distinct.sort_unstable();
        distinct.dedup();
        sampling.logit_bias =
            distinct.into_iter().map(|token| (token, random.random_range(-10.0..10.0))).collect();
        let (choice, index) = (random.random_range(0..4), random.random_range(0..1000));
        Self { sampling, choice, index, prompt, output, banned }
    }

    fn row(&self, row: usize) -> SampleRow<'_> {
        SampleRow {
            row,
            sampling: &self.sampling,
            choice: self.choice,
            index: self.index,
            prompt: &self.prompt,
            output: &self.output,
            banned: &self.banned,
        }
    }
}

/// Whether the GPU's answer is the host's, or would be if its token were a hair likelier.
fn agrees(
    got: &Result<Sampled, LogitsFault>,
    logits: &[f32],
    row: &SampleRow<'_>,
) -> Result<bool, String> {
    let want = sampler::sample(logits, row);
    let (got, want) = match (got, &want) {
        (Ok(got), Ok(want)) => (got, want),
        (Err(got), Err(want)) if got == want => return Ok(true),
        _ => return Err(format!("{got:?} for {want:?}")),
    };
    let (same, token) = (got.token == want.token, got.token);
    if !same {
        let mut nudged = logits.to_vec();
        let scale = row.sampling.temperature.max(0.01) * row.sampling.repetition_penalty.max(1.0);
        nudged[token as usize] += NUDGE * scale.max(nudged[token as usize].abs() * 0.01);
        let instead = sampler::sample(&nudged, row).map(|it| it.token);
        if instead != Ok(token) {
            return Err(format!("token {token} for {} ({:?})", want.token, row.sampling));
        }
    }
    match (&got.logprob, row.sampling.logprobs) {
        (None, None) => {}
        (Some(scored), Some(top)) => {
            let exact = sampler::score(logits, &ScoreRow { row: 0, next: token, top });
            near(scored, &exact.expect("numbers"), logits)?;
        }
        (got, asked) => return Err(format!("{got:?} where {asked:?} were asked for")),
    }
    Ok(same)
}

/// Compares scores; alternatives that are equally likely may change places.
fn near(got: &TokenLogprob, want: &TokenLogprob, logits: &[f32]) -> Result<(), String> {
    let differ = |a: f32, b: f32| (a - b).abs() > 1e-4 * (1.0 + b.abs());
    let wrong = differ(got.logprob, want.logprob)
        || got.top.len() != want.top.len()
        || got.top.iter().zip(&want.top).any(|(got, want)| {
            differ(got.1, want.1) || logits[got.0 as usize] != logits[want.0 as usize]
        });
    if wrong { Err(format!("{got:?} for {want:?}")) } else { Ok(()) }
}

/// One decode row of each of `count` sequences.
fn rows(count: usize, vocab: u32, pool: u32) -> StepBatch<'static> {
    let tokens: Vec<Vec<TokenId>> =
        (0..count).map(|number| some_tokens(number as u32, 1, vocab)).collect();
    let blocks: Vec<Vec<BlockId>> = (0..count).map(|number| blocks_of(number, 1, pool)).collect();
    let parts = tokens.iter().zip(&blocks).map(|(tokens, blocks)| Part { tokens, from: 0, blocks });
    step_of(&parts.collect::<Vec<_>>())
}

#[rstest]
#[ignore = "needs a GPU"]
fn tokens_are_those_of_the_hosts_sampler(
    #[values(199, 1000, 32_000, 128_256, 151_936)] vocab: u32,
    #[values(false, true)] portable: bool,
) {
    let mut cuda = gpu(portable);
    cuda.sequences_max = 256;
    let count = 200;
    let mut model = wide(vocab).on_gpu(&cuda, 300);
    let mut random = ChaCha8Rng::seed_from_u64(u64::from(vocab));
    let (mut equal, mut wrong) = (0, Vec::new());
    for _ in 0..3 {
        let mut batch = rows(count, vocab, 300);
        let all: Vec<usize> = (0..count).collect();
        let logits = model.logits(&batch, &all).expect("a valid batch");
        let asked: Vec<Asked> = (0..count).map(|_| Asked::random(&mut random, vocab)).collect();
        batch.samples = asked.iter().enumerate().map(|(row, asked)| asked.row(row)).collect();
        let output = model.step(&batch, &mut |_, _| ()).expect("a valid batch");
        for ((got, row), logits) in
            output.samples.iter().zip(&batch.samples).zip(logits.chunks(vocab as usize))
        {
            match agrees(got, logits, row) {
                Ok(same) => equal += usize::from(same),
                Err(why) => wrong.push(format!("row {}: {why}", row.row)),
            }
        }
    }
    println!("vocabulary {vocab}: {equal} of {} equal, {} wrong", 3 * count, wrong.len());
    wrong.iter().take(10).for_each(|why| println!("  {why:.300}"));
    assert!(wrong.is_empty());
    assert!(equal * 100 >= 3 * count * 99, "ties are rare");
}

#[rstest]
#[ignore = "needs a GPU"]
fn given_tokens_are_scored(#[values(199, 1000, 128_256)] vocab: u32) {
    let cuda = gpu(false);
    let mut model = wide(vocab).on_gpu(&cuda, 20);
    let tokens = some_tokens(9, 120, vocab);
    let blocks = blocks_of(0, 128, 20);
    let mut batch = step_of(&[Part { tokens: &tokens, from: 0, blocks: &blocks }]);
    let all: Vec<usize> = (0..119).collect();
    let logits = model.logits(&batch, &all).expect("a valid batch");
    batch.scores = (0..119)
        .map(|row| ScoreRow { row, next: tokens[row + 1], top: [0, 1, 5, 20][row % 4] })
        .collect();
    let output = model.step(&batch, &mut |_, _| ()).expect("a valid batch");
    for ((got, row), logits) in
        output.scores.iter().zip(&batch.scores).zip(logits.chunks(vocab as usize))
    {
        let want = sampler::score(logits, row).expect("numbers");
        let checked = near(got.as_ref().expect("a score"), &want, logits);
        checked.unwrap_or_else(|why| panic!("row {}: {why}", row.row));
    }
}

/// More rows of logits than are computed at once, some asked for twice, samples beside scores.
#[test]
#[ignore = "needs a GPU"]
fn many_rows_are_chosen_in_turns() {
    let mut cuda = gpu(false);
    let (count, vocab) = (400, 1000);
    cuda.sequences_max = 512;
    let mut model = wide(vocab).on_gpu(&cuda, 512);
    let mut batch = rows(count, vocab, 512);
    let all: Vec<usize> = (0..count).collect();
    let logits = model.logits(&batch, &all).expect("a valid batch");
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let asked: Vec<Asked> = (0..count + 50).map(|_| Asked::random(&mut random, vocab)).collect();
    batch.samples =
        asked.iter().enumerate().map(|(at, asked)| asked.row((at * 7) % count)).collect();
    batch.scores = (0..300).map(|row| ScoreRow { row, next: row as u32, top: 3 }).collect();
    let output = model.step(&batch, &mut |_, _| ()).expect("a valid batch");
    assert_eq!((output.samples.len(), output.scores.len()), (count + 50, 300));
    let of = |row: usize| &logits[row * vocab as usize..][..vocab as usize];
    for (got, row) in output.samples.iter().zip(&batch.samples) {
        // Of other numbers of rows, and so rounded otherwise.
        if row.sampling.temperature == 0.0 {
            agrees(got, of(row.row), row).unwrap_or_else(|why| panic!("row {}: {why}", row.row));
        }
    }
    for (got, row) in output.scores.iter().zip(&batch.scores) {
        let want = sampler::score(of(row.row), row).expect("numbers");
        let got = got.as_ref().expect("a score").logprob;
        assert!((got - want.logprob).abs() < 1e-2, "row {}: {got} for {want:?}", row.row);
    }
}

#[test]
#[ignore = "needs a GPU"]
fn a_row_without_candidates_says_so() {
    let cuda = gpu(false);
    let vocab = 199;
    let mut model = wide(vocab).on_gpu(&cuda, 20);
    let mut batch = rows(3, vocab, 20);
    let everything: Vec<TokenId> = (0..vocab).collect();
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut asked: Vec<Asked> = (0..3).map(|_| Asked::random(&mut random, vocab)).collect();
    asked.iter_mut().for_each(|asked| asked.banned = Vec::new());
    asked[1].banned = everything;
    batch.samples = asked.iter().enumerate().map(|(row, asked)| asked.row(row)).collect();
    let output = model.step(&batch, &mut |_, _| ()).expect("a valid batch");
    assert_eq!(output.samples[1].as_ref().err(), Some(&LogitsFault::NoCandidate));
    assert!(output.samples[0].is_ok() && output.samples[2].is_ok());
}

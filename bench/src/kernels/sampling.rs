//! Choosing tokens, scoring them, and feeding them to the next step.

use anyhow::{Result, ensure};
use engine::backend::{Choosing as _, Memory, Operations as _};
use engine::batch::FedRow;
use engine::cuda::CudaBackend;
use engine::weights::WeightDtype;
use engine::weights::{Tensor, TensorData};
use engine::{CpuBackend, LogitsFault, ModelConfig, SampleRow, Sampled, ScoreRow};
use rand::RngExt as _;
use words::{Sampling, TokenLogprob};

use super::report::{Cost, KernelRow};
use super::rig::{Piece, Rig, Room, step};
use super::{Lab, config_of, error};

/// Rows of logits: more than a vocabulary's worth of ways to choose; and where cases are small.
const ROWS: usize = 64;
const ROWS_SMALL: usize = 3;

/// Inputs of the logits: few, since only the logits matter here.
const HIDDEN: u32 = 64;

/// Log probabilities: exponentials and logarithms of another library.
const LOGPROB_ERROR_MAX: f64 = 1e-3;

/// Of drawn tokens, so many may differ: thresholds and noise are rounded differently, and two tokens
/// can be that near.
const DRAWN_SHARE_MAX: f64 = 0.02;

/// Calls that are timed.
const CALLS: usize = 20;

/// Prompt and output of the requests, for penalties.
const PROMPT: [u32; 5] = [1, 17, 500, 17, 3];
const OUTPUT: [u32; 4] = [9, 9, 17, 640];
const BANNED: [u32; 2] = [2, 40];

/// Both backends over the same logits.
struct Logits {
    cpu: Rig<CpuBackend>,
    gpu: Rig<CudaBackend>,
    on_cpu: <CpuBackend as Memory>::Buffer,
    on_gpu: <CudaBackend as Memory>::Buffer,
    hidden: <CudaBackend as Memory>::Buffer,
    head: <CudaBackend as Memory>::Matrix,
    vocab: usize,
    rows: usize,
}

/// Checks and times all.
pub(super) fn run(lab: &mut Lab<'_>) -> Result<()> {
    let all = [("llama-3.1-8b", 128_256), ("qwen3-0.6b", 151_936), ("tiny", 1003)];
    // One block to a row, and two: eight would take a sanitizer minutes. Logits of a smaller vocabulary
    // would be the library's product.
    let small = [("qwen3-0.6b", 20_000), ("tiny", 2003)];
    for &(shape, vocab) in if lab.is_small() { &small[..] } else { &all[..] } {
        let config = ModelConfig {
            hidden_size: HIDDEN,
            intermediate_size: HIDDEN,
            vocab_size: vocab,
            layers: 1,
            ..config_of(shape)?
        };
        let mut logits = Logits::new(lab, &config)?;
        logits.choices(lab)?;
        logits.scores(lab)?;
        logits.fed(lab)?;
        if lab.is_timed() {
            logits.times(lab)?;
        }
    }
    Ok(())
}

// === impl Logits ===

impl Logits {
    /// Logits are made on the GPU, and taken to the CPU as they are.
    fn new(lab: &mut Lab<'_>, config: &ModelConfig) -> Result<Self> {
        let (cols, vocab) = (HIDDEN as usize, config.vocab_size as usize);
        let most = CudaBackend::LOGIT_ROWS_MAX;
        let count = if lab.is_small() { ROWS_SMALL } else { ROWS };
        let room = Room { sequences: most, ..Room::for_rows(config, most.max(count)) };
        let mut gpu = Rig::gpu(&room, lab.options())?;
        let table = gpu.matrix((most, cols), lab.key(), 1.0)?;
        // Logits of a deviation of two: some stand out, as a model's do.
        let head = gpu.matrix((vocab, cols), lab.key(), 4.0 / cols as f32)?;
        let mut hidden = gpu.backend.buffer(cols)?;
        let mut on_gpu = gpu.backend.logit_buffer(vocab)?;
        gpu.finish()?;
        let batch = gpu.batch(&[Piece::rows((0..most as u32).collect())])?;
        gpu.load(&batch, &table, &mut hidden)?;
        let rows: Vec<usize> = (0..count).collect();
        gpu.backend.logits(&hidden, &rows, &head, &mut on_gpu)?;
        let numbers = gpu.download(&on_gpu)?;
        ensure!(numbers.iter().all(|x| x.is_finite()), "logits that are no numbers");

        let mut cpu = Rig::cpu(&room)?;
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let data = TensorData::Stored(&bytes);
        let tensor = Tensor { dtype: WeightDtype::F32, rows: count, cols: vocab, data };
        let table = cpu.backend.matrix(&[tensor.into()])?;
        let mut on_cpu = cpu.backend.logit_buffer(vocab)?;
        cpu.finish()?;
        let batch = cpu.batch(&[Piece::rows((0..count as u32).collect())])?;
        cpu.load(&batch, &table, &mut on_cpu)?;
        Ok(Self { cpu, gpu, on_cpu, on_gpu, hidden, head, vocab, rows: count })
    }

    fn choose(&mut self, requests: &[SampleRow<'_>]) -> Result<[Vec<Chosen>; 2]> {
        let requests: Vec<_> = requests.iter().map(|request| (request.row, request)).collect();
        let pending = self.gpu.backend.sample(&self.on_gpu, 0, &requests)?;
        let got = self.gpu.backend.sampled(pending)?;
        let pending = self.cpu.backend.sample(&self.on_cpu, 0, &requests)?;
        Ok([got, self.cpu.backend.sampled(pending)?])
    }

    /// Every way to choose a token.
    fn choices(&mut self, lab: &mut Lab<'_>) -> Result<()> {
        let seed = lab.key();
        for (name, sampling) in ways(seed) {
            let requests: Vec<_> = (0..self.rows).map(|row| request(row, &sampling)).collect();
            let [got, wanted] = self.choose(&requests)?;
            let differ =
                got.iter().zip(&wanted).filter(|(got, wanted)| token(got) != token(wanted));
            let share = differ.count() as f64 / self.rows as f64;
            let share_max = if sampling.temperature == 0.0 { 0.0 } else { DRAWN_SHARE_MAX };
            let case = format!("{name}, {} tokens", self.vocab);
            lab.row(KernelRow::new("sample", case.clone()).with_error(share, share_max));
            if sampling.logprobs.is_some() {
                // Where tokens differ, so do their log probabilities.
                let both =
                    got.iter().zip(&wanted).filter(|(got, wanted)| token(got) == token(wanted));
                let (got, wanted): (Vec<_>, Vec<_>) =
                    both.map(|(got, wanted)| (numbers_of(got), numbers_of(wanted))).unzip();
                let off = error(&got.concat(), &wanted.concat());
                let row = KernelRow::new("logprobs", case).with_error(off, LOGPROB_ERROR_MAX);
                lab.row(row);
            }
        }
        Ok(())
    }

    fn scores(&mut self, lab: &mut Lab<'_>) -> Result<()> {
        let vocab = self.vocab as u32;
        let requests: Vec<ScoreRow> = (0..self.rows)
            .map(|row| ScoreRow { row, next: lab.rng.random_range(0..vocab), top: 3 })
            .collect();
        let requests: Vec<_> = requests.iter().map(|request| (request.row, request)).collect();
        let pending = self.gpu.backend.score(&self.on_gpu, &requests)?;
        let got = self.gpu.backend.scored(pending)?;
        let pending = self.cpu.backend.score(&self.on_cpu, &requests)?;
        let wanted = self.cpu.backend.scored(pending)?;
        let numbers = |scores: &[Result<TokenLogprob, LogitsFault>]| -> Vec<f32> {
            scores.iter().flatten().flat_map(logprobs_of).collect()
        };
        let off = error(&numbers(&got), &numbers(&wanted));
        let row = KernelRow::new("score", format!("{} rows, {vocab} tokens", self.rows));
        lab.row(row.with_error(off, LOGPROB_ERROR_MAX));
        Ok(())
    }

    /// A step's rows are the tokens that the step before has chosen.
    fn fed(&mut self, lab: &mut Lab<'_>) -> Result<()> {
        let greedy = Sampling::greedy();
        let requests: Vec<_> = (0..self.rows).map(|row| request(row, &greedy)).collect();
        let plain: Vec<_> = requests.iter().map(|request| (request.row, request)).collect();
        let pending = self.gpu.backend.sample(&self.on_gpu, 0, &plain)?;
        // One sequence's rows; the last ones are fed, and are those of some samples.
        let (count, known) = (self.rows, self.rows / 2);
        let mut fed = step(&[Piece::rows((0..count as u32).collect())]);
        fed.fed = (known..count).map(|row| FedRow { row, sample: (7 * row) % count }).collect();
        let batch = self.gpu.prepare(&fed)?;
        let mut rows = self.gpu.backend.buffer(HIDDEN as usize)?;
        self.gpu.backend.embed(&batch, &self.head, &mut rows)?;
        let got = self.gpu.download(&rows)?;
        let chosen = self.gpu.backend.sampled(pending)?;
        let tokens = (0..count).map(|row| match row {
            row if row < known => row as u32,
            row => token(&chosen[(7 * row) % count]).unwrap_or(0),
        });
        // The same rows with tokens that the host knows.
        let batch = self.gpu.batch(&[Piece::rows(tokens.collect())])?;
        self.gpu.backend.embed(&batch, &self.head, &mut rows)?;
        let wanted = self.gpu.download(&rows)?;
        let row = KernelRow::new("advance", format!("{known} of {count} rows fed"));
        lab.row(row.with_error(error(&got, &wanted), 0.0));
        Ok(())
    }

    fn times(&mut self, lab: &mut Lab<'_>) -> Result<()> {
        let most = CudaBackend::LOGIT_ROWS_MAX;
        let all: Vec<usize> = (0..most).collect();
        self.gpu.backend.logits(&self.hidden, &all, &self.head, &mut self.on_gpu)?;
        let top =
            Sampling { temperature: 0.8, top_k: 50, top_p: 0.9, seed: 1, ..Sampling::default() };
        for (name, sampling) in [("greedy", Sampling::greedy()), ("top-k, top-p", top)] {
            for rows in [1, 64, most] {
                let us = self.time_us(&sampling, rows)?;
                let case = format!("{name}, {rows} x {}", self.vocab);
                let cost = Cost { bytes: (rows * self.vocab * 4) as f64, flops: 0.0 };
                let row = KernelRow::new("sample", case).with_time(lab, us, cost);
                lab.row(row);
            }
        }
        Ok(())
    }

    /// Device time of a call, its copies included: they can't be recorded.
    fn time_us(&mut self, sampling: &Sampling, rows: usize) -> Result<f64> {
        let requests: Vec<_> = (0..rows).map(|row| request(row, sampling)).collect();
        let requests: Vec<_> = requests.iter().map(|request| (request.row, request)).collect();
        let mut least = f64::INFINITY;
        for _ in 0..CALLS {
            let mut pending = None;
            least = least.min(self.gpu.backend.time_us(|backend| {
                pending = Some(backend.sample(&self.on_gpu, 0, &requests)?);
                Ok(())
            })?);
            if let Some(pending) = pending {
                self.gpu.backend.sampled(pending)?;
            }
        }
        Ok(least)
    }
}

type Chosen = Result<Sampled, LogitsFault>;

fn request(row: usize, sampling: &Sampling) -> SampleRow<'_> {
    SampleRow {
        row,
        sampling,
        choice: row as u32 % 3,
        index: row as u32,
        prompt: &PROMPT,
        output: &OUTPUT,
        banned: if row.is_multiple_of(2) { &[] } else { &BANNED },
    }
}

/// Each filter alone, and all together.
fn ways(seed: u64) -> Vec<(&'static str, Sampling)> {
    let plain = Sampling { seed, ..Sampling::default() };
    let penalties = Sampling {
        repetition_penalty: 1.3,
        frequency_penalty: 0.5,
        presence_penalty: 0.2,
        logit_bias: vec![(5, 8.0), (6, -100.0)],
        ..plain.clone()
    };
    let filters =
        Sampling { temperature: 0.7, top_k: 40, top_p: 0.9, min_p: 0.02, ..plain.clone() };
    vec![
        ("greedy", Sampling::greedy()),
        ("greedy, logprobs", Sampling { logprobs: Some(5), ..Sampling::greedy() }),
        ("greedy, penalties", Sampling { temperature: 0.0, ..penalties.clone() }),
        ("drawn", plain.clone()),
        ("top-k", Sampling { top_k: 50, ..plain.clone() }),
        ("top-p", Sampling { top_p: 0.8, ..plain.clone() }),
        ("min-p", Sampling { min_p: 0.1, ..plain.clone() }),
        // All are about equally likely: their order decides.
        ("top-p, hot", Sampling { temperature: 1e25, top_p: 0.5, ..plain.clone() }),
        ("top-k, top-p, hot", Sampling { temperature: 1e25, top_k: 300, top_p: 0.5, ..plain }),
        ("all filters", Sampling { logprobs: Some(2), ..filters.clone() }),
        (
            "filters, penalties",
            Sampling { temperature: 0.7, top_k: 40, top_p: 0.9, min_p: 0.02, ..penalties },
        ),
    ]
}

fn token(chosen: &Chosen) -> Option<u32> {
    chosen.as_ref().ok().map(|sampled| sampled.token)
}

fn numbers_of(chosen: &Chosen) -> Vec<f32> {
    let logprob = chosen.as_ref().ok().and_then(|sampled| sampled.logprob.as_ref());
    logprob.map_or(Vec::new(), logprobs_of)
}

fn logprobs_of(logprob: &TokenLogprob) -> Vec<f32> {
    let top = logprob.top.iter().map(|(_, logprob)| *logprob);
    std::iter::once(logprob.logprob).chain(top).collect()
}

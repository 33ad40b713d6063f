//! Chooses tokens: a pure function of logits, sampling parameters and (seed, choice, index).
//!
//! The order is: penalties, bias, bans, temperature, top-k, top-p, min-p, choice. The filters keep
//! every token at or above a threshold *value*, so equal logits stand or fall together and a device
//! can find the same set by bisection, without a sort. The choice is Gumbel's:
//! `argmax(logit / temperature + noise(seed, choice, index, token))` draws from the softmax of what
//! is left, again without a sort or a running sum.

mod filter;
pub mod philox;

use kv_cache::TokenId;
use words::{Sampling, TokenLogprob};

use crate::batch::{SampleRow, Sampled, ScoreRow};
use crate::error::LogitsFault;
use philox::Philox;

/// Noise of this size or more never occurs: `-ln(-ln(1 - 2^-33))` is 22.9. A token further than the
/// difference below the best so far can't win, which saves drawing noise for most of a vocabulary.
const NOISE_MAX: f32 = 23.0;

/// The `step`-th source of randomness of a request.
#[derive(Clone, Copy, Debug)]
struct Noise {
    generator: Philox,
    choice: u32,
    index: u32,
}

/// Chooses one token.
///
/// - `logits`: `[vocab_size]`, as the model computed them.
///
/// # Errors
/// [`LogitsFault::NotFinite`] if the logits are none, [`LogitsFault::NoCandidate`] if nothing may be
/// chosen.
pub fn sample(logits: &[f32], row: &SampleRow<'_>) -> Result<Sampled, LogitsFault> {
    refuse_not_finite(logits)?;
    let token = if is_plain_greedy(row) { argmax(logits)? } else { choose(logits, row)? };
    let logprob = row.sampling.logprobs.map(|top| token_logprob(logits, token, top));
    Ok(Sampled { token, logprob })
}

/// Scores the token that in fact came next.
///
/// - `logits`: `[vocab_size]`.
///
/// # Errors
/// [`LogitsFault::NotFinite`] if the logits are none.
pub fn score(logits: &[f32], row: &ScoreRow) -> Result<TokenLogprob, LogitsFault> {
    refuse_not_finite(logits)?;
    Ok(token_logprob(logits, row.next, row.top))
}

/// A NaN or an infinity among logits, or nothing but minus infinity, is no model's answer. A single minus
/// infinity is one: a token that can't come.
fn refuse_not_finite(logits: &[f32]) -> Result<(), LogitsFault> {
    let is_none = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
    let is_impossible = |logit: &f32| *logit == f32::NEG_INFINITY;
    if logits.iter().any(is_none) || logits.iter().all(is_impossible) {
        return Err(LogitsFault::NotFinite);
    }
    Ok(())
}

fn is_plain_greedy(row: &SampleRow<'_>) -> bool {
    row.sampling.temperature == 0.0 && !has_penalties(row.sampling) && row.banned.is_empty()
}

fn has_penalties(sampling: &Sampling) -> bool {
    sampling.repetition_penalty != 1.0
        || sampling.frequency_penalty != 0.0
        || sampling.presence_penalty != 0.0
        || !sampling.logit_bias.is_empty()
}

/// The likeliest token; of equal ones, the lowest id.
fn argmax(logits: &[f32]) -> Result<TokenId, LogitsFault> {
    let mut best = (f32::NEG_INFINITY, None);
    for (token, &logit) in logits.iter().enumerate() {
        if logit > best.0 {
            best = (logit, Some(token as TokenId));
        }
    }
    best.1.ok_or(LogitsFault::NoCandidate)
}

fn choose(logits: &[f32], row: &SampleRow<'_>) -> Result<TokenId, LogitsFault> {
    let sampling = row.sampling;
    let mut logits = logits.to_vec();
    penalize(&mut logits, row);
    let likeliest = argmax(&logits)?;
    if sampling.temperature <= 0.0 {
        return Ok(likeliest);
    }
    let best = logits[likeliest as usize];
    if best == f32::INFINITY {
        return Ok(likeliest);
    }
    // Relative to the best, so that a tiny temperature can't overflow.
    for logit in &mut logits {
        *logit = (*logit - best) / sampling.temperature;
    }
    let threshold = filter::threshold(&logits, sampling);
    let noise = Noise::new(row);
    Ok(noise.draw(&logits, threshold, likeliest))
}

/// Penalties, bias and bans, in this order.
fn penalize(logits: &mut [f32], row: &SampleRow<'_>) {
    let sampling = row.sampling;
    if sampling.repetition_penalty != 1.0 {
        for (token, _) in counts(row.prompt.iter().chain(row.output)) {
            if let Some(logit) = logits.get_mut(token as usize) {
                let penalty = sampling.repetition_penalty;
                *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
            }
        }
    }
    if sampling.frequency_penalty != 0.0 || sampling.presence_penalty != 0.0 {
        for (token, count) in counts(row.output.iter()) {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit -= sampling.frequency_penalty * count as f32 + sampling.presence_penalty;
            }
        }
    }
    for &(token, bias) in &sampling.logit_bias {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit += bias;
        }
    }
    for &token in row.banned {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// Each distinct token with how often it occurs.
fn counts<'a>(tokens: impl Iterator<Item = &'a TokenId>) -> Vec<(TokenId, usize)> {
    let mut sorted: Vec<TokenId> = tokens.copied().collect();
    sorted.sort_unstable();
    sorted.chunk_by(PartialEq::eq).map(|run| (run[0], run.len())).collect()
}

/// The token's log probability under the model's own distribution, and the likeliest tokens.
fn token_logprob(logits: &[f32], token: TokenId, top: u32) -> TokenLogprob {
    let normalizer = log_sum_exp(logits);
    let logprob = |logit: f32| (f64::from(logit) - normalizer) as f32;
    let top = filter::likeliest(logits, top as usize)
        .into_iter()
        .map(|token| (token, logprob(logits[token as usize])))
        .collect();
    let own = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    TokenLogprob { logprob: logprob(own), top }
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from((logit - best).exp())).sum();
    f64::from(best) + sum.ln()
}

// === impl Noise ===

impl Noise {
    fn new(row: &SampleRow<'_>) -> Self {
        let generator = Philox::new(row.sampling.seed);
        Self { generator, choice: row.choice, index: row.index }
    }

    /// The token with the largest sum of logit and noise among those at or above `threshold`.
    ///
    /// - `logits`: scaled so that the likeliest is 0.
    fn draw(&self, logits: &[f32], threshold: f32, likeliest: TokenId) -> TokenId {
        let mut best = (self.at(likeliest), likeliest);
        for (token, &logit) in logits.iter().enumerate() {
            if logit < threshold || logit + NOISE_MAX < best.0 {
                continue;
            }
            let token = token as TokenId;
            let score = logit + self.at(token);
            if score > best.0 || (score == best.0 && token < best.1) {
                best = (score, token);
            }
        }
        best.1
    }

    /// Standard Gumbel noise of one token: `-ln(-ln(1 - u))`, `u` uniform on (0, 1).
    ///
    /// Large noise comes from small `u`, where floats are densest: the tail stays exact.
    fn at(&self, token: TokenId) -> f32 {
        let block = self.generator.block([token / 4, self.index, self.choice, 0]);
        let uniform = (block[token as usize % 4] as f32 + 0.5) * 2f32.powi(-32);
        // Rounding may have reached 1, where the logarithm ends.
        let uniform = uniform.min(1.0 - f32::EPSILON / 2.0);
        -(-(-uniform).ln_1p()).ln()
    }
}

#[cfg(test)]
mod tests;

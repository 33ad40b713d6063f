//! Top-k, top-p and min-p as one threshold on logits.

use std::cmp::Ordering;

use kv_cache::TokenId;
use words::Sampling;

/// How many of the likeliest tokens are sorted first when looking for top-p's cut; doubled until
/// they hold enough probability. Most distributions end within it.
const NUCLEUS_GUESS: usize = 128;

/// The value a logit must reach to pass all filters.
///
/// Each filter sees what the one before it left, so top-p's probabilities are those among the top
/// k. Equal logits pass or fail together.
///
/// - `logits`: scaled by temperature, the likeliest 0.
pub(super) fn threshold(logits: &[f32], sampling: &Sampling) -> f32 {
    let mut threshold = f32::NEG_INFINITY;
    let k = sampling.top_k as usize;
    if k > 0 && k < logits.len() {
        threshold = kth_largest(logits, k);
    }
    if sampling.top_p < 1.0 {
        threshold = threshold.max(nucleus_threshold(logits, threshold, sampling.top_p));
    }
    if sampling.min_p > 0.0 {
        // The likeliest has logit 0, so its share is exp(logit).
        threshold = threshold.max(sampling.min_p.min(1.0).ln());
    }
    threshold
}

/// The `count` likeliest tokens, best first; of equal ones, lower ids first.
pub(super) fn likeliest(logits: &[f32], count: usize) -> Vec<TokenId> {
    let count = count.min(logits.len());
    if count == 0 {
        return Vec::new();
    }
    let order = |&a: &TokenId, &b: &TokenId| {
        descending(&logits[a as usize], &logits[b as usize]).then(a.cmp(&b))
    };
    let mut tokens: Vec<TokenId> = (0..logits.len() as TokenId).collect();
    tokens.select_nth_unstable_by(count - 1, order);
    tokens.truncate(count);
    tokens.sort_unstable_by(order);
    tokens
}

fn kth_largest(logits: &[f32], k: usize) -> f32 {
    *logits.to_vec().select_nth_unstable_by(k - 1, descending).1
}

/// The smallest logit among the likeliest whose probabilities sum to at least `top_p`.
fn nucleus_threshold(logits: &[f32], at_least: f32, top_p: f32) -> f32 {
    let mut kept: Vec<f32> = logits.iter().copied().filter(|&logit| logit >= at_least).collect();
    let total: f64 = kept.iter().map(|&logit| share(logit)).sum();
    let wanted = f64::from(top_p.max(0.0)) * total;
    let (mut sum, mut sorted, mut guess) = (0.0, 0, NUCLEUS_GUESS);
    while sorted < kept.len() {
        let rest = &mut kept[sorted..];
        let count = guess.min(rest.len());
        rest.select_nth_unstable_by(count - 1, descending);
        rest[..count].sort_unstable_by(descending);
        for &logit in &rest[..count] {
            sum += share(logit);
            if sum >= wanted {
                return logit;
            }
        }
        sorted += count;
        guess *= 2;
    }
    at_least
}

fn share(logit: f32) -> f64 {
    f64::from(logit).exp()
}

fn descending(a: &f32, b: &f32) -> Ordering {
    b.total_cmp(a)
}

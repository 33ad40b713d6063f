//! What a step asks of the sampler, as the kernels read it, and what they answer.

use std::mem::offset_of;

use bytemuck::{Pod, Zeroable};
use kv_cache::TokenId;
use words::{Sampling, TokenLogprob};

use crate::batch::{SampleRow, Sampled, ScoreRow};
use crate::error::LogitsFault;

/// Alternatives that are returned at most.
pub(super) const TOP_MAX: usize = 20;

/// One request; laid out as `Request` in `sampling.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Request {
    row: i32,
    mode: u32,
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    seed: [u32; 2],
    choice: u32,
    index: u32,
    /// The token to score.
    given: u32,
    /// Alternatives, or -1 for no log probabilities.
    top: i32,
    first_edit: u32,
    edits: u32,
    reserved: [u32; 2],
}

/// The modes of a request: the likeliest token; any other choice; the score of a given token.
pub(super) const GREEDY: u32 = 0;
pub(super) const CHOOSE: u32 = 1;
pub(super) const SCORE: u32 = 2;

/// One token's penalties, bias or ban; laid out as `Edit` in `sampling.cu`, applied in this order.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Edit {
    token: u32,
    /// Divides a positive logit, multiplies a negative one.
    repetition: f32,
    subtract: f32,
    /// Minus infinity for a ban.
    bias: f32,
}

/// One answer; laid out as `Choice` in `sampling.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Choice {
    token: u32,
    status: u32,
    logprob: f32,
    top: u32,
    top_tokens: [u32; TOP_MAX],
    top_logprobs: [f32; TOP_MAX],
}

/// The statuses of an answer beside 0.
pub(super) const NOT_FINITE: u32 = 1;

// Where things lie for the kernels, which check the sizes.
const _: () = assert!(size_of::<Request>() == 64 && offset_of!(Request, seed) == 24);
const _: () = assert!(offset_of!(Request, given) == 40 && offset_of!(Request, edits) == 52);
const _: () = assert!(size_of::<Edit>() == 16 && offset_of!(Edit, bias) == 12);
const _: () = assert!(size_of::<Choice>() == 16 + 8 * TOP_MAX);
const _: () = assert!(offset_of!(Choice, logprob) == 8 && offset_of!(Choice, top_tokens) == 16);

/// A token, or why there is none.
pub(crate) type Answer = Result<Sampled, LogitsFault>;

/// The requests of one call.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    vocab: usize,
    /// Whether `greedy` may read the rows.
    aligned: bool,
    requests: Vec<Request>,
    edits: Vec<Edit>,
}

/// What happens to one token's logit.
#[derive(Clone, Copy, Debug)]
enum Change {
    Repetition(f32),
    Subtract(f32),
    Bias(f32),
    Ban,
}

// === impl Requests ===

impl Requests {
    pub(in crate::backend::cuda) fn new(vocab: usize, aligned: bool) -> Self {
        Self { vocab, aligned, requests: Vec::new(), edits: Vec::new() }
    }

    /// Empties the list, for another call: none is made anew for each step.
    pub(in crate::backend::cuda) fn clear(&mut self) {
        self.requests.clear();
        self.edits.clear();
    }

    /// Asks for a token.
    ///
    /// - `logits_row`: the row of logits to choose from.
    pub(crate) fn choose(&mut self, logits_row: usize, row: &SampleRow<'_>) {
        let sampling = row.sampling;
        let first_edit = self.edits.len();
        self.edits.extend(edits(row, self.vocab));
        let edits = self.edits.len() - first_edit;
        let plain = sampling.temperature <= 0.0 && edits == 0 && sampling.logprobs.is_none();
        self.requests.push(Request {
            row: logits_row as i32,
            mode: if plain && self.aligned { GREEDY } else { CHOOSE },
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            seed: [sampling.seed as u32, (sampling.seed >> 32) as u32],
            choice: row.choice,
            index: row.index,
            given: 0,
            top: sampling.logprobs.map_or(-1, limited),
            first_edit: first_edit as u32,
            edits: edits as u32,
            reserved: [0; 2],
        });
    }

    /// Asks for the log probability of a given token.
    ///
    /// - `logits_row`: the row of logits to read.
    pub(crate) fn score(&mut self, logits_row: usize, row: &ScoreRow) {
        self.requests.push(Request {
            row: logits_row as i32,
            mode: SCORE,
            given: row.next,
            top: limited(row.top),
            ..Request::zeroed()
        });
    }

    /// Requests so far.
    pub(crate) fn count(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn any_greedy(&self) -> bool {
        self.requests.iter().any(|request| request.mode == GREEDY)
    }

    pub(super) fn any_general(&self) -> bool {
        self.requests.iter().any(|request| request.mode != GREEDY)
    }

    /// Whether each asked for log probabilities.
    pub(super) fn logprobs(&self) -> impl Iterator<Item = bool> {
        self.requests.iter().map(|request| request.top >= 0)
    }

    /// Bytes of requests and edits.
    pub(in crate::backend::cuda) fn bytes(&self) -> usize {
        size_of_val(self.requests.as_slice()) + size_of_val(self.edits.as_slice())
    }

    /// Writes requests, then edits; returns where the edits begin.
    pub(in crate::backend::cuda) fn write(&self, to: &mut [u8]) -> usize {
        let requests: &[u8] = bytemuck::cast_slice(&self.requests);
        let edits: &[u8] = bytemuck::cast_slice(&self.edits);
        to[..requests.len()].copy_from_slice(requests);
        to[requests.len()..][..edits.len()].copy_from_slice(edits);
        requests.len()
    }
}

fn limited(top: u32) -> i32 {
    top.min(TOP_MAX as u32) as i32
}

/// The edits of a request, no token twice.
fn edits(row: &SampleRow<'_>, vocab: usize) -> Vec<Edit> {
    let mut changes = changes(row);
    if changes.is_empty() {
        return Vec::new();
    }
    changes.retain(|(token, _)| (*token as usize) < vocab);
    // Stable: a token's changes stay in order.
    changes.sort_by_key(|(token, _)| *token);
    changes
        .chunk_by(|a, b| a.0 == b.0)
        .map(|of_token| {
            let edit = Edit { token: of_token[0].0, repetition: 1.0, subtract: 0.0, bias: 0.0 };
            of_token.iter().fold(edit, |edit, (_, change)| edit.with(*change))
        })
        .collect()
}

/// All changes, those of a token in the order in which they are applied.
fn changes(row: &SampleRow<'_>) -> Vec<(TokenId, Change)> {
    let Sampling { repetition_penalty, frequency_penalty, presence_penalty, logit_bias, .. } =
        row.sampling;
    let mut changes = Vec::new();
    if *repetition_penalty != 1.0 {
        let seen = row.prompt.iter().chain(row.output).copied().collect();
        let change = Change::Repetition(*repetition_penalty);
        changes.extend(counts(seen).into_iter().map(|(token, _)| (token, change)));
    }
    if *frequency_penalty != 0.0 || *presence_penalty != 0.0 {
        changes.extend(counts(row.output.to_vec()).into_iter().map(|(token, count)| {
            let subtract = frequency_penalty * count as f32 + presence_penalty;
            (token, Change::Subtract(subtract))
        }));
    }
    changes.extend(logit_bias.iter().map(|&(token, bias)| (token, Change::Bias(bias))));
    changes.extend(row.banned.iter().map(|&token| (token, Change::Ban)));
    changes
}

/// Each distinct token with how often it occurs.
fn counts(mut tokens: Vec<TokenId>) -> Vec<(TokenId, usize)> {
    tokens.sort_unstable();
    tokens.chunk_by(PartialEq::eq).map(|run| (run[0], run.len())).collect()
}

impl Edit {
    fn with(self, change: Change) -> Self {
        match change {
            Change::Repetition(repetition) => Self { repetition, ..self },
            Change::Subtract(subtract) => Self { subtract, ..self },
            Change::Bias(bias) => Self { bias: self.bias + bias, ..self },
            Change::Ban => Self { bias: f32::NEG_INFINITY, ..self },
        }
    }
}

// === impl Choice ===

impl Choice {
    /// - `logprobs`: whether log probabilities were asked for.
    pub(super) fn answer(&self, logprobs: bool) -> Answer {
        match self.status {
            0 => Ok(Sampled { token: self.token, logprob: logprobs.then(|| self.logprob()) }),
            NOT_FINITE => Err(LogitsFault::NotFinite),
            _ => Err(LogitsFault::NoCandidate),
        }
    }

    pub(super) fn score(&self) -> Result<TokenLogprob, LogitsFault> {
        self.answer(false).map(|_| self.logprob())
    }

    fn logprob(&self) -> TokenLogprob {
        let top = self.top_tokens.iter().copied().zip(self.top_logprobs);
        TokenLogprob { logprob: self.logprob, top: top.take(self.top as usize).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<'a>(sampling: &'a Sampling, output: &'a [TokenId]) -> SampleRow<'a> {
        let (prompt, banned) = (&[1, 1][..], &[][..]);
        SampleRow { row: 0, sampling, choice: 0, index: 0, prompt, output, banned }
    }

    fn edit(token: u32, repetition: f32, subtract: f32, bias: f32) -> Edit {
        Edit { token, repetition, subtract, bias }
    }

    #[test]
    fn a_token_has_one_edit_with_all_its_changes() {
        let sampling = Sampling {
            repetition_penalty: 2.0,
            frequency_penalty: 0.5,
            presence_penalty: 0.25,
            logit_bias: vec![(2, 1.0), (9, 3.0), (2, 1.5), (99, 1.0)],
            ..Sampling::default()
        };
        let row = SampleRow { banned: &[1, 77], ..row(&sampling, &[3, 2, 3]) };
        let want = [
            edit(1, 2.0, 0.0, f32::NEG_INFINITY),
            edit(2, 2.0, 0.75, 2.5),
            edit(3, 2.0, 1.25, 0.0),
            edit(9, 1.0, 0.0, 3.0),
        ];
        assert_eq!(edits(&row, 10), want);
    }

    #[test]
    fn only_plain_rows_are_greedy() {
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        let modes = |aligned, sampling: &Sampling, banned: &[TokenId]| {
            let mut requests = Requests::new(10, aligned);
            requests.choose(4, &SampleRow { banned, ..row(sampling, &[]) });
            requests.requests[0].mode
        };
        assert_eq!(modes(true, &greedy, &[]), GREEDY);
        assert_eq!(modes(true, &greedy, &[3]), CHOOSE);
        assert_eq!(modes(false, &greedy, &[]), CHOOSE, "rows that can't be read by fours");
        assert_eq!(modes(true, &Sampling::default(), &[]), CHOOSE);
        let logprobs = Sampling { logprobs: Some(0), ..greedy };
        assert_eq!(modes(true, &logprobs, &[]), CHOOSE);
    }

    #[test]
    fn requests_and_edits_lie_one_after_the_other() {
        let sampling = Sampling { logit_bias: vec![(2, 1.0)], ..Sampling::default() };
        let mut requests = Requests::new(10, true);
        requests.score(0, &ScoreRow { row: 0, next: 7, top: 99 });
        requests.choose(1, &row(&sampling, &[]));
        let mut bytes = vec![0; requests.bytes()];
        assert_eq!((requests.write(&mut bytes), bytes.len()), (128, 144));
        assert_eq!(requests.requests[0].top, TOP_MAX as i32);
        let edits: &[Edit] = &requests.edits;
        assert_eq!(&bytes[128..], bytemuck::cast_slice::<_, u8>(edits));
        assert_eq!(requests.logprobs().collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn answers_tell_why_there_is_no_token() {
        let choice = |status| Choice { status, ..Choice::zeroed() };
        assert!(choice(0).answer(true).is_ok_and(|sampled| sampled.logprob.is_some()));
        assert!(choice(0).answer(false).is_ok_and(|sampled| sampled.logprob.is_none()));
        assert_eq!(choice(1).score(), Err(LogitsFault::NotFinite));
        assert_eq!(choice(2).score(), Err(LogitsFault::NoCandidate));
    }
}

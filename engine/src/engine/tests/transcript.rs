//! What a reader heard, and what it should have heard.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use kv_cache::{BlockTable, TokenId};
use words::{FinishReason, Generation, SampledToken, TokenLogprob};

use super::script::{EOS, next_token};
use crate::handle::{Event, EventStream, FilledPages, SequenceError};

/// Far more than any test takes; a hang fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// Each choice's tokens and its end.
pub(super) type Answers = BTreeMap<u32, (Vec<TokenId>, FinishReason)>;

/// All events of a submission, sorted by kind.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    pub(super) cached_tokens: Option<u32>,
    pub(super) answers: Answers,
    /// Of all tokens, in order of arrival.
    pub(super) indices: Vec<u32>,
    pub(super) scores: Vec<(u32, TokenLogprob)>,
    pub(super) pages: Vec<Announced>,
    pub(super) prefilled: Option<(BlockTable, Vec<SampledToken>)>,
    pub(super) failed: Option<SequenceError>,
}

/// Pages that were told of. Their handles are let go of, as a sender does once it has sent them: whoever
/// kept them could leave the others without memory for ever.
#[derive(Debug)]
pub(super) struct Announced {
    pub(super) layers: Range<u32>,
    pub(super) blocks: Range<u32>,
    pub(super) last_chunk: bool,
}

// === impl Announced ===

impl Announced {
    fn of(pages: &FilledPages) -> Self {
        let FilledPages { layers, first_block, blocks, last_chunk, .. } = pages;
        let blocks = *first_block..first_block + blocks.len() as u32;
        Self { layers: layers.clone(), blocks, last_chunk: *last_chunk }
    }
}

// === impl Transcript ===

impl Transcript {
    /// Reads a stream to its end.
    pub(super) async fn of(mut stream: EventStream) -> Self {
        let mut transcript = Self::default();
        let mut tokens: BTreeMap<u32, Vec<TokenId>> = BTreeMap::new();
        while let Some(event) = within(stream.recv()).await {
            match event {
                Event::Started { cached_tokens } => {
                    assert_eq!(
                        transcript.cached_tokens.replace(cached_tokens),
                        None,
                        "started twice"
                    );
                }
                Event::PagesFilled(pages) => transcript.pages.push(Announced::of(&pages)),
                Event::PromptLogprobs(scores) => {
                    transcript.scores.extend(scores.into_iter().map(|s| (s.index, s.logprob)));
                }
                Event::Token(SampledToken { choice, index, token, .. }) => {
                    assert!(!transcript.answers.contains_key(&choice), "a token after the end");
                    transcript.indices.push(index);
                    tokens.entry(choice).or_default().push(token);
                }
                Event::Prefilled { table, first, .. } => {
                    transcript.prefilled = Some((*table, first));
                }
                Event::Finished { choice, reason } => {
                    let tokens = tokens.remove(&choice).unwrap_or_default();
                    let before = transcript.answers.insert(choice, (tokens, reason));
                    assert_eq!(before, None, "choice {choice} ended twice");
                }
                Event::Failed(error) => transcript.failed = Some(error),
            }
        }
        assert!(within(stream.recv()).await.is_none(), "nothing comes after the end");
        transcript
    }
}

/// A future's output, or a failed test.
pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("the engine hangs")
}

/// What the scripted model makes of a request, one token after the other, with no batching, no
/// cache and no memory in between.
pub(super) fn expected(work: &Generation) -> Answers {
    work.choices.iter().map(|&choice| (choice, answer(work, choice))).collect()
}

fn answer(work: &Generation, choice: u32) -> (Vec<TokenId>, FinishReason) {
    let eos: &[TokenId] = if work.stop.ignore_eos { &[] } else { &[EOS] };
    let stops = [eos, &work.stop.stop_token_ids].concat();
    let mut output = work.generated.to_vec();
    let min_tokens = work.stop.min_tokens as usize;
    let reason = loop {
        let last = output.last().filter(|last| stops.contains(last));
        if let Some(&stop) = last.filter(|_| output.len() > min_tokens) {
            break FinishReason::Stop(stop);
        }
        if output.len() >= work.stop.max_tokens as usize {
            break FinishReason::Length;
        }
        let context = [&work.prompt[..], &output].concat();
        let banned = if output.len() < min_tokens { &stops[..] } else { &[] };
        output.push(next_token(&context, work.sampling.seed, choice, banned));
    };
    (output.split_off(work.generated.len()), reason)
}

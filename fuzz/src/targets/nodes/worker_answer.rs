//! What a worker answers, and what a router passes on of it.

use std::collections::BTreeMap;

use prost::Message as _;
use proto::v1;
use proto::v1::generate_response::{Event, HandoffDone, PromptScores, Started, Tokens};
use router::dispatch::{News, Progress};
use words::{
    ClientId, FinishReason, Generation, RequestId, Sampling, StopRules, Targets, TenantSalt,
};

use crate::Target;
use crate::words::{joined, messages};

pub(in crate::targets) const TARGET: Target = Target::new("worker_answer", run).with_seeds(seeds);

const TOKENS_MAX: u32 = 4;
const PROMPT: [u32; 3] = [1, 2, 3];

/// Takes the messages of a worker's stream, in order.
fn run(input: &[u8]) {
    let mut progress = Progress::new(&asked());
    // By choice: tokens so far, and whether it has ended.
    let mut heard = BTreeMap::from([(0, (0, false)), (1, (0, false))]);
    let mut scores = 1;
    for message in messages(input) {
        let Ok(message) = v1::GenerateResponse::decode(message) else { continue };
        let news = match progress.read(message) {
            Ok(news) => news,
            Err(nonsense) => return assert!(!nonsense.to_string().is_empty()),
        };
        match news {
            News::Tokens(tokens) => {
                for token in tokens {
                    let (count, ended) = heard.get_mut(&token.choice).expect("a choice asked for");
                    assert!(!*ended && token.index == *count && *count < TOKENS_MAX, "{token:?}");
                    *count += 1;
                }
            }
            News::Finished { choice, .. } => {
                let (_, ended) = heard.get_mut(&choice).expect("a choice asked for");
                assert!(!std::mem::replace(ended, true), "choice {choice} ended twice");
            }
            News::Scores(new) => {
                scores += new.len();
                assert!(scores <= PROMPT.len(), "{new:?}");
            }
            News::Started(_) | News::HandedOver(_) | News::Old => {}
        }
    }
}

fn asked() -> Generation {
    Generation {
        id: RequestId("r".into()),
        prompt: PROMPT.into(),
        generated: [].into(),
        choices: vec![0, 1],
        sampling: Sampling::greedy(),
        stop: StopRules { max_tokens: TOKENS_MAX, ..StopRules::default() },
        prompt_logprobs: Some(1),
        salt: TenantSalt::default(),
        client: ClientId::default(),
        targets: Targets::default(),
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let token = |choice, index, token| v1::SampledToken { choice, index, token, logprob: None };
    let started = Started { path: 1, prefill_worker_id: "p0".into(), cached_tokens: 2 };
    let logprob = v1::TokenLogprob { logprob: -1.0, top: Vec::new() };
    let score = |index| v1::PromptLogprob { index, logprob: Some(logprob.clone()) };
    let done =
        HandoffDone { transport: "grpc".into(), bytes: 5, blocks: 1, duration_us: 9, attempts: 1 };
    let finished = |choice, reason| Event::Finished(v1::Finished::new(choice, reason));
    let events = [
        Event::Started(started),
        Event::PromptScores(PromptScores { tokens: vec![score(1), score(2)] }),
        Event::Tokens(Tokens { tokens: vec![token(0, 0, 7), token(1, 0, 8)] }),
        Event::HandoffDone(done),
        Event::Tokens(Tokens { tokens: vec![token(0, 1, 9), token(1, 0, 8), token(1, 1, 5)] }),
        finished(0, FinishReason::Stop(9)),
        finished(1, FinishReason::Length),
    ];
    let encode = |event| v1::GenerateResponse { event: Some(event), seal: 0 }.encode_to_vec();
    vec![joined(events.into_iter().map(encode))]
}

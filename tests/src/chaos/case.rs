//! Requests whose answers are known: each is computed beforehand, alone, on one engine in this process.

use proto::v1;
use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use words::{Sampling, StopRules};

use crate::model::alone::{Alone, Outputs};
use crate::model::{BYTES, NAME, TestModel, chat_tokens};

/// Around the borders of blocks (16) and of steps, and long.
const PROMPTS: [usize; 8] = [1, 15, 16, 17, 64, 130, 257, 500];
/// Long enough that a fault falls in the middle of most of them.
const OUTPUTS: [u32; 8] = [1, 2, 17, 33, 64, 120, 200, 400];
/// Beginnings that requests have in common, so that caches are used; tokens each.
const FAMILIES: usize = 4;
const FAMILY_TOKENS: usize = 120;

/// A request, in words of the house.
#[derive(Clone, Debug)]
pub(super) struct Case {
    prompt: Vec<u32>,
    /// What the user says, if it is a chat: the prompt is that, rendered.
    message: Option<String>,
    choices: u32,
    sampling: Sampling,
    stop: StopRules,
    /// What one engine alone answers.
    pub(super) answer: Outputs,
}

/// Makes `count` cases and answers them.
///
/// # Panics
/// If the engine does not start, or fails at one.
pub(super) async fn answered(count: usize, rng: &mut ChaCha8Rng, model: &TestModel) -> Vec<Case> {
    let families: Vec<Vec<u32>> = (0..FAMILIES).map(|_| bytes(FAMILY_TOKENS, rng)).collect();
    let mut cases: Vec<Case> = (0..count).map(|_| Case::new(rng, &families)).collect();
    let alone = Alone::start(model).await;
    for case in &mut cases {
        case.answer = alone.answer(&case.prompt, case.choices, &case.sampling, &case.stop).await;
    }
    cases
}

fn bytes(count: usize, rng: &mut ChaCha8Rng) -> Vec<u32> {
    (0..count).map(|_| rng.random_range(0..BYTES)).collect()
}

// === impl Case ===

impl Case {
    fn new(rng: &mut ChaCha8Rng, families: &[Vec<u32>]) -> Self {
        let mut prompt = bytes(*PROMPTS.choose(rng).expect("a length"), rng);
        if rng.random_bool(0.5) {
            prompt.splice(..0, families.choose(rng).expect("a family").iter().copied());
        }
        let message = rng.random_bool(0.4).then(|| printable(&prompt));
        let max_tokens = *OUTPUTS.choose(rng).expect("a length");
        let stop =
            StopRules { max_tokens, ignore_eos: rng.random_bool(0.7), ..StopRules::default() };
        Self {
            prompt: message.as_deref().map_or(prompt, chat_tokens),
            message,
            choices: if rng.random_bool(0.15) { 3 } else { 1 },
            sampling: sampling(rng),
            stop,
            answer: Outputs::new(),
        }
    }

    /// Whether it is a conversation, or a prompt.
    pub(super) fn is_chat(&self) -> bool {
        self.message.is_some()
    }

    /// Where it goes over HTTP.
    pub(super) fn path(&self) -> &'static str {
        if self.is_chat() { "/v1/chat/completions" } else { "/v1/completions" }
    }

    /// What is sent there. Every field is given, so that no default of the model's comes in.
    pub(super) fn body(&self) -> Value {
        let sampling = &self.sampling;
        let mut body = json!({
            "model": NAME,
            "n": self.choices,
            "max_tokens": self.stop.max_tokens,
            "ignore_eos": self.stop.ignore_eos,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
        });
        match &self.message {
            Some(text) => body["messages"] = json!([{ "role": "user", "content": text }]),
            None => body["prompt"] = json!(self.prompt),
        }
        match (sampling.logprobs, self.is_chat()) {
            (None, _) => {}
            (Some(top), false) => body["logprobs"] = top.into(),
            (Some(top), true) => {
                body["logprobs"] = true.into();
                body["top_logprobs"] = top.into();
            }
        }
        body
    }

    /// The same over gRPC.
    pub(super) fn request(&self, timeout_ms: u64) -> v1::InferenceRequest {
        let sampling = &self.sampling;
        v1::InferenceRequest {
            input: Some(self.input()),
            n: self.choices,
            max_tokens: Some(self.stop.max_tokens),
            ignore_eos: self.stop.ignore_eos,
            temperature: Some(sampling.temperature),
            top_k: Some(sampling.top_k),
            top_p: Some(sampling.top_p),
            seed: Some(sampling.seed),
            logprobs: sampling.logprobs,
            timeout_ms,
            ..v1::InferenceRequest::default()
        }
    }

    fn input(&self) -> v1::inference_request::Input {
        let message = |content: &String| v1::ChatMessage {
            role: "user".to_owned(),
            content: content.clone(),
        };
        match &self.message {
            Some(text) => {
                v1::inference_request::Input::Chat(v1::Chat { messages: vec![message(text)] })
            }
            None => {
                v1::inference_request::Input::TokenIds(v1::TokenIds { ids: self.prompt.clone() })
            }
        }
    }
}

/// Words for `tokens`: the same beginnings stay the same.
fn printable(tokens: &[u32]) -> String {
    const LETTERS: &[u8; 16] = b"abcdefgh ijklmno";
    tokens.iter().map(|token| char::from(LETTERS[*token as usize % LETTERS.len()])).collect()
}

/// Greedy a third of the time.
fn sampling(rng: &mut ChaCha8Rng) -> Sampling {
    let mut sampling = Sampling { seed: rng.random_range(0..1 << 40), ..Sampling::greedy() };
    if rng.random_bool(0.67) {
        sampling.temperature = rng.random_range(0.3..1.5);
    }
    if rng.random_bool(0.3) {
        sampling.top_k = rng.random_range(1..60);
    }
    if rng.random_bool(0.3) {
        sampling.top_p = rng.random_range(0.5..1.0);
    }
    if rng.random_bool(0.4) {
        sampling.logprobs = Some(rng.random_range(0..4));
    }
    sampling
}

//! Requests whose answers are known: each is computed beforehand, alone, on one engine in this process.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::{
    Engine, EngineConfig, EngineHandle, Event, LoadFormat, Mode, ModelOptions, Submission,
};
use proto::v1;
use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use rand_chacha::ChaCha8Rng;
use scheduler::{
    ClientId, FinishReason, Generation, RequestId, Sampling, StopRules, TenantSalt, TokenLogprob,
};
use serde_json::{Value, json};

use crate::model::{BYTES, NAME, TestModel, chat_tokens};

/// Around the borders of blocks (16) and of steps, and long.
const PROMPTS: [usize; 8] = [1, 15, 16, 17, 64, 130, 257, 500];
/// Long enough that a fault falls in the middle of most of them.
const OUTPUTS: [u32; 8] = [1, 2, 17, 33, 64, 120, 200, 400];
/// Beginnings that requests have in common, so that caches are used; tokens each.
const FAMILIES: usize = 4;
const FAMILY_TOKENS: usize = 120;
/// What the command makes `--load-format dummy` weights from.
const DUMMY_SEED: u64 = 0;

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
    pub(super) answer: Expected,
}

/// What is known of each choice.
pub(super) type Expected = BTreeMap<u32, ExpectedChoice>;

/// One choice, as one engine alone generates it.
#[derive(Clone, Debug, Default)]
pub(super) struct ExpectedChoice {
    pub(super) tokens: Vec<u32>,
    pub(super) logprobs: Vec<TokenLogprob>,
    pub(super) is_stopped: bool,
}

/// Makes `count` cases and answers them.
///
/// # Panics
/// If the engine does not start, or fails at one.
pub(super) async fn answered(count: usize, rng: &mut ChaCha8Rng, model: &TestModel) -> Vec<Case> {
    let families: Vec<Vec<u32>> = (0..FAMILIES).map(|_| bytes(FAMILY_TOKENS, rng)).collect();
    let mut cases: Vec<Case> = (0..count).map(|_| Case::new(rng, &families)).collect();
    let config = engine_config(model);
    let start = move || Engine::start(&config, &mut |_| ()).expect("an engine");
    let engine = tokio::task::spawn_blocking(start).await.expect("an engine");
    for case in &mut cases {
        case.answer = case.alone(&engine).await;
    }
    cases
}

fn bytes(count: usize, rng: &mut ChaCha8Rng) -> Vec<u32> {
    (0..count).map(|_| rng.random_range(0..BYTES)).collect()
}

fn engine_config(model: &TestModel) -> EngineConfig {
    EngineConfig {
        model_dir: model.dir.clone(),
        model: ModelOptions {
            kv_blocks: Some(256),
            block_tokens: 16,
            threads: Some(1),
            load_format: LoadFormat::Dummy { seed: DUMMY_SEED },
            ..ModelOptions::default()
        },
        batch_tokens_max: 512,
        sequences_max: 8,
        queue_max: 8,
        context_tokens_max: None,
        // Nothing is remembered: each request is computed from its first token.
        prefix_cache: false,
    }
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
            answer: Expected::new(),
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

    fn generation(&self) -> Generation {
        Generation {
            id: RequestId("reference".into()),
            prompt: self.prompt.clone().into(),
            generated: Arc::default(),
            choices: (0..self.choices).collect(),
            sampling: self.sampling.clone(),
            stop: self.stop.clone(),
            prompt_logprobs: None,
            salt: TenantSalt::default(),
            client: ClientId::default(),
        }
    }

    async fn alone(&self, engine: &EngineHandle) -> Expected {
        let work = Arc::new(self.generation());
        let submission = Submission { work, mode: Mode::Generate, deadline: None };
        let mut events = engine.submit(submission).expect("an idle engine takes work");
        let mut answer = Expected::new();
        while let Some(event) = events.recv().await {
            match event {
                Event::Token(token) => {
                    let choice = answer.entry(token.choice).or_default();
                    choice.tokens.push(token.token);
                    choice.logprobs.extend(token.logprob);
                }
                Event::Finished { choice, reason } => {
                    let is_stopped = matches!(reason, FinishReason::Stop(_));
                    answer.entry(choice).or_default().is_stopped = is_stopped;
                }
                Event::Failed(failure) => panic!("{failure} for {self:?}"),
                _ => {}
            }
        }
        answer
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

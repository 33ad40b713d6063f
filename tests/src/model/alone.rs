//! What one engine alone answers: what every cluster has to answer, too.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::{
    Engine, EngineConfig, EngineHandle, Event, LoadFormat, Mode, ModelOptions, Submission,
};
use words::{
    ClientId, FinishReason, Generation, RequestId, Sampling, StopRules, Targets, TenantSalt,
    TokenLogprob,
};

use crate::TestModel;

/// What the command makes `--load-format dummy` weights from.
const DUMMY_SEED: u64 = 0;

/// One engine in this process, which computes one request at a time and remembers none.
#[derive(Debug)]
pub struct Alone(EngineHandle);

/// What became of each choice.
pub type Outputs = BTreeMap<u32, Output>;

/// What became of one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Theirs, if they were asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// Whether a token ended it, and not its length.
    pub is_stopped: bool,
}

// === impl Alone ===

impl Alone {
    /// Starts it.
    ///
    /// # Panics
    /// If it doesn't start.
    pub async fn start(model: &TestModel) -> Self {
        let config = engine_config(model);
        let start = move || Engine::start(&config, &mut |_| ()).expect("an engine");
        Self(tokio::task::spawn_blocking(start).await.expect("an engine"))
    }

    /// Answers a request.
    ///
    /// # Panics
    /// If the engine fails at it.
    pub async fn answer(
        &self,
        prompt: &[u32],
        choices: u32,
        sampling: &Sampling,
        stop: &StopRules,
    ) -> Outputs {
        let work = Arc::new(Generation {
            id: RequestId("alone".into()),
            prompt: prompt.to_vec().into(),
            generated: Arc::default(),
            choices: (0..choices).collect(),
            sampling: sampling.clone(),
            stop: stop.clone(),
            prompt_logprobs: None,
            salt: TenantSalt::default(),
            client: ClientId::default(),
            targets: Targets::default(),
        });
        let submission = Submission::new(work, Mode::Generate);
        let mut events = self.0.submit(submission).expect("an idle engine takes work");
        let mut outputs = Outputs::new();
        while let Some(event) = events.recv().await {
            match event {
                Event::Token(token) => {
                    let output = outputs.entry(token.choice).or_default();
                    output.tokens.push(token.token);
                    output.logprobs.extend(token.logprob);
                }
                Event::Finished { choice, reason } => {
                    let is_stopped = matches!(reason, FinishReason::Stop(_));
                    outputs.entry(choice).or_default().is_stopped = is_stopped;
                }
                Event::Failed(failure) => {
                    panic!("{failure} for {prompt:?}, {sampling:?}, {stop:?}")
                }
                _ => {}
            }
        }
        outputs
    }
}

fn engine_config(model: &TestModel) -> EngineConfig {
    let load_format = match model.has_weights {
        true => LoadFormat::Auto,
        false => LoadFormat::Dummy { seed: DUMMY_SEED },
    };
    EngineConfig {
        model_dir: model.dir.clone(),
        model: ModelOptions {
            kv_blocks: Some(256),
            block_tokens: 16,
            threads: Some(1),
            load_format,
            ..ModelOptions::default()
        },
        batch_tokens_max: 512,
        sequences_max: 8,
        queue_max: 8,
        context_tokens_max: None,
        prefix_cache: false,
        targets: Targets::default(),
        tiers: engine::TierOptions::default(),
    }
}

//! A model: batches in, tokens and filled KV blocks out.
//!
//! A whole engine, over random weights for a tiny configuration:
//!
//! ```
//! use std::sync::Arc;
//!
//! use engine::{
//!     Engine, EngineConfig, Event, LoadFormat, Mode, ModelOptions, Submission, TierOptions,
//! };
//! use words::{ClientId, Generation, RequestId, Sampling, StopRules, Targets, TenantSalt};
//!
//! let dir = tempfile::tempdir()?;
//! let config = r#"{
//!     "architectures": ["Qwen3ForCausalLM"], "vocab_size": 97, "hidden_size": 32,
//!     "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
//!     "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512
//! }"#;
//! std::fs::write(dir.path().join("config.json"), config)?;
//! let load_format = LoadFormat::Dummy { seed: 5 };
//! let config = EngineConfig {
//!     model_dir: dir.path().to_owned(),
//!     model: ModelOptions { kv_blocks: Some(64), load_format, ..ModelOptions::default() },
//!     batch_tokens_max: 64,
//!     sequences_max: 16,
//!     queue_max: 64,
//!     context_tokens_max: None,
//!     prefix_cache: true,
//!     targets: Targets::default(),
//!     tiers: TierOptions::default(),
//! };
//! let engine = Engine::start(&config, &mut |_| ())?;
//!
//! let work = Generation {
//!     id: RequestId("one".into()),
//!     prompt: [3, 14, 15].into(),
//!     generated: [].into(),
//!     choices: vec![0],
//!     sampling: Sampling::greedy(),
//!     stop: StopRules { max_tokens: 5, ignore_eos: true, ..StopRules::default() },
//!     prompt_logprobs: None,
//!     salt: TenantSalt::default(),
//!     client: ClientId::default(),
//!     targets: Targets::default(),
//! };
//! let submission = Submission::new(Arc::new(work), Mode::Generate);
//! let mut events = engine.submit(submission)?;
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let mut tokens = Vec::new();
//! while let Some(event) = events.recv().await {
//!     if let Event::Token(sampled) = event {
//!         tokens.push(sampled.token);
//!     }
//! }
//! assert_eq!(tokens.len(), 5);
//! # });
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

// Each file that needs `unsafe` allows it for itself and says why.
#![deny(unsafe_code)]

pub mod backend;
pub mod batch;
mod clock;
pub mod config;
pub mod engine;
pub mod error;
pub mod handle;
pub mod model;
mod neighbours;
pub mod sampler;
pub mod tiers;
pub mod weights;

#[cfg(test)]
mod testing;

pub use backend::cpu::{CpuBackend, HostDemand};
pub use backend::cuda;
pub use backend::cuda::CudaOptions;
pub use batch::{SampleRow, Sampled, ScoreRow, SequenceRows, StepBatch, StepOutput};
pub use config::ModelConfig;
pub use engine::{
    DrivenEngine, Engine, EngineConfig, EngineStats, ForecastErrors, StepModel, Turn,
};
pub use error::{EngineError, LogitsFault};
pub use handle::{
    EngineHandle, EngineInfo, Event, EventStream, FilledPages, Mode, SequenceError, Submission,
    SubmitError,
};
pub use model::{Model, ModelOptions, OnLayers};
pub use tiers::{DiskOptions, TierCounts, TierOptions};
pub use weights::{LoadFormat, LoadProgress};

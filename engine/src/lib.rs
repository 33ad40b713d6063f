//! A model: batches in, tokens and filled KV blocks out.

// Each file that needs `unsafe` allows it for itself and says why.
#![deny(unsafe_code)]

pub mod backend;
pub mod batch;
mod clock;
pub mod config;
pub mod engine;
pub mod error;
mod fingerprint;
pub mod handle;
pub mod host_memory;
pub mod model;
pub mod rope;
pub mod sampler;
mod sequence;
pub mod stats;
pub mod weights;

#[cfg(test)]
mod testing;

pub use backend::cpu::CpuBackend;
pub use backend::cuda;
pub use backend::cuda::CudaOptions;
pub use batch::{SampleRow, Sampled, ScoreRow, SequenceRows, StepBatch, StepOutput};
pub use config::ModelConfig;
pub use engine::{DrivenEngine, Engine, EngineConfig, StepModel, Turn};
pub use error::{EngineError, LogitsFault};
pub use handle::{
    EngineHandle, EngineInfo, Event, EventStream, FilledPages, Mode, SequenceError, Submission,
    SubmitError,
};
pub use host_memory::HostDemand;
pub use model::{Model, ModelOptions, OnLayers};
pub use stats::EngineStats;
pub use weights::{LoadFormat, LoadProgress};

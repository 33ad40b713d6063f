//! How to use a GPU.

use std::path::PathBuf;

use super::step::partition::PartitionSeat;

/// Which GPU, and how much of it.
#[derive(Clone, Debug, PartialEq)]
pub struct CudaOptions {
    /// Number of the GPU, in the driver's order.
    pub ordinal: usize,
    /// The part of the GPU's memory that the engine may take, weights and all.
    pub memory_share: f32,
    /// Whether to use the kernels for any GPU since Ampere also where there are better ones.
    pub portable: bool,
    /// Folders to look in for CUDA's libraries, before the usual ones.
    pub library_folders: Vec<PathBuf>,
    /// Where compiled kernels and measured choices are kept between starts; nowhere if `None`.
    pub kernel_cache: Option<PathBuf>,
    /// A folder in which engines of several processes take turns on a GPU, a step each; they don't if `None`.
    pub turns: Option<PathBuf>,
    /// Rows of a step at most: activations have memory for as many.
    pub step_rows_max: u32,
    /// Sequences of a step at most.
    pub sequences_max: u32,
    /// The longest sequence, tokens; `None` takes the model's limit.
    pub context_tokens_max: Option<u32>,
    /// The engine's place beside another one of this process on the same GPU.
    pub partition: Option<PartitionSeat>,
}

// === impl CudaOptions ===

impl Default for CudaOptions {
    fn default() -> Self {
        Self {
            ordinal: 0,
            memory_share: 0.9,
            portable: false,
            library_folders: Vec::new(),
            kernel_cache: None,
            turns: None,
            step_rows_max: 8192,
            sequences_max: 256,
            context_tokens_max: None,
            partition: None,
        }
    }
}

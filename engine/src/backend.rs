//! The seam between the forward pass and a device.
//!
//! The forward pass in [`crate::model`] is written once over it. Nothing here assumes that buffers are
//! host memory, or that an operation has finished when its call returns: results become visible to the
//! host only through [`Choosing::sampled`], [`Choosing::scored`] and the region's fences.

mod choosing;
pub mod cpu;
pub mod cuda;
mod memory;
mod operations;
pub mod rope;
mod timeline;

pub use choosing::Choosing;
pub use memory::Memory;
pub use operations::{Linear, Norm, Operations, PagedHeads, Pass};
pub use timeline::Timeline;

/// A device that computes steps and owns the KV memory they write.
///
/// **Batch invariance** of the reference backend: a row's result depends on that row's own sequence
/// alone, bit for bit: not on the other rows of the step, not on how the prompt was cut into chunks,
/// not on the number of threads. Other backends repeat themselves bit for bit on the same batch, and
/// agree with the reference within the rounding of their element type (ADR 7).
pub trait Backend: Memory + Operations + Choosing + Timeline {}

impl<T: Memory + Operations + Choosing + Timeline> Backend for T {}

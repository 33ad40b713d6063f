//! When a device has done what was submitted to it.

use std::time::Duration;

use kv_cache::Fence;

use crate::error::EngineError;

/// The order of what was submitted, and how far it has come.
pub trait Timeline {
    /// A point in what was submitted.
    type Mark: Send;

    /// Whether the device works on while the host prepares the next step. Where it doesn't, a step
    /// submitted early only delays the tokens of the one before.
    const OVERLAPS: bool;

    /// A mark behind everything submitted so far, for the host.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn mark(&mut self) -> Result<Self::Mark, EngineError>;

    /// Whether all before a mark is done. True, too, where it failed: [`Timeline::pass`] tells.
    fn has_passed(&self, mark: &Self::Mark) -> bool;

    /// Waits until all before a mark is done. Says how long the step before it took on the device; `None` where only the host
    /// can tell, which sees a step's end late if it has something else to do.
    ///
    /// # Errors
    /// [`EngineError::Device`] if some of it failed.
    fn pass(&mut self, mark: Self::Mark) -> Result<Option<Duration>, EngineError>;

    /// A fence behind everything submitted so far, for transfers.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn fence(&mut self) -> Result<Fence, EngineError>;
}

//! The device time that a backend's operations take.

use std::sync::Arc;

use crate::backend::cuda::CudaBackend;
use crate::error::EngineError;

/// Rounds that are timed; the one in the middle counts.
const ROUNDS: usize = 5;

// === impl CudaBackend ===

impl CudaBackend {
    /// Device time of what `work` submits, microseconds, copies to and from the host included.
    ///
    /// # Errors
    /// What `work` says, and [`EngineError::Device`] if what it submitted failed.
    pub fn time_us(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), EngineError>,
    ) -> Result<f64, EngineError> {
        let stream = Arc::clone(&self.stream);
        Ok(stream.time_us(|| work(self))?.into())
    }

    /// Device time of one turn, microseconds. All turns are recorded and run as one, so that the
    /// host's time for submitting them isn't in it.
    ///
    /// # Errors
    /// What `operation` says, and [`EngineError::Device`] if what it submitted failed or can't be recorded.
    pub fn recorded_us(
        &mut self,
        turns: usize,
        mut operation: impl FnMut(&mut Self, usize) -> Result<(), EngineError>,
    ) -> Result<f64, EngineError> {
        // What is chosen or loaded at first use is so now.
        operation(self, 0)?;
        let stream = Arc::clone(&self.stream);
        let graph = stream.capture(|| (0..turns).try_for_each(|turn| operation(self, turn)))?;
        graph.upload(&stream)?;
        graph.launch(&stream)?;
        let mut times_us = [0.0; ROUNDS];
        for time_us in &mut times_us {
            *time_us = f64::from(stream.time_us(|| graph.launch(&stream))?);
        }
        times_us.sort_by(f64::total_cmp);
        Ok(times_us[ROUNDS / 2] / turns as f64)
    }
}

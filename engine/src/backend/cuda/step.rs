//! A step on its way to the device: what it is of, and where and when it runs.

pub(super) mod batch;
pub(super) mod partition;
pub(crate) mod streams;
pub(crate) mod turns;

use std::time::Duration;

use kv_cache::Fence;

use self::streams::StepMark;
use super::CudaBackend;
use crate::backend::Timeline;
use crate::error::EngineError;

impl Timeline for CudaBackend {
    type Mark = StepMark;

    const OVERLAPS: bool = true;

    fn mark(&mut self) -> Result<StepMark, EngineError> {
        self.streams.mark()
    }

    fn has_passed(&self, mark: &StepMark) -> bool {
        mark.has_passed()
    }

    fn pass(&mut self, mark: StepMark) -> Result<Option<Duration>, EngineError> {
        self.bind()?;
        self.streams.pass(mark)
    }

    fn fence(&mut self) -> Result<Fence, EngineError> {
        self.ready()?.kv.fence(&self.stream)
    }
}

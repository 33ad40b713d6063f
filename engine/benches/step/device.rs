//! A device that takes a step's time and computes nothing.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::backend::rope::Rope;
use engine::backend::{Choosing, Linear, Memory, Norm, Operations, PagedHeads, Pass, Timeline};
use engine::cuda::measure::Description;
use engine::weights::{StoredMatrix, Tensor};
use engine::{EngineError, LogitsFault, ModelConfig, SampleRow, Sampled, ScoreRow, StepBatch};
use kv_cache::{BlockId, Fence, HostRegion, KvLayout, KvRegion};
use words::TokenLogprob;

type Result<T> = std::result::Result<T, EngineError>;

/// More than a core's own caches, and more than its share of the last one.
const EVICTED_BYTES: usize = 48 << 20;

/// Describes steps as the GPU backend does, and is done with each after a while.
pub(crate) struct Device {
    pub(crate) blocks: u32,
    pub(crate) layout: KvLayout,
    pub(crate) description: Description,
    /// From a step's submission to its end.
    pub(crate) step: Duration,
    /// What is read while a step runs, so that nothing is in a cache behind it: other work would have been
    /// there. Nothing where caches stay as they are.
    pub(crate) evicts: Vec<u64>,
}

// === impl Device ===

impl Device {
    pub(crate) fn new(layout: &KvLayout, blocks: u32, description: Description) -> Self {
        Self {
            blocks,
            layout: layout.clone(),
            description,
            step: Duration::from_millis(2),
            evicts: Vec::new(),
        }
    }

    /// The same, whose steps leave nothing in the caches.
    pub(crate) fn evicting(self) -> Self {
        let evicts = vec![1; EVICTED_BYTES / size_of::<u64>()];
        Self { evicts, step: Duration::from_millis(12), ..self }
    }

    fn evict(&self) {
        black_box(self.evicts.iter().sum::<u64>());
    }
}

impl Memory for Device {
    type Matrix = ();
    type Vector = ();
    type Buffer = ();

    fn matrix(&mut self, _: &[StoredMatrix<'_>]) -> Result<()> {
        Ok(())
    }

    fn vector(&mut self, _: &[Tensor<'_>]) -> Result<()> {
        Ok(())
    }

    fn buffer(&mut self, _: usize) -> Result<()> {
        Ok(())
    }

    fn logit_buffer(&mut self, _: usize) -> Result<()> {
        Ok(())
    }

    fn kept_buffer(&mut self, _: usize) -> Result<()> {
        Ok(())
    }

    fn finish_loading(&mut self, _: &ModelConfig, _: &Rope) -> Result<()> {
        Ok(())
    }

    fn download(&mut self, (): &()) -> Result<Vec<f32>> {
        Ok(Vec::new())
    }

    fn copy_block(&mut self, _: BlockId, _: BlockId) -> Result<()> {
        Ok(())
    }

    fn kv_blocks(&self) -> u32 {
        self.blocks
    }

    fn layout(&self) -> &KvLayout {
        &self.layout
    }

    fn region(&self) -> Arc<dyn KvRegion> {
        Arc::new(HostRegion::new(self.layout.clone(), 1))
    }
}

impl Operations for Device {
    type Batch = ();

    fn prepare(&mut self, batch: &StepBatch<'_>, _: &Rope) -> Result<()> {
        black_box(self.description.write(batch));
        Ok(())
    }

    fn run<R: Send>(&mut self, step: impl FnOnce(&mut Self) -> R + Send) -> R {
        step(self)
    }

    /// As if it had been recorded.
    fn layers(&mut self, (): &(), _: impl FnOnce(&mut Self, Pass) -> Result<()>) -> Result<Pass> {
        Ok(Pass::Recorded)
    }

    fn embed(&mut self, (): &(), (): &(), (): &mut ()) -> Result<()> {
        Ok(())
    }

    fn add_norm(
        &mut self,
        (): &mut (),
        _: Option<&()>,
        _: Norm<'_, Self>,
        (): &mut (),
    ) -> Result<()> {
        Ok(())
    }

    fn linear(&mut self, (): &(), _: Linear<'_, Self>, (): &mut ()) -> Result<()> {
        Ok(())
    }

    fn rope_and_cache(&mut self, (): &(), _: &PagedHeads<'_, Self>, (): &mut ()) -> Result<()> {
        Ok(())
    }

    fn attention(&mut self, (): &(), _: &PagedHeads<'_, Self>, (): &(), (): &mut ()) -> Result<()> {
        Ok(())
    }

    fn keep(&mut self, (): &(), (): &(), (): &mut ()) -> Result<()> {
        Ok(())
    }

    fn attention_of_kept(
        &mut self,
        (): &(),
        _: &PagedHeads<'_, Self>,
        (): &(),
        (): &mut (),
    ) -> Result<()> {
        Ok(())
    }

    fn gated(&mut self, (): &(), _: Linear<'_, Self>, (): &mut (), (): &mut ()) -> Result<()> {
        Ok(())
    }

    fn logits(&mut self, (): &(), _: &[usize], (): &(), (): &mut ()) -> Result<()> {
        Ok(())
    }
}

impl Choosing for Device {
    /// Their indices among the step's.
    type Samples = Range<usize>;
    type Scores = usize;

    const LOGIT_ROWS_MAX: usize = 256;

    fn sample(
        &mut self,
        (): &(),
        first: usize,
        requests: &[(usize, &SampleRow<'_>)],
    ) -> Result<Range<usize>> {
        black_box(self.description.write_samples(requests));
        Ok(first..first + requests.len())
    }

    fn sampled(
        &mut self,
        samples: Range<usize>,
    ) -> Result<Vec<std::result::Result<Sampled, LogitsFault>>> {
        let token = |index: usize| Ok(Sampled { token: 100 + index as u32, logprob: None });
        Ok(samples.map(token).collect())
    }

    fn score(&mut self, (): &(), requests: &[(usize, &ScoreRow)]) -> Result<usize> {
        Ok(requests.len())
    }

    fn scored(
        &mut self,
        scores: usize,
    ) -> Result<Vec<std::result::Result<TokenLogprob, LogitsFault>>> {
        Ok((0..scores).map(|_| Ok(TokenLogprob::default())).collect())
    }
}

impl Timeline for Device {
    /// When it is done.
    type Mark = Instant;

    const OVERLAPS: bool = true;

    fn mark(&mut self) -> Result<Instant> {
        Ok(Instant::now() + self.step)
    }

    fn has_passed(&self, mark: &Instant) -> bool {
        Instant::now() >= *mark
    }

    fn pass(&mut self, mark: Instant) -> Result<Option<Duration>> {
        self.evict();
        std::thread::park_timeout(mark.saturating_duration_since(Instant::now()));
        Ok(None)
    }

    fn fence(&mut self) -> Result<Fence> {
        Ok(Fence::default())
    }
}

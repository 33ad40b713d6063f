//! A first look at how fast a model is, before anybody asks: estimates that begin with another machine's speed let in
//! crowds that this one can't serve, and plan steps that are too long.

use std::time::Duration;

use kv_cache::{BlockId, TokenId};
use parking_lot::{Mutex, MutexGuard};
use scheduler::batching::BatchLimits;
use scheduler::cost::StepShape;
use words::Sampling;

use super::StepModel;
use crate::batch::{SampleRow, SequenceRows, StepBatch};
use crate::clock;
use crate::engine::stats::Meter;
use crate::error::EngineError;

/// A step that is rehearsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scene {
    /// Sequences with a token each.
    rows: u32,
    /// Of one prompt; none for 0.
    prompt_tokens: u32,
}

/// Where it is rehearsed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stage {
    pub(super) limits: BatchLimits,
    /// Blocks that there are. Nobody has one yet.
    pub(super) blocks: u32,
    /// The longest sequence.
    pub(super) context_tokens_max: u32,
    /// How often a step is computed before it is measured: the first time brings weights and code in from where they were, and
    /// a GPU records the second.
    pub(super) warm_ups: u32,
    /// For how long it is measured again. The shortest time counts: what else a machine does while servers start on it makes
    /// steps longer, and none shorter.
    pub(super) repeat_within: Duration,
}

/// What a GPU rehearses: few rows and many, of each kind alone and of both, as many as a forecast looks at before it
/// learns. By the table of an H200 80 ms of 8B, three times over, and some 150 ms for code that the first of them bring in.
pub(super) const GPU_SCENES: [Scene; 8] = [
    Scene { rows: 1, prompt_tokens: 0 },
    Scene { rows: 32, prompt_tokens: 0 },
    Scene { rows: 128, prompt_tokens: 0 },
    Scene { rows: 0, prompt_tokens: 128 },
    Scene { rows: 0, prompt_tokens: 256 },
    Scene { rows: 0, prompt_tokens: 512 },
    Scene { rows: 64, prompt_tokens: 960 },
    Scene { rows: 0, prompt_tokens: 1024 },
];

/// What a CPU rehearses, where each row takes as long: a short prompt, and a token.
pub(super) fn cpu_scenes(block_tokens: u32) -> [Scene; 2] {
    [Scene { rows: 0, prompt_tokens: block_tokens }, Scene { rows: 1, prompt_tokens: 0 }]
}

/// How often a step is measured at most: one of so many is left alone by whatever else there is.
const PLAYS_MAX: u32 = 10;

/// Engines of one process have its cores in common: of two that rehearse at once, each would think itself half as fast.
static CORES: Mutex<()> = Mutex::new(());

/// Until this is dropped, no other engine of the process rehearses that asks for the cores, too.
pub(super) fn cores() -> MutexGuard<'static, ()> {
    CORES.lock()
}

/// Computes those of the scenes that there is room for, and notes their times in `meter`.
///
/// # Errors
/// As a step's.
pub(super) fn rehearse(
    model: &mut impl StepModel,
    stage: &Stage,
    scenes: &[Scene],
    mut meter: Meter,
) -> Result<Meter, EngineError> {
    for scene in scenes.iter().filter(|scene| scene.fits(stage)) {
        for _ in 0..stage.warm_ups {
            scene.play(model, stage)?;
        }
        let took = scene.shortest(model, stage)?;
        meter.expect(&scene.shape(), took);
    }
    Ok(meter)
}

// === impl Scene ===

impl Scene {
    fn fits(self, stage: &Stage) -> bool {
        let block_tokens = stage.limits.block_tokens;
        let blocks = self.sequences().map(|tokens| tokens.div_ceil(block_tokens)).sum::<u32>();
        self.rows + self.prompt_tokens <= stage.limits.tokens_max
            && self.sequences().count() <= stage.limits.sequences_max as usize
            && self.prompt_tokens <= stage.context_tokens_max
            && blocks <= stage.blocks
    }

    /// Tokens of each sequence, all from its first on.
    fn sequences(self) -> impl Iterator<Item = u32> {
        let prompt = Some(self.prompt_tokens).filter(|&tokens| tokens > 0);
        std::iter::repeat_n(1, self.rows as usize).chain(prompt)
    }

    fn shape(self) -> StepShape {
        self.sequences().map(|tokens| StepShape::part(0, tokens)).sum()
    }

    /// Computes it again while there is time; says how long the shortest took.
    fn shortest(self, model: &mut impl StepModel, stage: &Stage) -> Result<Duration, EngineError> {
        let until = clock::now() + stage.repeat_within;
        let mut shortest = self.play(model, stage)?;
        for _ in 1..PLAYS_MAX {
            if clock::now() + shortest >= until {
                break;
            }
            shortest = shortest.min(self.play(model, stage)?);
        }
        Ok(shortest)
    }

    /// Computes it in blocks that nobody has yet; says how long that took. Which tokens is no matter.
    fn play(self, model: &mut impl StepModel, stage: &Stage) -> Result<Duration, EngineError> {
        let (sampling, tokens) = (Sampling::greedy(), vec![0; self.prompt_tokens.max(1) as usize]);
        let batch = self.batch(stage.limits.block_tokens, &sampling, &tokens);
        let began = clock::now();
        let ticket = model.submit(&batch, &mut |_, _| {})?;
        let output = model.collect(ticket)?;
        Ok(output.took.unwrap_or(clock::now() - began))
    }

    /// - `prompt`: of the longest sequence; others have the first of its tokens.
    fn batch<'a>(
        self,
        block_tokens: u32,
        sampling: &'a Sampling,
        prompt: &'a [TokenId],
    ) -> StepBatch<'a> {
        let mut batch = StepBatch::for_sequences(self.sequences().count());
        let mut blocks = (0..).map(BlockId);
        for tokens in self.sequences() {
            let (first, prompt) = (batch.tokens.len(), &prompt[..tokens as usize]);
            let rows = first..first + prompt.len();
            batch.tokens.extend_from_slice(prompt);
            batch.positions.extend(0..tokens);
            batch.samples.push(SampleRow {
                row: rows.end - 1,
                sampling,
                choice: 0,
                index: 0,
                prompt,
                output: &[],
                banned: &[],
            });
            let blocks = blocks.by_ref().take(tokens.div_ceil(block_tokens) as usize).collect();
            batch.sequences.push(SequenceRows { rows, context_tokens: tokens, blocks });
        }
        batch
    }
}

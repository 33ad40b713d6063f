//! The executor in a model's place: what it says is a pure function of the tokens before, and so is
//! every byte it leaves in its pages.

use engine::{
    EngineError, LogitsFault, OnLayers, SampleRow, Sampled, SequenceRows, StepBatch, StepModel,
    StepOutput,
};
use kv_cache::{BlockId, Fence, KvDtype, KvLayout, TokenId};
use scheduler::Sampling;

use crate::memory::Memory;

/// Tokens are below it.
pub const VOCAB: u32 = 97;
/// Ends a sequence.
pub const EOS: TokenId = 0;
/// Token slots of a block.
pub const BLOCK_TOKENS: u32 = 4;
/// Layers of the script's model.
pub const LAYERS: u32 = 2;

/// A model that folds what it reads from its pages.
///
/// A slot's key is its token, its value a digest of all tokens up to it, of the layer and of the
/// weights. A token is drawn from all slots of its context, in all layers: a wrong page anywhere gives
/// a wrong token.
pub struct Script {
    weights: u64,
    memory: Memory,
    /// Tokens of the step submitted last, for the rows that it feeds.
    sampled: Vec<TokenId>,
}

/// One slot of one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// The token.
    pub key: u64,
    /// A digest of everything up to it.
    pub value: u64,
}

// === impl Script ===

impl Script {
    /// - `weights`: which model it is.
    /// - `memory`: where its pages are.
    #[must_use]
    pub fn new(weights: u64, memory: Memory) -> Self {
        Self { weights, memory, sampled: Vec::new() }
    }

    fn write(&mut self, batch: &StepBatch<'_>) {
        for sequence in &batch.sequences {
            for row in sequence.rows.clone() {
                let (token, position) = (self.token(batch, row), batch.positions[row] as usize);
                for layer in 0..LAYERS {
                    let before = position.checked_sub(1).map(|at| self.slot(sequence, layer, at));
                    let slot = slot_after(self.weights, layer, before, token);
                    self.memory.write(layer, place(sequence, position), slot);
                }
            }
        }
    }

    /// A row's token: given, or what the step before has chosen.
    fn token(&self, batch: &StepBatch<'_>, row: usize) -> TokenId {
        let fed = batch.fed.iter().find(|fed| fed.row == row);
        fed.map_or(batch.tokens[row], |fed| self.sampled[fed.sample])
    }

    fn slot(&self, sequence: &SequenceRows<'_>, layer: u32, position: usize) -> Slot {
        self.memory.read(layer, place(sequence, position))
    }

    fn sample(
        &self,
        batch: &StepBatch<'_>,
        sample: &SampleRow<'_>,
    ) -> Result<Sampled, LogitsFault> {
        let owner = batch.sequences.iter().find(|it| it.rows.contains(&sample.row));
        let sequence = owner.expect("a row's sequence");
        let context = 0..=batch.positions[sample.row] as usize;
        let slots = context.flat_map(|position| {
            (0..LAYERS).map(move |layer| self.slot(sequence, layer, position))
        });
        let token = draw(slots, sample.sampling, sample.choice);
        Ok(Sampled { token, logprob: None })
    }
}

impl StepModel for Script {
    type Ticket = StepOutput;

    fn overlaps(&self) -> bool {
        true
    }

    fn expects_others(&self) -> bool {
        false
    }

    fn submit(
        &mut self,
        batch: &StepBatch<'_>,
        on_layers: &mut OnLayers<'_>,
    ) -> Result<StepOutput, EngineError> {
        let blocks = batch.sequences.iter().flat_map(|sequence| {
            let written = sequence.rows.clone().map(|row| batch.positions[row] as usize);
            written.map(|position| place(sequence, position).0)
        });
        self.memory.check_owned(blocks);
        self.memory.note_step(batch.tokens.len());
        self.write(batch);
        (0..LAYERS).for_each(|layer| on_layers(layer..layer + 1, Fence::default()));
        let samples: Vec<_> = batch.samples.iter().map(|it| self.sample(batch, it)).collect();
        self.sampled = samples.iter().flatten().map(|sampled| sampled.token).collect();
        Ok(StepOutput { samples, scores: Vec::new() })
    }

    fn is_done(&self, _: &StepOutput) -> bool {
        true
    }

    fn collect(&mut self, ticket: StepOutput) -> Result<StepOutput, EngineError> {
        Ok(ticket)
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) -> Result<(), EngineError> {
        self.memory.copy_block(from, to);
        Ok(())
    }
}

/// The shape of the script's pages.
#[must_use]
pub fn layout() -> KvLayout {
    KvLayout {
        layers: LAYERS,
        kv_heads: 1,
        head_dim: 2,
        block_tokens: BLOCK_TOKENS,
        dtype: KvDtype::F32,
    }
}

/// What a model of `weights` says after `context`.
#[must_use]
pub fn next_token(weights: u64, context: &[TokenId], sampling: &Sampling, choice: u32) -> TokenId {
    let mut before = [None; LAYERS as usize];
    let mut slots = Vec::with_capacity(context.len() * before.len());
    for &token in context {
        for (layer, before) in (0..).zip(&mut before) {
            let slot = slot_after(weights, layer, *before, token);
            *before = Some(slot);
            slots.push(slot);
        }
    }
    draw(slots.into_iter(), sampling, choice)
}

fn slot_after(weights: u64, layer: u32, before: Option<Slot>, token: TokenId) -> Slot {
    let model = mix(weights, u64::from(layer) + 1);
    let value = mix(mix(before.map_or(0, |slot| slot.value), model), u64::from(token));
    Slot { key: u64::from(token), value }
}

fn draw(slots: impl Iterator<Item = Slot>, sampling: &Sampling, choice: u32) -> TokenId {
    let start = mix(sampling.seed, u64::from(choice));
    let digest = slots.fold(start, |digest, slot| mix(mix(digest, slot.key), slot.value));
    (digest >> 33) as TokenId % VOCAB
}

fn mix(digest: u64, word: u64) -> u64 {
    (digest ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

/// Where a position of a sequence is: block and slot.
fn place(sequence: &SequenceRows<'_>, position: usize) -> (BlockId, usize) {
    let block_tokens = BLOCK_TOKENS as usize;
    (sequence.blocks[position / block_tokens], position % block_tokens)
}

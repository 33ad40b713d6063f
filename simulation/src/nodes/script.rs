//! The executor in a model's place: what it says is a pure function of the tokens before, and so is
//! every byte it leaves in its pages.

use engine::{
    EngineError, OnLayers, SampleRow, Sampled, ScoreRow, SequenceRows, StepBatch, StepModel,
    StepOutput,
};
use kv_cache::{BlockId, Fence, KvCodec, KvLayout, PageShape, TokenId};
use words::{Generation, Sampling, TokenLogprob};

use super::memory::{Memory, Slot};
use crate::planted::Bug;

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
    bug: Option<Bug>,
}

// === impl Script ===

impl Script {
    /// - `weights`: which model it is.
    /// - `memory`: where its pages are.
    #[must_use]
    pub fn new(weights: u64, memory: Memory, bug: Option<Bug>) -> Self {
        Self { weights, memory, sampled: Vec::new(), bug }
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

    fn sample(&self, batch: &StepBatch<'_>, sample: &SampleRow<'_>) -> Sampled {
        draw(self.slots(batch, sample.row), sample.sampling, sample.choice, sample.banned)
    }

    fn score(&self, batch: &StepBatch<'_>, score: &ScoreRow) -> TokenLogprob {
        logprob(digest(0, self.slots(batch, score.row)), score.next, score.top)
    }

    /// The slots that a row sees, in all layers.
    fn slots<'a>(&self, batch: &'a StepBatch<'_>, row: usize) -> impl Iterator<Item = Slot> + 'a {
        let owner = batch.sequences.iter().find(|it| it.rows.contains(&row));
        let (sequence, memory) = (owner.expect("a row's sequence"), self.memory.clone());
        (0..=batch.positions[row] as usize).flat_map(move |position| {
            let (place, memory) = (place(sequence, position), memory.clone());
            (0..LAYERS).map(move |layer| memory.read(layer, place))
        })
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
        let stray = if self.bug == Some(Bug::StrayWrite) { 1 } else { 0 };
        self.memory.check_owned(blocks.map(|block| BlockId(block.0 ^ stray)));
        self.memory.note_step(batch.tokens.len());
        self.write(batch);
        (0..LAYERS).for_each(|layer| on_layers(layer..layer + 1, Fence::default()));
        let samples: Vec<_> = batch.samples.iter().map(|it| self.sample(batch, it)).collect();
        self.sampled = samples.iter().map(|sampled| sampled.token).collect();
        let scores = batch.scores.iter().map(|it| Ok(self.score(batch, it))).collect();
        let samples = samples.into_iter().map(Ok).collect();
        Ok(StepOutput { samples, scores, took: None })
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
    KvLayout::whole(LAYERS, 1, PageShape::keys_and_values(2, BLOCK_TOKENS), KvCodec::F32)
}

/// What a model of `weights` says next where `generation` asks for its `choice`, after `output`.
#[must_use]
pub fn next_token(
    weights: u64,
    generation: &Generation,
    output: &[TokenId],
    choice: u32,
) -> Sampled {
    let banned = if output.len() < generation.stop.min_tokens as usize {
        stops(generation)
    } else {
        Vec::new()
    };
    let context = [&generation.prompt[..], output].concat();
    draw(slots(weights, &context).into_iter(), &generation.sampling, choice, &banned)
}

/// How likely a model of `weights` finds the token of a prompt at `index`.
#[must_use]
pub fn prompt_logprob(weights: u64, prompt: &[TokenId], index: usize, top: u32) -> TokenLogprob {
    logprob(digest(0, slots(weights, &prompt[..index]).into_iter()), prompt[index], top)
}

/// Tokens that end a sequence.
#[must_use]
pub fn stops(generation: &Generation) -> Vec<TokenId> {
    let own = Some(EOS).filter(|_| !generation.stop.ignore_eos);
    own.into_iter().chain(generation.stop.stop_token_ids.iter().copied()).collect()
}

/// What a model of `weights` leaves in its pages for `context`, layer by layer at each position.
fn slots(weights: u64, context: &[TokenId]) -> Vec<Slot> {
    let mut before = [None; LAYERS as usize];
    let mut slots = Vec::with_capacity(context.len() * before.len());
    for &token in context {
        for (layer, before) in (0..).zip(&mut before) {
            let slot = slot_after(weights, layer, *before, token);
            *before = Some(slot);
            slots.push(slot);
        }
    }
    slots
}

fn slot_after(weights: u64, layer: u32, before: Option<Slot>, token: TokenId) -> Slot {
    let model = mix(weights, u64::from(layer) + 1);
    let value = mix(mix(before.map_or(0, |slot| slot.value), model), u64::from(token));
    Slot { key: u64::from(token), value }
}

fn draw(
    slots: impl Iterator<Item = Slot>,
    sampling: &Sampling,
    choice: u32,
    banned: &[TokenId],
) -> Sampled {
    let digest = digest(mix(sampling.seed, u64::from(choice)), slots);
    let mut token = (digest >> 33) as TokenId % VOCAB;
    while banned.contains(&token) {
        token = (token + 1) % VOCAB;
    }
    Sampled { token, logprob: sampling.logprobs.map(|top| logprob(digest, token, top)) }
}

fn digest(start: u64, slots: impl Iterator<Item = Slot>) -> u64 {
    slots.fold(start, |digest, slot| mix(mix(digest, slot.key), slot.value))
}

/// Numbers that nobody could make up who hasn't read the pages.
fn logprob(digest: u64, token: TokenId, top: u32) -> TokenLogprob {
    let at = |rank: u32| -(rank as f32) - (digest >> 40 & 0xff) as f32 / 256.0;
    let top = (0..top).map(|rank| ((token + rank) % VOCAB, at(rank))).collect();
    TokenLogprob { logprob: at(token), top }
}

fn mix(digest: u64, word: u64) -> u64 {
    (digest ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

/// Where a position of a sequence is: block and slot.
fn place(sequence: &SequenceRows<'_>, position: usize) -> (BlockId, usize) {
    let block_tokens = BLOCK_TOKENS as usize;
    (sequence.blocks[position / block_tokens], position % block_tokens)
}

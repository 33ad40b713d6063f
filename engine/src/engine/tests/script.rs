//! A model that computes nothing but checks everything: its "KV" is the tokens themselves.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kv_cache::{
    BlockId, Fence, KvCodec, KvLayout, KvRegion, PageRange, PageShape, RegionError, TokenId,
};
use parking_lot::{Condvar, Mutex};
use words::TokenLogprob;

use crate::batch::{SampleRow, Sampled, SequenceRows, StepBatch, StepOutput};
use crate::engine::StepModel;
use crate::error::{EngineError, LogitsFault};
use crate::model::OnLayers;

pub(super) const VOCAB: u32 = 61;
pub(super) const EOS: TokenId = 0;
/// A context that ends with it gives no token.
pub(super) const POISON: TokenId = 60;

/// Writes tokens to slots, reads each sequence back through its block table and derives the next
/// token from what it finds there. A wrong table, a missing copy or a block given away too early
/// shows as a step that fails.
pub(super) struct ScriptModel {
    kv: Arc<ScriptKv>,
    block_tokens: usize,
    /// Whether results are given out only when they are collected, as a device does.
    overlaps: bool,
    /// Tokens of the latest step, to be fed to the next.
    sampled: Vec<Option<TokenId>>,
    control: Arc<Control>,
}

/// What a test holds of the model.
#[derive(Default)]
pub(super) struct Control {
    steps: AtomicU64,
    /// Tokens of the largest step.
    largest: AtomicU64,
    /// Steps that may run; `None` for all.
    allowed: Mutex<Option<u64>>,
    /// Whether others work on the device, too.
    shared: AtomicBool,
    /// How long a step takes for each of its rows, microseconds.
    row_us: AtomicU64,
    opened: Condvar,
    fault: Mutex<Option<(u64, Fault)>>,
}

/// What goes wrong at a step.
#[derive(Clone, Copy)]
pub(super) enum Fault {
    Device,
    Panic,
}

/// The model's KV: a token for each slot, which is what its pages hold, in every layer.
pub(super) struct ScriptKv {
    layout: KvLayout,
    slots: Mutex<Vec<Option<TokenId>>>,
    /// Whether pages that come in wait.
    held: Mutex<bool>,
    opened: Condvar,
}

// === impl Control ===

impl Control {
    pub(super) fn steps(&self) -> u64 {
        self.steps.load(Ordering::SeqCst)
    }

    pub(super) fn largest_step(&self) -> u64 {
        self.largest.load(Ordering::SeqCst)
    }

    pub(super) fn share(&self, shared: bool) {
        self.shared.store(shared, Ordering::SeqCst);
    }

    pub(super) fn take_a_row(&self, time: Duration) {
        self.row_us.store(time.as_micros() as u64, Ordering::SeqCst);
    }

    #[expect(clippy::disallowed_methods, reason = "the device's time, on the engine's own thread")]
    fn work(&self, rows: usize) {
        let time = Duration::from_micros(self.row_us.load(Ordering::SeqCst)) * rows as u32;
        if !time.is_zero() {
            std::thread::sleep(time);
        }
    }

    /// Stops the model before its next step.
    pub(super) fn hold(&self) {
        self.allow(0);
    }

    /// Lets `steps` more steps run and stops the model after them.
    pub(super) fn allow(&self, steps: u64) {
        *self.allowed.lock() = Some(self.steps() + steps);
        self.opened.notify_all();
    }

    pub(super) fn release(&self) {
        *self.allowed.lock() = None;
        self.opened.notify_all();
    }

    /// Breaks the step after the next `steps`.
    pub(super) fn break_after(&self, steps: u64, fault: Fault) {
        *self.fault.lock() = Some((self.steps() + steps, fault));
    }

    fn enter_step(&self) -> Result<(), EngineError> {
        let mut allowed = self.allowed.lock();
        while allowed.is_some_and(|allowed| self.steps() >= allowed) {
            self.opened.wait(&mut allowed);
        }
        drop(allowed);
        let step = self.steps.fetch_add(1, Ordering::SeqCst);
        let fault = self.fault.lock().take_if(|(at, _)| *at <= step);
        match fault {
            Some((_, Fault::Device)) => Err(EngineError::Device("scripted".to_owned())),
            Some((_, Fault::Panic)) => panic!("scripted panic"),
            None => Ok(()),
        }
    }
}

// === impl ScriptModel ===

impl ScriptModel {
    pub(super) fn new(
        blocks: u32,
        block_tokens: u32,
        overlaps: bool,
        control: Arc<Control>,
    ) -> Self {
        let kv = Arc::new(ScriptKv::new(blocks, block_tokens));
        let block_tokens = block_tokens as usize;
        Self { kv, block_tokens, overlaps, sampled: Vec::new(), control }
    }

    /// Its memory.
    pub(super) fn kv(&self) -> Arc<ScriptKv> {
        Arc::clone(&self.kv)
    }

    fn slot(&self, sequence: &SequenceRows<'_>, position: usize) -> usize {
        let block = sequence.blocks[position / self.block_tokens];
        block.index() * self.block_tokens + position % self.block_tokens
    }

    /// The sequence's tokens up to `position`, as its pages have them.
    fn read(&self, sequence: &SequenceRows<'_>, position: usize) -> Vec<TokenId> {
        let slots = self.kv.slots.lock();
        let token = |at| slots[self.slot(sequence, at)].expect("a slot that was written");
        (0..=position).map(token).collect()
    }

    fn write(&mut self, batch: &StepBatch<'_>) {
        let mut written = HashSet::new();
        for sequence in &batch.sequences {
            for row in sequence.rows.clone() {
                let slot = self.slot(sequence, batch.positions[row] as usize);
                assert!(written.insert(slot), "slot {slot} is written twice in a step");
                self.kv.slots.lock()[slot] = Some(self.token(batch, row));
            }
        }
    }

    /// A row's token; one that the step before failed to choose reads as poison.
    fn token(&self, batch: &StepBatch<'_>, row: usize) -> TokenId {
        let Some(fed) = batch.fed.iter().find(|fed| fed.row == row) else {
            return batch.tokens[row];
        };
        assert!(self.overlaps, "nothing is outstanding where steps don't overlap");
        self.sampled[fed.sample].unwrap_or(POISON)
    }

    fn sample(
        &self,
        batch: &StepBatch<'_>,
        sample: &SampleRow<'_>,
    ) -> Result<Sampled, LogitsFault> {
        let sequence = owner(batch, sample.row);
        let context = self.read(sequence, batch.positions[sample.row] as usize);
        let known = [sample.prompt, sample.output].concat();
        assert!(context.starts_with(&known), "KV isn't the sequence's own");
        let is_fed = batch.fed.iter().any(|fed| fed.row == sample.row);
        assert_eq!(context.len(), known.len() + usize::from(is_fed));
        assert_eq!(context.len(), sequence.context_tokens as usize);
        assert_eq!(context.len(), sample.prompt.len() + sample.index as usize);
        if context.last() == Some(&POISON) {
            return Err(LogitsFault::NotFinite);
        }
        let token = next_token(&context, sample.sampling.seed, sample.choice, sample.banned);
        let logprob = sample.sampling.logprobs.map(|_| TokenLogprob::default());
        Ok(Sampled { token, logprob })
    }
}

impl StepModel for ScriptModel {
    type Ticket = StepOutput;

    fn overlaps(&self) -> bool {
        self.overlaps && !self.expects_others()
    }

    fn expects_others(&self) -> bool {
        self.control.shared.load(Ordering::SeqCst)
    }

    fn submit(
        &mut self,
        batch: &StepBatch<'_>,
        on_layers: &mut OnLayers<'_>,
    ) -> Result<StepOutput, EngineError> {
        self.control.enter_step()?;
        self.control.largest.fetch_max(batch.tokens.len() as u64, Ordering::SeqCst);
        self.control.work(batch.tokens.len());
        self.write(batch);
        on_layers(0..1, Fence(self.control.steps()));
        on_layers(1..2, Fence(self.control.steps()));
        let samples: Vec<_> =
            batch.samples.iter().map(|sample| self.sample(batch, sample)).collect();
        let scores = batch.scores.iter().map(|score| {
            let sequence = owner(batch, score.row);
            let context = self.read(sequence, batch.positions[score.row] as usize);
            Ok(score_of(&context, score.next, score.top))
        });
        let scores = scores.collect();
        let token = |sample: &Result<Sampled, _>| sample.as_ref().ok().map(|it| it.token);
        self.sampled = samples.iter().map(token).collect();
        Ok(StepOutput { samples, scores, took: None })
    }

    fn is_done(&self, _: &StepOutput) -> bool {
        true
    }

    fn collect(&mut self, ticket: StepOutput) -> Result<StepOutput, EngineError> {
        Ok(ticket)
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) -> Result<(), EngineError> {
        let start = |block: BlockId| block.index() * self.block_tokens;
        let from = start(from)..start(from) + self.block_tokens;
        self.kv.slots.lock().copy_within(from, start(to));
        Ok(())
    }
}

fn owner<'a>(batch: &'a StepBatch<'_>, row: usize) -> &'a SequenceRows<'a> {
    batch.sequences.iter().find(|sequence| sequence.rows.contains(&row)).expect("a row's sequence")
}

/// What the script says after `context`: a pure function, as sampling is.
pub(super) fn next_token(
    context: &[TokenId],
    seed: u64,
    choice: u32,
    banned: &[TokenId],
) -> TokenId {
    let start = mix(seed, choice);
    let hash = context.iter().fold(start, |hash, &token| mix(hash, token));
    (0..)
        .map(|turn| ((hash >> 32) as u32 + turn) % POISON)
        .find(|token| !banned.contains(token))
        .expect("one is allowed")
}

/// The score of `next` after `context`.
pub(super) fn score_of(context: &[TokenId], next: TokenId, top: u32) -> TokenLogprob {
    let hash = context.iter().fold(1, |hash, &token| mix(hash, token));
    let logprob = -((mix(hash, next) >> 40) as f32);
    TokenLogprob { logprob, top: (0..top).map(|token| (token, logprob)).collect() }
}

fn mix(hash: u64, token: u32) -> u64 {
    (hash ^ u64::from(token)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

pub(super) fn layout(block_tokens: u32) -> KvLayout {
    KvLayout::whole(2, 1, PageShape::keys_and_values(1, block_tokens), KvCodec::F32)
}

// === impl ScriptKv ===

impl ScriptKv {
    fn new(blocks: u32, block_tokens: u32) -> Self {
        Self {
            layout: layout(block_tokens),
            slots: Mutex::new(vec![None; (blocks * block_tokens) as usize]),
            held: Mutex::new(false),
            opened: Condvar::new(),
        }
    }

    /// Lets pages come in, or wait.
    pub(super) fn hold(&self, held: bool) {
        *self.held.lock() = held;
        self.opened.notify_all();
    }

    /// The slots of each page, with the bytes that it has among `bytes`.
    fn places(&self, pages: &PageRange<'_>) -> impl Iterator<Item = (usize, Range<usize>)> {
        let page = self.layout.page_bytes();
        let tokens = self.layout.block_tokens() as usize;
        let blocks: Vec<_> = pages.blocks.iter().map(|block| block.block.index()).collect();
        let pages = pages.layers.clone().flat_map(move |_| blocks.clone());
        pages.enumerate().flat_map(move |(at, block)| {
            (0..tokens).map(move |token| {
                let start = at * page + token * size_of::<TokenId>();
                (block * tokens + token, start..start + size_of::<TokenId>())
            })
        })
    }
}

impl KvRegion for ScriptKv {
    fn layout(&self) -> &KvLayout {
        &self.layout
    }

    fn gather(&self, pages: &PageRange<'_>, _: Fence, out: &mut [u8]) -> Result<(), RegionError> {
        let slots = self.slots.lock();
        for (slot, bytes) in self.places(pages) {
            out[bytes].copy_from_slice(&slots[slot].unwrap_or(VOCAB).to_le_bytes());
        }
        Ok(())
    }

    fn scatter(&self, pages: &PageRange<'_>, bytes: &[u8]) -> Result<(), RegionError> {
        let mut held = self.held.lock();
        while *held {
            self.opened.wait(&mut held);
        }
        let mut slots = self.slots.lock();
        for (slot, at) in self.places(pages) {
            let token = TokenId::from_le_bytes(bytes[at].try_into().expect("four bytes"));
            slots[slot] = Some(token);
        }
        Ok(())
    }
}

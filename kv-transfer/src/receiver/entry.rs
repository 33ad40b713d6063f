//! One hand-off on the receiving side: who may write, what is there, how it ends.

use std::ops::Range;
use std::sync::Arc;

use kv_cache::{
    BlockHandle, BlockHash, BlockId, BlockRef, BlockTable, CommitRecord, HandoffId, PageSpan,
    RegionError, RejectReason, Reservation,
};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::message::{Rejection, Reply};
use crate::{Coverage, Digest, TransferError, TransferStats};

/// Spans named in one answer. A hole in every other page of 32 layers of a 4k-token prompt still
/// fits; longer lists are answered in turns.
const MISSING_SPANS_MAX: usize = 4096;

/// One hand-off.
pub(super) struct Entry {
    pub(super) id: HandoffId,
    sequence: Sequence,
    pub(super) deadline: Instant,
    stats: Arc<TransferStats>,
    state: Mutex<State>,
    /// Told of every change of `state` that somebody may wait for.
    changed: Notify,
}

/// What has to come.
pub(super) struct Sequence {
    /// The pages.
    pub(super) span: PageSpan,
    /// Tokens, those of the blocks that are here included.
    pub(super) tokens: u32,
    /// Their name.
    pub(super) context: BlockHash,
}

struct State {
    phase: Phase,
    /// The stream that may write; 0 before the first.
    epoch: u64,
    /// Writes in progress.
    writers: u32,
    /// What a hand-off leaves that closed under a writer's hands: freed when the writer is done.
    draining: Option<Receiving>,
}

enum Phase {
    Receiving(Receiving),
    /// All there and right. The table is there until it is taken.
    Verified {
        table: Option<BlockTable>,
        digest: Digest,
    },
    Closed(Closed),
}

/// A hand-off's blocks while they come in.
pub(super) struct Receiving {
    pub(super) credit: Reservation,
    pub(super) held: BlockTable,
    /// Blocks bound so far, by logical block from the span's first.
    pub(super) bound: Vec<Option<BlockHandle>>,
    pub(super) coverage: Coverage,
    pub(super) digest: Digest,
}

/// How a hand-off ended without a table.
#[derive(Clone, Debug)]
pub(super) enum Closed {
    Abandoned,
    Expired,
    Refused(Rejection),
    Broken(RegionError),
}

/// The right to write some pages; the blocks stay as long as it lives.
pub(super) struct WritePass<'a> {
    entry: &'a Entry,
    /// The physical blocks of the span's logical ones.
    pub(super) blocks: Vec<BlockRef>,
    /// `[pages]`, in the span's order: whether the page is there already.
    pub(super) present: Vec<bool>,
}

// === impl Entry ===

impl Entry {
    pub(super) fn new(
        id: HandoffId,
        sequence: Sequence,
        deadline: Instant,
        receiving: Receiving,
        stats: Arc<TransferStats>,
    ) -> Self {
        let phase = Phase::Receiving(receiving);
        let state = State { phase, epoch: 0, writers: 0, draining: None };
        let changed = Notify::new();
        Self { id, sequence, deadline, stats, state: Mutex::new(state), changed }
    }

    /// The pages that have to come.
    pub(super) fn span(&self) -> &PageSpan {
        &self.sequence.span
    }

    /// Makes `epoch` the one stream that may write, once the writes of earlier streams are over.
    pub(super) async fn take_over(&self, epoch: u64) -> Result<(), Rejection> {
        {
            let mut state = self.state.lock();
            self.check_open(&state)?;
            if epoch <= state.epoch {
                return Err(self.superseded(epoch));
            }
            state.epoch = epoch;
        }
        self.changed.notify_waiters();
        self.wait_until(|state| state.writers == 0 || self.check(state, epoch).is_err()).await;
        self.check(&self.state.lock(), epoch)
    }

    /// Lets stream `epoch` write the pages of `span`; binds the blocks that it is the first to
    /// reach. `None` if nothing has to be written any more.
    pub(super) fn begin_write(
        &self,
        epoch: u64,
        span: &PageSpan,
    ) -> Result<Option<WritePass<'_>>, Rejection> {
        let mut state = self.state.lock();
        self.check(&state, epoch)?;
        let Phase::Receiving(receiving) = &mut state.phase else { return Ok(None) };
        let present: Vec<bool> =
            span.iter().map(|(layer, block)| receiving.coverage.contains(layer, block)).collect();
        if present.iter().all(|&present| present) {
            return Ok(None);
        }
        let begin = self.span().blocks.start;
        let blocks = receiving.bind(span.blocks.start - begin..span.blocks.end - begin);
        state.writers += 1;
        Ok(Some(WritePass { entry: self, blocks, present }))
    }

    /// Compares what is there with what the sender says it sent.
    pub(super) fn commit(&self, epoch: u64, record: &CommitRecord) -> Result<Reply, Rejection> {
        let mut state = self.state.lock();
        self.check(&state, epoch)?;
        self.check_record(record)?;
        let digest = match &state.phase {
            Phase::Receiving(receiving) if !receiving.coverage.is_complete() => {
                return Ok(Reply::Missing(receiving.coverage.missing(MISSING_SPANS_MAX)));
            }
            Phase::Receiving(receiving) => receiving.digest,
            Phase::Verified { digest, .. } => *digest,
            Phase::Closed(_) => return Err(Rejection::unknown(self.id)),
        };
        if digest.0 != record.digest {
            let detail =
                format!("digest {:016x}, the record says {:016x}", digest.0, record.digest);
            return Err(Rejection::new(RejectReason::DigestMismatch, detail));
        }
        self.complete(&mut state);
        drop(state);
        self.changed.notify_waiters();
        Ok(Reply::Verified { pages: self.span().pages() as u64 })
    }

    fn check_record(&self, record: &CommitRecord) -> Result<(), Rejection> {
        let Sequence { span, tokens, context } = &self.sequence;
        let layers = span.layers.end;
        let has_shape =
            record.tokens == *tokens && record.blocks == span.blocks && record.layers == layers;
        if !has_shape {
            let detail = format!(
                "committed {record:?}, expected {tokens} tokens in {:?} of {layers} layers",
                span.blocks
            );
            return Err(Rejection::new(RejectReason::OutOfRange, detail));
        }
        if record.context != *context {
            let detail = format!("KV of {}, asked for that of {context}", record.context);
            return Err(Rejection::new(RejectReason::ContextMismatch, detail));
        }
        Ok(())
    }

    /// Turns complete pages into a table.
    fn complete(&self, state: &mut State) {
        debug_assert_eq!(state.writers, 0, "a stream's commit comes after its writes");
        let phase = std::mem::replace(&mut state.phase, Phase::Closed(Closed::Abandoned));
        state.phase = match phase {
            Phase::Receiving(receiving) => {
                self.stats.count_outcome(&Ok(()));
                receiving.into_verified(self.sequence.tokens)
            }
            again => again,
        };
    }

    /// Ends the hand-off, if it hasn't ended, and gives its blocks back, if nobody writes to them.
    pub(super) fn close(&self, how: Closed) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Closed(_) | Phase::Verified { table: None, .. }) {
            return;
        }
        self.stats.count_outcome::<()>(&Err(how.error()));
        let left = match std::mem::replace(&mut state.phase, Phase::Closed(how)) {
            Phase::Receiving(receiving) if state.writers > 0 => {
                state.draining = Some(receiving);
                None
            }
            phase => Some(phase),
        };
        drop(state);
        drop(left);
        self.changed.notify_waiters();
    }

    /// How it ended, once it has; the table can be taken once.
    pub(super) fn take_outcome(&self) -> Option<Result<BlockTable, TransferError>> {
        match &mut self.state.lock().phase {
            Phase::Receiving(_) => None,
            Phase::Verified { table, .. } => Some(table.take().ok_or(TransferError::Abandoned)),
            Phase::Closed(how) => Some(Err(how.error())),
        }
    }

    /// Waits until [`Entry::take_outcome`] has something to give.
    pub(super) async fn ended(&self) {
        self.wait_until(|state| !matches!(state.phase, Phase::Receiving(_))).await;
    }

    /// Waits until stream `epoch` may not write any more, and says why.
    pub(super) async fn revoked(&self, epoch: u64) -> Rejection {
        let mut rejection = None;
        self.wait_until(|state| {
            rejection = self.check(state, epoch).err();
            rejection.is_some()
        })
        .await;
        rejection.expect("waited for")
    }

    /// Whether it holds neither blocks nor a table that somebody will take.
    pub(super) fn is_over(&self) -> bool {
        let state = self.state.lock();
        match &state.phase {
            Phase::Receiving(_) => false,
            Phase::Verified { table, .. } => table.is_none(),
            Phase::Closed(_) => state.draining.is_none(),
        }
    }

    /// Whether it was verified and its table taken: kept only to repeat its answer.
    pub(super) fn is_tombstone(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Verified { table: None, .. })
    }

    /// The blocks it holds.
    pub(super) fn held_blocks(&self, into: &mut Vec<BlockId>) {
        let state = self.state.lock();
        match &state.phase {
            Phase::Receiving(receiving) => receiving.held_blocks(into),
            Phase::Verified { table: Some(table), .. } => into.extend(table.ids()),
            Phase::Verified { table: None, .. } | Phase::Closed(_) => {}
        }
        if let Some(receiving) = &state.draining {
            receiving.held_blocks(into);
        }
    }

    /// Whether stream `epoch` may still write.
    fn check(&self, state: &State, epoch: u64) -> Result<(), Rejection> {
        self.check_open(state)?;
        if state.epoch == epoch { Ok(()) } else { Err(self.superseded(epoch)) }
    }

    fn check_open(&self, state: &State) -> Result<(), Rejection> {
        match &state.phase {
            Phase::Closed(Closed::Refused(rejection)) => Err(rejection.clone()),
            Phase::Closed(_) => Err(Rejection::unknown(self.id)),
            Phase::Receiving(_) | Phase::Verified { .. } => Ok(()),
        }
    }

    fn superseded(&self, epoch: u64) -> Rejection {
        let detail = format!("a later stream than {epoch} took hand-off {} over", self.id);
        Rejection::new(RejectReason::Superseded, detail)
    }

    async fn wait_until(&self, mut done: impl FnMut(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if done(&self.state.lock()) {
                return;
            }
            changed.await;
        }
    }
}

// === impl Receiving ===

impl Receiving {
    /// The blocks in `slots`, counted from the first to come; binds those that aren't yet.
    fn bind(&mut self, slots: Range<u32>) -> Vec<BlockRef> {
        let slots = &mut self.bound[slots.start as usize..slots.end as usize];
        let missing = slots.iter().filter(|slot| slot.is_none()).count() as u32;
        let bound = self.credit.bind_many(missing).expect("one credit for each block was checked");
        let mut bound = bound.into_iter();
        let mut next = || bound.next().expect("as many as there are slots without");
        slots.iter_mut().map(|slot| slot.get_or_insert_with(&mut next).reference()).collect()
    }

    /// The table over complete pages; spare credits go back.
    fn into_verified(self, tokens: u32) -> Phase {
        let mut table = self.held;
        let blocks = self.bound.into_iter();
        blocks.for_each(|block| table.push(block.expect("a page of each block is there")));
        table.set_tokens(tokens as usize);
        Phase::Verified { table: Some(table), digest: self.digest }
    }

    fn held_blocks(&self, into: &mut Vec<BlockId>) {
        into.extend(self.held.ids());
        into.extend(self.bound.iter().flatten().map(BlockHandle::id));
    }
}

// === impl WritePass ===

impl WritePass<'_> {
    /// Says which pages have been written, (layer, block) and digest. Pages of a hand-off that has
    /// closed meanwhile count for nothing.
    pub(super) fn finish(self, written: impl Iterator<Item = ((u32, u32), u64)>) {
        let mut state = self.entry.state.lock();
        let Phase::Receiving(receiving) = &mut state.phase else { return };
        for ((layer, block), digest) in written {
            if receiving.coverage.insert(layer, block) {
                receiving.digest.add(digest);
            }
        }
    }
}

impl Drop for WritePass<'_> {
    fn drop(&mut self) {
        let mut state = self.entry.state.lock();
        state.writers -= 1;
        let left = if state.writers == 0 { state.draining.take() } else { None };
        drop(state);
        drop(left);
        self.entry.changed.notify_waiters();
    }
}

// === impl Closed ===

impl Closed {
    fn error(&self) -> TransferError {
        match self {
            Self::Abandoned => TransferError::Abandoned,
            Self::Expired => TransferError::Deadline,
            Self::Refused(rejection) => TransferError::Rejected(rejection.clone()),
            Self::Broken(error) => TransferError::Region(error.clone()),
        }
    }
}

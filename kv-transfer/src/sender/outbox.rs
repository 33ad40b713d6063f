//! What a hand-off has still to say, and what it may have to say again. Pure: no I/O, no time.
//!
//! ```text
//! push -> todo -> (gathered) -> ready -> in flight -> acknowledged
//!           ^                     ^          |
//!           +---- missing         +- rewind -+
//! ```

use std::collections::VecDeque;

use kv_cache::{BlockHandle, BlockHash, CommitRecord, Fence, PageSpan};

use super::FilledPages;
use super::gather::{Gather, Gathered};
use crate::message::{PageChunk, Push};
use crate::{Coverage, Digest, TransferError};

/// Messages of a hand-off that are read at the same time. Reading one is a copy and a hash on one core,
/// some 5 GB/s.
const READS_MAX: usize = 4;

/// One hand-off's pages on their way out.
pub(super) struct Outbox {
    /// All of the hand-off's pages.
    span: PageSpan,
    tokens: u32,
    page_bytes: usize,
    /// Pages of one message.
    chunk_pages_max: usize,
    pushed: Coverage,
    /// By logical block from the span's first; kept until the end, to read from again.
    blocks: Vec<Option<BlockHandle>>,
    /// Behind every page pushed.
    fence: Fence,
    todo: VecDeque<Todo>,
    ready: VecDeque<PageChunk>,
    in_flight: VecDeque<PageChunk>,
    /// Messages whose pages are being read.
    reading: usize,
    /// Payload being read, ready or in flight.
    busy_bytes: u64,
    /// Of the last chunk sent on this stream.
    sequence: u64,
    digest: Digest,
    commit: Commit,
    resent_pages: u32,
}

struct Todo {
    span: PageSpan,
    fence: Fence,
    resent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commit {
    NotYet,
    Wanted(BlockHash),
    Sent(BlockHash),
}

// === impl Outbox ===

impl Outbox {
    /// Nothing pushed of `span`. Chunks take up to `message_bytes`, or one page.
    pub(super) fn new(
        span: PageSpan,
        tokens: u32,
        page_bytes: usize,
        message_bytes: usize,
    ) -> Self {
        Self {
            tokens,
            page_bytes,
            chunk_pages_max: (message_bytes / page_bytes).max(1),
            pushed: Coverage::new(&span),
            blocks: vec![None; span.blocks.len()],
            span,
            fence: Fence::default(),
            todo: VecDeque::new(),
            ready: VecDeque::new(),
            in_flight: VecDeque::new(),
            reading: 0,
            busy_bytes: 0,
            sequence: 0,
            digest: Digest::default(),
            commit: Commit::NotYet,
            resent_pages: 0,
        }
    }

    /// Takes pages on.
    ///
    /// # Errors
    /// [`TransferError::WrongPages`] if they aren't the hand-off's, or were pushed before.
    pub(super) fn push(&mut self, pages: FilledPages) -> Result<(), TransferError> {
        let count = pages.blocks.len() as u32;
        let end = pages.first_block.saturating_add(count);
        let span = PageSpan { layers: pages.layers, blocks: pages.first_block..end };
        if !self.span.contains(&span) {
            return Err(TransferError::WrongPages(format!("{span} of {}", self.span)));
        }
        for (layer, block) in span.iter() {
            if !self.pushed.insert(layer, block) {
                return Err(TransferError::WrongPages(format!("block {block} of layer {layer}")));
            }
        }
        self.fence = self.fence.max(pages.fence);
        for (block, handle) in span.blocks.clone().zip(pages.blocks) {
            let index = (block - self.span.blocks.start) as usize;
            self.blocks[index] = Some(handle);
        }
        self.plan(&span, pages.fence, false);
        Ok(())
    }

    /// Wants the hand-off to be closed once everything has been sent.
    ///
    /// - `context`: the name of the sequence.
    ///
    /// # Errors
    /// [`TransferError::Incomplete`] if pages were never pushed.
    pub(super) fn commit(&mut self, context: BlockHash) -> Result<(), TransferError> {
        if !self.pushed.is_complete() {
            return Err(TransferError::Incomplete { missing_pages: self.pushed.missing_pages() });
        }
        self.commit = Commit::Wanted(context);
        Ok(())
    }

    /// Behind the pages to read next.
    pub(super) fn next_fence(&self) -> Option<Fence> {
        self.todo.front().map(|todo| todo.fence)
    }

    /// The next pages to read, if `window_bytes` leave room for them and few others are being read.
    pub(super) fn next_gather(&mut self, window_bytes: u64) -> Option<Gather> {
        let bytes = self.bytes_of(&self.todo.front()?.span);
        let full = self.busy_bytes > 0 && self.busy_bytes + bytes > window_bytes;
        if self.reading >= READS_MAX || full {
            return None;
        }
        let Todo { span, fence, resent } = self.todo.pop_front()?;
        self.reading += 1;
        self.busy_bytes += bytes;
        let begin = self.span.blocks.start;
        let blocks = span.blocks.start - begin..span.blocks.end - begin;
        let blocks = &self.blocks[blocks.start as usize..blocks.end as usize];
        let blocks = blocks.iter().flatten().cloned().collect();
        Some(Gather { span, blocks, fence, resent })
    }

    /// Takes pages back that have been read.
    pub(super) fn gathered(&mut self, pages: Gathered) {
        let Gathered { span, payload, digests, resent, .. } = pages;
        self.reading -= 1;
        if !resent {
            digests.iter().for_each(|&digest| self.digest.add(digest));
        }
        self.ready.push_back(PageChunk { sequence: 0, span, payload, digests });
    }

    /// Whether there is something to say.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty() || self.due_commit().is_some()
    }

    /// What to say next; pages are in flight from here on.
    pub(super) fn pop_ready(&mut self) -> Option<Push> {
        if let Some(mut chunk) = self.ready.pop_front() {
            self.sequence += 1;
            chunk.sequence = self.sequence;
            self.in_flight.push_back(chunk.clone());
            return Some(Push::Pages(chunk));
        }
        let context = self.due_commit()?;
        self.commit = Commit::Sent(context);
        Some(Push::Commit(self.record(context)))
    }

    /// Whether the receiver owes an answer.
    pub(super) fn awaits_answer(&self) -> bool {
        !self.in_flight.is_empty() || matches!(self.commit, Commit::Sent(_))
    }

    /// Lets go of the chunks up to `sequence`; says whether there were any.
    pub(super) fn acknowledged(&mut self, sequence: u64) -> bool {
        let before = self.in_flight.len();
        while self.in_flight.front().is_some_and(|chunk| chunk.sequence <= sequence) {
            let chunk = self.in_flight.pop_front();
            self.busy_bytes -= chunk.map_or(0, |chunk| self.bytes_of(&chunk.span));
        }
        self.in_flight.len() < before
    }

    /// Sends `spans` again, and the commit after them.
    ///
    /// # Errors
    /// [`TransferError::Protocol`] if that doesn't answer a commit, or names a page that isn't its own, or one
    /// twice.
    pub(super) fn missing(&mut self, spans: &[PageSpan]) -> Result<(), TransferError> {
        let all_ours = spans.iter().all(|span| !span.is_empty() && self.span.contains(span));
        let sent = match self.commit {
            Commit::Sent(context) if !spans.is_empty() && all_ours && self.are_apart(spans) => {
                Some(context)
            }
            _ => None,
        };
        let Some(context) = sent else {
            let what = format!("misses {} spans, out of turn, not ours or twice", spans.len());
            return Err(TransferError::Protocol(what));
        };
        // What hasn't been acknowledged is lost.
        self.acknowledged(u64::MAX);
        let fence = self.fence;
        for span in spans {
            self.resent_pages = self.resent_pages.saturating_add(span.pages() as u32);
            self.plan(span, fence, true);
        }
        self.commit = Commit::Wanted(context);
        Ok(())
    }

    /// Whether no page of the hand-off is in two of `spans`: else few bytes would ask for any number of pages.
    fn are_apart(&self, spans: &[PageSpan]) -> bool {
        let mut named = Coverage::new(&self.span);
        spans.iter().flat_map(PageSpan::iter).all(|(layer, block)| named.insert(layer, block))
    }

    /// Starts over on a new stream with what the last one didn't acknowledge. Returns the pages
    /// that are sent again.
    pub(super) fn rewind(&mut self) -> usize {
        let pages: usize = self.in_flight.iter().map(|chunk| chunk.span.pages()).sum();
        self.resent_pages = self.resent_pages.saturating_add(pages as u32);
        while let Some(chunk) = self.in_flight.pop_back() {
            self.ready.push_front(chunk);
        }
        self.sequence = 0;
        if let Commit::Sent(context) = self.commit {
            self.commit = Commit::Wanted(context);
        }
        pages
    }

    /// Pages sent more than once so far.
    pub(super) fn resent_pages(&self) -> u32 {
        self.resent_pages
    }

    /// Payload of the whole hand-off, each page once.
    pub(super) fn total_bytes(&self) -> u64 {
        self.bytes_of(&self.span)
    }

    fn plan(&mut self, span: &PageSpan, fence: Fence, resent: bool) {
        let pieces = span.pieces(self.chunk_pages_max);
        self.todo.extend(pieces.map(|span| Todo { span, fence, resent }));
    }

    /// The context to commit, where everything has been read and said but that.
    fn due_commit(&self) -> Option<BlockHash> {
        let all_said = self.todo.is_empty() && self.reading == 0 && self.ready.is_empty();
        match self.commit {
            Commit::Wanted(context) if all_said => Some(context),
            _ => None,
        }
    }

    fn record(&self, context: BlockHash) -> CommitRecord {
        CommitRecord {
            tokens: self.tokens,
            blocks: self.span.blocks.clone(),
            layers: self.span.layers.end,
            digest: self.digest.0,
            context,
        }
    }

    fn bytes_of(&self, span: &PageSpan) -> u64 {
        (span.pages() * self.page_bytes) as u64
    }
}

#[cfg(test)]
mod tests;

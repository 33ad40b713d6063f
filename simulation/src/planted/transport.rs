//! A transport that a digest doesn't guard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::BytesMut;
use futures::{FutureExt as _, StreamExt as _, stream};
use kv_transfer::message::{Open, PageChunk, Payload, Push, Reply};
use kv_transfer::transport::{Cut, Link, OpenError};
use kv_transfer::{Target, Transport, page_digest};
use tokio::sync::mpsc;

use super::Bug;

/// One hand-off in so many meets the bug.
const EVERY: u64 = 3;
/// Pushes on their way through.
const PUSHES_MAX: usize = 2;

/// A transport with a planted bug.
pub struct Bugged {
    inner: Arc<dyn Transport>,
    bug: Bug,
    streams: AtomicU64,
}

/// The bug on one stream.
struct Strike {
    bug: Bug,
    /// What the pages' digests have grown by.
    drift: u64,
}

// === impl Bugged ===

impl Bugged {
    /// `inner`, with a bug.
    #[must_use]
    pub fn new(inner: Arc<dyn Transport>, bug: Bug) -> Self {
        Self { inner, bug, streams: AtomicU64::new(0) }
    }
}

#[async_trait]
impl Transport for Bugged {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn reaches(&self, target: &Target) -> bool {
        self.inner.reaches(target)
    }

    async fn open(&self, target: &Target, open: Open) -> Result<Link, OpenError> {
        let link = self.inner.open(target, open).await?;
        if !self.streams.fetch_add(1, Ordering::Relaxed).is_multiple_of(EVERY) {
            return Ok(link);
        }
        let (pushes, pushed) = mpsc::channel(PUSHES_MAX);
        let (answers, answered) = mpsc::channel(PUSHES_MAX);
        let carry = Strike { bug: self.bug, drift: 0 }.carry(pushed, link.pushes, answers);
        let cut = carry.map(|()| Err(Cut("the stream has ended".into()))).into_stream();
        let answered = tokio_stream::wrappers::ReceiverStream::new(answered).map(Ok);
        let replies = stream::select(cut, stream::select(answered, link.replies)).boxed();
        Ok(Link { window_bytes: link.window_bytes, pushes, replies })
    }
}

// === impl Strike ===

impl Strike {
    async fn carry(
        mut self,
        mut from: mpsc::Receiver<Push>,
        to: mpsc::Sender<Push>,
        answers: mpsc::Sender<Reply>,
    ) {
        while let Some(mut push) = from.recv().await {
            match (&mut push, self.bug) {
                (Push::Pages(chunk), Bug::AcceptedCorruptPage) => self.damage(chunk),
                (Push::Commit(record), Bug::AcceptedCorruptPage) => {
                    record.digest = record.digest.wrapping_add(self.drift);
                }
                (Push::Commit(_), Bug::LostCommit) => {
                    drop(answers.send(Reply::Verified { pages: 0 }).await);
                    continue;
                }
                _ => {}
            }
            if to.send(push).await.is_err() {
                return;
            }
        }
    }

    /// Damages a chunk's first page and signs it again.
    fn damage(&mut self, chunk: &mut PageChunk) {
        let Payload::Bytes(bytes) = &chunk.payload else { return };
        let mut bytes = BytesMut::from(&bytes[..]);
        let page_bytes = bytes.len() / chunk.digests.len();
        bytes[page_bytes / 2] ^= 1;
        let digest =
            page_digest(chunk.span.layers.start, chunk.span.blocks.start, &bytes[..page_bytes]);
        self.drift = self.drift.wrapping_add(digest.wrapping_sub(chunk.digests[0]));
        chunk.digests[0] = digest;
        chunk.payload = Payload::Bytes(bytes.freeze());
    }
}

//! Fault injection: a transport that loses, doubles, delays and damages, and breaks off.
//!
//! For tests, and for trying a cluster out: never on by default.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use futures::{FutureExt as _, StreamExt as _, stream};
use kv_cache::KvRegion;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::sync::mpsc;

use super::{CHUNKS_QUEUED_MAX, Cut, Link, OpenError, Target, Transport};
use crate::message::{Open, PageChunk, Payload, Push};

/// What goes wrong, and how often. Chances are per message, `0.0..=1.0`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// The same seed and the same messages make the same faults.
    pub seed: u64,
    /// Chance that a message, pages or commit, is lost.
    pub drop: f64,
    /// Chance that pages come twice.
    pub duplicate: f64,
    /// Chance that one bit of the pages or of their digests is flipped.
    pub corrupt: f64,
    /// Chance that a message, and all behind it, is held up.
    pub delay: f64,
    /// How long it is held up.
    pub delay_time: Duration,
    /// Messages after which a stream is cut.
    pub cut_after: Option<u64>,
    /// Streams that are cut; later ones hold.
    pub cuts_max: u64,
}

/// How often each fault has struck.
#[derive(Debug, Default)]
pub struct FaultCounts {
    /// Messages lost.
    pub lost: AtomicU64,
    /// Pages that came twice.
    pub doubled: AtomicU64,
    /// Pages with a bit flipped.
    pub damaged: AtomicU64,
    /// Messages held up.
    pub held_up: AtomicU64,
}

/// A transport with faults.
pub struct Faulty {
    inner: Arc<dyn Transport>,
    faults: Faults,
    counts: Arc<FaultCounts>,
    /// Streams opened so far: part of each stream's seed.
    streams: AtomicU64,
}

/// The faults of one stream.
struct StreamFaults {
    faults: Faults,
    counts: Arc<FaultCounts>,
    rng: ChaCha8Rng,
    messages_left: Option<u64>,
}

// === impl FaultCounts ===

impl FaultCounts {
    /// What a counter has come to.
    #[must_use]
    pub fn of(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

// === impl Faulty ===

impl Faulty {
    /// `inner`, with `faults`.
    #[must_use]
    pub fn new(inner: Arc<dyn Transport>, faults: Faults) -> Self {
        Self { inner, faults, counts: Arc::default(), streams: AtomicU64::new(0) }
    }

    /// The same, counting its faults there.
    #[must_use]
    pub fn counting(self, counts: Arc<FaultCounts>) -> Self {
        Self { counts, ..self }
    }

    fn next_stream(&self) -> StreamFaults {
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        let faults = self.faults.clone();
        let messages_left = faults.cut_after.filter(|_| stream < faults.cuts_max);
        let mut rng = ChaCha8Rng::seed_from_u64(faults.seed);
        rng.set_stream(stream);
        StreamFaults { faults, counts: self.counts.clone(), rng, messages_left }
    }
}

#[async_trait]
impl Transport for Faulty {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn reaches(&self, target: &Target) -> bool {
        self.inner.reaches(target)
    }

    fn peer(&self, target: &Target) -> Option<Arc<dyn KvRegion>> {
        self.inner.peer(target)
    }

    async fn open(&self, target: &Target, open: Open) -> Result<Link, OpenError> {
        let link = self.inner.open(target, open).await?;
        let (pushes, pushed) = mpsc::channel(CHUNKS_QUEUED_MAX);
        let carry = self.next_stream().carry(pushed, link.pushes);
        // Carries for as long as the replies are polled; when it stops, the stream is cut.
        let cut = carry.map(|()| Err(Cut("fault injected".into())));
        let replies = stream::select(cut.into_stream(), link.replies);
        Ok(Link { window_bytes: link.window_bytes, pushes, replies: replies.boxed() })
    }
}

// === impl StreamFaults ===

impl StreamFaults {
    /// Passes messages on, as they deserve, until the stream is cut or either end has gone.
    async fn carry(mut self, mut from: mpsc::Receiver<Push>, to: mpsc::Sender<Push>) {
        while let Some(mut push) = from.recv().await {
            match &mut self.messages_left {
                Some(0) => return,
                Some(left) => *left -= 1,
                None => {}
            }
            if self.strikes(self.faults.delay, |counts| &counts.held_up) {
                tokio::time::sleep(self.faults.delay_time).await;
            }
            if self.strikes(self.faults.drop, |counts| &counts.lost) {
                continue;
            }
            if let Push::Pages(chunk) = &mut push {
                if self.strikes(self.faults.corrupt, |counts| &counts.damaged) {
                    self.flip_bit(chunk);
                }
                let twice = self.strikes(self.faults.duplicate, |counts| &counts.doubled);
                if twice && to.send(push.clone()).await.is_err() {
                    return;
                }
            }
            if to.send(push).await.is_err() {
                return;
            }
        }
    }

    fn strikes(&mut self, chance: f64, counter: fn(&FaultCounts) -> &AtomicU64) -> bool {
        let strikes = self.rng.random_bool(chance);
        counter(&self.counts).fetch_add(strikes.into(), Ordering::Relaxed);
        strikes
    }

    fn flip_bit(&mut self, chunk: &mut PageChunk) {
        // Of pages in place there is nothing else to damage on the way.
        let bytes = match &chunk.payload {
            Payload::Bytes(bytes) => Some(bytes.clone()),
            Payload::InPlace(_) => None,
        };
        let Some(bytes) = bytes.filter(|_| !self.rng.random_bool(0.1)) else {
            let page = self.rng.random_range(0..chunk.digests.len());
            chunk.digests[page] ^= 1 << self.rng.random_range(0..64);
            return;
        };
        // A copy: the sender keeps the original, to send it again.
        let mut data = BytesMut::from(&bytes[..]);
        let byte = self.rng.random_range(0..data.len());
        data[byte] ^= 1 << self.rng.random_range(0..8);
        chunk.payload = Payload::Bytes(data.freeze());
    }
}

impl std::fmt::Debug for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faulty").field("faults", &self.faults).finish_non_exhaustive()
    }
}

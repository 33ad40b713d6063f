//! One stream over several connections: dealt out on one side, put together on the other.
//!
//! A connection is one task at each end, which copies every byte between socket and memory: 2 GB/s. Lanes
//! are dealt to in turn, so the order needs no numbers, and the stream means what it means on one.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use kv_cache::HandoffId;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use super::wire::LaneOpen;
use crate::message::Push;
use crate::transport::Cut;

/// Lanes of one stream come within a round trip of each other.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Streams whose lanes aren't all there yet. Each lasts a moment.
const JOINING_MAX: usize = 1024;

/// What one lane brings.
pub(super) type Pushes = BoxStream<'static, Result<Push<Bytes>, Cut>>;

/// Gives what comes to the lanes in turn, until either end has gone.
///
/// # Errors
/// [`Cut`] when something comes that isn't bytes, which is all that lanes carry.
pub(super) async fn deal(
    mut from: mpsc::Receiver<Push>,
    to: Vec<mpsc::Sender<Push<Bytes>>>,
) -> Result<(), Cut> {
    for lane in to.iter().cycle() {
        let Some(push) = from.recv().await else { break };
        let push = push.in_bytes().map_err(|other| Cut(other.to_string()))?;
        if lane.send(push).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Where the lanes of a stream meet.
///
/// A clone is another handle.
#[derive(Clone, Debug, Default)]
pub(super) struct Meeting(Arc<Mutex<HashMap<Key, Joining>>>);

/// A hand-off and which of its streams.
type Key = (HandoffId, u64);

/// A stream whose lanes aren't all there yet.
struct Joining {
    lanes: Vec<Option<Pushes>>,
    whole: Option<oneshot::Sender<Vec<Pushes>>>,
    /// Where lane 0 waits for it.
    is_whole: Option<oneshot::Receiver<Vec<Pushes>>>,
    /// The first is cancelled once all lanes are there, the second when the stream ends.
    met: CancellationToken,
    over: CancellationToken,
}

/// A lane's part in a stream that others may still join. Dropped before that, it dissolves the stream.
pub(super) struct Joined {
    meeting: Meeting,
    key: Key,
    is_whole: Option<oneshot::Receiver<Vec<Pushes>>>,
    met: CancellationToken,
    over: CancellationToken,
}

/// All lanes of a stream, as one.
pub(super) struct Merged {
    lanes: Vec<Lane>,
    /// Whose turn it is.
    next: usize,
    /// Payload that came before its turn.
    early_bytes: u64,
    early_bytes_max: u64,
    _over: DropGuard,
}

struct Lane {
    pushes: Option<Pushes>,
    early: VecDeque<Push<Bytes>>,
}

// === impl Meeting ===

impl Meeting {
    /// Adds a lane to its stream.
    ///
    /// # Errors
    /// A status if it is there already, doesn't fit the others, or too many streams wait.
    pub(super) fn join(&self, lane: &LaneOpen, pushes: Pushes) -> Result<Joined, Status> {
        let key = (lane.open.id, lane.open.epoch);
        let mut meeting = self.0.lock();
        if meeting.len() >= JOINING_MAX && !meeting.contains_key(&key) {
            return Err(Status::resource_exhausted("too many streams wait for their lanes"));
        }
        let joining = meeting.entry(key).or_insert_with(|| Joining::new(lane.lanes));
        let lanes = joining.lanes.len();
        let place = joining.lanes.get_mut(lane.lane).filter(|place| place.is_none());
        let Some(place) = place.filter(|_| lanes == lane.lanes) else {
            return Err(Status::invalid_argument("such a lane is there already"));
        };
        *place = Some(pushes);
        let is_whole = if lane.lane == 0 { joining.is_whole.take() } else { None };
        let (met, over) = (joining.met.clone(), joining.over.clone());
        if joining.lanes.iter().all(Option::is_some)
            && let Some(Joining { lanes, whole: Some(whole), met, .. }) = meeting.remove(&key)
        {
            // If lane 0 has gone meanwhile, so has the stream.
            let _ = whole.send(lanes.into_iter().flatten().collect());
            met.cancel();
        }
        drop(meeting);
        Ok(Joined { meeting: self.clone(), key, is_whole, met, over })
    }
}

// === impl Joining ===

impl Joining {
    fn new(lanes: usize) -> Self {
        let (whole, is_whole) = oneshot::channel();
        Self {
            lanes: std::iter::repeat_with(|| None).take(lanes).collect(),
            whole: Some(whole),
            is_whole: Some(is_whole),
            met: CancellationToken::new(),
            over: CancellationToken::new(),
        }
    }
}

impl std::fmt::Debug for Joining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joining").field("lanes", &self.lanes.len()).finish_non_exhaustive()
    }
}

// === impl Joined ===

impl Joined {
    /// Waits for the other lanes.
    ///
    /// - `early_bytes_max`: payload that may come before its turn.
    ///
    /// # Errors
    /// A status if they don't come, or this isn't lane 0.
    pub(super) async fn merged(mut self, early_bytes_max: u64) -> Result<Merged, Status> {
        let over = self.over.clone().drop_guard();
        let is_whole = self.is_whole.take();
        let is_whole = is_whole.ok_or_else(|| Status::invalid_argument("lane 0 came twice"))?;
        let lanes = tokio::time::timeout(JOIN_TIMEOUT, is_whole).await;
        let lanes = lanes.map_err(|_| Status::deadline_exceeded("a lane never came"))?;
        let lanes = lanes.map_err(|_| Status::aborted("a lane has gone"))?;
        let lane = |pushes| Lane { pushes: Some(pushes), early: VecDeque::new() };
        let lanes = lanes.into_iter().map(lane).collect();
        Ok(Merged { lanes, next: 0, early_bytes: 0, early_bytes_max, _over: over })
    }

    /// Waits for the end of the stream.
    ///
    /// # Errors
    /// A status if it never began.
    pub(super) async fn over(self) -> Result<(), Status> {
        tokio::select! {
            () = self.over.cancelled() => return Ok(()),
            met = tokio::time::timeout(JOIN_TIMEOUT, self.met.cancelled()) => {
                met.map_err(|_| Status::deadline_exceeded("a lane never came"))?;
            }
        }
        self.over.cancelled().await;
        Ok(())
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let dissolved =
            if self.met.is_cancelled() { None } else { self.meeting.0.lock().remove(&self.key) };
        // Ends the other lanes' streams, which isn't to be done under the lock.
        drop(dissolved);
    }
}

// === impl Merged ===

impl Merged {
    /// Takes what has come on every lane, also before its turn. A lane that were left full while others
    /// are waited for would hold up the other streams of its connection, and those this one.
    fn drain(&mut self, context: &mut Context<'_>) -> Result<(), Cut> {
        for lane in &mut self.lanes {
            while let Some(pushes) = &mut lane.pushes {
                match pushes.poll_next_unpin(context) {
                    Poll::Ready(Some(push)) => {
                        let push = push?;
                        self.early_bytes += payload_bytes(&push);
                        lane.early.push_back(push);
                        if self.early_bytes > self.early_bytes_max {
                            return Err(Cut("more came than the window allows".into()));
                        }
                    }
                    Poll::Ready(None) => lane.pushes = None,
                    Poll::Pending => break,
                }
            }
        }
        Ok(())
    }

    fn take_next(&mut self) -> Option<Push<Bytes>> {
        let push = self.lanes[self.next].early.pop_front()?;
        self.early_bytes -= payload_bytes(&push);
        self.next = (self.next + 1) % self.lanes.len();
        Some(push)
    }
}

impl Stream for Merged {
    type Item = Result<Push<Bytes>, Cut>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(push) = this.take_next() {
            return Poll::Ready(Some(Ok(push)));
        }
        if let Err(cut) = this.drain(context) {
            return Poll::Ready(Some(Err(cut)));
        }
        match this.take_next() {
            Some(push) => Poll::Ready(Some(Ok(push))),
            None if this.lanes[this.next].pushes.is_none() => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

fn payload_bytes(push: &Push<Bytes>) -> u64 {
    match push {
        Push::Pages(chunk) => chunk.payload.len() as u64,
        Push::Commit(_) => 0,
    }
}

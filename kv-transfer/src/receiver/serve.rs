//! One stream of a hand-off, on the receiving side.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use kv_cache::RejectReason;

use super::Shared;
use super::entry::{Closed, Entry};
use super::write::write;
use crate::message::{Open, Push, Rejection, Reply};
use crate::stats::add;
use crate::transport::Cut;

/// A stream's state between two replies.
enum Serving {
    /// Nothing said yet.
    Opening {
        shared: Arc<Shared>,
        open: Open,
        pushes: Pushes,
    },
    Open(OpenStream),
    /// The last reply has been given.
    Over,
}

struct OpenStream {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    epoch: u64,
    pushes: Pushes,
}

type Pushes = BoxStream<'static, Result<Push, Cut>>;

/// What [`super::Receiver::serve`] does.
pub(super) fn serve(shared: Arc<Shared>, open: Open, pushes: Pushes) -> BoxStream<'static, Reply> {
    let opening = Serving::Opening { shared, open, pushes };
    stream::unfold(opening, |serving| async {
        match serving {
            Serving::Opening { shared, open, pushes } => Some(begin(shared, &open, pushes).await),
            Serving::Open(stream) => stream.next().await,
            Serving::Over => None,
        }
    })
    .boxed()
}

async fn begin(shared: Arc<Shared>, open: &Open, pushes: Pushes) -> (Reply, Serving) {
    match admit(&shared, open).await {
        Ok(entry) => {
            let opened = Reply::Opened { window_bytes: shared.config.window_bytes };
            (opened, Serving::Open(OpenStream { shared, entry, epoch: open.epoch, pushes }))
        }
        Err(rejection) => (Reply::Rejected(rejection), Serving::Over),
    }
}

/// Finds the hand-off that a stream is for and gives it the right to write.
async fn admit(shared: &Shared, open: &Open) -> Result<Arc<Entry>, Rejection> {
    let config = &shared.config;
    if open.incarnation != config.incarnation {
        let detail =
            format!("this is incarnation {}, not {}", config.incarnation, open.incarnation);
        return Err(Rejection::new(RejectReason::StaleIncarnation, detail));
    }
    let entry = shared.table.get(open.id).ok_or_else(|| Rejection::unknown(open.id))?;
    if open.kv_layout != config.kv_layout {
        let detail = format!("KV layout {:?}, not {:?}", config.kv_layout, open.kv_layout);
        let rejection = Rejection::new(RejectReason::LayoutMismatch, detail);
        entry.close(Closed::Refused(rejection.clone()));
        return Err(rejection);
    }
    let taken_over = tokio::time::timeout_at(entry.deadline, entry.take_over(open.epoch)).await;
    taken_over.unwrap_or_else(|_| Err(Rejection::unknown(open.id)))?;
    Ok(entry)
}

// === impl OpenStream ===

impl OpenStream {
    /// The next reply; `None` if the sender has gone.
    async fn next(mut self) -> Option<(Reply, Serving)> {
        let push = tokio::select! {
            biased;
            rejection = self.entry.revoked(self.epoch) => {
                return Some((Reply::Rejected(rejection), Serving::Over));
            }
            () = tokio::time::sleep_until(self.entry.deadline) => {
                self.entry.close(Closed::Expired);
                return Some((Reply::Rejected(Rejection::unknown(self.entry.id)), Serving::Over));
            }
            push = self.pushes.next() => push,
        };
        match push {
            Some(Ok(push)) => Some(self.answer(push).await),
            Some(Err(cut)) => {
                add(&self.shared.stats.streams_cut, 1);
                tracing::debug!(handoff = %self.entry.id, %cut, "the stream broke");
                None
            }
            None => None,
        }
    }

    async fn answer(self, push: Push) -> (Reply, Serving) {
        let reply = match push {
            Push::Pages(chunk) => {
                let sequence = chunk.sequence;
                let (shared, entry, epoch) = (self.shared.clone(), self.entry.clone(), self.epoch);
                let write = move || write(&shared, &entry, epoch, &chunk);
                let written = tokio::task::spawn_blocking(write).await;
                let written = written.unwrap_or_else(|panic| {
                    Err(Rejection::new(RejectReason::Internal, panic.to_string()))
                });
                written.map(|()| Reply::Ack { sequence })
            }
            Push::Commit(record) => self.entry.commit(self.epoch, &record),
        };
        match reply {
            Ok(reply) => (reply, Serving::Open(self)),
            Err(rejection) => {
                self.close_for(&rejection);
                (Reply::Rejected(rejection), Serving::Over)
            }
        }
    }

    /// A stream that had the right to write and wrote nonsense can't be trusted with the rest.
    fn close_for(&self, rejection: &Rejection) {
        match rejection.reason {
            RejectReason::Superseded | RejectReason::UnknownHandoff => {}
            _ => {
                tracing::warn!(handoff = %self.entry.id, %rejection, "refused a hand-off");
                self.entry.close(Closed::Refused(rejection.clone()));
            }
        }
    }
}

//! One stream of a hand-off, on the receiving side.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, FuturesOrdered};
use futures::{FutureExt as _, StreamExt as _};
use kv_cache::{PageSpan, RejectReason};

use super::Destination;
use super::entry::{Closed, Entry};
use super::write::write;
use crate::blocking::{self, Lost};
use crate::message::{Open, PageChunk, Payload, Push, Rejection, Reply};
use crate::stats::add;
use crate::transport::Cut;

/// Chunks of a stream that are written at the same time. Writing one is a hash and a copy on one core, some
/// 5 GB/s.
const WRITES_MAX: usize = 4;

/// A stream's state between two replies.
enum Serving {
    /// Nothing said yet.
    Opening {
        destination: Arc<Destination>,
        open: Open,
        pushes: Pushes,
    },
    Open(OpenStream),
    /// The last reply has been given.
    Over,
}

struct OpenStream {
    destination: Arc<Destination>,
    entry: Arc<Entry>,
    epoch: u64,
    pushes: Pushes,
    pushes_ended: bool,
    /// The chunks being written, in the order of their acknowledgements.
    writes: FuturesOrdered<BoxFuture<'static, Result<u64, Rejection>>>,
    /// Their pages.
    writing: VecDeque<PageSpan>,
    /// What came and has to wait for them.
    pushed: Option<Push>,
}

type Pushes = BoxStream<'static, Result<Push, Cut>>;

/// What [`super::Receiver::serve`] does.
pub(super) fn serve(
    destination: Arc<Destination>,
    open: Open,
    pushes: Pushes,
) -> BoxStream<'static, Reply> {
    let opening = Serving::Opening { destination, open, pushes };
    stream::unfold(opening, |serving| async {
        match serving {
            Serving::Opening { destination, open, pushes } => {
                Some(begin(destination, &open, pushes).await)
            }
            Serving::Open(stream) => stream.next().await,
            Serving::Over => None,
        }
    })
    .boxed()
}

async fn begin(destination: Arc<Destination>, open: &Open, pushes: Pushes) -> (Reply, Serving) {
    match admit(&destination, open).await {
        Ok(entry) => {
            let opened = Reply::Opened { window_bytes: destination.config.window_bytes };
            (opened, Serving::Open(OpenStream::new(destination, entry, open.epoch, pushes)))
        }
        Err(rejection) => (Reply::Rejected(rejection), Serving::Over),
    }
}

/// Finds the hand-off that a stream is for and gives it the right to write.
async fn admit(destination: &Destination, open: &Open) -> Result<Arc<Entry>, Rejection> {
    let config = &destination.config;
    if open.incarnation != config.incarnation {
        let detail =
            format!("this is incarnation {}, not {}", config.incarnation, open.incarnation);
        return Err(Rejection::new(RejectReason::StaleIncarnation, detail));
    }
    let entry = destination.table.get(open.id).ok_or_else(|| Rejection::unknown(open.id))?;
    let ours = destination.region.layout();
    if let Err(misfit) = open.kv_layout.fits(ours) {
        let detail = format!("KV in {ours}, not {}: {misfit}", open.kv_layout);
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
    fn new(destination: Arc<Destination>, entry: Arc<Entry>, epoch: u64, pushes: Pushes) -> Self {
        let writes = FuturesOrdered::new();
        let (writing, pushed) = (VecDeque::new(), None);
        Self { destination, entry, epoch, pushes, pushes_ended: false, writes, writing, pushed }
    }

    /// The next reply; `None` if the sender has gone.
    async fn next(mut self) -> Option<(Reply, Serving)> {
        loop {
            match self.pushed.take_if(|push| may_begin(push, &self.writing)) {
                Some(Push::Commit(record)) => {
                    let reply = self.entry.commit(self.epoch, &record);
                    return Some(self.say(reply));
                }
                Some(Push::Pages(chunk)) => self.begin_write(chunk),
                None => {}
            }
            let takes_more = self.pushed.is_none() && !self.pushes_ended;
            tokio::select! {
                biased;
                // A write that fails closes the hand-off, and knows why better than this does.
                rejection = self.entry.revoked(self.epoch), if self.writes.is_empty() => {
                    return Some((Reply::Rejected(rejection), Serving::Over));
                }
                () = tokio::time::sleep_until(self.entry.deadline) => {
                    self.entry.close(Closed::Expired);
                    let rejection = Rejection::unknown(self.entry.id);
                    return Some((Reply::Rejected(rejection), Serving::Over));
                }
                Some(written) = self.writes.next() => {
                    self.writing.pop_front();
                    return Some(self.say(written.map(|sequence| Reply::Ack { sequence })));
                }
                push = self.pushes.next(), if takes_more => match push {
                    Some(Ok(push)) => self.pushed = Some(push),
                    Some(Err(cut)) => {
                        add(&self.destination.stats.streams_cut, 1);
                        tracing::debug!(handoff = %self.entry.id, %cut, "the stream broke");
                        return None;
                    }
                    None => self.pushes_ended = true,
                },
                else => return None,
            }
        }
    }

    /// Writes on a blocking thread; goes on to its end whatever becomes of the stream.
    fn begin_write(&mut self, chunk: PageChunk) {
        self.writing.push_back(chunk.span.clone());
        let sequence = chunk.sequence;
        let (destination, entry, epoch) =
            (self.destination.clone(), self.entry.clone(), self.epoch);
        let region = destination.region.clone();
        let write = move || write(&destination, &entry, epoch, &chunk);
        let written = blocking::start(region.as_ref(), write).map(move |written| {
            let failed = |lost: Lost| Err(Rejection::new(RejectReason::Internal, lost));
            written.unwrap_or_else(failed).map(|()| sequence)
        });
        self.writes.push_back(written.boxed());
    }

    fn say(self, reply: Result<Reply, Rejection>) -> (Reply, Serving) {
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

/// Whether `push` can be dealt with beside the chunks being written. A commit is about all of them; two
/// writers of one page would each think that it is new; and pages in place may have to be waited for,
/// which one thread of the process does for each hand-off.
fn may_begin(push: &Push, writing: &VecDeque<PageSpan>) -> bool {
    let writes_max = match push {
        Push::Commit(_) => 1,
        Push::Pages(PageChunk { payload: Payload::InPlace(_), .. }) => 1,
        Push::Pages(PageChunk { span, .. }) if writing.iter().any(|it| it.overlaps(span)) => 1,
        Push::Pages(_) => WRITES_MAX,
    };
    writing.len() < writes_max
}

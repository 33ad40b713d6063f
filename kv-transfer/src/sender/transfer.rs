//! One hand-off's task: reads, sends, listens, starts over.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt as _, StreamExt as _, TryFutureExt as _};
use kv_cache::{Fence, KvRegion, PageSpan};
use tokio::sync::mpsc::{self, Permit};
use tokio::time::Instant;

use super::connect::Connector;
use super::gather::{Gathered, settled};
use super::outbox::Outbox;
use super::{Order, SendJob, SendReport, Sender};
use crate::buffers::Buffers;
use crate::message::{Open, Push, Reply};
use crate::stats::add;
use crate::transport::{Cut, Link, Transport};
use crate::{TransferError, TransferStats};

/// One hand-off being sent.
pub(super) struct Transfer {
    region: Arc<dyn KvRegion>,
    /// The receiver copies pages from `region` itself.
    in_place: bool,
    buffers: Buffers,
    /// Its turn for buffers: the number of hand-offs begun before.
    turn: u64,
    stats: Arc<TransferStats>,
    connector: Connector,
    outbox: Outbox,
    orders: mpsc::Receiver<Order>,
    /// The pages being read. Outlives the stream, so that what is read is not read twice.
    gathering: FuturesOrdered<BoxFuture<'static, Result<Gathered, TransferError>>>,
    /// Waits until the next pages are filled: they take no buffer before.
    settling: Option<BoxFuture<'static, Result<Fence, TransferError>>>,
    /// Every fence up to this one has passed.
    settled: Fence,
    window_bytes: u64,
    stall: Duration,
    deadline: Instant,
    rounds_left: u32,
    rounds_max: u32,
    blocks: u32,
    first_push: Option<Instant>,
}

/// What happens next on a stream.
enum Event<'a> {
    Reply(Option<Result<Reply, Cut>>),
    Gathered(Result<Gathered, TransferError>),
    Settled(Result<Fence, TransferError>),
    Writable(Option<Permit<'a, Push>>),
    Order(Option<Order>),
    Stalled,
}

/// What an event means to the stream.
enum Next {
    GoOn,
    Cut(String),
    Done,
}

// === impl Transfer ===

impl Transfer {
    pub(super) fn new(
        sender: &Sender,
        job: SendJob,
        transports: Vec<Arc<dyn Transport>>,
        in_place: bool,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        let config = &sender.config;
        let layout = job.region.layout();
        let blocks = job.blocks.len() as u32;
        let span = PageSpan { layers: 0..layout.layers(), blocks: job.blocks };
        let bytes = (span.pages() * layout.page_bytes()) as u64;
        let message_bytes = if in_place { config.in_place_bytes } else { config.message_bytes };
        let outbox = Outbox::new(span, job.tokens, layout.page_bytes(), message_bytes);
        let incarnation = job.target.incarnation;
        let kv_layout = layout.clone();
        let open = Open { id: job.id, incarnation, kv_layout, epoch: 0, bytes };
        Self {
            outbox,
            region: job.region,
            in_place,
            buffers: sender.buffers.clone(),
            turn: sender.started.fetch_add(1, Ordering::Relaxed),
            stats: sender.stats.clone(),
            connector: Connector::new(
                job.target,
                transports,
                open,
                config.open_timeout,
                config.opens_max,
            ),
            orders,
            gathering: FuturesOrdered::new(),
            settling: None,
            settled: Fence::default(),
            window_bytes: config.window_bytes,
            stall: config.stall,
            deadline: job.deadline.into(),
            rounds_left: config.rounds_max,
            rounds_max: config.rounds_max,
            blocks,
            first_push: None,
        }
    }

    /// Sends until the receiver has verified everything, or there is no more hope.
    pub(super) async fn run(mut self) -> Result<SendReport, TransferError> {
        let delivered = tokio::time::timeout_at(self.deadline, self.deliver()).await;
        delivered.unwrap_or(Err(TransferError::Deadline))
    }

    async fn deliver(&mut self) -> Result<SendReport, TransferError> {
        loop {
            let (link, transport) = self.connector.next().await?;
            let Some(cause) = self.pump(link).await? else { return Ok(self.report(transport)) };
            add(&self.stats.streams_cut, 1);
            add(&self.stats.resent_pages, self.outbox.rewind());
            self.connector.failed(cause);
        }
    }

    /// Runs one stream to its end: `None` when all is verified, else what cut it.
    async fn pump(&mut self, mut link: Link) -> Result<Option<String>, TransferError> {
        let window_bytes = link.window_bytes.min(self.window_bytes);
        // Since when the receiver owes an answer.
        let mut silent_since = Instant::now();
        loop {
            self.gather(window_bytes);
            // Once it takes nothing more, the answer says why.
            let ending = link.pushes.is_closed();
            let owed = ending || self.outbox.awaits_answer();
            let stalled_at = silent_since + self.stall;
            let event = tokio::select! {
                biased;
                reply = link.replies.next() => Event::Reply(reply),
                permit = link.pushes.reserve(), if !ending && self.outbox.has_ready() => {
                    Event::Writable(permit.ok())
                }
                Some(gathered) = self.gathering.next() => Event::Gathered(gathered),
                settled = poll(&mut self.settling) => Event::Settled(settled),
                order = self.orders.recv(), if !self.orders.is_closed() => Event::Order(order),
                () = tokio::time::sleep_until(stalled_at), if owed => Event::Stalled,
            };
            if matches!(event, Event::Reply(_)) || !owed {
                silent_since = Instant::now();
            }
            match self.apply(event)? {
                Next::GoOn => {}
                Next::Cut(cause) => return Ok(Some(cause)),
                Next::Done => return Ok(None),
            }
        }
    }

    fn apply(&mut self, event: Event<'_>) -> Result<Next, TransferError> {
        match event {
            Event::Reply(Some(Ok(reply))) => return self.hear(reply),
            Event::Reply(Some(Err(Cut(cause)))) => return Ok(Next::Cut(cause)),
            Event::Reply(None) => return Ok(Next::Cut("the receiver ended the stream".into())),
            Event::Writable(Some(permit)) => {
                if let Some(push) = self.outbox.pop_ready() {
                    self.count(&push);
                    permit.send(push);
                }
            }
            Event::Writable(None) => {}
            Event::Gathered(gathered) => self.outbox.gathered(gathered?),
            Event::Settled(settled) => {
                self.settling = None;
                self.settled = self.settled.max(settled?);
            }
            Event::Order(Some(Order::Push(pages))) => {
                self.first_push.get_or_insert_with(Instant::now);
                self.outbox.push(pages)?;
            }
            Event::Order(Some(Order::Commit(context))) => {
                self.orders.close();
                self.outbox.commit(context)?;
            }
            Event::Order(None) => return Err(TransferError::Abandoned),
            Event::Stalled => return Ok(Next::Cut(format!("no answer for {:?}", self.stall))),
        }
        Ok(Next::GoOn)
    }

    fn hear(&mut self, reply: Reply) -> Result<Next, TransferError> {
        match reply {
            Reply::Ack { sequence } => {
                if self.outbox.acknowledged(sequence) {
                    self.connector.progressed();
                }
            }
            Reply::Missing(spans) => {
                let Some(left) = self.rounds_left.checked_sub(1) else {
                    return Err(TransferError::StillMissing { rounds: self.rounds_max + 1 });
                };
                self.rounds_left = left;
                self.outbox.missing(&spans)?;
                add(&self.stats.resent_pages, spans.iter().map(PageSpan::pages).sum());
                self.connector.progressed();
            }
            Reply::Verified { .. } => return Ok(Next::Done),
            Reply::Rejected(rejection) => return Err(TransferError::Rejected(rejection)),
            Reply::Opened { .. } => {
                return Err(TransferError::Protocol("the stream was opened twice".into()));
            }
        }
        Ok(Next::GoOn)
    }

    /// Begins to read the next pages, if there are any, they are filled and the window has room. Pages
    /// in place take no memory on their way, so no window holds them up, and the receiver waits.
    fn gather(&mut self, window_bytes: u64) {
        if self.in_place {
            while let Some(gather) = self.outbox.next_gather(u64::MAX) {
                self.outbox.gathered(gather.in_place(self.region.clone()));
            }
            return;
        }
        while let Some(fence) = self.outbox.next_fence() {
            if fence > self.settled {
                let settling = || settled(self.region.clone(), fence).boxed();
                self.settling.get_or_insert_with(settling);
                return;
            }
            let Some(gather) = self.outbox.next_gather(window_bytes) else { return };
            let gather = gather.run(self.region.clone(), self.buffers.clone(), self.turn);
            let stats = self.stats.clone();
            let counted = gather.inspect_ok(move |read| add(&stats.copy_us, read.took_us));
            self.gathering.push_back(counted.boxed());
        }
    }

    fn count(&self, push: &Push) {
        if let Push::Pages(chunk) = push {
            let pages = chunk.span.pages();
            add(&self.stats.bytes, pages * self.region.layout().page_bytes());
            add(&self.stats.pages, pages);
            add(&self.stats.in_place_pages, if self.in_place { pages } else { 0 });
        }
    }

    fn report(&self, transport: &'static str) -> SendReport {
        SendReport {
            transport,
            bytes: self.outbox.total_bytes(),
            blocks: self.blocks,
            resent_pages: self.outbox.resent_pages(),
            duration: self.first_push.map_or(Duration::ZERO, |first| first.elapsed()),
        }
    }
}

/// Waits for `future`, or for ever if there is none.
async fn poll<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

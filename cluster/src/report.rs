//! A worker's side of the load reports: `baton.v1.Worker`.

mod kv_feed;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use kv_cache::BlockPool;
use proto::v1;
use proto::v1::worker_server::{Worker, WorkerServer};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};
use words::{Incarnation, Load, NodeState, WorkerInfo};

use self::kv_feed::{KvFeed, KvFollower};
use crate::{ErrorCode, Lifecycle};

/// How often a worker reports, unless told otherwise.
pub const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// Whoever knows how busy a worker is. Asked at each report; must answer at once.
pub trait ReportSource: Send + Sync + 'static {
    /// The load now. Its `sequence` is filled in by the service.
    fn load(&self) -> Load;
}

impl<F: Fn() -> Load + Send + Sync + 'static> ReportSource for F {
    fn load(&self) -> Load {
        self()
    }
}

/// Streams a worker's reports to whoever asks.
///
/// There is one sequence of reports, taken by one task and seen by every stream: at each interval
/// and at each change of state. A slow reader skips reports; their numbers tell.
#[derive(Clone, Debug)]
pub struct ReportService {
    incarnation: Incarnation,
    worker: Arc<v1::WorkerInfo>,
    reports: watch::Receiver<v1::LoadReport>,
    /// `None` where there is nothing to be found.
    kv: Option<KvFeed>,
    followers: Followers,
}

/// Counts the open streams of those that know this life of the worker. A clone counts the same.
#[derive(Clone, Debug, Default)]
pub struct Followers {
    streams: Arc<AtomicUsize>,
}

/// Counts one stream for as long as it lives.
struct Following(Followers);

/// The task that takes reports.
struct Sampler<S> {
    incarnation: Incarnation,
    source: S,
    sequence: u64,
}

// === impl ReportService ===

impl ReportService {
    /// Starts to take reports, among the node's tasks, until the node has stopped.
    ///
    /// - `namespace`: the cluster that the worker belongs to.
    /// - `info`: what it publishes.
    pub fn start(
        namespace: &str,
        info: &WorkerInfo,
        source: impl ReportSource,
        every: Duration,
        node: &Lifecycle,
    ) -> Self {
        let incarnation = info.address.incarnation;
        let worker = Arc::new(v1::WorkerInfo::new(namespace, info));
        let mut sampler = Sampler { incarnation, source, sequence: 0 };
        let (publish, reports) = watch::channel(sampler.sample(node.state()));
        let node = node.clone();
        let tasks = node.tasks().clone();
        tasks.spawn(async move { sampler.run(every, &node, &publish).await });
        Self { incarnation, worker, reports, kv: None, followers: Followers::default() }
    }

    /// The same, which also tells which blocks of `pool` can be found. It takes the pool's events.
    #[must_use]
    pub fn with_kv(self, pool: BlockPool) -> Self {
        Self { kv: Some(KvFeed::new(pool)), ..self }
    }

    /// Who follows the worker's reports.
    #[must_use]
    pub fn followers(&self) -> Followers {
        self.followers.clone()
    }

    /// The service to add to a server's routes.
    #[must_use]
    pub fn into_server(self) -> WorkerServer<Self> {
        WorkerServer::new(self)
    }
}

#[tonic::async_trait]
impl Worker for ReportService {
    type ReportStream = Pin<Box<dyn Stream<Item = Result<v1::LoadReport, Status>> + Send>>;

    async fn report(
        &self,
        request: Request<v1::ReportRequest>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let v1::ReportRequest { incarnation: want, kv, kv_number } = request.into_inner();
        if want != 0 && want != self.incarnation.0 {
            let message = format!("this is life {}, not {want}", self.incarnation.0);
            return Err(ErrorCode::StaleIncarnation.status(message));
        }
        // Who asks for any life doesn't know this one yet.
        let follows = (want != 0).then(|| self.followers.join());
        let mut worker = Some(v1::WorkerInfo::clone(&self.worker));
        let kv = self.kv.as_ref().filter(|_| kv).map(|feed| feed.follow(kv_number));
        let reports = with_kv(WatchStream::new(self.reports.clone()), kv).map(move |report| {
            let _counted = &follows;
            Ok(v1::LoadReport { worker: worker.take(), ..report })
        });
        Ok(Response::new(Box::pin(reports)))
    }
}

/// Each report with the news of what can be found; the same one again where they take several messages.
fn with_kv(
    reports: WatchStream<v1::LoadReport>,
    kv: Option<KvFollower>,
) -> impl Stream<Item = v1::LoadReport> {
    stream::unfold((reports, kv, None), |(mut reports, mut kv, told)| async move {
        let mut news = || kv.as_mut().and_then(KvFollower::next).map(|news| (&news).into());
        let more = told.and_then(|told: v1::LoadReport| Some((told, news()?)));
        let (report, kv_news) = match more {
            Some((told, more)) => (told, Some(more)),
            None => (reports.next().await?, news()),
        };
        let next = v1::LoadReport { kv: kv_news, ..report.clone() };
        Some((next, (reports, kv, Some(report))))
    })
}

// === impl Followers ===

impl Followers {
    /// Streams that are open to callers who named this life.
    #[must_use]
    pub fn count(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    fn join(&self) -> Following {
        self.streams.fetch_add(1, Ordering::Relaxed);
        Following(self.clone())
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Sampler ===

impl<S: ReportSource> Sampler<S> {
    async fn run(
        &mut self,
        every: Duration,
        node: &Lifecycle,
        publish: &watch::Sender<v1::LoadReport>,
    ) {
        let mut states = node.states();
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = states.changed() => {}
                () = node.stopped().cancelled() => break,
            }
            publish.send_replace(self.sample(*states.borrow_and_update()));
        }
        // The streams send this one and end.
        publish.send_replace(self.sample(node.state()));
    }

    fn sample(&mut self, state: NodeState) -> v1::LoadReport {
        self.sequence += 1;
        let load = Load { sequence: self.sequence, ..self.source.load() };
        v1::LoadReport::new(self.incarnation, state, &load)
    }
}

//! One member's report stream, opened again whenever it breaks.

use std::convert::Infallible;
use std::mem;
use std::time::Duration;

use proto::Readable;
use proto::v1;
use proto::v1::worker_client::WorkerClient;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tonic::{Code, Status, Streaming};
use tracing::{debug, warn};
use words::{Address, KvNews, Life, Load, NodeState, Role, WorkerInfo};

use super::LoadConfig;
use super::attention::Attention;
use crate::error::innermost;
use crate::retry::backoff::Backoff;
use crate::rpc::Channels;
use crate::{ErrorCode, rpc};

/// Looks at a silent stream until its worker counts as lost. Counted rather than measured: time in
/// which this process did not look is not held against the worker.
const LOOKS: u32 = 4;

/// Something seen of a member in one of its lives.
#[derive(Debug)]
pub(super) struct Sighting {
    pub(super) life: Life,
    pub(super) seen: Seen,
}

/// What was seen.
#[derive(Debug)]
pub(super) enum Seen {
    /// A report.
    Report(NodeState, Load),
    /// The stream broke, could not be opened, or was silent for too long.
    Lost(String),
    /// Another life of the worker answers at this one's address.
    Another(Box<WorkerInfo>),
}

/// The task that follows one member.
pub(super) struct Member {
    address: Address,
    role: Role,
    channels: Channels,
    config: LoadConfig,
    sightings: mpsc::Sender<Sighting>,
    attention: Attention,
    /// Whether it was ever heard, or told of because it was not.
    is_known: bool,
}

// === impl Member ===

impl Member {
    pub(super) fn new(
        info: &WorkerInfo,
        channels: Channels,
        config: LoadConfig,
        sightings: mpsc::Sender<Sighting>,
    ) -> Self {
        let silence = config.silence();
        let attention = Attention::new(silence / 2, silence, Instant::now());
        let (address, role) = (info.address.clone(), info.role);
        Self { address, role, channels, config, sightings, attention, is_known: false }
    }

    /// Runs until dropped.
    pub(super) async fn run(mut self) {
        let LoadConfig { retry_first, retry_limit, .. } = self.config;
        let mut backoff = Backoff::new(retry_first, retry_limit, Backoff::seed());
        loop {
            let Err(status) = self.follow(&mut backoff).await;
            self.wake();
            let worker = &self.address.worker;
            if status.code() == Code::DataLoss {
                debug!(%worker, %status, "the stream is opened again, for a snapshot");
            } else if self.attention.is_graceful(Instant::now()) {
                debug!(%worker, %status, "no reports after this node was away: trying again");
            } else {
                debug!(%worker, %status, "no reports");
                self.tell_of_silence(&status);
                self.give_up_silent_connection(&status);
                self.tell(Seen::Lost(status.message().to_owned())).await;
                self.config.prefixes.iter().for_each(|it| it.lose(&self.address.life()));
            }
            let delay = backoff.delay();
            self.attention.rest_until(Instant::now() + delay);
            tokio::time::sleep(delay).await;
            self.wake();
        }
    }

    /// Says once of a member that it has never been heard: either this node can't reach it, or one doesn't believe the
    /// other, and nobody else would say so.
    fn tell_of_silence(&mut self, status: &Status) {
        if !mem::replace(&mut self.is_known, true) {
            let (worker, uri) = (&self.address.worker, &self.address.uri);
            let cause = innermost(status).to_string();
            warn!(%worker, %uri, cause, "a member that can't be heard: is its address reachable from here, and are the \
                certificates' authority or the cluster secret the same on both?");
        }
    }

    /// Lets the next call to the worker go over another connection, if this one was silent: one flipped bit in the
    /// wrong place, and a connection answers pings and nothing else, for ever.
    fn give_up_silent_connection(&self, status: &Status) {
        if status.code() == Code::DeadlineExceeded {
            self.channels.evict(&self.address.uri);
        }
    }

    /// Passes reports on until the stream breaks.
    async fn follow(&mut self, backoff: &mut Backoff) -> Result<Infallible, Status> {
        let mut reports = match self.open(self.address.incarnation.0).await {
            Err(status) if ErrorCode::from(&status) == ErrorCode::StaleIncarnation => {
                self.is_known = true;
                self.meet_another().await?;
                return Err(status);
            }
            opened => opened?,
        };
        self.is_known = true;
        let (look, mut looks) = (self.config.silence() / LOOKS, 0);
        let mut ticks = ticks(look);
        while looks < LOOKS {
            self.attention.rest_until(Instant::now() + look);
            let report = tokio::select! {
                biased;
                report = reports.message() => Some(report),
                _ = ticks.tick() => None,
            };
            let away = self.wake();
            let Some(report) = report else {
                looks = if away { 0 } else { looks + 1 };
                continue;
            };
            let mut report = report?.ok_or_else(|| Status::unavailable("the reports ended"))?;
            if report.incarnation != self.address.incarnation.0 {
                return Err(ErrorCode::StaleIncarnation.status("another life answers"));
            }
            let (state, load) = report.parts()?;
            backoff.reset();
            ticks.reset();
            looks = 0;
            self.tell(Seen::Report(state, load)).await;
            if let Some(news) = report.kv.take() {
                self.note_cached(&news.try_into()?)?;
            }
        }
        Err(Status::deadline_exceeded("no report for too long"))
    }

    /// Takes in what it has cached. What doesn't follow is no proof that the worker is ill.
    fn note_cached(&self, news: &KvNews) -> Result<(), Status> {
        let Some(prefixes) = &self.config.prefixes else { return Ok(()) };
        let taken = prefixes.take(&self.address.life(), news);
        taken.map_err(|gap| Status::data_loss(gap.to_string()))
    }

    /// Asks whoever answers at this member's address who it is, and tells if it is the same worker
    /// in another life.
    async fn meet_another(&mut self) -> Result<(), Status> {
        let mut reports = self.open(0).await?;
        let first = timeout(self.config.silence(), reports.message()).await;
        let report = first.map_err(|_| Status::deadline_exceeded("no report"))??;
        let Some(report) = report else { return Ok(()) };
        let (state, _) = report.parts()?;
        let Some(found) = report.worker else { return Ok(()) };
        let is_ours = found.namespace == self.config.namespace;
        let mut info = found.info(state)?;
        // Ports are given again: to a worker of another name, or of another cluster.
        if is_ours && info.address.worker == self.address.worker {
            // Where it was found it can be reached, whatever it thinks of itself.
            info.address.uri.clone_from(&self.address.uri);
            self.tell(Seen::Another(Box::new(info))).await;
        }
        Ok(())
    }

    async fn open(&mut self, incarnation: u64) -> Result<Streaming<v1::LoadReport>, Status> {
        let channel = self.channels.get(&self.address, self.role);
        let mut client = WorkerClient::new(Readable::of(channel));
        let kv_number = self.config.prefixes.as_ref().map(|it| it.number(&self.address.life()));
        let request = v1::ReportRequest {
            incarnation,
            kv: kv_number.is_some() && incarnation != 0,
            kv_number: kv_number.unwrap_or(0),
        };
        let request = rpc::request_without_deadline(request);
        let silence = self.config.silence();
        self.attention.rest_until(Instant::now() + silence);
        // A worker that can't open a stream in the time of its missed reports is no better than one
        // that misses them.
        timeout(silence, client.report(request))
            .await
            .map_err(|_| Status::deadline_exceeded("no answer"))?
            .map(tonic::Response::into_inner)
    }

    /// Is awake. Whether this node was away until now.
    fn wake(&mut self) -> bool {
        let away = self.attention.wake(Instant::now());
        if away {
            debug!(worker = %self.address.worker, "this node was away: the worker gets time to be heard again");
        }
        away
    }

    async fn tell(&self, seen: Seen) {
        let sighting = Sighting { life: self.address.life(), seen };
        // Nobody listens any more only when the watcher stops, and then this task does too.
        drop(self.sightings.send(sighting).await);
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

//! One member's report stream, opened again whenever it breaks.

use std::time::Duration;

use proto::v1;
use proto::v1::worker_client::WorkerClient;
use scheduler::{Address, Incarnation, Load, NodeState, WorkerId};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tracing::debug;

use super::LoadConfig;
use crate::backoff::Backoff;
use crate::rpc;

/// Something seen of a member in one of its lives.
#[derive(Debug)]
pub(super) struct Sighting {
    pub(super) worker: WorkerId,
    pub(super) incarnation: Incarnation,
    pub(super) seen: Seen,
}

/// What was seen.
#[derive(Debug)]
pub(super) enum Seen {
    /// A report.
    Report(NodeState, Load),
    /// The stream broke, could not be opened, or was silent for too long.
    Lost(String),
}

/// The task that follows one member.
pub(super) struct Member {
    address: Address,
    channel: Channel,
    config: LoadConfig,
    sightings: mpsc::Sender<Sighting>,
}

// === impl Member ===

impl Member {
    pub(super) fn new(
        address: Address,
        channel: Channel,
        config: LoadConfig,
        sightings: mpsc::Sender<Sighting>,
    ) -> Self {
        Self { address, channel, config, sightings }
    }

    /// Runs until dropped.
    pub(super) async fn run(self) {
        let LoadConfig { retry_first, retry_limit, .. } = self.config;
        let mut backoff = Backoff::new(retry_first, retry_limit, Backoff::seed());
        loop {
            let Err(status) = self.follow(&mut backoff).await;
            debug!(worker = %self.address.worker, %status, "no reports");
            self.tell(Seen::Lost(status.message().to_owned())).await;
            tokio::time::sleep(backoff.delay()).await;
        }
    }

    /// Passes reports on until the stream breaks.
    async fn follow(&self, backoff: &mut Backoff) -> Result<std::convert::Infallible, Status> {
        let mut reports = self.open().await?;
        let silence = self.silence();
        loop {
            let report = timeout(silence, reports.message())
                .await
                .map_err(|_| Status::deadline_exceeded("no report for too long"))??
                .ok_or_else(|| Status::unavailable("the reports ended"))?;
            if report.incarnation != self.address.incarnation.0 {
                return Err(Status::failed_precondition("another life answers"));
            }
            let (state, load) = report.parts()?;
            backoff.reset();
            self.tell(Seen::Report(state, load)).await;
        }
    }

    async fn open(&self) -> Result<Streaming<v1::LoadReport>, Status> {
        let mut client = WorkerClient::new(self.channel.clone());
        let request = v1::ReportRequest { incarnation: self.address.incarnation.0 };
        let opened = client.report(rpc::request_without_deadline(request));
        // A worker that can't open a stream in the time of its missed reports is no better than one
        // that misses them.
        timeout(self.silence(), opened)
            .await
            .map_err(|_| Status::deadline_exceeded("no answer"))?
            .map(tonic::Response::into_inner)
    }

    fn silence(&self) -> Duration {
        self.config.report_interval * self.config.misses_max
    }

    async fn tell(&self, seen: Seen) {
        let Address { worker, incarnation, .. } = &self.address;
        let sighting = Sighting { worker: worker.clone(), incarnation: *incarnation, seen };
        // Nobody listens any more only when the watcher stops, and then this task does too.
        drop(self.sightings.send(sighting).await);
    }
}

//! Streams, one after the other, until one holds.

use std::sync::Arc;
use std::time::Duration;

use crate::TransferError;
use crate::message::Open;
use crate::transport::{Link, OpenError, Target, Transport};

/// Pause before a second try; doubled with each further one.
const BACKOFF: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Opens a hand-off's streams, each with a higher epoch than the one before.
pub(super) struct Connector {
    pub(super) target: Target,
    /// To be tried in this order.
    pub(super) transports: Vec<Arc<dyn Transport>>,
    /// What to open; its epoch is the last one's.
    pub(super) open: Open,
    pub(super) timeout: Duration,
    pub(super) opens_max: u32,
    /// Streams that failed since one last made progress.
    failures: u32,
    /// Why the last one did.
    cause: String,
}

// === impl Connector ===

impl Connector {
    pub(super) fn new(
        target: Target,
        transports: Vec<Arc<dyn Transport>>,
        open: Open,
        timeout: Duration,
        opens_max: u32,
    ) -> Self {
        let opens_max = opens_max.max(1);
        let cause = String::new();
        Self { target, transports, open, timeout, opens_max, failures: 0, cause }
    }

    /// The next stream, and the name of its transport.
    ///
    /// # Errors
    /// [`TransferError::Rejected`] at once, [`TransferError::Unreachable`] when every transport
    /// has failed too often.
    pub(super) async fn next(&mut self) -> Result<(Link, &'static str), TransferError> {
        loop {
            let turn = (self.failures / self.opens_max) as usize;
            let Some(transport) = self.transports.get(turn).cloned() else {
                return Err(self.unreachable());
            };
            self.pause().await;
            self.open.epoch += 1;
            let opening = transport.open(&self.target, self.open.clone());
            match tokio::time::timeout(self.timeout, opening).await {
                Ok(Ok(link)) => return Ok((link, transport.name())),
                Ok(Err(OpenError::Rejected(rejection))) => {
                    return Err(TransferError::Rejected(rejection));
                }
                Ok(Err(OpenError::Unreachable(cause))) => self.failed(cause),
                Err(_) => self.failed("no answer to `open`".into()),
            }
        }
    }

    /// Notes that the last stream achieved something.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Notes that the last stream is lost.
    pub(super) fn failed(&mut self, cause: String) {
        let transport = (self.failures / self.opens_max) as usize;
        let transport = self.transports.get(transport).map_or("", |transport| transport.name());
        tracing::debug!(handoff = %self.open.id, uri = self.target.uri, transport, cause, "stream lost");
        self.failures += 1;
        self.cause = cause;
    }

    async fn pause(&self) {
        if let Some(doublings) = self.failures.checked_sub(1) {
            let pause = BACKOFF.saturating_mul(1 << doublings.min(10)).min(BACKOFF_MAX);
            tokio::time::sleep(pause).await;
        }
    }

    fn unreachable(&self) -> TransferError {
        TransferError::Unreachable {
            uri: self.target.uri.clone(),
            attempts: self.failures,
            cause: self.cause.clone(),
        }
    }
}

//! Who asks for something, and since when.

use std::fmt;
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};
use words::{ClientId, RequestId, Targets};

use super::access::Call;

/// A call that asks for tokens, whatever it came over.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Names the request everywhere.
    pub id: RequestId,
    /// Where it came in.
    pub endpoint: Endpoint,
    /// When it came in.
    pub received: Instant,
    /// The client's patience, from `received` on.
    pub timeout: Duration,
    /// Who asks.
    pub client: ClientId,
    /// How soon it wants its tokens.
    pub targets: Targets,
    /// What the access log will tell of it.
    pub call: Call,
}

/// The name of an API in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint(pub &'static str);

// === impl Caller ===

impl Caller {
    /// When the client's patience ends.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.received + self.timeout
    }
}

// === impl Endpoint ===

impl EncodeLabelValue for Endpoint {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.0, encoder)
    }
}

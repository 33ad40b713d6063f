//! What comes in is what was sent, or it is nothing.

use cluster::telemetry::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use proto::convert::required;
use proto::{SealChain, Sealed, WireError, v1};
use words::Generation;

use crate::WorkerError;

/// Opens a worker's messages: nothing in one is believed before its seal is right. Counts those that were
/// damaged.
#[derive(Clone, Debug)]
pub struct Integrity {
    damaged: Family<MessageLabels, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MessageLabels {
    message: &'static str,
}

// === impl Integrity ===

impl Integrity {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let help = "Messages that were not what had been sent, refused";
        Self { damaged: metrics.counters("baton_damaged_messages", help) }
    }

    /// Checks the message of a call, and returns its seal, which its answers follow.
    ///
    /// # Errors
    /// [`WorkerError::Wire`] if it was damaged.
    pub fn open<M: Sealed>(&self, name: &'static str, call: &mut M) -> Result<u64, WorkerError> {
        call.check_seal(0).map_err(|error| self.note(name, error))
    }

    /// Takes the work out of a call, sealed as a whole by the router.
    ///
    /// # Errors
    /// [`WorkerError::Wire`] if it was damaged, or else naming the field at fault.
    pub fn generation(&self, wire: Option<v1::Generation>) -> Result<Generation, WorkerError> {
        let generation = required("generation", wire).and_then(TryInto::try_into);
        generation.map_err(|error| self.note("generation", error))
    }

    /// Checks that `answer` is the next of a peer's.
    ///
    /// # Errors
    /// [`WorkerError::Wire`] if it was damaged, or isn't the next.
    pub fn next<M: Sealed>(
        &self,
        name: &'static str,
        chain: &mut SealChain,
        answer: &mut M,
    ) -> Result<(), WorkerError> {
        chain.check(answer).map_err(|error| self.note(name, error))
    }

    fn note(&self, message: &'static str, error: WireError) -> WorkerError {
        if error.damaged {
            self.damaged.get_or_create(&MessageLabels { message }).inc();
            tracing::warn!(message, %error, "a damaged message is refused");
        }
        error.into()
    }
}

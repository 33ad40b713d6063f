//! Why a hand-off failed, on either side.

use kv_cache::RegionError;

use crate::message::Rejection;

/// What ended a hand-off before it was verified, or kept it from beginning.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum TransferError {
    /// The deadline passed. Retrying within the same deadline can't help.
    #[error("the deadline passed before the hand-off was verified")]
    Deadline,
    /// The receiver refused. Another attempt needs a new hand-off.
    #[error("the receiver refused: {0}")]
    Rejected(Rejection),
    /// No stream to the receiver holds. Another peer may work.
    #[error("{uri} can't be reached, {attempts} attempts: {cause}")]
    Unreachable {
        /// Where.
        uri: String,
        /// Streams opened, or tried, since one last made progress.
        attempts: u32,
        /// What the last one said.
        cause: String,
    },
    /// The two sides have no transport in common.
    #[error("no transport in common: offered {offered:?}")]
    NoTransport {
        /// What the receiver offers.
        offered: Vec<String>,
    },
    /// Pages don't arrive, however often they are sent.
    #[error("pages still missing after being sent {rounds} times")]
    StillMissing {
        /// Times sent.
        rounds: u32,
    },
    /// The receiver said something that makes no sense.
    #[error("the receiver broke the protocol: {0}")]
    Protocol(String),
    /// The caller pushed pages that are not the hand-off's, or pushed them twice.
    #[error("pages pushed twice or outside of the hand-off: {0}")]
    WrongPages(String),
    /// The caller committed before it had pushed every page.
    #[error("committed with {missing_pages} pages not pushed")]
    Incomplete {
        /// Pages never pushed.
        missing_pages: usize,
    },
    /// The caller expects a hand-off that doesn't add up.
    #[error("can't expect this hand-off: {0}")]
    WrongExpectation(String),
    /// Too many hand-offs are open. Retry later, or elsewhere.
    #[error("{handoffs_max} hand-offs are open already")]
    TooManyHandoffs {
        /// The limit.
        handoffs_max: usize,
    },
    /// Reading or writing this side's memory failed.
    #[error("KV memory failed: {0}")]
    Region(#[from] RegionError),
    /// This side gave up.
    #[error("the hand-off was given up")]
    Abandoned,
    /// A bug here: a task ended without a result.
    #[error("internal: {0}")]
    Internal(String),
}

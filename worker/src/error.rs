//! Why a worker could not do what it was asked.

use std::time::Duration;

use cluster::{ClusterError, ErrorCode, Shortage};
use engine::{SequenceError, SubmitError};
use proto::WireError;
use tonic::Status;

/// What a worker answers when it fails; maps once to a gRPC status.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WorkerError {
    /// The message makes no sense.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The request can't be run on this model.
    #[error("{0}")]
    Invalid(String),
    /// The call was meant for another life of this worker.
    #[error("this worker's incarnation is {ours}, the call was meant for {theirs}")]
    StaleIncarnation {
        /// Ours.
        ours: u64,
        /// The caller's.
        theirs: u64,
    },
    /// The two workers' KV layouts don't fit.
    #[error("KV layouts don't fit: ours {ours}, theirs {theirs}: {reason}")]
    LayoutMismatch {
        /// Ours.
        ours: String,
        /// The caller's.
        theirs: String,
        /// What is in the way.
        reason: String,
    },
    /// The model's numbers are none.
    #[error("{0}")]
    Miscomputed(String),
    /// A peer that this worker doesn't know as a member of its cluster.
    #[error("{worker} at {uri} is no member of this cluster, as far as this worker knows")]
    Stranger {
        /// Who it is said to be.
        worker: String,
        /// Where it is said to be.
        uri: String,
    },
    /// Queue or pool is full.
    #[error("{message}")]
    Busy {
        /// Of what there is too much.
        message: String,
        /// Of what there is too little.
        shortage: Shortage,
        /// When there is likely to be room.
        retry_after: Duration,
    },
    /// The engine has stopped.
    #[error("{0}")]
    Unavailable(String),
    /// The deadline passed.
    #[error("the deadline passed while {0}")]
    Timeout(&'static str),
    /// The worker left before the work was done.
    #[error("the worker left before the work was done")]
    Draining,
    /// The caller went away.
    #[error("the caller went away")]
    Cancelled,
    /// A peer failed: another one may not.
    #[error("peer {worker} failed: {message}")]
    Peer {
        /// Which.
        worker: String,
        /// What its error means.
        code: ErrorCode,
        /// What it said.
        message: String,
        /// Of what it has too little, where it said so.
        shortage: Option<Shortage>,
        /// When to come back, where it said so.
        retry_after: Option<Duration>,
    },
    /// A peer's answer is none to what it was asked.
    #[error("peer {worker} broke the protocol: {what}")]
    Broken {
        /// Which.
        worker: String,
        /// What it said, or didn't.
        what: String,
    },
    /// A hand-off could not be completed.
    #[error("hand-off failed: {0}")]
    Handoff(String),
    /// The engine failed.
    #[error("engine failed: {0}")]
    Engine(String),
    /// The model can't be loaded.
    #[error("{0}")]
    Model(String),
    /// A newer life of this worker is registered.
    #[error(
        "another worker with the same name has taken this one's place (its life is {0}): this one leaves. If it is no restart, give each its own --id"
    )]
    Superseded(u64),
    /// The node's machinery failed.
    #[error("{message}")]
    Node {
        /// What it means.
        code: ErrorCode,
        /// What happened.
        message: String,
    },
}

// === impl WorkerError ===

impl WorkerError {
    /// What the error means to the caller.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Wire(error) if error.damaged => ErrorCode::Corrupt,
            Self::Wire(_) | Self::Invalid(_) => ErrorCode::InvalidRequest,
            Self::Miscomputed(_) => ErrorCode::Miscomputed,
            Self::StaleIncarnation { .. } => ErrorCode::StaleIncarnation,
            Self::LayoutMismatch { .. } => ErrorCode::Incompatible,
            Self::Busy { .. } => ErrorCode::Busy,
            Self::Unavailable(_) | Self::Draining | Self::Stranger { .. } => ErrorCode::Unavailable,
            Self::Timeout(_) => ErrorCode::Timeout,
            Self::Cancelled => ErrorCode::Cancelled,
            Self::Peer { code, .. } => *code,
            Self::Broken { .. } => ErrorCode::Corrupt,
            Self::Handoff(_) => ErrorCode::Unavailable,
            Self::Engine(_) | Self::Model(_) => ErrorCode::Internal,
            Self::Superseded(_) => ErrorCode::StaleIncarnation,
            Self::Node { code, .. } => *code,
        }
    }

    /// The error of a call to `worker`.
    #[must_use]
    pub fn peer(worker: &words::WorkerId, status: &Status) -> Self {
        Self::Peer {
            worker: worker.to_string(),
            code: status.into(),
            message: status.message().to_owned(),
            shortage: Shortage::of(status),
            retry_after: cluster::retry::after(status),
        }
    }

    /// When to come back, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => Some(*retry_after),
            Self::Peer { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Of what there is too little, where that is known.
    #[must_use]
    pub fn shortage(&self) -> Option<Shortage> {
        match self {
            Self::Busy { shortage, .. } => Some(*shortage),
            Self::Peer { shortage, .. } => *shortage,
            _ => None,
        }
    }
}

impl From<WorkerError> for Status {
    fn from(error: WorkerError) -> Self {
        let said = match &error {
            // Said of the request, and told to whom it is from: no business of theirs which worker said it.
            WorkerError::Peer { code: ErrorCode::InvalidRequest, message, .. } => message.clone(),
            error => error.to_string(),
        };
        let mut status = cluster::retry::status(error.code(), said, error.retry_after());
        error.shortage().iter().for_each(|shortage| shortage.mark(&mut status));
        status
    }
}

impl From<ClusterError> for WorkerError {
    fn from(error: ClusterError) -> Self {
        Self::Node { code: error.code(), message: error.to_string() }
    }
}

impl From<SequenceError> for WorkerError {
    fn from(error: SequenceError) -> Self {
        match error {
            SequenceError::Deadline => Self::Timeout("generating"),
            SequenceError::NotFinite => Self::Miscomputed(error.to_string()),
            SequenceError::NoCandidate => Self::Invalid(error.to_string()),
            SequenceError::ShuttingDown | SequenceError::Died(_) => {
                Self::Unavailable(error.to_string())
            }
            SequenceError::Device(message) => Self::Engine(message),
        }
    }
}

impl From<SubmitError> for WorkerError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::QueueFull { retry_after } => {
                Self::Busy { message: error.to_string(), shortage: Shortage::Line, retry_after }
            }
            SubmitError::ShuttingDown => Self::Unavailable(error.to_string()),
            SubmitError::TooLong { .. } | SubmitError::Invalid(_) => {
                Self::Invalid(error.to_string())
            }
        }
    }
}

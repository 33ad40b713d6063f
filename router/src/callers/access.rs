//! The access log: one line for each call, whatever became of it.
//!
//! A call's line is written when the last who works for it lets go of its [`Call`]: after the end of the
//! answer, or when the client goes away. It tells who asked and how it went, never what was said: no
//! text of a prompt or an answer, and no key.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use parking_lot::Mutex;
use tonic::Code;
use words::RequestId;

use crate::callers::keys::Key;
use crate::dispatch::Explanation;
use quota::Quota;

mod line;
mod quota;
mod reason;

pub(crate) use reason::Reason;

/// How often those who read the log are told of lines that were left out.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// A client's own words, in the place of a path.
const PATH_CHARS_MAX: usize = 128;
/// What is neither a status of HTTP nor sent: the client went away before there was one. nginx's number.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Writes lines, and counts those that it leaves out.
#[derive(Debug)]
pub(crate) struct AccessLog {
    /// Whether more than the router's own faults is written.
    is_on: bool,
    quota: Mutex<Quota>,
}

/// A call under way. A clone is the same call.
#[derive(Clone, Debug)]
pub struct Call(Arc<Record>);

/// What a call's line will tell.
#[derive(Debug)]
struct Record {
    log: Arc<AccessLog>,
    method: Method,
    path: String,
    id: RequestId,
    address: Option<IpAddr>,
    received: Instant,
    /// Set where the client wants to be told, and may.
    explanation: OnceLock<Explanation>,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    key: Option<Arc<Key>>,
    status: Option<Status>,
    reason: Option<Reason>,
    work: Option<Work>,
}

/// What was done for a call that was let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Of all prompts.
    pub(crate) prompt_tokens: u64,
    /// Of all choices.
    pub(crate) output_tokens: u64,
    /// From the call's arrival.
    pub(crate) first_token: Option<Duration>,
    /// From the call's arrival.
    pub(crate) total: Duration,
}

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Status {
    /// Over HTTP.
    Http(u16),
    /// Over gRPC.
    Grpc(Code),
}

/// How loud a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Volume {
    /// Our own fault.
    Warn,
    Info,
    /// A probe that was answered: one a second, and no news.
    Debug,
}

// === impl AccessLog ===

impl AccessLog {
    pub(crate) fn new(is_on: bool) -> Arc<Self> {
        Arc::new(Self { is_on, quota: Mutex::default() })
    }

    /// A call has come in.
    pub(crate) fn begin(
        self: &Arc<Self>,
        method: Method,
        path: &str,
        id: RequestId,
        address: Option<IpAddr>,
    ) -> Call {
        Call(Arc::new(Record {
            log: Arc::clone(self),
            method,
            path: path.chars().take(PATH_CHARS_MAX).collect(),
            id,
            address,
            received: Instant::now(),
            explanation: OnceLock::new(),
            notes: Mutex::default(),
        }))
    }

    /// Says, each second, what was left out.
    pub(crate) async fn follow(&self) {
        loop {
            tokio::time::sleep(REPORT_INTERVAL).await;
            self.report();
        }
    }

    /// Says what was left out since the last time.
    pub(crate) fn report(&self) {
        let left_out = self.quota.lock().left_out();
        for ((status, code), count) in left_out {
            line::left_out(status, code, count);
        }
    }

    /// Whether a line is written. What was worked for always is: that bounds itself.
    fn lets_through(&self, status: Status, notes: &Notes) -> bool {
        if !self.is_on && !status.is_fault() {
            return false;
        }
        let has_output = notes.work.is_some_and(|work| work.output_tokens > 0);
        let code = notes.reason.as_ref().map_or("", |reason| reason.code);
        has_output || self.quota.lock().take((status, code), Instant::now())
    }
}

// === impl Call ===

impl Call {
    /// When it came in.
    pub(crate) fn received(&self) -> Instant {
        self.0.received
    }

    /// It came with `key`.
    pub(crate) fn of(&self, key: &Arc<Key>) {
        self.0.notes.lock().key = Some(Arc::clone(key));
    }

    /// Whoever decides where its requests go is to say why.
    pub(crate) fn ask_why(&self) {
        self.0.explanation.get_or_init(Explanation::default);
    }

    /// Where that is said, if anybody asks.
    pub(crate) fn explanation(&self) -> Option<&Explanation> {
        self.0.explanation.get()
    }

    /// It was answered with `status`.
    pub(crate) fn answered(&self, status: Status) {
        self.0.notes.lock().status = Some(status);
    }

    /// It was refused, or broke off; the first reason counts.
    pub(crate) fn failed(&self, reason: Reason) {
        self.0.notes.lock().reason.get_or_insert(reason);
    }

    /// What was done for it.
    pub(crate) fn worked(&self, work: Work) {
        self.0.notes.lock().work = Some(work);
    }
}

// === impl Record ===

impl Drop for Record {
    fn drop(&mut self) {
        let notes = self.notes.get_mut();
        let status = notes.status.unwrap_or(Status::Http(CLIENT_CLOSED_REQUEST));
        if self.log.lets_through(status, notes) {
            line::write(self, status);
        }
    }
}

// === impl Status ===

impl Status {
    /// Whether the router or its workers are to blame.
    fn is_fault(self) -> bool {
        match self {
            Self::Http(status) => {
                StatusCode::from_u16(status).is_ok_and(|status| status.is_server_error())
            }
            Self::Grpc(code) => matches!(
                code,
                Code::Internal
                    | Code::Unknown
                    | Code::DataLoss
                    | Code::Unavailable
                    | Code::DeadlineExceeded
            ),
        }
    }

    fn volume(self, path: &str) -> Volume {
        match self {
            _ if self.is_fault() => Volume::Warn,
            Self::Http(200) if matches!(path, "/health" | "/ready") => Volume::Debug,
            _ => Volume::Info,
        }
    }
}

#[cfg(test)]
mod tests;

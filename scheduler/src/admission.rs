//! How much a router takes on at once, whatever the workers could do.
//!
//! The limits protect the router itself: its memory and its sockets. Whether the workers have room
//! is decided by placement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Time over which the rate of finished requests is averaged.
const RATE_WINDOW_S: f64 = 5.0;

/// Bounds of the time a refused client is told to wait; the upper one also holds before anything
/// has finished.
const RETRY_AFTER: std::ops::RangeInclusive<f64> = 0.05..=60.0;

/// What a router may have in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Requests.
    pub requests_max: u32,
    /// Tokens of all requests, prompt and longest output; a single larger request is let in alone.
    pub tokens_max: u64,
}

/// Counts what is in flight. A clone is another handle to the same counts.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Shared>);

/// One request's place; dropping it gives the place back.
#[derive(Debug)]
#[must_use = "dropping a permit gives it back"]
pub struct Permit {
    shared: Arc<Shared>,
    tokens: u64,
}

/// What is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// Requests.
    pub requests: u32,
    /// Their tokens.
    pub tokens: u64,
}

/// The router has as much in flight as it may.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the router is busy; try again in {retry_after:?}")]
pub struct Busy {
    /// When there is likely to be room.
    pub retry_after: Duration,
}

#[derive(Debug)]
struct Shared {
    limits: AdmissionLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_flight: InFlight,
    finished: Finished,
}

/// How fast requests end, averaged over [`RATE_WINDOW_S`].
///
/// A permit is dropped without knowing the time, so endings are only counted then, and turned into
/// a rate by the next request that brings the time along.
#[derive(Debug, Default)]
struct Finished {
    since: InFlight,
    seen_at: Option<Instant>,
    requests_per_s: f64,
    tokens_per_s: f64,
}

// === impl Admission ===

impl Admission {
    /// Nothing in flight.
    #[must_use]
    pub fn new(limits: AdmissionLimits) -> Self {
        Self(Arc::new(Shared { limits, state: Mutex::default() }))
    }

    /// Lets one request in.
    ///
    /// - `tokens`: its prompt and its longest output.
    ///
    /// # Errors
    /// [`Busy`] if that would break a limit; the wait is what the missing room takes at the rate at
    /// which requests have been ending.
    pub fn admit(&self, tokens: u64, now: Instant) -> Result<Permit, Busy> {
        let mut state = self.0.state.lock();
        state.finished.observe(now);
        let missing = state.missing(&self.0.limits, tokens);
        if missing != InFlight::default() {
            return Err(Busy { retry_after: state.finished.time_for(missing) });
        }
        state.in_flight.requests += 1;
        state.in_flight.tokens += tokens;
        Ok(Permit { shared: self.0.clone(), tokens })
    }

    /// What is in flight now.
    #[must_use]
    pub fn in_flight(&self) -> InFlight {
        self.0.state.lock().in_flight
    }
}

// === impl Permit ===

impl Permit {
    /// The tokens it was given for.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.in_flight.requests -= 1;
        state.in_flight.tokens -= self.tokens;
        state.finished.since.requests += 1;
        state.finished.since.tokens += self.tokens;
    }
}

// === impl State ===

impl State {
    /// What has to end before a request of `tokens` may come in.
    fn missing(&self, limits: &AdmissionLimits, tokens: u64) -> InFlight {
        let requests = (self.in_flight.requests + 1).saturating_sub(limits.requests_max);
        // Alone, even a request over the limit gets in: it would otherwise wait for ever.
        let over = (self.in_flight.tokens + tokens).saturating_sub(limits.tokens_max);
        InFlight { requests, tokens: over.min(self.in_flight.tokens) }
    }
}

// === impl Finished ===

impl Finished {
    fn observe(&mut self, now: Instant) {
        let Some(seen_at) = self.seen_at else {
            self.seen_at = Some(now);
            return;
        };
        let elapsed_s = now.saturating_duration_since(seen_at).as_secs_f64();
        if elapsed_s <= 0.0 {
            return;
        }
        let since = std::mem::take(&mut self.since);
        let share = 1.0 - (-elapsed_s / RATE_WINDOW_S).exp();
        self.requests_per_s +=
            (f64::from(since.requests) / elapsed_s - self.requests_per_s) * share;
        self.tokens_per_s += (since.tokens as f64 / elapsed_s - self.tokens_per_s) * share;
        self.seen_at = Some(now);
    }

    fn time_for(&self, missing: InFlight) -> Duration {
        let (shortest, longest) = RETRY_AFTER.into_inner();
        let time_s = |count: f64, per_s: f64| match per_s > 0.0 {
            _ if count == 0.0 => 0.0,
            true => count / per_s,
            false => longest,
        };
        let requests_s = time_s(missing.requests.into(), self.requests_per_s);
        let tokens_s = time_s(missing.tokens as f64, self.tokens_per_s);
        Duration::from_secs_f64(requests_s.max(tokens_s).clamp(shortest, longest))
    }
}

#[cfg(test)]
mod tests;

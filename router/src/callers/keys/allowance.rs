//! What a key may spend, and what it has spent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::RequestError;

const MINUTE_S: f64 = 60.0;
/// When to come back where all that a key may have is running: nobody knows when something ends.
const CONCURRENT_RETRY: Duration = Duration::from_secs(1);

/// Limits of one key; `None`: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Sequences at a time: each choice for each prompt of a request is one, as for workers.
    pub concurrent: Option<u32>,
    /// Requests begun within a minute.
    pub requests_per_minute: Option<u32>,
    /// Tokens of prompts and answers within a minute.
    pub tokens_per_minute: Option<u32>,
}

/// Limits, and what has been spent of them.
#[derive(Clone, Debug, Default)]
pub struct Allowance {
    limits: Limits,
    running: Arc<AtomicU32>,
    spent: Arc<Mutex<Spent>>,
}

/// How a client stands, in the terms of OpenAI's headers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// What it may do in a minute.
    pub limit: u32,
    /// What is left of that.
    pub remaining: u32,
    /// Until all of it is back.
    pub reset: Duration,
}

/// A request that runs, until dropped.
#[derive(Debug)]
pub struct Turn {
    running: Arc<AtomicU32>,
    /// Its sequences.
    width: u32,
}

#[derive(Debug, Default)]
struct Spent {
    requests: Bucket,
    tokens: Bucket,
}

/// What was taken of an amount that comes back evenly within a minute.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    taken: f64,
    at: Option<Instant>,
}

// === impl Allowance ===

impl Allowance {
    /// Nothing spent yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes over what has been spent under earlier limits.
    pub(super) fn go_on_from(&mut self, earlier: &Self) {
        self.running = Arc::clone(&earlier.running);
        self.spent = Arc::clone(&earlier.spent);
    }

    /// Begins a request of `width` sequences.
    ///
    /// # Errors
    /// [`RequestError::Busy`] if that is more than is allowed, with the time when it isn't;
    /// [`RequestError::Invalid`] if it will always be.
    pub fn begin(&self, width: u32) -> Result<Turn, RequestError> {
        let now = Instant::now();
        let mut spent = self.spent.lock();
        if let Some(limit) = self.limits.tokens_per_minute {
            // What a request will take is known when it ends: one more may begin while anything is left.
            spent.tokens.wait_for(limit, 0.0, now).map_err(|wait| over("tokens", limit, wait))?;
        }
        if let Some(limit) = self.limits.requests_per_minute {
            spent
                .requests
                .wait_for(limit, 1.0, now)
                .map_err(|wait| over("requests", limit, wait))?;
        }
        let turn = self.turn(width)?;
        if let Some(limit) = self.limits.requests_per_minute {
            spent.requests.take(limit, 1.0, now);
        }
        Ok(turn)
    }

    /// Notes tokens of a prompt or an answer.
    pub fn spend_tokens(&self, tokens: u64) {
        if let Some(limit) = self.limits.tokens_per_minute {
            self.spent.lock().tokens.take(limit, tokens as f64, Instant::now());
        }
    }

    /// How the key stands with requests, if they are limited.
    #[must_use]
    pub fn requests(&self) -> Option<Standing> {
        let limit = self.limits.requests_per_minute?;
        Some(self.spent.lock().requests.standing(limit, Instant::now()))
    }

    /// How the key stands with tokens, if they are limited.
    #[must_use]
    pub fn tokens(&self) -> Option<Standing> {
        let limit = self.limits.tokens_per_minute?;
        Some(self.spent.lock().tokens.standing(limit, Instant::now()))
    }

    fn turn(&self, width: u32) -> Result<Turn, RequestError> {
        let before = self.running.fetch_add(width, Ordering::Relaxed);
        let turn = Turn { running: Arc::clone(&self.running), width };
        match self.limits.concurrent {
            Some(limit) if width > limit => Err(too_wide(width, limit)),
            Some(limit) if before.saturating_add(width) > limit => Err(all_running(before, limit)),
            _ => Ok(turn),
        }
    }
}

fn too_wide(width: u32, limit: u32) -> RequestError {
    let message =
        format!("{width} sequences are more than the {limit} that this API key may have running");
    RequestError::invalid("n", message)
}

fn all_running(running: u32, limit: u32) -> RequestError {
    let message = format!(
        "Rate limit reached: this API key has {running} of the {limit} sequences running that it may"
    );
    RequestError::Busy { message, retry_after: CONCURRENT_RETRY }
}

fn over(what: &str, limit: u32, wait: Duration) -> RequestError {
    let message = format!(
        "Rate limit reached for {what} per minute: limit {limit}; try again in {:.1} s",
        wait.as_secs_f64()
    );
    RequestError::Busy { message, retry_after: wait }
}

// === impl Bucket ===

impl Bucket {
    /// Whether `amount` is left of `limit`.
    ///
    /// # Errors
    /// How long it takes until it is.
    fn wait_for(&mut self, limit: u32, amount: f64, now: Instant) -> Result<(), Duration> {
        self.refill(limit, now);
        let missing = self.taken + amount - f64::from(limit);
        // With nothing asked for there has to be something left.
        if missing < 0.0 || missing == 0.0 && amount > 0.0 {
            return Ok(());
        }
        let missing = missing.max(1.0);
        Err(Duration::from_secs_f64(missing * MINUTE_S / f64::from(limit)))
    }

    fn take(&mut self, limit: u32, amount: f64, now: Instant) {
        self.refill(limit, now);
        self.taken += amount;
    }

    fn standing(&mut self, limit: u32, now: Instant) -> Standing {
        self.refill(limit, now);
        let remaining = (f64::from(limit) - self.taken).max(0.0) as u32;
        let reset = Duration::from_secs_f64(self.taken * MINUTE_S / f64::from(limit));
        Standing { limit, remaining, reset }
    }

    fn refill(&mut self, limit: u32, now: Instant) {
        let passed = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.taken = (self.taken - passed * f64::from(limit) / MINUTE_S).max(0.0);
        self.at = Some(now);
    }
}

// === impl Turn ===

impl Drop for Turn {
    fn drop(&mut self) {
        self.running.fetch_sub(self.width, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowance(concurrent: u32, requests: u32, tokens: u32) -> Allowance {
        Allowance::new(Limits {
            concurrent: Some(concurrent),
            requests_per_minute: Some(requests),
            tokens_per_minute: Some(tokens),
        })
    }

    fn wait_s(refused: Result<Turn, RequestError>) -> f64 {
        refused.unwrap_err().retry_after().unwrap().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn requests_and_tokens_come_back_evenly() {
        let allowance = allowance(100, 6, 600);
        for _ in 0..6 {
            allowance.begin(1).unwrap();
        }
        assert!((wait_s(allowance.begin(1)) - 10.0).abs() < 0.01);
        let standing = allowance.requests().unwrap();
        assert_eq!((standing.limit, standing.remaining, standing.reset.as_secs()), (6, 0, 60));
        tokio::time::advance(Duration::from_secs(11)).await;
        allowance.begin(1).unwrap();
        allowance.spend_tokens(700);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(wait_s(allowance.begin(1)) > 0.05, "100 tokens in debt, and just paid");
        tokio::time::advance(Duration::from_secs(10)).await;
        allowance.begin(1).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_at_a_time_and_the_next_when_one_ends() {
        let allowance = allowance(2, 100, 100);
        let (one, _two) = (allowance.begin(1).unwrap(), allowance.begin(1).unwrap());
        assert!(allowance.begin(1).is_err());
        drop(one);
        let again = allowance.begin(1).unwrap();
        // A file that is read again changes the limits, not what is running.
        let mut later = self::allowance(1, 100, 100);
        later.go_on_from(&allowance);
        drop(again);
        assert!(later.begin(1).is_err());
        assert_eq!(later.requests().unwrap().remaining, 97, "and those refused count nothing");
    }

    #[test]
    fn each_choice_of_a_request_is_one_that_runs() {
        let allowance = allowance(4, 100, 100);
        let three = allowance.begin(3).unwrap();
        assert!(matches!(allowance.begin(2), Err(RequestError::Busy { .. })));
        let _one = allowance.begin(1).unwrap();
        drop(three);
        let _three = allowance.begin(3).unwrap();
        let never = allowance.begin(5).unwrap_err();
        assert_eq!(never.param(), Some("n"), "no time makes it fit: {never}");
    }
}

//! How much clients may have open at a router, whatever the workers could do.
//!
//! The limit protects the router itself: its memory and its sockets.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use words::ClientId;

/// The part of all streams that is kept for clients with less than an equal share: an eighth, so that one client
/// that has taken all the others leaves room for those that come.
const KEPT_SHARE: u32 = 8;

/// Time over which the rate of streams that end is averaged.
const RATE_WINDOW_S: f64 = 5.0;

/// Bounds of the time a refused client is told to wait.
const RETRY_AFTER_S: std::ops::RangeInclusive<f64> = 1.0..=60.0;

/// What a router may have open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Streams.
    pub streams_max: u32,
}

/// Counts what is open. A clone is another handle to the same counts.
#[derive(Clone, Debug)]
pub struct Streams(Arc<OpenStreams>);

/// One stream's place; dropping it gives the place back.
#[derive(Debug)]
#[must_use = "dropping a permit gives it back"]
pub struct StreamPermit {
    streams: Arc<OpenStreams>,
    client: ClientId,
}

/// As much is open as may be: for this client, or at all.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("as many requests are being served as may be")]
pub struct StreamsFull {
    /// When there is likely to be room.
    pub retry_after: Duration,
}

#[derive(Debug)]
struct OpenStreams {
    limits: StreamLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: u32,
    clients: HashMap<ClientId, u32>,
    ended: Ended,
}

/// How fast streams end, averaged over [`RATE_WINDOW_S`].
///
/// A permit is dropped without knowing the time, so endings are only counted then, and turned into a rate by the next
/// request that brings the time along.
#[derive(Debug, Default)]
struct Ended {
    since: u32,
    seen_at: Option<Instant>,
    per_s: f64,
}

// === impl Streams ===

impl Streams {
    /// Nothing open.
    #[must_use]
    pub fn new(limits: StreamLimits) -> Self {
        Self(Arc::new(OpenStreams { limits, state: Mutex::default() }))
    }

    /// Opens a stream of `client`.
    ///
    /// # Errors
    /// `StreamsFull` if that would break a limit; the wait is what one stream takes to end, by the rate seen.
    pub fn open(&self, client: ClientId, now: Instant) -> Result<StreamPermit, StreamsFull> {
        let mut state = self.0.state.lock();
        state.ended.observe(now);
        if !state.has_room(&self.0.limits, client) {
            return Err(StreamsFull { retry_after: state.ended.time_for_one() });
        }
        state.open += 1;
        *state.clients.entry(client).or_default() += 1;
        Ok(StreamPermit { streams: self.0.clone(), client })
    }

    /// Streams that are open.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.state.lock().open
    }
}

// === impl StreamPermit ===

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut state = self.streams.state.lock();
        state.open -= 1;
        state.ended.since += 1;
        let left = state.clients.get_mut(&self.client).map(|open| {
            *open -= 1;
            *open
        });
        if left == Some(0) {
            state.clients.remove(&self.client);
        }
    }
}

// === impl State ===

impl State {
    fn has_room(&self, limits: &StreamLimits, client: ClientId) -> bool {
        let own = self.clients.get(&client).copied().unwrap_or_default();
        let clients = self.clients.len() as u32 + u32::from(own == 0);
        // Of all that may be open, for as many clients as there are and one that may come.
        let is_short = own < limits.streams_max / (clients + 1);
        // A router of one stream has none to keep.
        let kept = limits.streams_max.div_ceil(KEPT_SHARE).min(limits.streams_max - 1);
        self.open + if is_short { 0 } else { kept } < limits.streams_max
    }
}

// === impl Ended ===

impl Ended {
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
        self.per_s += (f64::from(since) / elapsed_s - self.per_s) * share;
        self.seen_at = Some(now);
    }

    fn time_for_one(&self) -> Duration {
        let (least, most) = RETRY_AFTER_S.into_inner();
        let seconds = if self.per_s > 0.0 { self.per_s.recip() } else { least };
        Duration::from_secs_f64(seconds.clamp(least, most))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// Each case: the limit, who asks in turn (capitals end one of theirs), and who gets in.
    #[rstest]
    #[case::all_but_an_eighth_for_one("8", "aaaaaaaa", "+++++++-")]
    #[case::the_last_eighth_for_others("8", "aaaaaaaabb", "+++++++-+-")]
    #[case::room_returns("8", "aaaaaaaAaa", "+++++++.+-")]
    #[case::newcomers_to_a_large_router("16", "aaaaaaaaaaaaaaabbc", "++++++++++++++-++-")]
    #[case::a_router_of_one("1", "aaAb", "+-.+")]
    #[case::the_last_for_a_fourth("12", "aaaabbbbccccd", "+++++++++++-+")]
    fn one_client_leaves_room_for_others(
        #[case] streams_max: &str,
        #[case] asks: &str,
        #[case] want: &str,
    ) {
        let streams = Streams::new(StreamLimits { streams_max: streams_max.parse().unwrap() });
        let mut permits: Vec<(char, StreamPermit)> = Vec::new();
        let mut got = String::new();
        for ask in asks.chars() {
            let client = ask.to_ascii_lowercase();
            if ask.is_ascii_uppercase() {
                let at = permits.iter().position(|(owner, _)| *owner == client).unwrap();
                drop(permits.remove(at));
                got.push('.');
                continue;
            }
            let opened = streams.open(ClientId(client.into()), Instant::now());
            got.push(if opened.is_ok() { '+' } else { '-' });
            permits.extend(opened.map(|permit| (client, permit)));
        }
        assert_eq!(got, want);
    }

    #[test]
    fn the_wait_is_what_one_stream_takes_at_the_rate_seen() {
        let streams = Streams::new(StreamLimits { streams_max: 1 });
        let start = Instant::now();
        let client = ClientId::default();
        let mut permit = streams.open(client, start).ok();
        assert!(permit.is_some());
        // One in four seconds, for long enough to be believed.
        for count in 1..=30 {
            permit = None;
            permit = permit.or(streams.open(client, start + Duration::from_secs(4) * count).ok());
        }
        let full = streams.open(client, start + Duration::from_secs(4) * 30).unwrap_err();
        let seconds = full.retry_after.as_secs_f64();
        assert!((3.9..4.5).contains(&seconds), "{seconds}");
        drop(permit);
    }

    #[test]
    fn before_anything_has_ended_the_wait_is_a_second() {
        let streams = Streams::new(StreamLimits { streams_max: 1 });
        let _held = streams.open(ClientId(1), Instant::now()).expect("room");
        let full = streams.open(ClientId(2), Instant::now()).unwrap_err();
        assert_eq!(full.retry_after, Duration::from_secs(1));
    }

    proptest! {
        #[test]
        fn counts_follow_the_permits(steps in prop::collection::vec((any::<bool>(), 0_u64..4), 0..80)) {
            let streams = Streams::new(StreamLimits { streams_max: 9 });
            let mut permits = Vec::new();
            for (opens, client) in steps {
                if opens {
                    permits.extend(streams.open(ClientId(client), Instant::now()));
                } else {
                    permits.pop();
                }
                prop_assert_eq!(streams.count() as usize, permits.len());
                prop_assert!(permits.len() <= 9);
            }
            permits.clear();
            prop_assert!(streams.0.state.lock().clients.is_empty());
        }
    }
}

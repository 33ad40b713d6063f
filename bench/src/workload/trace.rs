//! Requests that somebody recorded.

mod formats;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::{IDS, Input, Session, Turn};

/// Tokens that one hash of a trace stands for.
pub(crate) const BLOCK_TOKENS: u32 = 512;

/// Sets the randomness of times apart from that of tokens.
const SPREAD: u64 = u64::MAX - 1;

/// A recorded row of requests.
///
/// A trace holds no text but at most cumulative hashes of blocks of 512 tokens. Every hash becomes the
/// same tokens wherever it occurs, so prompts share exactly the prefixes that they shared.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// The requests, in order of time.
    pub requests: Vec<TraceRequest>,
    /// Lengths are multiplied by this, to fit a smaller model.
    pub length_scale: f64,
    /// How many times as fast as recorded; 1: as it was.
    pub speed: f64,
}

/// One line of the file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct TraceRequest {
    /// Milliseconds, from whenever.
    pub timestamp: f64,
    /// Tokens of the prompt.
    pub input_length: u32,
    /// Tokens of the answer.
    pub output_length: u32,
    /// One for each block of the prompt, the last one perhaps in part; none where only lengths were recorded.
    #[serde(default)]
    pub hash_ids: Vec<u64>,
    /// The chain of requests that it belongs to, each of which is sent some time after the one before was answered.
    #[serde(default)]
    pub session: Option<String>,
    /// Milliseconds from that answer; `None` for a chain's first request.
    #[serde(default)]
    pub after_ms: Option<f64>,
}

// === impl Trace ===

impl Trace {
    /// Reads the first `requests_max` requests of a file: JSON lines as Mooncake's, packed or not, or a table as Azure's or BurstGPT's.
    ///
    /// # Errors
    /// If the file cannot be read, a line is not a request, or there is none; names the line.
    pub fn read(path: &Path, requests_max: usize) -> Result<Self> {
        let mut requests = formats::read(path, requests_max)?;
        requests.sort_by(|a, b| a.timestamp.total_cmp(&b.timestamp));
        Ok(Self { requests, length_scale: 1.0, speed: 1.0 })
    }

    /// When each request comes, from the first one on; those that follow an answer have no such time in it.
    ///
    /// Requests recorded at one time (Mooncake's come in ticks of 3 s) are spread at random until the next.
    pub(crate) fn arrivals(&self, seed: u64) -> Vec<Duration> {
        let start = self.requests.first().map_or(0.0, |request| request.timestamp);
        let mut spread = rng(SPREAD, seed);
        let mut arrivals = Vec::with_capacity(self.requests.len());
        let ticks = self.requests.chunk_by(|a, b| a.timestamp == b.timestamp);
        let nexts = ticks.clone().skip(1).map(|tick| tick[0].timestamp);
        let mut nexts = nexts.chain(std::iter::repeat(f64::NAN));
        for tick in ticks {
            let (at, next) = (tick[0].timestamp, nexts.next().unwrap_or(f64::NAN));
            let free_ms = if next.is_nan() { 0.0 } else { next - at };
            let mut times: Vec<f64> = match tick {
                [_] => vec![at],
                _ => tick.iter().map(|_| at + free_ms * spread.random::<f64>()).collect(),
            };
            times.sort_by(f64::total_cmp);
            arrivals.extend(times.iter().map(|ms| self.sped_up(ms - start)));
        }
        arrivals
    }

    /// From an answer to the request that follows it.
    pub(crate) fn pause(&self, request: &TraceRequest) -> Duration {
        self.sped_up(request.after_ms.unwrap_or_default())
    }

    fn sped_up(&self, ms: f64) -> Duration {
        Duration::try_from_secs_f64(ms / 1e3 / self.speed).unwrap_or_default()
    }

    /// Each request's successor in its chain.
    pub(crate) fn chains(&self) -> Vec<Option<usize>> {
        let mut next = vec![None; self.requests.len()];
        let mut latest: HashMap<&str, usize> = HashMap::new();
        for (number, request) in self.requests.iter().enumerate() {
            let Some(session) = request.session.as_deref() else { continue };
            if let Some(before) = latest.insert(session, number) {
                next[before] = Some(number);
            }
        }
        next
    }

    /// Requests that follow no other.
    pub(crate) fn heads(&self) -> impl Iterator<Item = usize> + use<> {
        let mut follows = vec![false; self.requests.len()];
        self.chains().into_iter().flatten().for_each(|number| follows[number] = true);
        (0..follows.len()).filter(move |number| !follows[*number])
    }

    /// Chains of requests, each at the time of its first one.
    pub(super) fn sessions(&self, seed: u64) -> impl Iterator<Item = Session> + Send + '_ {
        let (arrivals, next) = (self.arrivals(seed), self.chains());
        self.heads().map(move |head| {
            let chain = std::iter::successors(Some(head), |number| next[*number]);
            let turns = chain.map(|number| self.turn(&self.requests[number], seed)).collect();
            Session { at: Some(arrivals[head]), turns }
        })
    }

    fn turn(&self, request: &TraceRequest, seed: u64) -> Turn {
        Turn {
            input: Input::Ids(self.prompt(request, seed)),
            output_tokens: self.scaled(request.output_length),
            after: self.pause(request),
        }
    }

    pub(crate) fn describe(&self) -> String {
        let Self { requests, length_scale, speed } = self;
        format!("{} recorded requests, lengths x {length_scale}, speed x {speed}", requests.len())
    }

    fn prompt(&self, request: &TraceRequest, seed: u64) -> Vec<u32> {
        let block_tokens = self.scaled(BLOCK_TOKENS);
        let mut ids: Vec<u32> =
            request.hash_ids.iter().flat_map(|&hash| block(hash, seed, block_tokens)).collect();
        // The trace's own lengths and hashes need not agree; the length is what counts.
        let mut rest = rng(u64::MAX, seed ^ u64::from(request.input_length));
        ids.resize_with(self.scaled(request.input_length) as usize, || rest.random_range(IDS));
        ids
    }

    /// A length as it is sent.
    pub(crate) fn scaled(&self, tokens: u32) -> u32 {
        (f64::from(tokens) * self.length_scale).round().clamp(1.0, f64::from(u32::MAX)) as u32
    }
}

/// The tokens that a hash stands for, in runs with this seed.
fn block(hash: u64, seed: u64, tokens: u32) -> impl Iterator<Item = u32> {
    let mut rng = rng(hash, seed);
    (0..tokens).map(move |_| rng.random_range(IDS))
}

/// Randomness of its own for every pair.
fn rng(hash: u64, seed: u64) -> ChaCha8Rng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&hash.to_le_bytes());
    bytes[8..16].copy_from_slice(&seed.to_le_bytes());
    ChaCha8Rng::from_seed(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(timestamp: f64, input_length: u32, hash_ids: &[u64]) -> TraceRequest {
        let hash_ids = hash_ids.to_vec();
        TraceRequest { timestamp, input_length, output_length: 10, hash_ids, ..Default::default() }
    }

    fn ids(session: &Session) -> &[u32] {
        match &session.turns[0].input {
            Input::Ids(ids) => ids,
            Input::Message(_) => panic!("want ids"),
        }
    }

    #[test]
    fn equal_hashes_are_equal_tokens_at_any_scale() {
        for length_scale in [1.0, 0.125] {
            let requests =
                vec![request(1000.0, 1200, &[0, 1, 2]), request(3000.0, 1100, &[0, 1, 3])];
            let trace = Trace { requests, length_scale, speed: 2.0 };
            let sessions: Vec<Session> = trace.sessions(7).collect();
            let shared = (1024.0 * length_scale) as usize;
            let (a, b) = (ids(&sessions[0]), ids(&sessions[1]));
            assert_eq!(a.len(), (1200.0 * length_scale) as usize);
            assert_eq!(a[..shared], b[..shared]);
            assert_ne!(a[shared], b[shared]);
            let other: Vec<Session> = trace.sessions(8).collect();
            assert_ne!(ids(&other[0])[..16], a[..16], "another seed finds nothing in a cache");
            let at: Vec<_> = sessions.iter().map(|session| session.at).collect();
            assert_eq!(at, [Some(Duration::ZERO), Some(Duration::from_secs(1))]);
        }
    }

    #[test]
    fn requests_of_one_tick_are_spread_over_it() {
        let ticks = [0.0, 3000.0, 3000.0, 3000.0, 6000.0, 6000.0];
        let requests = ticks.map(|timestamp| request(timestamp, 5, &[])).to_vec();
        let trace = Trace { requests, length_scale: 1.0, speed: 1.0 };
        let times = trace.arrivals(7);
        assert!(times.is_sorted() && times[0].is_zero() && times[1] > Duration::from_secs(3));
        assert!(times[1] < times[2] && times[3] < Duration::from_secs(6), "{times:?}");
        assert_eq!(times[4..], [Duration::from_secs(6); 2]);
        assert_eq!(times, trace.arrivals(7));
    }

    #[test]
    fn a_chain_is_one_visit_with_its_pauses() {
        let of = |timestamp, session: &str, after_ms| TraceRequest {
            session: Some(session.to_owned()),
            after_ms,
            ..request(timestamp, 5, &[])
        };
        let requests = vec![of(0.0, "a", None), of(10.0, "b", None), of(20.0, "a", Some(400.0))];
        let trace = Trace { requests, length_scale: 1.0, speed: 2.0 };
        let sessions: Vec<Session> = trace.sessions(7).collect();
        let turns: Vec<usize> = sessions.iter().map(|session| session.turns.len()).collect();
        assert_eq!(turns, [2, 1]);
        assert_eq!(sessions[0].turns[1].after, Duration::from_millis(200));
        assert_eq!(sessions[1].at, Some(Duration::from_millis(5)));
    }
}

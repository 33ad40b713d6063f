//! Requests that somebody recorded, in Mooncake's format.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::{IDS, Input, Session, Turn};

/// Tokens that one hash of the trace stands for.
const BLOCK_TOKENS: u32 = 512;

/// A recorded row of requests.
///
/// The trace holds no text but cumulative hashes of blocks of 512 tokens. Every hash becomes the
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
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct TraceRequest {
    /// Milliseconds from the start.
    pub timestamp: f64,
    /// Tokens of the prompt.
    pub input_length: u32,
    /// Tokens of the answer.
    pub output_length: u32,
    /// One for each block of the prompt, the last one perhaps in part.
    pub hash_ids: Vec<u64>,
}

// === impl Trace ===

impl Trace {
    /// Reads the first `requests_max` requests of a file of JSON lines.
    ///
    /// # Errors
    /// If the file cannot be read, a line is not a request, or there is none; names the line.
    pub fn read(path: &Path, requests_max: usize) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mut requests = Vec::new();
        for (index, line) in text.lines().enumerate().take(requests_max) {
            let request: TraceRequest = serde_json::from_str(line)
                .with_context(|| format!("{}, line {}", path.display(), index + 1))?;
            requests.push(request);
        }
        ensure!(!requests.is_empty(), "{} holds no request", path.display());
        requests.sort_by(|a, b| a.timestamp.total_cmp(&b.timestamp));
        Ok(Self { requests, length_scale: 1.0, speed: 1.0 })
    }

    pub(super) fn sessions(&self, seed: u64) -> impl Iterator<Item = Session> + Send + '_ {
        let start = self.requests.first().map_or(0.0, |request| request.timestamp);
        self.requests.iter().map(move |request| {
            let at_s = (request.timestamp - start) / 1000.0 / self.speed;
            let turn = Turn {
                input: Input::Ids(self.prompt(request, seed)),
                output_tokens: self.scaled(request.output_length),
            };
            let at = Some(Duration::from_secs_f64(at_s.max(0.0)));
            Session { at, turns: vec![turn], think: Duration::ZERO }
        })
    }

    pub(super) fn describe(&self) -> String {
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

    fn scaled(&self, tokens: u32) -> u32 {
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
        TraceRequest { timestamp, input_length, output_length: 10, hash_ids: hash_ids.to_vec() }
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
    fn a_bad_line_is_named() {
        let folder = std::env::temp_dir().join(format!("baton-trace-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("trace.jsonl");
        let line = r#"{"timestamp": 0, "input_length": 5, "output_length": 2, "hash_ids": [0]}"#;
        std::fs::write(&path, format!("{line}\n{{}}\n")).expect("a file");
        let error = Trace::read(&path, usize::MAX).expect_err("a bad line");
        assert!(format!("{error:#}").contains("line 2"), "{error:#}");
        assert_eq!(Trace::read(&path, 1).expect("one good line").requests.len(), 1);
        std::fs::remove_dir_all(folder).expect("the folder");
    }
}

//! The way from one host to another.

use std::time::Duration;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

/// How long TCP waits before it sends a lost segment again.
const RETRANSMIT: Duration = Duration::from_millis(200);

/// How good a link is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// The least that a segment takes.
    pub latency: Duration,
    /// What it may take beside that.
    pub jitter: Duration,
    /// Chance that a segment is lost, and comes again later.
    pub loss: f64,
    /// Chance that a bit of a segment flips, unseen by any checksum below.
    pub flip: f64,
}

/// The way from one host to another.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) quality: Quality,
    pub(super) cut: bool,
    /// What was sent while it was cut.
    pub(super) held: Vec<u64>,
}

// === impl Quality ===

impl Default for Quality {
    fn default() -> Self {
        let (latency, jitter) = (Duration::from_micros(200), Duration::from_micros(1800));
        Self { latency, jitter, loss: 0.0, flip: 0.0 }
    }
}

impl Quality {
    /// How long a segment takes, and how often it is lost on its way.
    pub(super) fn delay(&self, rng: &mut ChaCha8Rng) -> (Duration, u64) {
        let mut delay = self.latency + self.jitter.mul_f64(rng.random::<f64>());
        let (mut again, mut losses) = (RETRANSMIT, 0);
        while self.loss > 0.0 && rng.random_bool(self.loss) {
            delay += again;
            again *= 2;
            losses += 1;
        }
        (delay, losses)
    }

    /// Flips a bit, if this is the time for it; whether it was.
    pub(super) fn damage(&self, bytes: &mut [u8], rng: &mut ChaCha8Rng) -> bool {
        let strikes = self.flip > 0.0 && !bytes.is_empty() && rng.random_bool(self.flip);
        if strikes {
            let at = rng.random_range(0..bytes.len());
            bytes[at] ^= 1 << rng.random_range(0..8);
        }
        strikes
    }
}

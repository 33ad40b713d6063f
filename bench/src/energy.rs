//! What a device uses: its own counter, read while something is measured.

mod nvml;

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// How often the counter is read. NVIDIA's moves ten to fifty times a second; between two readings the
/// power is taken to be the same.
const EVERY: Duration = Duration::from_millis(50);

/// What is shorter says more of the counter's steps than of the device.
const SECONDS_MIN: f64 = 0.5;

/// What something took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Energy {
    /// Joules of a token.
    pub j_per_token: f64,
    /// Mean power meanwhile.
    pub watts: f64,
}

/// A time in which tokens were computed, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) from: Instant,
    pub(crate) to: Instant,
    pub(crate) tokens: usize,
}

/// Follows a device's counter as long as it lives.
#[derive(Debug)]
pub(crate) struct Meter {
    readings: Arc<Mutex<Readings>>,
    /// Dropped, the thread ends.
    _over: SyncSender<()>,
}

/// Millijoules since some time; `None` where that can't be told just now.
type Counter = dyn FnMut() -> Option<u64> + Send;

/// A counter, and what it said.
struct Readings {
    counter: Box<Counter>,
    taken: Vec<(Instant, u64)>,
}

// === impl Meter ===

impl Meter {
    /// Follows the GPU's counter; `None` where nobody can read it.
    ///
    /// - `uuid`: 32 hexadecimal digits.
    pub(crate) fn of_gpu(uuid: &str) -> Option<Self> {
        nvml::counter(uuid).and_then(Self::new)
    }

    fn new(counter: Box<Counter>) -> Option<Self> {
        let readings = Arc::new(Mutex::new(Readings { counter, taken: Vec::new() }));
        let (over, is_over) = sync_channel(0);
        readings.lock().read();
        let followed = Arc::clone(&readings);
        let follow = move || {
            while is_over.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                followed.lock().read();
            }
        };
        thread::Builder::new().name("energy".to_owned()).spawn(follow).ok()?;
        Some(Self { readings, _over: over })
    }

    /// What all of these took; `None` if they are too short to tell.
    pub(crate) fn energy(&self, spans: &[Span]) -> Option<Energy> {
        let mut readings = self.readings.lock();
        // The last span may have ended since the last reading.
        readings.read();
        readings.energy(spans)
    }
}

// === impl Readings ===

impl Readings {
    fn read(&mut self) {
        let said = (self.counter)();
        self.taken.extend(said.map(|millijoules| (Instant::now(), millijoules)));
    }

    fn energy(&self, spans: &[Span]) -> Option<Energy> {
        let joules: f64 = spans.iter().map(|span| self.joules(span)).sum::<Option<f64>>()?;
        let seconds: f64 = spans.iter().map(|span| (span.to - span.from).as_secs_f64()).sum();
        let tokens: usize = spans.iter().map(|span| span.tokens).sum();
        (seconds >= SECONDS_MIN && tokens > 0)
            .then(|| Energy { j_per_token: joules / tokens as f64, watts: joules / seconds })
    }

    fn joules(&self, span: &Span) -> Option<f64> {
        Some((self.at(span.to)? - self.at(span.from)?) / 1e3)
    }

    /// Millijoules at a moment between two readings.
    fn at(&self, moment: Instant) -> Option<f64> {
        let after = self.taken.partition_point(|(at, _)| *at <= moment);
        let (before, said) = *self.taken.get(after.checked_sub(1)?)?;
        let (next, says) = *self.taken.get(after).or(self.taken.last())?;
        if next == before {
            return (moment == before).then_some(said as f64);
        }
        let share = (moment - before).as_secs_f64() / (next - before).as_secs_f64();
        Some(said as f64 + share * says.saturating_sub(said) as f64)
    }
}

impl std::fmt::Debug for Readings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readings").field("taken", &self.taken.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter that was read every 100 ms: 100 W for a second, 300 W for another.
    fn readings(begun: Instant) -> Readings {
        let said = |tenth: u64| 10_000 * tenth.min(10) + 30_000 * tenth.saturating_sub(10);
        let taken = (0..=20).map(|tenth| (begun + Duration::from_millis(100 * tenth), said(tenth)));
        Readings { counter: Box::new(|| None), taken: taken.collect() }
    }

    fn span(begun: Instant, from_ms: u64, to_ms: u64, tokens: usize) -> Span {
        let at = |ms| begun + Duration::from_millis(ms);
        Span { from: at(from_ms), to: at(to_ms), tokens }
    }

    #[test]
    fn spans_are_added_up_and_cut_between_readings() {
        let begun = Instant::now();
        let readings = readings(begun);
        let spans = [span(begun, 150, 550, 10), span(begun, 1050, 1450, 30)];
        let energy = readings.energy(&spans).expect("0.8 s");
        assert!((energy.j_per_token - 4.0).abs() < 1e-6, "40 J and 120 J: {energy:?}");
        assert!((energy.watts - 200.0).abs() < 1e-6, "{energy:?}");
    }

    #[test]
    fn what_the_counter_cannot_tell_is_not_told() {
        let begun = Instant::now();
        let readings = readings(begun);
        assert_eq!(readings.energy(&[span(begun, 100, 500, 10)]), None, "too short");
        assert_eq!(readings.energy(&[span(begun, 1000, 2001, 10)]), None, "not over yet");
        assert_eq!(readings.energy(&[span(begun, 0, 1000, 0)]), None, "nothing was computed");
        assert!(readings.energy(&[span(begun, 0, 2000, 10)]).is_some());
    }

    #[test]
    fn a_meter_reads_when_it_is_asked() {
        let begun = Instant::now();
        let counter = move || Some(begun.elapsed().as_micros() as u64 / 10);
        let meter = Meter::new(Box::new(counter)).expect("a thread");
        let from = Instant::now();
        while from.elapsed() < Duration::from_secs_f64(SECONDS_MIN) {
            thread::yield_now();
        }
        let span = Span { from, to: Instant::now(), tokens: 1 };
        let energy = meter.energy(&[span]).expect("half a second");
        assert!((energy.watts - 100.0).abs() < 10.0, "{energy:?}");
    }
}

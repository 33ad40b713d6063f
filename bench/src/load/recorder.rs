//! Requests as they end, and what they come to.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::report::{Report, Slo, Summary};

/// One request, as its client saw it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Measured {
    /// Sent late against its plan.
    pub(crate) lag: Duration,
    /// How often the server asked to come back later.
    pub(crate) refusals: u64,
    /// From sending it first to sending it once more, with which it was answered.
    pub(crate) waited: Duration,
    /// From that to the first token.
    pub(crate) ttft: Duration,
    /// From that to the end.
    pub(crate) total: Duration,
    /// Between two events with text, in order.
    pub(crate) gaps: Vec<Duration>,
    /// Tokens of the prompt, as the server counted them.
    pub(crate) input_tokens: u64,
    /// Those of them that it found in a cache.
    pub(crate) cached_tokens: u64,
    /// Tokens generated, as the server counted them.
    pub(crate) output_tokens: u64,
    /// `x-baton-path`: how the prompt was computed, if the server says so.
    pub(crate) path: Option<String>,
}

/// A request without an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failed {
    /// Why, in few words.
    pub(crate) why: String,
    /// What that says of the server.
    pub(crate) fault: Fault,
    /// How often the server had asked to come back later before.
    pub(crate) refusals: u64,
}

/// What a failure says of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is there, and has no room.
    Refused,
    /// Nobody could be connected to.
    Unreachable,
    /// It went wrong in another way.
    #[default]
    Broken,
}

/// Collects requests as they end.
#[derive(Debug)]
pub(crate) struct Recorder {
    times: Times,
    /// Its counts are kept up to date, its times are filled in at the end.
    report: Report,
}

/// Distributions, microseconds.
#[derive(Debug)]
struct Times {
    ttft: Histogram<u64>,
    tpot: Histogram<u64>,
    handover: Histogram<u64>,
    itl: Histogram<u64>,
    total: Histogram<u64>,
    lag: Histogram<u64>,
    waited: Histogram<u64>,
}

// === impl Recorder ===

impl Recorder {
    /// An empty one.
    ///
    /// - `report`: what was sent, and the service wanted.
    pub(crate) fn new(report: Report) -> Self {
        let [ttft, tpot, handover, itl, total, lag, waited] = std::array::from_fn(|_| histogram());
        Self { times: Times { ttft, tpot, handover, itl, total, lag, waited }, report }
    }

    /// Takes up a request, however it ended.
    pub(crate) fn take(&mut self, request: &Result<Measured, Failed>) {
        match request {
            Ok(measured) => self.record(measured),
            Err(failed) => self.record_failure(failed),
        }
    }

    /// Takes up a request that was answered in full.
    pub(crate) fn record(&mut self, request: &Measured) {
        let report = &mut self.report;
        report.completed += 1;
        report.input_tokens += request.input_tokens;
        report.cached_tokens += request.cached_tokens;
        report.output_tokens += request.output_tokens;
        if let Some(path) = &request.path {
            *report.paths.entry(path.clone()).or_default() += 1;
        }
        report.refusals += request.refusals;
        report.good += u64::from(request.is_good(&report.slo));
        self.times.add(request);
    }

    /// Takes up a request that failed.
    pub(crate) fn record_failure(&mut self, request: &Failed) {
        self.report.failed += 1;
        self.report.refusals += request.refusals;
        match request.fault {
            Fault::Refused => {
                self.report.refused += 1;
                self.report.refused_as.insert(request.why.clone());
            }
            Fault::Unreachable => self.report.unreachable += 1,
            Fault::Broken => {}
        }
        *self.report.failures.entry(request.why.clone()).or_default() += 1;
    }

    /// Requests taken up.
    pub(crate) fn requests(&self) -> u64 {
        self.report.completed + self.report.failed
    }

    /// Those of them without an answer, in a few words.
    pub(crate) fn setbacks(&self) -> String {
        let Report { refused, failed, .. } = self.report;
        format!("{refused} refused, {} failed", failed - refused)
    }

    /// The result of a run that took `duration`.
    pub(crate) fn finish(self, duration: Duration) -> Report {
        let Times { ttft, tpot, handover, itl, total, lag, waited } = &self.times;
        let seconds = duration.as_secs_f64();
        let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let report = &self.report;
        Report {
            duration_s: seconds,
            requests_per_s: rate(report.completed),
            goodput_per_s: rate(report.good),
            input_tokens_per_s: rate(report.input_tokens),
            output_tokens_per_s: rate(report.output_tokens),
            within_percent: 100.0 * report.good as f64 / self.requests().max(1) as f64,
            ttft_ms: summary(ttft),
            tpot_ms: summary(tpot),
            handover_ms: summary(handover),
            itl_ms: summary(itl),
            total_ms: summary(total),
            lag_ms: summary(lag),
            waited_ms: summary(waited),
            ..self.report
        }
    }
}

// === impl Times ===

impl Times {
    fn add(&mut self, request: &Measured) {
        // Who was sent away has waited since.
        add(&mut self.ttft, request.waited + request.ttft);
        add(&mut self.total, request.waited + request.total);
        add(&mut self.lag, request.lag);
        if request.refusals > 0 {
            add(&mut self.waited, request.waited);
        }
        if let Some(tpot) = request.tpot() {
            add(&mut self.tpot, tpot);
        }
        // The second token is the first that another worker may have to compute.
        if let Some((handover, later)) = request.gaps.split_first() {
            add(&mut self.handover, *handover);
            later.iter().for_each(|gap| add(&mut self.itl, *gap));
        }
    }
}

/// Microseconds up to an hour, to three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("bounds that a histogram can have")
}

fn add(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1));
}

/// `None` of nothing.
fn summary(histogram: &Histogram<u64>) -> Option<Summary> {
    if histogram.is_empty() {
        return None;
    }
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    Some(Summary {
        mean: histogram.mean() / 1e3,
        p50: at(0.5),
        p90: at(0.9),
        p95: at(0.95),
        p99: at(0.99),
        max: histogram.max() as f64 / 1e3,
    })
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

// === impl Measured ===

impl Measured {
    /// Whether it had the service wanted. Who was sent away has waited since.
    pub(crate) fn is_good(&self, slo: &Slo) -> bool {
        ms(self.waited + self.ttft) <= slo.ttft_ms
            && self.tpot().is_none_or(|tpot| ms(tpot) <= slo.tpot_ms)
    }

    /// The mean time between tokens after the first; `None` for a single token.
    pub(crate) fn tpot(&self) -> Option<Duration> {
        let later = u32::try_from(self.output_tokens.checked_sub(1)?).ok().filter(|&n| n > 0)?;
        Some(self.total.saturating_sub(self.ttft) / later)
    }
}

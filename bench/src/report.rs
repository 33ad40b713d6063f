//! What a run came to: a table for people, JSON for scripts.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The service wanted: a request is good if it meets both.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slo {
    /// Longest time to the first token.
    pub ttft: Duration,
    /// Longest mean time between tokens.
    pub tpot: Duration,
}

/// One request, as its client saw it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Sent late against its plan.
    pub lag: Duration,
    /// How often the server asked to come back later.
    pub refusals: u64,
    /// From sending it first to sending it once more, with which it was answered.
    pub waited: Duration,
    /// From that to the first token.
    pub ttft: Duration,
    /// From that to the end.
    pub total: Duration,
    /// Between two events with text, in order.
    pub gaps: Vec<Duration>,
    /// Tokens of the prompt, as the server counted them.
    pub input_tokens: u64,
    /// Those of them that it found in a cache.
    pub cached_tokens: u64,
    /// Tokens generated, as the server counted them.
    pub output_tokens: u64,
    /// `x-baton-path`: how the prompt was computed, if the server says so.
    pub path: Option<String>,
}

/// A request without an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failed {
    /// Why, in few words.
    pub why: String,
    /// How often the server had asked to come back later before.
    pub refusals: u64,
}

/// Collects requests as they end.
#[derive(Debug)]
pub struct Recorder {
    slo: Slo,
    ttft: Histogram<u64>,
    tpot: Histogram<u64>,
    itl: Histogram<u64>,
    total: Histogram<u64>,
    lag: Histogram<u64>,
    waited: Histogram<u64>,
    report: Report,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was sent.
    pub workload: String,
    /// At which pace.
    pub arrivals: String,
    /// With it, the same is sent again.
    #[serde(default)]
    pub seed: u64,
    /// From the first request to the last answer.
    pub duration_s: f64,
    /// Requests answered in full.
    pub completed: u64,
    /// Requests refused or broken off.
    pub failed: u64,
    /// Why, and how often.
    pub failures: BTreeMap<String, u64>,
    /// Refusals after which clients came back as told.
    #[serde(default)]
    pub refusals: u64,
    /// How long those waited who were answered then, ms.
    #[serde(default)]
    pub waited_ms: Summary,
    /// How prompts were computed, and how often.
    pub paths: BTreeMap<String, u64>,
    /// Of all prompts.
    pub input_tokens: u64,
    /// Of them, found in a cache.
    pub cached_tokens: u64,
    /// Of all answers.
    pub output_tokens: u64,
    /// Requests that met the service wanted.
    pub good: u64,
    /// Time to the first token wanted, ms.
    pub slo_ttft_ms: f64,
    /// Mean time between tokens wanted, ms.
    pub slo_tpot_ms: f64,
    /// Time to the first token, ms.
    pub ttft_ms: Summary,
    /// Mean time between a request's tokens, ms.
    pub tpot_ms: Summary,
    /// Time between two events with text, ms.
    pub itl_ms: Summary,
    /// Time to the end, ms.
    pub total_ms: Summary,
    /// How late requests were sent, ms: if it isn't small, this client was the bottleneck.
    pub lag_ms: Summary,
}

/// A distribution in a few numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90 % are below.
    pub p90: f64,
    /// 95 % are below.
    pub p95: f64,
    /// 99 % are below.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

/// Above this, what was measured is the client rather than the server.
const LAG_MS_MAX: f64 = 10.0;

// === impl Recorder ===

impl Recorder {
    /// An empty one.
    #[must_use]
    pub fn new(slo: Slo) -> Self {
        let report = Report {
            slo_ttft_ms: slo.ttft.as_secs_f64() * 1e3,
            slo_tpot_ms: slo.tpot.as_secs_f64() * 1e3,
            ..Report::default()
        };
        let [ttft, tpot, itl, total, lag, waited] = std::array::from_fn(|_| histogram());
        Self { slo, ttft, tpot, itl, total, lag, waited, report }
    }

    /// Takes up a request that was answered in full.
    pub fn record(&mut self, request: &Measured) {
        let report = &mut self.report;
        report.completed += 1;
        report.input_tokens += request.input_tokens;
        report.cached_tokens += request.cached_tokens;
        report.output_tokens += request.output_tokens;
        if let Some(path) = &request.path {
            *report.paths.entry(path.clone()).or_default() += 1;
        }
        report.refusals += request.refusals;
        let tpot = request.tpot();
        // Who was sent away has waited since.
        let is_good = request.waited + request.ttft <= self.slo.ttft
            && tpot.is_none_or(|tpot| tpot <= self.slo.tpot);
        report.good += u64::from(is_good);

        add(&mut self.ttft, request.ttft);
        add(&mut self.total, request.total);
        add(&mut self.lag, request.lag);
        if request.refusals > 0 {
            add(&mut self.waited, request.waited);
        }
        if let Some(tpot) = tpot {
            add(&mut self.tpot, tpot);
        }
        for gap in &request.gaps {
            add(&mut self.itl, *gap);
        }
    }

    /// Takes up a request that failed.
    pub fn record_failure(&mut self, request: &Failed) {
        self.report.failed += 1;
        self.report.refusals += request.refusals;
        *self.report.failures.entry(request.why.clone()).or_default() += 1;
    }

    /// Requests taken up.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.report.completed + self.report.failed
    }

    /// The result of a run that took `duration`.
    #[must_use]
    pub fn finish(self, workload: String, arrivals: String, duration: Duration) -> Report {
        Report {
            workload,
            arrivals,
            duration_s: duration.as_secs_f64(),
            ttft_ms: summary(&self.ttft),
            tpot_ms: summary(&self.tpot),
            itl_ms: summary(&self.itl),
            total_ms: summary(&self.total),
            lag_ms: summary(&self.lag),
            waited_ms: summary(&self.waited),
            ..self.report
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

fn summary(histogram: &Histogram<u64>) -> Summary {
    if histogram.is_empty() {
        return Summary::default();
    }
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    Summary {
        mean: histogram.mean() / 1e3,
        p50: at(0.5),
        p90: at(0.9),
        p95: at(0.95),
        p99: at(0.99),
        max: histogram.max() as f64 / 1e3,
    }
}

// === impl Measured ===

impl Measured {
    /// The mean time between tokens after the first; `None` for a single token.
    #[must_use]
    pub fn tpot(&self) -> Option<Duration> {
        let later = u32::try_from(self.output_tokens.checked_sub(1)?).ok().filter(|&n| n > 0)?;
        Some(self.total.saturating_sub(self.ttft) / later)
    }
}

// === impl Report ===

impl Report {
    /// Answers per second.
    #[must_use]
    pub fn requests_per_s(&self) -> f64 {
        self.rate(self.completed)
    }

    /// Answers per second that met the service wanted.
    #[must_use]
    pub fn goodput_per_s(&self) -> f64 {
        self.rate(self.good)
    }

    /// Why the run is no measurement, if it isn't: nothing was answered, or too much failed.
    ///
    /// - `failures_max`: the share that may fail, in percent.
    #[must_use]
    pub fn flaw(&self, failures_max: f64) -> Option<String> {
        let all = self.completed + self.failed;
        if all == 0 {
            return Some("no request was sent to its end".to_owned());
        }
        let share = 100.0 * self.failed as f64 / all as f64;
        if self.completed > 0 && share <= failures_max {
            return None;
        }
        let worst = self.failures.iter().max_by_key(|(_, count)| **count);
        let why = worst.map_or("", |(why, _)| why.as_str());
        let allowed = match self.completed {
            0 => String::new(),
            _ => format!(", more than the {failures_max} % of --failures-max"),
        };
        Some(format!(
            "{} of {all} requests failed ({share:.1} %{allowed}), most by: {why}",
            self.failed
        ))
    }

    /// As JSON, with the rates that follow from the counts.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        value["requests_per_s"] = self.requests_per_s().into();
        value["goodput_per_s"] = self.goodput_per_s().into();
        value["input_tokens_per_s"] = self.rate(self.input_tokens).into();
        value["output_tokens_per_s"] = self.rate(self.output_tokens).into();
        value
    }

    fn rate(&self, count: u64) -> f64 {
        if self.duration_s > 0.0 { count as f64 / self.duration_s } else { 0.0 }
    }

    fn write_counts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}; {}; seed {}", self.workload, self.arrivals, self.seed)?;
        writeln!(
            f,
            "{} answered, {} failed in {:.1} s: {:.2} requests/s, {:.0} tokens/s in, {:.0} tokens/s out",
            self.completed,
            self.failed,
            self.duration_s,
            self.requests_per_s(),
            self.rate(self.input_tokens),
            self.rate(self.output_tokens),
        )?;
        let share = |part: u64, all: u64| 100.0 * part as f64 / all.max(1) as f64;
        writeln!(
            f,
            "goodput {:.2} requests/s ({:.1} % with TTFT <= {} ms and TPOT <= {} ms)",
            self.goodput_per_s(),
            share(self.good, self.completed + self.failed),
            self.slo_ttft_ms,
            self.slo_tpot_ms,
        )?;
        writeln!(
            f,
            "prompt tokens from a cache: {:.1} %",
            share(self.cached_tokens, self.input_tokens)
        )?;
        for (path, count) in &self.paths {
            writeln!(f, "path {path}: {count}")?;
        }
        for (why, count) in &self.failures {
            writeln!(f, "failed: {count} x {why}")?;
        }
        self.write_refusals(f)
    }

    fn write_refusals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.refusals == 0 {
            return Ok(());
        }
        write!(f, "refused and sent again when the server said: {} times", self.refusals)?;
        let Summary { mean, max, .. } = self.waited_ms;
        if max > 0.0 {
            write!(
                f,
                "; of those answered then, each waited {mean:.0} ms in the mean, {max:.0} at most"
            )?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_counts(f)?;
        writeln!(f)?;
        let heads = ["ms", "mean", "p50", "p90", "p95", "p99", "max"];
        writeln!(
            f,
            "{:<6}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
            heads[0], heads[1], heads[2], heads[3], heads[4], heads[5], heads[6]
        )?;
        let rows = [
            ("TTFT", self.ttft_ms),
            ("TPOT", self.tpot_ms),
            ("ITL", self.itl_ms),
            ("total", self.total_ms),
        ];
        for (name, Summary { mean, p50, p90, p95, p99, max }) in rows {
            writeln!(
                f,
                "{name:<6}{mean:>10.2}{p50:>10.2}{p90:>10.2}{p95:>10.2}{p99:>10.2}{max:>10.2}"
            )?;
        }
        if self.lag_ms.p99 > LAG_MS_MAX {
            let late = self.lag_ms.p99;
            writeln!(
                f,
                "\nrequests were sent up to {late:.0} ms late (p99): this client is too slow"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! What a run came to: a table for people, JSON for scripts.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The service wanted, ms: a request is good if it meets the first two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slo {
    /// Longest time to the first token.
    pub ttft_ms: f64,
    /// Longest mean time between tokens.
    pub tpot_ms: f64,
    /// 99 of 100 gaps between tokens are no longer than this, those at hand-overs apart. Of a whole run:
    /// a request has too few gaps to tell.
    pub itl_p99_ms: Option<f64>,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Who was asked.
    pub server: String,
    /// For which model.
    pub model: String,
    /// What was sent.
    pub workload: String,
    /// At which pace.
    pub arrivals: String,
    /// Sessions offered a second, where they didn't wait for answers.
    pub rate_per_s: Option<f64>,
    /// With it, the same is sent again.
    pub seed: u64,
    /// The service wanted.
    pub slo: Slo,
    /// From the first request to the last answer.
    pub duration_s: f64,
    /// Whether it was ended early: what was under way then counts for nothing.
    pub is_cut: bool,
    /// Requests answered in full.
    pub completed: u64,
    /// Requests refused or broken off.
    pub failed: u64,
    /// Why, and how often.
    pub failures: BTreeMap<String, u64>,
    /// Refusals after which clients came back as told.
    pub refusals: u64,
    /// How long those waited who were answered then, ms.
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
    /// Answers per second.
    pub requests_per_s: f64,
    /// Answers per second that met the service wanted.
    pub goodput_per_s: f64,
    /// Tokens of prompts per second.
    pub input_tokens_per_s: f64,
    /// Tokens of answers per second.
    pub output_tokens_per_s: f64,
    /// Share of all requests, failed ones too, that met the service wanted.
    pub within_percent: f64,
    /// Time to the first token, ms.
    pub ttft_ms: Summary,
    /// Mean time between a request's tokens, ms.
    pub tpot_ms: Summary,
    /// From the first token to the second, ms: between them a prefill worker hands over to a decode worker.
    pub handover_ms: Summary,
    /// Time between two later events with text, ms.
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

/// The share of requests that has to meet the service wanted before a rate is called served.
pub(super) const WITHIN_PERCENT: f64 = 99.0;

/// Above this, what was measured is the client rather than the server.
const LAG_MS_MAX: f64 = 10.0;

// === impl Report ===

impl Report {
    /// The longest time that anybody waited for a further token, ms.
    #[must_use]
    pub fn longest_gap_ms(&self) -> f64 {
        self.handover_ms.max.max(self.itl_ms.max)
    }

    /// Whether (nearly) everybody had the service wanted.
    #[must_use]
    pub fn is_within(&self) -> bool {
        let is_even = self.slo.itl_p99_ms.is_none_or(|most| self.itl_ms.p99 <= most);
        self.completed > 0 && is_even && self.within_percent >= WITHIN_PERCENT
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

    /// Whether this client, rather than the server, was too slow.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.lag_ms.p99 > LAG_MS_MAX
    }

    fn write_counts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}; {}; seed {}", self.workload, self.arrivals, self.seed)?;
        writeln!(
            f,
            "{} answered, {} failed in {:.1} s{}: {:.2} requests/s, {:.0} tokens/s in, {:.0} tokens/s out",
            self.completed,
            self.failed,
            self.duration_s,
            if self.is_cut { ", then cut off" } else { "" },
            self.requests_per_s,
            self.input_tokens_per_s,
            self.output_tokens_per_s,
        )?;
        writeln!(
            f,
            "goodput {:.2} requests/s ({:.1} % with {})",
            self.goodput_per_s,
            self.within_percent,
            self.slo.of_requests(),
        )?;
        let cached = 100.0 * self.cached_tokens as f64 / self.input_tokens.max(1) as f64;
        writeln!(f, "prompt tokens from a cache: {cached:.1} %")?;
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

    fn write_times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["mean", "p50", "p90", "p95", "p99", "max"];
        write!(f, "{:<9}", "ms")?;
        heads.iter().try_for_each(|head| write!(f, "{head:>10}"))?;
        let rows = [
            ("TTFT", self.ttft_ms),
            ("TPOT", self.tpot_ms),
            ("hand-over", self.handover_ms),
            ("ITL", self.itl_ms),
            ("total", self.total_ms),
        ];
        for (name, Summary { mean, p50, p90, p95, p99, max }) in rows {
            write!(f, "\n{name:<9}")?;
            [mean, p50, p90, p95, p99, max].iter().try_for_each(|ms| write!(f, "{ms:>10.2}"))?;
        }
        write!(
            f,
            "\nhand-over: from the first token to the second; ITL: all other gaps. Longest gap: {:.1} ms",
            self.longest_gap_ms()
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_counts(f)?;
        writeln!(f)?;
        self.write_times(f)?;
        match self.is_late() {
            true => write!(
                f,
                "\n\nrequests were sent up to {:.0} ms late (p99): this client is too slow",
                self.lag_ms.p99
            ),
            false => Ok(()),
        }
    }
}

// === impl Slo ===

impl Slo {
    /// What a request has to meet, in words.
    fn of_requests(&self) -> String {
        format!("TTFT <= {} ms and TPOT <= {} ms", self.ttft_ms, self.tpot_ms)
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.of_requests())?;
        self.itl_p99_ms.map_or(Ok(()), |most| write!(f, ", ITL p99 <= {most} ms"))
    }
}

#[cfg(test)]
mod tests;

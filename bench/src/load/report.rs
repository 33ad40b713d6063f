//! What a run came to: a table for people, JSON for scripts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::figure::shown;

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
    /// Those that came, of random ones more or fewer, over the time for which they were sent.
    #[serde(default)]
    pub came_per_s: Option<f64>,
    /// With it, the same is sent again.
    pub seed: u64,
    /// The service wanted.
    pub slo: Slo,
    /// From the first request to the last answer, and at least as long as requests were to be sent at a rate.
    pub duration_s: f64,
    /// Whether it was ended early: what was under way then counts for nothing.
    pub is_cut: bool,
    /// Whether that was because nobody could be connected to any more.
    #[serde(default)]
    pub is_gone: bool,
    /// Sessions that were under way then.
    #[serde(default)]
    pub unfinished: u64,
    /// Requests answered in full.
    pub completed: u64,
    /// Requests refused or broken off.
    pub failed: u64,
    /// Those of them that the server had no room for.
    #[serde(default)]
    pub refused: u64,
    /// Those of them that found nobody to connect to.
    #[serde(default)]
    pub unreachable: u64,
    /// Why, and how often.
    pub failures: BTreeMap<String, u64>,
    /// Those of the reasons that are refusals.
    #[serde(default)]
    pub refused_as: BTreeSet<String>,
    /// Requests of the warm-up that the server refused.
    #[serde(default)]
    pub warm_up_refused: u64,
    /// Those that failed in another way.
    #[serde(default)]
    pub warm_up_failed: u64,
    /// Refusals after which clients came back as told.
    pub refusals: u64,
    /// How long those waited who were answered then, ms.
    #[serde(deserialize_with = "written")]
    pub waited_ms: Option<Summary>,
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
    /// Time to the first token, ms; of who was refused and came back, since the first attempt.
    #[serde(deserialize_with = "written")]
    pub ttft_ms: Option<Summary>,
    /// Mean time between a request's tokens, ms.
    #[serde(deserialize_with = "written")]
    pub tpot_ms: Option<Summary>,
    /// From the first token to the second, ms: between them a prefill worker hands over to a decode worker.
    #[serde(deserialize_with = "written")]
    pub handover_ms: Option<Summary>,
    /// Time between two later events with text, ms.
    #[serde(deserialize_with = "written")]
    pub itl_ms: Option<Summary>,
    /// Time to the end, ms; of who was refused and came back, since the first attempt.
    #[serde(deserialize_with = "written")]
    pub total_ms: Option<Summary>,
    /// How late requests were sent, ms: if it isn't small, this client was the bottleneck.
    #[serde(deserialize_with = "written")]
    pub lag_ms: Option<Summary>,
}

/// A distribution in a few numbers; where there was nothing to measure, there is none.
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

/// Of fewer requests nothing is concluded: one is more than 5 % of them, and by chance a fifth more or less comes
/// than a rate says.
pub(super) const REQUESTS_MIN: u64 = 20;

/// Above this, what was measured is the client rather than the server.
const LAG_MS_MAX: f64 = 10.0;

// === impl Report ===

impl Report {
    /// The longest time that anybody waited for a further token, ms.
    #[must_use]
    pub fn longest_gap_ms(&self) -> Option<f64> {
        let gaps = self.handover_ms.into_iter().chain(self.itl_ms);
        gaps.map(|gaps| gaps.max).reduce(f64::max)
    }

    /// Whether (nearly) everybody had the service wanted, of enough to tell.
    #[must_use]
    pub fn is_within(&self) -> bool {
        let is_even = |most| self.itl_ms.is_none_or(|gaps| gaps.p99 <= most);
        self.tells()
            && self.slo.itl_p99_ms.is_none_or(is_even)
            && self.within_percent >= WITHIN_PERCENT
    }

    /// Whether anything of the server can be concluded from it: it is whole, and was answered, and not of a handful.
    pub(super) fn tells(&self) -> bool {
        !self.is_cut && self.completed > 0 && !self.is_few()
    }

    pub(super) fn is_few(&self) -> bool {
        self.completed + self.failed < REQUESTS_MIN
    }

    /// Sessions a second that came; of a version that didn't count them, as many as were asked for.
    pub(super) fn offered_per_s(&self) -> Option<f64> {
        self.came_per_s.or(self.rate_per_s)
    }

    /// Why the run is no measurement, if it isn't: nothing was answered, or too much failed.
    ///
    /// - `failures_max`: the share that may fail, in percent.
    #[must_use]
    pub fn flaw(&self, failures_max: f64) -> Option<String> {
        let all = self.completed + self.failed;
        if all == 0 {
            return Some(self.why_nothing());
        }
        if self.is_gone {
            return Some(format!("the server is gone: {}, {}", self.setbacks(), self.most()));
        }
        let share = 100.0 * self.failed as f64 / all as f64;
        if self.completed > 0 && share <= failures_max {
            return None;
        }
        let allowed = match self.completed {
            0 => String::new(),
            _ => format!(", more than the {failures_max} % of --failures-max"),
        };
        let hint = self.hint().unwrap_or_default();
        Some(format!("{} ({share:.1} %{allowed}), {}{hint}", self.setbacks(), self.most()))
    }

    /// What became of those without an answer, in words.
    fn setbacks(&self) -> String {
        let (all, refused) = (self.completed + self.failed, self.refused);
        match self.failed - refused {
            0 => format!("{refused} of {all} requests were refused"),
            failed if refused == 0 => format!("{failed} of {all} requests failed"),
            failed => format!("of {all} requests {refused} were refused and {failed} failed"),
        }
    }

    /// What to do where a server has no room for most of what it is asked.
    fn hint(&self) -> Option<&'static str> {
        let most = 2 * self.refused > self.completed + self.failed;
        most.then_some(match self.rate_per_s {
            Some(_) => "; refused: try a lower --rate, or a sweep such as `--rate 1..8`",
            None => "; refused: try fewer --clients",
        })
    }

    /// Whether the server was lost in it: a share that is too large has not even been refused.
    ///
    /// - `failures_max`: the share that may fail, in percent.
    pub(super) fn is_lost(&self, failures_max: f64) -> bool {
        let (all, lost) = (self.completed + self.failed, self.failed - self.refused);
        self.is_gone || 100.0 * lost as f64 > failures_max * all as f64
    }

    /// What most failures were.
    fn most(&self) -> String {
        let most = self.failures.iter().max_by_key(|(_, count)| **count);
        most.map_or(String::new(), |(why, _)| format!("most by: {why}"))
    }

    fn why_nothing(&self) -> String {
        match (self.is_cut, self.unfinished) {
            (_, 0) => format!("no request was sent in {:.1} s", self.duration_s),
            (_, count) => format!(
                "no request was answered before the end, after {:.1} s: {count} were under way",
                self.duration_s
            ),
        }
    }

    /// Whether this client, rather than the server, was too slow.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.lag_ms.is_some_and(|lag| lag.p99 > LAG_MS_MAX)
    }

    fn write_counts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let came = self.came_per_s.map(|came| format!(", {came:.2}/s came")).unwrap_or_default();
        writeln!(f, "{}; {}{came}; seed {}", self.workload, self.arrivals, self.seed)?;
        writeln!(
            f,
            "{} answered, {} refused, {} failed in {:.1} s{}: {:.2} requests/s, {:.0} tokens/s in, {:.0} tokens/s out",
            self.completed,
            self.refused,
            self.failed - self.refused,
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
        if let Some(setbacks) = warm_up_setbacks(std::slice::from_ref(self)) {
            writeln!(f, "{setbacks}")?;
        }
        let cached = 100.0 * self.cached_tokens as f64 / self.input_tokens.max(1) as f64;
        writeln!(f, "prompt tokens from a cache: {cached:.1} %")?;
        for (path, count) in &self.paths {
            writeln!(f, "path {path}: {count}")?;
        }
        for (why, count) in &self.failures {
            writeln!(f, "{}: {count} x {why}", self.verb(why))?;
        }
        self.write_refusals(f)
    }

    /// What became of requests for this reason.
    pub(super) fn verb(&self, why: &str) -> &'static str {
        if self.refused_as.contains(why) { "refused" } else { "failed" }
    }

    fn write_refusals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.refusals == 0 {
            return Ok(());
        }
        write!(f, "refused and sent again when the server said: {} times", self.refusals)?;
        if let Some(Summary { mean, max, .. }) = self.waited_ms {
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
        for (name, times) in rows {
            write!(f, "\n{name:<9}")?;
            let column = |number: usize| times.map(|times: Summary| times.numbers()[number]);
            (0..heads.len())
                .try_for_each(|number| write!(f, "{:>10}", shown(column(number), 2)))?;
        }
        write!(
            f,
            "\nhand-over: from the first token to the second; ITL: all other gaps. Longest gap: {} ms",
            shown(self.longest_gap_ms(), 1)
        )?;
        match self.refusals {
            0 => Ok(()),
            _ => write!(f, "\nTTFT, total: since the first attempt, waiting to be let in included"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_counts(f)?;
        writeln!(f)?;
        self.write_times(f)?;
        match self.lag_ms.filter(|_| self.is_late()) {
            Some(lag) => write!(
                f,
                "\n\nrequests were sent up to {:.0} ms late (p99): this client is too slow",
                lag.p99
            ),
            None => Ok(()),
        }
    }
}

/// What of the warm-ups of some runs was not answered, in a line, if anything was.
pub(super) fn warm_up_setbacks(runs: &[Report]) -> Option<String> {
    let refused: u64 = runs.iter().map(|run| run.warm_up_refused).sum();
    let failed: u64 = runs.iter().map(|run| run.warm_up_failed).sum();
    let said = format!(
        "warm-up: {refused} requests refused, {failed} failed; what it was to warm may have been cold"
    );
    (refused + failed > 0).then_some(said)
}

// === impl Summary ===

impl Summary {
    fn numbers(&self) -> [f64; 6] {
        let Self { mean, p50, p90, p95, p99, max } = *self;
        [mean, p50, p90, p95, p99, max]
    }
}

/// Reads what may be `null` and may not be missing.
fn written<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<Summary>, D::Error> {
    Option::deserialize(reader)
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

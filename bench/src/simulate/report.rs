//! What simulated runs came to: a table for people, JSON for scripts.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SimulateOptions;
use super::engine::Engine;
use super::history::Moment;
use super::ideal::Ideal;
use super::policy::Policy;
use crate::figure::{Figure, shown};
use crate::load::{Report, Summary};

/// The report of `baton simulate`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SimulateReport {
    /// Who was asked.
    pub fleet: String,
    /// Routers that placed requests.
    pub routers: usize,
    /// How old their news were, beside the time between two reports, ms.
    pub events_delay_ms: f64,
    /// Prompt tokens that one cache without an end would have found, percent.
    pub ideal_cached_percent: f64,
    /// Different KV blocks of all prompts.
    pub distinct_blocks: u64,
    /// Of each policy.
    pub runs: Vec<SimulatedRun>,
}

/// What a trace came to by one policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SimulatedRun {
    /// By which rule requests were placed.
    pub policy: String,
    /// As a client would have measured it.
    pub report: Report,
    /// Sequences that had to give their blocks back.
    pub preemptions: u64,
    /// Each worker.
    pub workers: Vec<WorkerRun>,
    /// How it went on.
    pub history: Vec<Moment>,
}

/// One worker over a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerRun {
    /// Which.
    pub name: String,
    /// The part of the time in which it computed.
    pub busy_percent: f64,
}

// === impl SimulateReport ===

impl SimulateReport {
    pub(super) fn new(options: &SimulateOptions, runs: Vec<SimulatedRun>) -> Self {
        let ideal = Ideal::of(options);
        Self {
            fleet: options.fleet.to_string(),
            routers: options.routers,
            events_delay_ms: options.events_delay.as_secs_f64() * 1e3,
            ideal_cached_percent: ideal.cached_percent(),
            distinct_blocks: ideal.blocks,
            runs,
        }
    }

    /// Who placed requests, and what they are held to.
    pub(super) fn circumstances(&self) -> String {
        let slo = self.runs.first().map(|run| run.report.slo).unwrap_or_default();
        let news = self.events_delay_ms;
        match self.routers {
            1 => format!("a router, with news {news} ms old; {slo}"),
            routers => format!("{routers} routers, with news {news} ms old; {slo}"),
        }
    }

    /// What the best of all caches would come to.
    pub(super) fn ideal(&self) -> String {
        let Self { ideal_cached_percent, distinct_blocks, .. } = self;
        format!(
            "one cache without an end: {ideal_cached_percent:.1} % of prompt tokens, {distinct_blocks} different blocks"
        )
    }

    /// What can be compared with another run's.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        self.runs.iter().flat_map(|run| run.report.figures()).collect()
    }

    /// What a comparison presumes to be the same.
    pub(crate) fn setting(&self) -> Vec<(&'static str, String)> {
        let first = self.runs.first().map(|run| run.report.clone()).unwrap_or_default();
        vec![
            ("workers", self.fleet.clone()),
            ("routers", self.routers.to_string()),
            ("events' delay, ms", self.events_delay_ms.to_string()),
            ("workload", first.workload),
            ("targets", first.slo.to_string()),
            ("seed", first.seed.to_string()),
        ]
    }
}

impl fmt::Display for SimulateReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(SimulatedRun { report, .. }) = self.runs.first() else { return Ok(()) };
        let came = shown(report.came_per_s, 2);
        writeln!(f, "{}; {came} requests/s came; seed {}", report.workload, report.seed)?;
        writeln!(f, "{}; {}\n", self.fleet, self.circumstances())?;
        writeln!(
            f,
            "{:<13} {:>9} {:>8} {:>8} {:>26} {:>17} {:>7} {:>9} {:>15}",
            "",
            "goodput",
            "within",
            "refused",
            "TTFT, ms",
            "TPOT, ms",
            "cached",
            "pushed",
            "busy, %"
        )?;
        writeln!(
            f,
            "{:<13} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>9} {:>7} {:>7}",
            "policy",
            "req/s",
            "%",
            "",
            "p50",
            "mean",
            "p99",
            "mean",
            "p99",
            "%",
            "out",
            "least",
            "most"
        )?;
        self.runs.iter().try_for_each(|run| writeln!(f, "{run}"))?;
        write!(f, "\n{}", self.ideal())
    }
}

// === impl SimulatedRun ===

impl SimulatedRun {
    pub(super) fn new<'a>(
        policy: Policy,
        report: Report,
        engines: impl Iterator<Item = (String, &'a Engine)>,
        history: Vec<Moment>,
        took: Duration,
    ) -> Self {
        let (mut workers, mut preemptions) = (Vec::new(), 0);
        for (name, engine) in engines {
            preemptions += engine.preemptions();
            let busy = engine.busy().as_secs_f64() / took.as_secs_f64().max(f64::MIN_POSITIVE);
            workers.push(WorkerRun { name, busy_percent: (100.0 * busy).min(100.0) });
        }
        Self { policy: policy.to_string(), report, preemptions, workers, history }
    }

    /// The share of prompt tokens that were found in a cache.
    #[must_use]
    pub fn cached_percent(&self) -> f64 {
        let Report { input_tokens, cached_tokens, .. } = self.report;
        100.0 * cached_tokens as f64 / input_tokens.max(1) as f64
    }
}

impl fmt::Display for SimulatedRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, report, preemptions, workers, .. } = self;
        let busy = || workers.iter().map(|worker| worker.busy_percent);
        let of = |times: Option<Summary>, of: fn(Summary) -> f64| shown(times.map(of), 1);
        write!(
            f,
            "{policy:<13} {:>9.3} {:>8.2} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7.1} {preemptions:>9} {:>7.1} {:>7.1}",
            report.goodput_per_s,
            report.within_percent,
            report.refused,
            of(report.ttft_ms, |it| it.p50),
            of(report.ttft_ms, |it| it.mean),
            of(report.ttft_ms, |it| it.p99),
            of(report.tpot_ms, |it| it.mean),
            of(report.tpot_ms, |it| it.p99),
            self.cached_percent(),
            busy().fold(f64::INFINITY, f64::min),
            busy().fold(0.0, f64::max),
        )
    }
}

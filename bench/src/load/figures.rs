//! What of a report can be compared with another run's, and what of it rests on too little.

use std::collections::BTreeMap;

use super::report::{REQUESTS_MIN, Report, Summary};
use super::serve::{Point, ServeReport};
use crate::figure::{Better, Figure};

/// Times of one kind.
struct Times {
    name: &'static str,
    of: Option<Summary>,
    /// How many they are.
    samples: u64,
    /// What it says if they are none.
    none: &'static str,
}

/// One number of a distribution: its name, the samples that it takes, and how it is had.
type Number = (&'static str, u64, fn(Summary) -> f64);

const MEAN: Number = ("mean", REQUESTS_MIN, |times| times.mean);
const P50: Number = ("p50", REQUESTS_MIN, |times| times.p50);
/// Of 20, one is beyond it.
const P95: Number = ("p95", 20, |times| times.p95);
/// Of 100, one is beyond it.
const P99: Number = ("p99", 100, |times| times.p99);

const FEW: &str = "all, of fewer than 20 requests";
const FEW_TIMES: &str = "times, of fewer than 20 samples";
const FEW_FOR_P99: &str = "p99 of fewer than 100 samples";
const NOT_HANDED_OVER: &str = "hand-over, as nothing was handed over";
const FEW_ABOVE: &str = "higher rates were of fewer than 20 requests";
const NOT_COUNTED: &str = "what came was not counted by that version";

/// How a prompt was computed where nothing is handed over.
const LOCAL: &str = "local";

// === impl ServeReport ===

impl ServeReport {
    /// What can be compared with another run's.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        self.runs.iter().flat_map(Report::figures).chain(self.limits()).collect()
    }

    /// Where the server's limit is, if it was looked for.
    fn limits(&self) -> Vec<Figure> {
        if self.runs.len() < 2 || self.runs.iter().all(|run| run.rate_per_s.is_none()) {
            return Vec::new();
        }
        let figure = |name, value: Option<f64>| Figure::new("limit", name, value, Better::More);
        let served = figure("served up to, requests/s", self.knee.map(Point::offered_per_s));
        let best = figure("best goodput, requests/s", self.best.map(|best| best.goodput_per_s));
        let is_uncounted = self.knee.is_some_and(|knee| knee.came_per_s.is_none());
        let few_above = self.is_few_above_limit().then_some(FEW_ABOVE);
        let served = served.with_doubt(is_uncounted.then_some(NOT_COUNTED));
        [served, best].map(|figure| figure.with_doubt(few_above)).into()
    }

    /// Whether a higher rate may have been served, and was too short to tell.
    fn is_few_above_limit(&self) -> bool {
        let limit = self.knee.map_or(0.0, Point::offered_per_s);
        let is_above = |run: &Report| run.offered_per_s().is_some_and(|rate| rate > limit);
        self.runs.iter().any(|run| run.is_few() && is_above(run))
    }

    /// What a comparison presumes to be the same.
    pub(crate) fn setting(&self) -> Vec<(&'static str, String)> {
        let first = self.runs.first();
        let of = |text: fn(&Report) -> String| first.map(text).unwrap_or_default();
        vec![
            ("model", of(|run| run.model.clone())),
            ("workload", of(|run| run.workload.clone())),
            ("targets", of(|run| run.slo.to_string())),
            ("seed", of(|run| run.seed.to_string())),
        ]
    }

    /// The share of prompt tokens that were found in a cache.
    pub(crate) fn cached_percent(&self) -> f64 {
        let sum = |count: fn(&Report) -> u64| self.runs.iter().map(count).sum::<u64>() as f64;
        100.0 * sum(|run| run.cached_tokens) / sum(|run| run.input_tokens).max(1.0)
    }

    /// How prompts were computed, each with its share of all that say so.
    pub(crate) fn path_percents(&self) -> BTreeMap<&str, f64> {
        let mut counts = BTreeMap::new();
        for (path, count) in self.runs.iter().flat_map(|run| &run.paths) {
            *counts.entry(path.as_str()).or_insert(0.0) += *count as f64;
        }
        let all: f64 = counts.values().sum();
        counts.into_iter().map(|(path, count)| (path, 100.0 * count / all)).collect()
    }
}

// === impl Report ===

impl Report {
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let group = self.group();
        let more = |name: &str, value: f64| Figure::new(&group, name, value, Better::More);
        let failed = self.failed_percent();
        let counts = [
            more("goodput, requests/s", self.goodput_per_s),
            more("all, requests/s", self.requests_per_s),
            more("within, %", self.within_percent),
            Figure::new(&group, "refused or failed, %", failed, Better::LessPoints),
        ];
        let longest = self.longest_gap_ms().filter(|_| self.completed > 0);
        let longest = Figure::new(&group, "longest gap, ms", longest, Better::Unjudged);
        let figures = counts.into_iter().chain(self.times(&group)).chain([longest]);
        let few = self.is_few().then_some(FEW);
        figures.map(|figure| figure.with_doubt(few)).collect()
    }

    /// Figures of the same are of the same rate.
    fn group(&self) -> String {
        let pace =
            self.rate_per_s.map_or_else(|| self.arrivals.clone(), |rate| format!("{rate}/s"));
        // A part is not compared with a whole.
        if self.is_cut { format!("{pace}, cut off") } else { pace }
    }

    fn times(&self, group: &str) -> Vec<Figure> {
        // Nobody's times are none, whatever the file has for them.
        let times = |name, of: Option<Summary>, samples| Times {
            name,
            of: of.filter(|_| self.completed > 0),
            samples,
            none: FEW_TIMES,
        };
        let hand_over = Times {
            none: NOT_HANDED_OVER,
            ..times("hand-over", self.handover_ms, self.handed_over())
        };
        let gaps = self.output_tokens.saturating_sub(2 * self.completed);
        [
            times("TTFT", self.ttft_ms, self.completed).figures(group, &[MEAN, P50, P95, P99]),
            times("TPOT", self.tpot_ms, self.completed).figures(group, &[MEAN, P95, P99]),
            hand_over.figures(group, &[P50, P99]),
            times("ITL", self.itl_ms, gaps).figures(group, &[P50, P99]),
        ]
        .concat()
    }

    /// Requests that one worker handed over to another.
    fn handed_over(&self) -> u64 {
        self.paths.iter().filter(|(path, _)| *path != LOCAL).map(|(_, count)| count).sum()
    }

    /// The share that was refused or failed; `None` of no requests.
    fn failed_percent(&self) -> Option<f64> {
        let (failed, all) = (self.failed as f64, self.completed as f64 + self.failed as f64);
        (all > 0.0).then_some(100.0 * failed / all)
    }
}

// === impl Times ===

impl Times {
    fn figures(&self, group: &str, numbers: &[Number]) -> Vec<Figure> {
        numbers.iter().map(|number| self.figure(group, *number)).collect()
    }

    fn figure(&self, group: &str, (number, samples_min, value): Number) -> Figure {
        let why = match self.samples {
            0 => self.none,
            _ if samples_min > REQUESTS_MIN => FEW_FOR_P99,
            _ => FEW_TIMES,
        };
        // What has gone altogether is no matter of samples.
        let is_thin = self.of.is_some() && self.samples < samples_min;
        let name = format!("{} {number}, ms", self.name);
        Figure::new(group, name, self.of.map(value), Better::Less)
            .with_doubt(is_thin.then_some(why))
    }
}

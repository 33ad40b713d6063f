//! What a workload came to at one pace or at several, and where a server reaches its limit.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::report::{REQUESTS_MIN, Report, Summary, WITHIN_PERCENT, warm_up_setbacks};
use crate::figure::shown;

/// The report of `bench serve`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServeReport {
    /// Of each pace, in the order they were run.
    pub runs: Vec<Report>,
    /// The highest rate that came and was served: 99 % of its requests had the service wanted.
    pub knee: Option<Point>,
    /// Where most requests a second had it.
    pub best: Option<Point>,
}

/// A rate, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Sessions a second that were asked for.
    pub rate_per_s: f64,
    /// Those that came; `None` of a version that didn't count them.
    #[serde(default)]
    pub came_per_s: Option<f64>,
    /// Answers per second that met the service wanted.
    pub goodput_per_s: f64,
}

// === impl ServeReport ===

impl ServeReport {
    /// Looks for the limit among the runs. One that was cut short, or of a handful of requests, says nothing of it.
    #[must_use]
    pub fn new(runs: Vec<Report>) -> Self {
        let served = runs.iter().filter(|run| run.is_within()).filter_map(Point::of);
        let knee = served.max_by(|a, b| a.offered_per_s().total_cmp(&b.offered_per_s()));
        let telling = runs.iter().filter(|run| run.tells()).filter_map(Point::of);
        let best = telling.max_by(|a, b| a.goodput_per_s.total_cmp(&b.goodput_per_s));
        Self { knee, best, runs }
    }

    /// Why this is no measurement, if it isn't: the server was lost in a run, or every run has a flaw. Above its
    /// limit a server may refuse as much as it likes.
    #[must_use]
    pub fn flaw(&self, failures_max: f64) -> Option<String> {
        if let Some(lost) = self.runs.iter().find(|run| run.is_lost(failures_max)) {
            return lost.flaw(failures_max);
        }
        let flaws: Option<Vec<_>> = self.runs.iter().map(|run| run.flaw(failures_max)).collect();
        flaws?.into_iter().next()
    }

    /// Why a rate was not served, if it wasn't: nothing as high came and was had within the targets.
    #[must_use]
    pub fn unserved(&self, rate_per_s: f64) -> Option<String> {
        let is_served = self.knee.is_some_and(|knee| knee.offered_per_s() >= rate_per_s);
        let few = match self.runs.iter().any(Report::is_few) {
            true => format!("; of fewer than {REQUESTS_MIN} requests nothing is concluded"),
            false => String::new(),
        };
        (!is_served).then(|| {
            format!("no rate of at least {rate_per_s}/s came and was served: {}{few}", self.limit())
        })
    }

    fn write_several(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.runs.first() else { return Ok(()) };
        writeln!(
            f,
            "{}, at each rate; {}; seeds from {}\n",
            first.workload, first.model, first.seed
        )?;
        writeln!(
            f,
            "{:>8} {:>8} {:>8} {:>8} {:>8}  {:>17}  {:>15}  {:>17}  {:>15} {:>8}",
            "",
            "came",
            "goodput",
            "of all",
            "within",
            "TTFT, ms",
            "TPOT, ms",
            "hand-over, ms",
            "ITL, ms",
            "longest"
        )?;
        writeln!(
            f,
            "{:>8} {:>8} {:>8} {:>8} {:>8}  {:>8} {:>8}  {:>7} {:>7}  {:>8} {:>8}  {:>7} {:>7} {:>8}",
            "rate/s",
            "/s",
            "req/s",
            "req/s",
            "%",
            "mean",
            "p99",
            "mean",
            "p99",
            "mean",
            "p99",
            "mean",
            "p99",
            "gap, ms"
        )?;
        self.runs.iter().try_for_each(|run| writeln!(f, "{}", self.row(run)))?;
        writeln!(f, "\n{}", self.limit())?;
        for ((verb, why), count) in self.failures() {
            writeln!(f, "{verb}: {count} x {why}")?;
        }
        if let Some(setbacks) = warm_up_setbacks(&self.runs) {
            writeln!(f, "{setbacks}")?;
        }
        if self.runs.iter().any(Report::is_late) {
            writeln!(
                f,
                "late: requests were sent late; this client is too slow to measure that rate"
            )?;
        }
        if self.runs.iter().any(Report::is_few) {
            writeln!(f, "few: of fewer than {REQUESTS_MIN} requests nothing is concluded")?;
        }
        write!(
            f,
            "came: what was sent at random times, a second; hand-over: from the first token to the second; ITL: all \
             other gaps; longest gap: of both"
        )
    }

    /// What became of requests, why, and how often, of all runs.
    fn failures(&self) -> BTreeMap<(&str, &str), u64> {
        let mut failures = BTreeMap::new();
        for run in &self.runs {
            for (why, count) in &run.failures {
                *failures.entry((run.verb(why), why.as_str())).or_default() += count;
            }
        }
        failures
    }

    fn row(&self, run: &Report) -> String {
        let is_at = |point: Option<Point>| {
            run.tells() && point.map(|point| point.rate_per_s) == run.rate_per_s
        };
        let marks = [
            is_at(self.knee).then(|| "<- served".to_owned()),
            is_at(self.best).then(|| "<- best goodput".to_owned()),
            run.is_gone.then(|| "the server is gone".to_owned()),
            (run.is_cut && !run.is_gone).then(|| "cut off".to_owned()),
            run.is_few().then(|| "few".to_owned()),
            (run.refused > 0).then(|| format!("{} refused", run.refused)),
            (run.failed > run.refused).then(|| format!("{} failed", run.failed - run.refused)),
            run.is_late().then(|| "late".to_owned()),
        ];
        let marks: Vec<_> = marks.into_iter().flatten().collect();
        format!("{}  {}", run.row(), marks.join(", ")).trim_end().to_owned()
    }

    /// Where the limit is, in words.
    #[must_use]
    pub fn limit(&self) -> String {
        let slo = self.runs.first().map(|run| run.slo).unwrap_or_default();
        let knee = match &self.knee {
            Some(point) => format!(
                "served (>= {WITHIN_PERCENT} % within {slo}): up to {}, goodput {:.2}/s",
                point.rate(),
                point.goodput_per_s
            ),
            None => format!("served (>= {WITHIN_PERCENT} % within {slo}): no rate"),
        };
        let best = self.best.map_or(String::new(), |point| {
            format!("; best goodput: {:.2}/s, at {}", point.goodput_per_s, point.rate())
        });
        knee + &best
    }
}

impl fmt::Display for ServeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.runs.as_slice() {
            [one] => write!(f, "{one}"),
            _ => self.write_several(f),
        }
    }
}

// === impl Report ===

impl Report {
    /// In a line.
    #[must_use]
    pub fn brief(&self) -> String {
        format!(
            "{}: {}/s came, goodput {:.2} of {:.2}/s, {:.1} % within; TTFT {} ms, TPOT {} ms, ITL p99 {} ms",
            self.arrivals,
            shown(self.came_per_s, 2),
            self.goodput_per_s,
            self.requests_per_s,
            self.within_percent,
            shown(self.ttft_ms.map(|times| times.mean), 0),
            shown(self.tpot_ms.map(|times| times.mean), 1),
            shown(self.itl_ms.map(|times| times.p99), 1),
        )
    }

    /// A line of a table of several.
    fn row(&self) -> String {
        let mean = |times: Option<Summary>, digits| shown(times.map(|times| times.mean), digits);
        let p99 = |times: Option<Summary>, digits| shown(times.map(|times| times.p99), digits);
        format!(
            "{:>8} {:>8} {:>8.2} {:>8.2} {:>8.1}  {:>8} {:>8}  {:>7} {:>7}  {:>8} {:>8}  {:>7} {:>7} {:>8}",
            self.pace(),
            shown(self.came_per_s, 2),
            self.goodput_per_s,
            self.requests_per_s,
            self.within_percent,
            mean(self.ttft_ms, 1),
            p99(self.ttft_ms, 1),
            mean(self.tpot_ms, 2),
            p99(self.tpot_ms, 2),
            mean(self.handover_ms, 2),
            p99(self.handover_ms, 2),
            mean(self.itl_ms, 2),
            p99(self.itl_ms, 2),
            shown(self.longest_gap_ms(), 1),
        )
    }

    /// Its rate, or in words what it has instead.
    fn pace(&self) -> String {
        self.rate_per_s.map_or_else(|| self.arrivals.clone(), |rate| rate.to_string())
    }
}

// === impl Point ===

impl Point {
    fn of(run: &Report) -> Option<Self> {
        let rate_per_s = run.rate_per_s.filter(|_| run.completed > 0)?;
        let (came_per_s, goodput_per_s) = (run.came_per_s, run.goodput_per_s);
        Some(Self { rate_per_s, came_per_s, goodput_per_s })
    }

    /// Sessions a second that came; if nobody counted them, as many as were asked for.
    pub(super) fn offered_per_s(self) -> f64 {
        self.came_per_s.unwrap_or(self.rate_per_s)
    }

    /// The rate that came, and what was asked for.
    fn rate(self) -> String {
        match self.came_per_s {
            Some(came) => format!("{came:.2}/s (asked for: {}/s)", self.rate_per_s),
            None => format!("{}/s", self.rate_per_s),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::load::Slo;

    /// A server whose limit is at 28/s: at each rate the share within, and answers a second.
    pub(crate) fn sweep() -> ServeReport {
        let runs = [
            (16.0, 100.0, 15.9),
            (24.0, 99.0, 23.8),
            (28.0, 99.2, 27.7),
            (32.0, 90.0, 31.0),
            (40.0, 20.0, 31.2),
        ];
        ServeReport::new(runs.map(|(rate, within, requests)| run(rate, within, requests)).to_vec())
    }

    fn run(rate: f64, within_percent: f64, requests_per_s: f64) -> Report {
        let slow = 100.0 - within_percent;
        let times = |ms: f64| {
            Some(Summary {
                mean: round(ms),
                p50: round(ms * 0.9),
                p90: round(ms * 1.2),
                p95: round(ms * 1.3),
                p99: round(ms * 1.5),
                max: round(ms * 9.0),
            })
        };
        Report {
            model: "a-model".to_owned(),
            workload: "100 requests, 1024 in, 128 out".to_owned(),
            arrivals: format!("Poisson, {rate}/s"),
            rate_per_s: Some(rate),
            came_per_s: Some(rate - 0.1),
            slo: Slo { ttft_ms: 500.0, tpot_ms: 30.0, itl_p99_ms: None },
            completed: 100,
            input_tokens: 102_400,
            output_tokens: 12_800,
            paths: [("handoff".to_owned(), 100)].into(),
            within_percent,
            requests_per_s,
            goodput_per_s: round(requests_per_s * within_percent / 100.0),
            ttft_ms: times(60.0 + 10.0 * slow),
            tpot_ms: times(8.0 + slow / 20.0),
            handover_ms: times(12.0),
            itl_ms: times(8.0),
            ..Report::default()
        }
    }

    /// JSON has it, to the last bit.
    fn round(value: f64) -> f64 {
        (value * 100.0).round() / 100.0
    }

    #[test]
    fn the_limit_is_the_highest_rate_that_is_served() {
        let report = sweep();
        assert_eq!(report.knee.map(|point| point.rate_per_s), Some(28.0));
        assert_eq!(
            report.best.map(|point| point.rate_per_s),
            Some(32.0),
            "27.9 good ones, and 27.48 at 28/s"
        );
        let cut = Report { is_cut: true, ..run(99.0, 100.0, 99.0) };
        let more = ServeReport::new(report.runs.iter().cloned().chain([cut]).collect());
        assert_eq!((more.knee, more.best), (report.knee, report.best), "nothing comes of a part");
        let strict = |run: Report| Report { slo: Slo { itl_p99_ms: Some(1.0), ..run.slo }, ..run };
        let strict = ServeReport::new(report.runs.into_iter().map(strict).collect());
        assert_eq!(strict.knee, None);
        assert!(
            strict.to_string().contains("ITL p99 <= 1 ms): no rate; best goodput: 27.90/s"),
            "{strict}"
        );
    }

    #[test]
    fn the_table_has_a_row_a_rate_and_marks_the_limit() {
        let text = sweep().to_string();
        let line = |start: &str| {
            text.lines().find(|line| line.trim_start().starts_with(start)).expect(start)
        };
        assert!(
            line("28 ").contains("27.90    27.48    27.70     99.2")
                && line("28 ").ends_with("<- served"),
            "{text}"
        );
        assert!(line("32 ").ends_with("<- best goodput"), "{text}");
        assert!(
            line("served").contains("up to 27.90/s (asked for: 28/s), goodput 27.48/s; best goodput: 27.90/s, at 31.90/s (asked for: 32/s)"),
            "{text}"
        );
    }

    #[test]
    fn the_limit_is_of_what_came_and_not_of_what_was_asked_for() {
        let came = |run: Report, came| Report { came_per_s: Some(came), ..run };
        let (six, five) = (run(6.0, 100.0, 4.4), run(5.0, 100.0, 5.1));
        let report = ServeReport::new(vec![came(five.clone(), 5.2), came(six.clone(), 4.5)]);
        let text = report.limit();
        assert!(
            text.contains(
                "up to 5.20/s (asked for: 5/s), goodput 5.10/s; best goodput: 5.10/s, at 5.20/s"
            ),
            "{text}"
        );
        let older = |run: Report| Report { came_per_s: None, ..run };
        let text = ServeReport::new(vec![older(five), older(six)]).limit();
        assert!(text.contains("up to 6/s, goodput 4.40/s"), "{text}");
    }

    #[test]
    fn what_was_refused_has_not_failed() {
        let why = |why: &str, count| (why.to_owned(), count);
        let mut report = sweep();
        report.runs[4].failed = 7;
        report.runs[4].refused = 4;
        report.runs[4].failures = [why("429 full", 4), why("timed out", 3)].into();
        report.runs[4].refused_as = ["429 full".to_owned()].into();
        report.runs[3].warm_up_refused = 2;
        let text = report.to_string();
        for part in [
            "  4 refused, 3 failed\n",
            "\nrefused: 4 x 429 full\n",
            "\nfailed: 3 x timed out\n",
            "\nwarm-up: 2 requests refused, 0 failed;",
        ] {
            assert!(text.contains(part), "{part:?} in:\n{text}");
        }
    }

    #[test]
    fn a_rate_is_served_if_as_much_came_and_was_had_in_time() {
        let report = sweep();
        assert_eq!((report.unserved(16.0), report.unserved(27.9)), (None, None));
        let why = report.unserved(28.0).expect("27.9 came");
        assert!(
            why.starts_with("no rate of at least 28/s came and was served: served (>= 99 %"),
            "{why}"
        );
        assert!(why.contains("up to 27.90/s (asked for: 28/s)") && !why.contains("fewer"), "{why}");
        let few = Report { completed: 19, ..run(6.0, 100.0, 5.9) };
        let why = ServeReport::new(vec![few]).unserved(1.0).expect("a handful");
        assert!(why.ends_with("no rate; of fewer than 20 requests nothing is concluded"), "{why}");
    }

    #[test]
    fn a_sweep_is_flawed_if_nothing_of_it_is_sound() {
        let refused = |run: Report| Report { failed: 300, refused: 300, ..run };
        let mut report = sweep();
        report.runs[4] = refused(report.runs[4].clone());
        assert_eq!(report.flaw(50.0), None, "beyond its limit a server refuses");
        report.runs = report.runs.into_iter().map(refused).collect();
        assert!(report.flaw(50.0).is_some_and(|flaw| flaw.contains("300 of 400")));
    }
}

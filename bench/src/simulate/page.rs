//! Simulated runs as one page: plots over their time, and all numbers below.

use std::fmt::Write as _;

use super::history::Moment;
use super::report::{SimulateReport, SimulatedRun};
use crate::document::Document;
use crate::figure::shown;
use crate::load::Summary;
use crate::plot::{Across, Chart, Page, Series, escape};

/// Lines of a chart at most: as many as there are colours.
const LINES_MAX: usize = 8;

const HUES: [&str; LINES_MAX] =
    ["hue-0", "hue-1", "hue-2", "hue-3", "hue-4", "hue-5", "hue-6", "hue-7"];

const TIME: Across<'_> = Across { name: "time, s", unit: " s" };

/// One number of all workers: its name, and how it is had.
type Band = (&'static str, fn(&[f64]) -> f64);

/// What is shown of workers where they are too many: the least, mean and greatest.
const BANDS: [Band; 3] = [
    ("least", |all| all.iter().copied().fold(f64::INFINITY, f64::min)),
    ("mean", |all| all.iter().sum::<f64>() / all.len().max(1) as f64),
    ("most", |all| all.iter().copied().fold(0.0, f64::max)),
];

/// Writes the page.
///
/// - `document`: when and how the report was made.
#[must_use]
pub fn page(report: &SimulateReport, document: &Document) -> String {
    let workload = report.runs.first().map(|run| run.report.workload.as_str()).unwrap_or_default();
    let page = Page {
        title: "a trace in virtual time",
        heading: &report.fleet,
        facts: &[workload, &report.circumstances()],
        document,
    };
    let shared = shared(report).into_iter().chain(report.runs.iter().map(busy));
    let charts: String = shared.map(|chart| chart.svg()).collect();
    let note = escape(&report.ideal());
    page.html(&format!(
        "<section class=\"charts\">\n{charts}</section>\n{}<p>{note}</p>\n",
        table(&report.runs)
    ))
}

/// What all policies are laid side by side in.
fn shared(report: &SimulateReport) -> Vec<Chart<'_>> {
    let slo = report.runs.first().map(|run| run.report.slo).unwrap_or_default();
    let chart = |title: &str, unit, target, value: fn(&Moment) -> Option<f64>| Chart {
        title: title.to_owned(),
        unit,
        across: TIME,
        series: report.runs.iter().take(LINES_MAX).zip(HUES).map(|it| line(it, value)).collect(),
        target,
        limit: None,
    };
    vec![
        chart("Goodput", "requests/s", None, |it| Some(it.goodput_per_s())),
        chart("Time to first token, mean", "ms", Some(slo.ttft_ms), |it| {
            it.answered.ttft_mean_ms()
        }),
        chart("Time per output token, mean", "ms", Some(slo.tpot_ms), |it| {
            it.answered.tpot_mean_ms()
        }),
        chart("Prompt tokens from a cache", "%", None, |it| it.answered.cached_percent()),
    ]
}

fn line<'a>(
    (run, colour): (&'a SimulatedRun, &'a str),
    value: fn(&Moment) -> Option<f64>,
) -> Series<'a> {
    let points = run.history.iter().filter_map(|it| Some((it.at_s, value(it)?)));
    Series { name: &run.policy, colour, points: points.collect() }
}

/// How much of the time each worker computed.
fn busy(run: &SimulatedRun) -> Chart<'_> {
    let points = |of: &dyn Fn(&[f64]) -> f64| {
        run.history.iter().map(|it| (it.at_s, of(&it.busy_percent))).collect()
    };
    let series = if run.workers.len() <= LINES_MAX {
        let workers = run.workers.iter().zip(HUES).enumerate();
        let line = |(at, (worker, colour))| {
            let worker: &super::WorkerRun = worker;
            Series { name: &worker.name, colour, points: points(&|all: &[f64]| all[at]) }
        };
        workers.map(line).collect()
    } else {
        let line = |((name, of), colour)| Series { name, colour, points: points(&of) };
        BANDS.into_iter().zip(HUES).map(line).collect()
    };
    let title = format!("Busy, {}", run.policy);
    Chart { title, unit: "%", across: TIME, series, target: None, limit: None }
}

fn table(runs: &[SimulatedRun]) -> String {
    let times = "<th class=\"first\">mean</th><th>p50</th><th>p90</th><th>p99</th>";
    let mut text = format!(
        "<section class=\"table\">\n<table>\n<thead>\n<tr><th colspan=\"6\"></th>\
         <th class=\"first\" colspan=\"4\">TTFT, ms</th><th class=\"first\" colspan=\"4\">TPOT, ms</th></tr>\n\
         <tr><th>policy</th><th>goodput/s</th><th>within, %</th><th>refused</th><th>cached, %</th>\
         <th>pushed out</th>{}</tr>\n</thead>\n<tbody>\n",
        times.repeat(2)
    );
    for run in runs {
        // Writing to a string never fails.
        let _ = writeln!(text, "{}", row(run));
    }
    text + "</tbody>\n</table>\n</section>\n"
}

fn row(run: &SimulatedRun) -> String {
    let report = &run.report;
    format!(
        "<tr><td>{}</td><td>{:.3}</td><td>{:.2}</td><td>{}</td><td>{:.1}</td><td>{}</td>{}{}</tr>",
        escape(&run.policy),
        report.goodput_per_s,
        report.within_percent,
        report.refused,
        run.cached_percent(),
        run.preemptions,
        cells(report.ttft_ms),
        cells(report.tpot_ms),
    )
}

fn cells(times: Option<Summary>) -> String {
    let of: [fn(Summary) -> f64; 4] = [|it| it.mean, |it| it.p50, |it| it.p90, |it| it.p99];
    let [mean, later @ ..] = of.map(|of| shown(times.map(of), 1));
    let later = later.map(|ms| format!("<td>{ms}</td>")).concat();
    format!("<td class=\"first\">{mean}</td>{later}")
}

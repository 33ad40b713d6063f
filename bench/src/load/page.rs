//! A sweep as one page that needs nothing else: plots over the rate, and all numbers below.

use std::fmt::Write as _;

use super::report::{REQUESTS_MIN, Report, Summary, WITHIN_PERCENT};
use super::serve::{Point, ServeReport};
use crate::document::Document;
use crate::figure::shown;
use crate::plot::{Across, Chart, Page, Series, escape};

/// A percentile that is drawn: its name, its colour's, and how it is had.
type Percentile = (&'static str, &'static str, fn(&Summary) -> f64);

const PERCENTILES: [Percentile; 3] = [
    ("p50", "low", |times| times.p50),
    ("p90", "middle", |times| times.p90),
    ("p99", "high", |times| times.p99),
];

/// Writes the page.
///
/// - `document`: when and how the report was made.
#[must_use]
pub fn page(report: &ServeReport, document: &Document) -> String {
    let first = report.runs.first().cloned().unwrap_or_default();
    let charts: String = charts(report, &first).iter().map(Chart::svg).collect();
    let (tiles, table) = (tiles(report, &first), table(&report.runs));
    let page = Page {
        title: &format!("{}: goodput over rate", first.model),
        heading: &first.model,
        facts: &[&first.workload, &first.server],
        document,
    };
    page.html(&format!("{tiles}<section class=\"charts\">\n{charts}</section>\n{table}"))
}

fn tiles(report: &ServeReport, first: &Report) -> String {
    let per_s = |value: f64| format!("{value:.1}/s");
    let (served, at_knee) = match report.knee {
        Some(point) => {
            let Point { rate_per_s, goodput_per_s, .. } = point;
            let note = format!("asked for: {rate_per_s}/s; goodput {}", per_s(goodput_per_s));
            (per_s(point.offered_per_s()), note)
        }
        None => ("none".to_owned(), "no rate was".to_owned()),
    };
    let best = report
        .best
        .map(|best| (per_s(best.goodput_per_s), format!("at {}", per_s(best.offered_per_s()))));
    let (best, at_best) = best.unwrap_or_default();
    let targets = escape(&first.slo.to_string());
    let tile = |name: &str, value: &str, note: &str| {
        format!("<div><span>{name}</span><strong>{value}</strong><span>{note}</span></div>\n")
    };
    format!(
        "<section class=\"tiles\">\n{}{}</section>\n<p class=\"targets\">Served: at least {WITHIN_PERCENT} % of \
         requests within {targets}, of {REQUESTS_MIN} or more. Goodput: requests within them, a second. Came: \
         what was sent at random times, a second. The upright line is at the highest rate served.</p>\n",
        tile("highest rate served", &served, &at_knee),
        tile("best goodput", &best, &at_best),
    )
}

fn charts<'a>(report: &'a ServeReport, first: &Report) -> Vec<Chart<'a>> {
    let limit = report.knee.map(Point::offered_per_s);
    let across = Across { name: "came, requests/s", unit: "/s" };
    let chart = |title: &str, unit, series, target| Chart {
        title: title.to_owned(),
        unit,
        across,
        series,
        target,
        limit,
    };
    let times = |title: &str, of, target| chart(title, "ms", percentiles(&report.runs, of), target);
    vec![
        chart("Goodput and all answers", "requests/s", throughput(&report.runs), None),
        times("Time to first token", |run| run.ttft_ms, Some(first.slo.ttft_ms)),
        times("Time per output token", |run| run.tpot_ms, Some(first.slo.tpot_ms)),
        times("Gaps between tokens", |run| run.itl_ms, first.slo.itl_p99_ms),
        times("First to second token: the hand-over", |run| run.handover_ms, None),
        chart(
            "Longest gap",
            "ms",
            vec![series("longest", "one", &report.runs, Report::longest_gap_ms)],
            None,
        ),
    ]
}

fn throughput(runs: &[Report]) -> Vec<Series<'_>> {
    vec![
        series("came", "offered", runs, Report::offered_per_s),
        series("answered", "two", runs, |run| Some(run.requests_per_s)),
        series("goodput", "one", runs, |run| Some(run.goodput_per_s)),
    ]
}

fn percentiles(runs: &[Report], times: fn(&Report) -> Option<Summary>) -> Vec<Series<'_>> {
    let of = |(name, colour, value): Percentile| {
        series(name, colour, runs, move |run| times(run).as_ref().map(value))
    };
    PERCENTILES.map(of).into()
}

/// A line over the rates that came; runs without a rate, or without a value, have no place on it.
fn series<'a>(
    name: &'a str,
    colour: &'a str,
    runs: &[Report],
    value: impl Fn(&Report) -> Option<f64>,
) -> Series<'a> {
    let points = runs.iter().filter_map(|run| Some((run.offered_per_s()?, value(run)?)));
    let mut points: Vec<_> = points.collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    Series { name, colour, points }
}

fn table(runs: &[Report]) -> String {
    let heads = ["TTFT", "TPOT", "hand-over", "ITL"]
        .map(|name| format!("<th class=\"first\" colspan=\"5\">{name}, ms</th>"));
    let times = "<th class=\"first\">mean</th><th>p50</th><th>p90</th><th>p99</th><th>max</th>";
    let mut text = format!(
        "<section class=\"table\">\n<table>\n<thead>\n<tr><th colspan=\"7\"></th>{}<th></th></tr>\n\
         <tr><th>rate/s</th><th>came/s</th><th>goodput/s</th><th>answered/s</th><th>within, %</th>\
         <th>refused</th><th>failed</th>{}\
         <th class=\"first\">seed</th></tr>\n</thead>\n<tbody>\n",
        heads.concat(),
        times.repeat(4)
    );
    for run in runs {
        // Writing to a string never fails.
        let _ = writeln!(text, "{}", row(run));
    }
    text + "</tbody>\n</table>\n</section>\n"
}

fn row(run: &Report) -> String {
    let rate = run.rate_per_s.map_or_else(|| escape(&run.arrivals), |rate| rate.to_string());
    let cut = match (run.is_gone, run.is_cut, run.is_few()) {
        (true, ..) => " (the server is gone)",
        (_, true, _) => " (cut off)",
        (.., true) => " (few)",
        _ => "",
    };
    let times = [run.ttft_ms, run.tpot_ms, run.handover_ms, run.itl_ms].map(cells);
    format!(
        "<tr{}><td>{rate}{cut}</td><td>{}</td><td>{:.2}</td><td>{:.2}</td><td>{:.1}</td><td>{}</td><td>{}</td>{}<td class=\"first\">{}</td></tr>",
        if run.is_within() { " class=\"served\"" } else { "" },
        shown(run.came_per_s, 2),
        run.goodput_per_s,
        run.requests_per_s,
        run.within_percent,
        run.refused,
        run.failed - run.refused,
        times.concat(),
        run.seed,
    )
}

/// Mean, percentiles and the greatest.
fn cells(times: Option<Summary>) -> String {
    let of: [fn(Summary) -> f64; 5] =
        [|it| it.mean, |it| it.p50, |it| it.p90, |it| it.p99, |it| it.max];
    let [mean, later @ ..] = of.map(|of| shown(times.map(of), 1));
    let later = later.map(|ms| format!("<td>{ms}</td>")).concat();
    format!("<td class=\"first\">{mean}</td>{later}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Body;
    use crate::load::serve::tests::sweep;

    #[test]
    fn a_page_needs_nothing_else_and_closes_what_it_opens() {
        let report = sweep();
        let document = Document::new(
            "baton bench serve --rate 16..40".to_owned(),
            Body::Serve(report.clone()),
        );
        let page = page(&report, &document);
        assert_eq!(page.matches("<svg").count(), 6);
        for tag in ["svg", "section", "table", "tr", "td", "th", "g", "text", "title", "div"] {
            let opened = page.matches(&format!("<{tag}>")).count()
                + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        for (word, why) in
            [("http", "the network"), ("NaN", "numbers"), ("inf", "numbers"), ("script", "scripts")]
        {
            assert!(!page.contains(word), "{word}: {why}");
        }
        assert!(
            page.contains("<strong>27.9/s</strong><span>asked for: 28/s")
                && page.contains("<strong>27.9/s</strong>"),
            "{page}"
        );
    }

    #[test]
    fn what_a_server_calls_itself_is_text() {
        let mut report = sweep();
        report.runs[0].model = "<script>alert(\"x\")</script>".to_owned();
        let document = Document::new("a & b".to_owned(), Body::Serve(report.clone()));
        let page = page(&report, &document);
        assert!(
            !page.contains("<script")
                && page.contains("&lt;script&gt;")
                && page.contains("a &amp; b")
        );
    }

    #[test]
    fn one_rate_and_none_at_all_are_pages_too() {
        for runs in [Vec::new(), sweep().runs[..1].to_vec(), vec![Report::default()]] {
            let report = ServeReport::new(runs);
            let document = Document::new(String::new(), Body::Serve(report.clone()));
            let page = page(&report, &document);
            assert!(
                page.ends_with("</html>\n") && !page.contains("NaN") && !page.contains("inf"),
                "{page}"
            );
        }
    }
}

//! Lines, as SVG.

use std::fmt::Write as _;

use super::escape;
use super::scale::{Scale, label};

/// Some lines.
pub(crate) struct Chart<'a> {
    /// Above it.
    pub(crate) title: String,
    /// Of all lines.
    pub(crate) unit: &'a str,
    pub(crate) across: Across<'a>,
    pub(crate) series: Vec<Series<'a>>,
    /// What was wanted, where something was.
    pub(crate) target: Option<f64>,
    /// How far it was had.
    pub(crate) limit: Option<f64>,
}

/// The lower axis.
#[derive(Clone, Copy)]
pub(crate) struct Across<'a> {
    pub(crate) name: &'a str,
    /// Behind a number of it.
    pub(crate) unit: &'a str,
}

/// A line.
pub(crate) struct Series<'a> {
    pub(crate) name: &'a str,
    /// A class of the style sheet.
    pub(crate) colour: &'a str,
    /// Places on the lower axis, and values.
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 52.0;
/// The lines' names are beside their ends.
const RIGHT: f64 = 470.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 250.0;

/// Names below each other are at least so far apart.
const LINE: f64 = 15.0;

// === impl Chart ===

impl Chart<'_> {
    /// The chart and its title.
    pub(crate) fn svg(&self) -> String {
        let (x, y) = self.scales();
        let parts = [self.grid(x, y), self.marks(x, y), self.lines(x, y), self.names(y)];
        format!(
            "<figure>\n<figcaption>{}, {}{}</figcaption>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{}\">\n{}</svg>\n</figure>\n",
            escape(&self.title),
            self.unit,
            if y.is_log() { ", logarithmic" } else { "" },
            escape(&self.title),
            parts.concat()
        )
    }

    fn scales(&self) -> (Scale, Scale) {
        let points = || self.series.iter().flat_map(|series| series.points.iter());
        let values = points().map(|point| point.1).chain(self.near_target());
        let y = match self.unit {
            // Waits differ by powers of ten.
            "ms" => Scale::over(values, (BOTTOM, TOP)),
            _ => Scale::from_zero(values, (BOTTOM, TOP)),
        };
        (Scale::between(points().map(|point| point.0), (LEFT, RIGHT)), y)
    }

    /// The target, unless everything is so far below that it would press the lines together.
    fn near_target(&self) -> Option<f64> {
        let values =
            self.series.iter().flat_map(|series| series.points.iter().map(|point| point.1));
        let most = values.fold(0.0, f64::max);
        self.target.filter(|target| *target <= most * 4.0)
    }

    /// Numbers at both axes, and a line for each of the upright one's.
    fn grid(&self, x: Scale, y: Scale) -> String {
        let mut text = String::new();
        for (tick, at) in y.ticks().into_iter().map(|tick| (label(tick), y.at(tick))) {
            let _ = writeln!(
                text,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>",
                LEFT - 8.0,
                at + 4.0
            );
        }
        for (tick, at) in x.ticks().into_iter().map(|rate| (label(rate), x.at(rate))) {
            let below = BOTTOM + 20.0;
            let _ = writeln!(
                text,
                "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{tick}</text>"
            );
        }
        let (middle, below) = (f64::midpoint(LEFT, RIGHT), BOTTOM + 42.0);
        let _ = writeln!(
            text,
            "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{}</text>",
            escape(self.across.name)
        );
        text
    }

    /// What was wanted, and how far it was had.
    fn marks(&self, x: Scale, y: Scale) -> String {
        let mut text = String::new();
        if let Some(target) = self.near_target() {
            let (at, name) = (y.at(target), label(target));
            let _ = writeln!(
                text,
                "<line class=\"target\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">target {name}</text>",
                LEFT + 6.0,
                at - 6.0
            );
        }
        if let Some(at) = self.limit.map(|limit| x.at(limit)) {
            let _ = writeln!(
                text,
                "<line class=\"limit\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\"><title>highest \
                 rate served</title></line>"
            );
        }
        text
    }

    fn lines(&self, x: Scale, y: Scale) -> String {
        self.series.iter().map(|series| series.line(x, y, (self.unit, self.across.unit))).collect()
    }

    /// The lines' names, each where its line ends or as near as the others let it.
    fn names(&self, y: Scale) -> String {
        let ends =
            self.series.iter().filter_map(|series| Some((series, y.at(series.points.last()?.1))));
        let mut ends: Vec<_> = ends.collect();
        ends.sort_by(|a, b| a.1.total_cmp(&b.1));
        let (mut text, mut free) = (String::new(), TOP);
        for (number, (series, at)) in ends.iter().enumerate() {
            let below = (ends.len() - 1 - number) as f64 * LINE;
            let at = at.min(BOTTOM - below).max(free);
            free = at + LINE;
            let _ = writeln!(
                text,
                "<g class=\"{}\"><circle class=\"dot\" cx=\"{:.1}\" cy=\"{at:.1}\" r=\"4\"/><text x=\"{:.1}\" \
                 y=\"{:.1}\">{}</text></g>",
                series.colour,
                RIGHT + 16.0,
                RIGHT + 25.0,
                at + 4.0,
                escape(series.name)
            );
        }
        text
    }
}

// === impl Series ===

impl Series<'_> {
    fn line(&self, x: Scale, y: Scale, (unit, across): (&str, &str)) -> String {
        let places = self
            .points
            .iter()
            .map(|&(rate, value)| format!("{:.1},{:.1}", x.at(rate), y.at(value)));
        let places: Vec<_> = places.collect();
        let mut text =
            format!("<g class=\"{}\">\n<polyline points=\"{}\"/>\n", self.colour, places.join(" "));
        for &(rate, value) in &self.points {
            let (cx, cy) = (x.at(rate), y.at(value));
            let said = format!("{}: {value:.1} {unit} at {rate:.2}{across}", escape(self.name));
            // The mark is small, what the pointer has to hit is not.
            let _ = writeln!(
                text,
                "<g><title>{said}</title><circle class=\"dot\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"4\"/><circle \
                 class=\"touch\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"12\"/></g>"
            );
        }
        text + "</g>\n"
    }
}

//! What was measured: a table for people, JSON for scripts.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Group, Run};
use crate::ceilings::Ceilings;
use crate::energy::Energy;
use crate::figure::{Better, Figure};

/// One measured number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Rows measured together have the same.
    pub group: String,
    /// What was measured.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of `value` and `floor`.
    pub unit: String,
    /// The best that the card's rates allow, where they are known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub floor: Option<f64>,
    /// How many times the least time it took; 1 is perfect.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ratio: Option<f64>,
    /// The same of the best peer that was measured for this shape, on an H200.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peer_ratio: Option<f64>,
    /// What it took of the device, where that can be told.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub energy: Option<Energy>,
    /// What else there is to say.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub note: String,
    /// Whether more is better.
    pub is_rate: bool,
}

/// Everything that was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineReport {
    /// On what it ran.
    pub device: String,
    /// Which model.
    pub shape: String,
    /// The device's rates, where it is a GPU.
    pub ceilings: Option<Ceilings>,
    /// In the order they were measured.
    pub rows: Vec<Row>,
}

// === impl Row ===

impl Row {
    /// A time: less is better.
    pub(super) fn time(group: Group, name: impl Into<String>, value: f64, unit: &str) -> Self {
        let group = group.name().to_owned();
        Self { group, name: name.into(), value, unit: unit.to_owned(), ..Self::default() }
    }

    /// A rate: more is better.
    pub(super) fn rate(group: Group, name: impl Into<String>, value: f64, unit: &str) -> Self {
        Self { is_rate: true, ..Self::time(group, name, value, unit) }
    }

    pub(super) fn with_floor(mut self, floor: Option<f64>) -> Self {
        self.floor = floor;
        self.ratio =
            floor.map(|floor| if self.is_rate { floor / self.value } else { self.value / floor });
        self
    }

    pub(super) fn with_peer(mut self, peer_ratio: Option<f64>) -> Self {
        self.peer_ratio = peer_ratio;
        self
    }

    pub(super) fn with_energy(mut self, energy: Option<Energy>) -> Self {
        self.energy = energy;
        self
    }

    pub(super) fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

impl Row {
    fn figures(&self) -> Vec<Figure> {
        let Self { group, name, value, unit, .. } = self;
        let better = if self.is_rate { Better::More } else { Better::Less };
        let energy = self.energy.map(|energy| {
            Figure::new(group, format!("{name}, J/token"), energy.j_per_token, Better::Less)
        });
        let own = Figure::new(group, format!("{name}, {unit}"), *value, better);
        std::iter::once(own).chain(energy).collect()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_blank =
            |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
        let or_dash = |value: Option<f64>| value.map_or("-".to_owned(), figures);
        let Self { group, name, value, unit, floor, ratio, peer_ratio, energy, note, .. } = self;
        let line = format!(
            "{group:<10} {name:<26} {:>10} {unit:<17} {:>10} {:>7} {:>7} {:>9} {:>6}  {note}",
            figures(*value),
            floor.map_or(String::new(), figures),
            or_blank(*ratio),
            or_blank(*peer_ratio),
            or_dash(energy.map(|energy| energy.j_per_token)),
            or_dash(energy.map(|energy| energy.watts)),
        );
        f.write_str(line.trim_end())
    }
}

/// Four figures or so.
fn figures(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.3}"),
        10.0..100.0 => format!("{value:.2}"),
        100.0..1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

// === impl EngineReport ===

impl EngineReport {
    /// What can be compared with another run's.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        self.rows.iter().flat_map(Row::figures).collect()
    }

    /// What a comparison presumes to be the same.
    pub(crate) fn setting(&self) -> Vec<(&'static str, String)> {
        vec![("device", self.device.clone()), ("shape", self.shape.clone())]
    }
}

impl fmt::Display for EngineReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} on {}", self.shape, self.device)?;
        if let Some(ceilings) = &self.ceilings {
            writeln!(f, "{ceilings}")?;
        }
        let (what, measured, floor, ratio, peer) = ("", "measured", "floor", "ratio", "peer");
        write!(f, "{what:<37} {measured:>10} {what:<17} {floor:>10} {ratio:>7} {peer:>7}")?;
        writeln!(f, " {:>9} {:>6}", "J/token", "W")?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))?;
        write!(
            f,
            "ratio: times the floor. peer: the same on an H200, of vLLM 0.26.0 or, for attention, of \
             the best known. J/token, W: what the GPU's own counter says of half a second or more"
        )
    }
}

// === impl Run ===

impl Run<'_> {
    /// What vLLM's ratio is at this size, where it is known for the shape.
    pub(super) fn peer(&self, known: &[(usize, f64)], size: usize) -> Option<f64> {
        let is_known = self.report.shape == "llama-3.1-8b" && self.report.ceilings.is_some();
        let ratio = known.iter().find(|(known, _)| *known == size).map(|(_, ratio)| *ratio);
        ratio.filter(|_| is_known)
    }
}

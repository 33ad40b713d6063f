//! Two reports of one kind, side by side.

use std::fmt;

use anyhow::{Result, ensure};

use crate::document::Document;
use crate::figure::{Better, Figure, shown};

/// What two reports say of the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Of the first report.
    pub before: Figure,
    /// The same of the second, unless it had nothing to measure.
    pub after: Option<f64>,
}

/// A report beside another.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// How each was made.
    heads: [String; 2],
    /// What isn't alike, though it should be.
    differences: Vec<String>,
    /// What both have, in the first one's order.
    pairs: Vec<Pair>,
    /// What only the first has, and what only the second has.
    alone: [Vec<String>; 2],
}

/// Less is rounding.
const CHANGE_PERCENT_MIN: f64 = 0.05;

// === impl Comparison ===

impl Comparison {
    /// Lays the second beside the first.
    ///
    /// # Errors
    /// If they are of different kinds, or have nothing in common.
    pub fn new(before: &Document, after: &Document) -> Result<Self> {
        let (kind, other) = (before.body.kind(), after.body.kind());
        ensure!(kind == other, "A is of `baton bench {kind}`, and B of `baton bench {other}`");
        let (mine, theirs) = (before.body.figures(), after.body.figures());
        let of = |figure: &Figure| theirs.iter().find(|other| other.is_like(figure));
        let pairs: Vec<_> = mine
            .iter()
            .filter_map(|figure| Some(Pair { after: of(figure)?.value, before: figure.clone() }))
            .collect();
        let alone = [alone(&mine, &theirs), alone(&theirs, &mine)];
        ensure!(!pairs.is_empty(), "A and B have no figure in common: {}", sides(&alone));
        let settings = before.body.setting().into_iter().zip(after.body.setting());
        let differences = settings
            .filter(|((_, mine), (_, theirs))| mine != theirs)
            .map(|((what, mine), (_, theirs))| format!("{what}: A {mine}; B {theirs}"));
        Ok(Self {
            heads: [before, after].map(head),
            differences: differences.collect(),
            pairs,
            alone,
        })
    }

    /// What the first has, and the second has nothing like.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.alone[0]
    }

    /// What got worse by more than so many percent, or points where it is a share that failed.
    pub fn worse_by(&self, percent: f64) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().filter(move |pair| pair.loss().is_some_and(|loss| loss > percent))
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, after] = &self.heads;
        writeln!(f, "A: {before}\nB: {after}")?;
        self.differences
            .iter()
            .try_for_each(|difference| writeln!(f, "not alike: {difference}"))?;
        write!(f, "\n{:<44} {:>11} {:>11} {:>10}", "", "A", "B", "change")?;
        let mut group = "";
        for pair in &self.pairs {
            if pair.before.group != group {
                group = &pair.before.group;
                write!(f, "\n{group}")?;
            }
            write!(f, "\n  {pair}")?;
        }
        match self.alone.concat().is_empty() {
            true => Ok(()),
            false => write!(f, "\nnot in both: {}", sides(&self.alone)),
        }
    }
}

fn head(document: &Document) -> String {
    let Document { version, date, command, .. } = document;
    format!("{date}, version {version}: {command}")
}

/// What the others have nothing like: whole groups, or single figures of one that they have, too.
fn alone(figures: &[Figure], others: &[Figure]) -> Vec<String> {
    let is_known = |figure: &Figure| others.iter().any(|other| other.group == figure.group);
    let alone = figures.iter().filter(|figure| !others.iter().any(|other| other.is_like(figure)));
    let name = |figure: &Figure| match is_known(figure) {
        true => figure.to_string(),
        false => figure.group.clone(),
    };
    let mut names: Vec<_> = alone.map(name).collect();
    names.dedup();
    names
}

/// What only one has, with whose it is.
fn sides([mine, theirs]: &[Vec<String>; 2]) -> String {
    let mine = mine.iter().map(|name| format!("{name} (A)"));
    let theirs = theirs.iter().map(|name| format!("{name} (B)"));
    mine.chain(theirs).collect::<Vec<_>>().join(", ")
}

// === impl Pair ===

impl Pair {
    /// How much there is more in the second report, in percent, or in points of a share; `None` if one of them has
    /// nothing to compare with.
    #[must_use]
    pub fn change(&self) -> Option<f64> {
        let (before, after) = (self.before.value?, self.after?);
        match self.before.better {
            Better::LessPoints => Some(after - before),
            _ => (before != 0.0).then_some(100.0 * (after - before) / before),
        }
    }

    /// By how much it got worse; below 0 it got better. What can't be measured any more got worse than by any number.
    fn loss(&self) -> Option<f64> {
        match (self.before.better, self.before.value, self.after) {
            (Better::Unjudged, ..) => None,
            (_, Some(_), None) => Some(f64::INFINITY),
            (Better::Less | Better::LessPoints, ..) => self.change(),
            (Better::More, ..) => self.change().map(|change| -change),
        }
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figure { name, value, .. } = &self.before;
        let unit = if self.before.better == Better::LessPoints { "pt" } else { "%" };
        let change = self.change();
        let change = change.map_or("-".to_owned(), |change| format!("{change:+.1} {unit}"));
        let verdict = match self.loss() {
            Some(loss) if loss >= CHANGE_PERCENT_MIN => "  worse",
            Some(loss) if loss <= -CHANGE_PERCENT_MIN => "  better",
            _ => "",
        };
        let (before, after) = (shown(*value, 3), shown(self.after, 3));
        write!(f, "{name:<42} {before:>11} {after:>11} {change:>10}{verdict}")
    }
}

#[cfg(test)]
mod tests;

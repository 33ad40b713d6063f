//! Two reports of one kind, side by side.

use std::fmt;

use anyhow::{Result, ensure};

use crate::document::{Body, Document};
use crate::figure::{Better, Figure, shown};

mod circumstances;

/// What two reports say of the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Of the first report.
    pub before: Figure,
    /// The same of the second, unless it had nothing to measure.
    pub after: Option<f64>,
    /// Why nothing is concluded from them, if one of the two rests on too little.
    pub doubt: Option<&'static str>,
}

/// A report beside another.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// How each was made.
    heads: [String; 2],
    /// What isn't alike, though it should be.
    differences: Vec<String>,
    /// Why the second can't be compared with the first, if so.
    warning: Option<String>,
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
        let pairs: Vec<_> =
            mine.iter().filter_map(|figure| Some(Pair::new(figure, of(figure)?))).collect();
        let alone = [alone(&mine, &theirs), alone(&theirs, &mine)];
        ensure!(!pairs.is_empty(), "A and B have no figure in common: {}", sides(&alone));
        let settings = before.body.setting().into_iter().zip(after.body.setting());
        let differences = settings
            .filter(|((_, mine), (_, theirs))| mine != theirs)
            .map(|((what, mine), (_, theirs))| format!("{what}: A {mine}; B {theirs}"));
        let (unlike, warning) = match (&before.body, &after.body) {
            (Body::Serve(mine), Body::Serve(theirs)) => {
                (circumstances::differences(mine, theirs), circumstances::warning(mine, theirs))
            }
            _ => (Vec::new(), None),
        };
        Ok(Self {
            heads: [before, after].map(head),
            differences: differences.chain(unlike).collect(),
            warning,
            pairs,
            alone,
        })
    }

    /// What the first has, and the second has nothing like.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.alone[0]
    }

    /// Whether anything of both can be told to be better, the same or worse.
    #[must_use]
    pub fn judges(&self) -> bool {
        self.pairs.iter().any(|pair| pair.loss().is_some())
    }

    /// What is not judged, and why, in a line, if anything is left out.
    #[must_use]
    pub fn left_out(&self) -> Option<String> {
        let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
        for pair in self.pairs.iter().filter(|pair| pair.before.better != Better::Unjudged) {
            let (Some(doubt), group) = (pair.doubt, pair.before.group.as_str()) else { continue };
            match groups.iter_mut().find(|(known, _)| *known == doubt) {
                Some((_, of)) if of.contains(&group) => {}
                Some((_, of)) => of.push(group),
                None => groups.push((doubt, vec![group])),
            }
        }
        let said = groups.iter().map(|(doubt, of)| format!("{}: {doubt}", of.join(", ")));
        (!groups.is_empty()).then(|| said.collect::<Vec<_>>().join("; "))
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
        if let Some(warning) = &self.warning {
            writeln!(f, "warning: {warning}")?;
        }
        write!(f, "\n{:<44} {:>11} {:>11} {:>10}", "", "A", "B", "change")?;
        let mut group = "";
        for pair in &self.pairs {
            if pair.before.group != group {
                group = &pair.before.group;
                write!(f, "\n{group}")?;
            }
            write!(f, "\n  {pair}")?;
        }
        if let Some(left_out) = self.left_out() {
            write!(f, "\nnot judged: {left_out}")?;
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
    fn new(before: &Figure, after: &Figure) -> Self {
        let doubt = before.doubt.or(after.doubt);
        Self { before: before.clone(), after: after.value, doubt }
    }

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
            _ if self.doubt.is_some() => None,
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

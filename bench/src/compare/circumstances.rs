//! What two reports of a server were measured under that nobody asked for: caches, and the ways that prompts went.

use std::collections::BTreeMap;

use crate::load::ServeReport;

/// Shares that differ by less do so in any two runs.
const POINTS_MIN: f64 = 5.0;

/// From this share of prompt tokens on, prompts came from a cache.
const CACHED_PERCENT_MIN: f64 = 1.0;

/// What isn't alike, though it should be.
pub(super) fn differences(before: &ServeReport, after: &ServeReport) -> Vec<String> {
    cached(before, after).into_iter().chain(paths(before, after)).collect()
}

/// Why B's times can't be compared with A's, if they can't.
pub(super) fn warning(before: &ServeReport, after: &ServeReport) -> Option<String> {
    let [mine, theirs] = [before, after].map(ServeReport::cached_percent);
    let is_flattered = mine < CACHED_PERCENT_MIN && theirs >= CACHED_PERCENT_MIN;
    is_flattered.then(|| {
        format!(
            "{theirs:.1} % of B's prompt tokens came from a cache, and {mine:.1} % of A's: B looks faster than it is; \
             with the same --seed, start the server anew before each run"
        )
    })
}

fn cached(before: &ServeReport, after: &ServeReport) -> Option<String> {
    let [mine, theirs] = [before, after].map(ServeReport::cached_percent);
    let is_apart = (mine - theirs).abs() >= POINTS_MIN;
    is_apart.then(|| format!("prompt tokens from a cache: A {mine:.1} %; B {theirs:.1} %"))
}

fn paths(before: &ServeReport, after: &ServeReport) -> Option<String> {
    let [mine, theirs] = [before, after].map(ServeReport::path_percents);
    let share = |of: &BTreeMap<&str, f64>, path: &str| of.get(path).copied().unwrap_or(0.0);
    let is_apart = |path: &&str| (share(&mine, path) - share(&theirs, path)).abs() >= POINTS_MIN;
    let are_apart = mine.keys().chain(theirs.keys()).any(is_apart);
    are_apart.then(|| format!("paths: A {}; B {}", shares(&mine), shares(&theirs)))
}

fn shares(percents: &BTreeMap<&str, f64>) -> String {
    let shares = percents.iter().map(|(path, percent)| format!("{path} {percent:.0} %"));
    match percents.is_empty() {
        true => "unsaid".to_owned(),
        false => shares.collect::<Vec<_>>().join(", "),
    }
}

//! Which weights new requests go to, where workers of one model name have several.
//!
//! An *edition* is the workers under one name that compute alike. There is more than one while new
//! weights are rolled out, or by accident. New requests go to one of them at a time, so that answers
//! don't differ from request to request: to the newest that is strong enough, or to the one asked for.

use words::{Fingerprint, Incarnation, Role};

use super::ClusterSnapshot;

/// The workers under one model name that compute alike, of those that take work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edition<'a> {
    /// That of its oldest worker; others may differ in what doesn't change a token.
    pub fingerprint: &'a Fingerprint,
    /// Prefill workers.
    pub prefill: u32,
    /// Decode workers.
    pub decode: u32,
    /// When its oldest worker started. A rollout's workers all start later than those they replace,
    /// and one old worker that restarts doesn't make its edition new.
    pub since: Incarnation,
}

/// An edition's part of the workers there are.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Strength {
    /// Of the role that it has the smallest part of, as far as there are workers of that role.
    least: f64,
    mean: f64,
}

/// The editions of `model`, newest first.
#[must_use]
pub fn editions<'a>(view: &'a ClusterSnapshot, model: &str) -> Vec<Edition<'a>> {
    let mut editions: Vec<Edition<'a>> = Vec::new();
    for worker in &view.workers {
        let (info, fingerprint) = (&worker.info, &worker.info.fingerprint);
        if fingerprint.model != model || !worker.healthy || !info.state.takes_work() {
            continue;
        }
        let since = info.address.incarnation;
        let known = editions.iter().position(|known| known.fingerprint.computes_as(fingerprint));
        let at = known.unwrap_or_else(|| {
            editions.push(Edition { fingerprint, prefill: 0, decode: 0, since });
            editions.len() - 1
        });
        editions[at].add(fingerprint, info.role, since);
    }
    editions.sort_by(|a, b| b.since.cmp(&a.since).then_with(|| a.fingerprint.cmp(b.fingerprint)));
    editions
}

/// Which of `editions` new requests go to.
///
/// The newest that has as large a part of the workers as every other; the present one stays for as
/// long as it has half of that, so that a worker that comes and goes doesn't move all requests.
///
/// - `editions`: newest first.
/// - `wanted`: the beginning of the weights' digest, or of the fingerprint's name.
/// - `present`: where they went until now.
#[must_use]
pub fn choose<'a>(
    editions: &[Edition<'a>],
    wanted: Option<&str>,
    present: Option<&Fingerprint>,
) -> Option<&'a Fingerprint> {
    if let Some(wanted) = wanted {
        let asked_for = |edition: &&Edition<'_>| edition.fingerprint.is_named(wanted);
        return editions.iter().find(asked_for).map(|edition| edition.fingerprint);
    }
    if let [only] = editions {
        return Some(only.fingerprint);
    }
    let all = editions.iter().fold((0, 0), |(p, d), e| (p + e.prefill, d + e.decode));
    let strength = |edition: &Edition<'_>| edition.strength(all);
    let most = editions.iter().map(strength).max_by(|a, b| a.total_cmp(*b))?;
    let is_enough = |edition: &&Edition<'_>| {
        let is_present = present.is_some_and(|present| present.computes_as(edition.fingerprint));
        strength(edition).is_at_least(most, if is_present { 0.5 } else { 1.0 })
    };
    editions.iter().find(is_enough).map(|edition| edition.fingerprint)
}

// === impl Edition ===

impl<'a> Edition<'a> {
    fn add(&mut self, fingerprint: &'a Fingerprint, role: Role, since: Incarnation) {
        match role {
            Role::Prefill => self.prefill += 1,
            Role::Decode => self.decode += 1,
        }
        if since < self.since {
            (self.fingerprint, self.since) = (fingerprint, since);
        }
    }

    fn strength(&self, (prefill, decode): (u32, u32)) -> Strength {
        let part = |own: u32, all: u32| (all > 0).then(|| f64::from(own) / f64::from(all));
        let parts = [part(self.prefill, prefill), part(self.decode, decode)];
        let parts = parts.into_iter().flatten();
        let (least, sum) = parts.fold((1.0_f64, 0.0), |(least, sum), p| (least.min(p), sum + p));
        Strength { least, mean: sum / 2.0 }
    }
}

// === impl Strength ===

impl Strength {
    fn total_cmp(&self, other: Self) -> std::cmp::Ordering {
        self.least.total_cmp(&other.least).then_with(|| self.mean.total_cmp(&other.mean))
    }

    /// Whether this is at least `share` of another.
    fn is_at_least(self, other: Self, share: f64) -> bool {
        self >= Self { least: other.least * share, mean: other.mean * share }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rstest::rstest;

    use super::*;
    use crate::placement::tests::table::cluster;

    /// Runs the choice over a script of clusters, each with the one before as the present; gives
    /// the versions chosen.
    fn chosen(script: &str, wanted: Option<&str>) -> String {
        let mut present: Option<Fingerprint> = None;
        let mut versions = Vec::new();
        for workers in script.split(';') {
            let view = cluster(workers, Instant::now());
            let editions = editions(&view, "m");
            let fingerprint = choose(&editions, wanted, present.as_ref());
            versions.push(fingerprint.map_or("-".to_owned(), |chosen| chosen.weights.clone()));
            present = fingerprint.cloned();
        }
        versions.join(" ")
    }

    #[rstest]
    #[case::nobody("", "-")]
    #[case::one("d1 d2 p1", "1")]
    #[case::another_model_does_not_count("d1 d2[model=x v=2 life=9]", "1")]
    #[case::the_newest_of_equals("d1 d2[v=2 life=9]", "2")]
    #[case::not_the_newest_by_its_version("d1[life=9] d2[v=2]", "1")]
    #[case::too_few_of_the_newest("d1 d2 d3[v=2 life=9]", "1")]
    #[case::a_restart_does_not_make_an_edition_new(
        "d1 d2[life=20] d3[v=2 life=8] d4[v=2 life=9]",
        "2"
    )]
    #[case::who_takes_no_work_does_not_count("d1[down] d2[draining] d3[v=2 life=9] d4", "2")]
    #[case::both_roles_count("p1 p2 d1 d2[v=2 life=9]", "1")]
    #[case::both_roles_are_there("p1 p2[v=2 life=8] d1 d2[v=2 life=9]", "2")]
    #[case::one_role_each("p1 p2 d1[v=2 life=9] d2[v=2 life=9]", "2")]
    #[case::a_rollout(
        "d1 d2 d3; d1 d2 d3 d4[v=2 life=9]; d1 d2 d4[v=2 life=9]; d1 d4[v=2 life=9] d5[v=2 life=9]",
        "1 1 1 2"
    )]
    #[case::a_rollback("d1[v=2 life=5] d2[v=2 life=6]; d1[v=2 life=5] d2[life=9]", "2 1")]
    #[case::one_lost_worker_moves_nothing(
        "d1 d2 d3[v=2 life=8] d4[v=2 life=9]; d1 d2 d3[v=2 life=8] d4[v=2 down life=9]",
        "2 2"
    )]
    #[case::most_lost_moves_all(
        "d1 d2 d3 d4[v=2 life=7] d5[v=2 life=8] d6[v=2 life=9]; d1 d2 d3 d4[v=2 life=7]",
        "2 1"
    )]
    fn new_requests_go_to(#[case] script: &str, #[case] versions: &str) {
        assert_eq!(chosen(script, None), versions);
    }

    #[rstest]
    #[case::the_older("1", "1")]
    #[case::the_newer("2", "2")]
    #[case::nobody_has("3", "-")]
    fn asked_for_is_given(#[case] wanted: &str, #[case] version: &str) {
        assert_eq!(chosen("d1 d2[v=2 life=9]", Some(wanted)), version);
    }

    #[test]
    fn an_edition_may_be_asked_for_by_its_name_or_the_beginning_of_its_digest() {
        let view = cluster("d1[v=abcdef]", Instant::now());
        let fingerprint = editions(&view, "m")[0].fingerprint;
        let name = fingerprint.name();
        assert!(name.starts_with("fp_") && name.len() == 19, "{name}");
        for wanted in ["abc", "abcdef", &name, &name[..8]] {
            assert!(fingerprint.is_named(wanted), "{wanted}");
        }
        for other in ["b", "abcdefg", "fp_x", ""] {
            assert!(!fingerprint.is_named(other), "{other:?}");
        }
    }
}

//! The view of the members, as a pure function of what the store said and when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use words::{NodeState, WorkerId, WorkerInfo};

use super::Members;

/// What is known of the store's entries.
///
/// A worker that vanishes while the view is settling after an outage is kept for a grace period: an
/// etcd that was away or lost its data forgets workers that are alive and about to come back. One
/// that said goodbye ([`NodeState::Gone`]) is not kept.
#[derive(Debug)]
pub(super) struct View {
    grace: Duration,
    entries: BTreeMap<String, Known>,
    revision: i64,
    stale_since: Option<Instant>,
    settled_at: Option<Instant>,
}

#[derive(Debug)]
struct Known {
    info: WorkerInfo,
    /// Set while the store lacks the entry: when it will be given up.
    missing_until: Option<Instant>,
    /// What the store has in its place: an older life, by its number.
    older: Option<WorkerInfo>,
}

// === impl View ===

impl View {
    /// An empty view that has not heard from the store yet.
    pub(super) fn new(grace: Duration, now: Instant) -> Self {
        Self {
            grace,
            entries: BTreeMap::new(),
            revision: 0,
            stale_since: Some(now),
            settled_at: None,
        }
    }

    /// The store can't be heard any more. Returns whether that is news.
    pub(super) fn lost(&mut self, now: Instant) -> bool {
        let news = self.stale_since.is_none();
        self.stale_since.get_or_insert(now);
        news
    }

    /// Takes a snapshot of the store. Of those whom one that `is_whole` lacks, the store knows nothing.
    pub(super) fn rebuild(
        &mut self,
        revision: i64,
        found: Vec<(String, WorkerInfo)>,
        is_whole: bool,
        now: Instant,
    ) {
        let after_outage = self.stale_since.take().is_some() && self.revision > 0;
        if after_outage {
            self.settled_at = Some(now + self.grace);
        }
        self.revision = revision;
        let found: BTreeMap<String, WorkerInfo> = found.into_iter().collect();
        let missing: Vec<String> =
            self.entries.keys().filter(|key| !found.contains_key(*key)).cloned().collect();
        for key in missing.into_iter().filter(|_| is_whole) {
            self.vanish(&key, now);
        }
        for (key, info) in found {
            self.accept(key, info, now);
        }
    }

    /// An entry was written.
    pub(super) fn put(&mut self, revision: i64, key: String, info: WorkerInfo, now: Instant) {
        self.revision = self.revision.max(revision);
        self.accept(key, info, now);
    }

    /// An entry was deleted, by its owner or by the end of its lease.
    pub(super) fn delete(&mut self, revision: i64, key: &str, now: Instant) {
        self.revision = self.revision.max(revision);
        self.vanish(key, now);
    }

    /// Gives up the lives whose grace has run out. Returns whether there were any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let mut any = false;
        self.entries.retain(|_, known| {
            if known.missing_until.is_none_or(|until| now < until) {
                return true;
            }
            any = true;
            let older = known.older.take();
            older.map(|info| *known = Known { info, missing_until: None, older: None }).is_some()
        });
        any
    }

    /// When [`View::expire`] will next have something to do.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.entries.values().filter_map(|known| known.missing_until).min()
    }

    /// How many workers the store lacks and the view keeps.
    pub(super) fn missing(&self) -> usize {
        self.entries.values().filter(|known| known.missing_until.is_some()).count()
    }

    /// The members. Of one id under two roles, the newer life counts.
    pub(super) fn members(&self) -> Members {
        let mut workers: BTreeMap<WorkerId, WorkerInfo> = BTreeMap::new();
        for Known { info, .. } in self.entries.values() {
            let newest = workers.get(&info.address.worker).map(|known| known.address.incarnation);
            if newest.is_none_or(|incarnation| incarnation < info.address.incarnation) {
                workers.insert(info.address.worker.clone(), info.clone());
            }
        }
        let older = self.entries.values().filter_map(|known| known.older.clone()).collect();
        Members { workers, older, revision: self.revision, stale_since: self.stale_since }
    }

    /// Takes an entry. A newer life that is known stands for a while: a store restored from a backup
    /// may tell old news, which that life will correct. If it does not, the store's word counts.
    fn accept(&mut self, key: String, info: WorkerInfo, now: Instant) {
        let known = self.entries.get_mut(&key);
        match known.filter(|known| known.info.address.incarnation > info.address.incarnation) {
            Some(newer) => {
                newer.missing_until.get_or_insert(now + self.grace);
                newer.older = Some(info);
            }
            None => {
                self.entries.insert(key, Known { info, missing_until: None, older: None });
            }
        }
    }

    fn vanish(&mut self, key: &str, now: Instant) {
        let settling = self.settled_at.is_some_and(|at| now < at);
        let Some(known) = self.entries.get_mut(key) else { return };
        if known.older.take().is_some() {
            // It was the older life's entry; the newer one's grace runs already.
            return;
        }
        if settling && known.info.state != NodeState::Gone {
            known.missing_until = Some(now + self.grace);
        } else {
            self.entries.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use rstest::rstest;
    use words::{Incarnation, Role};

    use super::*;
    use crate::testing::worker;

    const GRACE: Duration = Duration::from_secs(30);
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);

    fn at(seconds: u64) -> Instant {
        *START + Duration::from_secs(seconds)
    }

    fn entry(id: &str, incarnation: u64, state: NodeState) -> (String, WorkerInfo) {
        let mut info = worker(id, Role::Decode);
        info.address.incarnation = Incarnation(incarnation);
        info.state = state;
        (id.to_owned(), info)
    }

    /// Runs a script, one step a line: `<second> <verb> [id[/incarnation][!]]...`, `!` is `Gone`.
    fn play(script: &str) -> View {
        let mut view = View::new(GRACE, at(0));
        for (revision, line) in (1..).zip(script.split(';')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let now = at(words[0].parse().unwrap());
            let entries = words[2..].iter().map(|word| parse(word));
            match words[1] {
                "lost" => drop(view.lost(now)),
                "rebuild" => view.rebuild(revision, entries.collect(), true, now),
                "glimpse" => view.rebuild(revision, entries.collect(), false, now),
                "put" => entries.for_each(|(key, info)| view.put(revision, key, info, now)),
                "delete" => view.delete(revision, words[2], now),
                "expire" => drop(view.expire(now)),
                verb => panic!("unknown verb {verb}"),
            }
        }
        view
    }

    fn parse(word: &str) -> (String, WorkerInfo) {
        let state = if word.ends_with('!') { NodeState::Gone } else { NodeState::Serving };
        let (id, incarnation) = word.trim_end_matches('!').split_once('/').unwrap_or((word, "1"));
        entry(id.trim_end_matches('!'), incarnation.parse().unwrap(), state)
    }

    #[rstest]
    #[case::empty_at_first("0 lost", "")]
    #[case::snapshot("1 rebuild a b", "a/1 b/1")]
    #[case::events("1 rebuild a; 2 put b; 3 delete a", "b/1")]
    #[case::kept_while_away("1 rebuild a b; 2 lost; 500 lost", "a/1 b/1")]
    #[case::kept_after_data_loss("1 rebuild a b; 2 lost; 9 rebuild; 38 expire", "a/1 b/1")]
    #[case::given_up_after_grace("1 rebuild a b; 2 lost; 9 rebuild a; 39 expire", "a/1")]
    #[case::back_within_grace("1 rebuild a; 2 lost; 9 rebuild; 12 put a; 99 expire", "a/1")]
    #[case::lease_ends_while_settling("1 rebuild a; 2 lost; 9 rebuild a; 14 delete a", "a/1")]
    #[case::lease_ends_when_settled("1 rebuild a; 2 lost; 9 rebuild a; 40 delete a", "")]
    #[case::goodbye_while_settling("1 rebuild a; 2 lost; 9 rebuild a; 10 put a!; 11 delete a", "")]
    #[case::goodbye_before_outage("1 rebuild a!; 2 lost; 9 rebuild", "")]
    #[case::compaction_is_no_outage("1 rebuild a b; 2 rebuild b", "b/1")]
    #[case::an_unreadable_entry_is_nobodys_end("1 rebuild a b; 2 glimpse b c", "a/1 b/1 c/1")]
    #[case::but_a_deletion_is("1 rebuild a b; 2 glimpse b; 3 delete a", "b/1")]
    #[case::newer_life("1 rebuild a/1; 2 put a/2", "a/2")]
    #[case::old_news("1 rebuild a/2; 2 lost; 3 rebuild a/1; 4 put a/1", "a/2")]
    #[case::old_news_corrected("1 rebuild a/2; 2 lost; 3 rebuild a/1; 9 put a/2; 99 expire", "a/2")]
    #[case::a_clock_set_back("1 rebuild a/9; 2 lost; 3 rebuild; 5 put a/2; 32 expire", "a/9")]
    #[case::and_the_newer_life_gone(
        "1 rebuild a/9; 2 lost; 3 rebuild; 5 put a/2; 33 expire",
        "a/2"
    )]
    #[case::both_gone("1 rebuild a/9; 2 lost; 3 rebuild a/2; 5 delete a; 33 expire", "")]
    #[case::another_outage(
        "1 rebuild a; 2 lost; 9 rebuild; 20 lost; 80 rebuild; 109 expire",
        "a/1"
    )]
    #[case::and_its_end("1 rebuild a; 2 lost; 9 rebuild; 20 lost; 80 rebuild; 110 expire", "")]
    fn the_view_after(#[case] script: &str, #[case] want: &str) {
        let members = play(script).members();
        let have: Vec<String> =
            members.workers.values().map(|info| info.address.life().to_string()).collect();
        assert_eq!(have.join(" "), want);
    }

    #[test]
    fn an_older_life_is_told_of_at_once_beside_the_newer_one_that_the_store_lacks() {
        let members = play("1 rebuild a/9; 2 lost; 3 rebuild; 5 put a/2").members();
        let lives: Vec<String> =
            members.lives().map(|info| info.address.life().to_string()).collect();
        assert_eq!(lives, ["a/9", "a/2"]);
        let members = play("1 rebuild a/9; 2 lost; 3 rebuild; 5 put a/2; 6 put a/9").members();
        assert!(members.older.is_empty());
    }

    #[test]
    fn staleness_starts_with_the_loss_and_ends_with_a_snapshot() {
        let mut view = play("1 rebuild a");
        assert_eq!(view.members().stale_since, None);
        assert!(view.lost(at(2)));
        assert!(!view.lost(at(3)));
        assert_eq!(view.members().stale_since, Some(at(2)));
        view.rebuild(9, vec![], true, at(5));
        assert_eq!(view.members().stale_since, None);
        assert_eq!(view.next_expiry(), Some(at(35)));
        assert_eq!(view.missing(), 1);
    }

    #[test]
    fn a_wiped_store_may_count_from_the_beginning() {
        let mut view = play("1 rebuild a; 2 put a");
        view.lost(at(3));
        view.rebuild(1, vec![], true, at(4));
        assert_eq!(view.members().revision, 1);
    }

    #[test]
    fn of_one_id_under_two_roles_the_newer_life_counts() {
        let mut view = View::new(GRACE, at(0));
        let (_, old) = entry("a", 1, NodeState::Serving);
        let (_, mut new) = entry("a", 2, NodeState::Serving);
        new.role = Role::Prefill;
        view.rebuild(1, vec![("p".into(), new.clone()), ("d".into(), old)], true, at(1));
        assert_eq!(view.members().workers.into_values().collect::<Vec<_>>(), [new]);
    }
}

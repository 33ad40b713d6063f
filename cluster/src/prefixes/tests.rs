use kv_cache::{Anchor, IndexDigest, Tier};
use rstest::rstest;
use scheduler::WorkerView;
use words::{Incarnation, KvRun, Role};

use super::*;
use crate::testing::worker;

const BLOCK_TOKENS: u32 = 16;

/// A picture of one worker, and the news that are told of it.
struct Scene {
    prefixes: Prefixes,
    view: WorkerView,
}

impl Scene {
    fn new() -> Self {
        let view = WorkerView::new(worker("p1", Role::Prefill).into());
        Self { prefixes: Prefixes::new(1 << 20), view }
    }

    fn life(&self) -> Life {
        self.view.info.address.life()
    }

    /// Tells news by their text: `snapshot 7: device 1 2 3`, `first ..`, `middle ..`, `last ..`, `9: host 4 5, gone device 1`.
    fn tell(&self, text: &str) -> &'static str {
        match self.prefixes.take(&self.life(), &news(text)) {
            Ok(()) => "taken",
            Err(Unfit::Gap { .. }) => "gap",
            Err(Unfit::Sum { .. }) => "sum",
        }
    }

    /// Tokens of the prompt `1 2 3 4` that the worker is thought to have on each tier.
    fn cached(&self) -> [u32; 3] {
        self.cached_at(Instant::now())
    }

    fn cached_at(&self, now: Instant) -> [u32; 3] {
        self.cached_by(&prompt(4), now)
    }

    fn cached_of(&self, names: &[BlockHash]) -> [u32; 3] {
        self.cached_by(names, Instant::now())
    }

    fn cached_by(&self, names: &[BlockHash], now: Instant) -> [u32; 3] {
        let mut view = ClusterSnapshot { workers: vec![self.view.clone()] };
        self.prefixes.apply(names, BLOCK_TOKENS, &mut view, now);
        let CachedTokens { device, host, disk } = view.workers[0].cached;
        [device, host, disk].map(|tokens| tokens / BLOCK_TOKENS)
    }
}

/// Spread as real names are.
fn name(number: u128) -> BlockHash {
    BlockHash(number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835))
}

fn prompt(blocks: u128) -> Vec<BlockHash> {
    (1..=blocks).map(name).collect()
}

fn news(text: &str) -> KvNews {
    let (head, runs) = text.split_once(':').expect("a colon");
    let (kind, number) = head.split_once(' ').unwrap_or(("changes", head));
    let snapshot = |is_first, is_last| KvNewsKind::Snapshot { is_first, is_last };
    let kind = match kind {
        "changes" => KvNewsKind::Changes,
        "snapshot" => snapshot(true, true),
        "first" => snapshot(true, false),
        "middle" => snapshot(false, false),
        "last" => snapshot(false, true),
        other => panic!("no kind {other}"),
    };
    let runs = runs.split(',').map(str::trim).filter(|run| !run.is_empty());
    let number = number.parse().expect("a number");
    KvNews { number, kind, runs: runs.map(run).collect(), digest: None }
}

fn run(text: &str) -> KvRun {
    let (is_there, text) = match text.strip_prefix("gone ") {
        Some(rest) => (false, rest),
        None => (true, text),
    };
    let (tier, hashes) = text.split_once(' ').expect("a tier and names");
    let tier = *Tier::ALL.iter().find(|it| it.name() == tier).expect("a tier");
    let hashes = hashes.split(' ').map(|hash| name(hash.parse().expect("a number")));
    KvRun { tier, is_there, hashes: hashes.collect() }
}

/// Each case: what is told, one after the other; what comes of the last; what is then known of the prompt, and how well.
#[rstest]
#[case::all_at_once(&["snapshot 1: device 1 2 9"], "taken", [2, 2, 2], Confidence::Exact)]
#[case::tiers(
    &["snapshot 1: device 1, host 1 2 3, disk 4"],
    "taken",
    [1, 3, 4],
    Confidence::Exact
)]
#[case::in_parts(
    &["first 5: device 1", "middle 5: device 2", "last 5: device 3"],
    "taken",
    [3, 3, 3],
    Confidence::Exact
)]
#[case::not_all_parts_yet(&["first 5: device 1", "middle 5: device 2"], "taken", [2, 2, 2], Confidence::Off)]
#[case::changes(
    &["snapshot 1: device 1 2", "3: device 3 4", "4: gone device 4"],
    "taken",
    [3, 3, 3],
    Confidence::Exact
)]
#[case::down_a_tier(
    &["snapshot 1: device 1 2", "3: host 2, gone device 2"],
    "taken",
    [1, 2, 2],
    Confidence::Exact
)]
#[case::anew(&["snapshot 1: device 1 2 3", "snapshot 9: device 1"], "taken", [1, 1, 1], Confidence::Exact)]
#[case::told_twice(
    &["snapshot 1: device 1 2", "2: gone device 2", "2: gone device 2"],
    "taken",
    [1, 1, 1],
    Confidence::Exact
)]
#[case::told_late(
    &["snapshot 1: device 1", "2: device 2", "3: gone device 2", "2: device 2"],
    "taken",
    [1, 1, 1],
    Confidence::Exact
)]
#[case::lost(&["snapshot 1: device 1 2", "3: device 4"], "gap", [2, 2, 2], Confidence::Coarse)]
#[case::changes_of_nothing(&["5: device 1"], "gap", [0, 0, 0], Confidence::Off)]
#[case::only_a_snapshot_mends_a_gap(
    &["snapshot 1: device 1 2", "3: device 4", "4: device 3"],
    "gap",
    [2, 2, 2],
    Confidence::Coarse
)]
#[case::as_here(
    &["snapshot 1: device 1 2", "3: device 4", "snapshot 4: device 1 2 3"],
    "taken",
    [3, 3, 3],
    Confidence::Exact
)]
#[case::the_end_of_what_was_not_begun(&["last 5: device 1"], "gap", [0, 0, 0], Confidence::Off)]
#[case::parts_with_something_between(
    &["first 5: device 1", "7: device 2", "last 5: device 2"],
    "gap",
    [1, 1, 1],
    Confidence::Off
)]
fn what_is_told_is_known(
    #[case] told: &[&str],
    #[case] last: &str,
    #[case] cached: [u32; 3],
    #[case] confidence: Confidence,
) {
    let scene = Scene::new();
    let outcomes: Vec<_> = told.iter().map(|text| scene.tell(text)).collect();
    assert_eq!(outcomes.last(), Some(&last));
    assert_eq!(scene.cached(), cached);
    assert_eq!(scene.prefixes.confidence(&scene.life()), confidence);
}

#[test]
fn a_worker_that_is_not_heard_is_a_guess_and_goes_on_where_it_was() {
    let scene = Scene::new();
    scene.tell("snapshot 1: device 1 2");
    scene.tell("2: device 3");
    scene.prefixes.lose(&scene.life());
    assert_eq!(scene.prefixes.confidence(&scene.life()), Confidence::Coarse);
    assert_eq!((scene.cached(), scene.prefixes.number(&scene.life())), ([3, 3, 3], 2));
    assert_eq!(scene.tell("2:"), "taken");
    assert_eq!(scene.prefixes.confidence(&scene.life()), Confidence::Exact);
    scene.prefixes.forget(&scene.life());
    assert_eq!((scene.cached(), scene.prefixes.number(&scene.life())), ([0, 0, 0], 0));
    assert_eq!(scene.prefixes.stats().memberships, 0);
}

#[test]
fn what_does_not_add_up_is_told_anew() {
    let scene = Scene::new();
    let sum = |blocks: &[u128]| {
        let mut digest = IndexDigest::default();
        blocks.iter().for_each(|block| digest.add(name(*block), Tier::Device));
        Some(digest)
    };
    let take = |text, digest| scene.prefixes.take(&scene.life(), &KvNews { digest, ..news(text) });
    assert_eq!(take("snapshot 1: device 1 2", sum(&[1, 2])), Ok(()));
    assert_eq!(take("2: device 3", sum(&[1, 2, 3])), Ok(()));
    let wrong = take("3: gone device 3", sum(&[1, 2, 3]));
    assert_eq!(wrong, Err(Unfit::Sum { ours: 2, theirs: 3 }));
    assert_eq!(scene.prefixes.confidence(&scene.life()), Confidence::Coarse);
    assert_eq!((scene.prefixes.number(&scene.life()), scene.prefixes.stats().unfit), (0, 1));
    assert_eq!(take("snapshot 4: device 1", sum(&[1])), Ok(()));
    assert_eq!(scene.prefixes.confidence(&scene.life()), Confidence::Exact);
}

#[test]
fn what_finds_no_room_is_a_part() {
    let scene = Scene { prefixes: Prefixes::new(100_000), ..Scene::new() };
    let hashes = (0..100_000).map(name).collect();
    let runs = vec![KvRun { tier: Tier::Device, is_there: true, hashes }];
    let digest = Some(IndexDigest::default());
    assert_eq!(
        scene.prefixes.take(&scene.life(), &KvNews { runs, digest, ..news("snapshot 1:") }),
        Ok(()),
        "it isn't asked for again and again"
    );
    assert_eq!(scene.prefixes.confidence(&scene.life()), Confidence::Coarse);
    assert!(scene.prefixes.stats().index_bytes <= 100_000);
}

#[test]
fn what_is_sent_to_a_worker_counts_before_it_tells() {
    let (scene, now) = (Scene::new(), Instant::now());
    let (sent, second) = (prompt(3).into(), Duration::from_secs(1));
    scene.prefixes.expect(&scene.life(), &sent, now, second);
    assert_eq!(scene.cached_at(now), [0, 0, 0], "it isn't known yet");
    scene.tell("snapshot 1: device 1, host 1 2 3 4");
    scene.prefixes.expect(&scene.life(), &sent, now, second);
    assert_eq!(scene.cached_at(now), [3, 4, 4]);
    assert_eq!(scene.cached_at(now + second), [1, 4, 4]);
}

#[test]
fn what_the_store_tells_counts_until_the_worker_is_heard() {
    let (scene, anchors) = (Scene::new(), Anchors::default());
    let (life, long) = (scene.life(), prompt(40));
    let scene = Scene { prefixes: scene.prefixes.with_anchors(anchors.clone()), ..scene };
    for anchor in Anchor::along(&long) {
        anchors.put(&life.worker, life.incarnation, anchor.hash);
    }
    assert_eq!((scene.cached_of(&long), scene.prefixes.stats().anchors), ([32; 3], 2));
    scene.tell("first 1: device 1 2");
    assert_eq!(scene.cached_of(&long), [32; 3], "it has told a part");
    scene.tell("last 1: device 3");
    assert_eq!(scene.cached_of(&long), [3; 3]);
    scene.prefixes.lose(&life);
    assert_eq!(scene.cached_of(&long), [32; 3], "both are guesses");
    let gone = Life { incarnation: Incarnation(life.incarnation.0 + 1), ..life };
    anchors.put(&gone.worker, gone.incarnation, long[15]);
    assert_eq!(scene.cached_of(&long), [3; 3], "another life's");
}

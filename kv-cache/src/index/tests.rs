use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;
use crate::CommittedBlock;

const ROOMY: usize = 64 << 20;

/// A prompt's names: as uniform as real ones, and the same for the same seed.
fn prompt(seed: u64, len: usize) -> Vec<BlockHash> {
    let hasher = crate::ChainHasher::new("index", &seed.to_le_bytes());
    hasher.hash_blocks(None, &vec![7; len], 1)
}

fn find(index: &PrefixIndex, hashes: &[BlockHash]) -> BTreeMap<Holder, [u32; 3]> {
    let mut hits = Hits::default();
    index.find(hashes, &mut hits);
    hits.as_slice().iter().map(|hit| (hit.holder, Tier::ALL.map(|tier| hit.within(tier)))).collect()
}

/// What an index should know, kept as simply as can be.
#[derive(Default)]
struct Model(HashMap<Holder, BTreeSet<(BlockHash, Tier)>>);

// === impl Model ===

impl Model {
    fn blocks(&self, holder: Holder) -> BTreeSet<BlockHash> {
        self.0[&holder].iter().map(|(hash, _)| *hash).collect()
    }

    fn digest(&self, holder: Holder) -> IndexDigest {
        let mut digest = IndexDigest::default();
        self.0[&holder].iter().for_each(|(hash, tier)| digest.add(*hash, *tier));
        digest
    }

    /// As [`PrefixIndex::find`], block by block.
    fn find(&self, hashes: &[BlockHash]) -> BTreeMap<Holder, [u32; 3]> {
        let runs = self.0.iter().map(|(holder, has)| {
            let within = |tier| Tier::ALL.into_iter().take_while(move |other| *other <= tier);
            let run = |tier| {
                let has =
                    |hash: &&BlockHash| within(tier).any(|tier| has.contains(&(**hash, tier)));
                hashes.iter().take_while(has).count() as u32
            };
            (*holder, Tier::ALL.map(run))
        });
        runs.filter(|(_, blocks)| blocks[2] > 0).collect()
    }

    fn check(&self, index: &PrefixIndex) {
        for holder in self.0.keys() {
            assert_eq!(index.digest(*holder), self.digest(*holder));
            assert_eq!(index.blocks_of(*holder), self.blocks(*holder).len() as u64);
        }
        let memberships = self.0.keys().map(|holder| self.blocks(*holder).len() as u64).sum();
        assert_eq!(index.memberships(), memberships);
    }
}

/// A step of the property test: which worker, which prompt, how far.
#[derive(Clone, Debug)]
enum Step {
    Join,
    Leave(usize),
    Clear(usize),
    /// A tier has the first blocks of a prompt from then on, no more and no less.
    Hold(usize, u64, Tier, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let tier = prop::sample::select(Tier::ALL.to_vec());
    let hold = (0..40_usize, 0..4_u64, tier, 0..PROMPT_BLOCKS)
        .prop_map(|(holder, prompt, tier, len)| Step::Hold(holder, prompt, tier, len));
    let step = prop_oneof![
        2 => Just(Step::Join),
        1 => (0..40_usize).prop_map(Step::Leave),
        1 => (0..40_usize).prop_map(Step::Clear),
        30 => hold,
    ];
    prop::collection::vec(step, 1..120)
}

const PROMPT_BLOCKS: usize = 300;

/// Runs steps on both, the index told by events as a pool would tell it.
fn run(index: &mut PrefixIndex, model: &mut Model, steps: &[Step]) {
    for step in steps {
        let joined: Vec<Holder> =
            model.0.keys().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let pick = |number: usize| (!joined.is_empty()).then(|| joined[number % joined.len()]);
        match *step {
            Step::Join => drop(model.0.insert(index.join().expect("room"), BTreeSet::new())),
            Step::Leave(number) => {
                let Some(holder) = pick(number) else { continue };
                index.leave(holder);
                model.0.remove(&holder);
            }
            Step::Clear(number) => {
                let Some(holder) = pick(number) else { continue };
                index.clear(holder);
                model.0.insert(holder, BTreeSet::new());
            }
            Step::Hold(number, seed, tier, len) => {
                let Some(holder) = pick(number) else { continue };
                let events = hold(model.0.get_mut(&holder).expect("joined"), seed, tier, len);
                index.apply(holder, &events).expect("bytes");
            }
        }
    }
}

/// Makes a tier have `len` blocks of a prompt, and says so as a pool does.
fn hold(
    has: &mut BTreeSet<(BlockHash, Tier)>,
    seed: u64,
    tier: Tier,
    len: usize,
) -> Vec<BlockEvent> {
    let mut events = Vec::new();
    for (depth, hash) in prompt(seed, PROMPT_BLOCKS).into_iter().enumerate() {
        if depth < len {
            let block = CommittedBlock { hash, parent: None, depth: depth as u32 };
            has.insert((hash, tier));
            events.push(BlockEvent::Committed { block, tier });
        } else if has.remove(&(hash, tier)) {
            events.push(BlockEvent::Evicted { hash, tier });
        }
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn it_knows_what_a_simple_model_knows(steps in steps()) {
        let (mut index, mut model) = (PrefixIndex::new(ROOMY), Model::default());
        run(&mut index, &mut model, &steps);
        model.check(&index);
        for seed in 0..4 {
            let hashes = prompt(seed, PROMPT_BLOCKS);
            for len in [0, 1, 2, 16, 17, 255, PROMPT_BLOCKS] {
                prop_assert_eq!(find(&index, &hashes[..len]), model.find(&hashes[..len]));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_table_that_splits_loses_nothing(seed in 0..1000_u64, keep in 1..7_usize) {
        let mut index = PrefixIndex::new(ROOMY);
        let (one, two) = (index.join().expect("room"), index.join().expect("room"));
        let hashes = prompt(seed, 20_000);
        for (at, hash) in hashes.iter().enumerate() {
            prop_assert_eq!(index.insert(one, *hash, Tier::Device), Ok(true));
            prop_assert!(at % 3 > 0 || index.insert(two, *hash, Tier::Host) == Ok(true));
        }
        for (at, hash) in hashes.iter().enumerate() {
            prop_assert!(at % keep == 0 || index.remove(one, *hash, Tier::Device));
        }
        let mut sum = IndexDigest::default();
        for (at, hash) in hashes.iter().enumerate() {
            let found = find(&index, &[*hash]);
            prop_assert_eq!(found.contains_key(&one), at % keep == 0);
            prop_assert_eq!(found.get(&two), (at % 3 == 0).then_some(&[0, 1, 1]));
            if at % keep == 0 {
                sum.add(*hash, Tier::Device);
            }
        }
        prop_assert_eq!(index.digest(one), sum);
    }
}

#[test]
fn what_is_said_twice_counts_once() {
    let mut index = PrefixIndex::new(ROOMY);
    let holder = index.join().expect("room");
    let hash = prompt(0, 1)[0];
    assert_eq!(index.insert(holder, hash, Tier::Host), Ok(true));
    assert_eq!(index.insert(holder, hash, Tier::Host), Ok(false));
    assert_eq!(index.digest(holder).blocks, 1);
    assert!(index.remove(holder, hash, Tier::Host));
    assert!(!index.remove(holder, hash, Tier::Host));
    assert!(!index.remove(holder, hash, Tier::Device));
    assert_eq!((index.digest(holder), index.blocks()), (IndexDigest::default(), 0));
}

#[test]
fn a_block_that_moves_changes_the_digest() {
    let (mut here, mut there) = (IndexDigest::default(), IndexDigest::default());
    here.add(BlockHash(5), Tier::Device);
    there.add(BlockHash(5), Tier::Host);
    assert_ne!(here, there);
}

#[test]
fn a_number_is_anothers_after_its_holder_left() {
    let mut index = PrefixIndex::new(ROOMY);
    let hashes = prompt(0, 10);
    let first = index.join().expect("room");
    hashes.iter().for_each(|hash| assert!(index.insert(first, *hash, Tier::Device).is_ok()));
    index.leave(first);
    let second = index.join().expect("room");
    assert_eq!(first, second);
    assert_eq!((index.blocks_of(second), find(&index, &hashes).len()), (0, 0));
}

#[test]
fn what_the_gone_held_is_swept_out() {
    let mut index = PrefixIndex::new(ROOMY);
    let (stays, leaves) = (index.join().expect("room"), index.join().expect("room"));
    let hashes = prompt(0, 6_000);
    for (at, hash) in hashes.iter().enumerate() {
        index.insert(leaves, *hash, Tier::Device).expect("bytes");
        if at % 2 == 0 {
            index.insert(stays, *hash, Tier::Device).expect("bytes");
        }
    }
    index.leave(leaves);
    (0..3 * BUCKETS).for_each(|_| assert!(!index.remove(stays, BlockHash(1), Tier::Disk)));
    assert!(!index.seats.is_unswept());
    assert_eq!((index.blocks(), index.blocks_of(stays)), (3_000, 3_000));
}

#[test]
fn thousands_of_new_beginnings_in_a_row_find_a_seat() {
    let mut index = PrefixIndex::new(ROOMY);
    let holder = index.join().expect("room");
    for hash in prompt(0, 3 * Holder::MAX) {
        index.insert(holder, hash, Tier::Device).expect("bytes");
        index.clear(holder);
    }
    assert_eq!((index.memberships(), index.holders.len()), (0, 1));
}

#[test]
fn as_many_join_as_there_are_numbers() {
    let mut index = PrefixIndex::new(ROOMY);
    let holders: Vec<Holder> = std::iter::from_fn(|| index.join()).collect();
    assert_eq!(holders.len(), Holder::MAX);
    let hash = prompt(0, 1);
    holders
        .iter()
        .for_each(|holder| assert_eq!(index.insert(*holder, hash[0], Tier::Host), Ok(true)));
    assert_eq!(find(&index, &hash).len(), Holder::MAX);
    holders.iter().step_by(2).for_each(|holder| index.leave(*holder));
    assert_eq!(find(&index, &hash).len(), Holder::MAX / 2);
}

#[test]
fn its_bytes_are_never_exceeded_and_who_lost_blocks_is_told() {
    let bytes_max = 3 << 20;
    let mut index = PrefixIndex::new(bytes_max);
    let (lucky, late) = (index.join().expect("room"), index.join().expect("room"));
    let hashes = prompt(0, 250_000);
    let mut refused = 0;
    for hash in &hashes {
        refused += u64::from(index.insert(late, *hash, Tier::Device).is_err());
        assert!(index.bytes() <= bytes_max);
    }
    assert!(refused > 0);
    assert_eq!((index.refused(late), index.refused(lucky)), (refused, 0));
    assert_eq!(index.blocks_of(late), hashes.len() as u64 - refused);
    // Room again.
    index.clear(late);
    assert_eq!(index.refused(late), 0);
    hashes[..50_000]
        .iter()
        .for_each(|hash| assert_eq!(index.insert(lucky, *hash, Tier::Host), Ok(true)));
    assert!(index.bytes() <= bytes_max);
}

#[test]
fn an_index_of_no_bytes_lets_nobody_in() {
    assert_eq!(PrefixIndex::new(0).join(), None);
}

#[test]
fn a_hole_at_the_start_is_no_hit() {
    let mut index = PrefixIndex::new(ROOMY);
    let holder = index.join().expect("room");
    let hashes = prompt(0, 100);
    hashes[1..]
        .iter()
        .for_each(|hash| assert_eq!(index.insert(holder, *hash, Tier::Device), Ok(true)));
    assert_eq!(find(&index, &hashes), BTreeMap::new());
}

#[test]
fn whoever_has_none_of_the_first_ends_nobodys_part() {
    let mut index = PrefixIndex::new(ROOMY);
    let [one, two] = [(); 2].map(|()| index.join().expect("room"));
    let hashes = prompt(0, 100);
    hashes.iter().for_each(|hash| assert_eq!(index.insert(two, *hash, Tier::Device), Ok(true)));
    hashes[9..]
        .iter()
        .for_each(|hash| assert_eq!(index.insert(one, *hash, Tier::Device), Ok(true)));
    assert_eq!(find(&index, &hashes), BTreeMap::from([(two, [100; 3])]));
}

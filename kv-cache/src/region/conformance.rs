//! What holds of every region of KV memory, whatever it is made of. Each crate that has a kind of region
//! calls [`conformance`] in its tests.

use std::ops::Range;
use std::sync::Arc;
use std::thread;

use super::{Fence, HostRegion, Kin, KvRegion, PageRange, PeerPages, PeerRegion, RegionError};
use crate::{BlockHandle, BlockPool, BlockRef, KvLayout};

/// Blocks of the regions that are asked for: few, so that ranges end where a region does.
const BLOCKS: u32 = 11;

/// Rounds of whoever works at the same time.
const ROUNDS: u32 = 50;

/// A region to be tried.
pub struct Subject {
    /// The region, new: zeroed.
    pub region: Arc<dyn KvRegion>,
    /// A fence behind everything that steps were told to write so far.
    pub fence: Box<dyn Fn() -> Fence>,
}

/// A kind of region.
///
/// - `layouts`: two at least that it can have, and that don't fit each other.
/// - `make`: a new region of one of them, with so many blocks.
///
/// # Panics
/// If something doesn't hold.
pub fn conformance(layouts: &[KvLayout], make: impl Fn(&KvLayout, u32) -> Subject) {
    for layout in layouts {
        let new = || make(layout, BLOCKS);
        assert_eq!(new().region.layout(), layout, "it has the layout that was asked for");
        pages_are_where_they_were_put(&new());
        whole_blocks_are_where_they_were_put(&new());
        what_is_not_there_is_refused(&new());
        fences_that_were_given_out_pass(&new());
        calls_at_the_same_time_keep_apart(&new());
        strangers_are_refused(&new());
        if new().region.as_peer().is_some() {
            pages_go_from_peer_to_peer(&new(), &new());
            peers_copy_both_ways_at_once(&new(), &new());
        }
    }
    others_do_not_fit(&make(&layouts[0], BLOCKS), &make(&layouts[1], BLOCKS));
}

// --- Copies by way of the host. ---

fn pages_are_where_they_were_put(subject: &Subject) {
    let region = subject.region.as_ref();
    let mut model = Model::zeroed(region.layout());
    let handles = handles();
    for (seed, (layers, blocks)) in (1..).zip(ranges(region.layout().layers())) {
        let blocks = pick(&handles, &blocks);
        let pages = PageRange { layers, blocks: &blocks };
        let bytes = noise(seed, pages.pages() * region.layout().page_bytes());
        region.scatter(&pages, &bytes).expect("pages of the region");
        model.put(&pages, &bytes);
        assert!(read(region, &pages) == model.get(&pages), "{pages:?} hold what was put there");
        assert!(read(region, &all(region, &pick_all(&handles))) == model.bytes, "beside {pages:?}");
    }
}

fn whole_blocks_are_where_they_were_put(subject: &Subject) {
    let region = subject.region.as_ref();
    let (page, handles) = (region.layout().page_bytes(), handles());
    let mut model = Model::zeroed(region.layout());
    for (seed, (_, blocks)) in (100..).zip(ranges(region.layout().layers())) {
        let blocks = pick(&handles, &blocks);
        let pages = all(region, &blocks);
        let bytes = noise(seed, pages.pages() * page);
        model.put(&pages, &bytes);
        // [layers, blocks, page] as [blocks, layers, page].
        let of_block = |at: usize| bytes.chunks_exact(page).skip(at).step_by(blocks.len());
        let each: Vec<Vec<u8>> =
            (0..blocks.len()).map(|at| of_block(at).flatten().copied().collect()).collect();
        let from: Vec<&[u8]> = each.iter().map(Vec::as_slice).collect();
        region.restore(&blocks, &from).expect("blocks of the region");
        assert!(read(region, &all(region, &pick_all(&handles))) == model.bytes, "{blocks:?}");
    }
    let blocks = pick(&handles, &[0, 1]);
    let whole = vec![1; region.layout().block_bytes()];
    for from in [&[&whole[..]][..], &[&whole, &whole[1..]], &[&whole, &whole, &whole]] {
        let refused = region.restore(&blocks, from).expect_err("other bytes than the blocks take");
        assert!(matches!(refused, RegionError::Length { .. }), "{refused}");
    }
}

fn what_is_not_there_is_refused(subject: &Subject) {
    let region = subject.region.as_ref();
    let (layers, page) = (region.layout().layers(), region.layout().page_bytes());
    let larger = BlockPool::new(BLOCKS + 1, 1);
    let (ours, foreign) = references(&larger);
    let cases = [
        (0..layers + 1, ours, page, out_of_range(ours, layers + 1)),
        (0..1, foreign, page, out_of_range(foreign, 1)),
        (0..1, ours, page - 1, RegionError::Length { got: page - 1, want: page }),
        (0..1, ours, 2 * page, RegionError::Length { got: 2 * page, want: page }),
    ];
    for (layers, block, bytes, want) in cases {
        let pages = PageRange { layers, blocks: &[block] };
        let mut out = vec![7; bytes];
        assert_eq!(region.gather(&pages, Fence::default(), &mut out), Err(want.clone()));
        assert!(out.iter().all(|&byte| byte == 7), "nothing of {pages:?} was copied");
        assert_eq!(region.scatter(&pages, &out), Err(want));
    }
    let handles = handles();
    let untouched = read(region, &all(region, &pick_all(&handles)));
    assert!(untouched.iter().all(|&byte| byte == 0), "a refused write writes nothing");
}

fn fences_that_were_given_out_pass(subject: &Subject) {
    let region = subject.region.as_ref();
    let handles = handles();
    let blocks = pick_all(&handles);
    let pages = all(region, &blocks);
    let fences = [Fence::default(), (subject.fence)(), (subject.fence)(), (subject.fence)()];
    assert!(fences.is_sorted(), "a later fence is no earlier one: {fences:?}");
    // The later ones first: an earlier fence has then passed long ago.
    for fence in fences.into_iter().rev() {
        region.settle(fence).expect("a fence that was given out");
        let mut out = vec![1; pages.pages() * region.layout().page_bytes()];
        region.gather(&pages, fence, &mut out).expect("pages of the region");
        assert!(out.iter().all(|&byte| byte == 0), "what nobody wrote is zero");
    }
}

fn calls_at_the_same_time_keep_apart(subject: &Subject) {
    let region = subject.region.as_ref();
    let handles = handles();
    thread::scope(|scope| {
        for thread in 0..4 {
            let own: Vec<usize> = (0..BLOCKS as usize).filter(|it| it % 4 == thread).collect();
            let blocks = pick(&handles, &own);
            scope.spawn(move || {
                let pages = all(region, &blocks);
                for round in 0..ROUNDS {
                    let seed = thread as u64 * 1000 + u64::from(round);
                    let bytes = noise(seed, pages.pages() * region.layout().page_bytes());
                    region.scatter(&pages, &bytes).expect("pages of the region");
                    assert!(read(region, &pages) == bytes, "thread {thread} in round {round}");
                }
            });
        }
    });
}

// --- Copies from memory to memory. ---

fn pages_go_from_peer_to_peer(from: &Subject, to: &Subject) {
    let (source, target) = (from.region.as_ref(), to.region.as_ref());
    assert!(target.reaches(source) && source.reaches(target), "two of a kind");
    let handles = handles();
    let (page, mut model) = (source.layout().page_bytes(), Model::zeroed(source.layout()));
    let whole = noise(9, model.bytes.len());
    source.scatter(&all(source, &pick_all(&handles)), &whole).expect("pages of the region");
    for (layers, blocks) in ranges(source.layout().layers()) {
        // To other blocks than they come from.
        let elsewhere: Vec<usize> =
            blocks.iter().map(|it| (it * 3 + 1) % BLOCKS as usize).collect();
        let (sent, blocks) = (pick(&handles, &blocks), pick(&handles, &elsewhere));
        let read = read(source, &PageRange { layers: layers.clone(), blocks: &sent });
        let pages = PageRange { layers, blocks: &blocks };
        let peer = PeerPages { region: source, blocks: &sent, fence: (from.fence)() };
        target.copy_from(&pages, &peer).expect("pages of both");
        model.put(&pages, &read);
        assert!(self::read(target, &all(target, &pick_all(&handles))) == model.bytes, "{pages:?}");
        if !sent.is_empty() && pages.pages() > 0 {
            let few = PeerPages { blocks: &sent[1..], ..peer };
            let (got, want) = (pages.pages() * page, pages.layers.len() * (sent.len() - 1) * page);
            let refused = target.copy_from(&pages, &few);
            assert_eq!(refused, Err(RegionError::Length { got, want }), "a block too few");
        }
    }
    assert!(read(source, &all(source, &pick_all(&handles))) == whole, "the source is as it was");
    pages_that_one_side_lacks_are_refused(source, target);
}

fn pages_that_one_side_lacks_are_refused(source: &dyn KvRegion, target: &dyn KvRegion) {
    let larger = BlockPool::new(BLOCKS + 1, 1);
    let (ours, foreign) = references(&larger);
    let copy = |layers: Range<u32>, to, from| {
        let peer = PeerPages { region: source, blocks: &[from], fence: Fence::default() };
        target.copy_from(&PageRange { layers, blocks: &[to] }, &peer)
    };
    let layer_end = target.layout().layers() + 1;
    assert_eq!(copy(0..layer_end, ours, ours), Err(out_of_range(ours, layer_end)));
    assert_eq!(copy(0..1, foreign, ours), Err(out_of_range(foreign, 1)), "of the target");
    assert_eq!(copy(0..1, ours, foreign), Err(out_of_range(foreign, 1)), "of the source");
}

fn peers_copy_both_ways_at_once(one: &Subject, other: &Subject) {
    let handles = handles();
    let blocks = pick_all(&handles);
    let copy = |to: &dyn KvRegion, region: &dyn KvRegion, fence: Fence| {
        for _ in 0..ROUNDS {
            let peer = PeerPages { region, blocks: &blocks, fence };
            to.copy_from(&all(region, &blocks), &peer).expect("pages of both");
        }
    };
    // Fences are given out where steps are submitted, on one thread.
    let fences = ((one.fence)(), (other.fence)());
    let (one, other) = (one.region.as_ref(), other.region.as_ref());
    thread::scope(|scope| {
        scope.spawn(|| copy(one, other, fences.1));
        copy(other, one, fences.0);
    });
}

// --- Those that have nothing in common. ---

/// Of no kind but its own.
struct Stranger(HostRegion);

fn strangers_are_refused(subject: &Subject) {
    let stranger = Stranger(HostRegion::new(subject.region.layout().clone(), BLOCKS));
    do_not_reach(subject.region.as_ref(), &stranger);
    do_not_reach(&stranger, subject.region.as_ref());
    do_not_reach(subject.region.as_ref(), subject.region.as_ref());
}

fn others_do_not_fit(one: &Subject, other: &Subject) {
    do_not_reach(one.region.as_ref(), other.region.as_ref());
    do_not_reach(other.region.as_ref(), one.region.as_ref());
}

fn do_not_reach(to: &dyn KvRegion, from: &dyn KvRegion) {
    assert!(!to.reaches(from), "{} and {}", to.layout(), from.layout());
    let handles = handles();
    let blocks = pick(&handles, &[1]);
    let peer = PeerPages { region: from, blocks: &blocks, fence: Fence::default() };
    let refused = to.copy_from(&PageRange { layers: 0..1, blocks: &blocks }, &peer);
    assert_eq!(refused, Err(RegionError::Apart));
}

impl KvRegion for Stranger {
    fn layout(&self) -> &KvLayout {
        self.0.layout()
    }

    fn gather(&self, pages: &PageRange<'_>, at: Fence, out: &mut [u8]) -> Result<(), RegionError> {
        self.0.gather(pages, at, out)
    }

    fn scatter(&self, pages: &PageRange<'_>, bytes: &[u8]) -> Result<(), RegionError> {
        self.0.scatter(pages, bytes)
    }

    fn as_peer(&self) -> Option<&dyn PeerRegion> {
        Some(self)
    }
}

impl Kin for Stranger {
    fn blocks(&self) -> u32 {
        BLOCKS
    }

    fn shares_memory_with(&self, _: &Self) -> bool {
        true
    }

    fn copy_from_kin(
        &self,
        _: &PageRange<'_>,
        _: &Self,
        _: (&[BlockRef], Fence),
    ) -> Result<(), RegionError> {
        panic!("a stranger is no kin")
    }
}

// --- What is compared with. ---

/// What a region's pages should be: `[layers, blocks, page]`.
struct Model {
    page: usize,
    bytes: Vec<u8>,
}

// === impl Model ===

impl Model {
    fn zeroed(layout: &KvLayout) -> Self {
        let page = layout.page_bytes();
        Self { page, bytes: vec![0; (layout.layers() * BLOCKS) as usize * page] }
    }

    fn put(&mut self, pages: &PageRange<'_>, bytes: &[u8]) {
        for (range, page) in self.places(pages).zip(bytes.chunks_exact(self.page)) {
            self.bytes[range].copy_from_slice(page);
        }
    }

    fn get(&self, pages: &PageRange<'_>) -> Vec<u8> {
        self.places(pages).flat_map(|range| self.bytes[range].to_vec()).collect()
    }

    fn places<'a>(&self, pages: &'a PageRange<'_>) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let page = self.page;
        pages.layers.clone().flat_map(move |layer| {
            pages.blocks.iter().map(move |block| {
                let start = ((layer * BLOCKS) as usize + block.block.index()) * page;
                start..start + page
            })
        })
    }
}

/// Blocks of a pool of as many as the regions have, by number.
fn handles() -> Vec<BlockHandle> {
    let pool = BlockPool::new(BLOCKS, 1);
    bound(&pool, BLOCKS)
}

fn pick(handles: &[BlockHandle], which: &[usize]) -> Vec<BlockRef> {
    which.iter().map(|&at| handles[at].reference()).collect()
}

fn pick_all(handles: &[BlockHandle]) -> Vec<BlockRef> {
    handles.iter().map(BlockHandle::reference).collect()
}

/// A block that a region has, and one that it doesn't.
fn references(larger: &BlockPool) -> (BlockRef, BlockRef) {
    let handles = bound(larger, BLOCKS + 1);
    (handles[0].reference(), handles[BLOCKS as usize].reference())
}

/// All blocks of a new pool, by number.
fn bound(pool: &BlockPool, blocks: u32) -> Vec<BlockHandle> {
    let mut credit = pool.reserve(blocks).expect("a new pool is free");
    let mut handles = credit.bind_many(blocks).expect("as many as were promised");
    handles.sort_by_key(|handle| handle.reference().block);
    handles
}

/// Layers and blocks: none, one, neighbours, scattered, backwards, all.
fn ranges(layers: u32) -> Vec<(Range<u32>, Vec<usize>)> {
    let last = BLOCKS as usize - 1;
    let lists: [Vec<usize>; 6] = [
        vec![],
        vec![0],
        vec![last],
        vec![3, 4, 5, 9],
        vec![8, 2, 3, 0],
        (0..=last).rev().collect(),
    ];
    let cuts = [0..layers, 0..1, layers - 1..layers, layers / 2..layers, 0..0];
    let with = |cut: &Range<u32>| lists.clone().map(|list| (cut.clone(), list));
    cuts.iter().flat_map(with).collect()
}

fn all<'a>(region: &dyn KvRegion, blocks: &'a [BlockRef]) -> PageRange<'a> {
    PageRange { layers: 0..region.layout().layers(), blocks }
}

fn read(region: &dyn KvRegion, pages: &PageRange<'_>) -> Vec<u8> {
    let mut out = vec![0; pages.pages() * region.layout().page_bytes()];
    region.gather(pages, Fence::default(), &mut out).expect("pages of the region");
    out
}

fn out_of_range(block: BlockRef, layer_end: u32) -> RegionError {
    RegionError::OutOfRange { block, layer_end }
}

/// Bytes that look random, and differ from page to page.
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}

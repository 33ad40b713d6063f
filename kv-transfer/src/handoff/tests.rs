use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn spans() -> impl Strategy<Value = PageSpan> {
    (0..3u32, 0..7u32, 0..4u32, 0..40u32).prop_map(|(layer, layers, block, blocks)| PageSpan {
        layers: layer..layer + layers,
        blocks: block..block + blocks,
    })
}

fn filled() -> impl Strategy<Value = (PageSpan, BTreeSet<(u32, u32)>)> {
    spans().prop_flat_map(|span| {
        let all: Vec<_> = span.iter().collect();
        let count = 0..=all.len();
        let pages = proptest::sample::subsequence(all, count);
        (Just(span), pages.prop_map(|pages| pages.into_iter().collect()))
    })
}

proptest! {
    #[test]
    fn coverage_is_a_set_of_pages((span, pages) in filled()) {
        let mut coverage = Coverage::new(&span);
        for &(layer, block) in &pages {
            prop_assert!(coverage.insert(layer, block));
            prop_assert!(!coverage.insert(layer, block), "the second time is not new");
        }
        for layer in 0..12 {
            for block in 0..50 {
                prop_assert_eq!(coverage.contains(layer, block), pages.contains(&(layer, block)));
            }
        }
        prop_assert_eq!(coverage.missing_pages(), span.pages() - pages.len());
        prop_assert_eq!(coverage.is_complete(), pages.len() == span.pages());
    }

    #[test]
    fn what_is_missing_is_the_rest((span, pages) in filled()) {
        let mut coverage = Coverage::new(&span);
        pages.iter().for_each(|&(layer, block)| assert!(coverage.insert(layer, block)));
        let missing = coverage.missing(usize::MAX);
        let listed: Vec<_> = missing.iter().flat_map(PageSpan::iter).collect();
        let rest: BTreeSet<_> = span.iter().filter(|page| !pages.contains(page)).collect();
        prop_assert_eq!(listed.len(), rest.len(), "none is listed twice");
        prop_assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), rest);
    }

    #[test]
    fn a_cut_list_of_what_is_missing_names_only_missing_pages(
        (span, pages) in filled(), spans_max in 1..5usize,
    ) {
        let mut coverage = Coverage::new(&span);
        pages.iter().for_each(|&(layer, block)| assert!(coverage.insert(layer, block)));
        let missing = coverage.missing(spans_max);
        prop_assert!(missing.len() <= spans_max);
        prop_assert_eq!(missing.is_empty(), coverage.is_complete());
        let mut listed = missing.iter().flat_map(PageSpan::iter);
        prop_assert!(listed.all(|(layer, block)| !coverage.contains(layer, block)));
    }

    #[test]
    fn a_digest_does_not_depend_on_the_order(mut digests: Vec<u64>) {
        let sum = |digests: &[u64]| {
            let mut sum = Digest::default();
            digests.iter().for_each(|&digest| sum.add(digest));
            sum
        };
        let forwards = sum(&digests);
        digests.reverse();
        prop_assert_eq!(forwards, sum(&digests));
    }
}

#[test]
fn a_rectangle_of_missing_pages_is_one_span() {
    let mut coverage = Coverage::new(&PageSpan { layers: 0..4, blocks: 2..9 });
    for layer in [0, 3] {
        (2..9).for_each(|block| assert!(coverage.insert(layer, block)));
    }
    let hole = PageSpan { layers: 1..3, blocks: 2..9 };
    assert_eq!(coverage.missing(usize::MAX), [hole]);
}

#[test]
fn a_page_digest_depends_on_bytes_layer_and_block() {
    let page = [7u8; 512];
    let mut flipped = page;
    flipped[300] ^= 1;
    let digest = page_digest(1, 2, &page);
    assert_eq!(digest, page_digest(1, 2, &page));
    for other in [page_digest(2, 1, &page), page_digest(0, 2, &page), page_digest(1, 2, &flipped)] {
        assert_ne!(digest, other);
    }
}

/// The digests are on the wire: two versions of this crate must agree on them.
#[test]
fn page_digests_are_pinned() {
    let page: Vec<u8> = (0..=255).collect();
    // As the reference implementation has it: `xxh3_64(bytes(range(256)), seed=(3 << 32) | 9)`.
    assert_eq!(page_digest(3, 9, &page), 10_152_093_797_526_673_131);
}

use bytes::Bytes;
use kv_cache::BlockPool;

use super::*;
use crate::message::Payload;
use crate::page_digest;

const PAGE_BYTES: usize = 8;
const LAYERS: u32 = 2;
const CONTEXT: BlockHash = BlockHash(9);
const BLOCKS: u32 = 6;
/// Two chunks of three pages.
const WINDOW_BYTES: u64 = 6 * PAGE_BYTES as u64;

/// An outbox for all of [`whole`], three pages a message, with everything pushed.
fn full() -> (Outbox, BlockPool) {
    let pool = BlockPool::new(BLOCKS, 4);
    let mut credit = pool.reserve(BLOCKS).unwrap();
    let blocks: Vec<_> = std::iter::from_fn(|| credit.bind()).collect();
    let mut outbox = Outbox::new(whole(), 24, PAGE_BYTES, 3 * PAGE_BYTES + 1);
    for layer in 0..LAYERS {
        let fence = Fence(u64::from(layer));
        let layers = layer..layer + 1;
        outbox.push(FilledPages { layers, first_block: 0, blocks: blocks.clone(), fence }).unwrap();
    }
    (outbox, pool)
}

fn whole() -> PageSpan {
    PageSpan { layers: 0..LAYERS, blocks: 0..BLOCKS }
}

fn read(gather: &Gather) -> Gathered {
    let page = [7; PAGE_BYTES];
    Gathered {
        span: gather.span.clone(),
        payload: Payload::Bytes(Bytes::from(page.repeat(gather.span.pages()))),
        digests: gather
            .span
            .iter()
            .map(|(layer, block)| page_digest(layer, block, &page))
            .collect(),
        resent: gather.resent,
        took_us: 0,
    }
}

/// Reads and says everything that the window allows.
fn say(outbox: &mut Outbox) -> Vec<Push> {
    let mut said = Vec::new();
    loop {
        if let Some(gather) = outbox.next_gather(WINDOW_BYTES) {
            outbox.gathered(read(&gather));
        } else if let Some(push) = outbox.pop_ready() {
            said.push(push);
        } else {
            return said;
        }
    }
}

fn spans(said: &[Push]) -> Vec<(u64, PageSpan)> {
    let chunk = |push: &Push| match push {
        Push::Pages(chunk) => Some((chunk.sequence, chunk.span.clone())),
        Push::Commit(_) => None,
    };
    said.iter().filter_map(chunk).collect()
}

fn span(layer: u32, blocks: std::ops::Range<u32>) -> PageSpan {
    PageSpan { layers: layer..layer + 1, blocks }
}

/// Everything said and acknowledged, and the commit.
fn committed() -> (Outbox, CommitRecord) {
    let (mut outbox, _) = full();
    outbox.commit(CONTEXT).unwrap();
    say(&mut outbox);
    outbox.acknowledged(2);
    let said = say(&mut outbox);
    let Some(Push::Commit(record)) = said.last().cloned() else { panic!("{said:?}") };
    outbox.acknowledged(4);
    (outbox, record)
}

#[test]
fn the_window_bounds_what_is_not_acknowledged() {
    let (mut outbox, _) = full();
    let first = spans(&say(&mut outbox));
    assert_eq!(first, [(1, span(0, 0..3)), (2, span(0, 3..6))]);
    assert!(outbox.awaits_answer());
    assert!(outbox.acknowledged(1) && !outbox.acknowledged(1));
    assert_eq!(spans(&say(&mut outbox)), [(3, span(1, 0..3))]);
    assert!(outbox.acknowledged(3), "an acknowledgement holds for all before it");
    assert_eq!(spans(&say(&mut outbox)), [(4, span(1, 3..6))]);
}

#[test]
fn a_chunk_larger_than_the_window_goes_alone() {
    let (mut outbox, _) = full();
    let gather = outbox.next_gather(1).unwrap();
    outbox.gathered(read(&gather));
    assert!(outbox.next_gather(1).is_none());
    assert!(outbox.pop_ready().is_some() && outbox.next_gather(1).is_none());
    outbox.acknowledged(1);
    assert!(outbox.next_gather(1).is_some());
}

#[test]
fn pages_wait_for_their_own_fence_and_resent_ones_for_the_last() {
    let (mut outbox, _) = committed();
    outbox.missing(&[span(0, 0..1)]).unwrap();
    assert_eq!(outbox.next_gather(WINDOW_BYTES).unwrap().fence, Fence(1));
    let (mut outbox, _) = full();
    assert_eq!(outbox.next_gather(WINDOW_BYTES).unwrap().fence, Fence(0));
}

#[test]
fn the_record_counts_every_page_once() {
    let (mut outbox, first) = committed();
    let mut digest = Digest::default();
    let page = [7; PAGE_BYTES];
    whole().iter().for_each(|(layer, block)| digest.add(page_digest(layer, block, &page)));
    let (blocks, digest) = (0..BLOCKS, digest.0);
    let want = CommitRecord { tokens: 24, blocks, layers: LAYERS, digest, context: CONTEXT };
    assert_eq!(first, want);
    outbox.missing(&[span(1, 2..4)]).unwrap();
    let said = say(&mut outbox);
    assert_eq!(spans(&said), [(5, span(1, 2..4))]);
    assert_eq!(said.last(), Some(&Push::Commit(want)));
    assert_eq!(outbox.resent_pages(), 2);
}

#[test]
fn the_commit_comes_last() {
    let (mut outbox, _) = full();
    outbox.commit(CONTEXT).unwrap();
    let gather = outbox.next_gather(WINDOW_BYTES).unwrap();
    assert!(!outbox.has_ready(), "pages are being read");
    outbox.gathered(read(&gather));
    outbox.pop_ready().unwrap();
    assert!(!outbox.has_ready() && outbox.pop_ready().is_none(), "pages are to be read");
}

#[test]
fn a_new_stream_begins_with_what_the_last_one_lost() {
    let (mut outbox, _) = full();
    outbox.commit(CONTEXT).unwrap();
    say(&mut outbox);
    outbox.acknowledged(1);
    say(&mut outbox);
    assert_eq!(outbox.rewind(), 6);
    assert!(!outbox.awaits_answer());
    let again = spans(&say(&mut outbox));
    assert_eq!(again, [(1, span(0, 3..6)), (2, span(1, 0..3))]);
    assert_eq!(outbox.resent_pages(), 6);
}

#[test]
fn a_commit_without_an_answer_is_said_again_on_a_new_stream() {
    let (mut outbox, record) = committed();
    assert!(outbox.awaits_answer() && !outbox.has_ready());
    assert_eq!(outbox.rewind(), 0);
    assert_eq!(outbox.pop_ready(), Some(Push::Commit(record)));
}

#[test]
fn blocks_are_kept_until_the_end() {
    let (mut outbox, pool) = full();
    outbox.commit(CONTEXT).unwrap();
    while !say(&mut outbox).is_empty() {
        outbox.acknowledged(u64::MAX);
    }
    assert_eq!(pool.counts().active, BLOCKS);
    drop(outbox);
    assert_eq!(pool.counts().free, BLOCKS);
}

#[test]
fn nonsense_about_what_is_missing_is_not_believed() {
    let beyond = span(0, 5..7);
    // A page named twice, or ten thousand times, is sent once: a few bytes must not ask for gigabytes.
    let twice = vec![span(0, 1..3), span(0, 2..4)];
    for spans in [vec![], vec![beyond], vec![span(0, 2..2)], twice] {
        let (mut outbox, _) = committed();
        assert!(matches!(outbox.missing(&spans), Err(TransferError::Protocol(_))), "{spans:?}");
    }
    let (mut outbox, _) = full();
    let early = outbox.missing(&[span(0, 0..1)]);
    assert!(matches!(early, Err(TransferError::Protocol(_))), "nothing was committed");
}

//! The anchor: a prompt computed on one engine and continued on another gives the tokens of one.

mod support;

use engine::{EngineHandle, Event, FilledPages, Mode};
use kv_cache::{BlockHandle, BlockRef, BlockTable, PageRange};
use rstest::rstest;
use scheduler::{Generation, SampledToken, Sampling};

use support::{
    Answers, Sizes, assert_idle, next, prompt, seeded, start, start_reference, submit, work,
};

/// What a hand-off brought to the decode side.
struct HandedOff {
    table: BlockTable,
    first: Vec<SampledToken>,
    /// Of choices that ended with their first token.
    ended: Answers,
}

/// Copies pages as they are announced, while the prompt is still being computed.
async fn hand_off(from: &EngineHandle, to: &EngineHandle, work: &Generation) -> HandedOff {
    let held = to.cached_prefix(&work.context(), &work.salt);
    let held_blocks = held.blocks().len();
    let blocks = to.info().layout.blocks_for(work.context_tokens());
    let mut credit = to.pool().reserve((blocks - held_blocks) as u32).expect("free blocks");
    let mut table = held;
    while let Some(block) = credit.bind() {
        table.push(block);
    }
    table.set_tokens(work.context_tokens());
    let mut stream = submit(from, work, Mode::Prefill);
    let mut ended = Answers::new();
    while let Some(event) = next(&mut stream).await {
        match event {
            Event::PagesFilled(pages) => copy(from, to, &pages, &table, held_blocks),
            Event::Finished { choice, reason } => {
                ended.insert(choice, (Vec::new(), reason));
            }
            Event::Prefilled { first, .. } => return HandedOff { table, first, ended },
            Event::Failed(error) => panic!("failed: {error}"),
            _ => {}
        }
    }
    panic!("the prompt ended without a result")
}

fn copy(
    from: &EngineHandle,
    to: &EngineHandle,
    pages: &FilledPages,
    table: &BlockTable,
    held_blocks: usize,
) {
    let skipped = held_blocks.saturating_sub(pages.first_block as usize).min(pages.blocks.len());
    let references = |blocks: &[BlockHandle]| blocks.iter().map(BlockHandle::reference).collect();
    let source: Vec<BlockRef> = references(&pages.blocks[skipped..]);
    let first = pages.first_block as usize + skipped;
    let target: Vec<BlockRef> = references(&table.blocks()[first..first + source.len()]);
    let range = PageRange { layers: pages.layers.clone(), blocks: &source };
    let mut bytes = vec![0; range.pages() * from.info().layout.page_bytes()];
    from.region().gather(&range, pages.fence, &mut bytes).expect("pages of this region");
    let range = PageRange { layers: pages.layers.clone(), blocks: &target };
    to.region().scatter(&range, &bytes).expect("pages of that region");
}

async fn disaggregated(from: &EngineHandle, to: &EngineHandle, work: &Generation) -> Answers {
    let HandedOff { table, first, ended } = hand_off(from, to, work).await;
    let resumed = submit(to, work, Mode::Resume { table, first: first.clone() });
    let mut answers = support::answers(resumed).await;
    answers.extend(ended);
    for token in first {
        let (tokens, _) = answers.get_mut(&token.choice).expect("every choice ends somewhere");
        tokens.insert(0, token.token);
    }
    answers
}

#[rstest]
#[case::one_token(1)]
#[case::a_block(16)]
#[case::a_block_and_one(17)]
#[case::many_chunks(130)]
#[tokio::test]
async fn two_engines_give_the_tokens_of_one(
    #[case] prompt_tokens: u32,
    #[values(Sampling::greedy(), seeded(77))] sampling: Sampling,
) {
    let work = work(&prompt(3, prompt_tokens), 40, sampling);
    let (prefill, decode) = (start(Sizes::default()), start(Sizes::default()));
    let together = disaggregated(&prefill, &decode, &work).await;
    assert_eq!(together, support::generate(&start_reference(), &work).await);
    assert_eq!(decode.stats().prefill_tokens, 0, "nothing of the prompt was computed twice");
    assert_idle(&prefill).await;
    assert_idle(&decode).await;
}

#[tokio::test]
async fn choices_are_handed_off_together() {
    let mut work = work(&prompt(5, 50), 20, seeded(8));
    work.choices = vec![0, 1, 2];
    let (prefill, decode) = (start(Sizes::default()), start(Sizes::default()));
    let together = disaggregated(&prefill, &decode, &work).await;
    assert_eq!(together, support::generate(&start_reference(), &work).await);
    assert_idle(&decode).await;
}

#[tokio::test]
async fn an_end_with_the_first_token_is_told_once_and_by_the_first() {
    let work = work(&prompt(5, 20), 1, Sampling::greedy());
    let (prefill, decode) = (start(Sizes::default()), start(Sizes::default()));
    let handed = hand_off(&prefill, &decode, &work).await;
    assert_eq!(handed.ended.len(), 1);
    let mode = Mode::Resume { table: handed.table, first: handed.first };
    assert_eq!(support::answers(submit(&decode, &work, mode)).await, Answers::new());
    assert_idle(&decode).await;
}

/// Both sides have cached the conversation so far; only the rest is computed and copied.
#[tokio::test]
async fn a_second_turn_builds_on_the_cached_first() {
    let (prefill, decode) = (start(Sizes::default()), start(Sizes::default()));
    let first = work(&prompt(2, 70), 30, seeded(4));
    let (answer, _) = disaggregated(&prefill, &decode, &first).await[&0].clone();
    let second = work(&[&first.prompt[..], &answer, &prompt(9, 15)].concat(), 30, seeded(5));
    assert!(decode.cached_prefix(&second.prompt, &second.salt).tokens() > 70, "output is cached");
    let together = disaggregated(&prefill, &decode, &second).await;
    assert_eq!(together, support::generate(&start_reference(), &second).await);
    assert!(prefill.stats().cached_tokens >= 64);
    assert_idle(&prefill).await;
    assert_idle(&decode).await;
}

#[tokio::test]
async fn handed_off_sequences_that_are_preempted_are_computed_again() {
    let prefill = start(Sizes::default());
    let decode = start(Sizes { kv_blocks: 14, ..Sizes::default() });
    let reference = start_reference();
    let mut works: Vec<_> =
        (0..4).map(|seed| work(&prompt(seed, 40), 50, seeded(seed.into()))).collect();
    works.iter_mut().for_each(|work| work.stop.ignore_eos = true);
    // 12 of 14 blocks are taken when decoding begins; each sequence grows by three.
    let mut handed_off = Vec::new();
    for work in &works {
        handed_off.push(hand_off(&prefill, &decode, work).await);
    }
    let resume = |(work, HandedOff { table, first, .. }): (&Generation, HandedOff)| {
        (first.clone(), submit(&decode, work, Mode::Resume { table, first }))
    };
    let streams: Vec<_> = works.iter().zip(handed_off).map(resume).collect();
    for (work, (first, stream)) in works.iter().zip(streams) {
        let mut answers = support::answers(stream).await;
        answers.get_mut(&0).expect("an answer").0.insert(0, first[0].token);
        assert_eq!(answers, support::generate(&reference, work).await);
    }
    assert!(decode.stats().preemptions > 0, "memory was not short: {:?}", decode.stats());
    assert_idle(&decode).await;
}

//! A prompt computed on one engine and continued on another.

use engine::{EngineHandle, Event, FilledPages, Mode};
use kv_cache::{BlockHandle, BlockRef, BlockTable, PageRange};
use words::{Generation, SampledToken};

use crate::support::{Answers, next, submit};

/// What a hand-off brought to the decode side.
pub(crate) struct HandedOff {
    pub(crate) table: BlockTable,
    pub(crate) first: Vec<SampledToken>,
    /// Of choices that ended with their first token.
    pub(crate) ended: Answers,
}

/// Copies pages as they are announced, while the prompt is still being computed.
pub(crate) async fn hand_off(
    from: &EngineHandle,
    to: &EngineHandle,
    work: &Generation,
) -> HandedOff {
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

/// Computes the prompt on one engine and the rest on the other.
pub(crate) async fn disaggregated(
    from: &EngineHandle,
    to: &EngineHandle,
    work: &Generation,
) -> Answers {
    let HandedOff { table, first, ended } = hand_off(from, to, work).await;
    let resumed = submit(to, work, Mode::Resume { table, first: first.clone() });
    let mut answers = crate::support::answers(resumed).await;
    answers.extend(ended);
    for token in first {
        let (tokens, _) = answers.get_mut(&token.choice).expect("every choice ends somewhere");
        tokens.insert(0, token.token);
    }
    answers
}

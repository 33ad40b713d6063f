//! Refuses a batch that contradicts itself or the model, before anything is written.

use kv_cache::{BlockId, KvLayout};

use crate::batch::{SequenceRows, StepBatch};
use crate::config::ModelConfig;
use crate::error::EngineError;

/// Checks a whole batch.
///
/// # Errors
/// [`EngineError::InvalidBatch`] says which row, sequence or token.
pub(super) fn batch(
    batch: &StepBatch<'_>,
    config: &ModelConfig,
    layout: &KvLayout,
    kv_blocks: u32,
) -> Result<(), EngineError> {
    let rows = batch.tokens.len();
    if batch.positions.len() != rows {
        return refuse(format!("{} positions for {rows} tokens", batch.positions.len()));
    }
    if let Some(token) = batch.tokens.iter().find(|&&token| token >= config.vocab_size) {
        return refuse(format!("token {token} in a vocabulary of {}", config.vocab_size));
    }
    if let Some(fed) = batch.fed.iter().find(|fed| fed.row >= rows) {
        return refuse(format!("a token is fed to row {} of {rows}", fed.row));
    }
    let wanted = batch.samples.iter().map(|sample| sample.row);
    if let Some(row) =
        wanted.chain(batch.scores.iter().map(|score| score.row)).find(|&row| row >= rows)
    {
        return refuse(format!("logits wanted of row {row} of {rows}"));
    }
    if let Some(score) = batch.scores.iter().find(|score| score.next >= config.vocab_size) {
        return refuse(format!(
            "token {} to score in a vocabulary of {}",
            score.next, config.vocab_size
        ));
    }
    let mut next_row = 0;
    for (index, sequence) in batch.sequences.iter().enumerate() {
        if sequence.rows.start != next_row {
            return refuse(format!(
                "sequence {index} starts at row {}, not {next_row}",
                sequence.rows.start
            ));
        }
        next_row = sequence.rows.end;
        check_sequence(sequence, &batch.positions, config, layout, kv_blocks)
            .or_else(|reason| refuse(format!("sequence {index}: {reason}")))?;
    }
    if next_row != rows {
        return refuse(format!("sequences end at row {next_row} of {rows}"));
    }
    Ok(())
}

fn refuse(reason: String) -> Result<(), EngineError> {
    Err(EngineError::InvalidBatch(reason))
}

fn check_sequence(
    sequence: &SequenceRows<'_>,
    positions: &[u32],
    config: &ModelConfig,
    layout: &KvLayout,
    kv_blocks: u32,
) -> Result<(), String> {
    let SequenceRows { rows, context_tokens, blocks } = sequence;
    let Some(positions) = positions.get(rows.clone()).filter(|positions| !positions.is_empty())
    else {
        return Err(format!("rows {rows:?} are none of the batch's"));
    };
    if *context_tokens > config.max_position {
        return Err(format!("{context_tokens} tokens exceed the model's {}", config.max_position));
    }
    let first = context_tokens.checked_sub(positions.len() as u32);
    if !first.is_some_and(|first| positions.iter().copied().eq(first..*context_tokens)) {
        return Err(format!("positions don't run up to {context_tokens}"));
    }
    if blocks.len() < layout.blocks_for(*context_tokens as usize) {
        return Err(format!("{} blocks for {context_tokens} tokens", blocks.len()));
    }
    if !all_below(blocks, kv_blocks)
        && let Some(block) = blocks.iter().find(|block| block.0 >= kv_blocks)
    {
        return Err(format!("block {block} of a pool of {kv_blocks}"));
    }
    Ok(())
}

/// Whether all are blocks of a pool of `kv_blocks`.
///
/// A step has tens of thousands, so it goes by vectors: without an early end, and by the signs of differences, since
/// the oldest x86-64 has no maximum of unsigned numbers.
fn all_below(blocks: &[BlockId], kv_blocks: u32) -> bool {
    let Some(last) = kv_blocks.checked_sub(1).and_then(|last| i32::try_from(last).ok()) else {
        return blocks.iter().all(|block| block.0 < kv_blocks);
    };
    let signs = blocks.iter().fold(0, |signs, block| {
        let block = block.0.cast_signed();
        signs | block | last.wrapping_sub(block)
    });
    signs >= 0
}

#[cfg(test)]
mod tests {
    use kv_cache::{KvCodec, PageShape};
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::batch::{SampleRow, ScoreRow};
    use crate::testing::tiny_config;

    fn valid() -> StepBatch<'static> {
        StepBatch {
            tokens: vec![1, 2, 3],
            fed: Vec::new(),
            positions: vec![0, 1, 5],
            sequences: vec![
                SequenceRows { rows: 0..2, context_tokens: 2, blocks: vec![BlockId(0)].into() },
                SequenceRows {
                    rows: 2..3,
                    context_tokens: 6,
                    blocks: vec![BlockId(1), BlockId(2)].into(),
                },
            ],
            samples: Vec::new(),
            scores: Vec::new(),
        }
    }

    fn check(candidate: &StepBatch<'_>) -> Result<(), String> {
        let layout = KvLayout::whole(2, 2, PageShape::keys_and_values(8, 4), KvCodec::F32);
        batch(candidate, &tiny_config(), &layout, 3).map_err(|error| error.to_string())
    }

    /// Numbers near zero, near where signs change, and near the largest.
    fn numbers() -> impl Strategy<Value = u32> {
        prop_oneof![0..20u32, i32::MAX as u32 - 9..i32::MAX as u32 + 9, u32::MAX - 9..=u32::MAX]
    }

    proptest! {
        #[test]
        fn foreign_blocks_are_found_wherever_they_are(
            blocks in proptest::collection::vec(numbers(), 0..40),
            kv_blocks in numbers(),
        ) {
            let blocks: Vec<_> = blocks.into_iter().map(BlockId).collect();
            prop_assert_eq!(all_below(&blocks, kv_blocks), blocks.iter().all(|it| it.0 < kv_blocks));
        }
    }

    #[test]
    fn accepts_prefill_and_decode_rows_side_by_side() {
        assert_eq!(check(&valid()), Ok(()));
    }

    #[rstest]
    #[case::foreign_token(|b: &mut StepBatch<'_>| b.tokens[0] = 999, "token 999")]
    #[case::missing_position(|b: &mut StepBatch<'_>| { b.positions.pop(); }, "2 positions for 3")]
    #[case::gap_between_sequences(|b: &mut StepBatch<'_>| b.sequences[1].rows = 1..3, "starts at row 1")]
    #[case::empty_sequence(|b: &mut StepBatch<'_>| b.sequences[0].rows = 0..0, "rows 0..0")]
    #[case::rows_left_over(|b: &mut StepBatch<'_>| { b.sequences.pop(); }, "end at row 2 of 3")]
    #[case::jump(|b: &mut StepBatch<'_>| b.positions[1] = 2, "positions")]
    #[case::context_too_short(|b: &mut StepBatch<'_>| b.sequences[0].context_tokens = 1, "positions")]
    #[case::too_long(|b: &mut StepBatch<'_>| b.sequences[1].context_tokens = 5000, "exceed")]
    #[case::too_few_blocks(|b: &mut StepBatch<'_>| { b.sequences[1].blocks.to_mut().pop(); }, "1 blocks for 6")]
    #[case::foreign_block(|b: &mut StepBatch<'_>| b.sequences[0].blocks.to_mut()[0] = BlockId(3), "block b3")]
    #[case::foreign_score_row(
        |b: &mut StepBatch<'_>| b.scores.push(ScoreRow { row: 3, next: 0, top: 0 }),
        "row 3 of 3"
    )]
    #[case::foreign_score_token(
        |b: &mut StepBatch<'_>| b.scores.push(ScoreRow { row: 0, next: 999, top: 0 }),
        "token 999 to score"
    )]
    fn refuses(#[case] break_it: fn(&mut StepBatch<'_>), #[case] want: &str) {
        let mut batch = valid();
        break_it(&mut batch);
        let error = check(&batch).unwrap_err();
        assert!(error.contains(want), "{error}");
    }

    #[test]
    fn refuses_a_sample_of_a_row_that_is_not_there() {
        let sampling = words::Sampling::greedy();
        let mut batch = valid();
        batch.samples.push(SampleRow {
            row: 7,
            sampling: &sampling,
            choice: 0,
            index: 0,
            prompt: &[],
            output: &[],
            banned: &[],
        });
        assert!(check(&batch).unwrap_err().contains("row 7 of 3"));
    }
}

use kv_cache::{BlockRef, BlockVersion, PageRange, TokenId};
use rstest::rstest;
use serde_json::{Value, json};
use words::Sampling;

use super::*;
use crate::backend::Choosing as _;
use crate::batch::{SampleRow, ScoreRow};
use crate::error::LogitsFault;
use crate::testing::{
    Part, dummy_model, logits_in_chunks, some_tokens, step_of, tiny_json, tiny_json_with, to_bits,
};

const VOCAB: u32 = 97;
const CONTEXT: usize = 45;

/// Enough blocks for three sequences of `CONTEXT` tokens.
fn options() -> ModelOptions {
    ModelOptions {
        kv_blocks: Some(48),
        block_tokens: 4,
        threads: Some(1),
        ..ModelOptions::default()
    }
}

fn blocks_from(first: u32) -> Vec<u32> {
    (first..first + CONTEXT.div_ceil(4) as u32).collect()
}

fn greedy_row<'a>(row: usize, sampling: &'a Sampling) -> SampleRow<'a> {
    SampleRow { row, sampling, choice: 0, index: 0, prompt: &[], output: &[], banned: &[] }
}

/// The next `count` tokens after a prefix whose KV is in `blocks`, without its last token's.
fn decode(
    model: &mut Model<CpuBackend>,
    prefix: &[TokenId],
    blocks: &[u32],
    count: usize,
) -> Vec<TokenId> {
    let greedy = Sampling::greedy();
    let mut tokens = prefix.to_vec();
    for _ in 0..count {
        let mut batch = step_of(&[Part { tokens: &tokens, from: tokens.len() - 1, blocks }]);
        batch.samples.push(greedy_row(0, &greedy));
        let output = model.step(&batch, &mut |_, _| ()).unwrap();
        tokens.push(output.samples[0].as_ref().unwrap().token);
    }
    tokens.split_off(prefix.len())
}

#[rstest]
#[case::llama(json!({}))]
#[case::fp32(json!({"torch_dtype": "float32"}))]
#[case::fp16(json!({"torch_dtype": "float16"}))]
#[case::odd_sizes(json!({"hidden_size": 50, "head_dim": 10, "intermediate_size": 37}))]
#[case::windowed(json!({"architectures": ["MistralForCausalLM"], "sliding_window": 7}))]
#[case::biased(json!({"architectures": ["Qwen2ForCausalLM"]}))]
#[case::normed(json!({"architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": true}))]
#[case::dynamic_rope(json!({
    "max_position_embeddings": 16,
    "rope_scaling": {"type": "dynamic", "factor": 4.0}
}))]
fn chunks_give_the_same_bits_as_the_whole_prompt(#[case] changes: Value) {
    let config = tiny_json_with(&changes);
    let tokens = some_tokens(1, CONTEXT, VOCAB);
    let mut model = dummy_model(&config, &options());
    let whole = logits_in_chunks(&mut model, &tokens, &blocks_from(0), &[CONTEXT]);
    let each: Vec<usize> = (1..=CONTEXT).collect();
    for ends in [&[1, 2, 20, CONTEXT][..], &[16, 32, CONTEXT], &[43, 44, CONTEXT], &each] {
        let chunked = logits_in_chunks(&mut model, &tokens, &blocks_from(12), ends);
        assert!(chunked == whole, "chunks ending at {ends:?} differ");
    }
}

#[test]
fn a_row_does_not_depend_on_its_neighbours() {
    let mut model = dummy_model(&tiny_json(), &options());
    let [a, b, c] = [1, 2, 3].map(|seed| some_tokens(seed, CONTEXT, VOCAB));
    let blocks = [0, 12, 24].map(blocks_from);
    let alone = logits_in_chunks(&mut model, &a, &blocks[0], &[CONTEXT]);
    logits_in_chunks(&mut model, &b, &blocks[1], &[CONTEXT - 1]);
    let batch = step_of(&[
        Part { tokens: &c[..30], from: 0, blocks: &blocks[2] },
        Part { tokens: &b, from: CONTEXT - 1, blocks: &blocks[1] },
        Part { tokens: &a, from: 0, blocks: &blocks[0] },
    ]);
    let rows: Vec<usize> = (31..31 + CONTEXT).collect();
    assert!(to_bits(&model.logits(&batch, &rows).unwrap()) == alone);
}

#[test]
fn rows_that_nothing_is_wanted_of_do_not_change_the_others() {
    let mut model = dummy_model(&tiny_json(), &options());
    let [a, b, c] = [1, 2, 3].map(|seed| some_tokens(seed, CONTEXT, VOCAB));
    let blocks = [0, 12, 24].map(blocks_from);
    let alone = logits_in_chunks(&mut model, &a, &blocks[0], &[CONTEXT]);
    let other = logits_in_chunks(&mut model, &c, &blocks[2], &[CONTEXT]);
    logits_in_chunks(&mut model, &c, &blocks[2], &[CONTEXT - 1]);

    // A prompt's last chunk, a chunk that isn't the last, a decode row.
    let batch = step_of(&[
        Part { tokens: &a, from: 0, blocks: &blocks[0] },
        Part { tokens: &b[..20], from: 0, blocks: &blocks[1] },
        Part { tokens: &c, from: CONTEXT - 1, blocks: &blocks[2] },
    ]);
    let wanted = [CONTEXT - 1, CONTEXT + 20];
    assert!(batch.kept_rows().is_some_and(|kept| kept.is_empty()), "nothing is wanted yet");
    let narrow = to_bits(&model.logits(&batch, &wanted).unwrap());
    let last = (CONTEXT - 1) * VOCAB as usize..;
    assert_eq!(narrow, [&alone[last.clone()], &other[last]].concat());

    // The chunk that wanted nothing has written all its keys and values.
    let rest = Part { tokens: &b, from: 20, blocks: &blocks[1] };
    let narrow = to_bits(&model.logits(&step_of(&[rest]), &[CONTEXT - 21]).unwrap());
    let whole = logits_in_chunks(&mut model, &b, &blocks[1], &[CONTEXT]);
    assert_eq!(narrow, whole[(CONTEXT - 1) * VOCAB as usize..]);
}

#[test]
fn threads_and_block_size_do_not_change_a_bit() {
    // Large enough that products, attention and norms are in fact shared.
    let config =
        tiny_json_with(&json!({"hidden_size": 192, "intermediate_size": 512, "vocab_size": 2000}));
    let tokens = some_tokens(5, 120, 2000);
    let run = |threads: usize, block_tokens: u32| {
        let options = ModelOptions {
            threads: Some(threads),
            block_tokens,
            kv_blocks: Some(32),
            ..ModelOptions::default()
        };
        let mut model = dummy_model(&config, &options);
        let blocks: Vec<u32> = (0..120u32.div_ceil(block_tokens)).rev().collect();
        logits_in_chunks(&mut model, &tokens, &blocks, &[100, 119, 120])
    };
    let one = run(1, 16);
    assert!(run(2, 16) == one, "2 threads");
    assert!(run(3, 16) == one, "3 threads");
    assert!(run(2, 5) == one, "blocks of 5");
}

#[test]
fn pages_moved_to_another_model_continue_with_the_same_tokens() {
    let [mut here, mut there] = [(); 2].map(|()| dummy_model(&tiny_json(), &options()));
    let prompt = some_tokens(9, 30, VOCAB);
    let (from, to) = (blocks_from(0), blocks_from(20));
    logits_in_chunks(&mut here, &prompt, &from, &[29]);
    let refs = |blocks: &[u32]| -> Vec<BlockRef> {
        blocks.iter().map(|&b| BlockRef { block: BlockId(b), version: BlockVersion(0) }).collect()
    };
    let (from_refs, to_refs) = (refs(&from[..8]), refs(&to[..8]));
    let pages = PageRange { layers: 0..2, blocks: &from_refs };
    let mut bytes = vec![0; pages.pages() * here.layout().page_bytes()];
    here.region().gather(&pages, Fence::default(), &mut bytes).unwrap();
    there.region().scatter(&PageRange { layers: 0..2, blocks: &to_refs }, &bytes).unwrap();
    let want = decode(&mut here, &prompt, &from, 12);
    assert_eq!(decode(&mut there, &prompt, &to, 12), want);
    assert!(
        want.iter().any(|&token| token != want[0]),
        "a constant output proves nothing: {want:?}"
    );
}

#[test]
fn a_copied_block_serves_a_second_sequence() {
    let mut model = dummy_model(&tiny_json(), &options());
    let prompt = some_tokens(9, 10, VOCAB);
    logits_in_chunks(&mut model, &prompt, &blocks_from(0), &[9]);
    for block in 0..3 {
        model.copy_block(BlockId(block), BlockId(30 + block)).unwrap();
    }
    let want = decode(&mut model, &prompt, &blocks_from(0), 6);
    assert_eq!(decode(&mut model, &prompt, &blocks_from(30), 6), want);
    assert!(model.copy_block(BlockId(48), BlockId(0)).is_err());
}

#[rstest]
#[case(1, &[(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)])]
#[case(2, &[(0, 2), (2, 4), (4, 5)])]
#[case(9, &[(0, 5)])]
fn layer_groups_are_reported_once_written(#[case] layer_group: u32, #[case] want: &[(u32, u32)]) {
    let options = ModelOptions { layer_group, ..options() };
    let mut model = dummy_model(&tiny_json_with(&json!({"num_hidden_layers": 5})), &options);
    let tokens = some_tokens(1, 4, VOCAB);
    let (region, layout) = (model.region(), model.layout().clone());
    let blocks = [BlockRef { block: BlockId(3), version: BlockVersion(0) }];
    let mut reports = Vec::new();
    let batch = step_of(&[Part { tokens: &tokens, from: 0, blocks: &[3] }]);
    let seen = |layers: Range<u32>, fence| {
        let pages = PageRange { layers, blocks: &blocks };
        let mut bytes = vec![0; pages.pages() * layout.page_bytes()];
        region.gather(&pages, fence, &mut bytes).unwrap();
        bytes
    };
    model
        .step(&batch, &mut |layers, fence| reports.push((layers.clone(), seen(layers, fence))))
        .unwrap();
    let ranges: Vec<_> = reports.iter().map(|(layers, _)| (layers.start, layers.end)).collect();
    assert_eq!(ranges, want);
    for (layers, bytes) in reports {
        assert!(
            bytes.iter().any(|&byte| byte != 0),
            "{layers:?} was reported before it was written"
        );
        assert_eq!(bytes, seen(layers, Fence::default()), "written again after the report");
    }
}

#[test]
fn a_window_hides_what_lies_before_it() {
    let config = tiny_json_with(&json!({
        "architectures": ["MistralForCausalLM"], "sliding_window": 6, "num_hidden_layers": 1
    }));
    let mut model = dummy_model(&config, &options());
    let tokens = some_tokens(1, 20, VOCAB);
    let last = |model: &mut Model<CpuBackend>, changed: usize| {
        let mut tokens = tokens.clone();
        tokens[changed] = (tokens[changed] + 1) % VOCAB;
        let batch = step_of(&[Part { tokens: &tokens, from: 0, blocks: &blocks_from(0) }]);
        to_bits(&model.logits(&batch, &[18]).unwrap())
    };
    let plain = last(&mut model, 19);
    // Position 18 sees 13..=18.
    assert_eq!(last(&mut model, 12), plain);
    assert_ne!(last(&mut model, 13), plain);
}

#[test]
fn samples_and_scores_come_back_in_the_order_asked() {
    let mut model = dummy_model(&tiny_json(), &options());
    let tokens = some_tokens(1, 20, VOCAB);
    let greedy = Sampling { logprobs: Some(3), ..Sampling::greedy() };
    let mut batch = step_of(&[Part { tokens: &tokens, from: 0, blocks: &blocks_from(0) }]);
    let rows = [19, 3, 19, 0];
    batch.samples = rows.map(|row| greedy_row(row, &greedy)).to_vec();
    batch.scores =
        (0..19).rev().map(|row| ScoreRow { row, next: tokens[row + 1], top: 2 }).collect();
    let output = model.step(&batch, &mut |_, _| ()).unwrap();
    for (row, sampled) in rows.into_iter().zip(&output.samples) {
        let logits = model.logits(&batch, &[row]).unwrap();
        let want = crate::sampler::sample(&logits, &greedy_row(row, &greedy)).unwrap();
        let sampled = sampled.as_ref().unwrap();
        assert_eq!((sampled.token, &sampled.logprob), (want.token, &want.logprob));
    }
    let token = |at: usize| output.samples[at].as_ref().unwrap().token;
    assert_eq!(token(0), token(2));
    for (score, logprob) in batch.scores.iter().zip(&output.scores) {
        let logits = model.logits(&batch, &[score.row]).unwrap();
        assert_eq!(*logprob, crate::sampler::score(&logits, score));
    }
}

#[test]
fn more_scores_than_one_group_of_logits_holds() {
    let mut model = dummy_model(&tiny_json(), &ModelOptions { kv_blocks: Some(64), ..options() });
    let tokens = some_tokens(1, 200, VOCAB);
    let blocks: Vec<u32> = (0..50).collect();
    let mut batch = step_of(&[Part { tokens: &tokens, from: 0, blocks: &blocks }]);
    batch.scores = (0..199).map(|row| ScoreRow { row, next: tokens[row + 1], top: 0 }).collect();
    let output = model.step(&batch, &mut |_, _| ()).unwrap();
    assert!(output.scores.len() > CpuBackend::LOGIT_ROWS_MAX);
    let logits = model.logits(&batch, &[198]).unwrap();
    assert_eq!(output.scores[198], crate::sampler::score(&logits, &batch.scores[198]));
}

#[test]
fn a_damaged_block_blames_the_row_of_its_sequence() {
    let config = tiny_json_with(&json!({"torch_dtype": "float32"}));
    let mut model = dummy_model(&config, &options());
    let tokens = some_tokens(1, 5, VOCAB);
    let (good, bad) = (blocks_from(0), blocks_from(12));
    for blocks in [&good, &bad] {
        logits_in_chunks(&mut model, &tokens, blocks, &[4]);
    }
    let blocks = [BlockRef { block: BlockId(bad[0]), version: BlockVersion(0) }];
    let nan: Vec<u8> = f32::NAN.to_le_bytes().repeat(model.layout().page_bytes() / 4);
    model.region().scatter(&PageRange { layers: 0..1, blocks: &blocks }, &nan).unwrap();
    let greedy = Sampling::greedy();
    let mut batch = step_of(&[
        Part { tokens: &tokens, from: 4, blocks: &good },
        Part { tokens: &tokens, from: 4, blocks: &bad },
    ]);
    batch.samples = vec![greedy_row(0, &greedy), greedy_row(1, &greedy)];
    let output = model.step(&batch, &mut |_, _| ()).unwrap();
    assert!(output.samples[0].is_ok(), "the other row is fine");
    assert_eq!(output.samples[1].as_ref().unwrap_err(), &LogitsFault::NotFinite);
}

#[test]
fn the_fingerprint_tells_models_apart_and_ignores_the_pool() {
    let plain = dummy_model(&tiny_json(), &options());
    let larger = dummy_model(&tiny_json(), &ModelOptions { kv_blocks: Some(64), ..options() });
    let other = dummy_model(&tiny_json_with(&json!({"rope_theta": 500.0})), &options());
    assert_eq!(plain.fingerprint(), larger.fingerprint());
    assert_ne!(plain.fingerprint(), other.fingerprint());
    assert_eq!(plain.fingerprint().len(), 32);
}

#[test]
fn an_empty_batch_does_nothing() {
    let mut model = dummy_model(&tiny_json(), &options());
    let output =
        model.step(&StepBatch::default(), &mut |_, _| panic!("nothing was written")).unwrap();
    assert!(output.samples.is_empty() && output.scores.is_empty());
}

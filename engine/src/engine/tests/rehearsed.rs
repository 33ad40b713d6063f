//! What an engine does before anybody asks.

use kv_cache::BlockId;

use super::*;
use crate::engine::rehearsal::{GPU_SCENES, Scene, Stage, cpu_scenes, rehearse};

/// Rehearses on a model that checks all it is given, and takes 10 us a row; with its steps.
fn rehearsed(stage: &Stage, scenes: &[Scene]) -> (Meter, u64) {
    let control = Arc::<Control>::default();
    control.take_a_row(Duration::from_micros(10));
    let block_tokens = stage.limits.block_tokens;
    let mut model = ScriptModel::new(stage.blocks, block_tokens, true, Arc::clone(&control));
    let meter = rehearse(&mut model, stage, scenes, Meter::new(StepSeed::GPU));
    (meter.expect("steps that can be computed"), control.steps())
}

fn stage(tokens_max: u32, sequences_max: u32, blocks: u32) -> Stage {
    let limits = BatchLimits {
        tokens_max,
        sequences_max,
        block_tokens: 16,
        watermark_blocks: 1,
        wanted_blocks: 0,
    };
    let repeat_within = Duration::ZERO;
    Stage { limits, blocks, context_tokens_max: 4096, warm_ups: 2, repeat_within }
}

#[test]
fn a_gpu_knows_how_fast_it_is() {
    let (meter, steps) = rehearsed(&stage(8448, 256, 400), &GPU_SCENES);
    assert_eq!(steps, 3 * 8);
    assert!((1e4..1e5).contains(&meter.stats.prefill_tokens_per_s), "{:?}", meter.stats);
    assert!(meter.stats.decode_step_s > 0.0);
}

/// Of the scenes, three have no prompt, and three have one of 512 tokens at most.
#[rstest]
#[case::short_steps(stage(600, 256, 400), 6)]
#[case::few_sequences(stage(8448, 8, 400), 5)]
#[case::hardly_any_memory(stage(8448, 256, 1), 1)]
#[case::short_contexts(Stage { context_tokens_max: 200, ..stage(8448, 256, 400) }, 4)]
fn what_there_is_no_room_for_is_left_out(#[case] stage: Stage, #[case] scenes: u64) {
    assert_eq!(rehearsed(&stage, &GPU_SCENES).1, 3 * scenes);
}

#[rstest]
fn a_cpu_rehearses_a_block(#[values(1, 16)] block_tokens: u32) {
    let stage = stage(300, 8, 16);
    let limits = BatchLimits { block_tokens, ..stage.limits };
    let (meter, steps) =
        rehearsed(&Stage { limits, warm_ups: 1, ..stage }, &cpu_scenes(block_tokens));
    assert_eq!(steps, 2 * 2);
    assert!(meter.stats.decode_step_s > 0.0);
}

/// A model whose steps take so many milliseconds, one after the other, and then 9.
struct Disturbed(ScriptModel, std::vec::IntoIter<u64>);

impl StepModel for Disturbed {
    type Ticket = StepOutput;

    fn overlaps(&self) -> bool {
        false
    }

    fn expects_others(&self) -> bool {
        false
    }

    fn submit(
        &mut self,
        batch: &StepBatch<'_>,
        on_layers: &mut OnLayers<'_>,
    ) -> Result<StepOutput, EngineError> {
        let took = Some(Duration::from_millis(self.1.next().unwrap_or(9)));
        Ok(StepOutput { took, ..self.0.submit(batch, on_layers)? })
    }

    fn is_done(&self, _ticket: &StepOutput) -> bool {
        true
    }

    fn collect(&mut self, ticket: StepOutput) -> Result<StepOutput, EngineError> {
        self.0.collect(ticket)
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) -> Result<(), EngineError> {
        self.0.copy_block(from, to)
    }
}

/// The first step isn't measured. 16 tokens in 2 ms are 8,000 a second.
#[rstest]
#[case::once(0, 1_000.0)]
#[case::for_some_time(3_600, 8_000.0)]
fn others_on_the_machine_do_not_make_a_model_slow(#[case] seconds: u64, #[case] want: f64) {
    let script = ScriptModel::new(16, 16, true, Arc::default());
    let mut model = Disturbed(script, vec![50, 16, 7, 2, 30, 4].into_iter());
    let repeat_within = Duration::from_secs(seconds);
    let stage = Stage { warm_ups: 1, repeat_within, ..stage(300, 8, 16) };
    let meter = rehearse(&mut model, &stage, &cpu_scenes(16), Meter::new(StepSeed::CPU));
    let rate = meter.expect("steps that can be computed").stats.prefill_tokens_per_s;
    assert!((rate - want).abs() < 1.0, "{rate}");
}

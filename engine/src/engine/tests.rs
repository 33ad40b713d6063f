//! The loop over a scripted model: every batch is checked against the tokens it stands for.

mod ahead;
mod driven;
mod ends;
mod readers;
mod rehearsed;
mod script;
mod tiers;
mod transcript;
mod workloads;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kv_cache::TokenId;
use rstest::rstest;
use words::{
    ClientId, FinishReason, Generation, RequestId, Sampling, StopRules, Targets, TenantSalt,
};

use self::script::{Control, EOS, Fault, POISON, ScriptKv, ScriptModel, VOCAB, layout};
use self::transcript::{Transcript, expected, within};
use super::*;
use crate::handle::{EventStream, Mode, SequenceError, Submission, SubmitError};

/// An engine over a scripted model, and the strings it hangs on.
struct Bench {
    engine: EngineHandle,
    control: Arc<Control>,
    kv: Arc<ScriptKv>,
}

/// The sizes of a bench.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    blocks: u32,
    block_tokens: u32,
    batch_tokens: u32,
    sequences: u32,
    prefix_cache: bool,
    /// Whether the next step is submitted while one is in flight.
    overlaps: bool,
    /// Of the host, below those of the device.
    host_blocks: u32,
}

// === impl Sizes ===

impl Default for Sizes {
    fn default() -> Self {
        Self {
            blocks: 64,
            block_tokens: 4,
            batch_tokens: 16,
            sequences: 8,
            prefix_cache: true,
            overlaps: false,
            host_blocks: 0,
        }
    }
}

impl Sizes {
    /// What an engine of these sizes is told.
    fn settings(self) -> (EngineInfo, EngineConfig) {
        let config = EngineConfig {
            model_dir: PathBuf::new(),
            model: ModelOptions {
                kv_blocks: Some(self.blocks),
                block_tokens: self.block_tokens,
                ..ModelOptions::default()
            },
            batch_tokens_max: self.batch_tokens.max(self.sequences + self.block_tokens),
            sequences_max: self.sequences,
            queue_max: 32,
            context_tokens_max: None,
            targets: Targets::default(),
            prefix_cache: self.prefix_cache,
            tiers: TierOptions { host_bytes: self.host_bytes(), disk: None },
        };
        config.validate().expect("a valid configuration");
        let info = EngineInfo {
            fingerprint: "script".to_owned(),
            layout: layout(self.block_tokens),
            vocab_size: VOCAB,
            context_tokens_max: self.blocks * self.block_tokens,
            total_blocks: self.blocks,
            block_tokens: self.block_tokens,
            eos_token_ids: vec![EOS],
            queue_max: config.queue_max,
            sequences_max: config.sequences_max,
            prefix_cache: config.prefix_cache,
        };
        (info, config)
    }

    fn host_bytes(self) -> u64 {
        let layout = layout(self.block_tokens);
        u64::from(self.host_blocks * layout.layers()) * layout.page_bytes() as u64
    }
}

// === impl Bench ===

impl Bench {
    fn new(sizes: Sizes) -> Self {
        let control = Arc::<Control>::default();
        let model = ScriptModel::new(
            sizes.blocks,
            sizes.block_tokens,
            sizes.overlaps,
            Arc::clone(&control),
        );
        let (info, config) = sizes.settings();
        let kv = model.kv();
        let engine = spawn(model, info, kv.clone(), &config, Meter::new(StepSeed::GPU));
        Self { engine: engine.expect("a thread"), control, kv }
    }

    fn submit(&self, work: &Arc<Generation>, mode: Mode) -> EventStream {
        let work = Arc::clone(work);
        self.engine.submit(Submission::new(work, mode)).expect("a submission that is taken")
    }

    async fn generate(&self, work: &Arc<Generation>) -> Transcript {
        Transcript::of(self.submit(work, Mode::Generate)).await
    }

    async fn wait_for(&self, what: &str, holds: impl Fn(&EngineHandle) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds(&self.engine) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.engine.stats());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until nothing is left, and checks that nothing was lost.
    async fn settle(&self) {
        self.wait_for("idle", |engine| {
            let stats = engine.stats();
            stats.running + stats.waiting == 0
                && engine.pool().counts().active == 0
                && engine.live_blocks().is_empty()
        })
        .await;
        assert_eq!(self.engine.pool().counts().reserved, 0);
        assert_eq!(self.engine.pool().audit(), Ok(()));
    }
}

fn work(prompt: &[TokenId], max_tokens: u32) -> Generation {
    Generation {
        id: RequestId("test".into()),
        prompt: prompt.into(),
        generated: Arc::new([]),
        choices: vec![0],
        sampling: Sampling { seed: 11, ..Sampling::default() },
        stop: StopRules { max_tokens, ignore_eos: true, ..StopRules::default() },
        prompt_logprobs: None,
        salt: TenantSalt::default(),
        client: ClientId::default(),
        targets: Targets::default(),
    }
}

fn some_prompt(tokens: u32) -> Vec<TokenId> {
    (0..tokens).map(|at| 1 + at * 7 % (POISON - 1)).collect()
}

#[rstest]
#[case::one_token(1, 5)]
#[case::a_block_less_one(3, 5)]
#[case::a_block(4, 5)]
#[case::a_block_and_one(5, 5)]
#[case::several_chunks(70, 20)]
#[tokio::test]
async fn tokens_follow_the_context(#[case] prompt_tokens: u32, #[case] max_tokens: u32) {
    let bench = Bench::new(Sizes::default());
    let work = Arc::new(work(&some_prompt(prompt_tokens), max_tokens));
    assert_eq!(bench.generate(&work).await.answers, expected(&work));
    bench.settle().await;
}

#[tokio::test]
async fn a_long_prompt_leaves_a_stream_its_pace() {
    let sizes = Sizes { blocks: 1024, batch_tokens: 2048, ..Sizes::default() };
    let bench = Bench::new(sizes);
    bench.control.take_a_row(Duration::from_micros(200));
    let targets = Targets { itl: Some(Duration::from_millis(20)), ..Targets::default() };
    let stream = Arc::new(Generation { targets, ..work(&some_prompt(5), 2_400) });
    // Read all the while: a stream that nobody reads waits, and is in no hurry.
    let mut reader = tokio::task::JoinSet::new();
    reader.spawn(Transcript::of(bench.submit(&stream, Mode::Generate)));
    bench.wait_for("tokens", |engine| engine.stats().decode_tokens > 20).await;
    let long = Arc::new(work(&some_prompt(1500), 3));
    assert_eq!(bench.generate(&long).await.answers, expected(&long));
    // 20 ms are a hundred rows; what longer steps take has to be seen.
    let largest = bench.control.largest_step();
    assert!(largest <= 256, "{largest} tokens in 20 ms");
    assert_eq!(bench.engine.stats().running, 1, "the stream has ended before");
    reader.shutdown().await;
    bench.settle().await;
}

#[tokio::test]
async fn steps_are_short_while_others_work_on_the_device() {
    let sizes = Sizes { blocks: 1024, batch_tokens: 2048, overlaps: true, ..Sizes::default() };
    let bench = Bench::new(sizes);
    bench.control.share(true);
    bench.control.take_a_row(Duration::from_micros(20));
    let work = Arc::new(work(&some_prompt(1500), 30));
    assert_eq!(bench.generate(&work).await.answers, expected(&work));
    // 12 ms of a GPU that was measured elsewhere, and of this one once it is known.
    let largest = bench.control.largest_step();
    assert!((16..700).contains(&largest), "{largest} tokens");
    bench.control.share(false);
    let other =
        Arc::new(Generation { salt: TenantSalt(Arc::from(&b"other"[..])), ..(*work).clone() });
    assert_eq!(bench.generate(&other).await.answers, expected(&other));
    assert_eq!(bench.control.largest_step(), 1500);
    bench.settle().await;
}

/// Steps that overlap and steps that don't follow each other in any order.
#[tokio::test]
async fn others_come_and_go() {
    let bench = Bench::new(Sizes { blocks: 256, overlaps: true, ..Sizes::default() });
    let works: Vec<_> = (1..=6).map(|n| Arc::new(work(&some_prompt(9 * n), 60))).collect();
    let control = Arc::clone(&bench.control);
    let mut toggling = tokio::task::JoinSet::new();
    toggling.spawn(async move {
        for turn in 0_u32.. {
            control.share(turn.is_multiple_of(2));
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
    });
    let streams: Vec<_> = works.iter().map(|work| bench.submit(work, Mode::Generate)).collect();
    for (work, stream) in works.iter().zip(streams) {
        assert_eq!(Transcript::of(stream).await.answers, expected(work));
    }
    toggling.abort_all();
    bench.settle().await;
}

#[tokio::test]
async fn choices_share_the_prompt_and_nothing_else() {
    let bench = Bench::new(Sizes::default());
    let mut of_three = work(&some_prompt(10), 9);
    of_three.choices = vec![2, 0, 5];
    let three = bench.generate(&Arc::new(of_three.clone())).await;
    let prefill_tokens = bench.engine.stats().prefill_tokens;
    assert_eq!(prefill_tokens, 10, "the prompt is computed once");
    for choice in [0, 2, 5] {
        let one = Generation { choices: vec![choice], ..of_three.clone() };
        let alone = bench.generate(&Arc::new(one)).await;
        assert_eq!(alone.answers[&choice], three.answers[&choice]);
    }
    bench.settle().await;
}

#[tokio::test]
async fn prompt_scores_come_once_and_in_order_whatever_the_cache_holds() {
    let bench = Bench::new(Sizes::default());
    let mut work = work(&some_prompt(41), 3);
    bench.generate(&Arc::new(work.clone())).await;
    work.prompt_logprobs = Some(2);
    let transcript = bench.generate(&Arc::new(work.clone())).await;
    let scores: Vec<_> = (1..41u32)
        .map(|index| {
            let (context, next) = (&work.prompt[..index as usize], work.prompt[index as usize]);
            (index, script::score_of(context, next, 2))
        })
        .collect();
    assert_eq!(transcript.scores, scores);
    assert_eq!(transcript.cached_tokens, Some(0));
    bench.settle().await;
}

#[tokio::test]
async fn a_cached_prefix_changes_nothing_but_the_work() {
    let bench = Bench::new(Sizes::default());
    let first = Arc::new(work(&some_prompt(40), 3));
    bench.generate(&first).await;
    let before = bench.control.steps();
    let again = bench.generate(&first).await;
    assert_eq!(again.answers, expected(&first));
    assert_eq!(again.cached_tokens, Some(39), "the last token is computed again for its logits");
    assert_eq!(bench.control.steps() - before, 3);
    let other_tenant = Generation { salt: TenantSalt((*b"other").into()), ..(*first).clone() };
    assert_eq!(bench.generate(&Arc::new(other_tenant)).await.cached_tokens, Some(0));
    bench.settle().await;
}

#[tokio::test]
async fn output_is_cached_too() {
    let bench = Bench::new(Sizes::default());
    let first = Arc::new(work(&some_prompt(10), 30));
    let (tokens, _) = &bench.generate(&first).await.answers[&0];
    let next_turn = [&first.prompt[..], tokens, &[5, 6]].concat();
    let second = bench.generate(&Arc::new(work(&next_turn, 2))).await;
    // The last token of the first turn was never written.
    assert_eq!(second.cached_tokens, Some(36));
    bench.settle().await;
}

#[tokio::test]
async fn decode_rows_are_never_held_up_by_a_long_prompt() {
    let bench = Bench::new(Sizes { blocks: 200, ..Sizes::default() });
    bench.control.hold();
    let short = bench.submit(&Arc::new(work(&some_prompt(3), 20)), Mode::Generate);
    bench.control.allow(1);
    bench.wait_for("first token", |engine| engine.stats().steps == 1).await;
    let long = bench.submit(&Arc::new(work(&some_prompt(400), 1)), Mode::Generate);
    bench.control.allow(19);
    // A token in every step, though the long prompt takes some 33 of them.
    assert_eq!(Transcript::of(short).await.answers[&0].0.len(), 20);
    bench.control.release();
    Transcript::of(long).await;
    assert!(bench.control.largest_step() <= 16);
    bench.settle().await;
}

#[tokio::test]
async fn dropping_the_stream_frees_everything_within_a_step() {
    let bench = Bench::new(Sizes::default());
    bench.control.hold();
    let streams: Vec<_> = [3, 60, 9]
        .map(|prompt| bench.submit(&Arc::new(work(&some_prompt(prompt), 100)), Mode::Generate))
        .into();
    drop(streams);
    let before = bench.control.steps();
    bench.control.release();
    bench.settle().await;
    assert!(bench.control.steps() - before <= 1);
    assert_eq!(bench.engine.stats().cancelled, 3);
}

#[tokio::test]
async fn a_deadline_fails_what_runs_and_what_waits() {
    let bench = Bench::new(Sizes::default());
    bench.control.hold();
    let work = Arc::new(work(&some_prompt(30), 100));
    let soon = Instant::now() + Duration::from_millis(5);
    let late = Submission::new(work, Mode::Generate).by(soon);
    let stream = bench.engine.submit(late).expect("a submission that is taken");
    tokio::time::sleep(Duration::from_millis(6)).await;
    bench.control.release();
    assert_eq!(Transcript::of(stream).await.failed, Some(SequenceError::Deadline));
    bench.settle().await;
}

#[tokio::test]
async fn a_device_error_fails_its_step_and_the_engine_goes_on() {
    let bench = Bench::new(Sizes::default());
    bench.control.break_after(3, Fault::Device);
    let work = Arc::new(work(&some_prompt(5), 50));
    let broken = bench.generate(&work).await;
    assert_eq!(broken.failed, Some(SequenceError::Device("device: scripted".to_owned())));
    assert_eq!(bench.generate(&work).await.answers, expected(&work));
    assert!(bench.engine.is_healthy());
    bench.settle().await;
}

#[tokio::test]
async fn impossible_logits_fail_their_own_request_alone() {
    let bench = Bench::new(Sizes::default());
    bench.control.hold();
    let poisoned = Arc::new(work(&[3, 4, POISON], 10));
    let fine = Arc::new(work(&some_prompt(5), 20));
    let streams = [&poisoned, &fine].map(|work| bench.submit(work, Mode::Generate));
    bench.control.release();
    let [poisoned, other] = streams.map(Transcript::of);
    assert_eq!(poisoned.await.failed, Some(SequenceError::NotFinite));
    assert_eq!(other.await.answers, expected(&fine));
    bench.settle().await;
}

/// Blocks of earlier chunks are found by others before the prompt ends: until it turns out what it ends in.
#[tokio::test]
async fn what_led_to_no_numbers_is_not_found_again() {
    let bench = Bench::new(Sizes::default());
    let shared = some_prompt(12);
    let fine = Arc::new(work(&shared, 3));
    assert_eq!(bench.generate(&fine).await.answers, expected(&fine));
    let cached =
        |prompt: &[TokenId]| bench.engine.cached_prefix(prompt, &TenantSalt::default()).tokens();
    // Three chunks, the first of which begins with what is cached already.
    let prompt = [&shared[..], &some_prompt(30)[..], &[POISON]].concat();
    assert_eq!(cached(&prompt), 12);
    let poisoned = Arc::new(work(&prompt, 10));
    assert_eq!(bench.generate(&poisoned).await.failed, Some(SequenceError::NotFinite));
    assert_eq!(cached(&prompt), 0, "neither what it computed nor what it had found");
    assert_eq!(bench.engine.stats().miscomputed, 1);
    assert_eq!(bench.generate(&fine).await.answers, expected(&fine));
    bench.settle().await;
}

#[tokio::test]
async fn a_panic_leaves_nobody_waiting() {
    let bench = Bench::new(Sizes { sequences: 2, ..Sizes::default() });
    bench.control.break_after(2, Fault::Panic);
    bench.control.hold();
    let works = [5, 6, 7].map(|prompt| Arc::new(work(&some_prompt(prompt), 50)));
    let streams = works.each_ref().map(|work| bench.submit(work, Mode::Generate));
    bench.control.release();
    for stream in streams {
        let failed = Transcript::of(stream).await.failed;
        assert_eq!(failed, Some(SequenceError::Died("scripted panic".to_owned())));
    }
    assert!(!bench.engine.is_healthy());
    let refused = bench.engine.submit(Submission::new(Arc::clone(&works[0]), Mode::Generate));
    assert_eq!(refused.err(), Some(SubmitError::ShuttingDown));
    bench.settle().await;
}

#[tokio::test]
async fn a_full_queue_refuses_and_says_when_to_come_back() {
    let bench = Bench::new(Sizes { sequences: 1, ..Sizes::default() });
    bench.control.hold();
    let work = Arc::new(work(&some_prompt(5), 5));
    let first = bench.submit(&work, Mode::Generate);
    let submit = || {
        let work = Arc::clone(&work);
        bench.engine.submit(Submission::new(work, Mode::Generate))
    };
    let mut streams = vec![first];
    let refused = loop {
        match submit() {
            Ok(stream) => streams.push(stream),
            Err(error) => break error,
        }
        assert!(streams.len() < 40, "the queue has no end");
    };
    assert!(
        matches!(refused, SubmitError::QueueFull { retry_after } if retry_after > Duration::ZERO)
    );
    bench.control.release();
    for stream in streams {
        assert_eq!(Transcript::of(stream).await.answers, expected(&work));
    }
    bench.settle().await;
}

#[rstest]
#[case::no_prompt(|w: &mut Generation| w.prompt = Arc::new([]), "prompt is empty")]
#[case::no_choice(|w: &mut Generation| w.choices.clear(), "no choice")]
#[case::too_many_choices(|w: &mut Generation| w.choices = (0..9).collect(), "9 choices")]
#[case::a_choice_twice(|w: &mut Generation| w.choices = vec![1, 1], "twice")]
#[case::foreign_token(|w: &mut Generation| w.prompt = Arc::new([1, 99]), "token 99")]
#[case::shared_output(|w: &mut Generation| {
    w.choices = vec![0, 1];
    w.generated = Arc::new([3]);
}, "2 choices")]
#[case::too_long(|w: &mut Generation| w.prompt = some_prompt(256).into(), "257 tokens")]
#[tokio::test]
async fn bad_requests_are_refused_at_once(
    #[case] break_it: fn(&mut Generation),
    #[case] want: &str,
) {
    let bench = Bench::new(Sizes::default());
    let mut work = work(&some_prompt(5), 5);
    break_it(&mut work);
    let refused = bench.engine.submit(Submission::new(Arc::new(work), Mode::Generate));
    let error = refused.expect_err("a refusal").to_string();
    assert!(error.contains(want), "{error}");
    assert_eq!(bench.engine.stats().waiting, 0);
}

#[tokio::test]
async fn a_prompt_that_fills_the_context_can_be_scored_but_not_continued() {
    let bench = Bench::new(Sizes::default());
    let mut full = work(&some_prompt(256), 0);
    full.prompt_logprobs = Some(0);
    let transcript = bench.generate(&Arc::new(full)).await;
    assert_eq!(transcript.scores.len(), 255);
    assert_eq!(transcript.answers[&0], (vec![], FinishReason::Length));
    bench.settle().await;
}

#[tokio::test]
async fn shutdown_lets_work_finish_and_takes_no_more() {
    let bench = Bench::new(Sizes::default());
    let work = Arc::new(work(&some_prompt(5), 20));
    let stream = bench.submit(&work, Mode::Generate);
    assert!(bench.engine.shutdown(Instant::now() + Duration::from_secs(20)).await);
    assert_eq!(Transcript::of(stream).await.answers, expected(&work));
    let late = Submission::new(work, Mode::Generate);
    assert_eq!(bench.engine.submit(late).err(), Some(SubmitError::ShuttingDown));
}

#[tokio::test]
async fn shutdown_fails_what_is_not_done_by_its_deadline() {
    let bench = Bench::new(Sizes::default());
    let stalled = bench.submit(&Arc::new(work(&some_prompt(5), 250)), Mode::Generate);
    bench.wait_for("pause", |engine| engine.stats().paused == 1).await;
    assert!(bench.engine.shutdown(Instant::now() + Duration::from_millis(10)).await);
    assert_eq!(Transcript::of(stalled).await.failed, Some(SequenceError::ShuttingDown));
    assert_eq!(bench.engine.pool().counts().active, 0);
}

#[tokio::test]
async fn dropping_the_last_handle_stops_the_engine() {
    let Bench { engine, control, .. } = Bench::new(Sizes::default());
    let work = Arc::new(work(&some_prompt(5), 250));
    let submission = Submission::new(work, Mode::Generate);
    let stream = engine.submit(submission).expect("a submission that is taken");
    drop(engine);
    assert!(Transcript::of(stream).await.failed.is_some());
    assert_eq!(Arc::strong_count(&control), 1, "the model is gone with its thread");
}

#[rstest]
#[case::batch(|c: &mut EngineConfig| c.batch_tokens_max = 11, "batch_tokens_max")]
#[case::no_memory(|c: &mut EngineConfig| c.model.kv_blocks = Some(0), "kv_blocks")]
#[case::no_queue(|c: &mut EngineConfig| c.queue_max = 0, "queue_max")]
fn limits_that_cannot_work_are_refused(#[case] set: fn(&mut EngineConfig), #[case] field: &str) {
    let mut config = EngineConfig {
        model_dir: PathBuf::new(),
        model: ModelOptions { block_tokens: 4, ..ModelOptions::default() },
        batch_tokens_max: 12,
        sequences_max: 8,
        queue_max: 1,
        context_tokens_max: None,
        targets: Targets::default(),
        prefix_cache: true,
        tiers: TierOptions::default(),
    };
    assert_eq!(config.validate(), Ok(()));
    set(&mut config);
    let error = config.validate().unwrap_err().to_string();
    assert!(error.contains(field), "{error}");
}

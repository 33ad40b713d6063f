//! When the next step is planned, on a device that works on its own in the test's time.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use kv_cache::BlockId;
use parking_lot::Mutex;
use scheduler::cost::{StepShape, StepTimes};
use tokio::sync::Notify;

use super::*;
use crate::batch::SequenceRows;
use crate::clock;

/// How long it takes to submit a step, with prompts and without.
const SUBMIT_PROMPTS: Duration = Duration::from_micros(1900);
const SUBMIT_DECODES: Duration = Duration::from_micros(200);
/// How long it takes to see whether a step has ended.
const LOOK: Duration = Duration::from_micros(50);

/// A prompt comes with every so many steps, until there were enough.
const STEPS_BETWEEN: u64 = 6;
const STEPS: u64 = 72;
/// Steps until it is known what submitting costs.
const FIRST_STEPS: usize = 12;

/// A scripted model on such a device, which takes as long for a step as is forecast.
struct Device {
    script: ScriptModel,
    times: StepTimes,
    /// When it has done what was submitted.
    ends: Instant,
    submitted: Arc<Mutex<Vec<Submitted>>>,
    /// The step whose submission takes longer than that of any other, by so much.
    held_up: Option<(u64, Duration)>,
    /// Whether no others take turns with it.
    overlaps: bool,
    clients: Clients,
}

/// A step that was submitted while another was in flight.
#[derive(Clone, Copy, Debug)]
struct Submitted {
    prompts: bool,
    /// Before the end of the one in flight, microseconds.
    early_us: i64,
}

/// Those who ask, and keep what they are told.
struct Clients {
    engine: Option<EngineHandle>,
    streams: Vec<EventStream>,
    steps: u64,
}

// === impl Clients ===

impl Clients {
    /// Lets somebody come with every so many steps, and all leave at last.
    fn note_step(&mut self) {
        self.steps += 1;
        if self.steps > STEPS {
            self.engine = None;
        } else if let Some(engine) = self.engine.as_ref().filter(|_| self.is_time()) {
            let work = work(&some_prompt(12), 9);
            let submission = Submission::new(Arc::new(work), Mode::Generate);
            self.streams.push(engine.submit(submission).expect("room for it"));
        }
    }

    fn is_time(&self) -> bool {
        self.steps.is_multiple_of(STEPS_BETWEEN)
    }
}

// === impl Device ===

impl StepModel for Device {
    type Ticket = (StepOutput, Instant);

    fn overlaps(&self) -> bool {
        self.overlaps
    }

    fn expects_others(&self) -> bool {
        false
    }

    fn submit(
        &mut self,
        batch: &StepBatch<'_>,
        on_layers: &mut OnLayers<'_>,
    ) -> Result<Self::Ticket, EngineError> {
        let shape = shape_of(batch);
        let prompts = shape.prompts > 0;
        let follows = self.ends > clock::now();
        pass(if prompts { SUBMIT_PROMPTS } else { SUBMIT_DECODES });
        self.held_up
            .filter(|(step, _)| *step == self.clients.steps)
            .iter()
            .for_each(|it| pass(it.1));
        if follows {
            let early_us = signed_us(self.ends, clock::now());
            self.submitted.lock().push(Submitted { prompts, early_us });
        }
        let took = self.times.forecast(&shape);
        self.ends = self.ends.max(clock::now()) + took;
        self.clients.note_step();
        let output = self.script.submit(batch, on_layers)?;
        Ok((StepOutput { took: Some(took), ..output }, self.ends))
    }

    fn is_done(&self, (_, ends): &Self::Ticket) -> bool {
        pass(LOOK);
        *ends <= clock::now()
    }

    fn collect(&mut self, (output, ends): Self::Ticket) -> Result<StepOutput, EngineError> {
        pass(ends.saturating_duration_since(clock::now()));
        Ok(output)
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) -> Result<(), EngineError> {
        self.script.copy_block(from, to)
    }
}

fn shape_of(batch: &StepBatch<'_>) -> StepShape {
    let part = |sequence: &SequenceRows<'_>| {
        let tokens = sequence.rows.len() as u32;
        StepShape::part(sequence.context_tokens - tokens, tokens)
    };
    batch.sequences.iter().map(part).sum()
}

/// Lets time pass: the clock goes on with the first poll, and nobody waits for the rest.
fn pass(time: Duration) {
    let advanced = pin!(tokio::time::advance(time));
    let _ = advanced.poll(&mut Context::from_waker(Waker::noop()));
}

fn signed_us(to: Instant, from: Instant) -> i64 {
    let us = |time: Duration| time.as_micros() as i64;
    us(to.saturating_duration_since(from)) - us(from.saturating_duration_since(to))
}

/// Serves those clients; what was submitted, and what the engine says of itself.
///
/// - `change`: what is different about the device.
fn serve(change: impl FnOnce(&mut Device)) -> (Vec<Submitted>, EngineStats) {
    let sizes = Sizes { blocks: 256, prefix_cache: false, ..Sizes::default() };
    let (info, config) = sizes.settings();
    let script = ScriptModel::new(sizes.blocks, sizes.block_tokens, true, Arc::default());
    let (sender, commands) = sync_channel(commands_max(&info));
    let events = step_events_max(&info, &config);
    let exchange = Arc::new(Exchange::new(info, script.kv(), events).without_courier());
    let (_alive, stopped) = watch::channel(());
    let engine =
        EngineHandle::driven(Arc::clone(&exchange), sender, stopped, Arc::new(Notify::new()));
    let mut clients =
        Clients { engine: Some(engine), streams: Vec::new(), steps: STEPS_BETWEEN - 1 };
    clients.note_step();
    let submitted = Arc::default();
    let mut device = Device {
        script,
        times: StepTimes::new(StepSeed::GPU),
        ends: clock::now(),
        submitted: Arc::clone(&submitted),
        held_up: None,
        overlaps: true,
        clients,
    };
    change(&mut device);
    let limits = config.limits(sizes.blocks);
    Core::new(device, Arc::clone(&exchange), limits, config.targets).run(&commands);
    (submitted.lock().clone(), exchange.stats())
}

/// The device never waits, and who comes is left out no longer than needed.
#[tokio::test(start_paused = true)]
async fn a_step_is_submitted_shortly_before_the_one_in_flight_ends() {
    let submitted = serve(|_| ()).0.split_off(FIRST_STEPS);
    let (prompts, decodes): (Vec<_>, Vec<_>) = submitted.into_iter().partition(|it| it.prompts);
    assert!(prompts.len() >= 8 && decodes.len() > 30, "{} and {}", prompts.len(), decodes.len());
    for submitted in prompts.iter().chain(&decodes) {
        assert!((100..=400).contains(&submitted.early_us), "{submitted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_takes_as_long_as_the_device_says() {
    let (submitted, stats) = serve(|device| device.held_up = Some((30, Duration::from_millis(5))));
    assert!(submitted.iter().any(|it| it.early_us < -4000), "all ends were seen: {submitted:?}");
    let ForecastErrors { counts, sum } = stats.forecasts;
    assert_eq!(counts[1..], [0; 8], "more than a hundredth off");
    assert!(counts[0] > 40 && sum < 0.1, "{counts:?}, {sum} in all");
}

/// What comes before a step of this engine then is part of its pace.
#[tokio::test(start_paused = true)]
async fn where_others_take_turns_a_step_takes_as_long_as_it_is_waited_for() {
    let decode_step = |change: fn(&mut Device)| serve(change).1.decode_step_s;
    let alone_s = decode_step(|_| ());
    let by_turns_s = decode_step(|device| device.overlaps = false);
    assert!(by_turns_s >= alone_s + SUBMIT_DECODES.as_secs_f64(), "{alone_s} and {by_turns_s}");
}

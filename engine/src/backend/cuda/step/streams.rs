//! The streams that steps run on.
//!
//! One is over the whole GPU; with a partition there is one more in this engine's part of each split.
//! Steps stay in order whatever their streams: where one is on another stream than the one before,
//! it waits for that. Between processes, engines take turns.
//!
//! On the whole GPU's stream the device keeps the time of each step, by an event before it and one behind it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::partition::{PartitionSeat, StepKind};
use super::turns::Turns;
use crate::backend::cuda::driver::device::{Device, Event, Priority, Stream};
use crate::batch::StepBatch;
use crate::error::EngineError;
use crate::neighbours::Neighbours;

/// See the module.
#[derive(Debug)]
pub(crate) struct StepStreams {
    /// The whole GPU's first, then each split's.
    streams: Vec<Arc<Stream>>,
    seat: Option<PartitionSeat>,
    current: StreamId,
    /// Where the stream changed last.
    moved: Event,
    /// Before the step that is being submitted; none where its time isn't kept.
    began: Option<Event>,
    /// Events of steps that were passed, for others.
    spare: Vec<Event>,
    kind: StepKind,
    passed_at: Instant,
    /// With other processes.
    turns: Option<Turns>,
    /// Steps that were submitted and haven't been passed.
    in_flight: usize,
}

/// Which stream: what is recorded runs on its stream's multiprocessors for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StreamId(usize);

/// A point behind a step.
#[derive(Debug)]
pub struct StepMark {
    /// Before the step.
    began: Option<Event>,
    event: Arc<Event>,
    stream: StreamId,
    kind: StepKind,
    submitted: Instant,
}

impl StreamId {
    /// The whole GPU's.
    const WHOLE: Self = Self(0);

    /// Which split's part it is of.
    fn split(self) -> Option<usize> {
        self.0.checked_sub(1)
    }
}

// === impl StepStreams ===

impl StepStreams {
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses, or can't divide the GPU as it should.
    pub(crate) fn new(
        device: &Device,
        seat: Option<&PartitionSeat>,
        turns: Option<Turns>,
    ) -> Result<Self, EngineError> {
        let parts = seat.map_or(Ok(Vec::new()), |seat| seat.open(device))?;
        // Where both always run everywhere, prefill would get next to nothing behind decode: 124 to 256
        // of 765 TFLOP/s on an H100.
        let divided = seat.filter(|_| !parts.is_empty());
        let priority = divided.map_or(Priority::High, PartitionSeat::priority);
        let mut streams = vec![Arc::new(Stream::new(device, priority)?)];
        streams.extend(parts);
        Ok(Self {
            streams,
            seat: seat.cloned(),
            current: StreamId::WHOLE,
            moved: Event::new(device)?,
            began: None,
            spare: Vec::new(),
            kind: StepKind::default(),
            passed_at: Instant::now(),
            turns,
            in_flight: 0,
        })
    }

    /// The one to submit to.
    pub(crate) fn current(&self) -> &Arc<Stream> {
        &self.streams[self.current.0]
    }

    /// Which one that is.
    pub(crate) fn id(&self) -> StreamId {
        self.current
    }

    /// Whom turns are taken with; nobody where none are.
    pub(crate) fn neighbours(&self) -> Neighbours {
        self.turns.as_ref().map(Turns::neighbours).unwrap_or_default()
    }

    /// Lets others have their turn, if no step is in flight.
    pub(crate) fn pause(&mut self) {
        if let Some(turns) = &mut self.turns
            && self.in_flight == 0
        {
            turns.end();
        }
    }

    /// Waits for a turn, and chooses the stream for a step, behind all that was submitted before.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses, or an earlier step has failed.
    pub(crate) fn begin(&mut self, batch: &StepBatch<'_>) -> Result<(), EngineError> {
        if let Some(turns) = &mut self.turns {
            turns.begin();
        }
        self.choose(batch)?;
        self.note_beginning()
    }

    /// Chooses the stream for a step.
    fn choose(&mut self, batch: &StepBatch<'_>) -> Result<(), EngineError> {
        let Some(seat) = &self.seat else { return Ok(()) };
        let chunks = batch.sequences.iter().map(|it| it.rows.len()).filter(|&rows| rows > 1);
        self.kind = StepKind {
            prompt_tokens: chunks.sum::<usize>() as u64,
            gives_tokens: !batch.samples.is_empty(),
        };
        let split = seat.choose(Instant::now())?;
        let next = split.map_or(StreamId::WHOLE, |split| StreamId(split + 1));
        if next != self.current {
            self.current().record(&self.moved)?;
            self.streams[next.0].wait(&self.moved)?;
            self.current = next;
        }
        Ok(())
    }

    /// Has the device note when it comes to the step: once the one before has ended, or at once where it has.
    fn note_beginning(&mut self) -> Result<(), EngineError> {
        self.began = None;
        if self.current == StreamId::WHOLE {
            let event = self.event()?;
            self.current().record(&event)?;
            self.began = Some(event);
        }
        Ok(())
    }

    /// An event that keeps the time.
    fn event(&mut self) -> Result<Event, EngineError> {
        self.spare.pop().map_or_else(|| Event::timed(self.current().device()), Ok)
    }

    /// A mark behind all that was submitted.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses.
    pub(crate) fn mark(&mut self) -> Result<StepMark, EngineError> {
        let event = Arc::new(self.event()?);
        self.current().record(&event)?;
        let (stream, kind, submitted) = (self.current, self.kind, Instant::now());
        if let Some(seat) = &self.seat {
            seat.submitted(&event, kind, submitted);
        }
        self.in_flight += 1;
        Ok(StepMark { began: self.began.take(), event, stream, kind, submitted })
    }

    /// Waits until all before a mark is done; says how long the step took, where the device kept the time. Marks are passed
    /// in their order.
    ///
    /// # Errors
    /// [`EngineError::Device`] if some of it failed.
    pub(crate) fn pass(&mut self, mark: StepMark) -> Result<Option<Duration>, EngineError> {
        let passed = mark.event.synchronize();
        self.in_flight = self.in_flight.saturating_sub(1);
        self.pause();
        passed?;
        let began = mark.submitted.max(self.passed_at);
        self.passed_at = Instant::now();
        if let (Some(seat), Some(split)) = (&self.seat, mark.stream.split()) {
            seat.measured(split, mark.kind, self.passed_at - began);
        }
        let took = mark.took();
        // Where the other engine may still look at its end, a new one will be made.
        self.spare.extend(mark.began.into_iter().chain(Arc::into_inner(mark.event)));
        Ok(took)
    }
}

// === impl StepMark ===

impl StepMark {
    /// Whether all before it is done. True, too, where it failed.
    pub(crate) fn has_passed(&self) -> bool {
        self.event.is_done().unwrap_or(true)
    }

    /// Device time of the step, once it has passed.
    fn took(&self) -> Option<Duration> {
        let us = self.event.us_since(self.began.as_ref()?).ok()?;
        Some(Duration::from_nanos((us * 1e3) as u64))
    }
}

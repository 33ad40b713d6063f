//! What a submission's owner hears, and the channel it hears it through.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use kv_cache::{BlockHandle, BlockHash, BlockTable, Fence};
use tokio::sync::mpsc;
use words::{FinishReason, PromptLogprob, SampledToken};

use super::outbox::{self, Door, Parcel};

/// Steps whose tokens a reader may leave unread before its sequences are paused.
///
/// A third of a second at 5 ms a step: longer than a scheduling hiccup of the reader's, shorter than
/// a network stall, behind which generating further would only waste memory.
const STEPS_UNREAD_MAX: usize = 64;

/// One piece of news about a submission.
///
/// Per choice, tokens come in order and [`Event::Finished`] comes last. A submission ends with
/// the [`Event::Finished`] of its last choice; in [`super::Mode::Prefill`] with
/// [`Event::Prefilled`]; or with [`Event::Failed`].
#[derive(Debug)]
pub enum Event {
    /// It left the queue.
    Started {
        /// Tokens of the context whose KV was there already.
        cached_tokens: u32,
    },
    /// Pages hold their final contents ([`super::Mode::Prefill`] only).
    ///
    /// Every page of the context is announced exactly once, whatever happens on the way.
    PagesFilled(FilledPages),
    /// Scores of prompt tokens, in order, a chunk at a time; all before the first token.
    PromptLogprobs(Vec<PromptLogprob>),
    /// A choice's next token.
    Token(SampledToken),
    /// The prompt is computed ([`super::Mode::Prefill`] only).
    Prefilled {
        /// The blocks of the whole context; they stay until this is dropped. None where the work had ended with
        /// the tokens that it came with: nobody needs them. In a box, as tokens are many and this is their size, too.
        table: Box<BlockTable>,
        /// The first token of each choice, in the order of the request's choices; none where the
        /// request asked for none, or for no more than it came with.
        first: Vec<SampledToken>,
        /// The name of the tokens that the blocks hold KV of.
        context: BlockHash,
    },
    /// A choice has ended; in [`super::Mode::Prefill`], with its first token or without one.
    Finished {
        /// Which.
        choice: u32,
        /// Why.
        reason: FinishReason,
    },
    /// The submission has ended, all choices of it, without a result.
    Failed(SequenceError),
}

/// Pages that may be read, once the fence has passed, until the handles are dropped.
#[derive(Clone, Debug)]
pub struct FilledPages {
    /// Of these layers.
    pub layers: Range<u32>,
    /// Logical index of the first block.
    pub first_block: u32,
    /// The physical blocks, in logical order.
    pub blocks: Vec<BlockHandle>,
    /// Behind the writes.
    pub fence: Fence,
    /// The chunk these pages are of ends the context.
    pub last_chunk: bool,
}

/// Why a submission has no result.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SequenceError {
    /// Its deadline passed. Not worth a retry.
    #[error("deadline passed")]
    Deadline,
    /// The device failed in a step of its. Worth a retry elsewhere.
    #[error("device failed: {0}")]
    Device(String),
    /// The model's logits are no numbers: its weights or its memory are damaged here, or they overflowed.
    /// Worth one retry elsewhere, which tells the one from the other.
    #[error("the model computed logits that are no numbers")]
    NotFinite,
    /// The request bans every token. A retry would end the same way.
    #[error("no token can be chosen: all are banned")]
    NoCandidate,
    /// The engine stopped before it was done. Worth a retry elsewhere.
    #[error("engine is shutting down")]
    ShuttingDown,
    /// The engine broke down. Worth a retry elsewhere.
    #[error("engine died: {0}")]
    Died(String),
}

/// The receiving end. Dropping it cancels the submission within one step.
#[derive(Debug)]
pub struct EventStream {
    messages: mpsc::Receiver<Message>,
    has_ended: bool,
    reading: Arc<Reading>,
}

/// The engine's end.
///
/// It never waits: before a sequence is scheduled, the engine asks whether there is room for all
/// that one step can bring. Room for the last event is kept from the start. What is sent leaves with the
/// outbox, and how much of it is unread is counted here: the channel is its reader's.
#[derive(Debug)]
pub(crate) struct EventSender {
    outbox: Arc<Outbox>,
    door: Door,
    /// Keeps the channel open; gone with the last message.
    open: Option<mpsc::Sender<Message>>,
    reading: Arc<Reading>,
    sent: AtomicUsize,
    /// How many of them had been read when that was last looked at.
    seen: AtomicUsize,
    /// Events that may be unread, the last one aside.
    unread_max: usize,
    step_events_max: usize,
}

/// What a reader tells its engine.
#[derive(Debug)]
struct Reading {
    /// Events, the last one aside.
    read: AtomicUsize,
    has_left: AtomicBool,
    /// Set behind that: the engine's for all its readers.
    departures: Arc<AtomicBool>,
}

/// Where events wait for the end of a step.
pub(crate) type Outbox = outbox::Outbox<Message>;

/// What goes through the channel. One that closes before a last message has lost its engine.
#[derive(Debug)]
pub(crate) enum Message {
    Event(Event),
    /// Nothing follows; without an event where everything had been told elsewhere before.
    Last(Option<Event>),
}

/// A channel for a submission.
///
/// - `outbox`: the engine's.
/// - `choices`: sequences that send tokens.
/// - `step_events_max`: events that one step can bring at most, the last one aside.
pub(crate) fn event_channel(
    outbox: &Arc<Outbox>,
    choices: usize,
    step_events_max: usize,
) -> (EventSender, EventStream) {
    let unread_max = step_events_max + STEPS_UNREAD_MAX * choices;
    let (sender, receiver) = mpsc::channel(unread_max + 1);
    let reading = Arc::new(Reading {
        read: AtomicUsize::new(0),
        has_left: AtomicBool::new(false),
        departures: outbox.departures(),
    });
    let stream =
        EventStream { messages: receiver, has_ended: false, reading: Arc::clone(&reading) };
    let sender = EventSender {
        outbox: Arc::clone(outbox),
        door: outbox.open(&sender),
        open: Some(sender),
        reading,
        sent: AtomicUsize::new(0),
        seen: AtomicUsize::new(0),
        unread_max,
        step_events_max,
    };
    (sender, stream)
}

// === impl EventStream ===

impl EventStream {
    /// The next event; `None` after the last one.
    ///
    /// Cancel safe: no event is lost when the future is dropped.
    pub async fn recv(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.poll_recv(context)).await
    }

    /// [`EventStream::recv`] for hand-written futures.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        self.messages.poll_recv(context).map(|message| self.unwrap(message))
    }

    /// [`EventStream::recv`] for threads outside any runtime.
    ///
    /// # Panics
    /// If called on a runtime's thread.
    pub fn blocking_recv(&mut self) -> Option<Event> {
        if self.has_ended {
            return None;
        }
        let message = self.messages.blocking_recv();
        self.unwrap(message)
    }

    fn unwrap(&mut self, message: Option<Message>) -> Option<Event> {
        self.has_ended = !matches!(message, Some(Message::Event(_)));
        match message {
            Some(Message::Event(event)) => {
                self.reading.read.fetch_add(1, Ordering::Release);
                Some(event)
            }
            Some(Message::Last(event)) => event,
            None => {
                let reason = "its thread ended with work outstanding".to_owned();
                Some(Event::Failed(SequenceError::Died(reason)))
            }
        }
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.messages.close();
        self.reading.has_left.store(true, Ordering::Release);
        self.reading.departures.store(true, Ordering::Release);
    }
}

// === impl EventSender ===

impl EventSender {
    /// Whether all that a step can bring could be sent.
    pub(crate) fn has_room(&self) -> bool {
        self.has_room_for(self.step_events_max)
    }

    /// Looks at what has been read only where it has to: that line of memory is in the reader's core.
    fn has_room_for(&self, events: usize) -> bool {
        let sent = self.sent.load(Ordering::Relaxed);
        let fits = |seen: usize| sent - seen + events <= self.unread_max;
        fits(self.seen.load(Ordering::Relaxed)) || {
            let read = self.reading.read.load(Ordering::Acquire);
            self.seen.store(read, Ordering::Relaxed);
            fits(read)
        }
    }

    /// Whether nobody listens any more; [`Outbox::take_departures`] says when there is reason to ask.
    pub(crate) fn is_closed(&self) -> bool {
        self.reading.has_left.load(Ordering::Acquire)
    }

    /// Sends an event that isn't the last.
    ///
    /// # Panics
    /// If the channel is full, which [`EventSender::has_room`] excludes.
    pub(crate) fn send(&self, event: Event) {
        // What nobody reads needs no room.
        assert!(
            self.has_room_for(1) || self.is_closed(),
            "no room for {event:?} after {} were kept free",
            self.step_events_max
        );
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.outbox.put(Parcel::Message(self.door, Message::Event(event)));
    }

    /// As [`EventSender::send`], for what somebody works with while the step goes on.
    ///
    /// # Panics
    /// As there.
    pub(crate) fn send_now(&self, event: Event) {
        self.send(event);
        self.outbox.flush();
    }

    /// Sends the last event.
    pub(crate) fn finish(self, event: Event) {
        self.close(Some(event));
    }

    /// Ends the stream without another event.
    pub(crate) fn end(self) {
        self.close(None);
    }

    fn close(mut self, event: Option<Event>) {
        if let Some(channel) = self.open.take() {
            self.outbox.put(Parcel::Last(self.door, channel, Message::Last(event)));
        }
    }
}

impl Drop for EventSender {
    /// Without a last message the channel closes here and now, as it does when the engine is lost.
    fn drop(&mut self) {
        if self.open.take().is_some() {
            self.outbox.put(Parcel::Closed(self.door));
        }
    }
}

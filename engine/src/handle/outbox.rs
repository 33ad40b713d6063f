//! Events on their way to their readers.
//!
//! To wake a reader costs the waker a few microseconds, and a step of 256 sequences wakes as many. So the
//! engine's thread puts events down as it goes and gives them away together, to a thread that wakes;
//! meanwhile it plans the next step.
//!
//! A channel's memory is used by its reader's core. The engine's thread leaves it alone: what it puts down says
//! at whose door it belongs, and who delivers knows the doors.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};

use parking_lot::Mutex;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Sender, WeakSender};

/// So few are delivered at once by the engine's thread: a hop to another would delay them by more.
const DIRECT_MAX: usize = 8;

/// Batches that wait for the courier, which is never more than a step behind unless it gets no processor; the
/// engine then waits for it. Readers have room for fewer steps than this.
const BATCHES_MAX: usize = 256;

/// What the engine's thread has to say. Events are delivered in the order in which they were put.
#[derive(Debug)]
pub(crate) struct Outbox<M> {
    parcels: Mutex<Vec<Parcel<M>>>,
    /// Held by whoever delivers.
    doors: Arc<Mutex<Doors<M>>>,
    next_door: AtomicU64,
    /// Whether a reader has left since that was asked last.
    departures: Arc<AtomicBool>,
    /// The delivering thread, once it was needed; nobody if it can't be started.
    courier: OnceLock<Option<Courier<M>>>,
    /// Batches that the courier has not delivered yet.
    under_way: Arc<AtomicUsize>,
}

/// Which reader's; no number is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Door(u64);

/// What is delivered, in the order in which it was put.
#[derive(Debug)]
pub(super) enum Parcel<M> {
    /// There is a reader. Its channel is kept open by whoever sends to it.
    Opened(Door, WeakSender<M>),
    /// A message; whoever sends it knows that there is room.
    Message(Door, M),
    /// The last message, with what kept the channel open.
    Last(Door, Sender<M>, M),
    /// Nobody sends there any more.
    Closed(Door),
}

/// Where parcels go.
#[derive(Debug)]
struct Doors<M>(HashMap<Door, WeakSender<M>>);

/// Takes batches to deliver.
type Courier<M> = mpsc::SyncSender<Vec<Parcel<M>>>;

// === impl Outbox ===

impl<M> Default for Outbox<M> {
    fn default() -> Self {
        Self {
            parcels: Mutex::default(),
            doors: Arc::new(Mutex::new(Doors(HashMap::new()))),
            next_door: AtomicU64::new(0),
            departures: Arc::default(),
            courier: OnceLock::new(),
            under_way: Arc::default(),
        }
    }
}

impl<M: Send + 'static> Outbox<M> {
    /// One that delivers by itself, however much there is.
    pub(crate) fn without_courier() -> Self {
        Self { courier: OnceLock::from(None), ..Self::default() }
    }

    /// A door for a new reader.
    pub(super) fn open(&self, sender: &Sender<M>) -> Door {
        let door = Door(self.next_door.fetch_add(1, Ordering::Relaxed));
        self.put(Parcel::Opened(door, sender.downgrade()));
        door
    }

    /// What a reader sets that leaves.
    pub(super) fn departures(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.departures)
    }

    /// Whether a reader has left since the last call.
    pub(crate) fn take_departures(&self) -> bool {
        self.departures.load(Ordering::Relaxed) && self.departures.swap(false, Ordering::AcqRel)
    }

    pub(super) fn put(&self, parcel: Parcel<M>) {
        self.parcels.lock().push(parcel);
    }

    /// Sends off what was put.
    pub(crate) fn flush(&self) {
        let Some(parcels) = self.take() else { return };
        // Nothing overtakes what the courier still has.
        let is_idle = self.under_way.load(Ordering::Acquire) == 0;
        if parcels.len() <= DIRECT_MAX && is_idle {
            return self.doors.lock().deliver(parcels);
        }
        let Some(courier) = self.courier.get_or_init(|| hire(&self.under_way, &self.doors)) else {
            return self.doors.lock().deliver(parcels);
        };
        self.under_way.fetch_add(1, Ordering::AcqRel);
        if let Err(mpsc::SendError(parcels)) = courier.send(parcels) {
            // It has died, with nothing left to deliver: whatever it was given came before.
            self.doors.lock().deliver(parcels);
        }
    }

    /// What was put, if anything was. The next step will bring about as much.
    fn take(&self) -> Option<Vec<Parcel<M>>> {
        let mut parcels = self.parcels.lock();
        let count = parcels.len();
        (count > 0).then(|| std::mem::replace(&mut *parcels, Vec::with_capacity(count)))
    }
}

/// Starts the delivering thread, which ends with the outbox.
fn hire<M: Send + 'static>(
    under_way: &Arc<AtomicUsize>,
    doors: &Arc<Mutex<Doors<M>>>,
) -> Option<Courier<M>> {
    let (sender, batches) = mpsc::sync_channel::<Vec<Parcel<M>>>(BATCHES_MAX);
    let (under_way, doors) = (Arc::clone(under_way), Arc::clone(doors));
    let run = move || {
        for parcels in batches {
            doors.lock().deliver(parcels);
            under_way.fetch_sub(1, Ordering::AcqRel);
        }
    };
    let hired = std::thread::Builder::new().name("engine-events".to_owned()).spawn(run);
    if let Err(why) = &hired {
        tracing::warn!(%why, "no thread to deliver events: the engine's does it");
    }
    hired.ok().map(|_| sender)
}

// === impl Doors ===

impl<M> Doors<M> {
    fn deliver(&mut self, parcels: Vec<Parcel<M>>) {
        for parcel in parcels {
            match parcel {
                Parcel::Opened(door, sender) => drop(self.0.insert(door, sender)),
                Parcel::Message(door, message) => {
                    if let Some(sender) = self.0.get(&door).and_then(WeakSender::upgrade) {
                        hand_in(&sender, message);
                    }
                }
                Parcel::Last(door, sender, message) => {
                    self.0.remove(&door);
                    hand_in(&sender, message);
                }
                Parcel::Closed(door) => drop(self.0.remove(&door)),
            }
        }
    }
}

/// To a reader that has left it is no matter.
fn hand_in<M>(sender: &Sender<M>, message: M) {
    let sent = sender.try_send(message);
    assert!(!matches!(sent, Err(TrySendError::Full(_))), "whoever sends knows that there is room");
}

#[cfg(test)]
mod tests {
    use super::{Arc, DIRECT_MAX};
    use crate::handle::{Event, Outbox, SequenceError, event_channel};

    /// Batches of all sizes, some delivered here and some by the courier.
    #[tokio::test]
    async fn events_come_in_order_whoever_delivers_them() {
        let outbox = Arc::<Outbox>::default();
        let (sender, mut stream) = event_channel(&outbox, 1, 5000);
        let mut sent = 0;
        for size in [1, 3, DIRECT_MAX, DIRECT_MAX + 1, 1, 700, 2, 1, 900, 8] {
            for _ in 0..size {
                sender.send(Event::Started { cached_tokens: sent });
                sent += 1;
            }
            outbox.flush();
        }
        sender.end();
        outbox.flush();
        let mut heard = 0;
        while let Some(event) = stream.recv().await {
            assert!(
                matches!(event, Event::Started { cached_tokens } if cached_tokens == heard),
                "{event:?} as the {heard}th"
            );
            heard += 1;
        }
        assert_eq!(heard, sent);
    }

    #[tokio::test]
    async fn a_reader_that_has_left_is_no_matter() {
        let outbox = Arc::<Outbox>::default();
        let (sender, stream) = event_channel(&outbox, 1, 100);
        (0..50).for_each(|cached_tokens| sender.send(Event::Started { cached_tokens }));
        drop(stream);
        outbox.flush();
        sender.send_now(Event::Started { cached_tokens: 50 });
        assert!(sender.is_closed());
        sender.end();
        outbox.flush();
    }

    #[tokio::test]
    async fn room_is_what_has_been_read() {
        let outbox = Arc::<Outbox>::default();
        let (sender, mut stream) = event_channel(&outbox, 1, 3);
        let mut sent = 0;
        while sender.has_room() {
            sender.send(Event::Started { cached_tokens: sent });
            sent += 1;
        }
        outbox.flush();
        assert!(!sender.has_room(), "delivered isn't read");
        assert!(stream.recv().await.is_some());
        assert!(sender.has_room());
        sender.send(Event::Started { cached_tokens: sent });
        assert!(!sender.has_room());
    }

    #[tokio::test]
    async fn who_leaves_is_told_of_once() {
        let outbox = Arc::<Outbox>::default();
        let (one, stream) = event_channel(&outbox, 1, 3);
        let (other, _stream) = event_channel(&outbox, 1, 3);
        assert!(!outbox.take_departures());
        drop(stream);
        assert!(outbox.take_departures() && !outbox.take_departures());
        assert!(one.is_closed() && !other.is_closed());
    }

    /// Whoever waits for what can't come any more hears of it, and nothing is kept for it.
    #[tokio::test]
    async fn a_channel_without_a_sender_is_closed_and_forgotten() {
        let outbox = Arc::<Outbox>::default();
        let (sender, mut stream) = event_channel(&outbox, 1, 3);
        sender.send(Event::Started { cached_tokens: 0 });
        outbox.flush();
        assert_eq!(outbox.doors.lock().0.len(), 1);
        drop(sender);
        assert!(matches!(stream.recv().await, Some(Event::Started { .. })));
        assert!(matches!(stream.recv().await, Some(Event::Failed(SequenceError::Died(_)))));
        outbox.flush();
        assert!(outbox.doors.lock().0.is_empty());
    }
}

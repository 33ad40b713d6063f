//! Events on their way to their readers.
//!
//! To wake a reader costs the waker a few microseconds, and a step of 256 sequences wakes as many. So the
//! engine's thread puts events down as it goes and gives them away together, to a thread that wakes;
//! meanwhile it plans the next step.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};

use parking_lot::Mutex;
use tokio::sync::mpsc::OwnedPermit;

/// So few are delivered at once by the engine's thread: a hop to another would delay them by more.
const DIRECT_MAX: usize = 8;

/// Batches that wait for the courier, which is never more than a step behind unless it gets no processor; the
/// engine then waits for it. Readers have room for fewer steps than this.
const BATCHES_MAX: usize = 256;

/// What the engine's thread has to say. Events are delivered in the order in which they were put.
#[derive(Debug)]
pub(crate) struct Outbox<M> {
    parcels: Mutex<Vec<Parcel<M>>>,
    /// The delivering thread, once it was needed; nobody if it can't be started.
    courier: OnceLock<Option<Courier<M>>>,
    /// Batches that the courier has not delivered yet.
    under_way: Arc<AtomicUsize>,
}

/// A message, and the room that was kept for it.
#[derive(Debug)]
pub(super) struct Parcel<M> {
    pub(super) room: OwnedPermit<M>,
    pub(super) message: M,
}

/// Takes batches to deliver.
type Courier<M> = mpsc::SyncSender<Vec<Parcel<M>>>;

// === impl Outbox ===

impl<M> Default for Outbox<M> {
    fn default() -> Self {
        Self { parcels: Mutex::default(), courier: OnceLock::new(), under_way: Arc::default() }
    }
}

impl<M: Send + 'static> Outbox<M> {
    /// One that delivers by itself, however much there is.
    pub(crate) fn without_courier() -> Self {
        Self { courier: OnceLock::from(None), ..Self::default() }
    }

    pub(super) fn put(&self, parcel: Parcel<M>) {
        self.parcels.lock().push(parcel);
    }

    /// Sends off what was put.
    pub(crate) fn flush(&self) {
        let parcels = std::mem::take(&mut *self.parcels.lock());
        if parcels.is_empty() {
            return;
        }
        // Nothing overtakes what the courier still has.
        let is_idle = self.under_way.load(Ordering::Acquire) == 0;
        if parcels.len() <= DIRECT_MAX && is_idle {
            return deliver(parcels);
        }
        let Some(courier) = self.courier.get_or_init(|| hire(&self.under_way)) else {
            return deliver(parcels);
        };
        self.under_way.fetch_add(1, Ordering::AcqRel);
        if let Err(mpsc::SendError(parcels)) = courier.send(parcels) {
            // It has died, with nothing left to deliver: whatever it was given came before.
            deliver(parcels);
        }
    }
}

/// Starts the delivering thread, which ends with the outbox.
fn hire<M: Send + 'static>(under_way: &Arc<AtomicUsize>) -> Option<Courier<M>> {
    let (sender, batches) = mpsc::sync_channel::<Vec<Parcel<M>>>(BATCHES_MAX);
    let under_way = Arc::clone(under_way);
    let run = move || {
        for parcels in batches {
            deliver(parcels);
            under_way.fetch_sub(1, Ordering::AcqRel);
        }
    };
    let hired = std::thread::Builder::new().name("engine-events".to_owned()).spawn(run);
    if let Err(why) = &hired {
        tracing::warn!(%why, "no thread to deliver events: the engine's does it");
    }
    hired.ok().map(|_| sender)
}

fn deliver<M>(parcels: Vec<Parcel<M>>) {
    for Parcel { room, message } in parcels {
        room.send(message);
    }
}

#[cfg(test)]
mod tests {
    use super::{Arc, DIRECT_MAX};
    use crate::handle::{Event, Outbox, event_channel};

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
}

//! Staging memory: a bounded amount, reused, the oldest hand-off's first.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The unit in which memory is counted.
const GRAIN_BYTES: usize = 4096;

/// Buffers of up to a fixed number of bytes in all.
///
/// Where there are too few, who came first is served first, whatever it asks for: many hand-offs that
/// share a slow way then end one after the other, and not all of them late.
///
/// A clone is another handle. Buffers come back by themselves when the last [`Bytes`] that shows
/// them is dropped; they are reused without being cleared.
#[derive(Clone, Debug)]
pub struct Buffers {
    stock: Arc<Stock>,
    grains_max: usize,
}

/// Staging memory for one writer.
#[derive(Debug)]
pub struct Buffer {
    memory: Vec<u8>,
    grains: Grains,
}

#[derive(Debug)]
struct Stock {
    idle: Mutex<Vec<Vec<u8>>>,
    /// Buffers of exactly this size are kept.
    standard_bytes: usize,
    room: Mutex<Room>,
}

#[derive(Debug)]
struct Room {
    free: usize,
    /// By turn, then by when they came.
    waiting: BTreeMap<(u64, u64), Waiting>,
    came: u64,
}

#[derive(Debug)]
struct Waiting {
    grains: usize,
    grant: oneshot::Sender<Grains>,
}

/// The right to some memory, for as long as it lives.
#[derive(Debug)]
struct Grains {
    stock: Arc<Stock>,
    count: usize,
}

// === impl Buffers ===

impl Buffers {
    /// Up to `bytes_max` at once, most of them in buffers of up to `standard_bytes`.
    #[must_use]
    pub fn new(standard_bytes: usize, bytes_max: usize) -> Self {
        let grains_max = bytes_max.max(standard_bytes).div_ceil(GRAIN_BYTES);
        let room = Room { free: grains_max, waiting: BTreeMap::new(), came: 0 };
        let (idle, room) = (Mutex::default(), Mutex::new(room));
        Self { stock: Arc::new(Stock { idle, standard_bytes, room }), grains_max }
    }

    /// A buffer of `bytes`, with undefined contents, as soon as there is room.
    ///
    /// One that is larger than all there may be waits for everything and takes it.
    ///
    /// - `turn`: among those who wait, the lowest is served first.
    pub async fn take(&self, turn: u64, bytes: usize) -> Buffer {
        // Whatever is kept idle is of standard size, so that is what a small one costs too.
        let size = bytes.max(self.stock.standard_bytes);
        let grains = self.grains(turn, size.div_ceil(GRAIN_BYTES).min(self.grains_max)).await;
        let idle = self.stock.idle.lock().pop();
        let mut memory = idle.unwrap_or_default();
        memory.resize(size, 0);
        Buffer { memory, grains }
    }

    async fn grains(&self, turn: u64, count: usize) -> Grains {
        let granted = {
            let mut room = self.stock.room.lock();
            if room.free >= count && room.waiting.is_empty() {
                room.free -= count;
                return Grains { stock: self.stock.clone(), count };
            }
            let (grant, granted) = oneshot::channel();
            room.came += 1;
            let key = (turn, room.came);
            room.waiting.insert(key, Waiting { grains: count, grant });
            granted
        };
        granted.await.expect("whoever waits is served")
    }
}

// === impl Room ===

impl Room {
    /// The next to be served, if there is room for it. Those who wait no more are forgotten.
    fn next(&mut self) -> Option<Waiting> {
        loop {
            let first = self.waiting.first_entry()?;
            if first.get().grant.is_closed() {
                first.remove();
            } else if first.get().grains <= self.free {
                self.free -= first.get().grains;
                return Some(first.remove());
            } else {
                return None;
            }
        }
    }
}

// === impl Grains ===

impl Drop for Grains {
    fn drop(&mut self) {
        let mut room = self.stock.room.lock();
        room.free += self.count;
        let served: Vec<_> = std::iter::from_fn(|| room.next()).collect();
        drop(room);
        for Waiting { grains, grant } in served {
            // If nobody waits for them any more, they go back from here, and on to the next.
            let _ = grant.send(Self { stock: self.stock.clone(), count: grains });
        }
    }
}

// === impl Buffer ===

impl Buffer {
    /// The first `bytes` of the buffer, to be written.
    ///
    /// # Panics
    /// If it has fewer.
    pub fn first_mut(&mut self, bytes: usize) -> &mut [u8] {
        &mut self.memory[..bytes]
    }

    /// The first `bytes` of the buffer, to be shared; no copy.
    ///
    /// # Panics
    /// If it has fewer.
    #[must_use]
    pub fn freeze(self, bytes: usize) -> Bytes {
        Bytes::from_owner(self).slice(..bytes)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        let stock = &self.grains.stock;
        if memory.len() == stock.standard_bytes {
            stock.idle.lock().push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn memory_is_bounded_and_comes_back() {
        let buffers = Buffers::new(2 * GRAIN_BYTES, 4 * GRAIN_BYTES);
        let first = buffers.take(0, 10).await.freeze(10);
        let second = buffers.take(0, 2 * GRAIN_BYTES).await;
        assert!(buffers.take(0, 1).now_or_never().is_none(), "all of it is out");
        let part = first.slice(3..5);
        drop(first);
        assert!(buffers.take(0, 1).now_or_never().is_none(), "a part of it is still shown");
        drop(part);
        assert!(buffers.take(0, 1).now_or_never().is_some());
        drop(second);
    }

    #[tokio::test]
    async fn a_buffer_larger_than_all_takes_all() {
        let buffers = Buffers::new(GRAIN_BYTES, 2 * GRAIN_BYTES);
        let mut large = buffers.take(0, 9 * GRAIN_BYTES).await;
        assert_eq!(large.first_mut(9 * GRAIN_BYTES).len(), 9 * GRAIN_BYTES);
        assert!(buffers.take(0, 1).now_or_never().is_none());
        drop(large);
        assert!(buffers.take(0, 1).now_or_never().is_some());
    }

    #[tokio::test]
    async fn whoever_came_first_is_served_first_even_if_it_asks_last() {
        let buffers = Buffers::new(GRAIN_BYTES, GRAIN_BYTES);
        let held = buffers.take(9, 1).await;
        let turns = [3, 2, 1, 2];
        let mut asked: Vec<_> = turns.iter().map(|&turn| Box::pin(buffers.take(turn, 1))).collect();
        for asking in &mut asked {
            assert!(asking.now_or_never().is_none());
        }
        // The first of turn 2 changes its mind.
        let gone = asked.remove(1);
        drop(gone);
        drop(held);
        assert!((&mut asked[0]).now_or_never().is_none(), "turn 3, and there is turn 1");
        let first = (&mut asked[1]).now_or_never().expect("turn 1");
        assert!((&mut asked[2]).now_or_never().is_none(), "turn 2");
        drop(first);
        assert!((&mut asked[2]).now_or_never().is_some(), "turn 2, and back at once");
        assert!((&mut asked[0]).now_or_never().is_some(), "turn 3");
    }
}

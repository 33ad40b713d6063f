//! Staging memory: a bounded amount, reused.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit in which memory is counted.
const GRAIN_BYTES: usize = 4096;

/// Buffers of up to a fixed number of bytes in all.
///
/// A clone is another handle. Buffers come back by themselves when the last [`Bytes`] that shows
/// them is dropped; they are reused without being cleared.
#[derive(Clone, Debug)]
pub struct Buffers {
    shared: Arc<Shared>,
    grains: Arc<Semaphore>,
    grains_max: usize,
}

/// Staging memory for one writer.
#[derive(Debug)]
pub struct Buffer {
    memory: Vec<u8>,
    shared: Arc<Shared>,
    _grains: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Shared {
    idle: Mutex<Vec<Vec<u8>>>,
    /// Buffers of exactly this size are kept.
    standard_bytes: usize,
}

// === impl Buffers ===

impl Buffers {
    /// Up to `bytes_max` at once, most of them in buffers of up to `standard_bytes`.
    #[must_use]
    pub fn new(standard_bytes: usize, bytes_max: usize) -> Self {
        let grains_max = bytes_max.max(standard_bytes).div_ceil(GRAIN_BYTES);
        Self {
            shared: Arc::new(Shared { idle: Mutex::new(Vec::new()), standard_bytes }),
            grains: Arc::new(Semaphore::new(grains_max)),
            grains_max,
        }
    }

    /// A buffer of `bytes`, with undefined contents, as soon as there is room.
    ///
    /// One that is larger than all there may be waits for everything and takes it.
    pub async fn take(&self, bytes: usize) -> Buffer {
        // Whatever is kept idle is of standard size, so that is what a small one costs too.
        let size = bytes.max(self.shared.standard_bytes);
        let grains = size.div_ceil(GRAIN_BYTES).min(self.grains_max);
        let grains = u32::try_from(grains).unwrap_or(u32::MAX);
        let permit = self.grains.clone().acquire_many_owned(grains).await;
        let idle = self.shared.idle.lock().pop();
        let mut memory = idle.unwrap_or_default();
        memory.resize(size, 0);
        Buffer { memory, shared: self.shared.clone(), _grains: permit.expect("never closed") }
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
        if memory.len() == self.shared.standard_bytes {
            self.shared.idle.lock().push(memory);
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
        let first = buffers.take(10).await.freeze(10);
        let second = buffers.take(2 * GRAIN_BYTES).await;
        assert!(buffers.take(1).now_or_never().is_none(), "all of it is out");
        let part = first.slice(3..5);
        drop(first);
        assert!(buffers.take(1).now_or_never().is_none(), "a part of it is still shown");
        drop(part);
        assert!(buffers.take(1).now_or_never().is_some());
        drop(second);
    }

    #[tokio::test]
    async fn a_buffer_larger_than_all_takes_all() {
        let buffers = Buffers::new(GRAIN_BYTES, 2 * GRAIN_BYTES);
        let mut large = buffers.take(9 * GRAIN_BYTES).await;
        assert_eq!(large.first_mut(9 * GRAIN_BYTES).len(), 9 * GRAIN_BYTES);
        assert!(buffers.take(1).now_or_never().is_none());
        drop(large);
        assert!(buffers.take(1).now_or_never().is_some());
    }
}

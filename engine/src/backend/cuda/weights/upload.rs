//! Weights to the device: from a mapped file through pinned memory.
//!
//! A pageable copy goes at some 10 GB/s, a pinned one at 55. So several threads copy, and convert
//! where the model computes in another type, from the mapping into one of a few pinned buffers while
//! the device takes the ones before it. The host's reads from the page cache are what limits it.

mod convert;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::backend::cuda::driver::address::Span;
use crate::backend::cuda::driver::device::{Device, Priority, Stream};
use crate::backend::cuda::driver::pinned::PinnedMemory;
use crate::backend::cuda::driver::tensor_map::ElementType;
use crate::error::EngineError;
use crate::weights::WeightDtype;

/// Of each pinned buffer: long enough for all threads to have their part of it.
const STAGING_BYTES: usize = 32 << 20;

/// Pinned buffers: one is written while the others are on their way.
const STAGINGS: usize = 3;

/// What one thread converts at a time, bytes of the result.
const PIECE_BYTES: usize = 1 << 20;

/// Where each copy begins in a pinned buffer, so that the device reads whole lines.
const ALIGNMENT: usize = 256;

/// Past this many threads the page cache gives no more.
const THREADS_MAX: usize = 8;

/// Copies weights to the device, in order and ahead of it.
#[derive(Debug)]
pub(crate) struct Uploader {
    stream: Stream,
    stagings: Vec<PinnedMemory>,
    /// Which one is being written, and how far.
    current: usize,
    used: usize,
    threads: ThreadPool,
}

// === impl Uploader ===

impl Uploader {
    /// Takes pinned memory and starts threads; both end with it.
    ///
    /// # Errors
    /// [`EngineError::Device`] if there is no memory to pin, or no threads to be had.
    pub(crate) fn new(device: &Device) -> Result<Self, EngineError> {
        let stagings = (0..STAGINGS)
            .map(|_| PinnedMemory::new(device, STAGING_BYTES))
            .collect::<Result<_, _>>()?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = ThreadPoolBuilder::new()
            .num_threads(cores.min(THREADS_MAX))
            .thread_name(|index| format!("upload-{index}"))
            .build()
            .map_err(|why| EngineError::Device(format!("starting threads: {why}")))?;
        let stream = Stream::new(device, Priority::Normal)?;
        Ok(Self { stream, stagings, current: 0, used: 0, threads })
    }

    /// The stream that the copies are submitted to.
    #[must_use]
    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Copies numbers to the device, converted to `element`, rounding to the nearest. Returns when
    /// `bytes` has been read; the device has it after [`Uploader::finish`].
    ///
    /// - `to`: room for as many elements.
    /// - `bytes`: numbers of type `dtype`, little-endian.
    ///
    /// # Errors
    /// [`EngineError::Device`] if a copy fails.
    pub(crate) fn copy(
        &mut self,
        to: Span<'_>,
        element: ElementType,
        dtype: WeightDtype,
        bytes: &[u8],
    ) -> Result<(), EngineError> {
        let elements = bytes.len() / dtype.bytes();
        let mut done = 0;
        while done < elements {
            let room = self.room()? / element.bytes();
            let count = room.min(elements - done);
            let from = &bytes[done * dtype.bytes()..(done + count) * dtype.bytes()];
            let part = to.part(done * element.bytes()..(done + count) * element.bytes());
            self.stage(part, element, dtype, from)?;
            done += count;
        }
        Ok(())
    }

    /// Waits until everything is on the device.
    ///
    /// # Errors
    /// [`EngineError::Device`] if a copy failed.
    pub(crate) fn finish(&mut self) -> Result<(), EngineError> {
        self.stream.synchronize()
    }

    /// Bytes that fit the current buffer; goes on to the next where it is full.
    fn room(&mut self) -> Result<usize, EngineError> {
        if self.used == STAGING_BYTES {
            self.stagings[self.current].mark(&self.stream)?;
            self.current = (self.current + 1) % STAGINGS;
            self.used = 0;
        }
        Ok(STAGING_BYTES - self.used)
    }

    /// Converts what fits the current buffer, and submits the copy of it.
    fn stage(
        &mut self,
        to: Span<'_>,
        element: ElementType,
        dtype: WeightDtype,
        from: &[u8],
    ) -> Result<(), EngineError> {
        let bytes = from.len() / dtype.bytes() * element.bytes();
        let memory = &mut self.stagings[self.current];
        let staged = self.used..self.used + bytes;
        let out = memory.host::<u8>(staged.clone())?;
        let from_piece = PIECE_BYTES / element.bytes() * dtype.bytes();
        let convert = |(out, from): (&mut [u8], &[u8])| convert::convert(element, out, dtype, from);
        if bytes <= PIECE_BYTES {
            convert((out, from));
        } else {
            self.threads.install(|| {
                out.par_chunks_mut(PIECE_BYTES).zip(from.par_chunks(from_piece)).for_each(convert);
            });
        }
        self.used = (self.used + bytes).next_multiple_of(ALIGNMENT).min(STAGING_BYTES);
        self.stream.copy(to, memory.lend(staged))
    }
}

//! Host memory that the device reads and writes directly.
//!
//! The host and the device take turns: what is lent to the device is the host's again once the event behind
//! that work has passed, and not before.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ops::Range;

use bytemuck::Pod;
use cudarc::driver::{result, sys};

use super::address::Span;
use super::device::{Device, Event, Stream, failed};
use super::memory::gibibytes;
use crate::error::EngineError;

/// Pinned memory, lent to the device and taken back. Its contents begin as zeros.
#[derive(Debug)]
pub(crate) struct PinnedMemory {
    device: Device,
    host: *mut u8,
    bytes: usize,
    /// So many first bytes may be in use by the device.
    lent_bytes: usize,
    /// Behind the work that they were lent for.
    done: Event,
    /// Whether it is behind all of that.
    is_marked: bool,
}

// === impl PinnedMemory ===

impl PinnedMemory {
    /// Takes memory from the host and pins it.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the system has no more memory to pin.
    pub(crate) fn new(device: &Device, bytes: usize) -> Result<Self, EngineError> {
        device.bind()?;
        let done = Event::new(device)?;
        // Of use to every context of the process, not just to the one current here.
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE;
        // SAFETY: an allocation; it is made fit to read on the next line.
        let host = unsafe { result::malloc_host(bytes.max(1), flags) }
            .map_err(|why| {
                failed(&format!("pinning {} of host memory", gibibytes(bytes as u64)), why)
            })?
            .cast::<u8>();
        // SAFETY: `host` points to at least `bytes` fresh bytes.
        unsafe { host.write_bytes(0, bytes) };
        Ok(Self { device: device.clone(), host, bytes, lent_bytes: 0, done, is_marked: true })
    }

    /// How long it is.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A part of it for the device to read or write, by work that is submitted before [`PinnedMemory::mark`].
    ///
    /// # Panics
    /// If the part isn't all in it.
    pub(crate) fn lend(&mut self, part: Range<usize>) -> Span<'_> {
        self.lent_bytes = self.lent_bytes.max(part.end);
        self.is_marked = false;
        Span::of_memory(self.host as u64, self.bytes).part(part)
    }

    /// Says that all work which anything was lent for has been submitted to `stream`, or to what that waits for.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses.
    pub(crate) fn mark(&mut self, stream: &Stream) -> Result<(), EngineError> {
        stream.record(&self.done)?;
        self.is_marked = true;
        Ok(())
    }

    /// A part of it for the host, as whole numbers of `T`; a rest is left out. Waits for the device where that
    /// may use some of it: for the mark, or, where there is none, for all that it has to do.
    ///
    /// # Errors
    /// [`EngineError::Device`] if something failed that is waited for.
    ///
    /// # Panics
    /// If the part isn't all in it, or not aligned for a `T`.
    pub(crate) fn host<T: Pod>(&mut self, part: Range<usize>) -> Result<&mut [T], EngineError> {
        if part.start < self.lent_bytes {
            self.take_back()?;
        }
        assert!(part.start <= part.end && part.end <= self.bytes, "{part:?} of {}", self.bytes);
        assert!(part.start.is_multiple_of(align_of::<T>()), "numbers are aligned");
        // SAFETY: within `bytes` initialized bytes, aligned to a page and then to a `T`, any bits of which make
        // one; `self` is borrowed alone, and the device is done with all of it or was lent only what lies before.
        Ok(unsafe {
            std::slice::from_raw_parts_mut(
                self.host.add(part.start).cast(),
                part.len() / size_of::<T>(),
            )
        })
    }

    /// Waits until the device uses none of it.
    fn take_back(&mut self) -> Result<(), EngineError> {
        if self.lent_bytes > 0 {
            match self.is_marked {
                true => self.done.synchronize()?,
                // Something failed on the way.
                false => self.device.synchronize()?,
            }
            self.lent_bytes = 0;
        }
        Ok(())
    }
}

impl Drop for PinnedMemory {
    fn drop(&mut self) {
        // Copies that were submitted may still be running, and freeing doesn't promise to wait.
        let is_back = self.device.bind().and_then(|()| self.take_back());
        // SAFETY: made by `new` and freed nowhere else. Of a context that is broken nothing can be given back,
        // so the error says nothing new.
        let _ = is_back.map(|()| unsafe { result::free_host(self.host.cast::<c_void>()) });
    }
}

// SAFETY: plain memory with one owner.
unsafe impl Send for PinnedMemory {}
// SAFETY: shared references only tell its length.
unsafe impl Sync for PinnedMemory {}

//! Memory on the device, and copies to it and from it.
#![allow(unsafe_code)]

use std::ops::Range;

use bytemuck::Pod;
use cudarc::driver::{DriverError, result, sys};

use super::address::{Address, Span};
use super::device::{Device, Stream, failed};
use crate::error::EngineError;

/// Memory on the device. Its contents begin undefined.
///
/// Made by `cuMemAlloc`, never by a pool, so that other processes can be given a handle to it.
/// Aligned to 256 bytes at least.
#[derive(Debug)]
pub(crate) struct DeviceMemory {
    device: Device,
    address: u64,
    bytes: usize,
}

// === impl DeviceMemory ===

impl DeviceMemory {
    /// Takes memory from the device.
    ///
    /// # Errors
    /// [`EngineError::Device`] says how much was wanted and how much is free.
    pub(crate) fn new(device: &Device, bytes: usize) -> Result<Self, EngineError> {
        device.bind()?;
        // The driver has no allocation of no bytes.
        // SAFETY: nothing is read before it is written; that is the user's part, and no concern of
        // the host's memory.
        let address = unsafe { result::malloc_sync(bytes.max(1)) }
            .map_err(|why| no_memory(device, bytes, why))?;
        Ok(Self { device: device.clone(), address, bytes })
    }

    /// All of it.
    pub(crate) fn all(&self) -> Span<'_> {
        Span::of_memory(self.address, self.bytes)
    }

    /// Some of it: see [`Span::part`].
    pub(crate) fn part(&self, part: Range<usize>) -> Span<'_> {
        self.all().part(part)
    }

    /// Where it begins.
    pub(crate) fn address(&self) -> Address {
        self.all().address()
    }

    /// Where the byte `offset` of it lies: see [`Span::at`].
    pub(crate) fn at(&self, offset: usize) -> Address {
        self.all().at(offset)
    }

    /// How long it is.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whose memory it is.
    #[must_use]
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // The driver waits for the work that was submitted before it gives the memory away.
        // SAFETY: made by `new` and freed nowhere else. Of a context that is broken nothing can be
        // given back, so the error says nothing new.
        let _ = self.device.bind().map(|()| unsafe { result::free_sync(self.address) });
    }
}

fn no_memory(device: &Device, bytes: usize, why: DriverError) -> EngineError {
    if why.0 != sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
        return failed("taking device memory", why);
    }
    let free = device.free_memory().unwrap_or(0);
    EngineError::Device(format!(
        "not enough GPU memory: {} more are needed, {} are free of {}. Stop what else runs on this \
         GPU (see `nvidia-smi`), lower `engine.gpu_memory_utilization` or give the KV cache less \
         (`engine.kv_memory_mib`), or use a smaller model",
        gibibytes(bytes as u64),
        gibibytes(free),
        gibibytes(device.properties().memory_bytes)
    ))
}

pub(super) fn gibibytes(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30))
}

// === impl Stream ===

impl Stream {
    /// Copies between two places of one length. Returns before it is done: memory that is dropped meanwhile waits
    /// for it.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses.
    ///
    /// # Panics
    /// If the lengths differ.
    pub(crate) fn copy(&self, to: Span<'_>, from: Span<'_>) -> Result<(), EngineError> {
        assert_eq!(to.bytes(), from.bytes(), "a copy is as long as what is copied");
        if to.bytes() == 0 {
            return Ok(());
        }
        let (to, from, bytes) = (to.address().number(), from.address().number(), to.bytes());
        // SAFETY: both are within memory that is alive, and whose end waits for the copy.
        unsafe { sys::cuMemcpyAsync(to, from, bytes, self.raw()) }
            .result()
            .map_err(|why| failed("copying", why))
    }

    /// Sets bytes of device memory. Returns before it is done.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses.
    pub(crate) fn fill(&self, to: Span<'_>, value: u8) -> Result<(), EngineError> {
        if to.bytes() == 0 {
            return Ok(());
        }
        // SAFETY: as for `copy`.
        unsafe { result::memset_d8_async(to.address().number(), value, to.bytes(), self.raw()) }
            .map_err(|why| failed("filling", why))
    }

    /// Copies `values` to the device and waits for it. Small or rare things only: see
    /// [`crate::backend::cuda::weights::upload::Uploader`] for weights.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the copy or anything before it in the stream failed.
    ///
    /// # Panics
    /// If the lengths differ.
    pub(crate) fn write<T: Pod>(&self, to: Span<'_>, values: &[T]) -> Result<(), EngineError> {
        assert_eq!(to.bytes(), size_of_val(values), "a copy is as long as what is copied");
        if values.is_empty() {
            return Ok(());
        }
        // SAFETY: `values` is borrowed until the copy is done; the device's side is as for `copy`.
        unsafe { result::memcpy_htod_async(to.address().number(), values, self.raw()) }
            .map_err(|why| failed("copying to the device", why))?;
        self.synchronize()
    }

    /// Copies from the device into `values` and waits for it.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the copy or anything before it in the stream failed.
    ///
    /// # Panics
    /// If the lengths differ.
    pub(crate) fn read<T: Pod>(&self, values: &mut [T], from: Span<'_>) -> Result<(), EngineError> {
        assert_eq!(from.bytes(), size_of_val(values), "a copy is as long as what is copied");
        if values.is_empty() {
            return Ok(());
        }
        // SAFETY: `values` is borrowed until the copy is done, and any bits make a `T`; the
        // device's side is as for `copy`.
        unsafe { result::memcpy_dtoh_async(values, from.address().number(), self.raw()) }
            .map_err(|why| failed("copying to the host", why))?;
        self.synchronize()
    }
}

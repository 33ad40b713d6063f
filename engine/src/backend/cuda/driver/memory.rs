//! Memory on the device, pinned memory on the host, and copies between them.
#![allow(unsafe_code)]

use std::ffi::c_void;

use bytemuck::Pod;
use cudarc::driver::{DriverError, result, sys};

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

/// Host memory that the device reads and writes directly. Its contents begin as zeros.
#[derive(Debug)]
pub(crate) struct PinnedMemory {
    device: Device,
    host: *mut u8,
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

    /// Where it begins; valid on the device, and never to be followed on the host.
    #[must_use]
    pub(crate) fn address(&self) -> u64 {
        self.address
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

fn gibibytes(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30))
}

// === impl PinnedMemory ===

impl PinnedMemory {
    /// Takes memory from the host and pins it.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the system has no more memory to pin.
    pub(crate) fn new(device: &Device, bytes: usize) -> Result<Self, EngineError> {
        device.bind()?;
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
        Ok(Self { device: device.clone(), host, bytes })
    }

    /// Where it begins, for the device and for the host alike.
    #[must_use]
    pub(crate) fn address(&self) -> u64 {
        self.host as u64
    }

    /// How long it is.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of it, as whole numbers of `T`; a rest is left out.
    ///
    /// Whoever submitted work that writes here waits for it first.
    #[must_use]
    pub(crate) fn as_slice<T: Pod>(&self) -> &[T] {
        // SAFETY: `bytes` initialized bytes, aligned to a page; any bits make a `T`. That the device
        // isn't writing is the user's part, as documented.
        unsafe { std::slice::from_raw_parts(self.host.cast(), self.bytes / size_of::<T>()) }
    }

    /// As [`PinnedMemory::as_slice`]; whoever submitted work that reads here waits for it first.
    #[must_use]
    pub(crate) fn as_mut_slice<T: Pod>(&mut self) -> &mut [T] {
        // SAFETY: as for `as_slice`, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.host.cast(), self.bytes / size_of::<T>()) }
    }
}

impl Drop for PinnedMemory {
    fn drop(&mut self) {
        // Copies that were submitted may still be running, and freeing doesn't promise to wait.
        // SAFETY: made by `new` and freed nowhere else; an error says nothing new, as above.
        let _ = self
            .device
            .synchronize()
            .map(|()| unsafe { result::free_host(self.host.cast::<c_void>()) });
    }
}

// SAFETY: plain memory with one owner.
unsafe impl Send for PinnedMemory {}
// SAFETY: shared references only read it.
unsafe impl Sync for PinnedMemory {}

// === impl Stream ===

impl Stream {
    /// Copies between two places that the device knows: device memory or pinned memory. Returns
    /// before it is done; both must live until then.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses.
    pub(crate) fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), EngineError> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: addresses outside of what the driver knows are refused by it; what is inside is
        // the caller's, as documented.
        unsafe { sys::cuMemcpyAsync(to, from, bytes, self.raw()) }
            .result()
            .map_err(|why| failed("copying", why))
    }

    /// Sets bytes of device memory. Returns before it is done.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses.
    pub(crate) fn fill(&self, address: u64, value: u8, bytes: usize) -> Result<(), EngineError> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: as for `copy`.
        unsafe { result::memset_d8_async(address, value, bytes, self.raw()) }
            .map_err(|why| failed("filling", why))
    }

    /// Copies `values` to the device and waits for it. Small or rare things only: see
    /// [`crate::backend::cuda::weights::upload::Uploader`] for weights.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the copy or anything before it in the stream failed.
    pub(crate) fn write<T: Pod>(&self, address: u64, values: &[T]) -> Result<(), EngineError> {
        if values.is_empty() {
            return Ok(());
        }
        // SAFETY: `values` is borrowed until the copy is done; the device's side is as for `copy`.
        unsafe { result::memcpy_htod_async(address, values, self.raw()) }
            .map_err(|why| failed("copying to the device", why))?;
        self.synchronize()
    }

    /// Copies from the device into `values` and waits for it.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the copy or anything before it in the stream failed.
    pub(crate) fn read<T: Pod>(&self, values: &mut [T], address: u64) -> Result<(), EngineError> {
        if values.is_empty() {
            return Ok(());
        }
        // SAFETY: `values` is borrowed until the copy is done, and any bits make a `T`; the
        // device's side is as for `copy`.
        unsafe { result::memcpy_dtoh_async(values, address, self.raw()) }
            .map_err(|why| failed("copying to the host", why))?;
        self.synchronize()
    }
}

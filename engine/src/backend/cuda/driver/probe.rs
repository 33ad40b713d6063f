//! Finds NVIDIA GPUs without needing a driver to be there.
#![allow(unsafe_code)]

use cudarc::driver::{DriverError, result, sys};

use super::device::CAPABILITY_MIN;
use crate::backend::cuda::libraries::{CudaUnavailable, Libraries, require_driver};
use crate::error::EngineError;

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuInfo {
    /// As the driver calls it, e.g. `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Major and minor, e.g. `(9, 0)`.
    pub compute_capability: (u32, u32),
    /// Device memory in all.
    pub memory_bytes: u64,
}

/// The GPUs of this machine, in the driver's order.
///
/// # Errors
/// [`CudaUnavailable`] says how far it got. Never panics where there is no driver.
pub fn probe() -> Result<Vec<GpuInfo>, CudaUnavailable> {
    require_driver(&[])?;
    let count = result::device::get_count()?;
    if count == 0 {
        return Err(CudaUnavailable::NoDevice);
    }
    Ok((0..count).map(describe).collect::<Result<_, _>>()?)
}

/// The number of the first GPU that the kernels run on, if there is any.
#[must_use]
pub fn first_usable() -> Option<usize> {
    let gpus = probe().ok()?;
    gpus.iter().position(|gpu| gpu.compute_capability >= CAPABILITY_MIN)
}

/// CUDA's other libraries by name, and whether each can be loaded; if not, what to do about it.
pub fn libraries() -> [(&'static str, Result<(), String>); 2] {
    let libraries = Libraries::new(Vec::new());
    let found = |loaded: Result<(), EngineError>| loaded.map_err(|why| why.to_string());
    [
        ("NVRTC", found(libraries.nvrtc().map(|_| ()))),
        ("cuBLAS", found(libraries.cublaslt().map(|_| ()))),
    ]
}

fn describe(ordinal: i32) -> Result<GpuInfo, DriverError> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    let device = result::device::get(ordinal)?;
    // SAFETY: `device` is a handle that the driver just gave for an ordinal it counted.
    let (major, minor, memory_bytes) = unsafe {
        (
            result::device::get_attribute(device, MAJOR)?,
            result::device::get_attribute(device, MINOR)?,
            result::device::total_mem(device)?,
        )
    };
    Ok(GpuInfo {
        name: result::device::get_name(device)?,
        compute_capability: (major.unsigned_abs(), minor.unsigned_abs()),
        memory_bytes: memory_bytes as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probing_says_something_and_never_panics() {
        match probe() {
            Ok(gpus) => {
                assert!(gpus.iter().all(|gpu| gpu.memory_bytes > 0 && !gpu.name.is_empty()));
            }
            Err(reason) => assert!(!reason.to_string().is_empty()),
        }
    }
}

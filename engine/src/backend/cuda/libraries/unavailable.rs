//! Why there is no GPU to use.

use cudarc::driver::{DriverError, sys};

/// Why no GPU can be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CudaUnavailable {
    /// There is no `libcuda` to load: no NVIDIA driver on this machine or in this container.
    #[error(
        "no NVIDIA driver: libcuda.so.1 was not found. On a machine with an NVIDIA GPU install its \
         driver; in a container start it with the GPU, e.g. `docker run --gpus all`"
    )]
    NoDriver,
    /// The driver is older than the kernels' compiler.
    #[error("the NVIDIA driver is for CUDA {have}: update it to one for CUDA {need} or newer")]
    OldDriver {
        /// The newest CUDA that the driver knows.
        have: String,
        /// The oldest that will do.
        need: String,
    },
    /// The driver is there and refuses.
    #[error("the NVIDIA driver refuses: {0}")]
    Driver(String),
    /// The driver works and has no device.
    #[error("the NVIDIA driver sees no GPU")]
    NoDevice,
}

impl From<DriverError> for CudaUnavailable {
    fn from(error: DriverError) -> Self {
        match error.0 {
            sys::CUresult::CUDA_ERROR_NO_DEVICE => Self::NoDevice,
            _ => Self::Driver(error.to_string()),
        }
    }
}

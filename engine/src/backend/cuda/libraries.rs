//! CUDA's libraries: found and loaded at run time, so that a binary starts where there are none.

pub(super) mod cublaslt;
mod find;
pub(super) mod nvrtc;
mod unavailable;

pub(super) use self::find::{Libraries, require_driver};
pub use self::unavailable::CudaUnavailable;

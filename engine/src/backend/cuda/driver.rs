//! CUDA made safe: devices, memory, streams, kernels, and the libraries that come with it.

pub mod compiler;
pub mod cublaslt;
pub mod device;
pub mod element;
pub(crate) mod files;
pub mod graph;
pub(crate) mod green;
pub mod kernel;
pub mod library;
pub mod memory;
pub mod nvrtc;
pub(crate) mod probe;
pub mod sources;
pub mod tensor_map;

//! CUDA made safe: devices, memory, streams, kernels, and the libraries that come with it.

pub(super) mod address;
pub(super) mod compiler;
pub(super) mod cublaslt;
pub(super) mod device;
pub(super) mod element;
pub(crate) mod files;
pub(super) mod graph;
pub(crate) mod green;
pub(super) mod kernel;
pub(super) mod library;
pub(super) mod memory;
pub(super) mod nvrtc;
pub(super) mod pinned;
pub(crate) mod probe;
pub(super) mod sources;
pub(super) mod tensor_map;

#[cfg(test)]
mod tests;

//! CUDA's driver made safe: devices, memory, streams, kernels.

pub(super) mod address;
pub(super) mod device;
pub(super) mod element;
pub(super) mod graph;
pub(crate) mod green;
pub(super) mod kernel;
pub(super) mod memory;
pub(super) mod module;
pub(super) mod pinned;
pub(crate) mod probe;
pub(super) mod tensor_map;

#[cfg(test)]
mod tests;

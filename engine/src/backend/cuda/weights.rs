//! Weights on the device, and how they come there.

pub(crate) mod load;
pub mod random;
pub mod upload;

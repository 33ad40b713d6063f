//! Weights on the device, and how they come there.

pub(crate) mod load;
pub(super) mod random;
pub(super) mod upload;

#[cfg(test)]
mod tests;

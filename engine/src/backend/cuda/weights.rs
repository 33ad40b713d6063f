//! Weights and activations on the device, and how weights come there.

pub(crate) mod load;
pub(super) mod random;
pub(super) mod tensor;
pub(super) mod upload;

#[cfg(test)]
mod tests;

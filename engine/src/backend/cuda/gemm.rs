//! Products with weights: which kernel does which, and the kernels' twins.

pub(crate) mod choose;
pub(super) mod library;
pub(super) mod skinny;
pub(super) mod tiled;

#[cfg(test)]
mod tests;

//! Products with weights: which kernel does which, and the kernels' twins.

pub(crate) mod choose;
pub mod library;
pub mod skinny;
pub mod tiled;

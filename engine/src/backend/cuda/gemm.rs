//! Products with weights: which kernel does which, and the kernels' twins.

pub(crate) mod choose;
mod cublaslt;
pub(super) mod library;
pub(super) mod skinny;
pub(super) mod tiled;

#[cfg(test)]
mod tests;

/// What a product writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Epilogue {
    /// Elements.
    Plain,
    /// 32-bit floats.
    F32,
    /// Elements: `silu(gate) * up`, where the weight is `[2 * outputs, inputs]`, gates first.
    Gated,
}

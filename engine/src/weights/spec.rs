//! What is asked of a checkpoint: names, and the shapes that the configuration gives them.

/// A matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MatrixSpec {
    /// Without what its format adds: `lm_head`, of which `lm_head.weight` is dense.
    pub(crate) name: String,
    /// Outputs.
    pub(crate) rows: usize,
    /// Inputs.
    pub(crate) cols: usize,
}

/// A vector: dense in every format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VectorSpec {
    /// In full.
    pub(crate) name: String,
    pub(crate) len: usize,
}

// === impl MatrixSpec ===

impl MatrixSpec {
    pub(crate) fn new(name: impl Into<String>, rows: usize, cols: usize) -> Self {
        Self { name: name.into(), rows, cols }
    }

    /// The name of the tensor that a format calls so.
    pub(crate) fn tensor(&self, part: &str) -> String {
        format!("{}.{part}", self.name)
    }
}

// === impl VectorSpec ===

impl VectorSpec {
    pub(crate) fn new(name: impl Into<String>, len: usize) -> Self {
        Self { name: name.into(), len }
    }
}

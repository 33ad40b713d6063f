//! What a layer is made of, as a family describes it: its parts, with their tensors' names and shapes.
//!
//! A new kind of attention or of MLP is a variant here and a part in `crate::model`.

use super::HeadShape;
use crate::weights::{MatrixSpec, VectorSpec};

/// One transformer layer.
pub(crate) struct LayerSpec {
    /// Before attention.
    pub(crate) attention_norm: VectorSpec,
    pub(crate) attention: AttentionSpec,
    /// Before the MLP.
    pub(crate) mlp_norm: VectorSpec,
    pub(crate) mlp: MlpSpec,
}

/// Which attention.
pub(crate) enum AttentionSpec {
    Grouped(GroupedSpec),
}

/// Query heads in groups that share a key/value head.
pub(crate) struct GroupedSpec {
    pub(crate) heads: HeadShape,
    /// How many tokens back a row sees, itself included.
    pub(crate) window: Option<u32>,
    /// Queries, keys and values.
    pub(crate) qkv: ProjectionSpec,
    /// Norm of each head's queries.
    pub(crate) q_norm: Option<VectorSpec>,
    /// Norm of each head's keys.
    pub(crate) k_norm: Option<VectorSpec>,
    pub(crate) output: ProjectionSpec,
}

/// Which MLP.
pub(crate) enum MlpSpec {
    Gated(GatedSpec),
}

/// `down(silu(gate) * up)`.
pub(crate) struct GatedSpec {
    /// Gates, then ups.
    pub(crate) gate_up: ProjectionSpec,
    pub(crate) down: ProjectionSpec,
}

/// Matrices of one input that become one, with their biases.
pub(crate) struct ProjectionSpec {
    pub(crate) weights: Vec<MatrixSpec>,
    /// One for each, or none.
    pub(crate) biases: Vec<VectorSpec>,
}

// === impl LayerSpec ===

impl LayerSpec {
    /// Matrices and vectors in all.
    pub(crate) fn count(&self) -> usize {
        let attention = match &self.attention {
            AttentionSpec::Grouped(part) => {
                let norms = [&part.q_norm, &part.k_norm].into_iter().flatten().count();
                part.qkv.count() + norms + part.output.count()
            }
        };
        let mlp = match &self.mlp {
            MlpSpec::Gated(part) => part.gate_up.count() + part.down.count(),
        };
        2 + attention + mlp
    }
}

// === impl ProjectionSpec ===

impl ProjectionSpec {
    /// - `parts`: what each is called after `prefix`, and its outputs.
    pub(crate) fn fused(
        prefix: &str,
        parts: &[(&str, usize)],
        inputs: usize,
        has_bias: bool,
    ) -> Self {
        let matrix = |&(part, rows): &(&str, usize)| {
            MatrixSpec::new(format!("{prefix}.{part}"), rows, inputs)
        };
        let bias =
            |&(part, rows): &(&str, usize)| VectorSpec::new(format!("{prefix}.{part}.bias"), rows);
        let biases = if has_bias { parts.iter().map(bias).collect() } else { Vec::new() };
        Self { weights: parts.iter().map(matrix).collect(), biases }
    }

    fn count(&self) -> usize {
        self.weights.len() + self.biases.len()
    }
}

//! The kernels' sources, and how they are compiled for checks.

/// A kernel file compiled in one way.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// The file.
    pub file: &'static str,
    /// Constants, each as `NAME=value` or `NAME`.
    pub defines: &'static [&'static str],
    /// Whether it uses what only compute capability 9.0 has.
    pub hopper_only: bool,
}

/// Embeds files of `engine/kernels`.
macro_rules! embed {
    ($($file:literal),* $(,)?) => {
        &[$(($file, include_str!(concat!("../../../kernels/", $file)))),*]
    };
}

/// What kernels include: name and text.
pub const HEADERS: &[(&str, &str)] = embed![
    "cluster.cuh",
    "common.cuh",
    "decode_combine.cuh",
    "logits.cuh",
    "sampling.cuh",
    "wgmma.cuh"
];

/// The kernels: name and text.
pub const SOURCES: &[(&str, &str)] = embed![
    "bandwidth.cu",
    "decode_attention.cu",
    "pages.cu",
    "portable_attention.cu",
    "prefill_attention.cu",
    "random.cu",
    "rows.cu",
    "sampling.cu",
    "skinny_matmul.cu",
    "softmax.cu",
    "tiled_matmul.cu",
];

/// What the checks compile: every kernel, for a model like Llama 3.1 8B and for a small, odd one.
pub const VARIANTS: &[Variant] = &[
    Variant::portable("bandwidth.cu", &[]),
    Variant::portable("decode_attention.cu", &["HEAD_DIM=128", "BLOCK_TOKENS=16", "GROUP=4"]),
    Variant::portable(
        "decode_attention.cu",
        &["HEAD_DIM=24", "BLOCK_TOKENS=32", "GROUP=3", "ELEMENT_F16"],
    ),
    Variant::hopper("decode_attention.cu", &["HEAD_DIM=128", "BLOCK_TOKENS=16", "GROUP=4", "BULK"]),
    Variant::portable("pages.cu", &[]),
    Variant::portable("portable_attention.cu", &["HEAD_DIM=128", "BLOCK_TOKENS=16"]),
    Variant::portable("portable_attention.cu", &["HEAD_DIM=24", "BLOCK_TOKENS=32", "ELEMENT_F16"]),
    Variant::hopper("prefill_attention.cu", &["HEAD_DIM=128", "BLOCK_TOKENS=16", "PACK=4"]),
    Variant::hopper("prefill_attention.cu", &["HEAD_DIM=64", "BLOCK_TOKENS=64", "ELEMENT_F16"]),
    Variant::portable("random.cu", &[]),
    Variant::portable("random.cu", &["ELEMENT_F16"]),
    Variant::portable(
        "rows.cu",
        &["HIDDEN=4096", "HEADS=32", "KV_HEADS=8", "HEAD_DIM=128", "BLOCK_TOKENS=16"],
    ),
    Variant::portable(
        "rows.cu",
        &["HIDDEN=216", "HEADS=9", "KV_HEADS=3", "HEAD_DIM=24", "BLOCK_TOKENS=32", "ELEMENT_F16"],
    ),
    Variant::hopper("sampling.cu", &["VOCAB=128256", "CLUSTER=8", "RESIDENT=1"]),
    Variant::portable("sampling.cu", &["VOCAB=128256"]),
    Variant::portable("sampling.cu", &["VOCAB=1003", "RESIDENT=1", "ALIGNED=0"]),
    Variant::portable("softmax.cu", &[]),
    Variant::hopper(
        "skinny_matmul.cu",
        &["ROWS=32", "WARPGROUPS=1", "W_PIECES=4", "X_PIECES=4", "ELEMENT_F16"],
    ),
    Variant::hopper("skinny_matmul.cu", &["ROWS=48", "WARPGROUPS=1", "W_PIECES=4", "X_PIECES=2"]),
    Variant::hopper(
        "skinny_matmul.cu",
        &["ROWS=112", "WARPGROUPS=1", "W_PIECES=1", "X_PIECES=1", "GATED"],
    ),
    Variant::hopper(
        "skinny_matmul.cu",
        &["ROWS=128", "WARPGROUPS=2", "W_PIECES=1", "X_PIECES=1", "OUT_F32"],
    ),
    Variant::hopper("tiled_matmul.cu", &["ROWS=256", "STAGES=4", "SHARED_WEIGHTS", "GATED"]),
    Variant::hopper("tiled_matmul.cu", &["ROWS=224", "STAGES=4", "GATED"]),
    Variant::hopper("tiled_matmul.cu", &["ROWS=64", "STAGES=9", "GATED", "ELEMENT_F16"]),
    Variant::hopper("tiled_matmul.cu", &["ROWS=64", "STAGES=8", "SPLIT_SUM"]),
];

/// The text of a kernel file.
#[must_use]
pub fn source(file: &str) -> Option<&'static str> {
    SOURCES.iter().find(|(name, _)| *name == file).map(|(_, text)| *text)
}

// === impl Variant ===

impl Variant {
    /// For every GPU.
    const fn portable(file: &'static str, defines: &'static [&'static str]) -> Self {
        Self { file, defines, hopper_only: false }
    }

    /// For compute capability 9.0.
    const fn hopper(file: &'static str, defines: &'static [&'static str]) -> Self {
        Self { file, defines, hopper_only: true }
    }
}

//! In which ways the kernels are compiled for checks.

/// A kernel file compiled in one way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variant {
    /// The file.
    pub(super) file: &'static str,
    /// Constants, each as `NAME=value` or `NAME`.
    pub(super) defines: &'static [&'static str],
    /// Whether it uses what only compute capability 9.0 has.
    pub(super) hopper_only: bool,
}

/// What the checks compile: every kernel, for a model like Llama 3.1 8B and for a small, odd one.
pub(super) const VARIANTS: &[Variant] = &[
    Variant::portable("measure/bandwidth.cu", &["THREADS=512"]),
    Variant::portable("attention/decode.cu", &["HEAD_DIM=128", "BLOCK_TOKENS=16", "GROUP=4"]),
    Variant::portable(
        "attention/decode.cu",
        &["HEAD_DIM=24", "BLOCK_TOKENS=32", "GROUP=3", "ELEMENT_F16"],
    ),
    Variant::hopper("attention/decode.cu", &["HEAD_DIM=128", "BLOCK_TOKENS=16", "GROUP=4", "BULK"]),
    Variant::portable("kv.cu", &[]),
    Variant::portable("attention/portable.cu", &["HEAD_DIM=128", "BLOCK_TOKENS=16"]),
    Variant::portable("attention/portable.cu", &["HEAD_DIM=24", "BLOCK_TOKENS=32", "ELEMENT_F16"]),
    Variant::hopper("attention/prefill.cu", &["HEAD_DIM=128", "BLOCK_TOKENS=16", "PACK=4"]),
    Variant::hopper("attention/prefill.cu", &["HEAD_DIM=64", "BLOCK_TOKENS=64", "ELEMENT_F16"]),
    Variant::portable("weights/random.cu", &[]),
    Variant::portable("weights/random.cu", &["ELEMENT_F16"]),
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
    Variant::portable("measure/softmax.cu", &["SOFTMAX_COLS=8192", "SOFTMAX_THREADS=512"]),
    Variant::hopper(
        "gemm/skinny.cu",
        &["ROWS=32", "WARPGROUPS=1", "W_PIECES=4", "X_PIECES=4", "ELEMENT_F16"],
    ),
    Variant::hopper("gemm/skinny.cu", &["ROWS=48", "WARPGROUPS=1", "W_PIECES=4", "X_PIECES=2"]),
    Variant::hopper(
        "gemm/skinny.cu",
        &["ROWS=112", "WARPGROUPS=1", "W_PIECES=1", "X_PIECES=1", "GATED"],
    ),
    Variant::hopper(
        "gemm/skinny.cu",
        &["ROWS=128", "WARPGROUPS=2", "W_PIECES=1", "X_PIECES=1", "OUT_F32"],
    ),
    Variant::hopper("gemm/tiled.cu", &["ROWS=256", "STAGES=4", "SHARED_WEIGHTS", "GATED"]),
    Variant::hopper("gemm/tiled.cu", &["ROWS=224", "STAGES=4", "GATED"]),
    Variant::hopper("gemm/tiled.cu", &["ROWS=64", "STAGES=9", "GATED", "ELEMENT_F16"]),
    Variant::hopper("gemm/tiled.cu", &["ROWS=64", "STAGES=8", "SPLIT_SUM"]),
];

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

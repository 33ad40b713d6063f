//! In which ways the kernels are compiled for checks.

use crate::backend::cuda::attention::{decode, portable, prefill};
use crate::backend::cuda::compile::Constants;
use crate::backend::cuda::gemm::{skinny, tiled};
use crate::backend::cuda::measure::{bandwidth, softmax};
use crate::backend::cuda::{kv, rows, sampling};

/// A kernel file compiled in one way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variant {
    /// The file.
    pub(super) file: &'static str,
    /// What it has from its twin.
    pub(super) constants: Constants,
    /// What a model and a device decide, each as `NAME=value` or `NAME`.
    pub(super) defines: &'static [&'static str],
    /// Whether it uses what only compute capability 9.0 has.
    pub(super) hopper_only: bool,
}

/// What the checks compile: every kernel, for a model like Llama 3.1 8B and for a small, odd one.
pub(super) const VARIANTS: &[Variant] = &[
    Variant::portable("measure/bandwidth.cu", bandwidth::CONSTANTS, &[]),
    Variant::portable(
        "attention/decode.cu",
        decode::CONSTANTS,
        &["HEAD_DIM=128", "BLOCK_TOKENS=16", "GROUP=4"],
    ),
    Variant::portable(
        "attention/decode.cu",
        decode::CONSTANTS,
        &["HEAD_DIM=24", "BLOCK_TOKENS=32", "GROUP=3", "ELEMENT_F16"],
    ),
    Variant::hopper(
        "attention/decode.cu",
        decode::CONSTANTS,
        &["HEAD_DIM=128", "BLOCK_TOKENS=16", "GROUP=4", "BULK"],
    ),
    Variant::portable("kv.cu", kv::CONSTANTS, &[]),
    Variant::portable(
        "attention/portable.cu",
        portable::CONSTANTS,
        &["HEAD_DIM=128", "BLOCK_TOKENS=16"],
    ),
    Variant::portable(
        "attention/portable.cu",
        portable::CONSTANTS,
        &["HEAD_DIM=24", "BLOCK_TOKENS=32", "ELEMENT_F16"],
    ),
    Variant::hopper(
        "attention/prefill.cu",
        prefill::CONSTANTS,
        &["HEAD_DIM=128", "BLOCK_TOKENS=16", "PACK=4", "CONSUMERS=2"],
    ),
    Variant::hopper(
        "attention/prefill.cu",
        prefill::CONSTANTS,
        &["HEAD_DIM=64", "BLOCK_TOKENS=64", "CONSUMERS=3", "ELEMENT_F16"],
    ),
    Variant::portable("weights/random.cu", &[], &[]),
    Variant::portable("weights/random.cu", &[], &["ELEMENT_F16"]),
    Variant::portable(
        "rows.cu",
        rows::CONSTANTS,
        &[
            "HIDDEN=4096",
            "HEADS=32",
            "KV_HEADS=8",
            "HEAD_DIM=128",
            "BLOCK_TOKENS=16",
            "ROPE_SPLITS=1",
        ],
    ),
    Variant::portable(
        "rows.cu",
        rows::CONSTANTS,
        &[
            "HIDDEN=216",
            "HEADS=9",
            "KV_HEADS=3",
            "HEAD_DIM=24",
            "BLOCK_TOKENS=32",
            "ROPE_SPLITS=1",
            "ELEMENT_F16",
        ],
    ),
    Variant::hopper(
        "sampling.cu",
        sampling::CONSTANTS,
        &["VOCAB=128256", "CLUSTER=8", "RESIDENT=1"],
    ),
    Variant::portable("sampling.cu", sampling::CONSTANTS, &["VOCAB=128256"]),
    Variant::portable(
        "sampling.cu",
        sampling::CONSTANTS,
        &["VOCAB=1003", "RESIDENT=1", "ALIGNED=0"],
    ),
    Variant::portable("measure/softmax.cu", softmax::CONSTANTS, &[]),
    Variant::hopper(
        "gemm/skinny.cu",
        skinny::CONSTANTS,
        &["ROWS=32", "WARPGROUPS=1", "W_PIECES=4", "X_PIECES=4", "ELEMENT_F16"],
    ),
    Variant::hopper(
        "gemm/skinny.cu",
        skinny::CONSTANTS,
        &["ROWS=48", "WARPGROUPS=1", "W_PIECES=4", "X_PIECES=2"],
    ),
    Variant::hopper(
        "gemm/skinny.cu",
        skinny::CONSTANTS,
        &["ROWS=112", "WARPGROUPS=1", "W_PIECES=1", "X_PIECES=1", "GATED"],
    ),
    Variant::hopper(
        "gemm/skinny.cu",
        skinny::CONSTANTS,
        &["ROWS=128", "WARPGROUPS=2", "W_PIECES=1", "X_PIECES=1", "OUT_F32"],
    ),
    Variant::hopper(
        "gemm/skinny.cu",
        skinny::CONSTANTS,
        &["ROWS=48", "TOKENS=8", "W_PIECES=4", "X_PIECES=4", "ELEMENT_F16"],
    ),
    Variant::hopper(
        "gemm/skinny.cu",
        skinny::CONSTANTS,
        &["ROWS=112", "TOKENS=32", "W_PIECES=1", "X_PIECES=1", "GATED"],
    ),
    Variant::hopper(
        "gemm/skinny.cu",
        skinny::CONSTANTS,
        &["ROWS=128", "TOKENS=32", "W_PIECES=1", "X_PIECES=1", "OUT_F32"],
    ),
    Variant::hopper(
        "gemm/tiled.cu",
        tiled::CONSTANTS,
        &["ROWS=256", "STAGES=4", "SHARED_WEIGHTS", "GATED"],
    ),
    Variant::hopper("gemm/tiled.cu", tiled::CONSTANTS, &["ROWS=224", "STAGES=4", "GATED"]),
    Variant::hopper(
        "gemm/tiled.cu",
        tiled::CONSTANTS,
        &["ROWS=64", "STAGES=9", "GATED", "ELEMENT_F16"],
    ),
    Variant::hopper("gemm/tiled.cu", tiled::CONSTANTS, &["ROWS=64", "STAGES=8", "SPLIT_SUM"]),
];

// === impl Variant ===

impl Variant {
    /// For every GPU.
    const fn portable(
        file: &'static str,
        constants: Constants,
        defines: &'static [&'static str],
    ) -> Self {
        Self { file, constants, defines, hopper_only: false }
    }

    /// For compute capability 9.0.
    const fn hopper(
        file: &'static str,
        constants: Constants,
        defines: &'static [&'static str],
    ) -> Self {
        Self { file, constants, defines, hopper_only: true }
    }
}

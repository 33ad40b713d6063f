//! The kernels' sources.

/// Embeds files of `engine/kernels`.
macro_rules! embed {
    ($($file:literal),* $(,)?) => {
        &[$(($file, include_str!(concat!("../../../../kernels/", $file)))),*]
    };
}

/// What kernels include: name and text.
pub(crate) const HEADERS: &[(&str, &str)] = embed![
    "common/cluster.cuh",
    "common/common.cuh",
    "attention/decode_combine.cuh",
    "attention/prefill_parts.cuh",
    "gemm/few.cuh",
    "sampling/logits.cuh",
    "sampling/sampling.cuh",
    "common/wgmma.cuh"
];

/// The kernels: name and text.
pub(crate) const SOURCES: &[(&str, &str)] = embed![
    "measure/bandwidth.cu",
    "attention/decode.cu",
    "kv.cu",
    "attention/portable.cu",
    "attention/prefill.cu",
    "weights/random.cu",
    "rows.cu",
    "sampling.cu",
    "gemm/skinny.cu",
    "measure/softmax.cu",
    "gemm/tiled.cu",
];

/// The text of a kernel file.
#[must_use]
pub(crate) fn source(file: &str) -> Option<&'static str> {
    SOURCES.iter().find(|(name, _)| *name == file).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests;

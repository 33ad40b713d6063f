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
pub const HEADERS: &[(&str, &str)] = embed!["common.cuh"];

/// The kernels: name and text.
pub const SOURCES: &[(&str, &str)] = embed!["random.cu"];

/// What the checks compile: every kernel, for a model like Llama 3.1 8B and for a small, odd one.
pub const VARIANTS: &[Variant] = &[
    Variant::portable("random.cu", &["ELEMENT_BF16"]),
    Variant::portable("random.cu", &["ELEMENT_F16"]),
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
    #[allow(dead_code, reason = "the table grows with the kernels")]
    const fn hopper(file: &'static str, defines: &'static [&'static str]) -> Self {
        Self { file, defines, hopper_only: true }
    }
}

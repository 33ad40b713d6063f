//! Kernels: their sources, and their machine code for the GPU at hand.

pub(super) mod compiler;
pub(super) mod files;
pub(super) mod sources;

pub(super) use self::compiler::{Compiler, Constants, Defines};

//! Weights and activations in host memory.

use half::{bf16, f16};

use super::simd::Element;
use crate::weights::{Tensor, WeightDtype};

/// Elements of one of the three types.
#[derive(Clone, Debug)]
pub(super) enum Elements {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
}

/// Calls generic code with the elements' type.
macro_rules! with_elements {
    ($elements:expr, $data:ident => $body:expr) => {
        match $elements {
            $crate::backend::cpu::tensor::Elements::F32($data) => $body,
            $crate::backend::cpu::tensor::Elements::Bf16($data) => $body,
            $crate::backend::cpu::tensor::Elements::F16($data) => $body,
        }
    };
}
pub(super) use with_elements;

/// A weight vector, widened: vectors are small.
#[derive(Debug)]
pub struct CpuVector(pub(super) Vec<f32>);

/// Activations: rows of 32-bit floats.
#[derive(Debug)]
pub struct CpuBuffer {
    pub(super) cols: usize,
    pub(super) data: Vec<f32>,
}

// === impl Elements ===

impl Elements {
    pub(super) fn zeros(dtype: WeightDtype, count: usize) -> Self {
        match dtype {
            WeightDtype::F32 => Self::F32(vec![0.0; count]),
            WeightDtype::Bf16 => Self::Bf16(vec![bf16::ZERO; count]),
            WeightDtype::F16 => Self::F16(vec![f16::ZERO; count]),
        }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        with_elements!(self, data => bytemuck::cast_slice_mut(data))
    }
}

impl AsRef<[u8]> for Elements {
    fn as_ref(&self) -> &[u8] {
        with_elements!(self, data => bytemuck::cast_slice(data))
    }
}

impl AsMut<[u8]> for Elements {
    fn as_mut(&mut self) -> &mut [u8] {
        self.bytes_mut()
    }
}

// === impl CpuVector ===

impl CpuVector {
    pub(super) fn concat(parts: &[Tensor<'_>]) -> Self {
        Self(parts.iter().flat_map(widen).collect())
    }
}

pub(super) fn widen(tensor: &Tensor<'_>) -> Vec<f32> {
    fn read<E: Element>(bytes: &[u8]) -> Vec<f32> {
        let size = size_of::<E>();
        bytes.chunks_exact(size).map(|x| bytemuck::pod_read_unaligned::<E>(x).to_f32()).collect()
    }
    let bytes = tensor.bytes();
    match tensor.dtype {
        WeightDtype::F32 => read::<f32>(&bytes),
        WeightDtype::Bf16 => read::<bf16>(&bytes),
        WeightDtype::F16 => read::<f16>(&bytes),
    }
}

// === impl CpuBuffer ===

impl CpuBuffer {
    pub(super) fn new(cols: usize) -> Self {
        Self { cols, data: Vec::new() }
    }

    pub(super) fn rows(&self) -> usize {
        self.data.len() / self.cols
    }

    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.cols..][..self.cols]
    }

    /// Makes room for `rows` rows; what they hold is left over from before.
    pub(super) fn resize(&mut self, rows: usize) {
        self.data.resize(rows * self.cols, 0.0);
    }
}

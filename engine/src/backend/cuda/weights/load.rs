//! What happens once, when a model is loaded onto the device.

use std::path::Path;

use half::{bf16, f16};
use kv_cache::KvDtype;

use super::random::RandomFill;
use super::upload::Uploader;
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::driver::compiler::Compiler;
use crate::backend::cuda::driver::device::{Device, Stream};
use crate::backend::cuda::driver::element::ElementType;
use crate::backend::cuda::driver::memory::DeviceMemory;
use crate::backend::cuda::tensor::CudaBuffer;
use crate::config::{ModelConfig, WeightDtype};
use crate::error::EngineError;
use crate::rope::Rope;
use crate::weights::{Tensor, TensorData};

/// Memory that is neither weights nor activations nor KV: the driver's own, the libraries',
/// recorded steps and staging.
pub(crate) const RESERVE_BYTES: u64 = 768 << 20;

/// Brings weights to the device.
pub(crate) struct Loader {
    uploader: Uploader,
    random: RandomFill,
}

// === impl Loader ===

impl Loader {
    pub(crate) fn new(compiler: &Compiler, element: ElementType) -> Result<Self, EngineError> {
        let random = RandomFill::new(compiler, element)?;
        Ok(Self { uploader: Uploader::new(compiler.device())?, random })
    }

    /// Waits until everything is there.
    pub(crate) fn finish(mut self) -> Result<(), EngineError> {
        self.uploader.finish()
    }

    fn put(
        &mut self,
        address: u64,
        element: ElementType,
        tensor: &Tensor<'_>,
    ) -> Result<(), EngineError> {
        match tensor.data {
            TensorData::Stored(bytes) => self.uploader.copy(address, element, tensor.dtype, bytes),
            TensorData::Random(uniform) => {
                let numbers = (uniform.center, uniform.spread);
                let count = tensor.elements() as u64;
                self.random.fill(self.uploader.stream(), address, count, uniform.key, numbers)
            }
        }
    }
}

// === impl CudaBackend ===

impl CudaBackend {
    /// What KV of the model in `dir` is kept in: its own type, or bfloat16 for 32-bit floats.
    ///
    /// # Errors
    /// If the configuration can't be read.
    pub(crate) fn kv_dtype(dir: &Path) -> Result<Option<KvDtype>, EngineError> {
        Ok(ModelConfig::load(dir)?.dtype.map(|dtype| match dtype {
            WeightDtype::F16 => KvDtype::F16,
            WeightDtype::Bf16 | WeightDtype::F32 => KvDtype::Bf16,
        }))
    }

    /// Takes memory for tensors, one after the other, and starts to fill it.
    pub(crate) fn take(
        &mut self,
        elements: usize,
        parts: &[Tensor<'_>],
    ) -> Result<DeviceMemory, EngineError> {
        self.device.bind()?;
        let memory = DeviceMemory::new(&self.device, elements * self.element.bytes())?;
        self.taken_bytes += memory.bytes() as u64;
        let Some(loader) = &mut self.loader else {
            return Err(EngineError::Device("the model is loaded already".to_owned()));
        };
        let mut address = memory.address();
        for part in parts {
            loader.put(address, self.element, part)?;
            address += (part.elements() * self.element.bytes()) as u64;
        }
        Ok(memory)
    }
}

/// The type that the kernels compute with where KV has this one.
pub(crate) fn element_of(dtype: KvDtype) -> Result<ElementType, EngineError> {
    match dtype {
        KvDtype::Bf16 => Ok(ElementType::Bf16),
        KvDtype::F16 => Ok(ElementType::F16),
        KvDtype::F32 => Err(EngineError::Limits {
            field: "kv_dtype".to_owned(),
            reason: "f32 is for the CPU; on a GPU want bf16 or f16, as the model computes"
                .to_owned(),
        }),
    }
}

/// Cosines and sines of all positions, f32 `[positions, pairs]` each.
pub(crate) fn rotations(
    device: &Device,
    stream: &Stream,
    rope: &Rope,
    positions: usize,
) -> Result<(DeviceMemory, DeviceMemory), EngineError> {
    let positions: Vec<u32> = (0..positions as u32).collect();
    let rows = rope.rows(&positions);
    let memory = |values: &[f32]| {
        let memory = DeviceMemory::new(device, size_of_val(values))?;
        stream.write(memory.address(), values)?;
        Ok::<_, EngineError>(memory)
    };
    Ok((memory(&rows.cos)?, memory(&rows.sin)?))
}

/// A buffer's rows as floats.
pub(crate) fn download(stream: &Stream, buffer: &CudaBuffer) -> Result<Vec<f32>, EngineError> {
    let count = buffer.rows * buffer.cols;
    let mut bytes = vec![0u8; count * buffer.element.bytes()];
    stream.read(&mut bytes, buffer.address())?;
    // A byte vector need not be aligned for what is in it.
    let words = |size: usize| bytes.chunks_exact(size);
    Ok(match buffer.element {
        ElementType::F32 => {
            words(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
        }
        ElementType::Bf16 => {
            words(2).map(|word| bf16::from_le_bytes([word[0], word[1]]).to_f32()).collect()
        }
        ElementType::F16 => {
            words(2).map(|word| f16::from_le_bytes([word[0], word[1]]).to_f32()).collect()
        }
    })
}

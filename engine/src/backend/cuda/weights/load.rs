//! What happens once, when a model is loaded onto the device.

use std::path::Path;

use half::{bf16, f16};
use kv_cache::{KvCodec, KvLayout};

use super::random::RandomFill;
use super::tensor::CudaBuffer;
use super::upload::Uploader;
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::compile::Compiler;
use crate::backend::cuda::driver::address::Span;
use crate::backend::cuda::driver::device::{Device, Stream};
use crate::backend::cuda::driver::element::ElementType;
use crate::backend::cuda::driver::memory::DeviceMemory;
use crate::backend::rope::Rope;
use crate::config::ModelConfig;
use crate::error::EngineError;
use crate::weights::{Tensor, TensorData, WeightDtype};

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
        to: Span<'_>,
        element: ElementType,
        tensor: &Tensor<'_>,
    ) -> Result<(), EngineError> {
        match tensor.data {
            TensorData::Stored(bytes) => self.uploader.copy(to, element, tensor.dtype, bytes),
            TensorData::Random(uniform) => {
                let numbers = (uniform.center, uniform.spread);
                self.random.fill(self.uploader.stream(), to, uniform.key, numbers)
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
    pub(crate) fn kv_codec(dir: &Path) -> Result<Option<KvCodec>, EngineError> {
        Ok(ModelConfig::load(dir)?.dtype.map(|dtype| own_type(Some(dtype)).codec()))
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
        let mut begin = 0;
        for part in parts {
            let end = begin + part.elements() * self.element.bytes();
            loader.put(memory.part(begin..end), self.element, part)?;
            begin = end;
        }
        Ok(memory)
    }
}

/// The type that kernels compute in: that of the pages, where these are arrays of 16-bit floats, so that
/// attention reads them as they are. Else the model's own: what KV is packed in says nothing of computing.
pub(crate) fn computing_in(config: &ModelConfig, codec: &KvCodec) -> ElementType {
    let own = || own_type(config.dtype);
    WeightDtype::kept_in(codec).and_then(sixteen_bits).unwrap_or_else(own)
}

fn own_type(dtype: Option<WeightDtype>) -> ElementType {
    dtype.and_then(sixteen_bits).unwrap_or(ElementType::Bf16)
}

fn sixteen_bits(dtype: WeightDtype) -> Option<ElementType> {
    match dtype {
        WeightDtype::Bf16 => Some(ElementType::Bf16),
        WeightDtype::F16 => Some(ElementType::F16),
        WeightDtype::F32 => None,
    }
}

/// Refuses pages that the attention kernels for `element` don't read: all but keys and values of that type.
pub(crate) fn check_pages(layout: &KvLayout, element: ElementType) -> Result<(), EngineError> {
    let are_elements = layout.codec.plain() == Some(element.codec().numbers);
    if are_elements && layout.page.vectors == 2 {
        return Ok(());
    }
    let known = [ElementType::Bf16, ElementType::F16].map(|element| element.codec().name);
    Err(EngineError::Limits {
        field: "kv_dtype".to_owned(),
        reason: format!(
            "pages in {} are not read on a GPU: want {}, as the model computes",
            layout.codec,
            known.join(" or ")
        ),
    })
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
        stream.write(memory.all(), values)?;
        Ok::<_, EngineError>(memory)
    };
    Ok((memory(&rows.cos)?, memory(&rows.sin)?))
}

/// A buffer's rows as floats.
pub(crate) fn download(stream: &Stream, buffer: &CudaBuffer) -> Result<Vec<f32>, EngineError> {
    let count = buffer.rows * buffer.cols;
    let rows = buffer.memory.part(0..count * buffer.element.bytes());
    let mut bytes = vec![0u8; rows.bytes()];
    stream.read(&mut bytes, rows)?;
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

//! Where a model's tensors come from: safetensors files, or a seeded generator.

mod checkpoint;
mod dummy;
mod mapped;

use std::borrow::Cow;
use std::path::Path;

use half::{bf16, f16};

use crate::config::ModelConfig;
pub use crate::config::WeightDtype;
use crate::error::EngineError;
use crate::fingerprint::Fingerprinter;
use crate::sampler::philox::Philox;
use checkpoint::Checkpoint;
use dummy::DummyWeights;

/// The embedding's name in a checkpoint.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
/// The output projection's.
pub(crate) const HEAD: &str = "lm_head.weight";

/// Where the weights are read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoadFormat {
    /// The checkpoint's safetensors files.
    #[default]
    Auto,
    /// Random weights of the configured shapes, the same for the same seed: for tests and for
    /// measuring a model without downloading it.
    Dummy {
        /// The seed.
        seed: u64,
    },
}

/// How far loading has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadProgress {
    /// Tensors loaded.
    pub tensors: usize,
    /// Tensors in all.
    pub tensors_total: usize,
    /// Bytes loaded.
    pub bytes: u64,
}

/// A dense tensor in row-major order.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    /// Element type.
    pub dtype: WeightDtype,
    /// Rows and columns; a vector has one row.
    pub rows: usize,
    /// See `rows`.
    pub cols: usize,
    /// Its elements.
    pub data: TensorData<'a>,
}

/// The elements of a tensor.
#[derive(Clone, Copy, Debug)]
pub enum TensorData<'a> {
    /// `rows * cols * dtype.bytes()` bytes, little-endian.
    Stored(&'a [u8]),
    /// Random numbers, to be made where they are needed.
    Random(Uniform),
}

/// Numbers uniform on `[center - spread, center + spread]`, a function of `key`: four for each
/// counter of a [`Philox`] generator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Uniform {
    /// The generator's key.
    pub key: u64,
    /// See above.
    pub center: f32,
    /// See above.
    pub spread: f32,
}

/// A tensor's name and the shape the configuration gives it.
#[derive(Clone, Debug)]
pub(crate) struct TensorSpec {
    pub(crate) name: String,
    /// As in the file: one dimension for vectors, two for matrices.
    pub(crate) shape: Vec<usize>,
}

/// Gives tensors by name, counting and fingerprinting what it gave.
pub(crate) struct WeightReader<'a> {
    source: Source,
    fingerprinter: Fingerprinter,
    progress: LoadProgress,
    report: &'a mut dyn FnMut(LoadProgress),
}

enum Source {
    Checkpoint(Checkpoint),
    Dummy(DummyWeights),
}

// === impl TensorSpec ===

impl TensorSpec {
    pub(crate) fn matrix(name: impl Into<String>, rows: usize, cols: usize) -> Self {
        Self { name: name.into(), shape: vec![rows, cols] }
    }

    pub(crate) fn vector(name: impl Into<String>, len: usize) -> Self {
        Self { name: name.into(), shape: vec![len] }
    }

    fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    fn tensor<'a>(&self, dtype: WeightDtype, data: TensorData<'a>) -> Tensor<'a> {
        let cols = *self.shape.last().expect("a spec has one or two dimensions");
        Tensor { dtype, rows: self.elements() / cols, cols, data }
    }
}

// === impl Tensor ===

impl<'a> Tensor<'a> {
    /// Elements in all.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.rows * self.cols
    }

    /// `rows * cols * dtype.bytes()` bytes, little-endian.
    #[must_use]
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        match self.data {
            TensorData::Stored(bytes) => Cow::Borrowed(bytes),
            TensorData::Random(uniform) => {
                Cow::Owned(encode(self.dtype, uniform.numbers(self.elements())))
            }
        }
    }
}

fn encode(dtype: WeightDtype, values: impl Iterator<Item = f32>) -> Vec<u8> {
    match dtype {
        WeightDtype::F32 => values.flat_map(f32::to_le_bytes).collect(),
        WeightDtype::Bf16 => values.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
        WeightDtype::F16 => values.flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
    }
}

// === impl Uniform ===

impl Uniform {
    fn numbers(self, count: usize) -> impl Iterator<Item = f32> {
        let generator = Philox::new(self.key);
        (0..count.div_ceil(4) as u32)
            .flat_map(move |block| generator.block([block, 0, 0, 0]))
            .take(count)
            .map(move |bits| self.center + self.spread * ((bits as i32) as f32 / i32::MAX as f32))
    }
}

// === impl WeightReader ===

impl<'a> WeightReader<'a> {
    /// Opens the weights of the model in `dir`.
    ///
    /// - `tensors_total`: how many tensors will be asked for; for the progress reports only.
    pub(crate) fn open(
        dir: &Path,
        config: &ModelConfig,
        format: LoadFormat,
        tensors_total: usize,
        report: &'a mut dyn FnMut(LoadProgress),
    ) -> Result<Self, EngineError> {
        let source = match format {
            LoadFormat::Auto => Source::Checkpoint(Checkpoint::open(dir)?),
            LoadFormat::Dummy { seed } => Source::Dummy(DummyWeights::new(seed, config)),
        };
        let progress = LoadProgress { tensors: 0, tensors_total, bytes: 0 };
        report(progress);
        Ok(Self { source, fingerprinter: Fingerprinter::new(config), progress, report })
    }

    /// Reads tensors and gives them to `take`, which moves them to the device.
    ///
    /// # Errors
    /// [`EngineError::Weights`] for a tensor that is missing, damaged or of another shape; else what
    /// `take` says.
    pub(crate) fn read<T>(
        &mut self,
        specs: &[TensorSpec],
        take: impl FnOnce(&[Tensor<'_>]) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let tensors =
            specs.iter().map(|spec| self.source.tensor(spec)).collect::<Result<Vec<_>, _>>()?;
        for (spec, tensor) in specs.iter().zip(&tensors) {
            self.fingerprinter.tensor(&spec.name, tensor);
            self.progress.tensors += 1;
            self.progress.bytes += (tensor.elements() * tensor.dtype.bytes()) as u64;
        }
        let taken = take(&tensors)?;
        (self.report)(self.progress);
        Ok(taken)
    }

    /// The model's element type: the embedding's.
    ///
    /// # Errors
    /// As [`WeightReader::read`].
    pub(crate) fn dtype(&self) -> Result<WeightDtype, EngineError> {
        match &self.source {
            Source::Checkpoint(checkpoint) => checkpoint.dtype(EMBEDDING),
            Source::Dummy(dummy) => Ok(dummy.dtype()),
        }
    }

    /// Whether there is an output projection that isn't the embedding.
    ///
    /// # Errors
    /// As [`WeightReader::read`].
    pub(crate) fn has_own_head(&self) -> Result<bool, EngineError> {
        match &self.source {
            Source::Checkpoint(checkpoint) => checkpoint.differ(EMBEDDING, HEAD),
            Source::Dummy(_) => Ok(false),
        }
    }

    /// The digest over the configuration and everything read.
    pub(crate) fn fingerprint(self) -> String {
        self.fingerprinter.finish()
    }
}

// === impl Source ===

impl Source {
    fn tensor(&self, spec: &TensorSpec) -> Result<Tensor<'_>, EngineError> {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.tensor(spec),
            Self::Dummy(dummy) => Ok(dummy.tensor(spec)),
        }
    }
}

#[cfg(test)]
mod tests;

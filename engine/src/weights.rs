//! Where a model's tensors come from: safetensors files, or a seeded generator.

mod checkpoint;
mod dtype;
mod dummy;
mod fingerprint;
pub(crate) mod formats;
mod mapped;
mod spec;

use std::borrow::Cow;
use std::path::Path;

use half::{bf16, f16};
use safetensors::Dtype;
use serde::Serialize;

use crate::error::EngineError;
use crate::sampler::philox::Philox;
use checkpoint::Checkpoint;
pub use dtype::WeightDtype;
use dummy::DummyWeights;
use fingerprint::Fingerprinter;
use formats::dense;
pub use formats::{StoredMatrix, WeightFormat};
pub(crate) use spec::{MatrixSpec, VectorSpec};

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

/// A tensor as it is stored, whatever its type is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredTensor<'a> {
    pub(crate) dtype: Dtype,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) data: TensorData<'a>,
    /// In the checkpoint.
    pub(crate) bytes: u64,
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

/// Which weights a reader is opened for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WeightSource<'a> {
    /// The model's folder.
    pub(crate) dir: &'a Path,
    pub(crate) load: LoadFormat,
    /// How matrices are stored there.
    pub(crate) format: &'static WeightFormat,
    /// What the configuration says: the type of random weights.
    pub(crate) dtype: Option<WeightDtype>,
    /// Matrices and vectors that will be asked for: for the progress reports only.
    pub(crate) count: usize,
}

/// Gives matrices and vectors by name, counting and fingerprinting what it gave.
pub(crate) struct WeightReader<'a> {
    source: Source,
    fingerprinter: Fingerprinter,
    progress: LoadProgress,
    report: &'a mut dyn FnMut(LoadProgress),
}

enum Source {
    Checkpoint(Checkpoint, &'static WeightFormat),
    Dummy(DummyWeights),
}

// === impl Tensor ===

impl<'a> Tensor<'a> {
    /// - `shape`: one dimension for a vector, two for a matrix.
    fn new(dtype: WeightDtype, shape: &[usize], data: TensorData<'a>) -> Self {
        let (rows, cols) = rows_and_cols(shape);
        Self { dtype, rows, cols, data }
    }

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

// === impl StoredTensor ===

impl<'a> StoredTensor<'a> {
    /// As numbers of a floating-point type, if that is what it is.
    pub(crate) fn dense(&self) -> Option<Tensor<'a>> {
        let Self { rows, cols, data, .. } = *self;
        Some(Tensor { dtype: WeightDtype::of(self.dtype)?, rows, cols, data })
    }
}

impl<'a> From<&Tensor<'a>> for StoredTensor<'a> {
    fn from(tensor: &Tensor<'a>) -> Self {
        let Tensor { dtype, rows, cols, data } = *tensor;
        let bytes = (rows * cols * dtype.bytes()) as u64;
        Self { dtype: dtype.stored(), rows, cols, data, bytes }
    }
}

fn rows_and_cols(shape: &[usize]) -> (usize, usize) {
    let cols = *shape.last().expect("a tensor has one or two dimensions");
    (shape.iter().product::<usize>() / cols, cols)
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
    /// Opens a model's weights.
    ///
    /// - `config`: what of the configuration changes a computed number.
    pub(crate) fn open(
        from: WeightSource<'_>,
        config: &impl Serialize,
        report: &'a mut dyn FnMut(LoadProgress),
    ) -> Result<Self, EngineError> {
        let source = match from.load {
            LoadFormat::Auto => Source::Checkpoint(Checkpoint::open(from.dir)?, from.format),
            LoadFormat::Dummy { seed } => Source::Dummy(DummyWeights::new(seed, from.dtype)),
        };
        let progress = LoadProgress { tensors: 0, tensors_total: from.count, bytes: 0 };
        report(progress);
        Ok(Self { source, fingerprinter: Fingerprinter::new(config), progress, report })
    }

    /// Reads matrices and gives them to `take`, which moves them to the device.
    ///
    /// # Errors
    /// [`EngineError::Weights`] for one that is missing, damaged or of another shape; else what
    /// `take` says.
    pub(crate) fn matrices<T>(
        &mut self,
        specs: &[MatrixSpec],
        take: impl FnOnce(&[StoredMatrix<'_>]) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let matrices =
            specs.iter().map(|spec| self.source.matrix(spec)).collect::<Result<Vec<_>, _>>()?;
        for (spec, matrix) in specs.iter().zip(&matrices) {
            for (part, tensor) in &matrix.parts {
                self.fingerprinter.tensor(&spec.tensor(part), tensor);
                self.progress.bytes += tensor.bytes;
            }
            self.progress.tensors += 1;
        }
        let taken = take(&matrices)?;
        (self.report)(self.progress);
        Ok(taken)
    }

    /// As [`WeightReader::matrices`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn vectors<T>(
        &mut self,
        specs: &[VectorSpec],
        take: impl FnOnce(&[Tensor<'_>]) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let vectors =
            specs.iter().map(|spec| self.source.vector(spec)).collect::<Result<Vec<_>, _>>()?;
        for (spec, vector) in specs.iter().zip(&vectors) {
            let stored = StoredTensor::from(vector);
            self.fingerprinter.tensor(&spec.name, &stored);
            self.progress.tensors += 1;
            self.progress.bytes += stored.bytes;
        }
        let taken = take(&vectors)?;
        (self.report)(self.progress);
        Ok(taken)
    }

    /// The element type of a dense matrix.
    ///
    /// # Errors
    /// As [`WeightReader::matrices`].
    pub(crate) fn dtype(&self, matrix: &MatrixSpec) -> Result<WeightDtype, EngineError> {
        match &self.source {
            Source::Checkpoint(checkpoint, _) => checkpoint.dtype(&matrix.tensor(dense::WEIGHT)),
            Source::Dummy(dummy) => Ok(dummy.dtype()),
        }
    }

    /// Whether two dense matrices are there, and not the same.
    ///
    /// # Errors
    /// As [`WeightReader::matrices`].
    pub(crate) fn differ(&self, one: &MatrixSpec, other: &MatrixSpec) -> Result<bool, EngineError> {
        match &self.source {
            Source::Checkpoint(checkpoint, _) => {
                checkpoint.differ(&one.tensor(dense::WEIGHT), &other.tensor(dense::WEIGHT))
            }
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
    fn matrix(&self, spec: &MatrixSpec) -> Result<StoredMatrix<'_>, EngineError> {
        match self {
            Self::Checkpoint(checkpoint, format) => (format.read)(checkpoint, spec),
            Self::Dummy(dummy) => {
                Ok(dummy.tensor(&spec.tensor(dense::WEIGHT), &[spec.rows, spec.cols]).into())
            }
        }
    }

    fn vector(&self, spec: &VectorSpec) -> Result<Tensor<'_>, EngineError> {
        match self {
            Self::Checkpoint(checkpoint, _) => checkpoint.tensor(&spec.name, &[spec.len]),
            Self::Dummy(dummy) => Ok(dummy.tensor(&spec.name, &[spec.len])),
        }
    }
}

#[cfg(test)]
mod tests;

//! The formats of matrices: how their numbers are stored.
//!
//! A format is a module here and a row in [`FORMATS`]; what multiplies by it is a module of each backend
//! that does, and a row where that backend chooses its products.

pub(crate) mod dense;

use std::fmt;

use model_folder::{Fields, FolderError};

use super::checkpoint::Checkpoint;
use super::{MatrixSpec, StoredTensor};
use crate::error::EngineError;

/// All of them. A checkpoint has the first that knows its configuration.
const FORMATS: &[&WeightFormat] = &[&dense::FORMAT];

/// Where a `config.json` tells of a format other than dense: now, and in the first versions of
/// compressed-tensors.
const TOLD_IN: [&str; 2] = ["quantization_config", "compression_config"];

/// How a checkpoint stores its matrices.
pub struct WeightFormat {
    name: &'static str,
    /// Whether it is what one of [`TOLD_IN`] tells of, or their absence.
    is_told: fn(Option<&Fields>) -> Result<bool, FolderError>,
    /// Reads a matrix: of this format, or of another where the format leaves some so.
    pub(super) read: Read,
}

type Read = for<'a> fn(&'a Checkpoint, &MatrixSpec) -> Result<StoredMatrix<'a>, EngineError>;

/// A matrix as it is stored. Its format's module makes sense of the parts.
#[derive(Clone, Debug)]
pub struct StoredMatrix<'a> {
    format: &'static WeightFormat,
    /// Outputs.
    pub(crate) rows: usize,
    /// Inputs.
    pub(crate) cols: usize,
    /// Tensors, by what the checkpoint calls them after the matrix's name.
    pub(super) parts: Vec<(&'static str, StoredTensor<'a>)>,
}

// === impl WeightFormat ===

impl WeightFormat {
    /// The format that a `config.json` tells of.
    ///
    /// # Errors
    /// [`FolderError`] names the field: of a format that isn't here, and of one that is told wrong.
    pub(crate) fn of(config: &Fields) -> Result<&'static Self, FolderError> {
        let (field, told) = told(config)?;
        for format in FORMATS.iter().copied() {
            if (format.is_told)(told.as_ref())? {
                return Ok(format);
            }
        }
        let method = told.map(|told| told.str("quant_method")).transpose()?.flatten();
        let method = method.map_or_else(String::new, |method| format!(" ({method})"));
        let reason = format!(
            "quantized checkpoints{method} are not supported: want the unquantized one, in bf16, fp16 or fp32"
        );
        Err(config.error(field, reason))
    }
}

/// What a configuration tells of its format, and where.
fn told(config: &Fields) -> Result<(&'static str, Option<Fields>), FolderError> {
    for field in TOLD_IN {
        if let Some(told) = config.object(field)? {
            return Ok((field, Some(told)));
        }
    }
    Ok((TOLD_IN[0], None))
}

impl PartialEq for WeightFormat {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl fmt::Debug for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

// === impl StoredMatrix ===

impl StoredMatrix<'_> {
    /// The format's name, for people.
    #[must_use]
    pub fn format(&self) -> &'static str {
        self.format.name
    }
}

//! The rotary embedding's parameters, in both forms transformers has written them.

use model_folder::{Fields, FolderError, rope_scaling, rope_type_field};
use serde::Serialize;

/// Where transformers starts when a file names no `rope_theta`.
const THETA_DEFAULT: f64 = 10_000.0;

/// Rotary position embedding: base frequency and how it is stretched to longer contexts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RopeConfig {
    /// The base wavelength.
    pub theta: f64,
    /// How frequencies are adapted to longer contexts.
    pub scaling: RopeScaling,
}

/// How frequencies are adapted to contexts longer than the model was trained on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every frequency divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// The base grows with the sequence once it is longer than `original_max` (NTK).
    Dynamic {
        /// How far it is stretched.
        factor: f64,
        /// Up to here the frequencies are the plain ones, tokens.
        original_max: u32,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, a smooth passage between.
    Llama3(Llama3Scaling),
    /// YaRN: interpolated below, extrapolated above, a ramp between, and hotter attention.
    Yarn(YarnScaling),
}

/// Parameters of Llama 3.1's scaling.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Llama3Scaling {
    /// Divides the low frequencies.
    pub factor: f64,
    /// Wavelengths above `original_max / low_freq_factor` are divided.
    pub low_freq_factor: f64,
    /// Wavelengths below `original_max / high_freq_factor` are kept.
    pub high_freq_factor: f64,
    /// Context the model was trained on, tokens.
    pub original_max: u32,
}

/// Parameters of YaRN.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct YarnScaling {
    /// Divides the interpolated frequencies.
    pub factor: f64,
    /// Multiplies cosines and sines.
    pub attention_factor: f64,
    /// Rotations over the original context above which a frequency is kept.
    pub beta_fast: f64,
    /// Rotations below which a frequency is interpolated.
    pub beta_slow: f64,
    /// Whether the ramp's ends are rounded to whole dimensions.
    pub truncate: bool,
    /// Context the model was trained on, tokens.
    pub original_max: u32,
}

// === impl RopeConfig ===

impl RopeConfig {
    /// Reads the object that [`rope_scaling`] finds, with `rope_theta` inside or beside it.
    pub(super) fn parse(fields: &Fields, max_position: u32) -> Result<Self, FolderError> {
        let scaling = rope_scaling(fields)?;
        refuse_partial(fields)?;
        let theta = fields.positive_f64("rope_theta")?.unwrap_or(THETA_DEFAULT);
        let Some(scaling) = scaling else {
            return Ok(Self { theta, scaling: RopeScaling::None });
        };
        refuse_partial(&scaling)?;
        for nested in ["full_attention", "sliding_attention"] {
            if scaling.mentions(nested) {
                return Err(scaling.error(nested, "rope per layer type is not supported"));
            }
        }
        Ok(Self {
            theta: scaling.positive_f64("rope_theta")?.unwrap_or(theta),
            scaling: RopeScaling::parse(fields, &scaling, max_position)?,
        })
    }
}

fn refuse_partial(fields: &Fields) -> Result<(), FolderError> {
    match fields.f64("partial_rotary_factor")? {
        None | Some(1.0) => Ok(()),
        Some(_) => Err(fields.error("partial_rotary_factor", "only 1 is supported")),
    }
}

// === impl RopeScaling ===

impl RopeScaling {
    fn parse(top: &Fields, fields: &Fields, max_position: u32) -> Result<Self, FolderError> {
        let factor = || fields.require("factor", fields.positive_f64("factor")?);
        let field = rope_type_field(fields);
        match fields.str(field)?.as_deref() {
            None | Some("default" | "none") => Ok(Self::None),
            Some("linear") => Ok(Self::Linear { factor: factor()? }),
            Some("dynamic") => Ok(Self::Dynamic { factor: factor()?, original_max: max_position }),
            Some("llama3") => Llama3Scaling::parse(top, fields, max_position).map(Self::Llama3),
            Some("yarn") => YarnScaling::parse(top, fields, max_position).map(Self::Yarn),
            Some(other) => Err(fields.error(
                field,
                format!("{other} is not supported: want default, linear, dynamic, llama3 or yarn"),
            )),
        }
    }
}

/// A value beside the rope parameters wins over one among them, and both over `max_position`.
fn original_max(top: &Fields, fields: &Fields, max_position: u32) -> Result<u32, FolderError> {
    let field = "original_max_position_embeddings";
    let outer = top.positive_u32(field)?;
    let inner = fields.positive_u32(field)?;
    Ok(outer.or(inner).unwrap_or(max_position))
}

// === impl Llama3Scaling ===

impl Llama3Scaling {
    fn parse(top: &Fields, fields: &Fields, max_position: u32) -> Result<Self, FolderError> {
        let required = |name: &str| fields.require(name, fields.positive_f64(name)?);
        let scaling = Self {
            factor: required("factor")?,
            low_freq_factor: required("low_freq_factor")?,
            high_freq_factor: required("high_freq_factor")?,
            original_max: original_max(top, fields, max_position)?,
        };
        if scaling.high_freq_factor <= scaling.low_freq_factor {
            return Err(fields.error("high_freq_factor", "must be above low_freq_factor"));
        }
        Ok(scaling)
    }
}

// === impl YarnScaling ===

impl YarnScaling {
    fn parse(top: &Fields, fields: &Fields, max_position: u32) -> Result<Self, FolderError> {
        let original_max = original_max(top, fields, max_position)?;
        let factor = fields
            .positive_f64("factor")?
            .unwrap_or_else(|| f64::from(max_position) / f64::from(original_max));
        let attention_factor = match fields.positive_f64("attention_factor")? {
            Some(explicit) => explicit,
            None => {
                yarn_attention_factor(factor, fields.f64("mscale")?, fields.f64("mscale_all_dim")?)
            }
        };
        // Transformers takes 0 for absent in these four (`x or default`, `if x and y`).
        let beta = |name: &str, default: f64| {
            Ok(fields.f64(name)?.filter(|&beta| beta != 0.0).unwrap_or(default))
        };
        Ok(Self {
            factor,
            attention_factor,
            beta_fast: beta("beta_fast", 32.0)?,
            beta_slow: beta("beta_slow", 1.0)?,
            truncate: fields.bool("truncate")?.unwrap_or(true),
            original_max,
        })
    }
}

fn yarn_attention_factor(factor: f64, mscale: Option<f64>, mscale_all_dim: Option<f64>) -> f64 {
    let stretch = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
    match (mscale, mscale_all_dim) {
        (Some(mscale), Some(all)) if mscale != 0.0 && all != 0.0 => stretch(mscale) / stretch(all),
        _ => stretch(1.0),
    }
}

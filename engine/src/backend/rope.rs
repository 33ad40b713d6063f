//! Rotary position embedding: the angle of every pair of dimensions at every position.
//!
//! Numbers follow transformers' `modeling_rope_utils.py`, in 32-bit floats where it uses them.

use std::borrow::Cow;
use std::f64::consts::PI;

use crate::config::{Llama3Scaling, RopeConfig, RopeScaling, YarnScaling};

/// The rotation frequencies of one model.
///
/// With dynamic NTK scaling, transformers recomputes the frequencies from the longest position of
/// the forward call, so the same token's key depends on how the prompt was cut and on what came
/// after it. Here each row is rotated with the frequencies of a sequence that ends at that row.
/// That is the same number for every sequence up to the original context, and for every token
/// decoded beyond it; and a key is a function of its prefix alone, without which chunks, cached
/// prefixes and hand-offs would each give other tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// `[head_dim / 2]`: radians per position.
    frequencies: Vec<f32>,
    /// Multiplies cosines and sines.
    attention_factor: f32,
    dynamic: Option<Dynamic>,
}

/// Cosines and sines of one step's rows.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeRows {
    /// Pairs per row: `head_dim / 2`.
    pub pairs: usize,
    /// `[rows, pairs]`.
    pub cos: Vec<f32>,
    /// `[rows, pairs]`.
    pub sin: Vec<f32>,
}

#[derive(Clone, Debug, PartialEq)]
struct Dynamic {
    theta: f64,
    factor: f64,
    original_max: u32,
}

// === impl Rope ===

impl Rope {
    /// The frequencies for heads of `head_dim` elements.
    #[must_use]
    pub fn new(config: &RopeConfig, head_dim: usize) -> Self {
        let plain = plain_frequencies(config.theta, head_dim);
        let (frequencies, attention_factor, dynamic) = match &config.scaling {
            RopeScaling::None => (plain, 1.0, None),
            RopeScaling::Linear { factor } => {
                (plain.iter().map(|f| f / *factor as f32).collect(), 1.0, None)
            }
            RopeScaling::Dynamic { factor, original_max } => {
                let dynamic =
                    Dynamic { theta: config.theta, factor: *factor, original_max: *original_max };
                (plain, 1.0, Some(dynamic))
            }
            RopeScaling::Llama3(scaling) => {
                (plain.iter().map(|&f| llama3_frequency(f, scaling)).collect(), 1.0, None)
            }
            RopeScaling::Yarn(scaling) => (
                yarn_frequencies(config.theta, head_dim, scaling),
                scaling.attention_factor as f32,
                None,
            ),
        };
        Self { frequencies, attention_factor, dynamic }
    }

    /// Radians per position of each pair, for a row at `position`.
    #[must_use]
    pub fn frequencies_at(&self, position: u32) -> Cow<'_, [f32]> {
        match &self.dynamic {
            Some(dynamic) if position >= dynamic.original_max => Cow::Owned(plain_frequencies(
                dynamic.theta_at(position, self.head_dim()),
                self.head_dim(),
            )),
            _ => Cow::Borrowed(&self.frequencies),
        }
    }

    /// Cosines and sines of rows at `positions`.
    #[must_use]
    pub fn rows(&self, positions: &[u32]) -> RopeRows {
        let pairs = self.frequencies.len();
        let mut rows = RopeRows {
            pairs,
            cos: Vec::with_capacity(positions.len() * pairs),
            sin: Vec::with_capacity(positions.len() * pairs),
        };
        for &position in positions {
            for frequency in &*self.frequencies_at(position) {
                let (sin, cos) = (frequency * position as f32).sin_cos();
                rows.cos.push(cos * self.attention_factor);
                rows.sin.push(sin * self.attention_factor);
            }
        }
        rows
    }

    fn head_dim(&self) -> usize {
        2 * self.frequencies.len()
    }
}

// === impl Dynamic ===

impl Dynamic {
    /// The base of a sequence whose last row is at `position`.
    fn theta_at(&self, position: u32, head_dim: usize) -> f64 {
        let stretch = f64::from(position + 1) / f64::from(self.original_max);
        let exponent = head_dim as f64 / (head_dim as f64 - 2.0);
        self.theta * (self.factor * stretch - (self.factor - 1.0)).powf(exponent)
    }
}

/// `theta^(-2i / head_dim)`.
fn plain_frequencies(theta: f64, head_dim: usize) -> Vec<f32> {
    wavelength_ratios(theta, head_dim).map(|ratio| 1.0 / ratio).collect()
}

/// `theta^(2i / head_dim)`.
fn wavelength_ratios(theta: f64, head_dim: usize) -> impl Iterator<Item = f32> {
    (0..head_dim).step_by(2).map(move |dim| (theta as f32).powf(dim as f32 / head_dim as f32))
}

fn llama3_frequency(frequency: f32, scaling: &Llama3Scaling) -> f32 {
    let original_max = scaling.original_max as f32;
    let (low, high) = (scaling.low_freq_factor as f32, scaling.high_freq_factor as f32);
    let factor = scaling.factor as f32;
    let wavelength = (2.0 * PI) as f32 / frequency;
    if wavelength > original_max / low {
        frequency / factor
    } else if wavelength < original_max / high {
        frequency
    } else {
        let smooth = (original_max / wavelength - low) / (high - low);
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }
}

fn yarn_frequencies(theta: f64, head_dim: usize, scaling: &YarnScaling) -> Vec<f32> {
    let (low, high) = yarn_ramp(theta, head_dim, scaling);
    wavelength_ratios(theta, head_dim)
        .enumerate()
        .map(|(pair, ratio)| {
            let ramp = ((pair as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
            let keep = 1.0 - ramp;
            let interpolated = 1.0 / (scaling.factor as f32 * ratio);
            let extrapolated = 1.0 / ratio;
            interpolated * (1.0 - keep) + extrapolated * keep
        })
        .collect()
}

/// The dimensions between which YaRN passes from keeping a frequency to interpolating it.
fn yarn_ramp(theta: f64, head_dim: usize, scaling: &YarnScaling) -> (f64, f64) {
    let dimension_of = |rotations: f64| {
        let original_max = f64::from(scaling.original_max);
        head_dim as f64 * (original_max / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln())
    };
    let (low, high) = (dimension_of(scaling.beta_fast), dimension_of(scaling.beta_slow));
    let (low, high) = if scaling.truncate { (low.floor(), high.ceil()) } else { (low, high) };
    let (low, high) = (low.max(0.0), high.min(head_dim as f64 - 1.0));
    // A ramp of no width would divide by zero.
    if low == high { (low, high + 0.001) } else { (low, high) }
}

#[cfg(test)]
mod tests;

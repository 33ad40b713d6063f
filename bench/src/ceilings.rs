//! The card's own rates: what any step is measured against.

use std::fmt;

use anyhow::Result;
use engine::cuda::ElementType;
use engine::cuda::measure::{ProductSize, Yardstick};
use serde::{Deserialize, Serialize};

/// Far more than any cache holds.
const MEMORY_BYTES: usize = 2 << 30;

/// Rows, columns and depth of the product.
const PRODUCT: usize = 8192;

/// Products that are timed together.
const TURNS: usize = 10;

/// Rates that nothing exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Reading device memory, GB/s.
    pub read_gb_per_s: f64,
    /// Copying device memory to itself, GB/s read and written together.
    pub copy_gb_per_s: f64,
    /// A product of 16-bit matrices with 8,192 rows, columns and inputs, TFLOP/s.
    pub product_tflop_per_s: f64,
}

// === impl Ceilings ===

impl Ceilings {
    /// Those of the H200 that the anchors were measured on.
    pub const H200: Self =
        Self { read_gb_per_s: 4300.0, copy_gb_per_s: 4300.0, product_tflop_per_s: 790.0 };

    /// Measures those of the card at hand.
    ///
    /// # Errors
    /// If its memory doesn't suffice, or something fails.
    pub(crate) fn measure(yardstick: &Yardstick) -> Result<Self> {
        let memory = yardstick.memory_times(MEMORY_BYTES)?;
        let bytes = MEMORY_BYTES as f64;
        let product = yardstick.library_product(ProductSize {
            rows_max: PRODUCT,
            outputs: PRODUCT,
            inputs: PRODUCT,
            out_element: ElementType::Bf16,
            copies: 1,
            spread: 0.03,
        })?;
        let flops = 2.0 * (PRODUCT * PRODUCT * PRODUCT) as f64;
        Ok(Self {
            read_gb_per_s: bytes / memory.read_us / 1e3,
            copy_gb_per_s: 2.0 * bytes / memory.copy_us / 1e3,
            product_tflop_per_s: flops / product.time_us(PRODUCT, TURNS)? / 1e6,
        })
    }

    /// Time to read so many bytes.
    #[must_use]
    pub fn read_ms(&self, bytes: f64) -> f64 {
        bytes / self.read_gb_per_s / 1e6
    }

    /// Time for so many operations of a product.
    #[must_use]
    pub fn product_ms(&self, flops: f64) -> f64 {
        flops / self.product_tflop_per_s / 1e9
    }
}

impl fmt::Display for Ceilings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { read_gb_per_s, copy_gb_per_s, product_tflop_per_s } = self;
        write!(
            f,
            "reads {read_gb_per_s:.0} GB/s, copies {copy_gb_per_s:.0} GB/s, multiplies \
             {product_tflop_per_s:.0} TFLOP/s (the anchors' H200: {:.0} GB/s, {:.0} TFLOP/s)",
            Self::H200.read_gb_per_s,
            Self::H200.product_tflop_per_s
        )
    }
}

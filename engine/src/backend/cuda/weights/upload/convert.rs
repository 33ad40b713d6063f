//! Weights from the type they are stored in to the type they are computed with.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::backend::cuda::driver::tensor_map::ElementType;
use crate::weights::WeightDtype;

/// Numbers that are converted at a time: they stay in the first-level cache, and are enough for the
/// processor's widest instructions.
const TILE: usize = 512;

/// Writes the numbers of `from` to `out`, rounding to the nearest, ties to even.
///
/// # Panics
/// If `out` doesn't hold as many numbers.
pub(super) fn convert(element: ElementType, out: &mut [u8], dtype: WeightDtype, from: &[u8]) {
    assert_eq!(out.len() / element.bytes(), from.len() / dtype.bytes(), "as many numbers");
    let same = matches!(
        (dtype, element),
        (WeightDtype::Bf16, ElementType::Bf16)
            | (WeightDtype::F16, ElementType::F16)
            | (WeightDtype::F32, ElementType::F32)
    );
    if same {
        return out.copy_from_slice(from);
    }
    let mut tile = [0.0; TILE];
    let outs = out.chunks_mut(TILE * element.bytes());
    for (out, from) in outs.zip(from.chunks(TILE * dtype.bytes())) {
        let tile = &mut tile[..from.len() / dtype.bytes()];
        widen(dtype, from, tile);
        narrow(element, tile, out);
    }
}

fn widen(dtype: WeightDtype, from: &[u8], tile: &mut [f32]) {
    match dtype {
        WeightDtype::F32 => {
            for (x, bytes) in tile.iter_mut().zip(from.as_chunks().0) {
                *x = f32::from_le_bytes(*bytes);
            }
        }
        WeightDtype::Bf16 => {
            for (x, bytes) in tile.iter_mut().zip(from.as_chunks().0) {
                *x = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
            }
        }
        WeightDtype::F16 => {
            let mut halves = [f16::ZERO; TILE];
            let halves = &mut halves[..tile.len()];
            for (x, bytes) in halves.iter_mut().zip(from.as_chunks().0) {
                *x = f16::from_le_bytes(*bytes);
            }
            halves.convert_to_f32_slice(tile);
        }
    }
}

fn narrow(element: ElementType, tile: &[f32], out: &mut [u8]) {
    match element {
        ElementType::F32 => {
            for (bytes, x) in out.as_chunks_mut().0.iter_mut().zip(tile) {
                *bytes = x.to_le_bytes();
            }
        }
        ElementType::Bf16 => {
            for (bytes, x) in out.as_chunks_mut().0.iter_mut().zip(tile) {
                *bytes = bf16_bits(*x).to_le_bytes();
            }
        }
        ElementType::F16 => {
            let mut halves = [f16::ZERO; TILE];
            let halves = &mut halves[..tile.len()];
            halves.convert_from_f32_slice(tile);
            for (bytes, x) in out.as_chunks_mut().0.iter_mut().zip(halves.iter()) {
                *bytes = x.to_le_bytes();
            }
        }
    }
}

/// As `half` rounds, but without a branch, so that the compiler makes wide instructions of it.
fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    let is_nan = bits & 0x7FFF_FFFF > 0x7F80_0000;
    let quiet = bits >> 16 | 0x40;
    let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
    (if is_nan { quiet } else { rounded }) as u16
}

#[cfg(test)]
mod tests {
    use half::bf16;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(WeightDtype::F32, ElementType::F32)]
    #[case(WeightDtype::F32, ElementType::Bf16)]
    #[case(WeightDtype::F32, ElementType::F16)]
    #[case(WeightDtype::F16, ElementType::F32)]
    #[case(WeightDtype::F16, ElementType::Bf16)]
    #[case(WeightDtype::F16, ElementType::F16)]
    #[case(WeightDtype::Bf16, ElementType::F32)]
    #[case(WeightDtype::Bf16, ElementType::Bf16)]
    #[case(WeightDtype::Bf16, ElementType::F16)]
    fn numbers_keep_their_values(#[case] dtype: WeightDtype, #[case] element: ElementType) {
        // Of these, every type has all; more than a tile of them, and no whole number of tiles.
        let numbers = [0.0_f32, -1.5, 0.007_812_5, 240.0, -0.0].repeat(TILE / 4);
        let from: Vec<u8> = numbers.iter().flat_map(|&x| encode(dtype, x)).collect();
        let mut out = vec![0xFF; numbers.len() * element.bytes()];
        convert(element, &mut out, dtype, &from);
        let got: Vec<u32> = out
            .chunks_exact(element.bytes())
            .map(|bytes| bytes.iter().rev().fold(0, |bits, &byte| bits << 8 | u32::from(byte)))
            .collect();
        let want: Vec<u32> = numbers.iter().map(|&x| element.bits(x)).collect();
        assert_eq!(got, want);
    }

    fn encode(dtype: WeightDtype, x: f32) -> Vec<u8> {
        let element = match dtype {
            WeightDtype::F32 => ElementType::F32,
            WeightDtype::Bf16 => ElementType::Bf16,
            WeightDtype::F16 => ElementType::F16,
        };
        element.bits(x).to_le_bytes()[..dtype.bytes()].to_vec()
    }

    #[test]
    fn rounding_is_that_of_half() {
        // Every upper half, with lower halves around the ties and the ends.
        for high in 0..=u32::from(u16::MAX) {
            for low in [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF] {
                let x = f32::from_bits(high << 16 | low);
                assert_eq!(bf16_bits(x), bf16::from_f32(x).to_bits(), "{:#x}", x.to_bits());
            }
        }
    }
}

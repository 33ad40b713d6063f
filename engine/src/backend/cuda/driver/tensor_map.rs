//! Descriptions of tensors for the copy engine (TMA) of compute capability 9.0 and newer.
#![allow(unsafe_code)]

use std::ffi::c_void;

use cudarc::driver::sys;

use super::address::Address;
use super::device::failed;
pub(crate) use super::element::ElementType;
use crate::error::EngineError;

/// Dimensions that the hardware knows.
const RANK_MAX: usize = 5;

/// Bytes of a row of a tile in shared memory: one row of the 128-byte swizzle.
const SWIZZLE_BYTES: u64 = 128;

/// Elements of a tile along one dimension.
const BOX_MAX: u32 = 256;

/// A tensor in device memory and the tiles that are copied of it, as the hardware wants it said.
///
/// Tiles land in shared memory with the 128-byte swizzle; what lies outside of the tensor reads as
/// zeros. Passed to kernels by value, as a `__grid_constant__` parameter.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct TensorMap {
    words: [u64; 16],
}

// === impl TensorMap ===

impl TensorMap {
    /// Describes a tensor. Dimensions are given innermost first.
    ///
    /// - `address`: of the first element, aligned to 16 bytes.
    /// - `dims`: elements along each dimension.
    /// - `strides_bytes`: distance of neighbours along each dimension but the innermost, which has
    ///   none between its elements; multiples of 16.
    /// - `boxes`: elements of a tile along each dimension, at most 256; the innermost is at most
    ///   128 bytes long.
    ///
    /// # Errors
    /// [`EngineError::Device`] says which of these doesn't hold.
    pub(crate) fn new(
        address: Address,
        element: ElementType,
        dims: &[u64],
        strides_bytes: &[u64],
        boxes: &[u32],
    ) -> Result<Self, EngineError> {
        let what = || format!("{dims:?} {element:?}, strides {strides_bytes:?}, boxes {boxes:?}");
        check(address, element, dims, strides_bytes, boxes)
            .map_err(|why| EngineError::Device(format!("a tensor map of {}: {why}", what())))?;
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        let steps = [1; RANK_MAX];
        // SAFETY: every array holds as many numbers as `check` has seen to, and the driver only
        // encodes the address, without following it.
        unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                data_type(element),
                dims.len() as u32,
                address.number() as *mut c_void,
                dims.as_ptr(),
                strides_bytes.as_ptr(),
                boxes.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        }
        .result()
        .map_err(|why| failed(&format!("a tensor map of {}", what()), why))?;
        Ok(Self { words: map.opaque })
    }

    /// Describes a matrix whose rows are contiguous, in tiles of `box_rows` rows and as many columns
    /// as make one row of the swizzle.
    ///
    /// - `matrix`: the address, the rows, the columns.
    ///
    /// # Errors
    /// As [`TensorMap::new`].
    pub(crate) fn of_rows(
        (address, rows, cols): (Address, usize, usize),
        element: ElementType,
        box_rows: usize,
    ) -> Result<Self, EngineError> {
        let (row_bytes, box_cols) =
            (cols * element.bytes(), SWIZZLE_BYTES as usize / element.bytes());
        Self::new(
            address,
            element,
            &[cols as u64, rows as u64],
            &[row_bytes as u64],
            &[box_cols as u32, box_rows as u32],
        )
    }
}

fn check(
    address: Address,
    element: ElementType,
    dims: &[u64],
    strides_bytes: &[u64],
    boxes: &[u32],
) -> Result<(), String> {
    let rank = dims.len();
    if !(1..=RANK_MAX).contains(&rank) || boxes.len() != rank || strides_bytes.len() + 1 != rank {
        return Err(format!(
            "{rank} dimensions (want 1 to {RANK_MAX}), {} boxes, {} strides (want one less)",
            boxes.len(),
            strides_bytes.len()
        ));
    }
    if address.alignment() < 16 {
        return Err(format!("address {:#x} isn't a multiple of 16", address.number()));
    }
    if let Some(dim) = dims.iter().find(|dim| !(1..=1 << 32).contains(*dim)) {
        return Err(format!("dimension of {dim}, want 1 to 2^32"));
    }
    if let Some(stride) = strides_bytes.iter().find(|s| !s.is_multiple_of(16) || **s >= 1 << 40) {
        return Err(format!("stride of {stride}, want a multiple of 16 below 2^40"));
    }
    if let Some(side) = boxes.iter().find(|side| !(1..=BOX_MAX).contains(*side)) {
        return Err(format!("box of {side}, want 1 to {BOX_MAX}"));
    }
    let row_bytes = u64::from(boxes[0]) * element.bytes() as u64;
    if row_bytes > SWIZZLE_BYTES || !row_bytes.is_multiple_of(16) {
        return Err(format!("box rows of {row_bytes} bytes, want a multiple of 16 up to 128"));
    }
    Ok(())
}

fn data_type(element: ElementType) -> sys::CUtensorMapDataType {
    use sys::CUtensorMapDataType as Type;
    match element {
        ElementType::Bf16 => Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        ElementType::F16 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        ElementType::F32 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::fits(0x1000, &[4096, 7], &[8192], &[64, 8], None)]
    #[case::address(0x1008, &[4096, 7], &[8192], &[64, 8], Some("multiple of 16"))]
    #[case::rank(0x1000, &[4096, 7], &[], &[64, 8], Some("strides"))]
    #[case::stride(0x1000, &[4097, 7], &[8194], &[64, 8], Some("stride of 8194"))]
    #[case::empty(0x1000, &[4096, 0], &[8192], &[64, 8], Some("dimension of 0"))]
    #[case::tall(0x1000, &[4096, 999], &[8192], &[64, 257], Some("box of 257"))]
    #[case::wide(0x1000, &[4096, 7], &[8192], &[128, 8], Some("rows of 256 bytes"))]
    fn refuses_what_the_hardware_does_not_take(
        #[case] address: u64,
        #[case] dims: &[u64],
        #[case] strides: &[u64],
        #[case] boxes: &[u32],
        #[case] want: Option<&str>,
    ) {
        let got = check(Address::pretended(address), ElementType::Bf16, dims, strides, boxes);
        match want {
            None => assert_eq!(got, Ok(())),
            Some(part) => assert!(got.as_ref().is_err_and(|why| why.contains(part)), "{got:?}"),
        }
    }
}

//! CUDA's library of matrix products, as far as it is used here.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

use crate::backend::cuda::driver::address::{Address, Span};
use crate::backend::cuda::driver::device::Stream;
use crate::backend::cuda::driver::element::ElementType;
use crate::backend::cuda::libraries::cublaslt::{Calls, CublasLt, Destroy};
use crate::error::EngineError;
use cudarc::cublaslt::sys::{
    cublasComputeType_t, cublasLtEpilogue_t, cublasLtHandle_t, cublasLtMatmulAlgo_t,
    cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t, cublasLtMatmulHeuristicResult_t,
    cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t, cublasLtMatrixLayout_t,
    cublasStatus_t, cudaDataType,
};

/// `CUBLAS_OP_T`.
const OPERATION_TRANSPOSED: i32 = 1;

/// An object of the library, destroyed at the end.
#[derive(Debug)]
struct Owned {
    raw: *mut c_void,
    destroy: Destroy,
}

/// The library, started on the calling thread's device.
#[derive(Debug)]
pub(crate) struct Handle {
    library: CublasLt,
    owned: Owned,
}

/// A way to compute a product; opaque, and of one version of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Algorithm {
    pub(crate) words: [u64; 8],
}

/// `out[rows, outputs] = x[rows, inputs] * weight[outputs, inputs]^T (+ bias[outputs])`, all
/// row-major; sums in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
    /// Elements from one row of `x` to the next.
    pub(crate) x_stride: usize,
    /// Elements from one row of `out` to the next.
    pub(crate) out_stride: usize,
    /// Of `x`, `weight` and `bias`.
    pub(crate) element: ElementType,
    /// Of `out`.
    pub(crate) out_element: ElementType,
    pub(crate) has_bias: bool,
}

/// Where the operands lie, on the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operands {
    pub(crate) x: Address,
    pub(crate) weight: Address,
    /// Unused where the shape has none.
    pub(crate) bias: Address,
    pub(crate) out: Address,
}

/// What suggestions must do with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Preference {
    /// That all operands have, bytes.
    pub(crate) alignment: u32,
    /// Of the memory that a product may use while it runs.
    pub(crate) workspace_bytes: usize,
}

/// A shape in the library's words.
///
/// The library's matrices are column-major, so it is given the transposes: of `weight`
/// (`inputs x outputs`, to be transposed), of `x` (`inputs x rows`) and of `out`
/// (`outputs x rows`).
#[derive(Debug)]
pub(crate) struct Problem {
    operation: Owned,
    weight: Owned,
    x: Owned,
    out: Owned,
    has_bias: bool,
}

// === impl Calls ===

impl Calls {
    fn operation(&self, shape: &Shape) -> Result<Owned, EngineError> {
        use cublasLtMatmulDescAttributes_t::{
            CUBLASLT_MATMUL_DESC_EPILOGUE as EPILOGUE, CUBLASLT_MATMUL_DESC_TRANSA as TRANSPOSE_A,
        };
        let mut raw: cublasLtMatmulDesc_t = std::ptr::null_mut();
        let (sums, factors) = (cublasComputeType_t::CUBLAS_COMPUTE_32F, cudaDataType::CUDA_R_32F);
        // SAFETY: writes one pointer.
        let status = unsafe { (self.operation_create)(&raw mut raw, sums, factors) };
        check("describing a product", status)?;
        let operation = Owned { raw: raw.cast(), destroy: self.operation_destroy };
        self.set_operation(&operation, TRANSPOSE_A, OPERATION_TRANSPOSED)?;
        if shape.has_bias {
            let bias = cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            self.set_operation(&operation, EPILOGUE, bias)?;
        }
        Ok(operation)
    }

    fn set_operation<T: bytemuck::Pod>(
        &self,
        operation: &Owned,
        attribute: cublasLtMatmulDescAttributes_t,
        value: T,
    ) -> Result<(), EngineError> {
        let (raw, from) = (operation.raw.cast(), (&raw const value).cast());
        // SAFETY: the operation is alive; the value is read before the call returns.
        let status = unsafe { (self.operation_set)(raw, attribute, from, size_of::<T>()) };
        check("describing a product", status)
    }

    /// A column-major matrix.
    fn layout(
        &self,
        element: cudaDataType,
        rows: usize,
        cols: usize,
        stride: usize,
    ) -> Result<Owned, EngineError> {
        let mut raw: cublasLtMatrixLayout_t = std::ptr::null_mut();
        // SAFETY: writes one pointer.
        let status = unsafe {
            (self.layout_create)(&raw mut raw, element, rows as u64, cols as u64, stride as i64)
        };
        check("describing a matrix", status)?;
        Ok(Owned { raw: raw.cast(), destroy: self.layout_destroy })
    }

    fn preference(&self, wanted: Preference) -> Result<Owned, EngineError> {
        use cublasLtMatmulPreferenceAttributes_t::{
            CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES as WORKSPACE,
            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES as A,
            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES as B,
            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES as C,
            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES as D,
        };
        let mut raw: cublasLtMatmulPreference_t = std::ptr::null_mut();
        // SAFETY: writes one pointer.
        check("preferring", unsafe { (self.preference_create)(&raw mut raw) })?;
        let preference = Owned { raw: raw.cast(), destroy: self.preference_destroy };
        let set = |attribute, from: *const c_void, bytes| {
            // SAFETY: the preference is alive; the value is read before the call returns.
            let status = unsafe { (self.preference_set)(raw, attribute, from, bytes) };
            check("preferring", status)
        };
        set(WORKSPACE, (&raw const wanted.workspace_bytes).cast(), size_of::<usize>())?;
        for operand in [A, B, C, D] {
            set(operand, (&raw const wanted.alignment).cast(), size_of::<u32>())?;
        }
        Ok(preference)
    }
}

// === impl Owned ===

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: made together with its destroyer, and destroyed nowhere else.
        let _ = unsafe { (self.destroy)(self.raw) };
    }
}

// SAFETY: the library's descriptions are plain memory; its handle may be used from any thread.
unsafe impl Send for Owned {}
// SAFETY: as above; only [`Handle::run`] changes a description, and who shares one calls it behind a lock.
unsafe impl Sync for Owned {}

// === impl Handle ===

impl Handle {
    pub(crate) fn new(library: CublasLt) -> Result<Self, EngineError> {
        let mut raw: cublasLtHandle_t = std::ptr::null_mut();
        // SAFETY: writes one pointer.
        check("starting", unsafe { (library.calls.create)(&raw mut raw) })?;
        let owned = Owned { raw: raw.cast(), destroy: library.calls.destroy };
        Ok(Self { library, owned })
    }

    pub(crate) fn version(&self) -> usize {
        self.library.version
    }

    pub(crate) fn problem(&self, shape: &Shape) -> Result<Problem, EngineError> {
        let calls = &self.library.calls;
        let element = data_type(shape.element);
        let [rows, outputs, inputs] = [shape.rows, shape.outputs, shape.inputs];
        Ok(Problem {
            operation: calls.operation(shape)?,
            weight: calls.layout(element, inputs, outputs, inputs)?,
            x: calls.layout(element, inputs, rows, shape.x_stride)?,
            out: calls.layout(data_type(shape.out_element), outputs, rows, shape.out_stride)?,
            has_bias: shape.has_bias,
        })
    }

    /// The library's suggestions, its favourite first; at most `count`.
    pub(crate) fn suggestions(
        &self,
        problem: &Problem,
        count: usize,
        preference: Preference,
    ) -> Result<Vec<Algorithm>, EngineError> {
        let preference = self.library.calls.preference(preference)?;
        let mut results = vec![empty_result(); count];
        let mut found = 0;
        // SAFETY: all objects are alive; writes at most `count` results.
        let status = unsafe {
            (self.library.calls.heuristic)(
                self.owned.raw.cast(),
                problem.operation.raw.cast(),
                problem.weight.raw.cast(),
                problem.x.raw.cast(),
                problem.out.raw.cast(),
                problem.out.raw.cast(),
                preference.raw.cast(),
                count as c_int,
                results.as_mut_ptr(),
                &raw mut found,
            )
        };
        check("asking for algorithms", status)?;
        let good = results
            .iter()
            .take(found.unsigned_abs() as usize)
            .filter(|result| result.state == cublasStatus_t::CUBLAS_STATUS_SUCCESS)
            .map(|result| Algorithm { words: result.algo.data })
            .collect();
        Ok(good)
    }

    /// Whether an algorithm computes a problem with this much workspace.
    pub(crate) fn fits(
        &self,
        problem: &Problem,
        algorithm: Algorithm,
        workspace: Span<'_>,
    ) -> bool {
        let mut result = empty_result();
        let algo = cublasLtMatmulAlgo_t { data: algorithm.words };
        // SAFETY: all objects are alive; writes one result.
        let status = unsafe {
            (self.library.calls.check)(
                self.owned.raw.cast(),
                problem.operation.raw.cast(),
                problem.weight.raw.cast(),
                problem.x.raw.cast(),
                problem.out.raw.cast(),
                problem.out.raw.cast(),
                &raw const algo,
                &raw mut result,
            )
        };
        status == cublasStatus_t::CUBLAS_STATUS_SUCCESS
            && result.state == cublasStatus_t::CUBLAS_STATUS_SUCCESS
            && result.workspaceSize <= workspace.bytes()
    }

    /// Submits a product to a stream. Records no allocation, so it may be captured.
    pub(crate) fn run(
        &self,
        stream: &Stream,
        problem: &Problem,
        operands: Operands,
        algorithm: Algorithm,
        workspace: Span<'_>,
    ) -> Result<(), EngineError> {
        let calls = &self.library.calls;
        if problem.has_bias {
            use cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER as POINTER;
            calls.set_operation(&problem.operation, POINTER, operands.bias.number())?;
        }
        let (one, zero) = (1.0_f32, 0.0_f32);
        let algo = cublasLtMatmulAlgo_t { data: algorithm.words };
        // SAFETY: all objects are alive; the factors are f32, as the operation says, and read before
        // the call returns; the device's memory is the caller's part.
        let status = unsafe {
            (calls.matmul)(
                self.owned.raw.cast(),
                problem.operation.raw.cast(),
                (&raw const one).cast(),
                operands.weight.number() as *const c_void,
                problem.weight.raw.cast(),
                operands.x.number() as *const c_void,
                problem.x.raw.cast(),
                (&raw const zero).cast(),
                operands.out.number() as *const c_void,
                problem.out.raw.cast(),
                operands.out.number() as *mut c_void,
                problem.out.raw.cast(),
                &raw const algo,
                workspace.address().number() as *mut c_void,
                workspace.bytes(),
                stream.raw().cast(),
            )
        };
        check("a matrix product", status)
    }
}

fn data_type(element: ElementType) -> cudaDataType {
    match element {
        ElementType::Bf16 => cudaDataType::CUDA_R_16BF,
        ElementType::F16 => cudaDataType::CUDA_R_16F,
        ElementType::F32 => cudaDataType::CUDA_R_32F,
    }
}

fn empty_result() -> cublasLtMatmulHeuristicResult_t {
    cublasLtMatmulHeuristicResult_t {
        algo: cublasLtMatmulAlgo_t { data: [0; 8] },
        workspaceSize: 0,
        state: cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED,
        wavesCount: 0.0,
        reserved: [0; 4],
    }
}

fn check(what: &str, status: cublasStatus_t) -> Result<(), EngineError> {
    match status {
        cublasStatus_t::CUBLAS_STATUS_SUCCESS => Ok(()),
        why => Err(EngineError::Device(format!("cublasLt, {what}: {why:?}"))),
    }
}

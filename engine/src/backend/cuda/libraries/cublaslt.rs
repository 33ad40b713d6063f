//! The functions of CUDA's library of matrix products.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

use cudarc::cublaslt::sys::{
    cublasComputeType_t, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t, cublasLtMatmulHeuristicResult_t, cublasLtMatmulPreference_t,
    cublasLtMatmulPreferenceAttributes_t, cublasLtMatrixLayout_t, cublasStatus_t, cudaDataType,
    cudaStream_t,
};
use libloading::os::unix::Library;

use crate::error::EngineError;

/// The library's functions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CublasLt {
    pub(crate) calls: Calls,
    /// As the library writes it, e.g. 130100.
    pub(crate) version: usize,
}

pub(crate) type Destroy = unsafe extern "C" fn(*mut c_void) -> cublasStatus_t;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Calls {
    pub(crate) version: unsafe extern "C" fn() -> usize,
    pub(crate) create: unsafe extern "C" fn(*mut cublasLtHandle_t) -> cublasStatus_t,
    pub(crate) destroy: Destroy,
    pub(crate) operation_create: unsafe extern "C" fn(
        *mut cublasLtMatmulDesc_t,
        cublasComputeType_t,
        cudaDataType,
    ) -> cublasStatus_t,
    pub(crate) operation_set: unsafe extern "C" fn(
        cublasLtMatmulDesc_t,
        cublasLtMatmulDescAttributes_t,
        *const c_void,
        usize,
    ) -> cublasStatus_t,
    pub(crate) operation_destroy: Destroy,
    pub(crate) layout_create: unsafe extern "C" fn(
        *mut cublasLtMatrixLayout_t,
        cudaDataType,
        u64,
        u64,
        i64,
    ) -> cublasStatus_t,
    pub(crate) layout_destroy: Destroy,
    pub(crate) preference_create:
        unsafe extern "C" fn(*mut cublasLtMatmulPreference_t) -> cublasStatus_t,
    pub(crate) preference_set: unsafe extern "C" fn(
        cublasLtMatmulPreference_t,
        cublasLtMatmulPreferenceAttributes_t,
        *const c_void,
        usize,
    ) -> cublasStatus_t,
    pub(crate) preference_destroy: Destroy,
    pub(crate) heuristic: unsafe extern "C" fn(
        cublasLtHandle_t,
        cublasLtMatmulDesc_t,
        cublasLtMatrixLayout_t,
        cublasLtMatrixLayout_t,
        cublasLtMatrixLayout_t,
        cublasLtMatrixLayout_t,
        cublasLtMatmulPreference_t,
        c_int,
        *mut cublasLtMatmulHeuristicResult_t,
        *mut c_int,
    ) -> cublasStatus_t,
    pub(crate) check: unsafe extern "C" fn(
        cublasLtHandle_t,
        cublasLtMatmulDesc_t,
        cublasLtMatrixLayout_t,
        cublasLtMatrixLayout_t,
        cublasLtMatrixLayout_t,
        cublasLtMatrixLayout_t,
        *const cublasLtMatmulAlgo_t,
        *mut cublasLtMatmulHeuristicResult_t,
    ) -> cublasStatus_t,
    pub(crate) matmul: unsafe extern "C" fn(
        cublasLtHandle_t,
        cublasLtMatmulDesc_t,
        *const c_void,
        *const c_void,
        cublasLtMatrixLayout_t,
        *const c_void,
        cublasLtMatrixLayout_t,
        *const c_void,
        *const c_void,
        cublasLtMatrixLayout_t,
        *mut c_void,
        cublasLtMatrixLayout_t,
        *const cublasLtMatmulAlgo_t,
        *mut c_void,
        usize,
        cudaStream_t,
    ) -> cublasStatus_t,
}

// === impl CublasLt ===

impl CublasLt {
    /// Takes the functions of a loaded library, which stays loaded for good.
    pub(crate) fn new(library: Library) -> Result<Self, EngineError> {
        // SAFETY: the types are those of `cublasLt.h` of CUDA 13.
        let calls = unsafe { Calls::of(&library) }.map_err(|why| {
            EngineError::Device(format!("the library of matrix products lacks a function: {why}"))
        })?;
        std::mem::forget(library);
        // SAFETY: returns a constant.
        let version = unsafe { (calls.version)() };
        Ok(Self { calls, version })
    }
}

impl Calls {
    /// # Safety
    /// `library` is cublasLt.
    unsafe fn of(library: &Library) -> Result<Self, libloading::Error> {
        // SAFETY: each field has the type that `cublasLt.h` gives the function of that name, but for
        // the destroyers, whose argument is a pointer to an opaque struct.
        unsafe {
            Ok(Self {
                version: *library.get(b"cublasLtGetVersion")?,
                create: *library.get(b"cublasLtCreate")?,
                destroy: *library.get(b"cublasLtDestroy")?,
                operation_create: *library.get(b"cublasLtMatmulDescCreate")?,
                operation_set: *library.get(b"cublasLtMatmulDescSetAttribute")?,
                operation_destroy: *library.get(b"cublasLtMatmulDescDestroy")?,
                layout_create: *library.get(b"cublasLtMatrixLayoutCreate")?,
                layout_destroy: *library.get(b"cublasLtMatrixLayoutDestroy")?,
                preference_create: *library.get(b"cublasLtMatmulPreferenceCreate")?,
                preference_set: *library.get(b"cublasLtMatmulPreferenceSetAttribute")?,
                preference_destroy: *library.get(b"cublasLtMatmulPreferenceDestroy")?,
                heuristic: *library.get(b"cublasLtMatmulAlgoGetHeuristic")?,
                check: *library.get(b"cublasLtMatmulAlgoCheck")?,
                matmul: *library.get(b"cublasLtMatmul")?,
            })
        }
    }
}

//! CUDA's run-time compiler: kernel sources in, machine code out.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int};

use cudarc::nvrtc::sys::{nvrtcProgram, nvrtcResult};
use libloading::os::unix::Library;

use crate::error::EngineError;

/// The compiler's functions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nvrtc {
    calls: Calls,
    version: (i32, i32),
}

/// What is compiled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit<'a> {
    /// The file's name, for messages and line tables.
    pub name: &'a str,
    /// Its text.
    pub source: &'a str,
    /// Name and text of what it may include.
    pub headers: &'a [(&'a str, &'a str)],
    /// The compiler's options; one of them names a real architecture (`sm_..`).
    pub options: &'a [String],
}

/// What came out.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    /// Machine code for one architecture.
    pub cubin: Vec<u8>,
    /// Warnings, and what `--ptxas-options=-v` tells of registers and spills.
    pub log: String,
}

#[derive(Clone, Copy, Debug)]
struct Calls {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> nvrtcResult,
    create: unsafe extern "C" fn(
        *mut nvrtcProgram,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> nvrtcResult,
    destroy: unsafe extern "C" fn(*mut nvrtcProgram) -> nvrtcResult,
    compile: unsafe extern "C" fn(nvrtcProgram, c_int, *const *const c_char) -> nvrtcResult,
    log_bytes: unsafe extern "C" fn(nvrtcProgram, *mut usize) -> nvrtcResult,
    log: unsafe extern "C" fn(nvrtcProgram, *mut c_char) -> nvrtcResult,
    cubin_bytes: unsafe extern "C" fn(nvrtcProgram, *mut usize) -> nvrtcResult,
    cubin: unsafe extern "C" fn(nvrtcProgram, *mut c_char) -> nvrtcResult,
}

/// A program in the compiler, forgotten at the end.
struct Program {
    calls: Calls,
    raw: nvrtcProgram,
}

/// Either of the functions that copy something out, and the one that tells its length.
type Measure = unsafe extern "C" fn(nvrtcProgram, *mut usize) -> nvrtcResult;
type Copy = unsafe extern "C" fn(nvrtcProgram, *mut c_char) -> nvrtcResult;

// === impl Nvrtc ===

impl Nvrtc {
    /// Takes the functions of a loaded library, which stays loaded for good.
    pub(crate) fn new(library: Library) -> Result<Self, EngineError> {
        // SAFETY: the types are those of `nvrtc.h`, unchanged since CUDA 11.
        let calls = unsafe { Calls::of(&library) }.map_err(|why| {
            EngineError::Device(format!("the run-time compiler lacks a function: {why}"))
        })?;
        std::mem::forget(library);
        let (mut major, mut minor) = (0, 0);
        // SAFETY: writes two numbers.
        check("its version", unsafe { (calls.version)(&raw mut major, &raw mut minor) })?;
        Ok(Self { calls, version: (major, minor) })
    }

    /// Major and minor, e.g. `(13, 0)`.
    #[must_use]
    pub(crate) fn version(&self) -> (i32, i32) {
        self.version
    }

    /// Compiles one file. May be called from several threads at once.
    ///
    /// # Errors
    /// [`EngineError::Device`] with the compiler's messages.
    pub(crate) fn compile(&self, unit: &Unit<'_>) -> Result<Compiled, EngineError> {
        let program = Program::new(self.calls, unit)?;
        let options = c_strings(unit.options.iter().map(String::as_str))?;
        let options: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
        // SAFETY: the program is valid while `program` is; the options are terminated strings that
        // live until the call returns.
        let done =
            unsafe { (self.calls.compile)(program.raw, options.len() as c_int, options.as_ptr()) };
        let log = program.copy_out("its log", self.calls.log_bytes, self.calls.log)?;
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
        if done != nvrtcResult::NVRTC_SUCCESS {
            return Err(EngineError::Device(format!(
                "compiling {} with {:?}: {done:?}\n{log}",
                unit.name, unit.options
            )));
        }
        let cubin = program.copy_out("a cubin", self.calls.cubin_bytes, self.calls.cubin)?;
        Ok(Compiled { cubin, log })
    }
}

impl Calls {
    /// # Safety
    /// `library` is NVRTC.
    unsafe fn of(library: &Library) -> Result<Self, libloading::Error> {
        // SAFETY: each field has the type that `nvrtc.h` gives the function of that name.
        unsafe {
            Ok(Self {
                version: *library.get(b"nvrtcVersion")?,
                create: *library.get(b"nvrtcCreateProgram")?,
                destroy: *library.get(b"nvrtcDestroyProgram")?,
                compile: *library.get(b"nvrtcCompileProgram")?,
                log_bytes: *library.get(b"nvrtcGetProgramLogSize")?,
                log: *library.get(b"nvrtcGetProgramLog")?,
                cubin_bytes: *library.get(b"nvrtcGetCUBINSize")?,
                cubin: *library.get(b"nvrtcGetCUBIN")?,
            })
        }
    }
}

// === impl Program ===

impl Program {
    fn new(calls: Calls, unit: &Unit<'_>) -> Result<Self, EngineError> {
        let [name, source] = [c_string(unit.name)?, c_string(unit.source)?];
        let names = c_strings(unit.headers.iter().map(|(name, _)| *name))?;
        let texts = c_strings(unit.headers.iter().map(|(_, text)| *text))?;
        let names: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        let texts: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
        let mut raw: nvrtcProgram = std::ptr::null_mut();
        // SAFETY: terminated strings, and as many of each as is said; the compiler copies them.
        let created = unsafe {
            (calls.create)(
                &raw mut raw,
                source.as_ptr(),
                name.as_ptr(),
                names.len() as c_int,
                texts.as_ptr(),
                names.as_ptr(),
            )
        };
        check("a program", created)?;
        Ok(Self { calls, raw })
    }

    fn copy_out(&self, what: &str, measure: Measure, copy: Copy) -> Result<Vec<u8>, EngineError> {
        let mut bytes = 0;
        // SAFETY: the program is valid while `self` is; writes one number.
        check(what, unsafe { measure(self.raw, &raw mut bytes) })?;
        let mut out = vec![0_u8; bytes];
        // SAFETY: as above; writes as many bytes as it just said.
        check(what, unsafe { copy(self.raw, out.as_mut_ptr().cast()) })?;
        Ok(out)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by `new` and destroyed nowhere else.
        let _ = unsafe { (self.calls.destroy)(&raw mut self.raw) };
    }
}

fn c_string(text: &str) -> Result<CString, EngineError> {
    CString::new(text).map_err(|_| EngineError::Device("a kernel's text has a 0 in it".to_owned()))
}

fn c_strings<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<CString>, EngineError> {
    texts.map(c_string).collect()
}

fn check(what: &str, result: nvrtcResult) -> Result<(), EngineError> {
    match result {
        nvrtcResult::NVRTC_SUCCESS => Ok(()),
        why => {
            Err(EngineError::Device(format!("asking the run-time compiler for {what}: {why:?}")))
        }
    }
}

//! Machine code that is loaded.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::device::{Device, failed};
use crate::error::EngineError;

/// Loaded machine code; clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Module {
    loaded: Arc<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    device: Device,
    file: String,
    raw: sys::CUmodule,
}

// === impl Module ===

impl Module {
    /// Loads what the compiler made of `file`.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses it.
    pub(crate) fn load(device: &Device, file: &str, cubin: &[u8]) -> Result<Self, EngineError> {
        device.bind()?;
        // SAFETY: a whole cubin, which tells its own length; the driver copies it.
        let raw = unsafe { result::module::load_data(cubin.as_ptr().cast()) }
            .map_err(|why| failed(&format!("loading {file}"), why))?;
        Ok(Self { loaded: Arc::new(Loaded { device: device.clone(), file: file.to_owned(), raw }) })
    }

    /// The driver's handle to a function; valid while `self` is.
    pub(crate) fn entry(&self, name: &str) -> Result<sys::CUfunction, EngineError> {
        let c_name = CString::new(name)
            .map_err(|_| EngineError::Device("a kernel's name has a 0 in it".to_owned()))?;
        // SAFETY: the module is loaded while `self` is.
        unsafe { result::module::get_function(self.loaded.raw, c_name) }
            .map_err(|why| failed(&format!("finding `{name}` in {}", self.loaded.file), why))
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: loaded by `Module::load` and unloaded nowhere else. Of a context that is broken
        // nothing can be given back, so the error says nothing new.
        let _ = self.device.bind().map(|()| unsafe { result::module::unload(self.raw) });
    }
}

// SAFETY: the driver's modules may be used from any thread bound to their context.
unsafe impl Send for Loaded {}
// SAFETY: as above.
unsafe impl Sync for Loaded {}

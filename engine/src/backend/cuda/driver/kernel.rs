//! Launching kernels.
//!
//! A launch is checked against the kernel's own parameters: their number and the size of each. What
//! a kernel does with the addresses it is given, it does to device memory and to pinned memory: a
//! twin, which is the safe side of a kernel, checks the shapes behind them.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cudarc::driver::{result, sys};

use super::address::Address;
use super::device::{Stream, failed};
use super::module::Module;
use super::tensor_map::TensorMap;
use crate::error::EngineError;

/// Dynamic shared memory that a kernel may use without being told so before.
const SHARED_BYTES_USUAL: u32 = 48 << 10;

/// An entry of a compiled module. Keeps the module loaded; clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    entry: Arc<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    raw: sys::CUfunction,
    /// Bytes of each parameter, in order.
    parameters: Vec<usize>,
    /// Dynamic shared memory that launches may use.
    shared_bytes: AtomicU32,
    /// Keeps `raw` valid.
    _module: Module,
}

/// How a kernel is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    /// Blocks along x, y and z; none of them 0.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Blocks of a cluster, along x; 1 for none. Divides the grid's x.
    pub cluster: u32,
    /// Whether the kernel may start before its predecessor in the stream has ended (programmatic
    /// dependent launch). It must call `grid_wait()` before it touches what the predecessor does.
    /// Without effect before compute capability 9.0.
    pub overlaps: bool,
}

/// A value that a kernel can be given.
///
/// # Safety
/// The type is plain data, and laid out as the kernel's parameter is.
pub(crate) unsafe trait Argument {}

/// A 64-bit integer for a kernel: told from an address, which is as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Wide(pub(crate) u64);

/// A pointer to one argument, and its size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArgumentRef<'a> {
    value: *const c_void,
    bytes: usize,
    _value: PhantomData<&'a ()>,
}

/// Arguments of [`Kernel::launch`], in the kernel's order.
///
/// Each is a variable or an expression whose type is exactly the parameter's: [`Address`] for pointers,
/// `i32`, `u32`, `i64`, [`Wide`], `f32`, a [`TensorMap`].
macro_rules! args {
    ($($value:expr),* $(,)?) => {
        &[$($crate::backend::cuda::driver::kernel::ArgumentRef::new(&$value)),*]
    };
}
pub(crate) use args;

// === impl Argument ===

// SAFETY: a kernel's pointers, into memory that the device reaches.
unsafe impl Argument for Address {}
// SAFETY: a kernel's `u64`.
unsafe impl Argument for Wide {}
// SAFETY: a kernel's 64-bit integers.
unsafe impl Argument for i64 {}
// SAFETY: a kernel's `u32`.
unsafe impl Argument for u32 {}
// SAFETY: a kernel's `int`.
unsafe impl Argument for i32 {}
// SAFETY: a kernel's `float`.
unsafe impl Argument for f32 {}
// SAFETY: a kernel's `TensorMap`, 128 bytes aligned to 64.
unsafe impl Argument for TensorMap {}

impl<'a> ArgumentRef<'a> {
    /// Refers to a value for one launch.
    #[must_use]
    pub(crate) fn new<T: Argument>(value: &'a T) -> Self {
        Self { value: std::ptr::from_ref(value).cast(), bytes: size_of::<T>(), _value: PhantomData }
    }
}

// === impl Module ===

impl Module {
    /// One of its `extern "C" __global__` functions.
    ///
    /// # Errors
    /// [`EngineError::Device`] if there is none of this name.
    pub(crate) fn kernel(&self, name: &str) -> Result<Kernel, EngineError> {
        Kernel::find(self, name)
    }
}

// === impl Kernel ===

impl Kernel {
    /// Finds an entry of `module`.
    fn find(module: &Module, name: &str) -> Result<Self, EngineError> {
        let raw = module.entry(name)?;
        // SAFETY: `raw` is an entry of the module, which `_module` keeps loaded.
        let parameters = unsafe { parameters(raw) };
        let entry = Entry {
            name: name.to_owned(),
            raw,
            parameters,
            shared_bytes: AtomicU32::new(SHARED_BYTES_USUAL),
            _module: module.clone(),
        };
        Ok(Self { entry: Arc::new(entry) })
    }

    /// The entry's name.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        &self.entry.name
    }

    /// Submits the kernel to a stream. The calling thread is bound to the stream's device.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the arguments are not the kernel's, or the driver refuses the
    /// launch. What fails while it runs is told by whatever waits for the stream.
    pub(crate) fn launch(
        &self,
        stream: &Stream,
        launch: Launch,
        arguments: &[ArgumentRef<'_>],
    ) -> Result<(), EngineError> {
        self.check(arguments)?;
        self.allow_shared(stream, launch.shared_bytes)?;
        let mut attributes = [const { empty_attribute() }; 2];
        let used = launch.attributes(stream, &mut attributes);
        let config = sys::CUlaunchConfig {
            gridDimX: launch.grid[0],
            gridDimY: launch.grid[1],
            gridDimZ: launch.grid[2],
            blockDimX: launch.block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: launch.shared_bytes,
            hStream: stream.raw(),
            attrs: attributes.as_mut_ptr(),
            numAttrs: used,
        };
        let mut pointers = [std::ptr::null_mut(); ARGUMENTS_MAX];
        for (pointer, argument) in pointers.iter_mut().zip(arguments) {
            *pointer = argument.value.cast_mut();
        }
        // SAFETY: the entry and the stream are valid while their owners are; `check` has compared
        // the arguments with the entry's parameters; the driver copies them before it returns.
        unsafe {
            sys::cuLaunchKernelEx(
                &raw const config,
                self.entry.raw,
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        }
        .result()
        .map_err(|why| failed(&format!("launching `{}` as {launch:?}", self.name()), why))
    }

    fn check(&self, arguments: &[ArgumentRef<'_>]) -> Result<(), EngineError> {
        let parameters = &self.entry.parameters;
        let fits = arguments.len() == parameters.len()
            && arguments.iter().zip(parameters).all(|(argument, bytes)| argument.bytes == *bytes);
        if fits {
            return Ok(());
        }
        let given: Vec<_> = arguments.iter().map(|argument| argument.bytes).collect();
        Err(EngineError::Device(format!(
            "`{}` takes parameters of {parameters:?} bytes and was given {given:?}",
            self.name()
        )))
    }

    /// Tells the driver once where a launch needs more than the usual, and then allows all there is:
    /// the driver keeps one limit for a function, however many entries here stand for it.
    fn allow_shared(&self, stream: &Stream, bytes: u32) -> Result<(), EngineError> {
        use sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES as STATIC;
        if bytes <= self.entry.shared_bytes.load(Ordering::Relaxed) {
            return Ok(());
        }
        // SAFETY: the entry is valid while its module is loaded.
        let fixed = unsafe { result::function::get_function_attribute(self.entry.raw, STATIC) }
            .map_err(|why| failed("asking for a kernel's shared memory", why))?;
        let most = stream.device().properties().shared_bytes_max.saturating_sub(fixed as u32);
        let bytes = bytes.max(most);
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the entry is valid while its module is loaded.
        unsafe {
            result::function::set_function_attribute(self.entry.raw, attribute, bytes as i32)
        }
        .map_err(|why| {
            failed(&format!("giving `{}` {bytes} bytes of shared memory", self.name()), why)
        })?;
        self.entry.shared_bytes.fetch_max(bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// More than any kernel here has.
const ARGUMENTS_MAX: usize = 40;

/// Bytes of each parameter of an entry, in order.
///
/// # Safety
/// `entry` belongs to a loaded module.
unsafe fn parameters(entry: sys::CUfunction) -> Vec<usize> {
    (0..ARGUMENTS_MAX)
        .map_while(|index| {
            let (mut offset, mut bytes) = (0, 0);
            // SAFETY: the entry is valid, says the caller; the driver refuses an index past the end.
            let answer =
                unsafe { sys::cuFuncGetParamInfo(entry, index, &raw mut offset, &raw mut bytes) };
            answer.result().is_ok().then_some(bytes)
        })
        .collect()
}

// SAFETY: an entry is immutable but for its attributes, which the driver guards.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

// === impl Launch ===

impl Launch {
    /// Writes the attributes that this launch needs; returns how many.
    fn attributes(&self, stream: &Stream, out: &mut [sys::CUlaunchAttribute; 2]) -> u32 {
        use sys::CUlaunchAttributeID as Id;
        let mut used = 0;
        if self.cluster > 1 {
            out[used].id = Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
            out[used].value.clusterDim =
                sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: self.cluster, y: 1, z: 1 };
            used += 1;
        }
        if self.overlaps && stream.device().properties().capability >= (9, 0) {
            out[used].id = Id::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
            out[used].value.programmaticStreamSerializationAllowed = 1;
            used += 1;
        }
        used as u32
    }
}

const fn empty_attribute() -> sys::CUlaunchAttribute {
    sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_IGNORE,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue { pad: [0; 64] },
    }
}

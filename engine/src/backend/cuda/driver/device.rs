//! A GPU, its streams and its events.
//!
//! Everything here works on the device's primary context. A thread that calls into CUDA is bound to
//! it first, once, with [`Device::bind`]; opening a device binds the calling thread.
#![allow(unsafe_code)]

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{CudaContext, DriverError, result, sys};
use parking_lot::{RwLock, RwLockReadGuard};

use crate::backend::cuda::libraries::{self, Libraries};
use crate::error::EngineError;

/// The oldest GPUs with the instructions that the portable kernels use (bf16 `mma`, `cp.async`).
pub(crate) const CAPABILITY_MIN: (u32, u32) = (8, 0);

/// Held by whoever records. The driver can't wait for a whole GPU while any of its streams records: the wait fails, and
/// so does the recording, whichever engine of the process it is of.
static RECORDING: RwLock<()> = RwLock::new(());

/// To wait for recordings at most; they take milliseconds.
const RECORDING_MAX: Duration = Duration::from_secs(10);

/// An open GPU; clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    open: Arc<OpenDevice>,
}

#[derive(Debug)]
struct OpenDevice {
    context: Arc<CudaContext>,
    properties: Properties,
    libraries: Libraries,
}

/// What a GPU is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Properties {
    /// As the driver calls it, e.g. `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Major and minor, e.g. `(9, 0)`.
    pub capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Shared memory that one block may ask for, static and dynamic together.
    pub shared_bytes_max: u32,
    /// Second-level cache.
    pub l2_bytes: u64,
    /// Device memory in all.
    pub memory_bytes: u64,
}

/// How urgent a stream's work is where several have work waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Work that nobody waits for.
    #[default]
    Normal,
    /// Steps that give way to others.
    Medium,
    /// Steps, and copies that steps of another engine wait for.
    High,
}

/// Work in order. Safe to use from several threads; the order is then theirs to make.
#[derive(Debug)]
pub(crate) struct Stream {
    device: Device,
    raw: sys::CUstream,
    multiprocessors: u32,
    /// Whose multiprocessors its work runs on; none for all of them.
    _part: Option<Arc<dyn Any + Send + Sync>>,
}

/// A point in a stream's work.
#[derive(Debug)]
pub(crate) struct Event {
    device: Device,
    raw: sys::CUevent,
}

// === impl Device ===

impl Device {
    /// Opens the GPU with this number, in the driver's order, and binds the calling thread to it.
    ///
    /// - `library_folders`: where to look first for CUDA's libraries.
    ///
    /// # Errors
    /// [`EngineError::Device`] says what is missing and what to do: no driver, one that is too old,
    /// no such GPU, or one without the instructions that the kernels use.
    pub(crate) fn open(ordinal: usize, library_folders: &[PathBuf]) -> Result<Self, EngineError> {
        libraries::require_driver(library_folders)
            .map_err(|why| EngineError::Device(why.to_string()))?;
        let count = result::device::get_count().map_err(|why| failed("counting GPUs", why))?;
        if ordinal >= count.unsigned_abs() as usize {
            return Err(EngineError::Device(format!(
                "there is no GPU {ordinal}: the driver shows {count}, numbered from 0 (see \
                 `nvidia-smi -L`, and CUDA_VISIBLE_DEVICES if it is set)"
            )));
        }
        let context = CudaContext::new(ordinal)
            .map_err(|why| failed(&format!("opening GPU {ordinal}"), why))?;
        // SAFETY: tracking orders the accesses of cudarc's own slices and streams, of which none are
        // made here.
        unsafe { context.disable_event_tracking() };
        let properties = Properties::of(&context).map_err(|why| failed("describing a GPU", why))?;
        properties.validate()?;
        let libraries = Libraries::new(library_folders.to_vec());
        Ok(Self { open: Arc::new(OpenDevice { context, properties, libraries }) })
    }

    /// What it is.
    #[must_use]
    pub(crate) fn properties(&self) -> &Properties {
        &self.open.properties
    }

    /// CUDA's other libraries, found and loaded when first asked for.
    #[must_use]
    pub(crate) fn libraries(&self) -> &Libraries {
        &self.open.libraries
    }

    /// Makes this GPU the calling thread's. Cheap where it already is.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses.
    pub(crate) fn bind(&self) -> Result<(), EngineError> {
        self.open.context.bind_to_thread().map_err(|why| failed("binding a thread", why))
    }

    /// Device memory that nobody has taken, bytes. Other processes change it at any time.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses.
    pub(crate) fn free_memory(&self) -> Result<u64, EngineError> {
        let (free, _) =
            self.open.context.mem_get_info().map_err(|why| failed("asking for memory", why))?;
        Ok(free as u64)
    }

    /// Waits until everything submitted to this GPU by this process is done. Recordings are waited for, too, so that
    /// none may call this.
    ///
    /// # Errors
    /// [`EngineError::Device`] if some of it failed, or a recording doesn't end.
    pub(crate) fn synchronize(&self) -> Result<(), EngineError> {
        let _none_records = RECORDING.try_write_for(RECORDING_MAX).ok_or_else(|| {
            EngineError::Device("waiting for the GPU: a recording doesn't end".to_owned())
        })?;
        self.open.context.synchronize().map_err(|why| failed("waiting for the GPU", why))
    }

    /// Keeps [`Device::synchronize`] waiting.
    pub(super) fn recording(&self) -> RwLockReadGuard<'static, ()> {
        RECORDING.read()
    }

    /// Whether processes work on it at the same time, by NVIDIA's Multi-Process Service, rather than by
    /// turns.
    #[must_use]
    pub(crate) fn is_shared_by_mps(&self) -> bool {
        // Drivers that don't know the question know no answer.
        let enabled = Attribute::CU_DEVICE_ATTRIBUTE_MPS_ENABLED;
        self.open.context.attribute(enabled).is_ok_and(|enabled| enabled != 0)
    }

    /// Its name among all GPUs, 32 hexadecimal digits: the same in every process.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses.
    pub(crate) fn uuid(&self) -> Result<String, EngineError> {
        let uuid = self.open.context.uuid().map_err(|why| failed("naming a GPU", why))?;
        Ok(uuid.bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The driver's handle.
    pub(crate) fn raw(&self) -> sys::CUdevice {
        self.open.context.cu_device()
    }
}

// === impl Properties ===

impl Properties {
    fn of(context: &CudaContext) -> Result<Self, DriverError> {
        let attribute = |which| context.attribute(which).map(i32::unsigned_abs);
        Ok(Self {
            name: context.name()?,
            capability: (
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared_bytes_max: attribute(
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
            )?,
            l2_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?.into(),
            memory_bytes: context.total_mem()? as u64,
        })
    }

    fn validate(&self) -> Result<(), EngineError> {
        let ((major, minor), (major_min, minor_min)) = (self.capability, CAPABILITY_MIN);
        if self.capability >= CAPABILITY_MIN {
            return Ok(());
        }
        Err(EngineError::Device(format!(
            "{} has compute capability {major}.{minor}, and Baton's kernels need {major_min}.\
             {minor_min} (Ampere) or newer: use another GPU or the CPU backend",
            self.name
        )))
    }

    /// The architecture that kernels are compiled for, e.g. `sm_90a`.
    ///
    /// Hopper's tensor cores and copy engine are reached by instructions of the variant `a` alone.
    #[must_use]
    pub(crate) fn architecture(&self) -> String {
        match self.capability {
            (9, 0) => "sm_90a".to_owned(),
            (major, minor) => format!("sm_{major}{minor}"),
        }
    }
}

// === impl Stream ===

impl Stream {
    /// A new stream that doesn't wait for the default one.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses.
    pub(crate) fn new(device: &Device, priority: Priority) -> Result<Self, EngineError> {
        device.bind()?;
        let raw = create_stream(priority).map_err(|why| failed("making a stream", why))?;
        let multiprocessors = device.properties().multiprocessors;
        Ok(Self { device: device.clone(), raw, multiprocessors, _part: None })
    }

    /// A stream that the driver made, and whoever has to live as long.
    pub(super) fn adopt(
        device: Device,
        raw: sys::CUstream,
        multiprocessors: u32,
        part: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        Self { device, raw, multiprocessors, _part: Some(part) }
    }

    /// Whose stream it is.
    #[must_use]
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// The driver's handle; valid while `self` is.
    pub(crate) fn raw(&self) -> sys::CUstream {
        self.raw
    }

    /// Multiprocessors that its work runs on.
    #[must_use]
    pub(crate) fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    /// Waits until everything submitted to it is done.
    ///
    /// # Errors
    /// [`EngineError::Device`] if some of it failed.
    pub(crate) fn synchronize(&self) -> Result<(), EngineError> {
        // SAFETY: the handle is valid while `self` is.
        unsafe { result::stream::synchronize(self.raw) }
            .map_err(|why| failed("waiting for a stream", why))
    }

    /// Whether what is submitted is being recorded into a graph rather than run.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses.
    pub(crate) fn is_capturing(&self) -> Result<bool, EngineError> {
        // SAFETY: the handle is valid while `self` is.
        let status = unsafe { result::stream::is_capturing(self.raw) }
            .map_err(|why| failed("asking for a capture", why))?;
        Ok(status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
    }

    /// Makes `event` stand for everything submitted so far.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses.
    pub(crate) fn record(&self, event: &Event) -> Result<(), EngineError> {
        // SAFETY: both handles are valid while their owners are.
        unsafe { result::event::record(event.raw, self.raw) }
            .map_err(|why| failed("recording an event", why))
    }

    /// Lets what is submitted from here on wait for `event`, on the device.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses.
    pub(crate) fn wait(&self, event: &Event) -> Result<(), EngineError> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both handles are valid while their owners are.
        unsafe { result::stream::wait_event(self.raw, event.raw, flags) }
            .map_err(|why| failed("waiting for an event", why))
    }

    /// Device time of what `work` submits to this stream, microseconds. Waits for it.
    ///
    /// # Errors
    /// What `work` says, and [`EngineError::Device`] if what it submitted failed.
    pub(crate) fn time_us(
        &self,
        work: impl FnOnce() -> Result<(), EngineError>,
    ) -> Result<f32, EngineError> {
        let (start, end) = (Event::timed(&self.device)?, Event::timed(&self.device)?);
        self.record(&start)?;
        work()?;
        self.record(&end)?;
        end.synchronize()?;
        end.us_since(&start)
    }
}

fn create_stream(priority: Priority) -> Result<sys::CUstream, DriverError> {
    let kind = result::stream::StreamKind::NonBlocking;
    result::stream::create_with_priority(kind, priority.number()?)
}

// === impl Priority ===

impl Priority {
    /// As the driver wants it, of the device that the calling thread is bound to.
    pub(super) fn number(self) -> Result<i32, DriverError> {
        // The highest priority is the least number.
        let (least, greatest) = result::stream::get_priority_range()?;
        Ok(match self {
            Self::Normal => least,
            Self::Medium => i32::midpoint(least, greatest),
            Self::High => greatest,
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The driver runs what was submitted to the end, then forgets the stream.
        // SAFETY: made by `new` and destroyed nowhere else. Of a context that is broken nothing can
        // be given back, so the error says nothing new.
        let _ = self.device.bind().map(|()| unsafe { result::stream::destroy(self.raw) });
    }
}

// SAFETY: the driver's streams may be used from any thread bound to their context.
unsafe impl Send for Stream {}
// SAFETY: as above; the driver locks what it must.
unsafe impl Sync for Stream {}

// === impl Event ===

impl Event {
    /// An event for ordering.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses.
    pub(crate) fn new(device: &Device) -> Result<Self, EngineError> {
        Self::create(device, sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
    }

    /// An event for ordering, for which threads wait long: they sleep rather than spin.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses.
    pub(crate) fn patient(device: &Device) -> Result<Self, EngineError> {
        let sleeps = sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC as u32;
        let no_time = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        device.bind()?;
        let mut raw: sys::CUevent = std::ptr::null_mut();
        // SAFETY: writes one handle.
        unsafe { sys::cuEventCreate(&raw mut raw, sleeps | no_time) }
            .result()
            .map_err(|why| failed("making an event", why))?;
        Ok(Self { device: device.clone(), raw })
    }

    /// An event that keeps the time; recording it costs more.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses.
    pub(crate) fn timed(device: &Device) -> Result<Self, EngineError> {
        Self::create(device, sys::CUevent_flags::CU_EVENT_DEFAULT)
    }

    fn create(device: &Device, flags: sys::CUevent_flags) -> Result<Self, EngineError> {
        device.bind()?;
        let raw = result::event::create(flags).map_err(|why| failed("making an event", why))?;
        Ok(Self { device: device.clone(), raw })
    }

    /// Whether everything it stands for is done. True where it was never recorded.
    ///
    /// # Errors
    /// [`EngineError::Device`] if some of it failed.
    pub(crate) fn is_done(&self) -> Result<bool, EngineError> {
        // SAFETY: the handle is valid while `self` is.
        match unsafe { result::event::query(self.raw) } {
            Ok(()) => Ok(true),
            Err(DriverError(sys::CUresult::CUDA_ERROR_NOT_READY)) => Ok(false),
            Err(why) => Err(failed("asking for an event", why)),
        }
    }

    /// Waits until everything it stands for is done.
    ///
    /// # Errors
    /// [`EngineError::Device`] if some of it failed.
    pub(crate) fn synchronize(&self) -> Result<(), EngineError> {
        // SAFETY: the handle is valid while `self` is.
        unsafe { result::event::synchronize(self.raw) }
            .map_err(|why| failed("waiting for an event", why))
    }

    /// Device time since `earlier`, microseconds; both timed and done.
    ///
    /// # Errors
    /// [`EngineError::Device`] if they are not.
    pub(crate) fn us_since(&self, earlier: &Self) -> Result<f32, EngineError> {
        // SAFETY: the handles are valid while their owners are.
        let ms = unsafe { result::event::elapsed(earlier.raw, self.raw) }
            .map_err(|why| failed("timing", why))?;
        Ok(ms * 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made by `create` and destroyed nowhere else; as for streams, an error says
        // nothing new.
        let _ = self.device.bind().map(|()| unsafe { result::event::destroy(self.raw) });
    }
}

// SAFETY: the driver's events may be used from any thread bound to their context.
unsafe impl Send for Event {}
// SAFETY: as above; the driver locks what it must.
unsafe impl Sync for Event {}

/// The error for a call that the driver refused.
pub(crate) fn failed(what: &str, why: DriverError) -> EngineError {
    EngineError::Device(format!("{what}: {why}"))
}

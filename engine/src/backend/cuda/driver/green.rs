//! Parts of a GPU: contexts that own some of its multiprocessors.
//!
//! A *green context* shares everything with the device's primary context (memory, modules, events)
//! but the multiprocessors that its streams' kernels run on. Kernels that are captured into a graph
//! keep the context of the stream they were captured on, so a graph runs in that part whatever stream
//! launches it.
#![allow(unsafe_code)]

use std::sync::Arc;

use cudarc::driver::{DriverError, sys};

use super::device::{Device, Priority, Stream, failed};
use crate::error::EngineError;

/// Groups of multiprocessors that a GPU is divided into at most: more than any has.
const GROUPS_MAX: usize = 64;

/// Multiprocessors that kernels can be kept to.
#[derive(Debug)]
pub(crate) struct GreenContext {
    device: Device,
    raw: sys::CUgreenCtx,
    multiprocessors: u32,
}

/// A GPU's multiprocessors in groups of one size, which blocks of a cluster can share, and the rest.
struct Groups {
    groups: Vec<sys::CUdevResource>,
    rest: Option<sys::CUdevResource>,
    /// Multiprocessors of a group.
    size: u32,
}

// === impl Stream ===

impl Stream {
    /// A new stream whose work runs on a part of the GPU alone.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses.
    pub(crate) fn within(
        part: &Arc<GreenContext>,
        priority: Priority,
    ) -> Result<Self, EngineError> {
        let device = part.device().clone();
        device.bind()?;
        let raw = priority
            .number()
            .and_then(|priority| part.create_stream(priority))
            .map_err(|why| failed("making a stream of a part", why))?;
        let multiprocessors = part.multiprocessors();
        Ok(Self::adopt(device, raw, multiprocessors, Arc::clone(part) as _))
    }
}

// === impl GreenContext ===

impl GreenContext {
    /// Divides a GPU in two: one part of `multiprocessors`, rounded to whole groups, and one of all
    /// the others. The parts of one division have no multiprocessor in common.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the GPU can't be divided, or not so.
    pub(crate) fn divide(
        device: &Device,
        multiprocessors: u32,
    ) -> Result<(Arc<Self>, Arc<Self>), EngineError> {
        device.bind()?;
        let groups = Groups::of(device).map_err(|why| failed("dividing the GPU", why))?;
        let size = groups.size.max(1);
        let wanted = ((multiprocessors + size / 2) / size) as usize;
        if wanted == 0 || wanted >= groups.groups.len() {
            return Err(EngineError::Device(format!(
                "{multiprocessors} multiprocessors can't be parted from this GPU's {}: it has {} \
                 groups of {}",
                device.properties().multiprocessors,
                groups.groups.len(),
                groups.size
            )));
        }
        let (first, second) = groups.part(wanted);
        let make = |resources| Self::new(device, resources).map(Arc::new);
        let made = make(first).and_then(|first| Ok((first, make(second)?)));
        made.map_err(|why| failed("making a part of the GPU", why))
    }

    fn new(device: &Device, mut resources: Vec<sys::CUdevResource>) -> Result<Self, DriverError> {
        let mut description: sys::CUdevResourceDesc = std::ptr::null_mut();
        // SAFETY: reads as many resources as there are, which the driver has made, and writes one
        // handle.
        unsafe {
            sys::cuDevResourceGenerateDesc(
                &raw mut description,
                resources.as_mut_ptr(),
                resources.len() as u32,
            )
        }
        .result()?;
        let mut raw: sys::CUgreenCtx = std::ptr::null_mut();
        let flags = sys::CUgreenCtxCreate_flags::CU_GREEN_CTX_DEFAULT_STREAM as u32;
        // SAFETY: the description was just made for this device; writes one handle.
        unsafe { sys::cuGreenCtxCreate(&raw mut raw, description, device.raw(), flags) }
            .result()?;
        let mut context = Self { device: device.clone(), raw, multiprocessors: 0 };
        let mut all = empty_resource();
        let kind = sys::CUdevResourceType::CU_DEV_RESOURCE_TYPE_SM;
        // SAFETY: the context is alive; writes one resource.
        unsafe { sys::cuGreenCtxGetDevResource(raw, &raw mut all, kind) }.result()?;
        context.multiprocessors = count_of(&all);
        Ok(context)
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// How many belong to it.
    pub(crate) fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    /// A stream of this part, which must not outlive it.
    pub(crate) fn create_stream(&self, priority: i32) -> Result<sys::CUstream, DriverError> {
        let mut stream: sys::CUstream = std::ptr::null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the context is valid while `self` is; writes one handle.
        unsafe { sys::cuGreenCtxStreamCreate(&raw mut stream, self.raw, flags, priority) }
            .result()?;
        Ok(stream)
    }
}

impl Drop for GreenContext {
    fn drop(&mut self) {
        // SAFETY: made by `new` and destroyed nowhere else, after its streams, which hold it. Of a
        // context that is broken nothing can be given back, so the error says nothing new.
        let _ = self.device.bind().map(|()| unsafe { sys::cuGreenCtxDestroy(self.raw) });
    }
}

// SAFETY: the context is never made current; the driver locks what creating streams needs.
unsafe impl Send for GreenContext {}
// SAFETY: as above.
unsafe impl Sync for GreenContext {}

// === impl Groups ===

impl Groups {
    /// Divides as finely as clusters of the usual size allow.
    fn of(device: &Device) -> Result<Self, DriverError> {
        let mut all = empty_resource();
        let kind = sys::CUdevResourceType::CU_DEV_RESOURCE_TYPE_SM;
        // SAFETY: writes one resource.
        unsafe { sys::cuDeviceGetDevResource(device.raw(), &raw mut all, kind) }.result()?;
        let mut groups = vec![empty_resource(); GROUPS_MAX];
        let (mut count, mut rest) = (GROUPS_MAX as u32, empty_resource());
        // SAFETY: writes at most `count` resources, and one; the input is the driver's own. The
        // least number asked for is rounded up to what this GPU can do.
        unsafe {
            sys::cuDevSmResourceSplitByCount(
                groups.as_mut_ptr(),
                &raw mut count,
                &raw const all,
                &raw mut rest,
                0,
                1,
            )
        }
        .result()?;
        groups.truncate(count as usize);
        let size = groups.first().map_or(0, count_of);
        Ok(Self { groups, rest: Some(rest).filter(|rest| count_of(rest) > 0), size })
    }

    /// Some groups, spread evenly over all, and the others with the rest. On an H100 neighbours measured
    /// the same.
    fn part(self, wanted: usize) -> (Vec<sys::CUdevResource>, Vec<sys::CUdevResource>) {
        let total = self.groups.len();
        let chosen = spread(wanted, total);
        let (mut first, mut second) = (Vec::with_capacity(wanted), Vec::with_capacity(total));
        for (index, group) in self.groups.into_iter().enumerate() {
            if chosen.contains(&index) { first.push(group) } else { second.push(group) }
        }
        second.extend(self.rest);
        (first, second)
    }
}

/// `wanted` of `total` indices, evenly apart.
fn spread(wanted: usize, total: usize) -> Vec<usize> {
    (0..wanted).map(|index| index * total / wanted).collect()
}

fn count_of(resource: &sys::CUdevResource) -> u32 {
    // SAFETY: the driver made it as multiprocessors, or it is all zeros, which is none.
    unsafe { resource.__bindgen_anon_1.sm.smCount }
}

fn empty_resource() -> sys::CUdevResource {
    // SAFETY: plain numbers, for which zeros are valid; the driver overwrites them.
    unsafe { std::mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_groups_are_evenly_apart() {
        assert_eq!(spread(4, 16), [0, 4, 8, 12]);
        assert_eq!(spread(3, 16), [0, 5, 10]);
        assert_eq!(spread(16, 16), (0..16).collect::<Vec<_>>());
        for wanted in 1..=16 {
            let mut chosen = spread(wanted, 16);
            chosen.dedup();
            assert_eq!(chosen.len(), wanted, "each once");
        }
    }
}

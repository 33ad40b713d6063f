//! The ways of pages: streams, and to and from the host pinned memory by the piece.

use parking_lot::{Condvar, Mutex};

use crate::backend::cuda::driver::address::Address;
use crate::backend::cuda::driver::device::{Device, Priority, Stream};
use crate::backend::cuda::driver::memory::DeviceMemory;
use crate::backend::cuda::driver::pinned::PinnedMemory;
use crate::error::EngineError;

/// Pinned buffers of a lane: the device fills one while the host empties the other.
pub(super) const STAGINGS: usize = 2;

/// Bytes of a pinned buffer, if a page is no larger. Long enough that waiting for it (20 us) is little
/// beside the copy (150 us), short enough that the first bytes are on the host soon.
const STAGING_BYTES: usize = 8 << 20;

/// A bounded number of lanes, each serving one call at a time.
#[derive(Debug)]
pub(super) struct Lanes {
    free: Mutex<Vec<Lane>>,
    returned: Condvar,
}

/// A stream and its buffers.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) stream: Stream,
    /// None where pages stay on the device.
    pub(super) stagings: Vec<PinnedMemory>,
    list: PinnedMemory,
    device_list: DeviceMemory,
}

/// A lane, for one call.
#[derive(Debug)]
pub(super) struct Borrowed<'a> {
    lanes: &'a Lanes,
    lane: Option<Lane>,
}

// === impl Lanes ===

impl Lanes {
    /// Lanes to and from the host.
    ///
    /// - `page_bytes`: a buffer holds one page at least.
    pub(super) fn staged(
        device: &Device,
        count: usize,
        page_bytes: usize,
    ) -> Result<Self, EngineError> {
        Self::of(count, || {
            let mut lane = Lane::new(device, 0)?;
            let bytes = STAGING_BYTES.max(page_bytes);
            let stagings = (0..STAGINGS).map(|_| PinnedMemory::new(device, bytes));
            lane.stagings = stagings.collect::<Result<_, _>>()?;
            Ok(lane)
        })
    }

    /// Lanes from one place on the device to another.
    ///
    /// - `blocks`: of a list, as far as can be told now.
    pub(super) fn direct(
        device: &Device,
        count: usize,
        blocks: usize,
    ) -> Result<Self, EngineError> {
        Self::of(count, || Lane::new(device, blocks))
    }

    fn of(count: usize, lane: impl Fn() -> Result<Lane, EngineError>) -> Result<Self, EngineError> {
        let lanes = (0..count).map(|_| lane()).collect::<Result<_, _>>()?;
        Ok(Self { free: Mutex::new(lanes), returned: Condvar::new() })
    }

    /// Waits for a lane. Calls hold one for the time of their copy.
    pub(super) fn borrow(&self) -> Borrowed<'_> {
        let mut free = self.free.lock();
        loop {
            if let Some(lane) = free.pop() {
                return Borrowed { lanes: self, lane: Some(lane) };
            }
            self.returned.wait(&mut free);
        }
    }
}

// === impl Borrowed ===

impl std::ops::Deref for Borrowed<'_> {
    type Target = Lane;

    fn deref(&self) -> &Lane {
        self.lane.as_ref().expect("a lane is there until it is given back")
    }
}

impl std::ops::DerefMut for Borrowed<'_> {
    fn deref_mut(&mut self) -> &mut Lane {
        self.lane.as_mut().expect("a lane is there until it is given back")
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if let Some(lane) = self.lane.take() {
            // After an error, work may still be under way in the buffers that the next call uses.
            // What it says was said to this call, or will be to the next.
            let _ = lane.stream.synchronize();
            self.lanes.free.lock().push(lane);
            self.lanes.returned.notify_one();
        }
    }
}

// === impl Lane ===

impl Lane {
    fn new(device: &Device, blocks: usize) -> Result<Self, EngineError> {
        Ok(Self {
            stream: Stream::new(device, Priority::High)?,
            stagings: Vec::new(),
            list: PinnedMemory::new(device, blocks * size_of::<u32>())?,
            device_list: DeviceMemory::new(device, blocks * size_of::<u32>())?,
        })
    }

    /// Pages that fit a buffer.
    pub(super) fn staged_pages(&self, page_bytes: usize) -> usize {
        self.stagings[0].bytes() / page_bytes
    }

    /// Moves a list of block numbers to the device; returns where it is. The stream has nothing to
    /// do yet.
    pub(super) fn put_list(
        &mut self,
        blocks: impl Iterator<Item = u32> + Clone,
    ) -> Result<Address, EngineError> {
        let bytes = blocks.clone().count() * size_of::<u32>();
        if bytes > self.list.bytes() {
            let device = self.stream.device().clone();
            self.list = PinnedMemory::new(&device, bytes)?;
            self.device_list = DeviceMemory::new(&device, bytes)?;
        }
        let words = self.list.host::<u32>(0..bytes)?;
        words.iter_mut().zip(blocks).for_each(|(to, from)| *to = from);
        self.stream.copy(self.device_list.part(0..bytes), self.list.lend(0..bytes))?;
        self.list.mark(&self.stream)?;
        Ok(self.device_list.address())
    }
}

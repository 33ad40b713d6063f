//! Fences of the stream of steps: numbers for events that come and go.

use std::collections::VecDeque;
use std::sync::Arc;

use kv_cache::Fence;
use parking_lot::Mutex;

use crate::backend::cuda::driver::device::{Device, Event, Stream};
use crate::error::EngineError;

/// Events kept. Steps in flight are a few; a fence older than this waits for a younger event.
const EVENTS_MAX: usize = 64;

/// Fences given out, and the events that stand for those which may not have passed.
///
/// All fences are of one order of work (one stream, or several of which each waits for the one before
/// it), so an event passed means that all before it have. A fence whose
/// event has been used again is therefore waited for by the next event that is still there.
#[derive(Debug)]
pub(crate) struct FenceTable {
    device: Device,
    // Held while an event is recorded or waited for: the driver takes an event as it was recorded
    // last, so the two must not cross.
    ring: Mutex<Ring<Arc<Event>>>,
}

/// Markers in the order of their fences, the oldest first.
#[derive(Debug)]
struct Ring<E> {
    /// The last fence given out.
    last: u64,
    /// All fences up to this one have passed.
    passed: u64,
    pending: VecDeque<(u64, E)>,
    /// Markers that stand for nothing.
    spare: Vec<E>,
}

// === impl FenceTable ===

impl FenceTable {
    /// A table with no fences.
    #[must_use]
    pub(crate) fn new(device: &Device) -> Self {
        Self { device: device.clone(), ring: Mutex::new(Ring::new()) }
    }

    /// A fence behind everything submitted to `stream` so far.
    ///
    /// - `stream`: of the same order of work for all calls, and not capturing.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses, or something submitted before has failed.
    pub(crate) fn fence(&self, stream: &Stream) -> Result<Fence, EngineError> {
        let mut ring = self.ring.lock();
        ring.retire(|event| event.is_done())?;
        // One that a thread waits for stands for its old fence until then.
        let event = match ring.reuse().filter(|event| Arc::strong_count(event) == 1) {
            Some(event) => event,
            None => Arc::new(Event::patient(&self.device)?),
        };
        stream.record(&event)?;
        Ok(Fence(ring.push(event)))
    }

    /// Waits on this thread until `fence` has passed; the thread sleeps meanwhile.
    ///
    /// # Errors
    /// [`EngineError::Device`] for a fence that was never given out, or if what was submitted before
    /// it has failed.
    pub(crate) fn pass(&self, fence: Fence) -> Result<(), EngineError> {
        let event = self.ring.lock().find(fence)?.cloned();
        event.map_or(Ok(()), |event| event.synchronize())
    }
}

// === impl Ring ===

impl<E> Ring<E> {
    fn new() -> Self {
        Self { last: 0, passed: 0, pending: VecDeque::new(), spare: Vec::new() }
    }

    /// Takes away the markers that have passed.
    fn retire<X>(&mut self, has_passed: impl Fn(&E) -> Result<bool, X>) -> Result<(), X> {
        while let Some((fence, marker)) = self.pending.front() {
            if !has_passed(marker)? {
                break;
            }
            self.passed = *fence;
            self.spare.extend(self.pending.pop_front().map(|(_, marker)| marker));
        }
        Ok(())
    }

    /// A marker to use again; the oldest one if there are enough.
    fn reuse(&mut self) -> Option<E> {
        let full = self.pending.len() >= EVENTS_MAX;
        self.spare.pop().or_else(|| full.then(|| self.pending.pop_front()).flatten().map(|it| it.1))
    }

    /// Notes that `marker` stands for a new fence.
    fn push(&mut self, marker: E) -> u64 {
        self.last += 1;
        self.pending.push_back((self.last, marker));
        self.last
    }

    /// The oldest marker behind a fence; none if it has passed.
    fn find(&self, fence: Fence) -> Result<Option<&E>, EngineError> {
        if fence.0 > self.last {
            return Err(EngineError::Device(format!("there is no fence {} yet", fence.0)));
        }
        Ok(self.marker(fence.0))
    }

    /// The oldest marker behind `fence`; none if it has passed.
    fn marker(&self, fence: u64) -> Option<&E> {
        if fence <= self.passed {
            return None;
        }
        self.pending.iter().find(|(number, _)| *number >= fence).map(|(_, marker)| marker)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_has_passed_is_not_waited_for() {
        let mut ring = Ring::new();
        assert_eq!(ring.marker(0), None, "the fence of nothing");
        let fences: Vec<u64> = (0..3).map(|marker| ring.push(marker)).collect();
        assert_eq!(fences, [1, 2, 3]);
        ring.retire(|marker| Ok::<_, Infallible>(*marker < 2)).unwrap();
        assert_eq!([1, 2, 3].map(|fence| ring.marker(fence).copied()), [None, None, Some(2)]);
        assert_eq!(ring.spare.len(), 2);
    }

    #[test]
    fn a_marker_used_again_leaves_its_fence_to_the_next() {
        let mut ring = Ring::new();
        for marker in 0..EVENTS_MAX {
            assert_eq!(ring.reuse(), None);
            ring.push(marker);
        }
        assert_eq!(ring.reuse(), Some(0));
        ring.push(0);
        assert_eq!(ring.marker(1), Some(&1), "stands for fence 2, which is later");
        assert_eq!(ring.marker(EVENTS_MAX as u64 + 1), Some(&0));
    }

    proptest! {
        /// Steps finish in order; a marker must never stand for less than the fence asked for.
        #[test]
        fn a_marker_never_passes_before_its_fence(
            moves in proptest::collection::vec((0usize..90, 0usize..90), 1..12),
        ) {
            // A marker's value is the step it was last recorded behind.
            let mut ring: Ring<u64> = Ring::new();
            let (mut submitted, mut finished) = (0u64, 0u64);
            for (submit, finish) in moves {
                for _ in 0..submit {
                    submitted += 1;
                    ring.retire(|step| Ok::<_, Infallible>(*step <= finished)).unwrap();
                    let _ = ring.reuse();
                    prop_assert_eq!(ring.push(submitted), submitted);
                }
                finished = submitted.min(finished + finish as u64);
                for fence in 1..=submitted {
                    match ring.marker(fence) {
                        Some(step) => prop_assert!(*step >= fence),
                        None => prop_assert!(fence <= finished),
                    }
                }
                let kept: BTreeSet<u64> = ring.pending.iter().map(|(number, _)| *number).collect();
                prop_assert!(kept.len() == ring.pending.len() && kept.len() <= EVENTS_MAX);
            }
        }
    }
}

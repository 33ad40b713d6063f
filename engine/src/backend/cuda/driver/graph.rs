//! Recorded work: a whole step's launches submitted as one.
#![allow(unsafe_code)]

use cudarc::driver::{result, sys};

use super::device::{Device, Stream, failed};
use crate::error::EngineError;

/// Work that was recorded once and runs as often as it is launched.
///
/// It keeps the addresses and arguments it was recorded with. Whoever holds it keeps the memory and
/// the kernels alive that it uses.
#[derive(Debug)]
pub(crate) struct Graph {
    device: Device,
    raw: sys::CUgraphExec,
}

/// Ends a capture however the recording ends.
struct Capture<'a> {
    stream: &'a Stream,
    is_open: bool,
}

// === impl Stream ===

impl Stream {
    /// Records what `work` submits to this stream, without running it.
    ///
    /// `work` may prepare on the host as it likes, and must neither wait for this stream nor take
    /// its results.
    ///
    /// # Errors
    /// What `work` says; [`EngineError::Device`] if the driver can't make a graph of it.
    pub(crate) fn capture(
        &self,
        work: impl FnOnce() -> Result<(), EngineError>,
    ) -> Result<Graph, EngineError> {
        self.device().bind()?;
        let _recording = self.device().recording();
        // Relaxed, since a library may load its kernels when it first needs them, which the
        // stricter modes forbid.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the handle is valid while `self` is.
        unsafe { result::stream::begin_capture(self.raw(), mode) }
            .map_err(|why| failed("beginning a capture", why))?;
        let mut capture = Capture { stream: self, is_open: true };
        work()?;
        let graph = capture.end()?;
        // SAFETY: `end` just gave the graph to us; nobody else knows it.
        let raw = unsafe { instantiate(graph) }?;
        Ok(Graph { device: self.device().clone(), raw })
    }
}

/// Makes a launchable graph of a recorded one, which ends here.
///
/// # Safety
/// `graph` is valid and used no more.
unsafe fn instantiate(graph: sys::CUgraph) -> Result<sys::CUgraphExec, EngineError> {
    // SAFETY: valid, says the caller.
    let made = unsafe { result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)) };
    // SAFETY: as above, and used no more.
    let destroyed = unsafe { result::graph::destroy(graph) };
    let raw = made.map_err(|why| failed("making a graph", why))?;
    destroyed.map_err(|why| failed("forgetting a recording", why))?;
    Ok(raw)
}

// === impl Capture ===

impl Capture<'_> {
    fn end(&mut self) -> Result<sys::CUgraph, EngineError> {
        self.is_open = false;
        // SAFETY: the stream outlives `self`, and its capture was begun before `self` was made.
        let graph = unsafe { result::stream::end_capture(self.stream.raw()) }
            .map_err(|why| failed("ending a capture", why))?;
        if graph.is_null() {
            return Err(EngineError::Device("the capture was cut off by a call in it".to_owned()));
        }
        Ok(graph)
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        if self.is_open
            && let Ok(graph) = self.end()
        {
            // The recording failed already, and that is what its caller is told.
            // SAFETY: `end` just gave the graph to us; nobody else knows it.
            let _ = unsafe { result::graph::destroy(graph) };
        }
    }
}

// === impl Graph ===

impl Graph {
    /// Submits the recorded work.
    ///
    /// Launches of one graph run one after the other, even on different streams.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses.
    pub(crate) fn launch(&self, stream: &Stream) -> Result<(), EngineError> {
        // SAFETY: both handles are valid while their owners are, and `Graph` is not `Sync`.
        unsafe { result::graph::launch(self.raw, stream.raw()) }
            .map_err(|why| failed("launching a graph", why))
    }

    /// Moves what a launch needs to the device, so that the first one takes no longer than others.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses.
    pub(crate) fn upload(&self, stream: &Stream) -> Result<(), EngineError> {
        // SAFETY: as for `launch`.
        unsafe { result::graph::upload(self.raw, stream.raw()) }
            .map_err(|why| failed("uploading a graph", why))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // A launch that still runs is brought to its end by the driver.
        // SAFETY: made by `capture` and destroyed nowhere else. Of a context that is broken nothing
        // can be given back, so the error says nothing new.
        let _ = self.device.bind().map(|()| unsafe { result::graph::exec_destroy(self.raw) });
    }
}

// SAFETY: the driver's graphs may move between threads bound to their context; they may not be used
// from two at once, and `Graph` is not `Sync`.
unsafe impl Send for Graph {}

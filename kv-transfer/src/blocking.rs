//! Calls that block for the time of a copy, kept off the runtime's own threads.

use futures::channel::oneshot;
use futures::future::{BoxFuture, FutureExt as _};
use kv_cache::KvRegion;

/// Why there is no result: the work panicked, or was dropped with its runtime.
pub(crate) type Lost = String;

/// Has `work` done, which calls `region`. Begins at once, and goes on to its end whether or not the
/// result is waited for.
pub(crate) fn start<T: Send + 'static>(
    region: &dyn KvRegion,
    work: impl FnOnce() -> T + Send + 'static,
) -> BoxFuture<'static, Result<T, Lost>> {
    let Some(offload) = region.offload() else {
        let done = tokio::task::spawn_blocking(work);
        return done.map(|done| done.map_err(|panic| panic.to_string())).boxed();
    };
    let (done, result) = oneshot::channel();
    offload(Box::new(move || drop(done.send(work()))));
    result.map(|done| done.map_err(|_| "the work was dropped".to_owned())).boxed()
}

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kv_cache::{Fence, KvLayout, Offload, PageRange, RegionError};
    use parking_lot::Mutex;

    use super::*;

    type Work = Box<dyn FnOnce() + Send>;

    /// Takes work, and leaves it to the test when it is done.
    #[derive(Clone, Default)]
    struct Desk(Arc<Mutex<Vec<Work>>>);

    impl KvRegion for Desk {
        fn layout(&self) -> &KvLayout {
            unreachable!("nobody asks")
        }

        fn gather(&self, _: &PageRange<'_>, _: Fence, _: &mut [u8]) -> Result<(), RegionError> {
            unreachable!("nobody reads")
        }

        fn scatter(&self, _: &PageRange<'_>, _: &[u8]) -> Result<(), RegionError> {
            unreachable!("nobody writes")
        }

        fn offload(&self) -> Option<Offload> {
            let desk = self.clone();
            Some(Arc::new(move |work| desk.0.lock().push(work)))
        }
    }

    #[tokio::test]
    async fn work_is_done_by_whom_the_region_names_and_when_he_wants() {
        let desk = Desk::default();
        let mut result = start(&desk, || 7);
        assert!((&mut result).now_or_never().is_none(), "nobody has begun");
        let work = desk.0.lock().pop().expect("work, handed over at once");
        work();
        assert_eq!(result.await, Ok(7));
    }

    #[tokio::test]
    async fn work_goes_on_though_nobody_waits_for_it() {
        let (desk, done) = (Desk::default(), Arc::new(Mutex::new(false)));
        let told = done.clone();
        drop(start(&desk, move || *told.lock() = true));
        let work = desk.0.lock().pop().expect("work");
        work();
        assert!(*done.lock());
    }

    #[tokio::test]
    async fn work_that_is_dropped_says_so() {
        let desk = Desk::default();
        let result = start(&desk, || 7);
        desk.0.lock().clear();
        assert!(result.await.unwrap_err().contains("dropped"));
    }
}

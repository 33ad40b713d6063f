//! SIGTERM and SIGINT.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::ClusterError;

/// A token that the first SIGTERM or SIGINT cancels: time to drain. The second ends the process at
/// once, with the shell's code for that signal, for an operator who does not want to wait.
///
/// # Errors
/// [`ClusterError::Config`] if the process can't have handlers.
pub fn shutdown_signal() -> Result<CancellationToken, ClusterError> {
    let listen =
        |kind| signal(kind).map_err(|error| ClusterError::Config(format!("signals: {error}")));
    let mut term = listen(SignalKind::terminate())?;
    let mut int = listen(SignalKind::interrupt())?;
    let drain = CancellationToken::new();
    let first = drain.clone();
    // Lives as long as the process: there is nobody to wait for it.
    TaskTracker::new().spawn(async move {
        let name = either(&mut term, &mut int).await.0;
        info!(signal = name, "draining; once more to leave at once");
        first.cancel();
        let (name, code) = either(&mut term, &mut int).await;
        warn!(signal = name, "leaving at once");
        #[expect(
            clippy::disallowed_methods,
            reason = "asked for twice: leaving without drain is the point"
        )]
        std::process::exit(code);
    });
    Ok(drain)
}

async fn either(term: &mut Signal, int: &mut Signal) -> (&'static str, i32) {
    tokio::select! {
        _ = term.recv() => ("SIGTERM", 128 + 15),
        _ = int.recv() => ("SIGINT", 128 + 2),
    }
}

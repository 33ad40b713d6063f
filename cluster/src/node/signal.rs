//! SIGTERM, SIGINT and SIGHUP.

use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::ClusterError;

/// How long the end waits for the line that tells of it.
const LAST_LINE: Duration = Duration::from_millis(20);

/// A token that the first SIGTERM or SIGINT cancels: time to drain. The second ends the process at
/// once, with the shell's code for that signal, for an operator who does not want to wait.
///
/// # Errors
/// [`ClusterError::Config`] if the process can't have handlers.
pub fn shutdown_signal() -> Result<CancellationToken, ClusterError> {
    let mut term = listen(SignalKind::terminate())?;
    let mut int = listen(SignalKind::interrupt())?;
    let drain = CancellationToken::new();
    let first = drain.clone();
    // Lives as long as the process: there is nobody to wait for it.
    TaskTracker::new().spawn(async move {
        let name = either(&mut term, &mut int).await.0;
        info!(signal = name, "finishing what is under way; once more to leave at once");
        first.cancel();
        let (name, code) = either(&mut term, &mut int).await;
        warn!(signal = name, "leaving at once");
        // Lines are written by another thread, which the end of the process doesn't wait for.
        tokio::time::sleep(LAST_LINE).await;
        #[expect(
            clippy::disallowed_methods,
            reason = "asked for twice: leaving without drain is the point"
        )]
        std::process::exit(code);
    });
    Ok(drain)
}

/// Counts SIGHUPs, each of which is the wish that files be read again: API keys are by whoever watches
/// the count, certificates are anyway. Where there are no `files`, it is only logged.
///
/// A terminal that is closed sends one, too, to what was started from it. That is the wish to leave,
/// and cancels `leave`.
///
/// # Errors
/// [`ClusterError::Config`] if the process can't have a handler.
pub fn hangups(
    files: bool,
    leave: &CancellationToken,
) -> Result<watch::Receiver<u64>, ClusterError> {
    let mut hangup = listen(SignalKind::hangup())?;
    let (count, hangups) = watch::channel(0);
    let (leave, had_terminal) = (leave.clone(), stderr().is_terminal());
    // Lives as long as the process, as above.
    TaskTracker::new().spawn(async move {
        while hangup.recv().await.is_some() {
            if had_terminal && !stderr().is_terminal() {
                leave.cancel();
            } else if files {
                info!("SIGHUP: reading API keys and certificates again");
            } else {
                warn!("SIGHUP: going on; there is no file of API keys and no certificate to read again");
            }
            count.send_modify(|count| *count += 1);
        }
    });
    Ok(hangups)
}

fn listen(kind: SignalKind) -> Result<Signal, ClusterError> {
    signal(kind).map_err(|error| ClusterError::Config(format!("signals: {error}")))
}

async fn either(term: &mut Signal, int: &mut Signal) -> (&'static str, i32) {
    tokio::select! {
        _ = term.recv() => ("SIGTERM", 128 + 15),
        _ = int.recv() => ("SIGINT", 128 + 2),
    }
}

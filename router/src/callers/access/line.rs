//! A line, as it is written.

use std::time::Duration;

use tracing::field::display as shown;

use super::{Reason, Record, Status, Volume};

/// Writes an event at a level that only running tells; all under one target, by which filters know them.
macro_rules! at {
    ($volume:expr, $($line:tt)*) => {
        // No span around it: the line has what it needs, and may come when the span is gone.
        match $volume {
            Volume::Warn => tracing::warn!(target: "access", parent: None, $($line)*),
            Volume::Info => tracing::info!(target: "access", parent: None, $($line)*),
            Volume::Debug => tracing::debug!(target: "access", parent: None, $($line)*),
        }
    };
}

/// Writes a call's line.
pub(super) fn write(record: &Record, status: Status) {
    let Record { method, path, id, address, received, notes, .. } = record;
    let notes = notes.lock();
    let key = notes.key.as_deref();
    let work = notes.work.unwrap_or_default();
    let worked = notes.work.is_some();
    let total = if worked { work.total } else { received.elapsed() };
    let (http, grpc) = numbers(status);
    let client = key.map(|key| shown(&*key.name));
    let tenant = key.and_then(|key| key.tenant.as_deref()).map(shown);
    // A key says more than the address that it was used from.
    let address = address.filter(|_| key.is_none()).map(shown);
    at!(
        status.volume(path),
        method = %method,
        path = %path.escape_debug(),
        status = http,
        grpc_status = grpc.map(shown),
        request_id = %id,
        client,
        tenant,
        address,
        prompt_tokens = worked.then_some(work.prompt_tokens),
        output_tokens = worked.then_some(work.output_tokens),
        ttft_ms = work.first_token.map(ms),
        total_ms = ms(total),
        reason = notes.reason.as_ref().map(Reason::discreet).as_deref(),
        "request"
    );
}

/// Says how many lines of a kind were not written.
pub(super) fn left_out(status: Status, code: &'static str, count: u64) {
    let (http, grpc) = numbers(status);
    at!(
        status.volume(""),
        status = http,
        grpc_status = grpc.map(shown),
        code = Some(code).filter(|code| !code.is_empty()),
        count,
        "more requests like these, left out"
    );
}

/// The status, as HTTP and as gRPC know it.
fn numbers(status: Status) -> (Option<u16>, Option<String>) {
    match status {
        Status::Http(status) => (Some(status), None),
        Status::Grpc(code) => (None, Some(format!("{code:?}"))),
    }
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

//! How a call has ended, in the headers of whoever answered.

use cluster::ErrorCode;
use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::Status;

use crate::Target;

pub(in crate::targets) const TARGET: Target = Target::new("status", run).with_seeds(seeds);

fn run(input: &[u8]) {
    let mut headers: HeaderMap = input.split(|&byte| byte == b'\n').filter_map(header).collect();
    proto::answers::drop_unreadable(&mut headers);
    let Some(status) = Status::from_header_map(&headers) else { return };
    let (code, after) = (ErrorCode::from(&status), cluster::retry::after(&status));
    assert_ne!(code, ErrorCode::Cancelled, "by nobody here: {status:?}");
    // As it goes on from here: what it means and when to come back stays.
    let onwards = cluster::retry::status(code, status.message(), after);
    assert_eq!(ErrorCode::from(&onwards), code);
    assert_eq!(cluster::retry::after(&onwards), after);
    let mut headers = HeaderMap::new();
    onwards.add_header(&mut headers).expect("a status that can be sent");
}

fn header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let at = line.iter().position(|&byte| byte == b':')?;
    let name = HeaderName::from_bytes(&line[..at]).ok()?;
    Some((name, HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?))
}

fn seeds() -> Vec<Vec<u8>> {
    let wait = Some(std::time::Duration::from_millis(2_345));
    let written = |code: ErrorCode| {
        let mut headers = HeaderMap::new();
        let status = cluster::retry::status(code, "full: ü", wait);
        status.add_header(&mut headers).expect("a status that can be sent");
        let lines = headers
            .iter()
            .map(|(name, value)| [name.as_str().as_bytes(), b": ", value.as_bytes()].concat());
        lines.collect::<Vec<_>>().join(&b'\n')
    };
    ErrorCode::ALL.into_iter().map(written).collect()
}

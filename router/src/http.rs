//! What every API needs of HTTP: bodies, headers, errors.

pub(crate) mod body;
pub(crate) mod error;
pub(crate) mod head;
pub(crate) mod headers;

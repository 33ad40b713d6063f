//! Who calls, what each may have, and what is written down of it.

pub mod access;
pub mod caller;
pub(crate) mod client;
pub(crate) mod in_flight;
pub mod keys;
pub mod limits;

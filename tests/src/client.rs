//! Clients of the router, as its users have them.

pub mod grpc;
pub mod http;
pub mod raw;

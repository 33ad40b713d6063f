//! What measurements need of a GPU and steps don't.

pub mod bandwidth;

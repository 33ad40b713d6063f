//! What clients may ask for, and how they are answered.

pub(crate) mod openai;
pub(crate) mod sse;

//! What a model says: tokens become text, and the text ends where the client asked for it.

pub mod detokenizer;
pub mod stop;

//! What breaks, and that no answer does.

mod chaos;
mod failures;

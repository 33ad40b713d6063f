//! Wire types to domain types and back, each checked where it comes in.

use std::fmt::Display;
use std::ops::RangeInclusive;

pub mod address;
pub mod generation;
pub mod kv_news;
#[cfg(test)]
mod tests;
pub mod token;
pub mod transfer;
pub mod worker;

/// A message that doesn't mean anything.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("field `{field}` {problem}")]
pub struct WireError {
    /// The field at fault.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
    /// It isn't what was sent: sent again, it may be fine.
    pub damaged: bool,
}

// === impl WireError ===

impl WireError {
    /// The error for `field`.
    #[must_use]
    pub fn invalid(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into(), damaged: false }
    }

    /// The error of a message whose seal is wrong.
    pub(crate) fn damaged(problem: &str) -> Self {
        let problem = format!("{problem}: damaged on its way, or from another version");
        Self { field: "seal", problem, damaged: true }
    }
}

impl From<WireError> for tonic::Status {
    fn from(error: WireError) -> Self {
        let text = error.to_string();
        if error.damaged { Self::data_loss(text) } else { Self::invalid_argument(text) }
    }
}

/// The value of a message field that must be there.
///
/// # Errors
/// [`WireError`] if it isn't.
pub fn required<T>(field: &'static str, value: Option<T>) -> Result<T, WireError> {
    value.ok_or_else(|| WireError::invalid(field, "is missing"))
}

fn non_empty<'a>(field: &'static str, value: &'a str) -> Result<&'a str, WireError> {
    if value.is_empty() { Err(WireError::invalid(field, "is empty")) } else { Ok(value) }
}

fn finite(field: &'static str, value: f32) -> Result<f32, WireError> {
    if value.is_finite() { Ok(value) } else { Err(WireError::invalid(field, "is not finite")) }
}

fn in_range<T: PartialOrd + Display>(
    field: &'static str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<T, WireError> {
    if range.contains(&value) {
        return Ok(value);
    }
    let problem = format!("is {value}, outside of {} to {}", range.start(), range.end());
    Err(WireError::invalid(field, problem))
}

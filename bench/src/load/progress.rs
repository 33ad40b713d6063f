//! How far a run has come, on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar, or where nobody knows how many requests will come, a count.
///
/// - `title`: what runs.
/// - `expected`: requests, about.
pub(crate) fn bar(title: String, expected: Option<u64>) -> ProgressBar {
    let (bar, template) = match expected {
        Some(requests) => (
            ProgressBar::new(requests),
            "{prefix}{elapsed_precise} [{bar:40}] {pos}/{len} requests, {per_sec} {msg}",
        ),
        None => (
            ProgressBar::no_length(),
            "{prefix}{elapsed_precise} {spinner} {pos} requests, {per_sec} {msg}",
        ),
    };
    // The template is ours and parses; a wrong one would only look plain.
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ");
    let bar = bar.with_style(style).with_prefix(title);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

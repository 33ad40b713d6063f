//! A progress bar for loading a model.

use std::time::Duration;

use engine::LoadProgress;
use indicatif::{ProgressBar, ProgressStyle};

/// A callback that draws how far loading has come; silent where no terminal watches.
pub(crate) fn loading(what: &str) -> impl FnMut(LoadProgress) + Send + use<> {
    let bar = ProgressBar::no_length().with_message(what.to_owned());
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} tensors");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    // A small model is there before a bar could be read.
    let begun = std::time::Instant::now();
    move |progress: LoadProgress| {
        if begun.elapsed() < Duration::from_millis(300) {
            return;
        }
        bar.set_length(progress.tensors_total as u64);
        bar.set_position(progress.tensors as u64);
        if progress.tensors == progress.tensors_total {
            bar.finish_and_clear();
        }
    }
}

//! A progress bar for loading a model.

use std::time::{Duration, Instant};

use engine::LoadProgress;
use indicatif::{ProgressBar, ProgressStyle};

/// A small model is there before a bar could be read.
const SHOWN_AFTER: Duration = Duration::from_millis(300);

/// A callback that draws how far loading has come; silent where no terminal watches.
///
/// Until the first tensor comes it shows that something happens: at the first start on a GPU kernels
/// are compiled, which takes some seconds.
pub(crate) fn loading(what: &str) -> impl FnMut(LoadProgress) + Send + use<> {
    let bar = ProgressBar::no_length().with_message(what.to_owned());
    bar.set_style(style("{msg} {spinner} {elapsed}"));
    let mut is_counting = false;
    let begun = Instant::now();
    move |progress: LoadProgress| {
        if progress.tensors == progress.tensors_total {
            bar.finish_and_clear();
        } else if progress.tensors == 0 {
            bar.enable_steady_tick(SHOWN_AFTER);
        } else if begun.elapsed() >= SHOWN_AFTER {
            if !std::mem::replace(&mut is_counting, true) {
                bar.disable_steady_tick();
                bar.set_style(style("{msg} {wide_bar} {pos}/{len} tensors"));
                bar.set_length(progress.tensors_total as u64);
            }
            bar.set_position(progress.tensors as u64);
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

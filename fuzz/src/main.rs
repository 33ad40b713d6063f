//! The targets under libFuzzer: `baton-fuzz [libFuzzer's flags and folders] -ignore_remaining_args=1 TARGET FOLDER`.
//!
//! The target's seeds are written to the folder first. `cargo xtask fuzz` knows the flags.

#![no_main]
#![forbid(unsafe_code)]

use std::path::Path;
use std::sync::OnceLock;

use baton_fuzz::Target;

static TARGET: OnceLock<&'static Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(init: prepare(), |input: &[u8]| {
    TARGET.get().expect("a target").check(input);
});

/// Takes the target from the end of the command line.
fn prepare() {
    baton_fuzz::hush_caught_panics();
    let mut args = std::env::args().rev();
    let (folder, name) = (args.next().unwrap_or_default(), args.next().unwrap_or_default());
    let target = Target::named(&name).unwrap_or_else(|| panic!("{name:?} is no target"));
    for (number, seed) in (target.seeds)().iter().enumerate() {
        std::fs::write(Path::new(&folder).join(format!("seed-{number}")), seed).expect("a folder");
    }
    target.prepare();
    TARGET.get_or_init(|| target);
}

//! Whether this machine has a GPU for the tests that need one.

use std::process::Command;

/// Compute capability of the oldest GPUs that the kernels run on.
const CAPABILITY_MIN: f32 = 8.0;

/// Whether NVIDIA's driver knows of one that the kernels run on.
pub(crate) fn is_there() -> bool {
    let query = ["--query-gpu=compute_cap", "--format=csv,noheader"];
    let told = Command::new("nvidia-smi").args(query).output();
    told.is_ok_and(|told| any_usable(&String::from_utf8_lossy(&told.stdout)))
}

/// - `told`: a capability a line, whatever else is said if there is none.
fn any_usable(told: &str) -> bool {
    told.lines()
        .filter_map(|line| line.trim().parse::<f32>().ok())
        .any(|found| found >= CAPABILITY_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_counts_if_the_kernels_run_on_it() {
        assert!(any_usable("9.0\n"));
        assert!(any_usable("7.5\n12.0\n"));
        assert!(!any_usable("7.5\n"));
        assert!(!any_usable("No devices were found\n"));
        assert!(!any_usable(""));
    }
}

//! NVIDIA's management library, where it is installed: found at run time, as all of CUDA is.

use std::ffi::OsStr;

use nvml_wrapper::Nvml;

use super::Counter;

/// What drivers install; the name without a version is for those who build against it.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// The GPU's counter; `None` without the library, without the right to ask, and for a part of a GPU.
pub(super) fn counter(uuid: &str) -> Option<Box<Counter>> {
    let nvml = Nvml::builder().lib_path(OsStr::new(LIBRARY)).init().ok()?;
    let name = name(uuid)?;
    let counter = move || nvml.device_by_uuid(name.as_str()).ok()?.total_energy_consumption().ok();
    counter().map(|_| Box::new(counter) as Box<Counter>)
}

/// As NVML spells a GPU's name.
fn name(uuid: &str) -> Option<String> {
    let part = |from: usize, to: usize| uuid.get(from..to);
    let (a, b, c) = (part(0, 8)?, part(8, 12)?, part(12, 16)?);
    Some(format!("GPU-{a}-{b}-{c}-{}-{}", part(16, 20)?, part(20, 32)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_spelled_as_nvml_does() {
        let spelled = name("0123456789abcdef0123456789abcdef");
        assert_eq!(spelled.as_deref(), Some("GPU-01234567-89ab-cdef-0123-456789abcdef"));
        assert_eq!(name("short"), None);
    }
}

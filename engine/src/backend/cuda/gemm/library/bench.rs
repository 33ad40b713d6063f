//! Timing the library's suggestions for one shape.

use crate::backend::cuda::driver::device::{Event, Stream};
use crate::backend::cuda::driver::memory::DeviceMemory;
use crate::backend::cuda::gemm::cublaslt::{Algorithm, Shape};
use crate::error::EngineError;

/// Device time for measuring one shape, where a few turns don't take longer.
const TUNING_US: f32 = 8_000.0;

/// Turns of all algorithms that count; the least time of each is taken.
const TURNS_MIN: usize = 3;
const TURNS_MAX: usize = 7;

/// As many times the second-level cache is written between two runs, so that weights come from
/// memory, as they do in a step.
const FLUSH_CACHES: u64 = 2;

/// Of noise that is made on the host; the rest repeats it.
const NOISE_BYTES: usize = 1 << 20;

/// Algorithms that are put under lasting load, and how much slower than the best one may be for a moment.
const CANDIDATES: usize = 4;
const CANDIDATE_MAX: f32 = 1.12;

/// Load before the first of them is measured, before each, and while it is: a GPU takes some 50 ms to find its clock.
const WARM_UP_US: f32 = 150_000.0;
const SETTLING_US: f32 = 60_000.0;
const LASTING_US: f32 = 90_000.0;

/// What the timing of one shape needs.
pub(super) struct Bench<'a> {
    stream: &'a Stream,
    pub(super) x: DeviceMemory,
    pub(super) out: DeviceMemory,
    flush: DeviceMemory,
}

impl<'a> Bench<'a> {
    /// # Errors
    /// [`EngineError::Device`] if there is no memory for it.
    pub(super) fn new(stream: &'a Stream, shape: &Shape) -> Result<Self, EngineError> {
        let device = stream.device();
        let flush_bytes = FLUSH_CACHES * device.properties().l2_bytes;
        let x_bytes = shape.rows * shape.x_stride * shape.element.bytes();
        let out_bytes = shape.rows * shape.out_stride * shape.out_element.bytes();
        let bench = Self {
            stream,
            x: DeviceMemory::new(device, x_bytes)?,
            out: DeviceMemory::new(device, out_bytes)?,
            flush: DeviceMemory::new(device, flush_bytes as usize)?,
        };
        bench.fill_with_noise()?;
        Ok(bench)
    }

    /// Ordinary numbers of either sign: what a multiplication takes of a GPU's power depends on the bits that change.
    fn fill_with_noise(&self) -> Result<(), EngineError> {
        let bytes = self.x.bytes();
        let mut filled = bytes.min(NOISE_BYTES);
        let mut noise = vec![0_u8; filled];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        // The bytes with the exponent: up to 2, from 2^-15 on in bf16 and from 0.5 on in f16.
        noise.iter_mut().skip(1).step_by(2).for_each(|byte| *byte = 0x38 | *byte & 0x87);
        self.stream.write(self.x.part(0..filled), &noise)?;
        while filled < bytes {
            let more = filled.min(bytes - filled);
            self.stream.copy(self.x.part(filled..filled + more), self.x.part(0..more))?;
            filled += more;
        }
        Ok(())
    }

    /// The least time of several runs of each algorithm; infinite for one that doesn't run.
    ///
    /// They take turns, so that a clock that changes on the way changes for all.
    pub(super) fn times_us(
        &self,
        algorithms: &[Algorithm],
        run: impl Fn(Algorithm) -> Result<(), EngineError>,
    ) -> Result<Vec<f32>, EngineError> {
        // The first turn loads the kernels; the second tells how many more there is time for.
        self.turn(algorithms, &run)?;
        let mut least_us = self.turn(algorithms, &run)?;
        let turn_us: f32 = least_us.iter().filter(|time_us| time_us.is_finite()).sum();
        let turns = ((TUNING_US / turn_us.max(1.0)) as usize).clamp(TURNS_MIN, TURNS_MAX);
        for _ in 1..turns {
            for (least_us, time_us) in least_us.iter_mut().zip(self.turn(algorithms, &run)?) {
                *least_us = least_us.min(time_us);
            }
        }
        Ok(least_us)
    }

    /// The time of each algorithm in a row of runs without rest, when the GPU has found the clock that its power allows;
    /// infinite for one that is far from the best in `times_us`, and not tried.
    pub(super) fn lasting_us(
        &self,
        algorithms: &[Algorithm],
        times_us: &[f32],
        run: impl Fn(Algorithm) -> Result<(), EngineError>,
    ) -> Result<Vec<f32>, EngineError> {
        let lasting = |at: usize, load_us: f32| {
            let runs = (load_us / times_us[at].max(1.0)).ceil().max(1.0);
            let all = || (0..runs as usize).try_for_each(|_| run(algorithms[at]));
            Ok::<_, EngineError>(self.stream.time_us(all)? / runs)
        };
        let candidates = candidates(times_us);
        if let Some(&first) = candidates.first() {
            lasting(first, WARM_UP_US)?;
        }
        let mut lasting_us = vec![f32::INFINITY; algorithms.len()];
        for at in candidates {
            lasting(at, SETTLING_US)?;
            lasting_us[at] = lasting(at, LASTING_US)?;
        }
        Ok(lasting_us)
    }

    fn turn(
        &self,
        algorithms: &[Algorithm],
        run: impl Fn(Algorithm) -> Result<(), EngineError>,
    ) -> Result<Vec<f32>, EngineError> {
        let mut runs = Vec::with_capacity(algorithms.len());
        for algorithm in algorithms {
            let device = self.stream.device();
            let (start, end) = (Event::timed(device)?, Event::timed(device)?);
            // While the device is at this, the host submits the rest: what is timed has no gaps.
            self.stream.fill(self.flush.all(), 0)?;
            self.stream.record(&start)?;
            let ran = run(*algorithm).is_ok();
            self.stream.record(&end)?;
            runs.push(ran.then_some((start, end)));
        }
        self.stream.synchronize()?;
        runs.iter()
            .map(|run| run.as_ref().map_or(Ok(f32::INFINITY), |(start, end)| end.us_since(start)))
            .collect()
    }
}

/// The fastest few that are not far from the best, by number, and the first.
fn candidates(times_us: &[f32]) -> Vec<usize> {
    let best = times_us.iter().copied().fold(f32::INFINITY, f32::min);
    let is_near = |&at: &usize| times_us[at] <= best * CANDIDATE_MAX;
    let mut near: Vec<_> = (1..times_us.len()).filter(is_near).collect();
    near.sort_by(|&a, &b| times_us[a].total_cmp(&times_us[b]));
    near.truncate(CANDIDATES - 1);
    near.insert(0, 0);
    near.retain(|&at| times_us[at].is_finite());
    near
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::those_near_the_best(&[10.5, 10.0, 13.0, 10.2], &[0, 1, 3])]
    #[case::the_first_though_it_is_slow(&[20.0, 10.0], &[0, 1])]
    #[case::none_that_does_not_run(&[f32::INFINITY, 10.0, f32::INFINITY], &[1])]
    #[case::not_too_many(&[1.0, 1.05, 1.04, 1.03, 1.02, 1.01], &[0, 5, 4, 3])]
    fn candidates_for_lasting_load(#[case] times_us: &[f32], #[case] expected: &[usize]) {
        assert_eq!(candidates(times_us), expected);
    }
}

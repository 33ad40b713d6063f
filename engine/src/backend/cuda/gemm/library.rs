//! Matrix products by cublasLt, each shape with the algorithm that was measured to be fastest.
//!
//! The library suggests algorithms from a model of the hardware, its favourite first. Measured over
//! Llama's shapes the favourite loses 3 to 9 % to another suggestion now and then. So the first time
//! that a shape is needed, the suggestions are timed, and the choice is kept on disk. Rows vary from
//! step to step: they fall into buckets, and the algorithm is chosen at the top of each.

mod choices;

use std::collections::HashMap;
use std::path::Path;

use parking_lot::Mutex;

use crate::backend::cuda::driver::address::Address;
use crate::backend::cuda::driver::device::{Device, Event, Stream};
use crate::backend::cuda::driver::element::ElementType;
use crate::backend::cuda::driver::memory::DeviceMemory;
use crate::backend::cuda::gemm::cublaslt::{
    Algorithm, Handle, Operands, Preference, Problem, Shape,
};
use crate::error::EngineError;
use choices::{Choices, Key};

/// What NVIDIA advises for Hopper is 32 MiB; twice that lets every split of the sum be tried.
const WORKSPACE_BYTES: usize = 64 << 20;

/// Algorithms to time.
const SUGGESTIONS: usize = 8;

/// Device time for measuring one shape, where a few turns don't take longer.
const TUNING_US: f32 = 8_000.0;

/// Turns of all algorithms that count; the least time of each is taken.
const TURNS_MIN: usize = 3;
const TURNS_MAX: usize = 7;

/// How much faster than the library's favourite another one has to be: times vary by about as much.
const ADVANTAGE_MIN: f32 = 1.02;

/// As many times the second-level cache is written between two runs, so that weights come from
/// memory, as they do in a step.
const FLUSH_CACHES: u64 = 2;

/// Products that are kept ready to run. Decode steps need few kinds; prompts have any number of rows.
const READY_MAX: usize = 1024;

/// Computes `x * weight^T` on one device. Its workspace serves one stream at a time.
#[derive(Debug)]
pub(crate) struct Matmul {
    handle: Handle,
    workspace: DeviceMemory,
    choices: Mutex<Choices>,
    /// As they ran before: the library takes some 20 us to describe one.
    ready: Mutex<HashMap<Key, Ready>>,
}

/// A product that has been described to the library, and how it is computed.
#[derive(Debug)]
struct Ready {
    problem: Problem,
    algorithm: Algorithm,
}

/// One product: `out[rows, outputs] = x[rows, inputs] * weight[outputs, inputs]^T (+ bias)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    /// `[rows, inputs]`, rows `x_stride` elements apart.
    pub x: Address,
    /// `[outputs, inputs]`, contiguous.
    pub weight: Address,
    /// `[outputs]`, added to every row. Only where `out` has 16-bit elements.
    pub bias: Option<Address>,
    /// `[rows, outputs]`, rows `out_stride` elements apart.
    pub out: Address,
    /// Rows of `x` and `out`.
    pub rows: usize,
    /// Rows of `weight`.
    pub outputs: usize,
    /// Columns of `weight`.
    pub inputs: usize,
    /// Elements from one row of `x` to the next; `inputs` where it is contiguous.
    pub x_stride: usize,
    /// Elements from one row of `out` to the next; `outputs` where it is contiguous.
    pub out_stride: usize,
    /// Of `x`, `weight` and `bias`: 16 bits.
    pub element: ElementType,
    /// Of `out`: as `element`, or [`ElementType::F32`].
    pub out_element: ElementType,
}

// === impl Matmul ===

impl Matmul {
    /// Starts the library on a device.
    ///
    /// - `cache`: where choices are kept for the next start; nowhere if `None`.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the library is missing, says what to install, or if there is no
    /// memory for its workspace.
    pub(crate) fn new(device: &Device, cache: Option<&Path>) -> Result<Self, EngineError> {
        let library = *device.libraries().cublaslt()?;
        device.bind()?;
        let handle = Handle::new(library)?;
        let workspace = DeviceMemory::new(device, WORKSPACE_BYTES)?;
        let maker = format!("{}, cublasLt {}", device.properties().name, handle.version());
        let choices = Mutex::new(Choices::open(cache, &maker));
        Ok(Self { handle, workspace, choices, ready: Mutex::default() })
    }

    /// Submits a product. May be called in a capture, where it measures nothing.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the library knows no way to compute it, or refuses.
    pub(crate) fn run(&self, stream: &Stream, product: &Product) -> Result<(), EngineError> {
        let Some(shape) = product.shape()? else {
            return Ok(());
        };
        let key = Key { shape, alignment: product.alignment() };
        let run = |problem: &Problem, algorithm| {
            self.handle.run(stream, problem, product.operands(), algorithm, self.workspace.all())
        };
        // Held to the end: a bias's address becomes part of the description.
        let mut ready = self.ready.lock();
        if let Some(Ready { problem, algorithm }) = ready.get(&key)
            && run(problem, *algorithm).is_ok()
        {
            return Ok(());
        }
        let problem = self.handle.problem(&shape)?;
        if let Some(algorithm) = self.tuned(stream, product, &shape)?
            && run(&problem, algorithm).is_ok()
        {
            if ready.len() >= READY_MAX {
                ready.clear();
            }
            ready.insert(key, Ready { problem, algorithm });
            return Ok(());
        }
        let suggestions = self.suggestions(&problem, 1, product)?;
        let favourite = suggestions.first().ok_or_else(|| none_for(product))?;
        run(&problem, *favourite)
    }

    fn suggestions(
        &self,
        problem: &Problem,
        count: usize,
        product: &Product,
    ) -> Result<Vec<Algorithm>, EngineError> {
        let preference =
            Preference { alignment: product.alignment(), workspace_bytes: self.workspace.bytes() };
        self.handle.suggestions(problem, count, preference)
    }

    /// The algorithm chosen for the bucket of `shape`, choosing it now if it may be.
    fn tuned(
        &self,
        stream: &Stream,
        product: &Product,
        shape: &Shape,
    ) -> Result<Option<Algorithm>, EngineError> {
        let top = Shape { rows: bucket(shape.rows), ..*shape };
        let key = Key { shape: top, alignment: product.alignment() };
        if let Some(known) = self.choices.lock().get(&key) {
            return Ok(Some(known));
        }
        if stream.is_capturing()? {
            return Ok(None);
        }
        let problem = self.handle.problem(&top)?;
        // What was kept is of this version of the library; still it is not believed unseen.
        let kept = self.choices.lock().kept(&key);
        if let Some(kept) =
            kept.filter(|kept| self.handle.fits(&problem, *kept, self.workspace.all()))
        {
            self.choices.lock().set(key, kept);
            return Ok(Some(kept));
        }
        let chosen = self.measure(stream, product, &top)?;
        if let Some(chosen) = chosen {
            self.choices.lock().set_and_keep(key, chosen);
        }
        Ok(chosen)
    }

    /// The fastest suggestion for `shape`; none if there is no memory to measure with.
    fn measure(
        &self,
        stream: &Stream,
        product: &Product,
        shape: &Shape,
    ) -> Result<Option<Algorithm>, EngineError> {
        let problem = self.handle.problem(shape)?;
        let suggestions = self.suggestions(&problem, SUGGESTIONS, product)?;
        if suggestions.len() < 2 {
            return Ok(suggestions.first().copied());
        }
        let Ok(bench) = Bench::new(stream, shape) else {
            tracing::debug!(?shape, "no memory to measure matrix products with");
            return Ok(None);
        };
        let operands =
            Operands { x: bench.x.address(), out: bench.out.address(), ..product.operands() };
        let run = |algorithm| {
            self.handle.run(stream, &problem, operands, algorithm, self.workspace.all())
        };
        let times_us = bench.times_us(&suggestions, run)?;
        let favourite = (times_us[0] / ADVANTAGE_MIN, suggestions[0]);
        let (time_us, chosen) = times_us
            .into_iter()
            .zip(suggestions)
            .fold(favourite, |best, this| if this.0 < best.0 { this } else { best });
        tracing::debug!(?shape, time_us, "chose a matrix product");
        Ok(Some(chosen))
    }
}

fn none_for(product: &Product) -> EngineError {
    EngineError::Device(format!("cublasLt knows no algorithm for {product:?}"))
}

// === impl Product ===

impl Product {
    /// Nothing where there is nothing to compute.
    fn shape(&self) -> Result<Option<Shape>, EngineError> {
        if self.rows == 0 || self.outputs == 0 {
            return Ok(None);
        }
        let fits = self.x_stride >= self.inputs
            && self.out_stride >= self.outputs
            && self.inputs > 0
            && self.element != ElementType::F32
            && (self.out_element == self.element
                || self.out_element == ElementType::F32 && self.bias.is_none());
        if !fits {
            return Err(EngineError::Device(format!("not a matrix product: {self:?}")));
        }
        Ok(Some(Shape {
            rows: self.rows,
            outputs: self.outputs,
            inputs: self.inputs,
            x_stride: self.x_stride,
            out_stride: self.out_stride,
            element: self.element,
            out_element: self.out_element,
            has_bias: self.bias.is_some(),
        }))
    }

    fn operands(&self) -> Operands {
        Operands {
            x: self.x,
            weight: self.weight,
            bias: self.bias.unwrap_or(Address::NONE),
            out: self.out,
        }
    }

    /// What all operands are aligned to, bytes; at most what the library asks for at most, 16.
    fn alignment(&self) -> u32 {
        let all = [self.x, self.weight, self.bias.unwrap_or(Address::NONE), self.out];
        all.map(Address::alignment).into_iter().fold(16, u32::min)
    }
}

// === buckets ===

/// The top of the bucket that `rows` falls into: a power of two, or from 64 on one and a half.
fn bucket(rows: usize) -> usize {
    let power = rows.next_power_of_two();
    let between = power / 4 * 3;
    if power > 64 && rows <= between { between } else { power }
}

// === bench ===

/// What the timing of one shape needs.
struct Bench<'a> {
    stream: &'a Stream,
    x: DeviceMemory,
    out: DeviceMemory,
    flush: DeviceMemory,
}

impl<'a> Bench<'a> {
    fn new(stream: &'a Stream, shape: &Shape) -> Result<Self, EngineError> {
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
        // 0.0115 in bf16, 1.06 in f16: any ordinary number.
        stream.fill(bench.x.all(), 0x3C)?;
        Ok(bench)
    }

    /// The least time of several runs of each algorithm; infinite for one that doesn't run.
    ///
    /// They take turns, so that a clock that changes on the way changes for all.
    fn times_us(
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

#[cfg(test)]
mod tests;

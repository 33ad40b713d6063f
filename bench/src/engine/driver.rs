//! Requests to an engine, and when their tokens came.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use engine::{
    Engine, EngineConfig, EngineHandle, EngineInfo, EngineStats, Event, EventStream, Mode,
    Submission,
};
use futures::future::join_all;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use words::{ClientId, Generation, RequestId, Sampling, StopRules, Targets, TenantSalt};

use crate::energy::Span;

/// Ends of prompts in a row at least: two between which there is one.
const IN_A_ROW_MIN: usize = 2;

/// Longest time between two tokens of a request before something is wrong.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// A running engine, and a thread's runtime to hear from it.
pub(super) struct Driver {
    handle: EngineHandle,
    runtime: Runtime,
    rng: ChaCha8Rng,
    requests: u64,
}

/// What came of some requests that were handed in at once.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// When they were handed in.
    pub(super) begun: Instant,
    /// When each token came, request by request.
    pub(super) tokens: Vec<Vec<Instant>>,
}

/// What came of sequences that decoded while prompts arrived.
#[derive(Clone, Debug)]
pub(super) struct Mixed {
    /// Between two tokens of a decoding sequence.
    pub(super) gaps_ms: Vec<f64>,
    /// Tokens that a decoding sequence generated, on average.
    pub(super) generated: f64,
    /// To each arriving prompt's first token.
    pub(super) first_ms: Vec<f64>,
}

/// The part of a run in which all sequences decode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Steady {
    /// Milliseconds of a step.
    pub(super) step_ms: f64,
    /// Tokens that a sequence has generated, on average over sequences and steps.
    pub(super) generated: f64,
    /// All of it.
    pub(super) span: Span,
}

// === impl Driver ===

impl Driver {
    /// Starts the engine.
    pub(super) fn start(config: &EngineConfig, seed: u64) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let handle = Engine::start(config, &mut |_| ())?;
        Ok(Self { handle, runtime, rng: ChaCha8Rng::seed_from_u64(seed), requests: 0 })
    }

    pub(super) fn info(&self) -> &EngineInfo {
        self.handle.info()
    }

    pub(super) fn stats(&self) -> EngineStats {
        self.handle.stats()
    }

    /// Leaves the engine alone for a while.
    pub(super) fn rest(&self, lasts: Duration) {
        self.runtime.block_on(async { tokio::time::sleep(lasts).await });
    }

    /// Whether sequences of so many tokens in all fit at once.
    pub(super) fn fits(&self, sequences: usize, tokens: usize) -> bool {
        let info = self.info();
        let blocks = tokens.div_ceil(info.block_tokens as usize) * sequences;
        // A hundredth is kept free for growth.
        let usable = info.total_blocks as usize * 98 / 100;
        tokens <= info.context_tokens_max as usize && blocks <= usable
    }

    /// Lets whatever is chosen, compiled or allocated at first use be so: a prompt of each size up
    /// to a step's.
    pub(super) fn warm_up(&mut self, tokens_max: u32) -> Result<()> {
        let longest = tokens_max.min(self.info().context_tokens_max - 2) as usize;
        let sizes = std::iter::successors(Some(16), |&size| Some(size + size / 2));
        for size in sizes.take_while(|&size| size < longest).chain([longest]) {
            self.run(1, size, 1)?;
        }
        Ok(())
    }

    /// Runs some requests at once, to their ends.
    pub(super) fn run(&mut self, count: usize, prompt: usize, tokens: u32) -> Result<Heard> {
        self.run_each(&vec![prompt; count], tokens)
    }

    /// Runs requests with prompts of these lengths at once, to their ends.
    pub(super) fn run_each(&mut self, prompts: &[usize], tokens: u32) -> Result<Heard> {
        let work: Vec<_> = prompts.iter().map(|&prompt| self.generation(prompt, tokens)).collect();
        let begun = Instant::now();
        let streams = work.into_iter().map(|work| self.submit(work)).collect::<Result<Vec<_>>>()?;
        let heard = self.runtime.block_on(join_all(streams.into_iter().map(listen)));
        Ok(Heard { begun, tokens: heard.into_iter().collect::<Result<_>>()? })
    }

    /// Computes prompts one after another for a while, and notes when each was done: two at least. The
    /// next one always waits while one is computed, so that the device has no rest between them.
    pub(super) fn run_in_a_row(&mut self, prompt: usize, lasts: Duration) -> Result<Vec<Instant>> {
        let begun = Instant::now();
        let mut ends = Vec::new();
        let mut computed = self.begin(prompt)?;
        while begun.elapsed() < lasts || ends.len() < IN_A_ROW_MIN {
            self.runtime.block_on(started(&mut computed))?;
            let next = self.begin(prompt)?;
            let tokens = self.runtime.block_on(listen(std::mem::replace(&mut computed, next)))?;
            ends.extend(tokens.last());
        }
        self.runtime.block_on(listen(computed))?;
        Ok(ends)
    }

    fn begin(&mut self, prompt: usize) -> Result<EventStream> {
        let work = self.generation(prompt, 1);
        self.submit(work)
    }

    /// Lets sequences decode, and prompts arrive one after another beside them.
    ///
    /// - `decoding`: sequences, and tokens of their prompts.
    /// - `arriving`: tokens of a prompt, and the time between two.
    pub(super) fn run_mixed(
        &mut self,
        decoding: (usize, usize),
        arriving: (usize, Duration),
        lasts: Duration,
    ) -> Result<Mixed> {
        let tokens_max = self.info().context_tokens_max - decoding.1 as u32;
        let streams = (0..decoding.0)
            .map(|_| {
                let work = self.generation(decoding.1, tokens_max);
                self.submit(work)
            })
            .collect::<Result<Vec<_>>>()?;
        let count = (lasts.as_secs_f64() / arriving.1.as_secs_f64()).ceil() as usize;
        let prompts: Vec<_> = (0..count).map(|_| self.generation(arriving.0, 1)).collect();
        let started = Semaphore::new(0);
        let over = CancellationToken::new();
        let decoders = join_all(streams.into_iter().map(|s| listen_until(s, &started, &over)));
        let arrivals = async {
            // None is closed while it is waited for.
            let all = started.acquire_many(decoding.0 as u32).await;
            let begun = Instant::now();
            let mut next = tokio::time::interval(arriving.1);
            let mut sent = JoinSet::new();
            for work in prompts {
                next.tick().await;
                let (at, stream) = (Instant::now(), self.submit(work)?);
                sent.spawn(async move {
                    let tokens = listen(stream).await?;
                    anyhow::Ok(tokens.first().map_or(0.0, |first| ms(*first - at)))
                });
            }
            next.tick().await;
            over.cancel();
            drop(all);
            anyhow::Ok((begun, sent.join_all().await))
        };
        let (decoders, arrivals) =
            self.runtime.block_on(async { tokio::join!(decoders, arrivals) });
        let (begun, first_ms) = arrivals?;
        let decoders = decoders.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(Mixed {
            gaps_ms: decoders.iter().flat_map(|tokens| gaps_ms(tokens, begun)).collect(),
            generated: decoders.iter().map(Vec::len).sum::<usize>() as f64 / decoding.0 as f64,
            first_ms: first_ms.into_iter().collect::<Result<_>>()?,
        })
    }

    fn submit(&self, work: Generation) -> Result<EventStream> {
        let submission = Submission::new(Arc::new(work), Mode::Generate);
        self.handle.submit(submission).context("the engine refused a request")
    }

    /// A greedy request whose prompt nobody has seen.
    fn generation(&mut self, prompt: usize, tokens: u32) -> Generation {
        self.requests += 1;
        let vocab = self.info().vocab_size;
        let prompt: Vec<u32> = (0..prompt).map(|_| self.rng.random_range(0..vocab)).collect();
        Generation {
            id: RequestId(self.requests.to_string().into()),
            prompt: prompt.into(),
            generated: Arc::default(),
            choices: vec![0],
            sampling: Sampling::greedy(),
            stop: StopRules { max_tokens: tokens, ignore_eos: true, ..StopRules::default() },
            prompt_logprobs: None,
            salt: TenantSalt::default(),
            client: ClientId::default(),
            targets: Targets::default(),
        }
    }
}

/// Notes when tokens come, to the end.
async fn listen(mut events: EventStream) -> Result<Vec<Instant>> {
    let mut tokens = Vec::new();
    loop {
        let event = tokio::time::timeout(SILENCE_MAX, events.recv())
            .await
            .context("the engine has fallen silent")?;
        match event {
            Some(Event::Token(_)) => tokens.push(Instant::now()),
            Some(Event::Failed(why)) => bail!("a request failed: {why}"),
            Some(_) => {}
            None => return Ok(tokens),
        }
    }
}

/// Waits until a request has left the queue.
async fn started(events: &mut EventStream) -> Result<()> {
    let event = tokio::time::timeout(SILENCE_MAX, events.recv()).await;
    match event.context("the engine has fallen silent")? {
        Some(Event::Started { .. }) => Ok(()),
        Some(Event::Failed(why)) => bail!("a request failed: {why}"),
        _ => bail!("a request ended before it began"),
    }
}

/// Notes when tokens come, until it is over; says when the first has come.
async fn listen_until(
    mut events: EventStream,
    started: &Semaphore,
    over: &CancellationToken,
) -> Result<Vec<Instant>> {
    let mut tokens = Vec::new();
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = over.cancelled() => return Ok(tokens),
        };
        match event {
            Some(Event::Token(_)) => {
                if tokens.is_empty() {
                    started.add_permits(1);
                }
                tokens.push(Instant::now());
            }
            Some(Event::Failed(why)) => bail!("a request failed: {why}"),
            Some(_) => {}
            None => bail!("a sequence reached its end before it was over"),
        }
    }
}

/// Times between tokens that came after `begun`.
fn gaps_ms(tokens: &[Instant], begun: Instant) -> impl Iterator<Item = f64> {
    let pairs = tokens.windows(2).filter(move |pair| pair[0] >= begun);
    pairs.map(|pair| ms(pair[1] - pair[0]))
}

// === impl Heard ===

impl Heard {
    /// Until the last token, ms.
    pub(super) fn total_ms(&self) -> f64 {
        let last = self.tokens.iter().filter_map(|tokens| tokens.last()).max();
        last.map_or(0.0, |last| ms(*last - self.begun))
    }

    /// Until the last of the first tokens, ms.
    pub(super) fn first_ms(&self) -> f64 {
        ms(self.first_at() - self.begun)
    }

    /// When the last of the first tokens came.
    pub(super) fn first_at(&self) -> Instant {
        let last = self.tokens.iter().filter_map(|tokens| tokens.first()).max();
        last.copied().unwrap_or(self.begun)
    }

    /// The last `steps` steps before the first sequence ended, or as many as all took part in.
    pub(super) fn steady(&self, steps: usize) -> Option<Steady> {
        let end = *self.tokens.iter().filter_map(|tokens| tokens.last()).min()?;
        // One reader's times are as far apart as the steps are, so one sequence is the clock: the
        // last to begin.
        let clock = self.tokens.iter().max_by_key(|tokens| tokens.first())?;
        let within = clock.iter().filter(|&&at| at <= end).count();
        let from = within.saturating_sub(1 + steps);
        let (first, last) = (*clock.get(from)?, *clock.get(within.checked_sub(1)?)?);
        let taken = (within - 1).checked_sub(from).filter(|&taken| taken > 0)?;
        let before = |at: Instant| {
            let counts = self.tokens.iter().map(|tokens| tokens.partition_point(|t| *t <= at));
            counts.sum::<usize>() as f64 / self.tokens.len() as f64
        };
        let generated = f64::midpoint(before(first), before(last));
        let span = Span { from: first, to: last, tokens: taken * self.tokens.len() };
        Some(Steady { step_ms: ms(last - first) / taken as f64, generated, span })
    }
}

pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The middle one, or what is between the middle two; 0 of none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = |at: usize| values.get(at).copied().unwrap_or(0.0);
    f64::midpoint(at(values.len().saturating_sub(1) / 2), at(values.len() / 2))
}

/// The value that a share of all is below; 0 of none.
pub(super) fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share) as usize;
    values.get(at).or(values.last()).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use engine::{LoadFormat, ModelOptions};

    use super::*;
    use crate::models::{Checkpoint, ModelSource};

    #[test]
    fn the_middle_of_two_is_between_them() {
        let table: [(&[f64], f64); 5] = [
            (&[], 0.0),
            (&[3.0], 3.0),
            (&[4.0, 2.0], 3.0),
            (&[9.0, 1.0, 2.0], 2.0),
            (&[9.0, 1.0, 2.0, 4.0], 3.0),
        ];
        for (values, want) in table {
            assert!((median(values.to_vec()) - want).abs() < 1e-9, "{values:?}");
        }
    }

    fn tiny(checkpoint: &Checkpoint) -> EngineConfig {
        EngineConfig {
            model_dir: checkpoint.dir().to_owned(),
            model: ModelOptions {
                kv_blocks: Some(64),
                load_format: LoadFormat::Dummy { seed: 1 },
                ..ModelOptions::default()
            },
            batch_tokens_max: 256,
            sequences_max: 4,
            queue_max: 16,
            context_tokens_max: None,
            prefix_cache: false,
            targets: Targets::default(),
            tiers: engine::TierOptions::default(),
        }
    }

    #[test]
    fn prompts_in_a_row_follow_each_other_and_share_no_step() {
        let shape = "tiny".parse().expect("a shape");
        let checkpoint = Checkpoint::open(&ModelSource::Shape(shape)).expect("a folder");
        let mut driver = Driver::start(&tiny(&checkpoint), 1).expect("an engine");
        let before = driver.stats();
        let ends = driver.run_in_a_row(32, Duration::from_millis(50)).expect("prompts");
        let after = driver.stats();
        assert!(ends.len() >= IN_A_ROW_MIN && ends.is_sorted(), "{ends:?}");
        assert_eq!(after.finished - before.finished, ends.len() as u64 + 1);
        assert_eq!(after.steps - before.steps, ends.len() as u64 + 1, "each is one step");
    }

    /// Tokens every 10 ms, from `from` ms on.
    fn ticking(begun: Instant, from: u64, count: u64) -> Vec<Instant> {
        (0..count).map(|tick| begun + Duration::from_millis(from + 10 * tick)).collect()
    }

    #[test]
    fn the_steady_part_is_where_all_decode() {
        let begun = Instant::now();
        let tokens = vec![ticking(begun, 100, 20), ticking(begun, 150, 20)];
        let heard = Heard { begun, tokens };
        let steady = heard.steady(10).unwrap();
        assert!((steady.step_ms - 10.0).abs() < 1e-6, "{steady:?}");
        // At its end the first has 20 and the second 15; ten steps earlier 10 and 5.
        assert!((steady.generated - 12.5).abs() < 1e-6, "{steady:?}");
        let Span { from, to, tokens } = steady.span;
        assert_eq!((ms(from - begun) as u64, ms(to - begun) as u64, tokens), (190, 290, 20));
        assert!((heard.total_ms() - 340.0).abs() < 1e-6);
        assert!((heard.first_ms() - 150.0).abs() < 1e-6);
    }

    #[test]
    fn sequences_that_never_meet_have_no_steady_part() {
        let begun = Instant::now();
        let heard = Heard { begun, tokens: vec![ticking(begun, 0, 2), ticking(begun, 100, 2)] };
        assert_eq!(heard.steady(10), None);
    }
}

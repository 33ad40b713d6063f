//! The way into a worker: who may come in, in which order, and who is refused at once.
//!
//! What a request may need (places among the running sequences, KV blocks to its last token) is set aside
//! before any work is done for it. So nobody who has begun to speak waits for a place, or is pushed out for want of
//! blocks; who can't be in by the time that its first token needs is refused before it costs anything.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::{Shortage, clock};
use engine::{EngineHandle, EngineStats};
use parking_lot::Mutex;
use scheduler::Backlog;
use scheduler::admission::{Line, Need, retry_after};
use scheduler::cost::prior::{DECODE_STEP_S, PREFILL_TOKENS_PER_S};
use tokio::sync::oneshot;
use words::{ClientId, Generation, StopRules};

use crate::WorkerError;

/// How often those in line look whether readers have stalled, whose places they may then have. Everything else that
/// makes room lets the next in at once.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Steps' worth of prompts that are let into a prefill engine: enough to fill each step, whatever part of the prompts
/// is cached. The rest waits where clients take turns.
const PROMPT_STEPS: u32 = 4;

/// The way into a worker. A clone is another handle to the same one.
#[derive(Clone)]
pub struct Entrance(Arc<Lobby>);

/// A request that asks to be let in.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Whose.
    pub client: ClientId,
    /// What is set aside for it.
    pub need: Need,
    /// Tokens that this worker's engine computes before the first one; none where they are handed over.
    pub prefill_tokens: u64,
    /// When work on it has to begin, for its first token to come in time; `None`: whenever.
    pub start_by: Option<Instant>,
    /// The longest decode step beside which it may run; `None`: any.
    pub step_max: Option<Duration>,
}

/// A request's right to be worked on; dropping it makes room.
#[must_use = "dropping it makes room for others"]
pub struct Inside {
    lobby: Arc<Lobby>,
    ticket: u64,
    ask: Ask,
}

/// What waits at the entrance, and what was promised to those inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtEntrance {
    /// Requests in line.
    pub waiting: u32,
    /// Their prompt tokens, as far as they are computed here.
    pub prefill_tokens: u64,
    /// What they will need.
    pub wanted: Need,
    /// What those inside may need, to their ends.
    pub inside: Need,
}

struct Lobby {
    engine: EngineHandle,
    state: Mutex<State>,
    /// Whether places are taken by sequences that generate, and come free as those end.
    generates: bool,
}

struct State {
    line: Line,
    doors: HashMap<u64, Door>,
    /// Prompts of those in line.
    backlog: Backlog,
    refused: u64,
}

/// Where a request waits.
struct Door {
    opener: oneshot::Sender<()>,
    client: ClientId,
    prefill_tokens: u64,
}

// === impl Ask ===

impl Ask {
    /// The request to generate `work`.
    ///
    /// - `computes`: whether its prompt is computed here.
    #[must_use]
    pub fn to_generate(engine: &EngineHandle, work: &Generation, computes: bool) -> Self {
        let context = work.context_tokens();
        Self {
            client: work.client,
            need: need(engine, work),
            prefill_tokens: if computes { context as u64 } else { 0 },
            start_by: None,
            step_max: None,
        }
    }

    /// The request to compute the prompt of `work` for somebody else.
    #[must_use]
    pub fn to_prefill(engine: &EngineHandle, work: &Generation) -> Self {
        let context = work.context_tokens();
        let blocks = engine.info().layout.blocks_for(context) as u32;
        Self {
            client: work.client,
            need: Need { places: 1, blocks },
            prefill_tokens: context as u64,
            start_by: None,
            step_max: None,
        }
    }

    /// The same, where work on it has to begin by then.
    #[must_use]
    pub fn starting_by(self, start_by: Option<Instant>) -> Self {
        Self { start_by, ..self }
    }

    /// The same, where decode steps may not take longer than this.
    #[must_use]
    pub fn with_steps_of(self, step_max: Option<Duration>) -> Self {
        Self { step_max, ..self }
    }
}

/// What the wire says of the longest step.
#[must_use]
pub fn step_max(us: u64) -> Option<Duration> {
    (us > 0).then(|| Duration::from_micros(us))
}

/// What `work` will take of an engine, beside the blocks that are there already.
fn need(engine: &EngineHandle, work: &Generation) -> Need {
    let info = engine.info();
    let StopRules { max_tokens, min_tokens, ignore_eos, .. } = work.stop;
    let output = match ignore_eos {
        true => max_tokens,
        false => {
            let likely = engine.stats().output.likely_max(max_tokens);
            likely.max(min_tokens.min(max_tokens)).max(work.generated.len() as u32)
        }
    };
    let context = work.context();
    let end = (work.prompt.len() as u32).saturating_add(output).min(info.context_tokens_max);
    let common = context.len() as u32 / info.block_tokens;
    let each = end.div_ceil(info.block_tokens).saturating_sub(common);
    let choices = work.choices.len() as u32;
    let blocks = common.saturating_add(each.saturating_mul(choices));
    let cached = engine.cached_prefix(&context, &work.salt).blocks().len() as u32;
    Need {
        places: choices.min(info.sequences_max),
        blocks: blocks.saturating_sub(cached).clamp(1, info.total_blocks),
    }
}

// === impl Entrance ===

impl Entrance {
    /// The way to an engine's places and blocks.
    ///
    /// - `waiting_max`: requests in line, as a last limit; what bounds it first is time.
    #[must_use]
    pub fn for_sequences(engine: EngineHandle, waiting_max: usize) -> Self {
        let info = engine.info();
        let room = Need { places: info.sequences_max, blocks: info.total_blocks };
        Self::new(engine, Line::new(room, waiting_max), true)
    }

    /// The way to an engine that computes prompts for others. A short prompt goes in beside another client's long one.
    ///
    /// - `step_tokens`: of a step.
    #[must_use]
    pub fn for_prompts(engine: EngineHandle, step_tokens: u32, waiting_max: usize) -> Self {
        let info = engine.info();
        let blocks =
            (PROMPT_STEPS * step_tokens.div_ceil(info.block_tokens)).min(info.total_blocks);
        let room = Need { places: info.sequences_max, blocks };
        let line = Line::new(room, waiting_max).with_spare_blocks(info.total_blocks - blocks);
        Self::new(engine, line, false)
    }

    fn new(engine: EngineHandle, line: Line, generates: bool) -> Self {
        let (doors, backlog) = (HashMap::new(), Backlog::default());
        let state = State { line, doors, backlog, refused: 0 };
        Self(Arc::new(Lobby { engine, state: Mutex::new(state), generates }))
    }

    /// Waits in line, and comes in. Dropping the future leaves the line.
    ///
    /// # Errors
    /// [`WorkerError::Busy`]: at once if work on it isn't likely to begin in time or the line is full, later if
    /// its time has passed in line.
    pub async fn enter(&self, ask: Ask) -> Result<Inside, WorkerError> {
        let (inside, door) = self.join(ask)?;
        let opened = self.0.opened(door);
        let Some(start_by) = ask.start_by else {
            opened.await;
            return Ok(inside);
        };
        match tokio::time::timeout_at(start_by.into(), opened).await {
            Ok(()) => Ok(inside),
            Err(_) => Err(self.0.refusal(&ask)),
        }
    }

    /// What waits, and what was promised.
    #[must_use]
    pub fn counts(&self) -> AtEntrance {
        let state = self.0.state.lock();
        AtEntrance {
            waiting: state.line.waiting() as u32,
            prefill_tokens: state.backlog.total(),
            wanted: state.line.wanted(),
            inside: state.line.inside(),
        }
    }

    fn join(&self, ask: Ask) -> Result<(Inside, oneshot::Receiver<()>), WorkerError> {
        let stats = self.0.engine.stats();
        let mut state = self.0.state.lock();
        let (wait, short) = self.0.expected_wait(&state, &ask, &stats);
        let left = ask.start_by.map(|at| at.saturating_duration_since(clock::now()));
        if let Some(left) = left
            && wait > left
        {
            return Err(state.refuse(short, wait - left));
        }
        if let Some(step_max) = ask.step_max
            && self.0.generates
            && stats.running > 0
            && stats.decode_step_s > step_max.as_secs_f64()
        {
            return Err(state.refuse(Shortage::Pace, release(&stats)));
        }
        let Ok(ticket) = state.line.join(ask.client, ask.need) else {
            return Err(state.refuse(Shortage::Line, wait));
        };
        let door = state.hang(ticket, &ask);
        let inside = Inside { lobby: self.0.clone(), ticket, ask };
        state.let_in(&stats);
        drop(state);
        Ok((inside, door))
    }
}

// === impl Lobby ===

impl Lobby {
    async fn opened(&self, mut door: oneshot::Receiver<()>) {
        while tokio::time::timeout(LOOK_AGAIN, &mut door).await.is_err() {
            let stats = self.engine.stats();
            self.state.lock().let_in(&stats);
        }
    }

    /// Until the request is in and the prompts before its own are computed, and for which of them it waits longer;
    /// nothing where nothing was measured.
    fn expected_wait(&self, state: &State, ask: &Ask, stats: &EngineStats) -> (Duration, Shortage) {
        let (room_s, prompts_s) = (self.room_s(state, ask, stats), prompts_s(state, ask, stats));
        let wait = Duration::try_from_secs_f64(room_s + prompts_s).unwrap_or(Duration::MAX);
        (wait, if room_s > prompts_s { Shortage::Room } else { Shortage::Prompts })
    }

    /// Sequences of mean length end evenly over their time.
    fn room_s(&self, state: &State, ask: &Ask, stats: &EngineStats) -> f64 {
        if !self.generates {
            return 0.0;
        }
        state.line.must_end(ask.client, ask.need, dormant(&state.line, stats))
            * stats.output.mean_or_usual()
            * measured_or(stats.decode_step_s, DECODE_STEP_S)
    }

    fn refusal(&self, ask: &Ask) -> WorkerError {
        let stats = self.engine.stats();
        let mut state = self.state.lock();
        let (wait, short) = self.expected_wait(&state, ask, &stats);
        state.refuse(short, wait)
    }
}

// === impl State ===

impl State {
    fn hang(&mut self, ticket: u64, ask: &Ask) -> oneshot::Receiver<()> {
        let Ask { client, prefill_tokens, .. } = *ask;
        let (opener, door) = oneshot::channel();
        self.doors.insert(ticket, Door { opener, client, prefill_tokens });
        self.backlog.add(client, prefill_tokens);
        door
    }

    fn take_door(&mut self, ticket: u64) -> Option<oneshot::Sender<()>> {
        let Door { opener, client, prefill_tokens } = self.doors.remove(&ticket)?;
        self.backlog.remove(client, prefill_tokens);
        Some(opener)
    }

    fn let_in(&mut self, stats: &EngineStats) {
        let dormant = dormant(&self.line, stats);
        while let Some(ticket) = self.line.enter(dormant) {
            if let Some(opener) = self.take_door(ticket) {
                // Whoever gave up in this moment makes room again when its right is dropped.
                let _ = opener.send(());
            }
        }
    }

    fn refuse(&mut self, shortage: Shortage, room_in: Duration) -> WorkerError {
        self.refused += 1;
        WorkerError::Busy {
            message: format!("this worker is busy: {}", shortage.told()),
            shortage,
            retry_after: retry_after(room_in.as_secs_f64(), self.refused),
        }
    }
}

// === impl Inside ===

impl Drop for Inside {
    fn drop(&mut self) {
        let Self { lobby, ticket, ask } = self;
        let stats = lobby.engine.stats();
        let mut state = lobby.state.lock();
        if state.line.leave(*ticket) {
            drop(state.take_door(*ticket));
        } else {
            state.line.end(ask.client, ask.need);
        }
        state.let_in(&stats);
    }
}

/// Until the prompts that come before its own are computed.
fn prompts_s(state: &State, ask: &Ask, stats: &EngineStats) -> f64 {
    if ask.prefill_tokens == 0 {
        return 0.0;
    }
    let mut backlog = stats.backlog.clone();
    backlog.extend(&state.backlog);
    let ahead = backlog.ahead_of(ask.client, ask.prefill_tokens);
    ahead as f64 / measured_or(stats.prefill_tokens_per_s, PREFILL_TOKENS_PER_S)
}

/// The part of what is inside whose readers have stalled.
fn dormant(line: &Line, stats: &EngineStats) -> f64 {
    (f64::from(stats.paused) / f64::from(line.inside().places.max(1))).min(1.0)
}

/// Until one of those that run ends.
fn release(stats: &EngineStats) -> Duration {
    let all_s = stats.output.mean_or_usual() * stats.decode_step_s;
    Duration::try_from_secs_f64(all_s / f64::from(stats.running.max(1))).unwrap_or(Duration::MAX)
}

fn measured_or(measured: f64, prior: f64) -> f64 {
    if measured > 0.0 { measured } else { prior }
}

#[cfg(test)]
mod tests;

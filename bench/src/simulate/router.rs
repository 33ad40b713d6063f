//! A router in virtual time: its view of the workers, what it has placed, and whom it lets in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kv_cache::BlockHash;
use scheduler::admission::{self, Misses, Size, Stage};
use scheduler::placement::LedgerEntry;
use scheduler::{
    ClusterSnapshot, Forecast, Ledger, Placement, PlacementRequest, Refusal, SloTargets, Turns,
    WorkerView,
};
use words::{ClientId, Load};

use super::caches::{CacheNews, Caches};
use super::fleet::MODEL;
use super::policy::{Chooser, Sight};

/// What a client is told where there is no telling when there will be room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A prompt is expected to be cached for no longer before its first token, as by a router.
const EXPECTED_S_MAX: f64 = 30.0;

/// After its first token a worker will have told of it by then, as by a router.
const REPORTED_WITHIN: Duration = Duration::from_secs(1);

pub(super) struct Router {
    view: ClusterSnapshot,
    caches: Caches,
    chooser: Chooser,
    targets: SloTargets,
    ledger: Ledger,
    turns: Turns,
    misses: Misses,
    asked: u64,
}

/// What a worker tells.
#[derive(Clone, Debug)]
pub(super) struct News {
    pub(super) load: Load,
    pub(super) cache: CacheNews,
}

/// What a client wants.
pub(super) struct Asked<'a> {
    pub(super) prompt_tokens: u32,
    pub(super) output_tokens: u32,
    /// Of the prompt's full blocks.
    pub(super) names: &'a Arc<[BlockHash]>,
    pub(super) block_tokens: u32,
}

/// A request that was let in.
pub(super) struct Promise {
    pub(super) placement: Placement,
    entry: LedgerEntry,
    size: Size,
    stage: Stage,
}

/// A request that was not.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) why: &'static str,
    pub(super) retry_after: Duration,
}

// === impl Router ===

impl Router {
    pub(super) fn new(view: ClusterSnapshot, chooser: Chooser, targets: SloTargets) -> Self {
        Self {
            caches: Caches::new(view.workers.len()),
            view,
            chooser,
            targets,
            ledger: Ledger::new(),
            turns: Turns::default(),
            misses: Misses::default(),
            asked: 0,
        }
    }

    /// The workers' names, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.view.workers.iter().map(|view| view.info.address.worker.to_string())
    }

    /// Takes in what the workers, in order, say of themselves.
    pub(super) fn hear(&mut self, news: &[News], now: Instant) {
        let workers = self.view.workers.iter_mut();
        for (number, (view, News { load, cache })) in workers.zip(news).enumerate() {
            view.observe(view.info.address.incarnation, load.clone(), now);
            self.caches.hear(number, cache);
        }
    }

    /// Places a request and holds it to the targets.
    pub(super) fn ask(&mut self, asked: &Asked<'_>, now: Instant) -> Result<Promise, Refused> {
        let Asked { prompt_tokens, output_tokens, .. } = *asked;
        self.asked += 1;
        self.ledger.apply(&mut self.view);
        let smallest = PlacementRequest::smallest(MODEL, self.asked);
        let total_tokens_max = prompt_tokens + output_tokens;
        let request =
            PlacementRequest { context_tokens: prompt_tokens, total_tokens_max, ..smallest };
        let request = request.of(ClientId::default(), &self.turns);
        self.caches.apply(asked.names, asked.block_tokens, &mut self.view, now);
        let sight = Sight { view: &self.view, request: &request, now };
        let placement = self.chooser.place(&sight).map_err(|refusal| Refused::of(&refusal))?;
        self.judge(&placement.forecast, now)?;
        let size = Size { width: 1, prompt_tokens };
        self.turns.begin(ClientId::default(), size);
        self.expect(&placement, asked.names, now);
        let entry = self.ledger.record(&placement, now);
        Ok(Promise { placement, entry, size, stage: Stage::default() })
    }

    /// The worker that generates will have answered by `at` that it has the request.
    pub(super) fn taken(&mut self, promise: &Promise, at: Instant) {
        self.ledger.taken(&promise.entry, &promise.placement.decode.worker, at);
    }

    /// The first token came `after` the request was sent.
    pub(super) fn came(&mut self, promise: &mut Promise, after: Duration, now: Instant) {
        let Forecast { wait_s, own_s, .. } = promise.placement.forecast;
        self.misses.observe(after.as_secs_f64() - wait_s - own_s, now);
        self.turns.advance(ClientId::default(), promise.size, promise.stage, Stage::Speaks);
        promise.stage = Stage::Speaks;
    }

    pub(super) fn ended(&mut self, promise: Promise) {
        self.turns.end(ClientId::default(), promise.size, promise.stage);
        self.ledger.settle(promise.entry);
    }

    /// Whoever computes the prompt will have it cached, and whoever generates, too.
    fn expect(&mut self, placement: &Placement, names: &Arc<[BlockHash]>, now: Instant) {
        let until_told = placement.estimated_ttft_s.clamp(0.0, EXPECTED_S_MAX);
        let lasts = Duration::from_secs_f64(until_told) + REPORTED_WITHIN;
        let computes = placement.prefill.first();
        for address in computes.into_iter().chain([&placement.decode]) {
            let of = |view: &WorkerView| view.info.address == *address;
            let worker = self.view.workers.iter().position(of).expect("it was chosen from these");
            self.caches.expect(worker, names, now, lasts);
        }
    }

    fn judge(&mut self, forecast: &Forecast, now: Instant) -> Result<(), Refused> {
        let margin_s = self.misses.margin_s(self.targets.ttft, now);
        admission::decide(&Forecast { margin_s, ..*forecast }, &self.targets).map_err(|late| {
            let room_in_s = late.room_in_s.max(forecast.release_s);
            let retry_after = admission::retry_after(room_in_s, self.asked);
            Refused { why: "it would miss a target", retry_after }
        })
    }
}

// === impl Refused ===

impl Refused {
    fn of(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Busy { retry_after } => {
                Self { why: "all workers are busy", retry_after: *retry_after }
            }
            Refusal::TooLong { .. } | Refusal::TooWide { .. } => {
                Self { why: "no worker could ever hold it", retry_after: Duration::MAX }
            }
            _ => Self { why: "no worker takes it", retry_after: RETRY_AFTER },
        }
    }
}

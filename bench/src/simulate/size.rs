//! How many workers a trace needs.

use std::fmt;

use anyhow::{Result, ensure};

use super::house::House;
use super::policy::Policy;
use super::report::SimulatedRun;
use super::{Fleet, SimulateOptions};

/// No larger fleet is tried.
const WORKERS_MAX: usize = 128;

/// The smallest fleets that serve a trace: 99 % of its requests within the targets.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizing {
    /// Workers that do both phases; `None` if too many are needed.
    pub engines: Option<Sized>,
    /// Prefill and decode workers, fewest in all.
    pub split: Option<Sized>,
}

/// A fleet, and how it served.
#[derive(Clone, Debug, PartialEq)]
pub struct Sized {
    /// Workers that compute prompts; none if all do both phases.
    pub prefill: usize,
    /// Workers that generate.
    pub decode: usize,
    /// By the first of the policies.
    pub run: SimulatedRun,
}

/// Looks for them, by the first of the policies.
///
/// - `on_try`: hears of every fleet that is tried.
///
/// # Errors
/// If there is no policy.
pub fn size(options: &SimulateOptions, on_try: &mut dyn FnMut(&Sized)) -> Result<Sizing> {
    ensure!(!options.policies.is_empty(), "a policy is needed to size by");
    let mut search = Search { options, policy: options.policies[0], on_try };
    let engines = search.engines();
    let first = engines.as_ref().map_or(WORKERS_MAX, |it| it.decode);
    Ok(Sizing { split: search.split(first), engines })
}

struct Search<'a> {
    options: &'a SimulateOptions,
    policy: Policy,
    on_try: &'a mut dyn FnMut(&Sized),
}

// === impl Search ===

impl Search<'_> {
    /// More serve whatever fewer do, so they are doubled until they are enough, and then halved between.
    fn engines(&mut self) -> Option<Sized> {
        let (mut too_few, mut enough) = (0, None);
        let mut next = 1;
        while next <= WORKERS_MAX && next > too_few {
            let tried = self.serve(0, next);
            match tried.is_enough() {
                true => enough = Some(tried),
                false => too_few = next,
            }
            next = match &enough {
                Some(known) if known.decode - too_few <= 1 => break,
                Some(known) => usize::midpoint(too_few, known.decode),
                None => next * 2,
            };
        }
        enough
    }

    /// As many as engines, fewer while they are enough, else more.
    fn split(&mut self, engines: usize) -> Option<Sized> {
        let mut best = self.split_of(engines.max(2));
        while let Some(fewer) = best.as_ref().and_then(|it| self.split_of(it.workers() - 1)) {
            best = Some(fewer);
        }
        let more = engines.max(2) + 1..=(2 * engines + 2).min(WORKERS_MAX);
        best.or_else(|| more.into_iter().find_map(|workers| self.split_of(workers)))
    }

    /// The first division of so many workers that is enough, from the even one outwards.
    fn split_of(&mut self, workers: usize) -> Option<Sized> {
        let mut divisions: Vec<usize> = (1..workers).collect();
        divisions.sort_by_key(|prefill| (2 * prefill).abs_diff(workers));
        let mut tries = divisions.into_iter().map(|prefill| self.serve(prefill, workers - prefill));
        tries.find(Sized::is_enough)
    }

    fn serve(&mut self, prefill: usize, decode: usize) -> Sized {
        let fleet = Fleet { prefill, decode, ..self.options.fleet };
        let options = SimulateOptions { fleet, ..self.options.clone() };
        let tried = Sized { prefill, decode, run: House::new(&options, self.policy).run() };
        (self.on_try)(&tried);
        tried
    }
}

// === impl Sized ===

impl Sized {
    fn is_enough(&self) -> bool {
        self.run.report.is_within()
    }

    fn workers(&self) -> usize {
        self.prefill + self.decode
    }
}

impl fmt::Display for Sized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = &self.run.report;
        match self.prefill {
            0 => write!(f, "{} engines", self.decode)?,
            prefill => write!(f, "{prefill} prefill and {} decode workers", self.decode)?,
        }
        write!(f, ": {:.2} % within, goodput {:.3}/s", report.within_percent, report.goodput_per_s)
    }
}

impl fmt::Display for Sizing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |sized: &Option<Sized>| match sized {
            Some(sized) => sized.to_string(),
            None => "more than were tried".to_owned(),
        };
        writeln!(f, "workers that do both phases: {}", of(&self.engines))?;
        write!(f, "one phase each:              {}", of(&self.split))
    }
}

//! Sends a workload to an OpenAI endpoint, at one pace or at several, and measures what comes back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;

use crate::server::ServerOptions;
use crate::workload::Workload;

mod absence;
mod client;
mod figures;
mod pace;
pub mod page;
pub(crate) mod progress;
pub(crate) mod rates;
pub(crate) mod recorder;
pub(crate) mod report;
mod run;
pub(crate) mod serve;
mod visit;

use client::Endpoint;
pub use rates::Rates;
pub use report::{Report, Slo, Summary};
use run::Run;
pub use serve::ServeReport;

/// What to send, where, and how.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The server.
    pub server: ServerOptions,
    /// The model to ask for; `None`: the first that the server lists.
    pub model: Option<String>,
    /// What clients say.
    pub workload: Workload,
    /// At which paces, one after another.
    pub paces: Vec<Arrivals>,
    /// Sessions sent at each before the clock starts, like the first ones but with other tokens.
    pub warm_up: usize,
    /// At each pace, stop sending after this time, whatever is left.
    pub time_max: Option<Duration>,
    /// The longest that one request may take.
    pub request_timeout: Duration,
    /// The service wanted, for goodput.
    pub slo: Slo,
    /// 0 is greedy.
    pub temperature: f64,
    /// Same seed, same requests. The second pace has the next seed, and so on: none finds what the one
    /// before has left in a cache.
    pub seed: u64,
    /// Show a progress bar (only ever on a terminal).
    pub progress: bool,
}

/// When sessions begin. A session with a time of its own begins then, under either.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// So many clients, each of which begins its next session when the last one has ended. One that is refused
    /// waits as long as the server says, and sends its request again.
    Closed {
        /// Sessions at a time.
        clients: usize,
    },
    /// At random, independent of the server: what a public endpoint sees. Who is refused does not come back.
    Poisson {
        /// Sessions per second, on average.
        sessions_per_s: f64,
        /// More than this many at a time wait; the report then says that they were late.
        in_flight_max: usize,
    },
    /// As they were recorded, each session at its own time. Who is refused comes back if more is to follow, else not.
    Recorded {
        /// As for random ones.
        in_flight_max: usize,
    },
}

/// What a client does whom the server asks to come back later.
#[derive(Clone, Copy, Debug)]
enum Manners {
    /// Takes that for its answer: what is asked of the server doesn't depend on what it says.
    GiveUp,
    /// Comes back then, if that is before the run's end.
    ComeBack {
        /// The run's end, if it has one.
        until: Option<Instant>,
    },
    /// Comes back if it wants more than this one answer; else it was one of many who come by a clock.
    Persist {
        /// The run's end, if it has one.
        until: Option<Instant>,
    },
}

/// Sends the workload at each pace and reports; `cancel` ends it early, with what there is.
///
/// - `on_run`: hears of each pace's report.
///
/// # Errors
/// If the server cannot be reached or serves no model, or `cancel` came before it said which. Requests that fail are
/// in the report, which ends with a pace at which nobody could be connected to any more.
pub async fn run(
    options: &LoadOptions,
    cancel: &CancellationToken,
    on_run: &mut (dyn FnMut(&Report) + Send),
) -> Result<ServeReport> {
    let connected = cancel.run_until_cancelled(Endpoint::connect(options)).await;
    let endpoint =
        connected.context("nothing was measured: ended before the server answered")??;
    let mut reports = Vec::with_capacity(options.paces.len());
    for number in 0..options.paces.len() {
        let report = Run::new(options, &endpoint, number).measure(cancel).await;
        on_run(&report);
        let is_gone = report.is_gone;
        reports.push(report);
        if is_gone || cancel.is_cancelled() {
            break;
        }
    }
    Ok(ServeReport::new(reports))
}

// === impl Manners ===

impl Manners {
    /// Those of a client who wants so many answers.
    fn of_turns(self, turns: usize) -> Self {
        match self {
            Self::Persist { until } if turns > 1 => Self::ComeBack { until },
            Self::Persist { .. } => Self::GiveUp,
            other => other,
        }
    }
}

// === impl Arrivals ===

impl Arrivals {
    fn manners(self, start: Instant, time_max: Option<Duration>) -> Manners {
        match self {
            Self::Closed { .. } => Manners::ComeBack { until: time_max.map(|max| start + max) },
            Self::Poisson { .. } => Manners::GiveUp,
            Self::Recorded { .. } => Manners::Persist { until: time_max.map(|max| start + max) },
        }
    }

    /// Sessions offered a second, where they don't wait for answers.
    fn per_s(self) -> Option<f64> {
        match self {
            Self::Closed { .. } | Self::Recorded { .. } => None,
            Self::Poisson { sessions_per_s, .. } => Some(sessions_per_s),
        }
    }

    /// Whether sessions come by a clock, whatever the server does.
    fn is_open(self) -> bool {
        !matches!(self, Self::Closed { .. })
    }

    fn in_flight_max(self) -> usize {
        match self {
            Self::Closed { clients } => clients.max(1),
            Self::Poisson { in_flight_max, .. } | Self::Recorded { in_flight_max } => {
                in_flight_max.max(1)
            }
        }
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Closed { clients } => format!("{clients} clients"),
            Self::Poisson { sessions_per_s, .. } => format!("Poisson, {sessions_per_s}/s"),
            Self::Recorded { .. } => "as recorded".to_owned(),
        }
    }
}

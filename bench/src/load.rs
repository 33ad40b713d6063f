//! Sends a workload to an OpenAI endpoint and measures what comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::report::{Failed, Measured, Recorder, Report, Slo};
use crate::server::ServerOptions;
use crate::workload::Workload;

mod client;
mod pace;
mod visit;

use client::Endpoint;
use pace::Pace;
use visit::Visitor;

/// Results on their way to the recorder; it takes microseconds each, so this many are never behind.
const RESULTS_MAX: usize = 4096;
/// Sets the warm-up's randomness apart from the run's.
const WARM_UP_SALT: u64 = 0x5741_524d;

/// What to send, where, and how.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The server.
    pub server: ServerOptions,
    /// The model to ask for; `None`: the first that the server lists.
    pub model: Option<String>,
    /// What clients say.
    pub workload: Workload,
    /// At which pace.
    pub arrivals: Arrivals,
    /// Sessions sent before the clock starts, like the first ones but with other tokens.
    pub warm_up: usize,
    /// Stop sending after this time, whatever is left.
    pub time_max: Option<Duration>,
    /// The longest that one request may take.
    pub request_timeout: Duration,
    /// The service wanted, for goodput.
    pub slo: Slo,
    /// 0 is greedy.
    pub temperature: f64,
    /// Same seed, same requests.
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
    /// At random, independent of the server: what a public endpoint sees. A refusal is a failure.
    Poisson {
        /// Sessions per second, on average.
        sessions_per_s: f64,
        /// More than this many at a time wait; the report then says that they were late.
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
}

/// Sends the workload and reports; `cancel` ends it early, with what there is.
///
/// # Errors
/// If the server cannot be reached or serves no model. Requests that fail are in the report.
pub async fn run(options: LoadOptions, cancel: CancellationToken) -> Result<Report> {
    let endpoint = Endpoint::connect(&options).await?;
    warm_up(&options, &endpoint, &cancel).await;

    let bar = progress_bar(&options);
    let (results, received) = mpsc::channel(RESULTS_MAX);
    let start = Instant::now();
    let manners = options.manners(start);
    let visitor = Arc::new(Visitor::new(endpoint, results, options.temperature, manners));
    let recorder = Recorder::new(options.slo);
    let (recorder, ()) =
        tokio::join!(collect(recorder, received, &bar), drive(&options, visitor, &cancel),);
    let duration = start.elapsed();
    bar.finish_and_clear();
    let report =
        recorder.finish(options.workload.describe(), options.arrivals.describe(), duration);
    Ok(Report { seed: options.seed, ..report })
}

/// Lets connections be made and estimates be fitted before anything counts.
async fn warm_up(options: &LoadOptions, endpoint: &Endpoint, cancel: &CancellationToken) {
    if options.warm_up == 0 {
        return;
    }
    let (results, mut received) = mpsc::channel(RESULTS_MAX);
    let (endpoint, manners) = (endpoint.clone(), Manners::GiveUp);
    let visitor = Arc::new(Visitor::new(endpoint, results, options.temperature, manners));
    let sessions: Vec<_> = options
        .workload
        .sessions(options.seed ^ WARM_UP_SALT)
        .take(options.warm_up)
        .map(|session| visitor.clone().visit(session, None))
        .collect();
    drop(visitor);
    let ignore = async { while received.recv().await.is_some() {} };
    tokio::select! {
        _ = futures::future::join(futures::future::join_all(sessions), ignore) => {}
        () = cancel.cancelled() => {}
    }
}

/// Begins sessions at their times and waits for the last one.
async fn drive(options: &LoadOptions, visitor: Arc<Visitor>, cancel: &CancellationToken) {
    let mut pace = Pace::new(options.arrivals, options.seed);
    let mut running = tokio::task::JoinSet::new();
    let everything = async {
        for session in options.workload.sessions(options.seed) {
            let planned = pace.next(session.at);
            let is_late = |max: Duration| pace.start() + max < planned.max(Instant::now());
            if options.time_max.is_some_and(is_late) {
                break;
            }
            tokio::time::sleep_until(planned.into()).await;
            while running.len() >= options.arrivals.in_flight_max() {
                running.join_next().await;
            }
            // The hand may have become free at the end.
            if options.time_max.is_some_and(is_late) {
                break;
            }
            // A closed client's next session is due when it has a free hand, not before.
            let planned = match (options.arrivals, session.at) {
                (Arrivals::Closed { .. }, None) => Instant::now(),
                _ => planned,
            };
            running.spawn(visitor.clone().visit(session, Some(planned)));
            while running.try_join_next().is_some() {}
        }
        while running.join_next().await.is_some() {}
    };
    tokio::select! {
        () = everything => {}
        () = cancel.cancelled() => {}
    }
    // Whatever is still running ends here: dropping the set aborts it.
}

async fn collect(
    mut recorder: Recorder,
    mut results: mpsc::Receiver<Result<Measured, Failed>>,
    bar: &ProgressBar,
) -> Recorder {
    let mut failed = 0;
    while let Some(result) = results.recv().await {
        match result {
            Ok(measured) => recorder.record(&measured),
            Err(failure) => {
                recorder.record_failure(&failure);
                failed += 1;
                bar.set_message(format!("{failed} failed"));
            }
        }
        bar.set_position(recorder.requests());
    }
    recorder
}

fn progress_bar(options: &LoadOptions) -> ProgressBar {
    if !options.progress {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{elapsed_precise} [{bar:40}] {pos}/{len} requests, {per_sec} {msg}",
    );
    // The template is ours and parses; a wrong one would only look plain.
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ");
    let bar = ProgressBar::new(options.workload.requests() as u64).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

// === impl LoadOptions ===

impl LoadOptions {
    fn manners(&self, start: Instant) -> Manners {
        match self.arrivals {
            Arrivals::Closed { .. } => {
                Manners::ComeBack { until: self.time_max.map(|max| start + max) }
            }
            Arrivals::Poisson { .. } => Manners::GiveUp,
        }
    }
}

// === impl Arrivals ===

impl Arrivals {
    fn in_flight_max(self) -> usize {
        match self {
            Self::Closed { clients } => clients.max(1),
            Self::Poisson { in_flight_max, .. } => in_flight_max.max(1),
        }
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Closed { clients } => format!("{clients} clients"),
            Self::Poisson { sessions_per_s, .. } => format!("Poisson, {sessions_per_s}/s"),
        }
    }
}

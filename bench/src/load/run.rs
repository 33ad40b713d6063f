//! One run: a workload at one pace.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::absence::Absence;
use super::client::Endpoint;
use super::pace::Pace;
use super::recorder::{Failed, Measured, Recorder};
use super::report::Report;
use super::visit::Visitor;
use super::{Arrivals, LoadOptions, Manners, progress};

/// Results on their way to the recorder; it takes microseconds each, so this many are never behind.
const RESULTS_MAX: usize = 4096;
/// Sets the warm-up's randomness apart from the run's.
const WARM_UP_SALT: u64 = 0x5741_524d;

/// What is sent, and how fast.
#[derive(Debug)]
pub(super) struct Run<'a> {
    options: &'a LoadOptions,
    endpoint: &'a Endpoint,
    arrivals: Arrivals,
    seed: u64,
    /// Which of how many, where there are several.
    title: String,
}

// === impl Run ===

impl<'a> Run<'a> {
    /// The run at one of the paces.
    pub(super) fn new(options: &'a LoadOptions, endpoint: &'a Endpoint, number: usize) -> Self {
        let arrivals = options.paces[number];
        let title = match options.paces.len() {
            1 => String::new(),
            all => format!("{} ({} of {all}) ", arrivals.describe(), number + 1),
        };
        let seed = options.seed.wrapping_add(number as u64);
        Self { options, endpoint, arrivals, seed, title }
    }

    /// Sends the workload and reports, at the latest when it is cancelled.
    pub(super) async fn measure(&self, cancel: &CancellationToken) -> Report {
        self.warm_up(cancel).await;
        let bar = self.bar();
        let (results, received) = mpsc::channel(RESULTS_MAX);
        let start = Instant::now();
        let pace = Pace::new(start, self.arrivals, self.seed);
        let manners = self.arrivals.manners(start, self.options.time_max);
        let visitor = Arc::new(self.visitor(results, manners));
        let recorder = Recorder::new(self.report());
        // With the run's own end, if nobody is there any more, or the caller's.
        let cancel = cancel.child_token();
        let ((recorder, is_gone), broken_off) = tokio::join!(
            collect(recorder, received, &bar, &cancel),
            self.drive(pace, visitor, &cancel)
        );
        bar.finish_and_clear();
        let is_cut = is_gone || broken_off.is_some();
        let least = if is_cut { Duration::ZERO } else { self.offered_for() };
        let report = recorder.finish(start.elapsed().max(least));
        Report { is_cut, is_gone, unfinished: broken_off.unwrap_or_default() as u64, ..report }
    }

    /// For how long requests are sent at a rate, on average: what is answered is of no shorter time, though the last
    /// ones may happen to be sent, and answered, before its end.
    fn offered_for(&self) -> Duration {
        let Some(per_s) = self.arrivals.per_s() else { return Duration::ZERO };
        let sessions = self.options.workload.count().map(|count| count as f64 / per_s);
        let all = sessions.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        all.into_iter().chain(self.options.time_max).min().unwrap_or_default()
    }

    fn report(&self) -> Report {
        Report {
            server: self.endpoint.base().to_owned(),
            model: self.endpoint.model().to_owned(),
            workload: self.options.workload.describe(),
            arrivals: self.arrivals.describe(),
            rate_per_s: self.arrivals.per_s(),
            seed: self.seed,
            slo: self.options.slo,
            ..Report::default()
        }
    }

    fn visitor(
        &self,
        results: mpsc::Sender<Result<Measured, Failed>>,
        manners: Manners,
    ) -> Visitor {
        Visitor::new(self.endpoint.clone(), results, self.options.temperature, manners)
    }

    /// Lets connections be made and estimates be fitted before anything counts.
    async fn warm_up(&self, cancel: &CancellationToken) {
        if self.options.warm_up == 0 {
            return;
        }
        let (results, mut received) = mpsc::channel(RESULTS_MAX);
        let visitor = Arc::new(self.visitor(results, Manners::GiveUp));
        let sessions = self.options.workload.sessions(self.seed ^ WARM_UP_SALT);
        let visits: Vec<_> = sessions
            .take(self.options.warm_up)
            .map(|session| visitor.clone().visit(session, None))
            .collect();
        drop(visitor);
        let ignore = async { while received.recv().await.is_some() {} };
        tokio::select! {
            _ = futures::future::join(futures::future::join_all(visits), ignore) => {}
            () = cancel.cancelled() => {}
        }
    }

    /// Begins sessions at their times and waits for the last one; how many were broken off, if that was cut short.
    async fn drive(
        &self,
        pace: Pace,
        visitor: Arc<Visitor>,
        cancel: &CancellationToken,
    ) -> Option<usize> {
        let mut running = JoinSet::new();
        let is_whole = tokio::select! {
            () = self.send_all(pace, visitor, &mut running) => true,
            () = cancel.cancelled() => false,
        };
        while running.try_join_next().is_some() {}
        // Whatever is still running ends here: dropping the set aborts it.
        (!is_whole).then_some(running.len())
    }

    async fn send_all(&self, mut pace: Pace, visitor: Arc<Visitor>, running: &mut JoinSet<()>) {
        let Self { options, arrivals, seed, .. } = self;
        for session in options.workload.sessions(*seed) {
            let planned = pace.next(session.at);
            let is_late = |max| pace.start() + max <= planned.max(Instant::now());
            if options.time_max.is_some_and(is_late) {
                break;
            }
            tokio::time::sleep_until(planned.into()).await;
            while running.len() >= arrivals.in_flight_max() {
                running.join_next().await;
            }
            // The hand may have become free at the end.
            if options.time_max.is_some_and(is_late) {
                break;
            }
            // A closed client's next session is due when it has a free hand, not before.
            let planned = match (arrivals, session.at) {
                (Arrivals::Closed { .. }, None) => Instant::now(),
                _ => planned,
            };
            running.spawn(visitor.clone().visit(session, Some(planned)));
            while running.try_join_next().is_some() {}
        }
        while running.join_next().await.is_some() {}
    }

    fn bar(&self) -> ProgressBar {
        match self.options.progress {
            true => progress::bar(self.title.clone(), self.expected()),
            false => ProgressBar::hidden(),
        }
    }

    /// How many requests there will be, about.
    fn expected(&self) -> Option<u64> {
        let in_all = self.options.workload.requests().map(|requests| requests as u64);
        let in_time = self.options.time_max.zip(self.arrivals.per_s());
        let in_time = in_time.map(|(time, per_s)| (time.as_secs_f64() * per_s) as u64);
        in_all.into_iter().chain(in_time).min()
    }
}

/// Records what comes; whether it ended because nobody is there any more, and then it has cancelled the rest.
async fn collect(
    mut recorder: Recorder,
    mut results: mpsc::Receiver<Result<Measured, Failed>>,
    bar: &ProgressBar,
    cancel: &CancellationToken,
) -> (Recorder, bool) {
    let (mut failed, mut absence, mut is_gone) = (0, Absence::default(), false);
    while let Some(result) = results.recv().await {
        is_gone |= absence.note(result.as_ref().err().map(|failed| failed.fault), Instant::now());
        if is_gone {
            cancel.cancel();
        }
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
    (recorder, is_gone || absence.is_total())
}

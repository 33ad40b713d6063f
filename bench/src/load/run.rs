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

/// Sessions as they are sent.
#[derive(Debug, Default)]
struct Sending {
    running: JoinSet<()>,
    /// Those that were begun.
    begun: u64,
    /// From the start to the last one's beginning.
    took: Duration,
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
        let warm_up = self.warm_up(cancel).await;
        let bar = self.bar();
        let (results, received) = mpsc::channel(RESULTS_MAX);
        let start = Instant::now();
        let pace = Pace::new(start, self.arrivals, self.seed);
        let manners = self.arrivals.manners(start, self.options.time_max);
        let visitor = Arc::new(self.visitor(results, manners));
        let recorder = Recorder::new(Report {
            warm_up_refused: warm_up.refused,
            warm_up_failed: warm_up.failed - warm_up.refused,
            ..self.report()
        });
        // With the run's own end, if nobody is there any more, or the caller's.
        let cancel = cancel.child_token();
        let ((recorder, is_gone), (sending, broken_off)) = tokio::join!(
            collect(recorder, received, &bar, &cancel),
            self.drive(pace, visitor, &cancel)
        );
        bar.finish_and_clear();
        let is_cut = is_gone || broken_off.is_some();
        let least = if is_cut { Duration::ZERO } else { self.offered_for() };
        let duration = start.elapsed().max(least);
        let came_per_s = self.came_per_s(&sending, duration);
        let unfinished = broken_off.unwrap_or_default() as u64;
        Report { is_cut, is_gone, unfinished, came_per_s, ..recorder.finish(duration) }
    }

    /// Sessions that came a second, over the time for which they were sent.
    fn came_per_s(&self, sending: &Sending, duration: Duration) -> Option<f64> {
        let seconds = sending.took.max(self.offered_for()).min(duration).as_secs_f64();
        (self.arrivals.is_open() && seconds > 0.0).then(|| sending.begun as f64 / seconds)
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

    /// Lets connections be made and estimates be fitted before anything counts; what became of it.
    async fn warm_up(&self, cancel: &CancellationToken) -> Report {
        let mut recorder = Recorder::new(Report::default());
        if self.options.warm_up == 0 {
            return recorder.finish(Duration::ZERO);
        }
        let (results, mut received) = mpsc::channel(RESULTS_MAX);
        let visitor = Arc::new(self.visitor(results, Manners::GiveUp));
        let sessions = self.options.workload.sessions(self.seed ^ WARM_UP_SALT);
        let visits: Vec<_> = sessions
            .take(self.options.warm_up)
            .map(|session| visitor.clone().visit(session.opening(self.arrivals), None))
            .collect();
        drop(visitor);
        let listen = async {
            while let Some(result) = received.recv().await {
                recorder.take(&result);
            }
        };
        tokio::select! {
            _ = futures::future::join(futures::future::join_all(visits), listen) => {}
            () = cancel.cancelled() => {}
        }
        recorder.finish(Duration::ZERO)
    }

    /// Begins sessions at their times and waits for the last one; what was sent, and how many were broken off, if that
    /// was cut short.
    async fn drive(
        &self,
        pace: Pace,
        visitor: Arc<Visitor>,
        cancel: &CancellationToken,
    ) -> (Sending, Option<usize>) {
        let mut sending = Sending::default();
        let is_whole = tokio::select! {
            () = self.send_all(pace, visitor, &mut sending) => true,
            () = cancel.cancelled() => false,
        };
        while sending.running.try_join_next().is_some() {}
        let broken_off = (!is_whole).then_some(sending.running.len());
        // Whatever is still running ends here.
        sending.running.abort_all();
        (sending, broken_off)
    }

    async fn send_all(&self, mut pace: Pace, visitor: Arc<Visitor>, sending: &mut Sending) {
        let Self { options, arrivals, seed, .. } = self;
        let Sending { running, begun, took } = sending;
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
            (*begun, *took) = (*begun + 1, pace.start().elapsed());
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
    let (mut absence, mut is_gone) = (Absence::default(), false);
    while let Some(result) = results.recv().await {
        is_gone |= absence.note(result.as_ref().err().map(|failed| failed.fault), Instant::now());
        if is_gone {
            cancel.cancel();
        }
        recorder.take(&result);
        if result.is_err() {
            bar.set_message(recorder.setbacks());
        }
        bar.set_position(recorder.requests());
    }
    (recorder, is_gone || absence.is_total())
}

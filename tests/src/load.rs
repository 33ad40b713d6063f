//! Many streaming chats at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::JoinSet;

use crate::client::http::{Answer, Client, chat_body};

/// Clients that keep a router busy.
#[derive(Debug)]
pub struct Load {
    run: Arc<LoadRun>,
    clients: JoinSet<Vec<Result<Answer, String>>>,
}

/// How the clients fared.
#[derive(Debug, Default)]
pub struct Report {
    /// Whole answers.
    pub answers: Vec<Answer>,
    /// What went wrong with the others.
    pub failures: Vec<String>,
}

#[derive(Debug)]
struct LoadRun {
    client: Client,
    max_tokens: u32,
    is_over: AtomicBool,
    begun: AtomicUsize,
    ended: AtomicUsize,
}

// === impl Load ===

impl Load {
    /// Starts `clients` clients; each chats, one request after the other, until [`Load::stop`].
    #[must_use]
    pub fn start(client: &Client, clients: usize, max_tokens: u32) -> Self {
        let run = Arc::new(LoadRun {
            client: client.clone(),
            max_tokens,
            is_over: AtomicBool::new(false),
            begun: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
        });
        let mut set = JoinSet::new();
        for _ in 0..clients {
            set.spawn(run.clone().run());
        }
        Self { run, clients: set }
    }

    /// Requests that have come to an end.
    #[must_use]
    pub fn ended(&self) -> usize {
        self.run.ended.load(Ordering::Relaxed)
    }

    /// Lets every client finish the request it is at, and reports.
    ///
    /// # Panics
    /// If a client did.
    pub async fn stop(self) -> Report {
        self.run.is_over.store(true, Ordering::Relaxed);
        Report::from_results(self.clients.join_all().await.into_iter().flatten())
    }
}

/// Sends `chats` chats, all at once.
///
/// # Panics
/// If a client did.
pub async fn burst(client: &Client, chats: usize, max_tokens: u32) -> Report {
    let mut set = JoinSet::new();
    for chat in 0..chats {
        let client = client.clone();
        set.spawn(async move { one(&client, chat, max_tokens).await });
    }
    Report::from_results(set.join_all().await)
}

async fn one(client: &Client, number: usize, max_tokens: u32) -> Result<Answer, String> {
    let body = chat_body(&message(number), max_tokens);
    let answer =
        client.stream("/v1/chat/completions", &body).await.map_err(|error| error.to_string())?;
    answer.flaw().map_or(Ok(answer), Err)
}

/// Different prompts of different lengths, some with a beginning in common.
#[must_use]
pub fn message(number: usize) -> String {
    const SUBJECTS: [&str; 5] = ["rivers", "the moon", "bread", "old clocks", "trains"];
    let subject = SUBJECTS[number % SUBJECTS.len()];
    let detail = "Tell me more than last time. ".repeat(number % 7);
    format!("What do you know about {subject}? {detail}This is question {number}.")
}

// === impl LoadRun ===

impl LoadRun {
    async fn run(self: Arc<Self>) -> Vec<Result<Answer, String>> {
        let mut results = Vec::new();
        while !self.is_over.load(Ordering::Relaxed) {
            let number = self.begun.fetch_add(1, Ordering::Relaxed);
            results.push(one(&self.client, number, self.max_tokens).await);
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
        results
    }
}

// === impl Report ===

impl Report {
    fn from_results(results: impl IntoIterator<Item = Result<Answer, String>>) -> Self {
        let mut report = Self::default();
        for result in results {
            match result {
                Ok(answer) => report.answers.push(answer),
                Err(failure) => report.failures.push(failure),
            }
        }
        report
    }

    /// Checks that every request was answered in full.
    ///
    /// # Panics
    /// If one was not, or there was none.
    pub fn assert_flawless(&self) {
        let (failed, answered) = (self.failures.len(), self.answers.len());
        let shown = &self.failures[..failed.min(5)];
        assert!(failed == 0, "{failed} of {} requests failed: {shown:#?}", failed + answered);
        assert!(answered > 0, "no request was sent");
    }
}

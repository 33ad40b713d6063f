//! More than fits: refused at once with a time to come back, and nothing breaks.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use baton_tests::client::http::{Answer, Failure, chat_body};
use baton_tests::client::raw;
use baton_tests::{Client, Cluster, Load, Metrics, Single, load, wait_until};
use futures::future::join_all;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const REQUESTS: usize = 120;
/// A refusal is a decision, not a time-out.
const REFUSAL_MAX: Duration = Duration::from_secs(2);

/// How one request ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Answered,
    Refused,
    Broken(String),
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_and_the_rest_is_served() {
    let mut cluster = Cluster::builder()
        .worker_args(&["--kv-blocks", "64", "--queue-max", "4", "--credit-queue-max", "4"])
        .router_args(&["--handoff", "always"])
        .start()
        .await;
    let client = cluster.client();

    let ends = join_all((0..REQUESTS).map(|number| one(&client, number))).await;

    let count = |end: &End| ends.iter().filter(|is| *is == end).count();
    let (answered, refused) = (count(&End::Answered), count(&End::Refused));
    let broken: Vec<&End> = ends.iter().filter(|end| matches!(end, End::Broken(_))).collect();
    assert!(broken.is_empty(), "{} broke: {:#?}", broken.len(), &broken[..broken.len().min(3)]);
    assert!(answered > 0 && refused > 0, "{answered} answered, {refused} refused");
    cluster.assert_clean().await;

    // And afterwards all is as before.
    load::burst(&client, 4, 8).await.assert_flawless();
    cluster.assert_clean().await;
}

/// The time to the first token that is promised under overload, and what the machine's other work may add to it.
const TTFT_TARGET_MS: u64 = 2_000;
const TTFT_MAX: Duration = Duration::from_secs(4);
/// Between two tokens of one answer. Without admission they were minutes.
const GAP_MAX: Duration = Duration::from_secs(5);
/// Half of all refusals; a few ms where the machine has nothing else to do.
const REFUSAL_USUAL_MAX: Duration = Duration::from_millis(300);

/// How a crowd fared.
#[derive(Default)]
struct Crowd {
    answers: Vec<Answer>,
    /// How long each refusal took.
    refusals: Vec<Duration>,
    broken: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn under_ten_times_the_load_who_is_let_in_is_served_in_time() {
    let target = TTFT_TARGET_MS.to_string();
    let single = Single::start(&["--ttft-target-ms", &target, "--sequences-max", "16"]).await;
    let client = single.node.client();
    let before = capacity(&client).await;

    let started = Instant::now();
    let crowd = storm(std::slice::from_ref(&client), 10.0 * before, Duration::from_secs(8)).await;
    let took = started.elapsed();

    crowd.assert_served_in_time();
    crowd.assert_refused_at_once();
    let (served, refused) = (crowd.answers.len() as f64, crowd.refusals.len() as f64);
    assert!(refused > served, "{served} answered, {refused} refused");
    // The crowd runs on the same two cores, in a build for tests; the machine's other work comes and goes.
    let least = capacity(&client).await.min(before);
    assert!(served / took.as_secs_f64() > least / 3.0, "{served} in {took:?}, of {least}/s");
    // A decode worker that is full is not taken for one that is away.
    let local = single.node.metrics().await.get("baton_requests_by_path", &[("path", "local")]);
    assert_eq!(local.unwrap_or(0.0), 0.0, "prompts computed by a prefill worker for itself");
    single.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_routers_that_know_nothing_of_each_other_do_not_add_up() {
    let target = TTFT_TARGET_MS.to_string();
    let mut cluster = Cluster::builder()
        .worker_args(&["--sequences-max", "16"])
        .router_args(&["--ttft-target-ms", &target])
        .start()
        .await;
    let second = cluster.another_router().await;
    let clients = [cluster.client(), second.client()];
    let capacity = capacity(&clients[0]).await;

    let crowd = storm(&clients, 10.0 * capacity, Duration::from_secs(6)).await;

    crowd.assert_served_in_time();
    crowd.assert_refused_at_once();
    cluster.assert_clean().await;
}

/// What the cluster can do, requests per second; and what it learns of itself.
async fn capacity(client: &Client) -> f64 {
    let (started, crowd) = (Instant::now(), Load::start(client, 8, 32));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (report, took) = (crowd.stop().await, started.elapsed());
    // On a machine whose other work leaves little, some of these may be too many.
    assert!(!report.answers.is_empty(), "{:?}", report.failures);
    report.answers.len() as f64 / took.as_secs_f64()
}

/// Sends `per_s` requests a second for a time, whatever becomes of them, to the clients' routers in turns.
async fn storm(clients: &[Client], per_s: f64, time: Duration) -> Crowd {
    let every = Duration::from_secs_f64(per_s.recip());
    let mut requests = JoinSet::new();
    for number in 0..(per_s * time.as_secs_f64()) as usize {
        let client = clients[number % clients.len()].clone();
        requests.spawn(async move { timed(&client, number).await });
        tokio::time::sleep(every).await;
    }
    let mut crowd = Crowd::default();
    for end in requests.join_all().await {
        match end {
            Ok(answer) => crowd.answers.push(answer),
            Err((End::Refused, took)) => crowd.refusals.push(took),
            Err((broken, _)) => crowd.broken.push(format!("{broken:?}")),
        }
    }
    crowd.refusals.sort_unstable();
    crowd
}

// === impl Crowd ===

impl Crowd {
    fn assert_served_in_time(&self) {
        let Self { answers, broken, .. } = self;
        assert!(broken.is_empty(), "{} broke: {:#?}", broken.len(), &broken[..broken.len().min(3)]);
        assert!(!answers.is_empty(), "{} refused and nobody served", self.refusals.len());
        let is_late = |answer: &&Answer| answer.ttft.is_none_or(|ttft| ttft > TTFT_MAX);
        let late = answers.iter().filter(is_late).count();
        assert!(late * 50 <= answers.len(), "{late} of {} first tokens were late", answers.len());
        let gap = answers.iter().map(|answer| answer.gap_max).max();
        assert!(gap < Some(GAP_MAX), "a gap of {gap:?}");
    }

    fn assert_refused_at_once(&self) {
        let Some(usual) = self.refusals.get(self.refusals.len() / 2) else {
            panic!("{} answered and nobody refused", self.answers.len());
        };
        assert!(*usual < REFUSAL_USUAL_MAX, "half of all refusals took more than {usual:?}");
    }
}

/// Clients that ask for long answers and read nothing of them.
const SLOW_READERS: usize = 72;
/// Sequences that run at once.
const PLACES: u32 = 4;
/// For a short answer beside them. It used to wait for theirs, 160 s.
const SHORT_MAX: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_slow_readers_starves_nobody() {
    let places = PLACES.to_string();
    let single = Single::start(&["--sequences-max", &places]).await;
    let router = single.node.ports().http.expect("a port");
    let mut readers = Vec::new();
    for number in 0..SLOW_READERS {
        readers.push(slow_reader(router, number).await);
    }
    let decode = single.node.ports().decode_admin.expect("a port");
    wait_until("all places to be taken", SLOW_PATIENCE, || async {
        let running =
            Metrics::scrape("decode", decode).await.require("baton_sequences_running", &[]);
        if running >= f64::from(PLACES) { Ok(()) } else { Err(format!("{running} running")) }
    })
    .await;

    let other = single.node.client().from_address([127, 0, 0, 2].into());
    let started = Instant::now();
    let answer = other.chat("What is a KV cache?", 8).await.expect("an answer");
    assert_eq!(answer.flaw(), None);
    assert!(started.elapsed() < SHORT_MAX, "a short answer took {:?}", started.elapsed());
    drop(readers);
    single.assert_clean().await;
}

/// Clients that send prompts which take longer than the target for first tokens, again and again.
const LONG_PROMPTS: usize = 2;
/// Short questions beside them.
const QUESTIONS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn long_prompts_of_one_client_keep_nobody_elses_short_ones_out() {
    let single = Single::start(&["--ttft-target-ms", "500"]).await;
    let client = single.node.client();
    client.chat(&long_prompt(0), 1).await.expect("an answer: nobody else is there");
    let mut floods = JoinSet::new();
    (1..=LONG_PROMPTS).for_each(|which| drop(floods.spawn(flood(client.clone(), which))));
    tokio::time::sleep(Duration::from_secs(1)).await;

    let other = client.from_address([127, 0, 0, 2].into());
    let mut answered = 0;
    for number in 0..QUESTIONS {
        match other.chat(&load::message(number), 8).await {
            Ok(answer) => answered += usize::from(answer.flaw().is_none()),
            Err(failure) => assert_eq!(refusal(&failure, Duration::ZERO), End::Refused),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(answered >= QUESTIONS / 2, "{answered} of {QUESTIONS} answered");
    floods.shutdown().await;
    single.assert_clean().await;
}

/// Some 1,800 tokens that no cache holds.
fn long_prompt(number: usize) -> String {
    format!("{number} {}", "word number seven ".repeat(600))
}

/// Sends long prompts without end, each as soon as the one before has ended.
async fn flood(client: Client, which: usize) {
    for number in 1.. {
        let refused = client.chat(&long_prompt(1_000 * which + number), 1).await.is_err();
        tokio::time::sleep(Duration::from_millis(if refused { 50 } else { 0 })).await;
    }
}

/// For the first of the crowd to run.
const SLOW_PATIENCE: Duration = Duration::from_secs(60);

/// Asks for a long answer with a small buffer, and never reads.
async fn slow_reader(router: SocketAddr, number: usize) -> TcpStream {
    let mut body = chat_body(&load::message(number), 1900);
    body["stream"] = true.into();
    body["ignore_eos"] = true.into();
    // Much to read for each token.
    body["logprobs"] = true.into();
    body["top_logprobs"] = 20.into();
    raw::post_http1(router, "/v1/chat/completions", &body.to_string()).await
}

/// One request to its end; an answer, or how else and when it ended.
async fn timed(client: &Client, number: usize) -> Result<Answer, (End, Duration)> {
    let mut body = chat_body(&load::message(number), 32);
    body["ignore_eos"] = true.into();
    let started = Instant::now();
    match client.stream("/v1/chat/completions", &body).await {
        Ok(answer) => match answer.flaw() {
            None => Ok(answer),
            Some(flaw) => Err((End::Broken(flaw), started.elapsed())),
        },
        Err(failure) => Err((refusal(&failure, started.elapsed()), started.elapsed())),
    }
}

fn refusal(failure: &Failure, took: Duration) -> End {
    let is_429 = failure.status.is_some_and(|status| status == 429);
    let says_when = ["retry-after", "retry-after-ms"].map(|it| failure.headers.contains_key(it));
    if is_429 && says_when == [true; 2] && took < REFUSAL_MAX {
        End::Refused
    } else {
        End::Broken(format!("after {took:?}, retry-after {says_when:?}: {failure}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_has_a_limit_on_streams() {
    let mut cluster = Cluster::builder().router_args(&["--streams-max", "8"]).start().await;
    let client = cluster.client();

    let ends = join_all((0..REQUESTS).map(|number| one(&client, number))).await;

    let refused = ends.iter().filter(|end| **end == End::Refused).count();
    let answered = ends.iter().filter(|end| **end == End::Answered).count();
    assert_eq!(answered + refused, REQUESTS, "{ends:?}");
    // An eighth is kept for other clients.
    assert!(answered >= 7 && refused > 0, "{answered} answered, {refused} refused");
    cluster.assert_clean().await;
}

async fn one(client: &Client, number: usize) -> End {
    let mut body = chat_body(&load::message(number), 24);
    body["ignore_eos"] = true.into();
    let started = Instant::now();
    match client.stream("/v1/chat/completions", &body).await {
        Ok(answer) => answer.flaw().map_or(End::Answered, End::Broken),
        Err(failure) => refusal(&failure, started.elapsed()),
    }
}

//! More than fits: refused at once with a time to come back, and nothing breaks.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use baton_tests::client::http::{Answer, Failure, chat_body};
use baton_tests::{Client, Cluster, Load, Metrics, Single, load, wait_until};
use futures::future::join_all;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
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

#[tokio::test(flavor = "multi_thread")]
async fn under_ten_times_the_load_who_is_let_in_is_served_in_time() {
    let target = TTFT_TARGET_MS.to_string();
    let single = Single::start(&["--ttft-target-ms", &target, "--sequences-max", "16"]).await;
    let client = single.node.client();
    // What the cluster can do, and what it learns of itself.
    let (started, crowd) = (Instant::now(), Load::start(&client, 16, 32));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (report, took) = (crowd.stop().await, started.elapsed());
    report.assert_flawless();
    let capacity = report.answers.len() as f64 / took.as_secs_f64();

    let every = Duration::from_secs_f64(1.0 / (10.0 * capacity));
    let mut requests = JoinSet::new();
    for number in 0..(80.0 * capacity) as usize {
        let client = client.clone();
        requests.spawn(async move { timed(&client, number).await });
        tokio::time::sleep(every).await;
    }
    let ends = requests.join_all().await;
    let took = started.elapsed() - took;

    let (answered, others): (Vec<_>, Vec<_>) = ends.into_iter().partition(Result::is_ok);
    let answered: Vec<Answer> = answered.into_iter().flatten().collect();
    let others: Vec<End> = others.into_iter().filter_map(Result::err).collect();
    let broken: Vec<&End> = others.iter().filter(|end| **end != End::Refused).collect();
    assert!(broken.is_empty(), "{} broke: {:#?}", broken.len(), &broken[..broken.len().min(3)]);
    let (served, refused) = (answered.len() as f64, others.len());
    assert!(refused > answered.len(), "{served} answered, {refused} refused");
    // The clients and their refusals take the better part of the machine's two cores.
    assert!(served / took.as_secs_f64() > capacity / 4.0, "{served} in {took:?}, of {capacity}/s");
    let late = answered.iter().filter(|it| it.ttft.is_none_or(|ttft| ttft > TTFT_MAX)).count();
    assert!(late * 50 <= answered.len(), "{late} of {served} first tokens were late");
    let gap = answered.iter().map(|answer| answer.gap_max).max();
    assert!(gap < Some(GAP_MAX), "a gap of {gap:?}");
    // A decode worker that is full is not taken for one that is away.
    let local = single.node.metrics().await.get("baton_requests_by_path", &[("path", "local")]);
    assert_eq!(local.unwrap_or(0.0), 0.0, "prompts computed by a prefill worker for itself");
    single.assert_clean().await;
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

/// For the first of the crowd to run.
const SLOW_PATIENCE: Duration = Duration::from_secs(60);

/// Asks for a long answer with a small buffer, and never reads.
async fn slow_reader(router: SocketAddr, number: usize) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(router).await.expect("a connection");
    let mut body = chat_body(&load::message(number), 1900);
    body["stream"] = true.into();
    body["ignore_eos"] = true.into();
    // Much to read for each token.
    body["logprobs"] = true.into();
    body["top_logprobs"] = 20.into();
    let body = body.to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.expect("a request");
    stream
}

/// One request to its end; an answer, or how else it ended.
async fn timed(client: &Client, number: usize) -> Result<Answer, End> {
    let mut body = chat_body(&load::message(number), 32);
    body["ignore_eos"] = true.into();
    let started = Instant::now();
    match client.stream("/v1/chat/completions", &body).await {
        Ok(answer) => answer.flaw().map_or(Ok(answer), |flaw| Err(End::Broken(flaw))),
        Err(failure) => Err(refusal(&failure, started.elapsed())),
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

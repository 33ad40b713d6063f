//! The load generator against a server whose answers are known.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bench::{
    Arrivals, Conversation, Fixed, LoadOptions, Report, ServeReport, ServerOptions, Slo, Spread,
    Summary, Workload,
};
use rstest::rstest;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const TTFT: Duration = Duration::from_millis(30);
const GAP: Duration = Duration::from_millis(5);
const TOKENS: u64 = 8;

/// Serves one OpenAI endpoint by hand.
struct Server {
    addr: SocketAddr,
    seen: Arc<Seen>,
    _tasks: JoinSet<()>,
}

/// Whom a server refuses, and how.
#[derive(Clone, Copy)]
struct Refusals {
    /// Every so many requests.
    every: usize,
    /// When to come back, as a header's line.
    retry_after: &'static str,
    /// Whether answers are one line that never ends.
    endless: bool,
}

const NONE: Refusals = Refusals { every: usize::MAX, retry_after: "", endless: false };
const SOON: &str = "retry-after: 1\r\nretry-after-ms: 20\r\n";

#[derive(Default)]
struct Seen {
    requests: AtomicUsize,
    running: AtomicUsize,
    running_max: AtomicUsize,
    /// Messages in the longest chat.
    messages_max: AtomicUsize,
    /// Whatever was asked, each once.
    prompts: Mutex<BTreeSet<String>>,
}

#[rstest]
#[case::closed(Arrivals::Closed { clients: 4 })]
#[case::poisson(at(200.0))]
#[tokio::test]
async fn times_are_the_servers(#[case] arrivals: Arrivals) {
    let server = Server::start(NONE).await;
    let report = run(&server, options(&server, fixed(40), arrivals)).await;

    assert_eq!((report.completed, report.failed), (40, 0), "{report}");
    assert_eq!(report.output_tokens, 40 * TOKENS);
    assert_eq!(report.input_tokens, 40 * 16);
    assert_eq!(report.paths.get("handoff"), Some(&40));
    let ttft_ms = TTFT.as_secs_f64() * 1e3;
    assert!(
        of(report.ttft_ms).p50 >= ttft_ms && of(report.ttft_ms).p50 < ttft_ms * 3.0,
        "{report}"
    );
    let gap_ms = GAP.as_secs_f64() * 1e3;
    // A late timer here shortens the next gap, never the mean.
    assert!(
        of(report.tpot_ms).mean >= gap_ms * 0.9 && of(report.tpot_ms).mean < gap_ms * 4.0,
        "{report}"
    );
    assert!(report.good == 40, "{report}");
    assert!(of(report.handover_ms).mean >= gap_ms * 0.5, "{report}");
    assert!(report.server.contains(&server.addr.to_string()) && report.model == "m", "{report}");
}

#[tokio::test]
async fn closed_clients_are_never_more_than_asked_for() {
    let server = Server::start(NONE).await;
    run(&server, options(&server, fixed(30), Arrivals::Closed { clients: 3 })).await;
    assert_eq!(server.seen.running_max.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn refusals_are_counted_by_kind_and_not_timed() {
    let server = Server::start(Refusals { every: 4, ..NONE }).await;
    let report = run(&server, options(&server, fixed(40), Arrivals::Closed { clients: 4 })).await;
    assert_eq!((report.completed, report.failed), (30, 10), "{report}");
    assert_eq!(report.failures.get("503 overloaded"), Some(&10), "{report}");
}

#[tokio::test]
async fn clients_who_wait_for_their_answers_come_back_when_they_are_told() {
    let server = Server::start(Refusals { every: 4, retry_after: SOON, ..NONE }).await;
    let report = run(&server, options(&server, fixed(40), Arrivals::Closed { clients: 4 })).await;
    assert_eq!((report.completed, report.failed), (40, 0), "{report}");
    let sent = server.seen.requests.load(Ordering::Relaxed) as u64;
    assert!(report.refusals >= 10 && sent == 40 + report.refusals, "{sent} sent, {report}");
    assert!(of(report.waited_ms).p50 >= 20.0, "{report}");
}

#[tokio::test]
async fn a_rate_does_not_depend_on_refusals() {
    let server = Server::start(Refusals { every: 4, retry_after: SOON, ..NONE }).await;
    let report = run(&server, options(&server, fixed(40), at(200.0))).await;
    assert_eq!((report.completed, report.failed, report.refusals), (30, 10, 0), "{report}");
}

#[tokio::test]
async fn nobody_comes_back_after_the_run() {
    let server = Server::start(Refusals { every: 1, retry_after: SOON, ..NONE }).await;
    let mut options = options(&server, fixed(40), Arrivals::Closed { clients: 2 });
    options.time_max = Some(Duration::from_millis(300));
    let report = run(&server, options).await;
    assert!(report.completed == 0 && report.refusals > 0, "{report}");
    assert_eq!(report.failed, 2, "one for each client: {report}");
    assert!(report.duration_s < 5.0, "{report}");
    assert!(report.flaw(100.0).is_some(), "{report}");
}

#[tokio::test]
async fn chats_repeat_what_was_said_and_answered() {
    let server = Server::start(NONE).await;
    let chats = Workload::Conversation(Conversation {
        sessions: Some(5),
        turns: 3,
        first_words: 20,
        turn_words: 4,
        output_tokens: TOKENS as u32,
        think: Duration::from_millis(1),
    });
    let report = run(&server, options(&server, chats, Arrivals::Closed { clients: 2 })).await;
    assert_eq!((report.completed, report.failed), (15, 0), "{report}");
    assert_eq!(server.seen.messages_max.load(Ordering::Relaxed), 5, "3 questions, 2 answers");
}

#[tokio::test]
async fn a_run_ends_early_when_told_and_keeps_what_it_has() {
    let server = Server::start(NONE).await;
    let options = options(&server, fixed(100_000), Arrivals::Closed { clients: 4 });
    let cancel = CancellationToken::new();
    let (report, ()) = tokio::join!(run_all(options, &cancel), async {
        while server.seen.requests.load(Ordering::Relaxed) < 20 {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    });
    let report = report.expect("a report").runs.remove(0);
    assert!(report.completed >= 8 && report.completed < 1000, "{report}");
    assert!(report.is_cut && report.to_string().contains("then cut off"), "{report}");
}

#[tokio::test]
async fn rates_are_measured_one_after_another_with_prompts_of_their_own() {
    let server = Server::start(NONE).await;
    let mut options = options(&server, fixed(20), at(100.0));
    options.paces = vec![at(100.0), at(400.0)];
    options.warm_up = 2;
    let report = run_all(options, &CancellationToken::new()).await.expect("a report");
    let rates: Vec<_> = report.runs.iter().map(|run| (run.rate_per_s, run.seed)).collect();
    assert_eq!(rates, [(Some(100.0), 1), (Some(400.0), 2)]);
    assert!(report.runs.iter().all(|run| run.completed == 20), "{report}");
    assert_eq!(report.knee.map(|point| point.rate_per_s), Some(400.0), "{report}");
    let prompts = server.seen.prompts.lock().expect("no panic");
    assert_eq!(prompts.len(), 44, "no prompt twice, warm-ups' included");
}

#[tokio::test]
async fn a_sweep_that_is_cut_off_keeps_what_it_has() {
    let server = Server::start(NONE).await;
    let mut options = options(&server, fixed(20), at(200.0));
    options.paces = vec![at(200.0), at(1.0), at(200.0)];
    let cancel = CancellationToken::new();
    let (report, ()) = tokio::join!(run_all(options, &cancel), async {
        while server.seen.requests.load(Ordering::Relaxed) < 21 {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    });
    let report = report.expect("a report");
    let cut: Vec<_> = report.runs.iter().map(|run| run.is_cut).collect();
    assert_eq!(cut, [false, true], "{report}");
    assert_eq!(report.best.map(|point| point.rate_per_s), Some(200.0), "{report}");
}

#[tokio::test]
async fn a_run_without_an_end_ends_in_time() {
    let server = Server::start(NONE).await;
    let endless = match fixed(1) {
        Workload::Fixed(fixed) => Workload::Fixed(Fixed { requests: None, ..fixed }),
        other => other,
    };
    let mut options = options(&server, endless, Arrivals::Closed { clients: 2 });
    options.time_max = Some(Duration::from_millis(300));
    let report = run(&server, options).await;
    assert!(report.completed >= 2 && !report.is_cut, "{report}");
    assert!(report.workload.starts_with("requests, 16 in"), "{report}");
}

#[tokio::test]
async fn warm_up_requests_are_sent_and_not_counted() {
    let server = Server::start(NONE).await;
    let mut options = options(&server, fixed(10), Arrivals::Closed { clients: 2 });
    options.warm_up = 3;
    let report = run(&server, options).await;
    assert_eq!(report.completed, 10);
    assert_eq!(server.seen.requests.load(Ordering::Relaxed), 13);
}

#[tokio::test]
async fn what_failed_of_the_warm_up_is_told() {
    let server = Server::start(Refusals { every: 4, retry_after: SOON, ..NONE }).await;
    let mut options = options(&server, fixed(4), Arrivals::Closed { clients: 1 });
    options.warm_up = 4;
    let report = run(&server, options).await;
    assert_eq!((report.completed, report.failed, report.warm_up_refused), (4, 0, 1), "{report}");
    assert!(report.to_string().contains("warm-up: 1 requests refused, 0 failed"), "{report}");
}

#[tokio::test]
async fn the_rate_that_came_is_counted() {
    let server = Server::start(NONE).await;
    let mut options = options(&server, fixed(1000), at(100.0));
    options.time_max = Some(Duration::from_secs(1));
    let report = run(&server, options).await;
    let came = report.came_per_s.expect("a rate");
    assert!((came - report.completed as f64).abs() < 1e-9, "of a second: {report}");
    assert!(report.to_string().contains(&format!("Poisson, 100/s, {came:.2}/s came")), "{report}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error() {
    let server = Server::start(NONE).await;
    let mut options = options(&server, fixed(1), Arrivals::Closed { clients: 1 });
    options.server.url = "http://127.0.0.1:9".to_owned();
    let error = run_all(options, &CancellationToken::new()).await.expect_err("nobody");
    assert!(format!("{error:#}").contains("127.0.0.1:9"), "{error:#}");
}

#[tokio::test]
async fn no_more_is_answered_a_second_than_was_asked() {
    let server = Server::start(NONE).await;
    let report = run(&server, options(&server, fixed(1), at(1.0))).await;
    assert!(report.requests_per_s <= 1.0 && report.goodput_per_s <= 1.0, "{report}");
    let mut options = options(&server, fixed(1), at(200.0));
    options.time_max = Some(Duration::from_secs(60));
    let report = run(&server, options).await;
    assert!(report.requests_per_s <= 200.0, "{report}");
}

#[tokio::test]
async fn a_handful_of_requests_is_no_limit() {
    let server = Server::start(NONE).await;
    let mut options = options(&server, fixed(19), at(200.0));
    options.paces = vec![at(200.0), at(300.0)];
    let report = run_all(options, &CancellationToken::new()).await.expect("a report");
    assert_eq!((report.knee, report.best), (None, None), "{report}");
    let text = report.to_string();
    assert!(text.contains("  few\n") && text.contains("of fewer than 20 requests"), "{text}");
}

#[tokio::test]
async fn a_sweep_ends_with_its_server() {
    let server = Server::start(NONE).await;
    let mut options = options(&server, fixed(100), at(50.0));
    options.paces = vec![at(50.0), at(60.0), at(70.0)];
    let (seen, cancel) = (server.seen.clone(), CancellationToken::new());
    let stop = async {
        while seen.requests.load(Ordering::Relaxed) < 120 {
            tokio::task::yield_now().await;
        }
        drop(server);
    };
    let (report, ()) = tokio::join!(run_all(options, &cancel), stop);
    let report = report.expect("a report");
    let gone: Vec<_> = report.runs.iter().map(|run| run.is_gone).collect();
    assert!(gone == [false, true] || gone == [false, false, true], "{report}");
    let flaw = report.flaw(50.0).expect("a flaw");
    assert!(flaw.contains("requests failed"), "{flaw}");
    let last = report.runs.last().expect("a run");
    assert!(last.unreachable > 0 && last.flaw(50.0).is_some_and(|why| why.contains("gone")));
}

#[tokio::test]
async fn a_server_that_says_nothing_holds_nobody_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let server = Server::start(NONE).await;
    let mut options = options(&server, fixed(1), at(1.0));
    options.server.url = silent.local_addr().expect("its address").to_string();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let run = tokio::time::timeout(Duration::from_secs(5), run_all(options, &cancel));
    let why = run.await.expect("at once").expect_err("nothing was measured");
    assert!(why.to_string().contains("nothing was measured"), "{why}");
}

#[tokio::test]
async fn a_line_without_an_end_is_no_answer() {
    let server = Server::start(Refusals { endless: true, ..NONE }).await;
    let started = Instant::now();
    let report = run(&server, options(&server, fixed(2), Arrivals::Closed { clients: 2 })).await;
    assert_eq!((report.completed, report.failed), (0, 2), "{report}");
    assert!(report.failures.keys().all(|why| why.contains("an event has no end")), "{report}");
    assert!(started.elapsed() < Duration::from_secs(10), "not the time that a request has");
}

fn of(times: Option<Summary>) -> Summary {
    times.expect("something was measured")
}

async fn run(_server: &Server, options: LoadOptions) -> Report {
    let mut report = run_all(options, &CancellationToken::new()).await.expect("a report");
    assert_eq!(report.runs.len(), 1);
    report.runs.remove(0)
}

async fn run_all(options: LoadOptions, cancel: &CancellationToken) -> anyhow::Result<ServeReport> {
    let mut heard = 0;
    let mut on_run = |_: &Report| heard += 1;
    let run = bench::load::run(&options, cancel, &mut on_run);
    let report = tokio::time::timeout(Duration::from_secs(60), run).await.expect("an end")?;
    assert_eq!(heard, report.runs.len());
    Ok(report)
}

fn fixed(requests: usize) -> Workload {
    Workload::Fixed(Fixed {
        input_tokens: 16,
        output_tokens: TOKENS as u32,
        shared_tokens: 0,
        spread: Spread(0),
        requests: Some(requests),
    })
}

fn at(sessions_per_s: f64) -> Arrivals {
    Arrivals::Poisson { sessions_per_s, in_flight_max: 100 }
}

fn options(server: &Server, workload: Workload, arrivals: Arrivals) -> LoadOptions {
    LoadOptions {
        server: ServerOptions {
            url: format!("http://{}/v1", server.addr),
            ..ServerOptions::default()
        },
        model: None,
        workload,
        paces: vec![arrivals],
        warm_up: 0,
        time_max: None,
        request_timeout: Duration::from_secs(30),
        slo: Slo { ttft_ms: 5000.0, tpot_ms: 1000.0, itl_p99_ms: None },
        temperature: 0.0,
        seed: 1,
        progress: false,
    }
}

// === impl Server ===

impl Server {
    async fn start(refusals: Refusals) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("its address");
        let seen = Arc::new(Seen::default());
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let seen = seen.clone();
            async move {
                let mut connections = JoinSet::new();
                loop {
                    let (stream, _) = listener.accept().await.expect("a connection");
                    stream.set_nodelay(true).expect("nodelay");
                    connections.spawn(connection(stream, seen.clone(), refusals));
                }
            }
        });
        Self { addr, seen, _tasks: tasks }
    }
}

/// Answers requests until the client closes; a client that breaks off is no concern of ours.
async fn connection(stream: TcpStream, seen: Arc<Seen>, refusals: Refusals) {
    let mut stream = BufReader::new(stream);
    while let Some((path, body)) = request(&mut stream).await {
        let sent = if path == "/v1/models" {
            json(&mut stream, 200, "", r#"{"data":[{"id":"m"}]}"#).await
        } else {
            generation(&mut stream, &body, &seen, refusals).await
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn generation(
    stream: &mut BufReader<TcpStream>,
    body: &serde_json::Value,
    seen: &Seen,
    refusals: Refusals,
) -> std::io::Result<()> {
    let number = seen.requests.fetch_add(1, Ordering::Relaxed) + 1;
    if number.is_multiple_of(refusals.every) {
        let body = r#"{"error":{"message":"x","code":"overloaded"}}"#;
        return json(stream, 503, refusals.retry_after, body).await;
    }
    assert_eq!(body["model"], "m");
    seen.prompts.lock().expect("no panic").insert(body["prompt"].to_string());
    let messages = body["messages"].as_array().map_or(0, Vec::len);
    seen.messages_max.fetch_max(messages, Ordering::Relaxed);
    let running = seen.running.fetch_add(1, Ordering::Relaxed) + 1;
    seen.running_max.fetch_max(running, Ordering::Relaxed);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-baton-path: handoff\r\n\
                transfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    if refusals.endless {
        loop {
            stream.write_all(format!("1000\r\n{}\r\n", "x".repeat(0x1000)).as_bytes()).await?;
        }
    }
    for token in 0..TOKENS {
        tokio::time::sleep(if token == 0 { TTFT } else { GAP }).await;
        let choice = if messages > 0 {
            r#"{"choices":[{"index":0,"delta":{"content":"a"}}]}"#
        } else {
            r#"{"choices":[{"index":0,"text":"a"}]}"#
        };
        event(stream, choice).await?;
    }
    seen.running.fetch_sub(1, Ordering::Relaxed);
    let usage =
        format!(r#"{{"choices":[],"usage":{{"prompt_tokens":16,"completion_tokens":{TOKENS}}}}}"#);
    event(stream, &usage).await?;
    event(stream, "[DONE]").await?;
    stream.write_all(b"0\r\n\r\n").await
}

async fn event(stream: &mut BufReader<TcpStream>, data: &str) -> std::io::Result<()> {
    let event = format!("data: {data}\n\n");
    stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await
}

/// - `headers`: further ones, as lines.
async fn json(
    stream: &mut BufReader<TcpStream>,
    status: u16,
    headers: &str,
    body: &str,
) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}");
    stream.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await
}

/// Path and JSON body of the next request.
async fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, serde_json::Value)> {
    let mut first = String::new();
    stream.read_line(&mut first).await.ok().filter(|&bytes| bytes > 0)?;
    let path = first.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((path, serde_json::from_slice(&body).unwrap_or_default()))
}

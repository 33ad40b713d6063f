//! A server of OpenAI's API that says what a test tells it to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Between two words.
const DRIP: Duration = Duration::from_millis(20);

/// The server.
#[derive(Debug)]
pub struct Oracle {
    /// Where it listens.
    pub addr: SocketAddr,
    heard: Arc<Heard>,
    _tasks: JoinSet<()>,
}

/// What came.
#[derive(Debug, Default)]
struct Heard {
    asked: Mutex<Vec<Value>>,
    hung_up: AtomicUsize,
}

/// What it does with a question.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Streams a text.
    Says(String),
    /// Streams a word again and again, until the client has heard enough.
    Drips(&'static str),
    /// Refuses.
    Refuses {
        /// With this status,
        status: u16,
        /// OpenAI's name for it,
        code: &'static str,
        /// and more headers, each with its line's end.
        headers: &'static str,
    },
}

type Judge = dyn Fn(&Value) -> Reply + Send + Sync;

// === impl Oracle ===

impl Oracle {
    /// Starts it; `judge` sees each request's body.
    ///
    /// # Panics
    /// If there is no port.
    pub async fn start(judge: impl Fn(&Value) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("its address");
        let (judge, heard): (Arc<Judge>, _) = (Arc::new(judge), Arc::default());
        let (mut tasks, seen) = (JoinSet::new(), Arc::clone(&heard));
        tasks.spawn(async move {
            let mut calls = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                calls.spawn(call(stream, Arc::clone(&judge), Arc::clone(&seen)));
            }
        });
        Self { addr, heard, _tasks: tasks }
    }

    /// How many questions came.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.heard.asked.lock().len()
    }

    /// How many clients had heard enough.
    #[must_use]
    pub fn hung_up(&self) -> usize {
        self.heard.hung_up.load(Ordering::Relaxed)
    }

    /// The contents of the messages of the last request.
    ///
    /// # Panics
    /// If there was none.
    #[must_use]
    pub fn last_messages(&self) -> Vec<String> {
        let asked = self.heard.asked.lock();
        let messages = asked.last().expect("a request")["messages"].as_array().cloned();
        let text = |message: &Value| message["content"].as_str().unwrap_or_default().to_owned();
        messages.unwrap_or_default().iter().map(text).collect()
    }
}

/// Sends a word every now and then, as long as somebody listens.
async fn drip(stream: &mut BufReader<TcpStream>, word: &str) {
    let event = json!({ "choices": [{ "delta": { "content": word } }] });
    let event = format!("data: {event}\n\n");
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
    let mut sent = stream.write_all(head.as_bytes()).await;
    while sent.is_ok() {
        tokio::time::sleep(DRIP).await;
        sent = stream.write_all(event.as_bytes()).await;
    }
}

/// Answers one request and closes, as the simplest of servers do.
async fn call(stream: TcpStream, judge: Arc<Judge>, heard: Arc<Heard>) {
    let mut stream = BufReader::new(stream);
    let (mut line, mut length, mut is_post) = (String::new(), 0, false);
    while stream.read_line(&mut line).await.is_ok_and(|read| read > 2) {
        let lower = line.to_ascii_lowercase();
        is_post |= lower.starts_with("post ");
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    let mut body = vec![0; length];
    if stream.read_exact(&mut body).await.is_err() {
        return;
    }
    let answer = if is_post {
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let reply = judge(&body);
        heard.asked.lock().push(body);
        if let Reply::Drips(word) = reply {
            drip(&mut stream, word).await;
            heard.hung_up.fetch_add(1, Ordering::Relaxed);
            return;
        }
        reply.text()
    } else {
        let models = json!({ "data": [{ "id": "oracle", "max_model_len": 100 }] });
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{models}")
    };
    // A client that has gone needs no answer.
    let _ = stream.write_all(answer.as_bytes()).await;
}

// === impl Reply ===

impl Reply {
    fn text(&self) -> String {
        match self {
            Self::Says(text) => {
                let mut events = String::new();
                for piece in text.split_inclusive(' ') {
                    let choice = json!({ "delta": { "content": piece } });
                    events += &format!("data: {}\n\n", json!({ "choices": [choice] }));
                }
                let end = json!({ "choices": [{ "delta": {}, "finish_reason": "stop" }] });
                format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{events}data: {end}\n\ndata: [DONE]\n\n"
                )
            }
            Self::Drips(_) => String::new(),
            Self::Refuses { status, code, headers } => {
                let error = json!({ "error": { "message": "not now", "code": code } });
                format!("HTTP/1.1 {status} No\r\n{headers}connection: close\r\n\r\n{error}")
            }
        }
    }
}

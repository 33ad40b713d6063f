//! What the tests share: small tokenizers, a model, a scripted peer in place of the cluster, and a
//! router that serves on a real port.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster::telemetry::{AdminServer, Metrics};
use cluster::{ErrorCode, HttpServer, Lifecycle};
use kv_cache::TokenId;
use model_folder::SpecialTokens;
use parking_lot::Mutex;
use scheduler::cost::Terms;
use scheduler::placement::{CachedTokens, Candidate, Part, Rejection, Verdict};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;
use words::{
    ClientId, FinishReason, Generation, Role, SampledToken, Sampling, TokenLogprob, WorkerId,
};

use crate::dispatch::{
    DispatchError, DispatchRequest, Explained, Explanation, Generate, GenerationEvent,
    GenerationStream, Readiness, Route,
};
use crate::text::{ChatTemplate, Tokenizer};
use crate::{GatewayConfig, GatewayLimits, ModelCatalog, RouterConfig, ServedModel, serve};

/// Special tokens of the test model; ids below 256 are the bytes.
pub(crate) const BOS: TokenId = 256;
pub(crate) const EOS: TokenId = 257;
pub(crate) const IM_START: TokenId = 258;
/// `hello` in one token.
pub(crate) const HELLO: TokenId = 264;

pub(crate) const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] \
    + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Byte-level BPE: the bytes are ids 0 to 255, then special tokens, then a few merges.
pub(crate) fn byte_level_json() -> Json {
    let byte_chars = byte_chars();
    let mut vocab: serde_json::Map<String, Json> =
        byte_chars.iter().enumerate().map(|(byte, c)| (c.to_string(), byte.into())).collect();
    let specials = ["<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>"];
    for (index, merged) in ["he", "ll", "hell", "hello", "Ġw"].iter().enumerate() {
        // `hello` is 264: one id stays unused.
        vocab.insert((*merged).to_owned(), (261 + index).into());
    }
    vocab.extend(specials.iter().zip(256..).map(|(name, id)| ((*name).to_owned(), id.into())));
    let added: Vec<Json> = specials
        .iter()
        .enumerate()
        .map(|(index, content)| {
            json!({"id": 256 + index, "content": content, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|bos|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|bos|>": {"id": "<|bos|>", "ids": [BOS], "tokens": ["<|bos|>"]}}
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "vocab": vocab, "merges": ["h e", "l l", "he ll", "hell o", "Ġ w"]}
    })
}

/// SentencePiece's kind of BPE: `▁` for spaces, `<0x0A>` for bytes without a token of their own.
pub(crate) fn sentencepiece_json(decoder: &Json) -> Json {
    let mut pieces: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
    pieces.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    pieces.extend(["▁", "a", "b", "▁a", "▁b", "ab", "▁ab", "é", "▁▁"].map(String::from));
    let vocab: serde_json::Map<String, Json> =
        pieces.iter().enumerate().map(|(id, piece)| (piece.clone(), id.into())).collect();
    let added: Vec<Json> = ["<unk>", "<s>", "</s>"]
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null, "post_processor": null, "decoder": decoder,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocab,
                  "merges": ["▁ a", "▁ b", "a b", "▁ ab", "▁ ▁"]}
    })
}

/// Llama 2's decoder.
pub(crate) fn llama_decoder() -> Json {
    json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})
}

pub(crate) fn tokenizer(json: &Json) -> Arc<Tokenizer> {
    Arc::new(Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap())
}

fn byte_chars() -> Vec<char> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 0x100;
    let mut of = |byte| {
        if printable(byte) {
            return char::from(byte);
        }
        next += 1;
        char::from_u32(next - 1).unwrap()
    };
    (0..=u8::MAX).map(&mut of).collect()
}

/// A model whose tokens below 256 are bytes, so that scripts read like text.
pub(crate) fn model() -> ServedModel {
    let special = json!({"bos_token": "<|bos|>", "eos_token": "<|eos|>"});
    let template = ChatTemplate::from_source(CHATML, SpecialTokens::from_config(&special));
    let tokenizer = tokenizer(&byte_level_json());
    ServedModel {
        name: "test-model".into(),
        aliases: vec!["org/alias".into()],
        vocab_tokens: tokenizer.vocab_tokens(),
        tokenizer,
        template: Some(template.unwrap()),
        control_tokens: None,
        context_tokens_max: 256,
        eos_tokens: vec![EOS],
        sampling_defaults: Sampling { temperature: 0.7, ..Sampling::default() },
        created_s: 1_700_000_000,
    }
}

/// One thing that the peer does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Refuses the request; only as the first step.
    Refuse(DispatchError),
    /// Sends an event.
    Send(GenerationEvent),
    /// Breaks off.
    Fail(DispatchError),
    /// Says nothing until the client has gone.
    Hang,
    /// Waits for [`ScriptedPeer::go_on`].
    Wait,
}

/// Plays token sequences: the scripts in order, the last one again and again.
pub(crate) struct ScriptedPeer {
    /// What is foreseen for every request.
    pub(crate) foreseen: Mutex<Option<DispatchError>>,
    scripts: Mutex<VecDeque<Vec<Step>>>,
    requests: Mutex<Vec<DispatchRequest>>,
    /// Requests that were only to be explained.
    pub(crate) explained: Mutex<Vec<Generation>>,
    /// Streams that were dropped before their script ended.
    cancelled: watch::Sender<usize>,
    go_on: tokio::sync::Semaphore,
    tasks: TaskTracker,
    pub(crate) readiness: Mutex<Readiness>,
}

/// What a scripted peer says of where a request goes.
pub(crate) const EXPLAINED: &str = "prefill-1 -> decode-2 (by the script)";

/// One prefill worker that has a part of the prompt, and a decode worker that doesn't answer.
fn explained() -> Explained {
    let terms = Terms { prefill_s: 0.25, ..Terms::default() };
    let cached = CachedTokens { device: 16, host: 32, disk: 32 };
    let candidates = vec![
        Candidate {
            worker: "prefill-1".into(),
            part: Part::Both,
            cached,
            verdict: Verdict::Possible(terms),
        },
        Candidate {
            worker: "decode-2".into(),
            part: Part::Decode,
            cached: CachedTokens::default(),
            verdict: Verdict::Rejected(Rejection::Unhealthy),
        },
    ];
    Explained { decision: Err(failure(ErrorCode::Busy)), candidates }
}

/// A route from a prefill worker to a decode worker, with a cache hit.
pub(crate) fn route() -> Route {
    let (prefill, decode) = (WorkerId("prefill-1".into()), WorkerId("decode-2".into()));
    let fingerprint = "fp_test".into();
    Route { decode, prefill: Some(prefill), cached_tokens: 3, fingerprint }
}

pub(crate) fn started() -> Step {
    Step::Send(GenerationEvent::Started(route()))
}

/// One token of a choice.
pub(crate) fn token(choice: u32, index: u32, token: TokenId) -> Step {
    let logprob = Some(TokenLogprob { logprob: -0.5, top: vec![(token, -0.5), (65, -1.5)] });
    Step::Send(GenerationEvent::Tokens(vec![SampledToken { choice, index, token, logprob }]))
}

/// The bytes of a text, one token each.
pub(crate) fn text(choice: u32, text: &str) -> Vec<Step> {
    text.bytes().zip(0..).map(|(byte, index)| token(choice, index, byte.into())).collect()
}

pub(crate) fn finished(choice: u32, reason: FinishReason) -> Step {
    Step::Send(GenerationEvent::Finished { choice, reason })
}

/// A whole answer: the text, then `max_tokens`.
pub(crate) fn says(words: &str) -> Vec<Step> {
    [vec![started()], text(0, words), vec![finished(0, FinishReason::Length)]].concat()
}

pub(crate) fn failure(code: ErrorCode) -> DispatchError {
    let retry_after = (code == ErrorCode::Busy).then(|| Duration::from_millis(2500));
    DispatchError { retry_after, ..DispatchError::new(code, "as scripted") }
}

// === impl ScriptedPeer ===

impl ScriptedPeer {
    pub(crate) fn new(scripts: Vec<Vec<Step>>) -> Arc<Self> {
        let workers = BTreeMap::from([(Role::Prefill, 1), (Role::Decode, 2)]);
        let readiness = Readiness { ready: true, workers, ..Readiness::default() };
        Arc::new(Self {
            scripts: Mutex::new(scripts.into()),
            requests: Mutex::default(),
            explained: Mutex::default(),
            cancelled: watch::Sender::new(0),
            go_on: tokio::sync::Semaphore::new(0),
            tasks: TaskTracker::new(),
            readiness: Mutex::new(readiness),
            foreseen: Mutex::default(),
        })
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<DispatchRequest> {
        self.requests.lock().clone()
    }

    /// Lets one [`Step::Wait`] go on.
    pub(crate) fn go_on(&self) {
        self.go_on.add_permits(1);
    }

    /// Waits until that many streams were dropped before their end.
    pub(crate) async fn cancelled(&self, count: usize) {
        let mut cancelled = self.cancelled.subscribe();
        let wait = cancelled.wait_for(|have| *have >= count);
        tokio::time::timeout(PATIENCE, wait).await.expect("the stream is dropped").unwrap();
    }
}

#[async_trait]
impl Generate for Arc<ScriptedPeer> {
    async fn generate(&self, request: DispatchRequest) -> Result<GenerationStream, DispatchError> {
        if let Some(asked) = &request.explanation {
            asked.add(EXPLAINED);
        }
        self.requests.lock().push(request);
        let script = {
            let mut scripts = self.scripts.lock();
            if scripts.len() > 1 { scripts.pop_front().unwrap() } else { scripts[0].clone() }
        };
        if let Some(Step::Refuse(error)) = script.first() {
            return Err(error.clone());
        }
        // Small, so that a client that doesn't read is noticed.
        let (sender, events) = mpsc::channel(4);
        let peer = Arc::clone(self);
        self.tasks.spawn(async move {
            for step in script {
                let sent = match step {
                    Step::Send(event) => sender.send(Ok(event)).await.is_ok(),
                    Step::Fail(error) => sender.send(Err(error)).await.is_ok(),
                    Step::Hang => {
                        sender.closed().await;
                        false
                    }
                    Step::Wait => tokio::select! {
                        permit = peer.go_on.acquire() => { permit.unwrap().forget(); true }
                        () = sender.closed() => false,
                    },
                    Step::Refuse(_) => unreachable!("only as the first step"),
                };
                if !sent {
                    peer.cancelled.send_modify(|count| *count += 1);
                    return;
                }
            }
        });
        Ok(GenerationStream::new(events))
    }

    fn foresee(&self, _: ClientId, _: Option<&Explanation>) -> Result<(), DispatchError> {
        self.foreseen.lock().clone().map_or(Ok(()), Err)
    }

    fn explain(&self, generation: &Generation) -> Explained {
        self.explained.lock().push(generation.clone());
        explained()
    }

    fn readiness(&self) -> Readiness {
        self.readiness.lock().clone()
    }
}

/// What this thread logs, as text, until dropped.
pub(crate) struct Lines {
    written: Arc<Mutex<Vec<u8>>>,
    _captured: tracing::subscriber::DefaultGuard,
}

/// Appends to what is captured.
struct Appending(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Appending {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// === impl Lines ===

impl Lines {
    pub(crate) fn captured() -> Self {
        let written = Arc::default();
        let to = Arc::clone(&written);
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || Appending(Arc::clone(&to)))
            .finish();
        Self { written, _captured: tracing::subscriber::set_default(subscriber) }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.written.lock().clone()).unwrap()
    }
}

/// A router on a real port, in front of a scripted peer.
pub(crate) struct TestRouter {
    pub(crate) url: String,
    pub(crate) grpc_url: String,
    pub(crate) admin_url: String,
    pub(crate) addr: SocketAddr,
    pub(crate) client: reqwest::Client,
    pub(crate) peer: Arc<ScriptedPeer>,
    pub(crate) node: Lifecycle,
    pub(crate) metrics: Metrics,
    _serving: tokio_util::task::AbortOnDropHandle<()>,
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: String,
}

// === impl TestRouter ===

impl TestRouter {
    pub(crate) async fn playing(scripts: Vec<Vec<Step>>) -> Self {
        Self::configured(scripts, |_| ()).await
    }

    pub(crate) async fn configured(
        scripts: Vec<Vec<Step>>,
        adjust: impl FnOnce(&mut GatewayConfig),
    ) -> Self {
        let mut gateway = GatewayConfig {
            models: ModelCatalog::new(vec![Arc::new(model())]).unwrap(),
            limits: GatewayLimits { text_threads: 1, ..GatewayLimits::default() },
            api_keys: Vec::new(),
            api_keys_file: None,
            debug_headers: true,
            insecure: false,
            cors: false,
            strict_fields: false,
            access_log: true,
        };
        adjust(&mut gateway);
        let http = HttpServer::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = http.local_addr().unwrap();
        let grpc = HttpServer::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let grpc_url = format!("http://{}", grpc.local_addr().unwrap());
        let (peer, node, metrics) = (ScriptedPeer::new(scripts), Lifecycle::new(), Metrics::new());
        node.serve();
        let admin = AdminServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let admin_url = format!("http://{}", admin.local_addr());
        let config = RouterConfig {
            http,
            grpc: Some(grpc),
            admin: Some(admin),
            certificates: None,
            hangups: None,
            gateway,
        };
        let generate: Arc<dyn Generate> = Arc::new(Arc::clone(&peer));
        let serving = serve(config, generate, metrics.clone(), node.clone());
        let serving = TaskTracker::new().spawn(async move { serving.await.unwrap() });
        let serving = tokio_util::task::AbortOnDropHandle::new(serving);
        let client =
            reqwest::Client::builder().tcp_nodelay(true).timeout(PATIENCE).build().unwrap();
        let url = format!("http://{addr}");
        Self { url, grpc_url, admin_url, addr, client, peer, node, metrics, _serving: serving }
    }

    pub(crate) async fn post(&self, path: &str, body: &Json) -> Answer {
        Answer::read(self.client.post(self.at(path)).json(body).send().await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::read(self.client.get(self.at(path)).send().await.unwrap()).await
    }

    /// What comes back on a connection of its own for bytes of HTTP/1.
    pub(crate) async fn exchange(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = async {
            while !is_whole(&answer) && stream.read_buf(&mut answer).await.unwrap() > 0 {}
        };
        tokio::time::timeout(PATIENCE, read).await.expect("an answer");
        String::from_utf8(answer).unwrap()
    }

    /// What the operators' address says.
    pub(crate) async fn ask(&self, path: &str) -> Answer {
        let answer = self.client.get(format!("{}{path}", self.admin_url)).send();
        Answer::read(answer.await.unwrap()).await
    }

    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}

/// Whether these bytes are a head and as much of a body as it announces.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let mut lengths = head.lines().filter_map(|line| line.strip_prefix("content-length: "));
    lengths.next().is_none_or(|length| body.len() >= length.parse().unwrap())
}

// === impl Answer ===

impl Answer {
    pub(crate) async fn read(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.text().await.unwrap();
        Self { status, headers, body }
    }

    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The `data` of all events, `[DONE]` as a string.
    pub(crate) fn events(&self) -> Vec<Json> {
        let data = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| data.into())).collect()
    }
}

/// A one-message chat request with these fields added.
pub(crate) fn chat(more: Json) -> Json {
    let mut body = json!({"model": "test-model", "messages": [{"role": "user", "content": "hi"}]});
    add(&mut body, more);
    body
}

/// A completions request with these fields added.
pub(crate) fn completion(more: Json) -> Json {
    let mut body = json!({"model": "test-model", "prompt": "hi"});
    add(&mut body, more);
    body
}

fn add(body: &mut Json, more: Json) {
    let Json::Object(more) = more else { panic!("fields") };
    body.as_object_mut().unwrap().extend(more);
}

//! A limit on everything a client can send or hold.

use std::time::Duration;

use cluster::connections::ConnectionLimits;

use crate::RouterError;

/// OpenAI's limit on alternatives per token.
pub const LOGPROBS_MAX: u32 = 20;

/// The gateway's limits, for HTTP and gRPC alike. What goes over is refused with 4xx or 429.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayLimits {
    /// A request's body.
    pub body_bytes: usize,
    /// Values in a JSON body: numbers, texts, lists, objects. Each takes ten times the bytes it is written in.
    pub json_values: usize,
    /// Bytes of requests that are being read, and are not tokens yet, of all clients; more get 429.
    pub in_flight_bytes: usize,
    /// Of these, of one client.
    pub in_flight_bytes_per_client: usize,
    /// For a request's body to arrive.
    pub body_timeout: Duration,
    /// A prompt, below the model's own context limit.
    pub prompt_tokens: usize,
    /// Prompts in one completions request.
    pub prompts: usize,
    /// Choices of one request, over all its prompts.
    pub choices: u32,
    /// Stop strings of one request; stop token ids too.
    pub stops: usize,
    /// One stop string.
    pub stop_bytes: usize,
    /// All stop strings of one request.
    pub stops_bytes: usize,
    /// Alternatives per token.
    pub top_logprobs: u32,
    /// Messages in one conversation.
    pub messages: usize,
    /// Requests being served at a time; more get 429.
    pub streams: usize,
    /// Prompts waiting for, or in, the tokenizer; more get 429.
    pub text_queue: usize,
    /// Threads that render and tokenize, beside one for small texts.
    pub text_threads: usize,
    /// Open connections, of HTTP and gRPC together, and how long silent ones stay.
    pub connections: ConnectionLimits,
    /// For a request's head to arrive, and for the next one on a connection of HTTP/1.
    pub head_timeout: Duration,
    /// Between signs of life on a stream on which nothing happens.
    pub keep_alive: Duration,
    /// A request's time, if it doesn't ask for less.
    pub request_timeout: Duration,
}

// === impl GatewayLimits ===

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            // A prompt of 1 M tokens in a language of 4 bytes a token, with JSON's escapes.
            body_bytes: 16 << 20,
            // The longest prompt as token ids, and room beside it.
            json_values: (1 << 20) + (64 << 10),
            // With what is made of them, some GiB at the very most.
            in_flight_bytes: 512 << 20,
            in_flight_bytes_per_client: 128 << 20,
            body_timeout: Duration::from_secs(60),
            prompt_tokens: 1 << 20,
            prompts: 64,
            // The wire allows 256 choices a dispatch.
            choices: 128,
            stops: 256,
            stop_bytes: 1024,
            // A state of the automaton for each, 40 bytes: well below a MiB a request.
            stops_bytes: 16 << 10,
            top_logprobs: LOGPROBS_MAX,
            messages: 4096,
            streams: 4096,
            // At 2 ms a prompt of 4 KiB, a queue of 512 on two threads is half a second.
            text_queue: 512,
            text_threads: 2,
            connections: ConnectionLimits {
                open_max: 16_384,
                // A proxy in front has all of its clients' connections.
                per_client_max: 4096,
                greeting_timeout: Duration::from_secs(10),
                idle_timeout: Some(Duration::from_secs(300)),
                reader_timeout: Some(Duration::from_secs(30)),
            },
            head_timeout: Duration::from_secs(30),
            // Proxies close connections on which nothing happens, often after 60 s; some after 15.
            keep_alive: Duration::from_secs(10),
            request_timeout: Duration::from_secs(600),
        }
    }
}

impl GatewayLimits {
    /// The most choices of a request that workers take.
    pub const CHOICES_MAX: usize = proto::convert::generation::CHOICES_MAX;

    /// Refuses limits under which nothing could be served.
    ///
    /// # Errors
    /// [`RouterError::Config`] naming the first value that makes no sense.
    pub fn validate(&self) -> Result<(), RouterError> {
        let counts = [
            ("limits.body_bytes", self.body_bytes),
            ("limits.json_values", self.json_values),
            ("limits.in_flight_bytes", self.in_flight_bytes),
            ("limits.in_flight_bytes_per_client", self.in_flight_bytes_per_client),
            ("limits.prompt_tokens", self.prompt_tokens),
            ("limits.prompts", self.prompts),
            ("limits.choices", self.choices as usize),
            ("limits.messages", self.messages),
            ("limits.streams", self.streams),
            ("limits.text_queue", self.text_queue),
            ("limits.text_threads", self.text_threads),
            ("limits.connections", self.connections.open_max),
            ("limits.connections_per_client", self.connections.per_client_max),
            ("limits.request_timeout", millis(self.request_timeout)),
            ("limits.greeting_timeout", millis(self.connections.greeting_timeout)),
            ("limits.idle_timeout", self.connections.idle_timeout.map_or(1, millis)),
            ("limits.reader_timeout", self.connections.reader_timeout.map_or(1, millis)),
            ("limits.head_timeout", millis(self.head_timeout)),
            ("limits.keep_alive", millis(self.keep_alive)),
            ("limits.body_timeout", millis(self.body_timeout)),
        ];
        let zero = counts.iter().find(|(_, value)| *value == 0);
        if let Some((field, _)) = zero {
            return Err(RouterError::Config { field, problem: "must be at least 1".into() });
        }
        if self.choices as usize > Self::CHOICES_MAX {
            let problem = format!("must be at most {}", Self::CHOICES_MAX);
            return Err(RouterError::Config { field: "limits.choices", problem });
        }
        Ok(())
    }
}

fn millis(time: Duration) -> usize {
    time.as_millis() as usize
}

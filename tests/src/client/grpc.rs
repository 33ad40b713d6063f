//! A gRPC client: token ids in and out, so that outputs can be compared exactly.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use proto::v1;
use proto::v1::inference_client::InferenceClient;
use proto::v1::inference_response::{Event, Usage};
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// Longer than any request of a test may take.
const REQUEST_PATIENCE: Duration = Duration::from_secs(120);

/// Sends requests to one router.
#[derive(Clone, Debug)]
pub struct Grpc {
    channel: Channel,
}

/// What a request brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generated {
    /// Token ids by choice.
    pub tokens: BTreeMap<u32, Vec<u32>>,
    /// Text by choice.
    pub text: BTreeMap<u32, String>,
    /// Log probabilities by choice, one per token.
    pub logprobs: BTreeMap<u32, Vec<v1::TokenLogprob>>,
    /// Why each choice ended.
    pub finish: BTreeMap<u32, v1::FinishKind>,
    /// Counts, and who did the work.
    pub usage: Option<Usage>,
}

// === impl Grpc ===

impl Grpc {
    /// Connects to the service at `addr`.
    ///
    /// # Panics
    /// If it cannot be reached.
    pub async fn connect(addr: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{addr}")).expect("an address");
        let channel = endpoint.timeout(REQUEST_PATIENCE).connect().await;
        Self { channel: channel.unwrap_or_else(|error| panic!("gRPC at {addr}: {error:?}")) }
    }

    /// The same, connecting when it is used, and again after a break.
    ///
    /// # Panics
    /// Never: an address is one.
    #[must_use]
    pub fn lazy(addr: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{addr}")).expect("an address");
        Self { channel: endpoint.timeout(REQUEST_PATIENCE).connect_lazy() }
    }

    /// The connection, for other services on it.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Begins a request. Dropping the stream cancels it.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn open(
        &self,
        request: v1::InferenceRequest,
    ) -> Result<Streaming<v1::InferenceResponse>, Status> {
        Ok(InferenceClient::new(self.channel()).generate(request).await?.into_inner())
    }

    /// A request to its end.
    ///
    /// # Errors
    /// The server's refusal, or the error that ended the stream.
    pub async fn generate(&self, request: v1::InferenceRequest) -> Result<Generated, Status> {
        let mut stream = self.open(request).await?;
        let mut generated = Generated::default();
        while let Some(response) = stream.message().await? {
            generated.take(response);
        }
        Ok(generated)
    }

    /// The models served.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn models(&self) -> Result<Vec<v1::list_models_response::Model>, Status> {
        let request = v1::ListModelsRequest {};
        Ok(InferenceClient::new(self.channel()).list_models(request).await?.into_inner().models)
    }
}

/// A greedy request that runs to exactly `max_tokens`.
#[must_use]
pub fn token_request(prompt: &[u32], max_tokens: u32) -> v1::InferenceRequest {
    let ids = v1::TokenIds { ids: prompt.to_vec() };
    v1::InferenceRequest {
        input: Some(v1::inference_request::Input::TokenIds(ids)),
        max_tokens: Some(max_tokens),
        temperature: Some(0.0),
        ignore_eos: true,
        ..v1::InferenceRequest::default()
    }
}

// === impl Generated ===

impl Generated {
    /// The token ids of the first choice.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        self.tokens.get(&0).map_or(&[], Vec::as_slice)
    }

    /// The text of the first choice.
    #[must_use]
    pub fn text(&self) -> &str {
        self.text.get(&0).map_or("", String::as_str)
    }

    /// Counts, and who did the work.
    ///
    /// # Panics
    /// If the stream ended without them.
    #[must_use]
    pub fn usage(&self) -> &Usage {
        self.usage.as_ref().expect("a usage message")
    }

    /// Adds one message.
    pub fn take(&mut self, response: v1::InferenceResponse) {
        match response.event {
            Some(Event::Delta(delta)) => {
                self.text.entry(delta.choice).or_default().push_str(&delta.text);
                self.tokens.entry(delta.choice).or_default().extend(delta.token_ids);
                self.logprobs.entry(delta.choice).or_default().extend(delta.logprobs);
            }
            Some(Event::Finished(finished)) => {
                self.finish.insert(finished.choice, finished.kind());
            }
            Some(Event::Usage(usage)) => self.usage = Some(usage),
            Some(Event::Started(_)) | None => {}
        }
    }
}

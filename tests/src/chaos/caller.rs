//! A client: asks, reads the answer in its own manner, and says what came of it.

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tonic::{Code, Status};

use super::case::Case;
use super::heard::Heard;
use super::ledger::Ledger;
use super::plan::Target;
use super::tally::{Ending, Tally};
use crate::client::grpc::Grpc;
use crate::client::http::{Client, Failure};

/// Long against every fault and all that follow from it.
pub(super) const DEADLINE: Duration = Duration::from_secs(40);
/// A router that stands still, or a wire, tells late that the deadline has passed.
const GRACE: Duration = Duration::from_secs(15);
/// Before the next request, after one that did not go well.
const BREATH: Duration = Duration::from_millis(200);

/// One client of many.
pub(super) struct Caller {
    pub(super) name: String,
    pub(super) rng: ChaCha8Rng,
    pub(super) doors: Vec<Door>,
    pub(super) campaign: Arc<Campaign>,
}

/// What all clients have in common.
pub(super) struct Campaign {
    pub(super) cases: Vec<Case>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) tally: Arc<Tally>,
    pub(super) is_over: AtomicBool,
}

/// The way in at one router.
pub(super) struct Door {
    router: Target,
    http: Client,
    grpc: Grpc,
}

/// How a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Eager,
    /// A pause before each event.
    Slow(Duration),
    /// Gone after so many events.
    Leaves(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Whole,
    Stream(Pace),
    Grpc(Pace),
}

/// How a conversation came to its end.
#[derive(Debug)]
enum End {
    /// As one that is whole does.
    Done,
    /// The client went.
    Left,
    Refused,
    /// With an error that says so.
    Failed(String),
    /// With an error that is none for this request.
    Absurd(String),
    /// By the connection.
    Broken(String),
}

// === impl Door ===

impl Door {
    /// By HTTP and gRPC, over connections of its own.
    pub(super) fn new(router: Target, http: SocketAddr, grpc: SocketAddr) -> Self {
        let http = Client::new(http).with_deadline(DEADLINE);
        Self { router, http, grpc: Grpc::lazy(grpc) }
    }
}

// === impl Caller ===

impl Caller {
    /// Asks, one request after the other, until it is over.
    pub(super) async fn run(mut self) {
        let campaign = self.campaign.clone();
        while !campaign.is_over.load(Ordering::Relaxed) {
            let case = campaign.cases.choose(&mut self.rng).expect("a case");
            let manner = Manner::random(&mut self.rng);
            let door = self.doors.choose(&mut self.rng).expect("a door");
            let began = Instant::now();
            let ending = campaign.ask(door, case, manner, began).await;
            if matches!(ending, Ending::Refused | Ending::Parted | Ending::Failed(_)) {
                tokio::time::sleep(BREATH).await; // As a client does that is told to come back.
            }
            let (name, took) = (&self.name, began.elapsed());
            let router = door.router.name();
            let told = || format!("{name} at {router}, {manner:?}, after {took:.1?}");
            campaign.tally.ended(ending, took, told);
        }
    }
}

// === impl Campaign ===

impl Campaign {
    async fn ask(&self, door: &Door, case: &Case, manner: Manner, began: Instant) -> Ending {
        let mut heard = Heard::default();
        let conversation = async {
            match manner {
                Manner::Whole => door.whole(case, &mut heard).await,
                Manner::Stream(pace) => door.stream(case, pace, &mut heard).await,
                Manner::Grpc(pace) => door.grpc(case, pace, &mut heard).await,
            }
        };
        let end = tokio::time::timeout(DEADLINE + GRACE, conversation).await;
        if let Err(why) = heard.agrees(case) {
            return Ending::Wrong(format!("{why}; {case:?}"));
        }
        if heard.is_handed_over {
            self.tally.handed_over();
        }
        let has_parted = || self.ledger.has_parted(door.router, began);
        match end {
            Err(_) => Ending::Hung,
            Ok(End::Done) => heard.is_whole(case).map_or_else(Ending::Wrong, |()| Ending::Right),
            Ok(End::Left) => Ending::Left,
            Ok(End::Refused) => Ending::Refused,
            Ok(End::Absurd(why)) => Ending::Wrong(why),
            Ok(End::Failed(kind)) if has_parted() => {
                Ending::Failed(format!("{kind} (its router was ended)"))
            }
            Ok(End::Failed(kind)) if self.ledger.had_none(began) => {
                Ending::Failed(format!("{kind} (no worker of a kind)"))
            }
            Ok(End::Broken(_)) if has_parted() => Ending::Parted,
            Ok(End::Failed(why) | End::Broken(why)) => Ending::Lost(why),
        }
    }
}

// === impl Manner ===

impl Manner {
    fn random(rng: &mut ChaCha8Rng) -> Self {
        let pace = Pace::random(rng);
        match rng.random_range(0..10) {
            0..3 => Self::Whole,
            3..7 => Self::Stream(pace),
            _ => Self::Grpc(pace),
        }
    }
}

// === impl Pace ===

impl Pace {
    fn random(rng: &mut ChaCha8Rng) -> Self {
        match rng.random_range(0..10) {
            0 => Self::Leaves(rng.random_range(0..20)),
            1 => Self::Slow(Duration::from_millis(rng.random_range(2..15))),
            _ => Self::Eager,
        }
    }

    /// Waits for its turn to read event number `index`; false if the client is gone by then.
    async fn wait(self, index: usize) -> bool {
        match self {
            Self::Eager => {}
            Self::Slow(pause) => tokio::time::sleep(pause).await,
            Self::Leaves(after) => return index < after,
        }
        true
    }
}

// === impl Door ===

impl Door {
    async fn whole(&self, case: &Case, heard: &mut Heard) -> End {
        match self.http.whole(case.path(), &case.body()).await {
            Ok(answer) => {
                heard.take_json(&answer);
                End::Done
            }
            Err(failure) => failure.into(),
        }
    }

    async fn stream(&self, case: &Case, pace: Pace, heard: &mut Heard) -> End {
        self.stream_to_its_end(case, pace, heard).await.unwrap_or_else(End::from)
    }

    async fn stream_to_its_end(
        &self,
        case: &Case,
        pace: Pace,
        heard: &mut Heard,
    ) -> Result<End, Failure> {
        let mut stream = self.http.open(case.path(), &case.body()).await?;
        let mut is_done = false;
        for index in 0.. {
            if !pace.wait(index).await {
                return Ok(End::Left);
            }
            let Some(event) = stream.next().await? else { break };
            if event == "[DONE]" {
                is_done = true;
                continue;
            }
            let event: Value = serde_json::from_str(&event).unwrap_or_default();
            if !event["error"].is_null() {
                return Ok(End::of_error(&event));
            }
            heard.take_json(&event);
        }
        Ok(if is_done { End::Done } else { End::Absurd("a stream ended without a word".into()) })
    }

    async fn grpc(&self, case: &Case, pace: Pace, heard: &mut Heard) -> End {
        self.grpc_to_its_end(case, pace, heard).await.unwrap_or_else(|status| End::from(&status))
    }

    async fn grpc_to_its_end(
        &self,
        case: &Case,
        pace: Pace,
        heard: &mut Heard,
    ) -> Result<End, Status> {
        let timeout_ms = DEADLINE.as_millis().try_into().expect("a short time");
        let mut stream = self.grpc.open(case.request(timeout_ms)).await?;
        for index in 0.. {
            if !pace.wait(index).await {
                return Ok(End::Left);
            }
            let Some(message) = stream.message().await? else { break };
            heard.take_message(message);
        }
        Ok(End::Done)
    }
}

// === impl End ===

impl End {
    /// What `error` in an answer's body, or in an event, says.
    fn of_error(body: &Value) -> Self {
        let error = &body["error"];
        match (error["type"].as_str(), error["code"].as_str()) {
            (Some("server_error" | "timeout_error"), Some(code)) => {
                Self::Failed(format!("{code}: {}", error["message"].as_str().unwrap_or_default()))
            }
            (Some("rate_limit_error"), _) => Self::Refused,
            _ => Self::Absurd(format!("an error for nothing: {error}")),
        }
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        let Some(status) = failure.status else { return Self::Broken(failure.detail) };
        if status.as_u16() == 429 && !failure.headers.contains_key("retry-after") {
            return Self::Absurd(format!("429 without a time: {}", failure.detail));
        }
        Self::of_error(&serde_json::from_str(&failure.detail).unwrap_or_default())
    }
}

impl From<&Status> for End {
    fn from(status: &Status) -> Self {
        // Only what failed on this side has a cause.
        if status.source().is_some() {
            return Self::Broken(format!("{status:?}"));
        }
        let said = format!("{:?}: {}", status.code(), status.message());
        match status.code() {
            Code::ResourceExhausted => Self::Refused,
            Code::Unavailable | Code::DeadlineExceeded | Code::Internal | Code::DataLoss => {
                Self::Failed(said)
            }
            _ => Self::Absurd(said),
        }
    }
}

//! Of what a busy worker has too little: a word that goes along with its refusal, for the client to hear.

use tonic::Status;
use tonic::metadata::MetadataValue;

/// What is short at a worker that refuses. Its own words are for the log: they may name workers and addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// Those that run hold the memory and the places for too long.
    Room,
    /// The prompts before it take too long.
    Prompts,
    /// Its steps take longer than tokens may.
    Pace,
    /// The line is as long as it may be.
    Line,
}

/// The header that has it.
const MARK: &str = "baton-shortage";

// === impl Shortage ===

impl Shortage {
    const ALL: [Self; 4] = [Self::Room, Self::Prompts, Self::Pace, Self::Line];

    /// On the wire, and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Room => "room",
            Self::Prompts => "prompts",
            Self::Pace => "pace",
            Self::Line => "line",
        }
    }

    /// As a client is told.
    #[must_use]
    pub fn told(self) -> &'static str {
        match self {
            Self::Room => "KV memory or places would be free too late",
            Self::Prompts => "the first token would come too late",
            Self::Pace => "tokens would come too slowly",
            Self::Line => "as many requests wait as may",
        }
    }

    /// Adds it to a refusal.
    pub fn mark(self, status: &mut Status) {
        status.metadata_mut().insert(MARK, MetadataValue::from_static(self.name()));
    }

    /// What was short, if a node of ours has said it.
    #[must_use]
    pub fn of(status: &Status) -> Option<Self> {
        let mark = status.metadata().get(MARK)?;
        Self::ALL.into_iter().find(|shortage| mark == shortage.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    #[test]
    fn what_is_short_arrives_as_it_was_sent() {
        for shortage in Shortage::ALL {
            let mut refusal = ErrorCode::Busy.status("full");
            shortage.mark(&mut refusal);
            let mut headers = http::HeaderMap::new();
            refusal.add_header(&mut headers).unwrap();
            let arrived = Status::from_header_map(&headers).unwrap();
            assert_eq!(Shortage::of(&arrived), Some(shortage));
            assert_eq!(ErrorCode::from(&arrived), ErrorCode::Busy);
        }
        assert_eq!(Shortage::of(&Status::resource_exhausted("a proxy's word")), None);
    }
}

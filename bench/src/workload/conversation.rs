//! Chats of several turns.

use std::time::Duration;

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Input, Session, Turn};

/// Chats whose prompts grow: what prefix caches and sticky placement are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// How many chats; `None`: no end of them.
    pub sessions: Option<usize>,
    /// Requests of a chat.
    pub turns: usize,
    /// Words of the first message: the document that is talked about.
    pub first_words: usize,
    /// Words of each later message.
    pub turn_words: usize,
    /// Tokens of each answer.
    pub output_tokens: u32,
    /// Between an answer and the next message.
    pub think: Duration,
}

/// Common words: one or two tokens each in any vocabulary.
const WORDS: [&str; 64] = [
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
    "country",
    "problem",
    "hand",
    "part",
    "place",
    "case",
    "week",
    "company",
    "system",
    "program",
    "question",
    "work",
    "government",
    "number",
    "night",
    "point",
    "home",
    "water",
    "room",
    "mother",
    "area",
    "money",
    "story",
    "fact",
    "month",
    "lot",
    "right",
    "study",
    "book",
    "eye",
    "job",
    "word",
    "business",
    "issue",
    "side",
    "kind",
    "head",
    "house",
    "service",
    "friend",
    "father",
    "power",
    "hour",
    "game",
    "line",
    "end",
    "member",
    "law",
];

// === impl Conversation ===

impl Conversation {
    pub(super) fn sessions(&self, seed: u64) -> impl Iterator<Item = Session> + Send + '_ {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..self.sessions.unwrap_or(usize::MAX)).map(move |_| self.session(&mut rng))
    }

    pub(super) fn describe(&self) -> String {
        let sessions = self.sessions.map_or(String::new(), |sessions| format!("{sessions} "));
        format!(
            "{sessions}chats of {} turns, {} + {} words a turn in, {} tokens out, {:?} to think",
            self.turns, self.first_words, self.turn_words, self.output_tokens, self.think
        )
    }

    fn session(&self, rng: &mut ChaCha8Rng) -> Session {
        let turns = (0..self.turns).map(|turn| {
            let words = if turn == 0 { self.first_words } else { self.turn_words };
            let input = Input::Message(message(words, rng));
            Turn { input, output_tokens: self.output_tokens, after: self.think }
        });
        Session { at: None, turns: turns.collect() }
    }
}

/// Random words; the number in front keeps any two messages apart from their first token on.
fn message(words: usize, rng: &mut ChaCha8Rng) -> String {
    let mut text = rng.random_range(0..1_000_000_u32).to_string();
    for _ in 0..words {
        text.push(' ');
        text.push_str(WORDS.choose(rng).copied().unwrap_or("word"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chats_have_their_turns_and_repeat_with_the_seed() {
        let conversation = Conversation {
            sessions: Some(4),
            turns: 3,
            first_words: 50,
            turn_words: 5,
            output_tokens: 9,
            think: Duration::from_millis(10),
        };
        let sessions: Vec<Session> = conversation.sessions(1).collect();
        assert_eq!(sessions.len(), 4);
        for session in &sessions {
            let words: Vec<usize> = session
                .turns
                .iter()
                .map(|turn| match &turn.input {
                    Input::Message(text) => text.split(' ').count() - 1,
                    Input::Ids(_) => panic!("want messages"),
                })
                .collect();
            assert_eq!(words, [50, 5, 5]);
        }
        assert!(conversation.sessions(1).eq(sessions));
    }
}

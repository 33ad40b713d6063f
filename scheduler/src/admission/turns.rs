//! How much of what waits comes before a request, when clients take turns.
//!
//! Places are counted in sequences: one request with 64 choices takes as much as 64 requests. Prompts are counted in
//! tokens ([`Backlog`]).

use std::collections::HashMap;

use words::ClientId;

use crate::Backlog;

/// The sequences that each client has under way, and how many of them still wait.
#[derive(Debug, Default)]
pub struct Turns {
    clients: HashMap<ClientId, Count>,
    all: Count,
    prompts: Backlog,
}

/// What a request takes of the turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Sequences.
    pub width: u32,
    /// Tokens to compute before the first new one.
    pub prompt_tokens: u32,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nobody works on it.
    #[default]
    Waits,
    /// Its prompt is computed.
    Computes,
    /// It has its first token.
    Speaks,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    open: u32,
    waiting: u32,
}

// === impl Turns ===

impl Turns {
    /// A request of `client` begins to wait.
    pub fn begin(&mut self, client: ClientId, size: Size) {
        self.prompts.add(client, size.prompt_tokens.into());
        self.change(client, |count| {
            count.open += size.width;
            count.waiting += size.width;
        });
    }

    /// One of its requests has come further.
    pub fn advance(&mut self, client: ClientId, size: Size, from: Stage, to: Stage) {
        let passes = |stage| from < stage && stage <= to;
        if passes(Stage::Computes) {
            self.change(client, |count| count.waiting -= size.width);
        }
        if passes(Stage::Speaks) {
            self.prompts.remove(client, size.prompt_tokens.into());
        }
    }

    /// One of its requests has ended.
    ///
    /// - `at`: how far it had come.
    pub fn end(&mut self, client: ClientId, size: Size, at: Stage) {
        self.advance(client, size, at, Stage::Speaks);
        self.change(client, |count| count.open -= size.width);
        if self.of(client) == Count::default() {
            self.clients.remove(&client);
        }
    }

    /// The share of what waits that comes before a request of `client` for `width` more: of every other client as many
    /// as it has waiting itself, and those.
    #[must_use]
    pub fn share_ahead(&self, client: ClientId, width: u32) -> f64 {
        if self.all.waiting == 0 {
            return 1.0;
        }
        let own = self.of(client).waiting;
        let others = self.clients.iter().filter(|(id, _)| **id != client);
        let ahead: u32 = others.map(|(_, count)| count.waiting.min(own + width)).sum();
        f64::from(own + ahead) / f64::from(self.all.waiting)
    }

    /// The share of what is still to be computed of prompts that comes before `prompt_tokens` more of `client`.
    #[must_use]
    pub fn prompt_share_ahead(&self, client: ClientId, prompt_tokens: u32) -> f64 {
        self.prompts.share_ahead(client, prompt_tokens.into())
    }

    /// Whether `client` would still have no more than an equal share with `width` more.
    #[must_use]
    pub fn is_short(&self, client: ClientId, width: u32) -> bool {
        let own = self.of(client).open;
        let clients = self.clients.len() as u32 + u32::from(own == 0);
        clients > 1 && (own + width).saturating_mul(clients) <= self.all.open
    }

    fn of(&self, client: ClientId) -> Count {
        self.clients.get(&client).copied().unwrap_or_default()
    }

    fn change(&mut self, client: ClientId, change: impl Fn(&mut Count)) {
        change(self.clients.entry(client).or_default());
        change(&mut self.all);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// `a:open/waiting b:open/waiting`.
    fn turns(text: &str) -> Turns {
        let mut turns = Turns::default();
        for one in text.split_whitespace() {
            let (client, counts) = one.split_once(':').unwrap();
            let (open, waiting) = counts.split_once('/').unwrap();
            let (open, waiting): (u32, u32) = (open.parse().unwrap(), waiting.parse().unwrap());
            for number in 0..open {
                turns.begin(id(client), ONE);
                if number >= waiting {
                    turns.advance(id(client), ONE, Stage::Waits, Stage::Computes);
                }
            }
        }
        turns
    }

    const ONE: Size = Size { width: 1, prompt_tokens: 100 };

    fn id(name: &str) -> ClientId {
        ClientId(name.bytes().map(u64::from).sum())
    }

    /// Each case: what is under way, who asks, how much of what waits is ahead, and whether it is short.
    #[rstest]
    #[case::nobody("", "a", 1.0, false)]
    #[case::alone("a:9/5", "a", 1.0, false)]
    #[case::behind_a_crowd("a:150/100", "b", 0.01, true)]
    #[case::the_crowd_itself("a:150/100 b:1/1", "a", 1.0, false)]
    #[case::in_the_middle("a:10/8 b:2/2", "b", 0.5, true)]
    #[case::as_many_as_others("a:4/2 b:4/2", "b", 1.0, false)]
    #[case::nobody_waits("a:64/0", "b", 1.0, true)]
    fn clients_take_turns(
        #[case] under_way: &str,
        #[case] client: &str,
        #[case] ahead: f64,
        #[case] short: bool,
    ) {
        let turns = turns(under_way);
        assert!((turns.share_ahead(id(client), 1) - ahead).abs() < 1e-9);
        assert_eq!(turns.is_short(id(client), 1), short);
    }

    #[test]
    fn a_wide_request_is_many() {
        let mut turns = Turns::default();
        let wide = Size { width: 64, prompt_tokens: 100 };
        turns.begin(id("a"), wide);
        turns.advance(id("a"), wide, Stage::Waits, Stage::Computes);
        assert!(
            turns.is_short(id("b"), 1)
                && !turns.is_short(id("b"), 64)
                && !turns.is_short(id("a"), 1)
        );
        turns.begin(id("a"), wide);
        assert!((turns.share_ahead(id("b"), 16) - 0.25).abs() < 1e-9);
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let mut turns = turns("a:2/1 b:1/1");
        turns.end(id("a"), ONE, Stage::Computes);
        turns.end(id("a"), ONE, Stage::Waits);
        turns.advance(id("b"), ONE, Stage::Waits, Stage::Speaks);
        turns.end(id("b"), ONE, Stage::Speaks);
        assert!(turns.clients.is_empty());
        assert_eq!((turns.all, turns.prompts.total()), (Count::default(), 0));
    }

    #[test]
    fn a_short_prompt_waits_for_little_of_the_long_ones() {
        let mut turns = Turns::default();
        let long = Size { width: 1, prompt_tokens: 2_000 };
        (0..2).for_each(|_| turns.begin(id("a"), long));
        assert!((turns.share_ahead(id("b"), 1) - 0.5).abs() < 1e-9, "a place is a place");
        turns.advance(id("a"), long, Stage::Waits, Stage::Computes);
        assert!((turns.prompt_share_ahead(id("b"), 40) - 0.01).abs() < 1e-9);
        assert!((turns.prompt_share_ahead(id("a"), 40) - 1.0).abs() < 1e-9);
    }
}

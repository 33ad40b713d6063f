//! Prompt tokens that are still to be computed, by client, and whose come first.
//!
//! Steps share their room for prompts by one rule: half of it is the oldest prompt's, so that each is computed some
//! day; of the rest the client that wants least comes first. So a short prompt isn't held up by another client's
//! long ones, however many there are, and prompts of equal length are computed one after the other, as that answers
//! more of them early than a bit of each would.

use std::collections::HashMap;

use words::ClientId;

/// Prompt tokens that clients are waiting for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    clients: HashMap<ClientId, u64>,
    total: u64,
}

/// What is left of a step's prompt tokens for each client.
#[derive(Debug)]
pub(crate) struct Shares(Option<HashMap<ClientId, u32>>);

/// What the oldest prompt of a step is owed of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owed {
    pub(crate) client: ClientId,
    pub(crate) tokens: u32,
}

// === impl Backlog ===

impl Backlog {
    /// `tokens` more of `client`'s are to be computed.
    pub fn add(&mut self, client: ClientId, tokens: u64) {
        if tokens > 0 {
            *self.clients.entry(client).or_default() += tokens;
            self.total += tokens;
        }
    }

    /// `tokens` of those added are no longer to be computed.
    pub fn remove(&mut self, client: ClientId, tokens: u64) {
        let Some(own) = self.clients.get_mut(&client) else { return };
        let gone = tokens.min(*own);
        *own -= gone;
        self.total -= gone;
        if *own == 0 {
            self.clients.remove(&client);
        }
    }

    /// Adds what is in `other`.
    pub fn extend(&mut self, other: &Self) {
        other.clients.iter().for_each(|(client, tokens)| self.add(*client, *tokens));
    }

    /// Tokens of all clients.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Tokens computed before `tokens` more of `client` are: its own, those of clients that want no more, and as many of
    /// the oldest prompt, if that is of one that wants more.
    #[must_use]
    pub fn ahead_of(&self, client: ClientId, tokens: u64) -> u64 {
        let own = self.of(client);
        let wanted = own.saturating_add(tokens);
        let others = self.clients.iter().filter(|(id, _)| **id != client).map(|(_, count)| *count);
        let (mut less, mut eldest) = (0, 0);
        for count in others {
            if count <= wanted {
                less += count;
            } else {
                eldest = wanted;
            }
        }
        own + less + eldest
    }

    /// [`Backlog::ahead_of`] as a share of all; all of nothing.
    #[must_use]
    pub fn share_ahead(&self, client: ClientId, tokens: u64) -> f64 {
        match self.total {
            0 => 1.0,
            total => self.ahead_of(client, tokens) as f64 / total as f64,
        }
    }

    fn of(&self, client: ClientId) -> u64 {
        self.clients.get(&client).copied().unwrap_or_default()
    }
}

// === impl Shares ===

impl Shares {
    /// Whoever comes first takes what it can.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Divides `left` tokens of a step among the clients of `wanted`.
    pub(crate) fn of(wanted: &Backlog, mut left: u32, eldest: Option<Owed>) -> Self {
        if wanted.clients.len() < 2 {
            return Self::none();
        }
        let mut shares: HashMap<ClientId, u32> = HashMap::new();
        if let Some(Owed { client, tokens }) = eldest {
            let kept = tokens.min(left);
            shares.insert(client, kept);
            left -= kept;
        }
        let mut by_need: Vec<(u64, ClientId)> =
            wanted.clients.iter().map(|(client, tokens)| (*tokens, *client)).collect();
        by_need.sort_unstable();
        for (tokens, client) in by_need {
            let share = shares.entry(client).or_default();
            let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
            let more = tokens.saturating_sub(*share).min(left);
            *share += more;
            left -= more;
        }
        Self(Some(shares))
    }

    /// What `client` may still take.
    pub(crate) fn left(&self, client: ClientId) -> u32 {
        let Self(Some(shares)) = self else { return u32::MAX };
        shares.get(&client).copied().unwrap_or_default()
    }

    /// `client` took `tokens` of it.
    pub(crate) fn take(&mut self, client: ClientId, tokens: u32) {
        if let Self(Some(shares)) = self
            && let Some(share) = shares.get_mut(&client)
        {
            *share = share.saturating_sub(tokens);
        }
    }

    /// `client` gives `tokens` of it back.
    pub(crate) fn give_back(&mut self, client: ClientId, tokens: u32) {
        if let Self(Some(shares)) = self
            && let Some(share) = shares.get_mut(&client)
        {
            *share += tokens;
        }
    }

    /// Lets anybody have what is left; whether there were shares.
    pub(crate) fn lift(&mut self) -> bool {
        self.0.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// `a:tokens b:tokens`.
    fn backlog(text: &str) -> Backlog {
        let mut backlog = Backlog::default();
        for one in text.split_whitespace() {
            let (client, tokens) = one.split_once(':').unwrap();
            backlog.add(id(client), tokens.parse().unwrap());
        }
        backlog
    }

    fn id(name: &str) -> ClientId {
        ClientId(name.bytes().map(u64::from).sum())
    }

    /// Each case: what is to be computed, and how much of it before 50 tokens of `b`.
    #[rstest]
    #[case::nothing("", 0)]
    #[case::its_own("b:70", 70)]
    #[case::a_long_one_is_met_half_way("a:2000", 50)]
    #[case::many_long_ones_as_one("a:2000 c:3000 d:4000", 50)]
    #[case::as_long_ones_came_before("a:50 c:50 d:4000", 150)]
    #[case::shorter_ones_whole("a:10 c:20 d:4000", 80)]
    #[case::behind_its_own("a:100 b:70", 190 - 20)]
    fn whoever_wants_least_comes_first(#[case] waiting: &str, #[case] ahead: u64) {
        let backlog = backlog(waiting);
        assert_eq!(backlog.ahead_of(id("b"), 50), ahead);
        assert!(backlog.total() == 0 || backlog.share_ahead(id("b"), 50) <= 1.0);
    }

    /// Each case: what clients want, whose prompt is the oldest and what it is owed, and how 64 tokens are shared.
    #[rstest]
    #[case::less_first("a:400 b:20 c:30", None, "a:14 b:20 c:30")]
    #[case::half_for_the_oldest("a:400 b:20 c:30", Some(("a", 32)), "a:32 b:20 c:12")]
    #[case::no_more_than_it_needs("a:10 b:50", Some(("a", 10)), "a:10 b:50")]
    #[case::the_oldest_of_equals_first("a:100 b:200", Some(("a", 32)), "a:64 b:0")]
    #[case::its_client_has_more("a:100 b:20", Some(("a", 10)), "a:44 b:20")]
    fn a_step_is_shared(
        #[case] wanted: &str,
        #[case] eldest: Option<(&str, u32)>,
        #[case] want: &str,
    ) {
        let eldest = eldest.map(|(name, tokens)| Owed { client: id(name), tokens });
        let shares = Shares::of(&backlog(wanted), 64, eldest);
        for one in want.split_whitespace() {
            let (client, tokens) = one.split_once(':').unwrap();
            assert_eq!(shares.left(id(client)), tokens.parse::<u32>().unwrap(), "{client}");
        }
    }

    #[test]
    fn what_is_done_is_forgotten() {
        let mut backlog = backlog("a:20 b:5");
        backlog.remove(id("a"), 20);
        backlog.remove(id("b"), 9);
        backlog.remove(id("c"), 1);
        assert_eq!(backlog, Backlog::default());
    }
}

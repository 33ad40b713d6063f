//! Single prompts of one length.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{IDS, Input, Session};

/// Prompts of random tokens: no two have a block in common beyond `shared_tokens`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// Tokens of a prompt.
    pub input_tokens: u32,
    /// Tokens of an answer.
    pub output_tokens: u32,
    /// Leading tokens that all prompts have in common, like a system prompt.
    pub shared_tokens: u32,
    /// Lengths vary evenly by this share in both directions; 0: all equal.
    pub spread: Spread,
    /// How many; `None`: no end of them.
    pub requests: Option<usize>,
}

/// A share in percent, 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread(pub u32);

// === impl Fixed ===

impl Fixed {
    pub(super) fn sessions(&self, seed: u64) -> impl Iterator<Item = Session> + Send + '_ {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let shared: Vec<u32> =
            (0..self.shared_tokens.min(self.input_tokens)).map(|_| rng.random_range(IDS)).collect();
        (0..self.requests.unwrap_or(usize::MAX)).map(move |_| {
            let input = self.spread.around(self.input_tokens, &mut rng) as usize;
            let output = self.spread.around(self.output_tokens, &mut rng);
            let mut ids: Vec<u32> = shared.iter().copied().take(input).collect();
            ids.resize_with(input, || rng.random_range(IDS));
            Session::single(Input::Ids(ids), output)
        })
    }

    pub(super) fn describe(&self) -> String {
        let Self { input_tokens, output_tokens, shared_tokens, spread, requests } = self;
        let requests = requests.map_or(String::new(), |requests| format!("{requests} "));
        let mut text = format!("{requests}requests, {input_tokens} in, {output_tokens} out");
        if spread.0 > 0 {
            text += &format!(", +-{} %", spread.0);
        }
        if *shared_tokens > 0 {
            text += &format!(", {shared_tokens} shared");
        }
        text
    }
}

// === impl Spread ===

impl Spread {
    /// A length around `tokens`, at least 1.
    fn around(self, tokens: u32, rng: &mut ChaCha8Rng) -> u32 {
        let reach = u32::try_from(u64::from(tokens) * u64::from(self.0) / 100).unwrap_or(tokens);
        rng.random_range(tokens.saturating_sub(reach)..=tokens.saturating_add(reach)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(session: &Session) -> &[u32] {
        match &session.turns[0].input {
            Input::Ids(ids) => ids,
            Input::Message(_) => panic!("want ids"),
        }
    }

    #[test]
    fn prompts_share_what_they_should_and_nothing_more() {
        let fixed = Fixed {
            input_tokens: 100,
            output_tokens: 7,
            shared_tokens: 40,
            spread: Spread(0),
            requests: Some(20),
        };
        let sessions: Vec<Session> = fixed.sessions(3).collect();
        assert_eq!(sessions.len(), 20);
        for pair in sessions.windows(2) {
            assert_eq!(ids(&pair[0]).len(), 100);
            assert_eq!(ids(&pair[0])[..40], ids(&pair[1])[..40]);
            assert_ne!(ids(&pair[0])[40..56], ids(&pair[1])[40..56], "a block in common");
        }
        assert!(fixed.sessions(3).eq(sessions.iter().cloned()), "the same seed, the same sessions");
        assert!(!fixed.sessions(4).eq(sessions), "another seed, other sessions");
    }

    #[test]
    fn a_spread_reaches_both_ways_and_no_further() {
        let fixed = Fixed {
            input_tokens: 100,
            output_tokens: 1,
            shared_tokens: 0,
            spread: Spread(50),
            requests: Some(500),
        };
        let lengths: Vec<usize> = fixed.sessions(1).map(|session| ids(&session).len()).collect();
        let (shortest, longest) = (lengths.iter().min(), lengths.iter().max());
        assert!(shortest >= Some(&50) && shortest <= Some(&55), "{shortest:?}");
        assert!(longest <= Some(&150) && longest >= Some(&145), "{longest:?}");
    }
}

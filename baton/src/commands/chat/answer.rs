//! An answer as it arrives.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use bench::ServerError;
use bench::server::Refusal;
use console::{Term, style};
use serde_json::Value;

use super::wrap::Wrap;
use crate::out;

/// Of tokens that come within less, a rate says nothing about the next ones.
const RATE_SPAN_MIN: Duration = Duration::from_millis(20);

/// An answer, shown as it arrives.
pub(super) struct Answer {
    asked: Instant,
    first_after: Option<Duration>,
    /// When its end was told, or the last of its text.
    last_after: Duration,
    text: String,
    wrap: Wrap,
    tokens: u64,
    path: Option<String>,
    finish: Option<String>,
    is_done: bool,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With all there is to say.
    Whole,
    /// At the longest that was asked for, or that fits.
    Cut,
    /// The user had heard enough.
    Interrupted,
}

// === impl Answer ===

impl Default for Answer {
    fn default() -> Self {
        let width = Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
        Self {
            asked: Instant::now(),
            first_after: None,
            last_after: Duration::ZERO,
            text: String::new(),
            wrap: Wrap::new(width.filter(|_| std::io::stdout().is_terminal())),
            tokens: 0,
            path: None,
            finish: None,
            is_done: false,
        }
    }
}

impl Answer {
    /// The server has begun to answer.
    pub(super) fn begin(&mut self, path: Option<&str>) {
        self.path = path.map(str::to_owned);
    }

    /// What was said so far.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Takes an event.
    ///
    /// # Errors
    /// If it is none, or says that the answer broke off, or nobody reads the answer.
    pub(super) fn take(&mut self, event: &[u8]) -> Result<()> {
        if event == b"[DONE]" {
            self.is_done = true;
            return Ok(());
        }
        let broken = |_| ServerError::Misunderstood("an event is not JSON".into());
        let event: Value = serde_json::from_slice(event).map_err(broken)?;
        if let Some(refusal) = Refusal::of_event(&event) {
            return Err(ServerError::Refused(refusal).into());
        }
        if let Some(tokens) = event["usage"]["completion_tokens"].as_u64() {
            self.tokens = tokens;
        }
        let choice = &event["choices"][0];
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish = Some(reason.to_owned());
            self.last_after = self.asked.elapsed();
        }
        match choice["delta"]["content"].as_str() {
            Some(text) if !text.is_empty() => self.say(text),
            _ => Ok(()),
        }
    }

    /// How it ended, once the server has nothing more to say.
    ///
    /// # Errors
    /// If it broke off.
    pub(super) fn ended(&self) -> Result<Ended, ServerError> {
        match (self.is_done, self.finish.as_deref()) {
            (_, Some("length")) => Ok(Ended::Cut),
            (true, _) | (_, Some(_)) => Ok(Ended::Whole),
            (false, None) => Err(ServerError::Broken("it closed the connection".into())),
        }
    }

    /// Ends the line, and says how it went where somebody watches.
    ///
    /// # Errors
    /// If nobody reads the answer.
    pub(super) fn close(&mut self, ended: Option<&Ended>) -> Result<()> {
        let rest = self.wrap.finish();
        let has_line = !self.text.is_empty() || ended.is_some();
        out::write(format_args!("{rest}{}", if has_line { "\n" } else { "" }))?;
        match ended {
            Some(ended) if std::io::stdout().is_terminal() => {
                out::line(style(self.figures(*ended)).dim())
            }
            _ => Ok(()),
        }
    }

    fn say(&mut self, text: &str) -> Result<()> {
        self.last_after = self.asked.elapsed();
        self.first_after.get_or_insert(self.last_after);
        self.text.push_str(text);
        out::write(self.wrap.push(text))
    }

    /// Tokens and times in a few words.
    fn figures(&self, ended: Ended) -> String {
        let mut parts = Vec::new();
        match ended {
            Ended::Whole => {}
            Ended::Cut => {
                parts.push("cut at its longest (--max-tokens, or the context)".to_owned());
            }
            Ended::Interrupted => parts.push("interrupted".to_owned()),
        }
        if self.tokens > 0 {
            parts.push(format!("{} tokens", self.tokens));
        }
        if let Some(first) = self.first_after {
            parts.push(format!("first after {:.0} ms", first.as_secs_f64() * 1e3));
            let span = self.last_after.saturating_sub(first);
            if self.tokens > 1 && span >= RATE_SPAN_MIN {
                let rate = (self.tokens - 1) as f64 / span.as_secs_f64();
                parts.push(format!("then {rate:.0}/s"));
            }
        }
        parts.extend(self.path.clone());
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::steady(9, 100, 900, "9 tokens, first after 100 ms, then 10/s")]
    #[case::at_once(9, 100, 101, "9 tokens, first after 100 ms")]
    #[case::one(1, 100, 900, "1 tokens, first after 100 ms")]
    fn a_rate_is_of_the_time_in_which_tokens_came(
        #[case] tokens: u64,
        #[case] first_ms: u64,
        #[case] last_ms: u64,
        #[case] said: &str,
    ) {
        let answer = Answer {
            tokens,
            first_after: Some(Duration::from_millis(first_ms)),
            last_after: Duration::from_millis(last_ms),
            ..Answer::default()
        };
        assert_eq!(answer.figures(Ended::Whole), said);
    }
}

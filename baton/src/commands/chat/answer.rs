//! An answer as it arrives.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use bench::ServerError;
use bench::server::Refusal;
use console::{Term, style};
use serde_json::Value;

use super::wrap::Wrap;

/// An answer, shown as it arrives.
pub(super) struct Answer {
    asked: Instant,
    first_after: Option<Duration>,
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
    /// If it is none, or says that the answer broke off.
    pub(super) fn take(&mut self, event: &[u8]) -> Result<(), ServerError> {
        if event == b"[DONE]" {
            self.is_done = true;
            return Ok(());
        }
        let broken = |_| ServerError::Broken("an event is not JSON".into());
        let event: Value = serde_json::from_slice(event).map_err(broken)?;
        if let Some(refusal) = Refusal::of_event(&event) {
            return Err(ServerError::Refused(refusal));
        }
        if let Some(tokens) = event["usage"]["completion_tokens"].as_u64() {
            self.tokens = tokens;
        }
        let choice = &event["choices"][0];
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish = Some(reason.to_owned());
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
            (false, None) => Err(ServerError::Broken("the answer is not whole".into())),
        }
    }

    /// Ends the line, and says how it went where somebody watches.
    pub(super) fn close(&mut self, ended: Option<&Ended>) -> std::io::Result<()> {
        let rest = self.wrap.finish();
        let mut out = std::io::stdout();
        out.write_all(rest.as_bytes())?;
        if !self.text.is_empty() || ended.is_some() {
            writeln!(out)?;
        }
        if out.is_terminal()
            && let Some(ended) = ended
        {
            writeln!(out, "{}", style(self.figures(*ended)).dim())?;
        }
        out.flush()
    }

    fn say(&mut self, text: &str) -> Result<(), ServerError> {
        self.first_after.get_or_insert_with(|| self.asked.elapsed());
        self.text.push_str(text);
        let shown = self.wrap.push(text);
        let mut out = std::io::stdout();
        let written = out.write_all(shown.as_bytes()).and_then(|()| out.flush());
        written.map_err(|error| ServerError::Broken(format!("nobody takes the answer: {error}")))
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
            let rest = self.asked.elapsed().saturating_sub(first).as_secs_f64();
            let rate = self.tokens.saturating_sub(1) as f64 / rest.max(1e-6);
            if self.tokens > 1 {
                parts.push(format!("then {rate:.0}/s"));
            }
        }
        parts.extend(self.path.clone());
        parts.join(", ")
    }
}

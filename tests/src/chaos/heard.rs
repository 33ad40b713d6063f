//! What a client has heard of an answer, and whether that is what one engine alone would have said.

use std::collections::BTreeMap;

use proto::v1;
use proto::v1::inference_response::Event;
use serde_json::Value;

use super::case::Case;
use crate::model::BYTES;
use crate::model::alone::Output;

/// JSON has no infinity; the gateway writes this for it.
const LOGPROB_MIN: f32 = -9999.0;

/// All that was heard.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    choices: BTreeMap<u32, HeardChoice>,
    /// Whether its KV came from another worker, where that is told.
    pub(super) is_handed_over: bool,
}

#[derive(Clone, Debug, Default)]
struct HeardChoice {
    text: String,
    /// Over gRPC only.
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    is_stopped: Option<bool>,
}

// === impl Heard ===

impl Heard {
    /// Takes an event of a stream, or a whole answer.
    pub(super) fn take_json(&mut self, event: &Value) {
        for choice in event["choices"].as_array().into_iter().flatten() {
            let index = choice["index"].as_u64().unwrap_or(0);
            let heard = self.choices.entry(u32::try_from(index).unwrap_or(u32::MAX)).or_default();
            let content =
                [&choice["delta"]["content"], &choice["message"]["content"], &choice["text"]];
            heard.text.extend(content.into_iter().filter_map(Value::as_str));
            heard.logprobs.extend(logprobs(&choice["logprobs"]));
            if let Some(reason) = choice["finish_reason"].as_str() {
                heard.is_stopped = Some(reason == "stop");
            }
        }
    }

    /// Takes a message.
    pub(super) fn take_message(&mut self, message: v1::InferenceResponse) {
        match message.event {
            Some(Event::Delta(delta)) => {
                let heard = self.choices.entry(delta.choice).or_default();
                heard.text.push_str(&delta.text);
                heard.tokens.extend(delta.token_ids);
                heard.logprobs.extend(delta.logprobs.iter().map(|token| token.logprob));
            }
            Some(Event::Finished(finished)) => {
                let is_stopped = finished.kind() == v1::FinishKind::Stop;
                self.choices.entry(finished.choice).or_default().is_stopped = Some(is_stopped);
            }
            Some(Event::Usage(usage)) => self.is_handed_over = usage.handoff,
            Some(Event::Started(_)) | None => {}
        }
    }

    /// Whether nothing of it differs from what `case` has for an answer, though there may be more to come.
    ///
    /// # Errors
    /// The first difference.
    pub(super) fn agrees(&self, case: &Case) -> Result<(), String> {
        for (index, heard) in &self.choices {
            let expected = case.answer.get(index).ok_or_else(|| format!("a choice {index}"))?;
            heard.agrees(expected).map_err(|why| format!("choice {index}: {why}"))?;
        }
        Ok(())
    }

    /// Whether it is all of the answer.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn is_whole(&self, case: &Case) -> Result<(), String> {
        for (index, expected) in &case.answer {
            let heard = self.choices.get(index).ok_or_else(|| format!("no choice {index}"))?;
            heard.is_whole(expected).map_err(|why| format!("choice {index}: {why}"))?;
        }
        Ok(())
    }
}

// === impl HeardChoice ===

impl HeardChoice {
    fn agrees(&self, expected: &Output) -> Result<(), String> {
        if !expected.tokens.starts_with(&self.tokens) {
            return Err(format!("tokens {:?}, not {:?}", self.tokens, expected.tokens));
        }
        let text = expected.text();
        if !text.starts_with(&self.text) {
            return Err(format!("{:?}, not {text:?}", self.text));
        }
        // A chat's list leaves out the token that ended the sequence; a beginning it is all the same.
        let known: Vec<f32> = expected.logprobs.iter().map(|token| token.logprob).collect();
        let is_same = |(heard, known): (&f32, &f32)| {
            heard == known || heard.to_bits() == known.clamp(LOGPROB_MIN, 0.0).to_bits()
        };
        let is_beginning =
            self.logprobs.len() <= known.len() && self.logprobs.iter().zip(&known).all(is_same);
        if !is_beginning {
            return Err(format!("logprobs {:?}, not {known:?}", self.logprobs));
        }
        Ok(())
    }

    fn is_whole(&self, expected: &Output) -> Result<(), String> {
        if self.is_stopped != Some(expected.is_stopped) {
            return Err(format!("stopped: {:?}, not {}", self.is_stopped, expected.is_stopped));
        }
        let text = expected.text();
        if self.text != text {
            return Err(format!("{:?} is all of {text:?}", self.text));
        }
        let is_short = |heard: usize, all: usize, may_lack: usize| heard + may_lack < all;
        if !self.tokens.is_empty() && is_short(self.tokens.len(), expected.tokens.len(), 0) {
            return Err(format!("{} of {} tokens", self.tokens.len(), expected.tokens.len()));
        }
        let may_lack = usize::from(expected.is_stopped);
        if is_short(self.logprobs.len(), expected.logprobs.len(), may_lack) {
            return Err(format!("{} of {} logprobs", self.logprobs.len(), expected.logprobs.len()));
        }
        Ok(())
    }
}

// === impl Output ===

impl Output {
    /// Its text: the token that ended it is no part of that, nor are other control tokens.
    fn text(&self) -> String {
        let bytes: Vec<u8> = self.tokens.iter().filter_map(|&token| byte(token)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn byte(token: u32) -> Option<u8> {
    u8::try_from(token).ok().filter(|_| token < BYTES)
}

/// In a chat's shape or in a completion's.
fn logprobs(value: &Value) -> Vec<f32> {
    let of_chat = value["content"].as_array().into_iter().flatten().map(|token| &token["logprob"]);
    let of_completion = value["token_logprobs"].as_array().into_iter().flatten();
    of_chat.chain(of_completion).filter_map(Value::as_f64).map(|logprob| logprob as f32).collect()
}

//! What was said, and asking for what comes next.

use std::time::Duration;

use anyhow::{Result, ensure};
use bench::server::Model;
use bench::{Server, ServerError};
use console::style;
use futures::FutureExt as _;
use serde_json::{Value, json};
use tokio::signal::unix::Signal;

use super::answer::{Answer, Ended};
use super::order::Instruction;
use super::{ChatArgs, trouble};
use crate::out;

/// Longer than a server says nothing at all while it works: it shows signs of life.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// A few paragraphs.
const MAX_TOKENS_DEFAULT: u64 = 512;

/// A conversation with one model.
pub(super) struct Talk {
    server: Server,
    model: String,
    system: Option<String>,
    temperature: Option<f32>,
    max_tokens: u64,
    turns: Vec<Turn>,
    /// What was asked last, answered or not.
    last_question: Option<String>,
}

/// A question and its answer.
struct Turn {
    question: String,
    answer: String,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    /// The user had heard enough.
    Interrupted,
}

// === impl Talk ===

impl Talk {
    /// Settles which model to talk to.
    ///
    /// # Errors
    /// If the server can't be reached, or lists none.
    pub(super) async fn begin(server: Server, args: &ChatArgs) -> Result<Self> {
        let model = match &args.model {
            Some(id) => known(&server, id).await,
            None => server.first_model().await.map_err(|error| trouble::told(error.into()))?,
        };
        check_length(&model, args.max_tokens.map(u64::from))?;
        let half = model.context_tokens.map_or(u64::MAX, |context| (context / 2).max(1));
        Ok(Self {
            server,
            max_tokens: args.max_tokens.map_or(half.min(MAX_TOKENS_DEFAULT), u64::from),
            model: model.id,
            system: args.system.clone(),
            temperature: args.temperature,
            turns: Vec::new(),
            last_question: None,
        })
    }

    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// Forgets what was said.
    pub(super) fn clear(&mut self) {
        self.turns.clear();
        self.last_question = None;
    }

    /// Changes the instruction for the conversation; says how it stands.
    pub(super) fn instruct(&mut self, change: Instruction<'_>) -> String {
        match change {
            Instruction::Show => {}
            Instruction::Drop => self.system = None,
            Instruction::Set(text) => self.system = Some(text.to_owned()),
        }
        self.system.as_ref().map_or("no instruction".into(), |text| format!("instruction: {text}"))
    }

    /// Takes back the last question, to ask it again, with its answer if it has one.
    pub(super) fn take_back(&mut self) -> Option<String> {
        let question = self.last_question.clone()?;
        self.turns.pop_if(|turn| turn.question == question);
        Some(question)
    }

    /// Asks, shows the answer as it comes, and remembers both; of an interrupted answer, what was
    /// heard. Where the talk has outgrown the model's context, its oldest turns are left out.
    ///
    /// # Errors
    /// If there is no answer, in one line that says what to do.
    pub(super) async fn ask(&mut self, question: &str, interrupts: &mut Signal) -> Result<End> {
        // What came before the question is not about its answer.
        let _ = interrupts.recv().now_or_never();
        self.last_question = Some(question.to_owned());
        let mut answer = Answer::default();
        let asked = tokio::select! {
            asked = self.answer(question, &mut answer) => asked,
            _ = interrupts.recv() => Ok(Ended::Interrupted),
        };
        answer.close(asked.as_ref().ok())?;
        if !answer.text().is_empty() {
            let answer = answer.text().to_owned();
            self.turns.push(Turn { question: question.to_owned(), answer });
        }
        match asked {
            Ok(Ended::Interrupted) => Ok(End::Interrupted),
            Ok(_) => Ok(End::Whole),
            Err(error) => Err(trouble::told(error)),
        }
    }

    /// Gets the answer, from as much of what was said as fits.
    async fn answer(&mut self, question: &str, answer: &mut Answer) -> Result<Ended> {
        let mut left_out = 0;
        loop {
            match self.try_answer(question, left_out, answer).await {
                Err(error) if trouble::is_too_long(&error) && !self.turns.is_empty() => {
                    // The older half: what goes on begins anew for the server's prefix cache, which is not to
                    // happen with each question.
                    let half = self.turns.len().div_ceil(2);
                    self.turns.drain(..half);
                    left_out += half;
                }
                ended => return ended,
            }
        }
    }

    async fn try_answer(
        &self,
        question: &str,
        left_out: usize,
        answer: &mut Answer,
    ) -> Result<Ended> {
        let request = self.request(question);
        let sent = self.server.stream("/v1/chat/completions", &request);
        let mut events = timely(sent).await??;
        note_left_out(left_out);
        answer.begin(events.header("x-baton-path"));
        while let Some(event) = timely(events.next()).await?? {
            answer.take(&event)?;
        }
        Ok(answer.ended()?)
    }

    fn request(&self, question: &str) -> Value {
        let message = |role: &str, content: &str| json!({ "role": role, "content": content });
        let system = self.system.iter().map(|text| message("system", text));
        let turns = self
            .turns
            .iter()
            .flat_map(|turn| [message("user", &turn.question), message("assistant", &turn.answer)]);
        let messages: Vec<Value> = system.chain(turns).chain([message("user", question)]).collect();
        let mut body = json!({
            "model": self.model,
            "messages": messages,
            "max_tokens": self.max_tokens,
            "stream": true,
            "stream_options": { "include_usage": true },
        });
        if let Some(temperature) = self.temperature {
            body["temperature"] = json!(temperature);
        }
        body
    }
}

/// Refuses answers that the model has no context for.
fn check_length(model: &Model, max_tokens: Option<u64>) -> Result<()> {
    let (Some(context), Some(wanted)) = (model.context_tokens, max_tokens) else { return Ok(()) };
    ensure!(
        wanted < context,
        "--max-tokens is {wanted}, and {} has a context of {context} tokens, questions included: say less",
        model.id
    );
    Ok(())
}

/// A model by its name, with what the server says of it; not every server lists its models.
async fn known(server: &Server, id: &str) -> Model {
    let listed = server.models().await.unwrap_or_default();
    let unlisted = || Model { id: id.to_owned(), context_tokens: None };
    listed.into_iter().find(|model| model.id == id).unwrap_or_else(unlisted)
}

/// What a server does within a time in which it shows a sign of life.
async fn timely<T>(work: impl Future<Output = T>) -> Result<T, ServerError> {
    tokio::time::timeout(SILENCE_MAX, work).await.map_err(|_| ServerError::TimedOut)
}

fn note_left_out(turns: usize) {
    if turns > 0 {
        let questions = if turns == 1 { "question is" } else { "questions are" };
        let note = format!(
            "the talk is longer than the model's context: its oldest {turns} {questions} left out from now \
             on; /clear begins anew"
        );
        out::note(style(note).for_stderr().dim());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_longer_than_the_context_is_refused_before_a_talk_begins() {
        let model = |context_tokens| Model { id: "m".into(), context_tokens };
        let error = check_length(&model(Some(64)), Some(64)).unwrap_err().to_string();
        assert!(error.contains("--max-tokens is 64") && error.contains("64 tokens"), "{error}");
        assert!(check_length(&model(Some(64)), Some(63)).is_ok());
        assert!(check_length(&model(None), Some(64)).is_ok(), "nobody knows");
    }
}

//! `baton chat`: a conversation in the terminal.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use console::style;
use futures::StreamExt as _;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::{Value, json};

/// Talks to a running router.
#[derive(Args, Clone, Debug)]
pub(crate) struct ChatArgs {
    /// The router's address.
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,
    /// The model; by default the first one served.
    #[arg(long)]
    model: Option<String>,
    /// An instruction for the whole conversation.
    #[arg(long)]
    system: Option<String>,
    /// 0 always takes the likeliest word; by default the model's own setting.
    #[arg(long)]
    temperature: Option<f32>,
    /// Longest answer, tokens.
    #[arg(long, default_value_t = 512)]
    max_tokens: u32,
    /// `Authorization: Bearer KEY`, where the router wants one.
    #[arg(long)]
    api_key: Option<String>,
    /// Ask this one question and leave.
    question: Option<String>,
}

/// A conversation with one model.
struct Conversation {
    args: ChatArgs,
    client: reqwest::Client,
    model: String,
    messages: Vec<Value>,
}

/// Runs the command.
///
/// # Errors
/// If the router can't be reached or refuses.
pub(crate) async fn run(args: ChatArgs) -> Result<()> {
    let mut conversation = Conversation::begin(args).await?;
    if let Some(question) = conversation.args.question.clone() {
        return conversation.ask(&question).await;
    }
    println!("{} {}", style("Talking to").dim(), style(&conversation.model).bold(),);
    println!("{}", style("/clear forgets the conversation, /quit or Ctrl-D leaves.").dim());
    let mut lines = Lines::new()?;
    while let Some(line) = lines.next().await? {
        match line.trim() {
            "" => {}
            "/quit" | "/exit" => break,
            "/clear" => conversation.clear(),
            question => {
                // One failed question doesn't end the conversation.
                if let Err(error) = conversation.ask(question).await {
                    eprintln!("{} {error:#}", style("error:").red().bold());
                }
            }
        }
    }
    Ok(())
}

// === impl Conversation ===

impl Conversation {
    async fn begin(args: ChatArgs) -> Result<Self> {
        let client = reqwest::Client::builder().connect_timeout(Duration::from_secs(5)).build()?;
        let model = match args.model.clone() {
            Some(model) => model,
            None => first_model(&client, &args).await?,
        };
        let mut conversation = Self { args, client, model, messages: Vec::new() };
        conversation.clear();
        Ok(conversation)
    }

    fn clear(&mut self) {
        self.messages = self
            .args
            .system
            .iter()
            .map(|system| json!({ "role": "system", "content": system }))
            .collect();
    }

    /// Asks, prints the answer as it comes, and remembers both.
    async fn ask(&mut self, question: &str) -> Result<()> {
        self.messages.push(json!({ "role": "user", "content": question }));
        match self.answer().await {
            Ok(answer) => {
                self.messages.push(json!({ "role": "assistant", "content": answer }));
                Ok(())
            }
            Err(error) => {
                self.messages.pop();
                Err(error)
            }
        }
    }

    async fn answer(&self) -> Result<String> {
        let mut body = json!({
            "model": self.model,
            "messages": self.messages,
            "max_tokens": self.args.max_tokens,
            "stream": true,
            "stream_options": { "include_usage": true },
        });
        if let Some(temperature) = self.args.temperature {
            body["temperature"] = json!(temperature);
        }
        let asked = Instant::now();
        let request =
            self.client.post(format!("{}/v1/chat/completions", self.args.url)).json(&body);
        let response = authorized(request, &self.args).send().await.with_context(|| {
            format!("no router answers at {}; start one with `baton up`", self.args.url)
        })?;
        let path = header(&response, "x-baton-path");
        let response = checked(response).await?;
        let mut stream = response.bytes_stream();
        let mut buffer = Vec::new();
        let mut answer = Answer { first_after: None, asked, text: String::new(), tokens: 0 };
        while let Some(chunk) = stream.next().await {
            buffer.extend_from_slice(&chunk.context("the router hung up")?);
            while let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                answer.take_line(&line)?;
            }
        }
        answer.close(&path);
        Ok(answer.text)
    }
}

/// An answer as it arrives.
struct Answer {
    asked: Instant,
    first_after: Option<Duration>,
    text: String,
    tokens: u64,
}

// === impl Answer ===

impl Answer {
    /// Takes one line of the event stream.
    fn take_line(&mut self, line: &[u8]) -> Result<()> {
        let line = std::str::from_utf8(line).context("the stream is not UTF-8")?.trim_end();
        let Some(data) = line.strip_prefix("data: ").filter(|data| *data != "[DONE]") else {
            return Ok(());
        };
        let event: Value = serde_json::from_str(data).context("the stream is not JSON")?;
        if let Some(message) = event["error"]["message"].as_str() {
            bail!("{message}");
        }
        if let Some(tokens) = event["usage"]["completion_tokens"].as_u64() {
            self.tokens = tokens;
        }
        if let Some(text) =
            event["choices"][0]["delta"]["content"].as_str().filter(|text| !text.is_empty())
        {
            self.first_after.get_or_insert_with(|| self.asked.elapsed());
            self.text.push_str(text);
            print!("{text}");
            std::io::stdout().flush()?;
        }
        Ok(())
    }

    fn close(&self, path: &str) {
        println!();
        let (Some(first), true) = (self.first_after, std::io::stdout().is_terminal()) else {
            return;
        };
        let rest = self.asked.elapsed().saturating_sub(first).as_secs_f64();
        let rate = self.tokens.saturating_sub(1) as f64 / rest.max(1e-6);
        let line = format!(
            "{} tokens, first after {:.0} ms, then {rate:.0}/s, {path}",
            self.tokens,
            first.as_secs_f64() * 1e3,
        );
        println!("{}", style(line).dim());
    }
}

/// The lines the user types.
struct Lines {
    editor: Option<DefaultEditor>,
}

// === impl Lines ===

impl Lines {
    fn new() -> Result<Self> {
        Ok(Self { editor: Some(DefaultEditor::new().context("the terminal can't be read")?) })
    }

    /// The next line; `None` when the user has left. Reads on a blocking thread.
    async fn next(&mut self) -> Result<Option<String>> {
        let mut editor = self.editor.take().context("a line is being read already")?;
        let (editor, line) = tokio::task::spawn_blocking(move || {
            let line = editor.readline("> ");
            if let Ok(line) = &line {
                // A history that can't grow is no reason to stop talking.
                let _ = editor.add_history_entry(line.as_str());
            }
            (editor, line)
        })
        .await?;
        self.editor = Some(editor);
        match line {
            Ok(line) => Ok(Some(line)),
            Err(ReadlineError::Eof | ReadlineError::Interrupted) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

async fn first_model(client: &reqwest::Client, args: &ChatArgs) -> Result<String> {
    let response = authorized(client.get(format!("{}/v1/models", args.url)), args)
        .send()
        .await
        .with_context(|| format!("no router answers at {}; start one with `baton up`", args.url))?;
    let models: Value = checked(response).await?.json().await?;
    let first = models["data"][0]["id"].as_str().context("the router serves no model")?;
    Ok(first.to_owned())
}

fn authorized(request: reqwest::RequestBuilder, args: &ChatArgs) -> reqwest::RequestBuilder {
    match &args.api_key {
        Some(key) => request.bearer_auth(key),
        None => request,
    }
}

/// The response, or the router's own error message.
async fn checked(response: reqwest::Response) -> Result<reqwest::Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body: Value = response.json().await.unwrap_or_default();
    bail!("{} ({status})", body["error"]["message"].as_str().unwrap_or("the router refused"))
}

fn header(response: &reqwest::Response, name: &str) -> String {
    let value = response.headers().get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

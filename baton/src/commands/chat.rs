//! `baton chat`: a conversation in the terminal, or through pipes.

use std::io::IsTerminal as _;

use anyhow::{Result, bail};
use bench::Server;
use clap::Args;
use console::style;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::reach::ReachArgs;
use crate::out;
use input::{Input, Line};
use order::Order;
use talk::{End, Talk};

mod answer;
mod input;
mod order;
mod talk;
mod trouble;
mod wrap;

/// Talks to a running router.
#[derive(Args, Clone, Debug)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    reach: ReachArgs,
    /// The model; by default the first one served.
    #[arg(long)]
    model: Option<String>,
    /// An instruction for the whole conversation.
    #[arg(long)]
    system: Option<String>,
    /// 0 always takes the likeliest word; by default the model's own setting.
    #[arg(long)]
    temperature: Option<f32>,
    /// Longest answer, tokens. Default: 512, or half of a smaller model's context.
    #[arg(long, value_name = "TOKENS")]
    max_tokens: Option<u32>,
    /// Ask this one question and leave.
    question: Option<String>,
}

/// A user, and who is talked to.
struct Session {
    talk: Talk,
    interrupts: Signal,
    /// Somebody sits there; else a script reads what is written.
    is_person: bool,
    asked: u32,
    failed: u32,
}

/// Runs the command.
///
/// # Errors
/// If the server can't be reached, or refuses the one question, or any of a script's.
pub(crate) async fn run(args: ChatArgs) -> Result<()> {
    let server = Server::new(&args.reach.options())?;
    let mut session = Session::begin(server, &args).await?;
    match &args.question {
        Some(question) => session.ask_once(question).await,
        None => session.go_on().await,
    }
}

// === impl Session ===

impl Session {
    async fn begin(server: Server, args: &ChatArgs) -> Result<Self> {
        let interrupts = signal(SignalKind::interrupt())?;
        let is_person = std::io::stdin().is_terminal();
        let talk = Talk::begin(server, args).await?;
        Ok(Self { talk, interrupts, is_person, asked: 0, failed: 0 })
    }

    async fn ask_once(&mut self, question: &str) -> Result<()> {
        match self.ask(question).await? {
            End::Whole => Ok(()),
            End::Interrupted => bail!("interrupted"),
        }
    }

    /// Takes line after line until the user leaves.
    async fn go_on(&mut self) -> Result<()> {
        let mut input = Input::new(self.is_person)?;
        if self.is_person {
            let model = style(self.talk.model()).bold();
            out::line(format_args!("{} {model}", style("Talking to").dim()))?;
            out::line(style("/help says what there is; Ctrl-D leaves.").dim())?;
        }
        loop {
            let line = tokio::select! {
                line = input.next() => line?,
                // At a prompt, Ctrl-C is a key like others.
                Some(()) = self.interrupts.recv(), if !self.is_person => Line::End,
            };
            let Line::Message(message) = line else { break };
            if !self.obey(&message).await? {
                break;
            }
        }
        if !self.is_person && self.failed > 0 {
            bail!("{} of {} questions failed", self.failed, self.asked);
        }
        Ok(())
    }

    /// Does what a message says; whether to go on.
    async fn obey(&mut self, message: &str) -> Result<bool> {
        match Order::of(message) {
            Order::Nothing => {}
            Order::Leave => return Ok(false),
            Order::Help => out::line(order::HELP.trim_end())?,
            Order::Clear => {
                self.talk.clear();
                self.note("forgotten")?;
            }
            Order::System(change) => {
                let told = self.talk.instruct(change);
                self.note(&told)?;
            }
            Order::Unknown(name) => {
                Self::complain(&format!("there is no {name}; /help lists what there is"));
            }
            Order::Retry => match self.talk.take_back() {
                Some(question) => return self.try_ask(&question).await,
                None => Self::complain("nothing was asked yet"),
            },
            Order::Ask(question) => return self.try_ask(&question).await,
        }
        Ok(true)
    }

    /// Asks; one failed question doesn't end the conversation, an interrupted one ends a script.
    async fn try_ask(&mut self, question: &str) -> Result<bool> {
        self.asked += 1;
        match self.ask(question).await {
            Ok(End::Interrupted) if !self.is_person => bail!("interrupted"),
            Ok(_) => {}
            Err(error) if error.is::<out::Unread>() => return Err(error),
            Err(error) => {
                self.failed += 1;
                Self::complain(&format!("{error:#}"));
            }
        }
        Ok(true)
    }

    /// Asks, until there is an answer or the user has heard enough.
    async fn ask(&mut self, question: &str) -> Result<End> {
        self.talk.ask(question, &mut self.interrupts).await
    }

    fn note(&self, text: &str) -> Result<()> {
        if self.is_person { out::line(style(text).dim()) } else { Ok(()) }
    }

    fn complain(text: &str) {
        out::note(format_args!("{} {text}", style("error:").for_stderr().red().bold()));
    }
}

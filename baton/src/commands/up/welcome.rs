//! What `baton up` says when all of it serves: what runs, where, and what to try.

use std::fmt::{self, Display, Write as _};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use cluster::{Membership as _, MemoryMembership};
use console::style;
use serde_json::{Value, json};
use words::{Capacity, Role};

use crate::ports::Ports;
use crate::settings::Door;

/// Tokens of a request as many are: a question with what it is about, and an answer.
const USUAL_TOKENS: u32 = 1024;

/// What there is to say.
#[derive(Clone, Debug)]
pub(super) struct Welcome {
    /// The model's name.
    pub(super) model: String,
    /// What it runs on.
    pub(super) device: String,
    /// Where it listens.
    pub(super) ports: Ports,
    /// How clients are met.
    pub(super) door: Door,
    /// Whether metrics are served in TLS.
    pub(super) admin_tls: bool,
    /// Whether the model takes conversations, and not only text to go on with.
    pub(super) chats: bool,
    /// This program, as it is called in a shell.
    pub(super) program: String,
}

// === impl Welcome ===

impl Welcome {
    /// Waits until so many workers serve, then says it all.
    pub(super) async fn say(&self, membership: &MemoryMembership, workers: usize) {
        let mut view = membership.view();
        // The view never closes while the membership lives.
        let Ok(members) = view.wait_for(|members| members.workers.len() == workers).await else {
            return;
        };
        let decode = members.of(Role::Decode).next().map(|info| info.capacity.clone());
        drop(members);
        if let (Some(capacity), Some(http)) = (decode, self.ports.http) {
            // Nobody there to welcome is no reason to stop.
            let _ = std::io::stdout().write_all(self.text(&capacity, http).as_bytes());
        }
    }

    /// - `capacity`: of the worker that generates.
    fn text(&self, capacity: &Capacity, http: SocketAddr) -> String {
        let mut text =
            format!("{} serves {}\n\n", style("Baton").bold(), style(&self.model).bold());
        let mut row = |name: &str, value: &dyn Display| {
            // Writing to a string can't fail.
            let _ = writeln!(text, "  {} {value}", style(format!("{name:<12}")).dim());
        };
        row("device", &self.device);
        row("context", &format_args!("{} tokens", grouped(capacity.context_tokens_max)));
        row("KV cache", &room(capacity));
        let base = self.base(http);
        row("OpenAI API", &format_args!("{base}/v1"));
        if let Some(grpc) = self.ports.grpc {
            row("gRPC", &self.host(grpc));
        }
        let Ports { admin, prefill_admin, decode_admin, .. } = self.ports;
        for (name, addr) in
            [("metrics", admin), ("of prefill", prefill_admin), ("of decode", decode_admin)]
        {
            let scheme = if self.admin_tls { "https" } else { "http" };
            if let Some(addr) = addr.map(reachable) {
                row(name, &format_args!("{scheme}://{addr}/metrics"));
            }
        }
        text.push_str(&self.hints(&base));
        text
    }

    /// Commands that work as they are printed.
    fn hints(&self, base: &str) -> String {
        let Self { door, program, .. } = self;
        let dim = |text: &str| style(text.to_owned()).dim();
        let (mut chat, mut curl) =
            (format!("{program} chat --url {base}/v1"), "curl -N".to_owned());
        if let Some(ca) = &door.ca {
            let ca = quoted(&ca.display().to_string());
            chat += &format!(" --ca {ca}");
            curl += &format!(" --cacert {ca}");
        }
        let (path, body) = self.example();
        let body = quoted(&body.to_string());
        curl += &format!(" {base}{path} -H 'content-type: application/json' \\\n    ");
        let mut text = format!("\n{}\n", dim("Try, in another terminal:"));
        if let Some(keys) = &door.keys {
            let note = dim(&format!("# in the place of KEY: {keys}"));
            text += &format!("  export BATON_API_KEY=KEY    {note}\n");
            curl += "-H \"authorization: Bearer $BATON_API_KEY\" ";
        }
        if self.chats {
            text += &format!("  {chat}\n");
        }
        text += &format!("  {curl}-d {body}\n");
        if door.hosts.is_some() && door.ca.is_none() {
            let note = "# add --ca FILE, or --cacert FILE for curl, if this system does not trust the certificate";
            text += &format!("  {}\n", dim(note));
        }
        text + &format!("\n{}\n", dim("Ctrl-C leaves."))
    }

    /// What to ask, and where.
    fn example(&self) -> (&'static str, Value) {
        let model = &self.model;
        if self.chats {
            let messages = json!([{"role": "user", "content": "What is a KV cache?"}]);
            let body = json!({"model": model, "stream": true, "messages": messages});
            return ("/v1/chat/completions", body);
        }
        let prompt = "A KV cache is";
        let body = json!({"model": model, "stream": true, "max_tokens": 64, "prompt": prompt});
        ("/v1/completions", body)
    }

    fn base(&self, http: SocketAddr) -> String {
        let scheme = if self.door.hosts.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.host(http))
    }

    /// Host and port by which clients of this machine come in; with a certificate, a host that it names.
    fn host(&self, addr: SocketAddr) -> String {
        let addr = reachable(addr);
        let hosts = self.door.hosts.as_deref().unwrap_or_default();
        let own = addr.ip().to_string();
        let is_here = |host: &&String| addr.ip().is_loopback() && *host == "localhost";
        let named = hosts.iter().find(|host| **host == own).or(hosts.iter().find(is_here));
        match named.or(hosts.first()) {
            Some(host) if *host != own => format!("{host}:{}", addr.port()),
            _ => addr.to_string(),
        }
    }
}

/// Where a client of this machine finds what listens everywhere.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => addr.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => addr.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    addr
}

/// How many requests there is room for.
fn room(capacity: &Capacity) -> impl Display + use<> {
    let Capacity { kv_blocks, block_tokens, sequences_max, context_tokens_max, .. } = *capacity;
    let fit =
        move |tokens: u32| (kv_blocks / tokens.div_ceil(block_tokens).max(1)).min(sequences_max);
    let tokens = kv_blocks.saturating_mul(block_tokens);
    let usual = USUAL_TOKENS.min(context_tokens_max / 4).max(1);
    fmt::from_fn(move |f| {
        write!(f, "{} tokens: room for ", grouped(tokens))?;
        match fit(context_tokens_max) {
            0 => write!(f, "no request of a full context, ")?,
            1 => write!(f, "1 request of a full context at a time, ")?,
            many => write!(f, "{} requests of a full context at a time, ", grouped(many))?,
        }
        write!(f, "{} of {} tokens", grouped(fit(usual)), grouped(usual))
    })
}

/// A number with its thousands apart.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// This program as it can be called from another terminal, wherever that is.
pub(super) fn program() -> String {
    let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let here = std::env::current_exe().ok();
    match here {
        // Not found on the PATH, so it wouldn't be there either.
        Some(exe) if called.components().count() > 1 => quoted(&exe.display().to_string()),
        _ => "baton".to_owned(),
    }
}

#[cfg(test)]
mod tests;

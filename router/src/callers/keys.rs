//! API keys: who may come, as whom, and how much of what.
//!
//! A key is known by its SHA-256 only. That is enough for keys of 256 random bits: there is nothing to
//! guess, so nothing that a slow hash would slow down.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use parking_lot::RwLock;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::watch;
use words::{ClientId, TenantSalt};

use crate::callers::client;
use crate::{RequestError, RouterError};

mod allowance;
mod file;

pub use allowance::{Allowance, Limits, Standing, Turn};

/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Headers that bring a key as it is: Anthropic's and Azure's.
const KEY_HEADERS: [&str; 2] = ["x-api-key", "api-key"];
/// The name of the key given by flag or environment.
const CONFIGURED_NAME: &str = "default";

/// A key's SHA-256.
pub(crate) type Digest = [u8; 32];

/// The keys that may come, as they are now.
#[derive(Debug)]
pub struct Keys {
    /// Given by flag or environment; never reloaded.
    configured: Vec<Arc<Key>>,
    file: Option<PathBuf>,
    ring: RwLock<Ring>,
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Names its owner in logs and metrics.
    pub name: Arc<str>,
    /// Owners of one tenant share prefix caches, and with nobody else; `None`: all without a tenant.
    pub tenant: Option<Arc<str>>,
    /// Its owner runs the cluster, and may see which workers there are.
    pub is_operator: bool,
    /// The longest prompt with its answer, below the model's own.
    pub context_tokens_max: Option<usize>,
    /// What it may spend.
    pub allowance: Allowance,
    digest: Digest,
}

#[derive(Debug, Default)]
struct Ring {
    keys: Vec<Arc<Key>>,
    by_client: HashMap<ClientId, Arc<Key>>,
    read: Option<SystemTime>,
}

// === impl Keys ===

impl Keys {
    /// Keys given in clear, and those of a file.
    ///
    /// # Errors
    /// [`RouterError::Keys`] if the file can't be read or is wrong; the message says where.
    pub fn new(in_clear: &[String], file: Option<PathBuf>) -> Result<Self, RouterError> {
        let key = |(index, key): (usize, &String)| {
            let name = match index {
                0 => CONFIGURED_NAME.to_owned(),
                _ => format!("{CONFIGURED_NAME}-{index}"),
            };
            Arc::new(Key::unlimited(name.into(), sha256(key.as_bytes())))
        };
        let configured = in_clear.iter().enumerate().map(key).collect();
        let (read, of_file) = match &file {
            Some(path) => (file::changed_at(path), file::read(path)?),
            None => (None, Vec::new()),
        };
        let keys = Self { configured, file, ring: RwLock::default() };
        keys.take(of_file, read);
        Ok(keys)
    }

    /// Whether clients must bring a key.
    #[must_use]
    pub fn are_wanted(&self) -> bool {
        self.file.is_some() || !self.configured.is_empty()
    }

    /// Whose key a request brings; `None` where everyone may come.
    ///
    /// # Errors
    /// [`RequestError::Unauthorized`], saying what to send.
    pub fn check(&self, headers: &HeaderMap) -> Result<Option<Arc<Key>>, RequestError> {
        if !self.are_wanted() {
            return Ok(None);
        }
        let digest = sha256(brought(headers)?);
        // Every key is compared, and every byte: the time taken tells nothing about them.
        let ring = self.ring.read();
        let found = ring.keys.iter().fold(None, |found, key| {
            let same = same(&key.digest, &digest);
            if same { Some(key) } else { found }
        });
        let known = found.map(Arc::clone);
        known.map(Some).ok_or_else(unknown)
    }

    /// The key of a client, if it came with one and where one is wanted: a request that waited while its key was
    /// taken out of the file has none any more.
    ///
    /// # Errors
    /// [`RequestError::Unauthorized`] then.
    pub fn still_of(&self, client: ClientId) -> Result<Option<Arc<Key>>, RequestError> {
        match self.of(client) {
            None if self.are_wanted() => Err(unknown()),
            key => Ok(key),
        }
    }

    /// The key of a client, if it came with one.
    #[must_use]
    pub fn of(&self, client: ClientId) -> Option<Arc<Key>> {
        self.ring.read().by_client.get(&client).cloned()
    }

    /// Reads the file again whenever it changes, and when told to. A file that is wrong changes nothing, and
    /// is logged.
    pub async fn follow(&self, mut hangups: Option<watch::Receiver<u64>>) {
        let Some(path) = &self.file else { return };
        loop {
            let told = tokio::select! {
                () = hung_up(&mut hangups) => true,
                () = tokio::time::sleep(LOOK_INTERVAL) => false,
            };
            let (file, seen) = (path.clone(), self.ring.read().read);
            let look = move || {
                let written = file::changed_at(&file);
                (told || written != seen).then(|| (written, file::read(&file)))
            };
            // A file of the network may hang, and is to hang nothing else.
            let looked = tokio::task::spawn_blocking(look).await;
            let Ok(Some((written, keys))) = looked else { continue };
            match keys {
                Ok(keys) => {
                    let count = self.take(keys, written);
                    tracing::info!(path = %path.display(), count, "API keys are read again");
                }
                Err(error) => {
                    tracing::error!(%error, "API keys stay as they were");
                    // Once for each change.
                    self.ring.write().read = written;
                }
            }
        }
    }

    /// Takes the keys of the file, written at `read`; those that were there before keep what they have spent.
    fn take(&self, mut keys: Vec<Key>, read: Option<SystemTime>) -> usize {
        let mut ring = self.ring.write();
        for key in &mut keys {
            if let Some(before) = ring.keys.iter().find(|before| before.name == key.name) {
                key.allowance.go_on_from(&before.allowance);
            }
        }
        let count = keys.len();
        ring.keys = self.configured.iter().cloned().chain(keys.into_iter().map(Arc::new)).collect();
        ring.by_client = ring.keys.iter().map(|key| (key.client(), Arc::clone(key))).collect();
        ring.read = read;
        count
    }
}

// === impl Key ===

impl Key {
    fn unlimited(name: Arc<str>, digest: Digest) -> Self {
        let allowance = Allowance::default();
        Self { name, tenant: None, is_operator: false, context_tokens_max: None, allowance, digest }
    }

    /// Whom its owner is to the cluster.
    #[must_use]
    pub fn client(&self) -> ClientId {
        client::of_key(self.name.as_bytes())
    }

    /// Whose prefix cache a request with this key may share.
    #[must_use]
    pub fn salt(&self, asked: TenantSalt) -> TenantSalt {
        let Some(tenant) = &self.tenant else { return asked };
        // The length first: no tenant and salt run together into another's.
        let length = (tenant.len() as u64).to_le_bytes();
        TenantSalt([&length[..], tenant.as_bytes(), &asked.0].concat().into())
    }
}

/// The SHA-256 of a key.
pub(crate) fn sha256(key: &[u8]) -> Digest {
    let mut bytes = Digest::default();
    bytes.copy_from_slice(digest(&SHA256, key).as_ref());
    bytes
}

/// A digest as it is written in files.
#[must_use]
pub fn hash(key: &str) -> String {
    sha256(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks what is to be a file of keys.
///
/// # Errors
/// What is wrong with it, in words.
pub fn check_file(text: &str) -> Result<(), String> {
    file::parse(text).map(drop)
}

/// A key that nobody can guess.
///
/// # Errors
/// If the machine has no randomness.
pub fn generate() -> Result<String, RouterError> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| RouterError::Config {
        field: "key",
        problem: "can't be made: the system gives no random bytes".into(),
    })?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sk-baton-{hex}"))
}

fn unknown() -> RequestError {
    RequestError::Unauthorized("this API key is not known")
}

async fn hung_up(hangups: &mut Option<watch::Receiver<u64>>) {
    let told = match hangups {
        Some(hangups) => hangups.changed().await.is_ok(),
        None => false,
    };
    if !told {
        std::future::pending::<()>().await;
    }
}

/// The key that a request brings, wherever clients put it. gRPC metadata counts as headers.
fn brought(headers: &HeaderMap) -> Result<&[u8], RequestError> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        let plain = KEY_HEADERS.iter().find_map(|name| headers.get(*name));
        return plain.map(http::HeaderValue::as_bytes).ok_or(RequestError::Unauthorized(
            "no API key: send one in the header `Authorization: Bearer KEY`",
        ));
    };
    let key = value.as_bytes().split_at_checked(7);
    key.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
        .map(|(_, key)| key)
        .ok_or(RequestError::Unauthorized("the Authorization header is not `Bearer KEY`"))
}

fn same(a: &Digest, b: &Digest) -> bool {
    let differing = a.iter().zip(b).fold(0, |differing, (x, y)| differing | (x ^ y));
    std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests;

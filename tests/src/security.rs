//! What keeps strangers out of a cluster under test: certificates, a secret, or nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::baton;

/// The cluster's name in certificates: its namespace in etcd.
pub const CLUSTER: &str = "test";
/// Chooses for every test that doesn't: `certificates` or `secret`.
const SWITCH: &str = "BATON_TEST_SECURITY";

/// What keeps strangers out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Nothing: all is on this machine.
    Open,
    /// Certificates that `baton certs` makes.
    Certificates,
    /// A secret that `baton certs` makes.
    Secret,
}

/// Certificates or the secret, in a folder.
#[derive(Clone, Debug)]
pub struct Keyring {
    lock: Lock,
    dir: PathBuf,
}

// === impl Lock ===

impl Default for Lock {
    fn default() -> Self {
        match std::env::var(SWITCH).as_deref() {
            Ok("certificates") => Self::Certificates,
            Ok("secret") => Self::Secret,
            Ok(other) => panic!("{SWITCH} is {other:?}: want certificates or secret"),
            Err(_) => Self::Open,
        }
    }
}

// === impl Keyring ===

impl Keyring {
    /// Makes what `lock` needs in `folder`.
    ///
    /// # Panics
    /// If `baton certs` fails.
    #[must_use]
    pub fn new(lock: Lock, folder: &Path) -> Self {
        let keyring = Self { lock, dir: folder.join("certs") };
        match lock {
            Lock::Open => {}
            Lock::Certificates => drop(keyring.certs(&["init", "--days", "2"])),
            Lock::Secret => {
                std::fs::create_dir_all(&keyring.dir).expect("a folder for the secret");
                let secret = run(&["certs", "secret"]);
                std::fs::write(keyring.secret_file(), secret).expect("the secret");
            }
        }
        keyring
    }

    /// What keeps strangers out.
    #[must_use]
    pub fn lock(&self) -> Lock {
        self.lock
    }

    /// Makes a certificate, or makes it anew.
    ///
    /// # Panics
    /// If `baton certs` fails.
    pub fn issue(&self, role: &str, id: &str, days: u32) {
        let days = days.to_string();
        let args = ["issue", role, id, "--cluster", CLUSTER, "--hosts", "127.0.0.1,localhost"];
        drop(self.certs(&[&args[..], &["--days", &days]].concat()));
    }

    /// A node's flags, once it has a certificate.
    #[must_use]
    pub fn flags(&self, role: &str, id: &str) -> Vec<String> {
        let file = |name: String| self.dir.join(name).display().to_string();
        match self.lock {
            Lock::Open => Vec::new(),
            Lock::Secret => {
                vec!["--cluster-secret-file".to_owned(), self.secret_file().display().to_string()]
            }
            Lock::Certificates => [
                ("--tls-ca", file("ca.pem".to_owned())),
                ("--tls-cert", file(format!("{role}-{id}.pem"))),
                ("--tls-key", file(format!("{role}-{id}.key"))),
            ]
            .into_iter()
            .flat_map(|(flag, file)| [flag.to_owned(), file])
            .collect(),
        }
    }

    /// Where the certificates are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the secret is.
    #[must_use]
    pub fn secret_file(&self) -> PathBuf {
        self.dir.join("secret")
    }

    fn certs(&self, args: &[&str]) -> String {
        let dir = self.dir.display().to_string();
        run(&[&["certs"], args, &["--dir", &dir]].concat())
    }
}

fn run(args: &[&str]) -> String {
    let output = Command::new(baton()).args(args).output().expect("baton starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "baton {args:?}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

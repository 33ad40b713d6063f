//! `baton certs`: certificates for those who have no authority of their own.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};
use cluster::security::authority::{Authority, Issued, Subject};
use cluster::security::{Identity, NodeRole};

use crate::out;

/// A certificate's life, unless told otherwise. A node takes a new one without a restart.
const DAYS: u32 = 90;
/// An authority's: renewing it means visiting every node.
const AUTHORITY_DAYS: u32 = 3650;
/// Much more, and the year at its end has too many digits for a certificate.
const DAYS_MAX: u32 = 100 * 365;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// `baton certs`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CertsArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Makes an authority: DIR/ca.pem, which every node gets, and DIR/ca.key, which none does.
    Init(InitArgs),
    /// Makes a node's certificate and key, or renews them; nodes that run take them by themselves.
    Issue(IssueArgs),
    /// Prints a secret for --cluster-secret-file: all nodes get the same, and no certificates.
    Secret,
}

#[derive(Args, Clone, Debug)]
struct InitArgs {
    /// Where the files go.
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
    /// Days until it ends.
    #[arg(long, value_name = "DAYS", default_value_t = AUTHORITY_DAYS)]
    days: u32,
}

#[derive(Args, Clone, Debug)]
struct IssueArgs {
    /// What the node does: router, prefill, decode, or etcd.
    #[arg(value_name = "ROLE")]
    role: String,
    /// Its name, as in --id; `*` for any node of the role.
    #[arg(value_name = "ID", default_value = "*")]
    id: String,
    /// Hosts and addresses that clients call it by, comma separated: for a router's gateway and for
    /// etcd. Nodes know each other by their names.
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    hosts: Vec<String>,
    /// The cluster, as in --cluster or --namespace.
    #[arg(long, value_name = "NAME", default_value = "default")]
    cluster: String,
    /// Where the authority is, and where the files go.
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
    /// Days until it ends.
    #[arg(long, value_name = "DAYS", default_value_t = DAYS)]
    days: u32,
}

/// Runs the command.
///
/// # Errors
/// If a file is there that must not be overwritten, or is missing, or can't be written.
pub(crate) fn run(args: &CertsArgs) -> Result<()> {
    match &args.verb {
        Verb::Init(args) => init(args),
        Verb::Issue(args) => issue(args),
        Verb::Secret => secret(),
    }
}

fn init(args: &InitArgs) -> Result<()> {
    let life = life(args.days)?;
    let (cert, key) = authority_files(&args.dir);
    ensure!(!key.exists(), "{} is there already: all certificates come from it", key.display());
    std::fs::create_dir_all(&args.dir).with_context(|| args.dir.display().to_string())?;
    let (_, issued) = Authority::create("Baton", life)?;
    write(&key, &issued.key_pem, 0o600)?;
    write(&cert, &issued.cert_pem, 0o644)?;
    out::line(format_args!(
        "made {cert} ({days} days) and {key}
Keep {key} where no node is. Next, for each node:
  baton certs issue router   --dir {dir} --hosts gateway.example.org,127.0.0.1
  baton certs issue prefill prefill-0 --dir {dir}
  baton certs issue decode decode-0 --dir {dir}
and, where etcd has none from elsewhere:
  baton certs issue etcd     --dir {dir} --hosts etcd.example.org,127.0.0.1",
        cert = cert.display(),
        key = key.display(),
        days = args.days,
        dir = args.dir.display(),
    ))
}

fn issue(args: &IssueArgs) -> Result<()> {
    let life = life(args.days)?;
    let (cert, key) = authority_files(&args.dir);
    let read = |path: &Path| {
        let about =
            || format!("{}: is there an authority? `baton certs init` makes one", path.display());
        std::fs::read_to_string(path).with_context(about)
    };
    let authority = Issued { cert_pem: read(&cert)?, key_pem: read(&key)? };
    let issued = Authority::open(&authority)?.issue(&args.subject()?, life)?;
    let (cert, key) = (args.file("pem"), args.file("key"));
    // The key first: a node that looks between the two finds two that don't fit, and looks again.
    write(&key, &issued.key_pem, 0o600)?;
    write(&cert, &issued.cert_pem, 0o644)?;
    out::line(format_args!("made {} and {} ({} days)", cert.display(), key.display(), args.days))?;
    out::line(args.next(&cert, &key))
}

/// A certificate's life.
fn life(days: u32) -> Result<Duration> {
    ensure!(days <= DAYS_MAX, "--days is {days}: want at most {DAYS_MAX}");
    Ok(DAY * days)
}

/// 32 random bytes.
fn secret() -> Result<()> {
    out::line(cluster::security::random_secret()?)
}

/// Whether it can be in a certificate: an address, or a name, with a star for all below it.
fn is_host(text: &str) -> bool {
    let is_of_names = |it: char| it.is_alphanumeric() || ['-', '.', '_', '*'].contains(&it);
    text.parse::<IpAddr>().is_ok() || (!text.is_empty() && text.chars().all(is_of_names))
}

// === impl IssueArgs ===

impl IssueArgs {
    fn subject(&self) -> Result<Subject> {
        let hosts = self.hosts.clone();
        if let Some(host) = hosts.iter().find(|host| !is_host(host)) {
            bail!(
                "--hosts: {host:?} is neither a name nor an address: leave out https:// and the port"
            );
        }
        if self.role() == "etcd" {
            ensure!(!hosts.is_empty(), "etcd is called by its host: --hosts HOST,...");
            return Ok(Subject { node: None, hosts });
        }
        let role = self.role().parse::<NodeRole>().ok().with_context(|| {
            let router =
                "the gateway's is the router's: `baton certs issue router --hosts HOST,...`";
            format!("{:?} is no role: want router, prefill, decode or etcd; {router}", self.role)
        })?;
        // Read back as nodes will read it.
        let node: Identity = Identity::new(&self.cluster, role, &self.id).to_string().parse()?;
        Ok(Subject { node: Some(node), hosts })
    }

    /// The role, also by the name of its command.
    fn role(&self) -> &str {
        self.role.strip_suffix("-worker").unwrap_or(&self.role)
    }

    fn file(&self, extension: &str) -> PathBuf {
        let name = match self.id.as_str() {
            "*" => self.role().to_owned(),
            id => format!("{}-{id}", self.role()),
        };
        self.dir.join(format!("{name}.{extension}"))
    }

    /// What to do with them.
    fn next(&self, cert: &Path, key: &Path) -> String {
        let ca = authority_files(&self.dir).0;
        let (ca, cert, key) = (ca.display(), cert.display(), key.display());
        let tls = format!("--tls-ca {ca} --tls-cert {cert} --tls-key {key}");
        let start = match self.role() {
            "etcd" => return format!(
                "Next: etcd --cert-file {cert} --key-file {key} --client-cert-auth --trusted-ca-file {ca} \\
    --listen-client-urls https://0.0.0.0:2379 --advertise-client-urls https://{host}:2379
and for every node: --etcd https://{host}:2379 (with --tls-ca, or --etcd-ca {ca})",
                host = self.hosts.first().map_or("HOST", String::as_str),
            ),
            "router" => "router",
            "prefill" => "prefill-worker",
            _ => "decode-worker",
        };
        format!(
            "Next: baton {start} {tls} --etcd https://HOST:2379
etcd's own certificate, for https://, is one of `baton certs issue etcd --hosts HOST`, or from elsewhere with \
--etcd-ca; without one it is --etcd http://HOST:2379.
To renew this one, say the same again: a node that runs takes the new one by itself."
        )
    }
}

fn authority_files(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("ca.pem"), dir.join("ca.key"))
}

/// Writes a file whole or not at all, readable for whom `mode` says.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;

    let about = || path.display().to_string();
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    // Left by one that was killed, perhaps with another mode.
    let _ = std::fs::remove_file(&draft);
    let mut options = std::fs::OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(mode).open(&draft).with_context(about)?;
    file.write_all(text.as_bytes()).with_context(about)?;
    file.sync_all().with_context(about)?;
    std::fs::rename(&draft, path).with_context(about)
}

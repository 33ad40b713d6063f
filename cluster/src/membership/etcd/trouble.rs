//! What is wrong with etcd, in words for whoever has to mend it.

use std::error::Error as StdError;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use etcd_client::Error;
use tonic::Code;

use crate::ClusterError;
use crate::error::innermost;

/// How often a trouble that lasts is told again.
const REMIND: Duration = Duration::from_secs(60);
/// Several endpoints may fail in turns, each in its own way.
const CHANGES_APART: Duration = Duration::from_secs(10);

/// Tells of a trouble when it begins, when it becomes another one, and now and then while it lasts.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    told: Option<(String, Instant)>,
}

// === impl Troubles ===

impl Troubles {
    /// Whether `error` should be told now.
    pub(super) fn is_news(&mut self, error: &ClusterError, now: Instant) -> bool {
        let error = error.to_string();
        let is_news = match &self.told {
            None => true,
            Some((told, at)) => {
                let apart = if *told == error { REMIND } else { CHANGES_APART };
                now >= *at + apart
            }
        };
        if is_news {
            self.told = Some((error, now));
        }
        is_news
    }

    /// It is over. Returns whether any was told of.
    pub(super) fn end(&mut self) -> bool {
        self.told.take().is_some()
    }
}

/// A client's error, with what can be done about it.
pub(super) fn explain(error: &Error) -> ClusterError {
    let (cause, is_away) = (cause(error), is_away(error));
    let told = match advice(error, &cause) {
        Some(advice) => format!("{cause}: {advice}"),
        None => cause,
    };
    if is_away { ClusterError::EtcdAway(told) } else { ClusterError::Etcd(told) }
}

/// That an answer did not come in time.
pub(super) fn late(limit: Duration, what: &str) -> ClusterError {
    ClusterError::EtcdAway(format!("no answer within {limit:?}, {what}: {SILENT}"))
}

/// Whether etcd could not be asked, rather than refused.
fn is_away(error: &Error) -> bool {
    match error {
        Error::TransportError(_) | Error::IoError(_) => true,
        Error::GRpcStatus(status) => status.source().is_some(),
        _ => false,
    }
}

/// The cause that says something.
fn cause(error: &Error) -> String {
    match error {
        Error::TransportError(error) => innermost(error).to_string(),
        Error::GRpcStatus(status) => match status.source() {
            Some(source) => innermost(source).to_string(),
            None => status.message().to_owned(),
        },
        error => error.to_string(),
    }
}

fn advice(error: &Error, cause: &str) -> Option<&'static str> {
    let Error::GRpcStatus(status) = error else {
        return is_away(error).then(|| connecting(error));
    };
    // etcd has one code for several things; only its words tell them apart.
    let says = |words: &str| cause.contains(words);
    match status.code() {
        _ if says("space exceeded") => Some(SPACE),
        _ if says("authentication is not enabled") => Some("leave out --etcd-user"),
        Code::Unauthenticated | Code::PermissionDenied => Some(RIGHTS),
        Code::InvalidArgument if says("auth") || says("user name") => Some(RIGHTS),
        Code::Unimplemented => Some(NOT_ETCD),
        _ => is_away(error).then(|| connecting(error)),
    }
}

/// What to do about a connection that fails, or fails to be one of etcd's.
fn connecting(error: &Error) -> &'static str {
    // Its own type doesn't lead to its cause.
    let mut cause: Option<&(dyn StdError + 'static)> = match error {
        Error::IoError(error) => Some(error),
        Error::TransportError(error) => Some(error),
        Error::GRpcStatus(status) => status.source(),
        _ => None,
    };
    let mut told = NOT_ETCD;
    while let Some(error) = cause {
        // The innermost knows best.
        told = connecting_to(error).unwrap_or(told);
        cause = error.source();
    }
    told
}

/// The same of one cause.
fn connecting_to(cause: &(dyn StdError + 'static)) -> Option<&'static str> {
    if let Some(error) = cause.downcast_ref::<rustls::Error>() {
        return Some(encrypting(error));
    }
    let error = cause.downcast_ref::<io::Error>()?;
    // What an `io::Error` holds is not its source.
    let inner = error.get_ref().and_then(|inner| connecting_to(inner));
    inner.or(match error.kind() {
        // The connection was made, and then went wrong.
        ErrorKind::ConnectionReset
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof
        | ErrorKind::InvalidData => Some(NOT_ETCD),
        _ => Some(REACH),
    })
}

fn encrypting(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidMessage(_) => "what answers there speaks no TLS: is it http://?",
        _ => ENCRYPTION,
    }
}

const SILENT: &str = "is that the port for etcd's clients (2379 is usual), and has that etcd a majority of its members?";
const REACH: &str = "is etcd running there, and is --etcd right?";
const NOT_ETCD: &str = "does etcd run there, at the port for its clients (2379 is usual), and does it want https:// or \
                        http://?";
const ENCRYPTION: &str = "are --etcd-ca, --etcd-cert and --etcd-key those of this etcd?";
const SPACE: &str = "etcd is full, so no worker can be registered: compact and defragment it or raise its \
                     --quota-backend-bytes, then `etcdctl alarm disarm`";
const RIGHTS: &str =
    "are --etcd-user and --etcd-password right, and may that user read and write /baton/?";

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tonic::Status;

    use crate::EtcdConfig;
    use crate::membership::etcd::store::Store;

    use super::*;

    #[test]
    fn a_trouble_is_told_at_once_and_then_now_and_then() {
        let (mut troubles, start) = (Troubles::default(), Instant::now());
        let (one, other) = (ClusterError::Etcd("one".into()), ClusterError::Etcd("other".into()));
        let mut told =
            |error, seconds| troubles.is_news(error, start + Duration::from_secs(seconds));
        assert!(told(&one, 0));
        assert!(!told(&one, 59), "nothing new");
        assert!(told(&one, 60), "it lasts");
        assert!(!told(&other, 69), "endpoints may take turns");
        assert!(told(&other, 70));
        assert!(troubles.end());
        assert!(!troubles.end());
        assert!(troubles.is_news(&one, start), "it began again");
    }

    #[rstest]
    #[case::full(
        Code::ResourceExhausted,
        "etcdserver: mvcc: database space exceeded",
        "etcd is full"
    )]
    #[case::user(
        Code::InvalidArgument,
        "etcdserver: authentication failed, invalid user ID or password",
        "--etcd-password"
    )]
    #[case::rights(Code::PermissionDenied, "etcdserver: permission denied", "/baton/")]
    #[case::no_users(
        Code::FailedPrecondition,
        "etcdserver: authentication is not enabled",
        "leave out"
    )]
    #[case::another_server(
        Code::Unimplemented,
        "mapped from HTTP status code 404",
        "does etcd run there"
    )]
    fn what_etcd_says_comes_with_what_to_do(
        #[case] code: Code,
        #[case] words: &str,
        #[case] told: &str,
    ) {
        let ClusterError::Etcd(text) = explain(&Error::GRpcStatus(Status::new(code, words))) else {
            panic!("etcd answered");
        };
        assert!(text.starts_with(words) && text.contains(told), "{text}");
    }

    /// What is told of an address at which somebody answers with these bytes, and hangs up.
    async fn told_of(scheme: &str, answer: &'static [u8]) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("{scheme}://{}", listener.local_addr().unwrap());
        let mut clients = tokio::task::JoinSet::new();
        clients.spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut begun = [0; 512];
                let _ = client.read(&mut begun).await;
                let _ = client.write_all(answer).await;
            }
        });
        let config = EtcdConfig::new([endpoint.as_str()]);
        let asked = async {
            let options = Some(config.options().unwrap());
            etcd_client::Client::connect([endpoint.as_str()], options).await?.get("/", None).await
        };
        explain(&asked.await.err().unwrap()).to_string()
    }

    #[rstest]
    #[case::a_web_server("http", b"HTTP/1.1 400 Bad Request\r\n\r\n", "2379 is usual")]
    #[case::an_alert_of_tls("http", &[0x15, 3, 1, 0, 2, 2, 0x0a], "want https://")]
    #[case::nothing("http", b"", "want https://")]
    #[case::no_tls("https", b"HTTP/1.1 400 Bad Request\r\n\r\n", "is it http://?")]
    #[tokio::test]
    async fn who_answers_and_is_no_etcd_is_told_from_nobody(
        #[case] scheme: &str,
        #[case] answer: &'static [u8],
        #[case] told: &str,
    ) {
        let said = told_of(scheme, answer).await;
        assert!(said.contains(told), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }

    #[tokio::test]
    async fn who_listens_and_says_nothing_is_told_after_a_time() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let mut config = EtcdConfig::new([endpoint]);
        config.request_timeout = Duration::from_millis(50);
        let asked = async { Store::connect(&config, 0).await?.grant(5).await };
        let said = asked.await.err().unwrap().to_string();
        assert!(said.contains("no answer within 50ms") && said.contains("2379"), "{said}");
    }

    #[test]
    fn of_a_connection_that_fails_the_innermost_cause_is_told() {
        let refused = std::io::Error::from_raw_os_error(111);
        let ClusterError::EtcdAway(text) = explain(&Error::IoError(refused)) else {
            panic!("it could not be asked");
        };
        assert!(text.contains("Connection refused") && text.contains("--etcd"), "{text}");
    }
}

//! Where to listen, as people write it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A host, a port or both: `localhost:8000`, `:8000`, `8000`, `0.0.0.0`, `[::1]:8000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenOn {
    /// As written; `None` for where it would listen anyway.
    pub host: Option<String>,
    /// The port; `None` for the one it would have anyway.
    pub port: Option<u16>,
}

// === impl ListenOn ===

impl ListenOn {
    /// The address.
    ///
    /// # Errors
    /// If the host has none.
    pub(crate) fn resolve(&self, host: &str, port: u16) -> Result<SocketAddr> {
        let host = self.host.as_deref().unwrap_or(host);
        Ok(SocketAddr::new(address(host)?, self.port.unwrap_or(port)))
    }
}

/// The address of a host. Of several the first of IPv4, which is what clients of `localhost` try.
fn address(host: &str) -> Result<IpAddr> {
    if host == "*" {
        return Ok(Ipv4Addr::UNSPECIFIED.into());
    }
    if let Ok(ip) = host.parse() {
        return Ok(ip);
    }
    let named =
        || format!("the host {host:?} has no address: give one of this machine's, or 127.0.0.1");
    let found: Vec<IpAddr> =
        (host, 0).to_socket_addrs().with_context(named)?.map(|addr| addr.ip()).collect();
    let first = found.iter().find(|ip| ip.is_ipv4()).or(found.first());
    first.copied().with_context(named)
}

impl FromStr for ListenOn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no address: want HOST:PORT, :PORT, PORT or HOST");
        let bare = ["http://", "https://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let bare = bare.unwrap_or(text).trim_end_matches('/');
        if bare.is_empty() {
            return Err(wrong());
        }
        let host = |host: &str| {
            let host = host.trim_matches(['[', ']']);
            (!host.is_empty()).then(|| host.to_owned())
        };
        if bare.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self { host: None, port: Some(bare.parse().map_err(|_| wrong())?) });
        }
        if bare.parse::<IpAddr>().is_ok() || !bare.contains(':') || bare.ends_with(']') {
            return Ok(Self { host: host(bare), port: None }).and_then(|it| it.plain(wrong));
        }
        let (name, port) = bare.rsplit_once(':').ok_or_else(wrong)?;
        let port = Some(port.parse().map_err(|_| wrong())?);
        Self { host: host(name), port }.plain(wrong)
    }
}

impl ListenOn {
    /// Itself, if its host can be one.
    fn plain(self, wrong: impl Fn() -> String) -> Result<Self, String> {
        let is_plain = |host: &str| {
            host == "*"
                || host.parse::<IpAddr>().is_ok()
                || host.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        if self.host.as_deref().is_none_or(is_plain) { Ok(self) } else { Err(wrong()) }
    }
}

impl fmt::Display for ListenOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) if host.contains(':') => write!(f, "[{host}]")?,
            Some(host) => f.write_str(host)?,
            None => {}
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Serialize for ListenOn {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ListenOn {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Port(u16),
            Text(String),
        }
        match Either::deserialize(from) {
            Ok(Either::Port(port)) => Ok(Self { host: None, port: Some(port) }),
            Ok(Either::Text(text)) => text.parse().map_err(serde::de::Error::custom),
            Err(_) => Err(serde::de::Error::custom("want HOST:PORT, :PORT or PORT")),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("127.0.0.1:9", "127.0.0.1:9")]
    #[case("localhost:9", "127.0.0.1:9")]
    #[case(":9", "127.0.0.1:9")]
    #[case("9", "127.0.0.1:9")]
    #[case("0.0.0.0", "0.0.0.0:8000")]
    #[case("*:9", "0.0.0.0:9")]
    #[case("[::1]:9", "[::1]:9")]
    #[case("::1", "[::1]:8000")]
    #[case("[::1]", "[::1]:8000")]
    #[case("http://localhost:9/", "127.0.0.1:9")]
    fn an_address_is_what_was_meant(#[case] text: &str, #[case] meant: &str) {
        let written: ListenOn = text.parse().unwrap();
        assert_eq!(written.resolve("127.0.0.1", 8000).unwrap().to_string(), meant);
        let again: ListenOn = written.to_string().parse().unwrap();
        assert_eq!(again, written, "as it is written again");
    }

    #[rstest]
    #[case("")]
    #[case("localhost:")]
    #[case("localhost:80000")]
    #[case("70000")]
    #[case("a b:80")]
    #[case("/run/baton.sock")]
    fn what_is_no_address_is_refused(#[case] text: &str) {
        let error = text.parse::<ListenOn>().unwrap_err();
        assert!(error.contains("want HOST:PORT"), "{error}");
    }

    #[test]
    fn a_host_that_nobody_knows_is_named() {
        let written: ListenOn = "no-such-host.invalid:1".parse().unwrap();
        let error = format!("{:#}", written.resolve("127.0.0.1", 0).unwrap_err());
        assert!(error.contains("no-such-host.invalid"), "{error}");
    }
}

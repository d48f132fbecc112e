//! Where the leader is, as people write it.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::routes::DEFAULT_PORT;

/// Why a text is not a [`LeaderAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The scheme is https.
    #[error("'{0}' asks for https, and TLS is not in this version")]
    Tls(String),
    /// It is something else than a host and a port.
    #[error("'{0}' is not a leader's address")]
    Malformed(String),
}

impl AddressError {
    /// What to write instead.
    pub fn hint(&self) -> &'static str {
        "write host:port, such as localhost:4242 or [::1]:4242"
    }
}

/// The leader's host and port. Read from `localhost:4242`, `host` (port 4242), `http://host:port/` and `[::1]:4242`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderAddress {
    /// A name or an address; an IPv6 address without its brackets.
    host: String,
    port: u16,
}

impl LeaderAddress {
    /// The name or address to resolve and connect to.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for LeaderAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let trimmed = text.trim();
        if trimmed.starts_with("https://") {
            return Err(AddressError::Tls(text.to_owned()));
        }
        let bare = trimmed.strip_prefix("http://").unwrap_or(trimmed);
        parse_authority(bare.strip_suffix('/').unwrap_or(bare)).ok_or_else(|| AddressError::Malformed(text.to_owned()))
    }
}

fn parse_authority(authority: &str) -> Option<LeaderAddress> {
    if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        let port = match rest.strip_prefix(':') {
            Some(port) => parse_port(port)?,
            None if rest.is_empty() => DEFAULT_PORT,
            None => return None,
        };
        return Some(LeaderAddress { host: host.to_owned(), port });
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, parse_port(port)?),
        None => (authority, DEFAULT_PORT),
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    (!host.is_empty() && host.bytes().all(allowed)).then(|| LeaderAddress { host: host.to_owned(), port })
}

fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|&port| port != 0)
}

impl fmt::Display for LeaderAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_in_every_form_people_write() {
        for (text, shown) in [
            ("localhost:4242", "localhost:4242"),
            ("node-1.example", "node-1.example:4242"),
            ("http://10.0.0.1:80/", "10.0.0.1:80"),
            ("http://host", "host:4242"),
            ("[::1]:4243", "[::1]:4243"),
            ("[fe80::1]", "[fe80::1]:4242"),
            (" localhost:4242\n", "localhost:4242"),
        ] {
            assert_eq!(text.parse::<LeaderAddress>().map(|address| address.to_string()), Ok(shown.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_and_named() {
        for text in ["", "host:", "host:0", "host:65536", "::1", "[::1", "[::1]4242", "host/path", "user@host", "ftp://host", "a b"] {
            assert_eq!(text.parse::<LeaderAddress>(), Err(AddressError::Malformed(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn https_is_refused_because_there_is_no_tls() {
        let error = "https://host:4242".parse::<LeaderAddress>().unwrap_err();
        assert_eq!(error.to_string(), "'https://host:4242' asks for https, and TLS is not in this version");
    }
}

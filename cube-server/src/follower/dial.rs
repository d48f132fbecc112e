//! Reaching the leader: connections, and credentials that survive a clock that is off.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cube_api::auth::{Keys, Role};
use cube_api::meta::Name;
use cube_api::{ApiError, ErrorCode};
use http::{HeaderValue, Request, header};
use jiff::{SignedDuration, Timestamp};

use crate::ambient::Ambient;
use crate::net::{Network, Stream};
use cube_api::LeaderAddress;

/// For the name to be resolved, and again for the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reaches the leader as this node.
#[derive(Clone)]
pub struct Dialer {
    leader: LeaderAddress,
    node: Name,
    keys: Keys,
    network: Network,
    ambient: Ambient,
    /// The leader's clock minus ours, once the leader refused a credential for its time.
    ahead: Arc<Mutex<SignedDuration>>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("can't resolve the leader's name '{host}'")]
    Resolve {
        /// As configured.
        host: String,
        /// The resolver's reason.
        source: io::Error,
    },
    /// Nothing listens there, or nothing is there.
    #[error("can't connect to the leader at {leader}")]
    Connect {
        /// As configured.
        leader: LeaderAddress,
        /// The system's reason.
        source: io::Error,
    },
}

impl Dialer {
    /// For this node.
    pub fn new(leader: LeaderAddress, node: Name, keys: Keys, network: Network, ambient: Ambient) -> Self {
        Self { leader, node, keys, network, ambient, ahead: Arc::default() }
    }

    /// Where to.
    pub fn leader(&self) -> &LeaderAddress {
        &self.leader
    }

    /// As whom.
    pub fn node(&self) -> &Name {
        &self.node
    }

    /// The dice, for waits.
    pub fn random(&self) -> u64 {
        self.ambient.random()
    }

    /// A new connection.
    pub async fn connect(&self) -> Result<Stream, DialError> {
        let (host, port) = (self.leader.host(), self.leader.port());
        let resolved = within_timeout(self.network.resolve(host, port)).await;
        let addresses = resolved.map_err(|source| DialError::Resolve { host: host.to_owned(), source })?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match within_timeout(self.network.connect(address)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(DialError::Connect { leader: self.leader.clone(), source: last })
    }

    /// Adds the headers of every request: the host, and a credential minted now.
    pub fn sign<B>(&self, request: &mut Request<B>) {
        let now = self.ambient.now();
        let now = now.checked_add(*self.ahead.lock().expect(UNPOISONED)).unwrap_or(now);
        let credential = self.keys.mint(&Role::Node(self.node.clone()), now);
        let mut bearer = HeaderValue::try_from(format!("Bearer {credential}")).expect("a JWT is base64url and dots");
        bearer.set_sensitive(true);
        let host = HeaderValue::try_from(self.leader.to_string()).expect("checked when the address was read");
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        request.headers_mut().insert(header::HOST, host);
    }

    /// Whether a refusal was for the time only; the next credential is then minted by the leader's clock.
    pub fn learns_from(&self, refusal: &ApiError) -> bool {
        match (refusal.code, refusal.server_time) {
            (ErrorCode::CredentialExpired, Some(leaders)) => {
                self.set_leaders_clock(leaders);
                true
            }
            _ => false,
        }
    }

    fn set_leaders_clock(&self, leaders: Timestamp) {
        let ahead = leaders.duration_since(self.ambient.now());
        tracing::warn!(seconds = ahead.as_secs(), "this machine's clock is off from the leader's: credentials go by the leader's");
        *self.ahead.lock().expect(UNPOISONED) = ahead;
    }
}

const UNPOISONED: &str = "nothing panics while it is held";

async fn within_timeout<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(CONNECT_TIMEOUT, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
    }
}

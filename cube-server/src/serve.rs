//! The accept loop: HTTP/1.1 with upgrades over a listener, with limits on silence and on numbers.
//!
//! `axum::serve` has no timeouts: connections that say nothing live for ever. Here a connection has [`HEADER_TIMEOUT`] for each request's head, a
//! peer has a share of the connections, and a server that stops gives what is under way [`DRAIN_LIMIT`]. This file knows no route.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::error_chain::chain;
use crate::tasks::Tasks;

/// How long a peer may take for the head of a request, and how long a kept connection may be idle between two.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests under way may go on when the server stops.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// How long to wait after a failed accept: it fails for want of file descriptors, which other connections give back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections there may be at a time.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Altogether. Each costs a file descriptor and some 20 KiB.
    pub total: usize,
    /// From one address. High, as followers and people may share one behind NAT.
    pub per_peer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { total: 4096, per_peer: 1024 }
    }
}

/// Why an address can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error("{0} is in use by another process: stop that one, or choose another address with --listen")]
    InUse(String),
    /// Ports below 1024 need rights.
    #[error("no right to listen on {0}: choose a port above 1023 with --listen")]
    NotAllowed(String),
    /// Anything else: no such address, not resolvable.
    #[error("can't listen on {address}")]
    Other {
        /// What was asked for.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// Listens on `HOST:PORT`.
pub async fn bind(address: &str) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address.to_owned()),
        io::ErrorKind::PermissionDenied => BindError::NotAllowed(address.to_owned()),
        _ => BindError::Other { address: address.to_owned(), source },
    })
}

/// Serves until the tasks stop, then lets requests under way end. Returns when the listener is closed; connections are tasks of their own.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, tasks: Tasks) {
    let slots = Slots::new(limits);
    let stopping = tasks.stopping().clone();
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => return,
            // Cancel-safe: a connection that was not taken stays in the kernel's queue.
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(slot) = slots.take(peer) else { continue };
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "a connection ended before it began");
                    continue;
                }
                let (router, stopping) = (router.clone(), stopping.clone());
                tasks.spawn("connection", async move {
                    serve_connection(stream, router, stopping).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection until it ends; upgrades leave it.
pub async fn serve_connection(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, router: Router, stopping: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router))
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_LIMIT, connection).await {
                Ok(ended) => ended,
                Err(_) => {
                    tracing::info!("a request was still under way {}s after the stop: cut", DRAIN_LIMIT.as_secs());
                    Ok(())
                }
            }
        }
    };
    if let Err(error) = ended {
        // Peers that hang up, are silent or speak no HTTP: nothing that an operator can act on.
        tracing::debug!(error = %chain(&error), "a connection ended badly");
    }
}

/// The places for connections.
struct Slots {
    total: Arc<Semaphore>,
    per_peer: usize,
    peers: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A connection's place; dropping it gives it back.
struct Slot {
    peer: IpAddr,
    peers: Arc<Mutex<HashMap<IpAddr, usize>>>,
    _total: OwnedSemaphorePermit,
}

impl Slots {
    fn new(limits: Limits) -> Self {
        Self { total: Arc::new(Semaphore::new(limits.total)), per_peer: limits.per_peer, peers: Arc::default() }
    }

    fn take(&self, peer: SocketAddr) -> Option<Slot> {
        let Ok(total) = Arc::clone(&self.total).try_acquire_owned() else {
            tracing::warn!(%peer, "refused a connection: too many altogether");
            return None;
        };
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = peers.entry(peer.ip()).or_default();
        if *count >= self.per_peer {
            tracing::warn!(%peer, limit = self.per_peer, "refused a connection: too many from this address");
            return None;
        }
        *count += 1;
        Some(Slot { peer: peer.ip(), peers: Arc::clone(&self.peers), _total: total })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = peers.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    fn hello() -> Router {
        Router::new().route("/", get(|| async { "hello" }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_ends_its_head_is_cut_after_the_header_timeout() {
        for head in ["", "GET / HTTP/1.1\r\nHost:"] {
            let (mut client, server) = tokio::io::duplex(1024);
            let begin = Instant::now();
            client.write_all(head.as_bytes()).await.expect("a duplex takes it");
            serve_connection(server, hello(), CancellationToken::new()).await;
            assert!(begin.elapsed() >= HEADER_TIMEOUT && begin.elapsed() < HEADER_TIMEOUT * 2, "'{head}' took {:?}", begin.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopping_server_ends_idle_connections_at_once() {
        let (mut client, server) = tokio::io::duplex(1024);
        let stopping = CancellationToken::new();
        let serving = tokio::spawn(serve_connection(server, hello(), stopping.clone()));
        client.write_all(b"GET / HTTP/1.1\r\nHost: cube\r\n\r\n").await.expect("a duplex takes it");
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
        let begin = Instant::now();
        stopping.cancel();
        serving.await.expect("no panic");
        assert!(begin.elapsed() < Duration::from_millis(10));
    }

    #[test]
    fn a_peer_over_its_share_is_refused_until_it_gives_a_connection_back() {
        let slots = Slots::new(Limits { total: 3, per_peer: 2 });
        let (one, other) = (SocketAddr::from(([10, 0, 0, 1], 1)), SocketAddr::from(([10, 0, 0, 2], 1)));
        let first = slots.take(one).expect("a place");
        let _second = slots.take(one).expect("a place");
        assert!(slots.take(one).is_none());
        let _third = slots.take(other).expect("another peer has its own share");
        assert!(slots.take(other).is_none(), "no place is left altogether");
        drop(first);
        assert!(slots.take(one).is_some());
    }

    #[tokio::test]
    async fn a_port_in_use_is_said_with_its_address_and_a_remedy() {
        let taken = bind("127.0.0.1:0").await.expect("a free port");
        let address = taken.local_addr().expect("it is bound").to_string();
        let error = bind(&address).await.expect_err("it is taken").to_string();
        assert!(error.contains(&address) && error.contains("--listen"), "{error}");
    }
}

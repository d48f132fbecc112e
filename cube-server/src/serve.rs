//! The leader's accept loop: HTTP/1.1 with a deadline for headers, limits on connections and an orderly end.
//!
//! `axum::serve` has no timeouts: silent and half-open connections live on for ever. Knows nothing of routes.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use crate::net::Listener;
use crate::tasks::Tasks;

/// From the end of one request (or the connect) to the end of the next one's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests that run when the server stops may go on.
const DRAIN: Duration = Duration::from_secs(5);
/// All connections but those of nodes, websockets included. Each costs about 20 KiB.
const MAX_CONNECTIONS: usize = 4_096;
/// Connections of one address, but those of nodes: many people may share one behind NAT.
const MAX_PER_PEER: usize = 1_024;
/// Connections of nodes: 5,000 have two each while they report, a restarted leader has them all back at once, and a node that was cut off may leave
/// an old one behind. However many share an address: they have shown the cluster's secret, so they are nobody's flood.
const MAX_OF_NODES: usize = 16_384;
/// Connections that wait for the accept loop.
const BACKLOG: u32 = 1_024;
/// After an accept failed (out of file descriptors): others must end first.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// The longest head of a request, in bytes, and what is read ahead of a body: a credential has up to 8 KiB, the words of an exec the rest.
const MAX_HEAD: usize = 64 * 1024;
/// A peer that takes not a single byte of what waits for it, for so long, is cut: it keeps a place, and a stream its node. So long may
/// somebody look at a page of `cube logs -f | less`.
const STALLED: Duration = Duration::from_secs(600);
/// Refusals are logged once in such a time.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Why an address can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// It is not an address of this machine, in form or in fact.
    #[error("can't listen on {address}: it is not HOST:PORT of this machine")]
    Address {
        /// As given.
        address: String,
        /// The system's words.
        source: io::Error,
    },
    /// Another process listens there.
    #[error(
        "can't listen on {address}: the port is in use; stop what listens there (ss -ltnp shows it), or choose another with --listen HOST:PORT"
    )]
    InUse {
        /// As given.
        address: String,
    },
    /// A port below 1024 without the right to it, or anything else.
    #[error("can't listen on {address}")]
    Other {
        /// As given.
        address: String,
        /// The system's words.
        source: io::Error,
    },
}

/// Listens on `HOST:PORT`; port 0 takes a free one. Resolves a name with the system's resolver, so call it at start-up only.
pub fn bind(address: &str) -> Result<TcpListener, BindError> {
    let bad = |source| BindError::Address { address: address.to_owned(), source };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for candidate in address.to_socket_addrs().map_err(bad)? {
        match listen(candidate) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    match last.kind() {
        io::ErrorKind::AddrInUse => Err(BindError::InUse { address: address.to_owned() }),
        io::ErrorKind::AddrNotAvailable => Err(bad(last)),
        _ => Err(BindError::Other { address: address.to_owned(), source: last }),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted leader takes its port back while connections of the old one still linger in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What is counted of connections. Clones share it.
#[derive(Clone, Default)]
pub struct Connections {
    /// Open now, upgraded ones too.
    pub open: Gauge,
    /// Refused, as one too many.
    pub refused: Counter,
}

/// Serves until the server stops; returns when no more connections are taken. Those that are open end by themselves within 5 s.
pub async fn serve(mut listener: impl Listener, router: Router, tasks: Tasks, connections: Connections) {
    let peers = Peers::new(MAX_CONNECTIONS, MAX_PER_PEER, MAX_OF_NODES);
    let mut warned = None;
    let stopping = tasks.stopping().clone();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn_sometimes(&mut warned, || tracing::warn!("can't accept connections: {}; trying again", not_accepted(&error)));
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        match peers.admit(peer.ip()) {
            Ok(place) => {
                let place = Arc::new(Counted::new(place, &connections));
                let routes = Known::new(router.clone(), &place);
                tasks.spawn("connection", serve_connection(Placed::new(stream, place), routes, stopping.clone()));
            }
            Err(full) => {
                connections.refused.inc();
                warn_sometimes(&mut warned, || tracing::warn!(%peer, "refused a connection: {full}"));
            }
        }
    }
}

fn warn_sometimes(warned: &mut Option<Instant>, warn: impl FnOnce()) {
    if warned.is_none_or(|last| last.elapsed() >= WARN_EVERY) {
        *warned = Some(Instant::now());
        warn();
    }
}

/// What kept a connection from being accepted, and what to do about it.
fn not_accepted(error: &io::Error) -> String {
    if error.raw_os_error() != Some(Errno::MFILE.raw_os_error()) {
        return error.to_string();
    }
    let limit = getrlimit(Resource::Nofile).current.map_or("all".to_owned(), |limit| limit.to_string());
    format!(
        "the {limit} open files that this process may have are in use. A node needs one, and another one while it reports; raise the hard limit \
         (`ulimit -Hn`, or LimitNOFILE= of a systemd unit)"
    )
}

/// Serves one connection, to its end or its upgrade.
async fn serve_connection(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, routes: Known, stopping: CancellationToken) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(io), routes)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        biased;
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN, connection).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!("a connection was cut: its request was still running when the server stopped"),
            }
        }
        ended = connection.as_mut() => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection broke");
    }
}

/// Who is connected how often.
#[derive(Clone)]
struct Peers {
    open: Arc<Mutex<Open>>,
    most: usize,
    most_per_peer: usize,
    most_of_nodes: usize,
}

#[derive(Default)]
struct Open {
    strangers: usize,
    by_peer: BTreeMap<IpAddr, usize>,
    of_nodes: usize,
}

impl Open {
    fn leave(&mut self, peer: IpAddr) {
        self.strangers -= 1;
        if let Some(count) = self.by_peer.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.by_peer.remove(&peer);
            }
        }
    }
}

/// Why a connection is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Full {
    #[error("{0} connections are open, the most that cube-server serves")]
    Server(usize),
    #[error("{0} connections of this address are open, the most that one address gets")]
    Peer(usize),
}

impl Peers {
    fn new(most: usize, most_per_peer: usize, most_of_nodes: usize) -> Self {
        Self { open: Arc::default(), most, most_per_peer, most_of_nodes }
    }

    /// Everybody is a stranger at first.
    fn admit(&self, peer: IpAddr) -> Result<Place, Full> {
        let mut open = self.open.lock().expect(UNPOISONED);
        if open.strangers >= self.most {
            return Err(Full::Server(self.most));
        }
        if open.by_peer.get(&peer).is_some_and(|&count| count >= self.most_per_peer) {
            return Err(Full::Peer(self.most_per_peer));
        }
        open.strangers += 1;
        *open.by_peer.entry(peer).or_default() += 1;
        Ok(Place { peers: self.clone(), peer, is_nodes: AtomicBool::new(false) })
    }
}

const UNPOISONED: &str = "nothing panics while it is held";

/// A connection's place in the count.
struct Place {
    peers: Peers,
    peer: IpAddr,
    /// Changed and read under the count's lock.
    is_nodes: AtomicBool,
}

impl Place {
    /// A node's connections are counted by themselves. Where there are too many, this one goes on counting as a stranger's.
    fn is_a_nodes(&self) {
        let mut open = self.peers.open.lock().expect(UNPOISONED);
        if open.of_nodes < self.peers.most_of_nodes && !self.is_nodes.swap(true, Ordering::Relaxed) {
            open.of_nodes += 1;
            open.leave(self.peer);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.peers.open.lock().expect(UNPOISONED);
        match self.is_nodes.load(Ordering::Relaxed) {
            true => open.of_nodes -= 1,
            false => open.leave(self.peer),
        }
    }
}

/// The connection that a request came over, among the request's extensions.
#[derive(Clone)]
pub struct Connection {
    place: Arc<Counted>,
}

impl Connection {
    /// Whoever is at the other end has shown to be a node.
    pub fn is_a_nodes(&self) {
        self.place.place.is_a_nodes();
    }

    /// A stranger's.
    #[cfg(test)]
    pub fn of_a_stranger() -> Self {
        let place = Peers::new(1, 1, 1).admit(IpAddr::from([10, 0, 0, 1])).expect("room");
        Self { place: Arc::new(Counted::new(place, &Connections::default())) }
    }

    /// Whether it counts among the nodes'.
    #[cfg(test)]
    pub fn counts_as_a_nodes(&self) -> bool {
        self.place.place.is_nodes.load(Ordering::Relaxed)
    }
}

/// The routes, which are told over which connection a request came.
struct Known {
    router: TowerToHyperService<Router>,
    by: Connection,
}

impl Known {
    fn new(router: Router, place: &Arc<Counted>) -> Self {
        Self { router: TowerToHyperService::new(router), by: Connection { place: place.clone() } }
    }
}

impl Service<Request<Incoming>> for Known {
    type Response = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.by.clone());
        self.router.call(request)
    }
}

/// A place that shows in the count.
struct Counted {
    place: Place,
    open: Gauge,
}

impl Counted {
    fn new(place: Place, connections: &Connections) -> Self {
        connections.open.inc();
        Self { place, open: connections.open.clone() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// A stream with its place: an upgrade hands the stream on, so sessions and websockets stay in the count. It breaks when its peer takes nothing
/// of what is written for [`STALLED`].
struct Placed<I> {
    io: I,
    /// Runs while a write waits; it begins anew with each byte that is taken.
    stalled: Option<Pin<Box<Sleep>>>,
    _place: Arc<Counted>,
}

impl<I> Placed<I> {
    fn new(io: I, place: Arc<Counted>) -> Self {
        Self { io, stalled: None, _place: place }
    }

    fn unless_stalled(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALLED)));
        ready!(stalled.as_mut().poll(cx));
        let message = format!("the peer has taken nothing for {} s", STALLED.as_secs());
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Placed<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Placed<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.unless_stalled(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.unless_stalled(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;

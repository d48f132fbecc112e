//! The network as a value that is passed in: the machine's, or a simulated one.
//!
//! A server listens (the leader) and connects (a follower); these are the only two places where it touches TCP. It knows no deadlines and no
//! limits: who calls does.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use async_trait::async_trait;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// A connection on which nothing is said is asked for a sign of life after so long: of a machine that is gone, nothing would ever be heard.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Between two such questions; the fourth without an answer ends the connection.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEP_ALIVE_TIMES: u32 = 4;

/// What a connection is: bytes in order, both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A connection that was made here. A type of its own: as a bare `Box<dyn Io>`, a future that holds one isn't known to be `Send`.
pub struct Stream(Box<dyn Io>);

impl Stream {
    /// Over any connection.
    pub fn new(io: impl Io) -> Self {
        Self(Box::new(io))
    }
}

/// Takes connections.
pub trait Listener: Send + 'static {
    /// A connection that was taken.
    type Io: Io;

    /// The next connection and who it is from. May be dropped and called again.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, SocketAddr)>> + Send;
}

impl Listener for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let (stream, peer) = TcpListener::accept(self).await?;
            match prepare(&stream) {
                Ok(()) => return Ok((stream, peer)),
                Err(error) => tracing::debug!(%error, %peer, "the connection was gone at once"),
            }
        }
    }
}

/// Bytes go out at once, and a peer that vanished without a word is found out.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEP_ALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE_EVERY)?;
    Ok(sockopt::set_tcp_keepcnt(stream, KEEP_ALIVE_TIMES)?)
}

/// Makes connections. Clones share what they do it with.
#[derive(Clone)]
pub struct Network {
    source: Arc<dyn Source>,
}

/// What a [`Network`] asks.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// The addresses of a name, or of an address as text.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
    /// A connection, whose bytes go out as soon as they are written.
    async fn connect(&self, address: SocketAddr) -> io::Result<Stream>;
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

struct System;

#[async_trait]
impl Source for System {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Stream::new(stream))
    }
}

impl Network {
    /// The machine's.
    pub fn system() -> Self {
        Self::new(System)
    }

    /// Another one.
    pub fn new(source: impl Source) -> Self {
        Self { source: Arc::new(source) }
    }

    /// The addresses of a name, or of an address as text.
    pub async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.source.resolve(host, port).await
    }

    /// A connection, whose bytes go out as soon as they are written.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        self.source.connect(address).await
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_that_vanishes_without_a_word_is_asked_for() {
        let mut listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("listening");
        let (stream, peer) = Listener::accept(&mut listener).await.expect("a connection");
        assert_eq!(peer, client.local_addr().expect("connected"));
        assert!(stream.nodelay().expect("a socket") && sockopt::socket_keepalive(&stream).expect("a socket"));
        assert_eq!(sockopt::tcp_keepidle(&stream).expect("a socket"), KEEP_ALIVE);
    }
}

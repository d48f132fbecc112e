//! turmoil's network behind the product's seams.

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use cube_server::net::{Listener, Source, Stream};
use turmoil::net::{TcpListener, TcpStream};

/// A simulated host's listener.
pub struct Listening(TcpListener);

impl Listening {
    pub async fn on(port: u16) -> io::Result<Self> {
        TcpListener::bind(("0.0.0.0", port)).await.map(Self)
    }
}

impl Listener for Listening {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }
}

/// A simulated host's way to others: the names are the hosts'.
pub struct Simulated;

#[async_trait]
impl Source for Simulated {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![SocketAddr::new(turmoil::lookup(host), port)])
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        TcpStream::connect(address).await.map(Stream::new)
    }
}

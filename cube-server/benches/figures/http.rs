//! The thinnest HTTP/1.1 client: one kept connection, JSON in and out, to Docker's socket or to a leader.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Where to call, and with what credential.
#[derive(Debug, Clone)]
pub enum Address {
    /// Docker.
    Unix(PathBuf),
    /// A leader and its token.
    Tcp(SocketAddr, String),
}

/// A kept connection; one call at a time.
pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    bearer: Option<String>,
}

impl Connection {
    /// Dials.
    pub async fn open(address: &Address) -> Result<Self> {
        match address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.with_context(|| format!("no engine at {}", path.display()))?;
                Self::over(stream, None).await
            }
            Address::Tcp(address, token) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Self::over(stream, Some(format!("Bearer {token}"))).await
            }
        }
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, bearer: Option<String>) -> Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the connection; its error reaches the call that waits for an answer.
        tokio::spawn(connection);
        Ok(Self { sender, bearer })
    }

    async fn send(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<Response<Incoming>> {
        let body = body.map(serde_json::to_vec).transpose()?;
        self.send_bytes(method, path, body.map(Bytes::from)).await
    }

    async fn send_bytes(&mut self, method: Method, path: &str, body: Option<Bytes>) -> Result<Response<Incoming>> {
        let mut request = Request::builder().method(&method).uri(path).header(header::HOST, "localhost");
        if let Some(bearer) = &self.bearer {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        self.sender.ready().await?;
        Ok(self.sender.send_request(request.body(Full::new(body.unwrap_or_default()))?).await?)
    }

    /// Posts JSON that is written already; the answer as it comes.
    pub async fn post(&mut self, path: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let answer = self.send_bytes(Method::POST, path, Some(body)).await?;
        Ok((answer.status(), answer.into_body().collect().await?.to_bytes()))
    }

    /// A call whose answer is a text.
    pub async fn text(&mut self, method: Method, path: &str) -> Result<String> {
        let answer = self.send_bytes(method.clone(), path, None).await?;
        let (status, bytes) = (answer.status(), answer.into_body().collect().await?.to_bytes());
        let text = String::from_utf8(bytes.into())?;
        ensure!(status.is_success(), "{method} {path}: {status}: {text}");
        Ok(text)
    }

    /// A call and its answer; `Null` for none.
    pub async fn call(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        match self.try_call(method.clone(), path, body).await? {
            (status, answer) if status.is_success() || status == StatusCode::NOT_MODIFIED => Ok(answer),
            (status, answer) => bail!("{method} {path}: {status}: {answer}"),
        }
    }

    /// A call whose status the caller judges.
    pub async fn try_call(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Value)> {
        let answer = self.send(method, path, body).await?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await?.to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        Ok((status, if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap_or_else(|_| text()) }))
    }

    /// An answer of JSON lines that goes on.
    pub async fn lines(mut self, path: &str) -> Result<Lines> {
        let answer = self.send(Method::GET, path, None).await?;
        ensure!(answer.status().is_success(), "GET {path}: {}", answer.status());
        Ok(Lines { body: answer.into_body(), buffer: BytesMut::new(), _connection: self })
    }
}

/// JSON lines as they come.
pub struct Lines {
    body: Incoming,
    buffer: BytesMut,
    /// Dropping it would end the answer.
    _connection: Connection,
}

impl Lines {
    /// The next line.
    pub async fn next(&mut self) -> Result<Value> {
        Ok(serde_json::from_slice(&self.next_line().await?)?)
    }

    /// The next line as it comes.
    pub async fn next_line(&mut self) -> Result<BytesMut> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                return Ok(line);
            }
            let frame = self.body.frame().await.context("the stream of lines ended")??;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}

/// A query value, escaped.
pub fn escaped(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

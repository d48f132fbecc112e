//! One try of a probe: a request, a connection or a command, each with a hard limit. What it means is for the plan to say.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use cube_api::error::chain;
use cube_api::pod::{Container, ExecProbe, Handler, HttpGetProbe, Probe, ProbePort, TcpSocketProbe};
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use crate::follower::plan::{Tried, Wanted};
use crate::follower::runtime::{ExecOutput, ExecRequest, Runtime, RuntimeError};
use crate::net::{Network, Stream};

/// The longest head of a response, in bytes. What has a longer one is broken.
const MAX_HEAD: usize = 64 * 1024;

/// So much of a response's body is read, in bytes, so that a server that wrote a short one isn't cut off. It says nothing: the head has.
const MAX_BODY: usize = 10 * 1024;

/// So much of a command's output goes into the event, in bytes.
const MAX_OUTPUT: usize = 512;

/// How long an engine has to say that it is there, after a command that brought nothing in time.
const ENGINE_LIMIT: Duration = Duration::from_secs(5);

/// What a try is made with.
pub(super) struct Try<'a> {
    pub runtime: &'a dyn Runtime,
    pub network: Option<&'a Network>,
    pub execs: &'a Semaphore,
    pub container: &'a Container,
    pub of: &'a Wanted,
}

/// Why there was no answer: in words, for the event.
type Problem = String;

impl Try<'_> {
    /// Makes it. Takes no longer than the probe's timeout, and what the engine takes to begin a command.
    pub(super) async fn make(&self, probe: &Probe) -> Tried {
        let limit = Duration::from_secs(probe.timeout_seconds.into());
        match (self.network, probe.handler()) {
            (None, _) => Tried::Passed,
            (_, None) => Tried::NotMade,
            (Some(network), Some(Handler::HttpGet(get))) => self.http_get(network, get, limit).await,
            (Some(network), Some(Handler::TcpSocket(socket))) => self.tcp_socket(network, socket, limit).await,
            (Some(_), Some(Handler::Exec(exec))) => self.exec(exec, limit).await,
        }
    }

    async fn http_get(&self, network: &Network, get: &HttpGetProbe, limit: Duration) -> Tried {
        let Some((host, port)) = self.place(get.host.as_deref(), &get.port) else { return Tried::NotMade };
        let authority = authority(&host, port);
        // A query may hold a secret, an event may not.
        let shown = format!("http://{authority}{}", get.path.split('?').next().unwrap_or_default());
        let deadline = Instant::now() + limit;
        let asked = timeout(limit, ask(network, (&host, port), request(get, &authority))).await;
        match asked {
            Ok(Ok((status, rest))) => {
                // In the time that is left: the verdict stands.
                drop(timeout_at(deadline, rest).await);
                match status.as_u16() {
                    200..=399 => Tried::Passed,
                    code => Tried::Failed(format!("HTTP {code} from {shown}")),
                }
            }
            Ok(Err(problem)) => Tried::Failed(format!("no answer from {shown}: {problem}")),
            Err(_) => Tried::Failed(format!("no answer from {shown} within {}s", limit.as_secs())),
        }
    }

    async fn tcp_socket(&self, network: &Network, socket: &TcpSocketProbe, limit: Duration) -> Tried {
        let Some((host, port)) = self.place(socket.host.as_deref(), &socket.port) else { return Tried::NotMade };
        let authority = authority(&host, port);
        match timeout(limit, connect(network, &host, port)).await {
            Ok(Ok(_connection)) => Tried::Passed,
            Ok(Err(error)) => Tried::Failed(format!("no connection to {authority}: {error}")),
            Err(_) => Tried::Failed(format!("no connection to {authority} within {}s", limit.as_secs())),
        }
    }

    /// Where to connect to; none as long as the pod's address isn't known.
    fn place(&self, host: Option<&str>, port: &ProbePort) -> Option<(String, u16)> {
        let host = host.map(str::to_owned).or_else(|| self.of.address.map(|ip| ip.to_string()))?;
        Some((host, port.number(self.container)?))
    }

    async fn exec(&self, exec: &ExecProbe, limit: Duration) -> Tried {
        let _turn = self.execs.acquire().await.expect("it is never closed");
        let request = ExecRequest { command: exec.command.clone(), tty: false, stdin: false };
        let mut handle = match self.runtime.exec(&self.of.run.id, &request).await {
            Ok(handle) => handle,
            Err(RuntimeError::Unavailable { .. } | RuntimeError::Gone) => return Tried::NotMade,
            Err(RuntimeError::Refused { problem, .. } | RuntimeError::Image { problem }) => return Tried::Failed(problem),
        };
        let mut output = Vec::new();
        let ended = async {
            while let Some(word) = handle.output.recv().await {
                match word {
                    ExecOutput::Stdout(bytes) | ExecOutput::Stderr(bytes) => {
                        let room = MAX_OUTPUT.saturating_sub(output.len()).min(bytes.len());
                        output.extend_from_slice(&bytes[..room]);
                    }
                    ExecOutput::Exited(code) => return Some(code),
                    ExecOutput::Failed(_) => return None,
                }
            }
            None
        };
        match timeout(limit, ended).await {
            Ok(Some(0)) => Tried::Passed,
            Ok(Some(code)) => {
                let text = String::from_utf8_lossy(&output).trim().to_owned();
                let said = if text.is_empty() { String::new() } else { format!(": {text}") };
                Tried::Failed(format!("its command exited with {code}{said}"))
            }
            // The connection to the engine broke.
            Ok(None) => Tried::NotMade,
            Err(_) => {
                // Dropped first: that kills the command.
                drop(handle);
                self.unanswered(limit).await
            }
        }
    }

    /// A command that didn't end in time: or it is the engine that says nothing.
    async fn unanswered(&self, limit: Duration) -> Tried {
        match timeout(ENGINE_LIMIT, self.runtime.inspect(&self.of.run.id)).await {
            Ok(Ok(_)) => Tried::Failed(format!("its command did not end within {}s and was killed", limit.as_secs())),
            Ok(Err(_)) | Err(_) => Tried::NotMade,
        }
    }
}

/// `host:port`, with brackets around an IPv6 address.
fn authority(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    }
}

fn request(get: &HttpGetProbe, authority: &str) -> Result<Request<Empty<Bytes>>, http::Error> {
    let mut request = Request::get(&get.path).body(Empty::new())?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_str(authority)?);
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("cube-probe/", env!("CARGO_PKG_VERSION"))));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    // The first of a name replaces ours, as in Kubernetes.
    let mut given = Vec::new();
    for own in &get.http_headers {
        let (name, value) = (HeaderName::from_bytes(own.name.as_bytes())?, HeaderValue::from_str(&own.value)?);
        if given.contains(&name) {
            headers.append(name, value);
        } else {
            headers.insert(&name, value);
            given.push(name);
        }
    }
    Ok(request)
}

/// The status of the response, and the reading of what comes with it.
async fn ask(
    network: &Network,
    (host, port): (&str, u16),
    request: Result<Request<Empty<Bytes>>, http::Error>,
) -> Result<(StatusCode, impl Future<Output = ()>), Problem> {
    let request = request.map_err(|error| chain(&error))?;
    let stream = connect(network, host, port).await.map_err(|error| error.to_string())?;
    let handshake = http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| chain(&error))?;
    let mut connection = Box::pin(connection);
    let response = {
        let mut response = pin!(sender.send_request(request));
        tokio::select! {
            biased;
            response = &mut response => response,
            // A server that closes at once has answered by then, or never will.
            _ = &mut connection => response.await,
        }
    };
    let response = response.map_err(|error| chain(&error))?;
    let status = response.status();
    let rest = async move {
        let mut body = response.into_body();
        let read = async {
            let mut room = MAX_BODY;
            while let Some(Ok(frame)) = body.frame().await {
                room = room.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if room == 0 {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = read => {}
            _ = &mut connection => {}
        }
    };
    Ok((status, rest))
}

/// To the first address of the host that takes it.
async fn connect(network: &Network, host: &str, port: u16) -> io::Result<Stream> {
    let addresses = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => network.resolve(host, port).await?,
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match network.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

//! The wire to a real engine, with a hand on it: a socket that passes everything on until a certain request has gone through, then holds its answer.
//! So a caller can hang up when the engine has its request and the answer can't have come.

use std::path::PathBuf;
use std::sync::Arc;

use cube_server::follower::runtime::docker::{Docker, default_socket};
use cube_server::tasks::Tasks;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// What became of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    Awaited,
    /// The engine has all of it.
    Sent,
    /// And the engine's connection is closed, because the caller's was.
    HungUp,
}

/// A way to the engine of its own.
pub struct Wire {
    /// The engine, seen through the wire.
    pub docker: Docker,
    pub request: watch::Receiver<Request>,
    tasks: Tasks,
    _folder: TempDir,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

impl Wire {
    /// A wire that waits for a request with that method whose path contains `part`.
    pub fn awaiting(method: &'static str, part: String) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).expect("a free name");
        let engine = default_socket().trim_start_matches("unix://").into();
        let (said, request) = watch::channel(Request::Awaited);
        let line = Arc::new(Line { engine, method, part, said });
        let tasks = Tasks::default();
        let owner = tasks.clone();
        tasks.spawn_droppable("wire", async move {
            while let Ok((caller, _)) = listener.accept().await {
                let line = line.clone();
                // A connection that broke is closed on both sides: the caller sees it.
                owner.spawn_droppable("a line of the wire", async move { drop(line.pass(caller).await) });
            }
        });
        let docker = Docker::connect(socket.to_str().expect("a plain path"), &tasks).expect("a Unix socket");
        Self { docker, request, tasks, _folder: folder }
    }
}

struct Line {
    engine: PathBuf,
    method: &'static str,
    part: String,
    said: watch::Sender<Request>,
}

impl Line {
    /// One connection, until either side closes it.
    async fn pass(&self, mut caller: UnixStream) -> std::io::Result<()> {
        let mut engine = UnixStream::connect(&self.engine).await?;
        let (mut from_caller, mut from_engine) = (vec![0; 64 << 10], vec![0; 64 << 10]);
        // The awaited request as far as it came.
        let mut held: Option<Vec<u8>> = None;
        loop {
            tokio::select! {
                biased;
                read = caller.read(&mut from_caller) => {
                    let bytes = &from_caller[..read?];
                    if bytes.is_empty() {
                        break;
                    }
                    engine.write_all(bytes).await?;
                    match &mut held {
                        Some(request) => request.extend_from_slice(bytes),
                        None => held = self.is_awaited(bytes).then(|| bytes.to_vec()),
                    }
                    if held.as_deref().is_some_and(is_whole) {
                        self.said.send_replace(Request::Sent);
                    }
                }
                read = engine.read(&mut from_engine), if held.is_none() => {
                    let bytes = &from_engine[..read?];
                    if bytes.is_empty() {
                        break;
                    }
                    caller.write_all(bytes).await?;
                }
            }
        }
        drop(engine);
        if held.is_some() {
            self.said.send_replace(Request::HungUp);
        }
        Ok(())
    }

    fn is_awaited(&self, bytes: &[u8]) -> bool {
        let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        line.strip_prefix(self.method).is_some_and(|rest| rest.starts_with(' ') && rest.contains(&self.part))
    }
}

/// Whether a request is there to the end of its body, whose length its head tells.
fn is_whole(request: &[u8]) -> bool {
    let Some(head) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    request.len() >= head + 4 + length.unwrap_or(0)
}

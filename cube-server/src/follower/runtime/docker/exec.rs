//! A command in a container. Docker leaves its process running when the client goes and has no call to end it, so its task does.
//!
//! The task ends with the process, or soon after either channel was dropped or the server stops.

use std::time::Duration;

use bollard::models::{ExecConfig, ExecInspectResponse};
use bollard::query_parameters::ResizeExecOptionsBuilder;
use bytes::{Bytes, BytesMut};
use cube_api::stream::TerminalSize;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::{Docker, streams};
use crate::follower::runtime::demux::{Broken, Channel, Frames};
use crate::follower::runtime::{ContainerId, ExecHandle, ExecInput, ExecOutput, ExecRequest, RuntimeError};

/// Pieces in each direction that wait for their reader.
const QUEUE: usize = 16;

/// The most that is read at once, in bytes: below the limit of a frame to the client.
const CHUNK: usize = 32 * 1024;

/// What Docker writes to standard output when it can't run the command at all.
const NOT_RUN: &[u8] = b"OCI runtime exec failed";

/// How long a resize is tried: Docker refuses it until the process runs, which takes 50 to 100 ms.
const RESIZE_TRIES: u32 = 50;
const RESIZE_PAUSE: Duration = Duration::from_millis(20);

/// The first wait for the exit code after the output ended (usually it is there), and the longest.
const EXIT_PAUSE: Duration = Duration::from_millis(2);
const EXIT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long a process with a terminal has after SIGHUP: shells use it to end their jobs.
const HANG_UP: Duration = Duration::from_millis(500);

/// How long the end of an abandoned process may take in all.
const KILL_LIMIT: Duration = Duration::from_secs(30);

/// Starts the command and the task that serves it.
pub async fn start(docker: &Docker, id: &ContainerId, request: &ExecRequest) -> Result<ExecHandle, RuntimeError> {
    let config = ExecConfig {
        attach_stdin: Some(request.stdin),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(request.tty),
        cmd: Some(request.command.clone()),
        ..ExecConfig::default()
    };
    let exec = docker.call("prepare the command", |api| api.create_exec(&id.0, config)).await?.id;
    let body = serde_json::json!({ "Detach": false, "Tty": request.tty }).to_string();
    let target = format!("/exec/{}/start", super::escaped(&exec));
    let (first, socket) = streams::upgrade(docker.socket(), "run the command", &target, body).await?;
    let (input, inputs) = mpsc::channel(QUEUE);
    let (outputs, output) = mpsc::channel(QUEUE);
    let running = Running { docker: docker.clone(), container: id.clone(), exec, tty: request.tty };
    docker.inner.tasks.spawn(format!("exec {}", running.exec), running.serve(first, socket, inputs, outputs));
    Ok(ExecHandle { input, output })
}

struct Running {
    docker: Docker,
    container: ContainerId,
    exec: String,
    tty: bool,
}

/// How serving the connection ended.
enum End {
    /// The process closed its output, and what it wrote last if that may be Docker's complaint.
    Output(Option<Bytes>),
    /// The connection broke.
    Broken(String),
    /// The client is gone, or the server stops.
    Gone,
}

impl Running {
    async fn serve(self, first: Bytes, socket: UnixStream, inputs: mpsc::Receiver<ExecInput>, outputs: mpsc::Sender<ExecOutput>) {
        let (read, write) = socket.into_split();
        let stopping = self.docker.inner.tasks.stopping().clone();
        // The two directions are separate futures, so that a process that doesn't read can still be heard. Dropping them loses only bytes
        // of a client that is gone.
        let served = async {
            let end = tokio::select! {
                biased;
                end = pump_out(self.tty, first, read, &outputs) => end,
                () = self.pump_in(inputs, write) => End::Gone,
            };
            let last = match end {
                End::Output(complaint) => {
                    let code = self.exit_code().await;
                    self.finish(complaint, code, &outputs).await
                }
                End::Broken(problem) => Some(ExecOutput::Failed(problem)),
                End::Gone => None,
            };
            // A client that is gone needs no last word; the process has ended, or is ended below.
            match last {
                Some(last) => outputs.send(last).await.is_ok(),
                None => false,
            }
        };
        let finished = tokio::select! {
            biased;
            () = stopping.cancelled() => false,
            finished = served => finished,
            () = outputs.closed() => false,
        };
        if !finished {
            self.end_process().await;
        }
    }

    /// Carries the client's side until the client is gone.
    async fn pump_in(&self, mut inputs: mpsc::Receiver<ExecInput>, write: OwnedWriteHalf) {
        let mut write = Some(write);
        while let Some(input) = inputs.recv().await {
            match (input, &mut write) {
                (ExecInput::Stdin(bytes), Some(open)) => {
                    // It closed its input, as `head` does: what comes is dropped, what it says is still heard.
                    if open.write_all(&bytes).await.is_err() {
                        write = None;
                    }
                }
                // Dropping the half shuts it down: the process sees the end of its input.
                (ExecInput::StdinEnd, _) => write = None,
                (ExecInput::Stdin(_), None) => {}
                (ExecInput::Resize(size), _) => self.resize(size).await,
            }
        }
    }

    async fn resize(&self, size: TerminalSize) {
        for _ in 0..RESIZE_TRIES {
            let options = ResizeExecOptionsBuilder::default().h(size.height.into()).w(size.width.into()).build();
            match self.docker.call("resize the terminal", |api| api.resize_exec(&self.exec, options)).await {
                Ok(()) => return,
                Err(error) => tracing::debug!(exec = self.exec, %error, "the terminal isn't there yet"),
            }
            tokio::time::sleep(RESIZE_PAUSE).await;
        }
    }

    async fn inspect(&self) -> Result<ExecInspectResponse, RuntimeError> {
        self.docker.call("look after the command", |api| api.inspect_exec(&self.exec)).await
    }

    /// The exit code, waiting for it: a process may close its output long before it ends.
    async fn exit_code(&self) -> Result<i64, RuntimeError> {
        let mut pause = EXIT_PAUSE;
        loop {
            let state = self.inspect().await?;
            match (state.running, state.exit_code) {
                (Some(false), Some(code)) => return Ok(code),
                _ => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(EXIT_PAUSE_MAX);
        }
    }

    /// What is said last. Docker's complaint that it couldn't run the command is told as standard error; a program that merely prints such
    /// words exits with something else.
    async fn finish(
        &self,
        complaint: Option<Bytes>,
        code: Result<i64, RuntimeError>,
        outputs: &mpsc::Sender<ExecOutput>,
    ) -> Option<ExecOutput> {
        let not_run = matches!(code, Ok(126 | 127));
        if let Some(words) = complaint {
            let output = if not_run { ExecOutput::Stderr(words) } else { ExecOutput::Stdout(words) };
            outputs.send(output).await.ok()?;
        }
        Some(match code {
            Ok(code) => ExecOutput::Exited(code),
            Err(error) => ExecOutput::Failed(error.to_string()),
        })
    }

    /// Ends the process of a client that is gone.
    async fn end_process(&self) {
        match tokio::time::timeout(KILL_LIMIT, self.kill()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(exec = self.exec, %error, "the process of an abandoned exec may still run"),
            Err(_) => tracing::warn!(exec = self.exec, "the process of an abandoned exec may still run: no end of it in time"),
        }
    }

    async fn kill(&self) -> Result<(), RuntimeError> {
        let state = self.inspect().await?;
        let pid = state.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|&pid| pid > 0);
        let (Some(pid), true) = (pid, state.running == Some(true)) else { return Ok(()) };
        if self.tty && signal_session(pid, &self.container, Signal::HUP) == Signalled::Some {
            tokio::time::sleep(HANG_UP).await;
        }
        match signal_session(pid, &self.container, Signal::KILL) {
            Signalled::Some => Ok(()),
            Signalled::Nobody if self.inspect().await?.running == Some(false) => Ok(()),
            // The engine's processes are not this machine's.
            Signalled::Nobody => {
                let problem = "its process is not on this machine".to_owned();
                Err(RuntimeError::Unavailable { operation: "end the command", problem })
            }
            Signalled::Forbidden => self.kill_from_inside(pid).await,
        }
    }

    /// Not root: the container's own `kill` does it, by the process's number in there.
    async fn kill_from_inside(&self, pid: i32) -> Result<(), RuntimeError> {
        const OPERATION: &str = "end the command";
        let problem = |problem: &str| RuntimeError::Unavailable { operation: OPERATION, problem: problem.to_owned() };
        let inner = inner_pid(pid).ok_or_else(|| problem("its process number in the container is not known"))?;
        let config = ExecConfig {
            cmd: Some(["kill", "-9", &inner.to_string()].map(str::to_owned).to_vec()),
            user: Some("0".to_owned()),
            ..ExecConfig::default()
        };
        let exec = self.docker.call(OPERATION, |api| api.create_exec(&self.container.0, config)).await?.id;
        let options = bollard::exec::StartExecOptions { detach: true, ..Default::default() };
        self.docker.call(OPERATION, |api| api.start_exec(&exec, Some(options))).await.map(|_| ())
    }
}

/// Carries the process's side until its end.
async fn pump_out(tty: bool, first: Bytes, mut read: OwnedReadHalf, outputs: &mpsc::Sender<ExecOutput>) -> End {
    let (mut frames, mut chunk, mut begun, mut complaint) = (Frames::default(), BytesMut::from(&first[..]), false, None);
    loop {
        let pieces = match take_apart(tty, &mut frames, chunk.split().freeze()) {
            Ok(pieces) => pieces,
            Err(broken) => return End::Broken(broken.to_string()),
        };
        for (channel, bytes) in pieces {
            // Held back until the exit code tells whose words they are.
            if !begun && channel == Channel::Stdout && bytes.starts_with(NOT_RUN) {
                complaint = Some(bytes);
            } else {
                for output in complaint.take().map(ExecOutput::Stdout).into_iter().chain([told(channel, bytes)]) {
                    if outputs.send(output).await.is_err() {
                        return End::Gone;
                    }
                }
            }
            begun = true;
        }
        chunk.reserve(CHUNK);
        match read.read_buf(&mut chunk).await {
            Ok(0) => return frames.end().map_or_else(|broken| End::Broken(broken.to_string()), |()| End::Output(complaint)),
            Ok(_) => {}
            Err(error) => return End::Broken(format!("the connection to docker broke: {error}")),
        }
    }
}

/// What a chunk from the socket says: with a terminal it is the output itself, without one it is frames.
fn take_apart(tty: bool, frames: &mut Frames, chunk: Bytes) -> Result<Vec<(Channel, Bytes)>, Broken> {
    if tty {
        return Ok(Vec::from_iter((!chunk.is_empty()).then_some((Channel::Stdout, chunk))));
    }
    frames.push(&chunk);
    std::iter::from_fn(|| frames.next().transpose()).collect()
}

fn told(channel: Channel, bytes: Bytes) -> ExecOutput {
    match channel {
        Channel::Stdout => ExecOutput::Stdout(bytes),
        Channel::Stderr => ExecOutput::Stderr(bytes),
    }
}

/// Whom a signal reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signalled {
    Nobody,
    Some,
    Forbidden,
}

/// Signals every process of the session that `leader` (a process number of this machine) began, as far as it is in that container: an
/// exec's process leads a session of its own, and an interactive shell's jobs have groups of their own in it.
fn signal_session(leader: i32, container: &ContainerId, signal: Signal) -> Signalled {
    let mut reached = Signalled::Nobody;
    let members =
        std::fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    for member in members.filter(|&member| member == leader || session(member) == Some(leader)) {
        // Read right before the signal: a number may have gone to another process since.
        let cgroup = std::fs::read_to_string(format!("/proc/{member}/cgroup")).unwrap_or_default();
        let Some(pid) = Pid::from_raw(member).filter(|_| cgroup.contains(&container.0)) else { continue };
        match kill_process(pid, signal) {
            Ok(()) => reached = Signalled::Some,
            Err(rustix::io::Errno::PERM) => return Signalled::Forbidden,
            // It ended by itself.
            Err(_) => {}
        }
    }
    reached
}

/// The session that a process belongs to: the fourth field after its name, which stands in brackets and may hold anything.
fn session(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(3)?.parse().ok()
}

/// A process's number in its own namespace: the last of its numbers.
fn inner_pid(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?.parse().ok()
}

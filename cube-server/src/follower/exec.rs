//! Exec: frames to and from the runtime's words for a process.

use cube_api::meta::Name;
use cube_api::pod::ContainerState;
use cube_api::routes::ExecQuery;
use cube_api::stream::{Frame, Outcome};
use cube_api::{ApiError, ErrorCode};
use tokio::sync::mpsc;

use crate::follower::agent::Exec;
use crate::follower::pods::Snapshot;
use crate::follower::runtime::{ContainerId, ExecHandle, ExecInput, ExecOutput, ExecRequest, Runtime, RuntimeError};
use crate::tasks::Tasks;

/// Frames that may wait on each way: a reader that stops holds up the process, not memory.
const FRAMES: usize = 16;

/// Starts a command in a container of the pod.
pub async fn start(runtime: &dyn Runtime, tasks: &Tasks, snapshot: &Snapshot, query: ExecQuery) -> Result<Exec, ApiError> {
    if query.command.is_empty() {
        return Err(ApiError::new(ErrorCode::BadRequest, "no command was given").hint("write it after `--`: cube exec pod/x -- sh"));
    }
    let name = container_of(snapshot, query.container.as_ref())?;
    let id = running(snapshot, &name)?;
    let request = ExecRequest { command: query.command, tty: query.tty, stdin: query.stdin };
    let handle = runtime.exec(&id, &request).await.map_err(|error| refused(&name, &error))?;
    let (input, frames_in) = mpsc::channel(FRAMES);
    let (frames_out, output) = mpsc::channel(FRAMES);
    tasks.spawn_droppable(format!("exec in {}/{name}", snapshot.pod.name), relay(handle, frames_in, frames_out));
    Ok(Exec { input, output })
}

/// The container that is meant: the only one, or the named one.
pub fn container_of(snapshot: &Snapshot, asked: Option<&Name>) -> Result<Name, ApiError> {
    let containers = &snapshot.pod.spec.containers;
    let names = || containers.iter().map(|container| container.name.as_str()).collect::<Vec<_>>().join(", ");
    match (asked, containers.as_slice()) {
        (Some(name), _) if containers.iter().any(|container| container.name == *name) => Ok(name.clone()),
        (Some(name), _) => {
            let message = format!("pod/{} has no container '{name}'", snapshot.pod.name);
            Err(ApiError::new(ErrorCode::NotFound, message).hint(format!("its containers are: {}", names())))
        }
        (None, [only]) => Ok(only.name.clone()),
        (None, _) => {
            let message = format!("pod/{} has {} containers, say which one", snapshot.pod.name, containers.len());
            Err(ApiError::new(ErrorCode::BadRequest, message).hint(format!("--container is one of: {}", names())))
        }
    }
}

/// What a container does, in words.
pub fn state_of(snapshot: &Snapshot, name: &Name) -> String {
    let status = snapshot.status.containers.iter().find(|container| container.name == *name);
    match status.map(|status| &status.state) {
        Some(ContainerState::Waiting(waiting)) => match &waiting.message {
            Some(message) => format!("{} ({message})", waiting.reason.as_str()),
            None => waiting.reason.as_str().to_owned(),
        },
        Some(ContainerState::Terminated(end)) => format!("{} (exit code {})", end.reason.as_str(), end.exit_code),
        Some(ContainerState::Running(_)) => "Running".to_owned(),
        None => "unknown".to_owned(),
    }
}

fn running(snapshot: &Snapshot, name: &Name) -> Result<ContainerId, ApiError> {
    let status = snapshot.status.containers.iter().find(|container| container.name == *name);
    let id = status.filter(|status| matches!(status.state, ContainerState::Running(_))).and_then(|status| status.container_id.clone());
    id.map(ContainerId).ok_or_else(|| {
        let message = format!("container '{name}' of pod/{} is not running: {}", snapshot.pod.name, state_of(snapshot, name));
        ApiError::new(ErrorCode::Conflict, message).hint(format!("`cube get pod/{}` shows why", snapshot.pod.name))
    })
}

fn refused(name: &Name, error: &RuntimeError) -> ApiError {
    let code = match error {
        RuntimeError::Unavailable { .. } => ErrorCode::NodeUnavailable,
        RuntimeError::Refused { .. } | RuntimeError::PortTaken { .. } | RuntimeError::Gone | RuntimeError::Image { .. } => {
            ErrorCode::Conflict
        }
    };
    ApiError::new(code, format!("can't run a command in container '{name}': {error}"))
}

/// Passes on both ways until the process ended or the client is gone; dropping the handle then kills the process.
async fn relay(handle: ExecHandle, mut frames_in: mpsc::Receiver<Frame>, frames_out: mpsc::Sender<Frame>) {
    let ExecHandle { input, mut output } = handle;
    let to_process = async {
        while let Some(frame) = frames_in.recv().await {
            let Some(word) = word_of(frame) else { continue };
            if input.send(word).await.is_err() {
                // The process has closed its input; what else comes has nowhere to go, but the client is still there.
                while frames_in.recv().await.is_some() {}
            }
        }
    };
    let from_process = async {
        while let Some(word) = output.recv().await {
            let frame = frame_of(word);
            let last = matches!(frame, Frame::Status(_));
            if frames_out.send(frame).await.is_err() || last {
                return;
            }
        }
        let cut = Frame::Status(Outcome::Failed("the connection to the container's engine broke".to_owned()));
        // A client that is gone needs no status.
        drop(frames_out.send(cut).await);
    };
    // A client that is gone drops both its ends: whichever way ends first ends the other.
    tokio::select! {
        biased;
        () = frames_out.closed() => {}
        () = from_process => {}
        () = to_process => {}
    }
}

/// Frames that only go to the client mean nothing here.
fn word_of(frame: Frame) -> Option<ExecInput> {
    match frame {
        Frame::Stdin(bytes) => Some(ExecInput::Stdin(bytes)),
        Frame::StdinEnd => Some(ExecInput::StdinEnd),
        Frame::Resize(size) => Some(ExecInput::Resize(size)),
        Frame::Stdout(_) | Frame::Stderr(_) | Frame::Status(_) => None,
    }
}

fn frame_of(word: ExecOutput) -> Frame {
    match word {
        ExecOutput::Stdout(bytes) => Frame::Stdout(bytes),
        ExecOutput::Stderr(bytes) => Frame::Stderr(bytes),
        ExecOutput::Exited(0) => Frame::Status(Outcome::Success),
        ExecOutput::Exited(code) => Frame::Status(Outcome::ExitCode(i32::try_from(code).unwrap_or(i32::MAX))),
        ExecOutput::Failed(problem) => Frame::Status(Outcome::Failed(problem)),
    }
}

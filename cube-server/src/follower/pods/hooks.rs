//! Running a container's hook. What follows from its failure is the plan's to decide.

use std::time::Duration;

use cube_api::pod::{Hook, RunHandler};

use crate::follower::plan::HookRun;
use crate::follower::runtime::{ExecOutput, ExecRequest, Runtime, RuntimeError};

/// The most of what a command wrote that is told of its failure, in bytes.
const MOST_WORDS: usize = 256;

/// Runs a hook to its end; whether it succeeded, or what it came to. Dropping it ends what it runs.
///
/// # Errors
/// When the engine doesn't answer: nothing is known of the hook then, and it is run again.
pub(super) async fn run(runtime: &dyn Runtime, hook: &Hook, at: &HookRun) -> Result<Result<(), String>, RuntimeError> {
    let Some(handler) = hook.handlers().next() else { return Ok(Ok(())) };
    match handler {
        RunHandler::Exec(exec) => run_command(runtime, at, exec.command.clone()).await,
        RunHandler::HttpGet(get) => Ok(request(get, at).await),
        RunHandler::Sleep(sleep) => {
            tokio::time::sleep(Duration::from_secs(sleep.seconds.into())).await;
            Ok(Ok(()))
        }
    }
}

async fn run_command(runtime: &dyn Runtime, at: &HookRun, command: Vec<String>) -> Result<Result<(), String>, RuntimeError> {
    let request = ExecRequest { command, tty: false, stdin: false };
    let mut running = match runtime.exec(&at.id, &request).await {
        Ok(running) => running,
        Err(trouble @ RuntimeError::Unavailable { .. }) => return Err(trouble),
        Err(refused @ (RuntimeError::Refused { .. } | RuntimeError::Gone | RuntimeError::Image { .. })) => return Ok(Err(refused.to_string())),
    };
    let mut words = Vec::new();
    while let Some(output) = running.output.recv().await {
        match output {
            ExecOutput::Stdout(bytes) | ExecOutput::Stderr(bytes) => {
                let room = MOST_WORDS.saturating_sub(words.len());
                words.extend_from_slice(&bytes[..room.min(bytes.len())]);
            }
            ExecOutput::Exited(0) => return Ok(Ok(())),
            ExecOutput::Exited(code) => {
                let words = String::from_utf8_lossy(&words);
                let words = words.trim();
                let said = if words.is_empty() { String::new() } else { format!(": {words}") };
                return Ok(Err(format!("exit code {code}{said}")));
            }
            ExecOutput::Failed(problem) => return Err(RuntimeError::Unavailable { operation: "run a hook", problem }),
        }
    }
    Err(RuntimeError::Unavailable { operation: "run a hook", problem: "the connection to the command broke".to_owned() })
}

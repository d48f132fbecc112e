//! Running a container's hook, with what probes are tried with. What follows from its failure is the plan's to decide.

use std::time::Duration;

use cube_api::pod::{Container, Hook, RunHandler};

use super::tries::http_get;
use super::{Prober, Shared};
use crate::follower::plan::{HookRun, Tried};
use crate::follower::runtime::{ExecOutput, ExecRequest, RuntimeError};

/// The most of what a command wrote that is told of its failure, in bytes.
const MAX_OUTPUT: usize = 512;

/// How long a request may take. A command may take as long as it likes: before a stop the container's grace ends it.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// What a hook came to: why it failed, if it did.
pub type Hooked = Result<(), String>;

impl Prober {
    /// Runs a hook to its end. Dropping it ends what it runs. On a node whose pods are only pretended it succeeds at once.
    ///
    /// # Errors
    /// When the engine doesn't answer: nothing is known of the hook then, and it is to be run again.
    pub async fn run_hook(&self, container: &Container, hook: &Hook, at: &HookRun) -> Result<Hooked, RuntimeError> {
        let Shared { network, .. } = &*self.shared;
        match (network, hook.handlers().next()) {
            (None, _) | (_, None) => Ok(Ok(())),
            (Some(_), Some(RunHandler::Exec(exec))) => self.run_command(at, exec.command.clone()).await,
            (Some(network), Some(RunHandler::HttpGet(get))) => {
                Ok(match http_get(network, container, at.address, get, REQUEST_LIMIT).await {
                    Tried::Passed => Ok(()),
                    Tried::Failed(got) => Err(got),
                    Tried::NotMade => Err("the pod has no address".to_owned()),
                })
            }
            (Some(_), Some(RunHandler::Sleep(sleep))) => {
                tokio::time::sleep(Duration::from_secs(sleep.seconds.into())).await;
                Ok(Ok(()))
            }
        }
    }

    async fn run_command(&self, at: &HookRun, command: Vec<String>) -> Result<Hooked, RuntimeError> {
        let broken = |problem| RuntimeError::Unavailable { operation: "run a hook", problem };
        let mut running = match self.shared.runtime.exec(&at.id, &ExecRequest { command, tty: false, stdin: false }).await {
            Ok(running) => running,
            Err(trouble @ RuntimeError::Unavailable { .. }) => return Err(trouble),
            Err(
                refused @ (RuntimeError::Refused { .. } | RuntimeError::PortTaken { .. } | RuntimeError::Gone | RuntimeError::Image { .. }),
            ) => {
                return Ok(Err(refused.to_string()));
            }
        };
        let mut output = Vec::new();
        while let Some(word) = running.output.recv().await {
            match word {
                ExecOutput::Stdout(bytes) | ExecOutput::Stderr(bytes) => {
                    let room = MAX_OUTPUT.saturating_sub(output.len()).min(bytes.len());
                    output.extend_from_slice(&bytes[..room]);
                }
                ExecOutput::Exited(0) => return Ok(Ok(())),
                ExecOutput::Exited(code) => {
                    let text = String::from_utf8_lossy(&output).trim().to_owned();
                    let said = if text.is_empty() { String::new() } else { format!(": {text}") };
                    return Ok(Err(format!("its command exited with {code}{said}")));
                }
                ExecOutput::Failed(problem) => return Err(broken(problem)),
            }
        }
        Err(broken("the connection to the command broke".to_owned()))
    }
}

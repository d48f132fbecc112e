//! A command in a container. It lives in the caller's process: when the agent is killed it ends, which on Docker it doesn't.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Fake;
use super::calls::{About, Order};
use super::desk::Operation;
use super::world::{Container, World};
use crate::follower::runtime::{ContainerId, ExecHandle, ExecInput, ExecOutput, ExecRequest, RuntimeError};

/// Counts a process for as long as it is held.
struct Live(Fake);

impl Live {
    fn new(fake: &Fake) -> Self {
        fake.world().live_execs += 1;
        Self(fake.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.world().live_execs -= 1;
        self.0.news.notify_waiters();
    }
}

pub(super) async fn start(fake: &Fake, id: &ContainerId, request: &ExecRequest) -> Result<ExecHandle, RuntimeError> {
    let wanted = id.clone();
    let begin = move |world: &mut World, _| {
        let container = world.containers.get(&wanted).ok_or(RuntimeError::Gone)?;
        let problem = "the container is not running".to_owned();
        if container.is_live() { Ok(()) } else { Err(RuntimeError::Refused { operation: "run the command", problem }) }
    };
    fake.call(Order::new(Operation::Exec, About::Container(id)), begin).await?;
    let (input, inputs) = mpsc::channel(16);
    let (outputs, output) = mpsc::channel(16);
    let (live, command, id) = (Live::new(fake), request.command.clone(), id.clone());
    fake.tasks.spawn_droppable("fake exec", async move {
        tokio::select! {
            biased;
            () = outputs.closed() => {}
            // A client that is gone needs no exit code.
            () = end_of(&live.0, &id) => drop(outputs.send(ExecOutput::Exited(137)).await),
            () = run((&live.0, &id), &command, inputs, &outputs) => {}
        }
    });
    Ok(ExecHandle { input, output })
}

/// A container's processes end together.
async fn end_of(fake: &Fake, id: &ContainerId) {
    loop {
        let news = fake.news.notified();
        if !fake.settled().0.containers.get(id).is_some_and(Container::is_live) {
            return;
        }
        fake.wait(news, None).await;
    }
}

/// The commands that the fake's containers have: `true`, `false`, `cat`, `sleep SECONDS`, `sh -c "exit CODE"`, and `health`, which says whether
/// the container is well by its script.
async fn run(
    (fake, id): (&Fake, &ContainerId),
    command: &[String],
    mut inputs: mpsc::Receiver<ExecInput>,
    outputs: &mpsc::Sender<ExecOutput>,
) {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let code = match words[..] {
        ["true"] => 0,
        ["false"] => 1,
        ["health"] => {
            let (world, now) = fake.settled();
            i64::from(!world.is_well(id, now))
        }
        ["sh", "-c", script] => script.strip_prefix("exit ").and_then(|code| code.parse().ok()).unwrap_or(2),
        ["sleep", seconds] => {
            tokio::select! {
                biased;
                () = tokio::time::sleep(Duration::from_secs(seconds.parse().unwrap_or(0))) => {}
                () = async { while inputs.recv().await.is_some() {} } => return,
            }
            0
        }
        ["cat"] => loop {
            match inputs.recv().await {
                // A client that is gone is noticed by whoever runs this.
                Some(ExecInput::Stdin(bytes)) => drop(outputs.send(ExecOutput::Stdout(bytes)).await),
                Some(ExecInput::StdinEnd) => break 0,
                Some(ExecInput::Resize(_)) => {}
                None => return,
            }
        },
        _ => {
            let words = format!("exec: {:?}: executable file not found in $PATH", words.first().unwrap_or(&""));
            drop(outputs.send(ExecOutput::Stderr(Bytes::from(words))).await);
            126
        }
    };
    // As above.
    drop(outputs.send(ExecOutput::Exited(code)).await);
}

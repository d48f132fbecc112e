//! A scripted engine in memory, for tests of the node agent and the simulation.
//!
//! It lives outside the agent: clones share it, so it survives the agent's crash as Docker does. What a container does follows from its image's
//! [`Script`]; time is tokio's (a test may pause it), the times it tells come from [`Ambient`]. It knows nothing of networks, files or bytes.

mod world;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cube_api::meta::{Name, Uid};
use cube_api::node::Capacity;
use cube_api::quantity::{Bytes as Memory, MilliCpu};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::{mpsc, watch};

use self::world::{Container, World, is_live};
use super::{
    ContainerId, ContainerSpec, EngineInfo, ExecHandle, ExecInput, ExecOutput, ExecRequest, Hint, Identity, LogBatch, LogLine, LogRequest,
    Observed, PullProgress, RunState, Runtime, RuntimeError, SandboxSpec, Scope, StopSignal,
};
use crate::ambient::Ambient;
use crate::tasks::Tasks;

/// What an image's containers do. The default runs until it is told to stop, and its image is there.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// Whether and how the image can be had.
    pub pull: Pull,
    /// How long it runs; for ever if none.
    pub run_for: Option<Duration>,
    /// What it exits with after `run_for`.
    pub exit_code: i64,
    /// So many of its first starts (for each pod and container name) end with 1 at once.
    pub fail_first: u32,
    /// Only SIGKILL ends it.
    pub ignores_stop: bool,
    /// Its end after `run_for` is the kernel's, for its memory limit.
    pub oom: bool,
    /// It can't be started, and the engine's words for it.
    pub start_error: Option<String>,
    /// The lines that it writes when it starts, without their newlines.
    pub output: Vec<String>,
}

/// How an image can be had.
#[derive(Debug, Clone, Default)]
pub enum Pull {
    /// The node has it.
    #[default]
    Present,
    /// The registry has it; so long it takes.
    After(Duration),
    /// Nobody has it.
    Missing,
}

/// The calls, as the call log and the failures name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "they are the methods of Runtime")]
pub enum Operation {
    Info,
    List,
    Inspect,
    Hints,
    Image,
    Pull,
    CreateSandbox,
    CreateContainer,
    Start,
    Signal,
    Remove,
    Logs,
    Exec,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing was done.
    NotDone,
    /// It was done, but the answer got lost: the caller can't tell the two apart.
    ReplyLost,
}

/// One call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which.
    pub operation: Operation,
    /// Of which container, where it is about one that exists or is to be made.
    pub identity: Option<Identity>,
}

/// The engine. Clones share it.
#[derive(Clone)]
pub struct Fake {
    world: Arc<Mutex<World>>,
    /// Counts the changes; readers that wait look again.
    changes: watch::Sender<u64>,
    ambient: Ambient,
    tasks: Tasks,
}

impl Fake {
    /// An empty engine. Its execs run in `tasks`.
    pub fn new(ambient: Ambient, tasks: &Tasks) -> Self {
        Self { world: Arc::default(), changes: watch::channel(0).0, ambient, tasks: tasks.clone() }
    }

    /// Says what containers of `image` do from now on. Images without a script don't exist.
    pub fn script(&self, image: &str, script: Script) {
        self.world().scripts.insert(image.to_owned(), script);
    }

    /// Switches the engine off or on. Containers go on meanwhile.
    pub fn set_down(&self, down: bool) {
        self.world().down = down;
        self.changed();
    }

    /// How long every call takes from now on.
    pub fn set_latency(&self, latency: Duration) {
        self.world().latency = latency;
    }

    /// Lets the next call of `operation` fail. Several failures of one operation hit one call each, in order.
    pub fn fail_next(&self, operation: Operation, failure: Failure) {
        self.world().failures.push_back((operation, failure));
    }

    /// Every call so far, also those that failed.
    pub fn calls(&self) -> Vec<Call> {
        self.world().calls.clone()
    }

    /// How often a pod's container (its sandbox: none) was started, over all attempts.
    pub fn starts(&self, uid: Uid, container: Option<&Name>) -> u32 {
        self.world().starts.get(&(uid, container.cloned())).copied().unwrap_or(0)
    }

    /// The most attempts of a pod's container that ever ran at the same time.
    pub fn most_live(&self, uid: Uid, container: Option<&Name>) -> usize {
        self.world().most_live.get(&(uid, container.cloned())).copied().unwrap_or(0)
    }

    /// Execs whose process runs.
    pub fn live_execs(&self) -> usize {
        self.world().live_execs
    }

    /// Every container on the engine, whoever's.
    pub fn everything(&self) -> Vec<Observed> {
        let mut world = self.world();
        world.settle(&self.ambient);
        world.containers.values().map(|container| container.observed.clone()).collect()
    }

    /// Kills a container behind the agent's back.
    pub fn kill_by_hand(&self, id: &ContainerId) {
        self.world().end(&self.ambient, id, 137, false);
        self.changed();
    }

    /// Removes a container behind the agent's back.
    pub fn remove_by_hand(&self, id: &ContainerId) {
        self.world().remove(id);
        self.changed();
    }

    /// Restarts a container behind the agent's back: a sandbox's identity changes by it.
    pub fn restart_by_hand(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let mut world = self.world();
        world.end(&self.ambient, id, 137, false);
        let started = world.start(&self.ambient, id);
        drop(world);
        self.changed();
        started
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("a test that panicked in here has failed already")
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    async fn call<T>(
        &self,
        operation: Operation,
        identity: impl FnOnce(&World) -> Option<Identity>,
        act: impl FnOnce(&mut World) -> Result<T, RuntimeError>,
    ) -> Result<T, RuntimeError> {
        let latency = self.world().latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let result = {
            let mut world = self.world();
            world.settle(&self.ambient);
            let identity = identity(&world);
            world.calls.push(Call { operation, identity });
            let unavailable = |problem: &str| RuntimeError::Unavailable { operation: "answer", problem: problem.to_owned() };
            if world.down {
                return Err(unavailable("the engine is down"));
            }
            let due = world.failures.iter().position(|(at, _)| *at == operation);
            match due.and_then(|due| world.failures.remove(due)) {
                Some((_, Failure::NotDone)) => Err(unavailable("injected")),
                Some((_, Failure::ReplyLost)) => {
                    // What it did is all that counts; the caller hears nothing of it.
                    drop(act(&mut world));
                    Err(unavailable("the answer got lost"))
                }
                None => act(&mut world),
            }
        };
        self.changed();
        result
    }

    /// Waits until `changes` moves or some container's time is up.
    async fn wait(&self, changes: &mut watch::Receiver<u64>) {
        let next = self.world().containers.values().filter_map(|container| container.fate.map(|(at, _, _)| at)).min();
        tokio::select! {
            // The sender is `self`: it can't be gone.
            _ = changes.changed() => {}
            () = async { tokio::time::sleep_until(next.expect("checked by the branch's condition")).await }, if next.is_some() => {}
        }
        self.world().settle(&self.ambient);
    }
}

fn new_container(scope: &Scope, identity: &Identity, image: &str) -> Container {
    let observed = Observed {
        id: ContainerId(String::new()),
        identity: identity.clone(),
        sandbox: None,
        image_id: image_id(image),
        tty: false,
        ip: None,
        state: RunState::Created,
    };
    Container { scope: scope.clone(), published: Vec::new(), image: image.to_owned(), observed, log: Vec::new(), fate: None }
}

fn image_id(image: &str) -> String {
    format!("sha256:{image}")
}

fn no_image(image: &str) -> RuntimeError {
    RuntimeError::Image { problem: format!("no such image: {image}") }
}

#[async_trait]
impl Runtime for Fake {
    async fn info(&self) -> Result<EngineInfo, RuntimeError> {
        let capacity = Capacity { cpu: MilliCpu(4000), memory: Memory(8 << 30), pods: 0 };
        self.call(Operation::Info, |_| None, |_| Ok(EngineInfo { version: "fake".to_owned(), capacity })).await
    }

    async fn list(&self, scope: &Scope) -> Result<Vec<Observed>, RuntimeError> {
        let ours = |world: &mut World| {
            let ours = world.containers.values().filter(|container| container.scope == *scope);
            Ok(ours.map(|container| container.observed.clone()).collect())
        };
        self.call(Operation::List, |_| None, ours).await
    }

    async fn list_pod(&self, scope: &Scope, uid: Uid) -> Result<Vec<Observed>, RuntimeError> {
        let all = self.list(scope).await?;
        Ok(all.into_iter().filter(|container| container.identity.uid == uid).collect())
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Option<Observed>, RuntimeError> {
        let look = |world: &mut World| Ok(world.containers.get(id).map(|container| container.observed.clone()));
        self.call(Operation::Inspect, |world| world.identity(id), look).await
    }

    async fn hints(&self, scope: &Scope) -> Result<BoxStream<'static, Hint>, RuntimeError> {
        let seen = self.call(Operation::Hints, |_| None, |world| Ok(world.ends.len())).await?;
        let (fake, scope, mut changes) = (self.clone(), scope.clone(), self.changes.subscribe());
        changes.mark_changed();
        let hints = stream::unfold((seen, changes), move |(mut seen, mut changes)| {
            let (fake, scope) = (fake.clone(), scope.clone());
            async move {
                loop {
                    let next = fake.world().ends.get(seen).cloned();
                    match next {
                        Some((of, uid)) => {
                            seen += 1;
                            if of == scope {
                                return Some((Hint { uid }, (seen, changes)));
                            }
                        }
                        None if fake.world().down => return None,
                        None => fake.wait(&mut changes).await,
                    }
                }
            }
        });
        Ok(hints.boxed())
    }

    async fn image(&self, image: &str) -> Result<Option<String>, RuntimeError> {
        self.call(Operation::Image, |_| None, |world| Ok(world.has_image(image).then(|| image_id(image)))).await
    }

    async fn pull(&self, image: &str, progress: watch::Sender<PullProgress>) -> Result<String, RuntimeError> {
        let pull = self.world().scripts.get(image).map(|script| script.pull.clone());
        if let Some(Pull::After(length)) = pull {
            progress.send_replace(PullProgress { current: 1, total: 2 });
            tokio::time::sleep(length).await;
        }
        let arrive = |world: &mut World| match pull {
            Some(Pull::Present) => Ok(image_id(image)),
            Some(Pull::After(_)) => {
                world.pulled.push(image.to_owned());
                Ok(image_id(image))
            }
            Some(Pull::Missing) | None => Err(no_image(image)),
        };
        self.call(Operation::Pull, |_| None, arrive).await
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<ContainerId, RuntimeError> {
        let act = |world: &mut World| {
            let mut container = new_container(&spec.scope, &spec.identity, "pause");
            container.published.clone_from(&spec.published);
            Ok(world.create(&spec.scope, container))
        };
        self.call(Operation::CreateSandbox, |_| Some(spec.identity.clone()), act).await
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<ContainerId, RuntimeError> {
        let act = |world: &mut World| {
            if !world.has_image(&spec.image) {
                return Err(no_image(&spec.image));
            }
            let mut container = new_container(&spec.scope, &spec.identity, &spec.image);
            container.observed.sandbox = Some(spec.sandbox.clone());
            container.observed.tty = spec.tty;
            Ok(world.create(&spec.scope, container))
        };
        self.call(Operation::CreateContainer, |_| Some(spec.identity.clone()), act).await
    }

    async fn start(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.call(Operation::Start, |world| world.identity(id), |world| world.start(&self.ambient, id)).await
    }

    async fn signal(&self, id: &ContainerId, signal: StopSignal) -> Result<(), RuntimeError> {
        let act = |world: &mut World| {
            let Some(container) = world.containers.get(id) else { return Ok(()) };
            let deaf = world.scripts.get(&container.image).is_some_and(|script| script.ignores_stop);
            match signal {
                StopSignal::Stop if deaf => {}
                StopSignal::Stop => world.end(&self.ambient, id, 143, false),
                StopSignal::Kill => world.end(&self.ambient, id, 137, false),
            }
            Ok(())
        };
        self.call(Operation::Signal, |world| world.identity(id), act).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let act = |world: &mut World| {
            world.remove(id);
            Ok(())
        };
        self.call(Operation::Remove, |world| world.identity(id), act).await
    }

    async fn logs(&self, id: &ContainerId, request: &LogRequest) -> Result<BoxStream<'static, LogBatch>, RuntimeError> {
        let since = request.since;
        let wanted = move |line: &&LogLine| since.is_none_or(|since| line.at >= Some(since));
        let first = |world: &mut World| {
            let container = world.containers.get(id).ok_or(RuntimeError::Gone)?;
            let length = container.log.iter().filter(wanted).count();
            Ok(request.tail.map_or(0, |tail| length.saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX))))
        };
        let first = self.call(Operation::Logs, |world| world.identity(id), first).await?;
        let (fake, id, follow, times) = (self.clone(), id.clone(), request.follow, request.times);
        let lines = stream::unfold((first, self.changes.subscribe()), move |(at, mut changes)| {
            let (fake, id) = (fake.clone(), id.clone());
            async move {
                loop {
                    let (line, live) = {
                        let world = fake.world();
                        let container = world.containers.get(&id)?;
                        (container.log.iter().filter(wanted).nth(at).cloned(), is_live(container))
                    };
                    match line {
                        Some(line) => {
                            let line = LogLine { at: line.at.filter(|_| times), ..line };
                            return Some((Ok(vec![line]), (at + 1, changes)));
                        }
                        None if follow && live => fake.wait(&mut changes).await,
                        None => return None,
                    }
                }
            }
        });
        Ok(lines.boxed())
    }

    async fn exec(&self, id: &ContainerId, request: &ExecRequest) -> Result<ExecHandle, RuntimeError> {
        let begin = |world: &mut World| {
            let container = world.containers.get(id).ok_or(RuntimeError::Gone)?;
            let problem = "the container is not running".to_owned();
            if is_live(container) { Ok(()) } else { Err(RuntimeError::Refused { operation: "run the command", problem }) }
        };
        self.call(Operation::Exec, |world| world.identity(id), begin).await?;
        let (input, inputs) = mpsc::channel(16);
        let (outputs, output) = mpsc::channel(16);
        self.world().live_execs += 1;
        let (fake, command) = (self.clone(), request.command.clone());
        self.tasks.spawn_droppable("fake exec", async move {
            tokio::select! {
                () = run(&command, inputs, &outputs) => {}
                () = outputs.closed() => {}
            }
            fake.world().live_execs -= 1;
            fake.changed();
        });
        Ok(ExecHandle { input, output })
    }
}

/// The commands that the fake's containers have: `true`, `false`, `cat`, `sleep SECONDS`, and `sh -c "exit CODE"`.
async fn run(command: &[String], mut inputs: mpsc::Receiver<ExecInput>, outputs: &mpsc::Sender<ExecOutput>) {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let code = match words[..] {
        ["true"] => 0,
        ["false"] => 1,
        ["sh", "-c", script] => script.strip_prefix("exit ").and_then(|code| code.parse().ok()).unwrap_or(2),
        ["sleep", seconds] => {
            tokio::select! {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cube_api::meta::ClusterId;
    use cube_api::pod::Resources;
    use uuid::Uuid;

    use super::*;

    /// A pod with one container of an image with that script: the engine, the sandbox, the container.
    async fn pod(script: Script) -> (Fake, ContainerId, ContainerSpec) {
        let fake = Fake::new(Ambient::system(), &Tasks::default());
        fake.script("app:1", script);
        let name = |text: &str| text.parse::<Name>().unwrap();
        let scope = Scope { cluster: ClusterId(Uuid::nil()), node: name("node-1") };
        let identity = Identity { uid: Uid(Uuid::nil()), pod: name("web"), container: None, attempt: 0 };
        let spec = SandboxSpec { scope: scope.clone(), identity: identity.clone(), hostname: "web".to_owned(), published: Vec::new() };
        let sandbox = fake.create_sandbox(&spec).await.unwrap();
        fake.start(&sandbox).await.unwrap();
        let spec = ContainerSpec {
            scope,
            identity: Identity { container: Some(name("app")), ..identity },
            sandbox: sandbox.clone(),
            image: "app:1".to_owned(),
            command: Vec::new(),
            args: Vec::new(),
            env: BTreeMap::new(),
            working_dir: None,
            resources: Resources::default(),
            tty: false,
            stdin: false,
        };
        (fake, sandbox, spec)
    }

    fn code(observed: &Observed) -> Option<i64> {
        match observed.state {
            RunState::Exited { code, .. } => Some(code),
            RunState::Created | RunState::Running { .. } | RunState::Paused { .. } | RunState::Removing => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_ends_when_its_time_is_up_and_a_waiting_reader_is_told() {
        let (fake, _, spec) = pod(Script { run_for: Some(Duration::from_secs(60)), exit_code: 7, ..Script::default() }).await;
        let mut hints = fake.hints(&spec.scope).await.unwrap();
        let id = fake.create_container(&spec).await.unwrap();
        fake.start(&id).await.unwrap();
        assert_eq!(code(&fake.inspect(&id).await.unwrap().unwrap()), None);
        assert_eq!(hints.next().await, Some(Hint { uid: spec.identity.uid }));
        assert_eq!(code(&fake.inspect(&id).await.unwrap().unwrap()), Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_reply_leaves_the_thing_done_and_a_failed_call_does_not() {
        let (fake, _, spec) = pod(Script::default()).await;
        let id = fake.create_container(&spec).await.unwrap();
        fake.fail_next(Operation::Start, Failure::NotDone);
        fake.fail_next(Operation::Start, Failure::ReplyLost);
        assert!(fake.start(&id).await.unwrap_err().is_engine_trouble());
        assert_eq!(fake.starts(spec.identity.uid, spec.identity.container.as_ref()), 0);
        assert!(fake.start(&id).await.unwrap_err().is_engine_trouble());
        fake.start(&id).await.unwrap();
        assert_eq!(fake.starts(spec.identity.uid, spec.identity.container.as_ref()), 1);
        assert_eq!(
            fake.calls().iter().filter(|call| call.operation == Operation::Start && call.identity == Some(spec.identity.clone())).count(),
            3
        );
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_counted_together_and_live_ones_are_seen_together() {
        let (fake, sandbox, spec) = pod(Script { fail_first: 1, ..Script::default() }).await;
        let first = fake.create_container(&spec).await.unwrap();
        fake.start(&first).await.unwrap();
        assert_eq!(code(&fake.inspect(&first).await.unwrap().unwrap()), Some(1));
        for attempt in [1, 2] {
            let identity = Identity { attempt, ..spec.identity.clone() };
            let id = fake.create_container(&ContainerSpec { identity, ..spec.clone() }).await.unwrap();
            fake.start(&id).await.unwrap();
        }
        let container = spec.identity.container.as_ref();
        assert_eq!((fake.starts(spec.identity.uid, container), fake.most_live(spec.identity.uid, container)), (3, 2));
        let before = fake.inspect(&sandbox).await.unwrap();
        fake.restart_by_hand(&sandbox).unwrap();
        assert_ne!(fake.inspect(&sandbox).await.unwrap(), before);
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_exec_ends() {
        let (fake, sandbox, _) = pod(Script::default()).await;
        let request = ExecRequest { command: vec!["sleep".to_owned(), "1000".to_owned()], tty: false, stdin: false };
        let handle = fake.exec(&sandbox, &request).await.unwrap();
        assert_eq!(fake.live_execs(), 1);
        drop(handle);
        let mut changes = fake.changes.subscribe();
        changes.wait_for(|_| fake.live_execs() == 0).await.unwrap();
    }
}

//! A scripted engine in memory, for tests of the node agent and the simulation.
//!
//! It lives outside the agent: clones share it, so it survives the agent's crash as Docker does. What a container does follows from its image's
//! [`Script`]; time is tokio's (a test may pause it), the times it tells come from [`Ambient`]. It knows nothing of networks, files or bytes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cube_api::meta::{Name, Uid};
use cube_api::node::Capacity;
use cube_api::pod::{Port, Protocol};
use cube_api::quantity::{Bytes as Memory, MilliCpu};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{
    ContainerId, ContainerSpec, EngineInfo, ExecHandle, ExecInput, ExecOutput, ExecRequest, Hint, Identity, LogLine, LogRequest, Observed,
    PullProgress, RunState, Runtime, RuntimeError, SandboxSpec, Scope, StopSignal,
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

#[derive(Default)]
struct World {
    scripts: BTreeMap<String, Script>,
    pulled: Vec<String>,
    containers: BTreeMap<ContainerId, Container>,
    made: u64,
    starts: BTreeMap<(Uid, Option<Name>), u32>,
    most_live: BTreeMap<(Uid, Option<Name>), usize>,
    calls: Vec<Call>,
    failures: VecDeque<(Operation, Failure)>,
    down: bool,
    latency: Duration,
    live_execs: usize,
    /// Every end and removal, in order, for the hints.
    ends: Vec<(Scope, Uid)>,
}

struct Container {
    scope: Scope,
    published: Vec<Port>,
    image: String,
    observed: Observed,
    log: Vec<LogLine>,
    /// When and how it ends by itself.
    fate: Option<(Instant, i64, bool)>,
}

type Key = (Uid, Option<Name>);

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

impl World {
    /// Ends what should have ended by now.
    fn settle(&mut self, ambient: &Ambient) {
        let now = Instant::now();
        let due = |container: &Container| container.fate.filter(|(at, _, _)| *at <= now);
        let due: Vec<_> = self.containers.iter().filter_map(|(id, container)| Some((id.clone(), due(container)?))).collect();
        for (id, (_, code, oom)) in due {
            self.end(ambient, &id, code, oom);
        }
    }

    fn end(&mut self, ambient: &Ambient, id: &ContainerId, code: i64, oom: bool) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let (RunState::Running { since } | RunState::Paused { since }) = container.observed.state else { return };
        container.fate = None;
        container.observed.state = RunState::Exited { code, oom, error: None, started: Some(since), finished: Some(ambient.now()) };
        self.ends.push((container.scope.clone(), container.observed.identity.uid));
    }

    fn remove(&mut self, id: &ContainerId) {
        if let Some(container) = self.containers.remove(id) {
            self.ends.push((container.scope, container.observed.identity.uid));
        }
    }

    fn identity(&self, id: &ContainerId) -> Option<Identity> {
        Some(self.containers.get(id)?.observed.identity.clone())
    }

    fn has_image(&self, image: &str) -> bool {
        match self.scripts.get(image).map(|script| &script.pull) {
            Some(Pull::Present) => true,
            Some(Pull::After(_)) => self.pulled.iter().any(|pulled| pulled == image),
            Some(Pull::Missing) | None => false,
        }
    }

    fn create(&mut self, scope: &Scope, container: Container) -> ContainerId {
        let same = |other: &&Container| other.scope == *scope && other.observed.identity == container.observed.identity;
        if let Some(existing) = self.containers.values().find(same) {
            return existing.observed.id.clone();
        }
        self.made += 1;
        let id = ContainerId(format!("fake-{}", self.made));
        let observed = Observed { id: id.clone(), ..container.observed.clone() };
        self.containers.insert(id.clone(), Container { observed, ..container });
        id
    }

    fn start(&mut self, ambient: &Ambient, id: &ContainerId) -> Result<(), RuntimeError> {
        let container = self.containers.get(id).ok_or(RuntimeError::Gone)?;
        if is_live(container) {
            return Ok(());
        }
        let (key, script) = (key(container), self.scripts.get(&container.image).cloned().unwrap_or_default());
        let earlier = self.starts.get(&key).copied().unwrap_or(0);
        let problem = self.obstacle(container).or(script.start_error);
        let now = ambient.now();
        let container = self.containers.get_mut(id).ok_or(RuntimeError::Gone)?;
        if let Some(problem) = problem {
            container.observed.state =
                RunState::Exited { code: 127, oom: false, error: Some(problem.clone()), started: None, finished: None };
            return Err(RuntimeError::Refused { operation: "start the container", problem });
        }
        container.observed.state = RunState::Running { since: now };
        container.log.extend(script.output.iter().map(|line| LogLine { at: now, bytes: Bytes::from(format!("{line}\n")) }));
        let fate = |code| script.run_for.map(|length| (Instant::now() + length, code, script.oom));
        let code = if script.oom { 137 } else { script.exit_code };
        container.fate = if earlier < script.fail_first { Some((Instant::now(), 1, false)) } else { fate(code) };
        self.starts.insert(key.clone(), earlier + 1);
        let live = self.containers.values().filter(|other| is_live(other) && self::key(other) == key).count();
        let most = self.most_live.entry(key).or_default();
        *most = live.max(*most);
        Ok(())
    }

    /// Why a container can't start for what others do.
    fn obstacle(&self, container: &Container) -> Option<String> {
        let sandbox = container.observed.sandbox.as_ref();
        if sandbox.is_some_and(|sandbox| !self.containers.get(sandbox).is_some_and(is_live)) {
            return Some("cannot join network of a non running container".to_owned());
        }
        let taken = |port: &&Port| {
            let mut others = self.containers.values().filter(|other| is_live(other)).flat_map(|other| &other.published);
            others.any(|other| collide(other, port))
        };
        let port = container.published.iter().find(taken)?.host_port?;
        Some(format!("Bind for 0.0.0.0:{port} failed: port is already allocated"))
    }
}

fn is_live(container: &Container) -> bool {
    match container.observed.state {
        RunState::Running { .. } | RunState::Paused { .. } => true,
        RunState::Created | RunState::Exited { .. } | RunState::Removing => false,
    }
}

fn key(container: &Container) -> Key {
    (container.observed.identity.uid, container.observed.identity.container.clone())
}

fn collide(one: &Port, other: &Port) -> bool {
    let key = |port: &Port| (port.host_port, port.protocol == Protocol::Tcp);
    let same_address = one.host_ip.is_none() || other.host_ip.is_none() || one.host_ip == other.host_ip;
    one.host_port.is_some() && key(one) == key(other) && same_address
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

    async fn logs(
        &self,
        id: &ContainerId,
        request: &LogRequest,
    ) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError> {
        let since = request.since;
        let wanted = move |line: &&LogLine| since.is_none_or(|since| line.at >= since);
        let first = |world: &mut World| {
            let container = world.containers.get(id).ok_or(RuntimeError::Gone)?;
            let length = container.log.iter().filter(wanted).count();
            Ok(request.tail.map_or(0, |tail| length.saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX))))
        };
        let first = self.call(Operation::Logs, |world| world.identity(id), first).await?;
        let (fake, id, follow) = (self.clone(), id.clone(), request.follow);
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
                        Some(line) => return Some((Ok(line), (at + 1, changes))),
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

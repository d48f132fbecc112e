//! The calls. One that was handed over is carried out at its time whether or not its caller still lives, as Docker does: a client that hangs up
//! takes back nothing but a pull.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cube_api::meta::Uid;
use cube_api::node::Capacity;
use cube_api::pod::HostPort;
use cube_api::quantity::{Bytes as Memory, MilliCpu};
use futures::stream::BoxStream;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::desk::{Call, Failure, Operation};
use super::script::Pull;
use super::world::{By, Carry, Container, Moment, World};
use super::{Fake, exec, image_id, streams};
use crate::follower::runtime::{
    Binding, CALL_TIMEOUT, ContainerId, ContainerSpec, EngineInfo, ExecHandle, ExecRequest, Hint, Identity, LogBatch, LogRequest, Observed,
    PULL_IDLE, PullProgress, Runtime, RuntimeError, SandboxSpec, Scope, Spare, StopSignal,
};
use crate::latest;

/// What a call is about.
pub(super) enum About<'a> {
    Engine,
    New(&'a Identity),
    Container(&'a ContainerId),
}

/// A call that is to be made.
pub(super) struct Order<'a> {
    pub(super) operation: Operation,
    pub(super) about: About<'a>,
    /// How long the engine works on it, beside the latency.
    pub(super) takes: Duration,
    /// How long its caller waits.
    pub(super) patience: Duration,
}

impl<'a> Order<'a> {
    pub(super) fn new(operation: Operation, about: About<'a>) -> Self {
        Self { operation, about, takes: Duration::ZERO, patience: CALL_TIMEOUT }
    }
}

type Answer<T> = Result<T, RuntimeError>;

/// A call that was handed over.
struct Handed<T> {
    answer: oneshot::Receiver<Answer<T>>,
    carried_at: Duration,
    answered_at: Duration,
    /// The engine's outages before it: an answer doesn't outlive the connection.
    outages: u64,
}

impl Fake {
    /// Makes a call and waits for its answer.
    pub(super) async fn call<T, A>(&self, order: Order<'_>, act: A) -> Answer<T>
    where
        T: Send + 'static,
        A: FnOnce(&mut World, Moment) -> Answer<T> + Send + 'static,
    {
        let patience = order.patience;
        let handed = self.hand_over(order, act)?;
        match tokio::time::timeout(patience, self.answered(handed)).await {
            Ok(answer) => answer,
            Err(_) => Err(unavailable("no answer in time")),
        }
    }

    fn hand_over<T, A>(&self, order: Order<'_>, act: A) -> Answer<Handed<T>>
    where
        T: Send + 'static,
        A: FnOnce(&mut World, Moment) -> Answer<T> + Send + 'static,
    {
        let Order { operation, about, takes, .. } = order;
        let (mut world, now) = self.settled();
        let (identity, foreign) = match about {
            About::Engine => (None, false),
            About::New(identity) => (Some(identity.clone()), false),
            About::Container(id) => match world.containers.get(id) {
                Some(container) => (Some(container.observed.identity.clone()), container.foreign),
                None => (None, false),
            },
        };
        world.desk.note(Call { operation, identity }, foreign);
        if world.down {
            return Err(unavailable("the engine is down"));
        }
        let failure = world.desk.failure(operation);
        let (reply, answer) = oneshot::channel();
        // Who asked may be gone: what was done stands.
        let carry: Carry = Box::new(move |world, at| match failure {
            Some(Failure::NotDone) => drop(reply.send(Err(unavailable("injected")))),
            Some(Failure::ReplyLost) => {
                drop(act(world, at));
                drop(reply.send(Err(unavailable("the answer got lost"))));
            }
            None => drop(reply.send(act(world, at))),
        });
        let latency = world.desk.latency(operation, &self.ambient);
        let (carried_at, answered_at) = (now.elapsed + latency / 2 + takes, now.elapsed + latency + takes);
        let outages = world.outages;
        if world.desk.hanging.contains(&operation) {
            world.desk.held.push(carry);
        } else {
            world.carry_at(carried_at, carry);
            world.settle(now);
        }
        Ok(Handed { answer, carried_at, answered_at, outages })
    }

    async fn answered<T>(&self, handed: Handed<T>) -> Answer<T> {
        let Handed { answer, carried_at, answered_at, outages } = handed;
        self.sleep_until(carried_at).await;
        // This carries it out, unless it hangs or somebody looked before.
        drop(self.settled());
        let broken = || unavailable("the engine went down");
        let result = answer.await.map_err(|_| broken())?;
        self.sleep_until(answered_at).await;
        if self.world().outages == outages { result } else { Err(broken()) }
    }
}

pub(super) fn unavailable(problem: &str) -> RuntimeError {
    RuntimeError::Unavailable { operation: "answer", problem: problem.to_owned() }
}

fn no_image(image: &str) -> RuntimeError {
    RuntimeError::Image { problem: format!("no such image: {image}") }
}

/// A pod's container: the engine shows only what carries labels of ours.
fn shown(container: &Container) -> Option<Observed> {
    (container.scope.is_some() && !container.spare).then(|| container.observed.clone())
}

#[async_trait]
impl Runtime for Fake {
    async fn info(&self) -> Result<EngineInfo, RuntimeError> {
        let capacity = Capacity { cpu: MilliCpu(4000), memory: Memory(8 << 30), disk: Memory(100 << 30), pods: 0 };
        let info = EngineInfo { version: "fake".to_owned(), capacity, data_root: None };
        self.call(Order::new(Operation::Info, About::Engine), |_, _| Ok(info)).await
    }

    async fn scopes(&self) -> Result<BTreeMap<Scope, usize>, RuntimeError> {
        let count = |world: &mut World, _| {
            let mut scopes = BTreeMap::new();
            for scope in world.containers.values().filter_map(|container| container.scope.clone()) {
                *scopes.entry(scope).or_default() += 1;
            }
            Ok(scopes)
        };
        self.call(Order::new(Operation::Scopes, About::Engine), count).await
    }

    async fn list(&self, scope: &Scope) -> Result<Vec<Observed>, RuntimeError> {
        let scope = Some(scope.clone());
        let ours = move |world: &mut World, _| {
            Ok(world.containers.values().filter(|container| container.scope == scope).filter_map(shown).collect())
        };
        self.call(Order::new(Operation::List, About::Engine), ours).await
    }

    async fn list_pod(&self, scope: &Scope, uid: Uid) -> Result<Vec<Observed>, RuntimeError> {
        let all = self.list(scope).await?;
        Ok(all.into_iter().filter(|container| container.identity.uid == uid).collect())
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Option<Observed>, RuntimeError> {
        let wanted = id.clone();
        let look = move |world: &mut World, _| Ok(world.containers.get(&wanted).and_then(shown));
        self.call(Order::new(Operation::Inspect, About::Container(id)), look).await
    }

    async fn hints(&self, scope: &Scope) -> Result<BoxStream<'static, Hint>, RuntimeError> {
        streams::hints(self, scope).await
    }

    async fn image(&self, image: &str) -> Result<Option<String>, RuntimeError> {
        let wanted = image.to_owned();
        let look = move |world: &mut World, _| Ok(world.has_image(&wanted).then(|| image_id(&wanted)));
        self.call(Order::new(Operation::Image, About::Engine), look).await
    }

    async fn pull(&self, image: &str, progress: latest::Sender<PullProgress>) -> Result<String, RuntimeError> {
        let takes = match self.world().scripts.get(image).map(|script| &script.pull) {
            Some(Pull::After(length)) => {
                progress.send_replace(PullProgress { current: 1, total: 2 });
                *length
            }
            Some(Pull::Present | Pull::Missing) | None => Duration::ZERO,
        };
        let caller = Arc::new(());
        let (wanted, waiting) = (image.to_owned(), Arc::downgrade(&caller));
        let arrive = move |world: &mut World, _| match world.scripts.get(&wanted).map(|script| script.pull.clone()) {
            Some(Pull::Present | Pull::After(_)) if waiting.strong_count() > 0 => {
                world.removed.remove(&wanted);
                world.pulled.insert(wanted.clone());
                Ok(image_id(&wanted))
            }
            // Nobody waits for it any more: Docker gives it up.
            Some(Pull::Present | Pull::After(_) | Pull::Missing) | None => Err(no_image(&wanted)),
        };
        let order = Order { takes, patience: takes + PULL_IDLE, ..Order::new(Operation::Pull, About::Engine) };
        let pulled = self.call(order, arrive).await;
        drop(caller);
        pulled
    }

    async fn port_is_free(&self, port: HostPort) -> bool {
        let (world, _) = self.settled();
        world.is_free(port)
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<ContainerId, RuntimeError> {
        let mut container = Container::new(Some(spec.scope.clone()), &spec.identity, "pause", image_id("pause"));
        container.published.clone_from(&spec.published);
        let bindings = spec.published.iter().map(|port| Binding { container_port: port.container_port, host: port.taken() });
        container.observed.bindings = bindings.collect();
        let order = Order::new(Operation::CreateSandbox, About::New(&spec.identity));
        self.call(order, move |world, at| world.create(container, at)).await
    }

    async fn create_spare(&self, scope: &Scope, number: Uuid) -> Result<ContainerId, RuntimeError> {
        let container = Container::spare(scope.clone(), number);
        self.call(Order::new(Operation::CreateSpare, About::Engine), move |world, at| world.create(container, at)).await
    }

    async fn spares(&self, scope: &Scope) -> Result<Vec<Spare>, RuntimeError> {
        let scope = Some(scope.clone());
        let look = move |world: &mut World, _| {
            let spares = world.containers.values().filter(|container| container.spare && container.scope == scope);
            Ok(spares.map(|Container { observed, .. }| Spare { id: observed.id.clone(), state: observed.state.clone() }).collect())
        };
        self.call(Order::new(Operation::Spares, About::Engine), look).await
    }

    async fn claim_spare(&self, scope: &Scope, spare: &ContainerId, identity: &Identity) -> Result<Observed, RuntimeError> {
        let (scope, wanted, identity) = (scope.clone(), spare.clone(), identity.clone());
        let order = Order::new(Operation::ClaimSpare, About::Container(spare));
        self.call(order, move |world, at| world.claim(&scope, &wanted, &identity, at)).await
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<ContainerId, RuntimeError> {
        let mut container = Container::new(Some(spec.scope.clone()), &spec.identity, &spec.image, image_id(&spec.image));
        container.observed.sandbox = Some(spec.sandbox.clone());
        container.observed.tty = spec.tty;
        container.env.clone_from(&spec.env);
        let act = move |world: &mut World, at| {
            if world.has_image(&container.image) { world.create(container, at) } else { Err(no_image(&container.image)) }
        };
        self.call(Order::new(Operation::CreateContainer, About::New(&spec.identity)), act).await
    }

    async fn start(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let takes = {
            let world = self.world();
            let script = world.containers.get(id).and_then(|container| world.scripts.get(&container.image));
            script.map_or(Duration::ZERO, |script| script.start_takes)
        };
        let wanted = id.clone();
        let order = Order { takes, ..Order::new(Operation::Start, About::Container(id)) };
        self.call(order, move |world, at| world.start(&wanted, By::Call, at)).await
    }

    async fn signal(&self, id: &ContainerId, signal: StopSignal) -> Result<(), RuntimeError> {
        let wanted = id.clone();
        let act = move |world: &mut World, at| {
            world.note_stop(&wanted);
            match signal {
                // What doesn't heed it runs on.
                StopSignal::Stop => drop(world.terminate(&wanted, at)),
                StopSignal::Kill => world.kill(&wanted, at),
            }
            Ok(())
        };
        self.call(Order::new(Operation::Signal, About::Container(id)), act).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let wanted = id.clone();
        let act = move |world: &mut World, at| {
            world.note_stop(&wanted);
            world.remove(&wanted, at);
            Ok(())
        };
        self.call(Order::new(Operation::Remove, About::Container(id)), act).await
    }

    async fn logs(&self, id: &ContainerId, request: &LogRequest) -> Result<BoxStream<'static, LogBatch>, RuntimeError> {
        streams::logs(self, id, request).await
    }

    async fn exec(&self, id: &ContainerId, request: &ExecRequest) -> Result<ExecHandle, RuntimeError> {
        exec::start(self, id, request).await
    }
}

//! Takes a node's containers and volumes off its engine while no agent runs them: signal, wait, kill, remove.
//!
//! It looks at the engine alone, so it may be stopped anywhere and run again. It touches what carries the node's labels and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cube_api::meta::{Name, Uid};
use futures::StreamExt;
use futures::stream;
use tokio::time::Instant;

use super::runtime::{ContainerId, Observed, RunState, Runtime, RuntimeError, Scope, StopSignal, Volumes};

/// Pods that are stopped at a time.
const AT_ONCE: usize = 8;

/// How often it is looked whether containers have ended.
const LOOK: Duration = Duration::from_millis(200);

/// A killed process that is still there after so long is killed again: somebody may have paused it in between.
const KILL_AGAIN: Duration = Duration::from_secs(10);

/// Lists that find containers again before it is given up: somebody makes new ones.
const ROUNDS: usize = 3;

/// Why containers are left. What is gone is gone; the next run goes on there.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// The engine failed.
    #[error("not all containers were removed")]
    Engine(#[from] RuntimeError),
    /// There are new ones each time.
    #[error("{count} containers of node '{node}' are there again: another cube-server runs this node; stop it first")]
    MadeAgain {
        /// How many.
        count: usize,
        /// Whose.
        node: Name,
    },
}

/// A pod's containers.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The pod.
    pub pod: Name,
    /// How many there are, the sandbox too.
    pub containers: usize,
    /// Whether any of them runs.
    pub runs: bool,
    /// For its processes to end in.
    pub grace: Duration,
}

/// What is done, as it is done.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// Its processes got their stop signals.
    Stopping(Found),
    /// Its containers are gone.
    Removed(Found),
}

/// What of a node is on an engine.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OfNode {
    /// Its pods' containers.
    pub pods: BTreeMap<Uid, Found>,
    /// The sandboxes that it kept ready and that no pod has.
    pub spares: Vec<ContainerId>,
    /// Its pods' volumes, and the named ones with their data.
    pub volumes: Volumes,
}

impl OfNode {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.spares.is_empty() && self.volumes.is_empty()
    }
}

/// What of a node is on the engine.
pub async fn find(runtime: &dyn Runtime, scope: &Scope, grace: &Graces) -> Result<OfNode, RuntimeError> {
    let mut found: BTreeMap<Uid, Found> = BTreeMap::new();
    for container in runtime.list(scope).await? {
        let uid = container.identity.uid;
        let of_pod = || Found { pod: container.identity.pod.clone(), containers: 0, runs: false, grace: grace.of(uid) };
        let pod = found.entry(uid).or_insert_with(of_pod);
        pod.containers += 1;
        pod.runs |= is_live_app(&container);
    }
    let spares = runtime.spares(scope).await?.into_iter().map(|spare| spare.id).collect();
    Ok(OfNode { pods: found, spares, volumes: runtime.volumes(scope).await? })
}

/// Removes all of it. `tell` hears what is done.
pub async fn remove_all(runtime: &Arc<dyn Runtime>, scope: &Scope, grace: &Graces, tell: impl Fn(Progress)) -> Result<(), ResetError> {
    for _ in 0..ROUNDS {
        let found = find(runtime.as_ref(), scope, grace).await?;
        if found.is_empty() {
            return Ok(());
        }
        let OfNode { pods, spares, volumes } = found;
        for spare in &spares {
            runtime.remove(spare).await?;
        }
        let tell = &tell;
        let removals = stream::iter(pods).map(|(uid, pod)| async move { remove(runtime.as_ref(), scope, uid, pod, tell).await });
        let ends: Vec<_> = removals.buffer_unordered(AT_ONCE).collect().await;
        ends.into_iter().collect::<Result<(), _>>()?;
        for uid in volumes.pods.keys() {
            runtime.remove_volumes(scope, *uid).await?;
        }
        for kept in &volumes.kept {
            runtime.remove_kept(scope, kept.uid).await?;
        }
    }
    match runtime.list(scope).await?.len() + runtime.spares(scope).await?.len() {
        0 => Ok(()),
        count => Err(ResetError::MadeAgain { count, node: scope.node.clone() }),
    }
}

/// How long each pod's processes have.
#[derive(Debug, Clone, Default)]
pub struct Graces {
    /// For all, if a person said so.
    pub given: Option<Duration>,
    /// As assigned.
    pub assigned: BTreeMap<Uid, Duration>,
}

impl Graces {
    fn of(&self, uid: Uid) -> Duration {
        let default = Duration::from_secs(cube_api::pod::DEFAULT_GRACE_SECONDS.into());
        self.given.or_else(|| self.assigned.get(&uid).copied()).unwrap_or(default)
    }
}

async fn remove(runtime: &dyn Runtime, scope: &Scope, uid: Uid, pod: Found, tell: &impl Fn(Progress)) -> Result<(), RuntimeError> {
    if pod.runs {
        tell(Progress::Stopping(pod.clone()));
    }
    let deadline = Instant::now() + pod.grace;
    let mut killed: Option<Instant> = None;
    let mut signalled = Vec::new();
    let left = loop {
        let listed = runtime.list_pod(scope, uid).await?;
        let live: Vec<ContainerId> =
            listed.iter().filter(|container| is_live_app(container)).map(|container| container.id.clone()).collect();
        if live.is_empty() {
            break listed;
        }
        let now = Instant::now();
        if now >= deadline && killed.is_none_or(|at| now >= at + KILL_AGAIN) {
            for id in &live {
                runtime.signal(id, StopSignal::Kill).await?;
            }
            killed = Some(now);
        }
        for id in live {
            if killed.is_none() && !signalled.contains(&id) {
                runtime.signal(&id, StopSignal::Stop).await?;
                signalled.push(id);
            }
        }
        tokio::time::sleep(LOOK).await;
    };
    // The sandboxes last: what joined one may not outlive it.
    let (apps, sandboxes): (Vec<Observed>, Vec<Observed>) = left.into_iter().partition(|container| container.identity.container.is_some());
    for container in apps.iter().chain(&sandboxes) {
        runtime.remove(&container.id).await?;
    }
    tell(Progress::Removed(pod));
    Ok(())
}

fn is_live_app(container: &Observed) -> bool {
    let live = match container.state {
        RunState::Running { .. } | RunState::Paused { .. } => true,
        RunState::Created | RunState::Exited { .. } | RunState::Removing => false,
    };
    live && container.identity.container.is_some()
}

//! Watches the engine: its health, hints about single pods, and all containers from time to time; and the machine below it: how much of it is in
//! use. Changes nothing itself.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use cube_api::meta::{Name, Uid};
use cube_api::node::Capacity;
use cube_api::quantity::Bytes;
use cube_api::session::NodeFacts;
use futures::StreamExt;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::ambient::Ambient;
use crate::backoff::{Backoff, Jitter};
use crate::follower::assignments::{Pods, Request};
use crate::follower::ledger::{Ledger, Membership};
use crate::follower::machine::{self, Machine, Meter};
use crate::follower::plan::Note;
use crate::follower::reporter::Reporter;
use crate::follower::reserve::Reserve;
use crate::follower::runtime::{EngineInfo, Runtime, RuntimeError, Scope};
use crate::sqlite::room::Room;
use crate::{blocking, latest};

/// How often everything is listed, whatever the hints say: Docker keeps only its last 256 events.
const RELIST: Duration = Duration::from_secs(10);

/// Whose containers the engine has beside ours is looked at at the first list and at each so many-th after it: ten minutes.
const NEIGHBOURS_EVERY: u64 = 60;

/// How often it is measured how much of the machine is in use...
const MEASURE: Duration = Duration::from_secs(15);

/// ...but the second time already so long after the first, which alone says nothing of the cores.
const FIRST_MEASURE: Duration = Duration::from_secs(1);

/// The waits after a failure of the engine.
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));

/// What the engine's watcher works with.
pub struct Observer {
    /// The engine.
    pub runtime: Arc<dyn Runtime>,
    /// The node's name.
    pub node: Name,
    /// Which cluster's containers are ours.
    pub membership: latest::Receiver<Membership>,
    /// The pods, to poke.
    pub pods: Arc<RwLock<Pods>>,
    /// Where full lists go.
    pub assignments: mpsc::Sender<Request>,
    /// The node's facts: the engine's part is written here.
    pub facts: latest::Sender<NodeFacts>,
    /// Told of changed facts.
    pub reporter: Reporter,
    /// The room on the node's disk, which is part of the facts.
    pub room: Room,
    /// The most pods that the node takes.
    pub max_pods: u32,
    /// What pods may not reserve.
    pub reserve: Reserve,
    /// What is measured, if anything is.
    pub machine: Option<Arc<dyn Machine>>,
    /// The node's own folder: its disk counts where the engine's can't be seen.
    pub data_dir: PathBuf,
    /// The folder whose file system is the node's disk space, once the engine has said where it keeps things.
    pub disk_of: Mutex<Option<PathBuf>>,
    /// The clock and the dice.
    pub ambient: Ambient,
    /// Where what is found beside our containers is noted.
    pub ledger: Ledger,
    /// The engine came back or the hints broke: list now.
    pub relist: Notify,
}

impl Observer {
    /// Watches for as long as it is polled.
    pub async fn run(self) {
        tokio::join!(self.look(), self.listen(), self.measure());
    }

    /// Measures what is in use, as long as there is a machine to measure. The reporter knows what is worth telling.
    async fn measure(&self) {
        let Some(machine) = &self.machine else { return };
        let (mut meter, mut problem) = (Meter::default(), String::new());
        let mut wait = FIRST_MEASURE;
        loop {
            let (machine, folder) = (machine.clone(), self.disk_of().unwrap_or_else(|| self.data_dir.clone()));
            let measured = match blocking::run(move || Ok::<_, io::Error>((machine.load()?, machine.space(&folder)?))).await {
                Ok((load, disk)) => meter.measure(load, disk),
                Err(error) => {
                    if problem != error.to_string() {
                        problem = error.to_string();
                        tracing::warn!(problem, "the use of this machine can't be measured");
                    }
                    None
                }
            };
            self.reporter.measured(measured);
            tokio::time::sleep(wait).await;
            wait = Jitter::from_random(self.ambient.random()).spread(MEASURE);
        }
    }

    /// Health and lists, every ten seconds; after a failure sooner.
    async fn look(&self) {
        let mut backoff = RETRY;
        let (mut lists, mut neighbours) = (0, BTreeSet::new());
        let mut room = self.room.watch();
        loop {
            let wait = match self.look_once().await {
                Ok(listed) => {
                    backoff.reset();
                    if listed {
                        if lists % NEIGHBOURS_EVERY == 0 {
                            self.meet_neighbours(&mut neighbours).await;
                        }
                        lists += 1;
                    }
                    Jitter::from_random(self.ambient.random()).spread(RELIST)
                }
                Err(error) => {
                    self.note_trouble(&error);
                    backoff.next(self.ambient.random())
                }
            };
            tokio::select! {
                biased;
                () = self.relist.notified() => {}
                // An error: nobody writes the ledger any more, because the server is stopping.
                Ok(()) = room.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Whether everything was listed: a node that belongs to no cluster has nothing to list.
    async fn look_once(&self) -> Result<bool, RuntimeError> {
        let info = self.runtime.info().await?;
        let listed = match self.scope() {
            Some(scope) => Some(self.runtime.census(&scope).await?),
            None => None,
        };
        let capacity = Capacity { pods: self.max_pods, disk: self.disk(&info).await, ..info.capacity };
        let (allocatable, no_sense) = match self.reserve.allocatable(&capacity) {
            Ok(allocatable) => (allocatable, None),
            Err(refusal) => (Capacity { pods: capacity.pods, ..Capacity::default() }, Some(refusal)),
        };
        let short = self.room.is_short().then(|| format!("the node's disk is full: {}", self.room.remedy()));
        let trouble = short.or(no_sense);
        // Only now: an engine that tells its version but can't list is in trouble, and must not seem well in between.
        self.set_facts(|facts| {
            facts.engine.clone_from(&info.version);
            facts.capacity = capacity;
            facts.allocatable = Some(allocatable);
            facts.trouble.clone_from(&trouble);
        });
        let Some(listed) = listed else { return Ok(false) };
        // A closed queue means that the server is stopping.
        drop(self.assignments.send(Request::Listed(listed)).await);
        Ok(true)
    }

    /// The disk space that the node has: the engine's word, else what is looked up ([`machine::disk`]).
    async fn disk(&self, info: &EngineInfo) -> Bytes {
        let Some(machine) = self.machine.clone().filter(|_| info.capacity.disk == Bytes(0)) else { return info.capacity.disk };
        let (engines, own) = (info.data_root.clone(), self.data_dir.clone());
        let (folder, space) = match blocking::run(move || machine::disk(machine.as_ref(), engines.as_deref(), &own)).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the disk space of this node can't be told");
                return Bytes(0);
            }
        };
        let mut disk_of = self.disk_of.lock().expect("nothing panics while it is held");
        if disk_of.as_ref() != Some(&folder) {
            tracing::info!("the disk space of this node is that of the file system of {}", folder.display());
            *disk_of = Some(folder);
        }
        machine::steady(self.facts.borrow().capacity.disk, space.all)
    }

    fn disk_of(&self) -> Option<PathBuf> {
        self.disk_of.lock().expect("nothing panics while it is held").clone()
    }

    /// Says once whose containers of cube are on the engine beside ours: nobody may be left who would ever stop them. They are never touched.
    async fn meet_neighbours(&self, known: &mut BTreeSet<Scope>) {
        let (Some(own), Ok(scopes)) = (self.scope(), self.runtime.scopes().await) else { return };
        known.retain(|scope| scopes.contains_key(scope));
        let mut notes = Vec::new();
        for (scope, count) in scopes.into_iter().filter(|(scope, _)| *scope != own) {
            if !known.insert(scope.clone()) {
                continue;
            }
            let Scope { cluster, node } = scope;
            let containers = if count == 1 { "1 container".to_owned() } else { format!("{count} containers") };
            // Nodes of one cluster that share an engine are no news to anybody who runs them.
            if cluster == own.cluster {
                tracing::info!("{containers} of node {node} of this cluster are on this engine too; they are left alone");
                continue;
            }
            let message = format!(
                "{containers} of another cluster ({cluster}, node {node}) found on this engine; they are left alone. If nothing runs them any \
                 more: `cube-server reset --cluster-id {cluster} --name {node}`"
            );
            tracing::warn!("{message}");
            notes.push(Note::normal("OtherCluster", message));
        }
        if notes.is_empty() {
            return;
        }
        match self.ledger.save(Uid::NONE, self.node.clone(), None, notes, self.ambient.now()).await {
            Ok(()) => self.reporter.events_are_waiting(),
            // The log has it.
            Err(error) => tracing::debug!(error = cube_api::error::chain(&error), "an event of the node can't be written"),
        }
    }

    /// Pokes the pods that the engine speaks of. When the hints break, everything is listed: what was said meanwhile is lost.
    async fn listen(&self) {
        let mut membership = self.membership.clone();
        if membership.wait_for(|membership| membership.cluster.is_some()).await.is_err() {
            return;
        }
        self.relist.notify_one();
        let mut backoff = RETRY;
        loop {
            let began = Instant::now();
            if let Some(scope) = self.scope()
                && let Ok(mut hints) = self.runtime.hints(&scope).await
            {
                // What was said before they were open is lost.
                self.relist.notify_one();
                while let Some(hint) = hints.next().await {
                    if let Some(handle) = self.pods.read().expect("nothing panics while it is held").get(&hint.uid) {
                        handle.poke.notify_one();
                    }
                }
                self.relist.notify_one();
            }
            if began.elapsed() > RELIST {
                backoff.reset();
            }
            tokio::time::sleep(backoff.next(self.ambient.random())).await;
        }
    }

    fn scope(&self) -> Option<Scope> {
        let cluster = self.membership.borrow().cluster?;
        Some(Scope { cluster, node: self.node.clone() })
    }

    fn note_trouble(&self, error: &RuntimeError) {
        let problem = match error {
            RuntimeError::Unavailable { problem, .. } => problem.clone(),
            RuntimeError::Refused { .. } | RuntimeError::PortTaken { .. } | RuntimeError::Gone | RuntimeError::Image { .. } => {
                error.to_string()
            }
        };
        self.set_facts(|facts| {
            facts.engine = String::new();
            facts.trouble = Some(format!("docker doesn't answer: {problem}"));
        });
    }

    fn set_facts(&self, change: impl Fn(&mut NodeFacts)) {
        let changed = self.facts.send_if_modified(|facts| {
            let before = facts.clone();
            change(facts);
            *facts != before
        });
        if changed {
            if let Some(trouble) = &self.facts.borrow().trouble {
                tracing::warn!("{trouble}");
            }
            self.reporter.facts_changed();
        }
    }
}

//! The task that owns what the node was told: takes welcomes and assignments, writes them, starts and ends the pods' tasks.
//!
//! Nothing is stopped before a complete assignment of this cluster and of a not lower epoch is in the ledger, and no pod's task begins before the
//! first full list of this life: what runs is found before anything is made. Where the data folder came from another machine, also not before the
//! first assignment of this life: the pods may run where it came from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};

use cube_api::meta::{Labels, Name, Uid};
use cube_api::pod::{DEFAULT_GRACE_SECONDS, PodSpec, RestartPolicy, RestartRules};
use cube_api::session::{AssignedPod, Assignment, AssignmentAccepted, Epoch, Generation, HeldPod, Unchanged, Want, Welcome};
use cube_api::{ApiError, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use crate::follower::ledger::{Home, KeptPod, LedgerError, Membership};
use crate::follower::pods::{self, Context, PodHandle};
use crate::follower::record::PodRecord;
use crate::follower::runtime::{Census, Observed, Scope};
use crate::latest;
use crate::tasks::Tasks;

/// Why a pod is stopped that no assignment has any more.
const UNASSIGNED: &str = "it is not assigned to this node any more";

/// The pods that have a task.
pub type Pods = BTreeMap<Uid, PodHandle>;

/// What the task is asked.
pub enum Request {
    /// Which pods run here.
    Held(oneshot::Sender<Result<Vec<HeldPod>, ApiError>>),
    /// A leader answered.
    Welcome(Welcome, oneshot::Sender<Result<(), ApiError>>),
    /// A leader assigns.
    Assign(Assignment, oneshot::Sender<Result<AssignmentAccepted, ApiError>>),
    /// The containers of the scope.
    Listed(Census),
    /// A pod's containers are gone for good.
    Stopped(Uid),
}

/// The task's state.
pub struct Assignments {
    /// The node's name.
    pub node: Name,
    /// The leader that is obeyed.
    pub membership: latest::Sender<Membership>,
    /// Every pod that is kept. The records are as of the start: a pod's task owns its record.
    pub kept: BTreeMap<Uid, KeptPod>,
    /// The containers of pods without a task, as of the newest list; none before the first.
    pub census: Option<BTreeMap<Uid, Vec<Observed>>>,
    /// The pods that have volumes, as of the newest list.
    pub volumes: BTreeMap<Uid, Name>,
    /// Where the data folder is used now, if it was another machine before: nothing begins before this life's first assignment.
    pub moved: Option<Home>,
    /// Pods of which the newest list doesn't tell all: their tasks look themselves before they do anything.
    pub silent: BTreeSet<Uid>,
    /// The pods' tasks.
    pub pods: Arc<RwLock<Pods>>,
    /// What they share.
    pub context: Arc<Context>,
    /// Where they run.
    pub tasks: Tasks,
}

impl Assignments {
    /// Answers requests until nobody can ask any more.
    pub async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(request) = requests.recv().await {
            match request {
                // Who asked may have hung up: the write stands.
                Request::Held(reply) => drop(reply.send(Ok(self.held()))),
                Request::Welcome(welcome, reply) => drop(reply.send(self.welcome(welcome).await)),
                Request::Assign(assignment, reply) => drop(reply.send(self.assign(assignment).await)),
                Request::Listed(listed) => self.listed(listed).await,
                Request::Stopped(uid) => self.stopped(uid).await,
            }
        }
    }

    /// What is being stopped is nobody's to take over.
    fn held(&self) -> Vec<HeldPod> {
        let runs = |pod: &&KeptPod| match pod.assigned.want {
            Want::Run { .. } => pod.current && !self.is_stopped(pod.assigned.uid),
            Want::Stop { .. } => false,
        };
        self.kept.values().filter(runs).map(|pod| HeldPod { uid: pod.assigned.uid, name: pod.assigned.name.clone() }).collect()
    }

    async fn welcome(&mut self, welcome: Welcome) -> Result<(), ApiError> {
        let Welcome { cluster_id, epoch, life } = welcome;
        let now = *self.membership.borrow();
        if let Some(cluster) = now.cluster
            && cluster != cluster_id
        {
            return Err(other_cluster(cluster, cluster_id));
        }
        if epoch < now.epoch {
            return Err(older_leader());
        }
        // Of one that didn't say who it was, nothing is known against another.
        let unknown = epoch == now.epoch && now.life.is_none() && life.is_some();
        if epoch == now.epoch && !unknown && life != now.life {
            return Err(other_life(epoch));
        }
        if now.cluster.is_none() || epoch > now.epoch || unknown {
            self.context.ledger.join(cluster_id, epoch, life).await.map_err(not_written)?;
            self.membership.send_modify(|membership| {
                membership.cluster = Some(cluster_id);
                membership.epoch = epoch;
                membership.life = life;
                // Generations are compared within one epoch: a leader whose data was restored counts from lower.
                membership.generation = None;
            });
        }
        self.context.reporter.resync();
        Ok(())
    }

    async fn assign(&mut self, assignment: Assignment) -> Result<AssignmentAccepted, ApiError> {
        if let Some(newer) = self.check(&assignment)? {
            return Ok(accepted(newer));
        }
        let Assignment { cluster_id: cluster, epoch, generation, pods, unchanged, cordoned, drop_volumes, node: _ } = assignment;
        let unchanged = unchanged.map(|unchanged| self.unchanged(epoch, unchanged)).transpose()?.unwrap_or_default();
        let assigned: BTreeSet<_> = pods.iter().map(|pod| pod.uid).chain(unchanged).collect();
        let mut changed: Vec<KeptPod> = pods.into_iter().filter_map(|pod| self.newly_assigned(pod)).collect();
        let gone: Vec<_> = self.kept.keys().filter(|uid| !assigned.contains(uid)).copied().collect();
        let (done, vanished): (Vec<Uid>, Vec<Uid>) = gone.into_iter().partition(|uid| self.is_stopped(*uid));
        changed.extend(vanished.into_iter().filter_map(|uid| self.vanished(uid)));
        let ledger = &self.context.ledger;
        ledger.assign(epoch, generation, changed.clone()).await.map_err(not_written)?;
        self.membership.send_modify(|membership| {
            membership.epoch = epoch;
            membership.generation = Some(generation);
        });
        self.arrive().await?;
        // All of them, before the first may be given one of these ports as a free one.
        changed.iter().for_each(|pod| self.context.ports.expect(pod.assigned.uid, &pod.assigned.spec));
        for pod in changed {
            self.take(pod);
        }
        self.forget(done).await;
        let scope = Scope { cluster, node: self.node.clone() };
        self.context.drops.want(scope.clone(), drop_volumes);
        self.context.spares.tend(scope, cordoned);
        Ok(accepted(generation))
    }

    /// The leader has assigned this data folder on the machine where it is now: the kept pods may begin.
    async fn arrive(&mut self) -> Result<(), ApiError> {
        let Some(home) = self.moved.clone() else { return Ok(()) };
        self.context.ledger.settle(home).await.map_err(not_written)?;
        self.moved = None;
        self.take_all_kept();
        Ok(())
    }

    fn take_all_kept(&mut self) {
        let kept: Vec<_> = self.kept.values().cloned().collect();
        kept.into_iter().for_each(|pod| self.take(pod));
    }

    /// Whether it is to be obeyed: refused if another cluster's or an older leader's; the newer generation if that is known already.
    fn check(&self, assignment: &Assignment) -> Result<Option<Generation>, ApiError> {
        let now = *self.membership.borrow();
        match now.cluster {
            Some(cluster) if cluster == assignment.cluster_id => {}
            Some(cluster) => return Err(other_cluster(cluster, assignment.cluster_id)),
            None => return Err(ApiError::new(ErrorCode::Conflict, "this node belongs to no cluster yet")),
        }
        if assignment.node != self.node {
            let message = format!("this is node {}, the assignment is for node {}", self.node, assignment.node);
            return Err(ApiError::new(ErrorCode::Conflict, message));
        }
        if assignment.epoch < now.epoch {
            return Err(older_leader());
        }
        let newer = now.generation.filter(|known| assignment.epoch == now.epoch && assignment.generation < *known);
        Ok(newer)
    }

    /// The pods of which an assignment says only that they are as they were.
    fn unchanged(&self, epoch: Epoch, unchanged: Unchanged) -> Result<Vec<Uid>, ApiError> {
        let now = *self.membership.borrow();
        let is_newest = epoch == now.epoch && now.generation == Some(unchanged.since);
        let is_kept = |uid: &Uid| self.kept.get(uid).is_some_and(|kept| kept.current);
        if !is_newest || !unchanged.pods.iter().all(is_kept) {
            let message = format!("this node's newest assignment is not generation {} of this leader", unchanged.since.0);
            return Err(ApiError::new(ErrorCode::Conflict, message));
        }
        Ok(unchanged.pods)
    }

    /// The pod as it is to be kept, if that is a change.
    fn newly_assigned(&self, pod: AssignedPod) -> Option<KeptPod> {
        match self.kept.get(&pod.uid) {
            Some(kept) if kept.current && kept.assigned == pod => None,
            Some(kept) => Some(KeptPod { assigned: pod, current: true, record: kept.record.clone() }),
            None => Some(KeptPod { record: PodRecord::new(&pod), assigned: pod, current: true }),
        }
    }

    /// A pod that the assignment doesn't have is to be stopped, with its own grace.
    fn vanished(&self, uid: Uid) -> Option<KeptPod> {
        let kept = self.kept.get(&uid)?;
        let grace_seconds = kept.assigned.spec.termination_grace_period_seconds;
        let want = match &kept.assigned.want {
            Want::Run { .. } => Want::Stop { grace_seconds, reason: UNASSIGNED.to_owned() },
            stop @ Want::Stop { .. } => stop.clone(),
        };
        Some(KeptPod { assigned: AssignedPod { want, ..kept.assigned.clone() }, current: false, record: kept.record.clone() })
    }

    fn is_stopped(&self, uid: Uid) -> bool {
        match self.pods.read().expect("nothing panics while it is held").get(&uid) {
            Some(handle) => handle.snapshot.borrow().record.is_stopped(),
            None => self.kept.get(&uid).is_some_and(|kept| kept.record.is_stopped()),
        }
    }

    /// Keeps a pod and tells its task, or starts one if what runs here is known.
    fn take(&mut self, pod: KeptPod) {
        let uid = pod.assigned.uid;
        let mut pods = self.pods.write().expect("nothing panics while it is held");
        match pods.get(&uid) {
            Some(handle) => drop(handle.desired.send_replace(pod.assigned.clone())),
            None => {
                if let (Some(census), Some(cluster), None) = (&mut self.census, self.membership.borrow().cluster, &self.moved) {
                    let listed = (!self.silent.contains(&uid)).then(|| census.remove(&uid).unwrap_or_default());
                    let scope = Scope { cluster, node: self.node.clone() };
                    let (assigned, record) = (pod.assigned.clone(), pod.record.clone());
                    pods.insert(uid, pods::spawn(self.context.clone(), &self.tasks, scope, assigned, record, listed));
                }
            }
        }
        drop(pods);
        self.kept.insert(uid, pod);
    }

    /// The first list lets the pods' tasks begin; later ones poke those whose containers look different, and find what nobody wants.
    async fn listed(&mut self, listed: Census) {
        let mut by_pod: BTreeMap<Uid, Vec<Observed>> = BTreeMap::new();
        for container in listed.containers {
            by_pod.entry(container.identity.uid).or_default().push(container);
        }
        by_pod.retain(|uid, _| !listed.silent.contains(uid));
        self.silent = listed.silent;
        self.volumes = listed.volumes;
        for (uid, handle) in &*self.pods.read().expect("nothing panics while it is held") {
            let seen = by_pod.remove(uid).unwrap_or_default();
            if !self.silent.contains(uid) && differs(&handle.snapshot.borrow().containers, &seen) {
                handle.poke.notify_one();
            }
        }
        let first = self.census.is_none();
        self.census = Some(by_pod);
        if first {
            self.take_all_kept();
        }
        if self.membership.borrow().generation.is_some() && self.moved.is_none() {
            self.take_orphans().await;
            self.context.spares.poke();
        }
    }

    /// Containers and volumes of ours whose pod is neither assigned nor kept are stopped and removed.
    async fn take_orphans(&mut self) {
        let with_containers = self.census.iter().flatten().filter_map(|(uid, seen)| Some((*uid, seen.first()?.identity.pod.clone())));
        let left: BTreeMap<_, _> = self.volumes.clone().into_iter().chain(with_containers).collect();
        let unknown = left.into_iter().filter(|(uid, _)| !self.kept.contains_key(uid));
        let orphans: Vec<_> = unknown.map(|(uid, name)| orphan(uid, name)).collect();
        if orphans.is_empty() {
            return;
        }
        // Kept like any pod, so that the grace of one that doesn't stop is not begun anew by every restart.
        if let Err(error) = self.context.ledger.keep(orphans.clone()).await {
            tracing::error!(error = cube_api::error::chain(&error), "what nobody wants stays until the next list");
            return;
        }
        for pod in orphans {
            let AssignedPod { name, uid, .. } = &pod.assigned;
            tracing::warn!(pod = %name, %uid, "found what is left of a pod that isn't assigned to this node: removing it");
            self.take(pod);
        }
    }

    /// A pod that no assignment has is forgotten once it is stopped; one that is assigned is kept until the leader lets go of it.
    async fn stopped(&mut self, uid: Uid) {
        if self.kept.get(&uid).is_some_and(|kept| !kept.current) {
            self.forget(vec![uid]).await;
        }
    }

    async fn forget(&mut self, uids: Vec<Uid>) {
        if uids.is_empty() {
            return;
        }
        if let Err(error) = self.context.ledger.forget(uids.clone()).await {
            // They stay, stopped, until an assignment without them comes again.
            tracing::error!(error = cube_api::error::chain(&error), "stopped pods can't be forgotten");
            return;
        }
        for uid in uids {
            self.kept.remove(&uid);
            self.pods.write().expect("nothing panics while it is held").remove(&uid);
            self.context.reporter.forget(uid);
        }
    }
}

/// What is left of a pod that nobody knows, as something to stop.
fn orphan(uid: Uid, name: Name) -> KeptPod {
    let spec = PodSpec {
        init_containers: Vec::new(),
        containers: Vec::new(),
        restart_policy: RestartPolicy::Never,
        restart: RestartRules::default(),
        termination_grace_period_seconds: DEFAULT_GRACE_SECONDS,
        active_deadline_seconds: None,
        node_selector: BTreeMap::new(),
        on_node_loss: Default::default(),
        strategy: None,
        hostname: None,
        security_context: Default::default(),
        host_network: false,
        image_pull_secrets: Vec::new(),
        volumes: Vec::new(),
    };
    let want = Want::Stop { grace_seconds: DEFAULT_GRACE_SECONDS, reason: UNASSIGNED.to_owned() };
    let assigned = AssignedPod { uid, name, labels: Labels::new(), spec, want, sources: None };
    KeptPod { record: PodRecord::new(&assigned), assigned, current: false }
}

fn differs(known: &[Observed], seen: &[Observed]) -> bool {
    let states = |containers: &[Observed]| containers.iter().map(|c| (c.id.clone(), c.state.clone())).collect::<BTreeMap<_, _>>();
    states(known) != states(seen)
}

fn accepted(generation: Generation) -> AssignmentAccepted {
    AssignmentAccepted { generation, takes_unchanged: true }
}

fn other_cluster(own: cube_api::ClusterId, other: cube_api::ClusterId) -> ApiError {
    ApiError::new(ErrorCode::Conflict, format!("this node belongs to cluster {own}, the leader is of cluster {other}"))
        .hint("give the node an empty data folder to let it join another cluster")
}

fn older_leader() -> ApiError {
    ApiError::new(ErrorCode::Conflict, "this node has followed a newer life of the leader")
        .hint("stop the older leader; if its data was restored from a backup, give the node an empty data folder")
}

/// Two databases can only count the same epoch if one is a copy of the other. Which of them is right can't be seen from here; that the pods are the
/// first one's can.
fn other_life(epoch: Epoch) -> ApiError {
    let message = format!(
        "this node follows another leader of the same cluster and epoch ({}): one of the two runs on a copy of the other's data",
        epoch.0
    );
    ApiError::new(ErrorCode::Conflict, message)
        .hint("stop the leader that runs on the copy and restart the right one: the restart is a newer epoch, which every node follows")
}

fn not_written(error: LedgerError) -> ApiError {
    ApiError::new(ErrorCode::Unavailable, format!("the node can't write its ledger: {}", cube_api::error::chain(&error)))
}

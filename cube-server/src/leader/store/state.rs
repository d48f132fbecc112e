//! The state in memory: every pod and node, with the indexes that keep each question's cost at what it asks for, not at the cluster's size.
//!
//! There are two of them: the writer's, which is ahead while a transaction is open, and the published one, which follows the commits. They
//! share the rows. Knows no SQL.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use cube_api::event::Event;
use cube_api::meta::{ClusterId, Labels, Name, NodeId, ResourceKind, Revision, Uid};
use cube_api::node::{Capacity, Node};
use cube_api::object::Object;
use cube_api::pod::{Container, HostPort, Phase, Pod, PodSpec, PublishedPort};
use cube_api::quantity::{Bytes, MilliCpu};
use cube_api::session::{AssignedPod, Assignment, Epoch, Generation, Want};

use super::PodRow;
use super::fence::Fence;
use super::volumes::Read;

/// The state in memory, as of one revision.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// The newest committed revision.
    pub revision: Revision,
    /// Every pod that is kept, retired ones too.
    pub pods: BTreeMap<Uid, Arc<PodRow>>,
    /// The pod that stands for each name: the live one, else the newest on its way out.
    pub names: BTreeMap<Name, Uid>,
    /// Every node that ever joined and wasn't deleted.
    pub nodes: BTreeMap<Name, Arc<Node>>,
    /// What a leader that was restored from a backup waits for before it places pods.
    pub fence: Option<Arc<Fence>>,
    /// Every resource that is neither a pod nor a node.
    objects: BTreeMap<ResourceKind, BTreeMap<Name, Arc<Object>>>,
    /// The pods of each owner, those on their way out too.
    owned: BTreeMap<Uid, BTreeSet<Uid>>,
    /// All pods of a name, retired ones too, where there are several: few names have more than one.
    namesakes: BTreeMap<Name, BTreeSet<Uid>>,
    /// Pods that wait for a node and were not looked at.
    fresh: BTreeSet<Uid>,
    /// Pods that wait for a node, and why was said.
    waiting: BTreeSet<Uid>,
    /// Shared with whoever looks: a look at 5,000 nodes copies none.
    loads: BTreeMap<Name, Arc<NodeLoad>>,
    phases: Phases,
    restarts: u64,
    machines: BTreeMap<Name, Machine>,
    report_sequences: BTreeMap<Uid, u64>,
    events_through: BTreeMap<NodeId, u64>,
}

/// What the pods of a node use of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeLoad {
    /// Every pod that is bound to it and not known to be gone.
    pub bound: BTreeSet<Uid>,
    /// Those of them that aren't finished. Only these use anything.
    pub unfinished: u32,
    /// What they reserve.
    pub reserved: Reserved,
    /// The host ports that they publish, with how many publish each: 1, or what was placed has to be explained. Also those that the node chose, once
    /// it has said so.
    pub host_ports: BTreeMap<HostPort, u32>,
}

/// The ports of its node that a pod has: what it asks for, whether or not its node has said so yet, and what its node chose for it.
fn host_ports(row: &PodRow) -> BTreeSet<HostPort> {
    let Pod { spec, status, .. } = &row.pod;
    HostPort::of(spec).chain(status.host_ports.iter().map(PublishedPort::taken)).collect()
}

/// What the leader keeps of a node and doesn't show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Machine {
    /// The machine's identity, as it announced it.
    pub(super) id: String,
    /// Why the node itself says that it can't start pods.
    pub(super) trouble: Option<String>,
}

/// A pod's row with what isn't shown of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct KeptPod {
    pub(super) row: Arc<PodRow>,
    /// Of the newest report that was taken.
    pub(super) report_sequence: u64,
}

/// A node's row with what isn't shown of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct KeptNode {
    pub(super) node: Arc<Node>,
    pub(super) machine: Machine,
}

/// One row's change. It can be turned round, so that the writer's state can go back over a refusal or a failed commit.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Write {
    Pod { revision: Revision, before: Option<KeptPod>, after: Option<KeptPod> },
    Node { revision: Revision, before: Option<KeptNode>, after: Option<KeptNode> },
    Object { revision: Revision, before: Option<Arc<Object>>, after: Option<Arc<Object>> },
    EventsThrough { node_id: NodeId, before: Option<u64>, after: Option<u64> },
    Fence { before: Option<Arc<Fence>>, after: Option<Arc<Fence>> },
    Event(Event),
}

impl Write {
    fn reversed(self) -> Self {
        match self {
            Self::Pod { revision, before, after } => Self::Pod { revision, before: after, after: before },
            Self::Node { revision, before, after } => Self::Node { revision, before: after, after: before },
            Self::Object { revision, before, after } => Self::Object { revision, before: after, after: before },
            Self::EventsThrough { node_id, before, after } => Self::EventsThrough { node_id, before: after, after: before },
            Self::Fence { before, after } => Self::Fence { before: after, after: before },
            Self::Event(event) => Self::Event(event),
        }
    }
}

impl State {
    /// The pod that stands for a name: the live one, else the newest on its way out.
    pub fn standing(&self, name: &Name) -> Option<&Arc<PodRow>> {
        self.pods.get(self.names.get(name)?)
    }

    /// The pod of a name for whoever asks for it: the live one, else a retired one on its way out, unless its node is lost and its name free: that
    /// way may have no end.
    pub fn shown(&self, name: &Name) -> Option<&Arc<PodRow>> {
        let is_let_go = |row: &PodRow| row.retired.as_ref().is_some_and(|retired| retired.replaced) && self.is_on_lost_node(row);
        self.standing(name).filter(|row| !is_let_go(row))
    }

    /// All pods of a name, oldest generation first: those on their way out, then the one that stands for it.
    pub fn namesakes(&self, name: &Name) -> Vec<&Arc<PodRow>> {
        let Some(several) = self.namesakes.get(name) else { return self.standing(name).into_iter().collect() };
        let mut rows: Vec<_> = several.iter().filter_map(|uid| self.pods.get(uid)).collect();
        rows.sort_by_key(|row| row.pod.metadata.generation);
        rows
    }

    /// Pods that wait for a node, in the order in which they were accepted.
    pub fn unbound(&self) -> impl Iterator<Item = &Arc<PodRow>> {
        self.fresh.union(&self.waiting).map(|uid| &self.pods[uid])
    }

    /// Those of them of which nobody has said yet why they wait, in the order in which they were accepted.
    pub fn fresh(&self) -> impl DoubleEndedIterator<Item = &Arc<PodRow>> + ExactSizeIterator {
        self.fresh.iter().map(|uid| &self.pods[uid])
    }

    /// The others, in the order in which they were accepted, from the one after this.
    pub fn waiting(&self, after: Uid) -> impl Iterator<Item = &Arc<PodRow>> {
        self.waiting.range((Bound::Excluded(after), Bound::Unbounded)).map(|uid| &self.pods[uid])
    }

    /// How many pods there are in each phase.
    pub fn phases(&self) -> [(Phase, usize); 4] {
        [Phase::Pending, Phase::Running, Phase::Succeeded, Phase::Failed].map(|phase| (phase, self.phases.0[Phases::place(phase)]))
    }

    /// The resources of a type that is neither pod nor node, in order of their names.
    pub fn objects(&self, kind: ResourceKind, from: Bound<&Name>) -> impl Iterator<Item = (&Name, &Arc<Object>)> {
        self.objects.get(&kind).into_iter().flat_map(move |of_kind| of_kind.range((from, Bound::Unbounded)))
    }

    /// One of them.
    pub fn object(&self, kind: ResourceKind, name: &Name) -> Option<&Arc<Object>> {
        self.objects.get(&kind)?.get(name)
    }

    /// The pods of an owner, those on their way out too, in the order in which they were made.
    pub fn owned_by(&self, owner: &Uid) -> impl Iterator<Item = &Arc<PodRow>> {
        self.owned.get(owner).into_iter().flatten().filter_map(|uid| self.pods.get(uid))
    }

    /// How often the containers of all pods were started again.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Whether the pod's node is lost.
    pub fn is_on_lost_node(&self, row: &PodRow) -> bool {
        let node = row.pod.placement.node.as_ref().and_then(|node| self.nodes.get(node));
        node.is_some_and(|node| node.condition.is_lost())
    }

    /// What the pods of a node use of it; none where no pod is bound to it.
    pub fn load(&self, node: &Name) -> Option<&Arc<NodeLoad>> {
        self.loads.get(node)
    }

    /// What a node with so much for pods hasn't got for one more, if so.
    pub(super) fn lacks_for(&self, node: &Name, spec: &PodSpec, allocatable: &Capacity) -> Option<&'static str> {
        match self.loads.get(node) {
            Some(load) => load.lacks_for(spec, allocatable),
            None => NodeLoad::default().lacks_for(spec, allocatable),
        }
    }

    /// Why a node itself says that it can't start pods.
    pub fn trouble(&self, node: &Name) -> Option<&str> {
        self.machines.get(node)?.trouble.as_deref()
    }

    /// The node with what its pods use, as the API shows it.
    pub fn node_view(&self, node: &Node) -> Node {
        let mut view = node.clone();
        if let Some(load) = self.loads.get(&node.name) {
            view.pods = load.unfinished;
            view.reserved_cpu = load.reserved.cpu;
            view.reserved_memory = load.reserved.memory;
            view.reserved_disk = load.reserved.disk;
        }
        view
    }

    pub(super) fn assignment<'a>(&'a self, node: &Name, cluster_id: ClusterId, epoch: Epoch) -> Assignment<Arc<PodSpec>> {
        let bound = self.loads.get(node).into_iter().flat_map(|load| &load.bound);
        let mut read = Read::default();
        let assigned = |row: &'a Arc<PodRow>| AssignedPod { sources: read.sources(self, &row.pod.spec), ..assigned(row) };
        let pods = bound.filter_map(|uid| self.pods.get(uid)).map(assigned).collect();
        let cordoned = self.nodes.get(node).is_some_and(|node| node.cordon.is_some());
        Assignment {
            cluster_id,
            epoch,
            node: node.clone(),
            generation: Generation(self.revision.0),
            pods,
            unchanged: None,
            cordoned,
            drop_volumes: self.volumes_to_drop(node),
        }
    }

    pub(super) fn kept_pod(&self, uid: &Uid) -> Option<KeptPod> {
        let row = self.pods.get(uid)?.clone();
        Some(KeptPod { row, report_sequence: self.report_sequences.get(uid).copied().unwrap_or(0) })
    }

    pub(super) fn kept_node(&self, name: &Name) -> Option<KeptNode> {
        Some(KeptNode { node: self.nodes.get(name)?.clone(), machine: self.machines.get(name)?.clone() })
    }

    pub(super) fn events_through(&self, node_id: &NodeId) -> Option<u64> {
        self.events_through.get(node_id).copied()
    }

    /// Follows one change.
    pub(super) fn follow(&mut self, write: &Write) {
        match write {
            Write::Pod { revision: _, before: Some(before), after: Some(after) } => self.change_pod(before, after),
            Write::Pod { revision: _, before, after } => {
                before.iter().for_each(|before| self.take_pod(before));
                after.iter().for_each(|after| self.add_pod(after));
            }
            Write::Node { revision: _, before, after } => {
                if let Some(before) = before {
                    self.nodes.remove(&before.node.name);
                    self.machines.remove(&before.node.name);
                }
                if let Some(after) = after {
                    self.nodes.insert(after.node.name.clone(), after.node.clone());
                    self.machines.insert(after.node.name.clone(), after.machine.clone());
                }
            }
            Write::Object { revision: _, before, after } => {
                if let Some(before) = before {
                    self.take_object(before);
                }
                if let Some(after) = after {
                    self.objects.entry(after.kind()).or_default().insert(after.metadata().name.clone(), after.clone());
                }
            }
            Write::EventsThrough { node_id, before: _, after: Some(through) } => {
                self.events_through.insert(*node_id, *through);
            }
            Write::EventsThrough { node_id, before: _, after: None } => {
                self.events_through.remove(node_id);
            }
            Write::Fence { before: _, after } => self.fence = after.clone(),
            Write::Event(_) => {}
        }
    }

    /// Goes back over a change that [`State::follow`] made.
    pub(super) fn undo(&mut self, write: Write) {
        self.follow(&write.reversed());
    }

    fn add_pod(&mut self, kept: &KeptPod) {
        let row = &kept.row;
        let uid = row.pod.metadata.uid;
        self.pods.insert(uid, row.clone());
        self.report_sequences.insert(uid, kept.report_sequence);
        self.take_name(&row.pod.metadata.name, uid);
        if let Some(owner) = &row.pod.metadata.owner {
            self.owned.entry(owner.uid).or_default().insert(uid);
        }
        self.queue(row);
        self.phases.count(row, 1);
        self.restarts += restarts_of(row);
        self.load_of(row, NodeLoad::add);
    }

    fn take_pod(&mut self, kept: &KeptPod) {
        let row = &kept.row;
        let uid = row.pod.metadata.uid;
        self.pods.remove(&uid);
        self.report_sequences.remove(&uid);
        self.let_go_of_name(&row.pod.metadata.name, uid);
        if let Some(owner) = &row.pod.metadata.owner {
            self.let_go_of_owned(&owner.uid, &uid);
        }
        self.leave_queue(row);
        self.phases.count(row, -1);
        self.restarts -= restarts_of(row);
        self.load_of(row, NodeLoad::take);
    }

    fn take_object(&mut self, object: &Object) {
        let Some(of_kind) = self.objects.get_mut(&object.kind()) else { return };
        of_kind.remove(&object.metadata().name);
        if of_kind.is_empty() {
            self.objects.remove(&object.kind());
        }
    }

    fn let_go_of_owned(&mut self, owner: &Uid, uid: &Uid) {
        let Some(pods) = self.owned.get_mut(owner) else { return };
        pods.remove(uid);
        if pods.is_empty() {
            self.owned.remove(owner);
        }
    }

    /// The most frequent change by far. A pod keeps its uid, its name and its owner, and most changes are of what nothing here is found by.
    fn change_pod(&mut self, before: &KeptPod, after: &KeptPod) {
        let (old, new) = (&before.row, &after.row);
        let uid = new.pod.metadata.uid;
        self.pods.insert(uid, new.clone());
        self.report_sequences.insert(uid, after.report_sequence);
        if Queue::of(old) != Queue::of(new) {
            self.leave_queue(old);
            self.queue(new);
        }
        self.restarts = self.restarts + restarts_of(new) - restarts_of(old);
        if old.pod.status.phase != new.pod.status.phase {
            self.phases.count(old, -1);
            self.phases.count(new, 1);
        }
        let moved = (old.pod.placement.node.as_ref(), old.is_finished()) != (new.pod.placement.node.as_ref(), new.is_finished());
        if moved || old.pod.status.host_ports != new.pod.status.host_ports {
            self.load_of(old, NodeLoad::take);
            self.load_of(new, NodeLoad::add);
        }
    }

    fn queue(&mut self, row: &PodRow) {
        match Queue::of(row) {
            Some(Queue::Fresh) => drop(self.fresh.insert(row.pod.metadata.uid)),
            Some(Queue::Waiting) => drop(self.waiting.insert(row.pod.metadata.uid)),
            None => {}
        }
    }

    fn leave_queue(&mut self, row: &PodRow) {
        match Queue::of(row) {
            Some(Queue::Fresh) => drop(self.fresh.remove(&row.pod.metadata.uid)),
            Some(Queue::Waiting) => drop(self.waiting.remove(&row.pod.metadata.uid)),
            None => {}
        }
    }

    fn load_of(&mut self, row: &PodRow, change: fn(&mut NodeLoad, &PodRow)) {
        let Some(node) = &row.pod.placement.node else { return };
        let load = match self.loads.get_mut(node) {
            Some(load) => load,
            None => self.loads.entry(node.clone()).or_default(),
        };
        change(Arc::make_mut(load), row);
        if load.bound.is_empty() {
            self.loads.remove(node);
        }
    }

    /// The pod is among those of its name, and stands for it if it is the newest.
    fn take_name(&mut self, name: &Name, uid: Uid) {
        let Some(standing) = self.names.get(name).copied() else {
            self.names.insert(name.clone(), uid);
            return;
        };
        self.namesakes.entry(name.clone()).or_insert_with(|| BTreeSet::from([standing])).insert(uid);
        self.choose_standing(name);
    }

    fn let_go_of_name(&mut self, name: &Name, uid: Uid) {
        let Some(several) = self.namesakes.get_mut(name) else {
            self.names.remove(name);
            return;
        };
        several.remove(&uid);
        self.choose_standing(name);
        if self.namesakes.get(name).is_some_and(|left| left.len() < 2) {
            self.namesakes.remove(name);
        }
    }

    fn choose_standing(&mut self, name: &Name) {
        if let Some(newest) = self.namesakes(name).last().map(|row| row.pod.metadata.uid) {
            self.names.insert(name.clone(), newest);
        }
    }
}

/// Where a pod that has no node is found.
#[derive(PartialEq, Eq)]
enum Queue {
    Fresh,
    Waiting,
}

impl Queue {
    fn of(row: &PodRow) -> Option<Self> {
        let is_told = row.pod.placement.waiting_for.is_some();
        row.is_unplaced().then_some(if is_told { Self::Waiting } else { Self::Fresh })
    }
}

fn restarts_of(row: &PodRow) -> u64 {
    row.pod.status.containers.iter().map(|container| u64::from(container.restart_count)).sum()
}

/// How many pods are in each phase.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Phases([usize; 4]);

impl Phases {
    fn place(phase: Phase) -> usize {
        match phase {
            Phase::Pending => 0,
            Phase::Running => 1,
            Phase::Succeeded => 2,
            Phase::Failed => 3,
        }
    }

    fn count(&mut self, row: &PodRow, by: isize) {
        let count = &mut self.0[Self::place(row.pod.status.phase)];
        *count = count.strict_add_signed(by);
    }
}

impl NodeLoad {
    fn lacks_for(&self, spec: &PodSpec, allocatable: &Capacity) -> Option<&'static str> {
        let needs = Reserved::of(spec);
        let lacks = |needed: u64, used: u64, all: u64| needed > 0 && used.saturating_add(needed) > all;
        if lacks(needs.cpu.0, self.reserved.cpu.0, allocatable.cpu.0) {
            Some("cpu")
        } else if lacks(needs.memory.0, self.reserved.memory.0, allocatable.memory.0) {
            Some("memory")
        } else if lacks(needs.disk.0, self.reserved.disk.0, allocatable.disk.0) {
            Some("disk")
        } else if HostPort::of(spec).any(|port| self.host_ports.keys().any(|taken| taken.collides(&port))) {
            Some("a free host port")
        } else if self.unfinished >= allocatable.pods {
            Some("room for one more pod")
        } else {
            None
        }
    }

    fn add(&mut self, row: &PodRow) {
        self.bound.insert(row.pod.metadata.uid);
        if row.is_finished() {
            return;
        }
        self.unfinished += 1;
        self.reserved.add(&Reserved::of(&row.pod.spec));
        for port in host_ports(row) {
            *self.host_ports.entry(port).or_default() += 1;
        }
    }

    fn take(&mut self, row: &PodRow) {
        self.bound.remove(&row.pod.metadata.uid);
        if row.is_finished() {
            return;
        }
        self.unfinished -= 1;
        self.reserved.take(&Reserved::of(&row.pod.spec));
        for port in host_ports(row) {
            if let Some(count) = self.host_ports.get_mut(&port) {
                *count -= 1;
            }
        }
        self.host_ports.retain(|_, count| *count > 0);
    }
}

/// What the containers of a pod reserve of its node, while it isn't finished: the most that run at the same time. Init containers run one after
/// the other, beside the sidecars before them; then all sidecars and `containers` together. Kubernetes counts the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reserved {
    /// Cores.
    pub cpu: MilliCpu,
    /// Memory.
    pub memory: Bytes,
    /// Disk space.
    pub disk: Bytes,
}

impl Reserved {
    /// Of a pod that is asked for so.
    pub fn of(spec: &PodSpec) -> Self {
        let (mut most, mut sidecars) = (Self::default(), Self::default());
        for container in &spec.init_containers {
            let mut now = sidecars;
            now.add(&Self::of_container(container));
            most = most.or_more(&now);
            if container.is_sidecar() {
                sidecars = now;
            }
        }
        let mut after = sidecars;
        spec.containers.iter().for_each(|container| after.add(&Self::of_container(container)));
        most.or_more(&after)
    }

    fn of_container(Container { resources, .. }: &Container) -> Self {
        Self { cpu: resources.reserved_cpu(), memory: resources.reserved_memory(), disk: resources.reserved_disk() }
    }

    /// The larger of each.
    fn or_more(&self, other: &Self) -> Self {
        Self { cpu: self.cpu.max(other.cpu), memory: self.memory.max(other.memory), disk: self.disk.max(other.disk) }
    }

    /// So much more.
    pub fn add(&mut self, more: &Self) {
        self.cpu.0 += more.cpu.0;
        self.memory.0 += more.memory.0;
        self.disk.0 += more.disk.0;
    }

    fn take(&mut self, less: &Self) {
        self.cpu.0 -= less.cpu.0;
        self.memory.0 -= less.memory.0;
        self.disk.0 -= less.disk.0;
    }
}

fn assigned(row: &PodRow) -> AssignedPod<Arc<PodSpec>> {
    let want = match &row.retired {
        None => Want::Run { restarts: row.restarts },
        Some(retired) => Want::Stop { grace_seconds: retired.grace_seconds, reason: retired.reason.clone() },
    };
    let Pod { metadata, spec, .. } = &row.pod;
    AssignedPod { uid: metadata.uid, name: metadata.name.clone(), labels: asked_labels(row), spec: spec.clone(), want, sources: None }
}

/// Those of its labels that a pod's containers ask for.
pub(crate) fn asked_labels(row: &PodRow) -> Labels {
    let labels = &row.pod.metadata.labels;
    row.pod.spec.asked_labels().filter_map(|key| Some((key.to_owned(), labels.get(key)?.clone()))).collect()
}

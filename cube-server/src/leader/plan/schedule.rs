//! Where pods go: filters, each with a reason and a count, then the least loaded of what is left.

use std::collections::{BTreeMap, BTreeSet};

use cube_api::meta::{Labels, Name, Uid};
use cube_api::node::{Capacity, Node};
use cube_api::pod::{OnNodeLoss, PodSpec};

use crate::leader::store::{HostPort, NodeLoad, Placing, PodRow, Reserved};

/// A pod without a node.
#[derive(Debug, Clone, Copy)]
pub struct Unplaced<'a> {
    /// Which.
    pub uid: Uid,
    /// Its name.
    pub name: &'a Name,
    /// What it asks for.
    pub spec: &'a PodSpec,
    /// Why it waited until now, if that was said.
    pub waiting_for: Option<&'a str>,
    /// A pod of its name that it has to wait for ([`must_wait`]).
    pub predecessor: Option<Predecessor<'a>>,
}

/// A pod whose name another one has taken over.
#[derive(Debug, Clone, Copy)]
pub struct Predecessor<'a> {
    /// Which.
    pub uid: Uid,
    /// Where its containers are.
    pub node: &'a Name,
    /// Whether that node is lost.
    pub on_lost_node: bool,
}

/// Whether a pod must not start before `old`, which had its name, is known to have stopped. On a node that is lost that may be never, so only a
/// pod that must not run twice waits for it, and any pod for such a one: `onNodeLoss: wait` is kept under a name over every change of the spec.
pub fn must_wait(spec: &PodSpec, old: &PodRow, on_lost_node: bool) -> bool {
    let waits = |spec: &PodSpec| match spec.on_node_loss {
        OnNodeLoss::Wait => true,
        OnNodeLoss::Replace => false,
    };
    !on_lost_node || (!old.is_finished() && (waits(spec) || waits(&old.pod.spec)))
}

/// A node, and what is taken of it. Placing a pod takes more.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    name: &'a Name,
    labels: &'a Labels,
    ready: bool,
    cordoned: bool,
    allocatable: Capacity,
    pods: u32,
    taken: Reserved,
    host_ports: BTreeSet<HostPort>,
}

impl<'a> Candidate<'a> {
    /// A node with what its pods use; `load` is none where it has none.
    pub fn new(node: &'a Node, load: Option<&NodeLoad>) -> Self {
        let Node { name, labels, condition, cordon, allocatable, .. } = node;
        Self {
            name,
            labels,
            ready: condition.is_ready(),
            cordoned: cordon.is_some(),
            allocatable: *allocatable,
            pods: load.map_or(0, |load| load.unfinished),
            taken: load.map_or_else(Reserved::default, |load| load.reserved),
            host_ports: load.into_iter().flat_map(|load| load.host_ports.keys().copied()).collect(),
        }
    }

    /// The first filter that it doesn't pass.
    fn refuses(&self, need: &Need<'_>) -> Option<Unfit> {
        let lacks = |needed: u64, used: u64, all: u64| needed > 0 && used.saturating_add(needed) > all;
        if !self.ready {
            Some(Unfit::NotReady)
        } else if self.cordoned {
            Some(Unfit::Cordoned)
        } else if !need.selector.iter().all(|(key, value)| self.labels.get(key) == Some(value)) {
            Some(Unfit::Selector)
        } else if lacks(need.reserved.cpu.0, self.taken.cpu.0, self.allocatable.cpu.0) {
            Some(Unfit::Cpu)
        } else if lacks(need.reserved.memory.0, self.taken.memory.0, self.allocatable.memory.0) {
            Some(Unfit::Memory)
        } else if lacks(need.reserved.disk.0, self.taken.disk.0, self.allocatable.disk.0) {
            Some(Unfit::Disk)
        } else if need.host_ports.iter().any(|port| self.host_ports.iter().any(|taken| taken.collides(port))) {
            Some(Unfit::HostPorts)
        } else if self.pods >= self.allocatable.pods {
            Some(Unfit::PodLimit)
        } else {
            None
        }
    }

    /// How loaded it is: fewest pods first, so that pods that reserve nothing spread too; then the larger of its two shares (in thousandths)
    /// with the pod on it; then its name, so that a tie has one answer.
    fn load_with(&self, need: &Need<'_>) -> (u32, u64, &'a Name) {
        let share = |used: u64, all: u64| used.saturating_mul(1_000) / all.max(1);
        let cpu = share(self.taken.cpu.0 + need.reserved.cpu.0, self.allocatable.cpu.0);
        let memory = share(self.taken.memory.0 + need.reserved.memory.0, self.allocatable.memory.0);
        (self.pods, cpu.max(memory), self.name)
    }

    fn take(&mut self, need: &Need<'_>) {
        self.pods += 1;
        self.taken.add(&need.reserved);
        self.host_ports.extend(&need.host_ports);
    }
}

/// What a pod needs of a node.
struct Need<'a> {
    reserved: Reserved,
    host_ports: Vec<HostPort>,
    selector: &'a Labels,
}

impl<'a> Need<'a> {
    fn of(spec: &'a PodSpec) -> Self {
        Self { reserved: Reserved::of(spec), host_ports: HostPort::of(spec).collect(), selector: &spec.node_selector }
    }
}

/// Why a node doesn't take a pod, in the order in which it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unfit {
    NotReady,
    Cordoned,
    Selector,
    Cpu,
    Memory,
    Disk,
    HostPorts,
    PodLimit,
}

impl Unfit {
    /// `2 lack memory (need 512Mi)`.
    fn sentence(self, count: usize, need: &Need<'_>) -> String {
        let verb = |one: &'static str, several: &'static str| if count == 1 { one } else { several };
        let Reserved { cpu, memory, disk } = need.reserved;
        match self {
            Self::NotReady => format!("{count} {} not ready", verb("is", "are")),
            Self::Cordoned => format!("{count} {} cordoned", verb("is", "are")),
            Self::Selector => {
                let selector: Vec<_> = need.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!("{count} {} the labels {}", verb("lacks", "lack"), selector.join(","))
            }
            Self::Cpu => format!("{count} {} cpu (need {cpu})", verb("lacks", "lack")),
            Self::Memory => format!("{count} {} memory (need {memory})", verb("lacks", "lack")),
            Self::Disk => format!("{count} {} disk (need {disk})", verb("lacks", "lack")),
            Self::HostPorts => {
                let ports: Vec<_> = need.host_ports.iter().map(|port| port.port.to_string()).collect();
                format!("{count} {} a taken host port (need {})", verb("has", "have"), ports.join(", "))
            }
            Self::PodLimit => format!("{count} {} full (pod limit)", verb("is", "are")),
        }
    }
}

/// Decides about each pod, in order; what an earlier one takes is taken for the later. A pod that waits for what it waited for is left out.
pub fn schedule(pods: &[Unplaced<'_>], mut nodes: Vec<Candidate<'_>>) -> Vec<Placing> {
    let decided = pods.iter().filter_map(|pod| match place(pod, &mut nodes) {
        Placing::Wait { reason, .. } | Placing::Hold { reason, .. } if pod.waiting_for == Some(&reason) => None,
        placing @ (Placing::Bind { .. } | Placing::Wait { .. } | Placing::Hold { .. }) => Some(placing),
    });
    decided.collect()
}

/// Notes that a pod is not to be placed, unless that was noted.
pub fn hold(pod: &Unplaced<'_>, reason: String) -> Option<Placing> {
    (pod.waiting_for != Some(&*reason)).then_some(Placing::Hold { uid: pod.uid, reason })
}

fn place(pod: &Unplaced<'_>, nodes: &mut [Candidate<'_>]) -> Placing {
    let uid = pod.uid;
    if let Some(Predecessor { uid: old, node, on_lost_node }) = pod.predecessor {
        let waits = format!("waiting for the previous pod/{} ({old}) on node {node} to stop", pod.name);
        let remedy = "that node is lost (onNodeLoss: wait); if that machine is dead, make sure that it is off, then";
        let reason = if on_lost_node { format!("{waits}: {remedy}: cube delete node/{node} --force") } else { waits };
        return Placing::Hold { uid, reason };
    }
    let need = Need::of(pod.spec);
    let mut unfit = BTreeMap::<Unfit, usize>::new();
    let mut fitting = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        match node.refuses(&need) {
            Some(why) => *unfit.entry(why).or_default() += 1,
            None => fitting.push(index),
        }
    }
    let Some(best) = fitting.iter().copied().min_by_key(|index| nodes[*index].load_with(&need)) else {
        return Placing::Wait { uid, reason: no_node(nodes.len(), &unfit, &need) };
    };
    nodes[best].take(&need);
    let reason = match fitting.len() {
        1 => "the only one that fits".to_owned(),
        several => format!("least loaded of {several} that fit"),
    };
    Placing::Bind { uid, node: nodes[best].name.clone(), reason }
}

fn no_node(all: usize, unfit: &BTreeMap<Unfit, usize>, need: &Need<'_>) -> String {
    if all == 0 {
        return "no node has joined yet".to_owned();
    }
    // The most common cause first; of equals the one that is asked first.
    let mut causes: Vec<_> = unfit.iter().collect();
    causes.sort_by_key(|(why, count)| (std::cmp::Reverse(**count), **why));
    let causes: Vec<_> = causes.into_iter().map(|(why, count)| why.sentence(*count, need)).collect();
    format!("0/{all} nodes fit: {}", causes.join(", "))
}

#[cfg(test)]
mod tests;

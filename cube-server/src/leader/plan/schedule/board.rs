//! The nodes of a pass, in the order of their names, and what is taken of them on the way.

use std::collections::BTreeMap;
use std::rc::Rc;

use cube_api::meta::{Labels, Name};
use cube_api::node::{Capacity, Node};
use cube_api::pod::Strategy;

use super::filters::{Tally, Unfit};
use super::need::Need;
use super::strategies::{Costs, Load, costs};
use crate::leader::store::{HostPort, NodeLoad, Reserved};

/// A node, and what its pods use of it.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    name: &'a Name,
    labels: &'a Labels,
    ready: bool,
    cordoned: bool,
    load: Load,
    host_ports: Option<&'a BTreeMap<HostPort, u32>>,
}

impl<'a> Candidate<'a> {
    /// A node with what its pods use; `load` is none where it has none.
    pub fn new(node: &'a Node, load: Option<&'a NodeLoad>) -> Self {
        let Node { name, labels, condition, cordon, allocatable, .. } = node;
        let (pods, taken) = load.map_or((0, Reserved::default()), |load| (load.unfinished, load.reserved));
        Self {
            name,
            labels,
            ready: condition.is_ready(),
            cordoned: cordon.is_some(),
            load: Load { allocatable: *allocatable, pods, taken },
            host_ports: load.map(|load| &load.host_ports),
        }
    }

    /// The first filter that it doesn't pass, of those that ask what a node is.
    fn excluded(&self) -> Option<Unfit> {
        if !self.ready {
            Some(Unfit::NotReady)
        } else if self.cordoned {
            Some(Unfit::Cordoned)
        } else {
            None
        }
    }
}

/// What is left of a node. Small, because each new need is held against every node's.
#[derive(Debug, Clone, Copy)]
struct Left {
    cpu: u64,
    memory: u64,
    disk: u64,
    pods: u32,
}

impl Left {
    fn of(load: &Load) -> Self {
        let Load { allocatable, pods, taken } = load;
        Self {
            cpu: allocatable.cpu.0.saturating_sub(taken.cpu.0),
            memory: allocatable.memory.0.saturating_sub(taken.memory.0),
            disk: allocatable.disk.0.saturating_sub(taken.disk.0),
            pods: allocatable.pods.saturating_sub(*pods),
        }
    }
}

/// Which nodes a selector leaves, as far as that stays so for the pass.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) refused: Vec<Option<Unfit>>,
    pub(super) tally: Tally,
}

impl Gate {
    fn of(refused: Vec<Option<Unfit>>) -> Self {
        let mut tally = Tally::default();
        refused.iter().for_each(|why| tally.moves(None, *why));
        Self { refused, tally }
    }
}

/// The nodes of a pass.
pub(super) struct Board<'a> {
    nodes: Vec<Candidate<'a>>,
    left: Vec<Left>,
    /// By selector; each is matched against every node once.
    gates: BTreeMap<&'a Labels, Rc<Gate>>,
    /// Who holds the host ports that the pass asks for, by number.
    held_ports: BTreeMap<u16, Vec<(usize, HostPort)>>,
    /// What each node costs now; empty where no pod asks for that.
    costs: Vec<Costs>,
    /// For each node the place of its size in `sizes`; empty like `costs`.
    size_of: Vec<usize>,
    sizes: Vec<Capacity>,
    /// What was taken: of which node, by a pod of which group.
    log: Vec<(usize, usize)>,
}

impl<'a> Board<'a> {
    /// The nodes, for pods with these needs.
    pub(super) fn new<'n>(mut nodes: Vec<Candidate<'a>>, needs: impl Iterator<Item = &'n Need<'a>>) -> Self
    where
        'a: 'n,
    {
        // As a rule they are in order.
        if !nodes.is_sorted_by_key(|node| node.name) {
            nodes.sort_by_key(|node| node.name);
        }
        let (mut is_priced, mut held_ports) = (false, BTreeMap::new());
        for need in needs {
            is_priced |= match need.strategy {
                Strategy::Epvm => true,
                Strategy::Spread | Strategy::Binpack | Strategy::RoundRobin => false,
            };
            held_ports.extend(need.host_ports.iter().map(|port| (port.port, Vec::new())));
        }
        find_holders(&nodes, &mut held_ports);
        let (size_of, sizes) = if is_priced { sizes(&nodes) } else { (Vec::new(), Vec::new()) };
        Self {
            left: nodes.iter().map(|node| Left::of(&node.load)).collect(),
            gates: BTreeMap::new(),
            held_ports,
            costs: if is_priced { nodes.iter().map(|node| costs(&node.load)).collect() } else { Vec::new() },
            size_of,
            sizes,
            log: Vec::new(),
            nodes,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn name(&self, node: usize) -> &'a Name {
        self.nodes[node].name
    }

    /// The place of a node, if it is there.
    pub(super) fn find(&self, name: &Name) -> Option<usize> {
        self.nodes.binary_search_by_key(&name, |node| node.name).ok()
    }

    /// The place of the first node behind a name, which may be gone.
    pub(super) fn after(&self, name: Option<&Name>) -> usize {
        name.map_or(0, |name| self.nodes.partition_point(|node| node.name <= name))
    }

    pub(super) fn load(&self, node: usize) -> &Load {
        &self.nodes[node].load
    }

    /// What a node costs now; pods by `epvm` only.
    pub(super) fn costs(&self, node: usize) -> &Costs {
        &self.costs[node]
    }

    /// The place of a node's size in [`Board::sizes`]; pods by `epvm` only.
    pub(super) fn size_of(&self, node: usize) -> usize {
        self.size_of[node]
    }

    /// What different nodes give to pods.
    pub(super) fn sizes(&self) -> &[Capacity] {
        &self.sizes
    }

    /// Which nodes a need's selector leaves.
    pub(super) fn gate(&mut self, need: &Need<'a>) -> Rc<Gate> {
        let nodes = &self.nodes;
        let gate = self.gates.entry(need.selector).or_insert_with(|| {
            let matches = |node: &Candidate<'_>| need.selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
            let refused = |node| Candidate::excluded(node).or_else(|| (!matches(node)).then_some(Unfit::Selector));
            Rc::new(Gate::of(nodes.iter().map(refused).collect()))
        });
        gate.clone()
    }

    /// The first of the filters behind the gate that a node doesn't pass now.
    pub(super) fn refuses(&self, node: usize, need: &Reserved, is_port_held: bool) -> Option<Unfit> {
        let left = &self.left[node];
        if need.cpu.0 > left.cpu {
            Some(Unfit::Cpu)
        } else if need.memory.0 > left.memory {
            Some(Unfit::Memory)
        } else if need.disk.0 > left.disk {
            Some(Unfit::Disk)
        } else if is_port_held {
            Some(Unfit::HostPorts)
        } else if left.pods == 0 {
            Some(Unfit::PodLimit)
        } else {
            None
        }
    }

    /// The nodes that can't publish one of the need's ports now; empty where it has none.
    pub(super) fn port_holders(&self, need: &Need<'_>) -> Vec<bool> {
        if need.host_ports.is_empty() {
            return Vec::new();
        }
        let mut holders = vec![false; self.nodes.len()];
        for port in &need.host_ports {
            let held = self.held_ports.get(&port.port).into_iter().flatten();
            held.filter(|(_, held)| held.collides(port)).for_each(|(node, _)| holders[*node] = true);
        }
        holders
    }

    /// A pod of this group takes its need of a node.
    pub(super) fn take(&mut self, node: usize, group: usize, need: &Need<'_>) {
        let load = &mut self.nodes[node].load;
        load.pods += 1;
        load.taken.add(&need.reserved);
        self.left[node] = Left::of(load);
        if let Some(cost) = self.costs.get_mut(node) {
            *cost = costs(load);
        }
        for port in &need.host_ports {
            self.held_ports.entry(port.port).or_default().push((node, *port));
        }
        self.log.push((node, group));
    }

    /// What was taken in this pass, in order: of which node, by a pod of which group.
    pub(super) fn log(&self) -> &[(usize, usize)] {
        &self.log
    }
}

/// Adds to each wanted port's list who holds it. One walk over all ports that are taken, because a look for each wanted port on each node costs many
/// times that.
fn find_holders(nodes: &[Candidate<'_>], wanted: &mut BTreeMap<u16, Vec<(usize, HostPort)>>) {
    if wanted.is_empty() {
        return;
    }
    let mut is_wanted = vec![false; 1 << 16];
    wanted.keys().for_each(|port| is_wanted[usize::from(*port)] = true);
    for (index, node) in nodes.iter().enumerate() {
        let held = node.host_ports.into_iter().flat_map(BTreeMap::keys);
        for port in held.filter(|port| is_wanted[usize::from(port.port)]) {
            wanted.entry(port.port).or_default().push((index, *port));
        }
    }
}

/// For each node the place of its size among the sizes that there are.
fn sizes(nodes: &[Candidate<'_>]) -> (Vec<usize>, Vec<Capacity>) {
    let (mut known, mut sizes) = (BTreeMap::new(), Vec::new());
    let size_of = nodes.iter().map(|node| {
        let size @ Capacity { cpu, memory, disk, pods } = node.load.allocatable;
        *known.entry((cpu, memory, disk, pods)).or_insert_with(|| {
            sizes.push(size);
            sizes.len() - 1
        })
    });
    (size_of.collect(), sizes)
}

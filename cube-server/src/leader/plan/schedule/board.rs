//! The nodes of a pass, in the order of their names, and what is taken of them on the way.

use std::collections::BTreeMap;
use std::rc::Rc;

use cube_api::meta::{Labels, Name};
use cube_api::node::{Capacity, Node};
use cube_api::pod::Strategy;

use super::filters::{Tally, Unfit};
use super::need::Need;
use super::strategies::{Costs, Shares, costs, shares};
use crate::leader::store::{NodeLoad, Reserved};
use cube_api::pod::HostPort;

/// A node, and what its pods use of it.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    name: &'a Name,
    labels: &'a Labels,
    ready: bool,
    cordoned: bool,
    allocatable: Capacity,
    pods: u32,
    taken: Reserved,
    host_ports: Option<&'a BTreeMap<HostPort, u32>>,
}

impl<'a> Candidate<'a> {
    /// A node with what its pods use; `load` is none where it has none.
    pub fn new(node: &'a Node, load: Option<&'a NodeLoad>) -> Self {
        let Node { name, labels, condition, cordon, allocatable, .. } = node;
        Self {
            name,
            labels,
            ready: condition.is_ready(),
            cordoned: cordon.is_some(),
            allocatable: *allocatable,
            pods: load.map_or(0, |load| load.unfinished),
            taken: load.map_or_else(Reserved::default, |load| load.reserved),
            host_ports: load.map(|load| &load.host_ports),
        }
    }

    /// The first filter that it doesn't pass, of those that ask what a node is, whatever the pod.
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

/// What a ranking reads of a node. Small, because each new need is held against every node's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    free: Reserved,
    free_pods: u32,
    pub(super) pods: u32,
    pub(super) shares: Shares,
    /// The place of its size in [`Board::sizes`].
    pub(super) size: u32,
}

impl Spot {
    fn new(Candidate { allocatable, pods, taken, .. }: &Candidate<'_>, size: u32) -> Self {
        let mut free = Reserved::default();
        free.cpu.0 = allocatable.cpu.0.saturating_sub(taken.cpu.0);
        free.memory.0 = allocatable.memory.0.saturating_sub(taken.memory.0);
        free.disk.0 = allocatable.disk.0.saturating_sub(taken.disk.0);
        let free_pods = allocatable.pods.saturating_sub(*pods);
        Self { free, free_pods, pods: *pods, shares: shares(taken, allocatable), size }
    }

    /// The first of the filters that ask what is left of a node which it doesn't pass.
    pub(super) fn refuses(&self, need: &Reserved, is_port_held: bool) -> Option<Unfit> {
        // A pod that needs nothing of a thing gets it of a node that has less than nothing left, too. First all at once: most nodes take most pods,
        // and one branch that goes the same way as a rule is cheaper than five.
        let Reserved { cpu, memory, disk } = self.free;
        if (need.cpu <= cpu) & (need.memory <= memory) & (need.disk <= disk) & !is_port_held & (self.free_pods > 0) {
            None
        } else if need.cpu > cpu {
            Some(Unfit::Cpu)
        } else if need.memory > memory {
            Some(Unfit::Memory)
        } else if need.disk > disk {
            Some(Unfit::Disk)
        } else if is_port_held {
            Some(Unfit::HostPorts)
        } else {
            Some(Unfit::PodLimit)
        }
    }
}

/// Which nodes a selector leaves: what stays so for the pass.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) refused: Vec<Option<Unfit>>,
    pub(super) tally: Tally,
}

/// The nodes of a pass.
pub(super) struct Board<'a> {
    nodes: Vec<Candidate<'a>>,
    spots: Vec<Spot>,
    /// What different nodes give to pods.
    sizes: Vec<Capacity>,
    /// What each node costs now; empty where no pod asks for that.
    costs: Vec<Costs>,
    /// By label that the pass selects by, who has it.
    labelled: BTreeMap<&'a str, BTreeMap<&'a str, Vec<u32>>>,
    /// By selector.
    gates: BTreeMap<&'a Labels, Rc<Gate>>,
    /// By number of the host ports that the pass asks for, who holds them.
    held_ports: BTreeMap<u16, Vec<(u32, HostPort)>>,
    /// What was taken: of which node, by a pod of which group.
    log: Vec<(u32, u32)>,
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
        let (mut is_priced, mut held_ports, mut labelled) = (false, BTreeMap::new(), BTreeMap::<_, BTreeMap<_, _>>::new());
        for need in needs {
            is_priced |= match need.strategy {
                Strategy::Epvm => true,
                Strategy::Spread | Strategy::Binpack | Strategy::RoundRobin => false,
            };
            held_ports.extend(need.host_ports.iter().map(|port| (port.port, Vec::new())));
            for (key, value) in need.selector {
                labelled.entry(key.as_str()).or_default().insert(value.as_str(), Vec::new());
            }
        }
        find_holders(&nodes, &mut held_ports);
        find_labelled(&nodes, &mut labelled);
        let (mut known, mut sizes) = (BTreeMap::new(), Vec::new());
        let spots = nodes.iter().map(|node| Spot::new(node, size_of(node, &mut known, &mut sizes)));
        let spots = spots.collect();
        let price = |node: &Candidate<'_>| costs(node.pods, &node.taken, &node.allocatable);
        let costs = if is_priced { nodes.iter().map(price).collect() } else { Vec::new() };
        Self { nodes, spots, sizes, costs, labelled, gates: BTreeMap::new(), held_ports, log: Vec::new() }
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

    /// By node, what is left of it now.
    pub(super) fn spots(&self) -> &[Spot] {
        &self.spots
    }

    /// What different nodes give to pods.
    pub(super) fn sizes(&self) -> &[Capacity] {
        &self.sizes
    }

    /// By node, what it costs now; empty where no pod of the pass is placed by that.
    pub(super) fn costs(&self) -> &[Costs] {
        &self.costs
    }

    /// Which nodes a need's selector leaves.
    pub(super) fn gate(&mut self, need: &Need<'a>) -> Rc<Gate> {
        let Self { nodes, labelled, gates, .. } = self;
        let gate = gates.entry(need.selector).or_insert_with(|| {
            let mut matching = vec![0; nodes.len()];
            for (key, value) in need.selector {
                let having = labelled.get(key.as_str()).and_then(|values| values.get(value.as_str()));
                having.into_iter().flatten().for_each(|node| matching[*node as usize] += 1);
            }
            let matches = |count: usize| count == need.selector.len();
            let refused = nodes.iter().zip(matching);
            let refused: Vec<_> =
                refused.map(|(node, count)| node.excluded().or_else(|| (!matches(count)).then_some(Unfit::Selector))).collect();
            let mut tally = Tally::default();
            refused.iter().for_each(|why| tally.moves(None, *why));
            Rc::new(Gate { refused, tally })
        });
        gate.clone()
    }

    /// The nodes that can't publish one of the need's ports now; empty where it has none.
    pub(super) fn port_holders(&self, need: &Need<'_>) -> Vec<bool> {
        if need.host_ports.is_empty() {
            return Vec::new();
        }
        let mut holders = vec![false; self.nodes.len()];
        for port in &need.host_ports {
            let held = self.held_ports.get(&port.port).into_iter().flatten();
            held.filter(|(_, held)| held.collides(port)).for_each(|(node, _)| holders[*node as usize] = true);
        }
        holders
    }

    /// A pod of this group takes its need of a node.
    pub(super) fn take(&mut self, node: usize, group: usize, need: &Need<'_>) {
        let candidate = &mut self.nodes[node];
        candidate.pods += 1;
        candidate.taken.add(&need.reserved);
        self.spots[node] = Spot::new(candidate, self.spots[node].size);
        if let Some(cost) = self.costs.get_mut(node) {
            *cost = costs(candidate.pods, &candidate.taken, &candidate.allocatable);
        }
        for port in &need.host_ports {
            self.held_ports.entry(port.port).or_default().push((node as u32, *port));
        }
        self.log.push((node as u32, group as u32));
    }

    /// What was taken in this pass, in order: of which node, by a pod of which group.
    pub(super) fn log(&self) -> &[(u32, u32)] {
        &self.log
    }
}

/// Adds to each wanted port's list who holds it. One walk over all ports that are taken, because a look for each wanted port on each node costs many
/// times that.
fn find_holders(nodes: &[Candidate<'_>], wanted: &mut BTreeMap<u16, Vec<(u32, HostPort)>>) {
    if wanted.is_empty() {
        return;
    }
    // One bit for each port, so that the table stays in the nearest cache beside what is walked over.
    let mut is_wanted = [0u64; (1 << 16) / 64];
    let place = |port: u16| (usize::from(port / 64), 1 << (port % 64));
    for (word, bit) in wanted.keys().map(|port| place(*port)) {
        is_wanted[word] |= bit;
    }
    for (node, index) in nodes.iter().zip(0..) {
        let held = node.host_ports.into_iter().flat_map(BTreeMap::keys);
        for port in held {
            let (word, bit) = place(port.port);
            if is_wanted[word] & bit != 0 {
                wanted.entry(port.port).or_default().push((index, *port));
            }
        }
    }
}

/// Adds to each wanted label's list who has it: each node is asked once for each key, and not for each selector.
fn find_labelled(nodes: &[Candidate<'_>], wanted: &mut BTreeMap<&str, BTreeMap<&str, Vec<u32>>>) {
    for (key, values) in wanted {
        for (node, index) in nodes.iter().zip(0..) {
            if let Some(having) = node.labels.get(*key).and_then(|value| values.get_mut(value.as_str())) {
                having.push(index);
            }
        }
    }
}

/// The place of a node's size among the sizes that there are. Most nodes have that of the one before.
fn size_of(node: &Candidate<'_>, known: &mut BTreeMap<[u64; 4], u32>, sizes: &mut Vec<Capacity>) -> u32 {
    let size @ Capacity { cpu, memory, disk, pods } = node.allocatable;
    if sizes.last() == Some(&size) {
        return sizes.len() as u32 - 1;
    }
    *known.entry([cpu.0, memory.0, disk.0, pods.into()]).or_insert_with(|| {
        sizes.push(size);
        sizes.len() as u32 - 1
    })
}

//! The plain definition: one pod after another, each against every node. Slow and obvious; what runs has to agree with it in every word.

use std::collections::BTreeMap;

use cube_api::pod::Permission;
use proptest::sample::select;

use super::*;

/// A node with what is taken of it.
struct Plain<'a> {
    node: &'a Node,
    pods: u64,
    taken: Reserved,
    host_ports: Vec<HostPort>,
}

fn lacks(need: u64, taken: u64, all: u64) -> bool {
    need > 0 && taken + need > all
}

impl Plain<'_> {
    /// The place of the first filter that refuses, and its words for one node and for several.
    fn refuses(&self, spec: &PodSpec, pins: &[Pin]) -> Option<(usize, String, String)> {
        let Node { name, condition, cordon, labels, allocatable, host_paths, allows, .. } = self.node;
        let needed = Permission::needed_by(spec);
        let (need, ports) = (Reserved::of(spec), HostPort::of(spec).collect::<Vec<_>>());
        let selector: Vec<_> = spec.node_selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let numbers: Vec<_> = ports.iter().map(|port| port.port.to_string()).collect();
        let what = |what: String| (format!("lacks {what}"), format!("lack {what}"));
        let is = |word: &str| (format!("is {word}"), format!("are {word}"));
        let places: Vec<_> = pins.iter().map(|pin| format!("volume '{}' is on {}", pin.volume, pin.node)).collect();
        let paths: Vec<_> = spec.host_paths().map(|host| host.path.as_str()).collect();
        let paths = format!("not allow the host path (need {})", paths.join(", "));
        let port = format!("a taken host port (need {})", numbers.join(", "));
        let filters = [
            (!condition.is_ready(), is("not ready")),
            (cordon.is_some(), is("cordoned")),
            (
                spec.node_selector.iter().any(|(key, value)| labels.get(key) != Some(value)),
                what(format!("the labels {}", selector.join(","))),
            ),
            (needed.iter().any(|permission| !allows.contains(permission)), {
                let listed = Permission::list(&needed);
                (format!("doesn't allow {listed}"), format!("don't allow {listed}"))
            }),
            (pins.iter().any(|pin| pin.node != *name), is(&format!("without its data ({})", places.join(", ")))),
            (spec.host_paths().any(|host| !host_paths.contains(&host.path)), (format!("does {paths}"), format!("do {paths}"))),
            (lacks(need.cpu.0, self.taken.cpu.0, allocatable.cpu.0), what(format!("cpu (need {})", need.cpu))),
            (lacks(need.memory.0, self.taken.memory.0, allocatable.memory.0), what(format!("memory (need {})", need.memory))),
            (lacks(need.disk.0, self.taken.disk.0, allocatable.disk.0), what(format!("disk (need {})", need.disk))),
            (
                ports.iter().any(|port| self.host_ports.iter().any(|taken| taken.collides(port))),
                (format!("has {port}"), format!("have {port}")),
            ),
            (self.pods >= u64::from(allocatable.pods), is("full (pod limit)")),
        ];
        let first = filters.into_iter().enumerate().find(|(_, (refuses, _))| *refuses);
        first.map(|(place, (_, (one, several)))| (place, one, several))
    }

    /// How good it is for a pod: the smallest is taken, of equals the first by name.
    fn score(&self, spec: &PodSpec, strategy: Strategy) -> (f64, f64) {
        let (need, all) = (Reserved::of(spec), &self.node.allocatable);
        // In parts of 2^30, each rounded down.
        let parts = |part: u64, all: u64| ((part as f64 / all.max(1) as f64).min(1.0) * f64::from(1 << 30)).floor();
        let share = |taken: u64, need: u64, all: u64| (parts(taken, all) + parts(need, all)).min(f64::from(1 << 30));
        let shares = [
            share(self.taken.cpu.0, need.cpu.0, all.cpu.0),
            share(self.taken.memory.0, need.memory.0, all.memory.0),
            share(self.taken.disk.0, need.disk.0, all.disk.0),
        ];
        match strategy {
            Strategy::Spread => (self.pods as f64, shares.into_iter().fold(0.0, f64::max)),
            Strategy::Binpack => (-shares.into_iter().sum::<f64>(), -(self.pods as f64)),
            Strategy::Epvm => (self.rise(&need, |used, need| 1.539_600_717_839_002_f64.powf(used) * (need * *LN_LIEB).exp_m1()), 0.0),
            Strategy::RoundRobin => (0.0, 0.0),
        }
    }

    /// The sum of what `rise` makes of what is used of each thing, and of the pod's part of it.
    fn rise(&self, need: &Reserved, rise: fn(f64, f64) -> f64) -> f64 {
        let all = &self.node.allocatable;
        let things = [
            (self.taken.cpu.0, need.cpu.0, all.cpu.0),
            (self.taken.memory.0, need.memory.0, all.memory.0),
            (self.taken.disk.0, need.disk.0, all.disk.0),
            (self.pods, 1, u64::from(all.pods)),
        ];
        let share = |part: u64, all: u64| part as f64 / all.max(1) as f64;
        things.into_iter().map(|(used, need, all)| rise(share(used, all).min(1.0), share(need, all))).sum()
    }
}

/// ln 1.5396...
static LN_LIEB: std::sync::LazyLock<f64> = std::sync::LazyLock::new(|| 1.539_600_717_839_002_f64.ln());

fn plainly<'a>(pods: &[Unplaced<'_>], nodes: &'a [(Node, NodeLoad)], rules: Rules<'_>) -> Decided {
    let plain = |(node, load): &'a (Node, NodeLoad)| Plain {
        node,
        pods: load.unfinished.into(),
        taken: load.reserved,
        host_ports: load.host_ports.keys().copied().collect(),
    };
    let mut nodes: Vec<_> = nodes.iter().map(plain).collect();
    nodes.sort_by_key(|plain| &plain.node.name);
    let (mut placings, mut last_turn) = (Vec::new(), rules.last_turn.cloned());
    for pod in pods {
        let strategy = pod.spec.strategy.unwrap_or(rules.strategy);
        let placing = match pod.predecessor {
            Some(Predecessor { uid: old, node, .. }) => {
                let reason = format!("waiting for the previous pod/{} ({old}) on node {node} to stop", pod.name);
                Placing::Hold { uid: pod.uid, reason }
            }
            None => one(pod, strategy, &mut nodes, last_turn.as_ref()),
        };
        if let (Placing::Bind { node, .. }, Strategy::RoundRobin) = (&placing, strategy) {
            last_turn = Some(node.clone());
        }
        if matches!(placing, Placing::Bind { .. }) || pod.waiting_for != Some(reason(&placing)) {
            placings.push(placing);
        }
    }
    Decided { placings, last_turn }
}

fn one(pod: &Unplaced<'_>, strategy: Strategy, nodes: &mut [Plain<'_>], last_turn: Option<&Name>) -> Placing {
    let (mut refused, mut fitting) = (BTreeMap::<_, (usize, String, String)>::new(), Vec::new());
    for (index, plain) in nodes.iter().enumerate() {
        match plain.refuses(pod.spec, pod.pins) {
            Some((place, one, several)) => refused.entry(place).or_insert((0, one, several)).0 += 1,
            None => fitting.push(index),
        }
    }
    if fitting.is_empty() {
        let mut causes: Vec<_> = refused.into_values().collect();
        causes.sort_by_key(|(count, ..)| std::cmp::Reverse(*count));
        let sentence = |(count, one, several)| format!("{count} {}", if count == 1 { one } else { several });
        let causes: Vec<_> = causes.into_iter().map(sentence).collect();
        let reason = match nodes.len() {
            0 => "no node has joined yet".to_owned(),
            all => format!("0/{all} nodes fit: {}", causes.join(", ")),
        };
        return Placing::Wait { uid: pod.uid, reason };
    }
    let (avoided, others): (Vec<_>, Vec<_>) = fitting.iter().copied().partition(|index| pod.avoids.contains(&nodes[*index].node.name));
    let from = if others.is_empty() { &avoided } else { &others };
    let best = match strategy {
        Strategy::RoundRobin => {
            let behind = from.iter().find(|index| last_turn.is_none_or(|last| nodes[**index].node.name > *last));
            *behind.unwrap_or(&from[0])
        }
        Strategy::Spread | Strategy::Binpack | Strategy::Epvm => {
            let score = |index: &usize| nodes[*index].score(pod.spec, strategy);
            // `min_by` gives the first of equals.
            *from.iter().min_by(|a, b| score(a).partial_cmp(&score(b)).expect("numbers")).expect("one that fits")
        }
    };
    let word = match strategy {
        Strategy::Spread => "least loaded",
        Strategy::Binpack => "fullest",
        Strategy::RoundRobin => "next",
        Strategy::Epvm => "cheapest",
    };
    let mut reason = match (from.len(), others.is_empty() || avoided.is_empty()) {
        (1, true) => "the only one that fits".to_owned(),
        (1, false) => "the only other one that fits".to_owned(),
        (several, _) => format!("{word} of {several} that fit ({strategy})"),
    };
    let names: Vec<_> = avoided.iter().map(|index| nodes[*index].node.name.as_str()).collect();
    reason += &match (others.is_empty(), names.len()) {
        (true, _) => ", though it failed there before".to_owned(),
        (false, 0) => String::new(),
        (false, 1) => format!("; {} was avoided: it failed there", names[0]),
        (false, _) => format!("; {} were avoided: it failed there", names.join(", ")),
    };
    let plain = &mut nodes[best];
    plain.pods += 1;
    plain.taken.add(&Reserved::of(pod.spec));
    plain.host_ports.extend(HostPort::of(pod.spec));
    Placing::Bind { uid: pod.uid, node: plain.node.name.clone(), reason }
}

fn any_loaded_node() -> impl prop::strategy::Strategy<Value = (Node, NodeLoad)> {
    let size = (select(&[0u64, 1_000, 4_000]), select(&[0u64, 512, 2_048]), select(&[0u64, 4_096]), 0..6u32);
    let load = (0..3u32, select(&[0u64, 250, 1_000]), select(&[0u64, 64, 600]), any_ports());
    let is = (prop::bool::weighted(0.9), prop::bool::weighted(0.1), any::<bool>(), any::<bool>(), any_permissions());
    (size, load, is).prop_map(
        |((cpu, memory, disk, pods), (unfinished, used_cpu, used_memory, ports), (ready, cordoned, ssd, srv, allows))| {
            let mut node = node("n", ready, cpu, memory, pods);
            node.allocatable.disk = Bytes(disk * MI);
            node.allows = allows;
            node.cordon = cordoned.then_some(Cordon { since: Timestamp::UNIX_EPOCH, reason: None, drain: None });
            if srv {
                node.host_paths.push("/srv".to_owned());
            }
            if ssd {
                node.labels.insert("disk".to_owned(), "ssd".to_owned());
            }
            let reserved = Reserved { cpu: MilliCpu(used_cpu), memory: Bytes(used_memory * MI), disk: Bytes(0) };
            let host_ports = ports.into_iter().map(|port| (port, 1)).collect();
            (node, NodeLoad { unfinished, reserved, host_ports, ..NodeLoad::default() })
        },
    )
}

fn any_permissions() -> impl prop::strategy::Strategy<Value = std::collections::BTreeSet<Permission>> {
    prop::collection::btree_set(select(&Permission::ALL), 0..3)
}

fn any_ports() -> impl prop::strategy::Strategy<Value = Vec<HostPort>> {
    let ip = select(vec![None, Some("10.0.0.1".parse().expect("an address")), Some("10.0.0.2".parse().expect("an address"))]);
    let protocol = select(&[cube_api::pod::Protocol::Tcp, cube_api::pod::Protocol::Udp]);
    let port = (8_000..8_003u16, protocol, ip).prop_map(|(port, protocol, ip)| HostPort { port, protocol, ip });
    prop_oneof![3 => Just(Vec::new()), 2 => prop::collection::vec(port, 1..3)]
}

fn any_need() -> impl prop::strategy::Strategy<Value = PodSpec> {
    let requests = (select(&[0u64, 100, 700]), select(&[0u64, 64, 512]), select(&[0u64, 0, 1_024]));
    let strategy =
        select(vec![None, None, Some(Strategy::Spread), Some(Strategy::Binpack), Some(Strategy::RoundRobin), Some(Strategy::Epvm)]);
    let needs = prop_oneof![4 => Just(Default::default()), 1 => any_permissions()];
    let places = (prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    (requests, any_ports(), places, strategy, needs).prop_map(|((cpu, memory, disk), ports, (ssd, srv), strategy, needs)| {
        let host_network = needs.contains(&Permission::HostNetwork);
        let mut spec = PodSpec { strategy, host_network, ..spec(cpu, memory, None) };
        spec.containers[0].security_context.privileged = needs.contains(&Permission::Privileged);
        if needs.contains(&Permission::CapAdd) {
            spec.containers[0].security_context.capabilities.add.insert(cube_api::pod::Capability::NetAdmin);
        }
        let container = &mut spec.containers[0];
        container.resources.requests.disk = (disk > 0).then_some(Bytes(disk * MI));
        container.ports = ports
            .into_iter()
            .map(|HostPort { port, protocol, ip }| cube_api::pod::Port {
                name: None,
                container_port: 80,
                host_port: Some(port),
                protocol,
                host_ip: ip,
            })
            .collect();
        if srv {
            let volume = serde_json::json!({"name": "host", "hostPath": {"path": "/srv"}});
            spec.volumes.push(serde_json::from_value(volume).expect("a volume"));
        }
        if ssd {
            spec.node_selector.insert("disk".to_owned(), "ssd".to_owned());
        }
        spec
    })
}

/// What a pod is beside its need.
#[derive(Debug, Clone)]
struct Extras {
    need: prop::sample::Index,
    /// In another need's words: none is the need's own cpu.
    cpu: Option<u64>,
    avoids: Vec<Name>,
    pins: Vec<Pin>,
    waits_already: bool,
    has_predecessor: bool,
}

fn any_extras() -> impl prop::strategy::Strategy<Value = Extras> {
    let avoids = prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec((0..8usize).prop_map(nth_name), 1..4)];
    let flags = (prop::bool::weighted(0.1), prop::bool::weighted(0.05));
    let pins = prop_oneof![5 => Just(Vec::new()), 1 => (0..8usize).prop_map(|node| vec![Pin { volume: name("db"), node: nth_name(node) }])];
    (any::<prop::sample::Index>(), prop_oneof![3 => Just(None), 1 => (0..200u64).prop_map(Some)], avoids, pins, flags).prop_map(
        |(need, cpu, avoids, pins, (waits_already, has_predecessor))| Extras { need, cpu, avoids, pins, waits_already, has_predecessor },
    )
}

/// Their order by name is not the order of their numbers.
fn nth_name(index: usize) -> Name {
    name(&format!("n{}", index * 7 % 1_000))
}

fn agrees(nodes: Vec<(Node, NodeLoad)>, needs: &[PodSpec], pods: &[Extras], strategy: Strategy, last_turn: Option<usize>) {
    let mut nodes: Vec<_> =
        nodes.into_iter().enumerate().map(|(index, (node, load))| (Node { name: nth_name(index), ..node }, load)).collect();
    let (web, n1, last_turn) = (name("web"), name("n1"), last_turn.map(nth_name));
    let rules = Rules { strategy, last_turn: last_turn.as_ref() };
    let mut specs: Vec<_> = pods.iter().map(|pod| pod.need.get(needs).clone()).collect();
    for (spec, pod) in specs.iter_mut().zip(pods) {
        if let Some(cpu) = pod.cpu {
            spec.containers[0].resources.requests.cpu = Some(MilliCpu(cpu));
        }
    }
    let predecessor = Predecessor { uid: Uid(uuid::Uuid::from_u128(1 << 64)), node: &n1, on_lost_node: false };
    let pods: Vec<_> = specs
        .iter()
        .zip(pods)
        .enumerate()
        .map(|(index, (spec, extras))| Unplaced {
            waiting_for: extras.waits_already.then_some("0/1 nodes fit: 1 is not ready"),
            avoids: &extras.avoids,
            pins: &extras.pins,
            predecessor: extras.has_predecessor.then_some(predecessor),
            ..unplaced(index, &web, spec)
        })
        .collect();
    let expected = plainly(&pods, &nodes, rules);
    let decide =
        |nodes: &[(Node, NodeLoad)]| schedule(&pods, nodes.iter().map(|(node, load)| Candidate::new(node, Some(load))).collect(), rules);
    assert_eq!(decide(&nodes), expected);
    nodes.reverse();
    assert_eq!(decide(&nodes), expected, "the order in which nodes are given plays no part");
}

fn any_strategy() -> impl prop::strategy::Strategy<Value = Strategy> {
    select(&Strategy::ALL)
}

proptest! {
    #[test]
    fn groups_and_rankings_decide_as_one_pod_after_another_does(
        nodes in prop::collection::vec(any_loaded_node(), 0..8),
        needs in prop::collection::vec(any_need(), 1..6),
        pods in prop::collection::vec(any_extras(), 0..40),
        strategy in any_strategy(),
        last_turn in prop::option::of(0..8usize),
    ) {
        agrees(nodes, &needs, &pods, strategy, last_turn);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// More nodes than one block of scores has, and more needs than rankings are kept.
    #[test]
    fn so_they_do_with_many_nodes_and_many_needs(
        nodes in prop::collection::vec(any_loaded_node(), 60..200),
        needs in prop::collection::vec(any_need(), 1..20),
        pods in prop::collection::vec(any_extras(), 200..400),
        strategy in any_strategy(),
        last_turn in prop::option::of(0..200usize),
    ) {
        agrees(nodes, &needs, &pods, strategy, last_turn);
    }
}

/// The rule as the paper has it, L^(used + need) - L^used, chooses the same nodes, but for differences that are rounding.
#[test]
fn the_cost_rises_by_the_papers_rule() {
    let (nodes, loads) = half_quarter_none();
    let need = Reserved { cpu: MilliCpu(300), memory: Bytes(100 * MI), disk: Bytes(1_000 * MI) };
    for (node, load) in nodes.iter().zip(&loads) {
        let plain = Plain { node, pods: load.unfinished.into(), taken: load.reserved, host_ports: Vec::new() };
        let by_paper = plain.rise(&need, |used, need| 1.539_600_717_839_002_f64.powf(used + need) - 1.539_600_717_839_002_f64.powf(used));
        let costs = strategies::costs(load.unfinished, &load.reserved, &node.allocatable);
        let ours = f64::from_bits(strategies::epvm(&costs, &strategies::rises(&need, &node.allocatable)));
        assert!((ours - by_paper).abs() < 1e-12, "{ours} {by_paper}");
    }
}

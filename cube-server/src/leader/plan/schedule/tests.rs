//! What the scheduler promises, in words and by any input.

mod reference;

use std::collections::BTreeSet;

use cube_api::meta::{Labels, NodeId, Revision};
use cube_api::node::{Capacity, Cordon, Node, NodeCondition, NodeRole};
use cube_api::pod::{Container, PodSpec, Strategy};
use cube_api::quantity::{Bytes, MilliCpu};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::strategy::Strategy as _;

use super::*;
use crate::leader::store::{NodeLoad, Reserved};
use cube_api::pod::HostPort;

const MI: u64 = 1 << 20;

fn name(text: &str) -> Name {
    Name::new(text).expect("a label")
}

/// A node with 100 GiB of disk.
fn node(text: &str, ready: bool, cpu: u64, mebibytes: u64, pods: u32) -> Node {
    let allocatable = Capacity { cpu: MilliCpu(cpu), memory: Bytes(mebibytes * MI), disk: Bytes(102_400 * MI), pods };
    Node {
        name: name(text),
        node_id: NodeId(uuid::Uuid::nil()),
        role: NodeRole::Follower,
        labels: Labels::new(),
        label_changes: Default::default(),
        capacity: Capacity::default(),
        allocatable,
        usage: None,
        cordon: None,
        version: String::new(),
        engine: String::new(),
        address: None,
        created_at: Timestamp::UNIX_EPOCH,
        seen_at: Timestamp::UNIX_EPOCH,
        condition: if ready { NodeCondition::Ready } else { NodeCondition::NotReady { reason: "silent".to_owned() } },
        pods: 0,
        reserved_cpu: MilliCpu::default(),
        reserved_memory: Bytes::default(),
        reserved_disk: Bytes::default(),
        revision: Revision::default(),
    }
}

fn candidates(nodes: &[Node]) -> Vec<Candidate<'_>> {
    nodes.iter().map(|node| Candidate::new(node, None)).collect()
}

fn spec(cpu: u64, mebibytes: u64, host_port: Option<u16>) -> PodSpec {
    let ports = host_port.map_or(serde_json::json!([]), |port| serde_json::json!([{"containerPort": 80, "hostPort": port}]));
    let requests = serde_json::json!({"cpu": format!("{cpu}m"), "memory": format!("{mebibytes}Mi")});
    let container = serde_json::json!({"name": "c", "image": "i", "resources": {"requests": requests}, "ports": ports});
    let container: Container = serde_json::from_value(container).expect("a container");
    let empty: PodSpec = serde_json::from_value(serde_json::json!({"containers": []})).expect("a spec");
    PodSpec { containers: vec![container], ..empty }
}

fn unplaced<'a>(number: usize, name: &'a Name, spec: &'a PodSpec) -> Unplaced<'a> {
    Unplaced { uid: Uid(uuid::Uuid::from_u128(number as u128)), name, spec, waiting_for: None, avoids: &[], predecessor: None }
}

fn decide(specs: &[PodSpec], nodes: &[Node]) -> Vec<Placing> {
    decide_by(Strategy::Spread, specs, nodes)
}

fn decide_by(strategy: Strategy, specs: &[PodSpec], nodes: &[Node]) -> Vec<Placing> {
    let name = name("web");
    let pods: Vec<_> = specs.iter().enumerate().map(|(index, spec)| unplaced(index, &name, spec)).collect();
    schedule(&pods, candidates(nodes), Rules { strategy, last_turn: None }).placings
}

/// Where each of them is bound; nothing for one that waits.
fn places(placings: &[Placing]) -> Vec<&str> {
    fn place(placing: &Placing) -> &str {
        match placing {
            Placing::Bind { node, .. } => node.as_str(),
            Placing::Wait { .. } | Placing::Hold { .. } => "",
        }
    }
    placings.iter().map(place).collect()
}

fn reason(placing: &Placing) -> &str {
    match placing {
        Placing::Bind { reason, .. } | Placing::Wait { reason, .. } | Placing::Hold { reason, .. } => reason,
    }
}

#[test]
fn the_reason_for_waiting_counts_the_nodes_by_cause() {
    let nodes = [node("a", true, 4_000, 256, 10), node("b", false, 4_000, 256, 10), node("c", true, 4_000, 256, 10)];
    let placings = decide(&[spec(100, 512, None)], &nodes);
    assert_eq!(reason(&placings[0]), "0/3 nodes fit: 2 lack memory (need 512Mi), 1 is not ready");
    assert_eq!(reason(&decide(&[spec(0, 0, None)], &[])[0]), "no node has joined yet");
}

#[test]
fn a_cordoned_node_and_one_without_the_disk_space_are_counted_too() {
    let cordoned =
        Node { cordon: Some(Cordon { since: Timestamp::UNIX_EPOCH, reason: None, drain: None }), ..node("a", true, 4_000, 256, 10) };
    let nodes = [cordoned, node("b", true, 4_000, 256, 10), node("c", true, 4_000, 256, 10)];
    let mut large = spec(100, 64, None);
    large.containers[0].resources.requests.disk = Some(Bytes(102_401 * MI));
    assert_eq!(reason(&decide(&[large], &nodes)[0]), "0/3 nodes fit: 2 lack disk (need 102401Mi), 1 is cordoned");
    assert_eq!(reason(&decide(&[spec(100, 64, None)], &nodes)[0]), "least loaded of 2 that fit (spread)");
}

#[test]
fn pods_spread_over_the_nodes_that_fit() {
    let nodes = [node("a", true, 4_000, 1_024, 10), node("b", true, 4_000, 1_024, 10), node("c", false, 4_000, 1_024, 10)];
    let placings = decide(&[spec(0, 0, None), spec(0, 0, None), spec(0, 0, None)], &nodes);
    assert_eq!(places(&placings), ["a", "b", "a"]);
    assert_eq!(reason(&placings[0]), "least loaded of 2 that fit (spread)");
}

/// The shares of the nodes of the next tests, by what is reserved there: a has a half, b a quarter, c nothing.
fn half_quarter_none() -> ([Node; 3], [NodeLoad; 3]) {
    let load = |pods, cpu, mebibytes| NodeLoad {
        unfinished: pods,
        reserved: Reserved { cpu: MilliCpu(cpu), memory: Bytes(mebibytes * MI), disk: Bytes(0) },
        ..NodeLoad::default()
    };
    let nodes = ["a", "b", "c"].map(|name| node(name, true, 4_000, 1_024, 10));
    (nodes, [load(2, 2_000, 512), load(1, 1_000, 256), load(0, 0, 0)])
}

fn decide_loaded(strategy: Strategy, specs: &[PodSpec], nodes: &[Node], loads: &[NodeLoad]) -> Vec<Placing> {
    let name = name("web");
    let pods: Vec<_> = specs.iter().enumerate().map(|(index, spec)| unplaced(index, &name, spec)).collect();
    let nodes = nodes.iter().zip(loads).map(|(node, load)| Candidate::new(node, Some(load))).collect();
    schedule(&pods, nodes, Rules { strategy, last_turn: None }).placings
}

#[test]
fn binpack_fills_the_fullest_node_that_fits_before_the_next() {
    let (nodes, loads) = half_quarter_none();
    let placings = decide_loaded(Strategy::Binpack, &vec![spec(1_000, 256, None); 6], &nodes, &loads);
    assert_eq!(places(&placings), ["a", "a", "b", "b", "b", "c"]);
    assert_eq!(reason(&placings[0]), "fullest of 3 that fit (binpack)");
    assert_eq!(reason(&placings[2]), "fullest of 2 that fit (binpack)");
    assert_eq!(reason(&placings[5]), "the only one that fits");
    // What reserves nothing is packed by the number of pods.
    assert_eq!(places(&decide_by(Strategy::Binpack, &vec![spec(0, 0, None); 3], &nodes)), ["a", "a", "a"]);
}

#[test]
fn round_robin_goes_on_with_the_node_after_the_last_over_passes_and_by_its_own_pods_only() {
    let nodes = ["a", "b", "c"].map(|name| node(name, true, 4_000, 1_024, 10));
    let web = name("web");
    let (turns, spread) = (PodSpec { strategy: Some(Strategy::RoundRobin), ..spec(0, 0, None) }, spec(0, 0, None));
    let pods: Vec<_> = [&turns, &spread, &turns].iter().enumerate().map(|(index, spec)| unplaced(index, &web, spec)).collect();
    let Decided { placings, last_turn } = schedule(&pods, candidates(&nodes), Rules::default());
    assert_eq!(places(&placings), ["a", "b", "b"]);
    assert_eq!(reason(&placings[2]), "next of 3 that fit (round-robin)");
    // The next pass; it is the same if that node is gone by then.
    for nodes in [&nodes[..], &[nodes[0].clone(), nodes[2].clone()]] {
        let rules = Rules { last_turn: last_turn.as_ref(), ..Rules::default() };
        let decided = schedule(&[pods[0], pods[2]], candidates(nodes), rules);
        assert_eq!((places(&decided.placings), decided.last_turn), (vec!["c", "a"], Some(name("a"))));
    }
    // A pass without such a pod leaves the turn as it is.
    let rules = Rules { last_turn: last_turn.as_ref(), ..Rules::default() };
    assert_eq!(schedule(&[pods[1]], candidates(&nodes), rules).last_turn, last_turn);
}

#[test]
fn epvm_takes_the_node_whose_cost_rises_least() {
    let (nodes, loads) = half_quarter_none();
    let placings = decide_loaded(Strategy::Epvm, &vec![spec(1_000, 256, None); 3], &nodes, &loads);
    assert_eq!(places(&placings), ["c", "b", "c"]);
    assert_eq!(reason(&placings[0]), "cheapest of 3 that fit (epvm)");
    // A large node with more pods is cheaper than a small one with fewer: shares count, not numbers.
    let nodes = [node("large", true, 40_000, 10_240, 100), node("small", true, 1_000, 256, 10)];
    let load = NodeLoad { unfinished: 5, reserved: Reserved { cpu: MilliCpu(4_000), ..Reserved::default() }, ..NodeLoad::default() };
    let loads = [load, NodeLoad::default()];
    assert_eq!(places(&decide_loaded(Strategy::Epvm, &[spec(500, 128, None)], &nodes, &loads)), ["large"]);
    assert_eq!(places(&decide_loaded(Strategy::Spread, &[spec(500, 128, None)], &nodes, &loads)), ["small"]);
    // The last free part of one thing is dearer than the same part of several that are free: cpu is nearly gone on a, memory and disk are not.
    let nodes = ["a", "b"].map(|name| node(name, true, 4_000, 1_024, 100));
    let reserved = |cpu, mebibytes| Reserved { cpu: MilliCpu(cpu), memory: Bytes(mebibytes * MI), disk: Bytes(0) };
    let loads = [reserved(3_600, 0), reserved(1_800, 460)].map(|reserved| NodeLoad { reserved, ..NodeLoad::default() });
    assert_eq!(places(&decide_loaded(Strategy::Epvm, &[spec(400, 0, None)], &nodes, &loads)), ["b"]);
    // What reserves nothing still takes a place: not all of it goes to the first node.
    assert_eq!(places(&decide_by(Strategy::Epvm, &vec![spec(0, 0, None); 3], &nodes)), ["a", "b", "a"]);
}

#[test]
fn a_pods_own_strategy_goes_before_the_leaders() {
    let (nodes, loads) = half_quarter_none();
    let packed = PodSpec { strategy: Some(Strategy::Binpack), ..spec(100, 64, None) };
    let placings = decide_loaded(Strategy::Spread, &[packed, spec(100, 64, None)], &nodes, &loads);
    assert_eq!(places(&placings), ["a", "c"]);
}

#[test]
fn a_node_where_pods_of_the_name_failed_is_the_last_to_be_chosen_and_the_reason_says_so() {
    let nodes = ["a", "b", "c", "d"].map(|name| node(name, true, 4_000, 1_024, 10));
    let (web, spec) = (name("web"), spec(0, 0, None));
    let place = |nodes: &[Node], strategy, avoids: &[Name]| {
        let pod = Unplaced { avoids, ..unplaced(1, &web, &spec) };
        let placings = schedule(&[pod], candidates(nodes), Rules { strategy, last_turn: None }).placings;
        (places(&placings)[0].to_owned(), reason(&placings[0]).to_owned())
    };
    let told = |node: &str, reason: &str| (node.to_owned(), reason.to_owned());
    let [a, b, gone] = ["a", "b", "gone"].map(name);
    for (strategy, word) in
        [(Strategy::Spread, "least loaded"), (Strategy::Binpack, "fullest"), (Strategy::RoundRobin, "next"), (Strategy::Epvm, "cheapest")]
    {
        let expected = told("b", &format!("{word} of 3 that fit ({strategy}); a was avoided: it failed there"));
        assert_eq!(place(&nodes, strategy, &[gone.clone(), a.clone()]), expected);
        let expected = told("c", &format!("{word} of 2 that fit ({strategy}); a, b were avoided: it failed there"));
        assert_eq!(place(&nodes, strategy, &[b.clone(), a.clone()]), expected);
        let expected = told("a", &format!("{word} of 2 that fit ({strategy}), though it failed there before"));
        assert_eq!(place(&nodes[..2], strategy, &[b.clone(), a.clone()]), expected);
    }
    let place = |nodes: &[Node], avoids: &[Name]| place(nodes, Strategy::Spread, avoids);
    assert_eq!(place(&nodes[..2], std::slice::from_ref(&a)), told("b", "the only other one that fits; a was avoided: it failed there"));
    assert_eq!(place(&nodes[..1], std::slice::from_ref(&a)), told("a", "the only one that fits, though it failed there before"));
    assert_eq!(place(&nodes[..2], std::slice::from_ref(&gone)), told("a", "least loaded of 2 that fit (spread)"));
}

#[test]
fn a_port_that_a_pod_of_another_group_took_in_the_same_pass_is_taken() {
    let nodes = ["a", "b"].map(|name| node(name, true, 4_000, 1_024, 10));
    let held = NodeLoad { host_ports: [(HostPort { port: 80, protocol: Default::default(), ip: None }, 1)].into(), ..NodeLoad::default() };
    let specs = [spec(0, 0, Some(80)), spec(100, 0, Some(80)), spec(0, 0, Some(81)), spec(100, 0, Some(80))];
    let placings = decide_loaded(Strategy::Spread, &specs, &nodes, &[held, NodeLoad::default()]);
    assert_eq!(places(&placings), ["b", "", "a", ""]);
    assert_eq!(reason(&placings[3]), "0/2 nodes fit: 2 have a taken host port (need 80)");
    // And where the other group was looked at before: its second pod knows of what was taken since its first.
    let placings = decide(&[spec(100, 0, Some(80)), spec(0, 0, Some(80)), spec(100, 0, Some(80))], &nodes);
    assert_eq!(places(&placings), ["a", "b", ""]);
}

#[test]
fn a_selector_is_kept() {
    let mut nodes = [node("a", true, 4_000, 1_024, 10), node("b", true, 4_000, 1_024, 10)];
    let mut wants = spec(0, 0, None);
    wants.node_selector.insert("disk".to_owned(), "ssd".to_owned());
    assert_eq!(reason(&decide(std::slice::from_ref(&wants), &nodes)[0]), "0/2 nodes fit: 2 lack the labels disk=ssd");
    nodes[1].labels.insert("disk".to_owned(), "ssd".to_owned());
    assert_eq!(reason(&decide(&[wants], &nodes)[0]), "the only one that fits");
}

#[test]
fn a_pod_waits_for_its_predecessor_and_says_so_once() {
    let nodes = [node("a", true, 4_000, 1_024, 10)];
    let (web, n1, spec) = (name("web"), name("n1"), spec(0, 0, None));
    let predecessor = Some(Predecessor { uid: Uid(uuid::Uuid::from_u128(7)), node: &n1, on_lost_node: false });
    let pod = Unplaced { predecessor, ..unplaced(8, &web, &spec) };
    let placings = schedule(&[pod], candidates(&nodes), Rules::default()).placings;
    let said = reason(&placings[0]);
    assert!(
        matches!(placings[0], Placing::Hold { .. }) && said.starts_with("waiting for the previous pod/web (") && said.ends_with("to stop")
    );
    assert_eq!(schedule(&[Unplaced { waiting_for: Some(said), ..pod }], candidates(&nodes), Rules::default()), Decided::default());
}

#[test]
fn host_ports_of_one_number_collide_unless_protocol_or_address_differ() {
    let port = |ip: Option<&str>, protocol| HostPort { port: 80, protocol, ip: ip.map(|ip| ip.parse().expect("an address")) };
    let (tcp, udp) = (cube_api::pod::Protocol::Tcp, cube_api::pod::Protocol::Udp);
    assert!(port(None, tcp).collides(&port(Some("10.0.0.1"), tcp)));
    assert!(!port(None, tcp).collides(&port(None, udp)));
    assert!(!port(Some("10.0.0.2"), tcp).collides(&port(Some("10.0.0.1"), tcp)));
}

fn any_node() -> impl prop::strategy::Strategy<Value = (bool, u64, u64, u32)> {
    (any::<bool>(), 0..4_000u64, 0..2_048u64, 0..5u32)
}

fn any_spec() -> impl prop::strategy::Strategy<Value = PodSpec> {
    (0..2_000u64, 0..1_024u64, prop::option::of(8_000..8_004u16)).prop_map(|(cpu, memory, port)| spec(cpu, memory, port))
}

proptest! {
    #[test]
    fn no_node_is_given_more_than_it_has_and_no_host_port_twice(
        nodes in prop::collection::vec(any_node(), 0..6),
        specs in prop::collection::vec(any_spec(), 0..20),
    ) {
        let nodes: Vec<_> = nodes.into_iter().enumerate().map(|(i, (ready, cpu, memory, pods))| node(&format!("n{i}"), ready, cpu, memory, pods)).collect();
        let placings = decide(&specs, &nodes);
        prop_assert_eq!(placings.len(), specs.len(), "every pod is told something");
        for node in &nodes {
            let here: Vec<_> = placings.iter().zip(&specs).filter(|(placing, _)| matches!(placing, Placing::Bind { node: at, .. } if *at == node.name)).map(|(_, spec)| spec).collect();
            prop_assert!(node.condition.is_ready() || here.is_empty());
            prop_assert!(here.len() <= node.allocatable.pods as usize);
            prop_assert!(here.iter().map(|spec| Reserved::of(spec).cpu.0).sum::<u64>() <= node.allocatable.cpu.0);
            prop_assert!(here.iter().map(|spec| Reserved::of(spec).memory.0).sum::<u64>() <= node.allocatable.memory.0);
            let ports: Vec<_> = here.iter().flat_map(|spec| HostPort::of(spec)).collect();
            prop_assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
        }
        prop_assert_eq!(decide(&specs, &nodes), placings, "the same input gives the same output");
    }

    #[test]
    fn a_pod_waits_only_where_no_node_would_take_it(nodes in prop::collection::vec(any_node(), 0..6), spec in any_spec()) {
        let nodes: Vec<_> = nodes.into_iter().enumerate().map(|(i, (ready, cpu, memory, pods))| node(&format!("n{i}"), ready, cpu, memory, pods)).collect();
        let need = Need::of(&spec, cube_api::pod::Strategy::default());
        let mut board = Board::new(candidates(&nodes), [&need].into_iter());
        let fits = Ranking::new(&mut board, &need).fitting() > 0;
        let waits = matches!(decide(&[spec], &nodes)[0], Placing::Wait { .. });
        prop_assert_eq!(waits, !fits);
    }
}

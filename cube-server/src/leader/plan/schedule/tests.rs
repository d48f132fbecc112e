//! What the scheduler promises, in words and by any input.

use cube_api::meta::{NodeId, Revision};
use cube_api::node::{Cordon, NodeCondition, NodeRole};
use cube_api::pod::{Container, PodSpec};
use cube_api::quantity::{Bytes, MilliCpu};
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

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

fn decide(specs: &[PodSpec], nodes: &[Node]) -> Vec<Placing> {
    let name = name("web");
    let unplaced = |(index, spec)| Unplaced {
        uid: Uid(uuid::Uuid::from_u128(index as u128)),
        name: &name,
        spec,
        waiting_for: None,
        predecessor: None,
    };
    let pods: Vec<_> = specs.iter().enumerate().map(unplaced).collect();
    schedule(&pods, candidates(nodes))
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
    assert_eq!(reason(&decide(&[spec(100, 64, None)], &nodes)[0]), "least loaded of 2 that fit");
}

#[test]
fn pods_spread_over_the_nodes_that_fit() {
    let nodes = [node("a", true, 4_000, 1_024, 10), node("b", true, 4_000, 1_024, 10), node("c", false, 4_000, 1_024, 10)];
    let placings = decide(&[spec(0, 0, None), spec(0, 0, None), spec(0, 0, None)], &nodes);
    let names: Vec<_> = placings
        .iter()
        .map(|placing| match placing {
            Placing::Bind { node, .. } => node.as_str(),
            Placing::Wait { .. } | Placing::Hold { .. } => "",
        })
        .collect();
    assert_eq!(names, ["a", "b", "a"]);
    assert_eq!(reason(&placings[0]), "least loaded of 2 that fit");
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
    let pod = Unplaced { uid: Uid(uuid::Uuid::from_u128(8)), name: &web, spec: &spec, waiting_for: None, predecessor };
    let placings = schedule(&[pod], candidates(&nodes));
    let said = reason(&placings[0]);
    assert!(
        matches!(placings[0], Placing::Hold { .. }) && said.starts_with("waiting for the previous pod/web (") && said.ends_with("to stop")
    );
    assert_eq!(schedule(&[Unplaced { waiting_for: Some(said), ..pod }], candidates(&nodes)), []);
}

#[test]
fn host_ports_of_one_number_collide_unless_protocol_or_address_differ() {
    let port = |ip: Option<&str>, protocol| HostPort { port: 80, protocol, ip: ip.map(|ip| ip.parse().expect("an address")) };
    let (tcp, udp) = (cube_api::pod::Protocol::Tcp, cube_api::pod::Protocol::Udp);
    assert!(port(None, tcp).collides(&port(Some("10.0.0.1"), tcp)));
    assert!(!port(None, tcp).collides(&port(None, udp)));
    assert!(!port(Some("10.0.0.2"), tcp).collides(&port(Some("10.0.0.1"), tcp)));
}

fn any_node() -> impl Strategy<Value = (bool, u64, u64, u32)> {
    (any::<bool>(), 0..4_000u64, 0..2_048u64, 0..5u32)
}

fn any_spec() -> impl Strategy<Value = PodSpec> {
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
        let fits = candidates(&nodes).iter().any(|node| node.refuses(&Need::of(&spec)).is_none());
        let waits = matches!(decide(&[spec], &nodes)[0], Placing::Wait { .. });
        prop_assert_eq!(waits, !fits);
    }
}

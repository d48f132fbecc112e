use cube_api::meta::{Labels, NodeId, Revision};
use cube_api::node::{Capacity, Cordon, Node, NodeCondition, NodeRole};
use cube_api::quantity::{Bytes, MilliCpu};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::leader::store::{NodeLoad, Reserved, Retired};

fn name(text: &str) -> Name {
    Name::new(text).expect("a label")
}

/// A node with so much cpu.
fn node(text: &str, cpu: u64, cordoned: bool) -> Node {
    let allocatable = Capacity { cpu: MilliCpu(cpu), memory: Bytes(1 << 30), disk: Bytes(1 << 30), pods: 1_000 };
    Node {
        name: name(text),
        node_id: NodeId(Uuid::nil()),
        role: NodeRole::Follower,
        labels: Labels::new(),
        label_changes: Default::default(),
        capacity: allocatable,
        allocatable,
        allows: Default::default(),
        usage: None,
        cordon: cordoned.then_some(Cordon { since: Timestamp::UNIX_EPOCH, reason: None, drain: None }),
        version: String::new(),
        engine: String::new(),
        address: None,
        host_paths: Vec::new(),
        created_at: Timestamp::UNIX_EPOCH,
        seen_at: Timestamp::UNIX_EPOCH,
        condition: NodeCondition::Ready,
        pods: 0,
        reserved_cpu: MilliCpu::default(),
        reserved_memory: Bytes::default(),
        reserved_disk: Bytes::default(),
        revision: Revision::default(),
    }
}

/// A pod on `n1` that asks for so much cpu and has 20 s to stop.
fn row(number: u128, cpu: u64, policy: &str) -> PodRow {
    let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": format!("{cpu}m")}}});
    let pod = json!({
        "metadata": {"name": format!("p{number}"), "uid": Uuid::from_u128(number), "generation": 1, "revision": 1, "createdAt": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [container], "restartPolicy": policy, "terminationGracePeriodSeconds": 20},
        "placement": {"node": "n1"},
    });
    PodRow { pod: serde_json::from_value(pod).expect("a pod"), restarts: 0, retired: None }
}

fn rows(count: u128, cpu: u64) -> Vec<Arc<PodRow>> {
    (1..=count).map(|number| Arc::new(row(number, cpu, "Always"))).collect()
}

fn retired(row: PodRow, grace_seconds: u32) -> PodRow {
    PodRow { retired: Some(Retired { reason: "r".to_owned(), grace_seconds, replaced: true }), ..row }
}

static PLAIN: Drain = Drain { since: Timestamp::UNIX_EPOCH, grace_seconds: None, force: false, left: Vec::new(), finished_at: None };
/// Pods that their deployment moves.
static NONE: BTreeMap<Uid, String> = BTreeMap::new();
static FORCED: Drain = Drain { since: Timestamp::UNIX_EPOCH, grace_seconds: None, force: true, left: Vec::new(), finished_at: None };

/// What becomes of the pods of `n1`, with these others and the pods that wait already.
fn steps(drain: &Drain, pods: &[Arc<PodRow>], others: &[Node], first: &[PodRow]) -> Vec<DrainStep> {
    let n1 = node("n1", 4_000, true);
    let nodes = [&n1].into_iter().chain(others).map(|node| Candidate::new(node, None)).collect();
    let elsewhere = Elsewhere { first: first.iter().map(asked).collect(), nodes, strategy: Default::default(), fenced: false };
    let passes = passes(&[Draining { node: &n1.name, drain, connected: true, pods, moved: &NONE }], elsewhere);
    let [pass] = passes.as_slice() else { panic!("one node is drained: {passes:?}") };
    assert_eq!((&pass.node, pass.left.len()), (&n1.name, pods.len()));
    pass.left.iter().map(|pod| pod.step.clone()).collect()
}

fn stopping(grace_seconds: u32) -> DrainStep {
    DrainStep::Stopping { grace_seconds }
}

fn stays(reason: &str) -> DrainStep {
    DrainStep::Stays { reason: reason.to_owned() }
}

#[test]
fn a_pod_is_stopped_with_its_own_grace_or_the_drains_if_that_is_shorter() {
    let others = [node("n2", 1_000, false)];
    let grace = |grace_seconds| Drain { grace_seconds, ..PLAIN.clone() };
    let pods = [Arc::new(row(1, 100, "Always")), Arc::new(retired(row(2, 100, "OnFailure"), 7))];
    assert_eq!(steps(&grace(None), &pods, &others, &[]), [stopping(20), stopping(7)]);
    assert_eq!(steps(&grace(Some(60)), &pods, &others, &[]), [stopping(20), stopping(7)]);
    assert_eq!(steps(&grace(Some(0)), &pods, &others, &[]), [stopping(0), stopping(0)]);
}

#[test]
fn what_no_other_node_takes_stays_and_says_why_and_what_fits_goes() {
    let others = [node("n2", 500, false), node("n3", 100, false)];
    let pods = [Arc::new(row(1, 600, "Always")), Arc::new(row(2, 500, "Always")), Arc::new(row(3, 200, "Always"))];
    let full = "no other node takes it: 0/3 nodes fit: 2 lack cpu (need 600m), 1 is cordoned";
    let taken = "no other node takes it: 0/3 nodes fit: 2 lack cpu (need 200m), 1 is cordoned";
    assert_eq!(steps(&PLAIN, &pods, &others, &[]), [stays(full), stopping(20), stays(taken)]);
    assert_eq!(steps(&FORCED, &pods, &others, &[]), [stopping(20), stopping(20), stopping(20)]);
    let alone = "no other node takes it: 0/1 nodes fit: 1 is cordoned";
    assert_eq!(steps(&PLAIN, &pods[..1], &[], &[]), [stays(alone)]);
}

#[test]
fn room_that_those_who_wait_already_will_take_is_not_counted_on() {
    let others = [node("n2", 500, false)];
    let pods = [Arc::new(row(1, 300, "Always"))];
    assert_eq!(steps(&PLAIN, &pods, &others, &[row(9, 200, "Always")]), [stopping(20)]);
    let reason = "no other node takes it: 0/2 nodes fit: 1 is cordoned, 1 lacks cpu (need 300m)";
    assert_eq!(steps(&PLAIN, &pods, &others, &[row(9, 300, "Always")]), [stays(reason)]);
}

#[test]
fn what_would_not_be_run_again_is_waited_for_unless_the_drain_has_force() {
    let others = [node("n2", 500, false)];
    let pods = [Arc::new(row(1, 100, "Never"))];
    assert_eq!(steps(&PLAIN, &pods, &others, &[]), [stays("restartPolicy Never: it would not be run again, so its end is waited for")]);
    assert_eq!(steps(&FORCED, &pods, &[], &[]), [stopping(20)]);
}

#[test]
fn nothing_is_stopped_on_a_node_that_nobody_can_reach_not_even_by_force() {
    let (n1, n2) = (node("n1", 4_000, true), node("n2", 4_000, false));
    let pods = [Arc::new(row(1, 100, "Always")), Arc::new(retired(row(2, 100, "Always"), 7))];
    let elsewhere = Elsewhere { first: Vec::new(), nodes: vec![Candidate::new(&n2, None)], strategy: Default::default(), fenced: false };
    let passes = passes(&[Draining { node: &n1.name, drain: &FORCED, connected: false, pods: &pods, moved: &NONE }], elsewhere);
    assert!(passes[0].left.iter().all(|pod| pod.step.reason().is_some_and(|reason| reason.starts_with("node n1 isn't connected"))));
}

#[test]
fn a_restored_leader_that_places_nothing_stops_nothing() {
    let (n1, n2) = (node("n1", 4_000, true), node("n2", 4_000, false));
    let pods = rows(1, 100);
    let pass = |drain| {
        let elsewhere = Elsewhere { first: Vec::new(), nodes: vec![Candidate::new(&n2, None)], strategy: Default::default(), fenced: true };
        passes(&[Draining { node: &n1.name, drain, connected: true, pods: &pods, moved: &NONE }], elsewhere).remove(0).left.remove(0).step
    };
    assert_eq!(pass(&PLAIN), stays("the leader was restored from a backup and places nothing yet"));
    assert_eq!(pass(&FORCED), stopping(20));
}

#[test]
fn so_many_stop_at_a_time_and_the_others_wait_for_their_turn_in_order() {
    let others = [node("n2", 100_000, false)];
    let mut pods = rows(20, 100);
    pods[19] = Arc::new(retired(row(20, 100, "Always"), 20));
    let now = steps(&PLAIN, &pods, &others, &[]);
    assert!(now[..AT_ONCE - 1].iter().all(|step| *step == stopping(20)), "{now:?}");
    assert_eq!(now[AT_ONCE - 1..19], vec![DrainStep::Queued; 19 - (AT_ONCE - 1)]);
    assert_eq!(now[19], stopping(20));
}

#[test]
fn pods_of_two_drained_nodes_are_not_promised_the_same_room() {
    let nodes = [node("n1", 4_000, true), node("n2", 4_000, true), node("n3", 500, false)];
    let pods: Vec<_> = (1..=2).map(|number| [Arc::new(row(number, 400, "Always"))]).collect();
    let draining: Vec<_> = pods
        .iter()
        .zip(&nodes)
        .map(|(pods, node)| Draining { node: &node.name, drain: &PLAIN, connected: true, pods, moved: &NONE })
        .collect();
    let candidates = nodes.iter().map(|node| Candidate::new(node, None)).collect();
    let passes = passes(&draining, Elsewhere { first: Vec::new(), nodes: candidates, strategy: Default::default(), fenced: false });
    assert_eq!(passes[0].left[0].step, stopping(20));
    assert!(passes[1].left[0].step.reason().is_some(), "{passes:?}");
}

proptest! {
    /// Whatever a node has: what is stopped without force fits elsewhere, all of it together, beside those that wait already.
    #[test]
    fn all_that_is_stopped_without_force_fits_elsewhere(
        asks in proptest::collection::vec((0_u64..600, any::<bool>()), 0..40),
        waiting in proptest::collection::vec(0_u64..600, 0..5),
        room in proptest::collection::vec((0_u64..2_000, 0_u64..2_000), 0..4),
    ) {
        let policy = |never: bool| if never { "Never" } else { "Always" };
        let pods: Vec<_> = asks.iter().enumerate().map(|(index, (cpu, never))| Arc::new(row(index as u128, *cpu, policy(*never)))).collect();
        let first: Vec<_> = waiting.iter().enumerate().map(|(index, cpu)| row(1_000 + index as u128, *cpu, "Always")).collect();
        let n1 = node("n1", 4_000, true);
        let others: Vec<_> = room.iter().enumerate().map(|(index, (all, _))| node(&format!("n{}", index + 2), *all, false)).collect();
        let load = |used: u64| NodeLoad { reserved: Reserved { cpu: MilliCpu(used), ..Reserved::default() }, ..NodeLoad::default() };
        let loads: Vec<_> = room.iter().map(|(_, used)| load(*used)).collect();
        let candidates = || -> Vec<_> { others.iter().zip(&loads).map(|(node, load)| Candidate::new(node, Some(load))).collect() };
        let elsewhere = Elsewhere { first: first.iter().map(asked).collect(), nodes: candidates(), strategy: Default::default(), fenced: false };
        let pass = passes(&[Draining { node: &n1.name, drain: &PLAIN, connected: true, pods: &pods, moved: &NONE }], elsewhere).remove(0);
        let stopped = |row: &&Arc<PodRow>| pass.left.iter().any(|pod| pod.uid == row.pod.metadata.uid && pod.step.grace_seconds().is_some());
        let stopped: Vec<_> = pods.iter().filter(stopped).collect();
        prop_assert!(stopped.len() <= AT_ONCE);
        prop_assert!(stopped.iter().all(|row| is_run_again(row)));
        let all = unfit(&first.iter().map(asked).collect::<Vec<_>>(), &stopped.iter().map(|row| asked(row)).collect::<Vec<_>>(), candidates(), Default::default());
        prop_assert!(all.values().all(Option::is_none), "{all:?}");
    }
}

#[test]
fn what_its_deployment_takes_away_is_left_to_it_unless_by_force() {
    let (n1, pods) = (node("n1", 4_000, true), rows(2, 100));
    let moved = BTreeMap::from([(pods[0].pod.metadata.uid, "deployment/web takes it away later".to_owned())]);
    let n2 = node("n2", 4_000, false);
    let left = DrainStep::Stays { reason: "deployment/web takes it away later".to_owned() };
    for (drain, expected) in [(&PLAIN, left), (&FORCED, stopping(20))] {
        let nodes = [&n1, &n2].into_iter().map(|node| Candidate::new(node, None)).collect();
        let elsewhere = Elsewhere { first: Vec::new(), nodes, strategy: Default::default(), fenced: false };
        let pass = passes(&[Draining { node: &n1.name, drain, connected: true, pods: &pods, moved: &moved }], elsewhere).remove(0);
        assert_eq!(pass.left.iter().map(|pod| &pod.step).collect::<Vec<_>>(), [&expected, &stopping(20)]);
    }
}

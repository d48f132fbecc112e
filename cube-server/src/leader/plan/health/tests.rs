//! Who is ready and who is lost, in words and by any input.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits =
    Limits { not_ready_after: Duration::from_secs(10), lost_after: Some(Duration::from_secs(30)), start_grace: Duration::from_secs(60) };

/// Long after the leader's start.
const LATER: u64 = 1_000;

const SILENT: &str = "no session for more than 10s";

fn not_ready(reason: &str) -> NodeCondition {
    NodeCondition::NotReady { reason: reason.to_owned() }
}

fn lost() -> NodeCondition {
    NodeCondition::Lost { reason: "no session for more than 30s: its pods are replaced elsewhere".to_owned() }
}

/// A node of a test.
#[derive(Debug, Clone)]
struct TestNode {
    name: Name,
    condition: NodeCondition,
    /// None: connected.
    silent: Option<u64>,
}

/// Nodes `n0`, `n1`...: each connected (none) or silent for so many seconds.
fn nodes(silences: &[Option<u64>]) -> Vec<TestNode> {
    let node = |(index, silent): (usize, &Option<u64>)| {
        let condition = if silent.is_some_and(|silent| silent >= 10) { not_ready(SILENT) } else { NodeCondition::Ready };
        TestNode { name: Name::new(format!("n{index}")).expect("a label"), condition, silent: *silent }
    };
    silences.iter().enumerate().map(node).collect()
}

fn decide(nodes: &[TestNode], running: u64, limits: &Limits) -> Vec<(Name, NodeCondition)> {
    let seen = |node: &'_ TestNode| (node.silent.is_none(), Duration::from_secs(node.silent.unwrap_or(0)));
    let seen: Vec<_> = nodes
        .iter()
        .map(|node| {
            let (connected, silent) = seen(node);
            Seen { name: &node.name, condition: &node.condition, trouble: None, connected, silent }
        })
        .collect();
    conditions(&seen, Duration::from_secs(running), limits)
}

/// The places of those that are newly lost.
fn newly_lost(nodes: &[TestNode], running: u64) -> Vec<usize> {
    let changed = decide(nodes, running, &LIMITS);
    let is_lost = |node: &TestNode| changed.iter().any(|(name, condition)| *name == node.name && condition.is_lost());
    (0..nodes.len()).filter(|&index| is_lost(&nodes[index])).collect()
}

/// What becomes of a node that has been silent for so long, beside one that is connected.
fn becomes(condition: &NodeCondition, trouble: Option<&str>, connected: bool, silent: u64) -> Option<NodeCondition> {
    let (name, other) = (Name::new("n1").expect("a label"), Name::new("n0").expect("a label"));
    let silent = Duration::from_secs(silent);
    let seen = Seen { name: &name, condition, trouble, connected, silent };
    let beside = Seen { name: &other, condition: &NodeCondition::Ready, trouble: None, connected: true, silent: Duration::ZERO };
    conditions(&[beside, seen], Duration::from_secs(LATER), &LIMITS).pop().map(|(_, condition)| condition)
}

#[test]
fn a_node_that_is_silent_for_the_limit_is_not_ready_and_not_before() {
    assert_eq!(becomes(&NodeCondition::Ready, None, false, 9), None);
    assert_eq!(becomes(&NodeCondition::Ready, None, false, 10), Some(not_ready(SILENT)));
}

#[test]
fn a_node_that_is_silent_for_longer_is_lost_and_not_before() {
    assert_eq!(becomes(&not_ready(SILENT), None, false, 29), None);
    assert_eq!(becomes(&not_ready(SILENT), None, false, 30), Some(lost()));
}

#[test]
fn a_silence_is_noted_once() {
    assert_eq!(becomes(&not_ready(SILENT), None, false, 20), None);
    assert_eq!(becomes(&lost(), None, false, 500), None);
}

#[test]
fn a_node_is_ready_again_with_a_session_and_without_trouble() {
    for silent in [not_ready(SILENT), lost()] {
        assert_eq!(becomes(&silent, None, true, 0), Some(NodeCondition::Ready));
        assert_eq!(becomes(&silent, Some("docker doesn't answer"), true, 0), Some(not_ready("docker doesn't answer")));
    }
    assert_eq!(becomes(&not_ready("docker doesn't answer"), None, true, 0), Some(NodeCondition::Ready));
}

#[test]
fn a_node_without_a_session_is_not_ready_again_because_its_trouble_is_over() {
    assert_eq!(becomes(&not_ready("docker doesn't answer"), None, false, 5), None);
}

#[test]
fn a_lost_node_stays_lost_whatever_it_said_before_it_fell_silent() {
    assert_eq!(becomes(&lost(), Some("docker doesn't answer"), false, 0), None);
}

#[test]
fn the_brake_says_what_it_saw_and_what_to_do() {
    let changed = decide(&nodes(&[None, Some(30), Some(25)]), LATER, &LIMITS);
    let reason = "no session for more than 30s; its pods stay, because 2 of 3 nodes fell silent at once: it may be the leader that is cut off \
                  (if this machine is dead: cube delete node/n1 --force)";
    assert_eq!(changed, [(Name::new("n1").expect("a label"), not_ready(reason))]);
}

#[test]
fn nobody_is_lost_while_nobody_is_there_to_take_the_pods() {
    let changed = decide(&nodes(&[Some(40)]), LATER, &LIMITS);
    let reason = "no session for more than 30s; its pods stay, because no node is connected that could take them (if this machine is dead: cube \
                  delete node/n0 --force)";
    assert_eq!(changed, [(Name::new("n0").expect("a label"), not_ready(reason))]);
}

#[test]
fn one_of_two_nodes_is_lost_though_that_is_half_of_them() {
    assert_eq!(newly_lost(&nodes(&[None, Some(30)]), LATER), [1]);
}

#[test]
fn the_brake_is_for_silences_that_began_at_once() {
    assert_eq!(newly_lost(&nodes(&[None, None, Some(60), Some(59), Some(30)]), LATER), [0; 0], "3 of 5 within 30 s");
    assert_eq!(newly_lost(&nodes(&[None, None, Some(61), Some(59), Some(30)]), LATER), [2, 3, 4], "at most 2 of 5 within 30 s");
}

#[test]
fn the_brake_lets_go_when_enough_are_back_or_more_join_and_then_the_others_are_lost() {
    assert_eq!(newly_lost(&nodes(&[None, Some(40), Some(40)]), LATER), [0; 0]);
    assert_eq!(newly_lost(&nodes(&[None, None, Some(40)]), LATER), [2]);
    assert_eq!(newly_lost(&nodes(&[None, Some(40), Some(40), None]), LATER), [1, 2]);
}

#[test]
fn nodes_that_were_lost_before_make_neither_a_majority_nor_its_lack() {
    let mut seven = nodes(&[None, Some(40), Some(40), Some(9_000), Some(9_000), Some(9_000), Some(9_000)]);
    for node in &mut seven[3..] {
        node.condition = lost();
    }
    assert_eq!(newly_lost(&seven, LATER), [0; 0], "2 of the 3 that were there");
}

#[test]
fn nobody_is_lost_where_that_is_switched_off() {
    let limits = Limits { lost_after: None, ..LIMITS };
    assert_eq!(decide(&nodes(&[None, Some(90_000)]), 90_000, &limits), []);
}

fn any_nodes() -> impl Strategy<Value = Vec<TestNode>> {
    let condition = prop_oneof![Just(NodeCondition::Ready), Just(not_ready(SILENT)), Just(lost())];
    prop::collection::vec((prop::option::of(0..100u64), condition), 0..9).prop_map(|all| {
        let mut made = nodes(&all.iter().map(|(silent, _)| *silent).collect::<Vec<_>>());
        made.iter_mut().zip(all).for_each(|(node, (_, condition))| node.condition = condition);
        made
    })
}

proptest! {
    #[test]
    fn no_node_is_lost_before_the_limit_or_while_connected_or_in_the_grace(nodes in any_nodes(), running in 0..200u64) {
        let lost = newly_lost(&nodes, running);
        prop_assert!(running >= 60 || lost.is_empty(), "in the grace");
        for index in lost {
            prop_assert!(nodes[index].silent.is_some_and(|silent| silent >= 30));
            prop_assert!(!nodes[index].condition.is_lost(), "once");
        }
    }

    #[test]
    fn nobody_is_lost_while_55_percent_of_at_least_3_fell_silent_within_30_s(nodes in any_nodes()) {
        let counted: Vec<_> = nodes.iter().filter(|node| node.silent.is_none() || !node.condition.is_lost()).collect();
        // Counted another way: for each node, who fell silent in the 30 s after it.
        let with = |node: &&&TestNode| counted.iter().filter(|other| matches!((other.silent, node.silent), (Some(a), Some(b)) if a <= b && b - a <= 30)).count();
        let largest = counted.iter().map(|node| with(&node)).max().unwrap_or(0);
        let holds = counted.len() >= 3 && 20 * largest >= 11 * counted.len();
        let nobody = nodes.iter().all(|node| node.silent.is_some());
        let due = (0..nodes.len()).filter(|&index| !nodes[index].condition.is_lost() && nodes[index].silent.is_some_and(|silent| silent >= 30));
        let expected: Vec<_> = if holds || nobody { Vec::new() } else { due.collect() };
        prop_assert_eq!(newly_lost(&nodes, LATER), expected, "all who are due, or none");
    }

    #[test]
    fn who_is_lost_now_is_lost_later_too_if_nothing_else_happens(nodes in any_nodes(), seconds in 0..100u64) {
        let mut later = nodes.clone();
        later.iter_mut().for_each(|node| node.silent = node.silent.map(|silent| silent + seconds));
        let (now, then) = (newly_lost(&nodes, LATER), newly_lost(&later, LATER + seconds));
        prop_assert!(now.iter().all(|index| then.contains(index)));
    }

    #[test]
    fn a_node_that_comes_back_never_stops_another_from_being_lost(nodes in any_nodes(), back in any::<prop::sample::Index>()) {
        prop_assume!(!nodes.is_empty());
        let back = back.index(nodes.len());
        let mut healed = nodes.clone();
        healed[back].silent = None;
        // Lost, it did not count; back, it does.
        prop_assume!(!nodes[back].condition.is_lost());
        let (before, after) = (newly_lost(&nodes, LATER), newly_lost(&healed, LATER));
        prop_assert!(before.iter().all(|index| *index == back || after.contains(index)));
    }

    #[test]
    fn what_was_said_is_not_said_again(nodes in any_nodes(), running in 0..200u64) {
        let mut told = nodes.clone();
        let said = decide(&nodes, running, &LIMITS);
        for (name, condition) in said.iter().filter(|(_, condition)| !condition.is_lost()) {
            let node = told.iter_mut().find(|node| node.name == *name).expect("one of them");
            node.condition = condition.clone();
        }
        let again: Vec<_> = decide(&told, running, &LIMITS).into_iter().filter(|(_, condition)| !condition.is_lost()).collect();
        prop_assert_eq!(again, []);
    }
}

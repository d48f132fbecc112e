//! Any order of operations leaves a state that is the same after a restart, and in which the promises about names and nodes hold.

use std::collections::BTreeMap;

use cube_api::node::{DrainStep, LeftPod};
use cube_api::routes::{CordonQuery, DeleteQuery, DrainQuery};
use proptest::prelude::*;

use super::*;
use crate::leader::store::{DrainPass, State};

#[derive(Debug, Clone)]
enum Step {
    Apply { name: usize, image: usize, app: usize, kind: usize },
    Delete { name: usize, force: bool },
    Restart { name: usize },
    Place { node: usize },
    Report { node: usize, sequence: u64, phase: Phase, stopped: bool },
    Join { node: usize, node_id: u128 },
    DeleteNode { node: usize, force: bool },
    LoseNode { node: usize },
    Cordon { node: usize, on: bool },
    Drain { node: usize, force: bool },
    GoOn { node: usize },
    Reopen,
}

fn any_step() -> impl Strategy<Value = Step> {
    let phase = prop::sample::select(vec![Phase::Pending, Phase::Running, Phase::Succeeded, Phase::Failed]);
    prop_oneof![
        4 => (0..3usize, 0..2usize, 0..2usize, 0..3usize).prop_map(|(name, image, app, kind)| Step::Apply { name, image, app, kind }),
        2 => (0..3usize, prop::bool::weighted(0.2)).prop_map(|(name, force)| Step::Delete { name, force }),
        1 => (0..3usize).prop_map(|name| Step::Restart { name }),
        4 => (0..2usize).prop_map(|node| Step::Place { node }),
        4 => (0..2usize, 1..9u64, phase, any::<bool>()).prop_map(|(node, sequence, phase, stopped)| Step::Report { node, sequence, phase, stopped }),
        2 => (0..2usize, 1..4u128).prop_map(|(node, node_id)| Step::Join { node, node_id }),
        1 => (0..2usize, prop::bool::weighted(0.3)).prop_map(|(node, force)| Step::DeleteNode { node, force }),
        2 => (0..2usize).prop_map(|node| Step::LoseNode { node }),
        1 => (0..2usize, any::<bool>()).prop_map(|(node, on)| Step::Cordon { node, on }),
        1 => (0..2usize, any::<bool>()).prop_map(|(node, force)| Step::Drain { node, force }),
        3 => (0..2usize).prop_map(|node| Step::GoOn { node }),
        1 => Just(Step::Reopen),
    ]
}

/// Refusals are part of life here; anything else is a defect.
fn refused_at_most<T>(result: Result<T, StoreError>) {
    if let Err(error) = result {
        assert!(matches!(error, StoreError::Refused(_)), "{error}");
    }
}

async fn take(leader: Leader, step: &Step) -> Leader {
    let (pods, nodes) = (["a", "b", "c"], ["n1", "n2"]);
    match *step {
        Step::Apply { name, image, app, kind } => {
            let manifest = pod(pods[name], ["nginx:1", "nginx:2"][image], ["x", "y"][app]);
            let manifest = [manifest.clone(), waiting(manifest.clone()), never(manifest)][kind].clone();
            refused_at_most(leader.store.apply(vec![manifest], false).await);
        }
        Step::Delete { name: index, force } => {
            refused_at_most(leader.store.delete_pod(name(pods[index]), DeleteQuery { grace_seconds: None, force }).await);
        }
        Step::Restart { name: index } => refused_at_most(leader.store.restart_pod(name(pods[index])).await),
        Step::Place { node } => {
            let uids: Vec<_> = leader.store.read(|state| state.pods.keys().copied().collect());
            let bind_there = |uid| Placing::Bind { uid, node: name(nodes[node]), reason: "it fits".to_owned() };
            let bound = |state: &State| state.load(&name(nodes[node])).map(|load| load.bound.clone());
            let before = leader.store.read(bound);
            refused_at_most(leader.store.place(uids.into_iter().map(bind_there).collect()).await);
            let is_cordoned = leader.store.read(|state| state.nodes.get(&name(nodes[node])).is_some_and(|node| node.cordon.is_some()));
            assert!(!is_cordoned || leader.store.read(bound) == before, "a cordoned node takes no pod");
        }
        Step::Report { node, sequence, phase, stopped } => {
            let known = leader.store.read(|state| state.nodes.get(&name(nodes[node])).map(|node| node.node_id.0.as_u128()));
            let mut report = leader.report(known.unwrap_or(1));
            let uids: Vec<_> = leader.store.read(|state| state.pods.keys().copied().collect());
            report.pods = uids.into_iter().map(|uid| pod_report(uid, sequence, phase, stopped)).collect();
            refused_at_most(leader.store.report(name(nodes[node]), report, ()).await);
        }
        Step::Join { node, node_id } => {
            refused_at_most(leader.store.join(announcement(nodes[node], node_id, "machine"), false).await);
        }
        Step::DeleteNode { node, force } => refused_at_most(leader.store.delete_node(name(nodes[node]), force).await),
        Step::LoseNode { node } => {
            let revision = leader.store.read(|state| state.nodes.get(&name(nodes[node])).map(|node| node.revision));
            let lost = leader.store.lose_node(name(nodes[node]), revision.unwrap_or_default(), "silent".to_owned());
            lost.await.expect("no refusal");
        }
        Step::Cordon { node, on: true } => {
            refused_at_most(leader.store.cordon_node(name(nodes[node]), CordonQuery::default()).await);
        }
        Step::Cordon { node, on: false } => refused_at_most(leader.store.uncordon_node(name(nodes[node])).await),
        Step::Drain { node, force } => {
            refused_at_most(leader.store.drain_node(name(nodes[node]), DrainQuery { force, ..DrainQuery::default() }).await);
        }
        Step::GoOn { node } => {
            if let Some(pass) = leader.store.read(|state| whole_pass(state, &name(nodes[node]))) {
                leader.store.go_on_with_drain(pass).await.expect("no refusal");
            }
        }
        Step::Reopen => {
            let before = leader.store.read(Clone::clone);
            let leader = leader.restart().await;
            assert_eq!(leader.store.read(Clone::clone), before, "what was acknowledged is there, with every index");
            return leader;
        }
    }
    leader
}

/// A pass that stops all that the node has, if it is drained.
fn whole_pass(state: &State, node: &Name) -> Option<DrainPass> {
    let drain = state.nodes.get(node)?.cordon.as_ref()?.draining()?.clone();
    let bound = state.load(node).into_iter().flat_map(|load| &load.bound).map(|uid| &state.pods[uid]);
    let left = bound.filter(|row| row.uses_its_node()).map(|row| LeftPod {
        name: row.pod.metadata.name.clone(),
        uid: row.pod.metadata.uid,
        step: DrainStep::Stopping { grace_seconds: 1 },
    });
    Some(DrainPass { node: node.clone(), left: left.collect(), drain })
}

/// Where each uid was bound when it was last seen.
type Bound = BTreeMap<Uid, Name>;

fn check(state: &State, bound: &mut Bound) {
    let mut live = BTreeMap::<&Name, usize>::new();
    for (uid, row) in &state.pods {
        if row.retired.is_none() {
            *live.entry(&row.pod.metadata.name).or_default() += 1;
        }
        let now = row.pod.placement.node.as_ref();
        assert!(bound.get(uid).is_none_or(|before| Some(before) == now), "a uid is bound once");
        bound.extend(now.map(|node| (*uid, node.clone())));
        assert!(now.is_none_or(|node| state.nodes.contains_key(node)), "a pod's node is known");
        assert!(row.retired.is_none() || now.is_some(), "a pod without a node has nothing to stop");
        let on_lost_node = now.is_some_and(|node| state.nodes[node].condition.is_lost());
        let may_stay = row.pinned_to().is_some() || row.is_finished() || row.retired.as_ref().is_some_and(|retired| retired.replaced);
        assert!(!on_lost_node || may_stay, "a lost node keeps the name of no pod that doesn't wait for it");
        assert!(row.pod.placement.waiting_for.is_none() || now.is_none() || on_lost_node, "only a pod whose node is lost waits for it");
    }
    for node in state.nodes.values() {
        let is_drained = node.cordon.as_ref().and_then(|cordon| cordon.drain.as_ref()).is_some_and(|drain| drain.finished_at.is_some());
        let bound = state.load(&node.name).into_iter().flat_map(|load| &load.bound);
        let unfinished = bound.filter(|uid| state.pods[*uid].retired.is_none() && !state.pods[*uid].is_finished()).count();
        assert!(!is_drained || unfinished == 0, "what was drained stays empty");
    }
    assert!(live.values().all(|count| *count == 1), "a name has one live pod");
    for (name, uid) in &state.names {
        let stands = &state.pods[uid];
        assert!(stands.retired.is_none() || !live.contains_key(name), "the live pod stands for its name");
    }
    assert_eq!(state.unbound().count(), state.pods.values().filter(|row| row.is_unplaced()).count());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_order_of_operations_keeps_the_promises(steps in prop::collection::vec(any_step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut leader = Leader::start().await;
            let (mut bound, mut revision) = (Bound::new(), leader.store.read(|state| state.revision));
            for step in steps.iter().chain([&Step::Reopen]) {
                leader = take(leader, step).await;
                leader.store.read(|state| {
                    assert!(state.revision >= revision, "revisions only rise");
                    revision = state.revision;
                    check(state, &mut bound);
                });
            }
        });
    }
}

//! Sandboxes that are kept ready: who takes one, that two pods never share one, and that none is left over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::*;
use crate::follower::reset::{self, Graces};
use crate::follower::runtime::fake::Resident;
use crate::follower::runtime::{ContainerId, Runtime, Scope};

fn is_of(uid: cube_api::Uid) -> impl Fn(&Resident) -> bool {
    move |resident| !resident.spare && resident.observed.identity.uid == uid
}

fn ids(residents: &[Resident]) -> BTreeSet<ContainerId> {
    residents.iter().map(|resident| resident.observed.id.clone()).collect()
}

/// Every pod's containers run in the pod's one sandbox, and no two pods have the same.
fn nobody_shares(bench: &Bench) {
    let residents = bench.fake.residents();
    let mut owners = BTreeMap::new();
    for app in residents.iter().filter(|resident| resident.live && resident.observed.sandbox.is_some()) {
        let (sandbox, uid) = (app.observed.sandbox.clone().unwrap(), app.observed.identity.uid);
        assert_eq!(*owners.entry(sandbox.clone()).or_insert(uid), uid, "{} is shared", sandbox.0);
        assert!(!app.astray, "{} runs in a sandbox that is gone", app.name);
        let its = residents.iter().find(|resident| resident.observed.id == sandbox).unwrap();
        assert!(!its.spare && its.observed.identity.uid == uid, "{} runs in {}", app.name, its.name);
    }
}

fn count(bench: &Bench, operation: Operation) -> u64 {
    bench.fake.count(operation)
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_publishes_no_port_takes_a_spare_and_another_is_made() {
    let bench = Bench::with_spares(2).await;
    let before = ids(&bench.spares());
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    let sandbox =
        bench.fake.residents().into_iter().find(|resident| is_of(web.uid)(resident) && resident.observed.sandbox.is_none()).unwrap();
    assert!(before.contains(&sandbox.observed.id), "it took a ready one");
    assert_eq!(sandbox.name, format!("cube_pod-1__{}_0", web.uid));
    assert_eq!(count(&bench, Operation::CreateSandbox), 0);
    assert_eq!(bench.reasons(web.uid).first().map(String::as_str), Some("Pulled"));
    bench.wait_for("another spare", || bench.spares().len() == 2).await;
    assert!(!ids(&bench.spares()).contains(&sandbox.observed.id));
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!((bench.spares().len(), count(&bench, Operation::CreateSpare)), (2, 3), "no more than there are to be");
    let calls: Vec<_> = bench.fake.calls().into_iter().map(|call| call.operation).collect();
    let claim = calls.iter().position(|call| *call == Operation::ClaimSpare).unwrap();
    let next = calls.iter().rposition(|call| *call == Operation::CreateSpare).unwrap();
    assert!(calls[claim..next].iter().filter(|call| **call == Operation::Start).count() == 1, "not before its app is started: {calls:?}");
    nobody_shares(&bench);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_publishes_a_port_or_asks_for_a_host_name_makes_its_own_sandbox() {
    let bench = Bench::with_spares(2).await;
    let (mut web, mut named) = (pod(1, RestartPolicy::Always), pod(2, RestartPolicy::Always));
    let port = serde_json::json!({ "containerPort": 80, "hostPort": 8080 });
    web.spec.containers[0].ports = vec![serde_json::from_value(port).unwrap()];
    named.spec.hostname = Some(name("front"));
    bench.assign(&[web.clone(), named.clone()]).await;
    bench.phase(web.uid, Phase::Running).await;
    bench.phase(named.uid, Phase::Running).await;
    assert_eq!((count(&bench, Operation::CreateSandbox), count(&bench, Operation::ClaimSpare), bench.spares().len()), (2, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn without_the_option_none_is_made_and_those_of_a_life_before_are_removed() {
    let mut bench = Bench::with_spares(3).await;
    let (web, late) = (pod(1, RestartPolicy::Always), pod(2, RestartPolicy::Always));
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    bench.keep_spares(0).await;
    bench.assign(std::slice::from_ref(&web)).await;
    bench.wait_for("the spares to go", || !bench.fake.residents().iter().any(|resident| resident.spare)).await;
    let made = count(&bench, Operation::CreateSpare);
    bench.assign(&[web.clone(), late.clone()]).await;
    bench.phase(late.uid, Phase::Running).await;
    assert_eq!((count(&bench, Operation::CreateSpare), count(&bench, Operation::CreateSandbox)), (made, 1));
    assert_eq!(bench.fake.starts(web.uid, Some(&name("app"))), 1, "who has one keeps it");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_ready_before_the_leader_has_assigned_the_node() {
    let mut bench = Bench::new().await;
    bench.keep_spares(2).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(bench.fake.everything(), []);
    bench.assign(&[]).await;
    bench.wait_for("the spares", || bench.spares().len() == 2).await;
}

/// Kills the agent at every other millisecond of three starts in which each call takes 3 ms, and answers it nothing of what was under way.
#[tokio::test(start_paused = true)]
async fn two_pods_never_share_a_spare_and_none_is_left_wherever_the_agent_is_killed() {
    for millis in (0..30).step_by(2) {
        let mut bench = Bench::with_spares(2).await;
        bench.fake.set_latency(Duration::from_millis(3));
        let pods: Vec<_> = (1..=3).map(|number| pod(number, RestartPolicy::Never)).collect();
        bench.assign(&pods).await;
        tokio::time::sleep(Duration::from_millis(millis)).await;
        bench.kill_and_restart().await;
        bench.assign(&pods).await;
        for pod in &pods {
            bench.phase(pod.uid, Phase::Running).await;
            assert_eq!(bench.fake.starts(pod.uid, Some(&name("app"))), 1, "killed after {millis} ms");
        }
        bench.wait_for("the spares", || bench.spares().len() == 2).await;
        nobody_shares(&bench);
        let containers = bench.fake.residents().len();
        assert_eq!(containers, 3 * 2 + 2, "killed after {millis} ms: {:#?}", bench.fake.everything());
    }
}

/// The engine hangs on the claim; the agent dies, and the next life has other pods to start before the engine carries it out.
#[tokio::test(start_paused = true)]
async fn a_spare_that_was_promised_is_no_other_pods_though_its_claim_comes_a_life_later() {
    let mut bench = Bench::with_spares(1).await;
    let (first, second) = (pod(1, RestartPolicy::Always), pod(2, RestartPolicy::Always));
    bench.fake.hang(Operation::ClaimSpare);
    bench.assign(std::slice::from_ref(&first)).await;
    bench.wait_for("the claim", || count(&bench, Operation::ClaimSpare) == 1).await;
    let promised = ids(&bench.spares());
    bench.kill_and_restart().await;
    bench.assign(&[first.clone(), second.clone()]).await;
    bench.wait_for("the claim again", || count(&bench, Operation::ClaimSpare) >= 2).await;
    // It isn't offered the promised one, so it has nothing to wait for.
    bench.phase(second.uid, Phase::Running).await;
    bench.fake.release();
    bench.phase(first.uid, Phase::Running).await;
    nobody_shares(&bench);
    assert_eq!(bench.sandbox(first.uid).map(|sandbox| sandbox.id), promised.into_iter().next());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_deleted_before_its_spare_is_its_own_leaves_none() {
    for then_killed in [false, true] {
        let mut bench = Bench::with_spares(1).await;
        let web = pod(1, RestartPolicy::Always);
        let promised = ids(&bench.spares());
        bench.fake.hang(Operation::ClaimSpare);
        bench.assign(std::slice::from_ref(&web)).await;
        bench.wait_for("the claim", || count(&bench, Operation::ClaimSpare) == 1).await;
        bench.assign(&[stop(&web)]).await;
        if then_killed {
            bench.kill_and_restart().await;
            bench.assign(&[stop(&web)]).await;
        }
        tokio::time::sleep(CALL_TIMEOUT * 2).await;
        bench.fake.release();
        bench.wait_for("its end", || bench.is_stopped(web.uid)).await;
        bench.wait_for("a spare", || bench.spares().len() == 1).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(ids(&bench.spares()).is_disjoint(&promised), "what was promised is nobody else's");
        assert_eq!(bench.fake.everything().len(), 1, "{:#?}", bench.fake.everything());
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_is_lost_is_found_by_its_name() {
    let bench = Bench::with_spares(1).await;
    let web = pod(1, RestartPolicy::Never);
    bench.fake.fail_next(Operation::ClaimSpare, Failure::ReplyLost);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    assert_eq!((count(&bench, Operation::ClaimSpare), count(&bench, Operation::CreateSandbox)), (1, 0));
    nobody_shares(&bench);
}

#[tokio::test(start_paused = true)]
async fn a_pod_in_a_sandbox_that_was_a_spare_is_adopted_though_the_ledger_is_lost() {
    let mut bench = Bench::with_spares(2).await;
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    let before = (bench.apps(web.uid), bench.sandbox(web.uid));
    bench.lose_ledger().await;
    bench.agent.welcome(&Welcome { cluster_id: CLUSTER, epoch: Epoch(1), life: None }).await.unwrap();
    bench.assign(std::slice::from_ref(&web)).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!((bench.apps(web.uid), bench.sandbox(web.uid)), before);
    assert_eq!((bench.spares().len(), bench.fake.starts(web.uid, Some(&name("app")))), (2, 1));
    // And one that nobody wants goes, by its name.
    bench.lose_ledger().await;
    bench.agent.welcome(&Welcome { cluster_id: CLUSTER, epoch: Epoch(1), life: None }).await.unwrap();
    bench.assign(&[]).await;
    bench.wait_for("the orphan to go", || !bench.fake.residents().iter().any(is_of(web.uid))).await;
    assert_eq!(bench.spares().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn spares_that_ended_are_replaced_and_a_pod_that_gets_one_of_them_starts_all_the_same() {
    let bench = Bench::with_spares(2).await;
    bench.spares().iter().for_each(|spare| bench.fake.kill_by_hand(&spare.observed.id));
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    assert_eq!((count(&bench, Operation::CreateSandbox), bench.status(web.uid).unwrap().containers[0].restart_count), (1, 0));
    bench.wait_for("new ones", || bench.spares().len() == 2).await;
    bench.wait_for("the ended ones to go", || bench.fake.everything().len() == 4).await;
    nobody_shares(&bench);
}

#[tokio::test(start_paused = true)]
async fn a_spare_that_was_made_and_not_started_is_used_and_one_of_yesterday_replaced() {
    let mut bench = Bench::new().await;
    bench.keep_spares(1).await;
    bench.fake.fail_next(Operation::Start, Failure::NotDone);
    bench.assign(&[]).await;
    bench.wait_for("the spare", || bench.spares().len() == 1).await;
    let first = ids(&bench.spares());
    assert_eq!(count(&bench, Operation::CreateSpare), 1);
    tokio::time::sleep(Duration::from_secs(50 * 60)).await;
    assert_eq!(ids(&bench.spares()), first);
    tokio::time::sleep(Duration::from_secs(11 * 60)).await;
    assert!(bench.spares().len() == 1 && ids(&bench.spares()).is_disjoint(&first), "its resolv.conf may be out of date");
    assert_eq!(bench.fake.everything().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cordoned_node_keeps_none_ready_until_it_takes_pods_again() {
    let bench = Bench::with_spares(2).await;
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    bench.wait_for("another spare", || bench.spares().len() == 2).await;
    for cordoned in [true, false] {
        let assignment = bench.assignment(std::slice::from_ref(&web));
        bench.agent.assign(cube_api::session::Assignment { cordoned, ..assignment }).await.unwrap();
        bench.wait_for("the spares", || bench.spares().len() == if cordoned { 0 } else { 2 }).await;
    }
    assert_eq!(bench.fake.starts(web.uid, Some(&name("app"))), 1);
}

/// With more pods than spares, those that find none make their own at once, and no spare is made while any of them starts.
#[tokio::test(start_paused = true)]
async fn a_burst_waits_for_no_spare_and_no_spare_is_made_meanwhile() {
    let bench = Bench::with_spares(3).await;
    bench.fake.set_latency_of(Operation::Start, Duration::from_millis(200));
    let pods: Vec<_> = (1..=20).map(|number| pod(number, RestartPolicy::Always)).collect();
    bench.assign(&pods).await;
    for pod in &pods {
        bench.phase(pod.uid, Phase::Running).await;
    }
    assert_eq!((count(&bench, Operation::ClaimSpare), count(&bench, Operation::CreateSandbox)), (3, 17));
    let made = |call: &super::super::runtime::fake::Call| call.operation == Operation::CreateSpare;
    let calls = bench.fake.calls();
    let last_claim = calls.iter().position(|call| call.operation == Operation::ClaimSpare).unwrap();
    let of_pod = |call: &super::super::runtime::fake::Call| {
        call.operation == Operation::Start && call.identity.as_ref().is_some_and(|identity| identity.container.is_some())
    };
    let last_start = calls.iter().rposition(of_pod).unwrap();
    assert!(!calls[last_claim..last_start].iter().any(made), "{:?}", &calls[last_claim..last_start]);
    bench.wait_for("the spares", || bench.spares().len() == 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_reset_removes_the_spares_of_its_node_and_no_others() {
    let bench = Bench::with_spares(2).await;
    bench.kill().await;
    let runtime: Arc<dyn Runtime> = Arc::new(bench.fake.clone());
    let (own, other) = (Scope { cluster: CLUSTER, node: name("node-1") }, Scope { cluster: CLUSTER, node: name("node-2") });
    let theirs = runtime.create_spare(&other, uuid::Uuid::from_u128(1)).await.unwrap();
    let found = reset::find(runtime.as_ref(), &own, &Graces::default()).await.unwrap();
    assert_eq!((found.pods.len(), found.spares.len()), (0, 2));
    reset::remove_all(&runtime, &own, &Graces::default(), |_| ()).await.unwrap();
    assert_eq!(bench.fake.everything().into_iter().map(|left| left.id).collect::<Vec<_>>(), [theirs]);
}

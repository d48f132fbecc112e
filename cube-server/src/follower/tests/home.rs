//! Whose data folder and whose containers: another name, other clusters and nodes on the engine, a node that is taken away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cube_api::meta::Uid;

use super::*;
use crate::follower::agent::StartError;
use crate::follower::reset::{self, Graces, Progress, ResetError};
use crate::follower::runtime::fake::Fake;
use crate::follower::runtime::{Identity, Runtime, SandboxSpec, Scope};

/// The pods of the containers that aren't this node's.
const STRANGERS: [Uid; 2] = [Uid(uuid::Uuid::from_u128(98)), Uid(uuid::Uuid::from_u128(99))];

/// A container of another cluster, and one of another node of this one.
async fn strangers(fake: &Fake) -> usize {
    let other = cube_api::ClusterId(uuid::Uuid::from_u128(8));
    for (cluster, node, uid) in [(other, "node-1", STRANGERS[0]), (CLUSTER, "node-2", STRANGERS[1])] {
        let identity = Identity { uid, pod: name("web"), container: None, attempt: 0 };
        let scope = Scope { cluster, node: name(node) };
        fake.create_sandbox(&SandboxSpec { scope, identity, hostname: Some("web".to_owned()), published: Vec::new(), holds: Vec::new() })
            .await
            .unwrap();
    }
    2
}

fn of_strangers(bench: &Bench) -> usize {
    bench.fake.everything().iter().filter(|container| STRANGERS.contains(&container.identity.uid)).count()
}

#[tokio::test(start_paused = true)]
async fn other_clusters_containers_on_the_engine_are_said_once_and_left_alone_also_when_the_ledger_is_lost() {
    let mut bench = Bench::new().await;
    bench.kill().await;
    let strangers = strangers(&bench.fake).await;
    bench.kill_and_restart().await;
    bench.assign(&[pod(1, RestartPolicy::Always)]).await;
    bench.wait_for("the event", || !bench.of_node().is_empty()).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let said = bench.of_node();
    let [(reason, message)] = &said[..] else { panic!("{said:?}") };
    assert_eq!(reason, "OtherCluster");
    assert!(message.starts_with("1 container of another cluster (00000000-0000-0000-0000-000000000008, node node-1)"), "{message}");
    assert!(message.contains("`cube-server reset --cluster-id 00000000-0000-0000-0000-000000000008 --name node-1`"), "{message}");
    bench.lose_ledger().await;
    bench.agent.welcome(&Welcome { cluster_id: CLUSTER, epoch: Epoch(1), life: None }).await.unwrap();
    bench.assign(&[]).await;
    bench.wait_for("this node's orphans to go", || bench.fake.everything().len() == strangers).await;
    assert_eq!(of_strangers(&bench), strangers);
}

#[tokio::test(start_paused = true)]
async fn a_data_folder_keeps_its_nodes_name() {
    let mut bench = Bench::new().await;
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    bench.kill().await;
    let refused = bench.start_as(name("node-2")).await.err().expect("its containers carry the other name");
    assert!(matches!(&refused, StartError::Renamed { known, .. } if *known == name("node-1")), "{refused}");
    assert!(refused.to_string().contains("--name node-1") && refused.to_string().contains("cube-server reset"), "{refused}");
    bench.kill_and_restart().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(bench.fake.starts(web.uid, Some(&name("app"))), 1);
}

/// It may be a copy: the pods may run where it is from.
#[tokio::test(start_paused = true)]
async fn a_data_folder_on_another_machine_starts_nothing_before_it_is_assigned_there() {
    let mut bench = Bench::new().await;
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    bench.move_to("another").await;
    // Once more, still without a word from the leader.
    bench.kill_and_restart().await;
    bench.agent.welcome(&Welcome { cluster_id: CLUSTER, epoch: Epoch(1), life: None }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(bench.fake.everything(), []);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.wait_for("the pod", || bench.apps(web.uid).len() == 1).await;
    // From now on this is where it is at home, and it goes on alone.
    bench.fake.kill_by_hand(&bench.apps(web.uid)[0].id);
    bench.kill_and_restart().await;
    bench.wait_for("another start", || bench.fake.starts(web.uid, Some(&name("app"))) == 3).await;
}

fn scope() -> Scope {
    Scope { cluster: CLUSTER, node: name("node-1") }
}

#[tokio::test(start_paused = true)]
async fn a_reset_stops_each_pod_with_its_grace_removes_all_of_the_node_and_nothing_else() {
    let bench = Bench::new().await;
    bench.fake.script("deaf", Script { ignores_stop: true, ..Script::default() });
    let (web, mut deaf) = (pod(1, RestartPolicy::Always), pod(2, RestartPolicy::Always));
    deaf.spec.containers[0].image = "deaf".to_owned();
    bench.assign(&[web.clone(), deaf.clone()]).await;
    bench.phase(web.uid, Phase::Running).await;
    bench.phase(deaf.uid, Phase::Running).await;
    bench.kill().await;
    let strangers = strangers(&bench.fake).await;

    let (began, told) = (Instant::now(), Mutex::new(Vec::new()));
    let tell = |progress| {
        let (word, pod) = match progress {
            Progress::Stopping(pod) => ("stopping", pod.pod),
            Progress::Removed(pod) => ("removed", pod.pod),
        };
        told.lock().unwrap().push((format!("{word} {pod}"), began.elapsed().as_secs()));
    };
    let graces = Graces { given: None, assigned: BTreeMap::from([(deaf.uid, Duration::from_secs(7))]) };
    let runtime: Arc<dyn Runtime> = Arc::new(bench.fake.clone());
    reset::remove_all(&runtime, &scope(), &graces, tell).await.unwrap();
    let told = told.into_inner().unwrap();
    let expected = [("stopping pod-1", 0), ("stopping pod-2", 0), ("removed pod-1", 0), ("removed pod-2", 7)];
    assert_eq!(told, expected.map(|(what, after)| (what.to_owned(), after)));
    assert_eq!((bench.fake.everything().len(), of_strangers(&bench)), (strangers, strangers));
    let signals = |uid| {
        bench.fake.calls().iter().filter(|c| c.operation == Operation::Signal && c.identity.as_ref().is_some_and(|i| i.uid == uid)).count()
    };
    assert_eq!((signals(web.uid), signals(deaf.uid)), (1, 2), "one asks, one kills");
    // Again: there is nothing to do, and that is no error.
    reset::remove_all(&runtime, &scope(), &graces, |progress| panic!("{progress:?}")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reset_that_the_engine_fails_says_so_and_goes_on_in_the_next_run() {
    let bench = Bench::new().await;
    let pods = [pod(1, RestartPolicy::Always), pod(2, RestartPolicy::Always)];
    bench.assign(&pods).await;
    for pod in &pods {
        bench.phase(pod.uid, Phase::Running).await;
    }
    bench.kill().await;
    let runtime: Arc<dyn Runtime> = Arc::new(bench.fake.clone());
    bench.fake.fail_next(Operation::Remove, Failure::NotDone);
    let failed = reset::remove_all(&runtime, &scope(), &Graces::default(), |_| ()).await.unwrap_err();
    assert!(matches!(failed, ResetError::Engine(_)), "{failed}");
    assert!(!bench.fake.everything().is_empty());
    reset::remove_all(&runtime, &scope(), &Graces::default(), |_| ()).await.unwrap();
    assert_eq!(bench.fake.everything(), []);
}

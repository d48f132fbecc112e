//! What the agent does with pods' volumes.

use std::collections::BTreeMap;
use std::sync::Arc;

use cube_api::meta::{Revision, Uid};
use cube_api::pod::RestartPolicy;
use cube_api::session::{AssignedPod, Epoch, Welcome};
use cube_api::sources::{Hidden, Sources, Values};
use uuid::Uuid;

use crate::follower::testing::{Bench, CLUSTER, name, pod, stop};

/// A pod with an empty folder and a secret of this revision.
fn with_volumes(revision: u64) -> AssignedPod {
    let mut pod = pod(1, RestartPolicy::Always);
    let volumes = serde_json::json!([{ "name": "scratch", "emptyDir": {} }, { "name": "pass", "secret": { "secretName": "db" } }]);
    pod.spec.volumes = serde_json::from_value(volumes).unwrap();
    let mounts = serde_json::json!([{ "name": "scratch", "mountPath": "/s" }, { "name": "pass", "mountPath": "/p" }]);
    pod.spec.containers[0].volume_mounts = serde_json::from_value(mounts).unwrap();
    let data = BTreeMap::from([("password".to_owned(), Hidden(revision.to_string().into()))]);
    let secrets = BTreeMap::from([(name("db"), Arc::new(Values { revision: Revision(revision), data }))]);
    pod.sources = Some(Arc::new(Sources { secrets, ..Sources::default() }));
    pod
}

fn names(bench: &Bench) -> Vec<String> {
    bench.fake.stored().into_keys().collect()
}

fn starts(bench: &Bench, pod: &AssignedPod) -> u32 {
    bench.fake.starts(pod.uid, Some(&name("app")))
}

#[tokio::test(start_paused = true)]
async fn other_values_stop_nothing_and_the_next_container_has_them() {
    let bench = Bench::new().await;
    let (first, second) = (with_volumes(7), with_volumes(8));
    bench.assign(std::slice::from_ref(&first)).await;
    bench.wait_for("a start", || starts(&bench, &first) == 1).await;
    assert_eq!(names(&bench).len(), 2);
    bench.assign(std::slice::from_ref(&second)).await;
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!((starts(&bench, &first), names(&bench).len()), (1, 2));
    let app = bench.fake.everything().into_iter().find(|seen| seen.identity.container.is_some()).unwrap();
    bench.fake.kill_by_hand(&app.id);
    bench.wait_for("the next start", || starts(&bench, &first) == 2).await;
    assert!(names(&bench).iter().any(|name| name.ends_with("_8")), "{:?}", names(&bench));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_pods_volumes_are_gone_before_the_leader_is_told() {
    let bench = Bench::new().await;
    let web = with_volumes(7);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.wait_for("a start", || starts(&bench, &web) == 1).await;
    bench.assign(&[stop(&web)]).await;
    bench.wait_for("its end", || bench.is_stopped(web.uid)).await;
    assert_eq!(names(&bench), Vec::<String>::new());
}

/// Its containers were removed by hand, so that nothing but its volumes tells of it.
#[tokio::test(start_paused = true)]
async fn volumes_of_a_pod_that_nobody_knows_any_more_are_removed_and_foreign_ones_are_not() {
    let mut bench = Bench::new().await;
    let web = with_volumes(7);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.wait_for("a start", || starts(&bench, &web) == 1).await;
    bench.fake.add_foreign_volume("cube_mine");
    bench.lose_ledger_and_containers().await;
    bench.agent.welcome(&Welcome { cluster_id: CLUSTER, epoch: Epoch(1), life: None }).await.unwrap();
    bench.assign(&[]).await;
    bench.wait_for("its end", || names(&bench) == ["cube_mine"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_named_volume_goes_and_others_stay() {
    let bench = Bench::new().await;
    let uid = |number| Uid(Uuid::from_u128(number));
    let mut pods = Vec::new();
    for number in [1, 2] {
        let mut pod = pod(number, RestartPolicy::Always);
        let claim = serde_json::json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "db" } }]);
        pod.spec.volumes = serde_json::from_value(claim).unwrap();
        let volumes = BTreeMap::from([(name("db"), uid(number + 100))]);
        pod.sources = Some(Arc::new(Sources { volumes, ..Sources::default() }));
        pods.push(pod);
    }
    bench.assign(&pods).await;
    bench.wait_for("both to start", || pods.iter().all(|pod| starts(&bench, pod) == 1)).await;
    let stopped: Vec<_> = pods.iter().map(stop).collect();
    bench.assign(&stopped).await;
    bench.wait_for("their ends", || pods.iter().all(|pod| bench.is_stopped(pod.uid))).await;
    assert_eq!(names(&bench).len(), 2, "they outlive their pods");
    let mut assignment = bench.assignment(&[]);
    assignment.drop_volumes = vec![uid(101)];
    bench.agent.assign(assignment).await.unwrap();
    bench.wait_for("the removal", || names(&bench) == [format!("cube_volume_db_{}", uid(102))]).await;
    bench.wait_for("the leader's knowledge", || bench.leader.dropped.lock().unwrap().contains(&uid(101))).await;
}

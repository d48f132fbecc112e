//! Named volumes, and what nodes are told of secrets and configs.

use std::sync::Arc;

use cube_api::ErrorCode;
use cube_api::meta::{ResourceKind, ResourceRef};
use cube_api::object::Object;
use cube_api::pod::PodSpec;
use cube_api::routes::DeleteQuery;
use cube_api::session::{AssignedPod, Assignment};

use super::*;

fn secret(value: &str) -> Resource {
    let manifest = json!({"metadata": {"name": "db"}, "stringData": {"password": value, "user": "cube"}});
    Resource::Secret(serde_json::from_value(manifest).expect("a manifest"))
}

/// A pod that wants a key of `secret/db`, or claims `volume/db`.
fn with(name: &str, spec: serde_json::Value) -> Resource {
    let mut all = json!({"containers": [{"name": "c", "image": "app"}]});
    all.as_object_mut().expect("a map").extend(spec.as_object().expect("a map").clone());
    Resource::Pod(serde_json::from_value(json!({"metadata": {"name": name}, "spec": all})).expect("a manifest"))
}

fn wants_key(name: &str) -> Resource {
    let env = json!([{"name": "P", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]);
    with(name, json!({"containers": [{"name": "c", "image": "app", "env": env}]}))
}

fn claims(name: &str) -> Resource {
    with(name, json!({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "db"}}]}))
}

fn assigned(assignment: &Assignment<Arc<PodSpec>>) -> &AssignedPod<Arc<PodSpec>> {
    let [pod] = assignment.pods.as_slice() else { panic!("one pod: {assignment:?}") };
    pod
}

impl Leader {
    fn lacks(&self, pod: &str) -> Option<String> {
        self.store.read(|state| state.lacks(&state.standing(&name(pod)).expect("it is there").pod.spec))
    }

    fn node_of(&self, pod: &str) -> Option<Name> {
        self.store.read(|state| state.standing(&name(pod)).and_then(|row| row.pod.placement.node.clone()))
    }

    fn has_volume(&self) -> bool {
        self.store.read(|state| state.volume(&name("db")).is_some())
    }

    async fn delete_volume(&self) -> Result<Object, StoreError> {
        self.store.delete_object(ResourceRef { kind: ResourceKind::Volume, name: name("db") }, DeleteQuery::default()).await
    }

    /// Deletes a pod, and its node says that it stopped.
    async fn end(&self, pod: &str, uid: Uid, sequence: u64) {
        self.store.delete_pod(name(pod), DeleteQuery::default()).await.expect("a delete");
        let mut report = self.report(1);
        report.pods = vec![pod_report(uid, sequence, Phase::Running, true)];
        self.store.report(name("n1"), report, ()).await.expect("a report");
    }
}

#[tokio::test]
async fn a_node_is_told_the_newest_values_of_what_its_pods_name_and_nobody_else_is() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    leader.apply(portless(pod("plain", "app", "a"))).await;
    leader.store.apply(vec![secret("hunter2")], false).await.expect("an apply");
    leader.run_on("n1", wants_key("web")).await;
    let told = || {
        let assignment = leader.store.assignment(&name("n1"));
        let sources = assigned(&assignment).sources.clone().expect("it names a secret");
        (sources.secrets[&name("db")].clone(), serde_json::to_string(&assigned(&assignment).spec).expect("plain data"))
    };
    let (before, spec) = told();
    assert_eq!(&before.data["password"].0[..], b"hunter2");
    assert!(!spec.contains("hunter2") && !format!("{:?}", leader.store.assignment(&name("n1"))).contains("hunter2"));
    leader.store.apply(vec![secret("hunter3")], false).await.expect("an apply");
    let (after, same_spec) = told();
    assert!(after.revision > before.revision && &after.data["password"].0[..] == b"hunter3");
    assert_eq!(spec, same_spec);
    let concerned = leader.store.read(|state| state.nodes_naming(ResourceKind::Secret, &name("db")));
    assert_eq!(concerned.into_iter().collect::<Vec<_>>(), [name("n1")]);
}

#[tokio::test]
async fn a_pod_waits_for_a_secret_and_for_its_key_unless_they_are_optional() {
    let leader = Leader::start().await;
    leader.apply(wants_key("web")).await;
    let optional = json!({"volumes": [{"name": "s", "secret": {"secretName": "db", "optional": true}}]});
    leader.apply(with("optional", optional)).await;
    assert_eq!((leader.lacks("web").as_deref(), leader.lacks("optional")), (Some("secret/db not found"), None));
    let other = json!({"metadata": {"name": "db"}, "stringData": {"user": "cube"}});
    leader.store.apply(vec![Resource::Secret(serde_json::from_value(other).expect("a manifest"))], false).await.expect("an apply");
    assert_eq!(leader.lacks("web").as_deref(), Some("secret/db has no key 'password'"));
    leader.store.apply(vec![secret("hunter2")], false).await.expect("an apply");
    assert_eq!(leader.lacks("web"), None);
}

#[tokio::test]
async fn a_volume_is_made_where_its_first_pod_goes_and_no_pod_that_claims_it_goes_elsewhere() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    leader.join("n2", 2).await;
    leader.run_on("n1", claims("one")).await;
    let told = leader.store.assignment(&name("n1"));
    let uid = leader.store.read(|state| state.volume(&name("db")).map(|volume| (volume.node.clone(), volume.metadata.uid)));
    let volumes = &assigned(&told).sources.as_ref().expect("it claims a volume").volumes;
    assert_eq!(uid, Some((name("n1"), volumes[&name("db")])));
    // As a decision that was made before the volume was.
    leader.run_on("n2", claims("two")).await;
    assert_eq!(leader.node_of("two"), None);
    leader.run_on("n1", claims("three")).await;
    assert_eq!(leader.node_of("three"), Some(name("n1")));
    assert_eq!(leader.reasons("volume/db").await, ["Created"]);
    let leader = leader.restart().await;
    assert!(leader.has_volume());
}

#[tokio::test]
async fn a_volume_is_deleted_when_no_pod_uses_it_and_goes_with_its_nodes_word() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let uid = leader.run_on("n1", claims("one")).await;
    let refused = refusal(leader.delete_volume().await);
    assert!(refused.code == ErrorCode::Conflict && refused.message == "volume/db is used by pod/one", "{refused:?}");
    leader.end("one", uid, 1).await;
    assert_eq!(leader.store.assignment(&name("n1")).drop_volumes, []);
    for _ in 0..2 {
        leader.delete_volume().await.expect("a delete");
    }
    let told = leader.store.assignment(&name("n1")).drop_volumes;
    assert!(told.len() == 1 && leader.has_volume(), "it is there until its data are gone");
    // A pod that is to have one of its name waits for the end of this one.
    leader.apply(claims("two")).await;
    assert!(leader.lacks("two").expect("a reason").starts_with("volume/db is being deleted"));
    let mut report = leader.report(1);
    report.dropped = told;
    for _ in 0..2 {
        leader.store.report(name("n1"), report.clone(), ()).await.expect("a report");
    }
    assert_eq!((leader.has_volume(), leader.lacks("two"), leader.store.assignment(&name("n1")).drop_volumes), (false, None, vec![]));
    assert_eq!(leader.reasons("volume/db").await, ["Created", "Deleting", "Deleted"]);
}

#[tokio::test]
async fn a_volume_whose_node_is_gone_for_good_goes_at_once() {
    for node_goes_first in [true, false] {
        let leader = Leader::start().await;
        leader.join("n1", 1).await;
        let uid = leader.run_on("n1", claims("one")).await;
        leader.end("one", uid, 1).await;
        if !node_goes_first {
            leader.delete_volume().await.expect("a delete");
        }
        leader.store.delete_node(name("n1"), true).await.expect("a delete");
        assert_eq!(leader.has_volume(), node_goes_first);
        if node_goes_first {
            leader.delete_volume().await.expect("a delete");
        }
        assert!(!leader.has_volume());
    }
}

//! Resources that are neither pods nor nodes, and pods that are owned.

use std::sync::Arc;

use cube_api::ErrorCode;
use cube_api::event::EventKind;
use cube_api::meta::{ResourceKind, ResourceRef, Revision};
use cube_api::object::Object;
use cube_api::pod::PodSpec;
use cube_api::routes::{AppliedResource, DeleteQuery};

use super::*;
use crate::leader::store::{NewPod, OwnerPass};

fn config(value: &str, app: &str) -> Resource {
    let manifest = json!({"metadata": {"name": "app", "labels": {"app": app}}, "data": {"key": value}});
    Resource::Config(serde_json::from_value(manifest).expect("a manifest"))
}

fn reference(kind: ResourceKind, text: &str) -> ResourceRef {
    ResourceRef { kind, name: name(text) }
}

fn spec() -> Arc<PodSpec> {
    Arc::new(serde_json::from_value(json!({"containers": [{"name": "c", "image": "busybox"}]})).expect("a spec"))
}

impl Leader {
    async fn apply_object(&self, resource: Resource) -> (ApplyAction, Object) {
        let item = self.store.apply(vec![resource], false).await.expect("an apply that isn't refused").items.remove(0);
        let AppliedResource::Object(object) = item.resource else { panic!("no pod was applied") };
        (item.action, object)
    }

    fn object(&self, kind: ResourceKind, text: &str) -> Option<Object> {
        self.store.read(|state| state.object(kind, &name(text)).map(|object| Object::clone(object)))
    }

    fn pods_of(&self, owner: &Object) -> Vec<(String, bool)> {
        let row = |row: &Arc<super::super::PodRow>| (row.pod.metadata.name.to_string(), row.retired.is_some());
        self.store.read(|state| state.owned_by(&owner.metadata().uid).map(row).collect())
    }
}

fn one_more(owner: &Object) -> OwnerPass {
    let new = NewPod { stem: "app-7".to_owned(), labels: Default::default(), spec: spec(), reason: "1 of 1".to_owned() };
    OwnerPass { create: vec![new], events: vec![(EventKind::Normal, "ScaledUp", "1 of 1".to_owned())], ..OwnerPass::of(owner) }
}

#[tokio::test]
async fn a_config_is_made_left_relabelled_and_changed_in_place_and_survives_a_restart() {
    let leader = Leader::start().await;
    let (action, first) = leader.apply_object(config("a", "x")).await;
    assert_eq!(action, ApplyAction::Created);
    assert_eq!(leader.apply_object(config("a", "x")).await, (ApplyAction::Unchanged, first.clone()));
    let (action, relabelled) = leader.apply_object(config("a", "y")).await;
    assert_eq!((action, relabelled.metadata().generation), (ApplyAction::Configured, 1), "its content is the same");
    let (action, changed) = leader.apply_object(config("b", "y")).await;
    assert_eq!((action, changed.metadata().generation), (ApplyAction::Configured, 2));
    assert_eq!(changed.metadata().uid, first.metadata().uid);
    let leader = leader.restart().await;
    assert_eq!(leader.object(ResourceKind::Config, "app"), Some(changed));
    assert_eq!(leader.object(ResourceKind::Secret, "app"), None, "a name belongs to a type");
    let deleted = leader.store.delete_object(reference(ResourceKind::Config, "app"), DeleteQuery::default()).await;
    assert!(deleted.is_ok());
    let leader = leader.restart().await;
    assert_eq!(leader.object(ResourceKind::Config, "app"), None);
    assert_eq!(leader.reasons("config/app").await, ["Created", "Configured", "Deleted"]);
}

#[tokio::test]
async fn a_stale_config_is_refused_and_nothing_else_of_its_manifest_is_applied() {
    let leader = Leader::start().await;
    leader.apply_object(config("a", "x")).await;
    let Resource::Config(mut stale) = config("b", "x") else { panic!("a config") };
    stale.metadata.revision = Some(Revision(999));
    let refused = leader.store.apply(vec![pod("web", "nginx", "a"), Resource::Config(stale)], false).await.expect_err("it is stale");
    let StoreError::Refused(refusal) = refused else { panic!("{refused}") };
    assert_eq!(refusal.code, ErrorCode::Conflict);
    assert!(refusal.message.contains("config/app: metadata.revision: 999 is asked for, but it is at"), "{}", refusal.message);
    assert_eq!(leader.store.pod(&name("web")), None);
}

#[tokio::test]
async fn a_secrets_values_are_kept_and_not_answered() {
    let leader = Leader::start().await;
    let manifest = json!({"metadata": {"name": "db"}, "stringData": {"password": "hunter2"}});
    let secret = Resource::Secret(serde_json::from_value(manifest).expect("a manifest"));
    let (_, answered) = leader.apply_object(secret).await;
    assert!(!serde_json::to_string(&answered).expect("plain data").contains("aHVudGVyMg"));
    let leader = leader.restart().await;
    let Some(Object::Secret(kept)) = leader.object(ResourceKind::Secret, "db") else { panic!("it is kept") };
    assert_eq!(kept.data["password"].0, b"hunter2");
}

#[tokio::test]
async fn what_a_loop_decided_is_written_only_if_its_owner_is_as_it_was_looked_at() {
    let leader = Leader::start().await;
    let (_, looked_at) = leader.apply_object(config("a", "x")).await;
    assert!(leader.store.settle(one_more(&looked_at)).await.expect("a write"));
    let pods = leader.pods_of(&looked_at);
    assert_eq!(pods.len(), 1);
    assert!(pods[0].0.starts_with("app-7-") && pods[0].0.len() == "app-7-xxxxx".len(), "{pods:?}");
    assert_eq!(leader.reasons("config/app").await, ["Created", "ScaledUp"]);

    let (_, newer) = leader.apply_object(config("b", "x")).await;
    assert!(!leader.store.settle(one_more(&looked_at)).await.expect("no error"), "another decision is needed");
    assert_eq!(leader.pods_of(&looked_at).len(), 1);
    assert!(leader.store.settle(one_more(&newer)).await.expect("a write"));
    let leader = leader.restart().await;
    let pods = leader.pods_of(&newer);
    assert_eq!(pods.len(), 2, "whose they are is kept");
    assert_ne!(pods[0].0, pods[1].0);
}

#[tokio::test]
async fn a_pod_that_belongs_to_another_resource_is_not_applied_over_but_may_be_deleted() {
    let leader = Leader::start().await;
    let (_, owner) = leader.apply_object(config("a", "x")).await;
    leader.store.settle(one_more(&owner)).await.expect("a write");
    let pods = leader.pods_of(&owner);
    let refused = leader.store.apply(vec![pod(&pods[0].0, "nginx", "a")], false).await.expect_err("it isn't a person's");
    assert!(refused.to_string().contains("it belongs to config/app; change that"), "{refused}");
    leader.store.delete_pod(name(&pods[0].0), DeleteQuery::default()).await.expect("a delete");
    assert_eq!(leader.pods_of(&owner), []);
}

#[tokio::test]
async fn what_is_owned_is_told_to_stop_when_its_owner_is_deleted() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let (_, owner) = leader.apply_object(config("a", "x")).await;
    leader.store.settle(one_more(&owner)).await.expect("a write");
    leader.store.settle(one_more(&owner)).await.expect("a write");
    let bound = leader.store.read(|state| state.owned_by(&owner.metadata().uid).next().map(|row| row.pod.metadata.uid)).expect("a pod");
    let bind = Placing::Bind { uid: bound, node: name("n1"), reason: "it fits".to_owned() };
    leader.store.place(vec![bind]).await.expect("a placing");
    leader.store.delete_object(reference(ResourceKind::Config, "app"), DeleteQuery::default()).await.expect("a delete");
    let left = leader.pods_of(&owner);
    assert_eq!(left.iter().map(|(_, retired)| *retired).collect::<Vec<_>>(), [true], "one had no node and is gone at once");
    assert!(leader.events(&format!("pod/{}", left[0].0)).await.iter().any(|event| event.message.contains("deleted with config/app")));
}

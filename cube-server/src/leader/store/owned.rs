//! What loops decide of resources that own pods, and the end of such resources.

use std::ops::Bound;
use std::sync::Arc;

use cube_api::event::EventKind;
use cube_api::meta::{Labels, Metadata, Name, Owner, ResourceKind, ResourceRef, Revision, Uid};
use cube_api::object::Object;
use cube_api::pod::{Placement, Pod, PodSpec, PodStatus};

use super::draft::Draft;
use super::state::State;
use super::{PodRow, lifecycle};

/// The longest part of an owner's name in the names of what it makes: with a word for the revision and five letters it still is a DNS label.
const MAX_STEM: usize = 46;

/// What a loop decided of a resource that owns pods or other resources. Written in one commit, or, if the resource isn't any more as it was looked
/// at, not at all.
#[derive(Debug, Clone)]
pub struct OwnerPass {
    /// As it is to be from now on. Its revision is still that which was looked at.
    pub owner: Object,
    /// Pods to be made.
    pub create: Vec<NewPod>,
    /// Pods to be stopped for good, each with why and, where it isn't the pod's own, the grace in seconds. Those that leave already are let be.
    pub retire: Vec<(Uid, String, Option<u32>)>,
    /// Pods that are shown as Terminating from now on and run on: they get no more requests before they are stopped by a later pass. Each with why.
    pub leave: Vec<(Uid, String)>,
    /// If given: the pass holds only while none of the owner's pods has changed after this revision. What takes pods away because others are there
    /// says so.
    pub pods_as_of: Option<Revision>,
    /// Resources to be made in its possession; one that is there already is let be. Only their names, labels and content count.
    pub make: Vec<Object>,
    /// Resources of its own to be deleted, with what they own.
    pub delete: Vec<ResourceRef>,
    /// What a person should read at the owner, in order.
    pub events: Vec<(EventKind, &'static str, String)>,
}

impl OwnerPass {
    /// That changes nothing yet.
    pub fn of(owner: &Object) -> Self {
        Self {
            owner: owner.clone(),
            create: Vec::new(),
            retire: Vec::new(),
            leave: Vec::new(),
            pods_as_of: None,
            make: Vec::new(),
            delete: Vec::new(),
            events: Vec::new(),
        }
    }
}

/// A pod that a resource is to get.
#[derive(Debug, Clone)]
pub struct NewPod {
    /// What its name begins with (as much of it as fits); five letters follow.
    pub stem: String,
    /// Its labels.
    pub labels: Labels,
    /// What it is to run. One value for all pods of a template.
    pub spec: Arc<PodSpec>,
    /// Why it is made, for its event.
    pub reason: String,
}

/// Writes a pass, if its owner still is as it was looked at; whether it was.
pub(super) fn settle(draft: &mut Draft<'_>, pass: OwnerPass) -> bool {
    let reference = pass.owner.reference();
    let Some(old) = draft.state().object(reference.kind, &reference.name).cloned() else { return false };
    let (now, looked_at) = (old.metadata(), pass.owner.metadata());
    if (now.uid, now.revision) != (looked_at.uid, looked_at.revision) || now.deletion_requested_at.is_some() {
        return false;
    }
    let has_changed = |as_of| draft.state().owned_by(&now.uid).any(|row| row.pod.metadata.revision > as_of);
    if pass.pods_as_of.is_some_and(has_changed) {
        return false;
    }
    let owner = Arc::new(Owner { kind: reference.kind, name: reference.name, uid: now.uid });
    draft.settles(Some(now.uid));
    for (uid, why, grace_seconds) in &pass.retire {
        let row = draft.state().pods.get(uid).filter(|row| row.retired.is_none()).cloned();
        if let Some(row) = row {
            lifecycle::retire(draft, &row, why, *grace_seconds);
        }
    }
    for (uid, why) in &pass.leave {
        leave(draft, uid, why);
    }
    for pod in pass.create {
        create(draft, &owner, pod);
    }
    draft.settles(None);
    for object in pass.make {
        make(draft, &owner, object);
    }
    for other in &pass.delete {
        remove(draft, other);
    }
    let after = if pass.owner == *old { old } else { draft.put_object(pass.owner) };
    for (kind, reason, message) in pass.events {
        draft.object_event(&after, kind, reason, message);
    }
    true
}

/// Shows a pod as Terminating. Its node isn't told anything yet.
fn leave(draft: &mut Draft<'_>, uid: &Uid, why: &str) {
    let Some(row) = draft.state().pods.get(uid).filter(|row| row.pod.metadata.deletion_requested_at.is_none()) else { return };
    let mut row = PodRow::clone(row);
    row.pod.metadata.deletion_requested_at = Some(draft.now);
    let row = draft.put_pod(row);
    draft.pod_event(&row, EventKind::Normal, "Leaving", format!("taken out of service, and stopped in a moment: {why}"));
}

fn create(draft: &mut Draft<'_>, owner: &Arc<Owner>, new: NewPod) {
    let name = free_name(draft, &new.stem);
    let metadata = Metadata {
        name,
        uid: draft.new_uid(),
        labels: draft.templates().labels.share(new.labels),
        generation: 1,
        revision: Revision::default(),
        created_at: draft.now,
        deletion_requested_at: None,
        owner: Some(owner.clone()),
    };
    let spec = draft.templates().specs.share(Arc::unwrap_or_clone(new.spec));
    let pod = Pod { metadata, spec, placement: Placement::default(), status: PodStatus::default() };
    let row = draft.put_pod(PodRow { pod, restarts: 0, retired: None });
    draft.pod_event(&row, EventKind::Normal, "Created", format!("created by {owner}: {}", new.reason));
}

/// A name that no pod has, not even one on its way out.
fn free_name(draft: &Draft<'_>, stem: &str) -> Name {
    let stem = stem.get(..MAX_STEM.min(stem.len())).unwrap_or_default().trim_end_matches('-');
    loop {
        let name = Name::new(format!("{stem}-{}", draft.new_suffix())).expect("the beginning of a label and five letters are a label");
        if draft.state().standing(&name).is_none() {
            return name;
        }
    }
}

/// Makes a resource in another's possession, unless one of its name is there.
pub(super) fn make(draft: &mut Draft<'_>, owner: &Arc<Owner>, mut object: Object) {
    if draft.state().object(object.kind(), &object.metadata().name).is_some() {
        return;
    }
    let (uid, now) = (draft.new_uid(), draft.now);
    let metadata = object.metadata_mut();
    *metadata = Metadata {
        name: metadata.name.clone(),
        uid,
        labels: metadata.labels.clone(),
        generation: 1,
        revision: Revision::default(),
        created_at: now,
        deletion_requested_at: None,
        owner: Some(owner.clone()),
    };
    let made = draft.put_object(object);
    draft.object_event(&made, EventKind::Normal, "Created", format!("created by {owner}"));
}

/// Has a resource go that its owner doesn't want any more, or that goes with its owner; with it what it owns.
fn remove(draft: &mut Draft<'_>, reference: &ResourceRef) {
    let Some(object) = draft.state().object(reference.kind, &reference.name).cloned() else { return };
    if !object.is_owner() {
        draft.drop_object(reference);
    } else if object.metadata().deletion_requested_at.is_none() {
        let mut leaving = Object::clone(&object);
        leaving.metadata_mut().deletion_requested_at = Some(draft.now);
        draft.put_object(leaving);
    }
    stop_owned(draft, &object, None);
}

/// Has all pods stop that a resource owns. A job counts their ends: what was read of it before is not as it is then.
pub(super) fn stop_owned(draft: &mut Draft<'_>, owner: &Object, grace_seconds: Option<u32>) {
    let why = format!("deleted with {}", owner.reference());
    let pods: Vec<_> = draft.state().owned_by(&owner.metadata().uid).filter(|row| row.retired.is_none()).cloned().collect();
    for pod in pods {
        lifecycle::retire(draft, &pod, &why, grace_seconds);
    }
}

/// The resources that are being deleted and own nothing any more, or own what isn't told to go yet.
pub(super) fn leaving(state: &State) -> Vec<ResourceRef> {
    let all = ResourceKind::ALL.into_iter().flat_map(|kind| state.objects(kind, Bound::Unbounded));
    // A volume goes by its node's word.
    let is_leaving = |object: &Object| object.is_owner() && object.metadata().deletion_requested_at.is_some();
    all.filter(|(_, object)| is_leaving(object)).map(|(_, object)| object.reference()).collect()
}

/// Goes on with a delete: tells what the resource owns to go, and drops it once it owns nothing.
pub(super) fn go_on_with_delete(draft: &mut Draft<'_>, reference: &ResourceRef) {
    let Some(object) = draft.state().object(reference.kind, &reference.name).cloned() else { return };
    if object.metadata().deletion_requested_at.is_none() {
        return;
    }
    let uid = object.metadata().uid;
    stop_owned(draft, &object, None);
    let owned = owned_objects(draft.state(), &uid);
    for other in &owned {
        remove(draft, other);
    }
    // Some of them may be gone by now.
    if owned_objects(draft.state(), &uid).is_empty() && draft.state().owned_by(&uid).next().is_none() {
        draft.drop_object(reference);
        draft.object_event(&object, EventKind::Normal, "Deleted", "deleted; what it owned is gone");
    }
}

fn owned_objects(state: &State, owner: &Uid) -> Vec<ResourceRef> {
    let all = ResourceKind::ALL.into_iter().flat_map(|kind| state.objects(kind, Bound::Unbounded));
    let is_owned = |object: &Object| object.metadata().owner.as_ref().is_some_and(|by| by.uid == *owner);
    all.filter(|(_, object)| is_owned(object)).map(|(_, object)| object.reference()).collect()
}

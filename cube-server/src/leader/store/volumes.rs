//! Named volumes, and the values that pods take from secrets and configs: what a node is told of them, who waits for them, and their end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cube_api::event::EventKind;
use cube_api::meta::{Metadata, Name, ResourceKind, Revision, Uid};
use cube_api::object::Object;
use cube_api::pod::{PodSpec, Source, SourceKind};
use cube_api::sources::{Hidden, Sources, Values};
use cube_api::volume::NamedVolume;
use cube_api::{ApiError, ErrorCode};

use super::PodRow;
use super::draft::Draft;
use super::state::State;

/// The values of one assignment: each is read once, however many pods name it.
#[derive(Default)]
pub(super) struct Read<'a>(BTreeMap<Source<'a>, Arc<Values>>);

impl<'a> Read<'a> {
    /// What a node is told of all that a pod names; none where it names nothing, or nothing of it is there.
    pub(super) fn sources(&mut self, state: &'a State, spec: &'a PodSpec) -> Option<Arc<Sources>> {
        let mut sources = Sources::default();
        for wanted in spec.wanted() {
            let Some(values) = self.values(state, wanted.of) else { continue };
            let of_kind = match wanted.of.kind {
                SourceKind::Secret => &mut sources.secrets,
                SourceKind::Config => &mut sources.configs,
            };
            of_kind.insert(wanted.of.name.clone(), values);
        }
        let volumes = spec.claims().filter_map(|name| Some((name.clone(), state.volume(name)?.metadata.uid)));
        sources.volumes = volumes.collect();
        (!sources.is_empty()).then(|| Arc::new(sources))
    }

    fn values(&mut self, state: &State, of: Source<'a>) -> Option<Arc<Values>> {
        if let Some(read) = self.0.get(&of) {
            return Some(read.clone());
        }
        let values = Arc::new(values(state.object(kind(of.kind), of.name)?)?);
        self.0.insert(of, values.clone());
        Some(values)
    }
}

fn kind(kind: SourceKind) -> ResourceKind {
    match kind {
        SourceKind::Secret => ResourceKind::Secret,
        SourceKind::Config => ResourceKind::Config,
    }
}

fn values(object: &Object) -> Option<Values> {
    let revision = object.metadata().revision;
    let data = match object {
        Object::Secret(secret) => secret.data.iter().map(|(key, value)| (key.clone(), Hidden(value.0.clone().into()))).collect(),
        Object::Config(config) => config.data.iter().map(|(key, value)| (key.clone(), Hidden(value.clone().into()))).collect(),
        Object::Volume(_) | Object::Job(_) | Object::CronJob(_) | Object::Deployment(_) => return None,
    };
    Some(Values { revision, data })
}

impl State {
    /// A named volume.
    pub fn volume(&self, name: &Name) -> Option<&NamedVolume> {
        match &**self.object(ResourceKind::Volume, name)? {
            Object::Volume(volume) => Some(volume),
            Object::Secret(_) | Object::Config(_) | Object::Job(_) | Object::CronJob(_) | Object::Deployment(_) => None,
        }
    }

    /// What a pod waits for before any node may have it: a secret, a config or a key that isn't there, or a volume on its way out.
    pub fn lacks(&self, spec: &PodSpec) -> Option<String> {
        for wanted in spec.wanted().filter(|wanted| !wanted.optional) {
            let Some(object) = self.object(kind(wanted.of.kind), wanted.of.name) else { return Some(format!("{} not found", wanted.of)) };
            let has = |key: &str| match &**object {
                Object::Secret(secret) => secret.data.contains_key(key),
                Object::Config(config) => config.data.contains_key(key),
                Object::Volume(_) | Object::Job(_) | Object::CronJob(_) | Object::Deployment(_) => false,
            };
            if let Some(key) = wanted.keys.iter().find(|key| !has(key)) {
                return Some(format!("{} has no key '{key}'", wanted.of));
            }
        }
        let leaving = spec.claims().find(|name| self.volume(name).is_some_and(|volume| volume.metadata.deletion_requested_at.is_some()));
        leaving.map(|name| format!("volume/{name} is being deleted: the pod gets a new one once it is gone"))
    }

    /// The nodes that run pods which name this resource.
    pub fn nodes_naming(&self, kind: ResourceKind, name: &Name) -> BTreeSet<Name> {
        let names = |spec: &PodSpec| match kind {
            ResourceKind::Secret => spec.wanted().any(|wanted| wanted.of == Source { kind: SourceKind::Secret, name }),
            ResourceKind::Config => spec.wanted().any(|wanted| wanted.of == Source { kind: SourceKind::Config, name }),
            ResourceKind::Volume => spec.claims().any(|claim| claim == name),
            ResourceKind::Pod | ResourceKind::Node | ResourceKind::Job | ResourceKind::CronJob | ResourceKind::Deployment => false,
        };
        // Pods of one template share their spec, and mostly follow each other.
        let mut last: Option<(&Arc<PodSpec>, bool)> = None;
        let mut nodes = BTreeSet::new();
        for row in self.pods.values() {
            let Some(node) = &row.pod.placement.node else { continue };
            let spec = &row.pod.spec;
            let is_named = match last {
                Some((known, is_named)) if Arc::ptr_eq(known, spec) => is_named,
                Some(_) | None => names(spec),
            };
            last = Some((spec, is_named));
            if is_named {
                nodes.insert(node.clone());
            }
        }
        nodes
    }

    /// The deleted volumes whose data a node still has.
    pub(super) fn volumes_to_drop(&self, node: &Name) -> Vec<Uid> {
        let leaving = self.volumes().filter(|volume| volume.metadata.deletion_requested_at.is_some() && volume.node == *node);
        leaving.map(|volume| volume.metadata.uid).collect()
    }

    /// The pods on a node that claim a volume, also those on their way out, whose containers may write yet, and finished ones, whose containers hold it.
    pub fn users_of(&self, volume: &Name) -> Vec<Name> {
        let claims = |row: &&Arc<PodRow>| row.pod.placement.node.is_some() && row.pod.spec.claims().any(|claim| claim == volume);
        self.pods.values().filter(claims).map(|row| row.pod.metadata.name.clone()).collect()
    }

    fn volumes(&self) -> impl Iterator<Item = &NamedVolume> {
        self.objects(ResourceKind::Volume, std::ops::Bound::Unbounded).filter_map(|(name, _)| self.volume(name))
    }
}

/// Makes the volumes that a pod claims, on the node that it gets; false if one of them is elsewhere or on its way out, as another decision of the
/// same pass can have it: then the pod is decided about again.
pub(super) fn claim(draft: &mut Draft<'_>, row: &PodRow, node: &Name) -> bool {
    let claims: BTreeSet<_> = row.pod.spec.claims().cloned().collect();
    let is_here = |volume: &NamedVolume| volume.node == *node && volume.metadata.deletion_requested_at.is_none();
    if claims.iter().any(|name| draft.state().volume(name).is_some_and(|volume| !is_here(volume))) {
        return false;
    }
    for name in claims {
        if draft.state().volume(&name).is_some() {
            continue;
        }
        let metadata = Metadata {
            name,
            uid: draft.new_uid(),
            labels: Arc::default(),
            generation: 1,
            revision: Revision::default(),
            created_at: draft.now,
            deletion_requested_at: None,
            owner: None,
        };
        let made = draft.put_object(Object::Volume(NamedVolume { metadata, node: node.clone(), used_by: Vec::new() }));
        let message = format!("on node {node}: pod/{} claims it and was placed there", row.pod.metadata.name);
        draft.object_event(&made, EventKind::Normal, "Created", message);
    }
    true
}

/// Has a volume's node remove its data; the volume goes with the node's word that nothing is left. Refused while a pod claims it.
pub(super) fn delete(draft: &mut Draft<'_>, volume: &NamedVolume) -> Result<Object, ApiError> {
    let (name, node) = (&volume.metadata.name, &volume.node);
    let users = draft.state().users_of(name);
    if let Some(first) = users.first() {
        let message = format!("volume/{name} is used by {}", users.iter().map(|pod| format!("pod/{pod}")).collect::<Vec<_>>().join(", "));
        let hint = format!("delete that first: 'cube delete pod/{first}'; the volume's data go with the volume");
        return Err(ApiError::new(ErrorCode::Conflict, message).hint(hint));
    }
    let mut leaving = volume.clone();
    leaving.metadata.deletion_requested_at.get_or_insert(draft.now);
    let leaving = Object::Volume(leaving);
    if !draft.state().nodes.contains_key(node) {
        draft.drop_object(&leaving.reference());
        draft.object_event(&leaving, EventKind::Normal, "Deleted", format!("deleted by the user; its node {node} was deleted before"));
        return Ok(leaving);
    }
    if volume.metadata.deletion_requested_at.is_some() {
        return Ok(leaving);
    }
    let leaving = draft.put_object(leaving);
    draft.object_event(&leaving, EventKind::Normal, "Deleting", format!("deleted by the user: node {node} removes its data"));
    Ok(Object::clone(&leaving))
}

/// A node says that nothing is left of deleted volumes.
pub(super) fn dropped(draft: &mut Draft<'_>, node: &Name, uids: &[Uid]) {
    for uid in uids {
        let is_it =
            |volume: &&NamedVolume| volume.metadata.uid == *uid && volume.node == *node && volume.metadata.deletion_requested_at.is_some();
        let found = draft.state().volumes().find(is_it).cloned();
        if let Some(volume) = found {
            gone(draft, volume, format!("node {node} has removed its data"));
        }
    }
}

/// A node is forgotten: it removes nothing any more.
pub(super) fn node_gone(draft: &mut Draft<'_>, node: &Name) {
    let leaving: Vec<_> =
        draft.state().volumes().filter(|volume| volume.node == *node && volume.metadata.deletion_requested_at.is_some()).cloned().collect();
    for volume in leaving {
        gone(draft, volume, format!("its node {node} was deleted"));
    }
}

fn gone(draft: &mut Draft<'_>, volume: NamedVolume, how: String) {
    let volume = Object::Volume(volume);
    draft.drop_object(&volume.reference());
    draft.object_event(&volume, EventKind::Normal, "Deleted", how);
}

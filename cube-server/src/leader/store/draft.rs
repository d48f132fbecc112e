//! One operation at work: it reads the state as of itself, changes rows, and leaves the list of its writes.
//!
//! Every change goes to the writer's state at once, so that the operations of a batch see each other; the writes know the way back. A row that
//! changes gets the next revision. Knows no SQL.

use std::sync::Arc;

use cube_api::event::{Event, EventKind};
use cube_api::meta::{ClusterId, Name, NodeId, ResourceKind, ResourceRef, Revision, Uid};
use cube_api::node::Node;
use cube_api::object::Object;
use jiff::Timestamp;

use super::PodRow;
use super::fence::Fence;
use super::state::{KeptNode, KeptPod, Machine, State, Write};
use super::templates::Templates;
use crate::ambient::Ambient;

/// The source of events that the leader makes.
const LEADER: &str = "leader";

/// An operation's view and its writes so far.
pub(super) struct Draft<'a> {
    state: &'a mut State,
    templates: &'a mut Templates,
    ambient: &'a Ambient,
    /// This cluster.
    pub(super) cluster_id: ClusterId,
    /// When the operation began.
    pub(super) now: Timestamp,
    began_at: Revision,
    writes: Vec<Write>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(state: &'a mut State, templates: &'a mut Templates, ambient: &'a Ambient, cluster_id: ClusterId) -> Self {
        Self { now: ambient.now(), began_at: state.revision, state, templates, ambient, cluster_id, writes: Vec::new() }
    }

    /// What new pods may have in common with others.
    pub(super) fn templates(&mut self) -> &mut Templates {
        self.templates
    }

    /// As of the writes so far.
    pub(super) fn state(&self) -> &State {
        self.state
    }

    /// The revision before its first write.
    pub(super) fn began_at(&self) -> Revision {
        self.began_at
    }

    /// Five letters and digits for the end of a made-up name: no vowels, so that they are no words, and none that look alike (Kubernetes' alphabet).
    pub(super) fn new_suffix(&self) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut random = self.ambient.random();
        let mut letter = || {
            let chosen = ALPHABET[(random % ALPHABET.len() as u64) as usize];
            random /= ALPHABET.len() as u64;
            char::from(chosen)
        };
        (0..5).map(|_| letter()).collect()
    }

    /// A new pod's identity: greater than every kept one's, so that their order is the order in which they were accepted, also within a
    /// millisecond and after the clock was set back.
    pub(super) fn new_uid(&self) -> Uid {
        let newest = self.state.pods.last_key_value().map_or(Uid::NONE, |(uid, _)| *uid);
        Uid(self.ambient.uuid_after(newest.0))
    }

    /// Makes or changes a pod; answers it with its new revision.
    pub(super) fn put_pod(&mut self, row: PodRow) -> Arc<PodRow> {
        let sequence = self.state.kept_pod(&row.pod.metadata.uid).map_or(0, |kept| kept.report_sequence);
        self.put_reported_pod(row, sequence)
    }

    /// As [`Draft::put_pod`], noting the report that said so.
    pub(super) fn put_reported_pod(&mut self, mut row: PodRow, report_sequence: u64) -> Arc<PodRow> {
        let before = self.state.kept_pod(&row.pod.metadata.uid);
        let revision = self.next_revision();
        row.pod.metadata.revision = revision;
        let row = Arc::new(row);
        self.keep(Write::Pod { revision, before, after: Some(KeptPod { row: row.clone(), report_sequence }) });
        row
    }

    /// Removes a pod's row, if it is there.
    pub(super) fn drop_pod(&mut self, uid: &Uid) {
        if let Some(before) = self.state.kept_pod(uid) {
            let revision = self.next_revision();
            self.keep(Write::Pod { revision, before: Some(before), after: None });
        }
    }

    /// Makes or changes a node.
    pub(super) fn put_node(&mut self, mut node: Node, machine: Machine) {
        let before = self.state.kept_node(&node.name);
        let revision = self.next_revision();
        node.revision = revision;
        self.keep(Write::Node { revision, before, after: Some(KeptNode { node: Arc::new(node), machine }) });
    }

    /// Removes a node, if it is there.
    pub(super) fn drop_node(&mut self, name: &Name) {
        if let Some(before) = self.state.kept_node(name) {
            let revision = self.next_revision();
            self.keep(Write::Node { revision, before: Some(before), after: None });
        }
    }

    /// Makes or changes a resource that is neither pod nor node; answers it with its new revision.
    pub(super) fn put_object(&mut self, mut object: Object) -> Arc<Object> {
        let before = self.state.object(object.kind(), &object.metadata().name).cloned();
        let revision = self.next_revision();
        object.metadata_mut().revision = revision;
        let object = Arc::new(object);
        self.keep(Write::Object { revision, before, after: Some(object.clone()) });
        object
    }

    /// Removes such a resource, if it is there.
    pub(super) fn drop_object(&mut self, reference: &ResourceRef) {
        if let Some(before) = self.state.object(reference.kind, &reference.name).cloned() {
            let revision = self.next_revision();
            self.keep(Write::Object { revision, before: Some(before), after: None });
        }
    }

    /// Notes how far a data folder's events are stored; `None` forgets it.
    pub(super) fn put_events_through(&mut self, node_id: NodeId, after: Option<u64>) {
        let before = self.state.events_through(&node_id);
        if before != after {
            self.keep(Write::EventsThrough { node_id, before, after });
        }
    }

    /// Notes what a restored leader waits for; `None`: nothing any more.
    pub(super) fn put_fence(&mut self, after: Option<Arc<Fence>>) {
        let before = self.state.fence.clone();
        if before != after {
            self.keep(Write::Fence { before, after });
        }
    }

    /// The leader saw something happen to a pod.
    pub(super) fn pod_event(&mut self, row: &PodRow, kind: EventKind, reason: &str, message: impl Into<String>) {
        let metadata = &row.pod.metadata;
        let object = ResourceRef { kind: ResourceKind::Pod, name: metadata.name.clone() };
        self.leader_event(object, Some(metadata.uid), kind, reason, message.into());
    }

    /// The leader saw something happen to a node.
    pub(super) fn node_event(&mut self, node: &Name, kind: EventKind, reason: &str, message: impl Into<String>) {
        let object = ResourceRef { kind: ResourceKind::Node, name: node.clone() };
        self.leader_event(object, None, kind, reason, message.into());
    }

    /// The leader saw something happen to another resource.
    pub(super) fn object_event(&mut self, object: &Object, kind: EventKind, reason: &str, message: impl Into<String>) {
        self.leader_event(object.reference(), Some(object.metadata().uid), kind, reason, message.into());
    }

    /// Keeps an event; its count and revision are set here.
    pub(super) fn event(&mut self, event: Event) {
        let revision = self.next_revision();
        self.keep(Write::Event(Event { count: 1, revision, ..event }));
    }

    /// The writes, in order.
    pub(super) fn into_writes(self) -> Vec<Write> {
        self.writes
    }

    fn leader_event(&mut self, object: ResourceRef, uid: Option<Uid>, kind: EventKind, reason: &str, message: String) {
        self.event(Event {
            object,
            uid,
            kind,
            reason: reason.to_owned(),
            message,
            count: 1,
            first_at: self.now,
            last_at: self.now,
            source: LEADER.to_owned(),
            revision: Revision::default(),
        });
    }

    fn next_revision(&mut self) -> Revision {
        self.state.revision.0 += 1;
        self.state.revision
    }

    fn keep(&mut self, write: Write) {
        self.state.follow(&write);
        self.writes.push(write);
    }
}

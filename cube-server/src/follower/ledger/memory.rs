//! The ledger of a hollow node: no file. What only the next start would read (assignments, records) is not kept, for there is none; events wait in
//! memory as they would in the outbox.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use cube_api::meta::{Name, NodeId, Uid};
use cube_api::session::{Epoch, NodeEvent};
use jiff::Timestamp;

use super::{Keeper, Ledger, Membership, Opened};
use crate::ambient::Ambient;
use crate::disk::{Disk, Space};
use crate::follower::plan::Note;
use crate::sqlite::room::Room;

/// The most events that wait; beyond, the oldest go without a word. A file keeps 10,000, but there are thousands of hollow nodes in a process.
const MAX_EVENTS: usize = 1_000;

/// Events that the leader doesn't have.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<NodeEvent>,
    sequence: u64,
}

impl Ledger {
    /// An empty one that is gone with the process.
    pub fn in_memory(ambient: &Ambient) -> (Self, Opened) {
        let membership = Membership { cluster: None, epoch: Epoch(0), life: None, generation: None };
        let opened = Opened { node_id: NodeId(ambient.uuid()), starts: 1, membership, home: None, pods: BTreeMap::new() };
        let outbox = Arc::new(Mutex::new(Outbox::default()));
        (Self { keeper: Keeper::Memory(outbox), room: Room::new(Arc::new(NoDisk)) }, opened)
    }
}

impl Outbox {
    pub(super) fn add(&mut self, uid: Uid, pod: &Name, notes: Vec<Note>, at: Timestamp) {
        for Note { kind, reason, message } in notes {
            self.sequence += 1;
            let (sequence, pod, reason) = (self.sequence, pod.clone(), reason.to_owned());
            self.waiting.push_back(NodeEvent { sequence, uid, pod, kind, reason, message, at });
        }
        let surplus = self.waiting.len().saturating_sub(MAX_EVENTS);
        self.waiting.drain(..surplus);
    }

    pub(super) fn oldest(&self, limit: usize) -> Vec<NodeEvent> {
        self.waiting.iter().take(limit).cloned().collect()
    }

    pub(super) fn accepted(&mut self, through: u64) {
        while self.waiting.front().is_some_and(|event| event.sequence <= through) {
            self.waiting.pop_front();
        }
    }
}

/// Nothing is written, so nothing can lack room.
struct NoDisk;

impl Disk for NoDisk {
    fn folder(&self) -> &Path {
        Path::new("")
    }

    fn space(&self) -> io::Result<Space> {
        Ok(Space { free: u64::MAX, all: u64::MAX })
    }

    fn is_full(&self) -> bool {
        false
    }

    fn take_reserve(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn give_piece(&self) -> io::Result<bool> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_wait_in_order_until_they_are_accepted_and_the_oldest_go_first() {
        let ambient = Ambient::system();
        let (ledger, _) = Ledger::in_memory(&ambient);
        let pod = Name::new("web").expect("a label");
        let notes = |from: usize, to: usize| (from..to).map(|number| Note::normal("Started", format!("event {number}"))).collect();
        ledger.save(Uid::NONE, pod.clone(), None, notes(0, 3), ambient.now()).await.expect("kept");
        let two = ledger.events(2).await.expect("there");
        assert_eq!(two.iter().map(|event| event.message.as_str()).collect::<Vec<_>>(), ["event 0", "event 1"]);
        ledger.events_accepted(2).await.expect("dropped");
        assert_eq!(ledger.events(10).await.expect("there").iter().map(|event| event.sequence).collect::<Vec<_>>(), [3]);
        ledger.save(Uid::NONE, pod, None, notes(3, 3 + MAX_EVENTS), ambient.now()).await.expect("kept");
        let all = ledger.events(usize::MAX).await.expect("there");
        assert_eq!((all.len(), all[0].sequence, all[0].message.as_str()), (MAX_EVENTS, 4, "event 3"));
    }
}

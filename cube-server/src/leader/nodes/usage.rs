//! What the machines of the nodes use, by the newest word of each. In memory only: nobody decides by it, it changes all the time, and a leader
//! that starts is told again by each node as soon as that is connected.

use std::collections::BTreeMap;
use std::sync::Mutex;

use cube_api::meta::Name;
use cube_api::node::Usage;

use super::Nodes;

/// The newest word of each node that said something.
#[derive(Default)]
pub(super) struct Usages {
    told: Mutex<BTreeMap<Name, Usage>>,
}

impl Nodes {
    /// A node's report was taken, and said this.
    pub fn note_usage(&self, node: Name, usage: Option<Usage>) {
        let mut told = self.usages.told.lock().expect("nothing panics while it is held");
        match usage {
            Some(usage) => drop(told.insert(node, usage)),
            None => drop(told.remove(&node)),
        }
        // One that was deleted while its last report was taken.
        self.store.read(|state| {
            if told.len() > state.nodes.len() {
                told.retain(|name, _| state.nodes.contains_key(name));
            }
        });
    }

    /// What a node's machine uses; none until it has said so, and while the node isn't connected: what it said last may be long over.
    pub fn usage(&self, node: &Name) -> Option<Usage> {
        let told = self.usages.told.lock().expect("nothing panics while it is held").get(node).copied();
        told.filter(|_| self.sessions.is_live(node))
    }
}

//! What a pod asks of a node.

use cube_api::meta::Labels;
use cube_api::pod::{PodSpec, Strategy};

use crate::leader::store::Reserved;
use cube_api::pod::HostPort;

/// All of a pod that its placing depends on; pods for which this is equal are placed alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Need<'a> {
    pub(super) strategy: Strategy,
    pub(super) reserved: Reserved,
    pub(super) host_ports: Vec<HostPort>,
    pub(super) selector: &'a Labels,
}

impl<'a> Need<'a> {
    /// Of a pod; `strategy` where it names none.
    pub(super) fn of(spec: &'a PodSpec, strategy: Strategy) -> Self {
        let (reserved, host_ports) = (Reserved::of(spec), HostPort::of(spec).collect());
        Self { strategy: spec.strategy.unwrap_or(strategy), reserved, host_ports, selector: &spec.node_selector }
    }

    /// Whether one node can't publish the ports of both.
    pub(super) fn collides(&self, other: &Self) -> bool {
        self.host_ports.iter().any(|port| other.host_ports.iter().any(|theirs| theirs.collides(port)))
    }
}

//! Free host ports: which of the node's ports a pod gets where its manifest leaves that to the node.
//!
//! The node chooses and not the leader: several nodes may share one machine, and only the machine knows what else listens there. A port is chosen from
//! the node's range, is none that an assigned pod of this node has or asks for, and is one that a bind finds free on its address. It is in the pod's
//! record before the engine hears of it, and a pod keeps it, over restarts of all kinds, for as long as nobody else takes it while it isn't published.
//!
//! What pods have is held here from the first moment of a life, by their records, so that no pod is given what another one waits to publish again.

mod plan;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use cube_api::meta::{Name, Uid};
use cube_api::pod::{HostPort, PodSpec, Port, Protocol, PublishedPort};

use super::record::PodRecord;
use super::runtime::{Runtime, RuntimeError};

pub use self::plan::{FreePorts, variables};

/// The host ports of the node's pods. Clones share them.
#[derive(Clone)]
pub struct Ports {
    inner: Arc<Inner>,
}

struct Inner {
    range: FreePorts,
    held: Mutex<BTreeMap<Uid, Vec<HostPort>>>,
}

/// What to choose for.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// Whose.
    pub uid: Uid,
    /// What it asks for.
    pub spec: &'a PodSpec,
    /// What it had: those are taken again if they are still free.
    pub before: &'a [PublishedPort],
    /// The search begins behind this one, which the engine found taken; without it, at `random`.
    pub after: Option<u16>,
    /// Any number.
    pub random: u64,
}

impl Ports {
    /// Those of the range are given away; these pods are kept from the life before.
    pub fn new<'a>(range: FreePorts, kept: impl Iterator<Item = (Uid, &'a PodSpec, &'a PodRecord)>) -> Self {
        let held = kept.filter(|(_, _, record)| !record.is_stopped());
        let held = held.map(|(uid, spec, record)| (uid, of(spec, record.chosen_ports()).iter().map(PublishedPort::taken).collect()));
        Self { inner: Arc::new(Inner { range, held: Mutex::new(held.filter(|(_, ports): &(_, Vec<_>)| !ports.is_empty()).collect()) }) }
    }

    /// A pod is here that wants these by number, if nothing is known of it yet.
    pub fn expect(&self, uid: Uid, spec: &PodSpec) {
        let fixed: Vec<_> = HostPort::of(spec).collect();
        if !fixed.is_empty() {
            self.held().entry(uid).or_insert(fixed);
        }
    }

    /// What a pod has from now on, in place of what it had.
    pub fn hold(&self, uid: Uid, ports: impl Iterator<Item = HostPort>) {
        let (ports, mut held) = (ports.collect::<Vec<_>>(), self.held());
        if ports.is_empty() { drop(held.remove(&uid)) } else { drop(held.insert(uid, ports)) }
    }

    /// Chooses a port for each that the pod asks for without a number.
    ///
    /// # Errors
    /// Refused, where none of the range is free.
    pub async fn choose(&self, runtime: &dyn Runtime, wish: Wish<'_>) -> Result<Vec<PublishedPort>, RuntimeError> {
        self.held().insert(wish.uid, HostPort::of(wish.spec).collect());
        let mut chosen = Vec::new();
        for (container, port) in wish.spec.published().filter(|(_, port)| port.wants_free_host_port()) {
            let number = self.choose_one(runtime, wish, container, port).await?;
            chosen.push(PublishedPort::new(container, port, number));
        }
        Ok(chosen)
    }

    async fn choose_one(&self, runtime: &dyn Runtime, wish: Wish<'_>, container: &Name, port: &Port) -> Result<u16, RuntimeError> {
        let before = wish.before.iter().find(|before| before.is_of(container, port)).map(|before| before.host_port);
        for number in self.inner.range.from(before, wish.after, wish.random) {
            let wanted = HostPort { port: number, protocol: port.protocol, ip: port.published_on() };
            // Taken first, so that no other pod tries it at the same time and finds our trial there.
            if !self.take(wish.uid, wanted) {
                continue;
            }
            if runtime.port_is_free(wanted).await {
                return Ok(number);
            }
            self.give_back(wish.uid, wanted);
        }
        Err(RuntimeError::Refused {
            operation: "choose a host port",
            problem: none_free(self.inner.range, port.protocol, port.published_on()),
        })
    }

    /// Whether nobody had it.
    fn take(&self, uid: Uid, wanted: HostPort) -> bool {
        let mut held = self.held();
        let is_free = !held.values().flatten().any(|held| held.collides(&wanted));
        if is_free {
            held.entry(uid).or_default().push(wanted);
        }
        is_free
    }

    fn give_back(&self, uid: Uid, tried: HostPort) {
        self.held().entry(uid).or_default().retain(|held| *held != tried);
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Uid, Vec<HostPort>>> {
        self.inner.held.lock().expect("nothing panics while it is held")
    }
}

fn none_free(range: FreePorts, protocol: Protocol, ip: Option<IpAddr>) -> String {
    let protocol = match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let address = ip.map(|ip| format!(" on {ip}")).unwrap_or_default();
    format!("no host port of {range} ({protocol}) is free{address}: free one, or start cube-server with a wider --free-ports")
}

/// What is published of a pod: the ports that it asks for by number, and those that were chosen for it so far.
pub fn of(spec: &PodSpec, chosen: &[PublishedPort]) -> Vec<PublishedPort> {
    let ports = spec.published().filter_map(|(container, port)| match port.fixed_host_port() {
        Some(number) => Some(PublishedPort::new(container, port, number)),
        None => chosen.iter().find(|chosen| chosen.is_of(container, port)).cloned(),
    });
    ports.collect()
}

#[cfg(test)]
mod tests;

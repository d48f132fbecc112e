//! What becomes of a container's ports on the node: asked for, and got.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::PodSpec;
use super::container::{Port, Protocol};
use crate::meta::Name;

impl Port {
    /// The port of the node that it asks for by number.
    pub fn fixed_host_port(&self) -> Option<u16> {
        self.host_port.filter(|number| *number != 0)
    }

    /// Whether any free port of the node will do: `hostPort: 0`, or a `hostIP` alone.
    pub fn wants_free_host_port(&self) -> bool {
        match self.host_port {
            Some(number) => number == 0,
            None => self.host_ip.is_some(),
        }
    }

    /// Whether it is published on the node at all.
    pub fn is_published(&self) -> bool {
        self.host_port.is_some() || self.host_ip.is_some()
    }

    /// The one address of the node that it is published on; none: all of them, as `0.0.0.0` and `::` say too.
    pub fn published_on(&self) -> Option<IpAddr> {
        self.host_ip.filter(|ip| !ip.is_unspecified())
    }
}

/// A port of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// The port.
    pub port: u16,
    /// The transport.
    pub protocol: Protocol,
    /// The node's address; none: all of them.
    pub ip: Option<IpAddr>,
}

impl HostPort {
    /// Those that a pod asks for by number.
    pub fn of(spec: &PodSpec) -> impl Iterator<Item = Self> + '_ {
        let fixed = |(_, port): (_, &Port)| Some(Self { port: port.fixed_host_port()?, protocol: port.protocol, ip: port.published_on() });
        spec.published().filter_map(fixed)
    }

    /// Whether only one of the two can be published: the same port and protocol on one address.
    pub fn collides(&self, other: &Self) -> bool {
        let same_address = self.ip.is_none() || other.ip.is_none() || self.ip == other.ip;
        self.port == other.port && self.protocol == other.protocol && same_address
    }
}

/// A port of a container, and the node's port that leads to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedPort {
    /// Whose.
    pub container: Name,
    /// The port's name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Where the process listens.
    pub container_port: u16,
    /// The transport.
    #[serde(default)]
    pub protocol: Protocol,
    /// The node's address that it is published on; all when absent.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The node's port: the manifest's, or the free one that the node chose.
    pub host_port: u16,
}

impl PublishedPort {
    /// A container's port on this one of the node.
    pub fn new(container: &Name, port: &Port, host_port: u16) -> Self {
        let Port { name, container_port, protocol, host_ip, .. } = port.clone();
        Self { container: container.clone(), name, container_port, protocol, host_ip, host_port }
    }

    /// The node's port that it takes.
    pub fn taken(&self) -> HostPort {
        HostPort { port: self.host_port, protocol: self.protocol, ip: self.host_ip.filter(|ip| !ip.is_unspecified()) }
    }

    /// Whether it is what became of this port.
    pub fn is_of(&self, container: &Name, port: &Port) -> bool {
        let Port { container_port, protocol, host_ip, .. } = *port;
        self.container == *container && (self.container_port, self.protocol, self.host_ip) == (container_port, protocol, host_ip)
    }
}

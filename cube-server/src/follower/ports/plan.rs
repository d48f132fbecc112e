//! Which numbers are tried, in which order, and what containers are told of them. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use cube_api::meta::Name;
use cube_api::pod::{Protocol, PublishedPort};

/// The ports that a node gives away: all from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreePorts {
    first: u16,
    last: u16,
}

impl Default for FreePorts {
    /// Kubernetes' range of node ports; it ends where Linux' own for the near ends of connections begins.
    fn default() -> Self {
        Self { first: 30_000, last: 32_767 }
    }
}

impl FreePorts {
    /// Every port of the range, once: the one that the pod had before, then round from behind `after`, or from anywhere. Not always from the first: a
    /// port that has just become free is the one that clients of the pod before still talk to.
    pub(super) fn from(self, before: Option<u16>, after: Option<u16>, random: u64) -> impl Iterator<Item = u16> {
        let count = u64::from(self.last - self.first) + 1;
        let start = match after.filter(|after| (self.first..=self.last).contains(after)) {
            Some(after) => u64::from(after - self.first) + 1,
            None => random % count,
        };
        // Lossless: less than `count`, which is at most 65,535.
        let around = (0..count).map(move |step| self.first + ((start + step) % count) as u16);
        // A port outside of the range is from before the range was changed: it was promised, so it stays.
        let before = before.filter(|before| after != Some(*before));
        before.into_iter().chain(around.filter(move |number| before != Some(*number)))
    }
}

impl FromStr for FreePorts {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no range of ports, such as {}", Self::default());
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
        let (first, last) = (port(first)?, port(last)?);
        if first > last { Err(format!("'{text}' begins after its end")) } else { Ok(Self { first, last }) }
    }
}

impl fmt::Display for FreePorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// What every container of a pod is told of the pod's host ports: `CUBE_HOST_PORT_80=30123`, `CUBE_HOST_PORT_53_UDP=30124`, and by a port's name
/// `CUBE_HOST_PORT_METRICS=30125`. Where two ports would have one variable, the first of the manifest has it.
pub fn variables(ports: &[PublishedPort]) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for port in ports {
        let suffix = match port.protocol {
            Protocol::Tcp => "",
            Protocol::Udp => "_UDP",
        };
        let number = Some(format!("CUBE_HOST_PORT_{}{suffix}", port.container_port));
        let name = port.name.as_ref().map(|name| format!("CUBE_HOST_PORT_{}", word(name)));
        for variable in number.into_iter().chain(name) {
            variables.entry(variable).or_insert_with(|| port.host_port.to_string());
        }
    }
    variables
}

/// A name as shells take it in a variable's.
fn word(name: &Name) -> String {
    name.as_str().to_uppercase().replace('-', "_")
}

//! Why a node doesn't take a pod, and what a person reads of it: `0/3 nodes fit: 2 lack memory (need 512Mi), 1 is cordoned`.

use super::need::Need;
use crate::leader::store::Reserved;

/// Why a node doesn't take a pod: the first of these that holds, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unfit {
    NotReady,
    Cordoned,
    Selector,
    Volume,
    HostPath,
    Cpu,
    Memory,
    Disk,
    HostPorts,
    PodLimit,
}

impl Unfit {
    const ALL: [Self; 10] = [
        Self::NotReady,
        Self::Cordoned,
        Self::Selector,
        Self::Volume,
        Self::HostPath,
        Self::Cpu,
        Self::Memory,
        Self::Disk,
        Self::HostPorts,
        Self::PodLimit,
    ];

    /// Whether it stays so for a whole pass: what pods take doesn't touch it.
    pub(super) fn is_fixed(self) -> bool {
        match self {
            Self::NotReady | Self::Cordoned | Self::Selector | Self::Volume | Self::HostPath => true,
            Self::Cpu | Self::Memory | Self::Disk | Self::HostPorts | Self::PodLimit => false,
        }
    }

    /// `2 lack memory (need 512Mi)`.
    fn sentence(self, count: usize, need: &Need<'_>) -> String {
        let verb = |one: &'static str, several: &'static str| if count == 1 { one } else { several };
        let Reserved { cpu, memory, disk } = need.reserved;
        match self {
            Self::NotReady => format!("{count} {} not ready", verb("is", "are")),
            Self::Cordoned => format!("{count} {} cordoned", verb("is", "are")),
            Self::Selector => {
                let selector: Vec<_> = need.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!("{count} {} the labels {}", verb("lacks", "lack"), selector.join(","))
            }
            Self::Volume => {
                let pins: Vec<_> = need.pins.iter().map(|pin| format!("volume '{}' is on {}", pin.volume, pin.node)).collect();
                format!("{count} {} without its data ({})", verb("is", "are"), pins.join(", "))
            }
            Self::HostPath => {
                let paths: Vec<_> = need.host_paths.iter().map(|host| host.path.as_str()).collect();
                format!("{count} {} not allow the host path (need {})", verb("does", "do"), paths.join(", "))
            }
            Self::Cpu => format!("{count} {} cpu (need {cpu})", verb("lacks", "lack")),
            Self::Memory => format!("{count} {} memory (need {memory})", verb("lacks", "lack")),
            Self::Disk => format!("{count} {} disk (need {disk})", verb("lacks", "lack")),
            Self::HostPorts => {
                let ports: Vec<_> = need.host_ports.iter().map(|port| port.port.to_string()).collect();
                format!("{count} {} a taken host port (need {})", verb("has", "have"), ports.join(", "))
            }
            Self::PodLimit => format!("{count} {} full (pod limit)", verb("is", "are")),
        }
    }
}

/// How many nodes are refused, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally([usize; Unfit::ALL.len()]);

impl Tally {
    /// One node's answer goes from one to another; none: it takes the pod.
    pub(super) fn moves(&mut self, from: Option<Unfit>, to: Option<Unfit>) {
        if let Some(from) = from {
            self.0[from as usize] -= 1;
        }
        if let Some(to) = to {
            self.0[to as usize] += 1;
        }
    }

    /// How many, whatever the cause.
    pub(super) fn refused(&self) -> usize {
        self.0.iter().sum()
    }

    /// Why none of so many nodes takes the pod: the most common cause first, of equals the one that is asked first.
    pub(super) fn why_none(&self, nodes: usize, need: &Need<'_>) -> String {
        if nodes == 0 {
            return "no node has joined yet".to_owned();
        }
        let mut causes: Vec<_> = Unfit::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0).collect();
        causes.sort_by_key(|(why, count)| (std::cmp::Reverse(*count), *why));
        let causes: Vec<_> = causes.into_iter().map(|(why, count)| why.sentence(count, need)).collect();
        format!("0/{nodes} nodes fit: {}", causes.join(", "))
    }
}

//! Ports, states and restart policies as the classic interface writes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::pod::{Phase, Pod, Port, Protocol, RestartPolicy};

/// What a task does. Numbers on the wire, in this order from 0, as Go's `iota` makes them; words are understood too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// No node takes it yet.
    Pending,
    /// It has a node, which hasn't started all of it yet.
    Scheduled,
    /// It was started; between a crash and the next start too.
    Running,
    /// It ended well.
    Completed,
    /// It ended badly, and nobody starts it again.
    Failed,
}

impl State {
    const ALL: [Self; 5] = [Self::Pending, Self::Scheduled, Self::Running, Self::Completed, Self::Failed];

    /// What a pod does.
    pub fn of(pod: &Pod) -> Self {
        match (pod.status.phase, &pod.placement.node) {
            (Phase::Pending, None) => Self::Pending,
            (Phase::Pending, Some(_)) => Self::Scheduled,
            (Phase::Running, _) => Self::Running,
            (Phase::Succeeded, _) => Self::Completed,
            (Phase::Failed, _) => Self::Failed,
        }
    }

    /// The word of the STATE column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Scheduled => "Scheduled",
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
        }
    }
}

impl FromStr for State {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let by_word = Self::ALL.into_iter().find(|state| state.as_str() == text);
        let by_number = || text.parse().ok().and_then(|number: usize| Self::ALL.get(number).copied());
        by_word.or_else(by_number).ok_or_else(|| {
            format!("`{text}` is no state: 0 (Pending), 1 (Scheduled), 2 (Running), 3 (Completed) or 4 (Failed) is expected")
        })
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

/// Reads a value that is written as a text or as a number.
pub(super) fn text_or_number<'de, T: FromStr<Err = String>, D: Deserializer<'de>>(
    deserializer: D,
    expecting: &'static str,
) -> Result<T, D::Error> {
    struct Visitor<T>(&'static str, std::marker::PhantomData<T>);
    impl<T: FromStr<Err = String>> de::Visitor<'_> for Visitor<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
        fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
            self.visit_str(&number.to_string())
        }
    }
    deserializer.deserialize_any(Visitor(expecting, std::marker::PhantomData))
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_number(deserializer, "a state, a number from 0 to 4")
    }
}

/// A container's port as Docker's API writes it: `7777/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortKey {
    /// 1 to 65535.
    pub number: u16,
    /// The transport.
    pub protocol: Protocol,
}

impl PortKey {
    /// Of a container's port.
    pub fn of(port: &Port) -> Self {
        Self { number: port.container_port, protocol: port.protocol }
    }
}

impl fmt::Display for PortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{}/{protocol}", self.number)
    }
}

impl FromStr for PortKey {
    type Err = String;
    /// One way to write each port, so that no map of ports has one twice: `07777/tcp` and a bare `7777` are refused.
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(number, protocol)| {
            let protocol = match protocol {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                _ => return None,
            };
            Some(Self { number: number.parse().ok().filter(|number| *number > 0)?, protocol })
        });
        parsed.filter(|port| port.to_string() == text).ok_or_else(|| format!("`{text}` is no port such as 7777/tcp or 53/udp"))
    }
}

impl TryFrom<String> for PortKey {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<PortKey> for String {
    fn from(port: PortKey) -> String {
        port.to_string()
    }
}

/// `{}`: a port is named by its key, and there is no more to say of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// A port of the node to publish on; 0 is one that is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BoundPort(pub(super) u16);

impl FromStr for BoundPort {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = if text.is_empty() { Some(0) } else { text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit())) };
        number.map(Self).ok_or_else(|| format!("`{text}` is no port: 1 to 65535, or 0 for a free one"))
    }
}

impl<'de> Deserialize<'de> for BoundPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_number(deserializer, "a port of the node such as \"7777\"")
    }
}

/// When a task is started again, in Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RestartWord(pub(super) RestartPolicy);

impl RestartWord {
    /// Nothing said is `on-failure`, and not Docker's `no`: the classic managers start again what failed or is unhealthy, whatever Docker was told.
    pub(super) const UNSAID: Self = Self(RestartPolicy::OnFailure);

    /// `unless-stopped` is `always`: what is stopped here is gone, and nothing would start it.
    pub(super) fn as_str(self) -> &'static str {
        match self.0 {
            RestartPolicy::Always => "always",
            RestartPolicy::OnFailure => "on-failure",
            RestartPolicy::Never => "no",
        }
    }
}

impl FromStr for RestartWord {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(Self::UNSAID),
            "no" => Ok(Self(RestartPolicy::Never)),
            "always" | "unless-stopped" => Ok(Self(RestartPolicy::Always)),
            "on-failure" => Ok(Self(RestartPolicy::OnFailure)),
            other => {
                Err(format!("`{other}` is no restart policy: no, always, unless-stopped, on-failure, or nothing (on-failure) is expected"))
            }
        }
    }
}

impl<'de> Deserialize<'de> for RestartWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_number(deserializer, "a restart policy such as \"always\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_numbers_and_words_are_understood() {
        for (number, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(serde_json::to_string(&state).expect("plain data"), number.to_string());
            assert_eq!(serde_json::from_str::<State>(&number.to_string()).expect("a state"), state);
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        for wrong in ["5", "-1", "running", ""] {
            assert!(wrong.parse::<State>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_port_is_written_in_one_way() {
        for right in ["7777/tcp", "53/udp", "1/tcp", "65535/tcp"] {
            assert_eq!(right.parse::<PortKey>().map(|port| port.to_string()), Ok(right.to_owned()));
        }
        for wrong in ["7777", "07777/tcp", "+7777/tcp", "0/tcp", "65536/tcp", "7777/TCP", "7777/sctp", "/tcp", "http/tcp", ""] {
            assert!(wrong.parse::<PortKey>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn dockers_restart_policies_are_those_of_pods() {
        let read = |text: &str| text.parse().map(|word: RestartWord| (word.0, word.as_str()));
        assert_eq!(read("no"), Ok((RestartPolicy::Never, "no")));
        assert_eq!(read("always"), Ok((RestartPolicy::Always, "always")));
        assert_eq!(read("unless-stopped"), Ok((RestartPolicy::Always, "always")));
        assert_eq!(read("on-failure"), Ok((RestartPolicy::OnFailure, "on-failure")));
        assert_eq!(read(""), Ok((RestartPolicy::OnFailure, "on-failure")));
        assert!(read("Always").is_err());
    }
}

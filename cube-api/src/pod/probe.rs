//! Probes: how a container's health is found out, and what becomes of it.
//!
//! Kubernetes' fields, defaults and meaning. A startup probe gates the other two until it has succeeded once; a failed startup or liveness probe ends
//! the container, which counts as a crash; a readiness probe only says whether the pod may be sent requests.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::container::{Container, Protocol};
use crate::meta::Name;

/// What a probe decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Whether the container has come up. Until it has, the others wait; if it doesn't, the container is ended.
    Startup,
    /// Whether the container still works; if not, it is ended.
    Liveness,
    /// Whether the container may be sent requests. Nothing is ever restarted for it.
    Readiness,
}

impl ProbeKind {
    /// All, in the order in which they begin.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// The word for it in a sentence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }

    /// Its field in a manifest.
    pub fn field(self) -> &'static str {
        match self {
            Self::Startup => "startupProbe",
            Self::Liveness => "livenessProbe",
            Self::Readiness => "readinessProbe",
        }
    }
}

/// One probe of a container. Exactly one of `httpGet`, `tcpSocket` and `exec` is there: a manifest with another number is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Healthy is a response of 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGetProbe>,
    /// Healthy is a connection that is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_socket: Option<TcpSocketProbe>,
    /// Healthy is an exit code of 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecProbe>,
    /// Seconds from the container's start to the first try.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub initial_delay_seconds: u32,
    /// Seconds from one try to the next.
    #[serde(default = "ten")]
    pub period_seconds: u32,
    /// Seconds after which a try without an answer has failed.
    #[serde(default = "one")]
    pub timeout_seconds: u32,
    /// Successes in a row after which it counts as healthy.
    #[serde(default = "one")]
    pub success_threshold: u32,
    /// Failures in a row after which it counts as unhealthy.
    #[serde(default = "three")]
    pub failure_threshold: u32,
    /// Seconds that the container has to stop when this probe ends it; the pod's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_grace_period_seconds: Option<u32>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn one() -> u32 {
    1
}

fn three() -> u32 {
    3
}

fn ten() -> u32 {
    10
}

/// How a probe tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handler<'a> {
    /// A request.
    HttpGet(&'a HttpGetProbe),
    /// A connection.
    TcpSocket(&'a TcpSocketProbe),
    /// A command in the container.
    Exec(&'a ExecProbe),
}

impl Probe {
    /// How it tries; none where the manifest should have been refused.
    pub fn handler(&self) -> Option<Handler<'_>> {
        match (&self.http_get, &self.tcp_socket, &self.exec) {
            (Some(get), None, None) => Some(Handler::HttpGet(get)),
            (None, Some(socket), None) => Some(Handler::TcpSocket(socket)),
            (None, None, Some(command)) => Some(Handler::Exec(command)),
            (_, _, _) => None,
        }
    }
}

/// A GET request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpGetProbe {
    /// Path and query: `/health`.
    #[serde(default = "root")]
    pub path: String,
    /// The container's port.
    pub port: ProbePort,
    /// The only one that is taken is HTTP.
    #[serde(default)]
    pub scheme: Scheme,
    /// Where to connect to, from the node; the pod's own address when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Sent with the request. A `Host` replaces the one of the address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http_headers: Vec<HttpHeader>,
}

fn root() -> String {
    "/".to_owned()
}

/// A header of a probe's request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpHeader {
    /// Any case.
    pub name: String,
    /// The text.
    pub value: String,
}

/// What a probe speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scheme {
    /// Plain HTTP.
    #[default]
    Http,
    /// Known so that it can be refused with the reason: nothing in cube speaks TLS.
    Https,
}

/// A TCP connection that is closed at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpSocketProbe {
    /// The container's port.
    pub port: ProbePort,
    /// Where to connect to, from the node; the pod's own address when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// A command in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecProbe {
    /// The program and its words. No shell is run unless it is the program.
    pub command: Vec<String>,
}

/// A port as a probe names it: by its number, or by the name that the container's `ports` give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbePort {
    /// 1 to 65535.
    Number(u16),
    /// A name among the container's ports.
    Name(Name),
}

impl ProbePort {
    /// The number, by the container's ports; none where none has the name, or what has it is no TCP port.
    pub fn number(&self, container: &Container) -> Option<u16> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Name(name) => {
                let named = container.ports.iter().find(|port| port.name.as_ref() == Some(name) && port.protocol == Protocol::Tcp);
                named.map(|port| port.container_port)
            }
        }
    }
}

impl fmt::Display for ProbePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl Serialize for ProbePort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_u16(*number),
            Self::Name(name) => name.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ProbePort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrName;

        impl Visitor<'_> for NumberOrName {
            type Value = ProbePort;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port's number, 1 to 65535, or its name")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<ProbePort, E> {
                let wrong = || E::invalid_value(de::Unexpected::Unsigned(number), &self);
                u16::try_from(number).map(ProbePort::Number).map_err(|_| wrong())
            }

            /// A manifest's scalars come as texts. What has only digits is a number, as in Kubernetes, whose port names have a letter.
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ProbePort, E> {
                let wrong = || E::invalid_value(de::Unexpected::Str(text), &self);
                if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
                    return text.parse().map(ProbePort::Number).map_err(|_| wrong());
                }
                Name::new(text).map(ProbePort::Name).map_err(|_| wrong())
            }
        }

        deserializer.deserialize_any(NumberOrName)
    }
}

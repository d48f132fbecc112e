//! As whom a container runs and what it may do: `securityContext`, with Kubernetes' names and meaning, and what a node must allow for it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Container, PodSpec};

/// What holds for every container of a pod that doesn't say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSecurity {
    /// The user's number, 0 to [`MAX_ID`]; the image's user when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_user: Option<u32>,
    /// The number of the user's first group, 0 to [`MAX_ID`]; the image's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_group: Option<u32>,
    /// Nothing is started that would run as root, or that can't be told not to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_non_root: Option<bool>,
    /// Numbers of further groups of the user, in all containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supplemental_groups: Vec<u32>,
}

/// As whom one container runs and what it may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerSecurity {
    /// The user's number, 0 to [`MAX_ID`]; the pod's when absent, then the image's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_user: Option<u32>,
    /// The number of the user's first group, 0 to [`MAX_ID`]; the pod's when absent, then the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_group: Option<u32>,
    /// It isn't started if it would run as root, or can't be told not to; the pod's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_non_root: Option<bool>,
    /// Its file system can't be written, but for what is mounted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only_root_filesystem: bool,
    /// False: no program of it gets more rights than its parent, whatever set-uid bits say (the kernel's `no_new_privs`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_privilege_escalation: Option<bool>,
    /// What root in it may do.
    #[serde(default, skip_serializing_if = "Capabilities::is_empty")]
    pub capabilities: Capabilities,
    /// It may do what root on the machine may. Only where the node allows it ([`Permission::Privileged`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
}

/// The highest number of a user or group, Kubernetes' and Docker's.
pub const MAX_ID: u32 = i32::MAX as u32;

/// What is taken from, then given beyond, the capabilities that Docker gives to every container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// What it gets. Beyond what every container has ([`Capability::is_usual`]), only where the node allows it ([`Permission::CapAdd`]).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub add: BTreeSet<Capability>,
    /// What it loses.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub drop: BTreeSet<Capability>,
}

impl Capabilities {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.drop.is_empty()
    }
}

/// A part of root's power (capabilities(7)), without the `CAP_` of its name, as Kubernetes writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "they are the kernel's")]
pub enum Capability {
    /// Every one.
    All,
    AuditControl,
    AuditRead,
    AuditWrite,
    BlockSuspend,
    Bpf,
    CheckpointRestore,
    Chown,
    DacOverride,
    DacReadSearch,
    Fowner,
    Fsetid,
    IpcLock,
    IpcOwner,
    Kill,
    Lease,
    LinuxImmutable,
    MacAdmin,
    MacOverride,
    Mknod,
    NetAdmin,
    NetBindService,
    NetBroadcast,
    NetRaw,
    Perfmon,
    Setfcap,
    Setgid,
    Setpcap,
    Setuid,
    SysAdmin,
    SysBoot,
    SysChroot,
    SysModule,
    SysNice,
    SysPacct,
    SysPtrace,
    SysRawio,
    SysResource,
    SysTime,
    SysTtyConfig,
    Syslog,
    WakeAlarm,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl Capability {
    /// Whether Docker gives it to every container: what was dropped with `ALL` may be given back one by one, and nobody has to allow it.
    pub fn is_usual(self) -> bool {
        match self {
            Self::AuditWrite
            | Self::Chown
            | Self::DacOverride
            | Self::Fowner
            | Self::Fsetid
            | Self::Kill
            | Self::Mknod
            | Self::NetBindService
            | Self::NetRaw
            | Self::Setfcap
            | Self::Setgid
            | Self::Setpcap
            | Self::Setuid
            | Self::SysChroot => true,
            Self::All
            | Self::AuditControl
            | Self::AuditRead
            | Self::BlockSuspend
            | Self::Bpf
            | Self::CheckpointRestore
            | Self::DacReadSearch
            | Self::IpcLock
            | Self::IpcOwner
            | Self::Lease
            | Self::LinuxImmutable
            | Self::MacAdmin
            | Self::MacOverride
            | Self::NetAdmin
            | Self::NetBroadcast
            | Self::Perfmon
            | Self::SysAdmin
            | Self::SysBoot
            | Self::SysModule
            | Self::SysNice
            | Self::SysPacct
            | Self::SysPtrace
            | Self::SysRawio
            | Self::SysResource
            | Self::SysTime
            | Self::SysTtyConfig
            | Self::Syslog
            | Self::WakeAlarm => false,
        }
    }
}

/// As whom a container runs and what it may do, the pod's word and its own together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// The user's number; none: the image's user.
    pub user: Option<u32>,
    /// The first group's number; none: the user's.
    pub group: Option<u32>,
    /// It must not run as root.
    pub non_root: bool,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Its file system can't be written.
    pub read_only_root: bool,
    /// No program of it gets more rights than its parent.
    pub no_new_privileges: bool,
    /// What root in it may do.
    pub capabilities: Capabilities,
    /// It may do what root on the machine may.
    pub privileged: bool,
}

impl Security {
    /// What holds for a container of a pod: what it says itself goes before what its pod says.
    pub fn of(pod: &PodSpec, container: &Container) -> Self {
        let (all, own) = (&pod.security_context, &container.security_context);
        Self {
            user: own.run_as_user.or(all.run_as_user),
            group: own.run_as_group.or(all.run_as_group),
            non_root: own.run_as_non_root.or(all.run_as_non_root).unwrap_or(false),
            groups: all.supplemental_groups.clone(),
            read_only_root: own.read_only_root_filesystem,
            no_new_privileges: own.allow_privilege_escalation == Some(false),
            capabilities: own.capabilities.clone(),
            privileged: own.privileged,
        }
    }

    /// What a node must allow for it.
    pub fn needs(&self) -> BTreeSet<Permission> {
        let adds = self.capabilities.add.iter().any(|capability| !capability.is_usual());
        let needed = [(self.privileged, Permission::Privileged), (adds, Permission::CapAdd)];
        needed.into_iter().filter_map(|(is_needed, permission)| is_needed.then_some(permission)).collect()
    }
}

impl PodSecurity {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl ContainerSecurity {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a pod can ask for that makes it as mighty as its machine's root, or nearly: a node takes such a pod only if whoever runs the node allows it
/// (`cube-server ... --allow`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Permission {
    /// `securityContext.privileged`.
    Privileged,
    /// `hostNetwork`.
    HostNetwork,
    /// `securityContext.capabilities.add`, beyond what every container has.
    CapAdd,
}

impl Permission {
    /// All, in the order in which they are told.
    pub const ALL: [Self; 3] = [Self::Privileged, Self::HostNetwork, Self::CapAdd];

    /// The word for it on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::HostNetwork => "host-network",
            Self::CapAdd => "cap-add",
        }
    }

    /// What is allowed by it, for a sentence.
    pub fn what(self) -> &'static str {
        match self {
            Self::Privileged => "privileged containers",
            Self::HostNetwork => "pods in the host's network",
            Self::CapAdd => "added capabilities",
        }
    }

    /// What a pod needs of its node.
    pub fn needed_by(spec: &PodSpec) -> BTreeSet<Self> {
        let mut needed: BTreeSet<_> = spec.all_containers().flat_map(|container| Security::of(spec, container).needs()).collect();
        if spec.host_network {
            needed.insert(Self::HostNetwork);
        }
        needed
    }

    /// `privileged containers and added capabilities (--allow privileged,cap-add)`: what a node doesn't allow, and how it would.
    pub fn list(permissions: &BTreeSet<Self>) -> String {
        let what: Vec<_> = permissions.iter().map(|permission| permission.what()).collect();
        let words: Vec<_> = permissions.iter().map(|permission| permission.as_str()).collect();
        format!("{} (--allow {})", what.join(" and "), words.join(","))
    }

    /// Those of a list that are known here: a node of a newer version may allow what no pod of this version can ask for.
    ///
    /// # Errors
    /// If it is no list of words.
    pub fn known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<Self>, D::Error> {
        let words = Vec::<String>::deserialize(deserializer)?;
        Ok(words.iter().filter_map(|word| word.parse().ok()).collect())
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Permission {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::as_str).join(", ");
        let unknown = || format!("'{text}' is nothing that can be allowed; there are {names}");
        Self::ALL.into_iter().find(|permission| permission.as_str() == text).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: serde_json::Value) -> PodSpec {
        serde_json::from_value(json).expect("a spec")
    }

    #[test]
    fn a_container_s_word_goes_before_its_pod_s() {
        let spec = spec(serde_json::json!({
            "securityContext": { "runAsUser": 1000, "runAsGroup": 2000, "runAsNonRoot": true, "supplementalGroups": [3000] },
            "containers": [
                { "name": "a", "image": "i" },
                { "name": "b", "image": "i", "securityContext": { "runAsUser": 0, "runAsNonRoot": false, "allowPrivilegeEscalation": false } },
            ],
        }));
        let a = Security::of(&spec, &spec.containers[0]);
        let pods = Security { user: Some(1000), group: Some(2000), non_root: true, groups: vec![3000], ..Security::default() };
        assert_eq!(a, pods);
        let b = Security::of(&spec, &spec.containers[1]);
        assert_eq!(b, Security { user: Some(0), non_root: false, no_new_privileges: true, ..pods });
    }

    #[test]
    fn a_capability_that_every_container_has_needs_no_permission() {
        let spec = |add: &[&str], privileged: bool| {
            spec(serde_json::json!({ "containers": [{ "name": "a", "image": "i", "securityContext":
                { "privileged": privileged, "capabilities": { "drop": ["ALL"], "add": add } } }] }))
        };
        assert_eq!(Permission::needed_by(&spec(&["NET_BIND_SERVICE", "CHOWN"], false)), BTreeSet::new());
        for beyond in ["NET_ADMIN", "ALL"] {
            assert_eq!(Permission::needed_by(&spec(&["CHOWN", beyond], false)), BTreeSet::from([Permission::CapAdd]));
        }
        let both = Permission::needed_by(&spec(&["SYS_TIME"], true));
        assert_eq!(Permission::list(&both), "privileged containers and added capabilities (--allow privileged,cap-add)");
    }

    #[test]
    fn what_a_newer_node_allows_beside_what_is_known_is_let_be() {
        #[derive(Deserialize)]
        struct Facts(#[serde(deserialize_with = "Permission::known")] BTreeSet<Permission>);
        let Facts(known) = serde_json::from_str(r#"["teleport", "cap-add"]"#).expect("a list");
        assert_eq!(known, BTreeSet::from([Permission::CapAdd]));
    }

    #[test]
    fn what_says_nothing_leaves_no_trace_in_a_spec() {
        let spec = spec(serde_json::json!({ "securityContext": {}, "containers": [{ "name": "a", "image": "i", "securityContext": {} }] }));
        assert!(!serde_json::to_string(&spec).expect("json").contains("securityContext"));
    }
}

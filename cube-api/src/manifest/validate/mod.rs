//! What the types can't say: the rules of a pod beyond its shape. Finds all that is wrong, never just the first.
//!
//! The numbers are Kubernetes', Docker's or Linux's; each says whose. Only texts and numbers are looked at: whether an image exists or a
//! node has the port is for the node and the scheduler to find out.

mod probes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::PodManifest;
use super::decode::Finding;
use super::image;
use super::path::Path;
use super::tree::excerpt;

mod data;

pub(super) use self::data::{config, secret};
use crate::pod::{Container, PodSpec, Port, Protocol, Resources};
use crate::quantity::{Bytes, MilliCpu};

/// The most containers of a pod. Each start costs Docker about 100 ms, so this many take 6 s; a pod that needs more is several pods.
const MAX_CONTAINERS: usize = 64;

/// The longest stop grace: a day. Longer ones are typing slips that would hold up a node's drain.
const MAX_GRACE_SECONDS: u32 = 86_400;

/// Docker's least memory limit.
const MIN_MEMORY_LIMIT: Bytes = Bytes(6 << 20);

/// The kernel's least cpu quota is 1 ms of each period of 100 ms.
const MIN_CPU_LIMIT: MilliCpu = MilliCpu(10);

/// Linux refuses to start a process with a longer word or variable (`MAX_ARG_STRLEN`: 32 pages of 4 KiB, with the closing NUL).
const MAX_WORD_BYTES: usize = 131_071;

/// Kubernetes' longest label name, label value and, for a label's prefix, DNS subdomain.
const MAX_LABEL: usize = 63;
const MAX_LABEL_PREFIX: usize = 253;

/// All that is wrong with a pod.
pub(super) fn pod(pod: &PodManifest) -> Vec<Finding> {
    let mut checks = Checks::default();
    checks.labels(&Path::default().key("metadata").key("labels"), &pod.metadata.labels);
    checks.spec(&Path::default().key("spec"), &pod.spec);
    checks.findings
}

#[derive(Default)]
struct Checks {
    findings: Vec<Finding>,
}

impl Checks {
    fn refuse(&mut self, path: Path, message: impl Into<String>) {
        self.findings.push(Finding::new(path, message));
    }

    fn check(&mut self, right: bool, path: impl FnOnce() -> Path, message: impl FnOnce() -> String) {
        if !right {
            self.refuse(path(), message());
        }
    }

    fn spec(&mut self, path: &Path, spec: &PodSpec) {
        let containers = path.key("containers");
        let count = spec.containers.len();
        self.check(count > 0, || containers.clone(), || "the list is empty; a pod has at least one container".to_owned());
        self.check(count <= MAX_CONTAINERS, || containers.clone(), || format!("{count} containers, at most {MAX_CONTAINERS} are allowed"));
        let mut names = BTreeMap::new();
        let mut host_ports = HostPorts::default();
        // More than the most is one problem, not one for each.
        for (index, container) in spec.containers.iter().enumerate().take(MAX_CONTAINERS) {
            let path = containers.index(index);
            if let Some(first) = names.insert(&container.name, index) {
                self.refuse(path.key("name"), format!("`{}` is the name of containers[{first}] already", container.name));
            }
            self.container(&path, container);
            self.ports(&path.key("ports"), &container.ports, &mut host_ports);
        }
        let grace = spec.termination_grace_period_seconds;
        let grace_path = || path.key("terminationGracePeriodSeconds");
        self.check(grace <= MAX_GRACE_SECONDS, grace_path, || format!("{grace} s; at most {MAX_GRACE_SECONDS} (a day) are allowed"));
        self.labels(&path.key("nodeSelector"), &spec.node_selector);
    }

    fn container(&mut self, path: &Path, container: &Container) {
        if let Err(problem) = image::check(&container.image) {
            self.refuse(path.key("image"), format!("`{}` is not an image reference: {problem}", excerpt(&container.image)));
        }
        self.words(&path.key("command"), &container.command);
        self.words(&path.key("args"), &container.args);
        let command = container.command.first();
        self.check(
            command.is_none_or(|program| !program.is_empty()),
            || path.key("command").index(0),
            || "the program to run is empty".to_owned(),
        );
        for (name, value) in &container.env {
            self.variable(&path.key("env"), name, value);
        }
        if let Some(folder) = &container.working_dir {
            let right = folder.starts_with('/') && !folder.contains('\0');
            self.check(right, || path.key("workingDir"), || format!("`{}` is not an absolute path", excerpt(folder)));
        }
        self.resources(&path.key("resources"), &container.resources);
        self.probes(path, container);
    }

    fn words(&mut self, path: &Path, words: &[String]) {
        for (index, word) in words.iter().enumerate() {
            self.check(!word.contains('\0'), || path.index(index), || "a NUL character, which no program can be given".to_owned());
            self.check(word.len() <= MAX_WORD_BYTES, || path.index(index), || too_long(word.len()));
        }
    }

    fn variable(&mut self, env: &Path, name: &str, value: &str) {
        self.check(!name.is_empty(), || env.clone(), || "a variable without a name".to_owned());
        self.check(!name.contains(['=', '\0']), || env.key(name), || "a variable's name has no '=' and no NUL character".to_owned());
        self.check(!value.contains('\0'), || env.key(name), || "a NUL character, which no program can be given".to_owned());
        let length = name.len() + 1 + value.len();
        self.check(length <= MAX_WORD_BYTES, || env.key(name), || too_long(length));
    }

    fn ports(&mut self, path: &Path, ports: &[Port], host_ports: &mut HostPorts) {
        let mut names = BTreeSet::new();
        for (index, port) in ports.iter().enumerate() {
            let path = path.index(index);
            let from_one = || "0 is no port; a whole number from 1 to 65535 is expected".to_owned();
            self.check(port.container_port != 0, || path.key("containerPort"), from_one);
            self.check(port.host_port != Some(0), || path.key("hostPort"), from_one);
            let ip_has_port = port.host_ip.is_none() || port.host_port.is_some();
            self.check(ip_has_port, || path.key("hostIP"), || "an address to publish on needs a `hostPort`".to_owned());
            if let Some(name) = &port.name {
                self.check(names.insert(name), || path.key("name"), || format!("`{name}` is the name of another port of this container"));
            }
            if let Some(other) = host_ports.take(port, &path) {
                let number = port.host_port.unwrap_or_default();
                self.refuse(path.key("hostPort"), format!("{number} is taken by {other} already"));
            }
        }
    }

    fn resources(&mut self, path: &Path, resources: &Resources) {
        let Resources { requests, limits } = resources;
        if let Some(limit) = limits.cpu {
            let path = || path.key("limits").key("cpu");
            self.check(limit >= MIN_CPU_LIMIT, path, || {
                format!("{limit} is below the least limit that Linux can enforce, {MIN_CPU_LIMIT}")
            });
        }
        if let Some(limit) = limits.memory {
            let path = || path.key("limits").key("memory");
            self.check(limit >= MIN_MEMORY_LIMIT, path, || format!("{limit} is below Docker's least limit, {MIN_MEMORY_LIMIT}"));
        }
        // Docker's usual storage drivers share one file system among all containers: what is accepted has to work, so it isn't.
        self.check(
            limits.disk.is_none(),
            || path.key("limits").key("disk"),
            || "Docker's storage drivers can't limit what a container writes; reserve room for it with `requests.disk`".to_owned(),
        );
        if let (Some(request), Some(limit)) = (requests.cpu, limits.cpu) {
            self.check(request <= limit, || path.key("requests").key("cpu"), || format!("{request} is more than the limit of {limit}"));
        }
        if let (Some(request), Some(limit)) = (requests.memory, limits.memory) {
            self.check(request <= limit, || path.key("requests").key("memory"), || format!("{request} is more than the limit of {limit}"));
        }
    }

    fn labels(&mut self, path: &Path, labels: &BTreeMap<String, String>) {
        for (key, value) in labels {
            for problem in [label_key_problem(key), label_value_problem(value)].into_iter().flatten() {
                self.refuse(path.key(key), problem);
            }
        }
    }
}

/// What is wrong with a label's key, if something is.
pub fn label_key_problem(key: &str) -> Option<String> {
    let problem = || {
        format!(
            "`{}` is no label key: 1 to {MAX_LABEL} letters, digits, '-', '_' and '.', beginning and ending with a letter or digit, \
             perhaps after a domain and '/'",
            excerpt(key)
        )
    };
    (!is_label_key(key)).then(problem)
}

/// What is wrong with a label's value, if something is.
pub fn label_value_problem(value: &str) -> Option<String> {
    let problem = || {
        format!(
            "`{}` is no label value: at most {MAX_LABEL} letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
            excerpt(value)
        )
    };
    (!value.is_empty() && !is_label_word(value)).then(problem)
}

fn too_long(length: usize) -> String {
    format!("{length} bytes, at most {MAX_WORD_BYTES} are allowed: Linux starts no program with more in one word or variable")
}

fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_label_prefix(prefix) && is_label_word(name),
        None => is_label_word(key),
    }
}

/// A DNS subdomain (RFC 1123): labels of lower-case letters, digits and `-`, joined by dots.
fn is_label_prefix(prefix: &str) -> bool {
    prefix.len() <= MAX_LABEL_PREFIX && prefix.split('.').all(|label| crate::meta::Name::new(label).is_ok())
}

fn is_label_word(word: &str) -> bool {
    let ends = |b: u8| b.is_ascii_alphanumeric();
    (1..=MAX_LABEL).contains(&word.len())
        && word.bytes().next().is_some_and(ends)
        && word.bytes().next_back().is_some_and(ends)
        && word.bytes().all(|b| ends(b) || matches!(b, b'-' | b'_' | b'.'))
}

/// The host ports of a pod's containers so far, with who has them.
#[derive(Default)]
struct HostPorts {
    taken: BTreeMap<(u16, Protocol), Holders>,
}

#[derive(Default)]
struct Holders {
    every_address: Option<Path>,
    one_address: BTreeMap<IpAddr, Path>,
}

impl HostPorts {
    /// Takes the port's host port, if it has one; where it is taken on an address that overlaps, says by whom.
    fn take(&mut self, port: &Port, path: &Path) -> Option<Path> {
        let number = port.host_port.filter(|number| *number != 0)?;
        let holders = self.taken.entry((number, port.protocol)).or_default();
        match port.host_ip.filter(|ip| !ip.is_unspecified()) {
            None => {
                let other = holders.every_address.clone().or_else(|| holders.one_address.values().next().cloned());
                holders.every_address.get_or_insert_with(|| path.clone());
                other
            }
            Some(ip) => {
                let other = holders.every_address.clone().or_else(|| holders.one_address.get(&ip).cloned());
                holders.one_address.entry(ip).or_insert_with(|| path.clone());
                other
            }
        }
    }
}

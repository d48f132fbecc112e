//! What the leader measures of itself, in Prometheus' text form. Every figure is counted where it happens or read at the moment it is asked for;
//! its meaning is its help text.
//!
//! Counters are handles on atomics that are passed to whoever counts; nothing here is global, and nothing decides by it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use cube_api::node::{Node, Usage};
use cube_api::pod::Phase;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::leader::nodes::Nodes;
use crate::leader::store::{Figures, State, Store, StoreError};
use crate::serve::Connections;

/// What the text is, for the `Content-Type` header.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The leader's counters. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    requests: Family<Answered, Counter>,
    seconds: Family<Routed, Histogram>,
    streams: Family<Streaming, Gauge>,
    connections: Connections,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    route: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Routed {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Streaming {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InCondition {
    condition: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InPhase {
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfNode {
    node: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfNodesLoad {
    node: String,
    minutes: &'static str,
}

/// Of so many nodes each has figures of its own, about ten: in a larger cluster a scrape would be tens of thousands of lines, and what all nodes have
/// and use together is what is looked at.
const MOST_NODES: usize = 1_000;

/// A stream of logs or of an exec, for as long as it is open.
pub struct OpenStream(Gauge);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Counts from now on.
    pub fn new(store: &Store) -> Self {
        let mut registry = Registry::with_prefix("cube");
        // 1 ms to 32 s.
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let inner = Inner {
            requests: Family::default(),
            seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            streams: Family::default(),
            connections: Connections::default(),
            registry: Registry::default(),
        };
        registry.register("build", "The version of cube-server that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        register_store(&mut registry, store);
        registry.register(
            "http_requests",
            "Requests that were answered, by method, route and class of the status; route none: there is no such route",
            inner.requests.clone(),
        );
        registry.register_with_unit(
            "http_request",
            "From a request's headers to its answer's, by route; what streams (watches, logs) goes on after that",
            Unit::Seconds,
            inner.seconds.clone(),
        );
        registry.register("streams", "Streams of logs and exec that are open, by kind", inner.streams.clone());
        registry.register("connections", "Connections that are open: requests, sessions and websockets", inner.connections.open.clone());
        registry.register(
            "connections_refused",
            "Connections that were refused, because the server's or their address's number was reached",
            inner.connections.refused.clone(),
        );
        Self { inner: Arc::new(Inner { registry, ..inner }) }
    }

    /// Where connections are counted.
    pub fn connections(&self) -> Connections {
        self.inner.connections.clone()
    }

    /// Counts an answered request.
    pub fn answered(&self, method: &str, route: Option<&str>, status: u16, took: Duration) {
        let route = route.unwrap_or("none").to_owned();
        self.inner.seconds.get_or_create(&Routed { route: route.clone() }).observe(took.as_secs_f64());
        self.inner.requests.get_or_create(&Answered { method: known_method(method), route, status: class(status) }).inc();
    }

    /// Counts a stream until what is returned is dropped.
    pub fn stream(&self, kind: &'static str) -> OpenStream {
        let open = self.inner.streams.get_or_create_owned(&Streaming { kind });
        open.inc();
        OpenStream(open)
    }

    /// All of it as text.
    pub async fn text(&self, store: &Store, nodes: &Nodes) -> Result<String, StoreError> {
        let figures = store.figures().await?;
        let mut now = Registry::with_prefix("cube");
        show_store(&mut now, &figures, store);
        store.read(|state| show_cluster(&mut now, state));
        show_nodes(&mut now, store, nodes);
        show(&mut now, "sessions", "Nodes that have a session with this leader", nodes.live().len());
        let mut process = Registry::with_prefix("process");
        show_process(&mut process);
        let mut text = String::new();
        let written: fmt::Result = [&self.inner.registry, &now, &process]
            .into_iter()
            .try_for_each(|registry| encode_registry(&mut text, registry))
            .and_then(|()| encode_eof(&mut text));
        written.expect("a string takes all that is written");
        Ok(text)
    }
}

fn register_store(registry: &mut Registry, store: &Store) {
    let metrics = store.metrics();
    registry.register("store_writes", "Operations on the store that were decided and answered after a commit", metrics.writes.clone());
    registry.register("store_batches", "Commits; each has the operations that were waiting", metrics.batches.clone());
    registry.register_with_unit(
        "store_commit",
        "How long a batch took, from its first decision to its commit on disk",
        Unit::Seconds,
        metrics.commit_seconds.clone(),
    );
    registry.register("store_busy", "Writes that were refused because the queue was full", metrics.busy.clone());
    registry.register("store_no_space", "Writes that were refused because the leader's disk is full", metrics.no_space.clone());
    registry.register("watchers", "Who follows the store's changes: clients' watches and the leader's own loops", metrics.watchers.clone());
    registry.register(
        "watchers_left_behind",
        "Watchers that were too slow for the changes that are kept, and have to list again",
        metrics.left_behind.clone(),
    );
}

fn show_store(registry: &mut Registry, figures: &Figures, store: &Store) {
    show(registry, "store_queue", "Writes that wait for a commit", figures.queue.0);
    show(registry, "store_queue_limit", "The most writes that may wait; beyond, they are refused as busy", figures.queue.1);
    show(registry, "store_revision", "The revision of the newest change", store.read(|state| state.revision.0));
    show(registry, "store_epoch", "How often a leader was started on this store", store.epoch().0);
    show(registry, "store_ring", "Changes that are kept in memory for watchers", figures.ring.0);
    show_bytes(registry, "store_ring", "About what these changes take of memory", figures.ring.1);
    show_bytes(registry, "store_database", "The size of the database", figures.files.0);
    show_bytes(registry, "store_wal", "The size of the database's write-ahead log", figures.files.1);
    show(registry, "events", "Events that are kept", figures.events);
    show(registry, "no_space", "1 while the leader's disk is full: nothing new is taken", u8::from(store.trouble().is_some()));
    if let Some(disk) = figures.disk {
        show_bytes(registry, "disk_free", "What is free on the disk of the leader's data folder", disk.free);
        show_bytes(registry, "disk", "The size of the disk of the leader's data folder", disk.all);
    }
}

fn show_cluster(registry: &mut Registry, state: &State) {
    let nodes = Family::<InCondition, Gauge>::default();
    for condition in ["Ready", "NotReady"] {
        nodes.get_or_create(&InCondition { condition }).set(0);
    }
    for node in state.nodes.values() {
        nodes.get_or_create(&InCondition { condition: node.condition.as_str() }).inc();
    }
    registry.register("nodes", "Nodes that are known, by condition", nodes);
    let cordoned = state.nodes.values().filter(|node| node.cordon.is_some()).count();
    show(registry, "nodes_cordoned", "Nodes that take no new pods because a person said so", cordoned);
    let pods = Family::<InPhase, Gauge>::default();
    for (phase, count) in state.phases() {
        pods.get_or_create(&InPhase { phase: word(phase) }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    registry.register("pods", "Pods that are kept, those on their way out too, by phase", pods);
    let restarts = "Restarts of the containers of the pods that are kept: what is deleted takes its own along";
    show(registry, "container_restarts", restarts, state.restarts());
}

/// What the nodes have, give to pods and use: all together, and each.
fn show_nodes(registry: &mut Registry, store: &Store, sessions: &Nodes) {
    let nodes: Vec<Node> = store.read(|state| state.nodes.values().map(|node| state.node_view(node)).collect());
    let seen: Vec<(Node, Option<Usage>)> = nodes.into_iter().map(|node| (node.clone(), sessions.usage(&node.name))).collect();
    let known = || seen.iter().filter_map(|(node, usage)| Some((node, usage.as_ref()?)));
    let sum = |amount: fn(&Node, &Usage) -> u64| known().map(|(node, usage)| amount(node, usage)).fold(0u64, u64::saturating_add);
    show(registry, "nodes_measured", "Nodes that are connected and have said what their machine uses", known().count());
    show_bytes(registry, "nodes_memory", "The memory of these nodes", sum(|node, _| node.capacity.memory.0));
    show_bytes(registry, "nodes_memory_used", "What is in use of it, by pods and all else", sum(|_, usage| usage.memory.0));
    show_bytes(registry, "nodes_disk", "The disk space of these nodes", sum(|node, _| node.capacity.disk.0));
    show_bytes(registry, "nodes_disk_used", "What is in use of it, by pods and all else", sum(|_, usage| usage.disk.0));
    let cores = |millis: u64| millis as f64 / 1_000.0;
    show_real(registry, "nodes_cpu_cores", "The cores of these nodes", cores(sum(|node, _| node.capacity.cpu.0)));
    show_real(registry, "nodes_cpu_used_cores", "What is in use of them, by pods and all else", cores(sum(|_, usage| usage.cpu.0)));
    if seen.len() <= MOST_NODES {
        show_each_node(registry, &seen);
    }
}

fn show_each_node(registry: &mut Registry, seen: &[(Node, Option<Usage>)]) {
    let cores = |millis: u64| millis as f64 / 1_000.0;
    let bytes = |bytes: u64| bytes as f64;
    let each = |amount: &dyn Fn(&Node, Option<&Usage>) -> Option<f64>| {
        let family = Family::<OfNode, Gauge<f64, AtomicU64>>::default();
        for (node, usage) in seen {
            if let Some(amount) = amount(node, usage.as_ref()) {
                family.get_or_create(&OfNode { node: node.name.to_string() }).set(amount);
            }
        }
        family
    };
    let pods = each(&|node, _| Some(f64::from(node.pods)));
    registry.register("node_pods", "Pods of a node that haven't ended", pods);
    registry.register("node_cpu_cores", "The cores of a node", each(&|node, _| Some(cores(node.capacity.cpu.0))));
    registry.register("node_cpu_reserved_cores", "What its pods reserve of them", each(&|node, _| Some(cores(node.reserved_cpu.0))));
    registry.register("node_cpu_used_cores", "What is in use of them", each(&|_, usage| Some(cores(usage?.cpu.0))));
    let of_bytes = [
        ("node_memory", "The memory of a node", each(&|node, _| Some(bytes(node.capacity.memory.0)))),
        ("node_memory_reserved", "What its pods reserve of it", each(&|node, _| Some(bytes(node.reserved_memory.0)))),
        ("node_memory_used", "What is in use of it, by pods and all else", each(&|_, usage| Some(bytes(usage?.memory.0)))),
        ("node_disk", "The disk space of a node", each(&|node, _| Some(bytes(node.capacity.disk.0)))),
        ("node_disk_reserved", "What its pods reserve of it", each(&|node, _| Some(bytes(node.reserved_disk.0)))),
        ("node_disk_used", "What is in use of it, by pods and all else", each(&|_, usage| Some(bytes(usage?.disk.0)))),
    ];
    for (name, help, family) in of_bytes {
        registry.register_with_unit(name, help, Unit::Bytes, family);
    }
    let load = Family::<OfNodesLoad, Gauge<f64, AtomicU64>>::default();
    for (node, usage) in seen {
        let Some(average) = usage.and_then(|usage| usage.load) else { continue };
        for (minutes, hundredths) in ["1", "5", "15"].into_iter().zip(average.hundredths) {
            load.get_or_create(&OfNodesLoad { node: node.name.to_string(), minutes }).set(f64::from(hundredths) / 100.0);
        }
    }
    registry.register("node_load", "Processes of a node that ran or waited to, on average over so many minutes", load);
}

/// As Linux tells it; elsewhere there is nothing to show.
fn show_process(registry: &mut Registry) {
    let resident = std::fs::read_to_string("/proc/self/status").ok().and_then(|text| {
        let kibibytes = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
        Some(kibibytes * 1024)
    });
    if let Some(resident) = resident {
        show_bytes(registry, "resident_memory", "What this process has in memory", resident);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        show(registry, "open_fds", "File descriptors that this process has open", files.count());
    }
}

fn gauge(value: impl TryInto<i64>) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(value.try_into().unwrap_or(i64::MAX));
    gauge
}

fn show(registry: &mut Registry, name: &str, help: &str, value: impl TryInto<i64>) {
    registry.register(name, help, gauge(value));
}

fn show_bytes(registry: &mut Registry, name: &str, help: &str, value: impl TryInto<i64>) {
    registry.register_with_unit(name, help, Unit::Bytes, gauge(value));
}

fn show_real(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge = Gauge::<f64, AtomicU64>::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "Pending",
        Phase::Running => "Running",
        Phase::Succeeded => "Succeeded",
        Phase::Failed => "Failed",
    }
}

/// Clients may send any word: labels must stay few.
fn known_method(method: &str) -> &'static str {
    ["GET", "POST", "PUT", "DELETE", "HEAD"].into_iter().find(|known| *known == method).unwrap_or("other")
}

fn class(status: u16) -> &'static str {
    match status {
        0..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500.. => "5xx",
    }
}

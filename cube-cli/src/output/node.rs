//! Nodes as rows, and as a page.

use cube_api::event::Event;
use cube_api::meta::{Labels, ResourceKind, ResourceRef};
use cube_api::node::{DrainStep, LeftPod, Node};
use cube_api::quantity::Bytes;
use cube_api::status;
use jiff::Timestamp;

use super::age;
use super::page::Page;
use super::style::{Style, Tone};
use super::table::{Cell, Table};

/// A table of nodes.
pub fn table<'a>(nodes: impl IntoIterator<Item = &'a Node>, wide: bool, now: Timestamp) -> Table {
    let mut header = vec!["NAME", "STATUS", "TYPE", "AGE", "PODS", "CPU", "MEMORY"];
    if wide {
        header.extend(["VERSION", "ENGINE", "LABELS", "REASON"]);
    }
    let mut table = Table::new(header);
    for node in nodes {
        table.row(row(node, wide, now));
    }
    table
}

fn row(node: &Node, wide: bool, now: Timestamp) -> Vec<Cell> {
    let mut row = vec![
        node.name.as_str().into(),
        Cell::toned(status::of_node(node), tone(node)),
        node.role.as_str().into(),
        age::since(node.created_at, now).into(),
        format!("{}/{}", node.pods, node.capacity.pods).into(),
        cpu(node).into(),
        memory(node).into(),
    ];
    if wide {
        row.push(node.version.as_str().into());
        row.push(node.engine.as_str().into());
        row.push(labels(&node.labels).into());
        row.push(reasons(node).into());
    }
    row
}

/// Reserved and all: `250m/8`.
fn cpu(node: &Node) -> String {
    format!("{}/{}", node.reserved_cpu, node.capacity.cpu)
}

/// Reserved and all, in whole MiB: a machine's memory is never a round number of anything larger.
fn memory(node: &Node) -> String {
    let mebibytes = |bytes: Bytes| bytes.0 >> 20;
    format!("{}/{}Mi", mebibytes(node.reserved_memory), mebibytes(node.capacity.memory))
}

fn trouble(node: &Node) -> &str {
    node.condition.reason().unwrap_or_default()
}

fn tone(node: &Node) -> Tone {
    match (node.condition.is_ready(), &node.cordon) {
        (true, None) => Tone::Good,
        (true, Some(_)) => Tone::Busy,
        (false, _) => Tone::Bad,
    }
}

/// Why it takes no pods: its trouble, and a person's word.
fn reasons(node: &Node) -> String {
    let cordoned = node.cordon.as_ref().and_then(|cordon| cordon.reason.clone());
    let reasons = [Some(trouble(node).to_owned()), cordoned, drain(node)].into_iter().flatten().filter(|reason| !reason.is_empty());
    reasons.collect::<Vec<_>>().join("; ")
}

/// How far its drain is.
fn drain(node: &Node) -> Option<String> {
    let drain = node.cordon.as_ref()?.drain.as_ref()?;
    Some(match (drain.finished_at, drain.left.len()) {
        (Some(_), _) => "drained".to_owned(),
        (None, 0) => "draining".to_owned(),
        (None, 1) => "draining, 1 pod is left".to_owned(),
        (None, several) => format!("draining, {several} pods are left"),
    })
}

/// What a drain says of a pod: `pod/web: stopping (30s grace)`.
pub fn left(pod: &LeftPod) -> String {
    let step = match &pod.step {
        DrainStep::Queued => "queued: others stop first".to_owned(),
        DrainStep::Stays { reason } => format!("stays: {reason}"),
        DrainStep::Stopping { grace_seconds } => format!("stopping ({grace_seconds}s grace)"),
    };
    format!("pod/{}: {step}", pod.name)
}

/// `a=b,c=d`, in order of the keys.
pub fn labels(labels: &Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// `node/a`.
pub fn reference(node: &Node) -> ResourceRef {
    ResourceRef { kind: ResourceKind::Node, name: node.name.clone() }
}

/// Everything about one node.
pub fn page(node: &Node, events: &[Event], now: Timestamp, style: Style) -> String {
    let mut page = Page::new(style);
    page.line("Name", node.name.as_str());
    page.toned("Status", &status::of_node(node), tone(node));
    page.line("Reason", trouble(node));
    if let Some(cordon) = &node.cordon {
        let reason = cordon.reason.as_ref().map(|reason| format!("\n{reason}")).unwrap_or_default();
        page.line("Cordoned", &format!("{:.0} ({} ago){reason}", cordon.since, age::since(cordon.since, now)));
        let pods = cordon.drain.iter().flat_map(|drain| &drain.left).map(|pod| format!("\n{}", left(pod)));
        page.line("Drain", &format!("{}{}", drain(node).unwrap_or_default(), pods.collect::<String>()));
    }
    page.line("Type", node.role.as_str());
    page.line("Labels", &labels(&node.labels));
    page.line("Created", &format!("{:.0} ({} ago)", node.created_at, age::since(node.created_at, now)));
    page.line("Last seen", &format!("{:.0} ({} ago)", node.seen_at, age::since(node.seen_at, now)));
    page.line("Pods", &format!("{}/{}", node.pods, node.capacity.pods));
    page.line("Cpu", &cpu(node));
    page.line("Memory", &memory(node));
    page.line("Version", &node.version);
    page.line("Engine", &node.engine);
    page.events(events, now);
    page.text()
}

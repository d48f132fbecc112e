//! Nodes as rows, and as a page.

use cube_api::event::Event;
use cube_api::meta::{Labels, ResourceKind, ResourceRef};
use cube_api::node::Node;
use cube_api::quantity::Bytes;
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
        Cell::toned(node.condition.as_str(), if node.condition.is_ready() { Tone::Good } else { Tone::Bad }),
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
        row.push(trouble(node).into());
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
    let tone = if node.condition.is_ready() { Tone::Good } else { Tone::Bad };
    page.toned("Status", node.condition.as_str(), tone);
    page.line("Reason", trouble(node));
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

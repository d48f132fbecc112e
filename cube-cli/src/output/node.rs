//! Nodes as rows, and as a page.

use cube_api::event::Event;
use cube_api::meta::{Labels, ResourceKind, ResourceRef};
use cube_api::node::{Capacity, DrainStep, LeftPod, Node, Usage};
use cube_api::status;
use jiff::Timestamp;

use super::age;
use super::page::Page;
use super::style::{Style, Tone};
use super::table::{Cell, Table};

/// A table of nodes.
pub fn table<'a>(nodes: impl IntoIterator<Item = &'a Node>, wide: bool, now: Timestamp) -> Table {
    let mut header = vec!["NAME", "STATUS", "TYPE", "AGE", "PODS", "CPU", "CPU%", "MEMORY", "MEMORY%"];
    if wide {
        header.extend(["DISK", "DISK%", "ADDRESS", "VERSION", "ENGINE", "LABELS", "REASON"]);
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
        format!("{}/{}", node.pods, allocatable(node).pods).into(),
        reserved(node, CPU).into(),
        in_use(node, CPU).into(),
        reserved(node, MEMORY).into(),
        in_use(node, MEMORY).into(),
    ];
    if wide {
        row.push(reserved(node, DISK).into());
        row.push(in_use(node, DISK).into());
        row.push(node.address.map(|address| address.to_string()).unwrap_or_default().into());
        row.push(node.version.as_str().into());
        row.push(node.engine.as_str().into());
        row.push(labels(&node.labels).into());
        row.push(reasons(node).into());
    }
    row
}

/// What the machines of the nodes use.
pub fn top<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Table {
    let mut table = Table::new(vec!["NAME", "CPU", "CPU%", "MEMORY", "MEMORY%", "DISK", "DISK%", "LOAD"]);
    for node in nodes {
        let amount = |Measure { unit, show, used, .. }: Measure| {
            node.usage.map_or_else(|| UNKNOWN.to_owned(), |usage| format!("{}{unit}", show(used(&usage))))
        };
        let load =
            node.usage.and_then(|usage| usage.load).map(|load| load.hundredths.map(|part| format!("{}.{:02}", part / 100, part % 100)));
        let mut row: Vec<Cell> = vec![node.name.as_str().into()];
        row.extend([CPU, MEMORY, DISK].into_iter().flat_map(|measure| [amount(measure).into(), in_use(node, measure).into()]));
        row.push(load.map_or_else(|| UNKNOWN.to_owned(), |load| load.join(" ")).into());
        table.row(row);
    }
    table
}

/// A resource that is counted in parts: how it is called, how an amount of it is written, and where its amounts are.
#[derive(Clone, Copy)]
struct Measure {
    name: &'static str,
    unit: &'static str,
    show: fn(u64) -> String,
    of: fn(&Capacity) -> u64,
    reserved: fn(&Node) -> u64,
    used: fn(&Usage) -> u64,
}

const CPU: Measure = Measure {
    name: "cpu",
    unit: "",
    show: |millis| decimal(millis, 1_000, 3),
    of: |capacity| capacity.cpu.0,
    reserved: |node| node.reserved_cpu.0,
    used: |usage| usage.cpu.0,
};

/// In whole MiB: a machine's memory is never a round number of anything larger.
const MEMORY: Measure = Measure {
    name: "memory",
    unit: "Mi",
    show: |bytes| (bytes >> 20).to_string(),
    of: |capacity| capacity.memory.0,
    reserved: |node| node.reserved_memory.0,
    used: |usage| usage.memory.0,
};

const DISK: Measure = Measure {
    name: "disk",
    unit: "Gi",
    show: |bytes| decimal(bytes, 1 << 30, 1),
    of: |capacity| capacity.disk.0,
    reserved: |node| node.reserved_disk.0,
    used: |usage| usage.disk.0,
};

/// An amount in units of so much, cut after so many decimals: `1.9`, `0.25`, `2`.
fn decimal(amount: u64, unit: u64, decimals: u32) -> String {
    let scale = 10u64.pow(decimals);
    let parts = u64::try_from(u128::from(amount) * u128::from(scale) / u128::from(unit)).unwrap_or(u64::MAX);
    let text = format!("{}.{:0width$}", parts / scale, parts % scale, width = decimals as usize);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What pods may reserve; a leader of before that was told answers what the machine has.
fn allocatable(node: &Node) -> &Capacity {
    if node.allocatable == Capacity::default() { &node.capacity } else { &node.allocatable }
}

/// What pods reserve of what they may: `0.25/1.9`.
fn reserved(node: &Node, Measure { unit, show, of, reserved, .. }: Measure) -> String {
    format!("{}/{}{unit}", show(reserved(node)), show(of(allocatable(node))))
}

/// What the machine uses of all that it has, by pods and all else: `23%`; `-` while that isn't known.
fn in_use(node: &Node, Measure { of, used, .. }: Measure) -> String {
    node.usage.and_then(|usage| percent(used(&usage), of(&node.capacity))).unwrap_or_else(|| UNKNOWN.to_owned())
}

const UNKNOWN: &str = "-";

/// To the nearest.
fn percent(part: u64, all: u64) -> Option<String> {
    let hundredths = (u128::from(part) * 200 + u128::from(all)).checked_div(u128::from(all) * 2)?;
    Some(format!("{hundredths}%"))
}

/// All that is counted, in a row each.
fn resources(node: &Node) -> Table {
    let mut table = Table::new(vec!["RESOURCE", "CAPACITY", "KEPT BACK", "ALLOCATABLE", "RESERVED", "IN USE"]);
    for Measure { name, unit, show, of, reserved, used } in [CPU, MEMORY, DISK] {
        let (all, left, taken) = (of(&node.capacity), of(allocatable(node)), reserved(node));
        let amount = |amount| format!("{}{unit}", show(amount));
        let part = |part, all| percent(part, all).map_or_else(|| amount(part), |percent| format!("{} ({percent})", amount(part)));
        table.row(vec![
            name.into(),
            amount(all).into(),
            amount(all.saturating_sub(left)).into(),
            amount(left).into(),
            part(taken, left).into(),
            node.usage.map_or_else(|| UNKNOWN.to_owned(), |usage| part(used(&usage), all)).into(),
        ]);
    }
    let (all, left) = (node.capacity.pods, allocatable(node).pods);
    let pods = [all, all.saturating_sub(left), left, node.pods, node.pods].map(|count| Cell::from(count.to_string()));
    table.row([Cell::from("pods")].into_iter().chain(pods).collect());
    table
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
    page.line("Address", &node.address.map(|address| address.to_string()).unwrap_or_default());
    page.line("Labels", &labels(&node.labels));
    if !node.allows.is_empty() {
        let words: Vec<_> = node.allows.iter().map(|permission| permission.as_str()).collect();
        page.line("Allows", &words.join(","));
    }
    page.line("Created", &format!("{:.0} ({} ago)", node.created_at, age::since(node.created_at, now)));
    page.line("Last seen", &format!("{:.0} ({} ago)", node.seen_at, age::since(node.seen_at, now)));
    page.line("Version", &node.version);
    page.line("Engine", &node.engine);
    page.section("Resources", &resources(node).text(style));
    page.events(events, now);
    page.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_as_short_as_they_can_be() {
        let cores: Vec<_> = [0, 5, 250, 1_900, 2_000, 16_050].map(CPU.show).into();
        assert_eq!(cores, ["0", "0.005", "0.25", "1.9", "2", "16.05"]);
        let gibibytes: Vec<_> = [0, 1 << 29, (10 << 30) - 1, 226 << 30].map(DISK.show).into();
        assert_eq!(gibibytes, ["0", "0.5", "9.9", "226"]);
        assert_eq!((DISK.show)(u64::MAX), "17179869183.9");
    }

    #[test]
    fn a_part_is_rounded_and_a_part_of_nothing_is_none() {
        let parts: Vec<_> = [(0, 8), (1, 200), (1, 201), (2, 3), (3, 2)].iter().map(|&(part, all)| percent(part, all)).collect();
        assert_eq!(parts, ["0%", "1%", "0%", "67%", "150%"].map(|text| Some(text.to_owned())));
        assert_eq!((percent(1, 0), percent(u64::MAX, u64::MAX)), (None, Some("100%".to_owned())));
    }
}

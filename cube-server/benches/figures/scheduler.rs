//! The pure scheduler alone: decisions in a second, at several sizes of cluster, as its loop calls it.
//!
//! Ten pods for each node, in passes of 1,024, each with the candidates made anew from what the store has: both are timed. What the store does with
//! a pass (here: adding up the loads) isn't. Beside that, all of them in one pass. The time is the thread's own, on whatever core: what else the machine does plays
//! little part. What was found is in `benches/scheduler.md`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use cube_api::meta::{Name, Uid};
use cube_api::node::{Capacity, Node};
use cube_api::pod::HostPort;
use cube_api::pod::{PodSpec, Strategy};
use cube_api::quantity::{Bytes, MilliCpu};
use cube_server::leader::plan::schedule::{Candidate, Decided, Rules, Unplaced, schedule};
use cube_server::leader::store::{NodeLoad, Placing, Reserved};
use serde_json::json;

use crate::report::{Figure, Report};

const MI: u64 = 1 << 20;
/// As many pods as a pass of the leader's loop has.
const PASS: usize = 1_024;
/// A round ends after the pass that brings it here: enough to tell, and no round of the slowest case takes minutes.
const ENOUGH: Duration = Duration::from_secs(5);

/// Flags of `scheduler`.
#[derive(Debug, Args)]
pub struct Options {
    /// How many nodes, one run each
    #[arg(long, value_delimiter = ',', default_value = "100,1000,5000,15000")]
    nodes: Vec<usize>,
    /// How often each
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only these, by the first words of their keys: spread, host_ports, ...
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// What is placed on what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    /// Equal pods, by each strategy.
    Plain(Strategy),
    /// Each selects one of ten zones, or none.
    Selectors,
    /// Each publishes one of 20 host ports.
    HostPorts,
    /// A hundred different requests.
    Mixed,
    /// The same on nodes of whose cpu and memory 95 % is taken: the last don't fit.
    Full,
    /// No pod asks for what another asks for, so that nothing can be decided once for several.
    Different,
}

impl Case {
    const ALL: [Self; 9] = [
        Self::Plain(Strategy::Spread),
        Self::Plain(Strategy::Binpack),
        Self::Plain(Strategy::RoundRobin),
        Self::Plain(Strategy::Epvm),
        Self::Selectors,
        Self::HostPorts,
        Self::Mixed,
        Self::Full,
        Self::Different,
    ];

    fn key(self) -> &'static str {
        match self {
            Self::Plain(Strategy::Spread) => "spread",
            Self::Plain(Strategy::Binpack) => "binpack",
            Self::Plain(Strategy::RoundRobin) => "round_robin",
            Self::Plain(Strategy::Epvm) => "epvm",
            Self::Selectors => "selectors",
            Self::HostPorts => "host_ports",
            Self::Mixed => "mixed",
            Self::Full => "full",
            Self::Different => "different",
        }
    }

    fn words(self) -> String {
        match self {
            Self::Plain(strategy) => format!("equal pods, {strategy}"),
            Self::Selectors => "11 node selectors, spread".to_owned(),
            Self::HostPorts => "20 host ports, spread".to_owned(),
            Self::Mixed => "100 different requests, spread".to_owned(),
            Self::Full => "the same on nodes that are 95 % full".to_owned(),
            Self::Different => "every pod's requests different, spread".to_owned(),
        }
    }

    fn strategy(self) -> Strategy {
        match self {
            Self::Plain(strategy) => strategy,
            Self::Selectors | Self::HostPorts | Self::Mixed | Self::Full | Self::Different => Strategy::Spread,
        }
    }

    /// The pod of this number.
    fn spec(self, number: usize) -> Result<PodSpec> {
        let (mut requests, mut ports, mut selector) = (json!({"cpu": "100m", "memory": "128Mi"}), json!([]), json!({}));
        match self {
            Self::Plain(_) => {}
            Self::Selectors if number % 11 == 10 => {}
            Self::Selectors => selector = json!({"zone": format!("z{}", number % 11)}),
            Self::HostPorts => ports = json!([{"containerPort": 80, "hostPort": 8_000 + number % 20}]),
            Self::Mixed | Self::Full => {
                requests = json!({"cpu": format!("{}m", 20 + number % 10 * 18), "memory": format!("{}Mi", 20 + number / 10 % 10 * 24)});
            }
            // Some 100m and 128Mi on average.
            Self::Different => {
                requests = json!({"cpu": format!("{}m", 1 + number % 199), "memory": (64 * MI + number as u64 * 997).to_string()})
            }
        }
        let containers = json!([{"name": "app", "image": "nginx", "resources": {"requests": requests}, "ports": ports}]);
        serde_json::from_value(json!({"containers": containers, "nodeSelector": selector})).context("a spec")
    }
}

/// A node as the store has it.
type Kept = (Arc<Node>, Option<Arc<NodeLoad>>);

/// Nodes for 200 such pods each.
fn nodes(count: usize, case: Case) -> Result<Vec<Kept>> {
    let allocatable = Capacity { cpu: MilliCpu(20_000), memory: Bytes(25_600 * MI), disk: Bytes(102_400 * MI), pods: 220 };
    let mut kept = BTreeMap::new();
    for number in 0..count {
        let text = json!({"name": format!("node-{number}"), "nodeId": uuid::Uuid::nil(), "role": "Follower",
            "labels": {"zone": format!("z{}", number % 10), "disk": "ssd", "arch": "amd64"}, "capacity": allocatable, "allocatable": allocatable,
            "version": "0.1.0", "engine": "20.10", "createdAt": "2026-01-01T00:00:00Z", "seenAt": "2026-01-01T00:00:00Z",
            "condition": {"status": "Ready"}, "pods": 0, "reservedCpu": "0", "reservedMemory": "0", "revision": 1});
        let node: Node = serde_json::from_value(text).context("a node")?;
        let load = match case {
            Case::Full => Some(Arc::new(taken(190, number))),
            Case::HostPorts => Some(Arc::new(taken(10, number))),
            Case::Plain(_) | Case::Selectors | Case::Mixed | Case::Different => None,
        };
        kept.insert(node.name.clone(), (Arc::new(node), load));
    }
    Ok(kept.into_values().collect())
}

/// A load of so many pods, ten of which publish a port.
fn taken(pods: u64, number: usize) -> NodeLoad {
    let port = |index: usize| HostPort { port: 8_010 + (number * 10 + index) as u16 % 20, protocol: Default::default(), ip: None };
    NodeLoad {
        unfinished: pods as u32,
        reserved: Reserved { cpu: MilliCpu(100 * pods), memory: Bytes(128 * MI * pods), disk: Bytes(0) },
        host_ports: (0..10).map(|index| (port(index), 1)).collect(),
        ..NodeLoad::default()
    }
}

/// What a round took.
struct Round {
    /// Pods decided in a second.
    per_second: f64,
    /// Making the candidates of one pass, in milliseconds.
    candidates_ms: f64,
    bound: usize,
}

/// Places ten pods for each node.
fn round(mut nodes: Vec<Kept>, specs: &[PodSpec], strategy: Strategy, at_once: usize) -> Result<Round> {
    let (web, mut last_turn) = (Name::new("web")?, None);
    let (mut making, mut deciding, mut passes, mut decided, mut bound) = (Duration::ZERO, Duration::ZERO, 0, 0, 0);
    for (pass, specs) in specs.chunks(at_once).enumerate() {
        let number = |index: usize| Uid(uuid::Uuid::from_u128((pass * at_once + index) as u128));
        let unplaced = |(index, spec)| Unplaced { uid: number(index), name: &web, spec, waiting_for: None, avoids: &[], predecessor: None };
        let pods: Vec<_> = specs.iter().enumerate().map(unplaced).collect();
        let began = thread_time();
        let candidates: Vec<_> = nodes.iter().map(|(node, load)| Candidate::new(node, load.as_deref())).collect();
        let made = thread_time();
        let Decided { placings, last_turn: turn } = schedule(&pods, candidates, Rules { strategy, last_turn: last_turn.as_ref() });
        making += made - began;
        deciding += thread_time() - made;
        ensure!(placings.len() == pods.len(), "{} pods of {} were decided", placings.len(), pods.len());
        last_turn = turn;
        passes += 1;
        decided += pods.len();
        for (placing, pod) in placings.iter().zip(&pods) {
            if let Placing::Bind { node, .. } = placing {
                let place = nodes.binary_search_by_key(&node, |(node, _)| &node.name).map_err(|_| anyhow::anyhow!("{node} is no node"))?;
                add(&mut nodes[place].1, pod.spec);
                bound += 1;
            }
        }
        if making + deciding > ENOUGH {
            break;
        }
    }
    let per_second = decided as f64 / (making + deciding).as_secs_f64();
    Ok(Round { per_second, candidates_ms: making.as_secs_f64() * 1_000.0 / f64::from(passes), bound: bound * specs.len() / decided.max(1) })
}

/// What this thread has used of a core.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// As the store does when a pod is bound.
fn add(load: &mut Option<Arc<NodeLoad>>, spec: &PodSpec) {
    let load = Arc::make_mut(load.get_or_insert_default());
    load.unfinished += 1;
    load.reserved.add(&Reserved::of(spec));
    load.host_ports.extend(HostPort::of(spec).map(|port| (port, 1)));
}

/// Every case at every size.
pub fn measure(options: &Options) -> Result<Report> {
    let mut report = Report::default();
    for case in Case::ALL.into_iter().filter(|case| options.only.is_empty() || options.only.iter().any(|key| key == case.key())) {
        let mut medians = BTreeMap::new();
        for count in &options.nodes {
            let specs = (0..count * 10).map(|number| case.spec(number)).collect::<Result<Vec<_>>>()?;
            let nodes = nodes(*count, case)?;
            let rounds =
                |at_once| (0..options.rounds).map(|_| round(nodes.clone(), &specs, case.strategy(), at_once)).collect::<Result<Vec<_>>>();
            let (rounds, whole) = (rounds(PASS)?, rounds(specs.len())?);
            let figure = Figure::of(&rounds.iter().map(|round| round.per_second).collect::<Vec<_>>());
            let whole = Figure::of(&whole.iter().map(|round| round.per_second).collect::<Vec<_>>());
            medians.insert(*count, (figure.median, whole.median));
            let bound = rounds[0].bound * 100 / specs.len().max(1);
            let what = format!("{count} nodes, {}, {bound} % placed", case.words());
            report.measured(&format!("{}_{count}_per_s", case.key()), &what, "pods/s", figure);
            report.measured(&format!("{}_{count}_at_once_per_s", case.key()), "    in one pass", "pods/s", whole);
            if case == Case::Plain(Strategy::Spread) {
                let samples: Vec<_> = rounds.iter().map(|round| round.candidates_ms).collect();
                report.measured(
                    &format!("candidates_{count}_ms"),
                    &format!("{count} nodes, candidates of a pass"),
                    "ms",
                    Figure::of(&samples),
                );
            }
        }
        if let (Some(at_5000), Some(at_15000)) = (medians.get(&5_000), medians.get(&15_000)) {
            let (key, what) = (format!("{}_slower", case.key()), format!("time for a pod, 15000 : 5000 nodes, {}", case.words()));
            report.number(&key, &what, "x", at_5000.0 / at_15000.0);
            report.number(&format!("{}_at_once_slower", case.key()), "    in one pass", "x", at_5000.1 / at_15000.1);
        }
    }
    Ok(report)
}

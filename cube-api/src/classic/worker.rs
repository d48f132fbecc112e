//! A node as a worker.

use serde::{Deserialize, Serialize};

use crate::node::{Node, NodeRole};

/// A node as the classic interface answers it. What the machine uses is null until the node has said it, and while it isn't connected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Worker {
    /// The node's name.
    pub name: String,
    /// `manager` for the leader's own node, else `worker`.
    pub role: String,
    /// Whether tasks can be placed there: `Ready`, `NotReady` or `Lost`.
    pub status: String,
    /// How many cores it has.
    pub cores: f64,
    /// Bytes of memory that it has.
    pub memory: u64,
    /// Bytes of disk that it has.
    pub disk: u64,
    /// Cores that are kept free for its tasks.
    #[serde(rename = "CPUAllocated")]
    pub cpu_allocated: f64,
    /// Bytes of memory that are kept free for its tasks.
    pub memory_allocated: u64,
    /// Bytes of disk that are kept free for its tasks.
    pub disk_allocated: u64,
    /// Cores that the machine uses, by its tasks and all else.
    #[serde(rename = "CPUUsed")]
    pub cpu_used: Option<f64>,
    /// Bytes of memory that the machine uses.
    pub memory_used: Option<u64>,
    /// Bytes of disk that the machine uses.
    pub disk_used: Option<u64>,
    /// How many processes ran or waited to, on average over 1, 5 and 15 minutes.
    pub load_average: Option<[f64; 3]>,
    /// Tasks there that haven't ended.
    pub task_count: u32,
}

impl Worker {
    /// The node as a worker.
    pub fn of(node: &Node) -> Self {
        let cores = |millis: u64| millis as f64 / 1_000.0;
        let (capacity, usage) = (&node.capacity, node.usage.as_ref());
        Self {
            name: node.name.to_string(),
            role: role(node.role).to_owned(),
            status: node.condition.as_str().to_owned(),
            cores: cores(capacity.cpu.0),
            memory: capacity.memory.0,
            disk: capacity.disk.0,
            cpu_allocated: cores(node.reserved_cpu.0),
            memory_allocated: node.reserved_memory.0,
            disk_allocated: node.reserved_disk.0,
            cpu_used: usage.map(|usage| cores(usage.cpu.0)),
            memory_used: usage.map(|usage| usage.memory.0),
            disk_used: usage.map(|usage| usage.disk.0),
            load_average: usage.and_then(|usage| usage.load).map(|load| load.hundredths.map(|hundredths| f64::from(hundredths) / 100.0)),
            task_count: node.pods,
        }
    }
}

fn role(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Leader => "manager",
        NodeRole::Follower => "worker",
    }
}

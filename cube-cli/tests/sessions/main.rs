//! Whole sessions of `cube` with a leader that answers by a script.

mod classic;
mod config;
mod leader;
mod lists;
mod objects;
mod operate;
mod pods;
mod streams;
mod terminal;
mod workloads;

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use snapbox::cmd::Command;

/// The token in every test. No output may ever hold it.
const PASSWORD: &str = "a-very-secret-token";

/// `cube`, asking that leader, with nothing of the caller's environment.
fn cube(leader: &str, words: &[&str]) -> Command {
    bare(words).env("CUBE_LEADER_URL", leader).env("CUBE_PASSWORD", PASSWORD)
}

fn bare(words: &[&str]) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let command = Command::new(Path::new(env!("CARGO_BIN_EXE_cube"))).env_clear().env("PATH", path).env("HOME", "/nonexistent");
    command.args(words).timeout(std::time::Duration::from_secs(20))
}

fn ago(seconds: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_secs(seconds)
}

fn uid(number: u8) -> String {
    format!("00000000-0000-4000-8000-0000000000{number:02x}")
}

/// A pod of one container as the leader answers it.
fn pod(name: &str, number: u8, revision: u64, status: Value) -> Value {
    json!({
        "metadata": {
            "name": name, "uid": uid(number), "labels": {"app": name}, "generation": 1, "revision": revision, "createdAt": ago(1500),
        },
        "spec": {"containers": [{"name": "main", "image": "busybox:1", "env": {"A": "yes"}}]},
        "placement": {"node": "alpha", "boundAt": ago(1499)},
        "status": status,
    })
}

/// A node as the leader answers it; it uses nothing that is known.
fn node(name: &str, role: &str, condition: Value) -> Value {
    json!({
        "name": name, "nodeId": uid(1), "role": role,
        "capacity": {"cpu": "2", "memory": "8000000000", "disk": "100Gi", "pods": 110},
        "allocatable": {"cpu": "1900m", "memory": "7731564544", "disk": "90Gi", "pods": 110},
        "version": "0.1.0", "engine": "20.10.24", "createdAt": ago(7200), "seenAt": ago(1), "condition": condition,
        "pods": 3, "reservedCpu": "250m", "reservedMemory": "64Mi", "reservedDisk": "512Mi", "revision": 4,
    })
}

/// The node, of which so much is in use.
fn in_use(mut node: Value) -> Value {
    node["usage"] = json!({"cpu": "460m", "memory": "2000000000", "disk": "40Gi"});
    node
}

fn running() -> Value {
    let container = json!({
        "name": "main", "image": "busybox:1", "restartCount": 2,
        "containerID": "0123456789abcdef", "state": {"running": {"startedAt": ago(900)}},
        "lastTermination": {"exitCode": 3, "reason": "Error", "message": "no such file\n", "finishedAt": ago(905)},
    });
    json!({"phase": "Running", "podIP": "10.1.2.3", "startedAt": ago(1450), "containers": [container]})
}

/// As [`running`], but its readiness probe fails.
fn unready() -> Value {
    let mut status = running();
    let container = &mut status["containers"][0];
    (container["started"], container["ready"]) = (json!(true), json!(false));
    container["probeFailure"] = json!("readiness probe failed: HTTP 503 from http://10.1.2.3:80/");
    status
}

fn pulling() -> Value {
    let container = json!({"name": "main", "image": "busybox:1", "restartCount": 0, "state": {"waiting": {"reason": "Pulling"}}});
    json!({"phase": "Pending", "containers": [container]})
}

fn given_up() -> Value {
    json!({"phase": "Failed", "reason": "CrashLimit", "message": "crashed 10 times in a row, exit code 3", "containers": []})
}

fn list(revision: u64, items: &[Value]) -> Value {
    json!({"revision": revision, "items": items})
}

fn event(name: &str, kind: &str, reason: &str, message: &str, count: u32) -> Value {
    json!({
        "object": {"type": "pod", "name": name}, "type": kind, "reason": reason, "message": message, "count": count,
        "firstAt": ago(1400), "lastAt": ago(910), "source": "alpha", "revision": 9,
    })
}

fn refusal(code: &str, message: &str) -> Value {
    json!({"code": code, "message": message, "requestId": "r-1"})
}

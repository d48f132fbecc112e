//! The commands that the user asked for, one after the other.

use std::io::Write;
use std::process::{Command, Stdio};

use cube_api::quantity::{Bytes, MilliCpu};
use serde_json::{Value, json};

use crate::cluster::{BUSYBOX, Cluster, PATIENCE, docker, run, server_binary, shell_pod, wait_for};

#[test]
fn a_manifest_is_applied_listed_shown_and_deleted() {
    let cluster = Cluster::start(0);
    let file = cluster.manifest(json!([{ "type": "pod",
        "metadata": { "name": "my-pod", "labels": { "app": "my-app" } },
        "spec": { "terminationGracePeriodSeconds": 1, "containers": [{ "name": "my-container", "image": BUSYBOX,
            "command": ["sh", "-c", "echo value is $ENV_VAR1; sleep 1000"],
            "env": { "ENV_VAR1": "value1", "ENV_VAR2": "value2" } }] } }]));
    assert_eq!(cluster.cube(&["apply", &file, "--wait"]).ok().trim(), "pod/my-pod created");

    let table = cluster.cube(&["list", "pod"]).ok();
    let mut lines = table.lines();
    let header: Vec<_> = lines.next().expect("a header").split_whitespace().collect();
    assert_eq!(header, ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    let row: Vec<_> = lines.next().expect("a row").split_whitespace().collect();
    assert_eq!(row[..4], ["my-pod", "1/1", "Running", "0"]);

    let page = wait_for("the whole life in the events", PATIENCE, || {
        let page = cluster.cube(&["get", "pod/my-pod"]).ok();
        let reasons = ["Scheduled", "Pulled", "Created", "Started"];
        if reasons.iter().all(|reason| page.contains(reason)) { Ok(page) } else { Err(page) }
    });
    for part in ["my-container", BUSYBOX, "ENV_VAR2", "value2", "app", "my-app", "Running"] {
        assert!(page.contains(part), "{part} is missing in:\n{page}");
    }
    assert_eq!(cluster.containers("my-pod").len(), 1);
    assert_eq!(cluster.cube(&["apply", &file]).ok().trim(), "pod/my-pod unchanged");

    assert_eq!(cluster.cube(&["delete", "pod/my-pod"]).ok().trim(), "pod/my-pod deleted");
    assert_eq!(cluster.all_containers(), Vec::<String>::new());
    let refused = cluster.cube(&["get", "pod/my-pod"]).fails_with(1);
    assert!(refused.contains("pod/my-pod not found"), "{refused}");
}

#[test]
fn every_node_is_listed_with_its_status_and_type() {
    let cluster = Cluster::start(2);
    let table = cluster.cube(&["nodes"]).ok();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..3], ["NAME", "STATUS", "TYPE"]);
    assert_eq!(rows[1][..3], [cluster.leader.name.as_str(), "Ready", "Leader"]);
    assert_eq!(rows[2][..3], [cluster.followers[0].name.as_str(), "Ready", "Follower"]);
    assert_eq!(rows[3][..3], [cluster.followers[1].name.as_str(), "Ready", "Follower"]);
}

#[test]
fn a_node_says_what_its_machine_has_keeps_back_and_uses() {
    let mut cluster = Cluster::leader_only(&["--reserve-cpu", "250m", "--reserve-memory", "25%", "--reserve-disk", "1Gi"]);
    cluster.wait_until_ready();
    let leader = cluster.leader.name.clone();
    let reference = format!("node/{leader}");
    let node: Value = wait_for("the use of the machine", PATIENCE, || {
        let node = cluster.cube(&["get", &reference, "-o", "json"]).ok();
        let node: Value = serde_json::from_str(&node).expect("an object");
        if node["usage"].is_object() { Ok(node) } else { Err(node.to_string()) }
    });
    let bytes = |part: &str, what: &str| serde_json::from_value::<Bytes>(node[part][what].clone()).expect("bytes").0;
    let cpu = |part: &str| serde_json::from_value::<MilliCpu>(node[part]["cpu"].clone()).expect("cores").0;
    let told = docker(["info", "--format", "{{.NCPU}} {{.MemTotal}} {{.DockerRootDir}}"]);
    let told: Vec<&str> = told.split(' ').collect();
    let number = |text: &str| text.trim().parse::<u64>().expect("a number");
    let disk = run(Command::new("df").args(["-B1", "--output=size", told[2]])).ok();
    let disk = number(disk.lines().last().expect("df's answer"));
    assert_eq!((cpu("capacity"), bytes("capacity", "memory"), bytes("capacity", "disk")), (number(told[0]) * 1_000, number(told[1]), disk));
    let all = (number(told[0]) * 1_000, number(told[1]), disk);
    let left = (all.0 - 250, all.1 - all.1 / 4, all.2 - (1 << 30));
    assert_eq!((cpu("allocatable"), bytes("allocatable", "memory"), bytes("allocatable", "disk")), left);
    let used = (cpu("usage"), bytes("usage", "memory"), bytes("usage", "disk"));
    assert!(used.0 <= all.0 && (1..all.1).contains(&used.1) && (1..all.2).contains(&used.2), "{used:?} of {all:?}");
    let table = cluster.cube(&["nodes"]).ok();
    assert_eq!(table.matches('%').count(), 4, "two in the header, and the use of cpu and memory:\n{table}");

    cluster.leader.kill();
    let mut greedy = Command::new(server_binary());
    greedy.args(["leader", "--reserve-memory", "8000Ti", "--data-dir"]).arg(cluster.folder().join("none"));
    let refused = run(&mut greedy).fails_with(1);
    assert!(refused.contains("--reserve-memory keeps back 8388608000Mi of the "), "{refused}");
    assert!(!cluster.folder().join("none").exists(), "nothing was begun");
}

#[test]
fn pods_are_spread_over_the_nodes_of_the_cluster() {
    let cluster = Cluster::start(2);
    let pods: Vec<_> = (0..6).map(|n| shell_pod(&format!("spread-{n}"), "sleep 1000")[0].clone()).collect();
    let file = cluster.manifest(json!(pods));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    let table = cluster.cube(&["list", "pod", "-o", "wide"]).ok();
    for node in [&cluster.leader.name, &cluster.followers[0].name, &cluster.followers[1].name] {
        assert_eq!(table.lines().filter(|line| line.contains(node.as_str())).count(), 2, "{table}");
        let filter = format!("label=io.cube.node={node}");
        assert_eq!(docker(["ps", "-q", "--filter", &filter]).lines().count(), 4, "two sandboxes and two containers");
    }
}

#[test]
fn logs_of_all_containers_come_in_time_order_each_line_with_its_containers_name() {
    let cluster = Cluster::start(0);
    let container = |name: &str| {
        let script = format!("for i in 1 2 3 4 5; do echo {name} says $i; sleep 0.1; done; sleep 1000");
        json!({ "name": name, "image": BUSYBOX, "command": ["sh", "-c", script] })
    };
    cluster.apply(json!([{ "type": "pod", "metadata": { "name": "talk" }, "spec": { "terminationGracePeriodSeconds": 1,
        "containers": [container("ping"), container("pong")] } }]));
    let merged = wait_for("all ten lines", PATIENCE, || {
        let done = cluster.cube(&["logs", "pod/talk", "--timestamps"]);
        if done.stdout.lines().count() == 10 { Ok(done.stdout) } else { Err(format!("{done:?}")) }
    });
    let mut times = Vec::new();
    for line in merged.lines() {
        let (name, rest) = line.split_once("] ").expect("a prefix");
        let (time, text) = rest.split_once(' ').expect("a time and the text");
        times.push(time.parse::<jiff::Timestamp>().expect("RFC 3339"));
        let name = name.strip_prefix('[').expect("a prefix");
        assert!(text.starts_with(&format!("{name} says ")), "the prefix is the writer's: {line}");
    }
    assert!(times.is_sorted(), "{merged}");
    assert!(!merged.lines().is_sorted_by_key(|line| line.starts_with("[pong]")), "the containers' lines interleave: {merged}");

    let alone = "pong says 1\npong says 2\npong says 3\npong says 4\npong says 5\n";
    assert_eq!(cluster.cube(&["logs", "pod/talk", "--container", "pong"]).ok(), alone);
    assert_eq!(cluster.cube(&["logs", "pod/talk", "--container", "ping", "--tail", "1"]).ok(), "ping says 5\n");
    assert_eq!(cluster.cube(&["logs", "pod/talk", "--since", "1h"]).ok().lines().count(), 10);
    assert_eq!(cluster.cube(&["logs", "pod/talk", "--since", "0s"]).ok(), "");
    let refused = cluster.cube(&["logs", "pod/talk", "--container", "pang"]).fails_with(1);
    assert!(refused.contains("ping") && refused.contains("pong"), "it names the containers: {refused}");
}

#[test]
fn followed_logs_go_on_over_a_restart_and_end_with_the_pod() {
    let cluster = Cluster::start(0);
    cluster.apply(json!([{ "type": "pod", "metadata": { "name": "twice" }, "spec": { "restartPolicy": "OnFailure",
        "containers": [{ "name": "main", "image": BUSYBOX, "command": ["sh", "-c", "echo run; exit 3"] }], "restart": { "limit": 3 } } }]));
    wait_for("the first line", PATIENCE, || {
        let done = cluster.cube(&["logs", "pod/twice", "--container", "main"]);
        if done.code == Some(0) { Ok(()) } else { Err(done.stderr) }
    });
    let followed = cluster.cube(&["logs", "-f", "pod/twice", "--container", "main"]).ok();
    assert!(followed.lines().count() >= 1 && followed.lines().all(|line| line == "run"), "{followed}");
    cluster.wait_for_status("twice", "CrashLimit");
    assert_eq!(cluster.cube(&["logs", "pod/twice", "--container", "main", "--previous"]).ok(), "run\n");
}

#[test]
fn exec_passes_input_output_and_the_exact_exit_code() {
    let cluster = Cluster::start(1);
    let file = cluster.manifest(shell_pod("box", "sleep 1000"));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    let done = cluster.cube(&["exec", "pod/box", "--container", "main", "--", "sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (Some(42), "out\n", "err\n"));

    // The end of standard input reaches the process: cat ends by itself.
    let mut cat = cluster.command(&["exec", "-i", "pod/box", "--", "cat"]);
    let mut child = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cube starts");
    let mut stdin = child.stdin.take().expect("piped");
    let sent = "a line\n".repeat(20_000);
    let text = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("all was taken");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout == sent.as_bytes(), "{} of {} bytes came back", output.stdout.len(), sent.len());

    let missing = cluster.cube(&["exec", "pod/box", "--", "no-such-program"]);
    assert!(matches!(missing.code, Some(126 | 127)), "{missing:?}");
    let refused = cluster.cube(&["exec", "pod/nobody", "--", "true"]).fails_with(1);
    assert!(refused.contains("pod/nobody not found"), "{refused}");
}

#[test]
fn exec_with_a_terminal_has_its_size_and_passes_ctrl_c() {
    let cluster = Cluster::start(0);
    let file = cluster.manifest(shell_pod("box", "sleep 1000"));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    let (master, slave) = terminal(97, 31);
    let mut command = cluster.command(&["exec", "pod/box", "--container", "main", "--", "sh"]);
    let stdio = || Stdio::from(slave.try_clone().expect("a copy"));
    let mut child = command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().expect("cube starts");
    drop(command);
    drop(slave);
    let mut screen = Screen::of(master);
    screen.wait_for("#");
    screen.type_in("stty size\r");
    screen.wait_for("31 97");
    screen.type_in("sleep 1000\r");
    screen.wait_for("sleep 1000");
    // Ctrl-C ends the sleep, not the client.
    screen.type_in("\u{3}");
    screen.type_in("echo still-$((40 + 2))\r");
    screen.wait_for("still-42");
    screen.type_in("exit 7\r");
    assert_eq!(child.wait().expect("it ends").code(), Some(7));
}

#[test]
fn the_process_of_an_exec_ends_when_its_client_is_killed() {
    let cluster = Cluster::start(1);
    let file = cluster.manifest(shell_pod("box", "sleep 1000"));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    let id = cluster.containers("box").remove(0);
    let mut command = cluster.command(&["exec", "pod/box", "--", "sleep", "4321"]);
    let mut client = command.stdin(Stdio::null()).spawn().expect("cube starts");
    wait_for("the process to run", PATIENCE, || {
        let top = docker(["top", &id]);
        if top.contains("sleep 4321") { Ok(()) } else { Err(top) }
    });
    client.kill().expect("it is ours");
    client.wait().expect("it ran");
    wait_for("the process to end", PATIENCE, || {
        let top = docker(["top", &id]);
        if top.contains("sleep 4321") { Err(top) } else { Ok(()) }
    });
}

#[test]
fn kubectls_habits_work() {
    let cluster = Cluster::start(0);
    let file = cluster.manifest(shell_pod("box", "sleep 1000"));
    cluster.cube(&["apply", "-f", &file, "--wait"]).ok();
    assert!(cluster.cube(&["get", "pods"]).ok().contains("box"));
    assert_eq!(cluster.cube(&["get", "pods", "-o", "name"]).ok().trim(), "pod/box");
    assert!(cluster.cube(&["describe", "pod", "box"]).ok().contains("Started"));
    assert!(cluster.cube(&["get", "pod", "box", "-o", "yaml"]).ok().contains("name: box"));
    let printed = cluster.folder().join("printed.yaml");
    std::fs::write(&printed, cluster.cube(&["get", "pods", "-o", "yaml"]).ok()).expect("written");
    assert_eq!(cluster.cube(&["apply", "-f", printed.to_str().expect("utf-8")]).ok().trim(), "pod/box unchanged");
    assert!(cluster.cube(&["events"]).ok().contains("pod/box"));
    assert!(cluster.cube(&["version"]).ok().contains(env!("CARGO_PKG_VERSION")));
    let shown = cluster.cube(&["config"]).ok();
    assert!(shown.contains(&cluster.address) && !shown.contains(&cluster.token()), "{shown}");
    cluster.cube(&["delete", "-f", &file]).ok();
    assert_eq!(cluster.all_containers(), Vec::<String>::new());
}

/// A pseudo-terminal of a size: its master and its slave side.
fn terminal(columns: u16, rows: u16) -> (std::fs::File, std::fs::File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("it is ours");
    let name = ptsname(&master, Vec::new()).expect("it has a name");
    let slave = std::fs::OpenOptions::new().read(true).write(true).open(name.to_str().expect("a path")).expect("the other side");
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&slave, size).expect("a size");
    (master.into(), slave)
}

/// What a terminal's user sees and types.
struct Screen {
    master: std::fs::File,
    seen: std::sync::mpsc::Receiver<Vec<u8>>,
    text: String,
}

impl Screen {
    fn of(master: std::fs::File) -> Self {
        let mut reader = master.try_clone().expect("a copy");
        let (sender, seen) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = std::io::Read::read(&mut reader, &mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { master, seen, text: String::new() }
    }

    fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("typed");
    }

    /// Waits for a text beyond what was waited for before.
    #[track_caller]
    fn wait_for(&mut self, wanted: &str) {
        wait_for(wanted, PATIENCE, || {
            while let Ok(bytes) = self.seen.try_recv() {
                self.text.push_str(&String::from_utf8_lossy(&bytes));
            }
            match self.text.find(wanted) {
                Some(at) => {
                    self.text.drain(..at + wanted.len());
                    Ok(())
                }
                None => Err(self.text.clone()),
            }
        });
    }
}

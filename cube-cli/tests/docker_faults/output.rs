//! Containers that write too much, in one line, or bytes that mean something to terminals and protocols.

use std::fs;
use std::process::Stdio;

use serde_json::json;

use crate::cluster::{Cluster, PATIENCE, docker, wait_for};
use crate::pods::{RUNS, container, found, pod, run_pods};

/// What a server may take more than before, in KiB, whatever its containers write: its queues and frames, and the allocator's slack.
const ROOM: u64 = 48 * 1024;

/// The most memory that a process had so far, in KiB.
fn peak(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("the kernel tells it");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn a_flood_of_logs_is_rotated_and_costs_the_node_no_memory_also_with_a_reader_that_stops() {
    let cluster = Cluster::start(0);
    let before = peak(cluster.leader.pid());
    let flood = "yes $(printf %01000d 7) | head -c 120000000; echo; echo end; sleep 1000";
    cluster.apply(json!([pod("flood", &[("main", flood)])]));
    cluster.wait_for_status("flood", "Running");
    let mut stalled =
        cluster.command(&["logs", "pod/flood", "-f"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("cube starts");
    run_pods(&cluster, &[pod("box", &[("main", RUNS)])]);
    wait_for("the flood's end", PATIENCE, || {
        let tail = cluster.cube(&["logs", "pod/flood", "--container", "main", "--tail", "1"]).ok();
        if tail == "end\n" { Ok(()) } else { Err(tail.chars().take(20).collect()) }
    });
    assert_eq!(cluster.cube(&["logs", "pod/flood", "--tail", "3"]).ok().lines().count(), 3);
    let log = docker(["inspect", "-f", "{{.LogPath}}", &container(&cluster, "flood", "main")]);
    let folder = std::path::Path::new(&log).parent().expect("a folder").to_owned();
    let sizes = fs::read_dir(folder)
        .expect("readable")
        .filter_map(|file| file.ok().filter(|file| file.file_name().to_string_lossy().contains("-json.log")));
    let kept: u64 = sizes.map(|file| file.metadata().expect("readable").len()).sum();
    assert!(kept <= 55 << 20, "{kept} bytes of logs are kept");
    stalled.kill().expect("it is ours");
    stalled.wait().expect("it was running");
    let grown = peak(cluster.leader.pid()) - before;
    assert!(grown < ROOM, "the server took {grown} KiB more");
}

#[test]
fn a_line_of_100_mib_costs_the_node_no_memory_and_its_end_is_told() {
    let cluster = Cluster::start(0);
    let before = peak(cluster.leader.pid());
    let mut long = pod("long", &[("main", "head -c 104857600 /dev/zero | tr '\\0' x; echo; echo the end; exit 3")]);
    long["spec"]["restartPolicy"] = json!("Never");
    cluster.apply(json!([long]));
    cluster.wait_for_status("long", "Error");
    let page = cluster.cube(&["get", "pod/long"]).ok();
    assert!(page.contains("the end") && page.len() < 20_000, "the page has the last words and no more: {} bytes", page.len());
    let text = cluster.cube(&["logs", "pod/long", "--container", "main"]).ok();
    let letters = text.bytes().filter(|&byte| byte == b'x').count();
    // What the rotation left of it.
    assert!((20 << 20..=50 << 20).contains(&letters), "{letters} letters");
    assert!(text.trim_matches('x') == "\nthe end\n", "no byte that wasn't written");
    let grown = peak(cluster.leader.pid()) - before;
    assert!(grown < ROOM, "the server took {grown} KiB more");
}

/// Colours, a cleared screen, a title, NUL, C1, bytes that are no UTF-8, and headers of Docker's and our own frames with absurd lengths.
const HOSTILE: &[u8] =
    b"\x1b[31mred\x1b[2J\x1b]0;title\x07\0\x9b31m\xff\xfe\xc3\x28\r\x08\x01\0\0\0\xff\xff\xff\xff\x02\0\0\0\0\0\0\x05\x03{}\x04\xff\n";

/// HOSTILE as the shell's printf writes it.
fn print_hostile() -> String {
    let octal: String = HOSTILE.iter().map(|byte| format!("\\{byte:03o}")).collect();
    format!("printf '{octal}'")
}

#[test]
fn hostile_bytes_go_through_exec_unchanged() {
    let cluster = Cluster::start(0);
    run_pods(&cluster, &[pod("box", &[("main", RUNS)])]);
    for (script, on_stdout) in [(print_hostile(), true), (format!("{} >&2", print_hostile()), false)] {
        let output = cluster.command(&["exec", "pod/box", "--", "sh", "-c", &script]).stdin(Stdio::null()).output().expect("cube runs");
        let (told, other) = if on_stdout { (output.stdout, output.stderr) } else { (output.stderr, output.stdout) };
        assert_eq!((told.escape_ascii().to_string(), &other[..]), (HOSTILE.escape_ascii().to_string(), &b""[..]));
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn hostile_bytes_in_logs_break_no_stream_and_reach_no_page() {
    let cluster = Cluster::start(0);
    let mut hostile = pod("hostile", &[("main", &format!("{}; echo after; exit 3", print_hostile()))]);
    hostile["spec"]["restartPolicy"] = json!("Never");
    cluster.apply(json!([hostile]));
    cluster.wait_for_status("hostile", "Error");
    // Docker's log file is JSON: what is no UTF-8 was replaced by Docker, the rest is as it was written.
    let text = cluster.cube(&["logs", "pod/hostile", "--container", "main"]).ok();
    assert_eq!(text, format!("{}after\n", String::from_utf8_lossy(HOSTILE)));
    for page in [&["get", "pod/hostile"][..], &["events"], &["list", "pod", "-o", "wide"], &["get", "pod/hostile", "-o", "yaml"]] {
        let page_text = cluster.cube(page).ok();
        let bad: Vec<_> = page_text.chars().filter(|c| c.is_control() && *c != '\n').collect();
        assert!(bad.is_empty(), "{page:?} has control characters {bad:?}:\n{}", page_text.escape_debug());
    }
    let page = cluster.cube(&["get", "pod/hostile"]).ok();
    assert!(page.contains("red") && page.contains("after"), "{page}");
    // Its sandbox goes after its end was told.
    wait_for("one container, run once", PATIENCE, || match found(&cluster, "hostile").len() {
        1 => Ok(()),
        several => Err(format!("{several} containers")),
    });
}

//! The figures, and what a full disk looks like from outside.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// The samples of a text, by name and labels. Each must be of a family with a type and a help text, and a number.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let (mut helped, mut typed, mut samples) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    let mut lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.pop(), Some("# EOF"));
    for line in lines {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words.as_slice() {
            ["#", "HELP", family, help] => assert!(help.len() > 10 && helped.insert(*family), "{line}"),
            ["#", "TYPE", family, kind] => {
                assert!(["counter", "gauge", "histogram", "info"].contains(kind) && typed.insert(*family), "{line}");
            }
            ["#", "UNIT", family, unit] => assert!(family.ends_with(unit) && ["seconds", "bytes"].contains(unit), "{line}"),
            _ => {
                let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
                let family = name.split('{').next().expect("a name");
                let of = ["", "_total", "_bucket", "_sum", "_count", "_info"].map(|suffix| family.strip_suffix(suffix).unwrap_or("-"));
                assert!(of.iter().any(|family| helped.contains(family) && typed.contains(family)), "{line} is of no family");
                let value = value.parse().unwrap_or_else(|_| panic!("{line} has no number"));
                assert!(samples.insert(name.to_owned(), value).is_none(), "{line} comes twice");
            }
        }
    }
    samples
}

async fn figures(leader: &Leader) -> BTreeMap<String, f64> {
    let answer = leader.get("/metrics").await;
    assert_eq!(answer.status(), StatusCode::OK);
    let kind = answer.headers()[header::CONTENT_TYPE].to_str().expect("a word").to_owned();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    samples(std::str::from_utf8(&whole(answer).await).expect("text"))
}

#[tokio::test]
async fn the_figures_can_be_read_are_explained_and_move() {
    let leader = Leader::start().await;
    // The task that follows the changes for the sessions begins to.
    while figures(&leader).await["cube_watchers"] < 1.0 {
        tokio::task::yield_now().await;
    }
    let before = figures(&leader).await;
    leader.apply(json!([pod("web", "nginx", "a"), pod("db", "postgres", "a")])).await;
    leader.get("/v1/pods/absent").await;
    leader.send(Method::from_bytes(b"PURGE").expect("a word"), "/nowhere", None, Body::empty()).await;
    let watch = leader.get("/v1/pods?watch=true").await;
    let after = figures(&leader).await;
    let by = |name: &str| after[name] - before.get(name).copied().unwrap_or(0.0);
    for (name, wanted) in [
        ("cube_store_writes_total", 1.0),
        ("cube_store_batches_total", 1.0),
        ("cube_store_commit_seconds_count", 1.0),
        ("cube_store_revision", 4.0),
        ("cube_store_ring", 2.0),
        ("cube_events", 2.0),
        ("cube_watchers", 1.0),
        ("cube_pods{phase=\"Pending\"}", 2.0),
        ("cube_http_requests_total{method=\"POST\",route=\"/v1/apply\",status=\"2xx\"}", 1.0),
        ("cube_http_requests_total{method=\"GET\",route=\"/v1/pods/{name}\",status=\"4xx\"}", 1.0),
        ("cube_http_requests_total{method=\"other\",route=\"none\",status=\"4xx\"}", 1.0),
        ("cube_http_requests_total{method=\"GET\",route=\"/metrics\",status=\"2xx\"}", 1.0),
        ("cube_http_request_seconds_count{route=\"/v1/apply\"}", 1.0),
    ] {
        assert_eq!(by(name), wanted, "{name}");
    }
    assert_eq!((after["cube_store_queue"], after["cube_store_queue_limit"]), (0.0, 10_304.0));
    for name in
        ["cube_store_ring_bytes", "cube_store_database_bytes", "cube_store_wal_bytes", "process_open_fds", "process_resident_memory_bytes"]
    {
        assert!(after[name] > 0.0, "{name}");
    }
    assert_eq!(after[&format!("cube_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))], 1.0);
    drop(watch);
    assert_eq!(figures(&leader).await["cube_watchers"], before["cube_watchers"], "a watcher that hung up isn't counted");
}

/// What the node says when it dials.
fn announcement(node: &str, number: u128) -> cube_api::session::Announcement {
    serde_json::from_value(json!({
        "node": node, "nodeId": uuid::Uuid::from_u128(number), "machineId": node, "role": "Follower",
        "facts": {"version": "0", "engine": "20.10", "capacity": {"cpu": "4", "memory": "8Gi", "disk": "100Gi", "pods": 110}},
    }))
    .expect("an announcement")
}

#[tokio::test]
async fn nodes_have_figures_of_their_own_as_long_as_they_are_not_too_many() {
    let leader = Leader::start().await;
    for number in 1..=1_001 {
        leader.api.store.join(announcement(&format!("n{number}"), number), false).await.expect("it may join");
        if number == 2 {
            let figures = figures(&leader).await;
            assert_eq!(
                (figures["cube_node_memory_bytes{node=\"n2\"}"], figures["cube_node_cpu_cores{node=\"n1\"}"]),
                (8_589_934_592.0, 4.0)
            );
            assert_eq!((figures["cube_nodes_measured"], figures["cube_container_restarts"]), (0.0, 0.0));
            assert!(!figures.keys().any(|name| name.contains("_used") && name.contains("node=")), "nobody has said what is used");
        }
    }
    assert!(!figures(&leader).await.keys().any(|name| name.contains("node=")), "1,001 nodes are shown together only");
}

#[tokio::test]
async fn a_reader_may_see_the_figures_and_a_node_may_not() {
    let leader = Leader::start().await;
    let reader = leader.credential(&Role::Read);
    assert_eq!(leader.send(Method::GET, "/metrics", Some(&reader), Body::empty()).await.status(), StatusCode::OK);
    let node = leader.credential(&Role::Node(name("n1")));
    refused(leader.send(Method::GET, "/metrics", Some(&node), untouched()).await, ErrorCode::Forbidden).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_said_with_where_and_what_to_do_and_reads_and_deletes_go_on() {
    let leader = Leader::start().await;
    leader.apply(json!([pod("web", "nginx", "a")])).await;
    leader.disk.fill(1);
    let mut large = pod("large", "nginx", "a");
    large["spec"]["containers"][0]["env"] =
        (0..16).map(|number| (format!("LARGE_{number}"), json!("x".repeat(64 << 10)))).collect::<Value>();
    for _ in 0..2 {
        let error = refused(leader.as_admin(Method::POST, "/v1/apply", json!([large]).to_string()).await, ErrorCode::NoSpace).await;
        let hint = error.hint.expect("what to do");
        assert!(hint.contains("free room") && hint.contains("df -h /the/data/folder"), "{hint}");
    }
    assert_eq!(ErrorCode::NoSpace.status(), StatusCode::INSUFFICIENT_STORAGE);
    refused(leader.as_admin(Method::POST, "/v1/pods/web/restart", Body::empty()).await, ErrorCode::NoSpace).await;
    let ready = leader.send(Method::GET, "/readyz", None, Body::empty()).await;
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    let words = String::from_utf8(whole(ready).await.to_vec()).expect("text");
    assert!(words.contains("disk is full") && !words.contains("/the/data"), "{words}");
    assert_eq!(leader.send(Method::GET, "/healthz", None, Body::empty()).await.status(), StatusCode::OK);
    assert_eq!(leader.get("/v1/pods/web").await.status(), StatusCode::OK);
    let full = figures(&leader).await;
    assert_eq!((full["cube_no_space"], full["cube_store_no_space_total"]), (1.0, 2.0));
    leader.delete("web").await;

    leader.disk.free();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(leader.send(Method::GET, "/readyz", None, Body::empty()).await.status(), StatusCode::OK);
    leader.apply(json!([large])).await;
    assert_eq!(figures(&leader).await["cube_no_space"], 0.0);
}

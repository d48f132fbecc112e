//! Apply, delete, restart.

use serde_json::{Value, json};
use snapbox::cmd::Command;
use snapbox::str;

use crate::leader::{Answer, Leader, Request};
use crate::{cube, event, given_up, list, node, pod, pulling, refusal, running, unready};

const MANIFEST: &str =
    r#"[{"type": "pod", "metadata": {"name": "web"}, "spec": {"containers": [{"name": "main", "image": "busybox:1"}]}}]"#;

fn applied(status: Value) -> Answer {
    Answer::Json(200, json!({"revision": 7, "items": [{"action": "created", "pod": pod("web", 2, 7, status)}]}))
}

fn apply(leader: &Leader, words: &[&str]) -> Command {
    let words: Vec<&str> = ["apply", "-f", "-"].iter().chain(words).copied().collect();
    cube(&leader.address, &words).stdin(MANIFEST)
}

/// Answers the apply, the list (pulling), a watch with one change, and the events.
fn becoming(status: fn() -> Value) -> Leader {
    Leader::start(move |request: &Request, _| match request.line.as_str() {
        "POST /v1/apply" => applied(json!({})),
        "GET /v1/pods" => Answer::Json(200, list(7, &[pod("web", 2, 7, pulling())])),
        "GET /v1/pods?watch=true&from=7" => Answer::Hold(vec![json!({"type": "modified", "object": pod("web", 2, 8, status())})]),
        _ => Answer::Json(200, list(9, &[event("web", "Warning", "CrashLimit", "main crashed 10 times: no such file", 1)])),
    })
}

#[test]
fn apply_says_what_was_done_and_sends_the_manifest() {
    let leader = Leader::start(|_, _| applied(json!({})));
    apply(&leader, &[]).assert().code(0).stdout_eq("pod/web created\n").stderr_eq("");
    let sent: Value = serde_json::from_slice(&leader.requests()[0].body).unwrap();
    assert_eq!((&sent[0]["type"], &sent[0]["metadata"]["name"]), (&json!("pod"), &json!("web")));
}

#[test]
fn a_dry_run_asks_for_one() {
    let leader = Leader::start(|_, _| applied(json!({})));
    apply(&leader, &["--dry-run"]).assert().code(0).stdout_eq("pod/web created (dry run)\n").stderr_eq("");
    assert_eq!(leader.lines(), ["POST /v1/apply?dryRun=true"]);
}

#[test]
fn an_invalid_manifest_is_told_whole_with_positions_and_sends_nothing() {
    let leader = Leader::start(|_, _| applied(json!({})));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.json"), MANIFEST.replace("image", "iamge")).unwrap();
    std::fs::write(folder.path().join("b.yaml"), "type: pod\nmetadata:\n  name: Web\nspec:\n  containers: []\n").unwrap();
    cube(&leader.address, &["apply", "a.json", "b.yaml"]).current_dir(folder.path()).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
error: the manifest has 4 errors; nothing was changed
  a.json:1:71: pod/web: spec.containers[0]: [..]image[..]
  a.json:1:88: pod/web: spec.containers[0].iamge: [..]
  b.yaml:3:3: resource 1: metadata.name: [..]
  b.yaml:5:3: resource 1: spec.containers: [..]

"#]]);
    assert!(leader.requests().is_empty());
}

#[test]
fn a_manifest_that_the_leader_refuses_is_told_whole() {
    let problems = json!([{"resource": "pod/web", "path": "spec.containers[0].image", "message": "is bad"}, {"message": "twice"}]);
    let leader = Leader::start(move |_, _| {
        Answer::Json(422, json!({"code": "Invalid", "message": "the manifest has 2 errors", "details": problems, "hint": "fix both"}))
    });
    apply(&leader, &[]).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
error: the manifest has 2 errors
  pod/web: spec.containers[0].image: is bad
  twice
hint: fix both

"#]]);
}

#[test]
fn apply_with_wait_ends_when_the_pods_run() {
    apply(&becoming(running), &["--wait"])
        .assert()
        .code(0)
        .stdout_eq("pod/web created\n")
        .stderr_eq("pod/web: Pulling\npod/web: Running\n");
}

#[test]
fn apply_with_wait_waits_for_readiness_and_says_what_it_waits_for() {
    apply(&becoming(unready), &["--wait", "--timeout", "100ms"]).assert().code(124).stdout_eq("pod/web created\n").stderr_eq(str![[r#"
pod/web: Pulling
pod/web: Running, not ready: readiness probe failed: HTTP 503 from http://10.1.2.3:80/
error: not everything is ready after 100ms
  pod/web: Running, not ready: readiness probe failed: HTTP 503 from http://10.1.2.3:80/
hint: all stays applied; cube get TYPE/NAME says what keeps one waiting

"#]]);
}

/// The pod changes to this while it is waited for.
fn changing(status: fn() -> Value) -> Leader {
    Leader::start(move |request, _| match request.line.as_str() {
        "GET /v1/pods" => Answer::Json(200, list(7, &[pod("web", 2, 7, unready()), pod("db", 3, 6, running())])),
        "GET /v1/pods?watch=true&from=7" => Answer::Hold(vec![json!({"type": "modified", "object": pod("web", 2, 8, status())})]),
        "GET /v1/events?object=pod%2Fweb" => {
            Answer::Json(200, list(9, &[event("web", "Warning", "CrashLimit", "main crashed 10 times", 1)]))
        }
        other => Answer::Json(404, refusal("NoRoute", other)),
    })
}

#[test]
fn wait_ends_when_the_pod_is_ready() {
    let words = ["wait", "pod/web", "pod/db", "--for=condition=Ready"];
    cube(&changing(running).address, &words).assert().code(0).stdout_eq("pod/db is ready\npod/web is ready\n").stderr_eq("");
}

#[test]
fn wait_gives_up_after_its_time_with_124_and_says_what_is_missing() {
    let words = ["wait", "pod/web", "--for=ready", "--timeout=100ms"];
    cube(&changing(unready).address, &words).assert().code(124).stdout_eq("").stderr_eq(str![[r#"
error: it is not so after 100ms
  pod/web: Running: not ready: readiness probe failed: HTTP 503 from http://10.1.2.3:80/
hint: cube get pod/NAME says what keeps one waiting

"#]]);
}

#[test]
fn wait_does_not_wait_for_what_cannot_come() {
    cube(&changing(given_up).address, &["wait", "pod/web", "--for=ready"]).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
error: pod/web is Failed: CrashLimit: crashed 10 times in a row, exit code 3
  CrashLimit: main crashed 10 times
hint: cube get pod/web shows its events, cube logs pod/web what it wrote

"#]]);
    cube(&changing(given_up).address, &["wait", "pod/web", "--for=phase=failed"]).assert().code(0).stdout_eq("pod/web has failed\n");
    cube(&changing(given_up).address, &["wait", "pod/gone", "--for=delete"]).assert().code(0).stdout_eq("pod/gone is gone\n");
    cube(&changing(given_up).address, &["wait", "pod/web", "--for=lunch"]).assert().code(2);
    cube(&changing(given_up).address, &["wait", "node/alpha", "--for=ready"]).assert().code(2);
}

#[test]
fn apply_with_wait_fails_at_once_when_a_pod_was_given_up_and_explains() {
    apply(&becoming(given_up), &["--wait"]).assert().code(1).stdout_eq("pod/web created\n").stderr_eq(str![[r#"
pod/web: Pulling
error: pod/web failed: CrashLimit: crashed 10 times in a row, exit code 3
  CrashLimit: main crashed 10 times: no such file
hint: cube get pod/web shows its events, cube logs pod/web what it wrote

"#]]);
}

#[test]
fn apply_with_wait_gives_up_after_its_time_with_124() {
    apply(&becoming(pulling), &["--wait", "--timeout", "100ms"]).assert().code(124).stdout_eq("pod/web created\n").stderr_eq(str![[r#"
pod/web: Pulling
error: not everything is ready after 100ms
  pod/web: Pulling
hint: all stays applied; cube get TYPE/NAME says what keeps one waiting

"#]]);
}

#[test]
fn delete_waits_until_the_containers_are_gone() {
    let leader = Leader::start(|request, _| match request.line.as_str() {
        "DELETE /v1/pods/web?graceSeconds=3" => Answer::Json(200, pod("web", 2, 7, running())),
        "GET /v1/pods" => Answer::Json(200, list(7, &[pod("web", 2, 7, running()), pod("db", 3, 6, running())])),
        "GET /v1/pods?watch=true&from=7" => Answer::Hold(vec![json!({"type": "deleted", "object": pod("web", 2, 8, running())})]),
        other => Answer::Json(404, refusal("NoRoute", other)),
    });
    cube(&leader.address, &["delete", "pod/web", "--grace-period", "3"]).assert().code(0).stdout_eq("pod/web deleted\n").stderr_eq("");
}

#[test]
fn delete_takes_what_a_selector_or_a_manifest_names() {
    let leader = Leader::start(|request, _| match request.line.as_str() {
        "GET /v1/pods?selector=app%3Dweb" => Answer::Json(200, list(7, &[pod("web", 2, 7, running()), pod("web-2", 3, 7, running())])),
        _ => Answer::Json(200, pod("web", 2, 7, running())),
    });
    cube(&leader.address, &["delete", "-l", "app=web", "--wait=false"])
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
pod/web is being deleted
pod/web-2 is being deleted

"#]])
        .stderr_eq("");
    cube(&leader.address, &["delete", "-f", "-", "--wait=false"])
        .stdin(MANIFEST)
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
pod/web is being deleted

"#]])
        .stderr_eq("");
    assert_eq!(leader.lines()[1..], ["DELETE /v1/pods/web", "DELETE /v1/pods/web-2", "DELETE /v1/pods/web"]);
}

#[test]
fn delete_of_a_node_says_why_not_and_passes_force_on() {
    let leader = Leader::start(|request, _| match request.line.as_str() {
        "DELETE /v1/nodes/alpha?force=true" => {
            Answer::Json(200, node("alpha", "Follower", json!({"status": "NotReady", "reason": "away"})))
        }
        _ => Answer::Json(409, json!({"code": "Conflict", "message": "1 pod is bound to node/alpha", "hint": "delete it with --force"})),
    });
    cube(&leader.address, &["delete", "node/alpha"]).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
error: 1 pod is bound to node/alpha
hint: delete it with --force

"#]]);
    cube(&leader.address, &["delete", "node", "alpha", "--force"]).assert().code(0).stdout_eq("node/alpha deleted\n").stderr_eq("");
    assert_eq!(leader.lines(), ["DELETE /v1/nodes/alpha", "DELETE /v1/nodes/alpha?force=true"]);
}

#[test]
fn delete_of_a_whole_type_by_mistake_is_refused() {
    let leader = Leader::start(|_, _| Answer::Json(200, list(7, &[])));
    cube(&leader.address, &["delete", "pods"]).assert().code(2).stdout_eq("").stderr_eq(str![[r#"
error: which pod to delete is not said
hint: name it (pod/NAME), or select with -l

"#]]);
    assert!(leader.requests().is_empty());
}

#[test]
fn restart_asks_for_it() {
    let leader = Leader::start(|_, _| Answer::Json(200, pod("web", 2, 7, given_up())));
    cube(&leader.address, &["restart", "pod/web"]).assert().code(0).stdout_eq("pod/web is being restarted\n").stderr_eq("");
    assert_eq!(leader.lines(), ["POST /v1/pods/web/restart"]);
}

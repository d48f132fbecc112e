//! Cordon, uncordon, drain, label.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use snapbox::str;

use crate::leader::{Answer, Leader, Request};
use crate::{ago, cube, event, list, node, pod, pulling, refusal, running, uid};

/// `alpha`, cordoned, with this drain.
fn cordoned(revision: u64, drain: Value) -> Value {
    let mut node = node("alpha", "Follower", json!({"status": "Ready"}));
    node["cordon"] = json!({"since": ago(300), "reason": "disk swap"});
    if !drain.is_null() {
        node["cordon"]["drain"] = drain;
    }
    node["revision"] = json!(revision);
    node
}

fn drain(left: Value, finished: bool) -> Value {
    let mut drain = json!({"since": ago(10), "left": left});
    if finished {
        drain["finishedAt"] = json!(ago(1));
    }
    drain
}

fn left(pod: &str, number: u8, step: Value) -> Value {
    let mut left = step;
    left["name"] = json!(pod);
    left["uid"] = json!(uid(number));
    left
}

fn stopping(pod: &str, number: u8) -> Value {
    left(pod, number, json!({"step": "stopping", "graceSeconds": 30}))
}

fn stays(pod: &str, number: u8, reason: &str) -> Value {
    left(pod, number, json!({"step": "stays", "reason": reason}))
}

fn modified(node: Value) -> Value {
    json!({"type": "modified", "object": node})
}

const NEVER: &str = "restartPolicy Never: it would not be run again, so its end is waited for";

#[test]
fn cordon_and_uncordon_name_nodes_with_or_without_the_type() {
    let leader = Leader::start(|_, _| Answer::Json(200, cordoned(7, Value::Null)));
    cube(&leader.address, &["cordon", "alpha", "node/beta", "--reason", "disk swap"]).assert().code(0).stderr_eq("").stdout_eq(str![[r#"
node/alpha cordoned
node/beta cordoned

"#]]);
    cube(&leader.address, &["uncordon", "alpha"]).assert().code(0).stdout_eq("node/alpha uncordoned\n").stderr_eq("");
    assert_eq!(
        leader.lines(),
        ["POST /v1/nodes/alpha/cordon?reason=disk+swap", "POST /v1/nodes/beta/cordon?reason=disk+swap", "DELETE /v1/nodes/alpha/cordon"]
    );
    cube(&leader.address, &["cordon", "pod/web"]).assert().code(2);
}

#[test]
fn an_unknown_node_is_told_with_what_to_do() {
    let unknown = || json!({"code": "NotFound", "message": "node/x not found", "hint": "`cube nodes` shows what there is"});
    let leader = Leader::start(move |_, _| Answer::Json(404, unknown()));
    for words in [["cordon", "x"].as_slice(), &["uncordon", "x"], &["drain", "x"], &["label", "node", "x", "a=b"]] {
        cube(&leader.address, words).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
error: node/x not found
hint: `cube nodes` shows what there is

"#]]);
    }
}

#[test]
fn a_cordoned_node_shows_so_in_the_list_and_on_its_page() {
    let drain = || drain(json!([stopping("web", 2), stays("job", 3, NEVER)]), false);
    let leader = Leader::start(move |request, _| match request.line.as_str() {
        "GET /v1/nodes/alpha" => Answer::Json(200, cordoned(7, drain())),
        "GET /v1/nodes" => Answer::Json(200, list(7, &[cordoned(7, drain())])),
        _ => Answer::Json(200, list(9, &[event("alpha", "Normal", "Draining", "takes no new pods", 1)])),
    });
    cube(&leader.address, &["nodes"]).assert().code(0).stderr_eq("").stdout_eq(str![[r#"
NAME    STATUS           TYPE       AGE    [..]
alpha   Ready,Cordoned   Follower   120m   [..]

"#]]);
    cube(&leader.address, &["nodes", "-o", "wide"]).assert().code(0).stdout_eq(str![[r#"
[..]
alpha   Ready,Cordoned   [..]disk swap; draining, 2 pods are left

"#]]);
    cube(&leader.address, &["get", "node/alpha"]).assert().code(0).stdout_eq(str![[r#"
Name:        alpha
Status:      Ready,Cordoned
Cordoned:    [..] (5m ago)
             disk swap
Drain:       draining, 2 pods are left
             pod/web: stopping (30s grace)
             pod/job: stays: restartPolicy Never: it would not be run again, so its end is waited for
Type:        Follower
...
"#]]);
}

/// A leader that moves `web` to beta, waits for the end of `job`, and can't place `big`.
fn draining() -> Leader {
    let web = || {
        let mut web = pod("web", 9, 12, pulling());
        web["placement"]["node"] = json!("beta");
        web
    };
    let big = || {
        let mut big = pod("big", 8, 12, json!({"phase": "Pending"}));
        big["placement"] = json!({"waitingFor": "0/2 nodes fit: 1 is cordoned, 1 lacks cpu (need 9)"});
        big
    };
    let once = || {
        let mut once = pod("once", 7, 12, json!({"phase": "Failed", "reason": "Drained", "containers": []}));
        once["placement"] = json!({});
        once
    };
    Leader::start(move |request: &Request, _| match request.line.as_str() {
        "POST /v1/nodes/alpha/drain?graceSeconds=30&force=true" => Answer::Json(200, cordoned(7, drain(json!([]), false))),
        "GET /v1/nodes?watch=true&from=7" => {
            let queued = left("big", 4, json!({"step": "queued"}));
            let all = [stopping("web", 2), stays("job", 3, NEVER), queued, stopping("once", 5), stopping("gone", 6)];
            Answer::Hold(vec![
                json!({"type": "modified", "object": node("beta", "Follower", json!({"status": "Ready"}))}),
                modified(cordoned(8, drain(json!(all), false))),
                modified(cordoned(9, drain(json!([stays("job", 3, NEVER), stopping("big", 4)]), false))),
                modified(cordoned(10, drain(json!([]), true))),
            ])
        }
        "GET /v1/pods/web" => Answer::Json(200, web()),
        "GET /v1/pods/job" => Answer::Json(200, pod("job", 3, 12, json!({"phase": "Succeeded", "containers": []}))),
        "GET /v1/pods/big" => Answer::Json(200, big()),
        "GET /v1/pods/once" => Answer::Json(200, once()),
        other => Answer::Json(404, refusal("NotFound", other)),
    })
}

#[test]
fn drain_tells_each_step_and_ends_when_the_node_is_empty() {
    cube(&draining().address, &["drain", "node/alpha", "--force", "--grace-period", "30"]).assert().code(0).stderr_eq("").stdout_eq(str![
        [r#"
node/alpha cordoned
pod/web: stopping (30s grace)
pod/job: stays: restartPolicy Never: it would not be run again, so its end is waited for
pod/once: stopping (30s grace)
pod/gone: stopping (30s grace)
pod/big: stopping (30s grace)
pod/web: stopped; placed on beta
pod/once: stopped; Drained: cube restart pod/once runs it again
pod/gone: stopped; deleted
pod/job: finished: Completed
pod/big: stopped; waits for a node: 0/2 nodes fit: 1 is cordoned, 1 lacks cpu (need 9)
node/alpha drained; it takes no pods until: cube uncordon alpha

"#]
    ]);
}

/// A leader whose drain comes to this and no further.
fn stuck(last: Vec<Value>) -> Leader {
    Leader::start(move |request: &Request, _| match request.line.as_str() {
        "POST /v1/nodes/alpha/drain" => Answer::Json(200, cordoned(7, drain(json!([]), false))),
        "GET /v1/nodes?watch=true&from=7" => Answer::Hold(last.clone()),
        other => Answer::Json(404, refusal("NotFound", other)),
    })
}

#[test]
fn drain_gives_up_waiting_after_its_time_with_124_and_what_is_left_and_why() {
    let full = "no other node takes it: 0/2 nodes fit: 1 is cordoned, 1 lacks cpu (need 9)";
    let left = json!([stays("big", 2, full), stays("job", 3, NEVER), left("web", 4, json!({"step": "queued"}))]);
    let leader = stuck(vec![modified(cordoned(8, drain(left, false)))]);
    cube(&leader.address, &["drain", "alpha", "--timeout", "500ms"])
        .assert()
        .code(124)
        .stdout_eq(str![[r#"
node/alpha cordoned
pod/big: stays: no other node takes it: 0/2 nodes fit: 1 is cordoned, 1 lacks cpu (need 9)
pod/job: stays: restartPolicy Never: it would not be run again, so its end is waited for

"#]])
        .stderr_eq(str![[r#"
error: node/alpha isn't drained after 500ms
  pod/big: stays: no other node takes it: 0/2 nodes fit: 1 is cordoned, 1 lacks cpu (need 9)
  pod/job: stays: restartPolicy Never: it would not be run again, so its end is waited for
  pod/web: queued: others stop first
hint: the leader goes on with it; cube drain alpha waits on, with --force also what stays is stopped; cube uncordon alpha calls it off

"#]]);
}

#[test]
fn a_drain_that_is_called_off_meanwhile_is_an_error() {
    let uncordoned = node("alpha", "Follower", json!({"status": "Ready"}));
    let leader = stuck(vec![modified(cordoned(8, drain(json!([stopping("web", 2)]), false))), modified(uncordoned)]);
    cube(&leader.address, &["drain", "alpha"])
        .assert()
        .code(1)
        .stdout_eq(str![[r#"
node/alpha cordoned
pod/web: stopping (30s grace)

"#]])
        .stderr_eq(str![[r#"
error: the drain of node/alpha was called off: it was uncordoned
  pod/web: stopping (30s grace)

"#]]);
    let leader = stuck(vec![json!({"type": "deleted", "object": cordoned(8, drain(json!([]), false))})]);
    cube(&leader.address, &["drain", "alpha"]).assert().code(1).stderr_eq("error: node/alpha was deleted\n");
}

#[test]
fn a_drain_that_is_not_waited_for_is_asked_for_and_that_is_all() {
    let leader = stuck(Vec::new());
    cube(&leader.address, &["drain", "alpha", "--no-wait"]).assert().code(0).stdout_eq("node/alpha is being drained\n").stderr_eq("");
    assert_eq!(leader.lines(), ["POST /v1/nodes/alpha/drain"]);
}

#[test]
fn ctrl_c_ends_the_waiting_and_says_that_the_drain_goes_on() {
    let leader = stuck(vec![modified(cordoned(8, drain(json!([stopping("web", 2)]), false)))]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_cube"))
        .args(["drain", "alpha"])
        .env("CUBE_LEADER_URL", &leader.address)
        .env("CUBE_PASSWORD", crate::PASSWORD)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(told.nth(1).unwrap().unwrap(), "pod/web: stopping (30s grace)");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.starts_with("the drain goes on at the leader: cube get node/alpha shows"), "{said}");
}

#[test]
fn a_drain_whose_steps_are_no_longer_kept_goes_on_from_a_list() {
    let leader = Leader::start(|request: &Request, _| match request.line.as_str() {
        "POST /v1/nodes/alpha/drain" => Answer::Json(200, cordoned(7, drain(json!([]), false))),
        "GET /v1/nodes?watch=true&from=7" => Answer::Json(410, refusal("Expired", "revision 7 is no longer kept")),
        "GET /v1/nodes" => Answer::Json(200, list(50, &[cordoned(9, drain(json!([]), true))])),
        "GET /v1/nodes?watch=true&from=50" => Answer::Hold(Vec::new()),
        other => Answer::Json(404, refusal("NotFound", other)),
    });
    cube(&leader.address, &["drain", "alpha"]).assert().code(0).stderr_eq("").stdout_eq(str![[r#"
node/alpha cordoned
node/alpha drained; it takes no pods until: cube uncordon alpha

"#]]);
}

#[test]
fn labels_are_set_and_taken_away_and_the_answer_says_what_they_are_now() {
    let leader = Leader::start(|_, _| {
        let mut node = node("alpha", "Follower", json!({"status": "Ready"}));
        node["labels"] = json!({"disk": "ssd", "rack": "7"});
        Answer::Json(200, node)
    });
    for words in [["label", "node", "alpha", "disk=ssd", "zone-"].as_slice(), &["label", "node/alpha", "disk=ssd", "zone-"]] {
        cube(&leader.address, words).assert().code(0).stdout_eq("node/alpha labelled: disk=ssd,rack=7\n").stderr_eq("");
    }
    assert_eq!(leader.lines(), ["PATCH /v1/nodes/alpha", "PATCH /v1/nodes/alpha"]);
    let sent: Value = serde_json::from_slice(&leader.requests()[0].body).unwrap();
    assert_eq!(sent, json!({"labels": {"disk": "ssd", "zone": null}}));
}

#[test]
fn labels_that_make_no_sense_are_refused_before_anything_is_sent() {
    let leader = Leader::start(|_, _| Answer::Json(200, pod("web", 2, 7, running())));
    for (words, error) in [
        (["label", "node", "alpha"].as_slice(), "no label is given"),
        (&["label", "nodes"], "which node to label is not said"),
        (&["label", "pod/web", "a=b"], "only a node is labelled so"),
        (&["label", "node/alpha", "disk"], "'disk' is neither KEY=VALUE nor KEY-"),
        (&["label", "node/alpha", "a=b", "a-"], "label a is given twice"),
    ] {
        let output = cube(&leader.address, words).assert().code(2).get_output().stderr.clone();
        assert!(String::from_utf8_lossy(&output).starts_with(&format!("error: {error}\n")), "{}", String::from_utf8_lossy(&output));
    }
    assert!(leader.requests().is_empty());
}

//! Jobs, cronjobs, deployments and volumes: waiting for them, their lists and pages.

use serde_json::{Value, json};
use snapbox::cmd::Command;
use snapbox::str;

use crate::leader::{Answer, Leader, Request};
use crate::{ago, cube, list, refusal, uid};

const SINCE: &str = "2026-01-01T00:00:00Z";

fn metadata(name: &str, number: u8) -> Value {
    json!({"name": name, "uid": uid(number), "generation": 2, "revision": 7, "createdAt": SINCE})
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox:1"}]}})
}

/// A job of three completions that has come to this.
fn job(status: Value) -> Value {
    json!({"type": "job", "metadata": metadata("sum", 2), "spec": {"completions": 3, "template": template()}, "status": status})
}

fn busy() -> Value {
    job(json!({"active": 1, "succeeded": 1, "failed": 0, "startTime": ago(60)}))
}

fn ended(kind: &str, reason: &str, message: &str) -> Value {
    let end = json!({"type": kind, "reason": reason, "message": message, "lastTransitionTime": ago(10)});
    let succeeded = if kind == "Complete" { 3 } else { 1 };
    job(json!({"succeeded": succeeded, "failed": 3 - succeeded, "startTime": ago(60), "conditions": [end]}))
}

fn complete() -> Value {
    ended("Complete", "CompletionsReached", "3 pods have succeeded")
}

fn failed() -> Value {
    ended("Failed", "BackoffLimitExceeded", "2 pods have failed, and 1 may")
}

/// A deployment of two, in this state of its rollout, of which so many are available; the second revision came to this.
fn deployment(state: Value, available: u32, verdict: Value) -> Value {
    let mut rollout = state;
    rollout["revision"] = json!(if verdict["state"] == "failed" { 1 } else { 2 });
    let mut template = template();
    template["spec"].as_object_mut().expect("an object").remove("restartPolicy");
    let revision = |number: u8, verdict: Value| json!({"number": number, "template": template, "createdAt": SINCE, "cause": "apply", "verdict": verdict});
    let enough = json!({"type": "Available", "status": available == 2, "reason": if available == 2 { "MinimumReplicasAvailable" } else { "MinimumReplicasUnavailable" },
        "message": format!("{available} of 2 are available"), "lastTransitionTime": ago(30)});
    json!({"type": "deployment", "metadata": metadata("web", 3), "spec": {"replicas": 2, "template": template},
        "history": [revision(1, json!({"state": "good", "at": SINCE})), revision(2, verdict)],
        "status": {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "readyReplicas": available, "availableReplicas": available,
            "rollout": rollout, "conditions": [enough]}})
}

fn rolling() -> Value {
    let best = json!({"ready": 1, "available": 1, "old": 0});
    deployment(json!({"state": "progressing", "since": SINCE, "progressedAt": SINCE, "best": best}), 1, json!({"state": "untried"}))
}

fn rolled_out() -> Value {
    deployment(json!({"state": "complete", "at": SINCE}), 2, json!({"state": "good", "at": SINCE}))
}

fn rolled_back() -> Value {
    let why = json!({"state": "failed", "at": SINCE, "reason": "made no progress in 3s: exit 3"});
    deployment(json!({"state": "complete", "at": SINCE}), 2, why)
}

fn stalled() -> Value {
    deployment(json!({"state": "stalled", "at": SINCE, "reason": "made no progress in 3s: exit 3"}), 1, json!({"state": "untried"}))
}

/// A leader that applies a job and a deployment, which become this while they are waited for.
fn becoming(job: fn() -> Value, deployment: fn() -> Value) -> Leader {
    let modified = |object: Value| json!({"type": "modified", "object": object});
    Leader::start(move |request: &Request, _| match request.line.as_str() {
        "POST /v1/apply" => {
            let items = [json!({"action": "created", "object": busy()}), json!({"action": "configured", "object": rolling()})];
            Answer::Json(200, json!({"revision": 7, "items": items}))
        }
        "GET /v1/jobs" => Answer::Json(200, list(7, &[busy()])),
        "GET /v1/jobs?watch=true&from=7" => Answer::Hold(vec![modified(job())]),
        "GET /v1/deployments" => Answer::Json(200, list(7, &[rolling()])),
        "GET /v1/deployments?watch=true&from=7" => Answer::Hold(vec![modified(deployment())]),
        other => Answer::Json(404, refusal("NoRoute", other)),
    })
}

const MANIFEST: &str = r#"[
    {"type": "job", "metadata": {"name": "sum"}, "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox:1"}]}}}},
    {"type": "deployment", "metadata": {"name": "web"},
     "spec": {"template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "busybox:1"}]}}}}]"#;

fn apply(leader: &Leader) -> Command {
    cube(&leader.address, &["apply", "-f", "-", "--wait", "--timeout", "2s"]).stdin(MANIFEST)
}

/// The standard error, in the order of its lines: what comes of two watches comes in any.
fn told(command: Command, code: i32) -> Vec<String> {
    let output = command.assert().code(code).get_output().stderr.clone();
    let mut lines: Vec<_> = String::from_utf8_lossy(&output).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn apply_with_wait_ends_when_jobs_are_complete_and_deployments_rolled_out() {
    let told = told(apply(&becoming(complete, rolled_out)), 0);
    let lines = [
        "deployment/web: revision 2 is rolled out: 2 available",
        "deployment/web: revision 2: 2 of 2 made, 1 available, 0 old left",
        "job/sum: Complete",
        "job/sum: Running, 1/3 succeeded, 0 failed",
    ];
    assert_eq!(told, lines);
}

#[test]
fn apply_with_wait_fails_with_the_reason_of_a_job_or_a_deployment_that_will_not_get_there() {
    for (job, deployment, error, hint) in [
        (
            failed as fn() -> Value,
            rolling as fn() -> Value,
            "error: job/sum failed: BackoffLimitExceeded: 2 pods have failed, and 1 may",
            "hint: cube get job/sum shows its pods and events",
        ),
        (
            busy,
            rolled_back,
            "error: deployment/web is rolled back to revision 1: revision 2 made no progress in 3s: exit 3",
            "hint: cube get deployment/web shows its events; cube rollout retry deployment/web tries it again",
        ),
        (
            complete,
            stalled,
            "error: deployment/web is stuck: revision 2 made no progress in 3s: exit 3",
            "hint: cube get deployment/web shows its events; cube rollout retry deployment/web tries it again",
        ),
    ] {
        let told = told(apply(&becoming(job, deployment)), 1);
        assert!([error, hint].iter().all(|line| told.iter().any(|told| told == line)), "{told:#?}");
    }
}

#[test]
fn apply_with_wait_tells_what_is_late_of_every_type() {
    let words = ["apply", "-f", "-", "--wait", "--timeout", "300ms"];
    let told = told(cube(&becoming(busy, rolling).address, &words).stdin(MANIFEST), 124);
    let late = ["  deployment/web: revision 2: 2 of 2 made, 1 available, 0 old left", "  job/sum: Running, 1/3 succeeded, 0 failed"];
    assert!(late.iter().all(|line| told.iter().any(|told| told == line)), "{told:#?}");
}

#[test]
fn wait_waits_for_jobs_and_deployments() {
    let leader = becoming(complete, rolled_out);
    let wait = |words: &[&str]| cube(&leader.address, &[&["wait"], words].concat());
    wait(&["job/sum", "--for=complete"]).assert().code(0).stdout_eq("job/sum is complete\n").stderr_eq("");
    wait(&["deployment/web", "--for=condition=Available"]).assert().code(0).stdout_eq("deployment/web is available\n").stderr_eq("");
    wait(&["job/gone", "--for=complete"]).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
error: job/gone is not there
hint: cube get job/gone shows its pods and events

"#]]);
    wait(&["job/sum", "--for=available"]).assert().code(2).stdout_eq("").stderr_eq(str![[r#"
error: job/sum is no deployment, and only deployments are waited for so

"#]]);
    wait(&["job", "-l", "a=b", "--for=complete"]).assert().code(2);
    let late = becoming(failed, rolling);
    cube(&late.address, &["wait", "job/sum", "--for=complete"]).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
error: job/sum failed: BackoffLimitExceeded: 2 pods have failed, and 1 may
hint: cube get job/sum shows its pods and events

"#]]);
    cube(&late.address, &["wait", "deployment/web", "--for=available", "--timeout=300ms"]).assert().code(124).stdout_eq("").stderr_eq(
        str![[r#"
error: it is not so after 300ms
  deployment/web: MinimumReplicasUnavailable: 1 of 2 are available
hint: cube get deployment/NAME says what keeps one waiting

"#]],
    );
}

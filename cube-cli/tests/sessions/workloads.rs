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
    let mut rolled_back = deployment(json!({"state": "complete", "at": SINCE}), 2, why);
    let progressing = json!({"type": "Progressing", "status": false, "reason": "RolledBack",
        "message": "rolled back to revision 1: revision 2 made no progress in 3s: exit 3", "lastTransitionTime": ago(30)});
    rolled_back["status"]["conditions"].as_array_mut().expect("a list").push(progressing);
    rolled_back
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

fn cronjob() -> Value {
    let job = json!({"spec": {"template": template()}});
    json!({"type": "cronjob", "metadata": metadata("nightly", 4),
        "spec": {"schedule": "30 2 * * *", "timeZone": "Europe/Berlin", "suspend": true, "jobTemplate": job},
        "status": {"active": ["nightly-29400000"], "lastScheduleTime": ago(7200), "lastSuccessfulTime": ago(3600), "waiting": SINCE}})
}

fn volume() -> Value {
    json!({"type": "volume", "metadata": metadata("data", 5), "node": "n1", "usedBy": ["db", "backup"]})
}

/// A leader with one of each type.
fn one_of_each(job: fn() -> Value, deployment: fn() -> Value) -> Leader {
    Leader::start(move |request: &Request, _| {
        let path = request.line.strip_prefix("GET /v1/").unwrap_or_else(|| panic!("{}", request.line));
        match path.split(['?', '/']).collect::<Vec<_>>()[..] {
            ["pods" | "events", ..] => Answer::Json(200, list(7, &[])),
            ["jobs", "selector=cube.io%2Fcronjob%3Dnightly"] => Answer::Json(200, list(7, &[busy()])),
            ["jobs"] => Answer::Json(200, list(7, &[job()])),
            ["jobs", ..] => Answer::Json(200, job()),
            ["deployments"] => Answer::Json(200, list(7, &[deployment()])),
            ["deployments", ..] => Answer::Json(200, deployment()),
            ["cronjobs"] => Answer::Json(200, list(7, &[cronjob()])),
            ["cronjobs", ..] => Answer::Json(200, cronjob()),
            ["volumes"] => Answer::Json(200, list(7, &[volume()])),
            ["volumes", ..] => Answer::Json(200, volume()),
            _ => Answer::Json(404, refusal("NoRoute", path)),
        }
    })
}

#[test]
fn jobs_and_cronjobs_are_listed_with_how_far_they_are_and_when_they_are_due() {
    let leader = one_of_each(failed, rolled_out);
    let list = |words: &[&str]| cube(&leader.address, &[&["list"], words].concat()).assert().code(0).stderr_eq("");
    list(&["job"]).stdout_eq(str![[r#"
NAME   STATUS   COMPLETIONS   DURATION   AGE
sum    Failed   1/3           [..]s        [..]d

"#]]);
    list(&["job", "-o", "wide"]).stdout_eq(str![[r#"
NAME   STATUS   COMPLETIONS   DURATION   ACTIVE   FAILED   IMAGES      REASON                 AGE
sum    Failed   1/3           [..]s        0        2        busybox:1   BackoffLimitExceeded   [..]d

"#]]);
    list(&["cronjob"]).stdout_eq(str![[r#"
NAME      SCHEDULE     TIMEZONE        SUSPEND   ACTIVE   LAST SCHEDULE   NEXT     AGE
nightly   30 2 * * *   Europe/Berlin   true      1        120m            <none>   [..]d

"#]]);
    list(&["cronjob", "-o", "wide"]).stdout_eq(str![[r#"
NAME      SCHEDULE     TIMEZONE        SUSPEND   ACTIVE   LAST SCHEDULE   NEXT     LAST SUCCESS   IMAGES      AGE
nightly   30 2 * * *   Europe/Berlin   true      1        120m            <none>   60m            busybox:1   [..]d

"#]]);
}

#[test]
fn a_job_is_shown_with_why_it_ended() {
    let leader = one_of_each(failed, rolled_out);
    cube(&leader.address, &["get", "job/sum"])
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
Name:        sum
Status:      Failed
Created:     2026-01-01T00:00:00Z ([..]d ago)
Reason:      BackoffLimitExceeded: 2 pods have failed, and 1 may
Completions: 1/3
Counts:      0 active, 1 succeeded, 2 failed
Started:     [..] ([..] ago)
Ended:       [..] ([..] ago)
Duration:    [..]s

Manifest:
  type: job
  metadata:
    name: sum
  spec:
    completions: 3
    parallelism: 1
    backoffLimit: 6
    completionMode: NonIndexed
    template:
      metadata:
        labels:
          app: web
      spec:
        containers:
        - name: main
          image: busybox:1
          imagePullPolicy: IfNotPresent
        restartPolicy: Never
        restart:
          limit: 10
        terminationGracePeriodSeconds: 30
        onNodeLoss: replace

Events:
  <none>

"#]])
        .stderr_eq("");
}

#[test]
fn a_cronjob_is_shown_with_what_it_waits_for() {
    let leader = one_of_each(failed, rolled_out);
    cube(&leader.address, &["get", "cronjob/nightly"])
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
Name:        nightly
Created:     2026-01-01T00:00:00Z ([..] ago)
Schedule:    30 2 * * * (Europe/Berlin)
Suspended:   yes
Last:        [..] (120m ago)
Succeeded:   [..] (60m ago)
Waiting:     a job that was due at 2026-01-01T00:00:00Z, for the end of the one before

Manifest:
  type: cronjob
  metadata:
    name: nightly
  spec:
    schedule: 30 2 * * *
    timeZone: Europe/Berlin
    concurrencyPolicy: Allow
    suspend: true
    successfulJobsHistoryLimit: 3
    failedJobsHistoryLimit: 1
    jobTemplate:
      spec:
        parallelism: 1
        backoffLimit: 6
        completionMode: NonIndexed
        template:
          metadata:
            labels:
              app: web
          spec:
            containers:
            - name: main
              image: busybox:1
              imagePullPolicy: IfNotPresent
            restartPolicy: Never
            restart:
              limit: 10
            terminationGracePeriodSeconds: 30
            onNodeLoss: replace

Jobs:
  NAME   STATUS    COMPLETIONS   DURATION   AGE
  sum    Running   1/3           [..]s        [..]d

Events:
  <none>

"#]])
        .stderr_eq("");
}

#[test]
fn deployments_are_listed_with_how_many_are_ready_and_of_which_revision() {
    let leader = one_of_each(busy, rolling);
    let list = |words: &[&str]| cube(&leader.address, &[&["list"], words].concat()).assert().code(0).stderr_eq("");
    list(&["deployment"]).stdout_eq(str![[r#"
NAME   READY   UP-TO-DATE   AVAILABLE   AGE
web    1/2     2            1           [..]d

"#]]);
    list(&["deployment", "-o", "wide"]).stdout_eq(str![[r#"
NAME   READY   UP-TO-DATE   AVAILABLE   REVISION   IMAGES      SELECTOR   AGE
web    1/2     2            1           2          busybox:1   app=web    [..]d

"#]]);
}

#[test]
fn a_deployment_is_shown_with_its_revision_and_why_another_was_rolled_back() {
    let leader = one_of_each(busy, rolled_back);
    cube(&leader.address, &["get", "deployment/web"])
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
Name:        web
Status:      RolledBack
Created:     2026-01-01T00:00:00Z ([..]d ago)
Replicas:    2 wanted, 2 there, 2 updated, 2 ready, 2 available
Revision:    1
Images:      busybox:1
Strategy:    RollingUpdate, maxSurge 25%, maxUnavailable 25%

Conditions:
  Available: True for [..], MinimumReplicasAvailable: 2 of 2 are available
  Progressing: False for [..], RolledBack: rolled back to revision 1: revision 2 made no progress in 3s: exit 3

Events:
  <none>

"#]])
        .stderr_eq("");
}

#[test]
fn a_volume_is_listed_and_shown_with_where_its_data_are_and_who_uses_them() {
    let leader = one_of_each(busy, rolling);
    cube(&leader.address, &["list", "volume"])
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
NAME   STATUS   NODE   AGE
data   Bound    n1     [..]d

"#]])
        .stderr_eq("");
    cube(&leader.address, &["get", "volume/data"])
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
Name:        data
Status:      Bound
Created:     2026-01-01T00:00:00Z ([..]d ago)
Node:        n1
Used by:     pod/db, pod/backup

Events:
  <none>

"#]])
        .stderr_eq("");
}

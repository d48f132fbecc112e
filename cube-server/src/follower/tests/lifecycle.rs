//! Init containers, sidecars, hooks, the deadline and last words on the engine in memory: through the agent's death too.

use std::time::Duration;

use cube_api::pod::{ContainerState, Phase, PodStatus, RestartPolicy};
use cube_api::session::{AssignedPod, Epoch, Welcome};
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::follower::runtime::fake::{Operation, Script};
use crate::follower::testing::{Answer, Bench, CLUSTER, name, pod, stop};

/// A pod with more in its spec.
fn with(policy: RestartPolicy, more: Value) -> AssignedPod {
    let mut pod = pod(1, policy);
    let mut spec = serde_json::to_value(&pod.spec).unwrap();
    for (field, value) in more.as_object().unwrap() {
        match field.as_str() {
            "app" => value.as_object().unwrap().iter().for_each(|(field, value)| spec["containers"][0][field] = value.clone()),
            field => spec[field] = value.clone(),
        }
    }
    pod.spec = serde_json::from_value(spec).unwrap();
    pod
}

fn init() -> Value {
    json!([{ "name": "setup", "image": "setup" }, { "name": "proxy", "image": "proxy", "restartPolicy": "Always" }])
}

/// A bench whose `setup` takes ten seconds and ends so.
async fn bench(code: i64) -> Bench {
    let bench = Bench::new().await;
    bench.fake.script("setup", Script { run_for: Some(Duration::from_secs(10)), exit_code: code, ..Script::default() });
    bench.fake.script("proxy", Script::default());
    bench
}

fn state<'a>(status: &'a PodStatus, container: &str) -> &'a ContainerState {
    &status.container(&name(container)).unwrap().state
}

async fn runs(bench: &Bench, pod: &AssignedPod, container: &str) {
    let is_running = |status: PodStatus| matches!(state(&status, container), ContainerState::Running(_));
    bench.wait_for(&format!("{container} to run"), || bench.status(pod.uid).is_some_and(is_running)).await;
}

#[tokio::test(start_paused = true)]
async fn a_kill_in_the_middle_of_an_init_container_adopts_it_and_runs_it_once() {
    for policy in [RestartPolicy::Never, RestartPolicy::Always] {
        let mut bench = bench(0).await;
        let web = with(policy, json!({ "initContainers": init() }));
        bench.assign(std::slice::from_ref(&web)).await;
        runs(&bench, &web, "setup").await;
        let status = bench.status(web.uid).unwrap();
        assert!(
            matches!(state(&status, "app"), ContainerState::Waiting(waiting) if waiting.reason.as_str() == "PodInitializing"),
            "{status:?}"
        );
        bench.kill_and_restart().await;
        bench.phase(web.uid, Phase::Running).await;
        for container in ["setup", "proxy", "app"] {
            assert_eq!(bench.fake.starts(web.uid, Some(&name(container))), 1, "{container} with {policy:?}");
        }
        bench.kill_and_restart().await;
        runs(&bench, &web, "app").await;
        bench.lose_ledger().await;
        bench.agent.welcome(&Welcome { cluster_id: CLUSTER, epoch: Epoch(1), life: None }).await.unwrap();
        bench.assign(std::slice::from_ref(&web)).await;
        runs(&bench, &web, "app").await;
        for container in ["setup", "proxy", "app"] {
            assert_eq!(bench.fake.starts(web.uid, Some(&name(container))), 1, "{container} with {policy:?}, without a ledger");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_init_container_that_always_fails_ends_its_pod_at_the_limit_and_with_never_at_once() {
    for (policy, reason, starts) in [(RestartPolicy::Always, "CrashLimit", 3), (RestartPolicy::Never, "Error", 1)] {
        let bench = bench(5).await;
        let web = with(policy, json!({ "initContainers": init(), "restart": { "limit": 3 } }));
        bench.assign(std::slice::from_ref(&web)).await;
        bench.phase(web.uid, Phase::Failed).await;
        let status = bench.status(web.uid).unwrap();
        assert_eq!(status.reason.as_deref(), Some(reason));
        assert!(status.message.as_deref().is_some_and(|message| message.starts_with("init container 'setup'")), "{status:?}");
        assert_eq!(bench.fake.starts(web.uid, Some(&name("setup"))), starts);
        assert_eq!(bench.fake.starts(web.uid, Some(&name("app"))), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_over_when_its_containers_are_though_its_sidecar_would_run_on() {
    let bench = bench(0).await;
    bench.fake.script("app", Script { run_for: Some(Duration::from_secs(5)), ..Script::default() });
    let web = with(RestartPolicy::OnFailure, json!({ "initContainers": init() }));
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Succeeded).await;
    let ended = |status: PodStatus| matches!(state(&status, "proxy"), ContainerState::Terminated(_));
    bench.wait_for("the sidecar's end", || bench.status(web.uid).is_some_and(ended)).await;
    assert_eq!(bench.fake.starts(web.uid, Some(&name("proxy"))), 1);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_fails_after_a_start_restarts_the_container_until_the_limit() {
    let bench = Bench::new().await;
    let hook = json!({ "postStart": { "exec": { "command": ["false"] } } });
    let web = with(RestartPolicy::Always, json!({ "app": { "lifecycle": hook }, "restart": { "limit": 3 } }));
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Failed).await;
    assert_eq!(bench.status(web.uid).unwrap().reason.as_deref(), Some("CrashLimit"));
    assert_eq!(bench.fake.starts(web.uid, Some(&name("app"))), 3);
    let message = bench.message(web.uid, "FailedPostStartHook").unwrap();
    assert_eq!(message, "container 'app': postStart hook failed: its command exited with 1; it is stopped");
}

#[tokio::test(start_paused = true)]
async fn hooks_ask_the_pod_over_http_and_a_refusal_is_told() {
    let bench = Bench::new().await;
    let get = |path: &str| json!({ "httpGet": { "path": path, "port": 80, "host": "127.0.0.1" } });
    let hooks = json!({ "postStart": get("/up"), "preStop": get("/down") });
    let web = with(RestartPolicy::Always, json!({ "app": { "lifecycle": hooks } }));
    bench.assign(std::slice::from_ref(&web)).await;
    let ready = || bench.status(web.uid).is_some_and(|status| status.ready_since.is_some());
    bench.wait_for("ready", ready).await;
    assert!(bench.asked().iter().any(|head| head.starts_with("GET /up ")), "{:?}", bench.asked());
    bench.answer(Answer::Status(503));
    bench.assign(&[stop(&web)]).await;
    bench.wait_for("its end", || bench.is_stopped(web.uid)).await;
    let message = bench.message(web.uid, "FailedPreStopHook").unwrap();
    assert!(message.starts_with("container 'app': preStop hook failed: HTTP 503 from http://127.0.0.1:80/down"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_container_is_not_ready_before_its_hook_is_done() {
    let bench = Bench::new().await;
    let hook = json!({ "postStart": { "sleep": { "seconds": 30 } } });
    let web = with(RestartPolicy::Always, json!({ "app": { "lifecycle": hook } }));
    bench.assign(std::slice::from_ref(&web)).await;
    runs(&bench, &web, "app").await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let is_ready = || bench.status(web.uid).unwrap().ready_since.is_some();
    assert!(!is_ready());
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_goes_on_over_the_agents_death_and_a_clock_that_is_set() {
    let mut bench = Bench::new().await;
    let web = with(RestartPolicy::Always, json!({ "activeDeadlineSeconds": 300 }));
    bench.assign(std::slice::from_ref(&web)).await;
    runs(&bench, &web, "app").await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    bench.kill_and_restart().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    bench.set_clock(SignedDuration::from_hours(5));
    tokio::time::sleep(Duration::from_secs(180)).await;
    assert_eq!(bench.status(web.uid).unwrap().phase, Phase::Running);
    tokio::time::sleep(Duration::from_secs(15)).await;
    bench.phase(web.uid, Phase::Failed).await;
    let status = bench.status(web.uid).unwrap();
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
    assert_eq!(bench.fake.tally(web.uid, Some(&name("app"))).live, 0);
}

#[tokio::test(start_paused = true)]
async fn last_words_are_the_file_then_the_log_and_a_file_alone_where_the_log_is_nobodys_business() {
    let script = |words: &str, exit_code| Script {
        run_for: Some(Duration::from_secs(1)),
        exit_code,
        output: vec!["a secret".to_owned()],
        files: [("/tmp/end".to_owned(), words.to_owned())].into(),
        ..Script::default()
    };
    let path = |policy: &str| json!({ "terminationMessagePath": "/tmp/end", "terminationMessagePolicy": policy });
    for (app, script, expected, reads) in [
        (path("FallbackToLogsOnError"), script("out of luck\n", 1), Some("out of luck"), 1),
        (path("FallbackToLogsOnError"), script("", 1), Some("a secret"), 1),
        (path("File"), script("", 1), None, 1),
        (path("File"), script("all is well", 0), Some("all is well"), 1),
        (json!({ "terminationMessagePolicy": "File" }), script("never read", 1), None, 0),
        (json!({}), script("never read", 1), Some("a secret"), 0),
    ] {
        let bench = Bench::new().await;
        bench.fake.script("app", script);
        let web = with(RestartPolicy::Never, json!({ "app": app }));
        bench.assign(std::slice::from_ref(&web)).await;
        bench.wait_for("its end", || bench.status(web.uid).is_some_and(|status| status.finished_at.is_some())).await;
        let status = bench.status(web.uid).unwrap();
        let ContainerState::Terminated(end) = state(&status, "app") else { panic!("{status:?}") };
        assert_eq!(end.message.as_deref(), expected, "{app}");
        assert_eq!(bench.fake.count(Operation::ReadFile), reads, "{app}: a file that nobody named costs nothing");
    }
}

//! Probes on the engine in memory and a scripted network.

use std::time::Duration;

use cube_api::pod::{ContainerState, EndReason, Phase, PodStatus, RestartPolicy};
use cube_api::session::AssignedPod;
use serde_json::{Value, json};

use crate::follower::runtime::fake::{Health, Operation, Script};
use crate::follower::testing::{Answer, Bench, pod};

/// A pod whose container has these probes.
fn probed(policy: RestartPolicy, probes: Value) -> AssignedPod {
    let mut pod = pod(1, policy);
    let mut container = serde_json::to_value(&pod.spec.containers[0]).unwrap();
    for (field, probe) in probes.as_object().unwrap() {
        container[field] = probe.clone();
    }
    pod.spec.containers[0] = serde_json::from_value(container).unwrap();
    pod
}

fn health_command() -> Value {
    json!({ "exec": { "command": ["health"] }, "periodSeconds": 5 })
}

fn well(from: u64, until: Option<u64>) -> Script {
    Script { health: Health { from: Duration::from_secs(from), until: until.map(Duration::from_secs) }, ..Script::default() }
}

async fn ready(bench: &Bench, pod: &AssignedPod, ready: bool) -> PodStatus {
    bench.wait_for(&format!("ready: {ready}"), || bench.status(pod.uid).is_some_and(|status| is_ready(&status) == ready)).await;
    bench.status(pod.uid).unwrap()
}

fn is_ready(status: &PodStatus) -> bool {
    assert_eq!(status.ready_since.is_some(), status.containers.iter().all(|container| container.is_ready()), "{status:?}");
    status.ready_since.is_some()
}

async fn settle(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn without_probes_what_runs_is_ready() {
    let bench = Bench::new().await;
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    let status = ready(&bench, &web, true).await;
    let ContainerState::Running(running) = &status.containers[0].state else { panic!("{status:?}") };
    assert_eq!((status.containers[0].started, status.ready_since), (true, Some(running.started_at)));
    settle(60).await;
    assert_eq!(bench.fake.count(Operation::Exec), 0);
}

#[tokio::test(start_paused = true)]
async fn an_unhealthy_container_is_restarted_backs_off_and_ends_at_the_limit() {
    let bench = Bench::new().await;
    bench.fake.script("app", well(0, Some(20)));
    let mut web = probed(RestartPolicy::Always, json!({ "livenessProbe": health_command() }));
    web.spec.restart.limit = 3;
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Failed).await;
    let status = bench.status(web.uid).unwrap();
    assert_eq!(status.reason.as_deref(), Some("CrashLimit"));
    assert_eq!(status.containers[0].restart_count, 2);
    let ContainerState::Terminated(end) = &status.containers[0].state else { panic!("{status:?}") };
    assert_eq!(
        (end.reason, end.message.as_deref()),
        (EndReason::Unhealthy, Some("liveness probe failed 3 times: its command exited with 1"))
    );
    let reasons = bench.reasons(web.uid);
    assert_eq!(reasons.iter().filter(|reason| *reason == "Unhealthy").count(), 3, "{reasons:?}");
    let message = bench.message(web.uid, "Unhealthy").unwrap();
    assert!(message.starts_with("container 'app' is unhealthy: liveness probe failed 3 times: its command exited with 1"), "{message}");
    assert!(reasons.contains(&"BackOff".to_owned()), "{reasons:?}");
}

#[tokio::test(start_paused = true)]
async fn a_healthy_container_is_left_alone_and_its_probes_are_no_news() {
    let bench = Bench::new().await;
    let probes = json!({ "livenessProbe": health_command(), "readinessProbe": health_command(), "startupProbe": health_command() });
    let web = probed(RestartPolicy::Always, probes);
    bench.assign(std::slice::from_ref(&web)).await;
    ready(&bench, &web, true).await;
    settle(1).await;
    let sequence = bench.leader.pods.lock().unwrap()[&web.uid].sequence;
    let tried = bench.fake.count(Operation::Exec);
    settle(300).await;
    assert_eq!(bench.leader.pods.lock().unwrap()[&web.uid].sequence, sequence, "nothing new was reported");
    let more = bench.fake.count(Operation::Exec) - tried;
    assert!((118..=122).contains(&more), "two probes each 5 s for 300 s: {more}");
    assert_eq!(bench.fake.live_execs(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_startup_probe_gates_the_others_and_ends_what_does_not_come_up() {
    let bench = Bench::new().await;
    // The liveness probe alone would end it after 15 s.
    bench.fake.script("app", well(60, None));
    let startup = json!({ "exec": { "command": ["health"] }, "periodSeconds": 5, "failureThreshold": 20 });
    let web = probed(RestartPolicy::Always, json!({ "livenessProbe": health_command(), "startupProbe": startup }));
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    settle(10).await;
    let status = bench.status(web.uid).unwrap();
    assert!(!is_ready(&status) && !status.containers[0].started, "{status:?}");
    assert_eq!(status.containers[0].probe_failure.as_deref(), Some("startup probe failed: its command exited with 1"));
    let status = ready(&bench, &web, true).await;
    assert!(status.containers[0].started && status.containers[0].restart_count == 0, "{status:?}");
    assert_eq!(status.containers[0].probe_failure, None);

    let slow = probed(RestartPolicy::Never, json!({ "startupProbe": health_command() }));
    let slow = AssignedPod { uid: cube_api::meta::Uid(uuid::Uuid::from_u128(2)), name: crate::follower::testing::name("slow"), ..slow };
    bench.assign(&[web, slow.clone()]).await;
    bench.phase(slow.uid, Phase::Failed).await;
    assert_eq!(bench.status(slow.uid).unwrap().reason.as_deref(), Some("Unhealthy"));
    assert_eq!(bench.fake.starts(slow.uid, Some(&crate::follower::testing::name("app"))), 1);
}

#[tokio::test(start_paused = true)]
async fn readiness_follows_what_is_answered_and_nothing_is_restarted() {
    let bench = Bench::new().await;
    bench.answer(Answer::Status(503));
    let probe = json!({ "httpGet": { "path": "/ready?key=secret", "port": 8080 }, "periodSeconds": 10, "successThreshold": 2 });
    let web = probed(RestartPolicy::Always, json!({ "readinessProbe": probe }));
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    bench.wait_for("the event", || bench.message(web.uid, "Unhealthy").is_some()).await;
    let message = bench.message(web.uid, "Unhealthy").unwrap();
    let address = bench.status(web.uid).unwrap().pod_ip.unwrap();
    let expected = format!("container 'app' is not ready: readiness probe failed 3 times: HTTP 503 from http://{address}:8080/ready");
    assert_eq!(message, expected);
    for answer in [Answer::Status(204), Answer::Status(302)] {
        bench.answer(answer);
        ready(&bench, &web, true).await;
        bench.answer(Answer::Refused);
        ready(&bench, &web, false).await;
    }
    let status = bench.status(web.uid).unwrap();
    let failure = status.containers[0].probe_failure.clone().unwrap();
    assert!(failure.contains("connection refused"), "{failure}");
    for answer in [Answer::Silence, Answer::Status(404), Answer::Garbage, Answer::Status(199)] {
        bench.answer(answer);
        settle(60).await;
        assert!(!is_ready(&bench.status(web.uid).unwrap()), "{answer:?}");
    }
    bench.answer(Answer::Status(399));
    ready(&bench, &web, true).await;
    assert_eq!(bench.status(web.uid).unwrap().containers[0].restart_count, 0);
    assert!(bench.asked().iter().all(|request| request.starts_with("GET /ready?key=secret HTTP/1.1\r\n")), "{:?}", bench.asked());
}

#[tokio::test(start_paused = true)]
async fn a_container_is_ready_soon_after_it_can_be_also_where_the_period_is_long() {
    let bench = Bench::new().await;
    bench.fake.script("app", well(3, None));
    let probe = json!({ "exec": { "command": ["health"] }, "periodSeconds": 60 });
    let web = probed(RestartPolicy::Always, json!({ "readinessProbe": probe }));
    bench.assign(std::slice::from_ref(&web)).await;
    let status = ready(&bench, &web, true).await;
    let took = status.ready_since.unwrap().duration_since(status.started_at.unwrap());
    assert!((3..=5).contains(&took.as_secs()), "{took:#}");
}

#[tokio::test(start_paused = true)]
async fn the_first_try_waits_for_the_initial_delay() {
    let bench = Bench::new().await;
    let probe = json!({ "exec": { "command": ["health"] }, "initialDelaySeconds": 40 });
    let web = probed(RestartPolicy::Always, json!({ "readinessProbe": probe }));
    bench.assign(std::slice::from_ref(&web)).await;
    let status = ready(&bench, &web, true).await;
    let took = status.ready_since.unwrap().duration_since(status.started_at.unwrap());
    assert!((39..=42).contains(&took.as_secs()), "{took:#}");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_does_not_end_in_time_is_killed_and_has_failed() {
    let bench = Bench::new().await;
    let probe = json!({ "exec": { "command": ["sleep", "100"] }, "timeoutSeconds": 2, "periodSeconds": 10 });
    let web = probed(RestartPolicy::Always, json!({ "readinessProbe": probe }));
    bench.assign(std::slice::from_ref(&web)).await;
    bench.wait_for("the event", || bench.message(web.uid, "Unhealthy").is_some()).await;
    assert!(bench.message(web.uid, "Unhealthy").unwrap().ends_with("its command did not end within 2s and was killed"));
    bench.wait_for("no command left", || bench.fake.live_execs() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_answer_is_no_failure_of_the_pod() {
    let bench = Bench::new().await;
    let probes = json!({ "livenessProbe": health_command(), "readinessProbe": health_command() });
    let web = probed(RestartPolicy::Always, probes);
    bench.assign(std::slice::from_ref(&web)).await;
    ready(&bench, &web, true).await;
    bench.fake.hang(Operation::Exec);
    settle(200).await;
    bench.fake.release();
    bench.fake.set_down(true);
    settle(200).await;
    bench.fake.set_down(false);
    settle(60).await;
    let status = bench.status(web.uid).unwrap();
    assert!(is_ready(&status) && status.containers[0].restart_count == 0, "{status:?}");
    assert_eq!(bench.message(web.uid, "Unhealthy"), None);
}

#[tokio::test(start_paused = true)]
async fn a_killed_agent_restarts_nothing_and_asks_anew() {
    let mut bench = Bench::new().await;
    let liveness = json!({ "httpGet": { "port": 80 }, "periodSeconds": 10, "failureThreshold": 3 });
    let web = probed(RestartPolicy::Always, json!({ "livenessProbe": liveness, "readinessProbe": liveness }));
    bench.assign(std::slice::from_ref(&web)).await;
    ready(&bench, &web, true).await;
    bench.answer(Answer::Status(500));
    // Each life sees two failures, never three.
    for _ in 0..5 {
        settle(18).await;
        bench.kill_and_restart().await;
    }
    ready(&bench, &web, false).await;
    bench.answer(Answer::Status(200));
    let status = ready(&bench, &web, true).await;
    assert_eq!(status.containers[0].restart_count, 0);
    settle(120).await;
    assert_eq!(bench.status(web.uid).unwrap().containers[0].restart_count, 0);
}

#[tokio::test(start_paused = true)]
async fn a_kill_in_the_middle_of_an_unhealthy_containers_stop_is_gone_on_with() {
    let mut bench = Bench::new().await;
    bench.fake.script("app", Script { ignores_stop: true, ..well(0, Some(10)) });
    let probe = json!({ "exec": { "command": ["health"] }, "periodSeconds": 1, "terminationGracePeriodSeconds": 20 });
    let web = probed(RestartPolicy::Always, json!({ "livenessProbe": probe }));
    bench.assign(std::slice::from_ref(&web)).await;
    bench.wait_for("the event", || bench.message(web.uid, "Unhealthy").is_some()).await;
    settle(5).await;
    bench.kill_and_restart().await;
    bench.fake.script("app", Script { ignores_stop: true, ..well(0, None) });
    bench.wait_for("a restart", || bench.status(web.uid).is_some_and(|status| status.containers[0].restart_count == 1)).await;
    assert_eq!(bench.message(web.uid, "Killing").as_deref(), Some("container 'app' did not stop within 20s: killing it"));
    let status = ready(&bench, &web, true).await;
    assert_eq!(status.containers[0].last_termination.as_ref().unwrap().reason, EndReason::Unhealthy);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_was_frozen_by_hand_is_not_ready_and_not_ended() {
    let bench = Bench::new().await;
    let web = probed(RestartPolicy::Always, json!({ "livenessProbe": health_command(), "readinessProbe": health_command() }));
    bench.assign(std::slice::from_ref(&web)).await;
    ready(&bench, &web, true).await;
    let app = bench.apps(web.uid).remove(0);
    bench.fake.pause_by_hand(&app.id);
    ready(&bench, &web, false).await;
    settle(120).await;
    bench.fake.unpause_by_hand(&app.id);
    let status = ready(&bench, &web, true).await;
    assert_eq!(status.containers[0].restart_count, 0);
}

//! The node agent's promises, on the engine in memory and a paused clock: here a pod's life, beside it
//! the leader's word, probes, the streams, the machine that it is on and its clock, its images, what it allows, and the sandboxes that are kept ready.

mod clock;
mod disk;
mod home;
mod images;
mod leader;
mod lifecycle;
mod ports;
mod probes;
mod resources;
mod security;
mod spares;
mod streams;
mod volumes;

use std::sync::atomic::Ordering;
use std::time::Duration;

use cube_api::ErrorCode;
use cube_api::pod::{ContainerState, EndReason, Phase, RestartPolicy, WaitReason};
use cube_api::session::{AssignedPod, Assignment, Epoch, Generation, Unchanged, Want, Welcome};
use futures::StreamExt;
use tokio::time::Instant;

use super::runtime::fake::{Failure, Operation, Pull, Script};
use super::runtime::{CALL_TIMEOUT, RunState, StopSignal};
use super::testing::{Bench, CLUSTER, name, pod, stop};

fn crashing(after: u64) -> Script {
    Script { run_for: Some(Duration::from_secs(after)), exit_code: 1, output: vec!["it broke".to_owned()], ..Script::default() }
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_with_its_events_and_no_needless_call() {
    let bench = Bench::new().await;
    let web = pod(1, RestartPolicy::Always);
    bench.wait_for("the first list", || bench.fake.calls().iter().any(|call| call.operation == Operation::List)).await;
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    let status = bench.status(web.uid).unwrap();
    assert!(matches!(status.containers[0].state, ContainerState::Running(_)), "{status:?}");
    bench.wait_for("events", || bench.reasons(web.uid) == ["Pulled", "Created", "Started"]).await;
    let calls: Vec<_> = bench.fake.calls().into_iter().filter(|call| call.identity.is_some()).map(|call| call.operation).collect();
    let starts = calls.iter().filter(|call| **call == Operation::Start).count();
    assert_eq!((starts, calls.len()), (2, 6), "two creates, two starts, two inspects: {calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_backs_off_and_ends_at_the_limit() {
    let bench = Bench::new().await;
    bench.fake.script("app", crashing(1));
    let web = pod(1, RestartPolicy::Always);
    let began = Instant::now();
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Failed).await;
    let status = bench.status(web.uid).unwrap();
    assert_eq!(status.reason.as_deref(), Some("CrashLimit"));
    let message = "container 'app' crashed 10 times in a row, last exit code 1 (Error); `cube restart pod/pod-1` tries again";
    assert_eq!(status.message.as_deref(), Some(message));
    assert_eq!(bench.fake.starts(web.uid, Some(&name("app"))), 10);
    assert_eq!(status.containers[0].restart_count, 9);
    // Waits of 0, 1, 2, 4, 8, 16, 32, 60 and 60 s, each within a fifth, and ten runs of 1 s.
    let took = began.elapsed().as_secs();
    assert!((10 + 146..=10 + 221).contains(&took), "{took} s");
    let crash = bench.message(web.uid, "Crashed").unwrap();
    assert_eq!(crash, "container 'app' exited with 1 (Error), last lines: it broke");
    bench.wait_for("the sandbox to go", || bench.sandbox(web.uid).is_none()).await;
    assert!(bench.apps(web.uid).len() <= 4, "the last attempt and three before it are kept");
}

#[tokio::test(start_paused = true)]
async fn two_minutes_of_clean_running_end_a_streak() {
    let bench = Bench::new().await;
    bench.fake.script("app", crashing(130));
    let mut web = pod(1, RestartPolicy::Always);
    web.spec.restart.limit = 2;
    bench.assign(std::slice::from_ref(&web)).await;
    bench.wait_for("four starts", || bench.fake.starts(web.uid, Some(&name("app"))) == 4).await;
    assert_eq!(bench.status(web.uid).unwrap().phase, Phase::Running);
}

#[tokio::test(start_paused = true)]
async fn counters_survive_a_kill_in_the_middle_of_a_crash_loop() {
    let mut bench = Bench::new().await;
    bench.fake.script("app", crashing(1));
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    for starts in [2, 4, 6, 8] {
        bench.wait_for("more starts", || bench.fake.starts(web.uid, Some(&name("app"))) >= starts).await;
        bench.kill_and_restart().await;
    }
    bench.phase(web.uid, Phase::Failed).await;
    assert_eq!(bench.fake.starts(web.uid, Some(&name("app"))), 10);
    assert_eq!(bench.status(web.uid).unwrap().containers[0].restart_count, 9);
}

#[tokio::test(start_paused = true)]
async fn an_agent_killed_after_start_adopts_its_container() {
    let mut bench = Bench::new().await;
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    let before = (bench.apps(web.uid), bench.sandbox(web.uid));
    for _ in 0..5 {
        bench.kill_and_restart().await;
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    assert_eq!((bench.apps(web.uid), bench.sandbox(web.uid)), before);
    assert_eq!(bench.fake.starts(web.uid, Some(&name("app"))), 1);
    assert_eq!(bench.status(web.uid).unwrap().containers[0].restart_count, 0);
}

/// Kills the agent at every millisecond of a start in which each call takes 3 ms.
#[tokio::test(start_paused = true)]
async fn never_is_started_once_wherever_the_agent_is_killed() {
    for millis in 0..30 {
        let mut bench = Bench::new().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        bench.fake.set_latency(Duration::from_millis(3));
        bench.fake.script("app", Script { run_for: Some(Duration::from_secs(5)), ..Script::default() });
        let once = pod(1, RestartPolicy::Never);
        bench.assign(std::slice::from_ref(&once)).await;
        tokio::time::sleep(Duration::from_millis(millis)).await;
        bench.kill_and_restart().await;
        bench.phase(once.uid, Phase::Succeeded).await;
        assert_eq!(bench.fake.starts(once.uid, Some(&name("app"))), 1, "killed after {millis} ms");
        assert_eq!(bench.apps(once.uid).len(), 1, "killed after {millis} ms");
    }
}

/// The engine carries the start out after the new agent's first list, which shows the container as created; its process ends at once.
#[tokio::test(start_paused = true)]
async fn never_is_started_once_though_its_start_comes_after_the_agent_s_death() {
    for start_takes in [5, 25, 55] {
        let mut bench = Bench::new().await;
        let script =
            Script { start_takes: Duration::from_secs(start_takes), run_for: Some(Duration::ZERO), exit_code: 3, ..Script::default() };
        bench.fake.script("app", script);
        let once = pod(1, RestartPolicy::Never);
        bench.assign(std::slice::from_ref(&once)).await;
        bench.wait_for("the start", || bench.fake.count(Operation::Start) == 2).await;
        bench.kill_and_restart().await;
        let waits = || {
            let state = bench.status(once.uid).map(|status| status.containers[0].state.clone());
            matches!(state, Some(ContainerState::Waiting(waiting)) if waiting.message.as_ref().is_some_and(|why| why.contains("Never")))
        };
        bench.wait_for("the reason", waits).await;
        bench.phase(once.uid, Phase::Failed).await;
        let state = bench.status(once.uid).unwrap().containers[0].state.clone();
        assert!(matches!(&state, ContainerState::Terminated(end) if end.exit_code == 3), "{state:?}");
        assert_eq!(bench.fake.starts(once.uid, Some(&name("app"))), 1, "a start that takes {start_takes}s");
        assert_eq!(bench.fake.count(Operation::Start), 2, "a start that takes {start_takes}s");
    }
}

#[tokio::test(start_paused = true)]
async fn never_is_started_once_though_the_engine_hung_and_carries_the_start_out_late() {
    let bench = Bench::new().await;
    // Longer than a call may take: the agent hears nothing of it, then sees the container as created.
    let start_takes = CALL_TIMEOUT + Duration::from_secs(30);
    bench.fake.script("app", Script { start_takes, run_for: Some(Duration::ZERO), ..Script::default() });
    let once = pod(1, RestartPolicy::Never);
    bench.assign(std::slice::from_ref(&once)).await;
    bench.phase(once.uid, Phase::Succeeded).await;
    assert_eq!(bench.fake.starts(once.uid, Some(&name("app"))), 1);
}

#[tokio::test(start_paused = true)]
async fn never_is_started_after_all_when_the_start_before_the_agent_s_death_did_not_come() {
    let mut bench = Bench::new().await;
    bench.fake.script("app", Script { run_for: Some(Duration::ZERO), ..Script::default() });
    bench.fake.set_latency_of(Operation::Start, Duration::from_secs(10));
    let once = pod(1, RestartPolicy::Never);
    bench.assign(std::slice::from_ref(&once)).await;
    bench.wait_for("the start", || bench.fake.count(Operation::Start) == 2).await;
    bench.kill().await;
    // The engine dies with the request in its hands.
    bench.fake.set_down(true);
    bench.fake.set_down(false);
    let began = Instant::now();
    bench.kill_and_restart().await;
    bench.phase(once.uid, Phase::Succeeded).await;
    assert_eq!(bench.fake.starts(once.uid, Some(&name("app"))), 1);
    assert!(began.elapsed() >= CALL_TIMEOUT && began.elapsed() < CALL_TIMEOUT + Duration::from_secs(30), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_is_restarted_anyway_is_started_at_once_after_the_agent_s_death() {
    let mut bench = Bench::new().await;
    bench.fake.set_latency_of(Operation::Start, Duration::from_secs(10));
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.wait_for("the start", || bench.fake.count(Operation::Start) == 2).await;
    bench.kill_and_restart().await;
    let began = Instant::now();
    bench.phase(web.uid, Phase::Running).await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let tally = bench.fake.tally(web.uid, Some(&name("app")));
    assert_eq!((tally.starts, bench.status(web.uid).unwrap().containers[0].restart_count), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn never_is_not_run_again_when_its_container_vanishes() {
    let bench = Bench::new().await;
    let once = pod(1, RestartPolicy::Never);
    bench.assign(std::slice::from_ref(&once)).await;
    bench.phase(once.uid, Phase::Running).await;
    bench.fake.remove_by_hand(&bench.apps(once.uid)[0].id);
    bench.phase(once.uid, Phase::Failed).await;
    let status = bench.status(once.uid).unwrap();
    assert!(matches!(&status.containers[0].state, ContainerState::Terminated(end) if end.reason == EndReason::Unknown), "{status:?}");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(bench.fake.starts(once.uid, Some(&name("app"))), 1);
}

#[tokio::test(start_paused = true)]
async fn a_container_killed_or_removed_by_hand_is_started_again() {
    let bench = Bench::new().await;
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    bench.fake.kill_by_hand(&bench.apps(web.uid)[0].id);
    bench.wait_for("a second start", || bench.fake.starts(web.uid, Some(&name("app"))) == 2).await;
    let live = bench.apps(web.uid).into_iter().find(|seen| matches!(seen.state, RunState::Running { .. })).unwrap();
    bench.fake.remove_by_hand(&live.id);
    bench.wait_for("a third start", || bench.fake.starts(web.uid, Some(&name("app"))) == 3).await;
    assert_eq!(bench.fake.most_live(web.uid, Some(&name("app"))), 1);
}

#[tokio::test(start_paused = true)]
async fn on_failure_is_done_after_a_clean_exit() {
    let bench = Bench::new().await;
    bench.fake.script("app", Script { run_for: Some(Duration::from_secs(1)), fail_first: 2, ..Script::default() });
    let job = pod(1, RestartPolicy::OnFailure);
    bench.assign(std::slice::from_ref(&job)).await;
    bench.phase(job.uid, Phase::Succeeded).await;
    assert_eq!(bench.fake.starts(job.uid, Some(&name("app"))), 3);
}

#[tokio::test(start_paused = true)]
async fn a_stop_escalates_at_its_deadline_also_across_a_restart() {
    for restart in [false, true] {
        let mut bench = Bench::new().await;
        bench.fake.script("app", Script { ignores_stop: true, ..Script::default() });
        let web = pod(1, RestartPolicy::Always);
        bench.assign(std::slice::from_ref(&web)).await;
        bench.phase(web.uid, Phase::Running).await;
        let began = Instant::now();
        bench.assign(&[stop(&web)]).await;
        if restart {
            tokio::time::sleep(Duration::from_secs(20)).await;
            bench.kill_and_restart().await;
        }
        bench.wait_for("the end", || bench.is_stopped(web.uid)).await;
        assert_eq!(began.elapsed().as_secs(), 30, "after a restart: {restart}");
        assert!(bench.fake.everything().is_empty());
        bench.wait_for("events", || bench.reasons(web.uid).ends_with(&["Stopping".into(), "Killing".into(), "Stopped".into()])).await;
        bench.assign(&[]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_at_once_when_the_container_obeys() {
    let bench = Bench::new().await;
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    let began = Instant::now();
    bench.assign(&[stop(&web)]).await;
    bench.wait_for("the end", || bench.is_stopped(web.uid)).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(bench.message(web.uid, "Stopping").as_deref(), Some("stopping its containers: deleted by the user"));
}

#[tokio::test(start_paused = true)]
async fn a_changed_sandbox_restarts_the_whole_pod() {
    let bench = Bench::new().await;
    let mut web = pod(1, RestartPolicy::Always);
    let mut second = web.spec.containers[0].clone();
    second.name = name("side");
    web.spec.containers.push(second);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    for (times, by_hand) in [(2, "restart"), (3, "kill"), (4, "remove")] {
        let sandbox = bench.sandbox(web.uid).unwrap();
        tokio::time::sleep(Duration::from_secs(200)).await;
        match by_hand {
            "restart" => bench.fake.restart_by_hand(&sandbox.id).unwrap(),
            "kill" => bench.fake.kill_by_hand(&sandbox.id),
            _ => bench.fake.remove_by_hand(&sandbox.id),
        }
        let started = |container: &str| bench.fake.starts(web.uid, Some(&name(container))) == times;
        bench.wait_for(by_hand, || started("app") && started("side")).await;
        let current = bench.sandbox(web.uid).unwrap();
        assert_ne!(current.id, sandbox.id);
        let live: Vec<_> = bench.apps(web.uid).into_iter().filter(|seen| matches!(seen.state, RunState::Running { .. })).collect();
        assert!(live.len() == 2 && live.iter().all(|seen| seen.sandbox.as_ref() == Some(&current.id)), "{live:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_down_changes_nothing() {
    let bench = Bench::new().await;
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    let before = bench.status(web.uid);
    bench.fake.set_down(true);
    let trouble = || bench.leader.trouble.lock().unwrap().clone();
    bench.wait_for("trouble", || trouble().as_deref() == Some("docker doesn't answer: the engine is down")).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(bench.status(web.uid), before);
    bench.fake.set_down(false);
    bench.wait_for("the engine's return", || trouble().is_none()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.status(web.uid), before);
    assert_eq!(bench.fake.starts(web.uid, Some(&name("app"))), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_reply_is_lost_makes_nothing_twice() {
    let calls = [Operation::CreateSandbox, Operation::CreateContainer, Operation::Start, Operation::Inspect, Operation::Image];
    for operation in calls {
        for failure in [Failure::NotDone, Failure::ReplyLost] {
            let bench = Bench::new().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            bench.fake.fail_next(operation, failure);
            let web = pod(1, RestartPolicy::Always);
            bench.assign(std::slice::from_ref(&web)).await;
            bench.phase(web.uid, Phase::Running).await;
            let status = bench.status(web.uid).unwrap();
            assert_eq!(bench.fake.everything().len(), 2, "{operation:?} {failure:?}");
            assert_eq!(status.containers[0].restart_count, 0, "{operation:?} {failure:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_that_does_not_exist_ends_at_the_limit() {
    let bench = Bench::new().await;
    bench.fake.script("app", Script { pull: Pull::Missing, ..Script::default() });
    let mut web = pod(1, RestartPolicy::Always);
    web.spec.restart.limit = 3;
    bench.assign(std::slice::from_ref(&web)).await;
    let waiting = |reason: WaitReason| {
        let state = bench.status(web.uid).map(|status| status.containers[0].state.clone());
        matches!(state, Some(ContainerState::Waiting(waiting)) if waiting.reason == reason)
    };
    bench.wait_for("ErrImagePull", || waiting(WaitReason::ErrImagePull)).await;
    bench.wait_for("ImagePullBackOff", || waiting(WaitReason::ImagePullBackOff)).await;
    bench.phase(web.uid, Phase::Failed).await;
    let status = bench.status(web.uid).unwrap();
    assert_eq!(status.reason.as_deref(), Some("ImageLimit"));
    assert!(status.message.as_ref().is_some_and(|message| message.starts_with("image app could not be had in 3 tries: ")), "{status:?}");

    bench.fake.script("app", Script { pull: Pull::After(Duration::from_secs(5)), ..Script::default() });
    bench.assign(&[AssignedPod { want: Want::Run { restarts: 1 }, ..web.clone() }]).await;
    bench.phase(web.uid, Phase::Running).await;
    assert_eq!(bench.message(web.uid, "Pulled").as_deref(), Some("pulled image app in 5.0s"));
}

#[tokio::test(start_paused = true)]
async fn a_container_that_can_not_be_started_ends_at_the_limit() {
    let bench = Bench::new().await;
    bench.fake.script("app", Script { start_error: Some("exec: \"nope\": not found".to_owned()), ..Script::default() });
    let mut web = pod(1, RestartPolicy::Always);
    web.spec.restart.limit = 3;
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Failed).await;
    let status = bench.status(web.uid).unwrap();
    assert_eq!(status.reason.as_deref(), Some("CrashLimit"));
    assert!(status.message.as_ref().is_some_and(|message| message.contains("exec: \"nope\": not found")), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_is_asked_for_clears_the_crash_limit() {
    let bench = Bench::new().await;
    bench.fake.script("app", crashing(1));
    let mut web = pod(1, RestartPolicy::Always);
    web.spec.restart.limit = 2;
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Failed).await;
    bench.fake.script("app", Script::default());
    bench.assign(&[AssignedPod { want: Want::Run { restarts: 1 }, ..web.clone() }]).await;
    bench.phase(web.uid, Phase::Running).await;
    bench.wait_for("a third start", || bench.fake.starts(web.uid, Some(&name("app"))) == 3).await;
    assert_eq!(bench.status(web.uid).unwrap().containers[0].restart_count, 2);
}

#[tokio::test(start_paused = true)]
async fn a_restart_asked_for_while_the_old_sandbox_goes_takes_a_new_one_and_tells_of_no_trouble() {
    let bench = Bench::new().await;
    // Each call takes so long that the restart comes while the given-up pod's sandbox is being removed.
    bench.fake.set_latency(Duration::from_millis(50));
    bench.fake.script("app", crashing(1));
    let mut web = pod(1, RestartPolicy::Always);
    web.spec.restart.limit = 2;
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Failed).await;
    bench.fake.script("app", Script::default());
    bench.assign(&[AssignedPod { want: Want::Run { restarts: 1 }, ..web.clone() }]).await;
    bench.wait_for("a third start", || bench.fake.starts(web.uid, Some(&name("app"))) == 3).await;
    bench.wait_for("the start to be counted", || bench.status(web.uid).is_some_and(|status| status.containers[0].restart_count == 2)).await;
    for trouble in ["SandboxChanged", "CreateContainerError"] {
        assert!(!bench.reasons(web.uid).iter().any(|reason| reason == trouble), "{:?}", bench.reasons(web.uid));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_deleted_while_its_image_is_pulled_goes_at_once() {
    let bench = Bench::new().await;
    bench.fake.script("app", Script { pull: Pull::After(Duration::from_secs(3600)), ..Script::default() });
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.wait_for("Pulling", || bench.reasons(web.uid).contains(&"Pulling".to_owned())).await;
    let began = Instant::now();
    bench.assign(&[stop(&web)]).await;
    bench.wait_for("the end", || bench.is_stopped(web.uid)).await;
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_nobody_waits_for_any_more_gives_its_place_to_another() {
    let bench = Bench::new().await;
    let hangs = Script { pull: Pull::After(Duration::from_secs(3600)), ..Script::default() };
    let of_image = |number: u128, image: &str| {
        let mut pod = pod(number, RestartPolicy::Always);
        pod.spec.containers[0].image = image.to_owned();
        pod
    };
    // Three take all places. One of them is waited for by a second pod, and one by a pod that will be given up.
    let mut pods = vec![of_image(1, "hangs-1"), of_image(2, "hangs-2"), of_image(3, "hangs-3"), of_image(4, "hangs-3")];
    let mut side = pods[1].spec.containers[0].clone();
    (side.name, side.image) = (name("side"), "crashes".to_owned());
    pods[1].spec.containers.push(side);
    pods[1].spec.restart.limit = 1;
    for image in ["hangs-1", "hangs-2", "hangs-3"] {
        bench.fake.script(image, hangs.clone());
    }
    bench.fake.script("crashes", crashing(60));
    bench.fake.script("app", Script { pull: Pull::After(Duration::from_secs(5)), ..Script::default() });
    bench.assign(&pods).await;
    let pulls = || bench.fake.count(Operation::Pull);
    bench.wait_for("three pulls", || pulls() == 3).await;
    // In the place of the given-up pod's.
    pods.push(of_image(5, "app"));
    bench.assign(&pods).await;
    bench.phase(pods[4].uid, Phase::Running).await;
    bench.phase(pods[1].uid, Phase::Failed).await;
    // A deleted pod's pull that another waits for goes on.
    pods[2] = stop(&pods[2]);
    bench.assign(&pods).await;
    bench.wait_for("its end", || bench.is_stopped(pods[2].uid)).await;
    pods[2] = of_image(7, "hangs-3");
    bench.assign(&pods).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(pulls(), 4, "{:?}", bench.fake.calls());
}

#[tokio::test(start_paused = true)]
async fn an_image_that_several_pods_wait_for_is_pulled_once() {
    let bench = Bench::new().await;
    bench.fake.script("app", Script { pull: Pull::After(Duration::from_secs(5)), ..Script::default() });
    let pods: Vec<_> = (1..=4).map(|number| pod(number, RestartPolicy::Always)).collect();
    bench.assign(&pods).await;
    for pod in &pods {
        bench.phase(pod.uid, Phase::Running).await;
    }
    assert_eq!(bench.fake.calls().iter().filter(|call| call.operation == Operation::Pull).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn three_images_are_pulled_at_a_time() {
    let bench = Bench::new().await;
    let pods: Vec<_> = (1..=4).map(|number| pod(number, RestartPolicy::Always)).collect();
    let pods = pods.into_iter().enumerate().map(|(index, mut pod)| {
        pod.spec.containers[0].image = format!("app-{index}");
        bench.fake.script(&format!("app-{index}"), Script { pull: Pull::After(Duration::from_secs(10)), ..Script::default() });
        pod
    });
    let pods: Vec<_> = pods.collect();
    bench.assign(&pods).await;
    let running = || pods.iter().filter(|pod| bench.status(pod.uid).is_some_and(|status| status.phase == Phase::Running)).count();
    bench.wait_for("the first", || running() > 0).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(running(), 3);
    bench.wait_for("the last", || running() == 4).await;
}

#[tokio::test(start_paused = true)]
async fn eight_pods_are_started_at_a_time() {
    let bench = Bench::new().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.fake.set_latency(Duration::from_secs(1));
    let pods: Vec<_> = (1..=20).map(|number| pod(number, RestartPolicy::Always)).collect();
    bench.assign(&pods).await;
    let begun = || bench.fake.calls().iter().filter(|call| call.operation == Operation::CreateSandbox).count();
    bench.wait_for("the first", || begun() > 0).await;
    // A start has five calls in a row: none is done after two more.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(begun(), super::pods::STARTS_AT_ONCE);
    for pod in &pods {
        bench.phase(pod.uid, Phase::Running).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_answers_but_can_not_list_is_in_trouble_without_a_break() {
    let bench = Bench::new().await;
    let trouble = || bench.leader.trouble.lock().unwrap().clone();
    bench.wait_for("a first report", || bench.leader.calls.load(Ordering::Relaxed) > 0 && trouble().is_none()).await;
    bench.fake.set_latency(Duration::from_millis(300));
    (0..10).for_each(|_| bench.fake.fail_next(Operation::List, Failure::NotDone));
    bench.wait_for("the trouble", || trouble().is_some()).await;
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(trouble().is_some());
    }
    bench.wait_for("a list", || trouble().is_none()).await;
}

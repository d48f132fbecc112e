//! What the leader says and is told: assignments, orphans, reports.

use super::*;

#[tokio::test(start_paused = true)]
async fn orphans_go_only_after_an_assignment() {
    let mut bench = Bench::new().await;
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    // The ledger is lost: what runs belongs to nobody now.
    bench.lose_ledger().await;
    bench.agent.welcome(&Welcome { cluster_id: CLUSTER, epoch: Epoch(2), life: None }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(bench.fake.everything().len(), 2, "nothing was assigned yet");
    let mut assignment = bench.assignment(&[]);
    assignment.epoch = Epoch(2);
    bench.agent.assign(assignment).await.unwrap();
    bench.wait_for("orphans to go", || bench.fake.everything().is_empty()).await;
}

/// An assignment that says only that these pods are as they were in generation `since`.
fn unchanged(bench: &Bench, since: Generation, pods: &[&AssignedPod]) -> Assignment {
    let pods = pods.iter().map(|pod| pod.uid).collect();
    Assignment { unchanged: Some(Unchanged { since, pods }), ..bench.assignment(&[]) }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_said_to_be_unchanged_goes_on_and_one_that_is_not_named_stops() {
    let bench = Bench::new().await;
    let (web, db, new) = (pod(1, RestartPolicy::Always), pod(2, RestartPolicy::Always), pod(3, RestartPolicy::Always));
    let accepted = bench.assign(&[web.clone(), db.clone()]).await;
    assert!(accepted.takes_unchanged);
    bench.phase(web.uid, Phase::Running).await;
    bench.phase(db.uid, Phase::Running).await;
    let next = unchanged(&bench, accepted.generation, &[&web]);
    bench.agent.assign(Assignment { pods: vec![new.clone()], ..next }).await.unwrap();
    bench.phase(new.uid, Phase::Running).await;
    bench.wait_for("the end of the one that is gone", || bench.is_stopped(db.uid)).await;
    let tally = bench.fake.tally(web.uid, Some(&name("app")));
    assert_eq!((tally.starts, tally.live), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_builds_on_an_assignment_that_is_not_the_newest_is_refused_and_changes_nothing() {
    let bench = Bench::new().await;
    let (web, db) = (pod(1, RestartPolicy::Always), pod(2, RestartPolicy::Always));
    let first = bench.assign(&[web.clone(), db.clone()]).await.generation;
    let second = bench.assign(std::slice::from_ref(&web)).await.generation;
    bench.phase(web.uid, Phase::Running).await;
    let later = Assignment { epoch: Epoch(2), ..unchanged(&bench, second, &[&web]) };
    // On an older one, on one that the node doesn't know, on the newest but with a pod that it doesn't have, and on one of another life of the leader.
    let of_others =
        [unchanged(&bench, first, &[]), unchanged(&bench, Generation(second.0 + 100), &[]), unchanged(&bench, second, &[&web, &db]), later];
    for assignment in of_others {
        assert_eq!(bench.agent.assign(assignment).await.unwrap_err().code, ErrorCode::Conflict);
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.fake.tally(web.uid, Some(&name("app"))).live, 1);
    // What was refused left no trace: the newest is still the second.
    bench.agent.assign(unchanged(&bench, second, &[&web])).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_ledger_is_rebuilt_from_what_runs() {
    let mut bench = Bench::new().await;
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    bench.fake.kill_by_hand(&bench.apps(web.uid)[0].id);
    bench.wait_for("a second start", || bench.fake.starts(web.uid, Some(&name("app"))) == 2).await;
    let before = bench.fake.everything();
    bench.lose_ledger().await;
    bench.agent.welcome(&Welcome { cluster_id: CLUSTER, epoch: Epoch(1), life: None }).await.unwrap();
    bench.assign(std::slice::from_ref(&web)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.fake.everything(), before);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_left_the_assignment_is_stopped_and_forgotten() {
    let mut bench = Bench::new().await;
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    bench.assign(&[]).await;
    bench.wait_for("the end", || bench.is_stopped(web.uid) && bench.fake.everything().is_empty()).await;
    bench.kill_and_restart().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let gone = bench.agent.logs(web.uid, Default::default()).await.err().map(|error| error.code);
    assert_eq!(gone, Some(ErrorCode::NotFound));
}

#[tokio::test(start_paused = true)]
async fn restarts_go_on_while_the_leader_is_away_and_events_arrive_afterwards_in_order() {
    let bench = Bench::new().await;
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    bench.wait_for("Started", || bench.reasons(web.uid).len() == 3).await;
    bench.leader.away.store(true, Ordering::Relaxed);
    bench.fake.kill_by_hand(&bench.apps(web.uid)[0].id);
    bench.wait_for("a second start", || bench.fake.starts(web.uid, Some(&name("app"))) == 2).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(bench.reasons(web.uid).len(), 3);
    bench.leader.away.store(false, Ordering::Relaxed);
    let began = Instant::now();
    bench.agent.welcome(&Welcome { cluster_id: CLUSTER, epoch: Epoch(1), life: None }).await.unwrap();
    let all = ["Pulled", "Created", "Started", "Crashed", "Pulled", "Created", "Started"];
    bench.wait_for("the events", || bench.reasons(web.uid) == all).await;
    assert!(began.elapsed() < Duration::from_secs(1), "a new session is used at once");
    bench.wait_for("the status", || bench.status(web.uid).unwrap().containers[0].restart_count == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_report_is_sent_until_accepted_and_not_too_often() {
    let bench = Bench::new().await;
    bench.leader.refuses.store(true, Ordering::Relaxed);
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let calls = bench.leader.calls.load(Ordering::Relaxed);
    assert!((20..60).contains(&calls), "{calls} tries in ten minutes");
    bench.leader.refuses.store(false, Ordering::Relaxed);
    bench.phase(web.uid, Phase::Running).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_busy_for_long_is_told_soon_after() {
    let bench = Bench::new().await;
    bench.leader.is_busy.store(true, Ordering::Relaxed);
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let calls = bench.leader.calls.load(Ordering::Relaxed);
    assert!((450..800).contains(&calls), "{calls} tries in ten minutes");
    bench.leader.is_busy.store(false, Ordering::Relaxed);
    let began = Instant::now();
    bench.phase(web.uid, Phase::Running).await;
    assert!(began.elapsed() <= Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn other_clusters_and_older_leaders_are_refused() {
    let bench = Bench::new().await;
    let other = cube_api::ClusterId(uuid::Uuid::from_u128(8));
    let refused = bench.agent.welcome(&Welcome { cluster_id: other, epoch: Epoch(9), life: None }).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Conflict);
    bench.agent.welcome(&Welcome { cluster_id: CLUSTER, epoch: Epoch(3), life: None }).await.unwrap();
    let web = pod(1, RestartPolicy::Always);
    let older = bench.assignment(&[]);
    assert_eq!(bench.agent.assign(older.clone()).await.unwrap_err().code, ErrorCode::Conflict);
    let mut newer = bench.assignment(std::slice::from_ref(&web));
    newer.epoch = Epoch(3);
    bench.agent.assign(newer.clone()).await.unwrap();
    let mut foreign = newer.clone();
    foreign.cluster_id = other;
    foreign.pods.clear();
    assert_eq!(bench.agent.assign(foreign).await.unwrap_err().code, ErrorCode::Conflict);
    let mut stale = newer.clone();
    stale.generation = Generation(1);
    stale.pods.clear();
    assert_eq!(bench.agent.assign(stale).await.unwrap().generation, newer.generation);
    bench.phase(web.uid, Phase::Running).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.status(web.uid).unwrap().phase, Phase::Running);
}

#[tokio::test(start_paused = true)]
async fn of_two_leaders_that_count_the_same_epoch_the_one_that_was_met_first_is_obeyed() {
    let mut bench = Bench::new().await;
    let life = |number| Some(cube_api::meta::LifeId(uuid::Uuid::from_u128(number)));
    let welcome = |epoch, life| Welcome { cluster_id: CLUSTER, epoch: Epoch(epoch), life };
    bench.agent.welcome(&welcome(2, life(1))).await.unwrap();
    let refused = bench.agent.welcome(&welcome(2, life(2))).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Conflict);
    assert!(refused.message.contains("copy of the other's data"), "{refused}");
    assert!(bench.agent.welcome(&welcome(2, None)).await.is_err(), "one that doesn't say who it is, either");
    bench.kill_and_restart().await;
    assert!(bench.agent.welcome(&welcome(2, life(2))).await.is_err(), "it is remembered across a restart");
    bench.agent.welcome(&welcome(2, life(1))).await.unwrap();
    bench.agent.welcome(&welcome(3, life(2))).await.unwrap();
    assert!(bench.agent.welcome(&welcome(2, life(1))).await.is_err(), "an older epoch");
}

#[tokio::test(start_paused = true)]
async fn facts_alone_are_sent_again_until_accepted() {
    let bench = Bench::new().await;
    let trouble = || bench.leader.trouble.lock().unwrap().clone();
    bench.wait_for("a first report", || bench.leader.calls.load(Ordering::Relaxed) > 0 && trouble().is_none()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    bench.leader.away.store(true, Ordering::Relaxed);
    bench.fake.set_down(true);
    tokio::time::sleep(Duration::from_secs(60)).await;
    bench.leader.away.store(false, Ordering::Relaxed);
    bench.wait_for("the trouble", || trouble().is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_life_of_the_leader_counts_its_generations_anew() {
    let mut bench = Bench::new().await;
    let web = pod(1, RestartPolicy::Always);
    for _ in 0..3 {
        bench.assign(&[]).await;
    }
    bench.agent.welcome(&Welcome { cluster_id: CLUSTER, epoch: Epoch(2), life: None }).await.unwrap();
    bench.kill_and_restart().await;
    let mut assignment = bench.assignment(std::slice::from_ref(&web));
    (assignment.epoch, assignment.generation) = (Epoch(2), Generation(1));
    assert_eq!(bench.agent.assign(assignment).await.unwrap().generation, Generation(1));
    bench.phase(web.uid, Phase::Running).await;
}

#[tokio::test(start_paused = true)]
async fn an_orphan_that_does_not_stop_is_killed_at_its_deadline_also_across_a_restart() {
    let mut bench = Bench::new().await;
    bench.fake.script("app", Script { ignores_stop: true, ..Script::default() });
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    bench.lose_ledger().await;
    bench.agent.welcome(&Welcome { cluster_id: CLUSTER, epoch: Epoch(1), life: None }).await.unwrap();
    bench.assign(&[]).await;
    bench.wait_for("a signal", || bench.fake.calls().iter().any(|call| call.operation == Operation::Signal)).await;
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(20)).await;
    bench.kill_and_restart().await;
    bench.wait_for("the end", || bench.fake.everything().is_empty()).await;
    assert!((29..=31).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

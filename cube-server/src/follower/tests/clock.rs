//! Clocks that are set: hours forward or back, in the middle of something or while nobody looks.

use jiff::SignedDuration;

use super::*;

const SIX_HOURS: SignedDuration = SignedDuration::from_hours(6);

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_delays_no_restart_by_more_than_its_longest_wait() {
    for killed in [false, true] {
        let mut bench = Bench::new().await;
        bench.fake.script("app", crashing(1));
        let web = pod(1, RestartPolicy::Always);
        bench.assign(std::slice::from_ref(&web)).await;
        let starts = |bench: &Bench| bench.fake.starts(web.uid, Some(&name("app")));
        bench.wait_for("a wait", || starts(&bench) == 5).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        if killed {
            bench.kill().await;
        }
        bench.set_clock(-SIX_HOURS);
        if killed {
            bench.kill_and_restart().await;
        }
        let began = Instant::now();
        bench.wait_for("the next start", || starts(&bench) == 6).await;
        assert!(began.elapsed() < Duration::from_secs(75), "killed: {killed}; after {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_forward_cuts_no_grace_and_one_that_is_set_back_prolongs_none() {
    for by in [SIX_HOURS, -SIX_HOURS] {
        let bench = Bench::new().await;
        bench.fake.script("app", Script { ignores_stop: true, ..Script::default() });
        let web = pod(1, RestartPolicy::Always);
        bench.assign(std::slice::from_ref(&web)).await;
        bench.phase(web.uid, Phase::Running).await;
        let began = Instant::now();
        bench.assign(&[stop(&web)]).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        bench.set_clock(by);
        bench.wait_for("the end", || bench.is_stopped(web.uid)).await;
        assert!((30..=32).contains(&began.elapsed().as_secs()), "set by {by}: after {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_forward_makes_no_short_run_a_clean_one() {
    let bench = Bench::new().await;
    bench.fake.script("app", crashing(30));
    let mut web = pod(1, RestartPolicy::Always);
    web.spec.restart.limit = 3;
    bench.assign(std::slice::from_ref(&web)).await;
    for starts in 1..=3 {
        bench.wait_for("a run", || bench.fake.starts(web.uid, Some(&name("app"))) == starts).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        bench.set_clock(SIX_HOURS);
    }
    bench.phase(web.uid, Phase::Failed).await;
    assert_eq!(bench.fake.starts(web.uid, Some(&name("app"))), 3);
}

#[tokio::test(start_paused = true)]
async fn two_minutes_of_clean_running_end_a_streak_also_when_the_clock_is_set_back_meanwhile() {
    let bench = Bench::new().await;
    bench.fake.script("app", crashing(150));
    let mut web = pod(1, RestartPolicy::Always);
    web.spec.restart.limit = 2;
    bench.assign(std::slice::from_ref(&web)).await;
    for starts in 1..=4 {
        bench.wait_for("a run", || bench.fake.starts(web.uid, Some(&name("app"))) == starts).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        bench.set_clock(-SIX_HOURS);
    }
    assert_eq!(bench.status(web.uid).unwrap().phase, Phase::Running);
}

//! Each decision by itself. That counts are exact under any order of ends, passes and crashes is shown on the store, in `control/tests/jobs.rs`.

use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(NOW + second).expect("a time")
}

/// A job that began at [`NOW`].
fn job(spec: Value, status: Value) -> Job {
    let metadata = json!({"name": "sum", "uid": uuid::Uuid::from_u128(7), "generation": 1, "revision": 3, "createdAt": at(-5)});
    let template = json!({"metadata": {"labels": {"app": "sum"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}});
    let mut job = json!({"metadata": metadata, "spec": {"template": template}, "status": {"startTime": at(0)}});
    for (part, more) in [("spec", spec), ("status", status)] {
        for (key, value) in more.as_object().expect("a map") {
            job[part][key] = value.clone();
        }
    }
    serde_json::from_value(job).expect("a job")
}

struct Pods(Vec<OwnedPod>);

impl Pods {
    fn none() -> Self {
        Self(Vec::new())
    }

    /// So many more, in a phase.
    fn and(self, count: usize, phase: Phase) -> Self {
        self.with(count, phase, |_| {})
    }

    /// On their way out.
    fn and_leaving(self, count: usize, phase: Phase, is_on_lost_node: bool) -> Self {
        self.with(count, phase, |pod| {
            let retired = crate::leader::store::Retired { reason: "deleted".to_owned(), grace_seconds: 1, replaced: false };
            Arc::make_mut(&mut pod.row).retired = Some(retired);
            pod.is_on_lost_node = is_on_lost_node;
        })
    }

    fn with(mut self, count: usize, phase: Phase, change: impl Fn(&mut OwnedPod)) -> Self {
        for _ in 0..count {
            let number = self.0.len() as u128;
            let metadata = json!({"name": format!("sum-{number}"), "uid": uuid::Uuid::from_u128(100 + number), "generation": 1, "revision": 1,
                "createdAt": at(0)});
            let pod = json!({"metadata": metadata, "spec": {"containers": [{"name": "c", "image": "busybox"}]}, "placement": {"node": "n1"},
                "status": {"phase": phase}});
            let row = PodRow { pod: serde_json::from_value(pod).expect("a pod"), restarts: 0, retired: None };
            let mut pod = OwnedPod { row: Arc::new(row), is_on_lost_node: false };
            change(&mut pod);
            self.0.push(pod);
        }
        self
    }
}

/// What a pass does, in short.
#[derive(Debug, Default, PartialEq)]
struct Short {
    create: usize,
    retire: usize,
    end: Option<(&'static str, String)>,
    active: u32,
    failed: u32,
}

fn short(decision: &Decision) -> Short {
    let Some(pass) = &decision.pass else { return Short::default() };
    let after = job_of(pass);
    let end = after.status.end().map(|end| (end.kind.as_str(), end.reason.clone()));
    Short { create: pass.create.len(), retire: pass.retire.len(), end, active: after.status.active, failed: after.status.failed }
}

fn job_of(pass: &OwnerPass) -> &Job {
    let Object::Job(job) = &pass.owner else { panic!("the owner is a job") };
    job
}

#[test]
fn a_new_job_starts_and_creates_what_may_run_at_a_time() {
    let new = job(json!({"completions": 5, "parallelism": 3}), json!({"startTime": null}));
    let decision = decide(&new, &[], at(1));
    assert_eq!(short(&decision), Short { create: 3, active: 3, ..Short::default() });
    let pass = decision.pass.expect("it begins");
    assert_eq!(job_of(&pass).status.start_time, Some(at(1)));
    assert_eq!(pass.create[0].labels, [("app", "sum"), (JOB_LABEL, "sum")].map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    assert_eq!(pass.create[0].reason, "0 of 5 have succeeded, 0 failed");
}

#[test]
fn no_more_run_than_are_missing() {
    let five = |succeeded: u32| job(json!({"completions": 5, "parallelism": 3}), json!({"succeeded": succeeded, "active": 1}));
    let running = Pods::none().and(1, Phase::Running);
    assert_eq!(short(&decide(&five(1), &running.0, at(9))).create, 2);
    assert_eq!(short(&decide(&five(3), &running.0, at(9))).create, 1);
    assert!(decide(&five(4), &running.0, at(9)).pass.is_none());
}

#[test]
fn a_pod_that_stops_keeps_its_place_and_one_on_a_lost_node_does_not() {
    let job = job(json!({"completions": 9, "parallelism": 2}), json!({"failed": 1, "active": 0}));
    let leaving = |lost| Pods::none().and_leaving(1, Phase::Running, lost).and_leaving(1, Phase::Succeeded, false);
    assert_eq!(short(&decide(&job, &leaving(false).0, at(9))).create, 1, "what has ended is only removed");
    assert_eq!(short(&decide(&job, &leaving(true).0, at(9))).create, 2);
}

#[test]
fn what_succeeded_often_enough_is_complete_whatever_else() {
    let job = job(
        json!({"completions": 2, "backoffLimit": 0, "activeDeadlineSeconds": 1}),
        json!({"succeeded": 2, "failed": 1, "retry": {"failures": 1, "last": at(5)}}),
    );
    let decision = decide(&job, &[], at(9));
    assert_eq!(short(&decision).end, Some(("Complete", "CompletionsReached".to_owned())));
    let pass = decision.pass.expect("it ends");
    assert_eq!((job_of(&pass).status.completion_time, job_of(&pass).status.retry), (Some(at(9)), None));
    assert_eq!(pass.events, [(EventKind::Normal, "Completed", "CompletionsReached: 2 of 2 pods succeeded".to_owned())]);
}

#[test]
fn one_failure_more_than_the_limit_ends_it_and_stops_the_others() {
    let at_limit = job(json!({"completions": 5, "parallelism": 2, "backoffLimit": 2}), json!({"failed": 2, "active": 2}));
    let running = Pods::none().and(2, Phase::Running);
    assert!(decide(&at_limit, &running.0, at(9)).pass.is_none());
    let over = job(json!({"completions": 5, "parallelism": 2, "backoffLimit": 2}), json!({"failed": 3, "active": 2}));
    let decision = decide(&over, &running.0, at(9));
    assert_eq!(
        short(&decision),
        Short { retire: 2, end: Some(("Failed", "BackoffLimitExceeded".to_owned())), failed: 5, ..Short::default() }
    );
    let message = "BackoffLimitExceeded: 3 pods have failed, more than backoffLimit 2 allows; 0 of 5 had succeeded";
    assert_eq!(decision.pass.expect("it ends").events, [(EventKind::Warning, "Failed", message.to_owned())]);
}

#[test]
fn restarts_of_containers_count_towards_the_limit_with_on_failure() {
    let spec = |policy: &str| {
        let template = json!({"spec": {"restartPolicy": policy, "containers": [{"name": "c", "image": "busybox"}]}});
        job(json!({"backoffLimit": 3, "template": template}), json!({"active": 2}))
    };
    let restarted = |count: u32| {
        Pods::none().with(2, Phase::Running, |pod| {
            let status = json!({"name": "c", "image": "busybox", "state": {"running": {"startedAt": at(0)}}, "restartCount": count});
            Arc::make_mut(&mut pod.row).pod.status.containers = vec![serde_json::from_value(status).expect("a status")];
        })
    };
    assert_eq!(short(&decide(&spec("OnFailure"), &restarted(1).0, at(9))).end, None);
    assert_eq!(short(&decide(&spec("OnFailure"), &restarted(2).0, at(9))).end, Some(("Failed", "BackoffLimitExceeded".to_owned())));
    assert_eq!(short(&decide(&spec("Never"), &restarted(2).0, at(9))).end, None);
}

#[test]
fn a_failed_pod_is_replaced_after_the_wait_that_its_failures_in_a_row_make() {
    let job = job(json!({}), json!({"failed": 2, "retry": {"failures": 2, "last": at(10)}}));
    let waits = decide(&job, &[], at(29));
    assert!(waits.pass.is_none());
    assert_eq!(waits.due, Some(at(30)));
    assert_eq!(short(&decide(&job, &[], at(30))).create, 1);
}

#[test]
fn a_clock_that_was_set_back_lets_the_wait_after_a_failure_begin_again() {
    let before = job(json!({}), json!({"startTime": at(-4_000), "failed": 2, "retry": {"failures": 2, "last": at(10)}}));
    let again = decide(&before, &[], at(-3_600));
    assert_eq!((short(&again).create, again.due), (0, Some(at(-3_580))));
    let after = job_of(&again.pass.expect("the time of the failure is another one")).clone();
    assert_eq!(short(&decide(&after, &[], at(-3_581))).create, 0);
    assert_eq!(short(&decide(&after, &[], at(-3_580))).create, 1);
}

#[test]
fn the_deadline_counts_from_the_start_and_is_waited_for() {
    let job = job(json!({"activeDeadlineSeconds": 60}), json!({"active": 1}));
    let running = Pods::none().and(1, Phase::Running);
    let before = decide(&job, &running.0, at(59));
    assert!(before.pass.is_none());
    assert_eq!(before.due, Some(at(60)));
    let after = short(&decide(&job, &running.0, at(60)));
    assert_eq!(after, Short { retire: 1, end: Some(("Failed", "DeadlineExceeded".to_owned())), failed: 1, ..Short::default() });
}

#[test]
fn a_suspended_job_stops_its_pods_without_a_failure_and_goes_on_from_a_new_start() {
    let suspended = job(json!({"suspend": true, "activeDeadlineSeconds": 5}), json!({"active": 1}));
    let decision = decide(&suspended, &Pods::none().and(1, Phase::Running).0, at(9));
    assert_eq!(short(&decision), Short { retire: 1, ..Short::default() });
    let mut after = job_of(&decision.pass.expect("it stops")).clone();
    assert_eq!((after.status.is_suspended(), after.status.start_time), (true, None));
    assert!(decide(&after, &[], at(100)).pass.is_none(), "it stands still");
    after.spec.suspend = false;
    let decision = decide(&after, &[], at(100));
    assert_eq!(short(&decision).create, 1);
    let resumed = job_of(&decision.pass.expect("it goes on")).clone();
    assert_eq!((resumed.status.is_suspended(), resumed.status.start_time), (false, Some(at(100))));
}

#[test]
fn fewer_at_a_time_stop_the_least_far_without_a_failure() {
    let job = job(json!({"completions": 9, "parallelism": 1}), json!({"active": 3}));
    let pods = Pods::none().and(1, Phase::Running).and(1, Phase::Pending).and(1, Phase::Running);
    let decision = decide(&job, &pods.0, at(9));
    assert_eq!(short(&decision), Short { retire: 2, active: 1, ..Short::default() });
    let stopped: Vec<_> = decision.pass.expect("two stop").retire.iter().map(|(uid, ..)| *uid).collect();
    assert_eq!(stopped, [1, 2].map(|place| pods.0[place].row.pod.metadata.uid), "the one that isn't running, then the newest");
}

#[test]
fn the_newest_ten_of_each_outcome_stay() {
    let job = job(json!({"completions": 40}), json!({"succeeded": 12, "failed": 3, "active": 1}));
    let pods = Pods::none().and(12, Phase::Succeeded).and(3, Phase::Failed).and(1, Phase::Running);
    let pass = decide(&job, &pods.0, at(9)).pass.expect("two go");
    let gone: Vec<_> = pass.retire.iter().map(|(uid, ..)| *uid).collect();
    assert_eq!(gone, [0, 1].map(|place| pods.0[place].row.pod.metadata.uid), "the oldest");
    assert_eq!(job_of(&pass).status, job.status, "they stay counted");
}

#[test]
fn an_ended_job_goes_after_its_time_to_live_and_another_stays() {
    let end = json!([{"type": "Complete", "reason": "CompletionsReached", "message": "", "lastTransitionTime": at(10)}]);
    let with = |ttl: Value| job(json!({"ttlSecondsAfterFinished": ttl}), json!({"conditions": end}));
    let early = decide(&with(json!(30)), &[], at(39));
    assert!(early.pass.is_none());
    assert_eq!(early.due, Some(at(40)));
    let late = decide(&with(json!(30)), &[], at(40)).pass.expect("it goes");
    assert_eq!(job_of(&late).metadata.deletion_requested_at, Some(at(40)));
    let for_ever = decide(&with(json!(null)), &[], at(1_000_000));
    assert!(for_ever.pass.is_none() && for_ever.due.is_none());
    assert!(decide(job_of(&late), &[], at(50)).pass.is_none(), "its delete is another's to go on with");
}

#[test]
fn a_mass_begins_in_parts() {
    let job = job(json!({"completions": 5_000, "parallelism": 5_000}), json!({}));
    assert_eq!(short(&decide(&job, &[], at(9))).create, AT_ONCE as usize);
}

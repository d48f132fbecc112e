use cube_api::cronjob::CRONJOB_LABEL;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn time(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A time of 2026-01-01.
fn clock(text: &str) -> Timestamp {
    time(&format!("2026-01-01T{text}Z"))
}

/// A cronjob of every hour, made at midnight.
fn hourly(spec: Value, status: Value) -> CronJob {
    let metadata = json!({"name": "tick", "uid": uuid::Uuid::from_u128(7), "generation": 1, "revision": 3, "createdAt": clock("00:00:00")});
    let template = json!({"metadata": {"labels": {"app": "tick"}}, "spec": {"template": {
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}}}});
    let mut cronjob = json!({"metadata": metadata, "spec": {"schedule": "0 * * * *", "jobTemplate": template}, "status": status});
    for (key, value) in spec.as_object().expect("a map") {
        cronjob["spec"][key] = value.clone();
    }
    serde_json::from_value(cronjob).expect("a cronjob")
}

fn job(name: &str, made: &str, end: Option<&str>) -> Job {
    let mut job = hourly(json!({}), json!({})).job(Name::new(name).expect("a name"));
    job.metadata.created_at = clock(made);
    if let Some(kind) = end {
        let condition = json!({"type": kind, "reason": "x", "message": "x", "lastTransitionTime": clock(made)});
        job.status.conditions = vec![serde_json::from_value(condition).expect("a condition")];
        job.status.completion_time = (kind == "Complete").then(|| clock(made));
    }
    job
}

fn decided(cronjob: &CronJob, jobs: &[Job], now: &str) -> Decision {
    decide(cronjob, &jobs.iter().collect::<Vec<_>>(), clock(now))
}

fn made(decision: &Decision) -> Vec<String> {
    let made = decision.pass.iter().flat_map(|pass| &pass.make);
    made.map(|object| object.metadata().name.to_string()).collect()
}

fn deleted(decision: &Decision) -> Vec<String> {
    decision.pass.iter().flat_map(|pass| &pass.delete).map(|reference| reference.name.to_string()).collect()
}

fn after(decision: &Decision) -> CronJob {
    let pass = decision.pass.as_ref().expect("something changes");
    let Object::CronJob(cronjob) = &pass.owner else { panic!("the owner is a cronjob") };
    CronJob::clone(cronjob)
}

fn told(decision: &Decision) -> Vec<String> {
    let events = decision.pass.iter().flat_map(|pass| &pass.events);
    events.map(|(_, reason, message)| format!("{reason}: {message}")).collect()
}

#[test]
fn before_its_time_it_waits_and_at_it_makes_one_job_of_that_times_name() {
    let cronjob = hourly(json!({}), json!({}));
    let before = decided(&cronjob, &[], "00:59:59");
    assert!(before.pass.is_none());
    assert_eq!(before.due, Some(clock("01:00:00")));
    let at = decided(&cronjob, &[], "01:00:00");
    assert_eq!(made(&at), [format!("tick-{}", clock("01:00:00").as_second() / 60)]);
    assert_eq!(at.due, Some(clock("02:00:00")));
    let Some(Object::Job(made)) = at.pass.as_ref().and_then(|pass| pass.make.first()) else { panic!("a job") };
    assert_eq!(made.metadata.labels.get(CRONJOB_LABEL).map(String::as_str), Some("tick"));
    assert_eq!(made.metadata.labels.get("app").map(String::as_str), Some("tick"));
    let cronjob = after(&at);
    assert_eq!(cronjob.status.last_schedule_time, Some(clock("01:00:00")));
    assert!(made_none(&decided(&cronjob, &[], "01:00:01")), "once");
}

fn made_none(decision: &Decision) -> bool {
    made(decision).is_empty()
}

#[test]
fn of_missed_times_the_last_is_made_up_for_and_the_others_are_counted() {
    let cronjob = hourly(json!({}), json!({"lastScheduleTime": clock("01:00:00")}));
    let late = decided(&cronjob, &[], "05:20:00");
    assert_eq!(made(&late), [format!("tick-{}", clock("05:00:00").as_second() / 60)]);
    let events = told(&late);
    assert!(events[0].contains("1200s late; 3 times before it were missed"), "{events:?}");
    let years = hourly(json!({"schedule": "* * * * *"}), json!({"lastScheduleTime": "2020-01-01T00:00:00Z"}));
    let events = told(&decided(&years, &[], "05:20:00"));
    assert!(events[0].contains("more than 100 times"), "{events:?}");
}

#[test]
fn what_is_later_than_its_deadline_is_not_made_up_for_and_told_once() {
    let cronjob = hourly(json!({"startingDeadlineSeconds": 600}), json!({"lastScheduleTime": clock("01:00:00")}));
    assert_eq!(made(&decided(&cronjob, &[], "05:10:00")).len(), 1);
    let late = decided(&cronjob, &[], "05:10:01");
    assert!(made_none(&late));
    assert!(told(&late)[0].contains("startingDeadlineSeconds 600"), "{:?}", told(&late));
    assert_eq!(late.due, Some(clock("06:00:00")));
    assert!(decided(&after(&late), &[], "05:30:00").pass.is_none());
}

#[test]
fn a_changed_schedule_is_not_made_up_for() {
    let status = json!({"lastScheduleTime": clock("01:00:00"), "since": clock("05:10:00")});
    assert!(decided(&hourly(json!({}), status), &[], "05:20:00").pass.is_none());
}

#[test]
fn policies_for_a_job_that_runs_yet() {
    let status = json!({"active": ["tick-1"], "lastScheduleTime": clock("01:00:00")});
    let running = [job("tick-1", "01:00:00", None)];
    let with = |policy: &str| hourly(json!({"concurrencyPolicy": policy, "startingDeadlineSeconds": 100}), status.clone());
    assert_eq!(made(&decided(&with("Allow"), &running, "02:00:00")).len(), 1);

    let forbidden = decided(&with("Forbid"), &running, "02:00:00");
    assert!(made_none(&forbidden) && deleted(&forbidden).is_empty());
    assert!(told(&forbidden)[0].contains("job/tick-1"), "{:?}", told(&forbidden));
    assert!(decided(&after(&forbidden), &running, "02:00:30").pass.is_none(), "it is told once");
    let ended = [job("tick-1", "01:00:00", Some("Complete"))];
    assert_eq!(made(&decided(&after(&forbidden), &ended, "02:01:00")).len(), 1, "its end lets the other begin");
    assert!(made_none(&decided(&after(&forbidden), &ended, "02:02:00")), "unless that is too late");

    let replaced = decided(&with("Replace"), &running, "02:00:00");
    assert_eq!((made_none(&replaced), deleted(&replaced)), (true, vec!["tick-1".to_owned()]));
    let mut leaving = running.clone();
    leaving[0].metadata.deletion_requested_at = Some(clock("02:00:00"));
    let waits = decided(&after(&replaced), &leaving, "02:00:10");
    assert!(waits.pass.is_none(), "they don't run beside each other");
    assert_eq!(made(&decided(&after(&replaced), &[], "02:05:00")).len(), 1, "however long the other took to stop");
}

#[test]
fn a_suspended_one_makes_nothing_and_says_nothing() {
    let decision = decided(&hourly(json!({"suspend": true}), json!({})), &[], "05:00:00");
    assert!(decision.pass.is_none() && decision.due.is_none());
}

#[test]
fn the_newest_ended_jobs_stay() {
    let cronjob = hourly(json!({"successfulJobsHistoryLimit": 2}), json!({"lastScheduleTime": clock("09:00:00")}));
    let complete = (1..=4).map(|hour| job(&format!("good-{hour}"), &format!("0{hour}:00:00"), Some("Complete")));
    let failed = (5..=6).map(|hour| job(&format!("bad-{hour}"), &format!("0{hour}:00:00"), Some("Failed")));
    let mut jobs: Vec<_> = complete.chain(failed).collect();
    let decision = decided(&cronjob, &jobs, "09:30:00");
    assert_eq!(deleted(&decision), ["good-2", "good-1", "bad-5"]);
    assert_eq!(after(&decision).status.last_successful_time, Some(clock("04:00:00")));
    for job in &mut jobs {
        job.metadata.deletion_requested_at = deleted(&decision).contains(&job.metadata.name.to_string()).then(|| clock("09:30:00"));
    }
    assert!(decided(&after(&decision), &jobs, "09:30:01").pass.is_none(), "what leaves is not deleted again");
}

#[test]
fn a_zone_that_is_not_known_is_told_once_and_counts_where_it_is() {
    let nowhere = hourly(json!({"timeZone": "Europe/Nowhere"}), json!({}));
    let decision = decided(&nowhere, &[], "05:00:00");
    assert!(made_none(&decision) && told(&decision)[0].contains("Europe/Nowhere"));
    assert!(decided(&after(&decision), &[], "06:00:00").pass.is_none());
    let berlin = hourly(json!({"schedule": "30 2 * * *", "timeZone": "Europe/Berlin"}), json!({}));
    assert_eq!(decided(&berlin, &[], "00:00:00").due, Some(clock("01:30:00")));
}

proptest! {
    /// However often it is looked at, and wherever a leader stops between two looks: a pass holds whole or not at all.
    #[test]
    fn a_time_gets_at_most_one_job_and_the_times_are_in_order(steps in proptest::collection::vec((0i64..7_200, any::<bool>()), 1..40)) {
        let mut cronjob = hourly(json!({"schedule": "*/20 * * * *"}), json!({}));
        let (mut now, mut names, mut last) = (clock("00:00:00"), std::collections::BTreeSet::new(), None);
        for (seconds, is_lost) in steps {
            now += SignedDuration::from_secs(seconds);
            let decision = decide(&cronjob, &[], now);
            if is_lost || decision.pass.is_none() {
                continue;
            }
            for name in made(&decision) {
                prop_assert!(names.insert(name));
            }
            cronjob = after(&decision);
            if !made_none(&decision) {
                prop_assert!(cronjob.status.last_schedule_time > last && cronjob.status.last_schedule_time <= Some(now));
                last = cronjob.status.last_schedule_time;
            }
        }
    }
}

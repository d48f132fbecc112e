//! What is to be done about a cronjob: whether it is time for a job, and which of its old jobs go.
//!
//! A time of the schedule that has passed and for which no job was made is missed. At most the last of them is made up for: a leader that was away for
//! a night starts no twelve jobs in a row. It isn't if it is later than `startingDeadlineSeconds` allows.

use std::cmp::Reverse;

use cube_api::cron::{self, Schedule};
use cube_api::cronjob::{ConcurrencyPolicy, CronJob, CronJobStatus, job_name};
use cube_api::event::EventKind;
use cube_api::job::{Job, JobConditionKind};
use cube_api::meta::{Name, ResourceKind, ResourceRef};
use cube_api::object::Object;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::leader::store::OwnerPass;

/// More missed times than this are told as more than this: Kubernetes' number.
pub const MANY: usize = 100;

/// A job that is made within this of its time is on time.
const PROMPT: SignedDuration = SignedDuration::from_secs(10);

/// What is to be done about a cronjob, and when it is to be looked at again if nothing happens before.
#[derive(Debug, Default)]
pub struct Decision {
    /// What is to be done now.
    pub pass: Option<OwnerPass>,
    /// When time alone changes something.
    pub due: Option<Timestamp>,
}

/// Looks at a cronjob and all its jobs.
pub fn decide(cronjob: &CronJob, jobs: &[&Job], now: Timestamp) -> Decision {
    // What is deleted goes by itself when its jobs are gone.
    if cronjob.metadata.deletion_requested_at.is_some() {
        return Decision::default();
    }
    let sets = Sets::of(jobs);
    let Timing { turn, due } = timing(cronjob, &sets, now);
    let before = &cronjob.status;
    let mut status = CronJobStatus {
        active: sets.active.iter().map(|job| job.metadata.name.clone()).collect(),
        last_successful_time: sets.last_success.max(before.last_successful_time),
        waiting: None,
        trouble: None,
        ..before.clone()
    };
    let mut pass = OwnerPass::of(&Object::CronJob(Box::new(cronjob.clone())));
    let mut forget = sets.surplus(cronjob);
    match turn {
        Turn::Nothing => {}
        Turn::Unreadable { problem } => {
            if before.trouble.as_ref() != Some(&problem) {
                pass.events.push((EventKind::Warning, "UnknownSchedule", format!("no job is made: {problem}")));
            }
            status.trouble = Some(problem);
        }
        Turn::TooLate { scheduled, deadline } => {
            let message = format!("no job is made for {scheduled}: that is more than startingDeadlineSeconds {deadline} ago");
            pass.events.push((EventKind::Warning, "MissedSchedule", message));
            status.since = Some(scheduled);
        }
        Turn::Waits { scheduled, deletes } => {
            if let Some(active) = sets.active.first().filter(|_| before.waiting != Some(scheduled)) {
                let message = format!("it is time for a job ({scheduled}), which waits for the end of job/{}", active.metadata.name);
                pass.events.push((EventKind::Normal, "JobAlreadyActive", message));
            }
            status.waiting = Some(scheduled);
            forget.extend(deletes);
        }
        Turn::Run { scheduled, missed, late } => {
            let name = job_name(&cronjob.metadata.name, scheduled);
            pass.events.extend(lateness(missed, late));
            pass.events.push((EventKind::Normal, "SuccessfulCreate", format!("created job/{name} for {scheduled}")));
            pass.make.push(Object::Job(Box::new(cronjob.job(name.clone()))));
            status.active.push(name);
            status.last_schedule_time = Some(scheduled);
        }
    }
    pass.delete = forget.into_iter().map(|name| ResourceRef { kind: ResourceKind::Job, name }).collect();
    let changes = status != *before || !pass.delete.is_empty();
    pass.owner = Object::CronJob(Box::new(CronJob { status, ..cronjob.clone() }));
    Decision { pass: changes.then_some(pass), due }
}

/// What is said of a job that isn't on time.
fn lateness(missed: usize, late: SignedDuration) -> Option<(EventKind, &'static str, String)> {
    if missed == 0 && late <= PROMPT {
        return None;
    }
    let others = match missed {
        0 => String::new(),
        1 => "; 1 time before it was missed and is not made up for".to_owned(),
        many if many > MANY => format!("; more than {MANY} times before it were missed and are not made up for"),
        several => format!("; {several} times before it were missed and are not made up for"),
    };
    Some((EventKind::Warning, "MissedSchedule", format!("its job begins {}s late{others}", late.as_secs())))
}

/// A cronjob's jobs by what they are to it. Those on their way out are active until they are gone, and in no history.
#[derive(Default)]
struct Sets<'a> {
    active: Vec<&'a Job>,
    complete: Vec<&'a Job>,
    failed: Vec<&'a Job>,
    last_success: Option<Timestamp>,
}

impl<'a> Sets<'a> {
    fn of(jobs: &[&'a Job]) -> Self {
        let mut sets = Self::default();
        for job in jobs.iter().copied() {
            let leaves = job.metadata.deletion_requested_at.is_some();
            match job.status.end().map(|end| end.kind) {
                None => sets.active.push(job),
                Some(JobConditionKind::Complete) => {
                    sets.last_success = sets.last_success.max(job.status.completion_time);
                    if !leaves {
                        sets.complete.push(job);
                    }
                }
                Some(JobConditionKind::Failed | JobConditionKind::Suspended) if !leaves => sets.failed.push(job),
                Some(JobConditionKind::Failed | JobConditionKind::Suspended) => {}
            }
        }
        sets
    }

    /// Ended jobs over the numbers that stay, the oldest.
    fn surplus(&self, cronjob: &CronJob) -> Vec<Name> {
        let over = |jobs: &[&Job], kept: u32| {
            let mut jobs = jobs.to_vec();
            jobs.sort_by_key(|job| Reverse((job.metadata.created_at, job.metadata.uid)));
            jobs.into_iter().skip(kept as usize).map(|job| job.metadata.name.clone()).collect::<Vec<_>>()
        };
        let spec = &cronjob.spec;
        [over(&self.complete, spec.successful_jobs_history_limit), over(&self.failed, spec.failed_jobs_history_limit)].concat()
    }

    /// Those that have to go for a new one, and of which nobody has said so yet.
    fn replaced(&self, policy: ConcurrencyPolicy) -> Vec<Name> {
        match policy {
            ConcurrencyPolicy::Allow | ConcurrencyPolicy::Forbid => Vec::new(),
            ConcurrencyPolicy::Replace => {
                let stay = self.active.iter().filter(|job| job.metadata.deletion_requested_at.is_none());
                stay.map(|job| job.metadata.name.clone()).collect()
            }
        }
    }
}

struct Timing {
    turn: Turn,
    due: Option<Timestamp>,
}

/// Whether it is time for a job.
enum Turn {
    Nothing,
    /// Nobody can tell.
    Unreadable {
        problem: String,
    },
    /// It was, and the job isn't made any more.
    TooLate {
        scheduled: Timestamp,
        deadline: u32,
    },
    /// It is, and another is in its way; of those that `deletes` has, nobody has said yet that they go.
    Waits {
        scheduled: Timestamp,
        deletes: Vec<Name>,
    },
    Run {
        scheduled: Timestamp,
        missed: usize,
        late: SignedDuration,
    },
}

fn timing(cronjob: &CronJob, sets: &Sets<'_>, now: Timestamp) -> Timing {
    let spec = &cronjob.spec;
    // Both were checked with the manifest, on the database of zones of the machine that did so.
    let (schedule, zone) = match (Schedule::parse(&spec.schedule), cron::zone(spec.time_zone.as_deref())) {
        (Ok(schedule), Ok(zone)) => (schedule, zone),
        (Err(problem), _) | (_, Err(problem)) => return Timing { turn: Turn::Unreadable { problem }, due: None },
    };
    if spec.suspend {
        return Timing { turn: Turn::Nothing, due: None };
    }
    let due = schedule.next_after(now, &zone);
    let seen_to = cronjob.seen_to();
    let Some(scheduled) = schedule.last_until(now, &zone).filter(|last| *last > seen_to) else {
        return Timing { turn: Turn::Nothing, due };
    };
    let late = now.duration_since(scheduled);
    let (begun, is_in_the_way) = match spec.concurrency_policy {
        ConcurrencyPolicy::Allow => (false, false),
        ConcurrencyPolicy::Forbid => (false, !sets.active.is_empty()),
        // What was deleted for it is gone: it isn't too late then, however long that took.
        ConcurrencyPolicy::Replace => (cronjob.status.waiting == Some(scheduled), !sets.active.is_empty()),
    };
    let deadline = spec.starting_deadline_seconds.filter(|seconds| !begun && late > SignedDuration::from_secs((*seconds).into()));
    let turn = match deadline {
        Some(deadline) => Turn::TooLate { scheduled, deadline },
        None if is_in_the_way => Turn::Waits { scheduled, deletes: sets.replaced(spec.concurrency_policy) },
        None => Turn::Run { scheduled, missed: missed(&schedule, &zone, seen_to, scheduled), late },
    };
    Timing { turn, due }
}

/// How many times were missed before the one that is made up for, at most [`MANY`] and one more.
fn missed(schedule: &Schedule, zone: &TimeZone, seen_to: Timestamp, scheduled: Timestamp) -> usize {
    let mut at = seen_to;
    let times = std::iter::from_fn(|| {
        at = schedule.next_after(at, zone).filter(|next| *next < scheduled)?;
        Some(at)
    });
    times.take(MANY + 1).count()
}

#[cfg(test)]
mod tests;

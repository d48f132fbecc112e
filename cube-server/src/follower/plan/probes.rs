//! Probes' part: which are to run, what their tries add up to, what follows for the container. How a try is made is not known here.

use std::net::IpAddr;

use cube_api::meta::Name;
use cube_api::pod::{Container, Probe, ProbeKind, RestartPolicy};
use cube_api::session::AssignedPod;
use jiff::{SignedDuration, Timestamp};

use super::lifecycle::is_post_started;
use super::{Note, Step, View};
use crate::follower::record::{PodRecord, Slot, Stage};
use crate::follower::runtime::{ContainerId, RunState};

/// One run of a container's process. What was found out of another one says nothing of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Docker's id.
    pub id: ContainerId,
    /// Since when, by Docker.
    pub since: Timestamp,
}

/// A probe that is to be tried again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Whose.
    pub container: Name,
    /// Which.
    pub kind: ProbeKind,
    /// Of which run.
    pub run: Run,
    /// The pod's address, as far as known.
    pub address: Option<IpAddr>,
}

/// What one try came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tried {
    /// It is healthy.
    Passed,
    /// It isn't: what was got instead.
    Failed(String),
    /// The try could not be made, because the engine doesn't answer or the container has just ended: that says nothing of its health.
    NotMade,
}

/// What tries in a row add up to, where it is news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// So many successes as are asked for.
    Healthy,
    /// So many failures as are allowed.
    Unhealthy {
        /// How many in a row.
        times: u32,
        /// What the last one got.
        got: String,
    },
    /// It wasn't healthy before and still isn't; only what is got is worth telling.
    Still {
        /// What the last one got.
        got: String,
    },
}

/// News of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Which probe.
    pub of: Wanted,
    /// What it says now.
    pub verdict: Verdict,
}

/// Counts a probe's tries over one run of the container. A liveness probe begins as healthy, the others as not healthy yet.
#[derive(Debug, Clone)]
pub struct Tally {
    kind: ProbeKind,
    success_threshold: u32,
    failure_threshold: u32,
    /// None: not healthy yet.
    healthy: Option<bool>,
    successes: u32,
    failures: u32,
    was_healthy: bool,
    told: Option<String>,
}

impl Tally {
    /// Of a probe that was never tried.
    pub fn new(kind: ProbeKind, probe: &Probe) -> Self {
        let healthy = match kind {
            ProbeKind::Liveness => Some(true),
            ProbeKind::Startup | ProbeKind::Readiness => None,
        };
        let Probe { success_threshold, failure_threshold, .. } = *probe;
        Self { kind, success_threshold, failure_threshold, healthy, successes: 0, failures: 0, was_healthy: false, told: None }
    }

    /// Takes in a try. While nothing changes there is nothing to tell, so that a thousand healthy tries cost the pod's task nothing.
    pub fn take(&mut self, tried: Tried) -> Option<Verdict> {
        match tried {
            Tried::Passed => {
                self.failures = 0;
                self.successes = self.successes.saturating_add(1);
                if self.healthy == Some(true) || self.successes < self.success_threshold {
                    return None;
                }
                (self.healthy, self.was_healthy, self.told) = (Some(true), true, None);
                Some(Verdict::Healthy)
            }
            Tried::Failed(got) => {
                self.successes = 0;
                self.failures = self.failures.saturating_add(1);
                if self.healthy != Some(false) && self.failures >= self.failure_threshold {
                    (self.healthy, self.told) = (Some(false), Some(got.clone()));
                    return Some(Verdict::Unhealthy { times: self.failures, got });
                }
                // What keeps it from getting healthy is told with its first failure, and when something else does: but not with each try, since
                // each change of a pod's status is a commit of the leader.
                let is_told =
                    self.told.is_some() && (!self.failures.is_multiple_of(self.failure_threshold) || self.told.as_ref() == Some(&got));
                if self.healthy == Some(true) || is_told {
                    return None;
                }
                self.told = Some(got.clone());
                Some(Verdict::Still { got })
            }
            Tried::NotMade => None,
        }
    }

    /// Whether the next try should come sooner than after a whole period: of a container that has just begun and isn't ready yet, so that it is
    /// used as soon as it can be. Kubernetes does the same. Failures that end a container are never counted faster than asked for.
    pub fn is_eager(&self) -> bool {
        match self.kind {
            ProbeKind::Readiness => !self.was_healthy && self.failures > 0,
            ProbeKind::Startup | ProbeKind::Liveness => false,
        }
    }
}

/// What the probes of a container's newest run have said. Not durable: the next life of the node asks again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Of which run.
    pub run: Run,
    /// Since when its readiness probe says that it may be sent requests.
    pub ready_since: Option<Timestamp>,
    /// What keeps it from being started or ready.
    pub failing: Option<String>,
    /// It is to be ended.
    pub condemned: Option<Condemned>,
}

/// Why a container is to be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condemned {
    /// By which probe.
    pub kind: ProbeKind,
    /// The sentence: `liveness probe failed 3 times: HTTP 500 from http://172.17.0.3:80/`.
    pub why: String,
}

/// The probes that are to run now.
pub fn wanted(pod: &AssignedPod, record: &PodRecord, view: &View) -> Vec<Wanted> {
    let Stage::Live = record.stage else { return Vec::new() };
    let address = view.reached_at(&pod.spec, record);
    let of_container = |spec: &Container| {
        let kinds: Vec<_> = kinds_now(spec, record).into_iter().filter(|kind| spec.probe(*kind).is_some()).collect();
        let run = if kinds.is_empty() { None } else { run_of(&spec.name, record, view) };
        let name = spec.name.clone();
        run.into_iter().flat_map(move |run| {
            let name = name.clone();
            let of = move |kind| Wanted { container: name.clone(), kind, run: run.clone(), address };
            kinds.clone().into_iter().map(of)
        })
    };
    pod.spec.all_containers().flat_map(of_container).collect()
}

/// The startup probe alone until it has succeeded.
fn kinds_now(spec: &Container, record: &PodRecord) -> Vec<ProbeKind> {
    match is_started(spec, record) {
        true => vec![ProbeKind::Liveness, ProbeKind::Readiness],
        false => vec![ProbeKind::Startup],
    }
}

/// Whether a container that runs has come up.
pub fn is_started(spec: &Container, record: &PodRecord) -> bool {
    let came_up = spec.startup_probe.is_none() || record.containers.get(&spec.name).is_some_and(|record| record.came_up.is_some());
    came_up && is_post_started(spec, record)
}

/// Since when a container may be sent requests, if it may.
pub fn ready_since(spec: &Container, record: &PodRecord, view: &View) -> Option<Timestamp> {
    let Stage::Live = record.stage else { return None };
    let run = run_of(&spec.name, record, view).filter(|_| is_post_started(spec, record))?;
    match (&spec.readiness_probe, &spec.startup_probe) {
        (Some(_), _) => health_of(&run, &spec.name, view).filter(|_| is_started(spec, record))?.ready_since,
        (None, Some(_)) => record.containers.get(&spec.name)?.came_up,
        (None, None) => Some(run.since),
    }
}

/// What keeps a container from being started or ready, as its probe has it.
pub fn failing<'a>(name: &Name, record: &'a PodRecord, view: &'a View) -> Option<&'a String> {
    if let Some(Slot::Unhealthy { why, .. }) = record.containers.get(name).map(|record| &record.slot) {
        return Some(why);
    }
    let run = run_of(name, record, view)?;
    health_of(&run, name, view)?.failing.as_ref()
}

fn health_of<'a>(run: &Run, name: &Name, view: &'a View) -> Option<&'a Health> {
    view.health.get(name).map(|health| &**health).filter(|health| health.run == *run)
}

/// The run of a container that is known to run and not on its way out. One that was frozen by hand answers nothing, and that isn't held against it.
fn run_of(name: &Name, record: &PodRecord, view: &View) -> Option<Run> {
    let record = record.containers.get(name)?;
    let Slot::Running { since } = record.slot else { return None };
    let seen = view.app(name, record.attempt).filter(|seen| seen.state == RunState::Running { since })?;
    Some(Run { id: seen.id.clone(), since })
}

/// Takes in what a probe says.
pub fn heed(pod: &AssignedPod, record: &mut PodRecord, view: &mut View, news: News, now: Timestamp) -> Vec<Note> {
    let News { of: Wanted { container: name, kind, run, .. }, verdict } = news;
    let Some(spec) = pod.spec.container(&name) else { return Vec::new() };
    // Of a run that is over, or late: a startup probe's last word after its success.
    if run_of(&name, record, view).as_ref() != Some(&run) || !kinds_now(spec, record).contains(&kind) {
        return Vec::new();
    }
    let fresh = || Box::new(Health { run: run.clone(), ready_since: None, failing: None, condemned: None });
    let health = view.health.entry(name.clone()).or_insert_with(fresh);
    if health.run != run {
        *health = fresh();
    }
    let failed = |got: &str| format!("{} probe failed: {got}", kind.as_str());
    match (kind, verdict) {
        (ProbeKind::Startup, Verdict::Healthy) => {
            health.failing = None;
            if let Some(record) = record.containers.get_mut(&name) {
                record.came_up = Some(now);
            }
        }
        (ProbeKind::Readiness, Verdict::Healthy) => {
            (health.failing, health.ready_since) = (None, Some(now));
            return vec![Note::normal("Ready", format!("container '{name}' is ready"))];
        }
        (ProbeKind::Liveness, Verdict::Healthy | Verdict::Still { .. }) => {}
        (ProbeKind::Startup | ProbeKind::Readiness, Verdict::Still { got }) => health.failing = Some(failed(&got)),
        (ProbeKind::Startup | ProbeKind::Liveness, Verdict::Unhealthy { times, got }) => {
            health.condemned = Some(Condemned { kind, why: format!("{} probe failed {}: {got}", kind.as_str(), in_words(times)) });
        }
        (ProbeKind::Readiness, Verdict::Unhealthy { times, got }) => {
            (health.failing, health.ready_since) = (Some(failed(&got)), None);
            let message = format!("container '{name}' is not ready: readiness probe failed {}: {got}", in_words(times));
            return vec![Note::warning("Unhealthy", message)];
        }
    }
    Vec::new()
}

fn in_words(times: u32) -> String {
    if times == 1 { "once".to_owned() } else { format!("{times} times") }
}

impl Step<'_> {
    /// Begins to end a container that its probe has condemned; when it is killed, if that is so.
    pub(super) fn condemn(&mut self, spec: &Container, since: Timestamp) -> Option<Timestamp> {
        let condemned =
            run_of(&spec.name, &self.record, self.view).and_then(|run| health_of(&run, &spec.name, self.view)?.condemned.clone());
        let Condemned { kind, why } = condemned?;
        let own = spec.probe(kind).and_then(|probe| probe.termination_grace_period_seconds);
        let grace_seconds = own.unwrap_or(self.pod.spec.termination_grace_period_seconds);
        let next = match self.pod.spec.restart_policy_of(&spec.name) {
            RestartPolicy::Always | RestartPolicy::OnFailure => "it is stopped and started again",
            RestartPolicy::Never => "it is stopped, and by its restartPolicy not started again",
        };
        self.notes.push(Note::warning("Unhealthy", format!("container '{}' is unhealthy: {why}; {next}", spec.name)));
        self.set_slot(spec, Slot::Unhealthy { since, stop_since: self.now, grace_seconds, why });
        Some(self.now + SignedDuration::from_secs(grace_seconds.into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn probe(success_threshold: u32, failure_threshold: u32) -> Probe {
        let text = format!(
            r#"{{"exec": {{"command": ["true"]}}, "successThreshold": {success_threshold}, "failureThreshold": {failure_threshold}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn failed() -> Tried {
        Tried::Failed("exit code 1".to_owned())
    }

    #[test]
    fn a_liveness_probe_is_unhealthy_with_the_last_failure_that_is_allowed_and_says_so_once() {
        let mut tally = Tally::new(ProbeKind::Liveness, &probe(1, 3));
        let said: Vec<_> = (0..5).map(|_| tally.take(failed())).collect();
        assert_eq!(said, [None, None, Some(Verdict::Unhealthy { times: 3, got: "exit code 1".to_owned() }), None, None]);
    }

    #[test]
    fn what_keeps_a_container_from_being_ready_is_told_first_and_when_it_is_something_else() {
        let mut tally = Tally::new(ProbeKind::Readiness, &probe(1, 2));
        let still = |got: &str| Some(Verdict::Still { got: got.to_owned() });
        assert_eq!(tally.take(Tried::Failed("a".to_owned())), still("a"));
        assert_eq!(tally.take(Tried::Failed("a".to_owned())), Some(Verdict::Unhealthy { times: 2, got: "a".to_owned() }));
        assert_eq!(tally.take(Tried::Failed("b".to_owned())), None, "not with each try");
        assert_eq!(tally.take(Tried::Failed("b".to_owned())), still("b"));
        assert_eq!(tally.take(Tried::Passed), Some(Verdict::Healthy));
        assert_eq!(tally.take(Tried::Failed("c".to_owned())), None, "it is ready until it has failed twice");
    }

    #[test]
    fn only_a_container_that_was_never_ready_is_asked_sooner() {
        let mut tally = Tally::new(ProbeKind::Readiness, &probe(1, 3));
        assert!(!tally.is_eager());
        tally.take(failed());
        assert!(tally.is_eager());
        tally.take(Tried::Passed);
        tally.take(failed());
        assert!(!tally.is_eager());
        for kind in [ProbeKind::Startup, ProbeKind::Liveness] {
            let mut tally = Tally::new(kind, &probe(1, 3));
            tally.take(failed());
            assert!(!tally.is_eager());
        }
    }

    fn tries() -> impl Strategy<Value = Vec<Tried>> {
        let tried = prop_oneof![Just(Tried::Passed), Just(failed()), Just(Tried::NotMade)];
        prop::collection::vec(tried, 0..60)
    }

    proptest! {
        /// In words: it is healthy after `successes` good tries without a bad one between them, unhealthy after `failures` bad ones without a good
        /// one, as it was otherwise; a try that wasn't made counts as nothing.
        #[test]
        fn tries_add_up_by_the_thresholds(successes in 1u32..4, failures in 1u32..4, kind in 0usize..3, tries in tries()) {
            let kind = ProbeKind::ALL[kind];
            let successes = if kind == ProbeKind::Readiness { successes } else { 1 };
            let mut tally = Tally::new(kind, &probe(successes, failures));
            let mut said = if kind == ProbeKind::Liveness { Some(true) } else { None };
            let mut made = Vec::new();
            for tried in tries {
                made.extend(match &tried {
                    Tried::Passed => Some(true),
                    Tried::Failed(_) => Some(false),
                    Tried::NotMade => None,
                });
                match tally.take(tried) {
                    Some(Verdict::Healthy) => {
                        prop_assert_ne!(said, Some(true), "said twice");
                        said = Some(true);
                    }
                    Some(Verdict::Unhealthy { times, .. }) => {
                        prop_assert_ne!(said, Some(false), "said twice");
                        prop_assert_eq!(times, failures);
                        said = Some(false);
                    }
                    Some(Verdict::Still { .. }) => prop_assert!(said != Some(true) && kind != ProbeKind::Liveness),
                    None => {}
                }
                let last = |count: u32, what: bool| {
                    let count = usize::try_from(count).unwrap();
                    made.len() >= count && made[made.len() - count..].iter().all(|one| *one == what)
                };
                if last(successes, true) {
                    prop_assert_eq!(said, Some(true));
                }
                if last(failures, false) {
                    prop_assert_eq!(said, Some(false));
                }
            }
        }
    }
}

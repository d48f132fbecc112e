//! Runs jobs: pods begin as others end, until enough have succeeded or too many have failed.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use cube_api::job::Job;
use cube_api::meta::{ResourceKind, Revision};
use cube_api::node::Node;
use cube_api::object::Object;

use super::{AGAIN_AFTER, log_failure, news, wait_until};
use crate::ambient::Ambient;
use crate::leader::plan::job::{Decision, KEPT, OwnedPod, decide};
use crate::leader::store::{Change, Changed, PodRow, State, Store};

/// Runs until it is dropped. There is no pause between two passes: what one pod's end frees is the next one's at once.
pub(super) async fn run(store: Store, ambient: Ambient) {
    loop {
        let now = ambient.now();
        let (revision, looked_at) = store.read(snapshot);
        let mut at_most = Duration::MAX;
        for (job, pods) in looked_at {
            let Some(job) = job.job() else { continue };
            let Decision { pass, due } = decide(job, &pods, now);
            at_most = at_most.min(wait_until(due, now));
            let Some(pass) = pass else { continue };
            if let Err(error) = store.settle(pass).await {
                log_failure("going on with a job", &error);
                at_most = at_most.min(AGAIN_AFTER);
            }
        }
        news(&store, revision, at_most, matters).await;
    }
}

/// A job with its pods.
type Looked = (Arc<Object>, Vec<OwnedPod>);

/// The jobs that something may have to be done about, as of one revision.
fn snapshot(state: &State) -> (Revision, Vec<Looked>) {
    let jobs = state.objects(ResourceKind::Job, Bound::Unbounded).map(|(_, job)| job);
    let jobs = jobs.filter_map(|object| {
        let job = object.job()?;
        is_open(state, job).then(|| (object.clone(), pods_of(state, job)))
    });
    (state.revision, jobs.collect())
}

/// Most jobs have ended at some time, and nothing is left to do about them.
fn is_open(state: &State, job: &Job) -> bool {
    let may_be_surplus = || state.owned_by(&job.metadata.uid).nth(KEPT).is_some();
    job.status.end().is_none() || job.spec.ttl_seconds_after_finished.is_some() || may_be_surplus()
}

fn pods_of(state: &State, job: &Job) -> Vec<OwnedPod> {
    let pods = state.owned_by(&job.metadata.uid);
    pods.map(|row| OwnedPod { row: row.clone(), is_on_lost_node: state.is_on_lost_node(row) }).collect()
}

/// Whether a change may let a job go on: the job itself (which each end of a pod changes, for it is counted there), the place that a pod kept until it
/// had stopped, restarts, and a node whose word nobody waits for any more.
fn matters(change: &Change) -> bool {
    match &change.object {
        Changed::Object { before, after } => [before, after].into_iter().flatten().any(|object| object.kind() == ResourceKind::Job),
        Changed::Pod { before, after } => {
            let is_a_jobs = |row: &Arc<PodRow>| row.pod.metadata.owner.as_ref().is_some_and(|owner| owner.kind == ResourceKind::Job);
            let restarts = |row: &PodRow| row.pod.status.containers.iter().map(|container| container.restart_count).sum::<u32>();
            let facts = |row: &Arc<PodRow>| (row.is_finished(), row.retired.is_some(), restarts(row));
            before.as_ref().is_some_and(is_a_jobs) && before.as_ref().map(facts) != after.as_ref().map(facts)
        }
        Changed::Node { before, after } => {
            let is_lost = |node: &Arc<Node>| node.condition.is_lost();
            before.as_ref().map(is_lost) != after.as_ref().map(is_lost)
        }
    }
}

//! Makes the jobs of cronjobs when it is time for them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use cube_api::job::Job;
use cube_api::meta::{ResourceKind, Revision, Uid};
use cube_api::object::Object;

use super::{AGAIN_AFTER, log_failure, news, wait_until};
use crate::ambient::Ambient;
use crate::leader::plan::cron::{Decision, decide};
use crate::leader::store::{Change, Changed, State, Store};

/// Runs until it is dropped.
pub(super) async fn run(store: Store, ambient: Ambient) {
    loop {
        let now = ambient.now();
        let snapshot = store.read(Snapshot::of);
        let mut at_most = Duration::MAX;
        for object in &snapshot.cronjobs {
            let Some(cronjob) = object.cronjob() else { continue };
            let Decision { pass, due } = decide(cronjob, &snapshot.jobs_of(&cronjob.metadata.uid), now);
            at_most = at_most.min(wait_until(due, now));
            let Some(pass) = pass else { continue };
            if let Err(error) = store.settle(pass).await {
                log_failure("going on with a cronjob", &error);
                at_most = at_most.min(AGAIN_AFTER);
            }
        }
        news(&store, snapshot.revision, at_most, matters).await;
    }
}

/// What a pass looks at, as of one revision.
struct Snapshot {
    revision: Revision,
    cronjobs: Vec<Arc<Object>>,
    jobs: BTreeMap<Uid, Vec<Arc<Object>>>,
}

impl Snapshot {
    fn of(state: &State) -> Self {
        let all = |kind| state.objects(kind, Bound::Unbounded).map(|(_, object)| object.clone());
        let cronjobs: Vec<_> = all(ResourceKind::CronJob).collect();
        let mut jobs = BTreeMap::<Uid, Vec<_>>::new();
        // Where there is no cronjob, jobs are no matter here, however many there are.
        for job in all(ResourceKind::Job).take_while(|_| !cronjobs.is_empty()) {
            let owner = job.metadata().owner.as_ref().map(|owner| owner.uid);
            if let Some(owner) = owner {
                jobs.entry(owner).or_default().push(job);
            }
        }
        Self { revision: state.revision, cronjobs, jobs }
    }

    fn jobs_of(&self, cronjob: &Uid) -> Vec<&Job> {
        let objects = self.jobs.get(cronjob).into_iter().flatten();
        objects.filter_map(|object| object.job()).collect()
    }
}

/// Whether a cronjob changed, or one of its jobs began, ended, is to go or is gone.
fn matters(change: &Change) -> bool {
    let Changed::Object { before, after } = &change.object else { return false };
    let facts = |object: &Arc<Object>| {
        let job = object.job().filter(|job| job.metadata.owner.is_some())?;
        Some((job.status.end().cloned(), job.metadata.deletion_requested_at))
    };
    let is_cronjob = [before, after].into_iter().flatten().any(|object| object.kind() == ResourceKind::CronJob);
    is_cronjob || before.as_ref().and_then(facts) != after.as_ref().and_then(facts)
}

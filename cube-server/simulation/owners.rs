//! Users of deployments and jobs, and what must hold of those: what was acknowledged stands, no update and no job does more than it may at any
//! moment, and each comes to its end or says why not.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use cube_api::Object;
use cube_api::deployment::{Deployment, RolloutState, StrategyKind};
use cube_api::job::{Job, JobConditionKind};
use cube_api::meta::{Metadata, Name, ResourceKind, ResourceRef};
use cube_api::routes::{self, Applied, AppliedResource};
use cube_server::leader::store::{PodRow, State};
use http::Method;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use crate::checks::{Violation, ensure, short, told};
use crate::workload::Hands;

/// How long a rollout may make no progress. Pods of the good images below are ready within 15 s where nothing is in their way.
const DEADLINE: u64 = 25;

/// What the leader said is done.
#[derive(Debug, Clone)]
enum Belief {
    Present(Box<Object>),
    Deleted,
}

/// What was acknowledged of deployments and jobs. Clones share it.
#[derive(Clone, Default)]
pub struct Owned {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    beliefs: BTreeMap<ResourceRef, Belief>,
    /// Those of which something is asked that isn't answered.
    open: BTreeSet<ResourceRef>,
    /// How many lives were made of either kind.
    made: u64,
}

impl Owned {
    /// Deployments and jobs that were made.
    pub fn made(&self) -> u64 {
        self.inner().made
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it is held")
    }

    fn answered(&self, reference: &ResourceRef, belief: Belief) {
        let mut inner = self.inner();
        inner.open.remove(reference);
        let before = inner.beliefs.insert(reference.clone(), belief);
        inner.made += u64::from(before.is_none());
    }
}

#[derive(Debug, Clone)]
enum Wish {
    Apply(Value),
    Scale(u32),
    Delete,
}

/// A user of one deployment or job.
#[derive(Debug, Clone)]
pub struct User {
    what: ResourceRef,
    /// Each some time after the one before.
    wishes: Vec<(Duration, Wish)>,
}

/// Users who begin and end within `length`; none in a third of the runs.
pub fn users(dice: &mut StdRng, length: Duration) -> Vec<User> {
    let count = *[0, 1, 3].choose(dice).expect("not empty");
    (0..count).map(|number| if dice.random_bool(0.6) { deployer(dice, number, length) } else { job_user(dice, number, length) }).collect()
}

fn deployer(dice: &mut StdRng, number: usize, length: Duration) -> User {
    let name = format!("d{number}");
    let mut replicas = dice.random_range(1..=3);
    // Most begin with what runs: else there is nothing to lose by what comes after.
    let first = deployment(dice, &name, replicas, 0.1);
    let mut wishes = vec![(pause(dice, length, 4), Wish::Apply(first))];
    for _ in 0..dice.random_range(0..=2) {
        let wish = if dice.random_bool(0.7) {
            Wish::Apply(deployment(dice, &name, replicas, 0.4))
        } else {
            replicas = dice.random_range(0..=3);
            Wish::Scale(replicas)
        };
        wishes.push((pause(dice, length, 4), wish));
    }
    if dice.random_bool(0.2) {
        wishes.push((pause(dice, length, 4), Wish::Delete));
    }
    User { what: ResourceRef { kind: ResourceKind::Deployment, name: Name::new(name).expect("a label") }, wishes }
}

fn job_user(dice: &mut StdRng, number: usize, length: Duration) -> User {
    let name = format!("j{number}");
    let image = ["job", "job", "blink", "failing", "missing"].choose(dice).expect("not empty");
    let job = json!({"type": "job", "metadata": {"name": name}, "spec": {
        "completions": dice.random_range(1..=4), "parallelism": dice.random_range(1..=2), "backoffLimit": dice.random_range(0..=2),
        "template": {"spec": {
            "containers": [{"name": "c0", "image": image}], "terminationGracePeriodSeconds": 2,
            "restartPolicy": if dice.random_bool(0.7) { "Never" } else { "OnFailure" }, "restart": {"limit": 3},
        }},
    }});
    let mut wishes = vec![(pause(dice, length, 2), Wish::Apply(job))];
    if dice.random_bool(0.2) {
        wishes.push((pause(dice, length, 2), Wish::Delete));
    }
    User { what: ResourceRef { kind: ResourceKind::Job, name: Name::new(name).expect("a label") }, wishes }
}

fn pause(dice: &mut StdRng, length: Duration, wishes: u32) -> Duration {
    length.mul_f64(dice.random_range(0.0..1.0) / f64::from(wishes))
}

/// A deployment whose template is no good with this probability.
fn deployment(dice: &mut StdRng, name: &str, replicas: u32, bad: f64) -> Value {
    let images = if dice.random_bool(bad) { ["missing", "failing-at-once", "broken"] } else { ["steady", "steady-2", "slow"] };
    let image = images.choose(dice).expect("not empty");
    let mut container = json!({"name": "c0", "image": image, "env": {"CHANGE": dice.random_range(0..1_000).to_string()}});
    if crate::images::PROBED.contains(image) {
        container["readinessProbe"] = json!({"exec": {"command": ["health"]}, "periodSeconds": 1, "timeoutSeconds": 3});
    }
    let labels = json!({"app": name});
    let mut deployment = json!({"type": "deployment", "metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": labels}, "progressDeadlineSeconds": DEADLINE, "minReadySeconds": dice.random_range(0..=1),
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 2}},
    }});
    if dice.random_bool(0.2) {
        deployment["spec"]["strategy"] = json!({"type": "Recreate"});
    }
    deployment
}

/// Does what each user wants.
pub async fn run(users: Vec<User>, owned: &Owned, hands: &Hands<'_>) {
    let all = users.iter().map(|user| async {
        for (pause, wish) in &user.wishes {
            tokio::time::sleep(*pause).await;
            fulfil(&user.what, wish, owned, hands).await;
        }
    });
    futures::future::join_all(all).await;
}

async fn fulfil(what: &ResourceRef, wish: &Wish, owned: &Owned, hands: &Hands<'_>) {
    owned.inner().open.insert(what.clone());
    let one = |route: &str| route.replace("{types}", what.kind.plural()).replace("{name}", what.name.as_str());
    let answer = match wish {
        Wish::Apply(manifest) => {
            let body = Bytes::from(manifest.to_string());
            let apply = || hands.client.call::<Applied>(Method::POST, routes::APPLY, body.clone());
            hands.until_answered(&format!("apply {what}"), apply).await.map(|applied| {
                match applied.items.into_iter().next().map(|item| item.resource) {
                    Some(AppliedResource::Object(object)) => Some(object),
                    Some(AppliedResource::Pod(_)) | None => None,
                }
            })
        }
        Wish::Scale(replicas) => {
            let path = format!("{}?replicas={replicas}", one(routes::DEPLOYMENT_SCALE));
            let scale = || hands.client.call::<Deployment>(Method::POST, &path, Bytes::new());
            hands
                .until_answered(&format!("scale {what} to {replicas}"), scale)
                .await
                .map(|deployment| Some(Object::Deployment(Box::new(deployment))))
        }
        Wish::Delete => {
            let path = one(routes::OBJECT);
            hands
                .until_answered(&format!("delete {what}"), || hands.client.call::<Object>(Method::DELETE, &path, Bytes::new()))
                .await
                .map(|_| None)
        }
    };
    match (answer, wish) {
        (Ok(Some(object)), Wish::Apply(_) | Wish::Scale(_)) => owned.answered(what, Belief::Present(Box::new(object))),
        (Ok(_), Wish::Delete) => owned.answered(what, Belief::Deleted),
        // A delete whose answer was lost, and that is done.
        (Err(error), Wish::Delete) if error.code == cube_api::ErrorCode::NotFound => owned.answered(what, Belief::Deleted),
        (Ok(_), Wish::Apply(_) | Wish::Scale(_)) => hands.complain(format!("{what}: an answer without it")),
        (Err(error), _) => hands.complain(format!("{what}: {error}")),
    }
    hands.expected.acknowledge();
}

/// A pod of a deployment that is made, or is shown as on its way out while it is ready: by default an update of up to three pods makes one more than are
/// wanted, and as many as are wanted stay ready, of either revision. `rows` are all pods after the change, `deployment` is as of then.
pub fn check_pod<'a>(
    deployment: &Deployment,
    old: Option<&PodRow>,
    new: &PodRow,
    is_cordoned: bool,
    rows: impl Iterator<Item = &'a Arc<PodRow>>,
) -> Result<(), Violation> {
    let Deployment { metadata: Metadata { uid, name, .. }, spec, .. } = deployment;
    let own = rows.filter(|row| row.pod.metadata.owner.as_ref().is_some_and(|owner| owner.uid == *uid));
    let wanted = spec.replicas() as usize;
    let Some(old) = old else {
        let there = own.filter(|row| row.pod.metadata.deletion_requested_at.is_none() && !row.is_finished()).count();
        return ensure(there <= wanted + 1, "DE2", || format!("deployment {name} makes pod number {there}, and {wanted} are wanted"));
    };
    let leaves = old.pod.is_ready() && new.pod.metadata.deletion_requested_at.is_some() && new.retired.is_none();
    if !leaves || is_cordoned || spec.strategy.kind == StrategyKind::Recreate {
        return Ok(());
    }
    let ready = own.filter(|row| row.pod.is_ready()).count();
    ensure(ready >= wanted, "DE2", || {
        format!("pod {} leaves deployment {name} though it is ready, and of {wanted} pods {ready} are left", new.pod.metadata.name)
    })
}

/// The state as a whole.
pub fn check_state(owned: &Owned, state: &State) -> Result<(), Violation> {
    let inner = owned.inner();
    for (reference, belief) in inner.beliefs.iter().filter(|(reference, _)| !inner.open.contains(*reference)) {
        let found = state.object(reference.kind, &reference.name);
        let leaves = found.is_none_or(|object| object.metadata().deletion_requested_at.is_some());
        match belief {
            Belief::Present(known) => {
                let same = found.is_some_and(|object| object.metadata().uid == known.metadata().uid && has_spec_of(object, known));
                ensure(same && !leaves, "I1", || format!("{reference} was acknowledged, and now it is {found:?}"))?;
            }
            Belief::Deleted => ensure(leaves, "I1", || format!("the end of {reference} was acknowledged, and it is there: {found:?}"))?,
        }
    }
    drop(inner);
    for job in state.objects(ResourceKind::Job, Bound::Unbounded).filter_map(|(_, object)| object.job()) {
        let Job { metadata, spec, status } = job;
        let at_work = state.owned_by(&metadata.uid).filter(|row| row.retired.is_none() && !row.is_finished()).count();
        ensure(at_work <= spec.parallelism as usize, "JO2", || format!("job {} has {at_work} pods at work at a time", metadata.name))?;
        let wanted = spec.completions.unwrap_or(1) as usize;
        ensure(status.succeeded as usize + at_work <= wanted, "JO2", || {
            format!("job {} has {} of {wanted} done, and {at_work} at work", metadata.name, status.succeeded)
        })?;
    }
    Ok(())
}

fn has_spec_of(one: &Object, other: &Object) -> bool {
    match (one, other) {
        (Object::Deployment(one), Object::Deployment(other)) => one.spec == other.spec,
        (Object::Job(one), Object::Job(other)) => one.spec == other.spec,
        (_, _) => false,
    }
}

/// Which of them isn't at rest.
pub fn unmet(state: &State) -> Vec<String> {
    let deployments = state.objects(ResourceKind::Deployment, Bound::Unbounded).filter_map(|(_, object)| object.deployment());
    let jobs = state.objects(ResourceKind::Job, Bound::Unbounded).filter_map(|(_, object)| object.job());
    deployments.filter_map(|deployment| undeployed(state, deployment)).chain(jobs.filter_map(|job| unfinished(state, job))).collect()
}

fn undeployed(state: &State, deployment: &Deployment) -> Option<String> {
    let Deployment { metadata, spec, status, .. } = deployment;
    let pods: Vec<_> = state.owned_by(&metadata.uid).filter(|row| row.retired.is_none()).map(|row| &**row).collect();
    let says = |what: &str| {
        let pods: Vec<_> = pods.iter().map(|row| format!("{} {}", row.pod.metadata.name, told(Some(row)))).collect();
        Some(format!("deployment {} {}: {what}: {:?}, {pods:?}", metadata.name, short(metadata.uid), status.rollout))
    };
    if metadata.deletion_requested_at.is_some() {
        return says("its end doesn't come");
    }
    if status.observed_generation != metadata.generation {
        return says("nobody has looked at it");
    }
    match status.rollout.as_ref().map(|rollout| &rollout.state) {
        Some(RolloutState::Complete { .. }) if pods.len() == spec.replicas() as usize => None,
        // In the place of one whose node is drained, if only there were room.
        Some(RolloutState::Complete { .. }) if pods.len() == spec.replicas() as usize + 1 && pods.iter().any(|row| waits(row)) => None,
        Some(RolloutState::Complete { .. }) => says("it is complete and has another number of pods"),
        Some(RolloutState::Stalled { .. }) => None,
        Some(RolloutState::Progressing { .. } | RolloutState::Paused { .. }) | None => says("its rollout has no end"),
    }
}

fn waits(row: &PodRow) -> bool {
    row.pod.placement.node.is_none() && row.pod.placement.waiting_for.is_some()
}

fn unfinished(state: &State, job: &Job) -> Option<String> {
    let Job { metadata, spec, status } = job;
    let says = |what: &str| Some(format!("job {} {}: {what}: {status:?}", metadata.name, short(metadata.uid)));
    if metadata.deletion_requested_at.is_some() {
        return says("its end doesn't come");
    }
    let is = |kind| status.conditions.iter().any(|condition| condition.kind == kind);
    if is(JobConditionKind::Complete) {
        return if Some(status.succeeded) == spec.completions { None } else { says("it is complete, and not as often as was asked for") };
    }
    // One that waits for room or for an image says so itself.
    let is_at_work = |row: &Arc<PodRow>| row.retired.is_none() && !row.is_finished();
    let works = state.owned_by(&metadata.uid).any(is_at_work);
    if is(JobConditionKind::Failed) || works { None } else { says("nobody is at work for it") }
}

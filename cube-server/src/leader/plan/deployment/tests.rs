mod clocks;

use std::collections::BTreeMap;

use cube_api::deployment::{ConditionKind, REVISION_LABEL, RolloutState, Verdict};
use cube_api::event::EventKind;
use jiff::ToSpan;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).expect("a label")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + seconds.seconds()
}

fn deployment(spec: Value) -> Deployment {
    let metadata = json!({"name": "web", "uid": Uuid::from_u128(1), "generation": 1, "revision": 1, "createdAt": "1970-01-01T00:00:00Z"});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a deployment")
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

/// How a pod of the world does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Starting,
    Ready { since: i64 },
    Crashing,
    Failed { at: i64 },
}

/// The pods of a deployment and what its loop does to them: the store, the nodes and the clock in small.
struct World {
    deployment: Deployment,
    pods: Vec<Arc<PodRow>>,
    drained: BTreeSet<Name>,
    now: i64,
    watched_since: i64,
    made: u128,
    events: Vec<(EventKind, &'static str, String)>,
}

impl World {
    fn new(spec: Value) -> Self {
        Self {
            deployment: deployment(spec),
            pods: Vec::new(),
            drained: BTreeSet::new(),
            now: 1_000,
            watched_since: 0,
            made: 0,
            events: Vec::new(),
        }
    }

    /// With all pods of the first revision available.
    fn settled(spec: Value) -> Self {
        let mut world = Self::new(spec);
        world.pass();
        world.all(Health::Ready { since: world.now });
        world.now += i64::from(world.deployment.spec.min_ready_seconds.max(3));
        world.pass();
        assert!(matches!(world.state(), RolloutState::Complete { .. }), "{:?}", world.deployment.status);
        world
    }

    fn planned(&self) -> Planned {
        self.planned_with(&BTreeSet::new())
    }

    fn planned_with(&self, quiet: &BTreeSet<Uid>) -> Planned {
        let Self { deployment, pods, drained, now, watched_since, .. } = self;
        plan(&Seen { deployment, pods, drained, quiet, watched_since: at(*watched_since), now: at(*now) })
    }

    /// A pass, carried out as the store would; pods that were shown as Terminating before it are stopped, and gone at once.
    fn pass(&mut self) -> Planned {
        let quiet =
            self.pods.iter().filter(|row| row.pod.metadata.deletion_requested_at.is_some()).map(|row| row.pod.metadata.uid).collect();
        let planned = self.planned_with(&quiet);
        let pass = planned.pass.clone();
        let Object::Deployment(after) = pass.owner else { panic!("a deployment's pass is about a deployment") };
        self.deployment = *after;
        for (uid, _, _) in &pass.retire {
            self.pods.retain(|row| row.pod.metadata.uid != *uid);
        }
        for (uid, _) in &pass.leave {
            self.change(*uid, |row| row.pod.metadata.deletion_requested_at = Some(Timestamp::UNIX_EPOCH));
        }
        for new in pass.create {
            self.made += 1;
            let metadata = json!({"name": format!("{}-{}", new.stem, self.made), "uid": Uuid::from_u128(100 + self.made), "labels": new.labels,
                "generation": 1, "revision": 1, "createdAt": at(self.now)});
            let mut pod: cube_api::Pod = serde_json::from_value(json!({"metadata": metadata, "spec": *new.spec})).expect("a pod");
            pod.placement.node = Some(name(["n1", "n2"][(self.made % 2) as usize]));
            self.pods.push(Arc::new(PodRow { pod, restarts: 0, retired: None }));
        }
        self.events.extend(pass.events);
        planned
    }

    fn change(&mut self, uid: Uid, change: impl FnOnce(&mut PodRow)) {
        let row = self.pods.iter_mut().find(|row| row.pod.metadata.uid == uid).expect("the pod is there");
        change(Arc::make_mut(row));
    }

    fn set(&mut self, uid: Uid, health: Health) {
        self.change(uid, |row| row.pod.status = serde_json::from_value(status(health)).expect("a status"));
    }

    fn all(&mut self, health: Health) {
        for uid in self.uids(|_| true) {
            self.set(uid, health);
        }
    }

    fn uids(&self, which: impl Fn(&PodRow) -> bool) -> Vec<Uid> {
        self.pods.iter().filter(|row| which(row)).map(|row| row.pod.metadata.uid).collect()
    }

    fn of_revision(&self, number: u64) -> Vec<Uid> {
        self.uids(|row| revision(row) == number && row.pod.metadata.deletion_requested_at.is_none())
    }

    fn of_revision_do(&mut self, number: u64, health: Health) {
        for uid in self.of_revision(number) {
            self.set(uid, health);
        }
    }

    /// How many there are that aren't on their way out, and how many of them are available by what the pods say.
    fn counts(&self) -> (usize, usize) {
        let live: Vec<_> = self.pods.iter().filter(|row| row.pod.metadata.deletion_requested_at.is_none() && !row.is_finished()).collect();
        let least = i64::from(self.deployment.spec.min_ready_seconds);
        let is_available = |row: &&&Arc<PodRow>| {
            row.pod.is_ready() && row.pod.status.ready_since.is_some_and(|since| at(self.now) >= since + least.seconds())
        };
        (live.len(), live.iter().filter(is_available).count())
    }

    fn state(&self) -> &RolloutState {
        &self.deployment.status.rollout.as_ref().expect("it was looked at").state
    }

    fn update(&mut self, image: &str) {
        self.deployment.spec.template = serde_json::from_value(template(image)).expect("a template");
        self.deployment.metadata.generation += 1;
    }

    fn said(&self, reason: &str) -> Vec<&str> {
        self.events.iter().filter(|(_, said, _)| *said == reason).map(|(_, _, message)| message.as_str()).collect()
    }

    /// Passes, with every pod that can be ready ready, until nothing changes.
    fn run(&mut self, is_good: impl Fn(u64) -> bool) {
        for _ in 0..1_000 {
            self.now += 1;
            let (before, deployment) = (self.pods.clone(), self.deployment.clone());
            for (uid, number) in self.pods.iter().map(|row| (row.pod.metadata.uid, revision(row))).collect::<Vec<_>>() {
                let is_ready = self.pods.iter().any(|row| row.pod.metadata.uid == uid && row.pod.is_ready());
                match is_good(number) {
                    true if !is_ready => self.set(uid, Health::Ready { since: self.now }),
                    true => {}
                    false => self.set(uid, Health::Crashing),
                }
            }
            let planned = self.pass();
            if before == self.pods && deployment == self.deployment {
                match planned.again_at {
                    Some(again) => self.now = self.now.max(again.as_second()),
                    None => return,
                }
            }
        }
        panic!("it doesn't come to rest: {:?}", self.deployment.status);
    }
}

fn revision(row: &PodRow) -> u64 {
    row.pod.metadata.labels.get(REVISION_LABEL).and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn status(health: Health) -> Value {
    let container = |state: Value, ready: bool| {
        let mut container = json!({"name": "c", "image": "i", "state": state, "started": ready, "ready": ready, "restartCount": 0});
        if !ready {
            container["lastTermination"] = json!({"exitCode": 3, "reason": "Error", "message": "starting\nno such table\n"});
        }
        container
    };
    match health {
        Health::Starting => json!({}),
        Health::Ready { since } => {
            json!({"phase": "Running", "readySince": at(since), "knownSince": at(since), "containers": [container(json!({"running": {"startedAt": at(since)}}), true)]})
        }
        Health::Crashing => {
            json!({"phase": "Running", "containers": [container(json!({"waiting": {"reason": "CrashLoopBackOff"}}), false)]})
        }
        Health::Failed { at: when } => {
            json!({"phase": "Failed", "reason": "CrashLimit", "message": "crashed 10 times", "finishedAt": at(when)})
        }
    }
}

#[test]
fn a_new_deployment_makes_its_pods_and_is_through_when_all_are_available() {
    let mut world = World::new(json!({"replicas": 3, "template": template("a")}));
    let planned = world.pass();
    assert_eq!(planned.pass.create.len(), 3);
    assert_eq!(planned.pass.create[0].stem, "web-1");
    assert_eq!(planned.pass.create[0].labels["cube.io/deployment"], "web");
    assert_eq!(planned.pass.create[0].labels["app"], "web");
    assert_eq!(planned.again_at, Some(at(1_600)), "the deadline");
    world.all(Health::Ready { since: world.now });
    world.now += 3;
    let planned = world.pass();
    assert!(planned.pass.create.is_empty() && planned.again_at.is_none());
    assert!(matches!(world.state(), RolloutState::Complete { .. }));
    assert!(matches!(world.deployment.history[0].verdict, Verdict::Good { .. }));
    let status = &world.deployment.status;
    assert_eq!((status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas), (3, 3, 3, 3));
    assert!(status.conditions.iter().all(|condition| condition.status), "{:?}", status.conditions);
    let again = world.pass();
    assert_eq!(again.pass.owner, Object::Deployment(Box::new(world.deployment.clone())), "nothing is written where nothing changed");
    assert!(again.pass.events.is_empty());
}

#[test]
fn an_update_surges_by_a_quarter_and_waits_for_what_is_ready() {
    let mut world = World::settled(json!({"replicas": 4, "template": template("a")}));
    world.update("b");
    let planned = world.pass();
    // One more than four may be there, and one fewer than four has to be available.
    assert_eq!((planned.pass.create.len(), planned.pass.leave.len(), planned.pass.retire.len()), (1, 1, 0));
    let planned = world.pass();
    assert_eq!((planned.pass.create.len(), planned.pass.leave.len(), planned.pass.retire.len()), (1, 0, 1), "what left makes room");
    assert_eq!(world.counts(), (5, 3));
    assert!(world.pass().pass.leave.is_empty(), "no more leave before new ones are available");
    world.of_revision_do(2, Health::Ready { since: world.now });
    assert!(world.pass().pass.leave.is_empty(), "what is ready for a moment may crash in the next");
    world.now += 3;
    let planned = world.pass();
    assert_eq!(planned.pass.leave.len(), 2);
}

#[test]
fn a_pod_that_is_ready_leaves_before_it_is_stopped_and_one_that_is_not_is_stopped_at_once() {
    let mut world = World::settled(json!({"replicas": 2, "template": template("a")}));
    let uids = world.of_revision(1);
    world.deployment.spec.replicas = Some(0);
    world.set(uids[0], Health::Crashing);
    let planned = world.planned();
    assert_eq!(planned.pass.retire.iter().map(|(uid, _, _)| *uid).collect::<Vec<_>>(), [uids[0]]);
    assert_eq!(planned.pass.leave.iter().map(|(uid, _)| *uid).collect::<Vec<_>>(), [uids[1]]);
    world.change(uids[1], |row| row.pod.metadata.deletion_requested_at = Some(Timestamp::UNIX_EPOCH));
    assert!(world.planned().pass.retire.iter().all(|(uid, _, _)| *uid != uids[1]), "it hasn't been seen leaving for long enough");
    let planned = world.planned_with(&BTreeSet::from([uids[1]]));
    assert!(planned.pass.retire.iter().any(|(uid, _, _)| *uid == uids[1]));
}

#[test]
fn a_failing_image_leaves_the_old_pods_alone_and_is_rolled_back_with_the_reason() {
    let mut world = World::settled(json!({"replicas": 3, "template": template("a"), "progressDeadlineSeconds": 60}));
    let old = world.of_revision(1);
    world.update("b");
    world.run(|number| number == 1);
    assert_eq!(world.of_revision(1), old, "the same pods as before");
    assert_eq!(world.of_revision(2), []);
    let because = "revision 2 made no progress in 60s: 1 pod CrashLoopBackOff (exit 3: no such table)";
    assert_eq!(world.said("RolledBack"), [format!("rolled back to revision 1: {because}")]);
    let condition = world.deployment.status.conditions.iter().find(|condition| condition.kind == ConditionKind::Progressing).expect("it");
    assert_eq!((condition.status, condition.reason.as_str()), (false, "RolledBack"));
    assert!(matches!(world.state(), RolloutState::Complete { .. }));
    assert_eq!(world.deployment.target().map(|target| target.number), Some(1));

    world.deployment.metadata.generation += 1;
    world.run(|number| number == 1);
    assert_eq!(world.of_revision(2), [], "the same template isn't tried again by itself");
    assert!(world.deployment.retry());
    world.run(|_| true);
    assert_eq!((world.of_revision(1).len(), world.of_revision(2).len()), (0, 3), "but when a person says so");
}

#[test]
fn old_pods_that_lost_their_readiness_are_kept_while_the_new_ones_are_not_ready_either() {
    let mut world = World::settled(json!({"replicas": 4, "template": template("a")}));
    world.all(Health::Starting);
    world.update("b");
    world.pass();
    world.pass();
    assert!(world.of_revision(1).len() >= 3, "at most maxUnavailable of them go");
}

#[test]
fn the_first_revision_has_nothing_to_go_back_to() {
    let mut world = World::new(json!({"replicas": 1, "template": template("a"), "progressDeadlineSeconds": 60}));
    world.pass();
    world.all(Health::Crashing);
    world.now += 60;
    world.pass();
    assert!(matches!(world.state(), RolloutState::Stalled { .. }));
    assert_eq!(world.said("ProgressDeadlineExceeded").len(), 1);
    world.run(|_| true);
    assert!(matches!(world.state(), RolloutState::Complete { .. }), "it is tried on");
}

#[test]
fn a_pod_that_comes_and_goes_is_no_progress() {
    let mut world = World::settled(json!({"replicas": 4, "template": template("a"), "progressDeadlineSeconds": 60, "minReadySeconds": 20}));
    world.update("b");
    for _ in 0..8 {
        world.now += 5;
        world.of_revision_do(2, Health::Ready { since: world.now });
        world.pass();
        world.now += 5;
        world.of_revision_do(2, Health::Crashing);
        world.pass();
    }
    assert_eq!(world.said("RolledBack").len(), 1, "{:?}", world.deployment.status);
}

#[test]
fn a_fixed_host_port_makes_it_stop_first_and_says_so() {
    let with_port =
        |image: &str| json!({"spec": {"containers": [{"name": "c", "image": image, "ports": [{"containerPort": 80, "hostPort": 8080}]}]}});
    let mut world = World::settled(json!({"replicas": 1, "template": with_port("a")}));
    world.deployment.spec.template = serde_json::from_value(with_port("b")).expect("a template");
    let planned = world.pass();
    assert_eq!((planned.pass.create.len(), planned.pass.leave.len()), (0, 1));
    assert_eq!(world.said("StopFirst").len(), 1);
    assert!(world.said("StopFirst")[0].contains("8080"));
    assert!(!moves_its_pods(&world.deployment));
    let planned = world.pass();
    assert_eq!((planned.pass.create.len(), planned.pass.retire.len()), (0, 1), "its successor waits for its port");
    assert_eq!(world.pass().pass.create.len(), 1);
}

#[test]
fn recreate_begins_when_the_last_old_pod_is_gone() {
    let mut world = World::settled(json!({"replicas": 2, "template": template("a"), "strategy": {"type": "Recreate"}}));
    world.update("b");
    let planned = world.pass();
    assert_eq!((planned.pass.create.len(), planned.pass.leave.len()), (0, 2));
    assert_eq!(world.pass().pass.create.len(), 0);
    assert_eq!(world.pass().pass.create.len(), 2);
}

#[test]
fn a_held_rollout_keeps_the_number_and_the_revision_that_ran_well() {
    let mut world = World::settled(json!({"replicas": 4, "template": template("a")}));
    world.deployment.spec.paused = true;
    world.update("b");
    world.pass();
    assert!(matches!(world.state(), RolloutState::Paused { .. }));
    assert_eq!(world.of_revision(2), []);
    let gone = world.of_revision(1)[0];
    world.pods.retain(|row| row.pod.metadata.uid != gone);
    world.deployment.spec.replicas = Some(6);
    world.pass();
    assert_eq!((world.of_revision(1).len(), world.of_revision(2).len()), (6, 0));
    world.deployment.spec.paused = false;
    world.run(|_| true);
    assert_eq!((world.of_revision(1).len(), world.of_revision(2).len()), (0, 6));
}

#[test]
fn a_deployment_that_is_made_held_begins_nothing() {
    let mut world = World::new(json!({"replicas": 2, "template": template("a"), "paused": true}));
    assert!(world.pass().pass.create.is_empty());
    world.deployment.spec.paused = false;
    assert_eq!(world.pass().pass.create.len(), 2);
}

#[test]
fn an_undo_keeps_the_number_of_the_revision() {
    let mut world = World::settled(json!({"replicas": 2, "template": template("a")}));
    world.update("b");
    world.run(|_| true);
    assert!(world.deployment.undo_to(1));
    world.run(|_| true);
    assert_eq!((world.of_revision(1).len(), world.of_revision(2).len()), (2, 0));
    assert_eq!(world.deployment.history.iter().map(|revision| revision.number).collect::<Vec<_>>(), [2, 1]);
    world.update("b");
    world.run(|_| true);
    assert_eq!(world.of_revision(2).len(), 2, "an apply of an old template is its old number");
    world.deployment.restart(at(world.now));
    world.run(|_| true);
    assert_eq!(world.of_revision(3).len(), 2, "a restart is another revision of the same template");
}

#[test]
fn revisions_over_the_limit_are_forgotten_the_oldest_first() {
    let mut world = World::settled(json!({"replicas": 1, "template": template("0"), "revisionHistoryLimit": 2}));
    for image in ["1", "2", "3", "4"] {
        world.update(image);
        world.run(|_| true);
    }
    assert_eq!(world.deployment.history.iter().map(|revision| revision.number).collect::<Vec<_>>(), [3, 4, 5]);
}

#[test]
fn a_failed_pod_is_shown_for_a_while_and_then_replaced() {
    let mut world = World::settled(json!({"replicas": 2, "template": template("a")}));
    let uid = world.of_revision(1)[0];
    world.set(uid, Health::Failed { at: world.now });
    let planned = world.pass();
    assert!(planned.pass.create.is_empty() && planned.pass.retire.is_empty());
    assert_eq!(planned.again_at, Some(at(world.now + 300)));
    let condition = &world.deployment.status.conditions[0];
    assert_eq!((condition.status, condition.message.as_str()), (false, "1 of 2 pods available: 1 pod CrashLimit (crashed 10 times)"));
    world.now += 300;
    let planned = world.pass();
    assert_eq!((planned.pass.create.len(), planned.pass.retire.len()), (1, 1));
}

#[test]
fn scaling_down_takes_what_is_not_ready_then_the_newest() {
    let mut world = World::settled(json!({"replicas": 4, "template": template("a")}));
    let uids = world.of_revision(1);
    world.set(uids[1], Health::Crashing);
    world.deployment.spec.replicas = Some(2);
    let planned = world.planned();
    assert_eq!(planned.pass.retire.iter().map(|(uid, _, _)| *uid).collect::<Vec<_>>(), [uids[1]]);
    assert_eq!(planned.pass.leave.iter().map(|(uid, _)| *uid).collect::<Vec<_>>(), [uids[3]]);
}

#[test]
fn pods_of_a_drained_node_are_replaced_before_they_go() {
    let mut world = World::settled(json!({"replicas": 4, "template": template("a")}));
    world.drained.insert(name("n1"));
    let on_n1 = world.uids(|row| row.pod.placement.node == Some(name("n1")));
    assert_eq!(on_n1.len(), 2);
    let planned = world.pass();
    assert_eq!((planned.pass.create.len(), planned.pass.leave.len()), (1, 1));
    assert!(matches!(world.state(), RolloutState::Complete { .. }), "that is no rollout");
    for _ in 0..10 {
        // What is new goes to the other node.
        for uid in world.uids(|row| !on_n1.contains(&row.pod.metadata.uid)) {
            world.change(uid, |row| row.pod.placement.node = Some(name("n2")));
        }
        world.all(Health::Ready { since: world.now });
        world.pass();
        assert!(world.counts().1 >= 3);
    }
    assert_eq!((world.counts(), world.uids(|row| on_n1.contains(&row.pod.metadata.uid))), ((4, 4), vec![]));
}

/// What happens between two passes.
#[derive(Debug, Clone)]
enum Step {
    Pass,
    Ready(prop::sample::Index),
    Crash(prop::sample::Index),
    Fail(prop::sample::Index),
    /// Its node is lost, or a person deleted it.
    Vanish(prop::sample::Index),
    Wait(i64),
    Update(u8),
    Undo(prop::sample::Index),
    Scale(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => Just(Step::Pass),
        6 => index().prop_map(Step::Ready),
        2 => index().prop_map(Step::Crash),
        1 => index().prop_map(Step::Fail),
        1 => index().prop_map(Step::Vanish),
        2 => (1..120_i64).prop_map(Step::Wait),
        1 => (0..4_u8).prop_map(Step::Update),
        1 => index().prop_map(Step::Undo),
        1 => (0..8_u32).prop_map(Step::Scale),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever becomes ready, crashes, fails or vanishes, and whatever is wanted in between: a pass never leaves more pods than may be there, nor
    /// takes one that makes too few available; and in the end there is what is wanted.
    #[test]
    fn a_rollout_keeps_within_its_bounds_and_comes_to_its_end(
        replicas in 0..7_u32,
        surge in 0..4_u32,
        unavailable in 0..4_u32,
        min_ready in prop_oneof![Just(0_u32), Just(30)],
        steps in prop::collection::vec(step(), 1..80),
    ) {
        prop_assume!(surge + unavailable > 0);
        let bounds = json!({"maxSurge": surge, "maxUnavailable": unavailable});
        let mut world = World::new(json!({"replicas": replicas, "template": template("0"), "minReadySeconds": min_ready,
            "progressDeadlineSeconds": 300, "strategy": {"rollingUpdate": bounds}}));
        for step in steps {
            let live = world.uids(|row| row.pod.metadata.deletion_requested_at.is_none() && !row.is_finished());
            let pick = |index: &prop::sample::Index| (!live.is_empty()).then(|| *index.get(&live));
            let now = world.now;
            match &step {
                Step::Pass => {
                    let desired = world.deployment.spec.replicas() as usize;
                    let (live_before, available_before) = world.counts();
                    world.pass();
                    let (live, available) = world.counts();
                    prop_assert!(live <= live_before.max(desired + surge as usize), "{live} pods after {live_before}");
                    let least = desired.saturating_sub(unavailable as usize);
                    prop_assert!(available >= least.min(available_before), "{available} available after {available_before}");
                }
                Step::Ready(index) => {
                    if let Some(uid) = pick(index) {
                        world.set(uid, Health::Ready { since: now });
                    }
                }
                Step::Crash(index) => {
                    if let Some(uid) = pick(index) {
                        world.set(uid, Health::Crashing);
                    }
                }
                Step::Fail(index) => {
                    if let Some(uid) = pick(index) {
                        world.set(uid, Health::Failed { at: now });
                    }
                }
                Step::Vanish(index) => {
                    if let Some(uid) = pick(index) {
                        world.pods.retain(|row| row.pod.metadata.uid != uid);
                    }
                }
                Step::Wait(seconds) => world.now += seconds,
                Step::Update(image) => world.update(&image.to_string()),
                Step::Undo(index) => {
                    if !world.deployment.history.is_empty() {
                        let number = index.get(&world.deployment.history).number;
                        world.deployment.undo_to(number);
                    }
                }
                Step::Scale(replicas) => world.deployment.spec.replicas = Some(*replicas),
            }
        }
        world.run(|_| true);
        let target = world.deployment.target().expect("there is one").number;
        let desired = world.deployment.spec.replicas() as usize;
        let by_revision = world.pods.iter().fold(BTreeMap::<u64, usize>::new(), |mut all, row| {
            *all.entry(revision(row)).or_default() += 1;
            all
        });
        let expected = if desired == 0 { BTreeMap::new() } else { BTreeMap::from([(target, desired)]) };
        prop_assert_eq!(by_revision, expected);
        prop_assert!(matches!(world.state(), RolloutState::Complete { .. }), "{:?}", world.deployment.status);
    }
}

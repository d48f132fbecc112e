//! What must be so some time after the last fault: everybody is back, and every pod is as wanted or says why not.

use std::collections::BTreeMap;
use std::time::Duration;

use cube_api::meta::{Name, Revision, Uid};
use cube_api::node::Node;
use cube_api::pod::{ContainerState, Phase, Pod, RestartPolicy, WaitReason};
use cube_server::follower::runtime::fake::Resident;
use cube_server::leader::store::{PodRow, State};

use crate::checks::{Violation, short, told, violation};
use crate::owners;
use crate::world::{STRANGERS, World};

/// A container that just began or ended is said to be so within this time: of several crash loops there is always one that just did.
const SAID_WITHIN: Duration = Duration::from_secs(2);

/// What containers do that their leader doesn't know yet, each since when.
#[derive(Default)]
pub struct Unsaid {
    since: BTreeMap<String, Duration>,
}

/// What isn't as it should be yet; empty when the cluster rests.
pub fn unmet(world: &World, unsaid: &mut Unsaid) -> Vec<String> {
    if !world.expected.is_done() {
        return vec!["a user still waits for an answer".to_owned()];
    }
    let Some(leader) = world.machines[0].leader() else { return vec!["the leader is not back".to_owned()] };
    leader.store.read(|state| {
        let nodes = state.nodes.values().filter(|node| !node.condition.is_ready());
        let mut unmet: Vec<_> = nodes.map(|node| format!("node {} is {:?}", node.name, node.condition)).collect();
        unmet.extend(unsaid.overdue(state.pods.values().filter_map(|row| unsettled(world, row)), world.clock.now()));
        let missing = world.engines().filter(|(machine, _)| !state.nodes.keys().any(|name| name.as_str() == machine.name));
        unmet.extend(missing.map(|(machine, _)| format!("node {} never joined", machine.name)));
        unmet.extend(state.pods.values().filter_map(|row| problem(world, row)));
        unmet.extend(state.nodes.values().flat_map(|node| undrained(state, node)));
        unmet.extend(leftovers(world, state));
        unmet.extend(owners::unmet(state));
        unmet.extend(compare_mirror(world, state));
        unmet
    })
}

impl Unsaid {
    /// Those that have been so for too long, of all that are so now.
    fn overdue(&mut self, now_unsaid: impl Iterator<Item = String>, now: Duration) -> Vec<String> {
        let before = std::mem::take(&mut self.since);
        self.since = now_unsaid.map(|what| (before.get(&what).copied().unwrap_or(now), what)).map(|(since, what)| (what, since)).collect();
        self.since.iter().filter(|(_, since)| now - **since > SAID_WITHIN).map(|(what, _)| what.clone()).collect()
    }
}

/// Which container of an unfinished pod does something else than is said.
fn unsettled(world: &World, row: &PodRow) -> Option<String> {
    let pod = &row.pod;
    match pod.status.phase {
        Phase::Pending | Phase::Running => {}
        Phase::Succeeded | Phase::Failed => return None,
    }
    let node = pod.placement.node.as_ref()?;
    let lives = |container: &Name| lives(world, node, pod, container);
    let unsettled = pod.status.containers.iter().find(|container| !is_settled(pod, &container.state, lives(&container.name)))?;
    let (name, is) = (&unsettled.name, if lives(&unsettled.name) { "is" } else { "isn't" });
    let (pod_name, uid) = (&pod.metadata.name, short(pod.metadata.uid));
    Some(format!("pod {pod_name} {uid}: {name} is not as it is said (it {is} live): {}", told(Some(row))))
}

fn lives(world: &World, node: &Name, pod: &Pod, container: &Name) -> bool {
    let engine = world.engines().find(|(machine, _)| machine.name == node.as_str());
    let residents = engine.map(|(_, engine)| engine.residents()).unwrap_or_default();
    let is_it = |resident: &Resident| {
        let identity = &resident.observed.identity;
        resident.live && identity.uid == pod.metadata.uid && identity.container.as_ref() == Some(container)
    };
    residents.iter().any(is_it)
}

/// Why a pod isn't at rest.
fn problem(world: &World, row: &PodRow) -> Option<String> {
    let pod = &row.pod;
    let says = |what: &str| Some(format!("pod {} {}: {what}: {}", pod.metadata.name, short(pod.metadata.uid), told(Some(row))));
    if row.retired.is_some() {
        return says("its end doesn't come");
    }
    let Some(node) = &pod.placement.node else {
        let is_over = matches!(pod.status.phase, Phase::Succeeded | Phase::Failed);
        return if is_over || pod.placement.waiting_for.is_some() { None } else { says("it has no node and doesn't say why") };
    };
    match pod.status.phase {
        Phase::Pending | Phase::Running => {
            if pod.status.containers.len() < pod.spec.containers.len() {
                return says("nothing is known of its containers");
            }
            None
        }
        Phase::Succeeded | Phase::Failed => {
            let alive = pod.spec.containers.iter().find(|container| lives(world, node, pod, &container.name));
            alive.and_then(|container| says(&format!("it has finished, and {} lives", container.name)))
        }
    }
}

/// What a drained node has and doesn't explain.
fn undrained(state: &State, node: &Node) -> Vec<String> {
    let Some(drain) = node.cordon.as_ref().and_then(|cordon| cordon.drain.as_ref()) else { return Vec::new() };
    let bound = state.load(&node.name).into_iter().flat_map(|load| &load.bound).filter_map(|uid| state.pods.get(uid));
    let unexplained = bound.filter(|row| {
        let is_said = drain.left.iter().any(|pod| pod.uid == row.pod.metadata.uid && pod.step.reason().is_some());
        row.uses_its_node() && (drain.finished_at.is_some() || !is_said)
    });
    let mut unmet: Vec<_> = unexplained.map(|row| format!("{} is drained and has pod {}", node.name, told(Some(row)))).collect();
    if drain.left.is_empty() && drain.finished_at.is_none() {
        unmet.push(format!("{} is empty, and its drain has no end", node.name));
    }
    unmet
}

/// Whether what is said of a container of an unfinished pod is true, and an answer to the question why it doesn't run if it doesn't.
fn is_settled(pod: &Pod, state: &ContainerState, lives: bool) -> bool {
    match state {
        ContainerState::Running(_) => lives,
        ContainerState::Waiting(waiting) => match waiting.reason {
            WaitReason::CrashLoopBackOff | WaitReason::ErrImagePull | WaitReason::ImagePullBackOff | WaitReason::CreateContainerError => {
                !lives
            }
            WaitReason::ContainerCreating | WaitReason::PodInitializing | WaitReason::Pulling => false,
        },
        ContainerState::Terminated(end) => match pod.spec.restart_policy {
            RestartPolicy::Always => false,
            RestartPolicy::OnFailure => end.exit_code == 0 && !lives,
            RestartPolicy::Never => !lives,
        },
    }
}

/// Containers of ours that belong to no wanted pod, or run in another network than their sandbox's.
fn leftovers(world: &World, state: &State) -> Vec<String> {
    let mut left = Vec::new();
    for (machine, engine) in world.engines() {
        let (spares, ours): (Vec<_>, Vec<_>) = engine.residents().into_iter().filter(|resident| !resident.foreign).partition(|r| r.spare);
        // No pod comes to a cordoned node: it keeps none ready.
        let is_cordoned = state.nodes.values().any(|node| node.name.as_str() == machine.name && node.cordon.is_some());
        let wanted = if is_cordoned { 0 } else { machine.spares() };
        if spares.len() != wanted {
            left.push(format!("PL2: {} has {} spare sandboxes, {wanted} are to be", machine.name, spares.len()));
        }
        for resident in ours {
            let identity = &resident.observed.identity;
            let what = || format!("{} of pod {} {} on {}", resident.name, identity.pod, short(identity.uid), machine.name);
            let wanted = state.pods.get(&identity.uid).is_some_and(|row| {
                row.retired.is_none() && row.pod.placement.node.as_ref().is_some_and(|node| node.as_str() == machine.name)
            });
            if !wanted {
                left.push(format!("I10: nobody wants {}", what()));
            }
            if resident.astray {
                left.push(format!("I11: {} isn't in its sandbox's network", what()));
            }
        }
    }
    left
}

/// How what the watcher was told differs from what there is.
fn compare_mirror(world: &World, state: &State) -> Option<String> {
    let mirrored = world.mirror.pods();
    let shown = state.pods.values().filter(|row| row.retired.as_ref().is_none_or(|retired| !retired.replaced));
    let shown: BTreeMap<_, _> =
        shown.map(|row| (row.pod.metadata.uid, (row.pod.metadata.name.clone(), row.pod.metadata.revision))).collect();
    let differs = |one: &BTreeMap<Uid, (Name, Revision)>, other: &BTreeMap<Uid, (Name, Revision)>| {
        let of = one.iter().find(|(uid, pod)| other.get(uid) != Some(pod));
        of.map(|(uid, (name, revision))| format!("{name} {} r{revision}", short(*uid)))
    };
    let seen = || format!("I2: the store has {:?}, the watcher has {:?}", differs(&shown, &mirrored), differs(&mirrored, &shown));
    (shown != mirrored).then(seen)
}

/// Strangers are still there. An engine that is restarted ends them, as everything; that nobody else does is checked at every look.
pub fn check_strangers(world: &World) -> Result<(), Violation> {
    for (machine, engine) in world.engines() {
        let left = engine.residents().into_iter().filter(|resident| resident.foreign).count();
        if left != STRANGERS {
            return Err(violation("I9", format!("{}: of {STRANGERS} foreign containers {left} are left", machine.name)));
        }
    }
    Ok(())
}

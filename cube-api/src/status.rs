//! The STATUS column: one word for what a person should know first, derived here and nowhere else.

use crate::node::Node;
use crate::pod::{ContainerState, ContainerStatus, NODE_LOST, Phase, Pod, WaitReason, Waiting};

/// The words for a node: its condition, and whether it is cordoned.
pub fn of_node(node: &Node) -> String {
    let cordoned = if node.cordon.is_some() { ",Cordoned" } else { "" };
    format!("{}{cordoned}", node.condition.as_str())
}

/// The word for a pod.
pub fn of_pod(pod: &Pod) -> String {
    if pod.metadata.deletion_requested_at.is_some() {
        return "Terminating".to_owned();
    }
    match pod.status.phase {
        Phase::Succeeded => "Completed".to_owned(),
        Phase::Failed => failed(pod),
        Phase::Pending | Phase::Running => match (&pod.placement.node, &pod.placement.waiting_for) {
            (None, None) => "Pending".to_owned(),
            (None, Some(_)) => "Unschedulable".to_owned(),
            (Some(_), None) => unfinished(pod),
            // What its node said last may not be so any more.
            (Some(_), Some(_)) => NODE_LOST.to_owned(),
        },
    }
}

fn failed(pod: &Pod) -> String {
    let reason = pod.status.reason.as_deref().unwrap_or("Error");
    let ended_so = |container: &ContainerStatus| match &container.state {
        ContainerState::Terminated(end) => end.is_failure() && end.reason.as_str() == reason,
        ContainerState::Waiting(_) | ContainerState::Running(_) => false,
    };
    // As kubectl has it. Reasons that are the whole pod's, such as `CrashLimit`, stay what they are.
    let by_init = !pod.status.containers.iter().any(ended_so) && pod.status.init_containers.iter().any(ended_so);
    if by_init { format!("Init:{reason}") } else { reason.to_owned() }
}

fn unfinished(pod: &Pod) -> String {
    if pod.status.containers.is_empty() {
        return "Scheduled".to_owned();
    }
    if let Some(word) = initializing(pod) {
        return word;
    }
    let waiting = pod.status.all_containers().find_map(|container| match &container.state {
        ContainerState::Waiting(waiting) => Some(waiting.reason.as_str()),
        ContainerState::Running(_) | ContainerState::Terminated(_) => None,
    });
    let ended = pod.status.all_containers().find_map(|container| match &container.state {
        ContainerState::Terminated(end) if end.is_failure() => Some(end.reason.as_str()),
        ContainerState::Terminated(_) | ContainerState::Running(_) | ContainerState::Waiting(_) => None,
    });
    waiting.or(ended).unwrap_or("Running").to_owned()
}

/// The word for a pod whose init containers are not all done: kubectl's, such as `Init:0/2` or `Init:CrashLoopBackOff`.
fn initializing(pod: &Pod) -> Option<String> {
    if is_initialized(pod) {
        return None;
    }
    let all = pod.status.init_containers.len();
    let of = |(index, container): (usize, &ContainerStatus)| match &container.state {
        ContainerState::Terminated(end) if !end.is_failure() => None,
        ContainerState::Running(_) if container.started && is_sidecar(pod, container) => None,
        ContainerState::Terminated(end) => Some(format!("Init:{}", end.reason.as_str())),
        ContainerState::Waiting(Waiting { reason: WaitReason::PodInitializing | WaitReason::ContainerCreating, .. })
        | ContainerState::Running(_) => Some(format!("Init:{index}/{all}")),
        ContainerState::Waiting(waiting) => Some(format!("Init:{}", waiting.reason.as_str())),
    };
    pod.status.init_containers.iter().enumerate().find_map(of)
}

/// Whether its `containers` have had their turn: from then on its sidecars are no longer what holds it up.
fn is_initialized(pod: &Pod) -> bool {
    pod.status.containers.iter().any(|container| match &container.state {
        ContainerState::Waiting(waiting) => waiting.reason != WaitReason::PodInitializing,
        ContainerState::Running(_) | ContainerState::Terminated(_) => true,
    })
}

fn is_sidecar(pod: &Pod, status: &ContainerStatus) -> bool {
    pod.spec.init_containers.iter().any(|container| container.name == status.name && container.is_sidecar())
}

/// How many containers are ready, and how many there are: `1/2`. Sidecars count, init containers that run to their end don't.
pub fn ready_of(pod: &Pod) -> (usize, usize) {
    let sidecars = pod.status.init_containers.iter().filter(|container| is_sidecar(pod, container));
    let ready = pod.status.containers.iter().chain(sidecars).filter(|container| container.is_ready()).count();
    let all = pod.spec.containers.len() + pod.spec.init_containers.iter().filter(|container| container.is_sidecar()).count();
    (ready, all)
}

/// How often containers were started again: the init containers while they are being run, then those that run on. As kubectl counts.
pub fn restarts_of(pod: &Pod) -> u64 {
    let counted = |init: bool| {
        let sidecars_of = |container: &&ContainerStatus| init || is_sidecar(pod, container);
        let inits = pod.status.init_containers.iter().filter(sidecars_of);
        let apps = pod.status.containers.iter().filter(|_| !init);
        inits.chain(apps).map(|container| u64::from(container.restart_count)).sum()
    };
    counted(!is_initialized(pod))
}

/// A container that runs and isn't ready, if there is one.
pub fn unready(pod: &Pod) -> Option<&ContainerStatus> {
    let sidecars = pod.status.init_containers.iter().filter(|container| is_sidecar(pod, container));
    let mut all = pod.status.containers.iter().chain(sidecars);
    all.find(|container| matches!(container.state, ContainerState::Running(_)) && !container.is_ready())
}

/// Why a container that runs isn't ready: what its probe got, or what is waited for.
pub fn unready_because(container: &ContainerStatus) -> String {
    let waits = if container.started {
        "its node does not say yet that it is"
    } else {
        "its startup probe or its postStart hook has not succeeded yet"
    };
    container.probe_failure.clone().unwrap_or_else(|| waits.to_owned())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::meta::{Metadata, Name, Revision, Uid};
    use crate::pod::{EndReason, Placement, PodSpec, PodStatus, Running, Terminated, WaitReason, Waiting};

    fn pod(phase: Phase, states: Vec<ContainerState>) -> Pod {
        let name = Name::new("app").expect("a name");
        let spec = r#"{"containers": [{"name": "app", "image": "nginx"}, {"name": "side", "image": "nginx"}]}"#;
        let spec: PodSpec = serde_json::from_str(spec).expect("a spec");
        let status = |state| ContainerStatus {
            name: name.clone(),
            image: "nginx".to_owned(),
            image_id: None,
            container_id: None,
            started: matches!(state, ContainerState::Running(_)),
            ready: None,
            probe_failure: None,
            state,
            last_termination: None,
            restart_count: 0,
        };
        Pod {
            metadata: Metadata {
                name: name.clone(),
                uid: Uid(uuid::Uuid::nil()),
                labels: Default::default(),
                generation: 1,
                revision: Revision(1),
                created_at: Timestamp::UNIX_EPOCH,
                deletion_requested_at: None,
                owner: None,
            },
            spec: spec.into(),
            placement: Placement { node: Some(name.clone()), ..Placement::default() },
            status: PodStatus { phase, containers: states.into_iter().map(status).collect(), ..PodStatus::default() },
        }
    }

    fn running() -> ContainerState {
        ContainerState::Running(Running { started_at: Timestamp::UNIX_EPOCH })
    }

    fn waiting(reason: WaitReason) -> ContainerState {
        ContainerState::Waiting(Waiting { reason, message: None, until: None })
    }

    fn ended(exit_code: i64, reason: EndReason) -> ContainerState {
        ContainerState::Terminated(Terminated { exit_code, reason, message: None, started_at: None, finished_at: None })
    }

    #[test]
    fn a_pod_without_a_node_is_pending_or_has_a_reason() {
        let mut pod = pod(Phase::Pending, Vec::new());
        pod.placement.node = None;
        assert_eq!(of_pod(&pod), "Pending");
        pod.placement.waiting_for = Some("0/1 nodes fit".to_owned());
        assert_eq!(of_pod(&pod), "Unschedulable");
    }

    #[test]
    fn a_pod_that_waits_for_its_lost_node_does_not_look_as_if_it_ran() {
        let mut pod = pod(Phase::Running, vec![running(), running()]);
        pod.placement.waiting_for = Some("node n2 is lost".to_owned());
        assert_eq!(of_pod(&pod), "NodeLost");
    }

    #[test]
    fn a_finished_pod_says_how_it_ended_also_without_a_node() {
        let mut pod = pod(Phase::Failed, Vec::new());
        pod.placement.node = None;
        pod.status.reason = Some(NODE_LOST.to_owned());
        assert_eq!(of_pod(&pod), "NodeLost");
    }

    #[test]
    fn deletion_is_what_a_person_should_know_first() {
        let mut pod = pod(Phase::Failed, vec![ended(1, EndReason::Error)]);
        pod.metadata.deletion_requested_at = Some(Timestamp::UNIX_EPOCH);
        assert_eq!(of_pod(&pod), "Terminating");
    }

    #[test]
    fn the_worst_container_names_an_unfinished_pod() {
        let word = |phase, states| of_pod(&pod(phase, states));
        assert_eq!(word(Phase::Pending, vec![]), "Scheduled");
        assert_eq!(word(Phase::Pending, vec![running(), waiting(WaitReason::Pulling)]), "Pulling");
        assert_eq!(word(Phase::Running, vec![running(), running()]), "Running");
        assert_eq!(word(Phase::Running, vec![ended(1, EndReason::Error), waiting(WaitReason::CrashLoopBackOff)]), "CrashLoopBackOff");
        assert_eq!(word(Phase::Running, vec![running(), ended(137, EndReason::OomKilled)]), "OOMKilled");
        assert_eq!(word(Phase::Running, vec![running(), ended(0, EndReason::Completed)]), "Running");
    }

    /// A pod with two init containers, of which the second is a sidecar.
    fn prepared(phase: Phase, init: [ContainerState; 2], apps: Vec<ContainerState>) -> Pod {
        let mut pod = pod(phase, apps);
        let init_containers = r#"[{"name": "setup", "image": "a"}, {"name": "proxy", "image": "a", "restartPolicy": "Always"}]"#;
        let mut spec = PodSpec::clone(&pod.spec);
        spec.init_containers = serde_json::from_str(init_containers).expect("containers");
        pod.spec = spec.into();
        let [setup, proxy] = init;
        let named = |name: &str, state: ContainerState| ContainerStatus {
            name: Name::new(name).expect("a name"),
            started: matches!(state, ContainerState::Running(_)),
            state,
            ..pod.status.containers[0].clone()
        };
        pod.status.init_containers = [named("setup", setup), named("proxy", proxy)].into();
        pod
    }

    #[test]
    fn a_pod_that_is_being_prepared_says_so_in_kubectls_words() {
        let idle = || waiting(WaitReason::PodInitializing);
        let word = |init, app: ContainerState| of_pod(&prepared(Phase::Pending, init, vec![app.clone(), app]));
        assert_eq!(word([waiting(WaitReason::ContainerCreating), idle()], idle()), "Init:0/2");
        assert_eq!(word([running(), idle()], idle()), "Init:0/2");
        assert_eq!(word([waiting(WaitReason::CrashLoopBackOff), idle()], idle()), "Init:CrashLoopBackOff");
        assert_eq!(word([waiting(WaitReason::ErrImagePull), idle()], idle()), "Init:ErrImagePull");
        assert_eq!(word([ended(1, EndReason::Error), idle()], idle()), "Init:Error");
        assert_eq!(word([ended(0, EndReason::Completed), idle()], idle()), "Init:1/2");
        assert_eq!(word([ended(0, EndReason::Completed), running()], idle()), "PodInitializing");
        assert_eq!(word([ended(0, EndReason::Completed), running()], waiting(WaitReason::Pulling)), "Pulling");
    }

    #[test]
    fn what_init_containers_did_is_told_of_a_finished_pod_and_not_of_one_that_runs() {
        let apps = || vec![running(), running()];
        let with = |phase, setup, proxy| of_pod(&prepared(phase, [setup, proxy], apps()));
        assert_eq!(with(Phase::Running, ended(0, EndReason::Completed), running()), "Running");
        assert_eq!(with(Phase::Running, ended(0, EndReason::Completed), waiting(WaitReason::CrashLoopBackOff)), "CrashLoopBackOff");
        let idle = || waiting(WaitReason::PodInitializing);
        let mut failed = prepared(Phase::Failed, [ended(1, EndReason::Error), idle()], vec![idle(), idle()]);
        failed.status.reason = Some("Error".to_owned());
        assert_eq!(of_pod(&failed), "Init:Error");
        failed.status.reason = Some("CrashLimit".to_owned());
        assert_eq!(of_pod(&failed), "CrashLimit");
    }

    #[test]
    fn sidecars_count_as_containers_and_init_containers_only_while_they_are_being_run() {
        let mut pod = prepared(Phase::Running, [ended(0, EndReason::Completed), running()], vec![running(), running()]);
        assert_eq!((ready_of(&pod), pod.is_ready()), ((3, 3), true));
        for (container, restarts) in pod.status.init_containers.iter_mut().zip([5, 2]) {
            container.restart_count = restarts;
        }
        assert_eq!(restarts_of(&pod), 2);
        pod.status.containers = vec![];
        assert_eq!(restarts_of(&pod), 7);
        pod.status.init_containers[1].ready = Some(false);
        assert_eq!((ready_of(&pod), pod.is_ready()), ((0, 3), false));
    }

    #[test]
    fn a_finished_pod_says_how() {
        let mut pod = pod(Phase::Succeeded, vec![ended(0, EndReason::Completed)]);
        assert_eq!(of_pod(&pod), "Completed");
        pod.status.phase = Phase::Failed;
        assert_eq!(of_pod(&pod), "Error");
        pod.status.reason = Some("CrashLimit".to_owned());
        assert_eq!(of_pod(&pod), "CrashLimit");
    }

    #[test]
    fn ready_containers_are_counted_against_the_spec() {
        assert_eq!(ready_of(&pod(Phase::Pending, Vec::new())), (0, 2));
        assert_eq!(ready_of(&pod(Phase::Running, vec![running(), ended(0, EndReason::Completed)])), (1, 2));
        let mut pod = pod(Phase::Running, vec![running(), running()]);
        pod.status.containers[1].ready = Some(false);
        assert_eq!(ready_of(&pod), (1, 2));
    }

    #[test]
    fn a_pod_is_ready_while_all_its_containers_are_and_it_is_here() {
        let whole = pod(Phase::Running, vec![running(), running()]);
        assert!(whole.is_ready());
        let not = |change: fn(&mut Pod)| {
            let mut pod = whole.clone();
            change(&mut pod);
            !pod.is_ready()
        };
        assert!(not(|pod| pod.status.containers[1].ready = Some(false)));
        assert!(not(|pod| pod.status.containers[1].state = ended(0, EndReason::Completed)));
        assert!(not(|pod| pod.status.containers.clear()));
        assert!(not(|pod| pod.status.phase = Phase::Pending));
        assert!(not(|pod| pod.metadata.deletion_requested_at = Some(Timestamp::UNIX_EPOCH)));
        assert!(not(|pod| pod.placement.waiting_for = Some("its node is lost".to_owned())));
    }
}

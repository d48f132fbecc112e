//! The STATUS column: one word for what a person should know first, derived here and nowhere else.

use crate::node::Node;
use crate::pod::{ContainerState, ContainerStatus, NODE_LOST, Phase, Pod};

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
    let reason = pod.status.reason.clone();
    reason.unwrap_or_else(|| "Error".to_owned())
}

fn unfinished(pod: &Pod) -> String {
    if pod.status.containers.is_empty() {
        return "Scheduled".to_owned();
    }
    let waiting = pod.status.containers.iter().find_map(|container| match &container.state {
        ContainerState::Waiting(waiting) => Some(waiting.reason.as_str()),
        ContainerState::Running(_) | ContainerState::Terminated(_) => None,
    });
    let ended = pod.status.containers.iter().find_map(|container| match &container.state {
        ContainerState::Terminated(end) if end.is_failure() => Some(end.reason.as_str()),
        ContainerState::Terminated(_) | ContainerState::Running(_) | ContainerState::Waiting(_) => None,
    });
    waiting.or(ended).unwrap_or("Running").to_owned()
}

/// How many containers are ready, and how many there are: `1/2`.
pub fn ready_of(pod: &Pod) -> (usize, usize) {
    let ready = pod.status.containers.iter().filter(|container| container.is_ready()).count();
    (ready, pod.spec.containers.len())
}

/// A container that runs and isn't ready, if there is one.
pub fn unready(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.containers.iter().find(|container| matches!(container.state, ContainerState::Running(_)) && !container.is_ready())
}

/// Why a container that runs isn't ready: what its probe got, or what is waited for.
pub fn unready_because(container: &ContainerStatus) -> String {
    let waits = if container.started { "its node does not say yet that it is" } else { "its startup probe has not succeeded yet" };
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

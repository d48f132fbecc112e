//! Why pods aren't ready, in words: counted by what a person sees of them, with the first one's own account.

use std::collections::BTreeMap;

use cube_api::pod::{ContainerState, Phase, Pod, WaitReason};
use cube_api::status;

use super::sets::Member;

/// So much of what a pod says of itself goes into a sentence about many.
const MOST_OF_AN_ACCOUNT: usize = 160;

/// `1 pod`, `3 pods`.
pub(super) fn pods(count: usize) -> String {
    if count == 1 { "1 pod".to_owned() } else { format!("{count} pods") }
}

/// Of members that aren't available.
pub(super) fn why_not_available(members: &[Member<'_>]) -> String {
    why_not(members.iter().filter(|member| !member.is_available).map(|member| &member.row.pod))
}

/// `2 pods CrashLoopBackOff (exit 1: no such file), 1 pod Unschedulable (0/3 nodes fit: ...)`; of pods that aren't available.
pub(super) fn why_not<'a>(unavailable: impl Iterator<Item = &'a Pod>) -> String {
    let mut groups = BTreeMap::<String, (usize, Option<String>)>::new();
    for pod in unavailable {
        let word = match status::of_pod(pod) {
            running if running == "Running" && pod.is_ready() => "ready, but not for long enough".to_owned(),
            running if running == "Running" => "not ready".to_owned(),
            word if word == WaitReason::ContainerCreating.as_str() && has_crashed(pod) => "crashing".to_owned(),
            word => word,
        };
        let (count, account) = groups.entry(word).or_default();
        *count += 1;
        if account.is_none() {
            *account = account_of(pod);
        }
    }
    let told = groups.into_iter().map(|(word, (count, account))| match account {
        Some(account) => format!("{} {word} ({account})", pods(count)),
        None => format!("{} {word}", pods(count)),
    });
    told.collect::<Vec<_>>().join(", ")
}

/// Whether it is about to be started again after a bad end.
fn has_crashed(pod: &Pod) -> bool {
    pod.status.containers.iter().any(|container| container.last_termination.as_ref().is_some_and(|end| end.exit_code != 0))
}

/// What the pod says of itself, if it says something.
pub(super) fn account_of(pod: &Pod) -> Option<String> {
    let account = match pod.status.phase {
        Phase::Failed | Phase::Succeeded => pod.status.message.clone(),
        Phase::Pending | Phase::Running => pod.placement.waiting_for.clone().or_else(|| of_containers(pod)),
    };
    account.map(|account| shortened(&account)).filter(|account| !account.is_empty())
}

fn of_containers(pod: &Pod) -> Option<String> {
    pod.status.containers.iter().find_map(|container| {
        let ended = container.last_termination.as_ref();
        match &container.state {
            ContainerState::Waiting(waiting) => match (waiting.reason, ended) {
                (WaitReason::CrashLoopBackOff | WaitReason::ContainerCreating, Some(end)) => {
                    Some(exit(end.exit_code, end.message.as_deref()))
                }
                (_, _) => waiting.message.clone(),
            },
            ContainerState::Terminated(end) if end.exit_code != 0 => Some(exit(end.exit_code, end.message.as_deref())),
            ContainerState::Terminated(_) | ContainerState::Running(_) => None,
        }
    })
}

/// With the last line that it wrote: the one that says most often what was wrong.
fn exit(code: i64, message: Option<&str>) -> String {
    let last = message.and_then(|message| message.lines().rev().map(str::trim).find(|line| !line.is_empty()));
    match last {
        Some(last) => format!("exit {code}: {last}"),
        None => format!("exit {code}"),
    }
}

/// On one line, and no longer than a sentence bears.
fn shortened(account: &str) -> String {
    let line: String = account.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = line.trim();
    match line.char_indices().nth(MOST_OF_AN_ACCOUNT) {
        Some((end, _)) => format!("{}...", line[..end].trim_end()),
        None => line.to_owned(),
    }
}

//! Pods as rows.

use cube_api::meta::{ResourceKind, ResourceRef};
use cube_api::pod::ContainerState;
use cube_api::pod::{Phase, Pod, WaitReason};
use cube_api::status;
use jiff::Timestamp;

use super::age;
use super::style::Tone;
use super::table::{Cell, Table};

/// The table's columns.
pub fn header(wide: bool) -> Vec<&'static str> {
    let mut header = vec!["NAME", "READY", "STATUS", "RESTARTS", "AGE"];
    if wide {
        header.extend(["IP", "NODE", "IMAGES"]);
    }
    header
}

/// A table of pods.
pub fn table<'a>(pods: impl IntoIterator<Item = &'a Pod>, wide: bool, now: Timestamp) -> Table {
    let mut table = Table::new(header(wide));
    for pod in pods {
        table.row(row(pod, wide, now));
    }
    table
}

fn row(pod: &Pod, wide: bool, now: Timestamp) -> Vec<Cell> {
    let (ready, all) = status::ready_of(pod);
    let mut row = vec![
        pod.metadata.name.as_str().into(),
        format!("{ready}/{all}").into(),
        Cell::toned(status::of_pod(pod), tone(pod)),
        restarts(pod).into(),
        age::since(pod.metadata.created_at, now).into(),
    ];
    if wide {
        let images: Vec<&str> = pod.spec.containers.iter().map(|container| container.image.as_str()).collect();
        row.push(pod.status.pod_ip.map(|ip| ip.to_string()).unwrap_or_default().into());
        row.push(pod.placement.node.as_ref().map(|node| node.as_str()).unwrap_or_default().into());
        row.push(images.join(",").into());
    }
    row
}

/// The restarts of all containers together.
pub fn restarts(pod: &Pod) -> String {
    pod.status.containers.iter().map(|container| u64::from(container.restart_count)).sum::<u64>().to_string()
}

/// `pod/web`.
pub fn reference(pod: &Pod) -> ResourceRef {
    ResourceRef { kind: ResourceKind::Pod, name: pod.metadata.name.clone() }
}

/// Whether a person should look.
pub fn tone(pod: &Pod) -> Tone {
    let in_trouble = pod.status.containers.iter().any(|container| match &container.state {
        ContainerState::Waiting(waiting) => match waiting.reason {
            WaitReason::ErrImagePull | WaitReason::ImagePullBackOff | WaitReason::CreateContainerError | WaitReason::CrashLoopBackOff => {
                true
            }
            WaitReason::ContainerCreating | WaitReason::Pulling => false,
        },
        ContainerState::Running(_) => false,
        ContainerState::Terminated(end) => end.is_failure(),
    });
    let waits = pod.placement.waiting_for.is_some();
    match pod.status.phase {
        _ if pod.metadata.deletion_requested_at.is_some() => Tone::Busy,
        Phase::Failed => Tone::Bad,
        Phase::Pending | Phase::Running if in_trouble || waits => Tone::Bad,
        Phase::Pending => Tone::Busy,
        Phase::Running | Phase::Succeeded => Tone::Good,
    }
}

//! Volumes on Docker: its local driver's, found by name and labels, so that it works wherever the socket leads.
//!
//! Docker makes a volume with a root that only root may write to, and puts no files into it. Both takes a container that has it: one of the pause image
//! that is made, given an archive and removed again, and never runs. On a busy machine the docker command line took 230 ms for all of a pod's volumes
//! (create 67, copy 97, remove 69) together. A folder of ours that is mounted instead would only work where Docker sees our file system.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, HostConfig, Mount as DockerMount, MountType, MountVolumeOptions, Volume as DockerVolume, VolumeCreateRequest,
};
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListVolumesOptionsBuilder, RemoveVolumeOptions, UploadToContainerOptionsBuilder,
};
use cube_api::meta::Uid;

use super::tar::{Entry, tar};
use super::{ContainerId, Docker, absent_is_none, labelled, pause, scope_labels, translate};
use crate::follower::runtime::{FileSpec, KeptVolume, Mount, MountFrom, PodVolumes, Runtime, RuntimeError, Scope, VolumeKind, Volumes};

/// The life of a named volume; on no other volume.
const KEPT_UID: &str = "io.cube.volume.uid";
const KEPT_NAME: &str = "io.cube.volume.name";

/// The container that gives volumes their contents.
const FILLER: &str = "filler";
/// Whose volumes it gives them to. Not [`translate::POD_UID`]: it is none of the pod's containers.
const FILLER_OF: &str = "io.cube.filler.pod";

/// Where the filler has the volumes, each in a folder of its number.
const FILLED: &str = "v";

/// The permissions of a folder to share: Kubernetes' emptyDir has them, and a process that isn't root needs them.
const SHARED: u32 = 0o777;
/// Of a folder whose files are only read.
const READ: u32 = 0o755;

/// Makes a pod's volumes, or finds them.
pub async fn prepare(docker: &Docker, wanted: &PodVolumes) -> Result<(), RuntimeError> {
    // One that broke off has the volumes that it was to fill: they could not be made anew.
    docker.remove(&filler_of(wanted.uid)).await?;
    let mut to_fill = Vec::new();
    for (name, kind) in &wanted.volumes {
        let (anew, fills) = match kind {
            VolumeKind::Disk => (wanted.first, true),
            VolumeKind::Memory { .. } => (false, false),
            // No container has it before it is filled, so one that a container has is.
            VolumeKind::Files(_) => (true, true),
            VolumeKind::Kept(_) => (false, true),
        };
        if anew {
            remove_unused(docker, wanted, name).await?;
        }
        if make(docker, wanted, name, kind).await? && fills {
            to_fill.push((name.as_str(), kind));
        }
    }
    if to_fill.is_empty() { Ok(()) } else { fill(docker, wanted, &to_fill).await }
}

/// What volumes there are of a scope, and of which pods there are fillers.
pub async fn list(docker: &Docker, scope: &Scope) -> Result<Volumes, RuntimeError> {
    let mut volumes = Volumes::default();
    for DockerVolume { labels, .. } in listed(docker, scope_labels(scope)).await? {
        match (kept_of(&labels), translate::pod_of(&labels)) {
            (Some(kept), _) => volumes.kept.push(kept),
            (None, Some((uid, pod))) => drop(volumes.pods.insert(uid, pod)),
            (None, None) => {}
        }
    }
    let filters = labelled([scope_labels(scope), vec![translate::role_label(FILLER)]].concat());
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    for filler in docker.call("list its fillers", |api| api.list_containers(Some(options))).await? {
        let labels = filler.labels.unwrap_or_default();
        let whose =
            labels.get(FILLER_OF).and_then(|uid| uid.parse().ok()).zip(labels.get(translate::POD_NAME).and_then(|pod| pod.parse().ok()));
        volumes.pods.extend(whose);
    }
    volumes.kept.sort();
    Ok(volumes)
}

/// Removes a pod's own volumes.
pub async fn remove(docker: &Docker, scope: &Scope, uid: Uid) -> Result<(), RuntimeError> {
    docker.remove(&filler_of(uid)).await?;
    let labels = [scope_labels(scope), vec![format!("{}={uid}", translate::POD_UID)]].concat();
    for volume in listed(docker, labels).await? {
        remove_named(docker, &volume.name).await?;
    }
    Ok(())
}

/// Removes a named volume.
pub async fn remove_kept(docker: &Docker, scope: &Scope, volume: Uid) -> Result<(), RuntimeError> {
    let labels = [scope_labels(scope), vec![format!("{KEPT_UID}={volume}")]].concat();
    for volume in listed(docker, labels).await? {
        remove_named(docker, &volume.name).await?;
    }
    Ok(())
}

/// What a container is created with for its mounts: those that Docker reads as words, and the others.
pub fn mounts(mounts: &[Mount]) -> (Vec<String>, Vec<DockerMount>) {
    let (mut binds, mut others) = (Vec::new(), Vec::new());
    for Mount { from, path, read_only } in mounts {
        match from {
            MountFrom::Volume(name) => others.push(volume_mount(name, path, *read_only)),
            // Only in this form is a folder made that isn't there, and only in the other is it an error.
            MountFrom::Host { path: source, make: true } => binds.push(format!("{source}:{path}{}", if *read_only { ":ro" } else { "" })),
            MountFrom::Host { path: source, make: false } => others.push(DockerMount {
                typ: Some(MountType::BIND),
                source: Some(source.clone()),
                target: Some(path.clone()),
                read_only: Some(*read_only),
                ..DockerMount::default()
            }),
        }
    }
    (binds, others)
}

/// A volume at a place. Without a copy of what the image has there: Kubernetes' volumes begin empty.
pub fn volume_mount(name: &str, path: &str, read_only: bool) -> DockerMount {
    DockerMount {
        typ: Some(MountType::VOLUME),
        source: Some(name.to_owned()),
        target: Some(path.to_owned()),
        read_only: Some(read_only),
        volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() }),
        ..DockerMount::default()
    }
}

async fn listed(docker: &Docker, labels: Vec<String>) -> Result<Vec<DockerVolume>, RuntimeError> {
    let options = ListVolumesOptionsBuilder::default().filters(&labelled(labels)).build();
    let answer = docker.call("list its volumes", |api| api.list_volumes(Some(options))).await?;
    Ok(answer.volumes.unwrap_or_default())
}

fn kept_of(labels: &HashMap<String, String>) -> Option<KeptVolume> {
    Some(KeptVolume { name: labels.get(KEPT_NAME)?.parse().ok()?, uid: labels.get(KEPT_UID)?.parse().ok()? })
}

/// Makes a volume unless it is there; whether it wasn't.
async fn make(docker: &Docker, wanted: &PodVolumes, name: &str, kind: &VolumeKind) -> Result<bool, RuntimeError> {
    const OPERATION: &str = "make a volume";
    if let Some(there) = absent_is_none(docker.call(OPERATION, |api| api.inspect_volume(name)).await)? {
        if translate::is_in(&wanted.scope, &there.labels) {
            return Ok(false);
        }
        let problem = format!("a volume named '{name}' exists that is not this node's: remove it");
        return Err(RuntimeError::Refused { operation: OPERATION, problem });
    }
    let request = VolumeCreateRequest {
        name: Some(name.to_owned()),
        driver_opts: Some(options(kind)),
        labels: Some(labels(wanted, kind)),
        ..VolumeCreateRequest::default()
    };
    docker.call(OPERATION, |api| api.create_volume(request)).await?;
    Ok(true)
}

/// What the local driver is told: for memory what it mounts, sticky as `/tmp` is, so that processes of several users share it.
fn options(kind: &VolumeKind) -> HashMap<String, String> {
    let words = match kind {
        VolumeKind::Disk | VolumeKind::Files(_) | VolumeKind::Kept(_) => return HashMap::new(),
        VolumeKind::Memory { size: Some(size) } => format!("mode=1777,size={}", size.0),
        VolumeKind::Memory { size: None } => "mode=1777".to_owned(),
    };
    [("type", "tmpfs"), ("device", "tmpfs"), ("o", &words)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn labels(wanted: &PodVolumes, kind: &VolumeKind) -> HashMap<String, String> {
    let own = match kind {
        VolumeKind::Disk | VolumeKind::Memory { .. } | VolumeKind::Files(_) => {
            [(translate::POD_UID, wanted.uid.to_string()), (translate::POD_NAME, wanted.pod.to_string())]
        }
        VolumeKind::Kept(KeptVolume { name, uid }) => [(KEPT_UID, uid.to_string()), (KEPT_NAME, name.to_string())],
    };
    let mut labels = translate::scope_map(&wanted.scope);
    labels.extend(own.map(|(key, value)| (key.to_owned(), value)));
    labels
}

/// Removes a volume of the pod's own that no container has. One that a container has is as it should be.
async fn remove_unused(docker: &Docker, wanted: &PodVolumes, name: &str) -> Result<(), RuntimeError> {
    let there = absent_is_none(docker.call("look for a volume", |api| api.inspect_volume(name)).await)?;
    if there.is_none_or(|there| !translate::is_in(&wanted.scope, &there.labels)) {
        return Ok(());
    }
    match remove_named(docker, name).await {
        Ok(()) | Err(RuntimeError::Refused { .. }) => Ok(()),
        Err(
            other @ (RuntimeError::Unavailable { .. } | RuntimeError::Gone | RuntimeError::Image { .. } | RuntimeError::PortTaken { .. }),
        ) => Err(other),
    }
}

async fn remove_named(docker: &Docker, name: &str) -> Result<(), RuntimeError> {
    match docker.call("remove a volume", |api| api.remove_volume(name, None::<RemoveVolumeOptions>)).await {
        Err(RuntimeError::Gone) => Ok(()),
        other => other,
    }
}

/// By its name, as Docker takes one for an id.
fn filler_of(uid: Uid) -> ContainerId {
    ContainerId(format!("cube__fill_{uid}"))
}

/// Gives volumes that were just made what they begin with.
async fn fill(docker: &Docker, wanted: &PodVolumes, volumes: &[(&str, &VolumeKind)]) -> Result<(), RuntimeError> {
    let filler = filler_of(wanted.uid);
    docker.create_paused(&filler.0, filler_body(wanted, volumes)).await?;
    let archive = archive(volumes);
    let options = UploadToContainerOptionsBuilder::default().path("/").build();
    let uploaded = docker
        .call("write into a volume", |api| api.upload_to_container(&filler.0, Some(options), bollard::body_full(archive.into())))
        .await;
    // Also after a failure: what it holds could not be removed.
    docker.remove(&filler).await?;
    if uploaded.is_err() {
        for (name, _) in volumes {
            // A named one that was just made is as empty as before; of the others the next try says the same.
            remove_unused(docker, wanted, name).await?;
        }
    }
    uploaded
}

fn filler_body(wanted: &PodVolumes, volumes: &[(&str, &VolumeKind)]) -> ContainerCreateBody {
    let mut labels = translate::scope_map(&wanted.scope);
    let role = translate::role_label(FILLER);
    labels.extend(role.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())));
    labels.insert(FILLER_OF.to_owned(), wanted.uid.to_string());
    labels.insert(translate::POD_NAME.to_owned(), wanted.pod.to_string());
    let mounts = volumes.iter().enumerate().map(|(place, (name, _))| volume_mount(name, &format!("/{FILLED}/{place}"), false));
    ContainerCreateBody {
        image: Some(pause::IMAGE.to_owned()),
        labels: Some(labels),
        network_disabled: Some(true),
        host_config: Some(HostConfig { mounts: Some(mounts.collect()), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    }
}

/// The volumes' roots with their permissions, and their files below.
fn archive(volumes: &[(&str, &VolumeKind)]) -> Vec<u8> {
    let mut folders: BTreeMap<String, u32> = BTreeMap::new();
    let mut files: Vec<(String, &FileSpec)> = Vec::new();
    for (place, (_, kind)) in volumes.iter().enumerate() {
        let root = format!("{FILLED}/{place}/");
        match kind {
            VolumeKind::Disk | VolumeKind::Memory { .. } | VolumeKind::Kept(_) => drop(folders.insert(root, SHARED)),
            VolumeKind::Files(specs) => {
                for file in specs {
                    let above = file.path.match_indices('/').map(|(end, _)| format!("{root}{}/", &file.path[..end]));
                    folders.extend(above.map(|folder| (folder, READ)));
                    files.push((format!("{root}{}", file.path), file));
                }
                folders.insert(root, READ);
            }
        }
    }
    // A folder's name is a prefix of those in it, so it comes before them.
    let folders = folders.iter().map(|(path, mode)| Entry { path, mode: *mode, content: &[] });
    let files = files.iter().map(|(path, file)| Entry { path, mode: file.mode.into(), content: &file.content.0 });
    tar(folders.chain(files))
}

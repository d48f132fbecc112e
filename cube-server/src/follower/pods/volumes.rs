//! From a pod's volumes and the values that it was assigned with to what its runtime is asked for. Pure.

use std::collections::BTreeMap;

use cube_api::meta::{Name, Revision};
use cube_api::pod::{Container, Files, HostPathType, Medium, Volume, VolumeSource};
use cube_api::session::AssignedPod;

use crate::follower::runtime::{FileSpec, KeptVolume, Mount, MountFrom, PodVolumes, RuntimeError, Scope, VolumeKind, pod_volume_name};

/// All that has to be there before a container.
pub(super) fn wanted(scope: &Scope, pod: &AssignedPod, first: bool) -> Result<PodVolumes, RuntimeError> {
    let mut volumes = BTreeMap::new();
    for volume in &pod.spec.volumes {
        let kind = match source(volume)? {
            VolumeSource::HostPath(_) => continue,
            VolumeSource::EmptyDir(empty) => match empty.medium {
                Medium::Disk => VolumeKind::Disk,
                Medium::Memory => VolumeKind::Memory { size: empty.size_limit },
            },
            VolumeSource::Claim(claim) => VolumeKind::Kept(kept(pod, &claim.claim_name)?),
            VolumeSource::Files(files) => VolumeKind::Files(file_specs(pod, &files)?),
        };
        volumes.insert(engine_name(pod, volume)?, kind);
    }
    Ok(PodVolumes { scope: scope.clone(), uid: pod.uid, pod: pod.name.clone(), first, volumes })
}

/// What the sandbox has to hold, as its runtime names it.
pub(super) fn held(pod: &AssignedPod) -> Vec<String> {
    pod.spec
        .volumes
        .iter()
        .filter(|volume| volume.is_memory())
        .map(|volume| pod_volume_name(&pod.name, pod.uid, &volume.name, None))
        .collect()
}

/// Where a container has what.
pub(super) fn mounts(pod: &AssignedPod, container: &Container) -> Result<Vec<Mount>, RuntimeError> {
    let mounts = container.volume_mounts.iter().map(|mount| {
        let volume = pod.spec.volumes.iter().find(|volume| volume.name == mount.name);
        let volume = volume.ok_or_else(|| refused(format!("the pod has no volume '{}'", mount.name)))?;
        let (from, never_written) = match source(volume)? {
            VolumeSource::HostPath(host) => {
                let make = match host.kind {
                    HostPathType::DirectoryOrCreate => true,
                    HostPathType::Anything | HostPathType::Directory | HostPathType::File | HostPathType::Socket => false,
                };
                (MountFrom::Host { path: host.path.clone(), make }, false)
            }
            VolumeSource::EmptyDir(_) | VolumeSource::Claim(_) => (MountFrom::Volume(engine_name(pod, volume)?), false),
            VolumeSource::Files(_) => (MountFrom::Volume(engine_name(pod, volume)?), true),
        };
        Ok(Mount { from, path: mount.mount_path.clone(), read_only: mount.read_only || never_written })
    });
    mounts.collect()
}

fn engine_name(pod: &AssignedPod, volume: &Volume) -> Result<String, RuntimeError> {
    let of_pod = |revision| pod_volume_name(&pod.name, pod.uid, &volume.name, revision);
    match source(volume)? {
        VolumeSource::EmptyDir(_) | VolumeSource::HostPath(_) => Ok(of_pod(None)),
        VolumeSource::Claim(claim) => Ok(kept(pod, &claim.claim_name)?.volume_name()),
        VolumeSource::Files(files) => {
            let values = pod.sources.as_ref().and_then(|sources| sources.values(&files.of));
            Ok(of_pod(Some(values.map_or(Revision(0), |values| values.revision))))
        }
    }
}

fn kept(pod: &AssignedPod, claim: &Name) -> Result<KeptVolume, RuntimeError> {
    let uid = pod.sources.as_ref().and_then(|sources| sources.volumes.get(claim));
    let uid = uid.ok_or_else(|| refused(format!("the leader has no volume/{claim}")))?;
    Ok(KeptVolume { name: claim.clone(), uid: *uid })
}

fn file_specs(pod: &AssignedPod, files: &Files<'_>) -> Result<Vec<FileSpec>, RuntimeError> {
    let Files { of, items, mode, optional } = files;
    let Some(values) = pod.sources.as_ref().and_then(|sources| sources.values(of)) else {
        return if *optional { Ok(Vec::new()) } else { Err(refused(format!("{of} is not there"))) };
    };
    if items.is_empty() {
        let all = values.data.iter().map(|(key, content)| FileSpec { path: key.clone(), mode: mode.0, content: content.clone() });
        return Ok(all.collect());
    }
    let mut specs = Vec::with_capacity(items.len());
    for item in *items {
        match values.data.get(&item.key) {
            Some(content) => {
                let mode = item.mode.unwrap_or(*mode).0;
                specs.push(FileSpec { path: item.path.clone(), mode, content: content.clone() });
            }
            None if *optional => {}
            None => return Err(refused(format!("{of} has no key '{}'", item.key))),
        }
    }
    Ok(specs)
}

fn source(volume: &Volume) -> Result<VolumeSource<'_>, RuntimeError> {
    let version = env!("CARGO_PKG_VERSION");
    volume
        .source()
        .ok_or_else(|| refused(format!("the source of volume '{}' is none that version {version} of this node knows", volume.name)))
}

fn refused(problem: String) -> RuntimeError {
    RuntimeError::Refused { operation: "make the pod's volumes", problem }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cube_api::pod::RestartPolicy;
    use cube_api::sources::{Hidden, Sources, Values};

    use super::*;
    use crate::follower::testing::{CLUSTER, name, pod};

    fn with_secret(revision: u64, items: &str, optional: bool) -> AssignedPod {
        let mut pod = pod(1, RestartPolicy::Always);
        let volume = format!(
            r#"{{"name": "pass", "secret": {{"secretName": "db", "defaultMode": "0400", "items": {items}, "optional": {optional}}}}}"#
        );
        pod.spec.volumes = vec![serde_json::from_str(&volume).unwrap()];
        pod.spec.containers[0].volume_mounts = vec![serde_json::from_str(r#"{"name": "pass", "mountPath": "/run/pass"}"#).unwrap()];
        let data = BTreeMap::from([("password".to_owned(), Hidden("hunter2".into())), ("user".to_owned(), Hidden("cube".into()))]);
        let secrets = BTreeMap::from([(name("db"), Arc::new(Values { revision: Revision(revision), data }))]);
        pod.sources = (revision > 0).then(|| Arc::new(Sources { secrets, ..Sources::default() }));
        pod
    }

    fn wanted_of(pod: &AssignedPod) -> Result<PodVolumes, String> {
        let scope = Scope { cluster: CLUSTER, node: name("n1") };
        wanted(&scope, pod, true).map_err(|error| error.to_string())
    }

    #[test]
    fn other_values_are_another_volume_and_its_mount_is_read_only() {
        let (first, second) = (with_secret(7, "[]", false), with_secret(8, "[]", false));
        let name = |pod: &AssignedPod| mounts(pod, &pod.spec.containers[0]).unwrap().remove(0);
        assert!(name(&first).read_only && name(&first).from != name(&second).from);
        let made: Vec<_> = wanted_of(&first).unwrap().volumes.into_iter().collect();
        assert_eq!(name(&first).from, MountFrom::Volume(made[0].0.clone()));
        let VolumeKind::Files(files) = &made[0].1 else { panic!("{made:?}") };
        assert_eq!(files.iter().map(|file| (file.path.as_str(), file.mode)).collect::<Vec<_>>(), [("password", 0o400), ("user", 0o400)]);
    }

    #[test]
    fn what_is_missing_is_named_and_an_optional_one_is_left_out() {
        assert_eq!(wanted_of(&with_secret(0, "[]", false)).unwrap_err(), "secret/db is not there");
        let one = r#"[{"key": "token", "path": "t"}]"#;
        assert_eq!(wanted_of(&with_secret(7, one, false)).unwrap_err(), "secret/db has no key 'token'");
        for (revision, items) in [(0, "[]"), (7, one)] {
            let made = wanted_of(&with_secret(revision, items, true)).unwrap().volumes;
            assert_eq!(made.into_values().collect::<Vec<_>>(), [VolumeKind::Files(Vec::new())]);
        }
    }
}

//! Volumes: the cases that both engines keep, then what only Docker can show, which is what processes see of them.

use std::collections::BTreeMap;
use std::process::Command;

use cube_api::meta::{Revision, Uid};
use cube_api::quantity::Bytes;
use cube_api::sources::Hidden;
use cube_server::follower::runtime::{
    ContainerId, ContainerSpec, FileSpec, KeptVolume, Mount, MountFrom, PodVolumes, RuntimeError, SandboxSpec, Scope, VolumeKind, Volumes,
    pod_volume_name,
};
use uuid::Uuid;

use crate::rig::{Does, Rig, name};

fn of_pod(rig: &Rig, volume: &str) -> String {
    pod_volume_name(&name("web"), rig.uid, &name(volume), None)
}

fn wanted(rig: &Rig, first: bool, volumes: impl IntoIterator<Item = (String, VolumeKind)>) -> PodVolumes {
    PodVolumes { scope: rig.scope.clone(), uid: rig.uid, pod: name("web"), first, volumes: volumes.into_iter().collect() }
}

fn kept() -> KeptVolume {
    KeptVolume { name: name("db"), uid: Uid(Uuid::new_v4()) }
}

fn mount(volume: &str, path: &str, read_only: bool) -> Mount {
    Mount { from: MountFrom::Volume(volume.to_owned()), path: path.to_owned(), read_only }
}

fn file(path: &str, mode: u16, content: &'static str) -> FileSpec {
    FileSpec { path: path.to_owned(), mode, content: Hidden(content.into()) }
}

fn only_of_pod(rig: &Rig) -> Volumes {
    Volumes { pods: BTreeMap::from([(rig.uid, name("web"))]), kept: Vec::new() }
}

pub async fn a_repeated_preparation_finds_what_it_made(rig: Rig) {
    let kept = kept();
    let volumes = [
        (of_pod(&rig, "scratch"), VolumeKind::Disk),
        (of_pod(&rig, "fast"), VolumeKind::Memory { size: Some(Bytes(1 << 20)) }),
        (of_pod(&rig, "pass"), VolumeKind::Files(vec![file("in/key", 0o400, "x")])),
        (kept.volume_name(), VolumeKind::Kept(kept.clone())),
    ];
    for first in [true, true, false] {
        rig.runtime.prepare_volumes(&wanted(&rig, first, volumes.clone())).await.unwrap();
        let there = rig.runtime.volumes(&rig.scope).await.unwrap();
        assert_eq!(there, Volumes { kept: vec![kept.clone()], ..only_of_pod(&rig) });
    }
    assert_eq!(rig.runtime.list(&rig.scope).await.unwrap(), [], "it takes no container of the pod's");
}

pub async fn a_pods_volumes_go_with_it_and_named_ones_stay(rig: Rig) {
    let kept = kept();
    let volumes = [(of_pod(&rig, "scratch"), VolumeKind::Disk), (kept.volume_name(), VolumeKind::Kept(kept.clone()))];
    rig.runtime.prepare_volumes(&wanted(&rig, true, volumes)).await.unwrap();
    rig.runtime.remove_volumes(&rig.scope, Uid(Uuid::new_v4())).await.unwrap();
    assert_eq!(rig.runtime.volumes(&rig.scope).await.unwrap().pods.len(), 1, "another pod's are not its own");
    for _ in 0..2 {
        rig.runtime.remove_volumes(&rig.scope, rig.uid).await.unwrap();
        assert_eq!(rig.runtime.volumes(&rig.scope).await.unwrap(), Volumes { pods: BTreeMap::new(), kept: vec![kept.clone()] });
    }
    for _ in 0..2 {
        rig.runtime.remove_kept(&rig.scope, kept.uid).await.unwrap();
        assert!(rig.runtime.volumes(&rig.scope).await.unwrap().is_empty());
    }
}

pub async fn a_volume_that_a_container_has_stays_and_is_not_made_anew(rig: Rig) {
    let (scratch, pass) = (of_pod(&rig, "scratch"), of_pod(&rig, "pass"));
    let volumes = [(scratch.clone(), VolumeKind::Disk), (pass.clone(), VolumeKind::Files(vec![file("key", 0o444, "x")]))];
    rig.runtime.prepare_volumes(&wanted(&rig, true, volumes.clone())).await.unwrap();
    let sandbox = rig.sandbox().await;
    let mounts = vec![mount(&scratch, "/scratch", false), mount(&pass, "/pass", true)];
    let app = rig.started_from(&ContainerSpec { mounts, ..rig.spec(&sandbox, "app", Does::Runs) }).await;
    let refused = rig.runtime.remove_volumes(&rig.scope, rig.uid).await;
    assert!(matches!(refused, Err(RuntimeError::Refused { .. })), "{refused:?}");
    rig.runtime.prepare_volumes(&wanted(&rig, true, volumes)).await.unwrap();
    if let Some(fake) = &rig.fake {
        assert!(fake.stored().values().all(|volume| volume.made == 1), "{:?}", fake.stored());
    }
    for id in [app, sandbox] {
        rig.runtime.remove(&id).await.unwrap();
    }
    rig.runtime.remove_volumes(&rig.scope, rig.uid).await.unwrap();
    assert!(rig.runtime.volumes(&rig.scope).await.unwrap().is_empty());
}

pub async fn a_foreign_volume_with_our_name_is_left_alone_and_named(rig: Rig) {
    let scratch = of_pod(&rig, "scratch");
    match &rig.fake {
        Some(fake) => fake.add_foreign_volume(&scratch),
        None => docker(&["volume", "create", &scratch]),
    }
    let refused = rig.runtime.prepare_volumes(&wanted(&rig, true, [(scratch.clone(), VolumeKind::Disk)])).await;
    assert!(matches!(&refused, Err(RuntimeError::Refused { problem, .. }) if problem.contains(&scratch)), "{refused:?}");
    rig.runtime.remove_volumes(&rig.scope, rig.uid).await.unwrap();
    match &rig.fake {
        Some(fake) => assert!(fake.stored().contains_key(&scratch)),
        // It is there to be removed.
        None => docker(&["volume", "rm", &scratch]),
    }
}

pub async fn a_nodes_volumes_are_its_own(rig: Rig) {
    rig.runtime.prepare_volumes(&wanted(&rig, true, [(of_pod(&rig, "scratch"), VolumeKind::Disk)])).await.unwrap();
    let other = Scope { node: name("node-2"), ..rig.scope.clone() };
    assert!(rig.runtime.volumes(&other).await.unwrap().is_empty());
    rig.runtime.remove_volumes(&other, rig.uid).await.unwrap();
    assert_eq!(rig.runtime.volumes(&rig.scope).await.unwrap(), only_of_pod(&rig));
}

fn docker(words: &[&str]) {
    let done = Command::new("docker").args(words).output().expect("docker's command line is there");
    assert!(done.status.success(), "docker {words:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A container of the pod that runs a script with these mounts; its exit code.
async fn script(rig: &Rig, sandbox: &ContainerId, container: &str, mounts: Vec<Mount>, script: &str) -> i64 {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let id = rig.started_from(&ContainerSpec { command, mounts, ..rig.spec(sandbox, container, Does::Runs) }).await;
    rig.ended(&id).await.0
}

#[tokio::test]
async fn what_one_container_writes_another_reads_also_in_memory_and_memory_is_limited() {
    let rig = Rig::docker();
    let (scratch, fast) = (of_pod(&rig, "scratch"), of_pod(&rig, "fast"));
    let volumes = [(scratch.clone(), VolumeKind::Disk), (fast.clone(), VolumeKind::Memory { size: Some(Bytes(1 << 20)) })];
    rig.runtime.prepare_volumes(&wanted(&rig, true, volumes)).await.unwrap();
    let sandbox = rig.runtime.create_sandbox(&SandboxSpec { holds: vec![fast.clone()], ..rig.sandbox_spec(Vec::new()) }).await.unwrap();
    rig.runtime.start(&sandbox).await.unwrap();
    let mounts = || vec![mount(&scratch, "/scratch", false), mount(&fast, "/fast", false)];
    // Both are anybody's to write: the script gives root up where busybox can't.
    let writes = "test $(stat -c %a /scratch) = 777 && test $(stat -c %a /fast) = 1777 && echo disk > /scratch/x && echo memory > /fast/x";
    assert_eq!(script(&rig, &sandbox, "one", mounts(), writes).await, 0);
    // Nothing that has it runs now but the sandbox.
    assert_eq!(script(&rig, &sandbox, "two", mounts(), "grep -q disk /scratch/x && grep -q memory /fast/x").await, 0);
    assert_ne!(script(&rig, &sandbox, "three", mounts(), "dd if=/dev/zero of=/fast/big bs=1M count=2").await, 0, "more than its limit");
    let readers = vec![mount(&scratch, "/scratch", true)];
    assert_ne!(script(&rig, &sandbox, "four", readers, "touch /scratch/y").await, 0, "it is read-only");
}

#[tokio::test]
async fn files_have_their_contents_and_modes_and_are_not_written_to() {
    let rig = Rig::docker();
    let pass = pod_volume_name(&name("web"), rig.uid, &name("pass"), Some(Revision(7)));
    let long = "k".repeat(200);
    let files = vec![file("in/key", 0o400, "hunter2"), file(&long, 0o644, "long")];
    rig.runtime.prepare_volumes(&wanted(&rig, true, [(pass.clone(), VolumeKind::Files(files))])).await.unwrap();
    let sandbox = rig.sandbox().await;
    let reads = format!("test $(stat -c %a /p/in/key) = 400 && grep -qx hunter2 /p/in/key && grep -qx long /p/{long} && ! touch /p/other");
    assert_eq!(script(&rig, &sandbox, "app", vec![mount(&pass, "/p", true)], &reads).await, 0);
}

#[tokio::test]
async fn what_the_image_has_is_not_copied_into_a_volume() {
    let rig = Rig::docker();
    let scratch = of_pod(&rig, "scratch");
    rig.runtime.prepare_volumes(&wanted(&rig, true, [(scratch.clone(), VolumeKind::Disk)])).await.unwrap();
    let sandbox = rig.sandbox().await;
    let mounts = vec![mount(&scratch, "/tmp", false), mount(&scratch, "/scratch", false)];
    assert_eq!(script(&rig, &sandbox, "app", mounts, "test -z \"$(ls -A /scratch)\"").await, 0);
}

#[tokio::test]
async fn a_file_of_the_machine_is_mounted_and_a_missing_one_is_refused_by_name() {
    let rig = Rig::docker();
    let sandbox = rig.sandbox().await;
    let host =
        |path: &str, make| vec![Mount { from: MountFrom::Host { path: path.to_owned(), make }, path: "/host".to_owned(), read_only: true }];
    assert_eq!(script(&rig, &sandbox, "one", host("/etc/hostname", false), "test -s /host").await, 0);
    let missing = "/etc/cube-not-there";
    let spec = ContainerSpec { mounts: host(missing, false), ..rig.spec(&sandbox, "two", Does::Runs) };
    let refused = rig.runtime.create_container(&spec).await;
    assert!(matches!(&refused, Err(RuntimeError::Refused { problem, .. }) if problem.contains(missing)), "{refused:?}");
}

#[tokio::test]
async fn a_preparation_that_broke_off_is_done_anew() {
    let rig = Rig::docker();
    let (scratch, filler) = (of_pod(&rig, "scratch"), format!("cube__fill_{}", rig.uid));
    rig.runtime.prepare_volumes(&wanted(&rig, true, [(scratch.clone(), VolumeKind::Disk)])).await.unwrap();
    // As its killed maker leaves it: made, held by what was to fill it, and not filled.
    rig.runtime.remove_volumes(&rig.scope, rig.uid).await.unwrap();
    let labels = [
        format!("io.cube.cluster={}", rig.scope.cluster),
        format!("io.cube.node={}", rig.scope.node),
        format!("io.cube.filler.pod={}", rig.uid),
        "io.cube.pod.name=web".to_owned(),
    ];
    let volume_labels =
        [&labels[0], &labels[1], &format!("io.cube.pod.uid={}", rig.uid), &labels[3]].map(|label| format!("--label={label}"));
    docker(&[&["volume", "create"], &volume_labels.each_ref().map(String::as_str)[..], &[&scratch]].concat());
    let filler_labels = labels.map(|label| format!("--label={label}"));
    let at = format!("{scratch}:/v/0:nocopy");
    let create =
        [&["create", "--label=io.cube.role=filler", "--name", &filler, "-v", &at][..], &filler_labels.each_ref().map(String::as_str)];
    docker(&[&create.concat()[..], &["cube-test/busybox:1"]].concat());
    assert_eq!(rig.runtime.volumes(&rig.scope).await.unwrap(), only_of_pod(&rig));

    rig.runtime.prepare_volumes(&wanted(&rig, true, [(scratch.clone(), VolumeKind::Disk)])).await.unwrap();
    let sandbox = rig.sandbox().await;
    assert_eq!(script(&rig, &sandbox, "app", vec![mount(&scratch, "/s", false)], "test $(stat -c %a /s) = 777").await, 0);
}

//! Images that are listed and removed, and as whom containers run.

use cube_api::pod::{Capability, Security};
use cube_server::follower::runtime::{ContainerSpec, ExecOutput, ExecRequest, HeldImage, RuntimeError, SandboxSpec};

use crate::rig::{Does, Rig};

pub async fn what_would_run_as_root_is_refused_where_that_is_forbidden(rig: Rig) {
    let sandbox = rig.sandbox().await;
    let forbids = Security { non_root: true, ..Security::default() };
    let spec = ContainerSpec { security: forbids.clone(), ..rig.spec(&sandbox, "app", Does::Runs) };
    match rig.runtime.create_container(&spec).await {
        Err(RuntimeError::Refused { problem, .. }) => assert!(problem.starts_with("its image runs as root"), "{problem}"),
        other => panic!("{other:?}"),
    }
    let spec = ContainerSpec { security: Security { user: Some(1000), ..forbids }, ..spec };
    rig.started_from(&spec).await;
}

pub async fn an_image_goes_unless_a_container_uses_it_and_twice_is_fine(rig: Rig) {
    let name = rig.own_image();
    let find = async || {
        let images = rig.runtime.images().await.unwrap();
        images.into_iter().find(|image: &HeldImage| image.names.contains(&name))
    };
    let sandbox = rig.sandbox().await;
    let spec = ContainerSpec { image: name.clone(), ..rig.spec(&sandbox, "app", Does::Runs) };
    let container = rig.runtime.create_container(&spec).await.unwrap();
    let used = find().await.expect("it is listed");
    assert!(used.in_use, "a container that was never started uses its image too");
    assert!(matches!(rig.runtime.remove_image(&used).await, Err(RuntimeError::Refused { .. })));
    rig.runtime.remove(&container).await.unwrap();
    let free = find().await.expect("it is still there");
    assert_eq!(free, HeldImage { in_use: false, ..used });
    rig.runtime.remove_image(&free).await.unwrap();
    assert_eq!(find().await, None);
    rig.runtime.remove_image(&free).await.unwrap();
    assert_eq!(rig.runtime.image(&name).await.unwrap(), None);
}

/// What a command in a container that may do this says, on Docker.
async fn says(security: Security, script: &str) -> String {
    let rig = Rig::docker();
    let sandbox = rig.sandbox().await;
    let id = rig.started_from(&ContainerSpec { security, ..rig.spec(&sandbox, "app", Does::Runs) }).await;
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let mut handle = rig.runtime.exec(&id, &ExecRequest { command, tty: false, stdin: false }).await.unwrap();
    let mut text = String::new();
    while let Some(output) = handle.output.recv().await {
        match output {
            ExecOutput::Stdout(bytes) | ExecOutput::Stderr(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
            ExecOutput::Exited(_) => {}
            ExecOutput::Failed(problem) => panic!("{problem}"),
        }
    }
    text
}

#[tokio::test]
async fn a_container_has_its_user_its_groups_and_a_file_system_that_can_t_be_written() {
    let security = Security { user: Some(1234), group: Some(5678), groups: vec![4321], read_only_root: true, ..Security::default() };
    let said = says(security, "exec 2>&1; id -u; id -g; id -G; touch /tmp/x").await;
    assert!(said.starts_with("1234\n5678\n5678 4321\n") && said.contains("Read-only file system"), "{said}");
}

#[tokio::test]
async fn a_group_without_a_user_is_the_image_s_user_s() {
    let security = Security { group: Some(5678), ..Security::default() };
    assert_eq!(says(security, "id -u; id -g").await, "0\n5678\n");
}

#[tokio::test]
async fn a_dropped_capability_is_gone_an_added_one_is_there_and_no_program_gains_more() {
    let status = "grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status";
    let mut security = Security { no_new_privileges: true, ..Security::default() };
    security.capabilities.drop.insert(Capability::All);
    security.capabilities.add.insert(Capability::Chown);
    let said = says(security, status).await;
    let words: Vec<_> = said.split_whitespace().collect();
    assert_eq!(words, ["CapEff:", "0000000000000001", "CapBnd:", "0000000000000001", "NoNewPrivs:", "1"]);
    let mut security = Security::default();
    security.capabilities.drop.insert(Capability::Chown);
    let said = says(security, "chown 1:1 /tmp; grep NoNewPrivs /proc/self/status").await;
    assert!(said.contains("Operation not permitted") && said.contains("NoNewPrivs:\t0"), "{said}");
}

/// An engine that has not all of root's power itself can't start such a container: so it is looked at, and no more.
#[tokio::test]
async fn a_privileged_container_is_one_to_the_engine_and_no_other_is() {
    let rig = Rig::docker();
    let sandbox = rig.sandbox().await;
    for (name, privileged) in [("mighty", true), ("plain", false)] {
        let security = Security { privileged, ..Security::default() };
        let spec = ContainerSpec { security, ..rig.spec(&sandbox, name, Does::Runs) };
        let id = rig.runtime.create_container(&spec).await.unwrap();
        let looked =
            std::process::Command::new("docker").args(["inspect", "-f", "{{.HostConfig.Privileged}}", &id.0]).output().expect("docker");
        assert_eq!(String::from_utf8_lossy(&looked.stdout).trim(), privileged.to_string());
    }
}

#[tokio::test]
async fn a_sandbox_in_the_host_s_network_gives_its_containers_that_one() {
    let rig = Rig::docker();
    let spec = SandboxSpec { host_network: true, hostname: None, ..rig.sandbox_spec(Vec::new()) };
    let sandbox = rig.runtime.create_sandbox(&spec).await.unwrap();
    rig.runtime.start(&sandbox).await.unwrap();
    let id = rig.started_from(&rig.spec(&sandbox, "app", Does::Runs)).await;
    let command = ["readlink", "/proc/self/ns/net"].map(str::to_owned).to_vec();
    let mut handle = rig.runtime.exec(&id, &ExecRequest { command, tty: false, stdin: false }).await.unwrap();
    let hosts = std::fs::read_link("/proc/1/ns/net").or_else(|_| std::fs::read_link("/proc/self/ns/net")).expect("Linux");
    match handle.output.recv().await {
        Some(ExecOutput::Stdout(said)) => assert_eq!(String::from_utf8_lossy(&said).trim(), hosts.to_str().expect("utf-8")),
        other => panic!("{other:?}"),
    }
}

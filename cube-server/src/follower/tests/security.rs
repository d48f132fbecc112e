//! What a node allows, and as whom containers run.

use cube_api::pod::{Capability, Permission, Phase, PodSecurity, RestartPolicy, Security};

use crate::follower::agent::AgentConfig;
use crate::follower::runtime::fake::Script;
use crate::follower::testing::{Bench, pod};

#[tokio::test(start_paused = true)]
async fn a_node_starts_nothing_that_it_does_not_allow_and_says_why() {
    let mut bench = Bench::new().await;
    let mut privileged = pod(1, RestartPolicy::Always);
    privileged.spec.containers[0].security_context.privileged = true;
    let mut adds = pod(2, RestartPolicy::Always);
    adds.spec.containers[0].security_context.capabilities.add.insert(Capability::NetAdmin);
    let mut hosts = pod(3, RestartPolicy::Always);
    hosts.spec.host_network = true;
    let pods = [privileged, adds, hosts];
    bench.assign(&pods).await;
    let words = [
        "privileged containers (--allow privileged)",
        "added capabilities (--allow cap-add)",
        "pods in the host's network (--allow host-network)",
    ];
    for (pod, words) in pods.iter().zip(words) {
        let told = || {
            bench.message(pod.uid, "CreateContainerError").is_some_and(|told| told.contains(&format!("this node doesn't allow {words}")))
        };
        bench.wait_for(words, told).await;
    }
    assert_eq!(bench.fake.everything(), []);
    // Whoever runs the node may change their mind.
    bench.restart_with(|config| AgentConfig { allow: Permission::ALL.into(), ..config }).await;
    for pod in &pods {
        bench.phase(pod.uid, Phase::Running).await;
    }
    let (facts, _) = bench.leader.node.lock().unwrap().clone().unwrap();
    assert_eq!(facts.allows, Permission::ALL.into());
    let of = |number: usize| {
        let uid = pods[number].uid;
        bench.fake.residents().into_iter().filter(move |resident| resident.observed.identity.uid == uid)
    };
    assert!(of(0).any(|resident| resident.security.privileged));
    assert!(of(1).any(|resident| resident.security.capabilities.add.contains(&Capability::NetAdmin)));
    assert!(of(2).any(|resident| resident.host_network));
}

#[tokio::test(start_paused = true)]
async fn a_container_runs_as_whom_its_pod_says_and_not_as_root_where_that_is_forbidden() {
    let bench = Bench::new().await;
    bench.fake.script("named", Script { user: "app".to_owned(), ..Script::default() });
    let forbids = |number| {
        let mut pod = pod(number, RestartPolicy::Always);
        pod.spec.security_context = PodSecurity { run_as_non_root: Some(true), ..PodSecurity::default() };
        pod
    };
    let (root, mut named, mut user) = (forbids(1), forbids(2), forbids(3));
    named.spec.containers[0].image = "named".to_owned();
    user.spec.containers[0].security_context.run_as_user = Some(1000);
    bench.assign(&[root.clone(), named.clone(), user.clone()]).await;
    bench.phase(user.uid, Phase::Running).await;
    let security = Security { user: Some(1000), non_root: true, ..Security::default() };
    assert!(bench.fake.residents().into_iter().any(|resident| resident.security == security));
    for (pod, words) in [(root, "its image runs as root"), (named, "whether its image's user 'app' is root")] {
        let told = || bench.message(pod.uid, "CreateContainerError").is_some_and(|told| told.contains(words));
        bench.wait_for(words, told).await;
        assert_eq!(bench.apps(pod.uid), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_in_the_host_s_network_takes_no_ready_sandbox_and_publishes_nothing() {
    let mut bench = Bench::with_spares(1).await;
    bench.restart_with(|config| AgentConfig { allow: Permission::ALL.into(), ..config }).await;
    let mut hosts = pod(3, RestartPolicy::Always);
    hosts.spec.host_network = true;
    hosts.spec.containers[0].ports = serde_json::from_value(serde_json::json!([{ "containerPort": 80, "hostPort": 80 }])).unwrap();
    bench.assign(std::slice::from_ref(&hosts)).await;
    bench.phase(hosts.uid, Phase::Running).await;
    let sandbox = bench.sandbox(hosts.uid).unwrap();
    let resident = bench.fake.residents().into_iter().find(|resident| resident.observed.id == sandbox.id).unwrap();
    assert!(resident.host_network && resident.published.is_empty());
    assert_eq!(bench.spares().len(), 1, "it is still nobody's");
}

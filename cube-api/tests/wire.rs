//! The wire as text: a change here breaks a leader, a node or a client of another version, and every stored row.

use std::collections::BTreeMap;
use std::sync::Arc;

use cube_api::manifest::{self, Resource};
use cube_api::pod::{
    Amounts, Capabilities, Capability, Container, ContainerSecurity, ContainerState, ContainerStatus, EndReason, Env, Hook, HttpGetProbe,
    HttpHeader, ImagePullPolicy, Lifecycle, OnNodeLoss, Phase, Placement, PodSecurity, Port, Probe, ProbePort, Protocol, PublishedPort,
    PullSecret, Resources, RestartPolicy, RestartRules, Running, Scheme, SleepAction, Strategy, Terminated, TerminationMessagePolicy,
    WaitReason, Waiting,
};
use cube_api::quantity::{Bytes, MilliCpu};
use cube_api::session::{Announcement, Assignment, AssignmentAccepted, PodReport, Report, ReportAccepted, Welcome};
use cube_api::{Metadata, Name, Pod, PodSpec, PodStatus, Revision};
use jiff::Timestamp;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(1_780_000_000 + second).expect("in range")
}

fn status_of(container: &str, state: ContainerState) -> ContainerStatus {
    ContainerStatus {
        name: name(container),
        image: "nginx:latest".to_owned(),
        image_id: None,
        container_id: None,
        started: matches!(state, ContainerState::Running(_)),
        ready: Some(false),
        probe_failure: None,
        state,
        last_termination: None,
        restart_count: 0,
    }
}

fn full_pod() -> Pod {
    let uid = "018f3b2a-7b1c-7000-8000-000000000001".parse().expect("a uuid");
    let port = Port {
        name: Some(name("http")),
        container_port: 80,
        host_port: Some(8080),
        protocol: Protocol::Tcp,
        host_ip: Some("127.0.0.1".parse().expect("an address")),
    };
    let probe = Probe {
        http_get: Some(HttpGetProbe {
            path: "/health".to_owned(),
            port: ProbePort::Name(name("http")),
            scheme: Scheme::Http,
            host: None,
            http_headers: vec![HttpHeader { name: "X-Probe".to_owned(), value: "cube".to_owned() }],
        }),
        tcp_socket: None,
        exec: None,
        initial_delay_seconds: 2,
        period_seconds: 10,
        timeout_seconds: 1,
        success_threshold: 1,
        failure_threshold: 3,
        termination_grace_period_seconds: None,
    };
    let hook = Hook { sleep: Some(SleepAction { seconds: 5 }), ..Hook::default() };
    let container = Container {
        name: name("app"),
        image: "nginx:latest".to_owned(),
        command: vec!["sh".to_owned()],
        args: vec!["-c".to_owned(), "true".to_owned()],
        env: Env::plain([("A", "b")]),
        env_from: Vec::new(),
        volume_mounts: Vec::new(),
        working_dir: Some("/tmp".to_owned()),
        ports: vec![port],
        resources: Resources {
            requests: Amounts { cpu: Some(MilliCpu(250)), memory: None, disk: Some(Bytes(1 << 30)) },
            limits: Amounts { cpu: None, memory: Some(Bytes(64 << 20)), disk: None },
        },
        liveness_probe: None,
        readiness_probe: Some(Box::new(probe)),
        startup_probe: None,
        image_pull_policy: ImagePullPolicy::IfNotPresent,
        restart_policy: None,
        lifecycle: Lifecycle { post_start: None, pre_stop: Some(Box::new(hook)) },
        termination_message_path: Some("/tmp/end".to_owned()),
        termination_message_policy: TerminationMessagePolicy::File,
        security_context: ContainerSecurity {
            run_as_user: Some(1000),
            run_as_group: Some(1001),
            run_as_non_root: Some(true),
            read_only_root_filesystem: true,
            allow_privilege_escalation: Some(false),
            capabilities: Capabilities { add: [Capability::NetBindService].into(), drop: [Capability::All].into() },
            privileged: false,
        },
        tty: true,
        stdin: true,
    };
    let sidecar = serde_json::json!({ "name": "proxy", "image": "nginx:latest", "restartPolicy": "Always" });
    let sidecar: Container = serde_json::from_value(sidecar).expect("a container");
    let terminated = Terminated {
        exit_code: 137,
        reason: EndReason::OomKilled,
        message: Some("the last line".to_owned()),
        started_at: Some(second(1)),
        finished_at: Some(second(2)),
    };
    let waiting = Waiting { reason: WaitReason::CrashLoopBackOff, message: None, until: Some(second(9)) };
    Pod {
        metadata: Metadata {
            name: name("web"),
            uid,
            labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]).into(),
            generation: 2,
            revision: Revision(7),
            created_at: second(0),
            deletion_requested_at: Some(second(8)),
            owner: None,
        },
        spec: Arc::new(PodSpec {
            init_containers: vec![sidecar],
            containers: vec![container],
            restart_policy: RestartPolicy::OnFailure,
            restart: RestartRules { limit: 3 },
            termination_grace_period_seconds: 30,
            active_deadline_seconds: Some(3600),
            node_selector: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
            on_node_loss: OnNodeLoss::Wait,
            strategy: Some(Strategy::RoundRobin),
            hostname: Some(name("front")),
            security_context: PodSecurity {
                run_as_user: Some(1),
                run_as_group: Some(2),
                run_as_non_root: Some(false),
                supplemental_groups: vec![3],
            },
            host_network: false,
            image_pull_secrets: vec![PullSecret { name: name("registry") }],
            volumes: Vec::new(),
        }),
        placement: Placement { node: Some(name("node-1")), bound_at: Some(second(1)), waiting_for: None, avoids: vec![name("node-2")] },
        status: PodStatus {
            phase: Phase::Running,
            reason: None,
            message: None,
            pod_ip: Some("172.17.0.2".parse().expect("an address")),
            host_ports: [PublishedPort {
                container: name("app"),
                name: Some(name("http")),
                container_port: 80,
                protocol: Protocol::Tcp,
                host_ip: Some("127.0.0.1".parse().expect("an address")),
                host_port: 8080,
            }]
            .into(),
            started_at: Some(second(3)),
            ready_since: Some(second(6)),
            finished_at: None,
            known_since: Some(second(3)),
            init_containers: [status_of("proxy", ContainerState::Running(Running { started_at: second(2) }))].into(),
            containers: vec![
                ContainerStatus {
                    image_id: Some("sha256:1".to_owned()),
                    container_id: Some("c1".to_owned()),
                    last_termination: Some(terminated.clone()),
                    restart_count: 4,
                    ..status_of("app", ContainerState::Waiting(waiting))
                },
                status_of("side", ContainerState::Running(Running { started_at: second(5) })),
                status_of("done", ContainerState::Terminated(terminated)),
            ],
        },
    }
}

const FULL_POD: &str = include_str!("wire/pod.json");

#[test]
fn a_pod_is_this_json() {
    let pod = full_pod();
    assert_eq!(serde_json::to_string_pretty(&pod).expect("plain data"), FULL_POD.trim_end());
    assert_eq!(serde_json::from_str::<Pod>(FULL_POD).expect("its own JSON"), pod);
}

#[test]
fn a_resource_says_its_type_first_and_leaves_defaults_out() {
    let text = "type: pod\nmetadata: {name: web}\nspec: {containers: [{name: app, image: nginx}]}\n";
    let resources = manifest::parse(text).expect("right");
    let json = serde_json::to_string(&resources).expect("plain data");
    assert_eq!(
        json,
        r#"[{"type":"pod","metadata":{"name":"web"},"spec":{"containers":[{"name":"app","image":"nginx","imagePullPolicy":"IfNotPresent"}],"restartPolicy":"Always","restart":{"limit":10},"terminationGracePeriodSeconds":30,"onNodeLoss":"replace"}}]"#
    );
}

/// What `cube get -o yaml` shows, changed or not, is a manifest.
#[test]
fn a_pod_as_the_api_answers_it_can_be_applied() {
    let mut json = serde_json::to_value(full_pod()).expect("plain data");
    json["type"] = "pod".into();
    let resources = manifest::from_json(json.to_string().as_bytes()).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let Resource::Pod(read) = &resources[0] else { panic!("a pod") };
    assert_eq!(read.spec, *full_pod().spec);
    assert_eq!(read.metadata.revision, Some(Revision(7)));
}

/// Adds a field that nobody knows to every map, but those of one key: what such a key holds is one of several things.
fn with_more(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.values_mut().for_each(with_more);
            if fields.len() != 1 {
                fields.insert("laterVersions".to_owned(), "say more".into());
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(with_more),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) | serde_json::Value::String(_) => {}
    }
}

/// What a later version says of it is read as what this one knows, and what an earlier one leaves out is missed by nobody.
#[track_caller]
fn is_read_across_versions<T>(full: serde_json::Value, later: &[&str])
where
    T: serde::de::DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug,
{
    let own: T = serde_json::from_value(full.clone()).expect("this version's");
    let mut more = full.clone();
    with_more(&mut more);
    let read: T = serde_json::from_value(more).expect("a later version's");
    // Maps of labels and variables take any key: those are not compared.
    let known = |value: &T| serde_json::to_string(value).expect("plain data").replace(r#","laterVersions":"say more""#, "");
    assert_eq!(known(&read), known(&own));
    let mut less = full;
    for field in later {
        assert!(less.as_object_mut().expect("a map").remove(*field).is_some(), "{field}");
    }
    serde_json::from_value::<T>(less).expect("an earlier version's");
}

#[test]
fn the_sessions_messages_are_read_across_versions() {
    let uid = "018f3b2a-7b1c-7000-8000-000000000001";
    let pod = serde_json::to_value(full_pod()).expect("plain data");
    let facts =
        serde_json::json!({"version": "0.1.0", "engine": "29", "trouble": null, "capacity": {"cpu": "4", "memory": "4Gi", "pods": 100}});
    is_read_across_versions::<Announcement>(
        serde_json::json!({"node": "n1", "nodeId": uid, "machineId": "m", "instance": uid, "bootId": "b", "clusterId": uid, "role": "Follower",
            "labels": {"a": "b", "c": "d"}, "facts": facts}),
        &["instance", "bootId"],
    );
    is_read_across_versions::<Welcome>(serde_json::json!({"clusterId": uid, "epoch": 3}), &[]);
    let run = serde_json::json!({"uid": uid, "name": "web", "spec": pod["spec"], "want": {"run": {"restarts": 1}}});
    let stop = serde_json::json!({"uid": uid, "name": "web", "spec": pod["spec"], "want": {"stop": {"grace_seconds": 1, "reason": "x"}}});
    is_read_across_versions::<Assignment>(
        serde_json::json!({"clusterId": uid, "epoch": 3, "node": "n1", "generation": 7, "pods": [run, stop],
            "unchanged": {"since": 6, "pods": [uid]}}),
        &["unchanged"],
    );
    is_read_across_versions::<AssignmentAccepted>(serde_json::json!({"generation": 7, "takesUnchanged": true}), &["takesUnchanged"]);
    let status = serde_json::json!({"uid": uid, "sequence": 1, "restarts": 2, "status": pod["status"], "stopped": false});
    let event = serde_json::json!({"sequence": 1, "uid": uid, "pod": "web", "type": "Normal", "reason": "Started", "message": "started",
        "at": "2026-11-21T00:00:00Z"});
    is_read_across_versions::<PodReport>(status.clone(), &["restarts"]);
    is_read_across_versions::<Report>(
        serde_json::json!({"nodeId": uid, "instance": uid, "clusterId": uid, "facts": facts, "pods": [status], "events": [event]}),
        &["instance"],
    );
    is_read_across_versions::<ReportAccepted>(serde_json::json!({"eventsThrough": 7}), &[]);
}

#[test]
fn a_manifest_with_a_field_that_nobody_knows_is_refused_at_every_depth() {
    let mut manifest = serde_json::json!({"type": "pod", "metadata": {"name": "web", "labels": {"a": "b"}}, "spec": full_pod().spec});
    manifest["spec"]["containers"][0]["ports"][0]["laterVersions"] = "say more".into();
    manifest["spec"]["restart"]["laterVersions"] = "say more".into();
    manifest["spec"]["laterVersions"] = "say more".into();
    let problems = manifest::from_json(manifest.to_string().as_bytes()).expect_err("refused");
    let unknown = format!("{problems:?}").matches("unknown field `laterVersions`").count();
    assert_eq!(unknown, 3, "{problems:#?}");
}

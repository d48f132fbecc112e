//! What a manifest may say, and what is said of one that is wrong.

mod rules;
mod text;

use proptest::prelude::*;

use super::*;
use crate::pod::{self, Env, OnNodeLoss, Protocol, RestartPolicy};
use crate::quantity::{Bytes, MilliCpu};

/// The problems as a person reads them.
fn problems(text: &str) -> Vec<String> {
    parse(text).expect_err("the manifest is wrong").iter().map(ToString::to_string).collect()
}

/// The only pod of a manifest.
fn pod(text: &str) -> PodManifest {
    let mut resources = parse(text).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(resources.len(), 1);
    let Resource::Pod(pod) = resources.remove(0) else { panic!("a pod") };
    pod
}

/// A pod of one container with more lines at the container's level.
fn with_container(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("      {line}\n")).collect();
    format!("type: pod\nmetadata:\n  name: web\nspec:\n  containers:\n    - name: app\n      image: nginx\n{lines}")
}

const SMALLEST: &str = r#"
[ { "type": "pod",
    "metadata": { "name": "my-pod", "labels": { "app": "my-app" } },
    "spec": { "containers": [ { "name": "my-container", "image": "nginx:latest",
                                "env": { "ENV_VAR1": "value1", "ENV_VAR2": "value2" } } ] } } ]
"#;

#[test]
fn the_smallest_manifest_is_read() {
    let pod = pod(SMALLEST);
    assert_eq!(pod.metadata.name.as_str(), "my-pod");
    assert_eq!(pod.metadata.labels["app"], "my-app");
    assert_eq!(pod.spec.containers[0].image, "nginx:latest");
    assert_eq!(pod.spec.containers[0].env.value("ENV_VAR2"), Some("value2"));
    assert_eq!(from_json(SMALLEST.as_bytes()), parse(SMALLEST));
}

#[test]
fn every_field_is_read() {
    let text = "
type: pod
metadata: {name: all, labels: {example.com/app: web, empty: ''}, uid: 018f3b2a-7b1c-7000-8000-000000000001, revision: 7}
spec:
  restartPolicy: OnFailure
  restart: {limit: 3}
  terminationGracePeriodSeconds: 5
  nodeSelector: {disk: ssd}
  onNodeLoss: wait
  strategy: round-robin
  hostname: front
  securityContext: {runAsUser: 1, runAsGroup: 2, runAsNonRoot: true, supplementalGroups: [3]}
  imagePullSecrets: [{name: registry}]
  containers:
    - name: app
      image: localhost:5000/team/app:1.0
      command: [sh, -c]
      args: ['echo $(A)', 8080]
      env: {A: b}
      workingDir: /tmp
      ports: [{name: http, containerPort: 80, hostPort: 8080, protocol: UDP, hostIP: 127.0.0.1}]
      resources: {requests: {cpu: 250m, memory: 32Mi}, limits: {cpu: 0.5, memory: 64Mi}}
      imagePullPolicy: Always
      securityContext:
        {runAsUser: 1000, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {add: [CHOWN], drop: [ALL]}}
      tty: true
      stdin: true
";
    let pod = pod(text);
    let container = &pod.spec.containers[0];
    assert_eq!(pod.metadata.revision, Some(Revision(7)));
    assert_eq!(pod.spec.restart_policy, RestartPolicy::OnFailure);
    assert_eq!(pod.spec.restart.limit, 3);
    assert_eq!(pod.spec.on_node_loss, OnNodeLoss::Wait);
    assert_eq!(pod.spec.strategy, Some(pod::Strategy::RoundRobin));
    assert_eq!(pod.spec.hostname.as_ref().map(Name::as_str), Some("front"));
    assert_eq!(pod.spec.image_pull_secrets[0].name.as_str(), "registry");
    let security = pod::Security::of(&pod.spec, container);
    assert_eq!((security.user, security.group, security.groups), (Some(1000), Some(2), vec![3]));
    assert!(security.non_root && security.read_only_root && security.no_new_privileges);
    assert_eq!(container.args, ["echo $(A)", "8080"]);
    assert_eq!(container.ports[0].protocol, Protocol::Udp);
    assert_eq!(container.resources.limits.cpu, Some(MilliCpu(500)));
    assert_eq!(container.resources.requests.memory, Some(Bytes(32 << 20)));
    assert!(container.tty && container.stdin);
    let json = serde_json::to_vec(&[Resource::Pod(pod.clone())]).expect("plain data");
    assert_eq!(from_json(&json), Ok(vec![Resource::Pod(pod)]));
}

#[test]
fn all_problems_of_all_resources_come_at_once_in_the_order_of_the_text() {
    let text = "
- type: pod
  metadata:
    name: Web_1
    lables: {a: b}
  spec:
    containers:
      - name: app
        iamge: nginx
        ports:
          - containerPort: 70000
          - containerPort: '80'
      - name: app
        image: Nginx:latest
        env: {A=B: c, N: [1]}
        tty: yes
    restartPolicy: always
    nope: 1
- type: pod
  metadata: {name: two}
  spec: {containers: []}
- type: pdo
- just a text
";
    assert_eq!(
        problems(text),
        [
            "4:5: resource 1: metadata.name: 'Web_1' is not a DNS label: lower-case letters, digits and '-', beginning and ending with a \
             letter or digit",
            "5:5: resource 1: metadata.lables: unknown field `lables`; did you mean `labels`?",
            "8:9: resource 1: spec.containers[0]: the field `image` is missing",
            "9:9: resource 1: spec.containers[0].iamge: unknown field `iamge`; did you mean `image`?",
            "11:13: resource 1: spec.containers[0].ports[0].containerPort: found 70000; a whole number from 0 to 65535 is expected",
            "12:13: resource 1: spec.containers[0].ports[1].containerPort: found the text \"80\"; a whole number from 0 to 65535 is expected",
            "13:9: resource 1: spec.containers[1].name: `app` is the name of containers[0] already",
            "14:9: resource 1: spec.containers[1].image: `Nginx:latest` is not an image reference: `Nginx` is not lower-case letters and \
             digits, separated by single '.', one or two '_', or '-'",
            "15:15: resource 1: spec.containers[1].env[\"A=B\"]: a variable's name has no '=' and no NUL character",
            "15:23: resource 1: spec.containers[1].env.N: found a list; a text is expected",
            "16:9: resource 1: spec.containers[1].tty: found yes; true or false is expected",
            "17:5: resource 1: spec.restartPolicy: `always` is not allowed; did you mean `Always`?",
            "18:5: resource 1: spec.nope: unknown field `nope`; the fields are initContainers, containers, restartPolicy, restart, \
             terminationGracePeriodSeconds, activeDeadlineSeconds, nodeSelector, onNodeLoss, strategy, hostname, securityContext, hostNetwork, imagePullSecrets, volumes",
            "21:10: pod/two: spec.containers: the list is empty; a pod has at least one container",
            "22:3: resource 3: type: unknown type `pdo`; did you mean `pod`?",
            "23:3: resource 4: found just a text; a resource is expected: a map with type, metadata and spec",
        ]
    );
}

#[test]
fn what_is_missing_is_named_and_its_absence_brings_no_second_problem() {
    assert_eq!(
        problems("type: pod\n"),
        ["1:1: resource 1: the field `metadata` is missing", "1:1: resource 1: the field `spec` is missing"]
    );
    assert_eq!(
        problems("type: pod\nmetadata: {}\nspec: [1]\n"),
        [
            "2:1: resource 1: metadata: the field `name` is missing",
            "3:1: resource 1: spec: found a list; a map with the fields initContainers, containers, restartPolicy, restart, \
             terminationGracePeriodSeconds, activeDeadlineSeconds, nodeSelector, onNodeLoss, strategy, hostname, securityContext, hostNetwork, imagePullSecrets, volumes is expected",
        ]
    );
    assert_eq!(
        problems("type: pod\nmetadata: {name: web}\nspec: {containers: [{}, 5, {name: a, image: }]}\n"),
        [
            "3:21: pod/web: spec.containers[0]: the field `name` is missing",
            "3:21: pod/web: spec.containers[0]: the field `image` is missing",
            "3:25: pod/web: spec.containers[1]: found 5; a map with the fields name, image, command, args, env, envFrom, volumeMounts, workingDir, ports, \
             resources, livenessProbe, readinessProbe, startupProbe, imagePullPolicy, restartPolicy, lifecycle, terminationMessagePath, \
             terminationMessagePolicy, securityContext, tty, stdin is expected",
            "3:38: pod/web: spec.containers[2].image: found nothing; a text is expected",
        ]
    );
}

#[test]
fn labels_and_env_may_be_lists() {
    let pod = pod("
type: pod
metadata: {name: web, labels: [app=web, 'tier']}
spec:
  containers:
    - name: app
      image: nginx
      env: [{name: A, value: b}, {name: EMPTY}, {value: 1.20, name: V}]
");
    let labels: Vec<_> = pod.metadata.labels.into_iter().collect();
    let pairs = |list: &[(&str, &str)]| list.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect::<Vec<_>>();
    assert_eq!(labels, pairs(&[("app", "web"), ("tier", "")]).into_iter().collect::<Vec<_>>());
    assert_eq!(pod.spec.containers[0].env, Env::plain([("A", "b"), ("EMPTY", ""), ("V", "1.20")]));
}

#[test]
fn what_stands_in_the_place_of_an_environment_is_not_repeated() {
    for env in ["'PASSWORD=hunter2'", "PASSWORD=hunter2", "[PASSWORD=hunter2]", "{PASSWORD: [hunter2]}"] {
        let said = problems(&with_container(&format!("env: {env}"))).join("\n");
        assert!(said.contains("env") && !said.contains("hunter2"), "{env}: {said}");
    }
}

#[test]
fn what_is_wrong_in_a_list_of_labels_or_env_is_found() {
    let text = "type: pod\nmetadata: {name: web, labels: [a=1, [b], a=2]}\n".to_owned()
        + "spec: {containers: [{name: app, image: nginx, env: [{name: A, value: 1}, {name: A}, {nmae: B}, {name: C, valueFrom: {}}, {value: x}]}]}";
    assert_eq!(
        problems(&text),
        [
            "2:37: pod/web: metadata.labels[1]: found a list; a text `key=value` or `key` is expected",
            "2:42: pod/web: metadata.labels[2]: `a` is there already, as [0]",
            "3:75: pod/web: spec.containers[0].env[1].name: `A` is there already, as [0]",
            "3:85: pod/web: spec.containers[0].env[2]: the field `name` is missing",
            "3:86: pod/web: spec.containers[0].env[2].nmae: unknown field `nmae`; did you mean `name`?",
            "3:106: pod/web: spec.containers[0].env[3].valueFrom: it names no source; there are fieldRef, resourceFieldRef, secretKeyRef, configKeyRef",
            "3:122: pod/web: spec.containers[0].env[4]: the field `name` is missing",
        ]
    );
}

#[test]
fn a_manifest_of_kubernetes_says_what_to_write_instead() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: x}\nspec: {containers: [{name: app, image: nginx}]}\n";
    let found = problems(text);
    assert_eq!(found[0], "1:1: resource 1: apiVersion: cube manifests say `type: pod` where Kubernetes' say `apiVersion` and `kind`");
    assert!(found[1].contains("unknown field `namespace`"), "{found:?}");
    assert_eq!(found.len(), 2);
}

#[test]
fn types_of_the_future_and_nodes_are_refused_as_such() {
    for later in LATER_TYPES {
        assert_eq!(
            problems(&format!("type: {later}")),
            [format!(
                "1:1: resource 1: type: `{later}` is not in this version; the types are pod, job, cronjob, deployment, secret, config"
            )]
        );
    }
    assert!(problems("type: node")[0].contains("announces itself"));
    assert!(problems("type: Pod")[0].ends_with("did you mean `pod`?"));
    assert!(problems("type: [pod]")[0].ends_with("found a list; the types are pod, job, cronjob, deployment, secret, config"));
    assert!(problems("metadata: {name: x}")[0].ends_with("the field `type` is missing; write `type: pod`"));
}

#[test]
fn what_the_cluster_printed_can_be_applied_again() {
    let text = "
type: pod
metadata: {name: web, generation: 3, revision: 12, createdAt: '2026-11-21T00:00:00Z', deletionRequestedAt: null}
spec: {containers: [{name: app, image: nginx}]}
placement: {node: node-1}
status: {phase: Running, whatever: [1, 2]}
";
    assert_eq!(pod(text).metadata.generation, Some(3));
}

#[test]
fn there_is_an_end_to_the_list_of_problems() {
    let fields: String = (0..500).map(|n| format!("field{n}: 1\n")).collect();
    let found = problems(&format!("type: pod\n{fields}"));
    assert_eq!(found.len(), MAX_PROBLEMS);
    let resources: String = (0..500).map(|_| "- 1\n").collect();
    let found = problems(&resources);
    assert_eq!(found.len(), MAX_PROBLEMS + 1);
    assert_eq!(found[MAX_PROBLEMS], "there are more problems; these first");
}

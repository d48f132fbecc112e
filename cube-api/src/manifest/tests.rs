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
fn a_key_that_is_there_twice_is_refused_wherever_it_is() {
    let text = r#"{"type": "pod", "metadata": {"name": "web", "labels": {"a": "1", "a": "2"}}, "type": "pod",
 "spec": {"containers": [{"name": "app", "image": "nginx", "image": "nginx", "env": {"A": "1", "A": "1"}}]}}"#;
    let expected = [
        "1:66: pod/web: metadata.labels.a: `a` is there twice",
        "1:78: pod/web: type: `type` is there twice",
        "2:60: pod/web: spec.containers[0].image: `image` is there twice",
        "2:96: pod/web: spec.containers[0].env.A: `A` is there twice",
    ];
    assert_eq!(problems(text), expected);
    assert_eq!(from_json(text.as_bytes()), parse(text));
    assert_eq!(
        problems("a: 1\na: 2\n"),
        ["1:1: resource 1: the field `type` is missing; write `type: pod`", "2:1: resource 1: a: `a` is there twice"]
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
fn a_text_without_quotes_stays_as_typed() {
    let pod = pod(&with_container("env: {A: no, B: 1.20, C: true, D: 0x10, E: 1e3, F: 010, G: '', H: null text, I: 2026-11-21}"));
    let values: Vec<&str> = pod.spec.containers[0].env.iter().filter_map(|variable| variable.value.as_deref()).collect();
    assert_eq!(values, ["no", "1.20", "true", "0x10", "1e3", "010", "", "null text", "2026-11-21"]);
}

#[test]
fn characters_that_yaml_wants_escaped_may_stand_in_json_as_they_are() {
    let json = SMALLEST.replace("value1", "\u{7f}\u{feff}\u{80}\u{1f600}");
    for read in [from_json(json.as_bytes()), parse(&json)] {
        let resources = read.unwrap_or_else(|problems| panic!("{problems:#?}"));
        let Resource::Pod(pod) = &resources[0] else { panic!("a pod") };
        assert_eq!(pod.spec.containers[0].env.value("ENV_VAR1"), Some("\u{7f}\u{feff}\u{80}\u{1f600}"));
    }
}

#[test]
fn nothing_is_not_a_text() {
    assert_eq!(
        problems(&with_container("env:\n  A:\n  B: null\n  C: ~")),
        ["A", "B", "C"]
            .iter()
            .zip(9..)
            .map(|(name, line)| { format!("{line}:9: pod/web: spec.containers[0].env.{name}: found nothing; a text is expected") })
            .collect::<Vec<_>>()
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
fn two_resources_of_one_name_are_refused_even_where_the_rest_is_wrong() {
    let text = "type: pod\nmetadata: {name: web}\nspec: {containers: [{name: a, image: nginx}]}\n---\n\
                type: pod\nmetadata: {name: web}\nspec: {containers: []}\n";
    assert_eq!(
        problems(text),
        [
            "5:1: pod/web: another resource of this name begins on line 1",
            "7:8: pod/web: spec.containers: the list is empty; a pod has at least one container",
        ]
    );
}

#[test]
fn yaml_documents_may_each_be_a_resource_or_a_list() {
    let one = |name: &str| format!("{{type: pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: a, image: nginx}}]}}}}");
    let text = format!("# a comment\n---\n{}\n---\n---\n- {}\n- {}\n...\n", one("a"), one("b"), one("c"));
    let names: Vec<String> = parse(&text).expect("right").iter().map(|resource| resource.reference().to_string()).collect();
    assert_eq!(names, ["pod/a", "pod/b", "pod/c"]);
}

#[test]
fn an_empty_manifest_is_a_problem_and_not_a_success() {
    for empty in ["", "  \n", "# nothing\n", "---\n---\n", "[]", "null"] {
        assert_eq!(problems(empty), ["no resource in it; a manifest is a resource such as a pod, or a list of them"], "{empty:?}");
    }
}

#[test]
fn what_is_neither_json_nor_yaml_says_where_it_stops() {
    assert_eq!(problems(&SMALLEST[..60]), ["3:40: not JSON: EOF while parsing a string"]);
    assert_eq!(problems("a: b: c"), ["1:5: neither JSON nor YAML: mapping values are not allowed in this context"]);
    assert_eq!(problems("type: \"pod"), ["1:7: neither JSON nor YAML: unclosed quote"]);
    assert_eq!(from_json(b"type: pod").expect_err("YAML")[0].to_string(), "1:2: not JSON: expected ident");
    assert_eq!(from_json(b"{\"a\": \xff}").expect_err("bytes")[0].to_string(), "not UTF-8 after 6 bytes");
    assert_eq!(from_json(b"").expect_err("empty")[0].to_string(), "1:1: not JSON: EOF while parsing a value");
}

#[test]
fn a_text_over_the_limit_is_refused_unread() {
    let large = vec![b'['; MAX_BYTES + 1];
    let expected = "larger than 4 MiB, the most of a manifest; apply it in parts";
    assert_eq!(from_json(&large).expect_err("too large")[0].to_string(), expected);
    assert_eq!(problems(std::str::from_utf8(&large).expect("ASCII")), [expected]);
}

#[test]
fn deep_nesting_is_refused_and_costs_no_stack() {
    let lists = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let maps = format!("{}1{}", "{\"a\":".repeat(20_000), "}".repeat(20_000));
    for (text, column) in [(&lists, 65), (&maps, 321)] {
        let expected = format!("1:{column}: more than 64 lists and maps inside each other");
        assert_eq!(from_json(text.as_bytes()).expect_err("too deep")[0].to_string(), expected);
    }
    assert!(problems(&"- ".repeat(20_000))[0].ends_with("more than 64 lists and maps inside each other"));
    assert!(problems(&"[".repeat(20_000))[0].contains("EOF"));
    let deepest = format!("{}{}", "[".repeat(64), "]".repeat(64));
    assert!(problems(&deepest)[0].contains("a resource is expected"));
}

#[test]
fn aliases_repeat_what_they_name_and_bombs_are_refused() {
    let text = with_container("env: &env {A: b}\ncommand: &words [sh, -c]\nargs: *words");
    assert_eq!(pod(&text).spec.containers[0].args, ["sh", "-c"]);
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{below}]\n");
    }
    assert!(problems(&bomb)[0].contains("more than 400000 values, aliases written out"));
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 100].join(", "));
    assert!(problems(&long)[0].contains("more than 4194304 bytes, aliases written out"));
    let nested = format!("{}x{}", (0..60).map(|n| format!("&n{n} [")).collect::<String>(), "]".repeat(60));
    assert!(problems(&nested)[0].contains("a resource is expected"), "anchors themselves are fine");
    assert!(problems("&a [*a]")[0].contains("an alias inside of what it repeats"));
    assert!(problems("a: *nowhere")[0].contains("unknown anchor"));
    assert!(problems("? [a]\n: b")[0].contains("can't be a key"));
    assert!(problems("a: &a b\n*a : c")[0].contains("can't be a key"));
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

#[test]
fn the_rules_beyond_the_shape_hold() {
    let long_word = "x".repeat(131_072);
    for (lines, expected) in [
        ("ports: [{containerPort: 0}]", "ports[0].containerPort: 0 is no port"),
        (
            "ports: [{containerPort: 1, hostPort: 0}, {containerPort: 1, hostPort: 0}]",
            "ports[1].hostPort: [0] publishes this port on a free one",
        ),
        ("ports: [{containerPort: 0, hostPort: 0}]", "ports[0].containerPort: 0 is no port"),
        ("env: [{name: A, value: x, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]", "env[0]: `value` and `valueFrom` together"),
        (
            "env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.nmae}}}]",
            "fieldPath: `metadata.nmae` is no fact of a pod; there are metadata.name,",
        ),
        ("env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}]", "fieldPath: cube has no namespaces"),
        ("env: [{name: A, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['-']\"}}}]", "fieldPath: `-` is no label key"),
        (
            "env: [{name: A, valueFrom: {resourceFieldRef: {containerName: b, resource: limits.cpu}}}]",
            "containerName: the pod has no container `b`; it has",
        ),
        (
            "env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpus}}}]",
            "resource: `limits.cpus` is not allowed; did you mean `limits.cpu`?",
        ),
        ("env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 0}}}]", "divisor: nothing can be divided by 0"),
        ("env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1Mi}}}]", "divisor: '1Mi' is not an amount of cpu"),
        (
            "env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.nodeName}, resourceFieldRef: {resource: limits.cpu}}}]",
            "valueFrom: `fieldRef` and `resourceFieldRef` together",
        ),
        ("ports: [{containerPort: 1, hostPort: 1, hostIP: here}]", "ports[0].hostIP: invalid IP address syntax"),
        ("ports: [{containerPort: 1, name: a}, {containerPort: 2, name: a}]", "ports[1].name: `a` is the name of another port"),
        ("ports: [{containerPort: 1, hostPort: 9}, {containerPort: 2, hostPort: 9}]", "is taken by spec.containers[0].ports[0] already"),
        ("resources: {limits: {memory: 5Mi}}", "resources.limits.memory: 5Mi is below Docker's least limit, 6Mi"),
        ("resources: {limits: {memory: 0}}", "0 is below Docker's least limit"),
        ("resources: {limits: {cpu: 0}}", "0 is below the least limit that Linux can enforce, 10m"),
        ("resources: {requests: {cpu: 2}, limits: {cpu: 1}}", "resources.requests.cpu: 2 is more than the limit of 1"),
        ("resources: {requests: {memory: 2Gi}, limits: {memory: 1Gi}}", "requests.memory: 2Gi is more than the limit of 1Gi"),
        ("resources: {limits: {disk: 1Gi}}", "resources.limits.disk: Docker's storage drivers can't limit what a container writes"),
        ("resources: {requests: {disk: -1Gi}}", "resources.requests.disk: '-1Gi' is not an amount of memory or disk"),
        ("resources: {limits: {cpu: lots}}", "resources.limits.cpu: 'lots' is not an amount of cpu"),
        ("resources: {limits: {cpu: [1]}}", "resources.limits.cpu: "),
        ("resources: {limits: {gpu: 1}}", "unknown field `gpu`; did you mean `cpu`?"),
        ("workingDir: tmp", "workingDir: `tmp` is not an absolute path"),
        ("command: ['']", "command[0]: the program to run is empty"),
        ("command: [sh, \"a\\0b\"]", "command[1]: a NUL character"),
        ("args: [\"a\\0b\"]", "args[0]: a NUL character"),
        (&format!("args: [{long_word}]"), "args[0]: 131072 bytes, at most 131071 are allowed"),
        ("env: {'': x}", "env[\"\"]: a variable without a name"),
        ("env: {A: \"a\\0b\"}", "env.A: a NUL character"),
    ] {
        let found = problems(&with_container(lines));
        assert!(found.len() == 1 && found[0].contains(expected), "{lines:.80}: {found:#?}");
    }
}

#[test]
fn host_ports_that_do_not_meet_are_allowed() {
    for ports in [
        "[{containerPort: 1, hostPort: 9}, {containerPort: 1, hostPort: 9, protocol: UDP}]",
        "[{containerPort: 1, hostPort: 0}, {containerPort: 2, hostPort: 0}, {containerPort: 1, hostPort: 0, protocol: UDP}]",
        "[{containerPort: 1, hostIP: 127.0.0.1}, {containerPort: 1, hostIP: 127.0.0.2}, {containerPort: 1, hostPort: 9}]",
        "[{containerPort: 1, hostPort: 9, hostIP: 127.0.0.1}, {containerPort: 1, hostPort: 9, hostIP: 127.0.0.2}]",
        "[{containerPort: 1}, {containerPort: 1}]",
    ] {
        pod(&with_container(&format!("ports: {ports}")));
    }
    for address in ["0.0.0.0", "127.0.0.1"] {
        let ports = format!("[{{containerPort: 1, hostPort: 9, hostIP: 127.0.0.1}}, {{containerPort: 1, hostPort: 9, hostIP: {address}}}]");
        assert_eq!(problems(&with_container(&format!("ports: {ports}"))).len(), 1, "{address}");
    }
}

#[test]
fn the_rules_of_the_pod_itself_hold() {
    let spec = |more: &str| format!("type: pod\nmetadata: {{name: web}}\nspec: {{containers: [{{name: a, image: nginx}}], {more}}}\n");
    assert!(problems(&spec("terminationGracePeriodSeconds: 86401"))[0].contains("at most 86400 (a day) are allowed"));
    assert!(problems(&spec("onNodeLoss: Wait"))[0].contains("spec.onNodeLoss: `Wait` is not allowed; did you mean `wait`?"));
    assert!(problems(&spec("hostname: Front.door"))[0].contains("spec.hostname"));
    assert!(problems(&spec("onNodeLoss: move"))[0].contains("spec.onNodeLoss: `move` is not allowed"));
    let allowed = "spec.strategy: `fastest` is not allowed; allowed are spread, binpack, round-robin, epvm";
    assert!(problems(&spec("strategy: fastest"))[0].contains(allowed));
    assert!(problems(&spec("strategy: roundrobin"))[0].contains("`roundrobin` is not allowed; did you mean `round-robin`?"));
    assert!(problems(&spec("terminationGracePeriodSeconds: -1"))[0].contains("found -1; a whole number from 0 to 4294967295 is expected"));
    assert!(problems(&spec("nodeSelector: {'a b': c}"))[0].contains("nodeSelector[\"a b\"]: `a b` is no label key"));
    let containers: String = (0..65).map(|n| format!("{{name: c{n}, image: nginx}},")).collect();
    let found = problems(&format!("type: pod\nmetadata: {{name: web}}\nspec: {{containers: [{containers}]}}\n"));
    assert_eq!(found, ["3:8: pod/web: spec.containers: 65 containers, at most 64 are allowed"]);
}

#[test]
fn labels_follow_the_rules_of_kubernetes() {
    let labels = |key: &str, value: &str| {
        parse(&format!(
            "type: pod\nmetadata: {{name: web, labels: {{\"{key}\": \"{value}\"}}}}\nspec: {{containers: [{{name: a, image: nginx}}]}}"
        ))
    };
    let (long, longest) = ("x".repeat(64), "x".repeat(63));
    for (key, value) in [("a", ""), ("A_b.c-d", "A_b.c-d"), ("example.com/app", "1"), (&longest, &longest)] {
        assert!(labels(key, value).is_ok(), "{key}={value}");
    }
    for (key, value) in [
        ("", "x"),
        ("-a", "x"),
        ("a/", "x"),
        ("/a", "x"),
        ("A.com/a", "x"),
        ("a/b/c", "x"),
        (&long, "x"),
        ("a", &long),
        ("a", "x y"),
        ("a", ".x"),
    ] {
        assert!(labels(key, value).is_err(), "{key}={value}");
    }
}

/// JSON as any program may write it.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let text = "\\PC{0,12}|[a-z/\\\\\"'\\n\\t\\u{0}-\\u{1f}\\u{2028}\\u{7f}-\\u{9f}\\u{feff}\\u{fffe}\\u{ffff}# :,-]{0,12}";
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        text.prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map(text, inner, 0..6).prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

fn same(node: &Node, json: &serde_json::Value) -> bool {
    use serde_json::Value as Json;
    match (&node.value, json) {
        (Value::Scalar { .. }, Json::Null) => node.is_null(),
        (Value::Scalar { text, plain }, Json::String(wanted)) => text == wanted && !plain,
        (Value::Scalar { text, plain: true }, Json::Bool(wanted)) => *text == wanted.to_string(),
        (Value::Scalar { text, plain: true }, Json::Number(wanted)) => *text == wanted.to_string(),
        (Value::List(items), Json::Array(wanted)) => {
            items.len() == wanted.len() && items.iter().zip(wanted).all(|(node, json)| same(node, json))
        }
        (Value::Map(entries), Json::Object(wanted)) => {
            entries.len() == wanted.len() && entries.iter().all(|entry| wanted.get(&entry.key).is_some_and(|json| same(&entry.node, json)))
        }
        _ => false,
    }
}

proptest! {
    /// JSON takes the way of YAML; this is what makes that right.
    #[test]
    fn any_json_means_as_yaml_what_it_means_as_json(json in any_json(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) }.expect("plain data");
        let documents = tree::read(&escaped(&text)).map_err(|error| TestCaseError::fail(format!("{text}: {error:?}")))?;
        prop_assert_eq!(documents.len(), 1);
        prop_assert!(same(&documents[0], &json), "{}: {:?}", text, documents);
    }

    #[test]
    fn any_json_in_a_pods_place_is_answered_with_problems(json in any_json(), place in 0usize..6) {
        let mut manifest: serde_json::Value = serde_json::from_str(SMALLEST).expect("JSON");
        let pointer = ["/0", "/0/metadata", "/0/metadata/labels", "/0/spec/containers", "/0/spec/containers/0", "/0/spec/containers/0/env"][place];
        *manifest.pointer_mut(pointer).expect("it is there") = json;
        let read = from_json(&serde_json::to_vec(&manifest).expect("plain data"));
        prop_assert!(read.is_ok() || read.is_err_and(|problems| !problems.is_empty()));
    }

    #[test]
    fn no_text_panics(text in "\\PC*|[-a-c:{}\\[\\],&*!#|>'\"%@ \n\t0-9~?]{0,60}") {
        prop_assert!(parse(&text).is_ok() || parse(&text).is_err_and(|problems| !problems.is_empty()));
    }
}

#[test]
fn a_list_that_was_printed_is_read_as_its_items_and_nothing_else_is() {
    let pod = "{type: pod, metadata: {name: web}, spec: {containers: [{name: a, image: b}]}}";
    assert_eq!(parse(&format!("revision: 7\nitems: [{pod}]")).expect("a list").len(), 1);
    for refused in [format!("items: {pod}"), format!("items: [{pod}]\nkind: List"), format!("type: pod\nitems: [{pod}]")] {
        assert!(parse(&refused).is_err(), "{refused}");
    }
}

#[test]
fn contradictions_of_security_are_refused_with_their_paths() {
    let of = |lines: &str| problems(&with_container(&format!("securityContext: {lines}")));
    let ends = |lines: &str, path: &str, words: &str| {
        let found = of(lines);
        assert!(found.len() == 1 && found[0].contains(&format!("spec.containers[0].securityContext{path}: {words}")), "{found:?}");
    };
    ends("{runAsUser: 2147483648}", ".runAsUser", "2147483648 is no user or group: 0 to 2147483647 are");
    ends("{runAsUser: 0, runAsNonRoot: true}", ".runAsUser", "0 is root, and `runAsNonRoot` is true");
    ends("{privileged: true, allowPrivilegeEscalation: false}", ".allowPrivilegeEscalation", "false contradicts `privileged: true`");
    ends("{allowPrivilegeEscalation: false, capabilities: {add: [SYS_ADMIN]}}", ".allowPrivilegeEscalation", "false contradicts the added");
    ends("{privileged: true, capabilities: {drop: [CHOWN]}}", ".capabilities", "a privileged container has every capability");
    ends("{capabilities: {add: [CHOWN], drop: [CHOWN]}}", ".capabilities", "`CHOWN` is both in `add` and in `drop`");
    assert!(of("{capabilities: {drop: [CAP_CHOWN]}}")[0].contains("CAP_CHOWN"));
    assert!(of("{procMount: Default}")[0].contains("unknown field `procMount`"));
    let pods =
        problems(&with_container("").replace("spec:\n", "spec:\n  securityContext: {runAsUser: 0, runAsNonRoot: true, fsGroup: 7}\n"));
    assert!(pods[0].contains("unknown field `fsGroup`"), "{pods:?}");
    let pods = problems(&with_container("").replace("spec:\n", "spec:\n  securityContext: {runAsUser: 0, runAsNonRoot: true}\n"));
    assert!(pods[0].contains("spec.containers[0].securityContext.runAsUser: 0 is root"), "{pods:?}");
}

#[test]
fn in_the_host_s_network_a_port_is_the_host_s_own() {
    let of = |ports: &str, more: &str| {
        with_container(&format!("ports: [{ports}]")).replace("spec:\n", &format!("spec:\n  hostNetwork: true\n{more}"))
    };
    assert!(pod(&of("{containerPort: 80, hostPort: 80}", "")).spec.host_network);
    for (ports, more, path, words) in [
        ("{containerPort: 80, hostPort: 8080}", "", "spec.containers[0].ports[0].hostPort", "write `hostPort: 80`"),
        ("{containerPort: 80}", "", "spec.containers[0].ports[0].hostPort", "write `hostPort: 80`"),
        ("{containerPort: 80, hostPort: 80, hostIP: 127.0.0.1}", "", "spec.containers[0].ports[0].hostIP", "the program itself chooses"),
        ("", "  hostname: front\n", "spec.hostname", "has the host's name"),
    ] {
        let found = problems(&of(ports, more));
        assert!(found.len() == 1 && found[0].contains(path) && found[0].contains(words), "{found:?}");
    }
}

#[test]
fn a_secret_takes_base64_and_plain_texts_and_no_problem_shows_its_values() {
    let text = "type: secret\nmetadata: {name: db}\ndata: {user: cm9vdA==}\nstringData: {password: hunter2}\n";
    let [Resource::Secret(secret)] = &parse(text).expect("a secret")[..] else { panic!("a secret") };
    assert_eq!(secret.clone().values()["password"].0, b"hunter2");
    for wrong in [
        "data: {password: hunter2}",
        "data: hunter2",
        "stringData: [hunter2]",
        "stringData: hunter2",
        "stringData: {password: [hunter2]}",
        "stringData: {'pass word': hunter2}",
        "spec: hunter2",
    ] {
        let found = problems(&format!("type: secret\nmetadata: {{name: db}}\n{wrong}\n"));
        assert!(!found.is_empty() && !found.concat().contains("hunter2"), "{wrong}: {found:?}");
    }
}

#[test]
fn keys_of_data_may_be_names_of_files_and_their_sum_is_bounded() {
    let with = |data: &str| format!("type: config\nmetadata: {{name: app}}\ndata: {data}\n");
    assert!(parse(&with("{app.conf: a, A_B-c: ''}")).is_ok());
    for key in ["a/b", "..", "..a", "a b", "''"] {
        assert!(problems(&with(&format!("{{{key}: x}}")))[0].contains("is no key"), "{key}");
    }
    assert!(problems(&with(&format!("{{a: {}}}", "x".repeat(1 << 20) + "x")))[0].contains("at most 1048576 (1 MiB)"));
}

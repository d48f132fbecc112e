//! Rules beyond the shape.

use super::*;

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

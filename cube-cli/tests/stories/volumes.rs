//! Files of pods: what they share, what outlives them, what they take from their node, from secrets and from configs.

use serde_json::{Value, json};

use crate::cluster::{BUSYBOX, Cluster, Done, PATIENCE, docker, shell_pod, wait_for};

/// A pod whose containers sleep, by their names.
fn pod(name: &str, volumes: Value, containers: &[(&str, Value)]) -> Value {
    let containers: Vec<_> = containers
        .iter()
        .map(|(name, mounts)| json!({ "name": name, "image": BUSYBOX, "command": ["sleep", "1000"], "volumeMounts": mounts }))
        .collect();
    json!({ "type": "pod", "metadata": { "name": name },
        "spec": { "terminationGracePeriodSeconds": 1, "volumes": volumes, "containers": containers } })
}

/// Runs a shell script in a pod's container.
fn script(cluster: &Cluster, pod: &str, container: &str, script: &str) -> Done {
    cluster.cube(&["exec", &format!("pod/{pod}"), "--container", container, "--", "sh", "-c", script])
}

/// Docker's names of the volumes of the cluster's nodes.
fn volumes(cluster: &Cluster) -> Vec<String> {
    let servers = std::iter::once(&cluster.leader).chain(&cluster.followers);
    let listed = servers.map(|server| docker(["volume", "ls", "-q", "--filter", &format!("label=io.cube.node={}", server.name)]));
    listed.flat_map(|names| names.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn restarts(cluster: &Cluster, pod: &str, container: &str) -> u64 {
    let pod = cluster.pod(pod).unwrap_or_default();
    let of = |status: &&Value| status["name"] == container;
    pod["status"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .find(of)
        .and_then(|found| found["restartCount"].as_u64())
        .unwrap_or_default()
}

/// Kills a container's process from outside and waits for the one after it.
fn kill(cluster: &Cluster, pod: &str, container: &str) {
    let before = restarts(cluster, pod, container);
    let filters = [format!("label=io.cube.pod.name={pod}"), format!("label=io.cube.container={container}")];
    let mine = cluster.containers(pod);
    let named = docker(["ps", "-q", "--no-trunc", "--filter", &filters[0], "--filter", &filters[1]]);
    let id = named.lines().find(|id| mine.iter().any(|own| own == id)).expect("it runs").to_owned();
    docker(["kill", &id]);
    wait_for("the container after the killed one", PATIENCE, || {
        let now = (restarts(cluster, pod, container), cluster.status(pod)?);
        if now == (before + 1, "Running".to_owned()) { Ok(()) } else { Err(format!("{now:?}")) }
    });
}

#[test]
fn the_containers_of_a_pod_share_empty_folders_that_outlive_kills_and_go_with_the_pod() {
    let mut cluster = Cluster::start(0);
    let both = json!([{ "name": "scratch", "mountPath": "/scratch" }, { "name": "fast", "mountPath": "/fast" }]);
    let reads = json!([{ "name": "scratch", "mountPath": "/in", "readOnly": true }]);
    let volumes_of_pod =
        json!([{ "name": "scratch", "emptyDir": {} }, { "name": "fast", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }]);
    let file = cluster.manifest(json!([pod("pair", volumes_of_pod, &[("writer", both), ("reader", reads)])]));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    script(&cluster, "pair", "writer", "echo disk > /scratch/x; echo memory > /fast/x").ok();
    assert_eq!(script(&cluster, "pair", "reader", "cat /in/x").ok(), "disk\n");
    assert_ne!(script(&cluster, "pair", "reader", "touch /in/y").code, Some(0), "it is read-only there");
    let full = script(&cluster, "pair", "writer", "dd if=/dev/zero of=/fast/big bs=1M count=2; rm /fast/big");
    assert!(full.stderr.contains("No space left"), "{full:?}");

    kill(&cluster, "pair", "writer");
    assert_eq!(script(&cluster, "pair", "writer", "cat /scratch/x /fast/x").ok(), "disk\nmemory\n");
    cluster.leader.kill();
    cluster.leader.start();
    cluster.wait_until_ready();
    cluster.wait_for_status("pair", "Running");
    assert_eq!(script(&cluster, "pair", "writer", "cat /scratch/x /fast/x").ok(), "disk\nmemory\n");

    assert_eq!(volumes(&cluster).len(), 2);
    cluster.cube(&["delete", "pod/pair", "--wait"]).ok();
    assert_eq!(volumes(&cluster), Vec::<String>::new());
}

#[test]
fn files_of_a_node_are_given_only_where_its_server_allows_them() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let allowed = folder.path().join("allowed");
    std::fs::create_dir(&allowed).expect("made");
    std::fs::write(allowed.join("motd"), "from the node\n").expect("written");
    std::os::unix::fs::symlink("/etc", allowed.join("escape")).expect("linked");
    let allowed = allowed.to_str().expect("utf-8").to_owned();
    let mut cluster = Cluster::leader_only(&["--allow-host-path", &allowed]);
    cluster.add_follower();
    cluster.wait_until_ready();

    let with = |name: &str, path: &str, kind: &str| {
        let volume = json!([{ "name": "host", "hostPath": { "path": path, "type": kind } }]);
        pod(name, volume, &[("main", json!([{ "name": "host", "mountPath": "/host" }]))])
    };
    let file = cluster.manifest(json!([with("good", &allowed, "Directory")]));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    assert_eq!(script(&cluster, "good", "main", "cat /host/motd").ok(), "from the node\n");
    assert_eq!(cluster.pod("good").expect("it is there")["placement"]["node"], cluster.leader.name, "only there is it allowed");

    cluster.apply(json!([with("elsewhere", "/etc", "Directory"), with("linked", &format!("{allowed}/escape"), "")]));
    wait_for("the reason", PATIENCE, || {
        let waits = cluster.pod("elsewhere")?["placement"]["waitingFor"].as_str().unwrap_or_default().to_owned();
        if waits == "0/2 nodes fit: 2 do not allow the host path (need /etc)" { Ok(()) } else { Err(waits) }
    });
    wait_for("the refusal", PATIENCE, || {
        let page = cluster.cube(&["get", "pod/linked"]).stdout;
        if page.contains("leads to /etc, which is not allowed on this node") { Ok(()) } else { Err(page) }
    });
}

#[test]
fn a_named_volume_outlives_its_pod_pins_the_next_one_and_goes_by_delete() {
    let cluster = Cluster::start(1);
    let claim = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "db" } }]);
    let manifest = json!([pod("store", claim, &[("main", json!([{ "name": "data", "mountPath": "/data" }]))])]);
    let file = cluster.manifest(&manifest);
    cluster.cube(&["apply", &file, "--wait"]).ok();
    let node = cluster.pod("store").expect("it is there")["placement"]["node"].as_str().expect("a node").to_owned();
    script(&cluster, "store", "main", "echo kept > /data/x").ok();
    let refused = cluster.cube(&["delete", "volume/db"]).fails_with(1);
    assert!(refused.contains("volume/db is used by pod/store"), "{refused}");
    let page = cluster.cube(&["get", "volume/db"]).ok();
    for part in [node.as_str(), "pod/store", "Bound"] {
        assert!(page.contains(part), "{part} is missing in:\n{page}");
    }

    cluster.cube(&["delete", "pod/store", "--wait"]).ok();
    cluster.cube(&["cordon", &node]).ok();
    cluster.cube(&["apply", &file]).ok();
    wait_for("the reason", PATIENCE, || {
        let waits = cluster.pod("store")?["placement"]["waitingFor"].as_str().unwrap_or_default().to_owned();
        let without = format!("1 is without its data (volume 'db' is on {node})");
        if waits.contains(&without) && waits.contains("1 is cordoned") { Ok(()) } else { Err(waits) }
    });
    cluster.cube(&["uncordon", &node]).ok();
    cluster.wait_for_status("store", "Running");
    assert_eq!(script(&cluster, "store", "main", "cat /data/x").ok(), "kept\n");

    cluster.cube(&["delete", "pod/store", "--wait"]).ok();
    assert_eq!(volumes(&cluster).len(), 1);
    cluster.cube(&["delete", "volume/db"]).ok();
    wait_for("the data to be gone", PATIENCE, || {
        let left = (volumes(&cluster), cluster.cube(&["list", "volume", "-o", "name"]).stdout);
        if left == (Vec::new(), String::new()) { Ok(()) } else { Err(format!("{left:?}")) }
    });
    // Under its name begins another, which is empty.
    cluster.cube(&["apply", &file, "--wait"]).ok();
    assert_eq!(script(&cluster, "store", "main", "ls /data").ok(), "");
    cluster.cube(&["delete", "pod/store", "--wait"]).ok();
    cluster.cube(&["delete", "volume/db"]).ok();
    wait_for(
        "the data to be gone",
        PATIENCE,
        || if volumes(&cluster).is_empty() { Ok(()) } else { Err(format!("{:?}", volumes(&cluster))) },
    );
}

#[test]
fn a_pod_waits_for_its_secret_and_config_then_has_them_and_nobody_is_shown_the_secret() {
    const SECRET: &str = "correct-horse-battery";
    const CHANGED: &str = "staple-of-another-day";
    let cluster = Cluster::start(0);
    let mut manifest = pod(
        "app",
        json!([{ "name": "pass", "secret": { "secretName": "db", "defaultMode": "0400" } },
            { "name": "conf", "config": { "name": "app", "items": [{ "key": "app.conf", "path": "etc/app.conf" }] } }]),
        &[("main", json!([{ "name": "pass", "mountPath": "/run/pass" }, { "name": "conf", "mountPath": "/conf" }]))],
    );
    let container = &mut manifest["spec"]["containers"][0];
    container["env"] = json!([{ "name": "PASSWORD", "valueFrom": { "secretKeyRef": { "name": "db", "key": "password" } } },
        { "name": "MISSING", "valueFrom": { "configKeyRef": { "name": "none", "key": "k", "optional": true } } }]);
    container["envFrom"] = json!([{ "prefix": "APP_", "configRef": { "name": "app" } }]);
    cluster.apply(json!([manifest]));
    let waits_for = |words: &str| {
        wait_for(words, PATIENCE, || {
            let waits = cluster.pod("app")?["placement"]["waitingFor"].as_str().unwrap_or_default().to_owned();
            if waits == words { Ok(()) } else { Err(waits) }
        });
    };
    waits_for("secret/db not found");
    let secret = |password: &str| json!([{ "type": "secret", "metadata": { "name": "db" }, "stringData": { "password": password } }]);
    cluster.apply(secret(SECRET));
    waits_for("config/app not found");
    let config = |value: &str| json!([{ "type": "config", "metadata": { "name": "app" }, "data": { "app.conf": value, "MODE": "fast" } }]);
    cluster.apply(config("first\n"));
    cluster.wait_for_status("app", "Running");
    let look = "stat -c %a /run/pass/password; cat /run/pass/password /conf/etc/app.conf; echo \"$PASSWORD $APP_MODE ${MISSING-none}\"";
    assert_eq!(script(&cluster, "app", "main", look).ok(), format!("400\n{SECRET}first\n{SECRET} fast none\n"));
    assert_ne!(script(&cluster, "app", "main", "touch /run/pass/x").code, Some(0), "it is read-only");

    // Other values restart nothing; the next container has them.
    cluster.apply(json!([secret(CHANGED)[0], config("second\n")[0]]));
    assert_eq!(script(&cluster, "app", "main", look).ok(), format!("400\n{SECRET}first\n{SECRET} fast none\n"));
    kill(&cluster, "app", "main");
    assert_eq!(script(&cluster, "app", "main", look).ok(), format!("400\n{CHANGED}second\n{CHANGED} fast none\n"));
    cluster.apply(json!([shell_pod("wrong", "sleep 1000")[0], { "type": "pod", "metadata": { "name": "no-key" }, "spec": { "containers": [
        { "name": "main", "image": BUSYBOX, "env": [{ "name": "X", "valueFrom": { "secretKeyRef": { "name": "db", "key": "nope" } } }] }] } }]));
    wait_for("the missing key", PATIENCE, || {
        let waits = cluster.pod("no-key")?["placement"]["waitingFor"].as_str().unwrap_or_default().to_owned();
        if waits == "secret/db has no key 'nope'" { Ok(()) } else { Err(waits) }
    });

    let mut shown: Vec<(String, String)> = [
        &["get", "pod/app"][..],
        &["get", "pod/app", "-o", "yaml"],
        &["get", "pod/no-key"],
        &["get", "secret/db"],
        &["get", "secret/db", "-o", "json"],
        &["list", "secret", "-o", "yaml"],
        &["list", "pod", "-o", "json"],
        &["events"],
    ]
    .into_iter()
    .map(|words| (words.join(" "), cluster.cube(words).ok()))
    .collect();
    shown.push(("the server's log".to_owned(), cluster.leader.log()));
    let in_base64 = ["Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5", "c3RhcGxlLW9mLWFub3RoZXItZGF5"];
    for (what, text) in &shown {
        for value in [SECRET, CHANGED].into_iter().chain(in_base64) {
            assert!(!text.contains(value), "{what} shows it:\n{text}");
        }
    }
    assert!(shown[3].1.contains("password: 21 bytes"), "keys and sizes are shown: {}", shown[3].1);
    cluster.cube(&["delete", "pod/app", "pod/wrong", "pod/no-key", "--wait"]).ok();
    assert_eq!(volumes(&cluster), Vec::<String>::new());
}

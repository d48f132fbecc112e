//! Tables, objects and watches.

use serde_json::{Value, json};
use snapbox::str;

use crate::leader::{Answer, Leader};
use crate::{cube, event, given_up, in_use, list, node, pod, pulling, refusal, running, unready};

fn two_pods() -> Leader {
    Leader::start(|_, _| Answer::Json(200, list(7, &[pod("db", 1, 5, given_up()), pod("web", 2, 7, running())])))
}

#[test]
fn pods_are_listed_with_name_status_and_age() {
    let leader = two_pods();
    cube(&leader.address, &["list", "pod", "-l", "app in (db,web)"])
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
NAME   READY   STATUS       RESTARTS   AGE
db     0/1     CrashLimit   0          25m
web    1/1     Running      2          25m

"#]])
        .stderr_eq("");
    assert_eq!(leader.lines(), ["GET /v1/pods?selector=app+in+%28db%2Cweb%29"]);
}

#[test]
fn kubectls_get_pods_lists_too() {
    cube(&two_pods().address, &["get", "pods", "-o", "wide"])
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
NAME   READY   STATUS       RESTARTS   AGE   IP         NODE    IMAGES
db     0/1     CrashLimit   0          25m   <none>     alpha   busybox:1
web    1/1     Running      2          25m   10.1.2.3   alpha   busybox:1

"#]])
        .stderr_eq("");
}

#[test]
fn names_are_for_scripts() {
    cube(&two_pods().address, &["list", "pods", "-o", "name"]).assert().code(0).stdout_eq("pod/db\npod/web\n").stderr_eq("");
}

#[test]
fn json_holds_the_whole_objects_with_their_types() {
    let output = cube(&two_pods().address, &["list", "pods", "-o", "json"]).output().unwrap();
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&shown["items"][1]["type"], &shown["items"][1]["metadata"]["name"]), (&json!("pod"), &json!("web")));
    assert_eq!(shown["items"][1]["status"]["podIP"], json!("10.1.2.3"));
}

#[test]
fn a_list_of_several_pages_is_whole() {
    let leader = Leader::start(|_, before| match before {
        0 => Answer::Json(200, json!({"revision": 7, "continue": "db", "items": [pod("db", 1, 5, running())]})),
        _ => Answer::Json(200, list(7, &[pod("web", 2, 7, running())])),
    });
    cube(&leader.address, &["list", "pods", "-o", "name"]).assert().code(0).stdout_eq("pod/db\npod/web\n");
    assert_eq!(leader.lines(), ["GET /v1/pods", "GET /v1/pods?continue=db"]);
}

#[test]
fn an_empty_list_says_so_beside_the_data() {
    let leader = Leader::start(|_, _| Answer::Json(200, list(7, &[])));
    cube(&leader.address, &["list", "pod"]).assert().code(0).stdout_eq("").stderr_eq("no pods found\n");
}

#[test]
fn nodes_are_listed_with_name_status_and_type() {
    let leader = Leader::start(move |_, _| {
        let away = json!({"status": "NotReady", "reason": "no session for more than 10s"});
        Answer::Json(200, list(4, &[in_use(node("alpha", "Leader", json!({"status": "Ready"}))), node("beta", "Follower", away)]))
    });
    cube(&leader.address, &["nodes"])
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
NAME    STATUS     TYPE       AGE    PODS    CPU        CPU%   MEMORY      MEMORY%
alpha   Ready      Leader     120m   3/110   0.25/1.9   23%    64/7373Mi   25%
beta    NotReady   Follower   120m   3/110   0.25/1.9   -      64/7373Mi   -

"#]])
        .stderr_eq("");
    cube(&leader.address, &["nodes", "-o", "wide"])
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
NAME    STATUS     TYPE       AGE    PODS    CPU        CPU%   MEMORY      MEMORY%   DISK       DISK%   VERSION   ENGINE     LABELS   REASON
alpha   Ready      Leader     120m   3/110   0.25/1.9   23%    64/7373Mi   25%       0.5/90Gi   40%     0.1.0     20.10.24   <none>   <none>
beta    NotReady   Follower   120m   3/110   0.25/1.9   -      64/7373Mi   -         0.5/90Gi   -       0.1.0     20.10.24   <none>   no session for more than 10s

"#]])
        .stderr_eq("");
}

#[test]
fn a_node_is_shown_as_a_page_with_why_it_is_not_ready_and_its_events() {
    let leader = Leader::start(|request, _| match request.line.as_str() {
        "GET /v1/nodes/beta" => {
            Answer::Json(200, node("beta", "Follower", json!({"status": "NotReady", "reason": "no session for more than 10s"})))
        }
        "GET /v1/events?object=node%2Fbeta" => {
            Answer::Json(200, list(9, &[event("beta", "Warning", "NodeNotReady", "no session for more than 10s", 1)]))
        }
        other => Answer::Json(404, refusal("NoRoute", other)),
    });
    for words in [["get", "node/beta"].as_slice(), &["describe", "node", "beta"]] {
        cube(&leader.address, words)
            .assert()
            .code(0)
            .stdout_eq(str![[r#"
Name:        beta
Status:      NotReady
Reason:      no session for more than 10s
Type:        Follower
Created:     [..] (120m ago)
Last seen:   [..] ago)
Version:     0.1.0
Engine:      20.10.24

Resources:
  RESOURCE   CAPACITY   KEPT BACK   ALLOCATABLE   RESERVED     IN USE
  cpu        2          0.1         1.9           0.25 (13%)   -
  memory     7629Mi     256Mi       7373Mi        64Mi (1%)    -
  disk       100Gi      10Gi        90Gi          0.5Gi (1%)   -
  pods       110        0           110           3            3

Events:
  LAST SEEN   TYPE      REASON         FROM    MESSAGE
  15m         Warning   NodeNotReady   alpha   no session for more than 10s

"#]])
            .stderr_eq("");
    }
}

fn one_pod() -> Leader {
    Leader::start(|request, _| match request.line.as_str() {
        "GET /v1/pods/web" => Answer::Json(200, pod("web", 2, 7, running())),
        "GET /v1/events?object=pod%2Fweb" => {
            let crashed = event("web", "Warning", "Crashed", "main crashed, exit code 3", 2);
            Answer::Json(200, list(9, &[event("web", "Normal", "Scheduled", "to alpha: the most free memory", 1), crashed]))
        }
        other => Answer::Json(404, refusal("NoRoute", other)),
    })
}

#[test]
fn a_pod_that_is_not_ready_is_counted_so_and_says_why() {
    let leader = Leader::start(|request, _| match request.line.as_str() {
        "GET /v1/pods" => Answer::Json(200, list(7, &[pod("web", 2, 7, unready())])),
        "GET /v1/pods/web" => Answer::Json(200, pod("web", 2, 7, unready())),
        _ => Answer::Json(200, list(9, &[])),
    });
    cube(&leader.address, &["list", "pod"]).assert().code(0).stdout_eq(str![[r#"
NAME   READY   STATUS    RESTARTS   AGE
web    0/1     Running   2          25m

"#]]);
    let page = cube(&leader.address, &["get", "pod/web"]).output().unwrap();
    let page = String::from_utf8(page.stdout).unwrap();
    assert!(page.contains("\nReady:       no, 0 of 1 containers are\n"), "{page}");
    assert!(page.contains("\n    Not ready:   readiness probe failed: HTTP 503 from http://10.1.2.3:80/\n"), "{page}");
}

#[test]
fn get_shows_the_manifest_the_status_and_the_events() {
    cube(&one_pod().address, &["get", "pod/web"])
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
Name:        web
Status:      Running
Node:        alpha
IP:          10.1.2.3
Labels:      app=web
Created:     [..] (25m ago)
Started:     [..] (24m ago)
Ready:       yes
Uid:         00000000-0000-4000-8000-000000000002
Generation:  1

Containers:
  main:
    Image:       busybox:1
    State:       Running (since [..], 15m ago)
    Last end:    Error, exit code 3, 15m ago
                 no such file
    Restarts:    2
    Container:   0123456789ab

Manifest:
  type: pod
  metadata:
    name: web
    labels:
      app: web
  spec:
    containers:
    - name: main
      image: busybox:1
      env:
        A: "yes"
      imagePullPolicy: IfNotPresent
    restartPolicy: Always
    restart:
      limit: 10
    terminationGracePeriodSeconds: 30
    onNodeLoss: replace

Events:
  LAST SEEN           TYPE      REASON      FROM    MESSAGE
  15m                 Normal    Scheduled   alpha   to alpha: the most free memory
  15m (x2 over 23m)   Warning   Crashed     alpha   main crashed, exit code 3

"#]])
        .stderr_eq("");
}

#[test]
fn describe_is_the_same_page() {
    let page = |words: &[&str]| String::from_utf8(cube(&one_pod().address, words).output().unwrap().stdout).unwrap();
    let head = |page: &str| page.lines().next().map(str::to_owned);
    assert_eq!(head(&page(&["describe", "pod", "web"])), head(&page(&["get", "pod/web"])));
}

#[test]
fn get_as_yaml_is_the_object_alone() {
    cube(&one_pod().address, &["get", "pod", "web", "-o", "yaml"])
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
type: pod
metadata:
  name: web
  uid: 00000000-0000-4000-8000-000000000002
  labels:
    app: web
  generation: 1
  revision: 7
  createdAt: "[..]"
spec:
  containers:
  - name: main
    image: busybox:1
    env:
      A: "yes"
    imagePullPolicy: IfNotPresent
  restartPolicy: Always
  restart:
    limit: 10
  terminationGracePeriodSeconds: 30
  onNodeLoss: replace
placement:
  node: alpha
  boundAt: "[..]"
status:
  phase: Running
  podIP: "10.1.2.3"
  startedAt: "[..]"
  containers:
  - name: main
    image: busybox:1
    containerID: 0123456789abcdef
    state:
      running:
        startedAt: "[..]"
    started: false
    lastTermination:
      exitCode: 3
      reason: Error
      message: |
        no such file
      finishedAt: "[..]"
    restartCount: 2

"#]])
        .stderr_eq("");
}

#[test]
fn a_pod_that_is_not_there_is_named() {
    let leader = Leader::start(|_, _| Answer::Json(404, refusal("NotFound", "there is no pod/nope")));
    cube(&leader.address, &["get", "pod/nope"]).assert().code(1).stdout_eq("").stderr_eq("error: there is no pod/nope\n");
}

#[test]
fn a_watch_goes_on_from_its_last_revision_after_a_lost_connection() {
    let changed = |revision, status| json!({"type": "modified", "object": pod("web", 2, revision, status)});
    let leader = Leader::start(move |_, before| match before {
        0 => Answer::Json(200, list(7, &[])),
        1 => Answer::Cut(vec![changed(8, pulling()), json!({"type": "bookmark", "object": {"revision": 11}})]),
        2 => Answer::Cut(vec![changed(12, running())]),
        _ => Answer::Json(403, refusal("Forbidden", "enough")),
    });
    cube(&leader.address, &["list", "pod", "-w"])
        .assert()
        .code(1)
        .stdout_eq(str![[r#"
NAME   READY   STATUS   RESTARTS   AGE
web    0/1     Pulling  0          25m
web    1/1     Running  2          25m

"#]])
        .stderr_eq(str![[r#"
no pods found
error: enough

"#]]);
    let watches = ["GET /v1/pods?watch=true&from=7", "GET /v1/pods?watch=true&from=11", "GET /v1/pods?watch=true&from=12"];
    assert_eq!(leader.lines()[1..], watches);
}

#[test]
fn a_watch_whose_revision_is_gone_lists_again() {
    let leader = Leader::start(|_, before| match before {
        0 => Answer::Json(200, list(7, &[pod("web", 2, 7, pulling())])),
        1 => Answer::Cut(vec![json!({"type": "bookmark", "object": {"revision": 8}})]),
        2 => Answer::Json(410, refusal("Expired", "revision 8 is no longer kept")),
        3 => Answer::Json(200, list(90, &[pod("web", 2, 80, running())])),
        _ => Answer::Json(403, refusal("Forbidden", "enough")),
    });
    cube(&leader.address, &["get", "pods", "-w", "-o", "name"]).assert().code(1).stdout_eq("pod/web\npod/web\n");
    assert_eq!(leader.lines()[4], "GET /v1/pods?watch=true&from=90");
}

#[test]
fn events_are_listed_with_what_they_are_about() {
    let leader = Leader::start(|_, _| Answer::Json(200, list(9, &[event("web", "Warning", "BackOff", "next try in 8s", 3)])));
    cube(&leader.address, &["events"])
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
LAST SEEN           TYPE      REASON    OBJECT    FROM    MESSAGE
15m (x3 over 23m)   Warning   BackOff   pod/web   alpha   next try in 8s

"#]])
        .stderr_eq("");
}

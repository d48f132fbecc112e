//! Nodes that come, come again and shouldn't come.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cube_api::auth::Keys;
use cube_api::meta::{Instance, Uid};
use cube_api::pod::Phase;
use cube_api::routes::{EventQuery, ListQuery, LogQuery};
use cube_api::session::{Announcement, Report};
use cube_api::{ErrorCode, LeaderAddress};
use cube_server::ambient::Ambient;
use cube_server::follower::LeaderLink;
use cube_server::follower::agent::LinkError;
use cube_server::follower::dial::Dialer;
use cube_server::follower::link::HttpLink;
use cube_server::follower::runtime::fake::Fake;
use cube_server::follower::session::{self, SessionError};
use cube_server::net::{Network, Source, Stream};
use cube_server::tasks::Tasks;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::rig::{Cluster, Follower, Gate, Leader, Machine, engine, name, token, wait_for};

fn announcement(node: &str, node_id: u128, machine: &str) -> Announcement {
    let facts = json!({"version": "0.1.0", "engine": "20.10", "capacity": {"cpu": "4", "memory": "4Gi", "pods": 100}});
    let text = json!({"node": node, "nodeId": Uuid::from_u128(node_id), "machineId": machine, "role": "Follower", "facts": facts});
    serde_json::from_value(text).expect("an announcement")
}

#[tokio::test]
async fn a_session_that_is_cut_is_replaced_and_the_newest_one_carries_the_assignments() {
    let cluster = Cluster::start().await;
    for round in 0..3 {
        cluster.gate.cut(true);
        let pod = format!("web-{round}");
        cluster.leader.apply(&[(&pod, "app")]).await;
        cluster.leader.phase(&pod, Phase::Running).await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn the_newest_session_of_a_node_wins_and_the_older_one_is_closed() {
    let tasks = Tasks::default();
    let leader = Leader::start().await;
    let gate = leader.gate(&tasks).await;
    let announcement = announcement("n1", 1, "machine-1");
    let dialer = Dialer::new(gate.address.clone(), name("n1"), Keys::new(&token()), Network::system(), Ambient::system());
    let (_, older) = session::announce(&dialer, &announcement).await.expect("a session");
    wait_for("the older session", async || if leader.nodes.live().contains_key(&name("n1")) { Ok(()) } else { Err(()) }).await;
    let (_, newer) = session::announce(&dialer, &announcement).await.expect("another session");
    let mut sink = Vec::new();
    // Cut or closed: either way it has ended, and before an unanswered ping would have ended it, after 8 s.
    let ended = tokio::time::timeout(Duration::from_secs(5), TokioIo::new(older).read_to_end(&mut sink)).await;
    drop(ended.expect("the older session goes on beside the newer one"));
    assert!(leader.nodes.live().contains_key(&name("n1")), "the end of the older session has ended the newer one");
    drop(newer);
    wait_for("the end of the newer session", async || if leader.nodes.live().contains_key(&name("n1")) { Err(()) } else { Ok(()) }).await;
    leader.stop().await;
}

#[tokio::test]
async fn a_taken_name_is_refused_with_the_remedy_and_given_back_to_the_same_machine_only() {
    let cluster = Cluster::start().await;
    let dialer = Dialer::new(cluster.gate.address.clone(), name("n1"), Keys::new(&token()), Network::system(), Ambient::system());
    let dial = async |machine: &str| session::announce(&dialer, &announcement("n1", 2, machine)).await;
    for machine in ["machine-1", "machine-2"] {
        let Err(SessionError::Refused(error)) = dial(machine).await else { panic!("{machine} was let in") };
        assert_eq!(error.code, ErrorCode::Conflict);
        assert!(error.message.contains("n1") && error.hint.is_some_and(|hint| hint.contains("--name")), "{}", error.message);
    }
    cluster.follower.stop().await;
    wait_for("the end of the session", async || if cluster.leader.nodes.live().contains_key(&name("n1")) { Err(()) } else { Ok(()) }).await;
    let Err(SessionError::Refused(_)) = dial("machine-2").await else { panic!("another machine was let in") };
    dial("machine-1").await.expect("the same machine, with a new data folder");
    cluster.stop().await;
}

#[tokio::test]
async fn a_follower_of_one_cluster_does_not_obey_the_leader_of_another_one() {
    let Cluster { leader, follower, gate, .. } = Cluster::start().await;
    leader.apply(&[("web", "app")]).await;
    let uid = leader.phase("web", Phase::Running).await.metadata.uid;
    let other = Leader::start().await;
    // The same token, the same address, an empty database.
    other.take(&gate);
    wait_for("the end of the session", async || if leader.nodes.live().contains_key(&name("n1")) { Err(()) } else { Ok(()) }).await;
    // One may be a report's; the one that comes after a session's was answered.
    gate.let_through(3).await;
    assert!(!other.nodes.live().contains_key(&name("n1")));
    assert_eq!(other.client.nodes(&ListQuery::default()).await.expect("a list").items, []);
    assert_eq!(follower.fake.starts(uid, Some(&name("c"))), 1);
    leader.take(&gate);
    leader.ready("n1").await;
    wait_for("the session", async || if leader.nodes.live().contains_key(&name("n1")) { Ok(()) } else { Err(()) }).await;
    assert!(follower.fake.everything().iter().all(|container| container.identity.uid == uid));
    assert_eq!(follower.fake.starts(uid, Some(&name("c"))), 1);
    follower.stop().await;
    leader.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_second_machine_does_not_get_the_name_of_one_that_is_connected() {
    let cluster = Cluster::start().await;
    let first = cluster.leader.client.node(&name("n1")).await.expect("the node");
    let tasks = Tasks::default();
    let gate = cluster.leader.gate(&tasks).await;
    let second = Follower::start("n1", "machine-2", &gate).await;
    // The second try comes after the first was answered.
    gate.let_through(2).await;
    cluster.leader.apply(&[("web", "app")]).await;
    let uid = cluster.leader.phase("web", Phase::Running).await.metadata.uid;
    assert_eq!(cluster.leader.client.node(&name("n1")).await.expect("the node").node_id, first.node_id);
    assert_eq!((cluster.follower.fake.starts(uid, Some(&name("c"))), second.fake.starts(uid, Some(&name("c")))), (1, 0));
    second.stop().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_that_is_away_is_not_ready_and_its_logs_are_not_to_be_had() {
    let cluster = Cluster::start().await;
    let client = &cluster.leader.client;
    cluster.leader.apply(&[("web", "app")]).await;
    cluster.leader.phase("web", Phase::Running).await;
    cluster.gate.cut(false);
    let error = wait_for("a refusal", async || match client.logs(&name("web"), &LogQuery::default()).await {
        Err(error) => Ok(error),
        Ok(_) => Err("logs"),
    })
    .await;
    assert_eq!(error.code(), Some(ErrorCode::NodeUnavailable), "{error}");
    assert!(error.to_string().contains("n1") && error.hint().is_some(), "{error}");
    wait_for("the node, not ready", async || match client.node(&name("n1")).await {
        Ok(node) if !node.condition.is_ready() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let events = client.events(&EventQuery { object: Some("node/n1".to_owned()), ..EventQuery::default() }).await.expect("events");
    assert!(events.items.iter().any(|event| event.reason == "NodeNotReady"), "{events:?}");
    cluster.stop().await;
}

const HERE: Machine<'static> = Machine { id: "machine-1", boot: "machine-1's boot" };

async fn granted(leader: &Leader, sessions: u64) {
    wait_for("a session", async || match leader.nodes.granted() {
        granted if granted >= sessions && leader.nodes.live().contains_key(&name("n1")) => Ok(()),
        granted => Err(granted),
    })
    .await;
}

/// A cluster whose node ran a pod and was stopped, with two data folders of that node.
struct Copied {
    leader: Leader,
    gate: Gate,
    uid: Uid,
    fake: Fake,
    folder: TempDir,
    copy: TempDir,
}

impl Copied {
    async fn start() -> Self {
        let Cluster { leader, follower, gate, .. } = Cluster::start().await;
        leader.apply(&[("web", "app")]).await;
        let uid = leader.phase("web", Phase::Running).await.metadata.uid;
        let fake = follower.fake.clone();
        let (folder, copy) = follower.stop_and_copy().await;
        Self { leader, gate, uid, fake, folder, copy }
    }
}

#[tokio::test]
async fn a_clone_of_a_connected_node_is_refused_and_neither_disturbs_it_nor_runs_a_pod() {
    let Copied { leader, gate, uid, fake, folder, copy } = Copied::start().await;
    let original = Follower::start_with(folder, "n1", HERE, &gate, fake.clone()).await;
    granted(&leader, 2).await;
    let before = fake.everything();

    let clone = Follower::start_with(copy, "n1", Machine { id: "machine-2", boot: "another boot" }, &gate, engine()).await;
    // Each a refused announcement or a refused report of the clone's: the original keeps its connections.
    gate.let_through(3).await;
    assert_eq!(leader.nodes.granted(), 2, "the two take turns");
    assert_eq!(clone.fake.everything(), [], "the clone runs what its data folder says");
    assert_eq!((fake.everything(), fake.starts(uid, Some(&name("c")))), (before, 1));

    let node_id = leader.client.node(&name("n1")).await.expect("the node").node_id;
    let dialer = Dialer::new(gate.address.clone(), name("n1"), Keys::new(&token()), Network::system(), Ambient::system());
    let third = Announcement { instance: Some(Instance(Uuid::from_u128(3))), ..announcement("n1", node_id.0.as_u128(), "machine-3") };
    let Err(SessionError::Refused(error)) = session::announce(&dialer, &third).await else { panic!("a copy was let in") };
    assert!(error.message.contains("copy") && error.hint.is_some_and(|hint| hint.contains("/etc/machine-id")), "{}", error.message);
    let link = HttpLink::new(dialer.clone());
    let (facts, cluster_id) = (third.facts.clone(), leader.cluster_id());
    let report = Report {
        node_id,
        instance: third.instance,
        cluster_id,
        facts,
        usage: None,
        pods: Vec::new(),
        events: Vec::new(),
        dropped: Vec::new(),
    };
    let Err(LinkError::Refused(error)) = link.report(&report).await else { panic!("a copy's report was taken") };
    assert!(error.message.contains("copy"), "{}", error.message);
    let events = leader.client.events(&EventQuery { object: Some("node/n1".to_owned()), ..EventQuery::default() }).await.expect("events");
    let said: Vec<_> = events.items.iter().filter(|event| event.reason == "NodeCopied").map(|event| event.count).collect();
    assert_eq!(said, [1, 1], "once for each copy, however often it dials: {events:?}");

    original.stop().await;
    clone.stop().await;
    leader.stop().await;
}

#[tokio::test]
async fn of_two_processes_on_copies_of_a_data_folder_the_newest_has_the_session_and_the_other_waits_for_its_end() {
    let Copied { leader, gate, uid, fake, folder, copy } = Copied::start().await;
    let older = Follower::start_with(folder, "n1", HERE, &gate, fake.clone()).await;
    granted(&leader, 2).await;
    let newer = Follower::start_with(copy, "n1", HERE, &gate, fake.clone()).await;
    granted(&leader, 3).await;
    // The older one dials and reports in vain.
    gate.let_through(3).await;
    assert_eq!(leader.nodes.granted(), 3, "the two take turns");
    leader.apply(&[("later", "app")]).await;
    leader.phase("later", Phase::Running).await;
    newer.stop().await;
    granted(&leader, 4).await;
    assert_eq!((fake.starts(uid, Some(&name("c"))), fake.most_live(uid, Some(&name("c")))), (1, 1));
    older.stop().await;
    leader.stop().await;
}

#[tokio::test]
async fn a_disk_that_was_moved_to_another_machine_runs_its_pods_once_the_leader_has_said_so() {
    let Cluster { leader, follower, gate, .. } = Cluster::start().await;
    leader.apply(&[("web", "app")]).await;
    let uid = leader.phase("web", Phase::Running).await.metadata.uid;
    let (folder, _copy) = follower.stop_and_copy().await;
    gate.cut(false);
    let engine = engine();
    let moved = Follower::start_with(folder, "n1", Machine { id: "machine-2", boot: "another boot" }, &gate, engine.clone()).await;
    wait_for("looks at the engine", async || if engine.calls().len() >= 4 { Ok(()) } else { Err(()) }).await;
    assert_eq!(engine.everything(), [], "nobody said yet that it is no copy");
    gate.cut(true);
    wait_for("the pod", async || if engine.starts(uid, Some(&name("c"))) == 1 { Ok(()) } else { Err(()) }).await;
    moved.stop().await;
    leader.stop().await;
}

/// A name whose address can be changed, as in a DNS.
struct Renamed(Arc<Mutex<LeaderAddress>>);

#[async_trait]
impl Source for Renamed {
    async fn resolve(&self, _host: &str, _port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![self.0.lock().expect("nothing panics while it is held").to_string().parse().expect("an address")])
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        Ok(Stream::new(TcpStream::connect(address).await?))
    }
}

#[tokio::test]
async fn a_follower_finds_its_leader_at_another_address_and_restarts_nothing() {
    let tasks = Tasks::default();
    let leader = Leader::start().await;
    let (here, there) = (leader.gate(&tasks).await, leader.gate(&tasks).await);
    let address = Arc::new(Mutex::new(here.address.clone()));
    let network = Network::new(Renamed(address.clone()));
    let follower = Follower::start_over(network, "leader.example:4242".parse().expect("an address"), "n1").await;
    leader.ready("n1").await;
    leader.apply(&[("web", "app")]).await;
    let web = leader.phase("web", Phase::Running).await;
    *address.lock().expect("nothing panics while it is held") = there.address.clone();
    here.cut(false);
    there.let_through(1).await;
    leader.apply(&[("late", "app")]).await;
    leader.phase("late", Phase::Running).await;
    assert_eq!(follower.fake.starts(web.metadata.uid, Some(&name("c"))), 1);
    follower.stop().await;
    leader.stop().await;
    assert!(tasks.shut_down(Duration::from_secs(10)).await);
}

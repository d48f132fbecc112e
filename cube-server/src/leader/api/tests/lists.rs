//! Lists: pages of one revision whatever happens between them.

use cube_api::Pod;
use cube_api::meta::{NodeId, Uid};
use cube_api::pod::Phase;
use cube_api::routes::List;
use cube_api::session::{Announcement, PodReport, Report};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::leader::store::Placing;

const NODE_ID: Uuid = Uuid::from_u128(1);

impl Leader {
    async fn pods(&self, query: &str) -> List<Pod> {
        let answer = soon(query, self.get(&format!("/v1/pods?{query}"))).await;
        assert_eq!(answer.status(), StatusCode::OK, "{query}");
        read(answer).await
    }

    /// The pages behind one that was read.
    async fn rest(&self, query: &str, first: List<Pod>) -> Vec<Pod> {
        let (revision, mut items, mut next) = (first.revision, first.items, first.continue_from);
        while let Some(token) = next {
            let page = self.pods(&format!("{query}&continue={token}")).await;
            assert_eq!(page.revision, revision, "a page of another revision");
            items.extend(page.items);
            next = page.continue_from;
        }
        items
    }

    async fn join(&self) {
        let facts = json!({"version": "0.1.0", "engine": "20.10", "capacity": {"cpu": "4", "memory": "4Gi", "pods": 100}});
        let announcement = json!({"node": "n1", "nodeId": NODE_ID, "machineId": "m", "role": "Follower", "facts": facts});
        let announcement: Announcement = serde_json::from_value(announcement).expect("an announcement");
        self.api.store.join(announcement, false).await.expect("a node that may join");
    }

    /// Binds what waits.
    async fn bind(&self) {
        let unbound = |state: &crate::leader::store::State| {
            let rows = state.pods.values().filter(|row| row.pod.placement.node.is_none());
            rows.map(|row| row.pod.metadata.uid).collect::<Vec<_>>()
        };
        let bind = |uid| Placing::Bind { uid, node: name("n1"), reason: "it fits".to_owned() };
        let placings = self.api.store.read(unbound).into_iter().map(bind).collect();
        self.api.store.place(placings).await.expect("a placing");
    }

    /// The node says that a pod runs, or that all that was to be stopped is gone.
    async fn report(&self, sequence: u64, stopped: bool) {
        let wanted: Vec<Uid> = self.api.store.read(|state| {
            let rows = state.pods.values().filter(|row| row.pod.placement.node.is_some() && row.retired.is_some() == stopped);
            rows.map(|row| row.pod.metadata.uid).collect()
        });
        let status = |phase| serde_json::from_value(json!({"phase": phase})).expect("a status");
        let phase = if stopped { Phase::Failed } else { Phase::Running };
        let pods = wanted.into_iter().map(|uid| PodReport { uid, sequence, restarts: None, status: status(phase), stopped }).collect();
        let facts =
            serde_json::from_value(json!({"version": "0.1.0", "engine": "20.10", "capacity": {"cpu": "4", "memory": "4Gi", "pods": 100}}));
        let report = Report {
            instance: None,
            node_id: NodeId(NODE_ID),
            cluster_id: self.api.store.cluster_id(),
            facts: facts.expect("facts"),
            usage: None,
            pods,
            events: Vec::new(),
            dropped: Vec::new(),
        };
        self.api.store.report(name("n1"), report, ()).await.expect("a report that is taken");
    }
}

fn names(pods: &[Pod]) -> Vec<&str> {
    pods.iter().map(|pod| pod.metadata.name.as_str()).collect()
}

#[tokio::test]
async fn pages_show_the_first_pages_revision_whatever_happens_between_them() {
    let leader = Leader::start().await;
    leader.apply(json!([pod("a", "x", "1"), pod("b", "x", "1"), pod("c", "x", "1"), pod("d", "x", "1")])).await;
    let whole = leader.pods("").await;
    let first = leader.pods("limit=1").await;
    leader.delete("b").await;
    leader.apply(json!([pod("c", "y", "1"), pod("d", "x", "2"), pod("e", "x", "1")])).await;
    leader.delete("a").await;
    assert_eq!(leader.rest("limit=1", first).await, whole.items);
    assert_eq!(names(&leader.pods("").await.items), ["c", "d", "e"]);
}

#[tokio::test]
async fn a_page_after_a_commit_of_events_alone_comes_at_once() {
    let leader = Leader::start().await;
    leader.apply(json!([pod("a", "x", "1"), pod("b", "x", "1")])).await;
    let first = leader.pods("limit=1").await;
    // The newest revision is its event's, which no watcher sees.
    leader.apply(json!([pod("a", "x", "2")])).await;
    leader.delete("b").await;
    assert_eq!(names(&leader.rest("limit=1", first).await), ["a", "b"]);
}

#[tokio::test]
async fn a_continue_that_is_none_or_of_another_query_is_refused() {
    let leader = Leader::start().await;
    leader.apply(json!([pod("a", "x", "1")])).await;
    for token in ["", "x", "1", "1:", ":a", "-1:a", "1:No_Name", "99999999999999999999:a", "999999:a"] {
        refused(leader.get(&format!("/v1/pods?limit=1&continue={token}")).await, ErrorCode::BadRequest).await;
    }
    for query in ["limit=0", "watch=true&limit=1", "watch=true&continue=1:a", "from=1"] {
        refused(leader.get(&format!("/v1/pods?{query}")).await, ErrorCode::BadRequest).await;
    }
}

#[tokio::test]
async fn a_continue_that_is_too_old_says_to_list_again() {
    let leader = Leader::start().await;
    leader.apply(json!([pod("a", "x", "1"), pod("b", "x", "1")])).await;
    let token = leader.pods("limit=1").await.continue_from.expect("a second page");
    leader.delete("b").await;
    // A leader that starts has no changes to undo.
    let leader = leader.restart().await;
    let error = refused(leader.get(&format!("/v1/pods?limit=1&continue={token}")).await, ErrorCode::Expired).await;
    assert!(error.hint.is_some());
}

#[tokio::test]
async fn a_list_shows_what_the_selector_selects() {
    let leader = Leader::start().await;
    leader.apply(json!([pod("a", "x", "1"), pod("b", "x", "2"), pod("c", "x", "1")])).await;
    assert_eq!(names(&leader.pods("selector=app%3D1").await.items), ["a", "c"]);
    let first = leader.pods("selector=app%3D1&limit=1").await;
    leader.apply(json!([pod("c", "x", "2"), pod("b", "x", "1")])).await;
    assert_eq!(names(&leader.rest("selector=app%3D1&limit=1", first).await), ["a", "c"]);
    let error = refused(leader.get("/v1/pods?selector=app%3D%3D%3D1").await, ErrorCode::BadRequest).await;
    assert!(error.message.contains("app===1"), "{}", error.message);
}

/// What happens between two pages.
#[derive(Debug, Clone)]
enum Step {
    Apply { name: u8, image: u8, app: u8 },
    Delete { name: u8 },
    Bind,
    Running,
    Stopped,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6u8, 0..2u8, 0..2u8).prop_map(|(name, image, app)| Step::Apply { name, image, app }),
        2 => (0..6u8).prop_map(|name| Step::Delete { name }),
        1 => Just(Step::Bind),
        1 => Just(Step::Running),
        1 => Just(Step::Stopped),
    ]
}

impl Leader {
    async fn take(&self, step: &Step, sequence: u64) {
        match step {
            Step::Apply { name, image, app } => {
                self.apply(json!([pod(&format!("p{name}"), &format!("i{image}"), &app.to_string())])).await;
            }
            Step::Delete { name } => {
                // One that isn't there is refused, which changes nothing.
                drop(self.as_admin(Method::DELETE, &format!("/v1/pods/p{name}"), Body::empty()).await);
            }
            Step::Bind => self.bind().await,
            Step::Running => self.report(sequence, false).await,
            Step::Stopped => self.report(sequence, true).await,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn pages_are_one_snapshot_of_the_list(
        before in prop::collection::vec(step(), 4..16),
        between in prop::collection::vec(prop::collection::vec(step(), 0..4), 8),
        limit in 1usize..3,
        selects in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let leader = Leader::start().await;
            leader.join().await;
            for (sequence, step) in before.iter().enumerate() {
                leader.take(step, sequence as u64 + 1).await;
            }
            let selector = if selects { "selector=app%3D1" } else { "" };
            let whole = leader.pods(selector).await;
            let query = format!("limit={limit}&{selector}");
            let mut page = leader.pods(&query).await;
            let mut items = page.items;
            for (round, steps) in between.iter().enumerate() {
                let Some(token) = page.continue_from else { break };
                for (sequence, step) in steps.iter().enumerate() {
                    leader.take(step, 1_000 + 10 * round as u64 + sequence as u64).await;
                }
                page = leader.pods(&format!("{query}&continue={token}")).await;
                prop_assert_eq!(page.revision, whole.revision);
                prop_assert!(page.items.len() <= limit);
                items.extend(page.items);
            }
            prop_assert_eq!(items, whole.items);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_long_list_is_written_while_it_is_read_and_is_whole() {
    let leader = Leader::start().await;
    let large = |number: usize| {
        let mut pod = pod(&format!("web-{number:03}"), "nginx", "a");
        pod["spec"]["containers"][0]["env"] = json!({"LARGE": "x".repeat(20_000)});
        pod
    };
    for part in 0..2 {
        leader.apply((0..100).map(|number| large(part * 100 + number)).collect()).await;
    }
    let mut body = leader.get("/v1/pods").await.into_body().into_data_stream();
    let first = futures::StreamExt::next(&mut body).await.expect("a piece").expect("a body that isn't cut");
    assert!(first.len() < 128 * 1024, "{} bytes at once", first.len());
    // What happens meanwhile is not in it.
    leader.delete("web-150").await;
    let mut text = first.to_vec();
    while let Some(piece) = futures::StreamExt::next(&mut body).await {
        text.extend_from_slice(&piece.expect("a body that isn't cut"));
    }
    let list: cube_api::routes::List<cube_api::Pod> = serde_json::from_slice(&text).expect("a list");
    assert_eq!(list.items.len(), 200);
    assert!(list.items.is_sorted_by(|a, b| a.metadata.name < b.metadata.name));
    assert!(list.items.iter().all(|pod| pod.metadata.revision <= list.revision));
    let short = leader.get("/v1/nodes").await;
    assert!(http_body::Body::size_hint(short.body()).exact().is_some(), "a short one has a length");
}

//! Watches: what is there, then exactly the later changes.

use axum::body::BodyDataStream;
use cube_api::Pod;
use cube_api::routes::{Bookmark, PodWatch, WatchEvent};
use futures::StreamExt;

use super::*;

/// The lines of a watch.
struct Lines {
    body: BodyDataStream,
    rest: Vec<u8>,
}

impl Lines {
    /// The next line; `None` at the end.
    async fn next(&mut self) -> Option<PodWatch> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("an event"));
            }
            let piece = soon("a line of the watch", self.body.next()).await?.expect("a body that isn't cut");
            self.rest.extend_from_slice(&piece);
        }
    }

    /// The next lines, each as a word for the test.
    async fn words(&mut self, count: usize) -> Vec<String> {
        let mut words = Vec::new();
        for _ in 0..count {
            words.push(word(&self.next().await.expect("a watch that goes on")));
        }
        words
    }
}

fn word(event: &PodWatch) -> String {
    let of = |pod: &Pod| format!("{}:{}", pod.metadata.name, pod.spec.containers[0].image);
    match event {
        WatchEvent::Added(pod) => format!("added {}", of(pod)),
        WatchEvent::Modified(pod) => format!("modified {}", of(pod)),
        WatchEvent::Deleted(pod) => format!("deleted {}", of(pod)),
        WatchEvent::Bookmark(_) => "bookmark".to_owned(),
    }
}

impl Leader {
    async fn watch(&self, query: &str) -> Lines {
        let answer = self.get(&format!("/v1/pods?watch=true{query}")).await;
        assert_eq!(answer.status(), StatusCode::OK);
        Lines { body: answer.into_body().into_data_stream(), rest: Vec::new() }
    }
}

#[tokio::test]
async fn a_watch_begins_with_what_is_there_and_goes_on_with_each_change() {
    let leader = Leader::start().await;
    leader.apply(json!([pod("b", "x", "1"), pod("a", "x", "1")])).await;
    let listed = leader.revision();
    let mut lines = leader.watch("").await;
    assert_eq!(lines.words(2).await, ["added a:x", "added b:x"]);
    assert_eq!(lines.next().await, Some(WatchEvent::Bookmark(Bookmark { revision: listed })));
    leader.apply(json!([pod("c", "x", "1")])).await;
    leader.apply(json!([pod("a", "x", "2")])).await;
    leader.delete("b").await;
    assert_eq!(lines.words(3).await, ["added c:x", "modified a:x", "deleted b:x"]);
}

#[tokio::test]
async fn a_replaced_pod_is_a_deletion_and_an_addition() {
    let leader = Leader::start().await;
    leader.apply(json!([pod("a", "x", "1")])).await;
    let mut lines = leader.watch(&format!("&from={}", leader.revision())).await;
    leader.apply(json!([pod("a", "y", "1")])).await;
    assert_eq!(lines.words(2).await, ["deleted a:x", "added a:y"]);
}

#[tokio::test]
async fn a_pod_that_leaves_the_selector_is_deleted_at_the_revision_at_which_it_left() {
    let leader = Leader::start().await;
    leader.apply(json!([pod("a", "x", "1"), pod("b", "x", "2")])).await;
    let mut lines = leader.watch(&format!("&selector=app%3D1&from={}", leader.revision())).await;
    let applied = leader.apply(json!([pod("a", "x", "2")])).await;
    let Some(WatchEvent::Deleted(gone)) = lines.next().await else { panic!("no deletion") };
    assert_eq!(gone.metadata.labels.get("app").map(String::as_str), Some("1"), "the last state that was selected");
    assert_eq!(json!(gone.metadata.revision), applied["items"][0]["pod"]["metadata"]["revision"]);
    // To resume behind the deletion must not give it again.
    let mut resumed = leader.watch(&format!("&selector=app%3D1&from={}", gone.metadata.revision)).await;
    leader.apply(json!([pod("b", "x", "1")])).await;
    assert_eq!(lines.words(1).await, ["added b:x"]);
    assert_eq!(resumed.words(1).await, ["added b:x"]);
}

#[tokio::test]
async fn a_watch_resumed_from_any_revision_misses_and_repeats_nothing() {
    let leader = Leader::start().await;
    leader.apply(json!([pod("a", "x", "1")])).await;
    let mut lines = leader.watch(&format!("&from={}", leader.revision())).await;
    for round in 0..6 {
        leader.apply(json!([pod("a", &format!("i{round}"), "1"), pod(&format!("b{round}"), "x", "1")])).await;
        leader.delete(&format!("b{round}")).await;
    }
    let mut seen = Vec::new();
    for _ in 0..6 * 4 {
        seen.push(lines.next().await.expect("a watch that goes on"));
    }
    let revision = |event: &PodWatch| match event {
        WatchEvent::Added(pod) | WatchEvent::Modified(pod) | WatchEvent::Deleted(pod) => pod.metadata.revision,
        WatchEvent::Bookmark(bookmark) => bookmark.revision,
    };
    assert!(seen.is_sorted_by(|one, next| revision(one) < revision(next)), "{seen:?}");
    for (at, event) in seen.iter().enumerate() {
        let mut resumed = leader.watch(&format!("&from={}", revision(event))).await;
        for wanted in &seen[at + 1..] {
            assert_eq!(resumed.next().await.as_ref(), Some(wanted));
        }
    }
}

#[tokio::test]
async fn a_watch_from_too_early_or_too_late_a_revision_is_refused() {
    let leader = Leader::start().await;
    let first = leader.revision();
    leader.apply(json!([pod("a", "x", "1")])).await;
    refused(leader.get("/v1/pods?watch=true&from=999999").await, ErrorCode::BadRequest).await;
    // A leader that starts has no changes to give.
    let leader = leader.restart().await;
    let error = refused(leader.get(&format!("/v1/pods?watch=true&from={first}")).await, ErrorCode::Expired).await;
    assert!(error.hint.is_some());
    let mut lines = leader.watch(&format!("&from={}", leader.revision())).await;
    leader.delete("a").await;
    assert_eq!(lines.words(1).await, ["deleted a:x"]);
}

#[tokio::test]
async fn a_watch_ends_properly_when_the_server_stops() {
    let leader = Leader::start().await;
    let mut lines = leader.watch("").await;
    assert_eq!(lines.words(1).await, ["bookmark"]);
    let (end, ()) = tokio::join!(lines.next(), async { leader.tasks.stopping().cancel() });
    assert_eq!(end, None);
}

#[tokio::test]
async fn a_watch_with_nothing_to_say_gives_a_place_to_resume_from_every_10_s() {
    let leader = Leader::start().await;
    let mut lines = leader.watch("").await;
    assert_eq!(lines.words(1).await, ["bookmark"]);
    let mut quiet = leader.watch("&selector=app%3Dnone").await;
    assert_eq!(quiet.words(1).await, ["bookmark"]);
    let applied = leader.apply(json!([pod("a", "x", "1")])).await;
    assert_eq!(lines.words(1).await, ["added a:x"]);
    tokio::time::pause();
    let begin = tokio::time::Instant::now();
    for lines in [&mut lines, &mut quiet] {
        let Some(WatchEvent::Bookmark(bookmark)) = lines.next().await else { panic!("no bookmark") };
        assert_eq!(json!(bookmark.revision), applied["items"][0]["pod"]["metadata"]["revision"], "the newest change that was looked at");
    }
    assert!(begin.elapsed() >= Duration::from_secs(10) && begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn changes_that_are_not_selected_do_not_put_the_bookmark_off() {
    let leader = Leader::start().await;
    let mut quiet = leader.watch("&selector=app%3Dnone").await;
    assert_eq!(quiet.words(1).await, ["bookmark"]);
    let begin = tokio::time::Instant::now();
    let busy = async {
        for round in 0.. {
            leader.apply(json!([pod("a", "x", &round.to_string())])).await;
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(3)).await;
            tokio::time::resume();
        }
    };
    tokio::select! {
        words = quiet.words(1) => assert_eq!(words, ["bookmark"]),
        () = busy => {}
    }
    assert!(begin.elapsed() < Duration::from_secs(16), "{:?}", begin.elapsed());
}

//! Bodies and queries that are not as they should be.

use super::*;
use cube_api::manifest::MAX_BYTES;
use futures::stream;

fn chunked(length: usize) -> Body {
    let piece = Bytes::from(vec![b' '; 64 * 1024]);
    let pieces = (0..length.div_ceil(piece.len())).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
    Body::from_stream(stream::iter(pieces))
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_its_length_was_told_or_not() {
    let leader = Leader::start().await;
    for body in [Body::from(vec![b' '; MAX_BYTES + 1]), chunked(MAX_BYTES + 1)] {
        let error = refused(leader.as_admin(Method::POST, "/v1/apply", body).await, ErrorCode::TooLarge).await;
        assert!(error.message.contains("4 MiB") && error.hint.is_some());
    }
    let node = leader.credential(&Role::Node(name("n1")));
    let answer = leader.send(Method::POST, "/v1/nodes/n1/report", Some(&node), chunked(MAX_BYTES + 1)).await;
    refused(answer, ErrorCode::TooLarge).await;
}

#[tokio::test]
async fn a_body_of_the_limit_is_read() {
    let leader = Leader::start().await;
    let mut body = json!([pod("web", "nginx", "a")]).to_string().into_bytes();
    body.resize(MAX_BYTES, b' ');
    assert_eq!(leader.as_admin(Method::POST, "/v1/apply", body).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_body_that_breaks_off_changes_nothing() {
    let leader = Leader::start().await;
    let whole = json!([pod("web", "nginx", "a")]).to_string();
    let cut = Bytes::from(whole);
    let pieces = [Ok(cut), Err(std::io::Error::other("the connection was reset"))];
    let error =
        refused(leader.as_admin(Method::POST, "/v1/apply", Body::from_stream(stream::iter(pieces))).await, ErrorCode::BadRequest).await;
    assert!(error.message.contains("cut short"), "{}", error.message);
    assert!(leader.api.store.read(|state| state.pods.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_is_refused_after_a_minute() {
    let leader = Leader::start().await;
    let drip = stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_secs(5)).await;
        Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), ()))
    });
    let began = tokio::time::Instant::now();
    let answer = leader.as_admin(Method::POST, "/v1/apply", Body::from_stream(Box::pin(drip))).await;
    let error = refused(answer, ErrorCode::BadRequest).await;
    assert!(error.message.contains("within 60 s"), "{}", error.message);
    assert_eq!(began.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn large_bodies_are_read_so_many_at_a_time_and_small_ones_meanwhile() {
    let leader = Leader::start().await;
    let places = leader.api.large_bodies.take_all().await;
    leader.apply(json!([pod("small", "nginx", "a")])).await;
    let large = || Body::from(format!("{}{}", json!([pod("large", "nginx", "a")]), " ".repeat(1 << 20)));
    let error = refused(leader.as_admin(Method::POST, "/v1/apply", large()).await, ErrorCode::Busy).await;
    assert!(error.hint.is_some());
    drop(places);
    assert_eq!(leader.as_admin(Method::POST, "/v1/apply", large()).await.status(), StatusCode::OK);
    assert!(leader.api.large_bodies.are_free(), "the place comes back");
}

#[tokio::test(start_paused = true)]
async fn a_report_that_finds_no_place_in_time_is_told_to_come_again_before_its_node_gives_up() {
    let leader = Leader::start().await;
    let node = leader.credential(&Role::Node(name("n1")));
    let report = async || leader.send(Method::POST, "/v1/nodes/n1/report", Some(&node), "{".into()).await;
    let places = leader.api.reports.take_all().await;
    let began = tokio::time::Instant::now();
    refused(report().await, ErrorCode::Busy).await;
    assert_eq!(began.elapsed().as_secs(), 10);
    // What people ask for has its own places.
    leader.apply(json!([pod("small", "nginx", "a")])).await;
    drop(places);
    refused(report().await, ErrorCode::BadRequest).await;
    assert!(leader.api.reports.are_free(), "the place comes back");
}

#[tokio::test]
async fn a_body_that_is_nested_deeply_is_refused() {
    let leader = Leader::start().await;
    for open in ["[", "{\"a\":", "[{\"spec\":"] {
        let deep = open.repeat(200_000);
        refused(leader.as_admin(Method::POST, "/v1/apply", deep.clone()).await, ErrorCode::Invalid).await;
        let node = leader.credential(&Role::Node(name("n1")));
        refused(leader.send(Method::POST, "/v1/nodes/n1/report", Some(&node), deep.into()).await, ErrorCode::BadRequest).await;
    }
}

#[tokio::test]
async fn a_body_that_is_no_manifest_or_no_report_is_said_to_be_none() {
    let leader = Leader::start().await;
    for body in ["", "[", "{\"type\":", "\u{0}", "[{\"type\":\"nothing\"}]"] {
        let error = refused(leader.as_admin(Method::POST, "/v1/apply", body).await, ErrorCode::Invalid).await;
        assert!(!error.details.is_empty(), "{body}");
    }
    let node = leader.credential(&Role::Node(name("n1")));
    for body in ["", "{", "[]", "{\"nodeId\":3}"] {
        let answer = leader.send(Method::POST, "/v1/nodes/n1/report", Some(&node), body.into()).await;
        refused(answer, ErrorCode::BadRequest).await;
    }
}

#[tokio::test]
async fn a_large_manifest_is_judged_as_a_small_one_is() {
    let leader = Leader::start().await;
    let mut pods: Vec<Value> = (0..800).map(|i| pod(&format!("web-{i}"), "nginx", "a")).collect();
    let applied = leader.apply(Value::Array(pods.clone())).await;
    assert_eq!(applied["items"].as_array().map(Vec::len), Some(800));
    pods.push(json!({"type": "pod", "metadata": {"name": "Bad_Name"}, "spec": {"containers": []}}));
    let error = refused(leader.as_admin(Method::POST, "/v1/apply", Value::Array(pods).to_string()).await, ErrorCode::Invalid).await;
    assert!(!error.details.is_empty());
}

#[tokio::test]
async fn a_parameter_that_is_not_known_is_refused_and_named() {
    let leader = Leader::start().await;
    leader.apply(json!([pod("web", "nginx", "a")])).await;
    let asked = [
        (Method::GET, "/v1/pods?selektor=a"),
        (Method::GET, "/v1/nodes?selektor=a"),
        (Method::GET, "/v1/events?selektor=a"),
        (Method::POST, "/v1/apply?selektor=a"),
        (Method::DELETE, "/v1/pods/web?selektor=a"),
        (Method::DELETE, "/v1/nodes/web?selektor=a"),
        (Method::GET, "/v1/pods/web/logs?selektor=a"),
        (Method::GET, "/v1/pods/web/exec?command=sh&selektor=a"),
    ];
    for (method, path) in asked {
        let error = refused(leader.as_admin(method, path, Body::empty()).await, ErrorCode::BadRequest).await;
        assert!(error.message.contains("selektor"), "{path}: {}", error.message);
    }
    for path in
        ["/v1/pods?limit=many", "/v1/pods?watch=maybe", "/v1/pods?limit=-1", "/v1/pods?limit=1&limit=2", "/v1/pods?from=x&watch=true"]
    {
        refused(leader.get(path).await, ErrorCode::BadRequest).await;
    }
}

#[tokio::test]
async fn a_name_that_is_none_is_refused() {
    let leader = Leader::start().await;
    for path in ["/v1/pods/No_Name", "/v1/pods/a%2Fb", "/v1/pods/%ff", "/v1/nodes/..", "/v1/pods/a%00"] {
        refused(leader.get(path).await, ErrorCode::BadRequest).await;
    }
}

#[tokio::test]
async fn every_answer_has_an_id_of_its_own() {
    let leader = Leader::start().await;
    let mut ids = Vec::new();
    for path in ["/v1/pods", "/v1/pods/absent", "/healthz", "/version", "/v1/nothing"] {
        let answer = leader.get(path).await;
        ids.push(answer.headers().get("x-request-id").cloned().expect("an id").to_str().expect("hexadecimal").to_owned());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5);
}

#[tokio::test]
async fn what_is_asked_of_a_pod_that_is_not_there_or_nowhere_is_refused_with_a_way_on() {
    let leader = Leader::start().await;
    leader.apply(json!([pod("web", "nginx", "a")])).await;
    for path in ["/v1/pods/absent", "/v1/pods/absent/logs", "/v1/pods/absent/exec?command=sh", "/v1/nodes/absent"] {
        assert!(refused(leader.get(path).await, ErrorCode::NotFound).await.hint.is_some(), "{path}");
    }
    refused(leader.get("/v1/pods/web/logs").await, ErrorCode::Conflict).await;
    refused(leader.get("/v1/pods/web/exec?command=sh").await, ErrorCode::Conflict).await;
    refused(leader.get("/v1/pods/web/logs?container=d").await, ErrorCode::NotFound).await;
    refused(leader.get("/v1/pods/web/exec?command=sh&container=d").await, ErrorCode::NotFound).await;
}

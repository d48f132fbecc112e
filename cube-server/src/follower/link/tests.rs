use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use cube_api::ErrorCode;
use cube_api::auth::{Keys, Token};
use cube_api::meta::{ClusterId, Name, NodeId};
use cube_api::session::NodeFacts;
use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::*;
use crate::ambient::Ambient;
use crate::net::Network;
use crate::serve;
use crate::tasks::Tasks;

fn keys() -> Keys {
    Keys::new(&Token::new("secret").expect("not blank"))
}

fn link(listener: &TcpListener) -> HttpLink {
    let address = listener.local_addr().expect("it is bound").to_string().parse().expect("an address");
    HttpLink::new(Dialer::new(address, Name::new("n1").expect("a name"), keys(), Network::system(), Ambient::system()))
}

fn report() -> Report {
    let facts = NodeFacts::default();
    Report {
        node_id: NodeId(Uuid::nil()),
        instance: None,
        cluster_id: ClusterId(Uuid::nil()),
        facts,
        usage: None,
        pods: Vec::new(),
        events: Vec::new(),
        dropped: Vec::new(),
    }
}

/// A leader whose clock is an hour ahead.
async fn accept(State(asked): State<Arc<AtomicUsize>>, headers: HeaderMap) -> Result<Json<ReportAccepted>, (http::StatusCode, String)> {
    asked.fetch_add(1, Ordering::Relaxed);
    let now = Timestamp::now() + SignedDuration::from_hours(1);
    let credential = headers["authorization"].to_str().expect("ASCII").trim_start_matches("Bearer ").to_owned();
    if keys().verify(&credential, now).is_ok() {
        return Ok(Json(ReportAccepted { events_through: 0 }));
    }
    let error = ApiError { server_time: Some(now), ..ApiError::new(ErrorCode::CredentialExpired, "out of its time") };
    Err((error.code.status(), serde_json::to_string(&error).expect("plain data")))
}

#[tokio::test]
async fn a_clock_that_is_off_costs_one_refusal_and_not_one_for_each_report() {
    let (tasks, asked) = (Tasks::default(), Arc::<AtomicUsize>::default());
    let listener = serve::bind("127.0.0.1:0").expect("a free port");
    let link = link(&listener);
    let router = Router::new().route(routes::NODE_REPORT, post(accept)).with_state(Arc::clone(&asked));
    tasks.spawn("leader", serve::serve(listener, router, tasks.clone(), serve::Connections::default()));
    for _ in 0..3 {
        link.report(&report()).await.expect("a report that is taken");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 4);
    assert!(tasks.shut_down(Duration::from_secs(10)).await);
}

/// Reads a whole request.
async fn request(stream: &mut TcpStream) {
    let mut read = Vec::new();
    while !read.ends_with(b"\"events\":[]}") {
        let more = stream.read_buf(&mut read).await.expect("a request");
        assert_ne!(more, 0, "the follower hung up");
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_leader_closes_is_no_failure_and_a_new_one_is() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let link = link(&listener);
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 19\r\n\r\n{\"eventsThrough\":0}";
    // Each connection answers so many requests, then hangs up in the middle of the next one.
    let leader = async {
        for answered in [1, 1, 0] {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            for _ in 0..answered {
                request(&mut stream).await;
                stream.write_all(answer).await.expect("it is open");
            }
            request(&mut stream).await;
        }
    };
    let follower = async {
        link.report(&report()).await.expect("a new connection");
        link.report(&report()).await.expect("another one, as the kept one was closed");
        link.report(&report()).await.expect_err("a new one that was closed too");
    };
    tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(leader, follower) }).await.expect("an end");
}

#[tokio::test]
async fn the_connection_that_is_kept_for_the_next_report_is_closed_when_there_is_none_for_a_while() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let link = link(&listener);
    let leader = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        for _ in 0..2 {
            request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 19\r\n\r\n{\"eventsThrough\":0}").await.expect("it is open");
        }
        assert_eq!(stream.read(&mut [0]).await.expect("closed in order"), 0);
    };
    let follower = async {
        link.report(&report()).await.expect("a new connection");
        link.report(&report()).await.expect("the kept one");
        link.rest();
    };
    tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(leader, follower) }).await.expect("an end");
}

use cube_api::meta::ClusterId;
use cube_api::session::Epoch;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

fn request() -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(Bytes::from_static(b"{}")));
    *request.method_mut() = Method::POST;
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("leader"));
    request
}

/// What comes of an announcement that is answered so.
async fn answered(answer: String) -> (Result<(Welcome, Upgraded), SessionError>, DuplexStream) {
    let (nodes, mut leaders) = tokio::io::duplex(64 * 1024);
    let leader = async {
        let mut said = Vec::new();
        while !said.ends_with(b"\r\n\r\n{}") {
            leaders.read_buf(&mut said).await.expect("the announcement");
        }
        leaders.write_all(answer.as_bytes()).await.expect("room");
    };
    let (answer, ()) = tokio::join!(exchange(nodes, request()), leader);
    (answer, leaders)
}

#[tokio::test]
async fn a_welcome_hands_the_connection_over() {
    let welcome = Welcome { cluster_id: ClusterId(uuid::Uuid::nil()), epoch: Epoch(3), life: None };
    let json = serde_json::to_string(&welcome).expect("plain data");
    let (answer, mut leaders) = answered(format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {UPGRADE}\r\n{WELCOME_HEADER}: {json}\r\n\r\n"
    ))
    .await;
    let (got, upgraded) = answer.expect("welcomed");
    assert_eq!(got, welcome);
    drop(upgraded);
    leaders.read_to_end(&mut Vec::new()).await.expect("the connection is ours to close");
}

#[tokio::test]
async fn a_refusal_is_said_with_its_hint() {
    let refusal = ApiError::new(cube_api::ErrorCode::Conflict, "node n1 is another machine").hint("choose another --name");
    let json = serde_json::to_string(&refusal).expect("plain data");
    let (answer, _leaders) = answered(format!("HTTP/1.1 409 Conflict\r\ncontent-length: {}\r\n\r\n{json}", json.len())).await;
    let error = answer.expect_err("refused");
    assert_eq!(describe(&error), "the leader refuses this node: node n1 is another machine (choose another --name)");
}

#[tokio::test]
async fn what_is_no_leader_is_called_so() {
    for answer in
        ["HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\n\r\nnginx", "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\r\n"]
    {
        let (answer, _leaders) = answered(answer.to_owned()).await;
        assert!(matches!(answer, Err(SessionError::NotALeader(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_falls_silent_is_noticed_within_9_seconds() {
    // The beginning of HTTP/2: the client's preface and an empty SETTINGS frame (RFC 9113, section 3.4).
    let (preface, settings) = (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &b"\0\0\0\x04\0\0\0\0\0"[..]);
    for said in [vec![], preface[..10].to_vec(), preface.to_vec(), [preface, settings].concat()] {
        let (nodes, mut leaders) = tokio::io::duplex(64 * 1024);
        let (tasks, end) = (Tasks::default(), CancellationToken::new());
        leaders.write_all(&said).await.expect("room");
        let began = Instant::now();
        let serving = h2::serve(nodes, Router::new(), h2::Executor::new(&tasks, &end));
        let ended = tokio::time::timeout(Duration::from_secs(60), serving).await;
        assert!(ended.is_ok() && began.elapsed() < Duration::from_secs(9), "after {:?} with {} bytes", began.elapsed(), said.len());
    }
}

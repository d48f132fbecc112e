//! The API's router on a real store, asked as hyper asks it.

mod access;
mod bodies;
mod classic;
mod health;
mod lists;
mod watches;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use cube_api::auth::{Keys, Role, Token};
use cube_api::meta::{Name, Revision};
use cube_api::{ApiError, ErrorCode};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Api, router};
use crate::ambient::{Ambient, Source};
use crate::disk::scripted::Scripted;
use crate::leader::nodes::Nodes;
use crate::leader::store::Store;
use crate::tasks::Tasks;

const TOKEN: &str = "the cluster's token";

/// The machine's clock, set forward by so many seconds.
struct Clock(Arc<AtomicI64>);

impl Source for Clock {
    fn now(&self) -> Timestamp {
        Timestamp::now() + jiff::SignedDuration::from_secs(self.0.load(Ordering::Relaxed))
    }

    fn random(&self) -> u64 {
        rand::random()
    }
}

/// A leader's API without a network.
struct Leader {
    api: Api,
    tasks: Tasks,
    ahead: Arc<AtomicI64>,
    disk: Arc<Scripted>,
    folder: TempDir,
}

impl Leader {
    async fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder")).await
    }

    async fn start_in(folder: TempDir) -> Self {
        let (ahead, tasks) = (Arc::<AtomicI64>::default(), Tasks::default());
        let ambient = Ambient::new(Clock(Arc::clone(&ahead)));
        let (path, disk) = (folder.path().join("leader.db"), Scripted::new());
        let store = Store::open_on(&path, disk.clone(), ambient.clone(), &tasks).await.expect("a store that opens");
        let nodes = Nodes::new(store.clone(), ambient.clone(), tasks.clone());
        let keys = Keys::new(&Token::new(TOKEN).expect("not blank"));
        Self { api: Api::new(store, nodes, keys, ambient, tasks.clone()), tasks, ahead, disk, folder }
    }

    /// Another life of the leader, on the same database.
    async fn restart(self) -> Self {
        assert!(self.tasks.shut_down(Duration::from_secs(10)).await, "tasks that don't end");
        Self::start_in(self.folder).await
    }

    fn credential(&self, role: &Role) -> String {
        self.api.keys.mint(role, self.api.ambient.now())
    }

    /// Sends a request with these words behind `Bearer `, if any.
    async fn send(&self, method: Method, path: &str, credential: Option<&str>, body: Body) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(credential) = credential {
            request = request.header(header::AUTHORIZATION, format!("Bearer {credential}"));
        }
        let request = request.body(body).expect("a request");
        TowerToHyperService::new(router(self.api.clone())).call(request).await.expect("a router doesn't fail")
    }

    async fn as_admin(&self, method: Method, path: &str, body: impl Into<Body>) -> Response {
        self.send(method, path, Some(&self.credential(&Role::Admin)), body.into()).await
    }

    async fn get(&self, path: &str) -> Response {
        self.as_admin(Method::GET, path, Body::empty()).await
    }

    async fn apply(&self, pods: Value) -> Value {
        let answer = self.as_admin(Method::POST, "/v1/apply", pods.to_string()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        read(answer).await
    }

    async fn delete(&self, name: &str) {
        let answer = self.as_admin(Method::DELETE, &format!("/v1/pods/{name}"), Body::empty()).await;
        assert_eq!(answer.status(), StatusCode::OK);
    }

    fn revision(&self) -> Revision {
        self.api.store.read(|state| state.revision)
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a label")
}

/// A manifest of one pod.
fn pod(name: &str, image: &str, app: &str) -> Value {
    json!({"type": "pod", "metadata": {"name": name, "labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

async fn whole(answer: Response) -> Bytes {
    answer.into_body().collect().await.expect("a body that is complete").to_bytes()
}

async fn read<T: DeserializeOwned>(answer: Response) -> T {
    let bytes = whole(answer).await;
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&bytes)))
}

/// The refusal in an answer, which must have the status of its code and the same request id in header and body.
async fn refusal(answer: Response) -> ApiError {
    let (status, id) = (answer.status(), answer.headers().get("x-request-id").cloned().expect("every answer has an id"));
    assert_eq!(answer.headers().get(header::CONTENT_TYPE).map(|value| value.as_bytes()), Some(&b"application/json"[..]));
    let error: ApiError = read(answer).await;
    assert_eq!((status, id.as_bytes()), (error.code.status(), error.request_id.as_bytes()));
    assert_eq!(error.request_id.len(), 16);
    error
}

async fn refused(answer: Response, code: ErrorCode) -> ApiError {
    let error = refusal(answer).await;
    assert_eq!(error.code, code, "{error:?}");
    error
}

/// A body that fails the test when it is read.
fn untouched() -> Body {
    Body::from_stream(futures::stream::poll_fn(|_| -> std::task::Poll<Option<Result<Bytes, std::io::Error>>> {
        panic!("the body was read")
    }))
}

/// What is awaited comes soon, or the test says what did not.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not come within 20 s"),
    }
}

//! The typed client of the leader: what the command line and the tests call.
//!
//! Each call is a request on a connection of its own, with a credential minted for it; the token never travels. It retries nothing by itself,
//! except that it mints once more by the leader's clock where this machine's is off, and that a [`Watch`] comes back after a lost connection.

mod error;
mod frames;
mod transport;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body_util::Full;
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use error::ClientError;
pub use frames::{FrameSink, Frames};
pub use watch::{Revised, Watch};

use crate::address::LeaderAddress;
use crate::auth::{Keys, Role, Token};
use crate::classic::{Task, Worker};
use crate::deployment::Deployment;
use crate::error::{ApiError, ErrorCode};
use crate::event::Event;
use crate::job::Job;
use crate::manifest::Resource;
use crate::meta::{Name, ResourceKind, ResourceRef, Revision};
use crate::node::Node;
use crate::object::{Object, ObjectType};
use crate::pod::Pod;
use crate::routes::{
    self, Applied, ApplyQuery, CordonQuery, DeleteNodeQuery, DeleteQuery, DrainQuery, EventQuery, ExecQuery, List, ListQuery, LogQuery,
    NodePatch, RolloutAction, RolloutQuery, ScaleQuery, TriggerQuery, VersionInfo,
};
use transport::Answer;

/// A leader and the right to ask it. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    leader: LeaderAddress,
    keys: Keys,
    /// How far the leader's clock is ahead of this machine's, in seconds; learnt from a refusal.
    ahead: AtomicI64,
}

/// What a request carries beside its path.
#[derive(Default)]
struct Extra {
    headers: HeaderMap,
    body: Bytes,
}

/// As much of a resource as tells its name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Named {
    Resource { metadata: Own },
    Node(Own),
}

#[derive(Deserialize)]
struct Own {
    name: Name,
}

impl Client {
    /// A client with the rights of a person ([`Role::Admin`]). Connects to nothing yet.
    pub fn new(leader: LeaderAddress, token: Token) -> Self {
        Self { shared: Arc::new(Shared { leader, keys: Keys::new(&token), ahead: AtomicI64::new(0) }) }
    }

    /// Who is asked.
    pub fn leader(&self) -> &LeaderAddress {
        &self.shared.leader
    }

    /// Makes the resources so, all or none. With `dry_run` it only says what would be done.
    pub async fn apply(&self, resources: &[Resource], dry_run: bool) -> Result<Applied, ClientError> {
        self.tell(Method::POST, &with_query(routes::APPLY, &ApplyQuery { dry_run }), resources).await
    }

    /// The pods, in order of their names. Without a `limit` every page is fetched.
    pub async fn pods(&self, query: &ListQuery) -> Result<List<Pod>, ClientError> {
        self.list(routes::PODS, query).await
    }

    /// Every change of the pods after a revision, such as a list's.
    pub async fn watch_pods(&self, selector: Option<String>, from: Revision) -> Result<Watch<Pod>, ClientError> {
        Watch::open(self.clone(), routes::PODS.to_owned(), selector, from).await
    }

    /// One pod.
    pub async fn pod(&self, name: &Name) -> Result<Pod, ClientError> {
        self.call(Method::GET, &named(routes::POD, name)).await
    }

    /// Asks for a pod's end; answers it as it is now, on its way out.
    pub async fn delete_pod(&self, name: &Name, query: &DeleteQuery) -> Result<Pod, ClientError> {
        self.call(Method::DELETE, &with_query(&named(routes::POD, name), query)).await
    }

    /// Restarts every container of a pod and clears its limits.
    pub async fn restart_pod(&self, name: &Name) -> Result<Pod, ClientError> {
        self.call(Method::POST, &named(routes::POD_RESTART, name)).await
    }

    /// The resources of a type, in order of their names. Without a `limit` every page is fetched.
    pub async fn objects<T: ObjectType>(&self, query: &ListQuery) -> Result<List<T>, ClientError> {
        self.list(&objects(T::KIND), query).await
    }

    /// Every change of a type's resources after a revision, such as a list's.
    pub async fn watch_objects<T: ObjectType>(&self, selector: Option<String>, from: Revision) -> Result<Watch<T>, ClientError> {
        Watch::open(self.clone(), objects(T::KIND), selector, from).await
    }

    /// One resource of a type.
    pub async fn object<T: ObjectType>(&self, name: &Name) -> Result<T, ClientError> {
        self.call(Method::GET, &object(T::KIND, name)).await
    }

    /// Asks for the end of a resource that is neither pod nor node; answers it as it is now. One that owns pods is there until they are gone.
    pub async fn delete_object(&self, reference: &ResourceRef, query: &DeleteQuery) -> Result<Object, ClientError> {
        self.call(Method::DELETE, &with_query(&object(reference.kind, &reference.name), query)).await
    }

    /// Changes how many pods a deployment has.
    pub async fn scale(&self, name: &Name, query: &ScaleQuery) -> Result<Deployment, ClientError> {
        self.call(Method::POST, &with_query(&named(routes::DEPLOYMENT_SCALE, name), query)).await
    }

    /// Says what is to become of a deployment's rollout.
    pub async fn rollout(&self, name: &Name, action: RolloutAction, query: &RolloutQuery) -> Result<Deployment, ClientError> {
        let path = named(routes::DEPLOYMENT_ROLLOUT, name).replace("{action}", action.as_str());
        self.call(Method::POST, &with_query(&path, query)).await
    }

    /// Makes a job by a cronjob's template, now.
    pub async fn trigger_cronjob(&self, name: &Name, query: &TriggerQuery) -> Result<Job, ClientError> {
        self.call(Method::POST, &with_query(&named(routes::CRONJOB_TRIGGER, name), query)).await
    }

    /// The nodes, in order of their names. Without a `limit` every page is fetched.
    pub async fn nodes(&self, query: &ListQuery) -> Result<List<Node>, ClientError> {
        self.list(routes::NODES, query).await
    }

    /// Every change of the nodes after a revision, such as a list's.
    pub async fn watch_nodes(&self, selector: Option<String>, from: Revision) -> Result<Watch<Node>, ClientError> {
        Watch::open(self.clone(), routes::NODES.to_owned(), selector, from).await
    }

    /// One node.
    pub async fn node(&self, name: &Name) -> Result<Node, ClientError> {
        self.call(Method::GET, &named(routes::NODE, name)).await
    }

    /// Forgets a node that is away; answers it as it was.
    pub async fn delete_node(&self, name: &Name, query: &DeleteNodeQuery) -> Result<Node, ClientError> {
        self.call(Method::DELETE, &with_query(&named(routes::NODE, name), query)).await
    }

    /// Lets a node take no new pods.
    pub async fn cordon(&self, name: &Name, query: &CordonQuery) -> Result<Node, ClientError> {
        self.call(Method::POST, &with_query(&named(routes::NODE_CORDON, name), query)).await
    }

    /// Lets it take pods again, and ends its drain.
    pub async fn uncordon(&self, name: &Name) -> Result<Node, ClientError> {
        self.call(Method::DELETE, &named(routes::NODE_CORDON, name)).await
    }

    /// Has the leader cordon a node and move its pods; answers the node as it begins.
    pub async fn drain(&self, name: &Name, query: &DrainQuery) -> Result<Node, ClientError> {
        self.call(Method::POST, &with_query(&named(routes::NODE_DRAIN, name), query)).await
    }

    /// Changes a node's labels.
    pub async fn patch_node(&self, name: &Name, patch: &NodePatch) -> Result<Node, ClientError> {
        self.tell(Method::PATCH, &named(routes::NODE, name), patch).await
    }

    /// The names of a type's resources, in their order, at most so many.
    pub async fn names(&self, kind: ResourceKind, limit: usize) -> Result<Vec<Name>, ClientError> {
        let query = ListQuery { limit: Some(limit), ..ListQuery::default() };
        let list: List<Named> = self.list(&objects(kind), &query).await?;
        let name = |named| match named {
            Named::Resource { metadata: Own { name } } | Named::Node(Own { name }) => name,
        };
        Ok(list.items.into_iter().map(name).collect())
    }

    /// Runs a task, or stops one, as [`classic::read`](crate::classic::read) reads it; answers the task.
    pub async fn post_task(&self, task: &serde_json::Value) -> Result<Task, ClientError> {
        self.tell(Method::POST, routes::TASKS, task).await
    }

    /// The task that a word means: an ID, the beginning of one, or a name, of letters, digits, `-`, `_` and `.` only.
    pub async fn task(&self, reference: &str) -> Result<Task, ClientError> {
        self.call(Method::GET, &routes::TASK.replace("{name}", reference)).await
    }

    /// Asks for a task's end.
    pub async fn stop_task(&self, reference: &str) -> Result<(), ClientError> {
        let answer = self.send(Method::DELETE, &routes::TASK.replace("{name}", reference), Extra::default()).await?;
        answer.whole().await.map(drop)
    }

    /// The nodes as the classic interface has them, in order of their names.
    pub async fn workers(&self) -> Result<Vec<Worker>, ClientError> {
        self.call(Method::GET, routes::WORKERS).await
    }

    /// Events, oldest first.
    pub async fn events(&self, query: &EventQuery) -> Result<List<Event>, ClientError> {
        self.call(Method::GET, &with_query(routes::EVENTS, query)).await
    }

    /// A pod's logs: stdout frames, then a status frame.
    pub async fn logs(&self, name: &Name, query: &LogQuery) -> Result<Frames, ClientError> {
        let (_sink, frames) = self.frames(&with_query(&named(routes::POD_LOGS, name), query)).await?;
        Ok(frames)
    }

    /// Runs a command in a pod's container.
    pub async fn exec(&self, name: &Name, query: &ExecQuery) -> Result<(FrameSink, Frames), ClientError> {
        self.frames(&format!("{}?{}", named(routes::POD_EXEC, name), exec_query(query))).await
    }

    /// The leader's version; needs no right credential.
    pub async fn version(&self) -> Result<VersionInfo, ClientError> {
        self.call(Method::GET, routes::VERSION).await
    }

    async fn list<T: DeserializeOwned>(&self, path: &str, query: &ListQuery) -> Result<List<T>, ClientError> {
        let mut list: List<T> = self.call(Method::GET, &with_query(path, query)).await?;
        if query.limit.is_some() {
            return Ok(list);
        }
        while let Some(continue_from) = list.continue_from.take() {
            let next = ListQuery { continue_from: Some(continue_from), ..query.clone() };
            let page: List<T> = self.call(Method::GET, &with_query(path, &next)).await?;
            list.items.extend(page.items);
            list.continue_from = page.continue_from;
        }
        Ok(list)
    }

    async fn stream(&self, path: &str, query: &ListQuery) -> Result<Answer, ClientError> {
        self.send(Method::GET, &with_query(path, query), Extra::default()).await
    }

    async fn frames(&self, path: &str) -> Result<(FrameSink, Frames), ClientError> {
        let (headers, accept) = frames::handshake();
        let answer = self.send(Method::GET, path, Extra { headers, body: Bytes::new() }).await?;
        frames::open(self.leader(), answer, &accept).await
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, ClientError> {
        self.decode(self.send(method, path, Extra::default()).await?).await
    }

    /// As [`Client::call`], with a body.
    async fn tell<T: DeserializeOwned>(&self, method: Method, path: &str, body: &(impl Serialize + ?Sized)) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).expect("manifests and patches are plain data");
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.decode(self.send(method, path, Extra { headers, body: body.into() }).await?).await
    }

    async fn decode<T: DeserializeOwned>(&self, answer: Answer) -> Result<T, ClientError> {
        let body = answer.whole().await?;
        serde_json::from_slice(&body).map_err(|error| self.not_cube(format!("an answer that can't be read: {error}")))
    }

    /// Sends a request; where the leader says that the credential is out of its time, once more by the leader's clock.
    async fn send(&self, method: Method, path: &str, extra: Extra) -> Result<Answer, ClientError> {
        match self.send_once(&method, path, &extra).await {
            Err(ClientError::Api(refusal)) if refusal.code == ErrorCode::CredentialExpired => {
                let Some(leader_time) = refusal.server_time else { return Err(ClientError::Api(refusal)) };
                let ahead = leader_time.duration_since(Timestamp::now()).as_secs();
                self.shared.ahead.store(ahead, Ordering::Relaxed);
                self.send_once(&method, path, &extra).await
            }
            other => other,
        }
    }

    async fn send_once(&self, method: &Method, path: &str, extra: &Extra) -> Result<Answer, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.leader().to_string())
            .header(AUTHORIZATION, self.credential())
            .body(Full::new(extra.body.clone()))
            .expect("routes, names and encoded queries are valid URIs");
        request.headers_mut().extend(extra.headers.clone());
        let answer = transport::send(self.leader(), request).await?;
        if answer.status().is_success() || answer.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        let status = answer.status();
        let refusal = serde_json::from_slice::<ApiError>(&answer.whole().await?);
        Err(match refusal {
            Ok(refusal) => ClientError::Api(Box::new(refusal)),
            Err(_) => self.not_cube(format!("it answered {status} without saying why")),
        })
    }

    fn credential(&self) -> HeaderValue {
        let ahead = SignedDuration::from_secs(self.shared.ahead.load(Ordering::Relaxed));
        let now = Timestamp::now();
        let minted = self.shared.keys.mint(&Role::Admin, now.checked_add(ahead).unwrap_or(now));
        let mut value = HeaderValue::from_str(&format!("Bearer {minted}")).expect("a JWT is visible ASCII");
        value.set_sensitive(true);
        value
    }

    fn not_cube(&self, problem: String) -> ClientError {
        ClientError::Protocol { leader: self.leader().clone(), problem }
    }
}

fn named(route: &str, name: &Name) -> String {
    route.replace("{name}", name.as_str())
}

fn objects(kind: ResourceKind) -> String {
    routes::OBJECTS.replace("{types}", kind.plural())
}

fn object(kind: ResourceKind, name: &Name) -> String {
    named(routes::OBJECT, name).replace("{types}", kind.plural())
}

fn with_query(path: &str, query: &impl Serialize) -> String {
    let query = serde_urlencoded::to_string(query).expect("queries are flat structs of plain values");
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// `serde_urlencoded` has no way to repeat `command`.
fn exec_query(query: &ExecQuery) -> String {
    let mut pairs = form_urlencoded::Serializer::new(String::new());
    if let Some(container) = &query.container {
        pairs.append_pair("container", container.as_str());
    }
    for word in &query.command {
        pairs.append_pair("command", word);
    }
    pairs.append_pair("tty", if query.tty { "true" } else { "false" });
    pairs.append_pair("stdin", if query.stdin { "true" } else { "false" });
    pairs.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exec_query_keeps_every_word_as_it_is() {
        let query = ExecQuery {
            container: Name::new("app").ok(),
            command: ["sh", "-c", "echo 'a&b=c' + ü", ""].map(str::to_owned).to_vec(),
            tty: true,
            stdin: false,
        };
        assert_eq!(
            exec_query(&query),
            "container=app&command=sh&command=-c&command=echo+%27a%26b%3Dc%27+%2B+%C3%BC&command=&tty=true&stdin=false"
        );
    }

    #[test]
    fn a_query_without_values_leaves_the_path_bare() {
        assert_eq!(with_query(routes::PODS, &ListQuery::default()), "/v1/pods");
        let query = ListQuery { selector: Some("app in (a,b)".to_owned()), watch: true, from: Some(Revision(7)), ..ListQuery::default() };
        assert_eq!(with_query(routes::PODS, &query), "/v1/pods?selector=app+in+%28a%2Cb%29&watch=true&from=7");
    }
}

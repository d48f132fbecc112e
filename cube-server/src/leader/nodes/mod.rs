//! The sessions: who is connected, the newest assignment to each node, the streams of logs and exec, and what each machine uses.
//!
//! One task per session holds the connection and hands assignments over; it ends with the connection, when a newer session of the same node
//! comes, when the node is deleted, or with the server. Knows no SQL and decides nothing: what a node should run is the store's word.

mod assign;
mod pokes;
mod sessions;
mod stream;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use cube_api::meta::{Instance, Name, NodeId, Uid};
use cube_api::routes::{ExecQuery, LogQuery, node};
use cube_api::session::{Announcement, Welcome};
use cube_api::{ApiError, ErrorCode};
use http::{Method, Request};
use hyper::upgrade::OnUpgrade;
use jiff::Timestamp;

use crate::ambient::Ambient;
use crate::leader::control::SessionView;
use crate::leader::plan::claims::{Claim, Verdict};
use crate::leader::store::{Store, StoreError};
use crate::query;
use crate::tasks::Tasks;

use pokes::Pokes;
use sessions::Sessions;
pub use stream::{Closed, NodeSink, NodeStream};
use usage::Usages;

/// From our `101` to the connection being handed over: it takes as long as the answer takes to be written.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// Handle on the sessions. Clones share them.
#[derive(Clone)]
pub struct Nodes {
    store: Store,
    ambient: Ambient,
    tasks: Tasks,
    sessions: Arc<Sessions>,
    pokes: Pokes,
    usages: Arc<Usages>,
}

impl SessionView for Nodes {
    fn live(&self) -> BTreeMap<Name, Timestamp> {
        Nodes::live(self)
    }
}

impl Nodes {
    /// Nobody is connected yet.
    pub fn new(store: Store, ambient: Ambient, tasks: Tasks) -> Self {
        let pokes = Pokes::default();
        tasks.spawn_droppable("assignments", pokes.clone().follow(store.clone()));
        Self { store, ambient, tasks: tasks.clone(), sessions: Arc::new(Sessions::new(tasks)), usages: Arc::default(), pokes }
    }

    /// A node dials: joins it, and takes the connection over once the caller has answered `101` with this welcome. A session that the node
    /// has already ends then: the newest wins, unless that is a copy of the one that is connected ([`judge`](crate::leader::plan::claims::judge)).
    /// `Err` says why the node may not join.
    pub async fn accept(&self, announcement: Announcement, upgrade: OnUpgrade) -> Result<Welcome, StoreError> {
        let (node, node_id, claim) = (announcement.node.clone(), announcement.node_id, Claim::from(&announcement));
        self.refuse_copies(&node, &claim).await?;
        self.store.join(announcement, self.sessions.is_live(&node)).await?;
        let welcome = Welcome { cluster_id: self.store.cluster_id(), epoch: self.store.epoch(), life: Some(self.store.life()) };
        let ticket = self.sessions.ticket(claim);
        let this = self.clone();
        self.tasks.spawn_droppable(format!("session of {node}"), async move {
            let upgraded = match tokio::time::timeout(UPGRADE_TIMEOUT, upgrade).await {
                Ok(Ok(upgraded)) => upgraded,
                Ok(Err(error)) => return tracing::info!(%node, error = &error as &dyn Error, "the node hung up while it joined"),
                Err(_) => return tracing::info!(%node, "the node did not take its welcome in time"),
            };
            let poke = this.pokes.of(&node);
            let work = |client| assign::keep_assigned(this.store, this.ambient, poke, node.clone(), node_id, client);
            this.sessions.run(&node, ticket, upgraded, work).await;
        });
        Ok(welcome)
    }

    /// Refuses a second process on a copy of the data folder of the one that is connected; that is an event once for each process.
    async fn refuse_copies(&self, node: &Name, claim: &Claim) -> Result<(), StoreError> {
        let (message, where_from) = match self.sessions.judge(node, claim) {
            Verdict::Newest => return Ok(()),
            Verdict::CopyElsewhere => (
                format!(
                    "this data folder is a copy of that of node '{node}', which is connected from another machine, or another boot of this one"
                ),
                format!("from machine {}", claim.machine_id),
            ),
            Verdict::Superseded => (
                format!("node '{node}' is superseded by another process that uses a copy of this data folder on this machine"),
                "on the same machine".to_owned(),
            ),
        };
        if self.sessions.note_refused(node, claim) {
            let event = format!("refused a second process that uses a copy of this node's data folder, {where_from}");
            self.store.warn_of_node(node.clone(), "NodeCopied", event).await?;
        }
        let hint = "stop this cube-server, remove its data folder and start it with another --name; a cloned machine needs its own /etc/machine-id too";
        Err(ApiError::new(ErrorCode::Conflict, message).hint(hint).into())
    }

    /// Refuses the report of a process while another one on a copy of its data folder has the session: their sequences are the same.
    pub fn may_report(&self, node: &Name, node_id: NodeId, instance: Option<Instance>) -> Result<(), ApiError> {
        if !instance.is_some_and(|instance| self.sessions.is_held_by_another(node, node_id, instance)) {
            return Ok(());
        }
        let message = format!("another process has the session of node '{node}', on a copy of this data folder");
        Err(ApiError::new(ErrorCode::Conflict, message).hint("its own session, or the refusal of one, says more"))
    }

    /// How many sessions were granted since the leader started: one that rises all the time tells of nodes that end each other's.
    pub fn granted(&self) -> u64 {
        self.sessions.granted()
    }

    /// The nodes that have a session. A peer that is silent loses its session within 8 s ([`crate::h2`]), so each was heard just now.
    pub fn live(&self) -> BTreeMap<Name, Timestamp> {
        let now = self.ambient.now();
        self.sessions.names().into_iter().map(|name| (name, now)).collect()
    }

    /// A pod's logs from its node. `Err` is the node's own refusal, or says that it isn't connected.
    pub async fn logs(&self, node: &Name, uid: Uid, query: &LogQuery) -> Result<NodeStream, ApiError> {
        self.sessions.open(node, request(Method::GET, node::LOGS, uid, &query::write_log(query), Body::empty())).await
    }

    /// Starts a command on its node. The process is killed when the stream is dropped before its end.
    pub async fn exec(&self, node: &Name, uid: Uid, query: &ExecQuery) -> Result<(NodeSink, NodeStream), ApiError> {
        let (sink, body, alive) = stream::input();
        let stream = self.sessions.open(node, request(Method::POST, node::EXEC, uid, &query::write_exec(query), body)).await?;
        Ok((sink, stream.with_input(alive)))
    }
}

fn request(method: Method, route: &str, uid: Uid, query: &str, body: Body) -> Request<Body> {
    let path = route.replace("{uid}", &uid.to_string());
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri(&format!("{path}?{query}"));
    request
}

/// A node's address on its own connection: HTTP/2 wants a scheme and an authority, and nothing looks at them.
fn uri(path_and_query: &str) -> http::Uri {
    format!("http://node{path_and_query}").parse().expect("routes and encoded queries are URIs")
}

/// That a node can't be asked.
fn unavailable(node: &Name, problem: &str) -> ApiError {
    ApiError::new(ErrorCode::NodeUnavailable, format!("node {node} {problem}")).hint("`cube nodes` shows which nodes are ready")
}

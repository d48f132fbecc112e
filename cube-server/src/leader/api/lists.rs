//! Lists in pages of one revision, and watches that miss nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cube_api::meta::{Labels, Name, Revision};
use cube_api::routes::{Bookmark, List, ListQuery, WatchEvent};
use cube_api::{ApiError, ErrorCode, Node, Pod};
use futures::{FutureExt, StreamExt, stream};
use serde::Serialize;
use tokio::time::Instant;

use super::Api;
use super::answers::Refusal;
use super::selector::Selector;
use crate::leader::store::{Change, Changed, Changes, PodRow, State, Store};

/// A watch that has nothing to say gives a bookmark so often: a place to resume from, and a sign of life.
const BOOKMARK_EVERY: Duration = Duration::from_secs(10);

/// The most items in one page, asked for or not.
const MAX_PAGE: usize = 10_000;

/// A list is written in pieces of about so many bytes.
const PIECE: usize = 64 * 1024;

/// What follows the items of a list: they are its last field.
const EMPTY_LIST_END: &[u8] = b"]}";

/// A row before and after a change.
type Sides<R> = (Option<Arc<R>>, Option<Arc<R>>);

/// A kind of resource as lists and watches see it.
pub(super) trait Kind: Send + 'static {
    /// What the store keeps.
    type Row: Send + Sync + 'static;
    /// What the API shows.
    type Object: Serialize + Send;
    /// The row that each name shows.
    fn shown(state: &State) -> BTreeMap<Name, Arc<Self::Row>>;
    /// The rows of a change before and after, as far as they are shown; `None` for a change of another kind.
    fn of(change: &Changed) -> Option<Sides<Self::Row>>;
    fn name(row: &Self::Row) -> &Name;
    fn labels(row: &Self::Row) -> &Labels;
    fn object(api: &Api, row: &Self::Row) -> Self::Object;
    /// As [`Kind::object`] of a row that went, or left the selector, at a revision: a watch resumes behind it.
    fn last(api: &Api, row: &Self::Row, revision: Revision) -> Self::Object;
}

/// Pods: of a name that is being replaced, the new one.
pub(super) struct Pods;

impl Pods {
    fn is_shown(row: &PodRow) -> bool {
        row.retired.as_ref().is_none_or(|retired| !retired.replaced)
    }
}

impl Kind for Pods {
    type Row = PodRow;
    type Object = Pod;

    fn shown(state: &State) -> BTreeMap<Name, Arc<PodRow>> {
        let shown = state.pods.values().filter(|row| Self::is_shown(row));
        shown.map(|row| (row.pod.metadata.name.clone(), row.clone())).collect()
    }

    fn of(change: &Changed) -> Option<Sides<PodRow>> {
        let shown = |row: &Option<Arc<PodRow>>| row.clone().filter(|row| Self::is_shown(row));
        match change {
            Changed::Pod { before, after } => Some((shown(before), shown(after))),
            Changed::Node { .. } => None,
        }
    }

    fn name(row: &PodRow) -> &Name {
        &row.pod.metadata.name
    }

    fn labels(row: &PodRow) -> &Labels {
        &row.pod.metadata.labels
    }

    fn object(_: &Api, row: &PodRow) -> Pod {
        row.pod.clone()
    }

    fn last(_: &Api, row: &PodRow, revision: Revision) -> Pod {
        let mut pod = row.pod.clone();
        pod.metadata.revision = revision;
        pod
    }
}

/// Nodes, each with what its pods reserve and its machine uses at the time of the answer. That use alone is no change that a watch tells of.
pub(super) struct Nodes;

impl Kind for Nodes {
    type Row = Node;
    type Object = Node;

    fn shown(state: &State) -> BTreeMap<Name, Arc<Node>> {
        state.nodes.clone()
    }

    fn of(change: &Changed) -> Option<Sides<Node>> {
        match change {
            Changed::Node { before, after } => Some((before.clone(), after.clone())),
            Changed::Pod { .. } => None,
        }
    }

    fn name(row: &Node) -> &Name {
        &row.name
    }

    fn labels(row: &Node) -> &Labels {
        &row.labels
    }

    fn object(api: &Api, row: &Node) -> Node {
        api.node_view(row)
    }

    fn last(api: &Api, row: &Node, revision: Revision) -> Node {
        Node { revision, ..Self::object(api, row) }
    }
}

/// Answers a list or a watch, as the query says.
pub(super) fn answer<K: Kind>(api: &Api, query: ListQuery) -> Result<Response, Refusal> {
    let selector = Selector::parse(query.selector.as_deref().unwrap_or_default())?;
    let bad = |message: &str| Refusal::from(ApiError::new(ErrorCode::BadRequest, message));
    match (query.watch, query.from, query.limit, query.continue_from) {
        (true, from, None, None) => watch::<K>(api, selector, from).map_err(Refusal::from),
        (true, _, _, _) => Err(bad("a watch takes no limit and no continue")),
        (false, None, limit, start) => Ok(list::<K>(&api.store, &selector, limit, start)?.into_response(api.clone())),
        (false, Some(_), _, _) => Err(bad("from goes with watch=true")),
    }
}

/// A page on its way: the rows that are shared with the state, and what stands before them.
struct Page<K: Kind> {
    head: List<K::Object>,
    rows: VecDeque<Arc<K::Row>>,
}

fn list<K: Kind>(store: &Store, selector: &Selector, limit: Option<usize>, start: Option<String>) -> Result<Page<K>, ApiError> {
    let (revision, after, rows) = match start {
        None => store.read(|state| (state.revision, None, K::shown(state))),
        Some(token) => {
            let (revision, after) = place(&token)?;
            (revision, Some(after), as_of::<K>(store, revision)?)
        }
    };
    let limit = limit.unwrap_or(MAX_PAGE).min(MAX_PAGE);
    if limit == 0 {
        return Err(ApiError::new(ErrorCode::BadRequest, "limit must be at least 1"));
    }
    let mut left =
        rows.into_values().filter(|row| after.as_ref().is_none_or(|after| K::name(row) > after) && selector.matches(K::labels(row)));
    let page: VecDeque<_> = left.by_ref().take(limit).collect();
    let more = left.next().is_some();
    let continue_from = page.back().filter(|_| more).map(|last| format!("{revision}:{}", K::name(last)));
    Ok(Page { head: List { revision, continue_from, items: Vec::new() }, rows: page })
}

impl<K: Kind> Page<K> {
    /// A short page as one piece with its length; a long one is written while it is read, so that a reader that stops costs a piece, and not
    /// the tens of megabytes that 10,000 pods can be.
    fn into_response(mut self, api: Api) -> Response {
        let mut piece = serde_json::to_vec(&self.head).expect("plain data");
        piece.truncate(piece.len() - EMPTY_LIST_END.len());
        let mut first = true;
        let is_whole = self.write_piece(&api, &mut piece, &mut first);
        let headers = [(header::CONTENT_TYPE, "application/json")];
        if is_whole {
            return (headers, piece).into_response();
        }
        let rest = stream::unfold(Some((self, api, first)), async |rest| {
            let (mut page, api, mut first) = rest?;
            let mut piece = Vec::with_capacity(2 * PIECE);
            let is_whole = page.write_piece(&api, &mut piece, &mut first);
            Some((piece, (!is_whole).then_some((page, api, first))))
        });
        let pieces = stream::iter([piece]).chain(rest).map(|piece| Ok::<_, std::convert::Infallible>(Bytes::from(piece)));
        (headers, Body::from_stream(pieces)).into_response()
    }

    /// Adds items until the piece is long enough; whether those were the last, with the list's end.
    fn write_piece(&mut self, api: &Api, piece: &mut Vec<u8>, first: &mut bool) -> bool {
        while piece.len() < PIECE {
            let Some(row) = self.rows.pop_front() else {
                piece.extend_from_slice(EMPTY_LIST_END);
                return true;
            };
            if !std::mem::take(first) {
                piece.push(b',');
            }
            serde_json::to_writer(&mut *piece, &K::object(api, &row)).expect("resources are plain data");
        }
        false
    }
}

/// Reads a `continue` token: the first page's revision and the last name that was shown.
fn place(token: &str) -> Result<(Revision, Name), ApiError> {
    let parsed = token.split_once(':').and_then(|(revision, name)| Some((Revision(revision.parse().ok()?), Name::new(name).ok()?)));
    parsed.ok_or_else(|| ApiError::new(ErrorCode::BadRequest, format!("'{token}' is not a 'continue' of a list")))
}

/// The rows as they were at a revision: today's, with every later change undone, newest first.
fn as_of<K: Kind>(store: &Store, revision: Revision) -> Result<BTreeMap<Name, Arc<K::Row>>, ApiError> {
    let mut changes = store.watch(revision)?;
    let (newest, mut rows) = store.read(|state| (state.revision, K::shown(state)));
    let mut later = Vec::new();
    // What led to `rows` is there already: nothing is waited for, as the newest revision may be an event's, which is no change of an object.
    while let Some(change) = changes.next().now_or_never() {
        let Some(change) = change else {
            return Err(ApiError::new(ErrorCode::Expired, "the list has changed too much since its first page").hint("list again"));
        };
        // A commit that came after the look at the state isn't in `rows`.
        if change.revision > newest {
            break;
        }
        later.extend(K::of(&change.object));
    }
    for (before, after) in later.into_iter().rev() {
        if let Some(after) = after
            && rows.get(K::name(&after)).is_some_and(|row| Arc::ptr_eq(row, &after))
        {
            rows.remove(K::name(&after));
        }
        if let Some(before) = before {
            rows.insert(K::name(&before).clone(), before);
        }
    }
    Ok(rows)
}

/// A watch on its way: first what is there, then every change.
struct Watching<K: Kind> {
    api: Api,
    selector: Selector,
    changes: Changes,
    /// What was there when it began.
    first: VecDeque<Arc<K::Row>>,
    /// The newest revision that has been looked at.
    reached: Revision,
    /// Whether that place still has to be told, after what was there.
    tells_place: bool,
}

fn watch<K: Kind>(api: &Api, selector: Selector, from: Option<Revision>) -> Result<Response, ApiError> {
    let (reached, first) = match from {
        Some(from) => (from, VecDeque::new()),
        None => api.store.read(|state| {
            let rows = K::shown(state).into_values().filter(|row| selector.matches(K::labels(row)));
            (state.revision, rows.collect())
        }),
    };
    let changes = api.store.watch(reached)?;
    let watching = Watching::<K> { api: api.clone(), selector, changes, first, reached, tells_place: from.is_none() };
    let stopping = api.tasks.stopping().clone();
    let lines = stream::unfold(watching, move |mut watching| {
        let stopping = stopping.clone();
        async move {
            // Both may be dropped at any time: what was taken is told before the next await.
            let event = tokio::select! {
                biased;
                () = stopping.cancelled() => None,
                event = watching.next() => event,
            };
            let mut line = serde_json::to_vec(&event?).expect("resources are plain data");
            line.push(b'\n');
            Some((Ok::<_, std::convert::Infallible>(Bytes::from(line)), watching))
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

impl<K: Kind> Watching<K> {
    /// The next event; `None` when the watcher must list again.
    async fn next(&mut self) -> Option<WatchEvent<K::Object>> {
        if let Some(row) = self.first.pop_front() {
            return Some(WatchEvent::Added(K::object(&self.api, &row)));
        }
        if std::mem::take(&mut self.tells_place) {
            return Some(WatchEvent::Bookmark(Bookmark { revision: self.reached }));
        }
        // From the last event on, whatever was looked at and not selected since: a watch that selects little must not become too old.
        let due = Instant::now() + BOOKMARK_EVERY;
        loop {
            let Ok(change) = tokio::time::timeout_at(due, self.changes.next()).await else {
                return Some(WatchEvent::Bookmark(Bookmark { revision: self.reached }));
            };
            let change = change?;
            self.reached = change.revision;
            if let Some(event) = self.event(&change) {
                return Some(event);
            }
        }
    }

    fn event(&self, change: &Change) -> Option<WatchEvent<K::Object>> {
        let (before, after) = K::of(&change.object)?;
        let selected = |row: &Arc<K::Row>| self.selector.matches(K::labels(row));
        let show = |row: Arc<K::Row>| K::object(&self.api, &row);
        match (before.filter(selected), after.filter(selected)) {
            (None, Some(after)) => Some(WatchEvent::Added(show(after))),
            (Some(_), Some(after)) => Some(WatchEvent::Modified(show(after))),
            (Some(before), None) => Some(WatchEvent::Deleted(K::last(&self.api, &before, change.revision))),
            (None, None) => None,
        }
    }
}

//! Lists in pages of one revision, and watches that miss nothing.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cube_api::meta::{Labels, Name, ResourceKind, Revision};
use cube_api::routes::{Bookmark, List, ListQuery, WatchEvent};
use cube_api::{ApiError, ErrorCode, Node, Object, Pod};
use futures::{StreamExt, stream};
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
pub(super) trait Kind: Copy + Send + Sync + 'static {
    /// What the store keeps.
    type Row: Send + Sync + 'static;
    /// What the API shows.
    type Object: Serialize + Send;
    /// The names after this one, in order, each with the row that it shows, if any.
    fn names<'a>(self, state: &'a State, after: Option<&'a Name>) -> impl Iterator<Item = (&'a Name, Option<&'a Arc<Self::Row>>)>;
    /// The row that a name shows.
    fn shown<'a>(self, state: &'a State, name: &Name) -> Option<&'a Arc<Self::Row>>;
    /// The rows of a change before and after, as far as they are shown; `None` for a change of another kind.
    fn of(self, change: &Changed) -> Option<Sides<Self::Row>>;
    fn name(row: &Self::Row) -> &Name;
    fn labels(row: &Self::Row) -> &Labels;
    fn object(api: &Api, row: &Self::Row) -> Self::Object;
    /// As [`Kind::object`] of a row that went, or left the selector, at a revision: a watch resumes behind it.
    fn last(api: &Api, row: &Self::Row, revision: Revision) -> Self::Object;
}

/// Pods: of a name that is being replaced, the new one.
#[derive(Clone, Copy)]
pub(super) struct Pods;

impl Pods {
    fn is_shown(row: &PodRow) -> bool {
        row.retired.as_ref().is_none_or(|retired| !retired.replaced)
    }
}

impl Kind for Pods {
    type Row = PodRow;
    type Object = Pod;

    fn names<'a>(self, state: &'a State, after: Option<&'a Name>) -> impl Iterator<Item = (&'a Name, Option<&'a Arc<PodRow>>)> {
        state.names.range(behind(after)).map(|(name, uid)| (name, state.pods.get(uid).filter(|row| Self::is_shown(row))))
    }

    fn shown<'a>(self, state: &'a State, name: &Name) -> Option<&'a Arc<PodRow>> {
        state.standing(name).filter(|row| Self::is_shown(row))
    }

    fn of(self, change: &Changed) -> Option<Sides<PodRow>> {
        let shown = |row: &Option<Arc<PodRow>>| row.clone().filter(|row| Self::is_shown(row));
        match change {
            Changed::Pod { before, after } => Some((shown(before), shown(after))),
            Changed::Node { .. } | Changed::Object { .. } => None,
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
#[derive(Clone, Copy)]
pub(super) struct Nodes;

impl Kind for Nodes {
    type Row = Node;
    type Object = Node;

    fn names<'a>(self, state: &'a State, after: Option<&'a Name>) -> impl Iterator<Item = (&'a Name, Option<&'a Arc<Node>>)> {
        state.nodes.range(behind(after)).map(|(name, node)| (name, Some(node)))
    }

    fn shown<'a>(self, state: &'a State, name: &Name) -> Option<&'a Arc<Node>> {
        state.nodes.get(name)
    }

    fn of(self, change: &Changed) -> Option<Sides<Node>> {
        match change {
            Changed::Node { before, after } => Some((before.clone(), after.clone())),
            Changed::Pod { .. } | Changed::Object { .. } => None,
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

/// The resources of a type that is neither pod nor node, secrets without their values.
#[derive(Clone, Copy)]
pub(super) struct Objects(pub(super) ResourceKind);

impl Kind for Objects {
    type Row = Object;
    type Object = Object;

    fn names<'a>(self, state: &'a State, after: Option<&'a Name>) -> impl Iterator<Item = (&'a Name, Option<&'a Arc<Object>>)> {
        state.objects(self.0, after.map_or(Bound::Unbounded, Bound::Excluded)).map(|(name, object)| (name, Some(object)))
    }

    fn shown<'a>(self, state: &'a State, name: &Name) -> Option<&'a Arc<Object>> {
        state.object(self.0, name)
    }

    fn of(self, change: &Changed) -> Option<Sides<Object>> {
        match change {
            Changed::Object { before, after } => {
                let of_kind = after.as_ref().or(before.as_ref()).is_some_and(|object| object.kind() == self.0);
                of_kind.then(|| (before.clone(), after.clone()))
            }
            Changed::Pod { .. } | Changed::Node { .. } => None,
        }
    }

    fn name(row: &Object) -> &Name {
        &row.metadata().name
    }

    fn labels(row: &Object) -> &Labels {
        &row.metadata().labels
    }

    fn object(_: &Api, row: &Object) -> Object {
        row.shown()
    }

    fn last(_: &Api, row: &Object, revision: Revision) -> Object {
        let mut object = row.shown();
        object.metadata_mut().revision = revision;
        object
    }
}

/// Answers a list or a watch, as the query says.
pub(super) fn answer<K: Kind>(api: &Api, kind: K, query: ListQuery) -> Result<Response, Refusal> {
    let selector = Selector::parse(query.selector.as_deref().unwrap_or_default())?;
    let bad = |message: &str| Refusal::from(ApiError::new(ErrorCode::BadRequest, message));
    match (query.watch, query.from, query.limit, query.continue_from) {
        (true, from, None, None) => watch(api, kind, selector, from).map_err(Refusal::from),
        (true, _, _, _) => Err(bad("a watch takes no limit and no continue")),
        (false, None, limit, start) => Ok(list(&api.store, kind, &selector, limit, start)?.into_response(api.clone())),
        (false, Some(_), _, _) => Err(bad("from goes with watch=true")),
    }
}

/// A page on its way: the rows that are shared with the state, and what stands before them.
struct Page<K: Kind> {
    head: List<K::Object>,
    rows: VecDeque<Arc<K::Row>>,
}

fn behind(name: Option<&Name>) -> (Bound<&Name>, Bound<&Name>) {
    (name.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

fn list<K: Kind>(store: &Store, kind: K, selector: &Selector, limit: Option<usize>, start: Option<String>) -> Result<Page<K>, ApiError> {
    let limit = limit.unwrap_or(MAX_PAGE).min(MAX_PAGE);
    if limit == 0 {
        return Err(ApiError::new(ErrorCode::BadRequest, "limit must be at least 1"));
    }
    // One more than is shown: whether there is one.
    let pick = |rows: &mut dyn Iterator<Item = &Arc<K::Row>>| -> VecDeque<_> {
        rows.filter(|row| selector.matches(K::labels(row))).take(limit + 1).cloned().collect()
    };
    let (revision, mut page) = match start {
        None => store.read(|state| (state.revision, pick(&mut kind.names(state, None).filter_map(|(_, row)| row)))),
        Some(token) => {
            let (revision, after) = place(&token)?;
            (revision, as_of(store, kind, revision, &after, pick)?)
        }
    };
    let more = page.len() > limit;
    page.truncate(limit);
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

/// Picks among the rows behind a name as they were at a revision: today's, with every later change undone.
fn as_of<K: Kind>(
    store: &Store,
    kind: K,
    revision: Revision,
    after: &Name,
    pick: impl Fn(&mut dyn Iterator<Item = &Arc<K::Row>>) -> VecDeque<Arc<K::Row>>,
) -> Result<VecDeque<Arc<K::Row>>, ApiError> {
    if store.read(|state| revision > state.revision) {
        return Err(ApiError::new(ErrorCode::BadRequest, format!("revision {revision} hasn't happened")).hint("list again"));
    }
    let picked = store.read_since(revision, |state, later| {
        let undone = undo(state, kind, later.filter_map(|change| kind.of(&change.object)), after);
        let (mut names, mut undone) = (kind.names(state, Some(after)).peekable(), undone.iter().peekable());
        // Both in order of the names; where both have one, what was undone counts.
        let mut rows = std::iter::from_fn(|| {
            let name = match (names.peek(), undone.peek()) {
                (Some((now, _)), Some((then, _))) => (*now).min(*then),
                (Some((now, _)), None) => now,
                (None, Some((then, _))) => then,
                (None, None) => return None,
            };
            let now = names.next_if(|(now, _)| *now == name).and_then(|(_, row)| row);
            Some(undone.next_if(|(then, _)| *then == name).map_or(now, |(_, row)| row.as_ref()))
        });
        pick(&mut rows.by_ref().flatten())
    });
    picked.ok_or_else(|| ApiError::new(ErrorCode::Expired, "the list has changed too much since its first page").hint("list again"))
}

/// The names behind this one of which a row changed, each with the row that it showed before the first of these changes.
fn undo<K: Kind>(
    state: &State,
    kind: K,
    later: impl DoubleEndedIterator<Item = Sides<K::Row>>,
    after: &Name,
) -> BTreeMap<Name, Option<Arc<K::Row>>> {
    let mut undone = BTreeMap::<Name, Option<Arc<K::Row>>>::new();
    for (old, new) in later.rev() {
        let Some(name) = old.as_ref().or(new.as_ref()).map(|row| K::name(row)).filter(|name| *name > after) else { continue };
        let shown = undone.entry(name.clone()).or_insert_with(|| kind.shown(state, name).cloned());
        let is_what_came = matches!((&*shown, &new), (Some(shown), Some(new)) if Arc::ptr_eq(shown, new));
        if is_what_came {
            *shown = None;
        }
        if old.is_some() {
            *shown = old;
        }
    }
    undone
}

/// A watch on its way: first what is there, then every change.
struct Watching<K: Kind> {
    api: Api,
    kind: K,
    selector: Selector,
    changes: Changes,
    /// What was there when it began.
    first: VecDeque<Arc<K::Row>>,
    /// The newest revision that has been looked at.
    reached: Revision,
    /// Whether that place still has to be told, after what was there.
    tells_place: bool,
}

fn watch<K: Kind>(api: &Api, kind: K, selector: Selector, from: Option<Revision>) -> Result<Response, ApiError> {
    let (reached, first) = match from {
        Some(from) => (from, VecDeque::new()),
        None => api.store.read(|state| {
            let rows = kind.names(state, None).filter_map(|(_, row)| row).filter(|row| selector.matches(K::labels(row)));
            (state.revision, rows.cloned().collect())
        }),
    };
    let changes = api.store.watch(reached)?;
    let watching = Watching { api: api.clone(), kind, selector, changes, first, reached, tells_place: from.is_none() };
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
        let (before, after) = self.kind.of(&change.object)?;
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

//! Which task a word means: its whole ID, its pod's name, its own name, or the beginning of its ID.

use std::sync::Arc;

use cube_api::classic::{TASK_ID, Task};
use cube_api::error::Problem;
use cube_api::meta::{Name, Uid};
use cube_api::{ApiError, ErrorCode};

use super::super::lists::{Kind, Pods};
use crate::leader::store::{PodRow, Store};

/// So many names are looked at while the state is held: writers wait for that. Reading 1,000 rows takes well under a millisecond.
const PAGE: usize = 1_000;

/// The shortest beginning of an ID: fewer digits are more likely a slip than a task.
const SHORTEST: usize = 4;

/// How many tasks are named where several are meant.
const MOST_NAMED: usize = 10;

/// A place in the pods, in order of their names.
pub(super) struct Page {
    after: Option<Name>,
}

impl Page {
    /// The first.
    pub(super) fn first() -> Self {
        Self { after: None }
    }

    /// Whether nothing was before it.
    pub(super) fn is_first(&self) -> bool {
        self.after.is_none()
    }

    /// Its pods, and the page behind it.
    pub(super) fn read(&self, store: &Store) -> (Vec<Arc<PodRow>>, Option<Self>) {
        store.read(|state| {
            let (mut rows, mut last, mut count) = (Vec::new(), None, 0);
            for (name, row) in Pods.names(state, self.after.as_ref()).take(PAGE) {
                rows.extend(row.cloned());
                last = Some(name);
                count += 1;
            }
            (rows, last.filter(|_| count == PAGE).map(|last| Self { after: Some(last.clone()) }))
        })
    }
}

/// The task that a word means, in this order: a whole ID, a pod's name, a task's name, the beginning of an ID. Where several are meant, it is refused
/// with all of them.
pub(super) fn task(store: &Store, text: &str) -> Result<Arc<PodRow>, ApiError> {
    if let Some(row) = directly(store, text) {
        return Ok(row);
    }
    let (mut by_id, mut by_name, mut by_beginning) = (Vec::new(), Vec::new(), Vec::new());
    let beginning = (text.len() >= SHORTEST).then(|| text.to_ascii_lowercase());
    let mut page = Some(Page::first());
    while let Some((rows, next)) = page.map(|page| page.read(store)) {
        for row in rows {
            let id = Task::id_of(&row.pod);
            if id.eq_ignore_ascii_case(text) {
                by_id.push(row);
            } else if Task::name_of(&row.pod) == text {
                by_name.push(row);
            } else if beginning.as_ref().is_some_and(|beginning| id.starts_with(beginning)) {
                by_beginning.push(row);
            }
        }
        page = next;
    }
    let mut meant = [by_id, by_name, by_beginning].into_iter().find(|meant| !meant.is_empty()).unwrap_or_default();
    match (meant.len(), meant.pop()) {
        (1, Some(row)) => Ok(row),
        (_, None) => Err(ApiError::new(ErrorCode::NotFound, format!("task {text} not found")).hint("'cube status' shows what there is")),
        (_, Some(last)) => {
            meant.push(last);
            Err(ambiguous(text, &meant))
        }
    }
}

/// What needn't be looked for: the uid of a pod that has no other ID, or a pod's name.
fn directly(store: &Store, text: &str) -> Option<Arc<PodRow>> {
    let by_uid = |uid: Uid| store.read(|state| state.pods.get(&uid).cloned());
    let is_its_id = |row: &Arc<PodRow>| {
        let is_replaced = row.retired.as_ref().is_some_and(|retired| retired.replaced);
        !is_replaced && !row.pod.metadata.labels.contains_key(TASK_ID)
    };
    let by_name = || store.pod(&Name::new(text).ok()?);
    text.parse().ok().and_then(by_uid).filter(is_its_id).or_else(by_name)
}

fn ambiguous(text: &str, meant: &[Arc<PodRow>]) -> ApiError {
    let one = |row: &Arc<PodRow>| Problem {
        resource: Some(format!("task {}", Task::id_of(&row.pod))),
        path: String::new(),
        message: format!("{}, as pod/{}", Task::name_of(&row.pod), row.pod.metadata.name),
        line: None,
        column: None,
    };
    let details = meant.iter().take(MOST_NAMED).map(one).collect();
    ApiError::invalid(format!("'{text}' means {} tasks", meant.len()), details).hint("type more of the ID, or the pod's name")
}

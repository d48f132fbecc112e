//! Logs: the lines of a pod's containers in time order, as frames.
//!
//! `source` reads one container over its attempts; `merge` puts several together. Nothing here keeps more than a batch per container.

mod merge;
mod source;

use std::sync::Arc;

use cube_api::routes::LogQuery;
use cube_api::stream::Frame;
use cube_api::{ApiError, ErrorCode};
use futures::stream::{BoxStream, StreamExt, unfold};

use crate::follower::exec::{container_of, state_of};
use crate::follower::pods::Snapshot;
use crate::follower::runtime::Runtime;
use crate::latest;
use merge::{Format, Merge};
use source::Source;

/// A pod's logs as `Stdout` frames and one `Status` at the end.
pub fn open(
    runtime: Arc<dyn Runtime>,
    snapshot: latest::Receiver<Arc<Snapshot>>,
    query: LogQuery,
) -> Result<BoxStream<'static, Frame>, ApiError> {
    let now = snapshot.borrow().clone();
    let names = match &query.container {
        Some(name) => vec![container_of(&now, Some(name))?],
        None => now.pod.spec.all_containers().map(|container| container.name.clone()).collect(),
    };
    if !query.follow {
        let missing = names.iter().find(|name| source::first(&now, name, query.previous).is_none());
        if let Some(name) = missing
            && names.iter().all(|name| source::first(&now, name, query.previous).is_none())
        {
            let (pod, state) = (&now.pod.name, state_of(&now, name));
            return Err(if query.previous {
                let message = format!("container '{name}' of pod/{pod} has no earlier attempt");
                ApiError::new(ErrorCode::NotFound, message).hint("leave --previous out for the newest one")
            } else {
                let message = format!("container '{name}' of pod/{pod} has no log yet: {state}");
                ApiError::new(ErrorCode::Conflict, message).hint(format!("`cube logs -f pod/{pod}` waits for it"))
            });
        }
    }
    let format = Format { prefix: query.container.is_none(), timestamps: query.timestamps };
    // A single log is in order by itself.
    let times = query.timestamps || names.len() > 1;
    let sources = names.into_iter().map(|name| Source::new(runtime.clone(), snapshot.clone(), name, &query, times)).collect();
    let merge = Merge::new(sources, format, query.follow);
    Ok(unfold(merge, |mut merge| async move { merge.next_frame().await.map(|frame| (frame, merge)) }).boxed())
}

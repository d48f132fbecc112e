//! Waiting for resources: list, then watch from the list's revision, and again from the start where the leader no longer has that revision.

use std::collections::BTreeMap;

use cube_api::client::{Client, ClientError};
use cube_api::error::ErrorCode;
use cube_api::meta::Uid;
use cube_api::object::ObjectType;
use cube_api::pod::Pod;
use cube_api::routes::{ListQuery, WatchEvent};

use crate::error::Result;

/// Pods by their life: what replaces a pod is another one.
pub type Live = BTreeMap<Uid, Pod>;

/// Calls `look` with the pods that are there, now and after every change, until it answers something.
pub async fn until<T>(client: &Client, mut look: impl FnMut(&Live) -> Option<Result<T>>) -> Result<T> {
    'listed: loop {
        let list = client.pods(&ListQuery::default()).await?;
        let mut live: Live = list.items.into_iter().map(|pod| (pod.metadata.uid, pod)).collect();
        if let Some(answer) = look(&live) {
            return answer;
        }
        let mut watch = match client.watch_pods(None, list.revision).await {
            Err(error) if is_expired(&error) => continue 'listed,
            opened => opened?,
        };
        loop {
            match watch.next().await {
                Err(error) if is_expired(&error) => continue 'listed,
                Err(error) => return Err(error.into()),
                Ok(WatchEvent::Bookmark(_)) => continue,
                Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod)) => drop(live.insert(pod.metadata.uid, pod)),
                Ok(WatchEvent::Deleted(pod)) => drop(live.remove(&pod.metadata.uid)),
            }
            if let Some(answer) = look(&live) {
                return answer;
            }
        }
    }
}

/// As [`until`], with the resources of another type.
pub async fn until_objects<T: ObjectType, A>(client: &Client, mut look: impl FnMut(&BTreeMap<Uid, T>) -> Option<Result<A>>) -> Result<A> {
    'listed: loop {
        let list = client.objects::<T>(&ListQuery::default()).await?;
        let mut live: BTreeMap<Uid, T> = list.items.into_iter().map(|object| (object.metadata().uid, object)).collect();
        if let Some(answer) = look(&live) {
            return answer;
        }
        let mut watch = match client.watch_objects::<T>(None, list.revision).await {
            Err(error) if is_expired(&error) => continue 'listed,
            opened => opened?,
        };
        loop {
            match watch.next().await {
                Err(error) if is_expired(&error) => continue 'listed,
                Err(error) => return Err(error.into()),
                Ok(WatchEvent::Bookmark(_)) => continue,
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => drop(live.insert(object.metadata().uid, object)),
                Ok(WatchEvent::Deleted(object)) => drop(live.remove(&object.metadata().uid)),
            }
            if let Some(answer) = look(&live) {
                return answer;
            }
        }
    }
}

/// Waits until a life of a resource that is neither pod nor node is over.
pub async fn until_gone<T: ObjectType>(client: &Client, uid: Uid) -> Result<()> {
    until_objects::<T, ()>(client, |live| (!live.contains_key(&uid)).then_some(Ok(()))).await
}

/// Whether the watch must begin with a new list.
pub fn is_expired(error: &ClientError) -> bool {
    error.code() == Some(ErrorCode::Expired)
}

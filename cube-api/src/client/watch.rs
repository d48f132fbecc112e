//! A watch that goes on after a lost connection, from the last revision that it saw.

use std::marker::PhantomData;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};

use super::transport::Answer;
use super::{Client, ClientError};
use crate::meta::Revision;
use crate::node::Node;
use crate::object::ObjectType;
use crate::pod::Pod;
use crate::routes::{ListQuery, WatchEvent};

/// How long a lost watch tries to come back before it gives up: longer than a leader's restart.
const RESUME_LIMIT: Duration = Duration::from_secs(60);
/// Between two tries, doubled each time up to the second, each +-20 %.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The longest line: a resource can't be larger than the manifest it came in, its status not much more.
const MAX_LINE: usize = 4 * crate::manifest::MAX_BYTES;

/// What has a revision of its own.
pub trait Revised {
    /// The revision of its newest write.
    fn revision(&self) -> Revision;
}

impl Revised for Pod {
    fn revision(&self) -> Revision {
        self.metadata.revision
    }
}

impl Revised for Node {
    fn revision(&self) -> Revision {
        self.revision
    }
}

impl<T: ObjectType> Revised for T {
    fn revision(&self) -> Revision {
        self.metadata().revision
    }
}

/// Every change of a type of resource after a revision, in order.
pub struct Watch<T> {
    client: Client,
    path: String,
    selector: Option<String>,
    /// Everything up to here was handed out.
    from: Revision,
    /// `None` while the connection is lost.
    lines: Option<Lines>,
    of: PhantomData<T>,
}

impl<T: DeserializeOwned + Revised> Watch<T> {
    pub(super) async fn open(client: Client, path: String, selector: Option<String>, from: Revision) -> Result<Self, ClientError> {
        let mut watch = Self { client, path, selector, from, lines: None, of: PhantomData };
        watch.lines = Some(watch.connect().await?);
        Ok(watch)
    }

    /// The next change. Comes back after a lost connection for up to a minute. [`crate::ErrorCode::Expired`]: list again and watch from there.
    pub async fn next(&mut self) -> Result<WatchEvent<T>, ClientError> {
        loop {
            let lines = match &mut self.lines {
                Some(lines) => lines,
                None => {
                    let resumed = self.resume().await?;
                    self.lines.insert(resumed)
                }
            };
            match lines.next().await {
                Ok(Some(line)) => return self.read(&line),
                Ok(None) => self.lines = None,
                Err(error) if error.is_retryable() => self.lines = None,
                Err(error) => return Err(error),
            }
        }
    }

    fn read(&mut self, line: &[u8]) -> Result<WatchEvent<T>, ClientError> {
        let event: WatchEvent<T> = serde_json::from_slice(line).map_err(|error| ClientError::Protocol {
            leader: self.client.leader().clone(),
            problem: format!("a line of a watch: {error}"),
        })?;
        let revision = match &event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => object.revision(),
            WatchEvent::Bookmark(bookmark) => bookmark.revision,
        };
        self.from = self.from.max(revision);
        Ok(event)
    }

    // `&mut` though nothing changes: a connection can be sent to another thread and not shared, and so can a watch that waits here.
    async fn connect(&mut self) -> Result<Lines, ClientError> {
        let query = ListQuery { selector: self.selector.clone(), watch: true, from: Some(self.from), ..ListQuery::default() };
        let answer = self.client.stream(&self.path, &query).await?;
        Ok(Lines { client: self.client.clone(), answer, buffer: BytesMut::new() })
    }

    async fn resume(&mut self) -> Result<Lines, ClientError> {
        let until = Instant::now() + RESUME_LIMIT;
        let leader = self.client.leader().clone();
        let mut pause = FIRST_PAUSE;
        loop {
            // A leader that accepts and hangs up at once must not be asked in a tight loop: the pause comes first.
            sleep(pause.mul_f64(rand::random_range(0.8..1.2))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            let late = || ClientError::TimedOut { leader: leader.clone(), limit: RESUME_LIMIT };
            match timeout_at(until, self.connect()).await.unwrap_or_else(|_| Err(late())) {
                Ok(lines) => return Ok(lines),
                Err(error) if error.is_retryable() && Instant::now() < until => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A body as lines.
struct Lines {
    client: Client,
    answer: Answer,
    buffer: BytesMut,
}

impl Lines {
    /// The next line that isn't empty; `None` when the server ended the stream. A line that was cut is dropped: it comes again after the resume.
    async fn next(&mut self) -> Result<Option<BytesMut>, ClientError> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer[searched..].iter().position(|&b| b == b'\n') {
                let line = self.buffer.split_to(searched + end);
                self.buffer.advance(1);
                searched = 0;
                if line.is_empty() {
                    continue;
                }
                return Ok(Some(line));
            }
            searched = self.buffer.len();
            if searched > MAX_LINE {
                let problem = format!("a line of a watch of more than {MAX_LINE} bytes");
                return Err(ClientError::Protocol { leader: self.client.leader().clone(), problem });
            }
            match self.answer.piece().await? {
                Some(piece) => self.buffer.extend_from_slice(&piece),
                None => return Ok(None),
            }
        }
    }
}

//! A container's log, as lines.

use futures::FutureExt;
use futures::stream::{self, BoxStream, StreamExt};

use super::{Docker, escaped, streams};
use crate::follower::runtime::demux::LogLines;
use crate::follower::runtime::{CALL_TIMEOUT, ContainerId, LogBatch, LogLine, LogRequest, Runtime, RuntimeError};

const READ_LOG: &str = "read the log";

/// About so many bytes of a log are read at once, if they are there.
const LOG_BATCH: usize = 64 * 1024;

/// Reads it, and what comes if that is asked for.
pub(super) async fn open(docker: &Docker, id: &ContainerId, request: &LogRequest) -> Result<BoxStream<'static, LogBatch>, RuntimeError> {
    let container = docker.inspect(id).await?.ok_or(RuntimeError::Gone)?;
    let (times, follow) = (u8::from(request.times), u8::from(request.follow));
    let mut target = format!("/containers/{}/logs?stdout=1&stderr=1&timestamps={times}&follow={follow}", escaped(&id.0));
    if let Some(tail) = request.tail {
        target.push_str(&format!("&tail={tail}"));
    }
    if let Some(since) = request.since {
        target.push_str(&format!("&since={}.{:09}", since.as_second().max(0), since.subsec_nanosecond().max(0)));
    }
    let body = streams::get(docker.socket(), READ_LOG, &target).await?;
    let log = Log { body, lines: LogLines::new(container.tty, request.times), follow: request.follow, end: None };
    let batches = stream::unfold(Box::new(log), async |mut log| log.next().await.map(|batch| (batch, log)));
    Ok(batches.boxed())
}

/// A log on its way.
struct Log {
    body: streams::LongBody,
    lines: LogLines,
    follow: bool,
    /// How it ended: there is nothing more to read.
    end: Option<Result<(), RuntimeError>>,
}

impl Log {
    /// The lines that are ready together; none at the end. A problem is told after the lines before it, and is the last.
    async fn next(&mut self) -> Option<LogBatch> {
        let mut ready = Vec::new();
        while ready.is_empty() && self.end.is_none() {
            // A log that is followed may be silent for days; one that is only read may not.
            let mut chunk = if self.follow { self.body.next().await } else { self.body.next_within(CALL_TIMEOUT).await };
            let mut bytes = 0;
            // Docker sends each line as a chunk of its own.
            loop {
                bytes += chunk.as_ref().ok().and_then(Option::as_ref).map_or(0, bytes::Bytes::len);
                self.take(chunk, &mut ready);
                if self.end.is_some() || bytes >= LOG_BATCH {
                    break;
                }
                // Polled with no one to wake: the `await` above asks again and registers.
                match self.body.next().now_or_never() {
                    Some(next) => chunk = next,
                    None => break,
                }
            }
        }
        if !ready.is_empty() {
            return Some(Ok(ready));
        }
        self.end.replace(Ok(()))?.err().map(Err)
    }

    fn take(&mut self, chunk: Result<Option<bytes::Bytes>, RuntimeError>, ready: &mut Vec<LogLine>) {
        let whole = match chunk {
            Ok(Some(chunk)) => {
                self.lines.push(&chunk);
                std::iter::from_fn(|| self.lines.next().transpose()).try_for_each(|line| line.map(|line| ready.push(line)))
            }
            Ok(None) => {
                self.end = Some(Ok(()));
                std::iter::from_fn(|| self.lines.end().transpose()).try_for_each(|line| line.map(|line| ready.push(line)))
            }
            Err(error) => {
                self.end = Some(Err(error));
                Ok(())
            }
        };
        if let Err(broken) = whole {
            self.end = Some(Err(RuntimeError::Unavailable { operation: READ_LOG, problem: broken.to_string() }));
        }
    }
}

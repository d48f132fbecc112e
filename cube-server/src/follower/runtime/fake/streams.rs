//! The answers that go on for long: hints and logs. Both break when the engine goes down.

use std::time::Duration;

use cube_api::meta::Uid;
use futures::stream::{self, BoxStream, StreamExt};

use super::Fake;
use super::calls::{About, Order, unavailable};
use super::desk::Operation;
use super::world::World;
use crate::follower::runtime::{ContainerId, Hint, LogBatch, LogLine, LogRequest, RuntimeError, Scope};

/// The most lines that are handed over together.
const BATCH: u64 = 256;

pub(super) async fn hints(fake: &Fake, scope: &Scope) -> Result<BoxStream<'static, Hint>, RuntimeError> {
    let open = |world: &mut World, _| Ok((world.hinted(), world.outages));
    let (from, outages) = fake.call(Order::new(Operation::Hints, About::Engine), open).await?;
    let (fake, scope) = (fake.clone(), scope.clone());
    let hints = stream::unfold(from, move |from| {
        let (fake, scope) = (fake.clone(), scope.clone());
        async move { next_hint(&fake, &scope, from, outages).await.map(|(uid, next)| (Hint { uid }, next)) }
    });
    Ok(hints.boxed())
}

async fn next_hint(fake: &Fake, scope: &Scope, from: u64, outages: u64) -> Option<(Uid, u64)> {
    loop {
        let news = fake.news.notified();
        let (found, broken) = {
            let (world, _) = fake.settled();
            (world.hint_from(scope, from), world.outages != outages)
        };
        match found {
            Some(found) => return Some(found),
            None if broken => return None,
            None => fake.wait(news, None).await,
        }
    }
}

/// A log that is being read.
struct Reader {
    fake: Fake,
    id: ContainerId,
    request: LogRequest,
    next: u64,
    /// Where it ends, unless it is followed.
    until: u64,
    outages: u64,
}

/// What there is to read now.
enum Found {
    Lines(Vec<LogLine>),
    /// Nothing yet, and when the next line comes if that is known.
    Later(Option<Duration>),
    End,
    Broken,
}

pub(super) async fn logs(fake: &Fake, id: &ContainerId, request: &LogRequest) -> Result<BoxStream<'static, LogBatch>, RuntimeError> {
    let (wanted, since, tail) = (id.clone(), request.since, request.tail);
    let open = move |world: &mut World, at: super::Moment| {
        let log = &world.containers.get(&wanted).ok_or(RuntimeError::Gone)?.log;
        let until = log.length(at.elapsed);
        let first = since.map_or(0, |since| log.first_since(since, at.elapsed));
        Ok((tail.map_or(first, |tail| first.max(until.saturating_sub(tail))), until, world.outages))
    };
    let (next, until, outages) = fake.call(Order::new(Operation::Logs, About::Container(id)), open).await?;
    let reader = Reader { fake: fake.clone(), id: id.clone(), request: request.clone(), next, until, outages };
    let batches = stream::unfold(Some(reader), async |reader| {
        let mut reader = reader?;
        let batch = reader.batch().await?;
        let next = batch.is_ok().then_some(reader);
        Some((batch, next))
    });
    Ok(batches.boxed())
}

impl Reader {
    async fn batch(&mut self) -> Option<LogBatch> {
        let fake = self.fake.clone();
        loop {
            let news = fake.news.notified();
            match self.look() {
                Found::Lines(lines) => {
                    self.next += lines.len() as u64;
                    return Some(Ok(lines));
                }
                Found::Later(at) => fake.wait(news, at).await,
                Found::End => return None,
                Found::Broken => return Some(Err(unavailable("the engine went down"))),
            }
        }
    }

    fn look(&self) -> Found {
        let (world, now) = self.fake.settled();
        if world.outages != self.outages {
            return Found::Broken;
        }
        let Some(container) = world.containers.get(&self.id) else { return Found::End };
        let length = container.log.length(now.elapsed);
        let end = if self.request.follow { length } else { self.until.min(length) };
        let numbers = self.next..end.min(self.next + BATCH);
        let lines = numbers.filter_map(|number| container.log.line(number, now.elapsed));
        let lines: Vec<_> = lines.map(|line| LogLine { at: line.at.filter(|_| self.request.times), ..line }).collect();
        match lines.is_empty() {
            false => Found::Lines(lines),
            true if self.request.follow && container.is_live() => Found::Later(container.log.grows_at(now.elapsed)),
            true => Found::End,
        }
    }
}

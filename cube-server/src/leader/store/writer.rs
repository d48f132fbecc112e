//! The one writer: it owns the connection, takes what is waiting in a lane (`lanes.rs`), and commits it in one transaction.
//!
//! Each operation has a savepoint, so that a refusal or a failure of one leaves the others of its batch alone. Answers go out after the commit;
//! if that fails, everyone hears so and the state in memory goes back. A batch that finds the disk full is written again with room out of the
//! reserve (`sqlite/room.rs`), so that deletes and reports go on; what people ask for that needs room is refused by [`super::Store`] meanwhile.

use std::sync::Arc;
use std::time::Duration;

use cube_api::ApiError;
use cube_api::meta::{ClusterId, Revision};
use jiff::Timestamp;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::draft::Draft;
use super::lanes::{Lanes, Queued, Turn};
use super::metrics::StoreMetrics;
use super::space::{self, Space};
use super::state::{State, Write};
use super::templates::Templates;
use super::watch::{Published, bytes_of};
use super::{StoreError, events, rows};
use crate::ambient::Ambient;
use crate::{blocking, latest};

/// A commit takes no more operations once it has so many rows, at some 10 us each: a bound on how long its first waits for its last, and on how long
/// a person's single request waits for the commit before it.
const ENOUGH_ROWS: usize = 512;
/// Nor more operations than this, each of which may have none.
const MOST_OPERATIONS: usize = 256;

/// How often the disk's room is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The largest batch, in bytes of its rows, that the reserve helps to write: a piece of it has 2 MiB, and a row is written twice (WAL, database).
const RESCUED_BYTES: usize = 1 << 20;

/// What an operation that isn't refused comes to.
pub(super) enum Outcome<T> {
    /// Commit its writes, then answer.
    Keep(T),
    /// Take its writes back, then answer: a dry run.
    Discard(T),
}

/// Waits for the writer.
pub(super) enum Work {
    /// An operation on the state.
    Decide(Job),
    /// Forget events that were last seen before `oldest`, and those over their number.
    CollectGarbage { oldest: Timestamp, answer: oneshot::Sender<Result<usize, StoreError>> },
}

/// An operation whose answer has a type that the writer needn't know.
pub(super) struct Job {
    operation: &'static str,
    decide: Box<dyn FnOnce(&mut Draft<'_>) -> Decided + Send>,
}

/// A job that has been decided.
struct Decided {
    keeps: bool,
    answer: Answer,
}

/// Answers whoever asked; with the error if it couldn't be committed.
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

impl Job {
    pub(super) fn new<T: Send + 'static>(
        operation: &'static str,
        decide: impl FnOnce(&mut Draft<'_>) -> Result<Outcome<T>, ApiError> + Send + 'static,
        answer: oneshot::Sender<Result<T, StoreError>>,
    ) -> Self {
        let decide = Box::new(move |draft: &mut Draft<'_>| {
            let (keeps, result) = match decide(draft) {
                Ok(Outcome::Keep(value)) => (true, Ok(value)),
                Ok(Outcome::Discard(value)) => (false, Ok(value)),
                Err(refusal) => (false, Err(StoreError::Refused(refusal))),
            };
            Decided { keeps, answer: answer_with(answer, result) }
        });
        Self { operation, decide }
    }
}

fn answer_with<T: Send + 'static>(answer: oneshot::Sender<Result<T, StoreError>>, result: Result<T, StoreError>) -> Answer {
    Box::new(move |committed| {
        // Whoever asked may have gone: the write stands all the same.
        drop(answer.send(committed.and(result)));
    })
}

/// The writer's own things. It moves to a blocking thread for each batch and back.
pub(super) struct Writer {
    pub(super) connection: Connection,
    /// Ahead of the published one while a transaction is open, equal to it in between.
    pub(super) state: State,
    pub(super) ambient: Ambient,
    pub(super) cluster_id: ClusterId,
    pub(super) published: Arc<Published>,
    pub(super) moved: latest::Sender<Revision>,
    pub(super) space: Space,
    pub(super) metrics: StoreMetrics,
    pub(super) templates: Templates,
    /// Since the old ones were last forgotten for their number, which was at this revision.
    pub(super) new_events: usize,
    pub(super) events_bounded_at: Revision,
}

impl Writer {
    /// Runs until it is told to stop or every handle is gone; then it finishes what is queued and closes the database.
    pub(super) async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Queued>, stopping: CancellationToken) {
        let mut look = tokio::time::interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lanes = Lanes::default();
        loop {
            let mut looks = false;
            // All are cancel-safe: recv takes nothing out unless it is the one that ends.
            tokio::select! {
                biased;
                () = stopping.cancelled(), if !queue.is_closed() => {
                    queue.close();
                    continue;
                }
                _ = look.tick() => looks = true,
                queued = queue.recv() => match queued {
                    Some(queued) => lanes.push(queued),
                    None if lanes.is_empty() => break,
                    None => {}
                },
                () = std::future::ready(()), if !lanes.is_empty() => {}
            }
            while let Ok(queued) = queue.try_recv() {
                lanes.push(queued);
            }
            (self, lanes) = blocking::run(move || {
                if looks {
                    self.look_for_room();
                } else if let Some(turn) = lanes.next() {
                    self.commit(turn);
                    self.bound_events();
                }
                self.tell_room();
                (self, lanes)
            })
            .await;
        }
        blocking::run(move || self.close()).await;
    }

    /// Events are bounded by their number, too, and not only once an hour: a loop of applies makes millions in that time.
    fn bound_events(&mut self) {
        if self.new_events < events::LOOKED_AT_AFTER {
            return;
        }
        self.new_events = 0;
        let since = std::mem::replace(&mut self.events_bounded_at, self.state.revision);
        let most = events::kept_in_all(self.state.pods.len());
        if let Err(error) = self.alone("forget old events", |inside| events::forget_some(inside, since, most)) {
            tracing::warn!(error = cube_api::error::chain(&error), "old events stay for now");
        }
    }

    /// Commits what is in a lane, as far as it goes into one commit.
    fn commit(&mut self, turn: Turn<'_>) {
        let mut garbage = Vec::new();
        let jobs = turn.filter_map(|work| match work {
            Work::Decide(job) => Some(job),
            Work::CollectGarbage { oldest, answer } => {
                garbage.push((oldest, answer));
                None
            }
        });
        self.commit_jobs(jobs);
        for (oldest, answer) in garbage {
            let most = events::kept_in_all(self.state.pods.len());
            let forgotten = self.alone("forget old events", |inside| events::forget(inside, oldest, most));
            answer_with(answer, forgotten)(Ok(()));
        }
    }

    fn commit_jobs(&mut self, jobs: impl Iterator<Item = Job>) {
        let (start, began) = (self.state.revision, Instant::now());
        let (committed, answers) = self.transact(jobs);
        if answers.is_empty() {
            return;
        }
        match &committed {
            Ok(done) => {
                self.metrics.committed(answers.len(), began.elapsed());
                let events = done.iter().flat_map(|(writes, _)| writes).filter(|write| matches!(write, Write::Event(_)));
                self.new_events += events.count();
            }
            // Of a full disk the log says so once.
            Err(error) if self.space.room.is_short() => tracing::debug!(%error, "a commit failed: nothing of it is kept"),
            Err(error) => tracing::error!(%error, "a commit failed: nothing of it is kept"),
        }
        let committed = committed.map(|done| {
            for (writes, revision) in done {
                self.published.follow(revision, writes);
            }
            if self.state.revision > start {
                self.moved.send_replace(self.state.revision);
            }
        });
        for answer in answers {
            answer(committed.as_ref().copied().map_err(|error| self.space.failure("commit", same(error))));
        }
    }

    /// The writes, if they are committed, and everyone who waits for an answer.
    fn transact(&mut self, jobs: impl Iterator<Item = Job>) -> (rusqlite::Result<Vec<Done>>, Vec<Answer>) {
        let start = self.state.revision;
        let (done, answers, stored) = self.decide_and_write(jobs);
        let stored = stored.or_else(|error| self.write_with_reserve(error, &done));
        match stored {
            Ok(()) => (Ok(done), answers),
            Err(source) => {
                take_back(&mut self.state, done.into_iter().flat_map(|(writes, _)| writes).collect(), start);
                (Err(source), answers)
            }
        }
    }

    /// Decides each job, on what those before it did, and writes it. From the first that finds no room on they are only decided: SQLite
    /// may have ended the transaction.
    fn decide_and_write(&mut self, jobs: impl Iterator<Item = Job>) -> (Vec<Done>, Vec<Answer>, rusqlite::Result<()>) {
        let Self { connection, state, templates, ambient, cluster_id, space, .. } = self;
        space.room.limit_pages(connection);
        let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let (mut done, mut rows, mut answers, mut lacking) = (Vec::<Done>::new(), 0, Vec::new(), None);
        let mut jobs = jobs;
        // The bounds come first: what is taken out of a lane is decided.
        while rows < ENOUGH_ROWS && answers.len() < MOST_OPERATIONS {
            let Some(job) = jobs.next() else { break };
            let before = state.revision;
            let mut draft = Draft::new(state, templates, ambient, *cluster_id);
            let decided = (job.decide)(&mut draft);
            let own = draft.into_writes();
            if !decided.keeps {
                take_back(state, own, before);
                answers.push(decided.answer);
                continue;
            }
            let stored = if lacking.is_none() { in_savepoint(&mut transaction, |inside| rows::write(inside, &own)) } else { Ok(()) };
            match stored {
                Ok(()) => {}
                Err(source) if space.room.is_lacking(&source) => lacking = Some(source),
                Err(source) => {
                    take_back(state, own, before);
                    answers.push(fail(decided.answer, StoreError::Sqlite { operation: job.operation, source }));
                    continue;
                }
            }
            rows += own.len();
            done.push((own, state.revision));
            answers.push(decided.answer);
        }
        let stored = match lacking {
            Some(error) => Err(error),
            None => finish(transaction, state.revision),
        };
        (done, answers, stored)
    }

    /// Writes a batch that found no room once more, with the reserve's help. A large one must not use the reserve up: it fails, and those
    /// who asked for something new are refused before they wait here from then on.
    fn write_with_reserve(&mut self, error: rusqlite::Error, done: &[Done]) -> rusqlite::Result<()> {
        let Self { connection, state, space: Space { room, .. }, .. } = self;
        if !room.is_lacking(&error) {
            return Err(error);
        }
        if done.iter().map(|(writes, _)| bytes_of(writes)).sum::<usize>() > RESCUED_BYTES {
            room.give_piece();
            return Err(error);
        }
        room.again(
            error,
            |error| room.is_lacking(error),
            || {
                room.make_ready(connection);
                let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate);
                in_savepoint(&mut transaction, |inside| done.iter().try_for_each(|(writes, _)| rows::write(inside, writes)))?;
                finish(transaction, state.revision)
            },
        )
    }

    /// Statements in a transaction of their own.
    fn alone<T>(
        &mut self,
        operation: &'static str,
        mut statements: impl FnMut(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let Self { connection, space, .. } = self;
        let done = space.room.with_reserve(
            |error| space.room.is_lacking(error),
            || {
                space.room.make_ready(connection);
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let done = statements(&transaction)?;
                transaction.commit().map(|()| done)
            },
        );
        done.map_err(|source| space.failure(operation, source))
    }

    /// Takes the reserve back if there is room for it; if there is none, old events make some within the database.
    fn look_for_room(&mut self) {
        self.space.room.look();
        if !self.space.room.is_short() {
            return;
        }
        let forgotten = match self.alone("count free pages", space::has_free_pages) {
            Ok(true) => Ok(0),
            Ok(false) => self.alone("forget events to make room", events::forget_oldest),
            Err(error) => Err(error),
        };
        match forgotten {
            Ok(0) => {}
            Ok(forgotten) => tracing::info!(forgotten, "the oldest events were forgotten: the disk is full"),
            Err(error) => tracing::warn!(error = cube_api::error::chain(&error), "no room can be made in the database"),
        }
    }

    /// Notes a change of the disk's room with the leader's own node.
    fn tell_room(&mut self) {
        let short = self.space.room.is_short();
        if short == self.space.told {
            return;
        }
        self.space.told = short;
        let remedy = self.space.room.remedy();
        let (unheard, _) = oneshot::channel();
        let tell = move |draft: &mut Draft<'_>| {
            space::tell(draft, short, &remedy);
            Ok(Outcome::Keep(()))
        };
        self.commit_jobs(std::iter::once(Job::new("note the disk's room", tell, unheard)));
    }

    /// Brings the WAL into the database file, so that a copy of that file alone is whole.
    fn close(self) {
        if let Err(error) = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            tracing::warn!(%error, "the store's WAL couldn't be brought into its file: it stays beside it, and nothing is lost");
        }
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(%error, "the store's database didn't close cleanly: nothing is lost");
        }
    }
}

/// What an operation wrote, and the revision after it.
type Done = (Vec<Write>, Revision);

/// A transaction, or why there is none.
type Begun<'a> = rusqlite::Result<Transaction<'a>>;

/// Runs statements so that they all hold or none do.
fn in_savepoint<T>(begun: &mut Begun<'_>, statements: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let transaction = begun.as_mut().map_err(|error| same(error))?;
    still_open(transaction)?;
    let savepoint = transaction.savepoint()?;
    let done = statements(&savepoint)?;
    savepoint.commit()?;
    Ok(done)
}

fn finish(begun: Begun<'_>, revision: Revision) -> rusqlite::Result<()> {
    let transaction = begun?;
    still_open(&transaction)?;
    rows::put_revision(&transaction, revision)?;
    transaction.commit()
}

/// A full disk or an I/O error may end the whole transaction, with what was written before. A savepoint after that would quietly be a
/// transaction of its own.
fn still_open(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    if !transaction.is_autocommit() {
        return Ok(());
    }
    let message = "an earlier failure ended the transaction".to_owned();
    Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT_ROLLBACK), Some(message)))
}

fn take_back(state: &mut State, writes: Vec<Write>, revision: Revision) {
    for write in writes.into_iter().rev() {
        state.undo(write);
    }
    state.revision = revision;
}

fn fail(answer: Answer, error: StoreError) -> Answer {
    Box::new(move |committed| answer(committed.and(Err(error))))
}

/// SQLite's errors can't be cloned; everyone in a batch is told the same.
fn same(error: &rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, message) => rusqlite::Error::SqliteFailure(*code, message.clone()),
        other => rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR), Some(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_after_sqlite_itself_ended_the_transaction() {
        let mut connection = Connection::open_in_memory().expect("a database");
        connection.execute_batch("CREATE TABLE pods (name TEXT); CREATE TABLE meta (revision INTEGER)").expect("tables");
        let insert = |inside: &Connection| inside.execute("INSERT INTO pods VALUES ('web')", []);
        let mut begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        assert!(in_savepoint(&mut begun, insert).is_ok());
        // As on a full disk: the statement fails, and the transaction is gone.
        let full = |inside: &Connection| {
            inside.execute_batch("ROLLBACK")?;
            Err::<(), _>(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None))
        };
        assert!(in_savepoint(&mut begun, full).is_err());
        assert!(in_savepoint(&mut begun, insert).is_err(), "a savepoint of its own would be a commit of its own");
        assert!(finish(begun, Revision(1)).is_err(), "whoever wrote before hears that it is lost");
        let rows: i64 = connection.query_row("SELECT count(*) FROM pods", [], |row| row.get(0)).expect("a count");
        assert_eq!(rows, 0);
    }
}

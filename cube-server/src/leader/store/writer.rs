//! The one writer: it owns the connection, takes what is waiting, and commits it in one transaction.
//!
//! Each operation has a savepoint, so that a refusal or a failure of one leaves the others of its batch alone. Answers go out after the commit;
//! if that fails, everyone hears so and the state in memory goes back.

use std::sync::Arc;

use cube_api::ApiError;
use cube_api::meta::{ClusterId, Revision};
use jiff::Timestamp;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot, watch as latest};
use tokio_util::sync::CancellationToken;

use super::draft::Draft;
use super::state::{State, Write};
use super::watch::Published;
use super::{StoreError, events, rows};
use crate::ambient::Ambient;
use crate::blocking;

/// The most operations in one commit: a bound on how long the first of them waits for the last.
const BATCH: usize = 256;

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
    connection: Connection,
    /// Ahead of the published one while a transaction is open, equal to it in between.
    state: State,
    ambient: Ambient,
    cluster_id: ClusterId,
    published: Arc<Published>,
    moved: latest::Sender<Revision>,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        state: State,
        ambient: Ambient,
        cluster_id: ClusterId,
        published: Arc<Published>,
        moved: latest::Sender<Revision>,
    ) -> Self {
        Self { connection, state, ambient, cluster_id, published, moved }
    }

    /// Runs until it is told to stop or every handle is gone; then it finishes what is queued and closes the database.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Work>, stopping: CancellationToken) {
        loop {
            let mut batch = Vec::with_capacity(BATCH);
            // Both are cancel-safe: recv_many takes nothing out unless it is the one that ends.
            tokio::select! {
                biased;
                () = stopping.cancelled(), if !queue.is_closed() => {
                    queue.close();
                    continue;
                }
                taken = queue.recv_many(&mut batch, BATCH) => if taken == 0 { break },
            }
            self = blocking::run(move || {
                self.commit(batch);
                self
            })
            .await;
        }
        blocking::run(move || self.close()).await;
    }

    fn commit(&mut self, batch: Vec<Work>) {
        let start = self.state.revision;
        let (committed, answers) = self.transact(batch);
        let committed = committed.map(|writes| {
            let revision = self.state.revision;
            self.published.follow(revision, writes);
            if revision > start {
                self.moved.send_replace(revision);
            }
        });
        for answer in answers {
            answer(committed.as_ref().copied().map_err(|error| StoreError::Sqlite { operation: "commit", source: same(error) }));
        }
    }

    /// The writes, if they are committed, and everyone who waits for an answer.
    fn transact(&mut self, batch: Vec<Work>) -> (rusqlite::Result<Vec<Write>>, Vec<Answer>) {
        let start = self.state.revision;
        let Self { connection, state, ambient, cluster_id, .. } = self;
        let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let mut writes = Vec::new();
        let mut answers = Vec::new();
        for work in batch {
            let before = state.revision;
            match work {
                Work::Decide(job) => {
                    let mut draft = Draft::new(state, ambient, *cluster_id);
                    let decided = (job.decide)(&mut draft);
                    let own = draft.into_writes();
                    let stored = if decided.keeps { in_savepoint(&mut transaction, |inside| rows::write(inside, &own)) } else { Ok(()) };
                    if decided.keeps && stored.is_ok() {
                        writes.extend(own);
                    } else {
                        take_back(state, own, before);
                    }
                    answers.push(match stored {
                        Ok(()) => decided.answer,
                        Err(source) => fail(decided.answer, StoreError::Sqlite { operation: job.operation, source }),
                    });
                }
                Work::CollectGarbage { oldest, answer } => {
                    let forgotten = in_savepoint(&mut transaction, |inside| events::forget(inside, oldest));
                    let result = forgotten.map_err(|source| StoreError::Sqlite { operation: "forget old events", source });
                    answers.push(answer_with(answer, result));
                }
            }
        }
        match finish(transaction, state.revision) {
            Ok(()) => (Ok(writes), answers),
            Err(source) => {
                tracing::error!(error = %source, "a commit failed: nothing of it is kept");
                take_back(state, writes, start);
                (Err(source), answers)
            }
        }
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

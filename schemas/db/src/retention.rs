//! What the store keeps for a time only: stored answers, sent messages, events that all consumers have read. Usage,
//! charges, ledger, files and audit are kept.

use std::convert::Infallible;

use model::time::Timestamp;

use crate::error::{DbError, WriteError};
use crate::store::Db;
use crate::{change, cursor, feed, outbox};

/// What was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Stored answers of idempotency keys.
    pub answers: u64,
    /// Messages that were sent or given up.
    pub messages: u64,
    /// Events of the feed.
    pub events: u64,
}

/// Deletes stored answers older than `answers_before`; messages that were sent or given up, and events that
/// `consumers` and whoever else has a cursor have read, both older than `before`.
///
/// # Errors
/// When the database fails.
pub async fn prune(
    db: &Db,
    consumers: &[&str],
    answers_before: Timestamp,
    before: Timestamp,
) -> Result<Pruned, DbError> {
    let read_by_all = cursor::slowest(db, feed::SOURCE, consumers).await?.sequence;
    let written = db.write::<_, Infallible, _>(move |tx| {
        Box::pin(async move {
            Ok(Pruned {
                answers: change::forget_answers(tx, answers_before).await?,
                messages: outbox::prune(tx, before).await?,
                events: feed::prune(tx, read_by_all, before).await?,
            })
        })
    });
    match written.await {
        Ok(pruned) => Ok(pruned),
        Err(WriteError::Db(error)) => Err(error),
        Err(WriteError::Refused(never)) => match never {},
    }
}

//! The store's feed: what happened in the store, one dense sequence in commit order.

use model::event::store::StoreEvent;
use model::time::Timestamp;

use crate::counter;
use crate::error::DbError;
use crate::store::{Db, Tx};

/// The source of the feed in [`crate::cursor`]; its epoch is always 0.
pub const SOURCE: &str = "event";
/// Most records of one read: a batch whose effects fit a short transaction.
pub const READ_MAX: u32 = 1_000;

const INSERT: &str = "INSERT INTO event (sequence, at, kind, path, payload) VALUES ($1, $2, $3, $4, $5)";
const READ: &str = "SELECT sequence, at, kind, payload FROM event WHERE sequence > $1 ORDER BY sequence LIMIT $2";
const HEAD: &str = "SELECT value FROM counter WHERE name = 'event'";
/// Up to the first event that is young, so that what is kept has no hole.
const PRUNE: &str = "DELETE FROM event WHERE sequence <= $1 AND sequence < COALESCE(\
    (SELECT young.sequence FROM event AS young WHERE young.at >= $2 ORDER BY young.sequence LIMIT 1), \
    9223372036854775807)";
pub(crate) const ALL: &[&str] = &[INSERT, READ, HEAD, PRUNE];

/// One event with its place in the feed.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedRecord {
    /// Dense from 1.
    pub sequence: i64,
    /// When it was committed, by the clock of the node that did.
    pub at: Timestamp,
    /// The event.
    pub event: StoreEvent,
}

/// Why the feed could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The next event is of a kind or shape that this version of the program does not know. The consumer stops
    /// before it: skipping would lose its effects.
    #[error("event {sequence} of kind {kind} is not understood: {detail}")]
    Unreadable {
        /// Its place.
        sequence: i64,
        /// Its kind, as stored.
        kind: String,
        /// What the decoder says.
        detail: String,
    },
}

/// Appends an event. The counter row of the feed stays locked until the transaction ends: call it last.
///
/// # Errors
/// When the database fails.
pub async fn append(tx: &mut Tx, at: Timestamp, event: &StoreEvent) -> Result<i64, DbError> {
    let payload = serde_json::to_string(event).map_err(|e| DbError::corrupt("event.payload", e))?;
    let path = event.path().map(model::tenancy::AccountPath::as_str);
    let sequence = counter::next_range(tx, counter::EVENT, 1).await?;
    crate::on_tx!(tx, c => sqlx::query(INSERT)
        .bind(sequence).bind(at.0).bind(event.kind()).bind(path).bind(payload)
        .execute(c).await.map(|_| ()))?;
    Ok(sequence)
}

/// Reads at most `limit` (and [`READ_MAX`]) events after `sequence`, in order.
///
/// # Errors
/// [`FeedError::Unreadable`] when the very next event is not understood; a later one ends the batch before it.
pub async fn read_after(db: &Db, sequence: i64, limit: u32) -> Result<Vec<FeedRecord>, FeedError> {
    let limit = i64::from(limit.min(READ_MAX));
    let rows: Vec<(i64, i64, String, String)> =
        crate::on_db!(db, c => sqlx::query_as(READ).bind(sequence).bind(limit).fetch_all(c).await)
            .map_err(DbError::from)?;
    let mut records = Vec::with_capacity(rows.len());
    for (sequence, at, kind, payload) in rows {
        match serde_json::from_str(&payload) {
            Ok(event) => records.push(FeedRecord { sequence, at: Timestamp(at), event }),
            Err(_) if !records.is_empty() => break,
            Err(error) => return Err(FeedError::Unreadable { sequence, kind, detail: error.to_string() }),
        }
    }
    Ok(records)
}

/// Deletes events up to `sequence` that are older than `before`; gives how many.
///
/// # Errors
/// When the database fails.
pub async fn prune(tx: &mut Tx, sequence: i64, before: Timestamp) -> Result<u64, DbError> {
    Ok(crate::on_tx!(tx, c => sqlx::query(PRUNE).bind(sequence).bind(before.0).execute(c).await
        .map(|done| done.rows_affected()))?)
}

/// The sequence of the newest event; 0 when there is none.
///
/// # Errors
/// When the database fails.
pub async fn head(db: &Db) -> Result<i64, DbError> {
    Ok(crate::on_db!(db, c => sqlx::query_scalar(HEAD).fetch_one(c).await)?)
}

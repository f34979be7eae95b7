//! How far a consumer has read a feed, committed with the effects of what it read.

use std::fmt;

use model::time::Timestamp;
use sqlx::AssertSqlSafe;

use crate::error::DbError;
use crate::store::{Db, Tx};

const LOAD: &str = "SELECT epoch, sequence FROM consumer_cursor WHERE consumer = $1 AND source = $2";
const INSERT: &str = "INSERT INTO consumer_cursor (consumer, source, epoch, sequence, updated_at) \
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT (consumer, source) DO NOTHING";
const UPDATE: &str = "UPDATE consumer_cursor SET epoch = $3, sequence = $4, updated_at = $5 \
    WHERE consumer = $1 AND source = $2 AND epoch = $6 AND sequence = $7";
const OF_SOURCE: &str = "SELECT consumer, epoch, sequence FROM consumer_cursor WHERE source = $1 ORDER BY consumer";
pub(crate) const ALL: &[&str] = &[LOAD, INSERT, UPDATE, OF_SOURCE];

/// A place in a feed: the record last read. The begin of all feeds is `(0, 0)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The epoch of a journal; 0 in the feed of the store.
    pub epoch: i64,
    /// The sequence in the epoch.
    pub sequence: i64,
}

impl Position {
    /// Before the first record.
    pub const START: Self = Self { epoch: 0, sequence: 0 };

    /// A position.
    #[must_use]
    pub const fn new(epoch: i64, sequence: i64) -> Self {
        Self { epoch, sequence }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.sequence)
    }
}

/// The source that names the journal of a node.
#[must_use]
pub fn journal_source(node: &str) -> String {
    format!("journal:{node}")
}

/// Where `consumer` stands in `source`; [`Position::START`] when it never read. In a write transaction the row is
/// locked, so that a second worker of the same consumer waits.
///
/// # Errors
/// When the database fails.
pub async fn load(tx: &mut Tx, consumer: &str, source: &str) -> Result<Position, DbError> {
    let sql = format!("{LOAD}{}", tx.lock_clause());
    let row: Option<(i64, i64)> = crate::on_tx!(tx, c => sqlx::query_as(AssertSqlSafe(sql))
        .bind(consumer).bind(source).fetch_optional(c).await)?;
    Ok(row.map_or(Position::START, |(epoch, sequence)| Position { epoch, sequence }))
}

/// As [`load`], outside a transaction: for a start, a lag, a status.
///
/// # Errors
/// When the database fails.
pub async fn peek(db: &Db, consumer: &str, source: &str) -> Result<Position, DbError> {
    let row: Option<(i64, i64)> =
        crate::on_db!(db, c => sqlx::query_as(LOAD).bind(consumer).bind(source).fetch_optional(c).await)?;
    Ok(row.map_or(Position::START, |(epoch, sequence)| Position { epoch, sequence }))
}

/// Every consumer that has a cursor in `source`, by name, with where it stands.
///
/// # Errors
/// When the database fails.
pub async fn list(db: &Db, source: &str) -> Result<Vec<(String, Position)>, DbError> {
    let rows: Vec<(String, i64, i64)> =
        crate::on_db!(db, c => sqlx::query_as(OF_SOURCE).bind(source).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(consumer, epoch, sequence)| (consumer, Position { epoch, sequence })).collect())
}

/// The place in `source` that all have read up to, before which a feed may be pruned: of every consumer that has a
/// cursor, and of those in `expected`, who stand at [`Position::START`] until they have committed once.
///
/// # Errors
/// When the database fails.
pub async fn slowest(db: &Db, source: &str, expected: &[&str]) -> Result<Position, DbError> {
    let cursors = list(db, source).await?;
    if expected.iter().any(|name| cursors.iter().all(|(consumer, _)| consumer != name)) {
        return Ok(Position::START);
    }
    Ok(cursors.into_iter().map(|(_, position)| position).min().unwrap_or(Position::START))
}

/// Moves a cursor from where it was read to `to`, in the transaction of the effects. What was read twice by two
/// workers is thus applied once: the second finds the cursor moved and loses its transaction.
///
/// # Errors
/// [`DbError::CursorMoved`] when it does not stand at `from`, or `to` is not after `from`.
pub async fn advance(
    tx: &mut Tx,
    consumer: &str,
    source: &str,
    from: Position,
    to: Position,
    now: Timestamp,
) -> Result<(), DbError> {
    let moved = || DbError::CursorMoved { consumer: consumer.to_owned(), feed: source.to_owned(), from, to };
    if to <= from {
        return Err(moved());
    }
    let rows = if from == Position::START {
        crate::on_tx!(tx, c => sqlx::query(INSERT)
            .bind(consumer).bind(source).bind(to.epoch).bind(to.sequence).bind(now.0)
            .execute(c).await.map(|done| done.rows_affected()))?
    } else {
        crate::on_tx!(tx, c => sqlx::query(UPDATE)
            .bind(consumer).bind(source).bind(to.epoch).bind(to.sequence).bind(now.0)
            .bind(from.epoch).bind(from.sequence)
            .execute(c).await.map(|done| done.rows_affected()))?
    };
    if rows == 1 { Ok(()) } else { Err(moved()) }
}

//! Streams of billing files.

use billing::resource::Stream;
use db::dialect::is_storable;
use db::{DbError, Tx, on_tx, statements};
use model::id::{AccountId, StreamId};
use model::page::{Page, PageRequest};
use model::tenancy::{AccountPath, Scope};
use model::time::Timestamp;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::rated::side;
use crate::sql::{lock_of, parse};

statements! {
    GET = "SELECT s.*, a.path FROM stream s JOIN account a ON a.id = s.account_id \
        WHERE s.id = $1 AND a.path >= $2 AND a.path < $3";
    LIST = "SELECT s.*, a.path FROM stream s JOIN account a ON a.id = s.account_id \
        WHERE a.path >= $1 AND a.path < $2 AND s.id > $3 ORDER BY s.id LIMIT $4";
    LIST_OWNED = "SELECT s.*, a.path FROM stream s JOIN account a ON a.id = s.account_id \
        WHERE a.path >= $1 AND a.path < $2 AND s.id > $3 AND s.account_id = $5 ORDER BY s.id LIMIT $4";
    NAME = "SELECT COUNT(*) FROM stream WHERE account_id = $1 AND name = $2";
    INSERT = "INSERT INTO stream (id, account_id, name, side, close_period_ms, next_sequence, rated_cursor, version, \
        created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8, $8)";
    ADVANCE = "UPDATE stream SET next_sequence = next_sequence + 1, rated_cursor = $3, updated_at = $4 \
        WHERE id = $1 AND next_sequence = $2";
    // Due: the period has passed since the last file was closed, or since the stream was made.
    DUE = "SELECT s.id FROM stream s WHERE s.close_period_ms > 0 AND s.close_period_ms + \
        COALESCE((SELECT MAX(f.closed_at) FROM billing_file f WHERE f.stream_id = s.id), s.created_at) <= $1 \
        ORDER BY s.id LIMIT $2";
    LAST_CLOSED = "SELECT MAX(closed_at) FROM billing_file WHERE stream_id = $1";
}

/// Streams that are closed in one round; the next round takes the rest.
pub(crate) const DUE_MAX: i64 = 1_000;

#[derive(Debug, sqlx::FromRow)]
struct StreamRow {
    id: Uuid,
    account_id: Uuid,
    name: String,
    side: String,
    close_period_ms: i64,
    next_sequence: i64,
    rated_cursor: i64,
    version: i64,
    created_at: i64,
    path: String,
}

/// A stream with what only the store looks at.
#[derive(Debug, Clone)]
pub(crate) struct StreamState {
    pub(crate) stream: Stream,
    pub(crate) path: AccountPath,
    /// Rated rows up to this sequence have been considered.
    pub(crate) rated_cursor: i64,
    pub(crate) created_at: Timestamp,
}

impl TryFrom<StreamRow> for StreamState {
    type Error = DbError;
    fn try_from(row: StreamRow) -> Result<Self, DbError> {
        let stream = Stream {
            id: StreamId::from_uuid(row.id),
            account: AccountId::from_uuid(row.account_id),
            name: row.name,
            side: side("stream.side", &row.side)?,
            close_period_ms: row.close_period_ms,
            next_sequence: row.next_sequence,
            version: row.version,
        };
        let path = parse("account.path", &row.path)?;
        Ok(Self { stream, path, rated_cursor: row.rated_cursor, created_at: Timestamp(row.created_at) })
    }
}

/// The stream, if its account lies in the scope; in a write transaction its row is locked.
pub(crate) async fn get(tx: &mut Tx, scope: &Scope, id: StreamId) -> Result<Option<StreamState>, DbError> {
    let sql = format!("{GET}{}", lock_of(tx, "s"));
    let row: Option<StreamRow> = on_tx!(tx, c => sqlx::query_as(AssertSqlSafe(sql))
        .bind(id.uuid()).bind(scope.lower()).bind(scope.upper()).fetch_optional(c).await)?;
    row.map(StreamState::try_from).transpose()
}

/// One page.
pub(crate) async fn list(
    tx: &mut Tx,
    scope: &Scope,
    account: Option<AccountId>,
    after: Uuid,
    page: &PageRequest,
) -> Result<Page<StreamState>, DbError> {
    let limit = i64::from(page.first) + 1;
    let rows: Vec<StreamRow> = match account {
        None => on_tx!(tx, c => sqlx::query_as(LIST)
            .bind(scope.lower()).bind(scope.upper()).bind(after).bind(limit).fetch_all(c).await)?,
        Some(account) => on_tx!(tx, c => sqlx::query_as(LIST_OWNED)
            .bind(scope.lower()).bind(scope.upper()).bind(after).bind(limit).bind(account.uuid()).fetch_all(c).await)?,
    };
    let rows = rows.into_iter().map(StreamState::try_from).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::cut(rows, page, |s| s.stream.id.to_string()))
}

/// Whether the account has a stream of this name.
pub(crate) async fn name_taken(tx: &mut Tx, account: AccountId, name: &str) -> Result<bool, DbError> {
    if !is_storable(name) {
        return Ok(false);
    }
    let count: i64 = on_tx!(tx, c => sqlx::query_scalar(NAME).bind(account.uuid()).bind(name).fetch_one(c).await)?;
    Ok(count > 0)
}

/// Writes a new stream. It begins with the first rated row of its side and subtree, also those from before.
pub(crate) async fn insert(tx: &mut Tx, stream: &Stream, now: Timestamp) -> Result<(), DbError> {
    on_tx!(tx, c => sqlx::query(INSERT)
        .bind(stream.id.uuid()).bind(stream.account.uuid()).bind(&stream.name).bind(stream.side.as_str())
        .bind(stream.close_period_ms).bind(stream.next_sequence).bind(stream.version).bind(now.0)
        .execute(c).await.map(|_| ()))?;
    Ok(())
}

/// Moves the stream past the file with `sequence`, which took rated rows up to `cursor`.
pub(crate) async fn advance(
    tx: &mut Tx,
    id: StreamId,
    sequence: i64,
    cursor: i64,
    now: Timestamp,
) -> Result<(), DbError> {
    let rows = on_tx!(tx, c => sqlx::query(ADVANCE)
        .bind(id.uuid()).bind(sequence).bind(cursor).bind(now.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    if rows == 1 { Ok(()) } else { Err(DbError::corrupt("stream.next_sequence", "it moved under the lock")) }
}

/// Streams whose period has passed at `now`.
pub(crate) async fn due(tx: &mut Tx, now: Timestamp) -> Result<Vec<StreamId>, DbError> {
    let rows: Vec<Uuid> = on_tx!(tx, c => sqlx::query_scalar(DUE).bind(now.0).bind(DUE_MAX).fetch_all(c).await)?;
    Ok(rows.into_iter().map(StreamId::from_uuid).collect())
}

/// Whether the period of the (locked) stream has passed at `now`.
pub(crate) async fn is_due(tx: &mut Tx, state: &StreamState, now: Timestamp) -> Result<bool, DbError> {
    let last: Option<i64> = on_tx!(tx, c => sqlx::query_scalar(LAST_CLOSED)
        .bind(state.stream.id.uuid()).fetch_one(c).await)?;
    let period = state.stream.close_period_ms;
    Ok(period > 0 && last.map_or(state.created_at, Timestamp).plus_ms(period) <= now)
}

//! Closed billing files and their items.

use billing::file::{FILE_RECORDS_MAX, Record, currency_total};
use billing::resource::{Acknowledgement, BillingFile, CurrencyTotal, RatedUsage, Usage};
use db::{Db, DbError, Tx, on_db, on_tx, statements};
use model::id::{FileId, StreamId};
use model::page::{Page, PageRequest};
use model::tenancy::Scope;
use model::time::Timestamp;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::rated::RatedRow;
use crate::sql::{lock_of, parse, total};
use crate::stream::StreamState;
use crate::usage::UsageRow;

statements! {
    GET = "SELECT f.* FROM billing_file f JOIN stream s ON s.id = f.stream_id JOIN account a ON a.id = s.account_id \
        WHERE f.id = $1 AND a.path >= $2 AND a.path < $3";
    FIND = "SELECT f.* FROM billing_file f JOIN stream s ON s.id = f.stream_id JOIN account a ON a.id = s.account_id \
        WHERE f.stream_id = $1 AND f.sequence = $2 AND a.path >= $3 AND a.path < $4";
    LIST = "SELECT f.* FROM billing_file f JOIN stream s ON s.id = f.stream_id JOIN account a ON a.id = s.account_id \
        WHERE f.stream_id = $1 AND f.sequence > $2 AND a.path >= $3 AND a.path < $4 ORDER BY f.sequence LIMIT $5";
    RATED_HEAD = "SELECT value FROM counter WHERE name = 'rated'";
    OPEN = "SELECT currency, COUNT(*), CAST(SUM(billed_ms) AS BIGINT), CAST(SUM(amount / 1000000) AS BIGINT), \
        CAST(SUM(amount % 1000000) AS BIGINT), MIN(answered_at), MAX(answered_at), MAX(sequence) FROM \
        (SELECT currency, billed_ms, amount, answered_at, sequence FROM rated WHERE sequence > $1 AND sequence <= $2 \
            AND path >= $3 AND path < $4 AND side = $5 ORDER BY sequence LIMIT $6) taken \
        GROUP BY currency ORDER BY currency";
    INSERT = "INSERT INTO billing_file (id, stream_id, sequence, name, format_version, state, closure_reason, \
        closed_at, record_count, billed_ms, totals, first_answered_at, last_answered_at, rated_from, rated_to) \
        VALUES ($1, $2, $3, $4, $5, 'planned', $6, $7, $8, $9, $10, $11, $12, $13, $14)";
    ITEMS = "INSERT INTO billing_item (stream_id, rated_sequence, file_id, position) \
        SELECT f.stream_id, r.sequence, f.id, ROW_NUMBER() OVER (ORDER BY r.sequence) \
        FROM billing_file f JOIN rated r ON r.sequence >= f.rated_from AND r.sequence < f.rated_to \
        WHERE f.id = $1 AND r.path >= $2 AND r.path < $3 AND r.side = $4";
    ACKNOWLEDGE = "UPDATE billing_file SET ack_state = $2, ack_reason = $3, ack_by = $4, ack_at = $5 WHERE id = $1";
    WITH_PLANNED = "SELECT DISTINCT stream_id FROM billing_file WHERE state = 'planned' ORDER BY stream_id";
    PLANNED = "SELECT id FROM billing_file WHERE state = 'planned' AND stream_id = $1 ORDER BY sequence LIMIT $2";
    PREVIOUS = "SELECT sha256 FROM billing_file WHERE stream_id = $1 AND sequence = $2";
    PUBLISHED = "UPDATE billing_file SET state = 'published', size = $2, sha256 = $3, previous_sha256 = $4 \
        WHERE id = $1 AND state = 'planned'";
    ITEM_RATED = "SELECT r.* FROM billing_item i JOIN rated r ON r.sequence = i.rated_sequence \
        WHERE i.file_id = $1 AND i.position > $2 AND i.position <= $3 ORDER BY i.position";
    ITEM_USAGE = "SELECT u.* FROM billing_item i JOIN rated r ON r.sequence = i.rated_sequence \
        JOIN usage u ON u.call_id = r.call_id AND u.leg = r.leg AND u.part = r.part \
        WHERE i.file_id = $1 AND i.position > $2 AND i.position <= $3 ORDER BY i.position";
    ITEM_SPAN = "SELECT COUNT(*), COALESCE(MAX(position), 0) FROM billing_item WHERE file_id = $1";
}

#[derive(Debug, sqlx::FromRow)]
struct FileRow {
    id: Uuid,
    stream_id: Uuid,
    sequence: i64,
    name: String,
    format_version: i64,
    state: String,
    closure_reason: String,
    closed_at: i64,
    record_count: i64,
    billed_ms: i64,
    totals: String,
    first_answered_at: Option<i64>,
    last_answered_at: Option<i64>,
    size: Option<i64>,
    sha256: Option<Vec<u8>>,
    previous_sha256: Option<Vec<u8>>,
    ack_state: Option<String>,
    ack_reason: Option<String>,
    ack_by: Option<String>,
    ack_at: Option<i64>,
}

impl TryFrom<FileRow> for BillingFile {
    type Error = DbError;
    fn try_from(row: FileRow) -> Result<Self, DbError> {
        let published = match &*row.state {
            "planned" => false,
            "published" => true,
            other => return Err(DbError::corrupt("billing_file.state", other)),
        };
        let acknowledgement = row.ack_state.map(|state| Acknowledgement {
            accepted: state == ACCEPTED,
            reason: row.ack_reason.unwrap_or_default(),
            by: row.ack_by.unwrap_or_default(),
            at: Timestamp(row.ack_at.unwrap_or_default()),
        });
        Ok(Self {
            id: FileId::from_uuid(row.id),
            stream: StreamId::from_uuid(row.stream_id),
            sequence: row.sequence,
            name: row.name,
            format_version: row.format_version,
            published,
            closure_reason: row.closure_reason,
            closed_at: Timestamp(row.closed_at),
            record_count: row.record_count,
            billed_ms: row.billed_ms,
            totals: serde_json::from_str(&row.totals).map_err(|e| DbError::corrupt("billing_file.totals", e))?,
            answered_range: row.first_answered_at.map(Timestamp).zip(row.last_answered_at.map(Timestamp)),
            size: row.size,
            sha256: row.sha256.map(hex::encode),
            previous_sha256: row.previous_sha256.map(hex::encode),
            acknowledgement,
        })
    }
}

const ACCEPTED: &str = "accepted";
const REJECTED: &str = "rejected";

/// The file, if its stream lies in the scope; in a write transaction its row is locked.
pub(crate) async fn get(tx: &mut Tx, scope: &Scope, id: FileId) -> Result<Option<BillingFile>, DbError> {
    let sql = format!("{GET}{}", lock_of(tx, "f"));
    let row: Option<FileRow> = on_tx!(tx, c => sqlx::query_as(AssertSqlSafe(sql))
        .bind(id.uuid()).bind(scope.lower()).bind(scope.upper()).fetch_optional(c).await)?;
    row.map(BillingFile::try_from).transpose()
}

/// The file with `sequence` in a stream, if that lies in the scope.
pub(crate) async fn find(
    tx: &mut Tx,
    scope: &Scope,
    stream: StreamId,
    sequence: i64,
) -> Result<Option<BillingFile>, DbError> {
    let row: Option<FileRow> = on_tx!(tx, c => sqlx::query_as(FIND)
        .bind(stream.uuid()).bind(sequence).bind(scope.lower()).bind(scope.upper()).fetch_optional(c).await)?;
    row.map(BillingFile::try_from).transpose()
}

/// One page of a stream's files.
pub(crate) async fn list(
    tx: &mut Tx,
    scope: &Scope,
    stream: StreamId,
    after: i64,
    page: &PageRequest,
) -> Result<Page<BillingFile>, DbError> {
    let rows: Vec<FileRow> = on_tx!(tx, c => sqlx::query_as(LIST)
        .bind(stream.uuid()).bind(after).bind(scope.lower()).bind(scope.upper()).bind(i64::from(page.first) + 1)
        .fetch_all(c).await)?;
    let rows = rows.into_iter().map(BillingFile::try_from).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::cut(rows, page, |f| f.sequence.to_string()))
}

/// What the open file of a stream holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    /// The last number of rated rows that the file considers.
    pub(crate) rated_to: i64,
    pub(crate) record_count: i64,
    pub(crate) billed_ms: i64,
    pub(crate) totals: Vec<CurrencyTotal>,
    pub(crate) answered_range: Option<(Timestamp, Timestamp)>,
}

/// Sums up the rated rows after the stream's cursor. The head of the numbers is read first, so that no row below it
/// can still be in flight.
pub(crate) async fn contents(tx: &mut Tx, state: &StreamState) -> Result<Contents, DbError> {
    type Row = (String, i64, i64, i64, i64, i64, i64, i64);
    let head: i64 = on_tx!(&mut *tx, c => sqlx::query_scalar(RATED_HEAD).fetch_one(c).await)?;
    let scope = Scope::subtree(&state.path);
    let rows: Vec<Row> = on_tx!(tx, c => sqlx::query_as(OPEN)
        .bind(state.rated_cursor).bind(head).bind(scope.lower()).bind(scope.upper())
        .bind(state.stream.side.as_str()).bind(FILE_RECORDS_MAX).fetch_all(c).await)?;
    let mut found =
        Contents { rated_to: head, record_count: 0, billed_ms: 0, totals: Vec::new(), answered_range: None };
    let mut last = state.rated_cursor;
    for (currency, count, billed_ms, millions, rest, first, end, sequence) in rows {
        found.record_count += count;
        found.billed_ms = found.billed_ms.saturating_add(billed_ms);
        found.totals.push(currency_total(parse("rated.currency", &currency)?, total(millions, rest), count));
        let (first, end) = (Timestamp(first), Timestamp(end));
        found.answered_range =
            found.answered_range.map_or(Some((first, end)), |(a, b)| Some((a.min(first), b.max(end))));
        last = last.max(sequence);
    }
    if found.record_count >= FILE_RECORDS_MAX {
        found.rated_to = last;
    }
    Ok(found)
}

/// Writes the file as planned, with its items.
pub(crate) async fn insert(tx: &mut Tx, file: &BillingFile, state: &StreamState, rated_to: i64) -> Result<(), DbError> {
    let totals = serde_json::to_string(&file.totals).map_err(|e| DbError::corrupt("billing_file.totals", e))?;
    on_tx!(&mut *tx, c => sqlx::query(INSERT)
        .bind(file.id.uuid()).bind(file.stream.uuid()).bind(file.sequence).bind(&file.name).bind(file.format_version)
        .bind(&file.closure_reason).bind(file.closed_at.0).bind(file.record_count).bind(file.billed_ms).bind(totals)
        .bind(file.answered_range.map(|(from, _)| from.0)).bind(file.answered_range.map(|(_, to)| to.0))
        .bind(state.rated_cursor + 1).bind(rated_to + 1)
        .execute(c).await.map(|_| ()))?;
    let scope = Scope::subtree(&state.path);
    let items = on_tx!(tx, c => sqlx::query(ITEMS)
        .bind(file.id.uuid()).bind(scope.lower()).bind(scope.upper()).bind(state.stream.side.as_str())
        .execute(c).await.map(|done| done.rows_affected()))?;
    if i64::try_from(items) == Ok(file.record_count) {
        Ok(())
    } else {
        Err(DbError::corrupt("billing_item", format!("{items} items for {} records", file.record_count)))
    }
}

/// Notes what the BSS said.
pub(crate) async fn acknowledge(tx: &mut Tx, id: FileId, said: &Acknowledgement) -> Result<(), DbError> {
    let state = if said.accepted { ACCEPTED } else { REJECTED };
    on_tx!(tx, c => sqlx::query(ACKNOWLEDGE)
        .bind(id.uuid()).bind(state).bind(&said.reason).bind(&said.by).bind(said.at.0)
        .execute(c).await.map(|_| ()))?;
    Ok(())
}

/// The streams with files that are closed and not published.
pub(crate) async fn streams_with_planned(db: &Db) -> Result<Vec<StreamId>, DbError> {
    let rows: Vec<Uuid> = on_db!(db, c => sqlx::query_scalar(WITH_PLANNED).fetch_all(c).await)?;
    Ok(rows.into_iter().map(StreamId::from_uuid).collect())
}

/// The first `limit` files of a stream that are closed and not published, in order.
pub(crate) async fn planned(db: &Db, stream: StreamId, limit: i64) -> Result<Vec<FileId>, DbError> {
    let rows: Vec<Uuid> =
        on_db!(db, c => sqlx::query_scalar(PLANNED).bind(stream.uuid()).bind(limit).fetch_all(c).await)?;
    Ok(rows.into_iter().map(FileId::from_uuid).collect())
}

/// The hash of the published file with `sequence`; none when it is not published.
pub(crate) async fn hash_of(tx: &mut Tx, stream: StreamId, sequence: i64) -> Result<Option<[u8; 32]>, DbError> {
    let hash: Option<Option<Vec<u8>>> = on_tx!(tx, c => sqlx::query_scalar(PREVIOUS)
        .bind(stream.uuid()).bind(sequence).fetch_optional(c).await)?;
    hash.flatten()
        .map(|hash| hash.try_into().map_err(|_| DbError::corrupt("billing_file.sha256", "it has not 32 octets")))
        .transpose()
}

/// Marks a file as published. False when it was already.
pub(crate) async fn published(
    tx: &mut Tx,
    id: FileId,
    size: i64,
    sha256: [u8; 32],
    previous: Option<[u8; 32]>,
) -> Result<bool, DbError> {
    let rows = on_tx!(tx, c => sqlx::query(PUBLISHED)
        .bind(id.uuid()).bind(size).bind(&sha256[..]).bind(previous.as_ref().map(|hash| &hash[..]))
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}

/// The records at positions `after + 1 ..= after + count` of a file.
pub(crate) async fn records(tx: &mut Tx, id: FileId, after: i64, count: i64) -> Result<Vec<Record>, DbError> {
    let end = after.saturating_add(count);
    let rated: Vec<RatedRow> = on_tx!(&mut *tx, c => sqlx::query_as(ITEM_RATED)
        .bind(id.uuid()).bind(after).bind(end).fetch_all(c).await)?;
    let usage: Vec<UsageRow> = on_tx!(tx, c => sqlx::query_as(ITEM_USAGE)
        .bind(id.uuid()).bind(after).bind(end).fetch_all(c).await)?;
    if rated.len() != usage.len() {
        return Err(DbError::corrupt("billing_item.rated_sequence", "an item has no usage"));
    }
    rated
        .into_iter()
        .zip(usage)
        .map(|(rated, usage)| {
            let record = Record { rated: RatedUsage::try_from(rated)?, usage: Usage::try_from(usage)? };
            let same = (record.rated.call, record.rated.leg, record.rated.part)
                == (record.usage.call, record.usage.leg, record.usage.part);
            if same { Ok(record) } else { Err(DbError::corrupt("billing_item.rated_sequence", "usage out of order")) }
        })
        .collect()
}

/// Items of a file and the highest position among them.
pub(crate) async fn item_span(tx: &mut Tx, id: FileId) -> Result<(i64, i64), DbError> {
    Ok(on_tx!(tx, c => sqlx::query_as(ITEM_SPAN).bind(id.uuid()).fetch_one(c).await)?)
}

//! Usage.

use std::collections::HashMap;

use billing::resource::{Usage, UsageMedia, UsageQuality, UsageState};
use db::dialect::{BulkRow, Value};
use db::{DbError, Position, Tx, on_tx, statements};
use model::cause::ReleaseCause;
use model::event::fact::Codec;
use model::id::{AccountId, CallId, SubscriberId, TrunkId};
use model::page::{Page, PageRequest};
use model::tenancy::Scope;
use model::time::Timestamp;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::account;
use crate::sql::{LIST_MAX, first_path, marks, narrow, parse, text};

statements! {
    GET = "SELECT * FROM usage WHERE call_id = $1 AND path >= $2 AND path < $3 ORDER BY leg, part";
    // Both go along the index `usage_list`: a page costs what it holds, not what others have.
    LIST = "SELECT * FROM usage WHERE path < $1 AND (path, call_id, leg, part) > ($2, $3, $4, $5) \
        ORDER BY path, call_id, leg, part LIMIT $6";
    LIST_OWNED = "SELECT * FROM usage WHERE path = $1 AND (call_id, leg, part) > ($2, $3, $4) \
        ORDER BY call_id, leg, part LIMIT $5";
    // After a retry: the legs of its new rated rows, unless another charge of the leg still waits.
    RESOLVE = "UPDATE usage SET state = 'rated' WHERE state = 'suspense' AND (call_id, leg, part) IN \
        (SELECT call_id, leg, part FROM rated WHERE sequence >= $1 AND sequence < $2) \
        AND NOT EXISTS (SELECT 1 FROM suspense s WHERE s.call_id = usage.call_id AND s.leg = usage.leg \
            AND s.part = usage.part AND s.resolved_at IS NULL)";
}

const KNOWN: &str = "SELECT call_id, leg, part, raw_hash FROM usage WHERE call_id IN";
const CALLS: &str = "SELECT * FROM usage WHERE call_id IN";

/// Statements that are put together at run time.
#[cfg(test)]
pub(crate) fn made() -> Vec<String> {
    vec![
        format!("{KNOWN} ({})", marks(1, 2)),
        format!("{CALLS} ({})", marks(1, 2)),
        db::dialect::bulk_statement::<NewUsage>(2, ""),
    ]
}

/// What is unique of a usage.
pub(crate) type Key = (CallId, i16, i32);

#[derive(Debug, sqlx::FromRow)]
pub(crate) struct UsageRow {
    call_id: Uuid,
    leg: i64,
    part: i64,
    is_last: bool,
    account_id: Uuid,
    path: String,
    subscriber_id: Option<Uuid>,
    trunk_id: Option<Uuid>,
    dialled: String,
    called: Option<String>,
    calling: Option<String>,
    invited_at: i64,
    answered_at: i64,
    ended_at: i64,
    duration_ms: i64,
    pdd_ms: i64,
    cause: String,
    released_by: String,
    estimated: bool,
    aborted: bool,
    packets_received: Option<i64>,
    packets_sent: Option<i64>,
    packets_lost: Option<i64>,
    state: String,
    codec: Option<String>,
    packets_duplicate: Option<i64>,
    packets_late: Option<i64>,
    loss_run_max: Option<i64>,
    jitter_us: Option<i64>,
    jitter_max_us: Option<i64>,
    round_trip_us: Option<i64>,
    mos: Option<i64>,
    reported_lost: Option<i64>,
    reported_jitter_us: Option<i64>,
    reported_mos: Option<i64>,
}

impl UsageRow {
    /// Counts are written together: one that is missing is a column of before the quality was measured.
    fn quality(&self) -> Result<Option<UsageQuality>, DbError> {
        let Some(name) = &self.codec else { return Ok(None) };
        Ok(Some(UsageQuality {
            codec: Codec::parse(name).ok_or_else(|| DbError::corrupt("usage.codec", name))?,
            packets_duplicate: self.packets_duplicate.unwrap_or_default(),
            packets_late: self.packets_late.unwrap_or_default(),
            loss_run_max: self.loss_run_max.unwrap_or_default(),
            jitter_us: self.jitter_us.unwrap_or_default(),
            jitter_max_us: self.jitter_max_us.unwrap_or_default(),
            round_trip_us: self.round_trip_us,
            mos: self.mos,
            reported_lost: self.reported_lost,
            reported_jitter_us: self.reported_jitter_us,
            reported_mos: self.reported_mos,
        }))
    }
}

impl TryFrom<UsageRow> for Usage {
    type Error = DbError;
    fn try_from(row: UsageRow) -> Result<Self, DbError> {
        let state = match &*row.state {
            "rated" => UsageState::Rated,
            "suspense" => UsageState::Suspense,
            "uncharged" => UsageState::Uncharged,
            other => return Err(DbError::corrupt("usage.state", other)),
        };
        let quality = row.quality()?;
        let media = match (row.packets_received, row.packets_sent, row.packets_lost) {
            (Some(packets_received), Some(packets_sent), Some(packets_lost)) => {
                Some(UsageMedia { packets_received, packets_sent, packets_lost, quality })
            }
            _ => None,
        };
        Ok(Self {
            call: CallId::from_uuid(row.call_id),
            leg: narrow("usage.leg", row.leg)?,
            part: narrow("usage.part", row.part)?,
            is_last: row.is_last,
            account: AccountId::from_uuid(row.account_id),
            path: parse("usage.path", &row.path)?,
            subscriber: row.subscriber_id.map(SubscriberId::from_uuid),
            trunk: row.trunk_id.map(TrunkId::from_uuid),
            dialled: row.dialled,
            called: row.called.map(|n| parse("usage.called", &n)).transpose()?,
            calling: row.calling.map(|n| parse("usage.calling", &n)).transpose()?,
            invited_at: Timestamp(row.invited_at),
            answered_at: Timestamp(row.answered_at),
            ended_at: Timestamp(row.ended_at),
            duration_ms: row.duration_ms,
            pdd_ms: row.pdd_ms,
            cause: ReleaseCause::parse(&row.cause).ok_or_else(|| DbError::corrupt("usage.cause", &row.cause))?,
            released_by: row.released_by,
            estimated: row.estimated,
            aborted: row.aborted,
            media,
            state,
        })
    }
}

/// A usage with the place of its record.
#[derive(Debug)]
pub(crate) struct NewUsage {
    pub(crate) usage: Usage,
    pub(crate) node: String,
    pub(crate) position: Position,
    pub(crate) raw_hash: [u8; 32],
}

impl BulkRow for NewUsage {
    const TABLE: &'static str = "usage";
    const COLUMNS: &'static [&'static str] = &[
        "call_id",
        "leg",
        "part",
        "is_last",
        "account_id",
        "path",
        "subscriber_id",
        "trunk_id",
        "dialled",
        "called",
        "calling",
        "invited_at",
        "answered_at",
        "ended_at",
        "duration_ms",
        "pdd_ms",
        "cause",
        "released_by",
        "estimated",
        "aborted",
        "packets_received",
        "packets_sent",
        "packets_lost",
        "state",
        "node",
        "epoch",
        "sequence",
        "raw_hash",
        "codec",
        "packets_duplicate",
        "packets_late",
        "loss_run_max",
        "jitter_us",
        "jitter_max_us",
        "round_trip_us",
        "mos",
        "reported_lost",
        "reported_jitter_us",
        "reported_mos",
    ];

    fn values<'a>(&'a self, out: &mut Vec<Value<'a>>) {
        let u = &self.usage;
        out.extend([
            u.call.uuid().into(),
            i64::from(u.leg).into(),
            i64::from(u.part).into(),
            u.is_last.into(),
            u.account.uuid().into(),
            u.path.as_str().into(),
            u.subscriber.map(SubscriberId::uuid).into(),
            u.trunk.map(TrunkId::uuid).into(),
            u.dialled.as_str().into(),
            text(u.called.map(|n| n.to_string())),
            text(u.calling.map(|n| n.to_string())),
            u.invited_at.0.into(),
            u.answered_at.0.into(),
            u.ended_at.0.into(),
            u.duration_ms.into(),
            u.pdd_ms.into(),
            u.cause.as_str().into(),
            u.released_by.as_str().into(),
            u.estimated.into(),
            u.aborted.into(),
            u.media.map(|m| m.packets_received).into(),
            u.media.map(|m| m.packets_sent).into(),
            u.media.map(|m| m.packets_lost).into(),
            u.state.as_str().into(),
            self.node.as_str().into(),
            self.position.epoch.into(),
            self.position.sequence.into(),
            self.raw_hash.as_slice().into(),
        ]);
        let quality = u.media.and_then(|media| media.quality);
        let count = |of: fn(&UsageQuality) -> i64| Value::from(quality.as_ref().map(of));
        out.extend([
            quality.map(|q| q.codec.rtp_name()).into(),
            count(|q| q.packets_duplicate),
            count(|q| q.packets_late),
            count(|q| q.loss_run_max),
            count(|q| q.jitter_us),
            count(|q| q.jitter_max_us),
            quality.and_then(|q| q.round_trip_us).into(),
            quality.and_then(|q| q.mos).into(),
            quality.and_then(|q| q.reported_lost).into(),
            quality.and_then(|q| q.reported_jitter_us).into(),
            quality.and_then(|q| q.reported_mos).into(),
        ]);
    }
}

/// What is stored of the calls, with the hash of the record that it came from.
pub(crate) async fn known(tx: &mut Tx, calls: &[CallId]) -> Result<HashMap<Key, Vec<u8>>, DbError> {
    let mut known = HashMap::new();
    for chunk in calls.chunks(LIST_MAX) {
        let sql = format!("{KNOWN} ({})", marks(1, chunk.len()));
        let rows: Vec<(Uuid, i64, i64, Vec<u8>)> = on_tx!(&mut *tx, c => {
            let mut query = sqlx::query_as(AssertSqlSafe(sql));
            for call in chunk {
                query = query.bind(call.uuid());
            }
            query.fetch_all(c).await
        })?;
        for (call, leg, part, hash) in rows {
            let key = (CallId::from_uuid(call), narrow("usage.leg", leg)?, narrow("usage.part", part)?);
            known.insert(key, hash);
        }
    }
    Ok(known)
}

/// All legs and parts of the calls.
pub(crate) async fn of_calls(tx: &mut Tx, calls: &[CallId]) -> Result<HashMap<Key, Usage>, DbError> {
    let mut found = HashMap::new();
    for chunk in calls.chunks(LIST_MAX) {
        let sql = format!("{CALLS} ({})", marks(1, chunk.len()));
        let rows: Vec<UsageRow> = on_tx!(&mut *tx, c => {
            let mut query = sqlx::query_as(AssertSqlSafe(sql));
            for call in chunk {
                query = query.bind(call.uuid());
            }
            query.fetch_all(c).await
        })?;
        for row in rows {
            let usage = Usage::try_from(row)?;
            found.insert((usage.call, usage.leg, usage.part), usage);
        }
    }
    Ok(found)
}

/// The legs of a call that lie in the scope.
pub(crate) async fn get(tx: &mut Tx, scope: &Scope, call: CallId) -> Result<Vec<Usage>, DbError> {
    let rows: Vec<UsageRow> = on_tx!(tx, c => sqlx::query_as(GET)
        .bind(call.uuid()).bind(scope.lower()).bind(scope.upper()).fetch_all(c).await)?;
    rows.into_iter().map(Usage::try_from).collect()
}

/// The key after which a page begins: path, call, leg, part.
pub(crate) type After = (String, Uuid, i64, i64);

/// One page, by account (in the order of its path), then by call.
pub(crate) async fn list(
    tx: &mut Tx,
    scope: &Scope,
    account: Option<AccountId>,
    after: Option<After>,
    page: &PageRequest,
) -> Result<Page<Usage>, DbError> {
    let (after_path, call, leg, part) = after.unwrap_or((String::new(), Uuid::nil(), -1, -1));
    let limit = i64::from(page.first) + 1;
    let rows: Vec<UsageRow> = match account {
        None => {
            let from = first_path(scope, &after_path);
            on_tx!(tx, c => sqlx::query_as(LIST)
            .bind(scope.upper()).bind(from).bind(call).bind(leg).bind(part).bind(limit)
            .fetch_all(c).await)?
        }
        Some(account) => match account::path(tx, scope, account).await? {
            Some(path) => on_tx!(tx, c => sqlx::query_as(LIST_OWNED)
                .bind(path.as_str()).bind(call).bind(leg).bind(part).bind(limit).fetch_all(c).await)?,
            None => Vec::new(),
        },
    };
    let rows: Vec<Usage> = rows.into_iter().map(Usage::try_from).collect::<Result<_, _>>()?;
    Ok(Page::cut(rows, page, cursor))
}

fn cursor(usage: &Usage) -> String {
    format!("{}/{}/{}/{}", usage.path, usage.call, usage.leg, usage.part)
}

/// Marks the legs as rated whose charges got the numbers `first..end`.
pub(crate) async fn resolve(tx: &mut Tx, first: i64, end: i64) -> Result<(), DbError> {
    on_tx!(tx, c => sqlx::query(RESOLVE).bind(first).bind(end).execute(c).await.map(|_| ()))?;
    Ok(())
}

//! Charges that wait, and records that contradict.

use billing::resource::{Side, Suspense};
use db::dialect::{BulkRow, Value};
use db::{DbError, Position, Tx, on_tx, statements};
use model::id::{AccountId, CallId};
use model::page::{Page, PageRequest};
use model::tenancy::{AccountPath, Scope};
use model::time::Timestamp;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::account;
use crate::rated::side;
use crate::sql::{first_path, narrow};
use crate::usage::Key;

statements! {
    // Both go along the index `suspense_list`: a page costs what it holds, not what others have.
    LIST = "SELECT * FROM suspense WHERE resolved_at IS NULL AND path < $1 \
        AND (path, call_id, leg, part, account_id, side) > ($2, $3, $4, $5, $6, $7) \
        ORDER BY path, call_id, leg, part, account_id, side LIMIT $8";
    LIST_OWNED = "SELECT * FROM suspense WHERE resolved_at IS NULL AND path = $1 \
        AND (call_id, leg, part, account_id, side) > ($2, $3, $4, $5, $6) \
        ORDER BY call_id, leg, part, account_id, side LIMIT $7";
    OPEN = "SELECT * FROM suspense WHERE path >= $1 AND path < $2 AND resolved_at IS NULL \
        ORDER BY created_at, call_id, leg, part, account_id, side LIMIT $3";
    OPEN_COUNT = "SELECT COUNT(*) FROM suspense WHERE path >= $1 AND path < $2 AND resolved_at IS NULL";
}

/// What a retry writes over a row.
pub(crate) const RETRIED: &str = "ON CONFLICT (call_id, leg, part, account_id, side) DO UPDATE SET \
    code = excluded.code, detail = excluded.detail, attempts = excluded.attempts, resolved_at = excluded.resolved_at";

#[cfg(test)]
pub(crate) fn made() -> Vec<String> {
    vec![
        db::dialect::bulk_statement::<SuspenseRow>(2, ""),
        db::dialect::bulk_statement::<SuspenseRow>(2, RETRIED),
        db::dialect::bulk_statement::<NewConflict>(2, CONFLICT_KNOWN),
    ]
}

#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct SuspenseRow {
    call_id: Uuid,
    leg: i64,
    part: i64,
    account_id: Uuid,
    side: String,
    path: String,
    code: String,
    detail: String,
    attempts: i64,
    created_at: i64,
    resolved_at: Option<i64>,
}

impl TryFrom<SuspenseRow> for Suspense {
    type Error = DbError;
    fn try_from(row: SuspenseRow) -> Result<Self, DbError> {
        Ok(Self {
            call: CallId::from_uuid(row.call_id),
            leg: narrow("suspense.leg", row.leg)?,
            part: narrow("suspense.part", row.part)?,
            account: AccountId::from_uuid(row.account_id),
            side: side("suspense.side", &row.side)?,
            code: row.code,
            detail: row.detail,
            attempts: narrow("suspense.attempts", row.attempts)?,
            created_at: Timestamp(row.created_at),
            resolved_at: row.resolved_at.map(Timestamp),
        })
    }
}

impl SuspenseRow {
    pub(crate) fn new(
        (call, leg, part): Key,
        (account, path): (AccountId, &AccountPath),
        side: Side,
        code: &str,
        detail: String,
        now: Timestamp,
    ) -> Self {
        Self {
            call_id: call.uuid(),
            leg: i64::from(leg),
            part: i64::from(part),
            account_id: account.uuid(),
            side: side.as_str().to_owned(),
            path: path.as_str().to_owned(),
            code: code.to_owned(),
            detail,
            attempts: 1,
            created_at: now.0,
            resolved_at: None,
        }
    }

    pub(crate) fn key(&self) -> Result<Key, DbError> {
        Ok((CallId::from_uuid(self.call_id), narrow("suspense.leg", self.leg)?, narrow("suspense.part", self.part)?))
    }

    pub(crate) fn side(&self) -> Result<Side, DbError> {
        side("suspense.side", &self.side)
    }

    /// Tried once more and resolved.
    pub(crate) fn resolved(mut self, now: Timestamp) -> Self {
        self.attempts = self.attempts.saturating_add(1);
        self.resolved_at = Some(now.0);
        self
    }

    /// Tried once more, in vain.
    pub(crate) fn still(mut self, reason: Option<(&str, String)>) -> Self {
        self.attempts = self.attempts.saturating_add(1);
        if let Some((code, detail)) = reason {
            code.clone_into(&mut self.code);
            self.detail = detail;
        }
        self
    }
}

impl BulkRow for SuspenseRow {
    const TABLE: &'static str = "suspense";
    const COLUMNS: &'static [&'static str] = &[
        "call_id",
        "leg",
        "part",
        "account_id",
        "side",
        "path",
        "code",
        "detail",
        "attempts",
        "created_at",
        "resolved_at",
    ];

    fn values<'a>(&'a self, out: &mut Vec<Value<'a>>) {
        out.extend([
            self.call_id.into(),
            self.leg.into(),
            self.part.into(),
            self.account_id.into(),
            self.side.as_str().into(),
            self.path.as_str().into(),
            self.code.as_str().into(),
            self.detail.as_str().into(),
            self.attempts.into(),
            self.created_at.into(),
            self.resolved_at.into(),
        ]);
    }
}

/// A record that came again with another body.
#[derive(Debug)]
pub(crate) struct NewConflict<'r> {
    pub(crate) node: &'r str,
    pub(crate) position: Position,
    pub(crate) key: Key,
    pub(crate) record: &'r [u8],
    pub(crate) now: Timestamp,
}

/// A conflict that was noted before the cursor moved is the same one.
pub(crate) const CONFLICT_KNOWN: &str = "ON CONFLICT (node, epoch, sequence, leg) DO NOTHING";

impl BulkRow for NewConflict<'_> {
    const TABLE: &'static str = "conflict";
    const COLUMNS: &'static [&'static str] =
        &["node", "epoch", "sequence", "call_id", "leg", "part", "record", "detail", "created_at"];

    fn values<'a>(&'a self, out: &mut Vec<Value<'a>>) {
        let (call, leg, part) = self.key;
        out.extend([
            self.node.into(),
            self.position.epoch.into(),
            self.position.sequence.into(),
            call.uuid().into(),
            i64::from(leg).into(),
            i64::from(part).into(),
            self.record.into(),
            "another record of this call, leg and part was billed before".into(),
            self.now.0.into(),
        ]);
    }
}

/// The oldest charges that wait at and below an account; in a write transaction their rows are locked.
pub(crate) async fn open(tx: &mut Tx, scope: &Scope, limit: i64) -> Result<Vec<SuspenseRow>, DbError> {
    let sql = format!("{OPEN}{}", tx.lock_clause());
    Ok(on_tx!(tx, c => sqlx::query_as(AssertSqlSafe(sql))
        .bind(scope.lower()).bind(scope.upper()).bind(limit).fetch_all(c).await)?)
}

/// How many wait.
pub(crate) async fn open_count(tx: &mut Tx, scope: &Scope) -> Result<i64, DbError> {
    Ok(on_tx!(tx, c => sqlx::query_scalar(OPEN_COUNT)
        .bind(scope.lower()).bind(scope.upper()).fetch_one(c).await)?)
}

/// The key after which a page begins: path, call, leg, part, account, side.
pub(crate) type After = (String, Uuid, i64, i64, Uuid, String);

/// One page of what waits, by account (in the order of its path), then by call.
pub(crate) async fn list(
    tx: &mut Tx,
    scope: &Scope,
    account: Option<AccountId>,
    after: Option<After>,
    page: &PageRequest,
) -> Result<Page<Suspense>, DbError> {
    let none = (String::new(), Uuid::nil(), -1, -1, Uuid::nil(), String::new());
    let (after_path, call, leg, part, charged, side) = after.unwrap_or(none);
    let limit = i64::from(page.first) + 1;
    let rows: Vec<SuspenseRow> = match account {
        None => {
            let from = first_path(scope, &after_path);
            on_tx!(tx, c => sqlx::query_as(LIST)
                .bind(scope.upper()).bind(from).bind(call).bind(leg).bind(part).bind(charged).bind(side).bind(limit)
                .fetch_all(c).await)?
        }
        Some(account) => match account::path(tx, scope, account).await? {
            Some(path) => on_tx!(tx, c => sqlx::query_as(LIST_OWNED)
                .bind(path.as_str()).bind(call).bind(leg).bind(part).bind(charged).bind(side).bind(limit)
                .fetch_all(c).await)?,
            None => Vec::new(),
        },
    };
    let page =
        Page::cut(rows, page, |s| format!("{}/{}/{}/{}/{}/{}", s.path, s.call_id, s.leg, s.part, s.account_id, s.side));
    let items = page.items.into_iter().map(|(cursor, row)| Ok::<_, DbError>((cursor, Suspense::try_from(row)?)));
    Ok(Page { items: items.collect::<Result<_, _>>()?, has_next: page.has_next })
}

//! The audit trail, as far as a scope reaches. It is written by `db::change` and verified by `db::change`.

use db::sqlx::{self, FromRow};
use db::{Db, DbError, on_db};
use model::id::{AccountId, ChangeId};
use model::page::{Page, PageRequest, ReadError};
use model::tenancy::Scope;
use model::time::Timestamp;
use provisioning::port::{AuditEntry, AuditFilter};
use uuid::Uuid;

use crate::account;
use crate::row::{Stored, bad_cursor, failed, parsed, read_error};

macro_rules! entries {
    ($from:literal) => {
        concat!(
            "SELECT x.sequence, x.change_id, x.at, x.path, x.actor_kind, x.actor_name, x.command, x.plan, x.hash, \
                r.change_id AS reverted_by FROM ",
            $from,
            " LEFT JOIN reversal r ON r.reverts = x.change_id AND r.in_force "
        )
    };
}

/// The entries of one resource.
macro_rules! history {
    () => {
        entries!("audit_resource t JOIN audit x ON x.sequence = t.sequence")
    };
}

db::statements! {
    GET = concat!(entries!("audit x"), "WHERE x.change_id = $1 AND x.path >= $2 AND x.path < $3");
    /// A subtree's entries are found by its path, and their numbers put in order: a walk along the numbers would read
    /// all entries for who has few. The sum keeps the engines from that.
    OLDEST = concat!(entries!("audit x"), "WHERE x.sequence IN (SELECT sequence FROM audit \
        WHERE path >= $1 AND path < $2 AND sequence + 0 > $3 ORDER BY sequence + 0 LIMIT $4) ORDER BY x.sequence");
    NEWEST = concat!(entries!("audit x"), "WHERE x.sequence IN (SELECT sequence FROM audit \
        WHERE path >= $1 AND path < $2 AND sequence + 0 < $3 ORDER BY sequence + 0 DESC LIMIT $4) \
        ORDER BY x.sequence DESC");
    /// Nearly all entries are in the scope: a walk in their order, along no index of paths.
    OLDEST_OF_ALL = concat!(entries!("audit x"),
        "WHERE x.path || '' >= $1 AND x.path || '' < $2 AND x.sequence > $3 ORDER BY x.sequence LIMIT $4");
    NEWEST_OF_ALL = concat!(entries!("audit x"),
        "WHERE x.path || '' >= $1 AND x.path || '' < $2 AND x.sequence < $3 ORDER BY x.sequence DESC LIMIT $4");
    OLDEST_OF_ONE = concat!(history!(),
        "WHERE x.path >= $1 AND x.path < $2 AND t.sequence > $3 AND t.resource_id = $5 ORDER BY t.sequence LIMIT $4");
    NEWEST_OF_ONE = concat!(history!(),
        "WHERE x.path >= $1 AND x.path < $2 AND t.sequence < $3 AND t.resource_id = $5 \
            ORDER BY t.sequence DESC LIMIT $4");
}

#[derive(Debug, FromRow)]
pub(crate) struct Row {
    sequence: i64,
    change_id: Uuid,
    at: i64,
    path: String,
    actor_kind: String,
    actor_name: String,
    command: String,
    plan: String,
    hash: Vec<u8>,
    reverted_by: Option<Uuid>,
}

impl Stored for Row {
    type Resource = AuditEntry;
    fn resource(self) -> Result<AuditEntry, DbError> {
        Ok(AuditEntry {
            sequence: self.sequence,
            change: ChangeId::from_uuid(self.change_id),
            at: Timestamp(self.at),
            path: parsed("audit.path", &self.path)?,
            actor_kind: self.actor_kind,
            actor_name: self.actor_name,
            command: self.command,
            plan: serde_json::from_str(&self.plan).map_err(|e| DbError::corrupt("audit.plan", e))?,
            reverted_by: self.reverted_by.map(ChangeId::from_uuid),
            hash: self.hash,
        })
    }
}

pub(crate) async fn audit_list(
    db: &Db,
    scope: &Scope,
    filter: AuditFilter,
    page: &PageRequest,
) -> Result<Page<AuditEntry>, ReadError> {
    page.check()?;
    let Some(scope) = narrowed(db, scope, filter.account).await? else {
        return Ok(Page { items: Vec::new(), has_next: false });
    };
    let first = if filter.oldest_first { 0 } else { i64::MAX };
    let after = page.after.as_deref().map_or(Ok(first), |after| after.parse().map_err(|_| bad_cursor()))?;
    let (is_all, oldest_first) = (scope == Scope::installation(), filter.oldest_first);
    let (lower, upper, limit) = (scope.lower(), scope.upper(), i64::from(page.first) + 1);
    let rows: Vec<Row> = match filter.resource {
        Some(resource) => {
            let sql = if oldest_first { OLDEST_OF_ONE } else { NEWEST_OF_ONE };
            on_db!(db, c => sqlx::query_as(sql)
                .bind(lower).bind(upper).bind(after).bind(limit).bind(resource).fetch_all(c).await)
        }
        None => {
            let sql = match (is_all, oldest_first) {
                (false, true) => OLDEST,
                (false, false) => NEWEST,
                (true, true) => OLDEST_OF_ALL,
                (true, false) => NEWEST_OF_ALL,
            };
            on_db!(db, c => sqlx::query_as(sql)
                .bind(lower).bind(upper).bind(after).bind(limit).fetch_all(c).await)
        }
    }
    .map_err(failed)?;
    let rows = rows.into_iter().map(Row::resource).collect::<Result<Vec<_>, _>>().map_err(read_error)?;
    Ok(Page::cut(rows, page, |entry| entry.sequence.to_string()))
}

/// The part of a scope at and below an account; none when the account is not in it.
async fn narrowed(db: &Db, scope: &Scope, account: Option<AccountId>) -> Result<Option<Scope>, ReadError> {
    let Some(account) = account else { return Ok(Some(scope.clone())) };
    let path: Option<String> = on_db!(db, c => sqlx::query_scalar(account::OWNER)
        .bind(account.uuid()).bind(scope.lower()).bind(scope.upper()).fetch_optional(c).await)
    .map_err(failed)?;
    let path = path.map(|path| parsed("account.path", &path)).transpose().map_err(read_error)?;
    Ok(path.map(|path| Scope::of(&path)))
}

//! Accounts.

use db::dialect::{BulkRow, Value};
use db::sqlx::{self, AssertSqlSafe, FromRow};
use db::{Db, DbError, Tx, on_db, on_tx};
use model::id::AccountId;
use model::page::{Page, PageRequest, ReadError};
use model::tenancy::{AccountPath, DEPTH_MAX, Scope};
use provisioning::resource::Account;
use uuid::Uuid;

use crate::row::{Lock, New, Stored, bad_cursor, failed, limit, one_row, parsed, read_error, revision, unsigned};

macro_rules! columns {
    () => {
        "x.id, x.parent_id, x.path, x.kind, x.name, x.timezone, x.currency, x.call_limit, x.subscriber_quota, \
         x.subscriber_count, x.enabled, x.version, x.created_at, x.updated_at"
    };
}

/// As many paths as there can be levels: one statement for every depth, filled up with the last.
macro_rules! path_of_any_level {
    () => {
        "IN ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"
    };
}

/// What is read of a row, called `x`.
pub(crate) const COLUMNS: &str = columns!();

db::statements! {
    /// One, in scope.
    GET = concat!("SELECT ", columns!(), " FROM account x WHERE x.id = $1 AND x.path >= $2 AND x.path < $3");
    /// All in scope, after a path.
    LIST = concat!("SELECT ", columns!(), " FROM account x \
        WHERE x.path >= $1 AND x.path < $2 AND x.path > $3 ORDER BY x.path LIMIT $4");
    /// Those directly below one.
    LIST_BELOW = concat!("SELECT ", columns!(), " FROM account x \
        WHERE x.path >= $1 AND x.path < $2 AND x.path > $3 AND x.parent_id = $5 ORDER BY x.path LIMIT $4");
    /// One by its identifier.
    LOAD = concat!("SELECT ", columns!(), " FROM account x WHERE x.id = $1");
    /// The path of one, in scope.
    OWNER = "SELECT path FROM account WHERE id = $1 AND path >= $2 AND path < $3";
    /// From the root down. Takes the lock clause: rows are locked in the order of the path.
    ANCESTRY = concat!("SELECT ", columns!(), " FROM account x WHERE x.path ", path_of_any_level!(),
        " ORDER BY x.path");
    /// Who has this name among the accounts below a parent.
    NAME = "SELECT id FROM account WHERE parent_id = $1 AND name = $2";
    /// Whether one of these is disabled.
    DISABLED = concat!("SELECT id FROM account WHERE path ", path_of_any_level!(), " AND NOT enabled LIMIT 1");
    UPDATE = "UPDATE account SET name = $3, call_limit = $4, subscriber_quota = $5, enabled = $6, version = version + 1, \
        updated_at = $7 WHERE id = $1 AND version = $2";
    COUNT = concat!("UPDATE account SET subscriber_count = subscriber_count + $17 WHERE path ",
        path_of_any_level!());
}

#[derive(Debug, FromRow)]
pub(crate) struct Row {
    id: Uuid,
    parent_id: Option<Uuid>,
    path: String,
    kind: String,
    name: String,
    timezone: String,
    currency: String,
    call_limit: Option<i64>,
    subscriber_quota: Option<i64>,
    subscriber_count: i64,
    enabled: bool,
    version: i64,
    created_at: i64,
    updated_at: i64,
}

impl Stored for Row {
    type Resource = Account;
    fn resource(self) -> Result<Account, DbError> {
        Ok(Account {
            id: AccountId::from_uuid(self.id),
            parent: self.parent_id.map(AccountId::from_uuid),
            path: parsed("account.path", &self.path)?,
            kind: parsed("account.kind", &self.kind)?,
            name: self.name,
            timezone: self.timezone,
            currency: parsed("account.currency", &self.currency)?,
            call_limit: limit("account.call_limit", self.call_limit)?,
            subscriber_quota: limit("account.subscriber_quota", self.subscriber_quota)?,
            subscriber_count: unsigned("account.subscriber_count", self.subscriber_count)?,
            enabled: self.enabled,
            revision: revision(self.version, self.created_at, self.updated_at),
        })
    }
}

pub(crate) async fn account_list(
    db: &Db,
    scope: &Scope,
    parent: Option<AccountId>,
    page: &PageRequest,
) -> Result<Page<Account>, ReadError> {
    page.check()?;
    let after = match page.after.as_deref() {
        Some(after) => after.parse::<AccountPath>().map_err(|_| bad_cursor())?.to_string(),
        None => String::new(),
    };
    let rows: i64 = i64::from(page.first) + 1;
    let (lower, upper) = (scope.lower(), scope.upper());
    let rows: Vec<Row> = match parent {
        None => on_db!(db, c => sqlx::query_as(LIST)
            .bind(lower).bind(upper).bind(after).bind(rows).fetch_all(c).await),
        Some(parent) => on_db!(db, c => sqlx::query_as(LIST_BELOW)
            .bind(lower).bind(upper).bind(after).bind(rows).bind(parent.uuid()).fetch_all(c).await),
    }
    .map_err(failed)?;
    let rows = rows.into_iter().map(Row::resource).collect::<Result<Vec<_>, _>>().map_err(read_error)?;
    Ok(Page::cut(rows, page, |account| account.path.to_string()))
}

/// The accounts from the root down to `path`.
pub(crate) async fn ancestry(tx: &mut Tx, path: &AccountPath, lock: Lock) -> Result<Vec<Account>, DbError> {
    let sql = AssertSqlSafe(format!("{ANCESTRY}{}", lock.clause(tx)));
    let rows: Vec<Row> = on_tx!(tx, c => {
        let mut query = sqlx::query_as(sql);
        for path in levels(path) {
            query = query.bind(path);
        }
        query.fetch_all(c).await
    })?;
    rows.into_iter().map(Row::resource).collect()
}

/// Whether the account at `path` and all above it are enabled.
pub(crate) async fn is_enabled(db: &Db, path: &AccountPath) -> Result<bool, DbError> {
    let disabled: Option<Uuid> = on_db!(db, c => {
        let mut query = sqlx::query_scalar(DISABLED);
        for path in levels(path) {
            query = query.bind(path);
        }
        query.fetch_optional(c).await
    })?;
    Ok(disabled.is_none())
}

impl BulkRow for New<Account> {
    const TABLE: &'static str = "account";
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "parent_id",
        "path",
        "kind",
        "name",
        "timezone",
        "currency",
        "call_limit",
        "subscriber_quota",
        "subscriber_count",
        "enabled",
        "version",
        "created_at",
        "updated_at",
    ];

    fn values<'a>(&'a self, out: &mut Vec<Value<'a>>) {
        let new = &self.0;
        out.extend([
            new.id.uuid().into(),
            new.parent.map(AccountId::uuid).into(),
            new.path.as_str().into(),
            new.kind.as_str().into(),
            new.name.as_str().into(),
            new.timezone.as_str().into(),
            new.currency.code().into(),
            new.call_limit.map(i64::from).into(),
            new.subscriber_quota.map(i64::from).into(),
            i64::from(new.subscriber_count).into(),
            new.enabled.into(),
            new.revision.version.into(),
            new.revision.created_at.0.into(),
            new.revision.updated_at.0.into(),
        ]);
    }
}

pub(crate) async fn update(tx: &mut Tx, a: &Account) -> Result<(), DbError> {
    let (call_limit, quota) = (a.call_limit.map(i64::from), a.subscriber_quota.map(i64::from));
    let affected = on_tx!(tx, c => sqlx::query(UPDATE)
        .bind(a.id.uuid()).bind(a.revision.version - 1).bind(&a.name).bind(call_limit).bind(quota).bind(a.enabled)
        .bind(a.revision.updated_at.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    one_row(affected)
}

/// The rows were locked in the order of the path when the view was loaded.
pub(crate) async fn subscribers_count(tx: &mut Tx, path: &AccountPath, delta: i64) -> Result<(), DbError> {
    on_tx!(tx, c => {
        let mut query = sqlx::query(COUNT);
        for path in levels(path) {
            query = query.bind(path);
        }
        query.bind(delta).execute(c).await.map(|_| ())
    })?;
    Ok(())
}

/// The path of every level; the last one again, up to [`DEPTH_MAX`].
fn levels(path: &AccountPath) -> impl Iterator<Item = String> {
    let levels = path.ancestry().into_iter().map(String::from);
    levels.chain(std::iter::repeat(path.to_string())).take(DEPTH_MAX)
}

//! Rows and resources: reading by scope, page and identifier for every table with an owner.

use db::dialect::is_storable;
use db::sqlx::postgres::PgRow;
use db::sqlx::sqlite::SqliteRow;
use db::sqlx::{self, AssertSqlSafe, FromRow};
use db::{Db, DbError, Tx, on_db, on_tx};
use model::change::ChangeError;
use model::id::AccountId;
use model::page::{Page, PageRequest, ReadError};
use model::tenancy::{AccountPath, Scope};
use model::time::Timestamp;
use provisioning::resource::Revision;
use uuid::Uuid;

/// What both engines give.
pub(crate) trait Row: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}
impl<T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin> Row for T {}

/// A resource that comes into being, as its row.
pub(crate) struct New<T>(pub(crate) T);

/// A row that stands for a resource.
pub(crate) trait Stored: Row {
    /// The resource.
    type Resource: Send;
    fn resource(self) -> Result<Self::Resource, DbError>;
}

/// The statements of a table with an owner: `$table AS x`, its account as `a`.
macro_rules! owned_statements {
    ($table:literal, $columns:literal; $($(#[$doc:meta])* $name:ident = $sql:expr;)*) => {
        /// What is read of a row, called `x`.
        #[allow(dead_code, reason = "not every table is read by keys")]
        pub(crate) const COLUMNS: &str = $columns;
        db::statements! {
            /// One, in scope.
            GET = concat!("SELECT ", $columns, " FROM ", $table, " x JOIN account a ON a.id = x.account_id \
                WHERE x.id = $1 AND a.path >= $2 AND a.path < $3");
            /// All in scope.
            LIST = concat!("SELECT ", $columns, " FROM ", $table, " x JOIN account a ON a.id = x.account_id \
                WHERE a.path >= $1 AND a.path < $2 AND x.id > $3 ORDER BY x.id LIMIT $4");
            /// Those of one account in scope.
            LIST_OWNED = concat!("SELECT ", $columns, " FROM ", $table, " x JOIN account a ON a.id = x.account_id \
                WHERE a.path >= $1 AND a.path < $2 AND x.id > $3 AND x.account_id = $5 ORDER BY x.id LIMIT $4");
            /// One by its identifier: for a decision that has found it in scope. Takes the lock clause.
            LOAD = concat!("SELECT ", $columns, " FROM ", $table, " x WHERE x.id = $1");
            /// The path of the owner of one, in scope.
            OWNER = concat!("SELECT a.path FROM ", $table, " x JOIN account a ON a.id = x.account_id \
                WHERE x.id = $1 AND a.path >= $2 AND a.path < $3");
            $($(#[$doc])* $name = $sql;)*
        }
    };
}
pub(crate) use owned_statements;

pub(crate) async fn get<R: Stored>(
    db: &Db,
    sql: &'static str,
    scope: &Scope,
    id: Uuid,
) -> Result<Option<R::Resource>, ReadError> {
    let row: Option<R> = on_db!(db, c => sqlx::query_as(sql)
        .bind(id).bind(scope.lower()).bind(scope.upper()).fetch_optional(c).await)
    .map_err(failed)?;
    row.map(R::resource).transpose().map_err(read_error)
}

/// `all` and `owned` are `LIST` and `LIST_OWNED` of the table.
pub(crate) async fn list<R: Stored>(
    db: &Db,
    (all, owned): (&'static str, &'static str),
    scope: &Scope,
    account: Option<AccountId>,
    page: &PageRequest,
    id: impl Fn(&R::Resource) -> Uuid + Send,
) -> Result<Page<R::Resource>, ReadError> {
    page.check()?;
    let after = after_id(page)?;
    let limit = i64::from(page.first) + 1;
    let (lower, upper) = (scope.lower(), scope.upper());
    let rows: Vec<R> = match account {
        None => on_db!(db, c => sqlx::query_as(all)
            .bind(lower).bind(upper).bind(after).bind(limit).fetch_all(c).await),
        Some(account) => on_db!(db, c => sqlx::query_as(owned)
            .bind(lower).bind(upper).bind(after).bind(limit).bind(account.uuid()).fetch_all(c).await),
    }
    .map_err(failed)?;
    let rows = rows.into_iter().map(R::resource).collect::<Result<Vec<_>, _>>().map_err(read_error)?;
    Ok(Page::cut(rows, page, |resource| id(resource).to_string()))
}

/// One row by its identifier, locked in a write transaction when `lock` says so.
pub(crate) async fn load<R: Stored>(
    tx: &mut Tx,
    sql: &'static str,
    id: Uuid,
    lock: Lock,
) -> Result<Option<R::Resource>, DbError> {
    let sql = AssertSqlSafe(format!("{sql}{}", lock.clause(tx)));
    let row: Option<R> = on_tx!(tx, c => sqlx::query_as(sql).bind(id).fetch_optional(c).await)?;
    row.map(R::resource).transpose()
}

/// The path of the owner, in scope.
pub(crate) async fn owner(
    tx: &mut Tx,
    sql: &'static str,
    scope: &Scope,
    id: Uuid,
) -> Result<Option<AccountPath>, DbError> {
    let path: Option<String> = on_tx!(tx, c => sqlx::query_scalar(sql)
        .bind(id).bind(scope.lower()).bind(scope.upper()).fetch_optional(c).await)?;
    path.map(|path| parsed("account.path", &path)).transpose()
}

/// Who holds a name within an owner: `SELECT id … WHERE owner = $1 AND name = $2`.
pub(crate) async fn holder(tx: &mut Tx, sql: &'static str, owner: Uuid, name: &str) -> Result<Option<Uuid>, DbError> {
    if !is_storable(name) {
        return Ok(None);
    }
    Ok(on_tx!(tx, c => sqlx::query_scalar(sql).bind(owner).bind(name).fetch_optional(c).await)?)
}

/// Who holds a name within the installation: `SELECT id … WHERE name = $1`.
pub(crate) async fn global_holder(tx: &mut Tx, sql: &'static str, name: &str) -> Result<Option<Uuid>, DbError> {
    if !is_storable(name) {
        return Ok(None);
    }
    Ok(on_tx!(tx, c => sqlx::query_scalar(sql).bind(name).fetch_optional(c).await)?)
}

/// Whether rows that are read are held until the transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// They are.
    Held,
    /// They are not: the decision only looks at them.
    Free,
}

impl Lock {
    /// On PostgreSQL weaker than `FOR UPDATE`: keys never change, so rows of others that refer to these need not wait.
    pub(crate) const fn clause(self, tx: &Tx) -> &'static str {
        match self {
            Self::Held if !tx.lock_clause().is_empty() => " FOR NO KEY UPDATE",
            _ => "",
        }
    }
}

/// An update or delete must find its row in the version that it replaces.
pub(crate) fn one_row(affected: u64) -> Result<(), DbError> {
    if affected == 1 { Ok(()) } else { Err(DbError::corrupt("version", format!("{affected} rows had it, not one"))) }
}

pub(crate) fn parsed<T: std::str::FromStr<Err: ToString>>(column: &'static str, text: &str) -> Result<T, DbError> {
    text.parse().map_err(|error: T::Err| DbError::corrupt(column, error))
}

pub(crate) fn unsigned(column: &'static str, value: i64) -> Result<u32, DbError> {
    u32::try_from(value).map_err(|error| DbError::corrupt(column, error))
}

pub(crate) fn limit(column: &'static str, value: Option<i64>) -> Result<Option<u32>, DbError> {
    value.map(|value| unsigned(column, value)).transpose()
}

pub(crate) const fn revision(version: i64, created_at: i64, updated_at: i64) -> Revision {
    Revision { version, created_at: Timestamp(created_at), updated_at: Timestamp(updated_at) }
}

/// The identifier behind a cursor; nil comes before all.
fn after_id(page: &PageRequest) -> Result<Uuid, ReadError> {
    page.after.as_deref().map_or(Ok(Uuid::nil()), |after| after.parse().map_err(|_| bad_cursor()))
}

pub(crate) fn bad_cursor() -> ReadError {
    ReadError::Invalid { field: "after", message: "send a cursor that this list gave, or none".to_owned() }
}

pub(crate) fn failed(error: sqlx::Error) -> ReadError {
    read_error(error.into())
}

pub(crate) fn read_error(error: DbError) -> ReadError {
    match ChangeError::from(error) {
        ChangeError::Unavailable(message) => ReadError::Unavailable(message),
        other => ReadError::Internal(other.to_string()),
    }
}

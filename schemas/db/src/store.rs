//! The store: one enum over both engines, write transactions with retry, read snapshots.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::BoxFuture;
use model::id::IdSource as _;
use model::time::Timestamp;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::error::{DbError, WriteError, asks_for_retry};
use crate::system::SystemIds;

/// How often a collided transaction is run again. Collisions resolve in milliseconds; ten in a row are an overload.
const ATTEMPTS_MAX: u32 = 10;
/// The longest pause before the second attempt; it doubles with each attempt. About one short transaction.
const PAUSE_FIRST_US: u64 = 2_000;
/// No pause is longer, so that ten attempts end within a second.
const PAUSE_MAX_US: u64 = 100_000;
/// How long a caller waits for a connection. Longer than any healthy transaction, shorter than a client's patience.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long SQLite waits for a writer of another process (the command line beside the daemon).
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Pages of SQLite's write-ahead log after which it is folded into the file: bulk batches write a few MiB each, and
/// 16 MiB keep them in one log.
const CHECKPOINT_PAGES: u32 = 4_000;
/// Readers of one SQLite file: more than the cores of a small machine, so that a slow list does not block a look-up.
const SQLITE_READERS: u32 = 8;

/// `NULL` in a table without rows.
const SCHEMA_VERSION: &str = "SELECT MAX(version) FROM _sqlx_migrations WHERE success";

/// Where a SQLite database lies.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// The file; it is created when missing.
    pub path: PathBuf,
}

/// How PostgreSQL is reached. `Debug` masks the URL, which holds the password.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/database`.
    pub url: String,
    /// Connections of this node. Too low: requests wait; too high: the server's `max_connections` is used up.
    pub connections_max: u32,
}

impl std::fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { url: _, connections_max } = self;
        f.debug_struct("PostgresOptions").field("url", &"***").field("connections_max", connections_max).finish()
    }
}

/// One SQLite file: a single writer, many readers.
#[derive(Debug, Clone)]
pub struct SqlitePools {
    pub(crate) writer: SqlitePool,
    readers: SqlitePool,
}

impl SqlitePools {
    /// The readers; [`on_db!`](crate::on_db) uses it.
    #[must_use]
    pub const fn readers(&self) -> &SqlitePool {
        &self.readers
    }
}

/// A database: the same statements run on both engines.
#[derive(Debug, Clone)]
pub enum Db {
    /// The embedded default.
    Sqlite(SqlitePools),
    /// To scale out.
    Postgres(PgPool),
}

/// A transaction on either engine. Store functions take `&mut Tx`, so that a plan (read) and a commit (write) load
/// their view by the same code.
#[derive(Debug)]
pub enum Tx {
    /// On SQLite.
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    /// On PostgreSQL; the flag says whether rows that are read get locked.
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>, bool),
}

impl Tx {
    /// What is appended to a `SELECT` whose rows the decision depends on: ` FOR UPDATE` in a write transaction on
    /// PostgreSQL, nothing else (SQLite has one writer, a plan locks nothing).
    #[must_use]
    pub const fn lock_clause(&self) -> &'static str {
        match self {
            Self::Postgres(_, true) => " FOR UPDATE",
            _ => "",
        }
    }

    async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx, _) => tx.commit().await,
        }
    }

    async fn rollback(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(tx) => tx.rollback().await,
            Self::Postgres(tx, _) => tx.rollback().await,
        }
    }
}

/// Runs one sqlx expression on a [`Db`] for either engine: `on_db!(db, c => query_as::<_, Row>(SQL).bind(x).fetch_all(c).await)`.
#[macro_export]
macro_rules! on_db {
    ($db:expr, $conn:ident => $body:expr) => {
        match $db {
            $crate::Db::Sqlite(pools) => {
                let $conn = pools.readers();
                $body
            }
            $crate::Db::Postgres(pool) => {
                let $conn = pool;
                $body
            }
        }
    };
}

/// Runs one sqlx expression in a [`Tx`] for either engine: `on_tx!(tx, c => query(SQL).bind(x).execute(c).await)`.
#[macro_export]
macro_rules! on_tx {
    ($tx:expr, $conn:ident => $body:expr) => {
        match $tx {
            $crate::Tx::Sqlite(transaction) => {
                let $conn = &mut **transaction;
                $body
            }
            $crate::Tx::Postgres(transaction, _) => {
                let $conn = &mut **transaction;
                $body
            }
        }
    };
}

/// Declares the statements of a store module, and `ALL`, from which a test prepares each on both engines.
/// Statements that are put together at run time (bulk rows) are listed in the test by hand.
#[macro_export]
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $sql:expr;)+) => {
        $($(#[$doc])* pub(crate) const $name: &str = $sql;)+
        /// Every statement of this module.
        #[cfg(test)]
        pub(crate) const ALL: &[&str] = &[$($name,)+];
    };
}

impl Db {
    /// Opens (and creates) a SQLite file.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub async fn open_sqlite(options: &SqliteOptions) -> Result<Self, DbError> {
        Self::open_sqlite_with(options, CHECKPOINT_PAGES).await
    }

    /// As [`Db::open_sqlite`], with the pages of the write-ahead log after which it is folded into the file.
    pub(crate) async fn open_sqlite_with(options: &SqliteOptions, checkpoint_pages: u32) -> Result<Self, DbError> {
        let connect = sqlite_options(&options.path).pragma("wal_autocheckpoint", checkpoint_pages.to_string());
        // SQLite ends a transaction by itself when the disk is full; the driver's ROLLBACK then fails, and it counts the
        // transaction as open for ever. Such a connection is closed instead of lent again; on PostgreSQL, too.
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .acquire_slow_threshold(ACQUIRE_TIMEOUT)
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
            .connect_with(connect.clone())
            .await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(SQLITE_READERS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .acquire_slow_threshold(ACQUIRE_TIMEOUT)
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
            .connect_with(connect.pragma("query_only", "ON"))
            .await?;
        Ok(Self::Sqlite(SqlitePools { writer, readers }))
    }

    /// Connects to PostgreSQL.
    ///
    /// # Errors
    /// When the URL is malformed or the server does not answer.
    pub async fn connect_postgres(options: &PostgresOptions) -> Result<Self, DbError> {
        let connect: PgConnectOptions = options.url.parse().map_err(DbError::from)?;
        let connect = connect.disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(options.connections_max)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .acquire_slow_threshold(ACQUIRE_TIMEOUT)
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
            .connect_with(connect)
            .await?;
        Ok(Self::Postgres(pool))
    }

    /// Brings the store's schema to this version of the program.
    ///
    /// # Errors
    /// When a migration fails or the schema is newer than the program.
    pub async fn migrate(&self) -> Result<(), DbError> {
        match self {
            Self::Sqlite(pools) => sqlx::migrate!("../migrations/sqlite").run(&pools.writer).await?,
            Self::Postgres(pool) => sqlx::migrate!("../migrations/postgres").run(pool).await?,
        }
        Ok(())
    }

    /// Brings a node database (always SQLite) to this version of the program.
    ///
    /// # Errors
    /// As [`Db::migrate`].
    pub async fn migrate_node(&self) -> Result<(), DbError> {
        if let Self::Sqlite(pools) = self {
            sqlx::migrate!("../migrations/node").run(&pools.writer).await?;
        }
        Ok(())
    }

    /// The last migration that was applied to the store (0: none) and the last one of this program. Changes nothing.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn schema_versions(&self) -> Result<(i64, i64), DbError> {
        let (applied, known) = match self {
            Self::Sqlite(pools) => (
                sqlx::query_scalar(SCHEMA_VERSION).fetch_one(&pools.readers).await,
                sqlx::migrate!("../migrations/sqlite").iter().map(|migration| migration.version).max(),
            ),
            Self::Postgres(pool) => (
                sqlx::query_scalar(SCHEMA_VERSION).fetch_one(pool).await,
                sqlx::migrate!("../migrations/postgres").iter().map(|migration| migration.version).max(),
            ),
        };
        let applied: Option<i64> = match applied.map_err(DbError::from) {
            Ok(version) => version,
            // The table is made with the first migration.
            Err(DbError::Statement(sqlx::Error::Database(_))) => None,
            Err(error) => return Err(error),
        };
        Ok((applied.unwrap_or(0), known.unwrap_or(0)))
    }

    /// Whether the store holds no table at all, so that a copy can be played into it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn is_blank(&self) -> Result<bool, DbError> {
        let tables: i64 = match self {
            Self::Sqlite(pools) => {
                sqlx::query_scalar("SELECT COUNT(*) FROM sqlite_schema").fetch_one(&pools.readers).await?
            }
            Self::Postgres(pool) => {
                let sql = "SELECT COUNT(*) FROM pg_catalog.pg_tables \
                    WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
                sqlx::query_scalar(sql).fetch_one(pool).await?
            }
        };
        Ok(tables == 0)
    }

    /// What SQLite finds wrong in its file (`PRAGMA quick_check`); nothing on PostgreSQL, which checks its own pages.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn quick_check(&self) -> Result<Vec<String>, DbError> {
        let Self::Sqlite(pools) = self else { return Ok(Vec::new()) };
        let mut found: Vec<String> = sqlx::query_scalar("PRAGMA quick_check").fetch_all(&pools.readers).await?;
        found.retain(|line| line != "ok");
        Ok(found)
    }

    /// The clock of the database server; none with SQLite, which has that of this machine.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn clock(&self) -> Result<Option<Timestamp>, DbError> {
        let Self::Postgres(pool) = self else { return Ok(None) };
        let sql = "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT";
        Ok(Some(Timestamp(sqlx::query_scalar(sql).fetch_one(pool).await?)))
    }

    /// Runs `work` in a write transaction in a task of its own, so that a caller who goes away cannot drop it
    /// half-way, and again when the database reports a collision. Everything the closure needs is moved into it
    /// and cloned per attempt.
    ///
    /// # Errors
    /// [`WriteError::Refused`] with what `work` refused, [`WriteError::Db`] when the database failed; nothing was
    /// written then.
    pub async fn write<T, R, F>(&self, work: F) -> Result<T, WriteError<R>>
    where
        T: Send + 'static,
        R: Send + 'static,
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, WriteError<R>>> + Send + Sync + 'static,
    {
        let db = self.clone();
        let task = tokio::spawn(async move {
            for attempt in 0..ATTEMPTS_MAX {
                if attempt > 0 {
                    tokio::time::sleep(pause(attempt, SystemIds.next().as_u64_pair().1)).await;
                }
                let mut tx = db.begin_write().await?;
                let error = match work(&mut tx).await {
                    Ok(value) => match tx.commit().await {
                        Ok(()) => return Ok(value),
                        Err(error) => DbError::from(error),
                    },
                    Err(WriteError::Refused(refusal)) => {
                        tx.rollback().await?;
                        return Err(WriteError::Refused(refusal));
                    }
                    Err(WriteError::Db(error)) => {
                        // The driver's own state decides whether a rollback can still be sent; its failure adds nothing.
                        drop(tx.rollback().await);
                        error
                    }
                };
                if !asks_for_retry(&error) {
                    return Err(WriteError::Db(error));
                }
            }
            Err(WriteError::Db(DbError::Contended { attempts: ATTEMPTS_MAX }))
        });
        match task.await {
            Ok(result) => result,
            Err(join) => Err(WriteError::Db(DbError::Statement(sqlx::Error::Io(std::io::Error::other(join))))),
        }
    }

    /// Runs `work` on one consistent snapshot that cannot write.
    ///
    /// # Errors
    /// What `work` returns, or the database's failure.
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        E: From<DbError>,
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send,
    {
        // In a task of its own: a caller who goes away while BEGIN is under way would give a connection back to the pool
        // that is in a transaction and does not know it. A transaction that nobody waits for any more is dropped whole,
        // which rolls it back.
        let db = self.clone();
        let begun = tokio::spawn(async move { db.begin_read().await }).await;
        let mut tx = begun.map_err(|join| DbError::Statement(sqlx::Error::Io(std::io::Error::other(join))))??;
        let value = work(&mut tx).await?;
        tx.rollback().await.map_err(DbError::from)?;
        Ok(value)
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), DbError> {
        on_db!(self, c => sqlx::query("SELECT 1").execute(c).await.map(|_| ()))?;
        Ok(())
    }

    /// Closes all connections; SQLite folds its write-ahead log into the file.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(pools) => {
                pools.readers.close().await;
                pools.writer.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }

    async fn begin_read(&self) -> Result<Tx, DbError> {
        match self {
            Self::Sqlite(pools) => Ok(Tx::Sqlite(pools.readers.begin().await?)),
            Self::Postgres(pool) => {
                Ok(Tx::Postgres(pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?, false))
            }
        }
    }

    async fn begin_write(&self) -> Result<Tx, DbError> {
        match self {
            Self::Sqlite(pools) => Ok(Tx::Sqlite(pools.writer.begin_with("BEGIN IMMEDIATE").await?)),
            Self::Postgres(pool) => Ok(Tx::Postgres(pool.begin().await?, true)),
        }
    }
}

/// How long to wait before `attempt` (from 1): anything up to a bound that grows, so that two who collided do not run
/// in step again. `random` is any number.
fn pause(attempt: u32, random: u64) -> Duration {
    let bound = PAUSE_FIRST_US.saturating_mul(1_u64 << (attempt - 1).min(16)).min(PAUSE_MAX_US);
    Duration::from_micros(random % (bound + 1))
}

fn sqlite_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // FULL: a commit that was answered is on the disk
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(512)
        // The text of a bulk statement, which is all that a line would have, fills screens.
        .disable_statement_logging()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_not_shown() {
        let options =
            PostgresOptions { url: "postgres://tandem:hunter2@db.example/tandem".to_owned(), connections_max: 4 };
        assert_eq!(format!("{options:?}"), "PostgresOptions { url: \"***\", connections_max: 4 }");
    }

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        for (attempt, bound_us) in [(1, 2_000), (2, 4_000), (6, 64_000), (7, 100_000), (9, 100_000), (99, 100_000)] {
            let bound = Duration::from_micros(bound_us);
            assert_eq!(pause(attempt, bound_us), bound, "{attempt}");
            assert_eq!(pause(attempt, bound_us + 1), Duration::ZERO, "{attempt}");
            assert!(pause(attempt, SystemIds.next().as_u64_pair().1) <= bound, "{attempt}");
        }
        let drawn: std::collections::BTreeSet<_> =
            (0..100).map(|_| pause(9, SystemIds.next().as_u64_pair().1)).collect();
        assert!(drawn.len() > 50, "{} different pauses of 100", drawn.len());
    }
}

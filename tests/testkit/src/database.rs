//! A fresh database of each engine per test.

use std::ops::Deref;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use db::{Db, PostgresOptions, SqliteOptions};
use futures::FutureExt as _;
use sqlx::{AssertSqlSafe, Executor as _, SqlSafeStr as _};

use crate::postgres;

/// Connections of one test: more than any test has writers, few enough for many tests beside each other.
const CONNECTIONS_MAX: u32 = 8;

/// A migrated store of its own; gone when the test ends.
#[derive(Debug, Clone)]
pub struct TestDb {
    db: Db,
    name: &'static str,
    url: Option<String>,
    path: Option<PathBuf>,
    // Held for its Drop, which removes the file.
    _dir: Option<Arc<tempfile::TempDir>>,
}

impl Deref for TestDb {
    type Target = Db;
    fn deref(&self) -> &Db {
        &self.db
    }
}

impl TestDb {
    /// A migrated SQLite store in a directory of its own.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn sqlite() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let path = dir.path().join("store.db");
        let db = Db::open_sqlite(&SqliteOptions { path: path.clone() }).await.expect("a fresh file can be opened");
        db.migrate().await.expect("a fresh store can be migrated");
        Self { db, name: "sqlite", url: None, path: Some(path), _dir: Some(Arc::new(dir)) }
    }

    /// A migrated PostgreSQL database.
    ///
    /// # Panics
    /// When there is no PostgreSQL, with the remedy.
    pub async fn postgres() -> Self {
        let url = postgres::fresh_database(true).await;
        let options = PostgresOptions { url: url.clone(), connections_max: CONNECTIONS_MAX };
        let db = Db::connect_postgres(&options).await.expect("the fresh database can be reached");
        Self { db, name: "postgres", url: Some(url), path: None, _dir: None }
    }

    /// `sqlite` or `postgres`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The URL of a PostgreSQL database.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// The file of a SQLite store.
    #[must_use]
    pub fn path(&self) -> Option<&std::path::Path> {
        self.path.as_deref()
    }

    /// Closes it and removes it.
    pub async fn remove(self) {
        self.db.close().await;
        if let Some(url) = &self.url {
            postgres::drop_database(url).await;
        }
    }
}

/// Runs `test` on a fresh SQLite store, then on a fresh PostgreSQL database. A failure tells on which.
///
/// # Panics
/// When `test` does.
pub async fn on_each_database(test: impl AsyncFn(TestDb)) {
    run(&test, TestDb::sqlite().await).await;
    run(&test, TestDb::postgres().await).await;
}

#[expect(clippy::print_stderr, reason = "a failed test says on which engine")]
async fn run(test: &impl AsyncFn(TestDb), db: TestDb) {
    let outcome = AssertUnwindSafe(test(db.clone())).catch_unwind().await;
    if outcome.is_err() {
        eprintln!("the failure above happened on {}", db.name());
    }
    db.remove().await;
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

/// Prepares every statement on the engine of `db` without running it, so that a misspelt column fails at once.
///
/// # Panics
/// With the statement that the engine refuses.
pub async fn prepare_all(db: &Db, statements: &[&str]) {
    for sql in statements {
        let prepared = db::on_db!(db, c => c.prepare(AssertSqlSafe(*sql).into_sql_str()).await.map(|_| ()));
        assert!(prepared.is_ok(), "{prepared:?}\nin: {sql}");
    }
}

//! Billing on the store: journal records become usage and money in one transaction, closed files become bytes on disk.
//!
//! What it does: implements `billing::port::Queries` and `model::change::Change` over `billing::command::Command`
//! ([`BillingStore`]); consumes node journals ([`BillingStore::consume`]); closes streams whose period is over
//! ([`BillingStore::close_due`]), publishes closed files ([`BillingStore::publish_planned`]), proves them complete
//! ([`BillingStore::verify`], [`BillingStore::reconcile`]), and says what is wrong ([`BillingStore::unrated`],
//! [`BillingStore::export_failures`]). What it never does: decide (that is `billing`), run by
//! itself, or derive a file anew: bytes come from the committed list of items.
//!
//! How to drive it: one worker per journal calls `consume` until it reads nothing, then waits for the journal's signal
//! or a period. A second worker calls `close_due`, then `publish_planned`, by period and after each `file_close`. All
//! three may run twice at the same time, on any node, and after a crash. [`ConsumeError::is_unknown_record`] means that
//! a newer program wrote the journal: the worker stops there and raises an alarm.

mod account;
mod change;
mod consume;
mod file;
mod ledger;
mod publish;
mod query;
mod rated;
mod reconcile;
mod sql;
mod stream;
mod suspense;
mod tariff;
mod troubles;
mod usage;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;

use db::Db;
use model::id::{IdSource, InstallationId};
use model::time::Clock;

pub use consume::{CONSUMER, ConsumeError, Progress};
pub use publish::PublishError;
pub use query::FILE_READ_MAX;
pub use reconcile::{BookTotal, ReconcileFinding, ReconcileReport, SideTotal, StreamTotals};
pub use troubles::{EXPORT_FAILING_MS, EXPORT_LATE_MS, ExportFailure, Unrated, UnratedLimits};
pub use verify::{VerifyError, VerifyFinding, VerifyReport};

/// Billing over a store and a folder of files. Clones share one cache of tariffs, and what they could not export.
#[derive(Debug, Clone)]
pub struct BillingStore {
    db: Db,
    files: PathBuf,
    installation: InstallationId,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    tariffs: tariff::Cache,
    failures: troubles::Failures,
}

impl BillingStore {
    /// Billing over `db`. Files are published below `files`, one folder per stream; nodes that share a store share it.
    #[must_use]
    pub fn new(
        db: Db,
        files: PathBuf,
        installation: InstallationId,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
    ) -> Self {
        let (tariffs, failures) = (tariff::Cache::default(), troubles::Failures::default());
        Self { db, files, installation, clock, ids, tariffs, failures }
    }
}

#[cfg(test)]
mod tests {
    use super::{account, file, ledger, rated, reconcile, stream, suspense, tariff, troubles, usage};

    #[tokio::test]
    async fn every_statement_is_understood_by_both_engines() {
        let all = all_statements();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        testkit::on_each_database(async |db: testkit::TestDb| testkit::prepare_all(&db, &all).await).await;
    }

    /// A page of a list is one walk along an index that begins at the page and gives the order; a tenant who has nothing
    /// walks over nothing of others. A file's rows are found by their numbers.
    #[tokio::test]
    async fn lists_walk_along_an_index() {
        let db = testkit::TestDb::sqlite().await;
        let lists = [
            (usage::LIST, "usage_list ((path,call_id,leg,part)>(?,?,?,?) AND path<?)"),
            (usage::LIST_OWNED, "usage_list (path=? AND (call_id,leg,part)>(?,?,?))"),
            (rated::LIST, "rated_list ((path,call_id,leg,part,account_id,side,version)>(?,?,?,?,?,?,?) AND path<?)"),
            (rated::LIST_OWNED, "rated_list (path=? AND (call_id,leg,part,account_id,side,version)>(?,?,?,?,?,?))"),
            (suspense::LIST, "suspense_list ((path,call_id,leg,part,account_id,side)>(?,?,?,?,?,?) AND path<?)"),
            (suspense::LIST_OWNED, "suspense_list (path=? AND (call_id,leg,part,account_id,side)>(?,?,?,?,?))"),
            (ledger::BALANCES, "ledger_list ((path,account_id,book,currency)>(?,?,?,?) AND path<?)"),
            (ledger::BALANCES_OWNED, "ledger_list (path=? AND (account_id,book,currency)>(?,?,?))"),
            (file::OPEN, "sqlite_autoindex_rated_1 (sequence>? AND sequence<?)"),
            (file::ITEMS, "sqlite_autoindex_rated_1 (sequence>? AND sequence<?)"),
        ];
        for (sql, index) in lists {
            let plan = plan(&db, sql).await;
            let found = plan.iter().any(|step| step.starts_with("SEARCH") && step.contains(index));
            assert!(found, "{plan:#?}\nof {sql}");
            let is_list = sql.starts_with("SELECT * FROM") || sql.contains("FROM ledger");
            let sorts = plan.iter().any(|step| step.contains("SCAN") || step.contains("TEMP B-TREE"));
            assert!(!is_list || !sorts, "{plan:#?}\nof {sql}");
        }
        db.remove().await;
    }

    async fn plan(db: &db::Db, sql: &'static str) -> Vec<String> {
        let sql = format!("EXPLAIN QUERY PLAN {sql}");
        let db::Db::Sqlite(pools) = db else { panic!("plans are read on SQLite") };
        let rows: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(pools.readers()).await.unwrap();
        rows.into_iter().map(|(.., step)| step).collect()
    }

    fn all_statements() -> Vec<String> {
        let fixed = [
            account::ALL,
            file::ALL,
            ledger::ALL,
            rated::ALL,
            reconcile::ALL,
            stream::ALL,
            suspense::ALL,
            tariff::ALL,
            troubles::ALL,
            usage::ALL,
        ];
        let fixed = fixed.concat().into_iter().map(str::to_owned);
        fixed
            .chain(tariff::made())
            .chain(usage::made())
            .chain(rated::made())
            .chain(suspense::made())
            .chain(ledger::made())
            .collect()
    }
}

//! What an auditor reads: facts of the journal, rows of the store, and whether they agree.

use std::collections::BTreeMap;

use db::journal::JournalReader;
use db::sqlx::{query_as, query_scalar};
use db::{Db, Position, PostgresOptions, SqliteOptions, on_db};
use model::event::fact::Fact;
use tandem::config::Config;
use tandem::demo::installation::Installation;
use uuid::Uuid;

/// A call as the journal tells it.
#[derive(Debug, Clone, Default)]
pub struct JournaledCall {
    /// Call-ID of the caller's leg.
    pub a_sip_call_id: String,
    /// Call-ID of the callee's leg.
    pub b_sip_call_id: String,
    /// `answered` records.
    pub answered: u32,
    /// `ended` records.
    pub ended: u32,
    /// `attempted` and `answer_aborted` records.
    pub unanswered: u32,
    /// Duration of the end, milliseconds.
    pub duration_ms: i64,
    /// Whether the end is estimated.
    pub estimated: bool,
    /// RTP packets received on both legs.
    pub packets_received: u64,
}

/// All calls of the journal, after checking that it verifies.
///
/// # Panics
/// When a record is missing or cannot be read.
#[must_use]
pub fn journaled_calls(config: &Config) -> BTreeMap<Uuid, JournaledCall> {
    let reader = JournalReader::open(&config.node.data_dir);
    reader.verify().expect("the journal verifies");
    let mut calls: BTreeMap<Uuid, JournaledCall> = BTreeMap::new();
    let mut position = Position::default();
    loop {
        let records = reader.read_after(position, 4_096).expect("the journal can be read");
        let Some(last) = records.last() else { return calls };
        position = last.position;
        for record in &records {
            match &record.fact {
                Fact::Answered(a) => {
                    let call = calls.entry(a.setup.call.uuid()).or_default();
                    call.a_sip_call_id.clone_from(&a.setup.a_sip_call_id);
                    call.b_sip_call_id = a.setup.b_sip_call_id.clone().unwrap_or_default();
                    call.answered += 1;
                }
                Fact::Ended(e) => {
                    let call = calls.entry(e.answered.setup.call.uuid()).or_default();
                    call.ended += 1;
                    call.duration_ms = e.duration_ms;
                    call.estimated = e.estimated;
                    call.packets_received = [e.a_media, e.b_media].iter().flatten().map(|m| m.packets_received).sum();
                }
                Fact::Attempted(a) => calls.entry(a.setup.call.uuid()).or_default().unanswered += 1,
                Fact::AnswerAborted(a) => calls.entry(a.setup.call.uuid()).or_default().unanswered += 1,
                Fact::Started(_) | Fact::Heartbeat(_) | Fact::Interim(_) => {}
            }
        }
    }
}

/// Opens the store that a configuration names, to read it.
///
/// # Panics
/// When it cannot be opened.
pub async fn store(config: &Config) -> Db {
    if config.database.url.is_empty() {
        let path = config.node.data_dir.join("store.db");
        Db::open_sqlite(&SqliteOptions { path }).await.expect("the store opens")
    } else {
        let options = PostgresOptions { url: config.database.url.clone(), connections_max: 2 };
        Db::connect_postgres(&options).await.expect("the store opens")
    }
}

/// Usage of the store: `(call, leg, duration, estimated, aborted)`.
///
/// # Panics
/// When it cannot be read.
pub async fn usage(db: &Db) -> Vec<(Uuid, i64, i64, bool, bool)> {
    const SQL: &str =
        "SELECT call_id, CAST(leg AS BIGINT), duration_ms, estimated, aborted FROM usage ORDER BY call_id, leg";
    on_db!(db, c => query_as(SQL).fetch_all(c).await).expect("usage can be read")
}

/// A single number of the store.
///
/// # Panics
/// When it cannot be read.
pub async fn number(db: &Db, sql: &'static str) -> i64 {
    on_db!(db, c => query_scalar(sql).fetch_one(c).await).expect("a number can be read")
}

/// What must hold after any number of crashes, once everything has been consumed: one usage per call and leg, one rated
/// row per charge, dense sequences, ledger in balance and equal to the rated rows.
///
/// # Panics
/// When it does not hold.
pub async fn assert_books(db: &Db) {
    let zero = [
        (
            "a call's leg is there twice",
            "SELECT COUNT(*) FROM (SELECT call_id, leg, part FROM usage GROUP BY call_id, leg, part HAVING COUNT(*) > 1) t",
        ),
        (
            "a charge is there twice",
            "SELECT COUNT(*) FROM (SELECT call_id, leg, part, side, account_id FROM rated GROUP BY call_id, leg, part, side, account_id HAVING COUNT(*) > 1) t",
        ),
        ("the rated sequence has a gap", "SELECT COALESCE(MAX(sequence), 0) - COUNT(*) FROM rated"),
        ("the event sequence has a gap", "SELECT COALESCE(MAX(sequence), 0) - COUNT(*) FROM event"),
        ("the audit sequence has a gap", "SELECT COALESCE(MAX(sequence), 0) - COUNT(*) FROM audit"),
        ("the ledger is out of balance", "SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM ledger"),
        (
            "the ledger differs from the rated rows",
            "SELECT CAST((SELECT COALESCE(SUM(amount), 0) FROM rated WHERE side = 'sell') - (SELECT COALESCE(SUM(amount), 0) FROM ledger WHERE book = 'receivable') AS BIGINT)",
        ),
        (
            "a rated row has no usage",
            "SELECT COUNT(*) FROM rated r WHERE NOT EXISTS (SELECT 1 FROM usage u WHERE u.call_id = r.call_id AND u.leg = r.leg AND u.part = r.part)",
        ),
        ("a record is in conflict", "SELECT COUNT(*) FROM conflict"),
    ];
    for (complaint, sql) in zero {
        assert_eq!(number(db, sql).await, 0, "{complaint}");
    }
}

/// What `tandem billing reconcile` finds: journal against usage, usage against rated rows, rated rows against ledger.
///
/// # Panics
/// When the command fails or finds anything.
pub async fn assert_reconciled(at: &Installation) {
    let mut command = tokio::process::Command::new(&at.program);
    command.args(["billing", "reconcile", "--output", "json", "--config"]).arg(&at.config_file);
    let output = command.stdin(std::process::Stdio::null()).output().await.expect("the program runs");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && report["findings"] == serde_json::json!([]), "{report} {text}");
}

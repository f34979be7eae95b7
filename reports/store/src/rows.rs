//! Rows and what they mean.

use db::DbError;
use db::dialect::{BulkRow, Value};
use model::id::{AccountId, RunId};
use model::tenancy::AccountPath;
use model::time::Timestamp;
use reports::resource::{Counters, ReportRun, RunState};
use uuid::Uuid;

/// The sums of all counters of the rows of a group. `$t` is the table's alias with its dot.
macro_rules! counter_sums {
    ($t:literal) => {
        concat!(
            "CAST(SUM(",
            $t,
            "attempts) AS BIGINT) AS attempts, ",
            "CAST(SUM(",
            $t,
            "answered) AS BIGINT) AS answered, ",
            "CAST(SUM(",
            $t,
            "user_busy) AS BIGINT) AS user_busy, ",
            "CAST(SUM(",
            $t,
            "no_answer) AS BIGINT) AS no_answer, ",
            "CAST(SUM(",
            $t,
            "terminal_reject) AS BIGINT) AS terminal_reject, ",
            "CAST(SUM(",
            $t,
            "address_error) AS BIGINT) AS address_error, ",
            "CAST(SUM(",
            $t,
            "network_failure) AS BIGINT) AS network_failure, ",
            "CAST(SUM(",
            $t,
            "pdd_count) AS BIGINT) AS pdd_count, ",
            "CAST(SUM(",
            $t,
            "pdd_sum_ms) AS BIGINT) AS pdd_sum_ms, ",
            "CAST(SUM(",
            $t,
            "ended) AS BIGINT) AS ended, ",
            "CAST(SUM(",
            $t,
            "conversation_ms) AS BIGINT) AS conversation_ms, ",
            "CAST(SUM(",
            $t,
            "estimated) AS BIGINT) AS estimated, ",
            "CAST(SUM(",
            $t,
            "packets_received) AS BIGINT) AS packets_received, ",
            "CAST(SUM(",
            $t,
            "packets_lost) AS BIGINT) AS packets_lost"
        )
    };
}
pub(crate) use counter_sums;

/// The columns of [`RunRow`].
macro_rules! run_columns {
    () => {
        "id, definition, period, revision, account_id, path, timezone, period_from, period_to, provisional, state, \
         error, created_at, finished_at"
    };
}
pub(crate) use run_columns;

#[derive(sqlx::FromRow)]
pub(crate) struct RunRow {
    id: Uuid,
    definition: String,
    period: String,
    revision: i64,
    account_id: Uuid,
    path: String,
    timezone: String,
    period_from: i64,
    period_to: i64,
    provisional: bool,
    state: String,
    error: Option<String>,
    created_at: i64,
    finished_at: Option<i64>,
}

impl RunRow {
    pub(crate) fn run(self) -> Result<ReportRun, DbError> {
        let corrupt = |column, value: &str| DbError::corrupt(column, format!("{value:?}"));
        Ok(ReportRun {
            id: RunId::from_uuid(self.id),
            definition: self.definition,
            period: self.period,
            revision: i32::try_from(self.revision).map_err(|e| DbError::corrupt("report_run.revision", e))?,
            account: AccountId::from_uuid(self.account_id),
            path: path("report_run.path", &self.path)?,
            timezone: self.timezone,
            period_from: Timestamp(self.period_from),
            period_to: Timestamp(self.period_to),
            provisional: self.provisional,
            state: state(&self.state).ok_or_else(|| corrupt("report_run.state", &self.state))?,
            error: self.error,
            created_at: Timestamp(self.created_at),
            finished_at: self.finished_at.map(Timestamp),
        })
    }
}

fn state(text: &str) -> Option<RunState> {
    match text {
        "due" => Some(RunState::Due),
        "running" => Some(RunState::Running),
        "finished" => Some(RunState::Finished),
        "failed" => Some(RunState::Failed),
        _ => None,
    }
}

pub(crate) fn path(column: &'static str, text: &str) -> Result<AccountPath, DbError> {
    text.parse().map_err(|e| DbError::corrupt(column, e))
}

#[derive(sqlx::FromRow)]
pub(crate) struct CounterRow {
    attempts: i64,
    answered: i64,
    user_busy: i64,
    no_answer: i64,
    terminal_reject: i64,
    address_error: i64,
    network_failure: i64,
    pdd_count: i64,
    pdd_sum_ms: i64,
    ended: i64,
    conversation_ms: i64,
    estimated: i64,
    packets_received: i64,
    packets_lost: i64,
}

impl From<CounterRow> for Counters {
    fn from(row: CounterRow) -> Self {
        Self {
            attempts: row.attempts,
            answered: row.answered,
            user_busy: row.user_busy,
            no_answer: row.no_answer,
            terminal_reject: row.terminal_reject,
            address_error: row.address_error,
            network_failure: row.network_failure,
            pdd_count: row.pdd_count,
            pdd_sum_ms: row.pdd_sum_ms,
            ended: row.ended,
            conversation_ms: row.conversation_ms,
            estimated: row.estimated,
            packets_received: row.packets_received,
            packets_lost: row.packets_lost,
        }
    }
}

/// Counts to add to a row of `pm_interval`.
pub(crate) struct IntervalRow<'a> {
    pub(crate) start_at: i64,
    pub(crate) scope_kind: &'static str,
    pub(crate) scope_id: Uuid,
    pub(crate) node: &'a str,
    pub(crate) path: String,
    pub(crate) counters: Counters,
}

/// Adds to the row of the same key, and counts how often it was touched.
pub(crate) const INTERVAL_CONFLICT: &str = "ON CONFLICT (start_at, scope_kind, scope_id, node) DO UPDATE SET \
    attempts = pm_interval.attempts + excluded.attempts, \
    answered = pm_interval.answered + excluded.answered, \
    user_busy = pm_interval.user_busy + excluded.user_busy, \
    no_answer = pm_interval.no_answer + excluded.no_answer, \
    terminal_reject = pm_interval.terminal_reject + excluded.terminal_reject, \
    address_error = pm_interval.address_error + excluded.address_error, \
    network_failure = pm_interval.network_failure + excluded.network_failure, \
    pdd_count = pm_interval.pdd_count + excluded.pdd_count, \
    pdd_sum_ms = pm_interval.pdd_sum_ms + excluded.pdd_sum_ms, \
    ended = pm_interval.ended + excluded.ended, \
    conversation_ms = pm_interval.conversation_ms + excluded.conversation_ms, \
    estimated = pm_interval.estimated + excluded.estimated, \
    packets_received = pm_interval.packets_received + excluded.packets_received, \
    packets_lost = pm_interval.packets_lost + excluded.packets_lost, \
    revision = pm_interval.revision + 1";

impl BulkRow for IntervalRow<'_> {
    const TABLE: &'static str = "pm_interval";
    const COLUMNS: &'static [&'static str] = &[
        "start_at",
        "scope_kind",
        "scope_id",
        "node",
        "path",
        "attempts",
        "answered",
        "user_busy",
        "no_answer",
        "terminal_reject",
        "address_error",
        "network_failure",
        "pdd_count",
        "pdd_sum_ms",
        "ended",
        "conversation_ms",
        "estimated",
        "packets_received",
        "packets_lost",
        "revision",
    ];

    fn values<'a>(&'a self, out: &mut Vec<Value<'a>>) {
        let c = &self.counters;
        out.extend([
            self.start_at.into(),
            self.scope_kind.into(),
            self.scope_id.into(),
            self.node.into(),
            self.path.as_str().into(),
        ]);
        let counts = [
            c.attempts,
            c.answered,
            c.user_busy,
            c.no_answer,
            c.terminal_reject,
            c.address_error,
            c.network_failure,
            c.pdd_count,
            c.pdd_sum_ms,
            c.ended,
            c.conversation_ms,
            c.estimated,
            c.packets_received,
            c.packets_lost,
            0,
        ];
        out.extend(counts.map(Value::from));
    }
}

/// Money to add to a row of `pm_revenue`.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct RevenueRow {
    pub(crate) start_at: i64,
    pub(crate) account_id: Uuid,
    pub(crate) side: String,
    pub(crate) currency: String,
    pub(crate) path: String,
    pub(crate) rated_count: i64,
    pub(crate) billed_ms: i64,
    /// Whole millions of units.
    pub(crate) amount_millions: i64,
    /// What is left of each amount beside them.
    pub(crate) amount: i64,
}

/// Adds to the row of the same key.
pub(crate) const REVENUE_CONFLICT: &str = "ON CONFLICT (start_at, account_id, side, currency) DO UPDATE SET \
    rated_count = pm_revenue.rated_count + excluded.rated_count, \
    billed_ms = pm_revenue.billed_ms + excluded.billed_ms, \
    amount_millions = pm_revenue.amount_millions + excluded.amount_millions, \
    amount = pm_revenue.amount + excluded.amount";

impl BulkRow for RevenueRow {
    const TABLE: &'static str = "pm_revenue";
    const COLUMNS: &'static [&'static str] = &[
        "start_at",
        "account_id",
        "side",
        "currency",
        "path",
        "rated_count",
        "billed_ms",
        "amount_millions",
        "amount",
    ];

    fn values<'a>(&'a self, out: &mut Vec<Value<'a>>) {
        out.extend([
            self.start_at.into(),
            self.account_id.into(),
            self.side.as_str().into(),
            self.currency.as_str().into(),
            self.path.as_str().into(),
            self.rated_count.into(),
            self.billed_ms.into(),
            self.amount_millions.into(),
            self.amount.into(),
        ]);
    }
}

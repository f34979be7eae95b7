//! Runs of reports and the counters behind them.

use async_graphql::{Enum, ID, SimpleObject};
use model::change::ResourceKind;
use reports::resource as row;

use super::global;
use crate::scalar::{Long, Timestamp};

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "row::RunState")]
pub enum RunState {
    /// Waits for a worker.
    Due,
    /// A worker holds it.
    Running,
    /// Figures, HTML and CSV are there, mail is in the outbox.
    Finished,
    /// Given up; `error` says why.
    Failed,
}

/// One run of a report. Its forms are fetched by HTTP.
#[derive(Debug, SimpleObject)]
pub struct ReportRun {
    /// Its global identifier.
    pub id: ID,
    /// The definition, such as `monthly:<account id>`.
    pub definition: String,
    /// The period, such as `2026-11`.
    pub period: String,
    /// 0, or higher when it was run again.
    pub revision: i32,
    /// The account that it is about.
    pub account_id: ID,
    /// The zone of the period's bounds (IANA).
    pub timezone: String,
    /// Begin of the period, inclusive.
    pub period_from: Timestamp,
    /// End of the period, exclusive.
    pub period_to: Timestamp,
    /// The period was not over (or not settled) when the figures were taken.
    pub provisional: bool,
    /// Where it stands.
    pub state: RunState,
    /// Why it failed.
    pub error: Option<String>,
    /// Path of the HTML on this server.
    pub html_path: String,
    /// Path of the CSV on this server.
    pub csv_path: String,
    /// Path of the XLSX workbook on this server.
    pub xlsx_path: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was finished.
    pub finished_at: Option<Timestamp>,
}

impl From<row::ReportRun> for ReportRun {
    fn from(run: row::ReportRun) -> Self {
        Self {
            id: global(ResourceKind::ReportRun, run.id),
            definition: run.definition,
            period: run.period,
            revision: run.revision,
            account_id: global(ResourceKind::Account, run.account),
            timezone: run.timezone,
            period_from: Timestamp(run.period_from),
            period_to: Timestamp(run.period_to),
            provisional: run.provisional,
            state: run.state.into(),
            error: run.error,
            html_path: format!("/reports/runs/{}/html", run.id),
            csv_path: format!("/reports/runs/{}/csv", run.id),
            xlsx_path: format!("/reports/runs/{}/xlsx", run.id),
            created_at: Timestamp(run.created_at),
            finished_at: run.finished_at.map(Timestamp),
        }
    }
}

/// Raw counts of 15 minutes; never a percentage.
#[derive(Debug, SimpleObject)]
pub struct PerformanceInterval {
    /// Begin, UTC.
    pub start: Timestamp,
    /// Originating attempts.
    pub attempts: Long,
    /// Answered attempts.
    pub answered: Long,
    /// Unanswered: user busy.
    pub user_busy: Long,
    /// Unanswered: rang, or subscriber did not answer.
    pub no_answer: Long,
    /// Unanswered: refused by the terminal.
    pub terminal_reject: Long,
    /// Unanswered: fault of the dialled address.
    pub address_error: Long,
    /// Unanswered: fault or limit of the network.
    pub network_failure: Long,
    /// Attempts with a post-dial delay.
    pub pdd_count: Long,
    /// Sum of the post-dial delays, milliseconds.
    pub pdd_sum_ms: Long,
    /// Answered calls that ended.
    pub ended: Long,
    /// Their conversation time, milliseconds.
    pub conversation_ms: Long,
    /// Ends that are estimated.
    pub estimated: Long,
    /// RTP packets received on all legs of ended calls.
    pub packets_received: Long,
    /// RTP packets lost on all legs of ended calls.
    pub packets_lost: Long,
}

impl From<row::Interval> for PerformanceInterval {
    fn from(interval: row::Interval) -> Self {
        let counters = interval.counters;
        Self {
            start: Timestamp(interval.start),
            attempts: Long(counters.attempts),
            answered: Long(counters.answered),
            user_busy: Long(counters.user_busy),
            no_answer: Long(counters.no_answer),
            terminal_reject: Long(counters.terminal_reject),
            address_error: Long(counters.address_error),
            network_failure: Long(counters.network_failure),
            pdd_count: Long(counters.pdd_count),
            pdd_sum_ms: Long(counters.pdd_sum_ms),
            ended: Long(counters.ended),
            conversation_ms: Long(counters.conversation_ms),
            estimated: Long(counters.estimated),
            packets_received: Long(counters.packets_received),
            packets_lost: Long(counters.packets_lost),
        }
    }
}

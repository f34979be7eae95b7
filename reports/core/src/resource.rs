//! What reports show.

use model::id::{AccountId, RunId, TrunkId};
use model::tenancy::AccountPath;
use model::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Length of a counting interval: 15 minutes, of which every zone's day is a whole number.
pub const INTERVAL_MS: i64 = 900_000;

/// Raw counts of one interval (or a sum of intervals); never a percentage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Originating attempts, in the interval of their INVITE.
    pub attempts: i64,
    /// Answered attempts, in the interval of their INVITE.
    pub answered: i64,
    /// Unanswered: user busy.
    pub user_busy: i64,
    /// Unanswered: rang, or subscriber did not answer.
    pub no_answer: i64,
    /// Unanswered: refused by the terminal.
    pub terminal_reject: i64,
    /// Unanswered: fault of the dialled address.
    pub address_error: i64,
    /// Unanswered: fault or limit of the network.
    pub network_failure: i64,
    /// Attempts with a post-dial delay.
    pub pdd_count: i64,
    /// Sum of the post-dial delays, milliseconds.
    pub pdd_sum_ms: i64,
    /// Answered calls that ended, in the interval of their end.
    pub ended: i64,
    /// Their conversation time, milliseconds, in the interval of their end.
    pub conversation_ms: i64,
    /// Ends that are estimated.
    pub estimated: i64,
    /// RTP packets received on all legs of ended calls.
    pub packets_received: i64,
    /// RTP packets lost on all legs of ended calls.
    pub packets_lost: i64,
}

/// An indicator as its parts; undefined when the denominator is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ratio {
    /// What is counted.
    pub numerator: i64,
    /// Of how many.
    pub denominator: i64,
}

/// What a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "snake_case")]
pub enum Subject {
    /// The whole installation.
    Installation,
    /// An account and all below it.
    Account(AccountId),
    /// A trunk.
    Trunk(TrunkId),
}

/// The formats of a finished report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// HTML with SVG charts, complete in itself.
    Html,
    /// CSV (RFC 4180).
    Csv,
    /// A workbook (ECMA-376), one sheet per table.
    Xlsx,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Html, Self::Csv, Self::Xlsx];
    /// The media type of [`Format::Xlsx`] as it is registered with IANA.
    pub const XLSX_MEDIA_TYPE: &'static str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Waits for a worker.
    Due,
    /// A worker holds it.
    Running,
    /// Figures, HTML, CSV and XLSX are there, mail is in the outbox.
    Finished,
    /// Given up; `error` says why.
    Failed,
}

/// One run of a report: unique per definition, period and revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportRun {
    /// Its identifier.
    pub id: RunId,
    /// The definition: `monthly:<account id>` for runs that were asked for, `scheduled:<account id>` for the schedule.
    pub definition: String,
    /// The period, such as `2026-11`.
    pub period: String,
    /// 0, or higher when it was run again.
    pub revision: i32,
    /// The account that it is about.
    pub account: AccountId,
    /// The path of that account.
    pub path: AccountPath,
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
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was finished.
    pub finished_at: Option<Timestamp>,
}

/// Counters of one interval and subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    /// Begin, UTC, a multiple of [`INTERVAL_MS`].
    pub start: Timestamp,
    /// The counts.
    pub counters: Counters,
}

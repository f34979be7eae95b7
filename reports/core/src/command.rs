//! The commands of reports.

use model::id::AccountId;

/// A mutation of the reports folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Runs the monthly report of an account (itself and all below) for one month, mails it to the recipients. A
    /// month that is not over gives a provisional report. A period that was run before gets the next revision.
    /// Cannot be taken back. Requires `report:write`.
    ReportRun {
        /// The account.
        account: AccountId,
        /// The month in the account's zone, `YYYY-MM`.
        period: String,
        /// Mail addresses; may be empty. At most 20.
        recipients: Vec<String>,
    },
}

impl Command {
    /// The name in audit, idempotency and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ReportRun { .. } => "report_run",
        }
    }
}

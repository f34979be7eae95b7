//! The commands of billing.

use model::id::{AccountId, FileId, StreamId, TariffId};
use model::money::{Currency, Rounding};
use model::time::Timestamp;

use crate::resource::{AssignmentTarget, Rate, Side};

/// A mutation of the billing folder.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the resources, documented there")]
pub enum Command {
    /// A tariff with its rates. Requires `billing:write`.
    TariffCreate { account: AccountId, name: String, currency: Currency, rounding: Rounding, rates: Vec<Rate> },
    /// Assigns a tariff; overlapping assignments of one target and side are refused. Requires `billing:write`.
    TariffAssign { tariff: TariffId, target: AssignmentTarget, valid_from: Timestamp, valid_to: Option<Timestamp> },
    /// A stream of billing files. Requires `billing:write`.
    StreamCreate { account: AccountId, name: String, side: Side, close_period_ms: i64 },
    /// Closes the open file of a stream: takes all rated rows that no file has yet, also when there are none (an
    /// empty file keeps the sequence alive). Cannot be taken back. Requires `billing:write`.
    FileClose { stream: StreamId },
    /// What the BSS says of a file; the last word counts. Cannot be taken back. Requires
    /// `billing:acknowledge`.
    FileAcknowledge { file: FileId, accepted: bool, reason: String },
    /// Rates every open charge in suspense at and below an account again, with the tariffs of now for the time of
    /// each call. Requires `billing:write`.
    SuspenseRetry { account: AccountId },
}

impl Command {
    /// The name in audit, idempotency and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TariffCreate { .. } => "tariff_create",
            Self::TariffAssign { .. } => "tariff_assign",
            Self::StreamCreate { .. } => "stream_create",
            Self::FileClose { .. } => "file_close",
            Self::FileAcknowledge { .. } => "file_acknowledge",
            Self::SuspenseRetry { .. } => "suspense_retry",
        }
    }
}

//! What billing shows: tariffs, streams, files, usage, rated usage, suspense, ledger.

use model::cause::ReleaseCause;
use model::event::fact::{Codec, MediaStats};
use model::id::{AccountId, AssignmentId, BatchId, CallId, FileId, StreamId, SubscriberId, TariffId, TrunkId};
use model::money::{Amount, Currency, Fraction, Price, Rounding};
use model::number::E164;
use model::tenancy::AccountPath;
use model::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Whether a charge is what we sell or what we buy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Charged to an account of ours.
    Sell,
    /// Charged to us by the operator behind a trunk.
    Buy,
}

impl Side {
    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sell => "sell",
            Self::Buy => "buy",
        }
    }

    /// The side of a stored name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "sell" => Some(Self::Sell),
            "buy" => Some(Self::Buy),
            _ => None,
        }
    }
}

/// The prefix of calls between subscribers of one customer, which never leave it.
pub const ON_NET_PREFIX: &str = "onnet";

/// A tariff: rates by longest prefix, in one currency, rounded once per call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tariff {
    /// Its identifier.
    pub id: TariffId,
    /// The account that sells (or, for a buy tariff, buys) by it.
    pub account: AccountId,
    /// Unique within the account.
    pub name: String,
    /// Currency of its prices.
    pub currency: Currency,
    /// How the exact amount of a call becomes the charged one.
    pub rounding: Rounding,
    /// Rates; the longest prefix that matches applies.
    pub rates: Vec<Rate>,
    /// Counted from 1.
    pub version: i64,
}

/// A tariff without its rates, of which there may be thousands: they are read in pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TariffHead {
    /// Its identifier.
    pub id: TariffId,
    /// The account that sells (or, for a buy tariff, buys) by it.
    pub account: AccountId,
    /// Unique within the account.
    pub name: String,
    /// Currency of its prices.
    pub currency: Currency,
    /// How the exact amount of a call becomes the charged one.
    pub rounding: Rounding,
    /// Counted from 1.
    pub version: i64,
}

impl TariffHead {
    /// The tariff with its rates.
    #[must_use]
    pub fn with(self, rates: Vec<Rate>) -> Tariff {
        let Self { id, account, name, currency, rounding, version } = self;
        Tariff { id, account, name, currency, rounding, rates, version }
    }
}

/// The price of one destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Digits of E.164 without `+`, or [`ON_NET_PREFIX`].
    pub prefix: String,
    /// For people.
    pub description: String,
    /// Charged once per answered call.
    pub connect_fee: Price,
    /// Charged per `per_ms`.
    pub price: Price,
    /// The unit of the price, milliseconds, such as 60,000.
    pub per_ms: i64,
    /// The least that is charged, milliseconds.
    pub initial_ms: i64,
    /// After it, usage is charged in whole increments of this, milliseconds.
    pub increment_ms: i64,
}

/// To whom a tariff applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssignmentTarget {
    /// Sell: calls of the account and of accounts below that have no assignment of their own.
    Account(AccountId),
    /// Buy: calls over the trunk.
    Trunk(TrunkId),
}

/// The assignment of a tariff for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TariffAssignment {
    /// Its identifier.
    pub id: AssignmentId,
    /// The tariff.
    pub tariff: TariffId,
    /// To whom.
    pub target: AssignmentTarget,
    /// From when, inclusive; the answer of the call decides.
    pub valid_from: Timestamp,
    /// Until when, exclusive.
    pub valid_to: Option<Timestamp>,
    /// Counted from 1.
    pub version: i64,
}

/// A stream of billing files: the rated rows of one side, charged at and below one account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Its identifier.
    pub id: StreamId,
    /// Whose rows.
    pub account: AccountId,
    /// Unique within the account; part of file names: `a-z 0-9 -`.
    pub name: String,
    /// Which side.
    pub side: Side,
    /// The open file is closed after this time, milliseconds; 0: only on request.
    pub close_period_ms: i64,
    /// The sequence that the next file gets.
    pub next_sequence: i64,
    /// Counted from 1.
    pub version: i64,
}

/// Totals of one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrencyTotal {
    /// The currency.
    pub currency: Currency,
    /// Sum of the rounded amounts, decimal text.
    pub amount: String,
    /// Records.
    pub record_count: i64,
}

/// Whether the BSS took a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// Accepted or rejected.
    pub accepted: bool,
    /// Why, when rejected.
    pub reason: String,
    /// Name of the actor.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// A closed billing file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BillingFile {
    /// Its identifier.
    pub id: FileId,
    /// Its stream.
    pub stream: StreamId,
    /// Dense in the stream, from 1.
    pub sequence: i64,
    /// Name of the CSV file; the manifest's is the same with `.manifest.json`.
    pub name: String,
    /// The format of its bytes: one that this program does not write can be listed and fetched, never rendered.
    pub format_version: i64,
    /// Whether the bytes lie under their final name; before that nothing can be fetched.
    pub published: bool,
    /// Why it was closed: `period`, `request`.
    pub closure_reason: String,
    /// When it was closed.
    pub closed_at: Timestamp,
    /// Records in it.
    pub record_count: i64,
    /// Sum of the charged time, milliseconds.
    pub billed_ms: i64,
    /// Sums per currency.
    pub totals: Vec<CurrencyTotal>,
    /// Answer of the first and the last call in it.
    pub answered_range: Option<(Timestamp, Timestamp)>,
    /// Size in octets, once published.
    pub size: Option<i64>,
    /// SHA-256 of the bytes in hex, once published; also the `ETag`.
    pub sha256: Option<String>,
    /// SHA-256 of the file before, in hex; none for the first.
    pub previous_sha256: Option<String>,
    /// What the BSS said.
    pub acknowledgement: Option<Acknowledgement>,
}

/// One leg (and part) of an answered call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The call.
    pub call: CallId,
    /// 0: the caller's leg, 1: the callee's.
    pub leg: i16,
    /// 0 for the whole call; interim parts count up.
    pub part: i32,
    /// Whether no part follows.
    pub is_last: bool,
    /// Who owns the leg.
    pub account: AccountId,
    /// Its path at the time of the call.
    pub path: AccountPath,
    /// The subscriber of the leg.
    pub subscriber: Option<SubscriberId>,
    /// The trunk of the leg.
    pub trunk: Option<TrunkId>,
    /// What was dialled, as received.
    pub dialled: String,
    /// The called number, where the call went to a number.
    pub called: Option<E164>,
    /// The calling number that was presented.
    pub calling: Option<E164>,
    /// Receipt of the INVITE.
    pub invited_at: Timestamp,
    /// Receipt of the callee's 200.
    pub answered_at: Timestamp,
    /// The end.
    pub ended_at: Timestamp,
    /// Answer to end by the monotonic clock, milliseconds.
    pub duration_ms: i64,
    /// Post-dial delay, milliseconds.
    pub pdd_ms: i64,
    /// Why it ended.
    pub cause: ReleaseCause,
    /// By whom: `caller`, `callee`, `network`.
    pub released_by: String,
    /// Whether the end is estimated from a heartbeat.
    pub estimated: bool,
    /// The callee's 200 never became the caller's: nothing is sold, the supplier may charge.
    pub aborted: bool,
    /// Media of the leg; none where they did not pass through us.
    pub media: Option<UsageMedia>,
    /// Rated, in suspense, or charged to nobody.
    pub state: UsageState,
}

/// Media of one leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageMedia {
    /// RTP packets received from the leg.
    pub packets_received: i64,
    /// RTP packets sent to the leg.
    pub packets_sent: i64,
    /// RTP packets of the leg that never came.
    pub packets_lost: i64,
    /// How it sounded; none where no audio came.
    pub quality: Option<UsageQuality>,
}

/// The quality of one leg's audio: `MediaQuality` of the call's record, in the numbers of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageQuality {
    /// The codec of the last audio from the leg.
    pub codec: Codec,
    /// Packets from the leg that came a second time.
    pub packets_duplicate: i64,
    /// Packets from the leg that came after a later one.
    pub packets_late: i64,
    /// Longest run of packets from the leg that were missing in a row.
    pub loss_run_max: i64,
    /// Interarrival jitter from the leg, mean, microseconds.
    pub jitter_us: i64,
    /// The same, highest, microseconds.
    pub jitter_max_us: i64,
    /// Round trip between relay and leg, mean, microseconds.
    pub round_trip_us: Option<i64>,
    /// Mean opinion score from the leg, hundredths.
    pub mos: Option<i64>,
    /// Packets to the leg that it lost, by its reports.
    pub reported_lost: Option<i64>,
    /// Jitter to the leg by its reports, mean, microseconds.
    pub reported_jitter_us: Option<i64>,
    /// Mean opinion score to the leg by its reports, hundredths.
    pub reported_mos: Option<i64>,
}

impl From<MediaStats> for UsageMedia {
    /// Numbers beyond those of a database are the largest of it.
    fn from(stats: MediaStats) -> Self {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Self {
            packets_received: whole(stats.packets_received),
            packets_sent: whole(stats.packets_sent),
            packets_lost: whole(stats.packets_lost),
            quality: stats.quality.map(|q| UsageQuality {
                codec: q.codec,
                packets_duplicate: whole(q.packets_duplicate),
                packets_late: whole(q.packets_late),
                loss_run_max: whole(q.loss_run_max),
                jitter_us: whole(q.jitter_us),
                jitter_max_us: whole(q.jitter_max_us),
                round_trip_us: q.round_trip_us.map(whole),
                mos: q.mos.map(i64::from),
                reported_lost: q.reported_lost.map(whole),
                reported_jitter_us: q.reported_jitter_us.map(whole),
                reported_mos: q.reported_mos.map(i64::from),
            }),
        }
    }
}

/// Where a usage stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageState {
    /// All its charges are rated.
    Rated,
    /// At least one charge waits in suspense.
    Suspense,
    /// Nobody is charged for this leg.
    Uncharged,
}

impl UsageState {
    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rated => "rated",
            Self::Suspense => "suspense",
            Self::Uncharged => "uncharged",
        }
    }
}

/// One charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RatedUsage {
    /// The call, leg and part that is charged.
    pub call: CallId,
    /// Leg of the usage.
    pub leg: i16,
    /// Part of the usage.
    pub part: i32,
    /// Who is charged (sell) or whom the trunk belongs to (buy).
    pub account: AccountId,
    /// Its path at the time of the call.
    pub path: AccountPath,
    /// Which side.
    pub side: Side,
    /// 1, or higher after re-rating.
    pub version: i32,
    /// Dense number in commit order.
    pub sequence: i64,
    /// The batch.
    pub batch: BatchId,
    /// By which tariff.
    pub tariff: TariffId,
    /// In which version.
    pub tariff_version: i64,
    /// The prefix that matched.
    pub prefix: String,
    /// The charged time, milliseconds.
    pub billed_ms: i64,
    /// Currency of the amounts.
    pub currency: Currency,
    /// The exact amount.
    pub exact: Fraction,
    /// The charged amount.
    pub amount: Amount,
    /// Answer of the call.
    pub answered_at: Timestamp,
    /// When it was rated.
    pub rated_at: Timestamp,
}

/// Why a charge could not be rated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SuspenseCode {
    /// No tariff is assigned for the time of the call.
    NoTariff,
    /// The tariff has no rate for the destination.
    NoRate,
    /// The amount does not fit.
    MoneyOverflow,
    /// The usage cannot be: negative or overlong duration, end before answer.
    InvalidUsage,
}

impl SuspenseCode {
    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoTariff => "no_tariff",
            Self::NoRate => "no_rate",
            Self::MoneyOverflow => "money_overflow",
            Self::InvalidUsage => "invalid_usage",
        }
    }
}

/// A charge that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspense {
    /// The call.
    pub call: CallId,
    /// Leg of the usage.
    pub leg: i16,
    /// Part of the usage.
    pub part: i32,
    /// Who would be charged.
    pub account: AccountId,
    /// Which side.
    pub side: Side,
    /// The reason.
    pub code: String,
    /// The reason with its values, and what to do.
    pub detail: String,
    /// How often rating was tried.
    pub attempts: i32,
    /// Since when.
    pub created_at: Timestamp,
    /// When it was resolved.
    pub resolved_at: Option<Timestamp>,
}

/// The balance of one account, book and currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerBalance {
    /// The account.
    pub account: AccountId,
    /// `receivable`, `revenue`, `cost` or `payable`.
    pub book: String,
    /// The currency.
    pub currency: Currency,
    /// The sum of the postings, decimal text.
    pub amount: String,
    /// Rated rows behind it.
    pub rated_count: i64,
}

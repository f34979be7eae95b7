//! Tariffs, streams, files, usage, rated usage, suspense, ledger.

use std::sync::Arc;

use async_graphql::connection::Connection;
use async_graphql::{ComplexObject, Context, Enum, ID, Result, SimpleObject};
use billing::resource as row;
use model::actor::Permission;
use model::change::ResourceKind;
use model::id::TariffId;

use super::{Money, global};
use crate::argument::{allowed, connection, deps, page, page_complexity};
use crate::batch::Tariffs;
use crate::error;
use crate::scalar::{Currency, Decimal, E164, Long, Timestamp};

/// Whether a charge is what we sell or what we buy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "row::Side")]
pub enum Side {
    /// Charged to an account of ours.
    Sell,
    /// Charged to us by the operator behind a trunk.
    Buy,
}

/// How an exact amount becomes a rounded one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "model::money::RoundingMode")]
pub enum RoundingMode {
    /// Away from zero whenever anything remains.
    Up,
    /// Towards zero.
    Down,
    /// To the nearest, half away from zero.
    HalfUp,
    /// To the nearest, half to the even neighbour.
    HalfEven,
}

/// Where a usage stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "row::UsageState")]
pub enum UsageState {
    /// All its charges are rated.
    Rated,
    /// At least one charge waits in suspense.
    Suspense,
    /// Nobody is charged for this leg.
    Uncharged,
}

/// A rounding rule.
#[derive(Debug, SimpleObject)]
pub struct Rounding {
    /// The mode.
    pub mode: RoundingMode,
    /// Decimal places, 0 to 6.
    pub decimals: u32,
}

/// The price of one destination.
#[derive(Debug, SimpleObject)]
pub struct Rate {
    /// Digits of E.164 without `+`, or `onnet` for calls within one customer.
    pub prefix: String,
    /// For people.
    pub description: String,
    /// Charged once per answered call.
    pub connect_fee: Decimal,
    /// Charged per `perMs`.
    pub price: Decimal,
    /// The unit of the price, milliseconds.
    pub per_ms: Long,
    /// The least that is charged, milliseconds.
    pub initial_ms: Long,
    /// After it, usage is charged in whole increments of this, milliseconds.
    pub increment_ms: Long,
}

impl From<row::Rate> for Rate {
    fn from(rate: row::Rate) -> Self {
        Self {
            prefix: rate.prefix,
            description: rate.description,
            connect_fee: Decimal(rate.connect_fee.to_string()),
            price: Decimal(rate.price.to_string()),
            per_ms: Long(rate.per_ms),
            initial_ms: Long(rate.initial_ms),
            increment_ms: Long(rate.increment_ms),
        }
    }
}

/// Rates by longest prefix, in one currency, rounded once per call.
#[derive(Debug, SimpleObject)]
#[graphql(complex)]
pub struct Tariff {
    #[graphql(skip)]
    key: TariffId,
    /// Those of the same page.
    #[graphql(skip)]
    siblings: Arc<Tariffs>,
    /// Its global identifier.
    pub id: ID,
    /// The account that sells (or, for a buy tariff, buys) by it.
    pub account_id: ID,
    /// Unique within the account.
    pub name: String,
    /// Currency of its prices.
    pub currency: Currency,
    /// How the exact amount of a call becomes the charged one.
    pub rounding: Rounding,
    /// Counted from 1; grows with each change.
    pub version: Long,
}

#[ComplexObject]
impl Tariff {
    /// Rates, by prefix; the longest prefix that matches applies.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn rates(
        &self,
        context: &Context<'_>,
        #[graphql(default = 50)] first: u32,
        after: Option<String>,
    ) -> Result<Connection<String, Rate>> {
        let ctx = allowed(context, Permission::BillingRead)?;
        let (page, later) = (page(first, after.clone())?, after.is_some());
        let billing = &*deps(context)?.billing;
        let page = self.siblings.rates(billing, ctx, self.key, page).await.map_err(error::read)?;
        Ok(connection(page, later))
    }
}

impl From<row::TariffHead> for Tariff {
    fn from(tariff: row::TariffHead) -> Self {
        let alone = Tariffs::new([tariff.id]);
        (tariff, alone).into()
    }
}

impl From<(row::TariffHead, Arc<Tariffs>)> for Tariff {
    fn from((tariff, siblings): (row::TariffHead, Arc<Tariffs>)) -> Self {
        Self {
            key: tariff.id,
            siblings,
            id: global(ResourceKind::Tariff, tariff.id),
            account_id: global(ResourceKind::Account, tariff.account),
            name: tariff.name,
            currency: Currency(tariff.currency),
            rounding: Rounding { mode: tariff.rounding.mode.into(), decimals: tariff.rounding.decimals },
            version: Long(tariff.version),
        }
    }
}

/// The assignment of a tariff for a time: to an account (sell) or to a trunk (buy).
#[derive(Debug, SimpleObject)]
pub struct TariffAssignment {
    /// Its global identifier.
    pub id: ID,
    /// The tariff.
    pub tariff_id: ID,
    /// Sell: calls of this account and of accounts below that have no assignment of their own.
    pub account_id: Option<ID>,
    /// Buy: calls over this trunk.
    pub trunk_id: Option<ID>,
    /// From when, inclusive; the answer of the call decides.
    pub valid_from: Timestamp,
    /// Until when, exclusive.
    pub valid_to: Option<Timestamp>,
    /// Counted from 1; grows with each change.
    pub version: Long,
}

impl From<row::TariffAssignment> for TariffAssignment {
    fn from(assignment: row::TariffAssignment) -> Self {
        let (account_id, trunk_id) = match assignment.target {
            row::AssignmentTarget::Account(id) => (Some(global(ResourceKind::Account, id)), None),
            row::AssignmentTarget::Trunk(id) => (None, Some(global(ResourceKind::Trunk, id))),
        };
        Self {
            id: global(ResourceKind::TariffAssignment, assignment.id),
            tariff_id: global(ResourceKind::Tariff, assignment.tariff),
            account_id,
            trunk_id,
            valid_from: Timestamp(assignment.valid_from),
            valid_to: assignment.valid_to.map(Timestamp),
            version: Long(assignment.version),
        }
    }
}

/// A stream of billing files: the rated rows of one side, charged at and below one account.
#[derive(Debug, SimpleObject)]
pub struct Stream {
    /// Its global identifier.
    pub id: ID,
    /// Whose rows.
    pub account_id: ID,
    /// Unique within the account; part of file names.
    pub name: String,
    /// Which side.
    pub side: Side,
    /// The open file is closed after this time, milliseconds; 0: only on request.
    pub close_period_ms: Long,
    /// The sequence that the next file gets.
    pub next_sequence: Long,
    /// Counted from 1; grows with each change.
    pub version: Long,
}

impl From<row::Stream> for Stream {
    fn from(stream: row::Stream) -> Self {
        Self {
            id: global(ResourceKind::Stream, stream.id),
            account_id: global(ResourceKind::Account, stream.account),
            name: stream.name,
            side: stream.side.into(),
            close_period_ms: Long(stream.close_period_ms),
            next_sequence: Long(stream.next_sequence),
            version: Long(stream.version),
        }
    }
}

/// Totals of one currency.
#[derive(Debug, SimpleObject)]
pub struct CurrencyTotal {
    /// Sum of the rounded amounts.
    pub money: Money,
    /// Records.
    pub record_count: Long,
}

/// Whether the BSS took a file.
#[derive(Debug, SimpleObject)]
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

/// A closed billing file. Its bytes are fetched by HTTP from `contentPath`.
#[derive(Debug, SimpleObject)]
pub struct BillingFile {
    /// Its global identifier.
    pub id: ID,
    /// Its stream.
    pub stream_id: ID,
    /// Dense in the stream, from 1.
    pub sequence: Long,
    /// Name of the CSV file.
    pub name: String,
    /// Path of the CSV on this server.
    pub content_path: String,
    /// Path of the manifest on this server.
    pub manifest_path: String,
    /// Whether the bytes can be fetched.
    pub published: bool,
    /// Why it was closed: `period`, `request`.
    pub closure_reason: String,
    /// When it was closed.
    pub closed_at: Timestamp,
    /// Records in it.
    pub record_count: Long,
    /// Sum of the charged time, milliseconds.
    pub billed_ms: Long,
    /// Sums per currency.
    pub totals: Vec<CurrencyTotal>,
    /// Answer of the first call in it.
    pub first_answered_at: Option<Timestamp>,
    /// Answer of the last call in it.
    pub last_answered_at: Option<Timestamp>,
    /// Size in octets, once published.
    pub size: Option<Long>,
    /// SHA-256 of the bytes in hex, once published.
    pub sha256: Option<String>,
    /// SHA-256 of the file before, in hex; none for the first.
    pub previous_sha256: Option<String>,
    /// What the BSS said.
    pub acknowledgement: Option<Acknowledgement>,
}

impl From<row::BillingFile> for BillingFile {
    fn from(file: row::BillingFile) -> Self {
        let path = format!("/billing/streams/{}/files/{}", file.stream, file.sequence);
        let (first, last) = file.answered_range.unzip();
        let total = |total: row::CurrencyTotal| CurrencyTotal {
            money: Money { amount: Decimal(total.amount), currency: Currency(total.currency) },
            record_count: Long(total.record_count),
        };
        Self {
            id: global(ResourceKind::BillingFile, file.id),
            stream_id: global(ResourceKind::Stream, file.stream),
            sequence: Long(file.sequence),
            name: file.name,
            content_path: format!("{path}/content"),
            manifest_path: format!("{path}/manifest"),
            published: file.published,
            closure_reason: file.closure_reason,
            closed_at: Timestamp(file.closed_at),
            record_count: Long(file.record_count),
            billed_ms: Long(file.billed_ms),
            totals: file.totals.into_iter().map(total).collect(),
            first_answered_at: first.map(Timestamp),
            last_answered_at: last.map(Timestamp),
            size: file.size.map(Long),
            sha256: file.sha256,
            previous_sha256: file.previous_sha256,
            acknowledgement: file.acknowledgement.map(|ack| Acknowledgement {
                accepted: ack.accepted,
                reason: ack.reason,
                by: ack.by,
                at: Timestamp(ack.at),
            }),
        }
    }
}

/// RTP of one leg.
#[derive(Debug, SimpleObject)]
pub struct MediaCounts {
    /// Packets received.
    pub packets_received: Long,
    /// Packets sent.
    pub packets_sent: Long,
    /// Packets lost.
    pub packets_lost: Long,
    /// How it sounded; null where no audio came from the leg.
    pub quality: Option<MediaQuality>,
}

/// The quality of one leg's audio. "From the leg" is measured as it arrives; "reported" is what the leg says in its RTCP
/// receiver reports of what it heard. Mean opinion scores are of ITU-T G.107 in hundredths (441 is 4.41), and null for
/// codecs without narrow-band values there.
#[derive(Debug, SimpleObject)]
pub struct MediaQuality {
    /// The codec of the last audio from the leg, by its name in SDP; `other` when we don't know it.
    pub codec: String,
    /// Packets from the leg that came a second time.
    pub packets_duplicate: Long,
    /// Packets from the leg that came after a later one.
    pub packets_late: Long,
    /// Longest run of packets from the leg that were missing in a row when the next came.
    pub loss_run_max: Long,
    /// Interarrival jitter from the leg (RFC 3550, A.8), mean, microseconds.
    pub jitter_us: Long,
    /// The same, highest, microseconds.
    pub jitter_max_us: Long,
    /// Round trip between us and the leg by RTCP, mean, microseconds; null where the leg sends no reports.
    pub round_trip_us: Option<Long>,
    /// Mean opinion score from the leg, hundredths.
    pub mos_hundredths: Option<Long>,
    /// Packets to the leg that it lost, by its reports.
    pub reported_lost: Option<Long>,
    /// Jitter to the leg by its reports, mean, microseconds.
    pub reported_jitter_us: Option<Long>,
    /// Mean opinion score to the leg by its reports, hundredths.
    pub reported_mos_hundredths: Option<Long>,
}

impl From<row::UsageQuality> for MediaQuality {
    fn from(quality: row::UsageQuality) -> Self {
        Self {
            codec: quality.codec.rtp_name().to_owned(),
            packets_duplicate: Long(quality.packets_duplicate),
            packets_late: Long(quality.packets_late),
            loss_run_max: Long(quality.loss_run_max),
            jitter_us: Long(quality.jitter_us),
            jitter_max_us: Long(quality.jitter_max_us),
            round_trip_us: quality.round_trip_us.map(Long),
            mos_hundredths: quality.mos.map(Long),
            reported_lost: quality.reported_lost.map(Long),
            reported_jitter_us: quality.reported_jitter_us.map(Long),
            reported_mos_hundredths: quality.reported_mos.map(Long),
        }
    }
}

/// One leg (and part) of an answered call.
#[derive(Debug, SimpleObject)]
pub struct Usage {
    /// The call, the same on all legs.
    pub call_id: ID,
    /// 0: the caller's leg, 1: the callee's.
    pub leg: i16,
    /// 0 for the whole call; interim parts count up.
    pub part: i32,
    /// Whether no part follows.
    pub is_last: bool,
    /// Who owns the leg.
    pub account_id: ID,
    /// The subscriber of the leg.
    pub subscriber_id: Option<ID>,
    /// The trunk of the leg.
    pub trunk_id: Option<ID>,
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
    pub duration_ms: Long,
    /// Post-dial delay, milliseconds.
    pub pdd_ms: Long,
    /// Why it ended.
    pub cause: String,
    /// By whom: `caller`, `callee`, `network`.
    pub released_by: String,
    /// Whether the end is estimated from a heartbeat.
    pub estimated: bool,
    /// The callee's 200 never became the caller's: nothing is sold, the supplier may charge.
    pub aborted: bool,
    /// RTP of the leg.
    pub media: Option<MediaCounts>,
    /// Rated, in suspense, or charged to nobody.
    pub state: UsageState,
}

impl From<row::Usage> for Usage {
    fn from(usage: row::Usage) -> Self {
        Self {
            call_id: ID(usage.call.to_string()),
            leg: usage.leg,
            part: usage.part,
            is_last: usage.is_last,
            account_id: global(ResourceKind::Account, usage.account),
            subscriber_id: usage.subscriber.map(|id| global(ResourceKind::Subscriber, id)),
            trunk_id: usage.trunk.map(|id| global(ResourceKind::Trunk, id)),
            dialled: usage.dialled,
            called: usage.called.map(E164),
            calling: usage.calling.map(E164),
            invited_at: Timestamp(usage.invited_at),
            answered_at: Timestamp(usage.answered_at),
            ended_at: Timestamp(usage.ended_at),
            duration_ms: Long(usage.duration_ms),
            pdd_ms: Long(usage.pdd_ms),
            cause: usage.cause.as_str().to_owned(),
            released_by: usage.released_by,
            estimated: usage.estimated,
            aborted: usage.aborted,
            media: usage.media.map(|media| MediaCounts {
                packets_received: Long(media.packets_received),
                packets_sent: Long(media.packets_sent),
                packets_lost: Long(media.packets_lost),
                quality: media.quality.map(MediaQuality::from),
            }),
            state: usage.state.into(),
        }
    }
}

/// One charge.
#[derive(Debug, SimpleObject)]
pub struct RatedUsage {
    /// The call that is charged.
    pub call_id: ID,
    /// Leg of the usage.
    pub leg: i16,
    /// Part of the usage.
    pub part: i32,
    /// Who is charged (sell) or whom the trunk belongs to (buy).
    pub account_id: ID,
    /// Which side.
    pub side: Side,
    /// 1, or higher after re-rating.
    pub version: i32,
    /// Dense number in commit order.
    pub sequence: Long,
    /// The batch.
    pub batch_id: ID,
    /// By which tariff.
    pub tariff_id: ID,
    /// In which version.
    pub tariff_version: Long,
    /// The prefix that matched.
    pub prefix: String,
    /// The charged time, milliseconds.
    pub billed_ms: Long,
    /// The charged amount.
    pub charge: Money,
    /// The exact amount as a fraction, such as `1/300`.
    pub exact: String,
    /// Answer of the call.
    pub answered_at: Timestamp,
    /// When it was rated.
    pub rated_at: Timestamp,
}

impl From<row::RatedUsage> for RatedUsage {
    fn from(rated: row::RatedUsage) -> Self {
        Self {
            call_id: ID(rated.call.to_string()),
            leg: rated.leg,
            part: rated.part,
            account_id: global(ResourceKind::Account, rated.account),
            side: rated.side.into(),
            version: rated.version,
            sequence: Long(rated.sequence),
            batch_id: ID(rated.batch.to_string()),
            tariff_id: global(ResourceKind::Tariff, rated.tariff),
            tariff_version: Long(rated.tariff_version),
            prefix: rated.prefix,
            billed_ms: Long(rated.billed_ms),
            charge: Money { amount: Decimal(rated.amount.to_string()), currency: Currency(rated.currency) },
            exact: rated.exact.to_string(),
            answered_at: Timestamp(rated.answered_at),
            rated_at: Timestamp(rated.rated_at),
        }
    }
}

/// A charge that could not be rated and waits.
#[derive(Debug, SimpleObject)]
pub struct Suspense {
    /// The call.
    pub call_id: ID,
    /// Leg of the usage.
    pub leg: i16,
    /// Part of the usage.
    pub part: i32,
    /// Who would be charged.
    pub account_id: ID,
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
}

impl From<row::Suspense> for Suspense {
    fn from(suspense: row::Suspense) -> Self {
        Self {
            call_id: ID(suspense.call.to_string()),
            leg: suspense.leg,
            part: suspense.part,
            account_id: global(ResourceKind::Account, suspense.account),
            side: suspense.side.into(),
            code: suspense.code,
            detail: suspense.detail,
            attempts: suspense.attempts,
            created_at: Timestamp(suspense.created_at),
        }
    }
}

/// The balance of one account, book and currency.
#[derive(Debug, SimpleObject)]
pub struct LedgerBalance {
    /// The account.
    pub account_id: ID,
    /// `receivable`, `revenue`, `cost` or `payable`.
    pub book: String,
    /// The sum of the postings.
    pub balance: Money,
    /// Rated rows behind it.
    pub rated_count: Long,
}

impl From<row::LedgerBalance> for LedgerBalance {
    fn from(balance: row::LedgerBalance) -> Self {
        Self {
            account_id: global(ResourceKind::Account, balance.account),
            book: balance.book,
            balance: Money { amount: Decimal(balance.amount), currency: Currency(balance.currency) },
            rated_count: Long(balance.rated_count),
        }
    }
}

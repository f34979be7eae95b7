//! Rated usage: the numbered charges.

use billing::charging::Charge;
use billing::ledger::postings;
use billing::resource::{RatedUsage, Side};
use db::dialect::{BulkRow, Value, bulk_insert};
use db::{DbError, Tx, counter, on_tx, statements};
use model::id::{AccountId, BatchId, CallId, IdSource, TariffId};
use model::money::{Amount, Fraction};
use model::page::{Page, PageRequest};
use model::tenancy::Scope;
use model::time::Timestamp;
use uuid::Uuid;

use crate::sql::{first_path, narrow, parse};
use crate::usage::Key;
use crate::{account, ledger};

statements! {
    // Both go along the index `rated_list`: a page costs what it holds, not what others have.
    LIST = "SELECT * FROM rated WHERE path < $1 \
        AND (path, call_id, leg, part, account_id, side, version) > ($2, $3, $4, $5, $6, $7, $8) \
        ORDER BY path, call_id, leg, part, account_id, side, version LIMIT $9";
    LIST_OWNED = "SELECT * FROM rated WHERE path = $1 \
        AND (call_id, leg, part, account_id, side, version) > ($2, $3, $4, $5, $6, $7) \
        ORDER BY call_id, leg, part, account_id, side, version LIMIT $8";
}

#[cfg(test)]
pub(crate) fn made() -> Vec<String> {
    vec![db::dialect::bulk_statement::<NewRated>(2, "")]
}

/// The version of a first rating. Re-rating will add higher ones.
const FIRST_VERSION: i64 = 1;

#[derive(Debug, sqlx::FromRow)]
pub(crate) struct RatedRow {
    call_id: Uuid,
    leg: i64,
    part: i64,
    account_id: Uuid,
    side: String,
    version: i64,
    sequence: i64,
    batch_id: Uuid,
    path: String,
    tariff_id: Uuid,
    tariff_version: i64,
    prefix: String,
    billed_ms: i64,
    currency: String,
    exact_numerator: i64,
    exact_denominator: i64,
    amount: i64,
    answered_at: i64,
    rated_at: i64,
}

/// The side of a column.
pub(crate) fn side(column: &'static str, text: &str) -> Result<Side, DbError> {
    Side::parse(text).ok_or_else(|| DbError::corrupt(column, text))
}

impl TryFrom<RatedRow> for RatedUsage {
    type Error = DbError;
    fn try_from(row: RatedRow) -> Result<Self, DbError> {
        let exact = Fraction::new(i128::from(row.exact_numerator), i128::from(row.exact_denominator));
        Ok(Self {
            call: CallId::from_uuid(row.call_id),
            leg: narrow("rated.leg", row.leg)?,
            part: narrow("rated.part", row.part)?,
            account: AccountId::from_uuid(row.account_id),
            path: parse("rated.path", &row.path)?,
            side: side("rated.side", &row.side)?,
            version: narrow("rated.version", row.version)?,
            sequence: row.sequence,
            batch: BatchId::from_uuid(row.batch_id),
            tariff: TariffId::from_uuid(row.tariff_id),
            tariff_version: row.tariff_version,
            prefix: row.prefix,
            billed_ms: row.billed_ms,
            currency: parse("rated.currency", &row.currency)?,
            exact: exact.map_err(|e| DbError::corrupt("rated.exact_numerator", e))?,
            amount: Amount::from_units(row.amount),
            answered_at: Timestamp(row.answered_at),
            rated_at: Timestamp(row.rated_at),
        })
    }
}

/// A charge for a leg, before it has a number.
#[derive(Debug)]
pub(crate) struct Charged {
    pub(crate) key: Key,
    pub(crate) answered_at: Timestamp,
    pub(crate) charge: Charge,
}

struct NewRated<'c> {
    charged: &'c Charged,
    sequence: i64,
    batch: BatchId,
    rated_at: Timestamp,
}

impl BulkRow for NewRated<'_> {
    const TABLE: &'static str = "rated";
    const COLUMNS: &'static [&'static str] = &[
        "call_id",
        "leg",
        "part",
        "account_id",
        "side",
        "version",
        "sequence",
        "batch_id",
        "path",
        "tariff_id",
        "tariff_version",
        "prefix",
        "billed_ms",
        "currency",
        "exact_numerator",
        "exact_denominator",
        "amount",
        "answered_at",
        "rated_at",
    ];

    fn values<'a>(&'a self, out: &mut Vec<Value<'a>>) {
        let (call, leg, part) = self.charged.key;
        let charge = &self.charged.charge;
        out.extend([
            call.uuid().into(),
            i64::from(leg).into(),
            i64::from(part).into(),
            charge.account.uuid().into(),
            charge.side.as_str().into(),
            FIRST_VERSION.into(),
            self.sequence.into(),
            self.batch.uuid().into(),
            charge.path.as_str().into(),
            charge.tariff.uuid().into(),
            charge.tariff_version.into(),
            charge.prefix.as_str().into(),
            charge.billed_ms.into(),
            charge.currency.to_string().into(),
            charge.exact.numerator().into(),
            charge.exact.denominator().into(),
            charge.amount.units().into(),
            self.charged.answered_at.0.into(),
            self.rated_at.0.into(),
        ]);
    }
}

/// Writes a batch: postings, then numbered rows. Gives the half-open range of the numbers. The counter of rated rows
/// stays locked until the transaction ends.
pub(crate) async fn insert(
    tx: &mut Tx,
    ids: &dyn IdSource,
    batch: BatchId,
    charged: &[Charged],
    now: Timestamp,
) -> Result<(i64, i64), DbError> {
    let count = narrow::<i64>("rated.sequence", i64::try_from(charged.len()).unwrap_or(i64::MAX))?;
    if count == 0 {
        return Ok((0, 0));
    }
    // The largest batch is far below what could overflow.
    let postings = postings(charged.iter().map(|c| &c.charge)).map_err(|e| DbError::corrupt("ledger.amount", e))?;
    ledger::insert(tx, ids, batch, &postings, now).await?;
    let first = counter::next_range(tx, counter::RATED, count).await?;
    let rows = (first..).zip(charged).map(|(sequence, charged)| NewRated { charged, sequence, batch, rated_at: now });
    let rows: Vec<NewRated<'_>> = rows.collect();
    bulk_insert(tx, &rows, "").await?;
    Ok((first, first + count))
}

/// The key after which a page begins.
/// Path, call, leg, part, account, side, version.
pub(crate) type After = (String, Uuid, i64, i64, Uuid, String, i64);

/// One page, by account (in the order of its path), then by call.
pub(crate) async fn list(
    tx: &mut Tx,
    scope: &Scope,
    account: Option<AccountId>,
    after: Option<After>,
    page: &PageRequest,
) -> Result<Page<RatedUsage>, DbError> {
    let none = (String::new(), Uuid::nil(), -1, -1, Uuid::nil(), String::new(), 0);
    let (after_path, call, leg, part, charged, side, version) = after.unwrap_or(none);
    let limit = i64::from(page.first) + 1;
    let rows: Vec<RatedRow> = match account {
        None => {
            let from = first_path(scope, &after_path);
            on_tx!(tx, c => sqlx::query_as(LIST)
            .bind(scope.upper()).bind(from).bind(call).bind(leg).bind(part).bind(charged)
            .bind(side).bind(version).bind(limit).fetch_all(c).await)?
        }
        Some(account) => match account::path(tx, scope, account).await? {
            Some(path) => on_tx!(tx, c => sqlx::query_as(LIST_OWNED)
                .bind(path.as_str()).bind(call).bind(leg).bind(part).bind(charged).bind(side).bind(version).bind(limit)
                .fetch_all(c).await)?,
            None => Vec::new(),
        },
    };
    let rows: Vec<RatedUsage> = rows.into_iter().map(RatedUsage::try_from).collect::<Result<_, _>>()?;
    Ok(Page::cut(rows, page, cursor))
}

fn cursor(rated: &RatedUsage) -> String {
    format!("{}/{}", rated.path, billing::file::record_id(rated))
}

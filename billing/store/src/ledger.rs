//! Postings and balances.

use billing::ledger::Posting;
use billing::resource::LedgerBalance;
use db::dialect::{BulkRow, Value, bulk_insert};
use db::{DbError, Tx, on_tx, statements};
use model::id::{AccountId, BatchId, IdSource};
use model::tenancy::Scope;
use model::time::Timestamp;
use uuid::Uuid;

use crate::sql::{parse, total};

/// Balances of one answer: four books of a few thousand accounts. Who has more asks below a reseller.
pub(crate) const BALANCES_MAX: i64 = 10_000;

statements! {
    BALANCES = "SELECT account_id, book, currency, CAST(SUM(amount / 1000000) AS BIGINT), \
        CAST(SUM(amount % 1000000) AS BIGINT), CAST(SUM(rated_count) AS BIGINT) FROM ledger \
        WHERE path >= $1 AND path < $2 GROUP BY account_id, book, currency ORDER BY account_id, book, currency LIMIT $3";
}

#[cfg(test)]
pub(crate) fn made() -> Vec<String> {
    vec![db::dialect::bulk_statement::<NewPosting>(2, "")]
}

struct NewPosting<'p> {
    id: Uuid,
    batch: BatchId,
    posting: &'p Posting,
    at: Timestamp,
}

impl BulkRow for NewPosting<'_> {
    const TABLE: &'static str = "ledger";
    const COLUMNS: &'static [&'static str] =
        &["id", "batch_id", "account_id", "path", "book", "currency", "amount", "rated_count", "at"];

    fn values<'a>(&'a self, out: &mut Vec<Value<'a>>) {
        let p = self.posting;
        out.extend([
            self.id.into(),
            self.batch.uuid().into(),
            p.account.uuid().into(),
            p.path.as_str().into(),
            p.book.into(),
            p.currency.to_string().into(),
            p.amount.units().into(),
            p.rated_count.into(),
            self.at.0.into(),
        ]);
    }
}

/// Writes the postings of a batch.
pub(crate) async fn insert(
    tx: &mut Tx,
    ids: &dyn IdSource,
    batch: BatchId,
    postings: &[Posting],
    at: Timestamp,
) -> Result<(), DbError> {
    let rows: Vec<NewPosting<'_>> =
        postings.iter().map(|posting| NewPosting { id: ids.next(), batch, posting, at }).collect();
    bulk_insert(tx, &rows, "").await?;
    Ok(())
}

/// The balances of all accounts in the scope.
pub(crate) async fn balances(tx: &mut Tx, scope: &Scope) -> Result<Vec<LedgerBalance>, DbError> {
    let rows: Vec<(Uuid, String, String, i64, i64, i64)> = on_tx!(tx, c => sqlx::query_as(BALANCES)
        .bind(scope.lower()).bind(scope.upper()).bind(BALANCES_MAX).fetch_all(c).await)?;
    let balance = |(account, book, currency, millions, rest, rated_count): (_, _, String, _, _, _)| {
        Ok(LedgerBalance {
            account: AccountId::from_uuid(account),
            book,
            currency: parse("ledger.currency", &currency)?,
            amount: total(millions, rest).to_string(),
            rated_count,
        })
    };
    rows.into_iter().map(balance).collect()
}

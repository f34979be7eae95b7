//! Postings and balances.

use billing::ledger::Posting;
use billing::resource::LedgerBalance;
use db::dialect::{BulkRow, Value, bulk_insert};
use db::{DbError, Tx, on_tx, statements};
use model::id::{AccountId, BatchId, IdSource};
use model::page::{Page, PageRequest};
use model::tenancy::Scope;
use model::time::Timestamp;
use uuid::Uuid;

use crate::account;
use crate::sql::{first_path, parse, total};

statements! {
    // Both go along the index `ledger_list`: a page costs what it sums, not what others have.
    BALANCES = "SELECT path, account_id, book, currency, CAST(SUM(amount / 1000000) AS BIGINT), \
        CAST(SUM(amount % 1000000) AS BIGINT), CAST(SUM(rated_count) AS BIGINT) FROM ledger \
        WHERE path < $1 AND (path, account_id, book, currency) > ($2, $3, $4, $5) \
        GROUP BY path, account_id, book, currency ORDER BY path, account_id, book, currency LIMIT $6";
    BALANCES_OWNED = "SELECT path, account_id, book, currency, CAST(SUM(amount / 1000000) AS BIGINT), \
        CAST(SUM(amount % 1000000) AS BIGINT), CAST(SUM(rated_count) AS BIGINT) FROM ledger \
        WHERE path = $1 AND (account_id, book, currency) > ($2, $3, $4) \
        GROUP BY path, account_id, book, currency ORDER BY path, account_id, book, currency LIMIT $5";
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

/// The key after which a page begins: path, account, book, currency.
pub(crate) type After = (String, Uuid, String, String);

#[derive(sqlx::FromRow)]
struct BalanceRow(String, Uuid, String, String, i64, i64, i64);

/// One page of balances, by account (in the order of its path).
pub(crate) async fn balances(
    tx: &mut Tx,
    scope: &Scope,
    account: Option<AccountId>,
    after: Option<After>,
    page: &PageRequest,
) -> Result<Page<LedgerBalance>, DbError> {
    let (after_path, id, book, currency) =
        after.unwrap_or_else(|| (String::new(), Uuid::nil(), String::new(), String::new()));
    let limit = i64::from(page.first) + 1;
    let rows: Vec<BalanceRow> = match account {
        None => {
            let from = first_path(scope, &after_path);
            on_tx!(tx, c => sqlx::query_as(BALANCES)
                .bind(scope.upper()).bind(from).bind(id).bind(book).bind(currency).bind(limit).fetch_all(c).await)?
        }
        Some(account) => match account::path(tx, scope, account).await? {
            Some(path) => on_tx!(tx, c => sqlx::query_as(BALANCES_OWNED)
                .bind(path.as_str()).bind(id).bind(book).bind(currency).bind(limit).fetch_all(c).await)?,
            None => Vec::new(),
        },
    };
    let page =
        Page::cut(rows, page, |BalanceRow(path, id, book, currency, ..)| format!("{path}/{id}/{book}/{currency}"));
    let balance = |(cursor, row)| {
        let BalanceRow(_, account, book, currency, millions, rest, rated_count) = row;
        let balance = LedgerBalance {
            account: AccountId::from_uuid(account),
            book,
            currency: parse("ledger.currency", &currency)?,
            amount: total(millions, rest).to_string(),
            rated_count,
        };
        Ok::<_, DbError>((cursor, balance))
    };
    Ok(Page { items: page.items.into_iter().map(balance).collect::<Result<_, _>>()?, has_next: page.has_next })
}

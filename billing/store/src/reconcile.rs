//! Whether everything adds up: usage, charges, suspense, files and ledger, on one snapshot.

use std::collections::BTreeMap;

use billing::ledger::books;
use billing::resource::Side;
use db::{DbError, Tx, on_tx, statements};
use model::actor::Permission;
use model::ctx::Ctx;
use model::id::{AccountId, StreamId};
use model::money::{Currency, Total};
use model::page::PageRequest;
use model::tenancy::Scope;
use uuid::Uuid;

use crate::rated::side;
use crate::sql::{parse, total};
use crate::stream::StreamState;
use crate::verify::{FINDINGS_MAX, VerifyError};
use crate::{BillingStore, file, stream};

statements! {
    RATED = "SELECT account_id, side, currency, CAST(SUM(amount / 1000000) AS BIGINT), \
        CAST(SUM(amount % 1000000) AS BIGINT), COUNT(*) FROM rated \
        WHERE path >= $1 AND path < $2 GROUP BY account_id, side, currency";
    LEDGER = "SELECT account_id, book, currency, CAST(SUM(amount / 1000000) AS BIGINT), \
        CAST(SUM(amount % 1000000) AS BIGINT), CAST(SUM(rated_count) AS BIGINT) FROM ledger \
        WHERE path >= $1 AND path < $2 GROUP BY account_id, book, currency";
    STREAM_RATED = "SELECT currency, CAST(SUM(amount / 1000000) AS BIGINT), CAST(SUM(amount % 1000000) AS BIGINT), \
        COUNT(*) FROM rated WHERE path >= $1 AND path < $2 AND side = $3 GROUP BY currency";
    STREAM_OPEN = "SELECT currency, CAST(SUM(amount / 1000000) AS BIGINT), CAST(SUM(amount % 1000000) AS BIGINT), \
        COUNT(*) FROM rated WHERE path >= $1 AND path < $2 AND side = $3 AND sequence > $4 GROUP BY currency";
    STREAM_ITEMS = "SELECT r.currency, CAST(SUM(r.amount / 1000000) AS BIGINT), \
        CAST(SUM(r.amount % 1000000) AS BIGINT), COUNT(*) FROM billing_item i \
        JOIN rated r ON r.sequence = i.rated_sequence WHERE i.stream_id = $1 GROUP BY r.currency";
    USAGE = "SELECT state, COUNT(*) FROM usage WHERE path >= $1 AND path < $2 GROUP BY state";
    SUSPENSE = "SELECT COUNT(*) FROM suspense WHERE path >= $1 AND path < $2 AND resolved_at IS NULL";
    RATED_WITHOUT_CHARGE = "SELECT COUNT(*) FROM usage u WHERE u.path >= $1 AND u.path < $2 AND u.state = 'rated' \
        AND NOT EXISTS (SELECT 1 FROM rated r WHERE r.call_id = u.call_id AND r.leg = u.leg AND r.part = u.part)";
    SUSPENSE_WITHOUT_REASON = "SELECT COUNT(*) FROM usage u WHERE u.path >= $1 AND u.path < $2 \
        AND u.state = 'suspense' AND NOT EXISTS (SELECT 1 FROM suspense s WHERE s.call_id = u.call_id \
            AND s.leg = u.leg AND s.part = u.part AND s.resolved_at IS NULL)";
    REASON_WITHOUT_SUSPENSE = "SELECT COUNT(*) FROM suspense s WHERE s.path >= $1 AND s.path < $2 \
        AND s.resolved_at IS NULL AND NOT EXISTS (SELECT 1 FROM usage u WHERE u.call_id = s.call_id \
            AND u.leg = s.leg AND u.part = s.part AND u.state = 'suspense')";
    CHARGE_WITHOUT_USAGE = "SELECT COUNT(*) FROM rated r WHERE r.path >= $1 AND r.path < $2 \
        AND NOT EXISTS (SELECT 1 FROM usage u WHERE u.call_id = r.call_id AND u.leg = r.leg AND u.part = r.part \
            AND u.state <> 'uncharged')";
}

/// Counts and sums of one side and currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideTotal {
    /// Which side.
    pub side: Side,
    /// The currency.
    pub currency: Currency,
    /// Sum of the charges, decimal text.
    pub amount: String,
    /// Charges.
    pub rated_count: i64,
}

/// The sum of one book and currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookTotal {
    /// `receivable`, `revenue`, `cost` or `payable`.
    pub book: String,
    /// The currency.
    pub currency: Currency,
    /// Sum of the postings, decimal text.
    pub amount: String,
}

/// What a stream has filed, and what waits for its next file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamTotals {
    /// The stream.
    pub stream: StreamId,
    /// Its name.
    pub name: String,
    /// Files.
    pub files: i64,
    /// Records in files, with their sums per currency.
    pub filed: Vec<(Currency, String, i64)>,
    /// Charges that no file has yet.
    pub open: Vec<(Currency, String, i64)>,
}

/// An equation that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReconcileFinding {
    /// The ledger has another sum or count than the charges.
    #[error("account {account}, {book} in {currency}: the ledger has {ledger}, the charges give {rated}")]
    Ledger {
        /// The account.
        account: AccountId,
        /// The book.
        book: String,
        /// The currency.
        currency: Currency,
        /// What the ledger has: sum and count.
        ledger: String,
        /// What the charges give.
        rated: String,
    },
    /// Files and open charges of a stream are not the charges of its subtree.
    #[error("stream {name} in {currency}: files {filed} and open {open} are not all charges {rated}")]
    Stream {
        /// The stream.
        name: String,
        /// The currency.
        currency: Currency,
        /// In files.
        filed: String,
        /// Not yet in a file.
        open: String,
        /// All charges.
        rated: String,
    },
    /// The totals of the files of a stream are not those of their items.
    #[error("stream {name} in {currency}: its files say {files}, their items give {items}")]
    Files {
        /// The stream.
        name: String,
        /// The currency.
        currency: Currency,
        /// What the files say.
        files: String,
        /// What the items give.
        items: String,
    },
    /// Usage and what hangs on it contradict each other.
    #[error("{count} rows: {what}")]
    Usage {
        /// How many.
        count: i64,
        /// What contradicts.
        what: &'static str,
    },
}

/// What [`BillingStore::reconcile`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReconcileReport {
    /// Usage per state: `rated`, `suspense`, `uncharged`.
    pub usage: BTreeMap<String, i64>,
    /// Charges that wait.
    pub suspense_open: i64,
    /// Charges per side and currency.
    pub rated: Vec<SideTotal>,
    /// Sums per book and currency.
    pub ledger: Vec<BookTotal>,
    /// Streams.
    pub streams: Vec<StreamTotals>,
    /// What does not add up, at most a hundred.
    pub findings: Vec<ReconcileFinding>,
}

impl ReconcileReport {
    /// Whether everything adds up.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    fn note(&mut self, finding: ReconcileFinding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

/// A sum with its count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sum(Total, i64);

impl Sum {
    fn add(&mut self, other: Self) {
        self.0.0 += other.0.0;
        self.1 += other.1;
    }

    const fn negated(self) -> Self {
        Self(Total(-self.0.0), self.1)
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.0, self.1)
    }
}

type Sums = BTreeMap<Currency, Sum>;

impl BillingStore {
    /// Proves on one snapshot, for everything in the scope: usage is rated, waits or is charged to nobody; each charge
    /// stands in the ledger with its counterpart; files and open charges of each stream are all charges of its subtree.
    ///
    /// # Errors
    /// When it cannot be read at all; what does not add up is in the report.
    pub async fn reconcile(&self, ctx: &Ctx) -> Result<ReconcileReport, VerifyError> {
        ctx.require(Permission::BillingRead)?;
        let scope = ctx.scope.clone();
        let report = self.db.read::<_, DbError, _>(move |tx| Box::pin(async move { reconcile(tx, &scope).await }));
        Ok(report.await?)
    }
}

async fn reconcile(tx: &mut Tx, scope: &Scope) -> Result<ReconcileReport, DbError> {
    let mut report = ReconcileReport::default();
    usage(tx, scope, &mut report).await?;
    ledger(tx, scope, &mut report).await?;
    let mut after = Uuid::nil();
    loop {
        let page = stream::list(tx, scope, None, after, &PageRequest::default()).await?;
        for (_, state) in page.items {
            after = state.stream.id.uuid();
            one_stream(tx, &state, &mut report).await?;
        }
        if !page.has_next {
            return Ok(report);
        }
    }
}

async fn usage(tx: &mut Tx, scope: &Scope, report: &mut ReconcileReport) -> Result<(), DbError> {
    let rows: Vec<(String, i64)> = on_tx!(&mut *tx, c => sqlx::query_as(USAGE)
        .bind(scope.lower()).bind(scope.upper()).fetch_all(c).await)?;
    report.usage = rows.into_iter().collect();
    report.suspense_open = count(tx, SUSPENSE, scope).await?;
    let checks = [
        (RATED_WITHOUT_CHARGE, "usage counts as rated and has no charge"),
        (SUSPENSE_WITHOUT_REASON, "usage waits and nothing says why"),
        (REASON_WITHOUT_SUSPENSE, "a charge waits and its usage does not"),
        (CHARGE_WITHOUT_USAGE, "a charge has no usage that is charged"),
    ];
    for (sql, what) in checks {
        let count = count(tx, sql, scope).await?;
        if count > 0 {
            report.note(ReconcileFinding::Usage { count, what });
        }
    }
    Ok(())
}

async fn count(tx: &mut Tx, sql: &'static str, scope: &Scope) -> Result<i64, DbError> {
    Ok(on_tx!(tx, c => sqlx::query_scalar(sql).bind(scope.lower()).bind(scope.upper()).fetch_one(c).await)?)
}

async fn ledger(tx: &mut Tx, scope: &Scope, report: &mut ReconcileReport) -> Result<(), DbError> {
    type Row = (Uuid, String, String, i64, i64, i64);
    let mut expected: BTreeMap<(AccountId, String, Currency), Sum> = BTreeMap::new();
    let mut sides: BTreeMap<(Side, Currency), Sum> = BTreeMap::new();
    let rows: Vec<Row> = on_tx!(&mut *tx, c => sqlx::query_as(RATED)
        .bind(scope.lower()).bind(scope.upper()).fetch_all(c).await)?;
    for (account, text, currency, millions, rest, count) in rows {
        let (side, currency) = (side("rated.side", &text)?, parse("rated.currency", &currency)?);
        let (account, sum) = (AccountId::from_uuid(account), Sum(total(millions, rest), count));
        sides.entry((side, currency)).or_default().add(sum);
        for (book, sum) in books(side).into_iter().zip([sum, sum.negated()]) {
            expected.insert((account, book.to_owned(), currency), sum);
        }
    }
    let mut books: BTreeMap<(String, Currency), Sum> = BTreeMap::new();
    let rows: Vec<Row> = on_tx!(tx, c => sqlx::query_as(LEDGER)
        .bind(scope.lower()).bind(scope.upper()).fetch_all(c).await)?;
    let mut note = |account, book, currency, ledger: Sum, rated: Sum| {
        let (ledger, rated) = (ledger.to_string(), rated.to_string());
        report.note(ReconcileFinding::Ledger { account, book, currency, ledger, rated });
    };
    for (account, book, currency, millions, rest, count) in rows {
        let (account, currency) = (AccountId::from_uuid(account), parse("ledger.currency", &currency)?);
        let found = Sum(total(millions, rest), count);
        books.entry((book.clone(), currency)).or_default().add(found);
        let wanted = expected.remove(&(account, book.clone(), currency)).unwrap_or_default();
        if wanted != found {
            note(account, book, currency, found, wanted);
        }
    }
    for ((account, book, currency), wanted) in expected {
        note(account, book, currency, Sum::default(), wanted);
    }
    report.rated = sides
        .into_iter()
        .map(|((side, currency), Sum(amount, rated_count))| SideTotal {
            side,
            currency,
            amount: amount.to_string(),
            rated_count,
        })
        .collect();
    report.ledger = books
        .into_iter()
        .map(|((book, currency), Sum(amount, _))| BookTotal { book, currency, amount: amount.to_string() })
        .collect();
    Ok(())
}

async fn one_stream(tx: &mut Tx, state: &StreamState, report: &mut ReconcileReport) -> Result<(), DbError> {
    let (id, name) = (state.stream.id, &state.stream.name);
    let scope = Scope::subtree(&state.path);
    let side = state.stream.side.as_str();
    let rated = sums(on_tx!(&mut *tx, c => sqlx::query_as(STREAM_RATED)
        .bind(scope.lower()).bind(scope.upper()).bind(side).fetch_all(c).await)?)?;
    let open = sums(on_tx!(&mut *tx, c => sqlx::query_as(STREAM_OPEN)
        .bind(scope.lower()).bind(scope.upper()).bind(side).bind(state.rated_cursor).fetch_all(c).await)?)?;
    let filed = sums(on_tx!(&mut *tx, c => sqlx::query_as(STREAM_ITEMS).bind(id.uuid()).fetch_all(c).await)?)?;
    let (files, said) = file_totals(tx, id).await?;
    let currencies: std::collections::BTreeSet<Currency> =
        [&rated, &open, &filed, &said].into_iter().flat_map(|sums| sums.keys().copied()).collect();
    let of = |sums: &Sums, currency| sums.get(&currency).copied().unwrap_or_default();
    for currency in currencies {
        let (all, left, items) = (of(&rated, currency), of(&open, currency), of(&filed, currency));
        let mut both = items;
        both.add(left);
        if both != all {
            report.note(ReconcileFinding::Stream {
                name: name.clone(),
                currency,
                filed: items.to_string(),
                open: left.to_string(),
                rated: all.to_string(),
            });
        }
        let said = of(&said, currency);
        if said != items {
            report.note(ReconcileFinding::Files {
                name: name.clone(),
                currency,
                files: said.to_string(),
                items: items.to_string(),
            });
        }
    }
    let shown = |sums: Sums| sums.into_iter().map(|(currency, Sum(sum, n))| (currency, sum.to_string(), n)).collect();
    report.streams.push(StreamTotals { stream: id, name: name.clone(), files, filed: shown(filed), open: shown(open) });
    Ok(())
}

fn sums(rows: Vec<(String, i64, i64, i64)>) -> Result<Sums, DbError> {
    let sum = |(currency, millions, rest, count): (String, _, _, _)| {
        Ok((parse("rated.currency", &currency)?, Sum(total(millions, rest), count)))
    };
    rows.into_iter().map(sum).collect()
}

/// The files of a stream and what they say of themselves.
async fn file_totals(tx: &mut Tx, stream: StreamId) -> Result<(i64, Sums), DbError> {
    let (mut files, mut sums, mut after) = (0, Sums::new(), 0);
    loop {
        let page = file::list(tx, &Scope::installation(), stream, after, &PageRequest::default()).await?;
        for (_, file) in page.items {
            files += 1;
            after = file.sequence;
            for said in file.totals {
                sums.entry(said.currency).or_default().add(Sum(exact(&said.amount)?, said.record_count));
            }
        }
        if !page.has_next {
            return Ok((files, sums));
        }
    }
}

/// A total of a file; it may be larger than an amount.
fn exact(text: &str) -> Result<Total, DbError> {
    let corrupt = || DbError::corrupt("billing_file.totals", text);
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if fraction.len() > 6 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(corrupt());
    }
    let units: i128 = format!("{whole}{fraction:0<6}").parse().map_err(|_| corrupt())?;
    Ok(Total(sign * units))
}

//! Tariffs, their assignments, and the cache of compiled ones.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use billing::mediation::{Claim, Leg};
use billing::resource::{AssignmentTarget, Rate, Side, Tariff, TariffAssignment, TariffHead};
use billing::tariff::{CompiledTariff, TariffBook};
use db::dialect::{BulkRow, Value, bulk_insert, is_storable};
use db::{DbError, Tx, on_tx, statements};
use model::id::{AccountId, AssignmentId, TariffId, TrunkId};
use model::money::{Price, Rounding, RoundingMode};
use model::page::{Page, PageRequest};
use model::tenancy::{AccountPath, Scope};
use model::time::Timestamp;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::sql::{LIST_MAX, marks, narrow, parse};

statements! {
    GET = "SELECT t.*, a.path FROM tariff t JOIN account a ON a.id = t.account_id \
        WHERE t.id = $1 AND a.path >= $2 AND a.path < $3";
    LIST = "SELECT t.*, a.path FROM tariff t JOIN account a ON a.id = t.account_id \
        WHERE a.path >= $1 AND a.path < $2 AND t.id > $3 ORDER BY t.id LIMIT $4";
    LIST_OWNED = "SELECT t.*, a.path FROM tariff t JOIN account a ON a.id = t.account_id \
        WHERE a.path >= $1 AND a.path < $2 AND t.id > $3 AND t.account_id = $5 ORDER BY t.id LIMIT $4";
    RATES = "SELECT * FROM tariff_rate WHERE tariff_id = $1 ORDER BY prefix";
    NAME = "SELECT COUNT(*) FROM tariff WHERE account_id = $1 AND name = $2";
    INSERT = "INSERT INTO tariff (id, account_id, name, currency, rounding_mode, rounding_decimals, version, \
        created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)";
    ASSIGN = "INSERT INTO tariff_assignment (id, tariff_id, account_id, trunk_id, side, valid_from, valid_to, version, \
        created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)";
    ASSIGNMENTS = "SELECT x.* FROM tariff_assignment x JOIN account a ON a.id = x.account_id \
        WHERE a.path >= $1 AND a.path < $2 AND x.id > $3 ORDER BY x.id LIMIT $4";
    OF_ACCOUNT = "SELECT * FROM tariff_assignment WHERE account_id = $1 AND trunk_id IS NULL AND side = 'sell' \
        ORDER BY valid_from LIMIT $2";
    OF_TRUNK = "SELECT * FROM tariff_assignment WHERE trunk_id = $1 AND side = 'buy' ORDER BY valid_from LIMIT $2";
}

const SELL: &str = "SELECT a.path, x.valid_from, x.valid_to, x.tariff_id, t.version \
    FROM tariff_assignment x JOIN account a ON a.id = x.account_id JOIN tariff t ON t.id = x.tariff_id \
    WHERE x.side = 'sell' AND x.trunk_id IS NULL AND x.valid_from <= $1 AND (x.valid_to IS NULL OR x.valid_to > $2) \
    AND a.path IN";
const BUY: &str = "SELECT x.trunk_id, x.valid_from, x.valid_to, x.tariff_id, t.version \
    FROM tariff_assignment x JOIN tariff t ON t.id = x.tariff_id \
    WHERE x.side = 'buy' AND x.valid_from <= $1 AND (x.valid_to IS NULL OR x.valid_to > $2) AND x.trunk_id IN";

#[cfg(test)]
pub(crate) fn made() -> Vec<String> {
    let list = marks(3, 2);
    vec![
        format!("{SELL} ({list})"),
        format!("{BUY} ({list})"),
        db::dialect::bulk_statement::<NewRate>(2, ""),
        rate_lists_statement(1),
        rate_lists_statement(RATE_LISTS_MAX),
    ]
}

/// Tariffs whose rates are listed by one statement: as many as a page has. SQLite puts at most 500 together.
const RATE_LISTS_MAX: usize = 100;
/// Compiled tariffs that are kept. A tariff of 10,000 rates takes some megabytes; few are in use at a time.
const CACHE_MAX: usize = 64;
/// Assignments of one target that are looked at for an overlap: a change of price every day for ten years.
const ASSIGNMENTS_MAX: i64 = 4_000;

/// Compiled tariffs by identifier and version. A tariff of one version never changes, so nothing gets stale.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cache(Arc<Mutex<HashMap<Edition, Arc<CompiledTariff>>>>);

/// A tariff in one version.
type Edition = (TariffId, i64);

impl Cache {
    fn get(&self, key: Edition) -> Option<Arc<CompiledTariff>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    fn put(&self, key: Edition, tariff: &Arc<CompiledTariff>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= CACHE_MAX {
            kept.clear();
        }
        kept.insert(key, tariff.clone());
    }
}

#[derive(Debug, sqlx::FromRow)]
struct TariffRow {
    id: Uuid,
    account_id: Uuid,
    name: String,
    currency: String,
    rounding_mode: String,
    rounding_decimals: i64,
    version: i64,
    path: String,
}

#[derive(Debug, sqlx::FromRow)]
struct RateRow {
    prefix: String,
    description: String,
    connect_fee: i64,
    price: i64,
    per_ms: i64,
    initial_ms: i64,
    increment_ms: i64,
}

#[derive(Debug, sqlx::FromRow)]
struct ListedRate {
    tariff_id: Uuid,
    #[sqlx(flatten)]
    rate: RateRow,
}

impl From<RateRow> for Rate {
    fn from(row: RateRow) -> Self {
        Self {
            prefix: row.prefix,
            description: row.description,
            connect_fee: Price::from_units(row.connect_fee),
            price: Price::from_units(row.price),
            per_ms: row.per_ms,
            initial_ms: row.initial_ms,
            increment_ms: row.increment_ms,
        }
    }
}

const fn mode_name(mode: RoundingMode) -> &'static str {
    match mode {
        RoundingMode::Up => "up",
        RoundingMode::Down => "down",
        RoundingMode::HalfUp => "half_up",
        RoundingMode::HalfEven => "half_even",
    }
}

fn mode(text: &str) -> Result<RoundingMode, DbError> {
    let modes = [RoundingMode::Up, RoundingMode::Down, RoundingMode::HalfUp, RoundingMode::HalfEven];
    let found = modes.into_iter().find(|mode| mode_name(*mode) == text);
    found.ok_or_else(|| DbError::corrupt("tariff.rounding_mode", text))
}

#[derive(Debug, sqlx::FromRow)]
struct AssignmentRow {
    id: Uuid,
    tariff_id: Uuid,
    account_id: Uuid,
    trunk_id: Option<Uuid>,
    valid_from: i64,
    valid_to: Option<i64>,
    version: i64,
}

impl From<AssignmentRow> for TariffAssignment {
    fn from(row: AssignmentRow) -> Self {
        let account = AssignmentTarget::Account(AccountId::from_uuid(row.account_id));
        Self {
            id: AssignmentId::from_uuid(row.id),
            tariff: TariffId::from_uuid(row.tariff_id),
            target: row.trunk_id.map_or(account, |trunk| AssignmentTarget::Trunk(TrunkId::from_uuid(trunk))),
            valid_from: Timestamp(row.valid_from),
            valid_to: row.valid_to.map(Timestamp),
            version: row.version,
        }
    }
}

fn head(row: TariffRow) -> Result<(TariffHead, AccountPath), DbError> {
    let tariff = TariffHead {
        id: TariffId::from_uuid(row.id),
        account: AccountId::from_uuid(row.account_id),
        name: row.name,
        currency: parse("tariff.currency", &row.currency)?,
        rounding: Rounding {
            mode: mode(&row.rounding_mode)?,
            decimals: narrow("tariff.rounding_decimals", row.rounding_decimals)?,
        },
        version: row.version,
    };
    Ok((tariff, parse("account.path", &row.path)?))
}

/// The tariff without its rates and the path of its owner, if that lies in the scope.
pub(crate) async fn get(
    tx: &mut Tx,
    scope: &Scope,
    id: TariffId,
) -> Result<Option<(TariffHead, AccountPath)>, DbError> {
    let row: Option<TariffRow> = on_tx!(tx, c => sqlx::query_as(GET)
        .bind(id.uuid()).bind(scope.lower()).bind(scope.upper()).fetch_optional(c).await)?;
    row.map(head).transpose()
}

/// One page of the rates of each tariff, by prefix; an empty one where the tariff lies outside the scope.
pub(crate) async fn rate_lists(
    tx: &mut Tx,
    scope: &Scope,
    tariffs: &[TariffId],
    page: &PageRequest,
) -> Result<Vec<Page<Rate>>, DbError> {
    let after = page.after.as_deref().unwrap_or_default();
    let mut rates: HashMap<TariffId, Vec<Rate>> = HashMap::new();
    for chunk in tariffs.chunks(RATE_LISTS_MAX) {
        let sql = AssertSqlSafe(rate_lists_statement(chunk.len()));
        let rows: Vec<ListedRate> = on_tx!(&mut *tx, c => {
            let mut query = sqlx::query_as(sql)
                .bind(after).bind(scope.lower()).bind(scope.upper()).bind(i64::from(page.first) + 1);
            for tariff in chunk {
                query = query.bind(tariff.uuid());
            }
            query.fetch_all(c).await
        })?;
        for ListedRate { tariff_id, rate } in rows {
            rates.entry(TariffId::from_uuid(tariff_id)).or_default().push(rate.into());
        }
    }
    let cut = |tariff: &TariffId| {
        let rates = rates.get(tariff).cloned().unwrap_or_default();
        Page::cut(rates, page, |rate: &Rate| rate.prefix.clone())
    };
    Ok(tariffs.iter().map(cut).collect())
}

/// One walk along the primary key per tariff, each as long as its page, in one statement.
fn rate_lists_statement(tariffs: usize) -> String {
    let one = |mark: usize| {
        format!(
            "SELECT * FROM (SELECT r.* FROM tariff_rate r JOIN tariff t ON t.id = r.tariff_id \
             JOIN account a ON a.id = t.account_id WHERE r.tariff_id = ${mark} AND r.prefix > $1 \
             AND a.path >= $2 AND a.path < $3 ORDER BY r.prefix LIMIT $4) AS p{mark}"
        )
    };
    let all: Vec<String> = (5..5 + tariffs).map(one).collect();
    format!("{} ORDER BY tariff_id, prefix", all.join(" UNION ALL "))
}

/// One page.
pub(crate) async fn list(
    tx: &mut Tx,
    scope: &Scope,
    account: Option<AccountId>,
    after: Uuid,
    page: &PageRequest,
) -> Result<Page<TariffHead>, DbError> {
    let limit = i64::from(page.first) + 1;
    let rows: Vec<TariffRow> = match account {
        None => on_tx!(tx, c => sqlx::query_as(LIST)
            .bind(scope.lower()).bind(scope.upper()).bind(after).bind(limit).fetch_all(c).await)?,
        Some(account) => on_tx!(tx, c => sqlx::query_as(LIST_OWNED)
            .bind(scope.lower()).bind(scope.upper()).bind(after).bind(limit).bind(account.uuid()).fetch_all(c).await)?,
    };
    let tariffs = rows.into_iter().map(|row| head(row).map(|(tariff, _)| tariff)).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::cut(tariffs, page, |t| t.id.to_string()))
}

/// Whether the account has a tariff of this name.
pub(crate) async fn name_taken(tx: &mut Tx, account: AccountId, name: &str) -> Result<bool, DbError> {
    if !is_storable(name) {
        return Ok(false);
    }
    let count: i64 = on_tx!(tx, c => sqlx::query_scalar(NAME).bind(account.uuid()).bind(name).fetch_one(c).await)?;
    Ok(count > 0)
}

struct NewRate<'r>(TariffId, &'r Rate);

impl BulkRow for NewRate<'_> {
    const TABLE: &'static str = "tariff_rate";
    const COLUMNS: &'static [&'static str] =
        &["tariff_id", "prefix", "description", "connect_fee", "price", "per_ms", "initial_ms", "increment_ms"];

    fn values<'a>(&'a self, out: &mut Vec<Value<'a>>) {
        let Self(tariff, rate) = self;
        out.extend([
            tariff.uuid().into(),
            rate.prefix.as_str().into(),
            rate.description.as_str().into(),
            rate.connect_fee.units().into(),
            rate.price.units().into(),
            rate.per_ms.into(),
            rate.initial_ms.into(),
            rate.increment_ms.into(),
        ]);
    }
}

/// Writes a new tariff.
pub(crate) async fn insert(tx: &mut Tx, tariff: &Tariff, now: Timestamp) -> Result<(), DbError> {
    on_tx!(&mut *tx, c => sqlx::query(INSERT)
        .bind(tariff.id.uuid()).bind(tariff.account.uuid()).bind(&tariff.name).bind(tariff.currency.to_string())
        .bind(mode_name(tariff.rounding.mode)).bind(i64::from(tariff.rounding.decimals)).bind(tariff.version)
        .bind(now.0).execute(c).await.map(|_| ()))?;
    let rates: Vec<NewRate<'_>> = tariff.rates.iter().map(|rate| NewRate(tariff.id, rate)).collect();
    bulk_insert(tx, &rates, "").await?;
    Ok(())
}

/// Writes a new assignment; `owner` is the account, or that of the trunk.
pub(crate) async fn assign(
    tx: &mut Tx,
    assignment: &TariffAssignment,
    owner: AccountId,
    now: Timestamp,
) -> Result<(), DbError> {
    let (trunk, side) = match assignment.target {
        AssignmentTarget::Account(_) => (None, Side::Sell),
        AssignmentTarget::Trunk(trunk) => (Some(trunk.uuid()), Side::Buy),
    };
    on_tx!(tx, c => sqlx::query(ASSIGN)
        .bind(assignment.id.uuid()).bind(assignment.tariff.uuid()).bind(owner.uuid()).bind(trunk).bind(side.as_str())
        .bind(assignment.valid_from.0).bind(assignment.valid_to.map(|to| to.0)).bind(assignment.version).bind(now.0)
        .execute(c).await.map(|_| ()))?;
    Ok(())
}

/// The assignments of one target.
pub(crate) async fn assignments_of(tx: &mut Tx, target: AssignmentTarget) -> Result<Vec<TariffAssignment>, DbError> {
    let (sql, id) = match target {
        AssignmentTarget::Account(id) => (OF_ACCOUNT, id.uuid()),
        AssignmentTarget::Trunk(id) => (OF_TRUNK, id.uuid()),
    };
    let rows: Vec<AssignmentRow> =
        on_tx!(tx, c => sqlx::query_as(sql).bind(id).bind(ASSIGNMENTS_MAX).fetch_all(c).await)?;
    Ok(rows.into_iter().map(TariffAssignment::from).collect())
}

/// One page of the assignments of accounts and trunks in the scope.
pub(crate) async fn assignment_list(
    tx: &mut Tx,
    scope: &Scope,
    after: Uuid,
    page: &PageRequest,
) -> Result<Page<TariffAssignment>, DbError> {
    let rows: Vec<AssignmentRow> = on_tx!(tx, c => sqlx::query_as(ASSIGNMENTS)
        .bind(scope.lower()).bind(scope.upper()).bind(after).bind(i64::from(page.first) + 1).fetch_all(c).await)?;
    let rows = rows.into_iter().map(TariffAssignment::from).collect();
    Ok(Page::cut(rows, page, |x: &TariffAssignment| x.id.to_string()))
}

/// Loads the assignments that the claims of `legs` can meet.
pub(crate) async fn book(tx: &mut Tx, cache: &Cache, legs: &[Leg]) -> Result<TariffBook, DbError> {
    let (mut paths, mut trunks) = (BTreeSet::new(), BTreeSet::new());
    let (mut from, mut to) = (i64::MAX, i64::MIN);
    for leg in legs {
        match leg.claim {
            Claim::Nobody => continue,
            Claim::Sell(_) => _ = paths.insert(&leg.usage.path),
            Claim::Buy(trunk, _) => _ = trunks.insert(trunk),
        }
        from = from.min(leg.usage.answered_at.0);
        to = to.max(leg.usage.answered_at.0);
    }
    let paths: BTreeSet<AccountPath> = paths.into_iter().flat_map(AccountPath::ancestry).collect();
    let paths: Vec<AccountPath> = paths.into_iter().collect();
    let trunks: Vec<TrunkId> = trunks.into_iter().collect();
    let mut book = TariffBook::default();
    for chunk in paths.chunks(LIST_MAX) {
        let sql = format!("{SELL} ({})", marks(3, chunk.len()));
        let rows: Vec<(String, i64, Option<i64>, Uuid, i64)> = on_tx!(&mut *tx, c => {
            let mut query = sqlx::query_as(AssertSqlSafe(sql)).bind(to).bind(from);
            for path in chunk {
                query = query.bind(path.as_str());
            }
            query.fetch_all(c).await
        })?;
        for (path, valid_from, valid_to, id, version) in rows {
            let tariff = compiled(tx, cache, TariffId::from_uuid(id), version).await?;
            let path = parse("account.path", &path)?;
            book.assign_account(path, Timestamp(valid_from), valid_to.map(Timestamp), tariff);
        }
    }
    for chunk in trunks.chunks(LIST_MAX) {
        let sql = format!("{BUY} ({})", marks(3, chunk.len()));
        let rows: Vec<(Uuid, i64, Option<i64>, Uuid, i64)> = on_tx!(&mut *tx, c => {
            let mut query = sqlx::query_as(AssertSqlSafe(sql)).bind(to).bind(from);
            for trunk in chunk {
                query = query.bind(trunk.uuid());
            }
            query.fetch_all(c).await
        })?;
        for (trunk, valid_from, valid_to, id, version) in rows {
            let tariff = compiled(tx, cache, TariffId::from_uuid(id), version).await?;
            book.assign_trunk(TrunkId::from_uuid(trunk), Timestamp(valid_from), valid_to.map(Timestamp), tariff);
        }
    }
    Ok(book)
}

async fn compiled(tx: &mut Tx, cache: &Cache, id: TariffId, version: i64) -> Result<Arc<CompiledTariff>, DbError> {
    if let Some(tariff) = cache.get((id, version)) {
        return Ok(tariff);
    }
    // The rater reads for the installation: who may use the tariff was decided when it was assigned.
    let found = get(&mut *tx, &Scope::installation(), id).await?;
    let (head, _) = found.ok_or_else(|| DbError::corrupt("tariff_assignment.tariff_id", id))?;
    let rates: Vec<RateRow> = on_tx!(tx, c => sqlx::query_as(RATES).bind(id.uuid()).fetch_all(c).await)?;
    let version = head.version;
    let tariff = Arc::new(
        CompiledTariff::new(head.with(rates.into_iter().map(Rate::from).collect()))
            .map_err(|e| DbError::corrupt("tariff_rate.prefix", e))?,
    );
    cache.put((id, version), &tariff);
    Ok(tariff)
}

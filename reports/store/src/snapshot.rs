//! The figures of a run, read on one snapshot of the store.

use db::{DbError, Tx, lease, on_tx};
use model::id::{AccountId, TrunkId};
use model::money::{Currency, Total};
use model::tenancy::{AccountPath, Scope};
use model::time::Timestamp;
use reports::figures::{
    AccountFigures, Completeness, FORMAT, Figures, JournalRead, MoneySums, TrunkFigures, days, intervals_over,
};
use reports::period::{Bounds, Month, zone};
use reports::resource::{Counters, Interval, ReportRun};
use reports::run::SETTLE_MS;
use uuid::Uuid;

use crate::availability;
use crate::rows::{self, CounterRow, counter_sums};

/// Accounts of the table: what a person reads. The totals hold all of them, and the report says how many are left out.
pub(crate) const ACCOUNTS_MAX: i64 = 200;
/// Trunks of the table.
pub(crate) const TRUNKS_MAX: i64 = 100;
/// A node that was read less than this ago is read: it writes a record every 15 seconds at least.
const READ_LATE_MS: i64 = 60_000;
/// No attempt rings longer: how far an answer in the period may lie behind the end of the period of its INVITE.
const RING_MAX_MS: i64 = 900_000;

db::statements! {
    /// The name of the account, as it is now.
    NAME = "SELECT name FROM account WHERE id = $1";
    /// The account's intervals, summed over nodes.
    INTERVALS = concat!("SELECT start_at, ", counter_sums!(""), " FROM pm_interval WHERE path = $1 \
        AND scope_kind = 'account' AND start_at >= $2 AND start_at < $3 GROUP BY start_at ORDER BY start_at");
    /// The accounts directly below that had calls, the busiest first, and how many there are.
    CHILDREN = concat!("SELECT a.id, a.name, a.path, COUNT(*) OVER () AS found, ", counter_sums!("p."),
        " FROM account a JOIN pm_interval p ON p.path = a.path AND p.scope_kind = 'account' \
        AND p.start_at >= $2 AND p.start_at < $3 WHERE a.parent_id = $1 GROUP BY a.id, a.name, a.path \
        ORDER BY SUM(p.attempts) DESC, a.path LIMIT $4");
    /// The trunks that are owned at or below the account.
    TRUNKS = concat!("SELECT t.id, t.name, a.path, COUNT(*) OVER () AS found, ", counter_sums!("p."),
        " FROM account a JOIN trunk t ON t.account_id = a.id JOIN pm_interval p ON p.path = a.path \
        AND p.scope_kind = 'trunk' AND p.scope_id = t.id AND p.start_at >= $3 AND p.start_at < $4 \
        WHERE a.path >= $1 AND a.path < $2 GROUP BY t.id, t.name, a.path \
        ORDER BY SUM(p.attempts) DESC, t.id LIMIT $5");
    /// Money at and below the account.
    MONEY = "SELECT path, side, currency, CAST(SUM(amount_millions) + SUM(amount / 1000000) AS BIGINT) AS amount_millions, \
        CAST(SUM(amount % 1000000) AS BIGINT) AS amount, \
        CAST(SUM(rated_count) AS BIGINT) AS rated_count FROM pm_revenue \
        WHERE path >= $1 AND path < $2 AND start_at >= $3 AND start_at < $4 \
        GROUP BY path, side, currency ORDER BY path, side, currency";
    /// What billing has: calls of the same INVITEs, and legs that were answered in the period.
    USAGE = "SELECT COUNT(DISTINCT CASE WHEN leg = 0 AND NOT aborted AND invited_at >= $3 AND invited_at < $4 \
            THEN call_id END), \
        COUNT(CASE WHEN state = 'rated' AND answered_at < $4 THEN 1 END), \
        COUNT(CASE WHEN state = 'uncharged' AND answered_at < $4 THEN 1 END), \
        COUNT(CASE WHEN state = 'suspense' AND answered_at < $4 THEN 1 END) \
        FROM usage WHERE path >= $1 AND path < $2 AND answered_at >= $3 AND answered_at < $5";
    /// What waits in suspense, of calls that were answered in the period.
    SUSPENSE = "SELECT COUNT(*) FROM suspense s JOIN usage u ON u.call_id = s.call_id AND u.leg = s.leg \
        AND u.part = s.part WHERE s.resolved_at IS NULL AND s.path >= $1 AND s.path < $2 \
        AND u.answered_at >= $3 AND u.answered_at < $4";
    /// Charges of the period at and below an account.
    RATED = "SELECT COUNT(*) FROM rated WHERE path >= $1 AND path < $2 AND answered_at >= $3 AND answered_at < $4";
    /// Rated batches of the whole installation that the money does not know yet.
    PENDING = "SELECT COUNT(*) FROM event WHERE kind = 'rated' AND sequence > COALESCE((SELECT sequence \
        FROM consumer_cursor WHERE consumer = 'reports' AND source = 'event'), 0)";
    /// Nodes of which something of the period may be unread: those that are there and were not read until its last
    /// attempts are over ($5; in a period that goes on, until now), and those that were last seen in it and did not stop
    /// in order.
    UNREAD = "SELECT COUNT(*) FROM pm_node n WHERE n.since < $2 AND n.last_sign_at < $5 \
        AND ((n.last_sign_at >= $1 AND NOT n.stopped) \
            OR EXISTS (SELECT 1 FROM lease l WHERE l.name = $3 || n.node AND l.until > $4))";
    /// How far the journals were read.
    JOURNALS = "SELECT source, epoch, sequence, updated_at FROM consumer_cursor \
        WHERE consumer = 'reports' AND source LIKE 'journal:%' ORDER BY source";
}

#[derive(sqlx::FromRow)]
struct IntervalRow {
    start_at: i64,
    #[sqlx(flatten)]
    counters: CounterRow,
}

#[derive(sqlx::FromRow)]
struct NamedRow {
    id: Uuid,
    name: String,
    path: String,
    found: i64,
    #[sqlx(flatten)]
    counters: CounterRow,
}

#[derive(sqlx::FromRow)]
struct MoneyRow {
    path: String,
    side: String,
    currency: String,
    amount_millions: i64,
    amount: i64,
    rated_count: i64,
}

/// Reads the figures of `run` as they are at `now`.
pub(crate) async fn take(tx: &mut Tx, run: &ReportRun, now: Timestamp) -> Result<Figures, DbError> {
    let corrupt = |error| DbError::corrupt("report_run.period", error);
    let month: Month = run.period.parse().map_err(corrupt)?;
    let zone = zone(&run.timezone).map_err(corrupt)?;
    let bounds = Bounds { from: run.period_from, to: run.period_to };
    let name: Option<String> =
        on_tx!(tx, c => sqlx::query_scalar(NAME).bind(run.account.uuid()).fetch_optional(c).await)?;
    let intervals = intervals(tx, &run.path, bounds).await?;
    let mut totals = Counters::default();
    intervals.iter().for_each(|interval| totals.add(&interval.counters));
    let children = children(tx, run.account, bounds).await?;
    let trunks = trunks(tx, &run.path, bounds).await?;
    let money = money(tx, &run.path, bounds).await?;
    let availability = availability::take(tx, &run.path, bounds).await?;
    let accounts_left_out = left_out(&children);
    let trunks_left_out = left_out(&trunks);
    let mut accounts = Vec::with_capacity(children.len());
    for child in children {
        let path = rows::path("account.path", &child.path)?;
        accounts.push(AccountFigures {
            account: AccountId::from_uuid(child.id),
            name: child.name,
            counters: child.counters.into(),
            money: sums(money.iter().filter(|row| Scope::subtree(&path).contains(&row.path))).finish(),
        });
    }
    let trunk = |row: NamedRow| TrunkFigures {
        trunk: TrunkId::from_uuid(row.id),
        name: row.name,
        counters: row.counters.into(),
    };
    let all = sums(&money);
    let rated_counted = money.iter().map(|row| row.rated_count).sum();
    let with_calls = intervals.iter().filter(|i| !i.counters.is_empty() && i.start <= now).count();
    let completeness = Completeness {
        intervals: bounds.intervals(),
        intervals_over: intervals_over(bounds, now),
        intervals_with_calls: i64::try_from(with_calls).unwrap_or(i64::MAX),
        answered_counted: totals.answered,
        rated_counted,
        ..completeness(tx, &run.path, bounds, rated_counted, now).await?
    };
    Ok(Figures {
        format: FORMAT,
        run: run.id,
        revision: run.revision,
        account: run.account,
        account_name: name.unwrap_or_else(|| run.account.to_string()),
        period: run.period.clone(),
        timezone: run.timezone.clone(),
        from: bounds.from,
        to: bounds.to,
        provisional: now < bounds.to.plus_ms(SETTLE_MS) || !completeness.is_settled(),
        taken_at: now,
        totals,
        money: all.finish(),
        accounts,
        accounts_left_out,
        trunks: trunks.into_iter().map(trunk).collect(),
        trunks_left_out,
        days: days(month, zone, bounds, now, &intervals),
        availability,
        completeness,
    })
}

async fn intervals(tx: &mut Tx, path: &AccountPath, bounds: Bounds) -> Result<Vec<Interval>, DbError> {
    let rows: Vec<IntervalRow> = on_tx!(tx, c => sqlx::query_as(INTERVALS)
        .bind(path.as_str()).bind(bounds.from.0).bind(bounds.to.0).fetch_all(c).await)?;
    let interval = |row: IntervalRow| Interval { start: Timestamp(row.start_at), counters: row.counters.into() };
    Ok(rows.into_iter().map(interval).collect())
}

async fn children(tx: &mut Tx, account: AccountId, bounds: Bounds) -> Result<Vec<NamedRow>, DbError> {
    Ok(on_tx!(tx, c => sqlx::query_as(CHILDREN)
        .bind(account.uuid()).bind(bounds.from.0).bind(bounds.to.0).bind(ACCOUNTS_MAX).fetch_all(c).await)?)
}

async fn trunks(tx: &mut Tx, path: &AccountPath, bounds: Bounds) -> Result<Vec<NamedRow>, DbError> {
    let scope = Scope::subtree(path);
    Ok(on_tx!(tx, c => sqlx::query_as(TRUNKS)
        .bind(scope.lower()).bind(scope.upper()).bind(bounds.from.0).bind(bounds.to.0).bind(TRUNKS_MAX)
        .fetch_all(c).await)?)
}

fn left_out(rows: &[NamedRow]) -> i64 {
    let shown = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    rows.first().map_or(0, |row| row.found.saturating_sub(shown))
}

/// Money of one account, side and currency.
struct Charge {
    path: AccountPath,
    is_cost: bool,
    currency: Currency,
    amount: Total,
    rated_count: i64,
}

async fn money(tx: &mut Tx, path: &AccountPath, bounds: Bounds) -> Result<Vec<Charge>, DbError> {
    let scope = Scope::subtree(path);
    let rows: Vec<MoneyRow> = on_tx!(tx, c => sqlx::query_as(MONEY)
        .bind(scope.lower()).bind(scope.upper()).bind(bounds.from.0).bind(bounds.to.0).fetch_all(c).await)?;
    let charge = |row: MoneyRow| {
        Ok(Charge {
            path: rows::path("pm_revenue.path", &row.path)?,
            is_cost: row.side == "buy",
            currency: row.currency.parse().map_err(|e| DbError::corrupt("pm_revenue.currency", e))?,
            amount: Total(i128::from(row.amount_millions) * 1_000_000 + i128::from(row.amount)),
            rated_count: row.rated_count,
        })
    };
    rows.into_iter().map(charge).collect()
}

fn sums<'a>(charges: impl IntoIterator<Item = &'a Charge>) -> MoneySums {
    let mut sums = MoneySums::default();
    for charge in charges {
        sums.add(charge.currency, charge.is_cost, charge.amount, charge.rated_count);
    }
    sums
}

async fn completeness(
    tx: &mut Tx,
    path: &AccountPath,
    bounds: Bounds,
    rated_counted: i64,
    now: Timestamp,
) -> Result<Completeness, DbError> {
    let scope = Scope::subtree(path);
    let answered_to = bounds.to.plus_ms(RING_MAX_MS);
    let (usage_calls, usage_rated, usage_uncharged, usage_suspense): (i64, i64, i64, i64) = on_tx!(tx, c => sqlx::query_as(USAGE)
            .bind(scope.lower()).bind(scope.upper()).bind(bounds.from.0).bind(bounds.to.0).bind(answered_to.0)
            .fetch_one(c).await)?;
    let suspense_open = on_tx!(tx, c => sqlx::query_scalar(SUSPENSE)
        .bind(scope.lower()).bind(scope.upper()).bind(bounds.from.0).bind(bounds.to.0).fetch_one(c).await)?;
    let rated: i64 = on_tx!(&mut *tx, c => sqlx::query_scalar(RATED)
        .bind(scope.lower()).bind(scope.upper()).bind(bounds.from.0).bind(bounds.to.0).fetch_one(c).await)?;
    let charges_pending = rated.saturating_sub(rated_counted).max(0);
    let nodes_unread: i64 = on_tx!(&mut *tx, c => sqlx::query_scalar(UNREAD)
        .bind(bounds.from.0).bind(bounds.to.0).bind(lease::PRESENCE).bind(now.0)
        .bind(answered_to.min(now.plus_ms(-READ_LATE_MS)).0).fetch_one(c).await)?;
    // What concerns the installation is the provider's business: a tenant sees neither the backlog of others nor the nodes.
    let (events_pending, journals) = if path.depth() == 1 {
        let pending = on_tx!(&mut *tx, c => sqlx::query_scalar(PENDING).fetch_one(c).await)?;
        let journals: Vec<(String, i64, i64, i64)> = on_tx!(tx, c => sqlx::query_as(JOURNALS).fetch_all(c).await)?;
        (pending, journals)
    } else {
        (charges_pending, Vec::new())
    };
    let nodes_unread: i64 = if path.depth() == 1 { nodes_unread } else { nodes_unread.min(1) };
    let journals = journals
        .into_iter()
        .map(|(source, epoch, sequence, at)| {
            let node = source.strip_prefix("journal:").unwrap_or(&source).to_owned();
            JournalRead { node, position: format!("{epoch}:{sequence}"), at: Timestamp(at) }
        })
        .collect();
    Ok(Completeness {
        usage_calls,
        usage_rated,
        usage_uncharged,
        usage_suspense,
        suspense_open,
        events_pending,
        nodes_unread,
        charges_pending,
        journals,
        ..Completeness::default()
    })
}

//! Leases: who holds a duty of the whole installation, with a fencing token.
//!
//! A holder that was asleep may believe that it still holds. Its effects are fenced: [`check`] in the transaction of
//! the effects finds another token. Clocks of the nodes may differ by less than the duration of a lease.

use std::convert::Infallible;
use std::sync::Arc;

use model::time::Timestamp;
use sqlx::AssertSqlSafe;

use crate::error::{DbError, WriteError};
use crate::store::{Db, Tx};

const ACQUIRE: &str = "INSERT INTO lease (name, holder, fence, until) VALUES ($1, $2, 1, $4) \
    ON CONFLICT (name) DO UPDATE SET holder = $2, fence = lease.fence + 1, until = $4 \
    WHERE lease.until <= $3 OR lease.holder = $2 RETURNING fence";
const RENEW: &str = "UPDATE lease SET until = $4 WHERE name = $1 AND holder = $2 AND fence = $3";
const RELEASE: &str = "UPDATE lease SET until = 0 WHERE name = $1 AND holder = $2 AND fence = $3";
const CHECK: &str = "SELECT fence FROM lease WHERE name = $1 AND holder = $2 AND fence = $3";
/// What the names of the leases of nodes begin with.
pub const PRESENCE: &str = "node/";
pub(crate) const ALL: &[&str] = &[ACQUIRE, RENEW, RELEASE, CHECK];

/// A lease that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The duty.
    pub name: String,
    /// The node that holds it.
    pub holder: String,
    /// Grows with each acquisition.
    pub fence: i64,
    /// Until when, unless renewed.
    pub until: Timestamp,
}

/// Takes the lease for `duration_ms` when it is free, has run out, or is the holder's own from before a restart.
///
/// # Errors
/// When the database fails.
pub async fn acquire(
    tx: &mut Tx,
    name: &str,
    holder: &str,
    now: Timestamp,
    duration_ms: i64,
) -> Result<Option<Lease>, DbError> {
    let until = now.plus_ms(duration_ms);
    let fence: Option<i64> = crate::on_tx!(tx, c => sqlx::query_scalar(ACQUIRE)
        .bind(name).bind(holder).bind(now.0).bind(until.0).fetch_optional(c).await)?;
    Ok(fence.map(|fence| Lease { name: name.to_owned(), holder: holder.to_owned(), fence, until }))
}

/// Prolongs the lease. It may have run out, as long as nobody else took it.
///
/// # Errors
/// [`DbError::LeaseLost`] when another holder has it.
pub async fn renew(tx: &mut Tx, lease: &Lease, now: Timestamp, duration_ms: i64) -> Result<Lease, DbError> {
    let until = now.plus_ms(duration_ms);
    let rows = crate::on_tx!(tx, c => sqlx::query(RENEW)
        .bind(&lease.name).bind(&lease.holder).bind(lease.fence).bind(until.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    if rows == 1 { Ok(Lease { until, ..lease.clone() }) } else { Err(lost(lease)) }
}

/// Gives the lease up, so that another node need not wait for its end.
///
/// # Errors
/// When the database fails; a lease that was lost already is no error.
pub async fn release(tx: &mut Tx, lease: &Lease) -> Result<(), DbError> {
    crate::on_tx!(tx, c => sqlx::query(RELEASE)
        .bind(&lease.name).bind(&lease.holder).bind(lease.fence).execute(c).await.map(|_| ()))?;
    Ok(())
}

/// Fences: called in the transaction of the effects, it holds the lease's row until the commit.
///
/// # Errors
/// [`DbError::LeaseLost`] when another holder has it.
pub async fn check(tx: &mut Tx, lease: &Lease) -> Result<(), DbError> {
    let sql = format!("{CHECK}{}", tx.lock_clause());
    let fence: Option<i64> = crate::on_tx!(tx, c => sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(&lease.name).bind(&lease.holder).bind(lease.fence).fetch_optional(c).await)?;
    fence.map(|_| ()).ok_or_else(|| lost(lease))
}

/// Takes or prolongs a lease in a transaction of its own; false when another holder has it. For duties whose effects need
/// no fence.
///
/// # Errors
/// When the database cannot be written.
pub async fn hold(db: &Db, name: &str, holder: &str, now: Timestamp, duration_ms: i64) -> Result<bool, DbError> {
    let (name, holder): (Arc<str>, Arc<str>) = (name.into(), holder.into());
    let written = db.write::<_, Infallible, _>(move |tx| {
        let (name, holder) = (Arc::clone(&name), Arc::clone(&holder));
        Box::pin(async move { Ok(acquire(tx, &name, &holder, now, duration_ms).await?) })
    });
    match written.await {
        Ok(lease) => Ok(lease.is_some()),
        Err(WriteError::Db(error)) => Err(error),
        Err(WriteError::Refused(never)) => match never {},
    }
}

/// Says that a node is there. It is a write like any other: what it meets, others meet.
///
/// # Errors
/// When the database cannot be written.
pub async fn node_is_present(db: &Db, node: &str, now: Timestamp, duration_ms: i64) -> Result<(), DbError> {
    // Nobody else holds it; the only one is this node.
    hold(db, &format!("{PRESENCE}{node}"), node, now, duration_ms).await.map(|_| ())
}

fn lost(lease: &Lease) -> DbError {
    DbError::LeaseLost { name: lease.name.clone() }
}

//! Dense sequences: numbers without gaps, in the order of commit.
//!
//! A database sequence leaves gaps and shows numbers before they are committed. Here the counter is a row whose lock
//! is held until the commit, so whoever reads number n has seen all before it.

use crate::error::DbError;
use crate::store::Tx;

/// The store's feed of events.
pub const EVENT: &str = "event";
/// The audit trail.
pub const AUDIT: &str = "audit";
/// Rated rows.
pub const RATED: &str = "rated";

const NEXT: &str = "UPDATE counter SET value = value + $2 WHERE name = $1 RETURNING value";
pub(crate) const ALL: &[&str] = &[NEXT];

/// Takes `n` numbers of the sequence `name` and gives the first. The counter row stays locked until the transaction
/// ends: call it last.
///
/// # Errors
/// When the database fails or there is no such counter.
pub async fn next_range(tx: &mut Tx, name: &str, n: i64) -> Result<i64, DbError> {
    let value: i64 = crate::on_tx!(tx, c => sqlx::query_scalar(NEXT).bind(name).bind(n).fetch_one(c).await)?;
    Ok(value - n + 1)
}

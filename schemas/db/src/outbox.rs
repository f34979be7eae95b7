//! Messages on their way out (mail, webhooks, SNMP), over the store or a node's database.
//!
//! A message is enqueued in the transaction of its cause. Each target has a dense sequence of its own, by which the
//! receiver sees a loss, and gets its messages in that order: a later one is not due before an earlier one was sent
//! or given up. A message may be sent twice (a crash between sending and [`sent`]); its id stays the same.
//! One worker serves a prefix of targets at a time: on the node's database the node, on the store the lease holder.

use model::id::MessageId;
use model::time::Timestamp;
use uuid::Uuid;

use crate::cursor::Position;
use crate::error::{DbError, WriteError};
use crate::store::{Db, Tx};

/// Wait before the second attempt.
pub const RETRY_FIRST_MS: i64 = 1_000;
/// Longest wait between attempts: a target that comes back hears from us within the hour.
pub const RETRY_MAX_MS: i64 = 3_600_000;
/// Characters kept of an error: enough for the answer line of any protocol.
pub const ERROR_MAX: usize = 500;
/// Most messages of one look at the queue.
pub const DUE_MAX: u32 = 1_000;

const TARGET: &str = "INSERT INTO outbox_target (target, epoch, next_sequence) VALUES ($1, 1, 2) \
    ON CONFLICT (target) DO UPDATE SET next_sequence = outbox_target.next_sequence + 1 \
    RETURNING epoch, next_sequence - 1";
const INSERT: &str = "INSERT INTO outbox \
    (target, sequence, epoch, message_id, kind, payload, state, attempts, next_attempt_at, created_at) \
    VALUES ($1, $2, $3, $4, $5, $6, 'pending', 0, $7, $7)";
const RESET: &str = "UPDATE outbox_target SET epoch = epoch + 1, next_sequence = 1 WHERE target = $1 RETURNING epoch";
// Walks the targets, not the messages: ten thousand waiting messages of one target cost one look-up.
const DUE: &str = "SELECT o.target, o.epoch, o.sequence, o.message_id, o.kind, o.payload, o.attempts, o.created_at \
    FROM outbox_target t JOIN outbox o ON o.message_id = (SELECT h.message_id FROM outbox h \
        WHERE h.target = t.target AND h.state = 'pending' ORDER BY h.epoch, h.sequence LIMIT 1) \
    WHERE t.target >= $1 AND t.target < $2 AND o.next_attempt_at <= $3 \
    ORDER BY o.next_attempt_at, o.target LIMIT $4";
const SENT: &str = "UPDATE outbox SET state = 'sent', attempts = attempts + 1, sent_at = $2, last_error = NULL \
    WHERE message_id = $1 AND state = 'pending'";
const RETRY: &str = "UPDATE outbox SET attempts = attempts + 1, last_error = $2, next_attempt_at = $3 \
    WHERE message_id = $1 AND state = 'pending'";
const GIVE_UP: &str = "UPDATE outbox SET state = 'failed', attempts = attempts + 1, last_error = $2 \
    WHERE message_id = $1 AND state = 'pending'";
const PENDING: &str = "SELECT COUNT(*) FROM outbox WHERE state = 'pending' AND target >= $1 AND target < $2";
const PRUNE: &str = "DELETE FROM outbox WHERE state <> 'pending' AND created_at < $1";
pub(crate) const ALL: &[&str] = &[TARGET, INSERT, RESET, DUE, SENT, RETRY, GIVE_UP, PENDING, PRUNE];

/// A message that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it goes, such as `snmp:<name>` or `mail:<address>`.
    pub target: String,
    /// Epoch and sequence of the target.
    pub position: Position,
    /// Its identifier, the same on every attempt.
    pub id: MessageId,
    /// What the payload is.
    pub kind: String,
    /// What was enqueued.
    pub payload: String,
    /// Attempts that failed so far.
    pub attempts: i64,
    /// When it was enqueued.
    pub created_at: Timestamp,
}

/// What becomes of a message whose attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is tried again at this time; later messages of the target wait for it.
    Retry(Timestamp),
    /// It is given up, and the next message of the target becomes due. The gap shows in the sequence.
    GiveUp,
}

/// How long to wait after the `attempts`-th failed attempt (counted from 1): 1 s, doubled up to an hour.
#[must_use]
pub fn retry_delay_ms(attempts: i64) -> i64 {
    let doublings = u32::try_from(attempts.saturating_sub(1).clamp(0, 30)).unwrap_or(0);
    RETRY_FIRST_MS.saturating_mul(1_i64 << doublings).min(RETRY_MAX_MS)
}

/// Puts a message into the queue of `target` and gives its place in the target's sequence.
///
/// # Errors
/// When the database fails, or a message with this id is there already ([`DbError::Unique`]).
pub async fn enqueue(
    tx: &mut Tx,
    target: &str,
    kind: &str,
    payload: &str,
    message: MessageId,
    now: Timestamp,
) -> Result<Position, DbError> {
    let (epoch, sequence): (i64, i64) = crate::on_tx!(tx, c => sqlx::query_as(TARGET).bind(target).fetch_one(c).await)?;
    crate::on_tx!(tx, c => sqlx::query(INSERT)
        .bind(target).bind(sequence).bind(epoch).bind(message.uuid()).bind(kind).bind(payload).bind(now.0)
        .execute(c).await.map(|_| ()))?;
    Ok(Position { epoch, sequence })
}

/// Begins a new epoch of a target, whose sequence starts at 1 again: after a restore, or when a receiver was replaced.
/// Gives the new epoch; none when nothing was ever sent to it.
///
/// # Errors
/// When the database fails.
pub async fn begin_epoch(tx: &mut Tx, target: &str) -> Result<Option<i64>, DbError> {
    Ok(crate::on_tx!(tx, c => sqlx::query_scalar(RESET).bind(target).fetch_optional(c).await)?)
}

/// The messages that may be sent now to targets that begin with `prefix`: at most one per target, its oldest.
///
/// # Errors
/// When the database fails.
pub async fn due(db: &Db, prefix: &str, now: Timestamp, limit: u32) -> Result<Vec<Message>, DbError> {
    type Row = (String, i64, i64, Uuid, String, String, i64, i64);
    let limit = i64::from(limit.min(DUE_MAX));
    let rows: Vec<Row> = crate::on_db!(db, c => sqlx::query_as(DUE)
        .bind(prefix).bind(prefix_end(prefix)).bind(now.0).bind(limit).fetch_all(c).await)?;
    let message = |(target, epoch, sequence, id, kind, payload, attempts, created_at): Row| Message {
        target,
        position: Position { epoch, sequence },
        id: MessageId::from_uuid(id),
        kind,
        payload,
        attempts,
        created_at: Timestamp(created_at),
    };
    Ok(rows.into_iter().map(message).collect())
}

/// Notes that the target took the message. False when it was not pending any more.
///
/// # Errors
/// When the database fails.
pub async fn sent(db: &Db, message: MessageId, now: Timestamp) -> Result<bool, DbError> {
    write(db, move |tx| Box::pin(mark_sent(tx, message, now))).await
}

/// As [`sent`], in a transaction of the caller.
///
/// # Errors
/// When the database fails.
pub async fn mark_sent(tx: &mut Tx, message: MessageId, now: Timestamp) -> Result<bool, DbError> {
    let rows = crate::on_tx!(tx, c => sqlx::query(SENT)
        .bind(message.uuid()).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}

/// Notes that an attempt failed. False when the message was not pending any more.
///
/// # Errors
/// When the database fails.
pub async fn failed(db: &Db, message: MessageId, error: &str, next: Next) -> Result<bool, DbError> {
    let error: String = error.chars().take(ERROR_MAX).collect();
    write(db, move |tx| {
        let error = error.clone();
        Box::pin(async move { mark_failed(tx, message, &error, next).await })
    })
    .await
}

/// As [`failed`], in a transaction of the caller.
///
/// # Errors
/// When the database fails.
pub async fn mark_failed(tx: &mut Tx, message: MessageId, error: &str, next: Next) -> Result<bool, DbError> {
    let id = message.uuid();
    let rows = match next {
        Next::Retry(at) => crate::on_tx!(tx, c => sqlx::query(RETRY)
            .bind(id).bind(error).bind(at.0).execute(c).await.map(|done| done.rows_affected()))?,
        Next::GiveUp => crate::on_tx!(tx, c => sqlx::query(GIVE_UP)
            .bind(id).bind(error).execute(c).await.map(|done| done.rows_affected()))?,
    };
    Ok(rows == 1)
}

/// How many messages wait for targets that begin with `prefix`.
///
/// # Errors
/// When the database fails.
pub async fn pending_count(db: &Db, prefix: &str) -> Result<i64, DbError> {
    Ok(crate::on_db!(db, c => sqlx::query_scalar(PENDING)
        .bind(prefix).bind(prefix_end(prefix)).fetch_one(c).await)?)
}

/// Deletes what was sent or given up and is older than `before`; gives how many.
///
/// # Errors
/// When the database fails.
pub async fn prune(tx: &mut Tx, before: Timestamp) -> Result<u64, DbError> {
    Ok(crate::on_tx!(tx, c => sqlx::query(PRUNE).bind(before.0).execute(c).await.map(|done| done.rows_affected()))?)
}

/// The text after all that begin with `prefix`, in C order.
fn prefix_end(prefix: &str) -> String {
    format!("{prefix}\u{10ffff}")
}

async fn write<T, F>(db: &Db, work: F) -> Result<T, DbError>
where
    T: Send + 'static,
    F: for<'t> Fn(&'t mut Tx) -> futures::future::BoxFuture<'t, Result<T, DbError>> + Send + Sync + 'static,
{
    let written = db.write::<T, std::convert::Infallible, _>(move |tx| {
        let work = work(tx);
        Box::pin(async move { work.await.map_err(WriteError::Db) })
    });
    match written.await {
        Ok(value) => Ok(value),
        Err(WriteError::Db(error)) => Err(error),
        Err(WriteError::Refused(never)) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour() {
        let check = |attempts, expected| assert_eq!(retry_delay_ms(attempts), expected, "{attempts}");
        check(i64::MIN, 1_000);
        check(1, 1_000);
        check(2, 2_000);
        check(12, 2_048_000);
        check(13, 3_600_000);
        check(i64::MAX, 3_600_000);
    }
}

//! Alarms go from the node to the store, acknowledgements from the store to the node. Both may run twice; one worker
//! per node runs them, and who acknowledges copies first.

use std::convert::Infallible;
use std::sync::Arc;

use db::dialect::bulk_insert;
use db::{Db, DbError, on_db, on_tx};
use fault::port::TargetName;
use fault::state;
use model::time::Timestamp;
use uuid::Uuid;

use crate::error::db_error;
use crate::node::{Inner, NodeAlarms, load};
use crate::row::{AlarmRow, COPY_CONFLICT, CopyRow};

/// Rows of one step: a transaction of a few milliseconds.
const BATCH_MAX: i64 = 500;

/// Statements of the node's database.
pub(crate) mod on_node {
    db::statements! {
        /// What the store does not have yet.
        PENDING = "SELECT id, type, resource, path, severity, text, raised_at, changed_at, last_seen_at, cleared_at, \
            count, acked_by, acked_at, ack_note, copy_pending FROM alarm WHERE copy_pending > 0 \
            ORDER BY copy_pending, id LIMIT $1";
        /// The same of one alarm.
        PENDING_ONE = "SELECT id, type, resource, path, severity, text, raised_at, changed_at, last_seen_at, cleared_at, \
            count, acked_by, acked_at, ack_note, copy_pending FROM alarm WHERE copy_pending > 0 AND id = $1";
        /// Copied, unless it changed meanwhile.
        COPIED = "UPDATE alarm SET copy_pending = 0 WHERE id = $1 AND copy_pending = $2";
    }
}

/// Statements of the store.
pub(crate) mod on_store {
    db::statements! {
        /// What the node does not know yet.
        ACKS = "SELECT alarm_id, change_id, acked_by, acked_at, note, raised_at FROM alarm_ack \
            WHERE node = $1 AND applied_at IS NULL ORDER BY acked_at, alarm_id LIMIT $2";
        /// The node knows it.
        APPLIED = "UPDATE alarm_ack SET applied_at = $4 \
            WHERE node = $1 AND alarm_id = $2 AND change_id = $3 AND applied_at IS NULL";
        /// Synchronisations that the node has not begun.
        RESYNCS = "SELECT target, change_id FROM notification_resync WHERE node = $1 AND applied_at IS NULL \
            ORDER BY requested_at, target LIMIT $2";
        /// The node has begun it.
        RESYNCED = "UPDATE notification_resync SET applied_at = $4 \
            WHERE node = $1 AND target = $2 AND change_id = $3 AND applied_at IS NULL";
        /// The targets of before.
        FORGET_TARGETS = "DELETE FROM notification_target WHERE node = $1";
        /// One of now.
        TARGET = "INSERT INTO notification_target (node, target) VALUES ($1, $2)";
    }
}

#[derive(Debug, sqlx::FromRow)]
struct PendingRow {
    #[sqlx(flatten)]
    alarm: AlarmRow,
    copy_pending: i64,
}

#[derive(Debug, Clone, sqlx::FromRow)]
struct AckRow {
    alarm_id: i64,
    change_id: Uuid,
    acked_by: String,
    acked_at: i64,
    note: String,
    raised_at: Option<i64>,
}

impl NodeAlarms {
    /// Brings the store's copy up to date, at most 500 alarms a step; gives how many. Call it until that is 0.
    ///
    /// # Errors
    /// When either database fails; what was not marked is copied again.
    pub async fn copy_pending(&self, store: &Db) -> Result<usize, DbError> {
        self.copy(store, None).await
    }

    /// Brings the store's copy of one alarm up to date, if it is behind.
    pub(crate) async fn copy_one(&self, store: &Db, id: u32) -> Result<usize, DbError> {
        self.copy(store, Some(id)).await
    }

    /// In a task of its own: a caller who goes away must not let go of `copying` while the rows are on their way.
    async fn copy(&self, store: &Db, only: Option<u32>) -> Result<usize, DbError> {
        let (inner, store) = (Arc::clone(&self.inner), store.clone());
        let copied = tokio::spawn(async move {
            let _copying = inner.copying.lock().await;
            let node_db = &inner.db;
            let rows: Vec<PendingRow> = match only {
                None => on_db!(node_db, c => sqlx::query_as(on_node::PENDING).bind(BATCH_MAX).fetch_all(c).await)?,
                Some(id) => on_db!(node_db, c => sqlx::query_as(on_node::PENDING_ONE)
                    .bind(i64::from(id)).fetch_all(c).await)?,
            };
            inner.copy_rows(&store, rows).await
        });
        copied.await.map_err(|join| DbError::Statement(sqlx::Error::Io(std::io::Error::other(join))))?
    }

    /// Takes acknowledgements from the store: each becomes a transition with its notification, once. At most 500 a
    /// step; gives how many were read. Call it until that is 0.
    ///
    /// # Errors
    /// When either database fails; what was applied and not marked is applied again, without effect.
    pub async fn apply_acks(&self, store: &Db, now: Timestamp) -> Result<usize, DbError> {
        let node = self.inner.node.clone();
        let acks: Vec<AckRow> = on_db!(store, c => sqlx::query_as(on_store::ACKS)
            .bind(&node).bind(BATCH_MAX).fetch_all(c).await)?;
        if acks.is_empty() {
            return Ok(0);
        }
        let acks = Arc::new(acks);
        let (inner, applying) = (Arc::clone(&self.inner), Arc::clone(&acks));
        self.inner
            .db
            .write::<_, Infallible, _>(move |tx| {
                let (inner, acks) = (Arc::clone(&inner), Arc::clone(&applying));
                Box::pin(async move {
                    for ack in acks.iter() {
                        let alarm = load(tx, &inner.node, ack.alarm_id).await?;
                        // A database that was lost counts from 1 again: the same number may be another alarm
                        let meant = |raised_at: Timestamp| ack.raised_at.is_none_or(|meant| meant == raised_at.0);
                        let Some(alarm) = alarm.filter(|alarm| meant(alarm.raised_at)) else {
                            tracing::warn!(
                                alarm.id = ack.alarm_id,
                                change.id = %ack.change_id,
                                "an acknowledgement names an alarm that this node does not have"
                            );
                            continue;
                        };
                        let acknowledged =
                            state::acknowledge(&alarm, &ack.acked_by, Timestamp(ack.acked_at), &ack.note);
                        inner.apply(tx, vec![acknowledged], now).await?;
                    }
                    Ok(())
                })
            })
            .await
            .map_err(db_error)?;
        self.changed();
        let read = acks.len();
        store
            .write::<_, Infallible, _>(move |tx| {
                let (acks, node) = (Arc::clone(&acks), node.clone());
                Box::pin(async move {
                    for ack in acks.iter() {
                        on_tx!(tx, c => sqlx::query(on_store::APPLIED)
                            .bind(&node).bind(ack.alarm_id).bind(ack.change_id).bind(now.0)
                            .execute(c).await.map(|_| ()))?;
                    }
                    Ok(())
                })
            })
            .await
            .map_err(db_error)?;
        Ok(read)
    }

    /// Tells the store which targets this node has, so that a synchronisation can name one. Once after the start.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn publish_targets(&self, store: &Db) -> Result<(), DbError> {
        let inner = Arc::clone(&self.inner);
        let published = store.write::<_, Infallible, _>(move |tx| {
            let inner = Arc::clone(&inner);
            Box::pin(async move {
                let node = inner.node.as_str();
                on_tx!(tx, c => sqlx::query(on_store::FORGET_TARGETS).bind(node).execute(c).await.map(|_| ()))?;
                for target in inner.targets.iter().map(TargetName::name) {
                    on_tx!(tx, c => sqlx::query(on_store::TARGET).bind(node).bind(target).execute(c).await.map(|_| ()))?;
                }
                Ok(())
            })
        });
        published.await.map_err(db_error)
    }

    /// Takes synchronisations that were asked for in the store, and begins each. Gives how many; a crash in between
    /// begins one twice, which a receiver sees as two.
    ///
    /// # Errors
    /// When either database fails.
    pub async fn apply_resyncs(&self, store: &Db, now: Timestamp) -> Result<usize, DbError> {
        let node = self.inner.node.clone();
        let wanted: Vec<(String, Uuid)> = on_db!(store, c => sqlx::query_as(on_store::RESYNCS)
            .bind(&node).bind(BATCH_MAX).fetch_all(c).await)?;
        for (name, change) in &wanted {
            let target = TargetName::snmp(name).ok().filter(|target| self.inner.targets.contains(target));
            match target {
                Some(target) => {
                    let told = self.begin_resync(&target, now).await?;
                    tracing::info!(target.name = name, change.id = %change, alarms = told, "a target is synchronised");
                }
                None => {
                    tracing::warn!(target.name = name, change.id = %change, "this node has no such target any more")
                }
            }
            let (node, name, change) = (node.clone(), name.clone(), *change);
            let noted = store.write::<_, Infallible, _>(move |tx| {
                let (node, name) = (node.clone(), name.clone());
                Box::pin(async move {
                    on_tx!(tx, c => sqlx::query(on_store::RESYNCED)
                        .bind(&node).bind(&name).bind(change).bind(now.0).execute(c).await.map(|_| ()))?;
                    Ok(())
                })
            });
            noted.await.map_err(db_error)?;
        }
        Ok(wanted.len())
    }
}

impl Inner {
    async fn copy_rows(&self, store: &Db, rows: Vec<PendingRow>) -> Result<usize, DbError> {
        if rows.is_empty() {
            return Ok(0);
        }
        let marks: Arc<Vec<(i64, i64)>> = Arc::new(rows.iter().map(|row| (row.alarm.id, row.copy_pending)).collect());
        let copies: Arc<Vec<CopyRow>> =
            Arc::new(rows.into_iter().map(|row| CopyRow { node: self.node.clone(), alarm: row.alarm }).collect());
        store
            .write::<_, Infallible, _>(move |tx| {
                let copies = Arc::clone(&copies);
                Box::pin(async move { Ok(bulk_insert(tx, &copies, COPY_CONFLICT).await?) })
            })
            .await
            .map_err(db_error)?;
        let copied = marks.len();
        self.db
            .write::<_, Infallible, _>(move |tx| {
                let marks = Arc::clone(&marks);
                Box::pin(async move {
                    for (id, pending) in marks.iter() {
                        on_tx!(tx, c => sqlx::query(on_node::COPIED).bind(id).bind(pending).execute(c).await
                            .map(|_| ()))?;
                    }
                    Ok(())
                })
            })
            .await
            .map_err(db_error)?;
        Ok(copied)
    }
}

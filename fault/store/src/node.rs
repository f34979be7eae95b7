//! The authority for the alarms of one node, on its own database.

use std::convert::Infallible;
use std::sync::Arc;

use async_trait::async_trait;
use db::{Db, DbError, Tx, on_db, on_tx, outbox};
use fault::notification::{Content, Notification, NotificationKind, ResyncMark, TestMessage};
use fault::port::{AlarmAuthority, TargetName};
use fault::resource::{Alarm, Condition};
use fault::state::{self, Transition};
use model::id::{IdSource, MessageId};
use model::page::ReadError;
use model::time::Timestamp;
use tokio::sync::{Mutex, watch};

use crate::error::{db_error, read_error};
use crate::row::{AlarmRow, alarm_id, path_text};

/// Notifications that wait for one target. A target that stays away longer is told by the gap in its sequence that it
/// must synchronise; the bound keeps the file small and the catching-up below two minutes.
pub const QUEUE_MAX: i64 = 10_000;

db::statements! {
    /// All active alarms, oldest first.
    ACTIVE = "SELECT id, type, resource, path, severity, text, raised_at, changed_at, last_seen_at, cleared_at, \
        count, acked_by, acked_at, ack_note FROM alarm WHERE cleared_at IS NULL ORDER BY id";
    /// One alarm.
    ONE = "SELECT id, type, resource, path, severity, text, raised_at, changed_at, last_seen_at, cleared_at, \
        count, acked_by, acked_at, ack_note FROM alarm WHERE id = $1";
    /// A new alarm draws its number.
    INSERT = "INSERT INTO alarm (type, resource, path, severity, text, raised_at, changed_at, last_seen_at, count, \
        copy_pending) VALUES ($1, $2, $3, $4, $5, $6, $6, $6, $7, 1) RETURNING id";
    /// Whatever changed. `copy_pending` counts changes, so that one during the copying is not lost.
    UPDATE = "UPDATE alarm SET severity = $2, text = $3, changed_at = $4, last_seen_at = $5, cleared_at = $6, \
        count = $7, acked_by = $8, acked_at = $9, ack_note = $10, copy_pending = copy_pending + 1 \
        WHERE id = $1";
    /// The history.
    EVENT = "INSERT INTO alarm_event (alarm_id, transition, at, severity, text) VALUES ($1, $2, $3, $4, $5)";
    /// How many wait for a target.
    WAITING = "SELECT COUNT(*) FROM outbox WHERE target = $1 AND state = 'pending'";
    /// What waits in an epoch that is over.
    SUPERSEDE = "UPDATE outbox SET state = 'failed', last_error = 'superseded by a new epoch' \
        WHERE target = $1 AND state = 'pending'";
    /// What became of a message.
    OUTCOME = "SELECT state, last_error FROM outbox WHERE message_id = $1";
    /// The history of what is cleared, copied and old.
    PRUNE_EVENTS = "DELETE FROM alarm_event WHERE alarm_id IN \
        (SELECT id FROM alarm WHERE cleared_at < $1 AND copy_pending = 0)";
    /// The alarms themselves; their numbers are not used again.
    PRUNE_ALARMS = "DELETE FROM alarm WHERE cleared_at < $1 AND copy_pending = 0";
}

/// The alarms of this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NodeAlarms {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) db: Db,
    pub(crate) node: String,
    pub(crate) targets: Vec<TargetName>,
    ids: Arc<dyn IdSource>,
    /// Held while alarms are copied to the store: of two copies at once the older row could come last.
    pub(crate) copying: Mutex<()>,
    changes: watch::Sender<u64>,
}

impl NodeAlarms {
    /// Takes over the alarms that the node has: nothing is forgotten by a restart, and each detector's first full set
    /// clears what went away meanwhile.
    #[must_use]
    pub fn new(node_db: Db, node_name: &str, targets: Vec<TargetName>, ids: Arc<dyn IdSource>) -> Self {
        let inner = Inner {
            db: node_db,
            node: node_name.to_owned(),
            targets,
            ids,
            copying: Mutex::new(()),
            changes: watch::Sender::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Tells when there is something to send or to copy.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// The active alarms, oldest first, from the node itself: at hand while the store is away.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn active(&self) -> Result<Vec<Alarm>, DbError> {
        let rows: Vec<AlarmRow> = on_db!(&self.inner.db, c => sqlx::query_as(ACTIVE).fetch_all(c).await)?;
        alarms(rows, &self.inner.node)
    }

    /// Begins a new epoch of one target and tells it every active alarm again: between begin and end a raise each, and
    /// an acknowledgement where there is one, marked as told again. What still waited for it is superseded. Gives how
    /// many alarms.
    ///
    /// # Errors
    /// [`ReadError::Invalid`] when there is no such target; else when the database fails.
    pub async fn resync(&self, target: &TargetName, now: Timestamp) -> Result<usize, ReadError> {
        if !self.inner.targets.contains(target) {
            let known: Vec<&str> = self.inner.targets.iter().map(TargetName::as_str).collect();
            let message = format!("{} is no target; the targets are: {}", target.as_str(), known.join(", "));
            return Err(ReadError::Invalid { field: "target", message });
        }
        self.begin_resync(target, now).await.map_err(read_error)
    }

    /// As [`NodeAlarms::resync`], for a target that is known to be one.
    pub(crate) async fn begin_resync(&self, target: &TargetName, now: Timestamp) -> Result<usize, DbError> {
        let (inner, target) = (Arc::clone(&self.inner), target.clone());
        let told = self.inner.db.write::<_, Infallible, _>(move |tx| {
            let (inner, target) = (Arc::clone(&inner), target.clone());
            Box::pin(async move {
                on_tx!(tx, c => sqlx::query(SUPERSEDE).bind(target.as_str()).execute(c).await.map(|_| ()))?;
                outbox::begin_epoch(tx, target.as_str()).await?;
                let active = load_active(tx, &inner.node).await?;
                let mark = ResyncMark { active: u32::try_from(active.len()).unwrap_or(u32::MAX) };
                let mut contents = vec![Content::ResyncBegin(mark)];
                for alarm in &active {
                    contents.push(again(NotificationKind::Raise, alarm));
                    if alarm.acknowledgement.is_some() {
                        contents.push(again(NotificationKind::Ack, alarm));
                    }
                }
                contents.push(Content::ResyncEnd(mark));
                inner.enqueue(tx, std::slice::from_ref(&target), &contents, now).await?;
                Ok(active.len())
            })
        });
        let told = told.await.map_err(db_error)?;
        self.changed();
        Ok(told)
    }

    /// Puts a test into the queue of a target, behind what waits there; gives its place.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn enqueue_test(&self, target: &TargetName, text: &str, now: Timestamp) -> Result<MessageId, DbError> {
        let message = MessageId::new(&*self.inner.ids);
        let content = Content::Test(TestMessage { text: text.to_owned() });
        let payload = content.payload().map_err(|e| DbError::corrupt("outbox.payload", e))?;
        let (target, kind, payload) = (target.clone(), content.kind(), Arc::new(payload));
        let enqueued = self.inner.db.write::<_, Infallible, _>(move |tx| {
            let (target, payload) = (target.clone(), Arc::clone(&payload));
            Box::pin(async move {
                outbox::enqueue(tx, target.as_str(), kind, &payload, message, now).await?;
                Ok(())
            })
        });
        enqueued.await.map_err(db_error)?;
        self.changed();
        Ok(message)
    }

    /// What became of a message: sent, given up (with the error), or it still waits (none).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn message_outcome(&self, message: MessageId) -> Result<Option<Result<(), String>>, DbError> {
        let row: Option<(String, Option<String>)> = on_db!(&self.inner.db, c => sqlx::query_as(OUTCOME)
            .bind(message.uuid()).fetch_optional(c).await)?;
        Ok(match row {
            Some((state, _)) if state == "sent" => Some(Ok(())),
            Some((state, error)) if state == "failed" => Some(Err(error.unwrap_or_default())),
            _ => None,
        })
    }

    /// Deletes what is over: messages sent or given up before `before`, and alarms cleared before it that the store
    /// has. Gives how many rows.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prune(&self, before: Timestamp) -> Result<u64, DbError> {
        let pruned = self.inner.db.write::<_, Infallible, _>(move |tx| {
            Box::pin(async move {
                let mut rows = outbox::prune(tx, before).await?;
                for sql in [PRUNE_EVENTS, PRUNE_ALARMS] {
                    rows += on_tx!(tx, c => sqlx::query(sql).bind(before.0).execute(c).await
                        .map(|done| done.rows_affected()))?;
                }
                Ok(rows)
            })
        });
        pruned.await.map_err(db_error)
    }

    /// Wakes who waits at [`NodeAlarms::subscribe`].
    pub(crate) fn changed(&self) {
        self.inner.changes.send_modify(|n| *n = n.wrapping_add(1));
    }
}

#[async_trait]
impl AlarmAuthority for NodeAlarms {
    async fn observe(
        &self,
        detector: &'static str,
        conditions: Vec<Condition>,
        now: Timestamp,
    ) -> Result<(), ReadError> {
        if let Some(foreign) = conditions.iter().find(|condition| condition.alarm_type.detector() != detector) {
            let (key, owner) = (foreign.alarm_type.key(), foreign.alarm_type.detector());
            let message = format!("{key} is reported by the detector {owner} alone, not by {detector}");
            return Err(ReadError::Invalid { field: "conditions", message });
        }
        // The quiet hours of a healthy node write nothing.
        if conditions.is_empty() {
            let active = self.active().await.map_err(read_error)?;
            if !active.iter().any(|alarm| alarm.alarm_type.detector() == detector) {
                return Ok(());
            }
        }
        let (inner, conditions) = (Arc::clone(&self.inner), Arc::new(conditions));
        let observed = self.inner.db.write::<_, Infallible, _>(move |tx| {
            let (inner, conditions) = (Arc::clone(&inner), Arc::clone(&conditions));
            Box::pin(async move { Ok(inner.observe(tx, detector, &conditions, now).await?) })
        });
        let kinds = observed.await.map_err(db_error).map_err(read_error)?;
        for kind in kinds {
            metrics::counter!("tandem_alarm_transitions_total", "transition" => kind.as_str()).increment(1);
        }
        self.changed();
        Ok(())
    }
}

impl Inner {
    async fn observe(
        &self,
        tx: &mut Tx,
        detector: &str,
        conditions: &[Condition],
        now: Timestamp,
    ) -> Result<Vec<NotificationKind>, DbError> {
        let mut active = load_active(tx, &self.node).await?;
        active.retain(|alarm| alarm.alarm_type.detector() == detector);
        let (transitions, left_out) = state::decide_all(&active, conditions, now);
        if left_out > 0 {
            tracing::warn!(detector, left_out, "too many alarms are active at once; further ones are not raised");
        }
        self.apply(tx, transitions, now).await
    }

    /// Rows, history and outbox of the transitions. Gives what was notified.
    pub(crate) async fn apply(
        &self,
        tx: &mut Tx,
        transitions: Vec<Transition>,
        now: Timestamp,
    ) -> Result<Vec<NotificationKind>, DbError> {
        let mut notifications = Vec::new();
        for transition in transitions {
            let kind = transition.kind();
            let alarm = match transition {
                Transition::Nothing => continue,
                Transition::Raise(new) => {
                    let id: i64 = on_tx!(tx, c => sqlx::query_scalar(INSERT)
                        .bind(new.alarm_type.key()).bind(&new.resource)
                        .bind(new.path.as_ref().map_or("", |path| path.as_str()))
                        .bind(new.severity.as_str()).bind(&new.text).bind(new.at.0).bind(1_i64)
                        .fetch_one(c).await)?;
                    new.numbered(&self.node, alarm_id(id)?)
                }
                Transition::Repeat(alarm)
                | Transition::Change(alarm)
                | Transition::Clear(alarm)
                | Transition::Acknowledge(alarm) => {
                    self.update(tx, &alarm).await?;
                    alarm
                }
            };
            let Some(kind) = kind else { continue };
            let notification = Notification::of(kind, &alarm);
            on_tx!(tx, c => sqlx::query(EVENT)
                .bind(i64::from(alarm.id)).bind(kind.as_str()).bind(now.0).bind(notification.severity.as_str())
                .bind(&notification.text).execute(c).await.map(|_| ()))?;
            tracing::info!(
                alarm.id = alarm.id,
                alarm.r#type = alarm.alarm_type.key(),
                alarm.resource = alarm.resource,
                alarm.path = path_text(&alarm),
                alarm.severity = notification.severity.as_str(),
                "alarm {}: {}",
                kind.as_str(),
                notification.text
            );
            notifications.push(notification);
        }
        let kinds = notifications.iter().map(|notification| notification.kind).collect();
        let contents: Vec<Content> = notifications.into_iter().map(Content::Alarm).collect();
        self.enqueue(tx, &self.targets, &contents, now).await?;
        Ok(kinds)
    }

    async fn update(&self, tx: &mut Tx, alarm: &Alarm) -> Result<(), DbError> {
        let (by, at, note) = match &alarm.acknowledgement {
            Some((by, at, note)) => (Some(by.as_str()), Some(at.0), Some(note.as_str())),
            None => (None, None, None),
        };
        let rows = on_tx!(tx, c => sqlx::query(UPDATE)
            .bind(i64::from(alarm.id)).bind(alarm.severity.as_str()).bind(&alarm.text).bind(alarm.changed_at.0)
            .bind(alarm.last_seen_at.0).bind(alarm.cleared_at.map(|at| at.0)).bind(alarm.count).bind(by).bind(at)
            .bind(note)
            .execute(c).await.map(|done| done.rows_affected()))?;
        if rows == 1 { Ok(()) } else { Err(DbError::corrupt("alarm.id", format!("{} is gone", alarm.id))) }
    }

    /// One row per notification and target, each with its place in the target's sequence. In a full queue it is given
    /// up at once: the gap says so.
    async fn enqueue(
        &self,
        tx: &mut Tx,
        targets: &[TargetName],
        contents: &[Content],
        now: Timestamp,
    ) -> Result<(), DbError> {
        if contents.is_empty() {
            return Ok(());
        }
        let messages: Vec<(&str, String)> = contents
            .iter()
            .map(|content| match content.payload() {
                Ok(payload) => Ok((content.kind(), payload)),
                Err(error) => Err(DbError::corrupt("outbox.payload", error)),
            })
            .collect::<Result<_, _>>()?;
        for target in targets.iter().map(TargetName::as_str) {
            let mut waiting: i64 = on_tx!(tx, c => sqlx::query_scalar(WAITING).bind(target).fetch_one(c).await)?;
            for (kind, payload) in &messages {
                let message = MessageId::new(&*self.ids);
                outbox::enqueue(tx, target, kind, payload, message, now).await?;
                if waiting >= QUEUE_MAX {
                    outbox::mark_failed(tx, message, "the queue of the target is full", outbox::Next::GiveUp).await?;
                    metrics::counter!("tandem_notifications_dropped_total").increment(1);
                } else {
                    waiting += 1;
                }
            }
        }
        Ok(())
    }
}

/// An active alarm told again.
fn again(kind: NotificationKind, alarm: &Alarm) -> Content {
    Content::Alarm(Notification { resync: true, ..Notification::of(kind, alarm) })
}

/// One alarm, where this version knows its type.
pub(crate) async fn load(tx: &mut Tx, node: &str, id: i64) -> Result<Option<Alarm>, DbError> {
    let row: Option<AlarmRow> = on_tx!(tx, c => sqlx::query_as(ONE).bind(id).fetch_optional(c).await)?;
    row.map_or(Ok(None), |row| row.alarm(node))
}

async fn load_active(tx: &mut Tx, node: &str) -> Result<Vec<Alarm>, DbError> {
    let rows: Vec<AlarmRow> = on_tx!(tx, c => sqlx::query_as(ACTIVE).fetch_all(c).await)?;
    alarms(rows, node)
}

fn alarms(rows: Vec<AlarmRow>, node: &str) -> Result<Vec<Alarm>, DbError> {
    rows.into_iter().filter_map(|row| row.alarm(node).transpose()).collect()
}

//! The sender of notifications: drains the node's outbox into the sinks, in order per target, paced; tells each target
//! by heartbeats how far its sequence has come; says which targets do not answer.
//!
//! Each target is a lane of its own: one that waits for an acknowledgement holds nobody else up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use db::outbox::{self, Message, Next};
use db::{Db, DbError, on_db};
use fault::catalogue::{AlarmType, detector};
use fault::notification::Content;
use fault::pacing::TokenBucket;
use fault::port::{
    AlarmAuthority as _, Heartbeat, NodeSnapshot, NodeView, NotificationSink, Outgoing, SinkError, Target, TargetName,
    TargetStatus,
};
use fault::resource::Condition;
use model::page::ReadError;
use model::time::{Now, Timestamp};
use tokio::sync::Mutex;

use crate::error::read_error;
use crate::node::NodeAlarms;

/// Longest wait between attempts: an alarm that comes an hour late helps nobody.
const RETRY_MAX_MS: i64 = 60_000;
/// Attempts of one notification after which its target counts as unreachable: with the waits of the outbox (1, 2, 4 and
/// 8 s) a restart of the receiver is none.
pub const UNREACHABLE_ATTEMPTS: i64 = 5;
/// Heartbeats in a row after which a target counts as unreachable. One may be lost on the way.
pub const UNREACHABLE_HEARTBEATS: u32 = 3;

db::statements! {
    /// The oldest that waits.
    HEAD = "SELECT attempts, last_error FROM outbox WHERE target = $1 AND state = 'pending' \
        ORDER BY epoch, sequence LIMIT 1";
    /// How many wait.
    WAITING = "SELECT COUNT(*) FROM outbox WHERE target = $1 AND state = 'pending'";
    /// Epoch, and the place before the oldest that waits.
    POSITION = "SELECT t.epoch, COALESCE((SELECT MIN(o.sequence) FROM outbox o WHERE o.target = t.target \
        AND o.epoch = t.epoch AND o.state = 'pending'), t.next_sequence) - 1 FROM outbox_target t WHERE t.target = $1";
    /// What was given up in the epoch that goes on.
    LOST = "SELECT COUNT(*) FROM outbox o JOIN outbox_target t ON t.target = o.target AND t.epoch = o.epoch \
        WHERE o.target = $1 AND o.state = 'failed'";
}

/// What holds for all targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderOptions {
    /// Between heartbeats; none: no heartbeats.
    pub heartbeat: Option<Duration>,
    /// Age in milliseconds at which a notification that does not arrive is given up. The gap shows in the sequence, and
    /// the target is synchronised when it answers again.
    pub give_up_after_ms: i64,
}

impl Default for SenderOptions {
    fn default() -> Self {
        // A day: whoever was away for longer wants to know what holds, not what was.
        Self { heartbeat: None, give_up_after_ms: 86_400_000 }
    }
}

/// What a drain did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    /// Notifications that left.
    pub sent: usize,
    /// Attempts that failed, and messages that were given up.
    pub failed: usize,
    /// When pacing held something back: how long to wait before the next drain.
    pub wait: Option<Duration>,
}

/// Sends what waits for its targets. One per node database.
pub struct Sender {
    alarms: NodeAlarms,
    lanes: Vec<Arc<Lane>>,
}

impl Sender {
    /// A sender for these targets, each with a full bucket of [`fault::pacing`]. What waits for a target that is not
    /// among them stays.
    #[must_use]
    pub fn new(alarms: &NodeAlarms, targets: Vec<Target>, options: SenderOptions) -> Self {
        let lane = |(target, sink)| {
            Arc::new(Lane {
                alarms: alarms.clone(),
                target,
                sink,
                options,
                pace: Mutex::new(Pace { bucket: TokenBucket::default(), heartbeat_at: None }),
                sent: AtomicU64::new(0),
                failed: AtomicU64::new(0),
                missed_heartbeats: AtomicU32::new(0),
                lost: AtomicBool::new(false),
            })
        };
        Self { alarms: alarms.clone(), lanes: targets.into_iter().map(lane).collect() }
    }

    /// The lanes, each to be drained by a worker of its own.
    #[must_use]
    pub fn lanes(&self) -> &[Arc<Lane>] {
        &self.lanes
    }

    /// Drains every lane, one after the other.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn drain(&self, now: Now) -> Result<Drained, DbError> {
        let mut all = Drained::default();
        for lane in &self.lanes {
            let one = lane.drain(now).await?;
            all.sent += one.sent;
            all.failed += one.failed;
            all.wait = [all.wait, one.wait].into_iter().flatten().min();
        }
        Ok(all)
    }

    /// How many notifications wait.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pending(&self) -> Result<i64, DbError> {
        outbox::pending_count(&self.alarms.inner.db, TargetName::SNMP_PREFIX).await
    }

    /// Reports the targets that do not answer, as the detector of their alarms: the full set.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn observe_targets(&self, now: Timestamp) -> Result<(), ReadError> {
        let mut conditions = Vec::new();
        for lane in &self.lanes {
            conditions.extend(lane.condition().await.map_err(read_error)?);
        }
        self.alarms.observe(detector::TARGETS, conditions, now).await
    }
}

#[async_trait]
impl NodeView for Sender {
    async fn snapshot(&self) -> Result<NodeSnapshot, ReadError> {
        let alarms = self.alarms.active().await.map_err(read_error)?;
        let mut targets = Vec::with_capacity(self.lanes.len());
        for lane in &self.lanes {
            targets.push(lane.status().await.map_err(read_error)?);
        }
        Ok(NodeSnapshot { node: self.alarms.inner.node.clone(), alarms, targets })
    }
}

/// How fast, and when the last heartbeat left.
struct Pace {
    bucket: TokenBucket,
    heartbeat_at: Option<Timestamp>,
}

/// One target: its queue, its sink, its pace.
pub struct Lane {
    alarms: NodeAlarms,
    target: TargetName,
    sink: Arc<dyn NotificationSink>,
    options: SenderOptions,
    /// Held while the lane is drained: concurrent drains run one after the other.
    pace: Mutex<Pace>,
    sent: AtomicU64,
    failed: AtomicU64,
    missed_heartbeats: AtomicU32,
    /// Whether the outage that goes on has cost a notification.
    lost: AtomicBool,
}

/// What became of one attempt.
enum Attempt {
    Sent,
    /// Sent, after failures.
    Recovered,
    Failed,
}

impl Lane {
    /// The target.
    #[must_use]
    pub const fn target(&self) -> &TargetName {
        &self.target
    }

    /// Sends what is due at `now` and what the pacing allows, then a heartbeat when it is time and nothing waits. A
    /// message is marked sent after it left: a crash in between sends it again, with the same epoch and sequence. A
    /// target that answers again and has lost something is synchronised.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn drain(&self, now: Now) -> Result<Drained, DbError> {
        let mut pace = self.pace.lock().await;
        let mut drained = Drained::default();
        let db = self.db();
        loop {
            let due = outbox::due(db, self.target.as_str(), now.utc, outbox::DUE_MAX).await?;
            // The look is by prefix: other targets may begin with the same name
            let Some(message) = due.into_iter().find(|message| message.target == self.target.as_str()) else { break };
            if let Err(wait) = pace.bucket.take(now.mono) {
                drained.wait = Some(wait);
                return Ok(drained);
            }
            match self.attempt(&message, now).await? {
                Attempt::Sent => drained.sent += 1,
                Attempt::Recovered => {
                    drained.sent += 1;
                    self.mend(now.utc).await?;
                }
                Attempt::Failed => drained.failed += 1,
            }
        }
        self.beat(&mut pace, now.utc).await?;
        Ok(drained)
    }

    async fn attempt(&self, message: &Message, now: Now) -> Result<Attempt, DbError> {
        let db = self.db();
        let error = match self.send(message).await {
            Ok(()) => {
                outbox::sent(db, message.id, now.utc).await?;
                self.sent.fetch_add(1, Ordering::Relaxed);
                let missed = self.missed_heartbeats.swap(0, Ordering::Relaxed);
                metrics::counter!("tandem_notifications_sent_total", "target" => message.target.clone()).increment(1);
                let lost = self.lost.swap(false, Ordering::Relaxed);
                let recovered = message.attempts > 0 || missed > 0 || lost;
                return Ok(if recovered { Attempt::Recovered } else { Attempt::Sent });
            }
            Err(error) => error,
        };
        let age_ms = now.utc.ms_since(message.created_at);
        let next = match error {
            SinkError::Unreachable(_) if age_ms < self.options.give_up_after_ms => {
                let delay = outbox::retry_delay_ms(message.attempts.saturating_add(1));
                Next::Retry(now.utc.plus_ms(delay.min(RETRY_MAX_MS)))
            }
            SinkError::Unreachable(_) => {
                self.lost.store(true, Ordering::Relaxed);
                Next::GiveUp
            }
            SinkError::Unsendable(_) => Next::GiveUp,
        };
        if message.attempts == 0 || next == Next::GiveUp {
            tracing::warn!(
                target.name = message.target,
                target.sequence = message.position.sequence,
                given_up = next == Next::GiveUp,
                %error,
                "a notification did not arrive"
            );
        }
        outbox::failed(db, message.id, &error.to_string(), next).await?;
        self.failed.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("tandem_notifications_failed_total", "target" => message.target.clone()).increment(1);
        Ok(Attempt::Failed)
    }

    /// After an outage: where notifications were given up, the target is told what holds.
    async fn mend(&self, now: Timestamp) -> Result<(), DbError> {
        let lost: i64 = on_db!(self.db(), c => sqlx::query_scalar(LOST).bind(self.target.as_str()).fetch_one(c).await)?;
        if lost > 0 {
            tracing::warn!(target.name = self.target.name(), lost, "the target answers again and is synchronised");
            self.alarms.begin_resync(&self.target, now).await?;
        }
        Ok(())
    }

    /// A heartbeat, when it is time. While something waits there is none: what waits says more.
    async fn beat(&self, pace: &mut Pace, now: Timestamp) -> Result<(), DbError> {
        let Some(period) = self.options.heartbeat else { return Ok(()) };
        let period_ms = i64::try_from(period.as_millis()).unwrap_or(i64::MAX);
        // A clock that was set back does not silence it
        let due = pace.heartbeat_at.is_none_or(|at| !(0..period_ms).contains(&now.ms_since(at)));
        if !due || self.waiting().await? > 0 {
            return Ok(());
        }
        pace.heartbeat_at = Some(now);
        let (epoch, last_sequence) = self.position().await?;
        let active = u32::try_from(self.alarms.active().await?.len()).unwrap_or(u32::MAX);
        let heartbeat = Heartbeat {
            node: self.alarms.inner.node.clone(),
            epoch,
            last_sequence,
            active,
            period_s: u32::try_from(period.as_secs()).unwrap_or(u32::MAX),
        };
        match self.sink.heartbeat(&heartbeat).await {
            Ok(()) => {
                if self.missed_heartbeats.swap(0, Ordering::Relaxed) > 0 {
                    self.mend(now).await?;
                }
            }
            Err(error) => {
                let missed = self.missed_heartbeats.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                if missed == 1 {
                    tracing::warn!(target.name = self.target.name(), %error, "a heartbeat did not arrive");
                }
            }
        }
        Ok(())
    }

    async fn condition(&self) -> Result<Option<Condition>, DbError> {
        let head: Option<(i64, Option<String>)> =
            on_db!(self.db(), c => sqlx::query_as(HEAD).bind(self.target.as_str()).fetch_optional(c).await)?;
        let missed = self.missed_heartbeats.load(Ordering::Relaxed);
        let text = match head {
            Some((attempts, error)) if attempts >= UNREACHABLE_ATTEMPTS => {
                let (name, error) = (self.target.name(), error.unwrap_or_default());
                format!("target {name} took nothing in {attempts} attempts: {error}")
            }
            _ if missed >= UNREACHABLE_HEARTBEATS => {
                format!("target {} acknowledged none of {missed} heartbeats", self.target.name())
            }
            _ => return Ok(None),
        };
        Ok(Some(Condition {
            alarm_type: AlarmType::NotificationTargetUnreachable,
            resource: format!("target:{}/{}", self.alarms.inner.node, self.target.name()),
            path: None,
            severity: None,
            text,
        }))
    }

    async fn status(&self) -> Result<TargetStatus, DbError> {
        let (epoch, last_sequence) = self.position().await?;
        Ok(TargetStatus {
            name: self.target.clone(),
            epoch,
            last_sequence,
            waiting: self.waiting().await?,
            sent: self.sent.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            reachable: self.condition().await?.is_none(),
        })
    }

    /// Epoch and last place; a target that never had one is at the begin of its first epoch.
    async fn position(&self) -> Result<(i64, i64), DbError> {
        let position: Option<(i64, i64)> =
            on_db!(self.db(), c => sqlx::query_as(POSITION).bind(self.target.as_str()).fetch_optional(c).await)?;
        Ok(position.unwrap_or((1, 0)))
    }

    async fn waiting(&self) -> Result<i64, DbError> {
        Ok(on_db!(self.db(), c => sqlx::query_scalar(WAITING).bind(self.target.as_str()).fetch_one(c).await)?)
    }

    async fn send(&self, message: &Message) -> Result<(), SinkError> {
        let content =
            Content::parse(&message.kind, &message.payload).map_err(|e| SinkError::Unsendable(e.to_string()))?;
        let outgoing = Outgoing {
            node: self.alarms.inner.node.clone(),
            epoch: message.position.epoch,
            sequence: message.position.sequence,
            content,
        };
        self.sink.deliver(&outgoing).await
    }

    fn db(&self) -> &Db {
        &self.alarms.inner.db
    }
}

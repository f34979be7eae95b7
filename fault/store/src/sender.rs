//! The sender of notifications: drains the node's outbox into the sinks, in order per target, paced.

use std::time::Duration;

use db::outbox::{self, Message, Next};
use db::{Db, DbError};
use fault::notification::{Notification, OUTBOX_KIND};
use fault::pacing::TokenBucket;
use fault::port::{NotificationSink, Outgoing, SinkError, Target, TargetName};
use model::time::Now;
use tokio::sync::Mutex;

/// Longest wait between attempts: an alarm that comes an hour late helps nobody.
const RETRY_MAX_MS: i64 = 60_000;

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

/// Sends what waits for its targets. One per node database; concurrent drains run one after the other.
pub struct Sender {
    db: Db,
    node: String,
    targets: Vec<Target>,
    buckets: Mutex<Vec<TokenBucket>>,
}

impl Sender {
    /// A sender for these targets, each with a full bucket of [`fault::pacing`]. What waits for a target that is not
    /// among them stays.
    #[must_use]
    pub fn new(node_db: Db, node_name: &str, targets: Vec<Target>) -> Self {
        let buckets = Mutex::new(vec![TokenBucket::default(); targets.len()]);
        Self { db: node_db, node: node_name.to_owned(), targets, buckets }
    }

    /// Sends what is due at `now` and what the pacing allows. A message is marked sent after it left: a crash in
    /// between sends it again, with the same epoch and sequence.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn drain(&self, now: Now) -> Result<Drained, DbError> {
        let mut buckets = self.buckets.lock().await;
        let mut held = vec![false; self.targets.len()];
        let mut drained = Drained::default();
        loop {
            let mut progressed = false;
            for message in outbox::due(&self.db, TargetName::SNMP_PREFIX, now.utc, outbox::DUE_MAX).await? {
                let lane = self.targets.iter().position(|(target, _)| target.as_str() == message.target);
                let Some(lane) = lane.filter(|lane| held.get(*lane) == Some(&false)) else { continue };
                let (Some((_, sink)), Some(bucket)) = (self.targets.get(lane), buckets.get_mut(lane)) else { continue };
                if let Err(wait) = bucket.take(now.mono) {
                    if let Some(held) = held.get_mut(lane) {
                        *held = true;
                    }
                    drained.wait = Some(drained.wait.map_or(wait, |known| known.min(wait)));
                    continue;
                }
                progressed = true;
                match self.send(&message, &**sink).await {
                    Ok(()) => {
                        outbox::sent(&self.db, message.id, now.utc).await?;
                        metrics::counter!("tandem_notifications_sent_total", "target" => message.target).increment(1);
                        drained.sent += 1;
                    }
                    Err(error) => {
                        let next = match error {
                            SinkError::Unreachable(_) => {
                                let delay = outbox::retry_delay_ms(message.attempts.saturating_add(1));
                                Next::Retry(now.utc.plus_ms(delay.min(RETRY_MAX_MS)))
                            }
                            SinkError::Unsendable(_) => Next::GiveUp,
                        };
                        if message.attempts == 0 || next == Next::GiveUp {
                            tracing::warn!(
                                target.name = message.target,
                                target.sequence = message.position.sequence,
                                %error,
                                "a notification did not leave"
                            );
                        }
                        outbox::failed(&self.db, message.id, &error.to_string(), next).await?;
                        metrics::counter!("tandem_notifications_failed_total", "target" => message.target).increment(1);
                        drained.failed += 1;
                    }
                }
            }
            if !progressed {
                return Ok(drained);
            }
        }
    }

    /// How many notifications wait.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pending(&self) -> Result<i64, DbError> {
        outbox::pending_count(&self.db, TargetName::SNMP_PREFIX).await
    }

    async fn send(&self, message: &Message, sink: &dyn NotificationSink) -> Result<(), SinkError> {
        if message.kind != OUTBOX_KIND {
            return Err(SinkError::Unsendable(format!("this version knows no messages of kind {}", message.kind)));
        }
        let notification: Notification =
            serde_json::from_str(&message.payload).map_err(|e| SinkError::Unsendable(e.to_string()))?;
        let outgoing = Outgoing {
            node: self.node.clone(),
            epoch: message.position.epoch,
            sequence: message.position.sequence,
            notification,
        };
        sink.deliver(&outgoing).await
    }
}

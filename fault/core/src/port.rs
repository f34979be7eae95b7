//! What detectors, faces and wiring ask of fault management. Implemented by the store beside it.

use std::sync::Arc;

use async_trait::async_trait;
use model::ctx::Ctx;
use model::page::{Page, PageRequest, ReadError};
use model::time::Timestamp;

use crate::notification::Content;
use crate::resource::{Alarm, Condition};

/// Where detectors report: the full set of conditions that one detector sees now. Alarms of this detector (same
/// `detector`) whose condition is not in the set are cleared; so nothing stays up for ever after a restart.
#[async_trait]
pub trait AlarmAuthority: Send + Sync {
    /// Takes in the full set. Transition, alarm row and one outbox row per target commit together in `node.db`.
    /// `detector` is one of [`crate::catalogue::detector`]; its conditions are of its own types.
    ///
    /// # Errors
    /// When `node.db` cannot be written; the next observation repeats it. [`ReadError::Invalid`] when a condition is
    /// of a type that another detector reports; nothing is taken in then.
    async fn observe(
        &self,
        detector: &'static str,
        conditions: Vec<Condition>,
        now: Timestamp,
    ) -> Result<(), ReadError>;
}

/// Reads of alarms, from the store's copy. Requires `alarm:read`; alarms of the platform are seen by the provider
/// alone (a scope that contains the path '').
#[async_trait]
pub trait Queries: Send + Sync {
    /// One alarm.
    async fn alarm_get(&self, ctx: &Ctx, node: &str, id: u32) -> Result<Option<Alarm>, ReadError>;
    /// Alarms, newest first; `active` alone or all.
    async fn alarm_list(&self, ctx: &Ctx, active: bool, page: PageRequest) -> Result<Page<Alarm>, ReadError>;
}

/// A notification on its way to one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The node that detected.
    pub node: String,
    /// Begins anew when the target is synchronised again; a receiver then forgets what it knew.
    pub epoch: i64,
    /// Without gaps within the epoch of a target: a receiver sees a loss.
    pub sequence: i64,
    /// What is said.
    pub content: Content,
}

/// Tells a target that it has heard everything, or that it has not: outside the sequence, and never repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The node that sends.
    pub node: String,
    /// The epoch of the target's sequence.
    pub epoch: i64,
    /// The last place of the sequence that left, or was given up; 0 when there was none in this epoch.
    pub last_sequence: i64,
    /// Active alarms of the node.
    pub active: u32,
    /// Seconds until the next one: a target that hears none for longer has lost the node or the path.
    pub period_s: u32,
}

/// How one target fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetStatus {
    /// Its name.
    pub name: TargetName,
    /// The epoch of its sequence; each synchronisation begins a new one.
    pub epoch: i64,
    /// The last place that left, or was given up.
    pub last_sequence: i64,
    /// Notifications that wait.
    pub waiting: i64,
    /// Notifications that left since the start of the program.
    pub sent: u64,
    /// Attempts that failed since the start of the program.
    pub failed: u64,
    /// Whether it answers, as far as the protocol can tell: a trap says nothing of its arrival.
    pub reachable: bool,
}

/// What a node says of its alarms and targets at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSnapshot {
    /// The name of the node.
    pub node: String,
    /// Its active alarms, by their numbers.
    pub alarms: Vec<Alarm>,
    /// Its targets.
    pub targets: Vec<TargetStatus>,
}

/// Where an agent looks: the node's own view, at hand while the store is away.
#[async_trait]
pub trait NodeView: Send + Sync {
    /// Alarms and targets as they are now.
    ///
    /// # Errors
    /// When `node.db` cannot be read.
    async fn snapshot(&self) -> Result<NodeSnapshot, ReadError>;
}

/// Why a notification did not leave.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The target cannot be reached from here now; it is tried again, and later ones wait.
    #[error("the target cannot be reached: {0}")]
    Unreachable(String),
    /// This notification can never be sent; it is given up, and the gap shows in the sequence.
    #[error("the notification cannot be sent: {0}")]
    Unsendable(String),
}

/// Where notifications of one target leave, by whatever protocol. It gets them in order, and one again (same epoch
/// and sequence) after a crash between sending and noting it.
#[async_trait]
pub trait NotificationSink: Send + Sync {
    /// Sends one. Success says what the protocol can say: of a trap, that it left.
    ///
    /// # Errors
    /// [`SinkError`].
    async fn deliver(&self, outgoing: &Outgoing) -> Result<(), SinkError>;

    /// Sends a heartbeat, once.
    ///
    /// # Errors
    /// [`SinkError`].
    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<(), SinkError>;
}

/// A target and where its notifications leave.
pub type Target = (TargetName, Arc<dyn NotificationSink>);

/// Characters of a target's name: it stands in outbox keys and log lines.
pub const TARGET_NAME_MAX: usize = 64;

/// A target of notifications as it stands in the outbox: `snmp:<name>`. Its sequence hangs on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetName(String);

/// The text names no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the name of a target is 1 to {TARGET_NAME_MAX} letters, digits, dots, dashes and underscores")]
pub struct InvalidTargetName;

impl TargetName {
    /// What the names of all SNMP targets begin with.
    pub const SNMP_PREFIX: &'static str = "snmp:";

    /// The SNMP target of this name.
    ///
    /// # Errors
    /// When the name is empty, too long or has other characters.
    pub fn snmp(name: &str) -> Result<Self, InvalidTargetName> {
        let valid = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if name.is_empty() || name.len() > TARGET_NAME_MAX || !valid {
            return Err(InvalidTargetName);
        }
        Ok(Self(format!("{}{name}", Self::SNMP_PREFIX)))
    }

    /// The key in the outbox.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as it stands in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.strip_prefix(Self::SNMP_PREFIX).unwrap_or(&self.0)
    }
}

//! What is wrong with store and disks. A worker of its own: it waits for neither.

use std::sync::Arc;

use db::journal::{Health, Journal};
use fault::catalogue::{AlarmType, detector};
use fault::port::AlarmAuthority;
use fault::resource::{Condition, Severity};
use model::time::Clock;

use super::disks::{DiskTrouble, Disks};
use super::worker::{Step, StepError};
use super::write_health::{Failing, WriteHealth};

/// How long the store may be away before it is an alarm: a restart of the server is none.
const AWAY_MIN_MS: u128 = 5_000;

/// What the detector looks at.
pub struct StorageDetector {
    /// Where conditions are reported.
    pub authority: Arc<dyn AlarmAuthority>,
    /// Whether the store takes writes.
    pub store: WriteHealth,
    /// Whether the store is a file of this node.
    pub store_is_local: bool,
    /// Whether the node's database takes writes.
    pub node_db: WriteHealth,
    /// The journal.
    pub journal: Journal,
    /// The disks.
    pub disks: Disks,
    /// Name of this node.
    pub node_name: Arc<str>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl StorageDetector {
    /// Looks once.
    ///
    /// # Errors
    /// When the node database cannot be written.
    pub async fn look(&self) -> Result<Step, StepError> {
        let now = self.clock.now().utc;
        self.authority.observe(detector::STORE, self.store(), now).await?;
        self.authority.observe(detector::DISKS, self.disks(), now).await?;
        Ok(Step::Idle)
    }

    fn store(&self) -> Vec<Condition> {
        let now = self.clock.now();
        let away = self.store.failing().filter(|failing| failing.ms(now) >= AWAY_MIN_MS);
        let condition = |failing: Failing| Condition {
            alarm_type: AlarmType::StoreUnavailable,
            resource: format!("store:{}", self.node_name),
            path: None,
            severity: None,
            text: format!("no write to the store has succeeded since {}: {}", failing.since(), failing.error),
        };
        away.into_iter().map(condition).collect()
    }

    fn disks(&self) -> Vec<Condition> {
        let mut troubles = self.disks.troubles();
        if let Health::Failing { since, error } = self.journal.health() {
            add(&mut troubles, "journal", format!("the journal cannot be written since {since}: {error}"));
        } else if let Some(since) = self.journal.ballast_gone_at() {
            add(&mut troubles, "journal", format!("the journal goes on without its ballast file since {since}"));
        }
        if let Some(failing) = self.node_db.failing() {
            add(
                &mut troubles,
                "node",
                format!("node.db cannot be written since {}: {}", failing.since(), failing.error),
            );
        }
        if let Some(failing) = self.store.failing().filter(|failing| self.store_is_local && failing.is_full) {
            add(&mut troubles, "store", format!("store.db cannot be written since {}", failing.since()));
        }
        let condition = |trouble: DiskTrouble| Condition {
            alarm_type: AlarmType::Disk,
            resource: format!("disk:{}/{}", self.node_name, trouble.area),
            path: None,
            severity: Some(trouble.severity),
            text: trouble.text,
        };
        troubles.into_iter().map(condition).collect()
    }
}

/// A write that fails says more than the space that is free.
fn add(troubles: &mut Vec<DiskTrouble>, area: &'static str, text: String) {
    troubles.retain(|trouble| trouble.area != area);
    troubles.push(DiskTrouble { area, severity: Severity::Critical, text });
}

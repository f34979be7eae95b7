//! What is wrong with store and disks. A worker of its own: it waits for neither.

use std::sync::Arc;

use db::journal::{Health, Journal};
use fault::catalogue::{AlarmType, detector};
use fault::port::AlarmAuthority as _;
use fault::resource::{Condition, Severity};
use fault_store::NodeAlarms;
use model::time::Clock;

use super::disks::{DiskTrouble, Disks};
use super::standing::keep_standing;
use super::worker::{Step, StepError};
use super::write_health::{Failing, WriteHealth};

/// How long the store may be away before it is an alarm: a restart of the server is none.
const AWAY_MIN_MS: u128 = 5_000;

/// What the detector looks at.
pub struct StorageDetector {
    /// Where conditions are reported.
    pub authority: NodeAlarms,
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
        let looked = self.disks.troubles();
        let unknown = looked.is_none();
        let mut disks = self.disks(looked.unwrap_or_default());
        if unknown {
            keep_standing(&mut disks, self.authority.active().await?, AlarmType::Disk, |_| true);
        }
        self.authority.observe(detector::DISKS, disks, now).await?;
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

    fn disks(&self, mut troubles: Vec<DiskTrouble>) -> Vec<Condition> {
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

#[cfg(test)]
mod tests {
    use model::time::Timestamp;
    use testkit::World;

    use super::super::disks::{Area, Thresholds};
    use super::*;

    #[tokio::test]
    async fn an_alarm_of_a_disk_stands_after_a_start_until_the_disk_was_looked_at() {
        let (world, dir) = (World::new(), tempfile::tempdir().expect("a directory"));
        let node_db = db::node::open(dir.path()).await.expect("a node database");
        let alarms = NodeAlarms::new(node_db, "node1", Vec::new(), world.ids.clone());
        let (journal, _) = Journal::open(dir.path(), world.clock.clone(), "0.1.0").expect("a journal");
        let area = Area { name: "node", path: dir.path().to_owned(), takes_files: false };
        let detector = |low_mib| StorageDetector {
            authority: alarms.clone(),
            store: WriteHealth::new(world.clock.clone()),
            store_is_local: true,
            node_db: WriteHealth::new(world.clock.clone()),
            journal: journal.clone(),
            disks: Disks::new(vec![area.clone()], Thresholds { low_mib, critical_mib: 0 }),
            node_name: "node1".into(),
            clock: world.clock.clone(),
        };
        let raised = async || -> Vec<(u32, Timestamp)> {
            let active = alarms.active().await.expect("the alarms");
            active.iter().map(|alarm| (alarm.id, alarm.raised_at)).collect()
        };
        let before = detector(u32::MAX);
        before.disks.look().await.expect("it looks");
        before.look().await.expect("it is told");
        let alarm = raised().await;
        assert_eq!(alarm.len(), 1);
        // The program starts again; what it will find is not known.
        world.clock.advance_ms(60_000);
        let after = detector(0);
        after.look().await.expect("nothing is told");
        assert_eq!(raised().await, alarm);
        after.disks.look().await.expect("it looks");
        after.look().await.expect("it is told");
        assert_eq!(raised().await, []);
    }
}

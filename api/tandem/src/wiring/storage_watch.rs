//! Watches what the node writes to: store, node database, disks. What it finds is read by detectors and by `/readyz`.

use std::sync::Arc;
use std::time::Duration;

use db::{Db, DbError, lease, node};
use model::time::Clock;
use tokio::sync::watch;

use super::disks::{Disks, Thresholds, areas};
use super::worker::{Step, Workers};
use super::write_health::WriteHealth;
use crate::config::Config;

/// How often a small write to the store is tried: an alarm about it is raised after a few.
const STORE_PERIOD: Duration = Duration::from_secs(2);
/// How long the node's lease in the store lasts: some attempts may fail.
const PRESENT_MS: i64 = 30_000;
/// How often a small write to the node's database is tried.
const NODE_PERIOD: Duration = Duration::from_secs(5);
/// How often disks are looked at: a full one is told before a minute's worth of calls is refused.
const DISK_PERIOD: Duration = Duration::from_secs(2);
/// How often the reserve of the node's database is looked at; what is used of it lasts for hours.
const RESERVE_PERIOD: Duration = Duration::from_secs(30);

/// What is known.
#[derive(Debug, Clone)]
pub struct StorageWatch {
    /// Whether the store takes writes.
    pub store: WriteHealth,
    /// Whether the node's database does.
    pub node_db: WriteHealth,
    /// The disks.
    pub disks: Disks,
}

impl StorageWatch {
    /// Looks for the first time, and makes the reserve of the node's database.
    pub async fn begin(config: &Config, store: &Db, node_db: &Db, clock: &Arc<dyn Clock>) -> Self {
        // The daemon goes on without: the disk may be full already, and that is told.
        if let Err(error) = node::keep_reserve(node_db).await {
            tracing::error!(%error, "the node database has no space in reserve: free space now");
        }
        let (low_mib, critical_mib) = (config.node.disk_low_mib, config.node.disk_critical_mib);
        let watch = Self {
            store: WriteHealth::new(Arc::clone(clock)),
            node_db: WriteHealth::new(Arc::clone(clock)),
            disks: Disks::new(areas(config), Thresholds { low_mib, critical_mib }),
        };
        watch.store.attempt(write_store(store.clone(), config.node.name.as_str().into(), Arc::clone(clock))).await;
        watch.node_db.attempt(write_node(node_db.clone(), Arc::clone(clock))).await;
        watch
    }

    /// Goes on looking.
    pub fn spawn(&self, workers: &mut Workers, config: &Config, store: &Db, node_db: &Db, clock: &Arc<dyn Clock>) {
        let none = || None::<watch::Receiver<()>>;
        let node: Arc<str> = config.node.name.as_str().into();
        let (health, store, store_clock) = (self.store.clone(), store.clone(), Arc::clone(clock));
        workers.spawn("store_watch", STORE_PERIOD, none(), move || {
            let (health, write) =
                (health.clone(), write_store(store.clone(), Arc::clone(&node), Arc::clone(&store_clock)));
            async move {
                health.attempt(write).await;
                Ok(Step::Idle)
            }
        });
        let (health, written, node_clock) = (self.node_db.clone(), node_db.clone(), Arc::clone(clock));
        workers.spawn("node_watch", NODE_PERIOD, none(), move || {
            let (health, write) = (health.clone(), write_node(written.clone(), Arc::clone(&node_clock)));
            async move {
                health.attempt(write).await;
                Ok(Step::Idle)
            }
        });
        let node_db = node_db.clone();
        workers.spawn("node_reserve", RESERVE_PERIOD, none(), move || {
            let node_db = node_db.clone();
            async move {
                if node::reserve_is_low(&node_db).await? {
                    node::keep_reserve(&node_db).await?;
                }
                Ok(Step::Idle)
            }
        });
        let disks = self.disks.clone();
        workers.spawn("disk_watch", DISK_PERIOD, none(), move || {
            let disks = disks.clone();
            async move { disks.look().await }
        });
    }
}

async fn write_store(store: Db, node: Arc<str>, clock: Arc<dyn Clock>) -> Result<(), DbError> {
    lease::node_is_present(&store, &node, clock.now().utc, PRESENT_MS).await
}

async fn write_node(node_db: Db, clock: Arc<dyn Clock>) -> Result<(), DbError> {
    node::alive(&node_db, clock.now().utc).await
}

//! Duties of the whole installation, of which one node at a time takes care.

use std::sync::Arc;

use db::{Db, DbError, lease};
use model::time::Clock;

/// How long the holder may be silent until another node takes over: some periods of the slowest duty.
const LEASE_MS: i64 = 30_000;

/// A duty: whoever holds its lease does it, the others leave it to them.
pub struct Duty {
    /// The name of its lease.
    pub name: &'static str,
    /// The store.
    pub store: Db,
    /// Name of this node.
    pub node: Arc<str>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl Duty {
    /// Whether it falls to this node, for half a minute from now. A store of its own is always its own, also when it
    /// cannot be written. Who held it and is cut off from the store tells on until it sees the store again.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn is_ours(&self) -> Result<bool, DbError> {
        if matches!(self.store, Db::Sqlite(_)) {
            return Ok(true);
        }
        lease::hold(&self.store, self.name, &self.node, self.clock.now().utc, LEASE_MS).await
    }
}

#[cfg(test)]
mod tests {
    use testkit::{TestDb, World, on_each_database};

    use super::*;

    #[tokio::test]
    async fn one_of_two_nodes_has_it_until_it_was_silent_for_long_enough() {
        on_each_database(async |db: TestDb| {
            let world = World::new();
            let duty =
                |name, node: &str| Duty { name, store: (*db).clone(), node: node.into(), clock: world.clock.clone() };
            let (first, second) = (duty("alarms", "node1"), duty("alarms", "node2"));
            let ours = async |duty: &Duty| duty.is_ours().await.expect("the store is there");
            if matches!(*db, Db::Sqlite(_)) {
                assert!(ours(&first).await && ours(&second).await, "nobody else has this store");
                return;
            }
            assert!(ours(&first).await && !ours(&second).await);
            world.clock.advance_ms(20_000);
            assert!(ours(&first).await, "it is prolonged");
            world.clock.advance_ms(29_999);
            assert!(!ours(&second).await);
            world.clock.advance_ms(1);
            assert!(ours(&second).await && !ours(&first).await);
            assert!(ours(&duty("others", "node1")).await, "another duty");
        })
        .await;
    }
}

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
    /// Whether it falls to this node, for half a minute from now.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn is_ours(&self) -> Result<bool, DbError> {
        lease::hold(&self.store, self.name, &self.node, self.clock.now().utc, LEASE_MS).await
    }
}

//! What detectors, faces and wiring ask of fault management. Implemented by the store beside it.

use async_trait::async_trait;
use model::ctx::Ctx;
use model::page::{Page, PageRequest, ReadError};
use model::time::Timestamp;

use crate::resource::{Alarm, Condition};

/// Where detectors report: the full set of conditions that one detector sees now. Alarms of this detector (same
/// `detector`) whose condition is not in the set are cleared; so nothing stays up for ever after a restart.
#[async_trait]
pub trait AlarmAuthority: Send + Sync {
    /// Takes in the full set. Transition, alarm row and one outbox row per target commit together in `node.db`.
    ///
    /// # Errors
    /// When `node.db` cannot be written; the next observation repeats it.
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

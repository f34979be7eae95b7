//! The context of a use case: first argument of each.

use std::sync::Arc;

use crate::actor::{Actor, Permission};
use crate::id::{IdSource, TraceId};
use crate::tenancy::Scope;
use crate::time::{Clock, Timestamp};

/// Who asks, how far they may reach, and where time and identifiers come from.
#[derive(Debug, Clone)]
pub struct Ctx {
    /// Who acts.
    pub actor: Actor,
    /// What they may touch.
    pub scope: Scope,
    /// The clock of this process.
    pub clock: Arc<dyn Clock>,
    /// The identifiers of this process.
    pub ids: Arc<dyn IdSource>,
    /// The request in the logs.
    pub trace: TraceId,
}

/// The actor lacks a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the permission {permission} is missing; ask for a token that carries it")]
pub struct Denied {
    /// What is missing.
    pub permission: Permission,
}

impl Ctx {
    /// The wall-clock instant of now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now().utc
    }

    /// Deny by default: a use case begins with this.
    ///
    /// # Errors
    /// When the actor lacks `permission`.
    pub fn require(&self, permission: Permission) -> Result<(), Denied> {
        if self.actor.permissions.has(permission) { Ok(()) } else { Err(Denied { permission }) }
    }
}

//! Contexts for use cases under test.

use std::sync::{Arc, LazyLock};

use model::actor::{Actor, ActorKind, Permissions};
use model::ctx::Ctx;
use model::id::{AccountId, IdSource, TraceId};
use model::network::Networks;
use model::tenancy::{AccountPath, Scope};

use crate::clock::ManualClock;
use crate::ids::CountingIds;

/// Time and identifiers of one test.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The clock.
    pub clock: Arc<ManualClock>,
    /// The identifiers.
    pub ids: Arc<CountingIds>,
}

impl World {
    /// A new one: same start, same identifiers every time.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A machine of `account` at `path` with `permissions`, whose scope is the subtree of `path`.
    #[must_use]
    pub fn ctx(&self, permissions: Permissions, account: AccountId, path: &AccountPath) -> Ctx {
        Ctx {
            actor: Actor {
                kind: ActorKind::Machine,
                id: self.ids.next(),
                name: "test".to_owned(),
                account,
                path: path.clone(),
                permissions,
                expires_at: None,
                networks: Networks::default(),
            },
            scope: Scope::subtree(path),
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            trace: TraceId::new(&*self.ids),
        }
    }

    /// The daemon itself: every permission, the whole installation.
    #[must_use]
    pub fn system(&self) -> Ctx {
        let account = AccountId::new(&*self.ids);
        let mut ctx = self.ctx(Permissions::all(), account, &AccountPath::root(account));
        ctx.scope = Scope::installation();
        ctx.actor.kind = ActorKind::System;
        ctx.actor.id = uuid::Uuid::nil();
        "system".clone_into(&mut ctx.actor.name);
        ctx
    }
}

/// [`World::ctx`] of a world that the whole test process shares: for tests that look at neither time nor identifiers.
#[must_use]
pub fn ctx(permissions: Permissions, account: AccountId, path: &AccountPath) -> Ctx {
    static SHARED: LazyLock<World> = LazyLock::new(World::new);
    SHARED.ctx(permissions, account, path)
}

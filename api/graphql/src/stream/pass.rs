//! The right to listen: a token that is looked at again and again, so that it ends when it is revoked, expires, may do
//! something else, or its account is disabled.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::ConnectInfo;
use axum::http::Extensions;
use model::ctx::Ctx;
use model::id::{IdSource, TraceId};
use model::page::ReadError;
use model::secret::Secret;
use model::tenancy::Scope;
use model::time::Clock;
use provisioning::port::Authenticator;

use super::ticks;
use crate::limit::{RECHECK_PERIOD, RECHECKS_MAX};
use crate::schema::GraphqlDeps;

/// Gives passes.
#[derive(Clone)]
pub(crate) struct Gate {
    authenticator: Arc<dyn Authenticator>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
}

/// What a look at the token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may listen on.
    Good,
    /// No more.
    Ended,
    /// The store has not answered for a long time.
    Unknown,
}

/// A token that was good, and who it is.
pub(crate) struct Pass {
    gate: Gate,
    token: Secret<String>,
    from: IpAddr,
    ctx: Ctx,
}

/// Where a request comes from. The server says so; without it nobody is at any address of a list.
pub(crate) fn origin(extensions: &Extensions) -> IpAddr {
    let peer = extensions.get::<ConnectInfo<SocketAddr>>();
    peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.0.ip())
}

impl Gate {
    pub(crate) fn new(deps: &GraphqlDeps) -> Self {
        let (authenticator, clock) = (Arc::clone(&deps.authenticator), Arc::clone(&deps.clock));
        Self { authenticator, clock, ids: Arc::clone(&deps.ids) }
    }

    /// A pass for a token; none: it is no good.
    pub(crate) async fn pass(&self, token: String, from: IpAddr) -> Result<Option<Pass>, ReadError> {
        let actor = self.authenticator.token_authenticate(&token, from, self.clock.now().utc).await?;
        Ok(actor.map(|actor| {
            let scope = Scope::of(&actor.path);
            let trace = TraceId::new(&*self.ids);
            let ctx = Ctx { actor, scope, clock: Arc::clone(&self.clock), ids: Arc::clone(&self.ids), trace };
            Pass { gate: self.clone(), token: Secret::new(token), from, ctx }
        }))
    }
}

impl Pass {
    /// Who listens.
    pub(crate) fn ctx(&self) -> &Ctx {
        &self.ctx
    }

    /// Looks at the token. While the store is away it looks again and again, and nothing is sent meanwhile.
    pub(crate) async fn standing(&self) -> Standing {
        let mut again = ticks(RECHECK_PERIOD);
        for _ in 0..RECHECKS_MAX {
            let now = self.gate.clock.now().utc;
            match self.gate.authenticator.token_authenticate(self.token.expose(), self.from, now).await {
                Ok(Some(actor)) => {
                    let before = &self.ctx.actor;
                    let same = (actor.path, actor.permissions) == (before.path.clone(), before.permissions);
                    return if same { Standing::Good } else { Standing::Ended };
                }
                Ok(None) => return Standing::Ended,
                Err(_) => drop(again.tick().await),
            }
        }
        Standing::Unknown
    }
}

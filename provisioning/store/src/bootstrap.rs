//! The first account and token of an installation, and the daemon's own context.

use std::sync::Arc;

use db::change::Entry;
use db::sqlx;
use db::{WriteError, on_db, on_tx};
use model::actor::{Actor, ActorKind, Permissions};
use model::change::{ChangeError, Refusal, RefusalCode};
use model::ctx::Ctx;
use model::id::{AccountId, ChangeId, IdSource, InstallationId, TraceId};
use model::money::Currency;
use model::network::Networks;
use model::page::ReadError;
use model::tenancy::{AccountPath, Scope};
use model::time::Clock;
use provisioning::decide;
use provisioning::port::Bootstrap;
use provisioning::view::Write;
use uuid::Uuid;

use crate::ProvisioningStore;
use crate::row::{failed, parsed, read_error};
use crate::write::write_all;

db::statements! {
    PROVIDER = "SELECT id, path FROM account WHERE parent_id IS NULL";
    /// What this installation is; no row before the bootstrap.
    INSTALLATION_ID = "SELECT id FROM installation";
    INSTALLATION = "INSERT INTO installation (id, created_at, key_check) VALUES ($1, $2, $3)";
}

/// The name in the audit trail.
const COMMAND: &str = "bootstrap";

impl ProvisioningStore {
    /// Makes the installation: the provider's account and a token with every permission, which is shown this once.
    ///
    /// # Errors
    /// Refused when there is a provider already, or when name or zone are malformed.
    pub async fn bootstrap(
        &self,
        name: &str,
        timezone: &str,
        currency: Currency,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
    ) -> Result<Bootstrap, ChangeError> {
        let nobody = AccountId::from_uuid(Uuid::nil());
        let ctx = system(nobody, AccountPath::root(nobody), clock, ids);
        let decision = decide::bootstrap(&ctx, name, timezone, currency).map_err(ChangeError::Refused)?;
        let shared = Arc::new((self.clone(), ctx, decision));
        let made = self.db.write(move |tx| {
            let shared = Arc::clone(&shared);
            Box::pin(async move {
                let (store, ctx, decision) = &*shared;
                db::dialect::serialize_on(tx, &[COMMAND.as_bytes()]).await?;
                let provider: Option<(Uuid, String)> =
                    on_tx!(tx, c => sqlx::query_as(PROVIDER).fetch_optional(c).await)?;
                if provider.is_some() {
                    return Err(WriteError::Refused(exists()));
                }
                let installation = InstallationId::new(&*ctx.ids);
                let check = crate::open::sealed_check(&store.sealer, installation.uuid())?;
                on_tx!(tx, c => sqlx::query(INSTALLATION).bind(installation.uuid()).bind(ctx.now().0).bind(check)
                    .execute(c).await.map(|_| ()))?;
                let change = ChangeId::new(&*ctx.ids);
                let revealed = write_all(tx, &store.sealer, change, ctx.now(), decision.writes.clone()).await?;
                let token = revealed.into_iter().next().map(|(_, token)| token);
                let (plan, path) = (&decision.plan, &decision.path);
                let entry = Entry { command: COMMAND, plan, key: None, request: &[0; 32], path, events: &[] };
                db::change::record(tx, ctx, change, entry).await?;
                let provider = decision.writes.iter().find_map(|write| match write {
                    Write::AccountInsert(account) => Some(account.id),
                    _ => None,
                });
                let made = provider.zip(token).map(|(provider, token)| Bootstrap { provider, token });
                let broken = || ChangeError::Internal("the first account or its token was not made".to_owned());
                made.ok_or_else(|| WriteError::Refused(broken()))
            })
        });
        made.await.map_err(ChangeError::from)
    }

    /// What this installation is; none before [`ProvisioningStore::bootstrap`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn installation(&self) -> Result<Option<InstallationId>, ReadError> {
        let id: Option<Uuid> =
            on_db!(&self.db, c => sqlx::query_scalar(INSTALLATION_ID).fetch_optional(c).await).map_err(failed)?;
        Ok(id.map(InstallationId::from_uuid))
    }

    /// The daemon itself and its command line, as an actor with every permission over the whole installation. None
    /// before [`ProvisioningStore::bootstrap`]. Never for a request from outside.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn system(&self, clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>) -> Result<Option<Ctx>, ReadError> {
        let provider: Option<(Uuid, String)> =
            on_db!(&self.db, c => sqlx::query_as(PROVIDER).fetch_optional(c).await).map_err(failed)?;
        let Some((id, path)) = provider else { return Ok(None) };
        let path = parsed("account.path", &path).map_err(read_error)?;
        Ok(Some(system(AccountId::from_uuid(id), path, clock, ids)))
    }
}

fn system(account: AccountId, path: AccountPath, clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>) -> Ctx {
    let trace = TraceId::new(&*ids);
    let actor = Actor {
        kind: ActorKind::System,
        id: Uuid::nil(),
        name: "system".to_owned(),
        account,
        path,
        permissions: Permissions::all(),
        expires_at: None,
        networks: Networks::default(),
    };
    Ctx { actor, scope: Scope::installation(), clock, ids, trace }
}

fn exists() -> ChangeError {
    Refusal::new(
        RefusalCode::Conflict,
        "",
        "this installation has a provider already",
        "issue another token for it, on the command line if nobody has one",
    )
    .into()
}

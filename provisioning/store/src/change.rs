//! The commands of provisioning as changes: loaded, decided and written.

use async_trait::async_trait;
use db::pipeline::{self, Commands, Decided, Failed, Written};
use db::{Db, DbError, Tx, WriteError};
use model::actor::Permission;
use model::change::{Change, ChangeError, CommitOptions, Committed, Plan};
use model::ctx::Ctx;
use model::id::ChangeId;
use model::secret::Secret;
use model::time::Timestamp;
use provisioning::command::Command;
use provisioning::decide::{decide, required};
use provisioning::view::{Decision, Taken, Write};

use crate::seal::Sealer;
use crate::subscriber::credentials;
use crate::view::view;
use crate::{ProvisioningStore, account, domain, number, reversal, site, subscriber, token, trunk};

#[async_trait]
impl Change<Command> for ProvisioningStore {
    async fn plan(&self, ctx: &Ctx, command: &Command) -> Result<Plan, ChangeError> {
        pipeline::plan(self, ctx, command).await
    }

    async fn commit(&self, ctx: &Ctx, command: Command, options: CommitOptions) -> Result<Committed, ChangeError> {
        pipeline::commit(self, ctx, command, options).await
    }
}

#[async_trait]
impl Commands for ProvisioningStore {
    type Command = Command;
    type Write = Vec<Write>;

    fn db(&self) -> &Db {
        &self.db
    }

    fn name(command: &Command) -> &'static str {
        command.name()
    }

    fn required(command: &Command) -> Permission {
        required(command)
    }

    fn request(&self, command: &Command) -> Vec<Vec<u8>> {
        let canonical = command.canonical();
        let secret = canonical.secret.map(|secret| self.sealer.request_digest(secret).to_vec());
        vec![canonical.fields.to_string().into_bytes(), secret.unwrap_or_default()]
    }

    async fn decide(&self, tx: &mut Tx, ctx: &Ctx, command: &Command) -> Result<Option<Decided<Self::Write>>, Failed> {
        let view = view(tx, &ctx.scope, command).await?;
        let decision = decide(ctx, &view, command).map_err(|r| WriteError::Refused(ChangeError::Refused(r)))?;
        let Decision { plan, path, writes } = decision;
        Ok(Some(Decided { plan, path, write: writes }))
    }

    async fn write(&self, tx: &mut Tx, ctx: &Ctx, change: ChangeId, write: Self::Write) -> Result<Written, DbError> {
        let revealed = write_all(tx, &self.sealer, change, ctx.now(), write).await?;
        Ok(Written { revealed, ..Written::default() })
    }

    /// SQLite names the columns, PostgreSQL the index, which is named after them.
    fn raced(constraint: String) -> ChangeError {
        const INDEXES: [(&str, &str, Taken); 6] = [
            ("domain.name", "domain_name_key", Taken::Domain),
            ("subscriber.username", "subscriber_domain_id_username_key", Taken::Username),
            ("subscriber.extension", "subscriber_account_id_extension_key", Taken::Extension),
            ("number.e164", "number_e164_key", Taken::E164),
            ("trunk.address", "trunk_address_key", Taken::Address),
            (".name", "_name", Taken::Name),
        ];
        let names = |columns: &str, index: &str| constraint.ends_with(columns) || constraint.contains(index);
        let taken = INDEXES.into_iter().find(|(columns, index, _)| names(columns, index)).map(|(_, _, taken)| taken);
        taken.map_or_else(|| DbError::Unique { constraint }.into(), |taken| taken.refusal().into())
    }
}

/// Carries the writes out in their order, and gives the secret that is shown once.
pub(crate) async fn write_all(
    tx: &mut Tx,
    sealer: &Sealer,
    change: ChangeId,
    now: Timestamp,
    writes: Vec<Write>,
) -> Result<Option<Secret<String>>, DbError> {
    let mut revealed = None;
    for write in writes {
        match write {
            Write::AccountInsert(account) => account::insert(tx, &account).await?,
            Write::AccountUpdate(account) => account::update(tx, &account).await?,
            Write::SubscriberCount { path, delta } => account::subscribers_count(tx, &path, delta).await?,
            Write::DomainInsert(domain) => domain::insert(tx, &domain).await?,
            Write::DomainUpdate(domain) => domain::update(tx, &domain).await?,
            Write::DomainDelete(id, version) => domain::delete(tx, id, version).await?,
            Write::SiteInsert(site) => site::insert(tx, &site).await?,
            Write::SiteUpdate(site) => site::update(tx, &site).await?,
            Write::SiteDelete(id, version) => site::delete(tx, id, version).await?,
            Write::SubscriberInsert(subscriber, password) => {
                let secrets = credentials(sealer, &subscriber, password)?;
                subscriber::insert(tx, &subscriber, &secrets).await?;
                revealed = secrets.revealed;
            }
            Write::SubscriberUpdate(subscriber) => subscriber::update(tx, &subscriber).await?,
            Write::SubscriberCredentials(subscriber, password) => {
                let secrets = credentials(sealer, &subscriber, password)?;
                subscriber::credentials_update(tx, &subscriber, &secrets).await?;
                revealed = secrets.revealed;
            }
            Write::SubscriberDelete(id, version) => subscriber::delete(tx, id, version, now).await?,
            Write::SubscriberRestore(subscriber) => subscriber::restore(tx, &subscriber).await?,
            Write::NumberInsert(number) => number::insert(tx, &number).await?,
            Write::NumberUpdate(number) => number::update(tx, &number).await?,
            Write::NumberDelete(id, version) => number::delete(tx, id, version).await?,
            Write::TrunkInsert(trunk, password) => trunk::insert(tx, sealer, &trunk, password.as_ref()).await?,
            Write::TrunkUpdate(trunk) => trunk::update(tx, &trunk).await?,
            Write::TokenInsert(token) => revealed = Some(token::insert(tx, &token).await?),
            Write::TokenUpdate(token) => token::update(tx, &token).await?,
            Write::TokenRotate(token) => revealed = Some(token::rotate(tx, &token).await?),
            Write::Reversal(reverted) => reversal::insert(tx, reverted, change).await?,
        }
    }
    Ok(revealed)
}

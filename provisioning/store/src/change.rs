//! The commands of provisioning as changes: loaded, decided and written.

use async_trait::async_trait;
use db::pipeline::{self, Commands, Decided, Failed, Written};
use db::{Db, DbError, Tx, WriteError};
use model::actor::Permission;
use model::change::{Change, ChangeError, CommitOptions, Committed, Plan};
use model::ctx::Ctx;
use model::id::ChangeId;
use provisioning::command::Command;
use provisioning::decide::{decide, required};
use provisioning::view::{Decision, Taken, Write};

use crate::ProvisioningStore;
use crate::view::view;
use crate::write::write_all;

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
        let revealed = write_all(tx, &self.sealer, change, ctx.now(), write).await?.pop().map(|(_, secret)| secret);
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

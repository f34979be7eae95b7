//! The pipeline: a plan on a snapshot, a commit in one write transaction.

use std::sync::Arc;

use async_trait::async_trait;
use db::change::{Entry, Hash, Replay};
use db::{DbError, Tx, WriteError};
use model::change::{Change, ChangeError, CommitOptions, Committed, Plan};
use model::ctx::Ctx;
use model::secret::Secret;
use provisioning::command::Command;
use provisioning::decide::{decide, required};
use provisioning::view::{Taken, Write};

use crate::seal::Sealer;
use crate::subscriber::credentials;
use crate::view::view;
use crate::{ProvisioningStore, account, domain, number, site, subscriber, token, trunk};

#[async_trait]
impl Change<Command> for ProvisioningStore {
    async fn plan(&self, ctx: &Ctx, command: &Command) -> Result<Plan, ChangeError> {
        ctx.require(required(command))?;
        let (scope, asked) = (ctx.scope.clone(), command.clone());
        let view = self.db.read(|tx| Box::pin(async move { view(tx, &scope, &asked).await }));
        let view = view.await.map_err(|error: DbError| ChangeError::from(error))?;
        decide(ctx, &view, command).map(|decision| decision.plan).map_err(ChangeError::Refused)
    }

    async fn commit(&self, ctx: &Ctx, command: Command, options: CommitOptions) -> Result<Committed, ChangeError> {
        ctx.require(required(&command))?;
        let request = self.request_hash(&command, &options)?;
        let shared = Arc::new((self.clone(), ctx.clone(), command, options));
        let committed = self.db.write(move |tx| {
            let shared = Arc::clone(&shared);
            Box::pin(async move {
                let (store, ctx, command, options) = &*shared;
                store.commit_in(tx, ctx, command, options, &request).await
            })
        });
        committed.await.map_err(|error| match error {
            WriteError::Db(DbError::Unique { constraint }) => raced(constraint),
            other => other.into(),
        })
    }
}

impl ProvisioningStore {
    async fn commit_in(
        &self,
        tx: &mut Tx,
        ctx: &Ctx,
        command: &Command,
        options: &CommitOptions,
        request: &Hash,
    ) -> Result<Committed, WriteError<ChangeError>> {
        let key = options.idempotency_key.as_ref();
        if let Replay::Answer(committed) = db::change::replay(tx, ctx, key, request).await? {
            return Ok(committed);
        }
        let view = view(tx, &ctx.scope, command).await?;
        let decision = decide(ctx, &view, command).map_err(|r| WriteError::Refused(ChangeError::Refused(r)))?;
        db::change::check_expected(&decision.plan, options).map_err(WriteError::Refused)?;
        let revealed = write_all(tx, &self.sealer, decision.writes).await?;
        let (plan, path) = (&decision.plan, &decision.path);
        let entry = Entry { command: command.name(), plan, key, request, path, events: &[] };
        let change = db::change::record(tx, ctx, entry).await?;
        Ok(Committed { change, plan: decision.plan, replayed: false, revealed })
    }

    /// Over all that the client said; a secret takes part as its keyed digest.
    fn request_hash(&self, command: &Command, options: &CommitOptions) -> Result<Hash, ChangeError> {
        let canonical = command.canonical();
        let secret = canonical.secret.map(|secret| self.sealer.request_digest(secret));
        let expected = serde_json::to_vec(&options.expected).map_err(|e| ChangeError::Internal(e.to_string()))?;
        let parts = [
            command.name().as_bytes(),
            canonical.fields.to_string().as_bytes(),
            secret.as_ref().map_or(&[][..], |digest| &digest[..]),
            &expected,
        ]
        .map(<[u8]>::to_vec);
        Ok(db::change::hash_request(&parts.each_ref().map(Vec::as_slice)))
    }
}

/// Carries the writes out in their order, and gives the secret that is shown once.
pub(crate) async fn write_all(
    tx: &mut Tx,
    sealer: &Sealer,
    writes: Vec<Write>,
) -> Result<Option<Secret<String>>, DbError> {
    let mut revealed = None;
    for write in writes {
        match write {
            Write::AccountInsert(account) => account::insert(tx, &account).await?,
            Write::AccountUpdate(account) => account::update(tx, &account).await?,
            Write::SubscriberCount { path, delta } => account::subscribers_count(tx, &path, delta).await?,
            Write::DomainInsert(domain) => domain::insert(tx, &domain).await?,
            Write::SiteInsert(site) => site::insert(tx, &site).await?,
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
            Write::SubscriberDelete(id, version) => subscriber::delete(tx, id, version).await?,
            Write::NumberInsert(number) => number::insert(tx, &number).await?,
            Write::NumberUpdate(number) => number::update(tx, &number).await?,
            Write::NumberDelete(id, version) => number::delete(tx, id, version).await?,
            Write::TrunkInsert(trunk, password) => trunk::insert(tx, sealer, &trunk, password.as_ref()).await?,
            Write::TrunkUpdate(trunk) => trunk::update(tx, &trunk).await?,
            Write::TokenInsert(token) => revealed = Some(token::insert(tx, &token).await?),
            Write::TokenUpdate(token) => token::update(tx, &token).await?,
        }
    }
    Ok(revealed)
}

/// Two changes wanted the same name at the same time, and this one came second. SQLite names the columns,
/// PostgreSQL the index, which is named after them.
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

//! Loads what a decision looks at. In a plan nothing is locked; in a commit on PostgreSQL the rows that the decision
//! changes or counts are, in the order that the crate's doc gives.

use db::sqlx;
use db::{DbError, Tx, on_tx};
use model::id::{AccountId, DomainId, SiteId, SubscriberId};
use model::number::Extension;
use model::tenancy::{AccountPath, Scope};
use provisioning::command::Command;
use provisioning::view::{Taken, View};
use uuid::Uuid;

use crate::row::{Lock, global_holder, holder, load, owner};
use crate::{account, bulk, domain, number, reversal, site, subscriber, token, trunk};

/// Everything that `command` names, as far as `scope` reaches.
pub(crate) async fn view(tx: &mut Tx, scope: &Scope, command: &Command) -> Result<View, DbError> {
    let Some(path) = owner_path(tx, scope, command).await? else { return Ok(View::default()) };
    let counts = matches!(
        command,
        Command::SubscriberCreate { .. } | Command::SubscriberDelete { .. } | Command::ChangeRevert { .. }
    );
    let ancestry = account::ancestry(tx, &path, if counts { Lock::Held } else { Lock::Free }).await?;
    let mut view = View { ancestry, ..View::default() };
    let Some(owner) = view.ancestry.last().map(|owner| owner.id.uuid()) else { return Ok(View::default()) };
    match command {
        Command::AccountCreate { name, .. } => {
            view.takes(Taken::Name, holder(tx, account::NAME, owner, name).await?, None);
        }
        Command::AccountUpdate { id, name, .. } => {
            let locked = load::<account::Row>(tx, account::LOAD, id.uuid(), Lock::Held).await?;
            view.ancestry.pop();
            view.ancestry.extend(locked);
            if let (Some(name), [.., parent, _]) = (name, view.ancestry.as_slice()) {
                let parent = parent.id.uuid();
                view.takes(Taken::Name, holder(tx, account::NAME, parent, name).await?, Some(id.uuid()));
            }
        }
        Command::DomainCreate { name, .. } => {
            view.takes(Taken::Domain, global_holder(tx, domain::NAME, name.as_str()).await?, None);
        }
        Command::DomainUpdate { id, .. } => view.load_domain(tx, *id, Lock::Held).await?,
        Command::DomainDelete { id } => {
            view.load_domain(tx, *id, Lock::Held).await?;
            view.populated.extend(populated(tx, domain::POPULATION, id.uuid()).await?);
        }
        Command::SiteCreate { name, .. } => {
            view.takes(Taken::Name, holder(tx, site::NAME, owner, name).await?, None);
        }
        Command::SiteUpdate { id, name } => {
            view.load_site(tx, Some(*id), Lock::Held).await?;
            view.takes(Taken::Name, holder(tx, site::NAME, owner, name).await?, Some(id.uuid()));
        }
        Command::SiteDelete { id } => {
            view.load_site(tx, Some(*id), Lock::Held).await?;
            view.populated.extend(populated(tx, site::POPULATION, id.uuid()).await?);
        }
        Command::SubscriberCreate { domain, site, username, extension, .. } => {
            view.load_domain(tx, *domain, Lock::Free).await?;
            view.load_site(tx, *site, Lock::Free).await?;
            view.takes(Taken::Username, holder(tx, subscriber::USERNAME, domain.uuid(), username).await?, None);
            view.load_extension(tx, owner, extension.as_ref(), None).await?;
        }
        Command::SubscriberUpdate { id, site, extension, .. } => {
            view.load_subscriber(tx, *id, path).await?;
            view.load_site(tx, site.flatten(), Lock::Free).await?;
            let extension = extension.as_ref().and_then(Option::as_ref);
            view.load_extension(tx, owner, extension, Some(id.uuid())).await?;
        }
        Command::SubscriberPasswordSet { id, .. } => view.load_subscriber(tx, *id, path).await?,
        Command::SubscriberDelete { id } => {
            view.load_subscriber(tx, *id, path).await?;
            view.numbers = number::assigned(tx, *id).await?;
        }
        Command::NumberCreate { e164, subscriber, .. } => {
            view.load_assignee(tx, scope, *subscriber).await?;
            view.takes(Taken::E164, global_holder(tx, number::E164, &e164.to_string()).await?, None);
        }
        Command::NumberAssign { id, subscriber } => {
            view.load_assignee(tx, scope, *subscriber).await?;
            view.numbers.extend(load::<number::Row>(tx, number::LOAD, id.uuid(), Lock::Held).await?);
            view.load_holder(tx, scope).await?;
        }
        Command::NumberReserve { id, account, .. } => {
            view.numbers.extend(load::<number::Row>(tx, number::LOAD, id.uuid(), Lock::Held).await?);
            let path = self::owner(tx, account::OWNER, scope, account.uuid()).await?;
            view.held_for = path.map(|path| (*account, path));
        }
        Command::NumberRelease { id } | Command::NumberDelete { id } => {
            view.numbers.extend(load::<number::Row>(tx, number::LOAD, id.uuid(), Lock::Held).await?);
        }
        Command::TrunkCreate { name, address, .. } => {
            view.takes(Taken::Name, holder(tx, trunk::NAME, owner, name).await?, None);
            view.takes(Taken::Address, global_holder(tx, trunk::ADDRESS, &address.to_string()).await?, None);
        }
        Command::TrunkUpdate { id, .. } => {
            view.trunks.extend(load::<trunk::Row>(tx, trunk::LOAD, id.uuid(), Lock::Held).await?);
        }
        Command::TokenIssue { name, .. } => {
            view.takes(Taken::Name, holder(tx, token::NAME, owner, name).await?, None);
        }
        Command::TokenUpdate { id, .. } | Command::TokenRotate { id, .. } | Command::TokenRevoke { id } => {
            view.tokens.extend(load::<token::Row>(tx, token::LOAD, id.uuid(), Lock::Held).await?);
        }
        Command::ChangeRevert { change } => reversal::view(tx, path, *change, &mut view).await?,
        Command::BulkJobStart { id, .. } | Command::BulkJobCancel { id } => {
            view.job = load::<bulk::Row>(tx, bulk::LOAD, id.uuid(), Lock::Held).await?;
        }
    }
    Ok(view)
}

/// Where the account sits that the command is about, when it is in scope. Owner and path of an object never change,
/// so they can be read before anything is locked.
async fn owner_path(tx: &mut Tx, scope: &Scope, command: &Command) -> Result<Option<AccountPath>, DbError> {
    let (sql, id) = match command {
        Command::AccountCreate { parent: id, .. }
        | Command::AccountUpdate { id, .. }
        | Command::DomainCreate { account: id, .. }
        | Command::SiteCreate { account: id, .. }
        | Command::NumberCreate { account: id, .. }
        | Command::TrunkCreate { account: id, .. }
        | Command::TokenIssue { account: id, .. } => (account::OWNER, AccountId::uuid(*id)),
        Command::SubscriberCreate { domain: id, .. }
        | Command::DomainUpdate { id, .. }
        | Command::DomainDelete { id } => (domain::OWNER, id.uuid()),
        Command::SiteUpdate { id, .. } | Command::SiteDelete { id } => (site::OWNER, id.uuid()),
        Command::SubscriberUpdate { id, .. }
        | Command::SubscriberPasswordSet { id, .. }
        | Command::SubscriberDelete { id } => (subscriber::OWNER, id.uuid()),
        Command::NumberAssign { id, .. }
        | Command::NumberReserve { id, .. }
        | Command::NumberRelease { id }
        | Command::NumberDelete { id } => (number::OWNER, id.uuid()),
        Command::TrunkUpdate { id, .. } => (trunk::OWNER, id.uuid()),
        Command::TokenUpdate { id, .. } | Command::TokenRotate { id, .. } | Command::TokenRevoke { id } => {
            (token::OWNER, id.uuid())
        }
        Command::ChangeRevert { change } => (reversal::OWNER, change.uuid()),
        Command::BulkJobStart { id, .. } | Command::BulkJobCancel { id } => (bulk::OWNER, id.uuid()),
    };
    owner(tx, sql, scope, id).await
}

/// The domain or site with the number of its subscribers, when it has some.
pub(crate) async fn populated(tx: &mut Tx, sql: &'static str, id: Uuid) -> Result<Option<(Uuid, i64)>, DbError> {
    let count: i64 = on_tx!(tx, c => sqlx::query_scalar(sql).bind(id).fetch_one(c).await)?;
    Ok((count > 0).then_some((id, count)))
}

/// The parts that several commands share.
pub(crate) trait Parts {
    async fn load_domain(&mut self, tx: &mut Tx, id: DomainId, lock: Lock) -> Result<(), DbError>;
    async fn load_site(&mut self, tx: &mut Tx, id: Option<SiteId>, lock: Lock) -> Result<(), DbError>;
    async fn load_subscriber(&mut self, tx: &mut Tx, id: SubscriberId, path: AccountPath) -> Result<(), DbError>;
    async fn load_assignee(&mut self, tx: &mut Tx, scope: &Scope, id: Option<SubscriberId>) -> Result<(), DbError>;
    async fn load_extension(
        &mut self,
        tx: &mut Tx,
        customer: Uuid,
        extension: Option<&Extension>,
        itself: Option<Uuid>,
    ) -> Result<(), DbError>;
    async fn load_holder(&mut self, tx: &mut Tx, scope: &Scope) -> Result<(), DbError>;
}

impl Parts for View {
    async fn load_domain(&mut self, tx: &mut Tx, id: DomainId, lock: Lock) -> Result<(), DbError> {
        if self.domain(id).is_none() {
            self.domains.extend(load::<domain::Row>(tx, domain::LOAD, id.uuid(), lock).await?);
        }
        Ok(())
    }

    async fn load_site(&mut self, tx: &mut Tx, id: Option<SiteId>, lock: Lock) -> Result<(), DbError> {
        if let Some(id) = id.filter(|id| self.site(*id).is_none()) {
            self.sites.extend(load::<site::Row>(tx, site::LOAD, id.uuid(), lock).await?);
        }
        Ok(())
    }

    async fn load_subscriber(&mut self, tx: &mut Tx, id: SubscriberId, path: AccountPath) -> Result<(), DbError> {
        let found = load::<subscriber::Row>(tx, subscriber::LOAD, id.uuid(), Lock::Held).await?;
        if let Some(subscriber) = found {
            self.load_domain(tx, subscriber.domain, Lock::Free).await?;
            self.subscribers.push((subscriber, path));
        }
        Ok(())
    }

    /// The subscriber of a number; locked, so that it cannot go while the number is given to it.
    async fn load_assignee(&mut self, tx: &mut Tx, scope: &Scope, id: Option<SubscriberId>) -> Result<(), DbError> {
        let Some(id) = id else { return Ok(()) };
        if let Some(path) = owner(tx, subscriber::OWNER, scope, id.uuid()).await? {
            let found = load::<subscriber::Row>(tx, subscriber::LOAD, id.uuid(), Lock::Held).await?;
            self.subscribers.extend(found.map(|subscriber| (subscriber, path)));
        }
        Ok(())
    }

    async fn load_extension(
        &mut self,
        tx: &mut Tx,
        customer: Uuid,
        extension: Option<&Extension>,
        itself: Option<Uuid>,
    ) -> Result<(), DbError> {
        if let Some(extension) = extension {
            let holder = holder(tx, subscriber::EXTENSION, customer, extension.as_str()).await?;
            self.takes(Taken::Extension, holder, itself);
        }
        Ok(())
    }

    /// Who has the number that was loaded, or for whom it is held. Not locked: where they sit never changes.
    async fn load_holder(&mut self, tx: &mut Tx, scope: &Scope) -> Result<(), DbError> {
        let Some((subscriber, hold)) = self.numbers.first().map(|number| (number.subscriber, number.hold)) else {
            return Ok(());
        };
        if let Some(id) = subscriber.filter(|id| self.subscriber(*id).is_none())
            && let Some(path) = owner(tx, subscriber::OWNER, scope, id.uuid()).await?
        {
            let found = load::<subscriber::Row>(tx, subscriber::LOAD, id.uuid(), Lock::Free).await?;
            self.subscribers.extend(found.map(|subscriber| (subscriber, path)));
        }
        if let Some(hold) = hold.filter(|_| subscriber.is_none()) {
            let path = owner(tx, account::OWNER, scope, hold.account.uuid()).await?;
            self.held_for = path.map(|path| (hold.account, path));
        }
        Ok(())
    }
}

//! Loads what a decision looks at. In a plan nothing is locked; in a commit on PostgreSQL the rows that the decision
//! changes or counts are, in the order that the crate's doc gives.

use db::{DbError, Tx};
use model::id::{AccountId, DomainId, SiteId, SubscriberId};
use model::number::Extension;
use model::tenancy::{AccountPath, Scope};
use provisioning::command::Command;
use provisioning::view::{Taken, View};
use uuid::Uuid;

use crate::row::{Lock, global_holder, holder, load, owner};
use crate::{account, domain, number, site, subscriber, token, trunk};

/// Everything that `command` names, as far as `scope` reaches.
pub(crate) async fn view(tx: &mut Tx, scope: &Scope, command: &Command) -> Result<View, DbError> {
    let Some(path) = owner_path(tx, scope, command).await? else { return Ok(View::default()) };
    let counts = matches!(command, Command::SubscriberCreate { .. } | Command::SubscriberDelete { .. });
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
        Command::SiteCreate { name, .. } => {
            view.takes(Taken::Name, holder(tx, site::NAME, owner, name).await?, None);
        }
        Command::SubscriberCreate { domain, site, username, extension, .. } => {
            view.load_domain(tx, *domain).await?;
            view.load_site(tx, *site).await?;
            view.takes(Taken::Username, holder(tx, subscriber::USERNAME, domain.uuid(), username).await?, None);
            view.load_extension(tx, owner, extension.as_ref(), None).await?;
        }
        Command::SubscriberUpdate { id, site, extension, .. } => {
            view.load_subscriber(tx, *id, path).await?;
            view.load_site(tx, site.flatten()).await?;
            let extension = extension.as_ref().and_then(Option::as_ref);
            view.load_extension(tx, owner, extension, Some(id.uuid())).await?;
        }
        Command::SubscriberPasswordSet { id, .. } => view.load_subscriber(tx, *id, path).await?,
        Command::SubscriberDelete { id } => {
            view.load_subscriber(tx, *id, path).await?;
            view.subscriber_numbers = number::assigned(tx, *id).await?;
        }
        Command::NumberCreate { e164, subscriber, .. } => {
            view.load_assignee(tx, scope, *subscriber).await?;
            view.takes(Taken::E164, global_holder(tx, number::E164, &e164.to_string()).await?, None);
        }
        Command::NumberAssign { id, subscriber } => {
            view.load_assignee(tx, scope, *subscriber).await?;
            view.number = load::<number::Row>(tx, number::LOAD, id.uuid(), Lock::Held).await?;
        }
        Command::NumberDelete { id } => {
            view.number = load::<number::Row>(tx, number::LOAD, id.uuid(), Lock::Held).await?;
        }
        Command::TrunkCreate { name, address, .. } => {
            view.takes(Taken::Name, holder(tx, trunk::NAME, owner, name).await?, None);
            view.takes(Taken::Address, global_holder(tx, trunk::ADDRESS, &address.to_string()).await?, None);
        }
        Command::TrunkUpdate { id, .. } => {
            view.trunk = load::<trunk::Row>(tx, trunk::LOAD, id.uuid(), Lock::Held).await?;
        }
        Command::TokenIssue { name, .. } => {
            view.takes(Taken::Name, holder(tx, token::NAME, owner, name).await?, None);
        }
        Command::TokenRevoke { id } => {
            view.token = load::<token::Row>(tx, token::LOAD, id.uuid(), Lock::Held).await?;
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
        Command::SubscriberCreate { domain, .. } => (domain::OWNER, domain.uuid()),
        Command::SubscriberUpdate { id, .. }
        | Command::SubscriberPasswordSet { id, .. }
        | Command::SubscriberDelete { id } => (subscriber::OWNER, id.uuid()),
        Command::NumberAssign { id, .. } | Command::NumberDelete { id } => (number::OWNER, id.uuid()),
        Command::TrunkUpdate { id, .. } => (trunk::OWNER, id.uuid()),
        Command::TokenRevoke { id } => (token::OWNER, id.uuid()),
    };
    owner(tx, sql, scope, id).await
}

/// The parts that several commands share.
trait Parts {
    fn takes(&mut self, what: Taken, holder: Option<Uuid>, itself: Option<Uuid>);
    async fn load_domain(&mut self, tx: &mut Tx, id: DomainId) -> Result<(), DbError>;
    async fn load_site(&mut self, tx: &mut Tx, id: Option<SiteId>) -> Result<(), DbError>;
    async fn load_subscriber(&mut self, tx: &mut Tx, id: SubscriberId, path: AccountPath) -> Result<(), DbError>;
    async fn load_assignee(&mut self, tx: &mut Tx, scope: &Scope, id: Option<SubscriberId>) -> Result<(), DbError>;
    async fn load_extension(
        &mut self,
        tx: &mut Tx,
        customer: Uuid,
        extension: Option<&Extension>,
        itself: Option<Uuid>,
    ) -> Result<(), DbError>;
}

impl Parts for View {
    fn takes(&mut self, what: Taken, holder: Option<Uuid>, itself: Option<Uuid>) {
        if holder.is_some() && holder != itself {
            self.taken.push(what);
        }
    }

    async fn load_domain(&mut self, tx: &mut Tx, id: DomainId) -> Result<(), DbError> {
        self.domain = load::<domain::Row>(tx, domain::LOAD, id.uuid(), Lock::Free).await?;
        Ok(())
    }

    async fn load_site(&mut self, tx: &mut Tx, id: Option<SiteId>) -> Result<(), DbError> {
        if let Some(id) = id {
            self.site = load::<site::Row>(tx, site::LOAD, id.uuid(), Lock::Free).await?;
        }
        Ok(())
    }

    async fn load_subscriber(&mut self, tx: &mut Tx, id: SubscriberId, path: AccountPath) -> Result<(), DbError> {
        self.subscriber = load::<subscriber::Row>(tx, subscriber::LOAD, id.uuid(), Lock::Held).await?;
        self.subscriber_path = Some(path);
        if let Some(domain) = self.subscriber.as_ref().map(|s| s.domain) {
            self.load_domain(tx, domain).await?;
        }
        Ok(())
    }

    /// The subscriber of a number; locked, so that it cannot go while the number is given to it.
    async fn load_assignee(&mut self, tx: &mut Tx, scope: &Scope, id: Option<SubscriberId>) -> Result<(), DbError> {
        let Some(id) = id else { return Ok(()) };
        self.subscriber_path = owner(tx, subscriber::OWNER, scope, id.uuid()).await?;
        if self.subscriber_path.is_some() {
            self.subscriber = load::<subscriber::Row>(tx, subscriber::LOAD, id.uuid(), Lock::Held).await?;
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
}

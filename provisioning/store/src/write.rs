//! Carries out what was decided. What comes into being is gathered and written many rows at a time, before the next
//! change of what is there.

use std::collections::BTreeMap;

use db::dialect::bulk_insert;
use db::{DbError, Tx};
use model::id::ChangeId;
use model::secret::Secret;
use model::tenancy::AccountPath;
use model::time::Timestamp;
use provisioning::resource::{Account, Domain, Number, Site};
use provisioning::view::Write;
use uuid::Uuid;

use crate::row::New;
use crate::seal::Sealer;
use crate::subscriber::{NewSubscriber, credentials};
use crate::{account, bulk, domain, number, reversal, site, subscriber, token, trunk};

/// Secrets that are shown once, each with the object that it is of.
pub(crate) type Revealed = Vec<(Uuid, Secret<String>)>;

/// Carries the writes of a change out, in their order.
pub(crate) async fn write_all(
    tx: &mut Tx,
    sealer: &Sealer,
    change: ChangeId,
    now: Timestamp,
    writes: Vec<Write>,
) -> Result<Revealed, DbError> {
    let mut writer = Writer::new(tx, sealer, now);
    writer.take(change, writes).await?;
    writer.finish().await
}

/// Writes in a transaction.
pub(crate) struct Writer<'a> {
    tx: &'a mut Tx,
    sealer: &'a Sealer,
    now: Timestamp,
    revealed: Revealed,
    accounts: Vec<New<Account>>,
    domains: Vec<New<Domain>>,
    sites: Vec<New<Site>>,
    subscribers: Vec<NewSubscriber>,
    numbers: Vec<New<Number>>,
    counts: BTreeMap<AccountPath, i64>,
}

impl<'a> Writer<'a> {
    pub(crate) const fn new(tx: &'a mut Tx, sealer: &'a Sealer, now: Timestamp) -> Self {
        Self {
            tx,
            sealer,
            now,
            revealed: Vec::new(),
            accounts: Vec::new(),
            domains: Vec::new(),
            sites: Vec::new(),
            subscribers: Vec::new(),
            numbers: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    /// Takes in the writes of a change.
    pub(crate) async fn take(&mut self, change: ChangeId, writes: Vec<Write>) -> Result<(), DbError> {
        for write in writes {
            match write {
                Write::AccountInsert(account) => self.accounts.push(New(account)),
                Write::DomainInsert(domain) => self.domains.push(New(domain)),
                Write::SiteInsert(site) => self.sites.push(New(site)),
                Write::SubscriberInsert(subscriber, password) => {
                    let mut credentials = credentials(self.sealer, &subscriber, password)?;
                    self.revealed.extend(credentials.revealed.take().map(|secret| (subscriber.id.uuid(), secret)));
                    self.subscribers.push(NewSubscriber { subscriber, credentials });
                }
                Write::SubscriberRestore(subscriber) => {
                    self.subscribers.push(subscriber::restored(self.tx, subscriber).await?);
                }
                Write::NumberInsert(number) => self.numbers.push(New(number)),
                Write::SubscriberCount { path, delta } => *self.counts.entry(path).or_default() += delta,
                write => {
                    self.flush().await?;
                    self.write(change, write).await?;
                }
            }
        }
        Ok(())
    }

    /// Writes what was gathered, and gives the secrets that are shown once.
    pub(crate) async fn finish(mut self) -> Result<Revealed, DbError> {
        self.flush().await?;
        Ok(self.revealed)
    }

    /// In the order in which rows refer to each other.
    async fn flush(&mut self) -> Result<(), DbError> {
        bulk_insert(self.tx, &std::mem::take(&mut self.accounts), "").await?;
        bulk_insert(self.tx, &std::mem::take(&mut self.domains), "").await?;
        bulk_insert(self.tx, &std::mem::take(&mut self.sites), "").await?;
        bulk_insert(self.tx, &std::mem::take(&mut self.subscribers), "").await?;
        bulk_insert(self.tx, &std::mem::take(&mut self.numbers), "").await?;
        for (path, delta) in std::mem::take(&mut self.counts) {
            account::subscribers_count(self.tx, &path, delta).await?;
        }
        Ok(())
    }

    async fn write(&mut self, change: ChangeId, write: Write) -> Result<(), DbError> {
        let (tx, sealer) = (&mut *self.tx, self.sealer);
        match write {
            Write::AccountUpdate(account) => account::update(tx, &account).await,
            Write::DomainUpdate(domain) => domain::update(tx, &domain).await,
            Write::DomainDelete(id, version) => domain::delete(tx, id, version).await,
            Write::SiteUpdate(site) => site::update(tx, &site).await,
            Write::SiteDelete(id, version) => site::delete(tx, id, version).await,
            Write::SubscriberUpdate(subscriber) => subscriber::update(tx, &subscriber).await,
            Write::SubscriberCredentials(subscriber, password) => {
                let mut credentials = credentials(sealer, &subscriber, password)?;
                subscriber::credentials_update(tx, &subscriber, &credentials).await?;
                self.revealed.extend(credentials.revealed.take().map(|secret| (subscriber.id.uuid(), secret)));
                Ok(())
            }
            Write::SubscriberDelete(id, version) => subscriber::delete(tx, id, version, self.now).await,
            Write::NumberUpdate(number) => number::update(tx, &number).await,
            Write::NumberDelete(id, version) => number::delete(tx, id, version).await,
            Write::TrunkInsert(trunk, password) => trunk::insert(tx, sealer, &trunk, password.as_ref()).await,
            Write::TrunkUpdate(trunk) => trunk::update(tx, &trunk).await,
            Write::TokenInsert(token) => {
                self.revealed.push((token.id.uuid(), token::insert(tx, &token).await?));
                Ok(())
            }
            Write::TokenUpdate(token) => token::update(tx, &token).await,
            Write::TokenRotate(token) => {
                self.revealed.push((token.id.uuid(), token::rotate(tx, &token).await?));
                Ok(())
            }
            Write::BulkJobUpdate(job) => bulk::update(tx, &job).await,
            Write::BulkJobBegun { job, token } => bulk::begun(tx, job, token).await,
            Write::Reversal(reverted) => reversal::insert(tx, reverted, change).await,
            // gathered by the caller
            Write::AccountInsert(_)
            | Write::DomainInsert(_)
            | Write::SiteInsert(_)
            | Write::SubscriberInsert(..)
            | Write::SubscriberRestore(_)
            | Write::NumberInsert(_)
            | Write::SubscriberCount { .. } => Ok(()),
        }
    }
}

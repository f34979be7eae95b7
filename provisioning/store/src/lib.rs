//! Provisioning in the store: the account tree and all that hangs below it, in SQLite or PostgreSQL.
//!
//! What it does: implements the ports of [`provisioning`] by [`ProvisioningStore`]: changes, reads, bearer tokens, the
//! source of the call core's directory, registrations over a restart. What it never does: decide (that is pure code in
//! `provisioning`), give a secret to a face, or answer without a scope.
//!
//! How to drive it: open the database and the [`KeyFile`], make one [`ProvisioningStore`], share it.
//! [`ProvisioningStore::bootstrap`] makes the provider and the first token. Who is locked out commits an ordinary
//! `TokenIssue` as [`ProvisioningStore::system`].
//!
//! Locks on PostgreSQL are taken in one order: accounts by path, then subscriber, then numbers, then the rest; the
//! counters of events and audit last.

mod access;
mod account;
mod audit;
mod bootstrap;
mod bulk;
mod change;
mod directory;
mod domain;
mod key;
mod number;
mod open;
mod queries;
mod registration;
mod reversal;
mod row;
mod seal;
mod site;
mod subscriber;
mod token;
mod trunk;
mod view;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use db::{Db, DbError, WriteError};
use model::time::Timestamp;
use uuid::Uuid;

pub use crate::bulk::BulkStep;
pub use crate::key::{KeyFile, KeyFileError};
pub use crate::open::OpenError;
use crate::seal::Sealer;

/// The provisioning folder's part of the store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ProvisioningStore {
    db: Db,
    sealer: Arc<Sealer>,
    /// When tokens were used that the store does not know of yet.
    uses: Arc<Mutex<BTreeMap<Uuid, i64>>>,
}

impl ProvisioningStore {
    /// Over a migrated database and the key that seals its secrets.
    #[must_use]
    pub fn new(db: Db, key: &KeyFile) -> Self {
        Self { db, sealer: Arc::new(Sealer::new(key)), uses: Arc::default() }
    }

    /// Forgets the credentials of subscribers that were removed before `before`: their removal cannot be taken back
    /// any more. Gives how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_credentials(&self, before: Timestamp) -> Result<u64, DbError> {
        let forgotten = self
            .db
            .write::<_, Infallible, _>(move |tx| Box::pin(async move { Ok(subscriber::forget(tx, before).await?) }));
        match forgotten.await {
            Ok(count) => Ok(count),
            Err(WriteError::Db(error)) => Err(error),
            Err(WriteError::Refused(never)) => match never {},
        }
    }
}

/// Every statement that runs on both engines; a test prepares each on both.
#[cfg(test)]
fn all_statements() -> Vec<&'static str> {
    [
        access::ALL,
        account::ALL,
        audit::ALL,
        bootstrap::ALL,
        bulk::ALL,
        bulk::lines::ALL,
        bulk::run::ALL,
        directory::ALL,
        domain::ALL,
        number::ALL,
        open::ALL,
        registration::ALL,
        reversal::ALL,
        site::ALL,
        subscriber::ALL,
        token::ALL,
        trunk::ALL,
    ]
    .concat()
}

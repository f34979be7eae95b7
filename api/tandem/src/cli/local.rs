//! What the commands that work on the store itself have in common: the operator of the machine acts as the system.

use std::sync::Arc;

use db::Db;
use db::system::{SystemClock, SystemIds};
use model::ctx::Ctx;
use model::id::IdSource;
use model::time::Clock;
use provisioning_store::ProvisioningStore;

use super::Failure;
use crate::config::Config;
use crate::daemon::NotInitialised;

/// The opened store with what the commands need of it.
pub struct Local {
    /// The store.
    pub store: Db,
    /// Provisioning over it.
    pub provisioning: ProvisioningStore,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The identifiers.
    pub ids: Arc<dyn IdSource>,
}

impl Local {
    /// Opens the store that the configuration names. The daemon may be running beside it.
    pub async fn open(config: &Config) -> Result<Self, Failure> {
        let store = Self::store(config).await?;
        let provisioning = ProvisioningStore::open(store.clone(), &crate::storage::key_file(config)).await?;
        Ok(Self::over(store, provisioning))
    }

    /// The same for an installation that is about to be made: draws its key.
    pub async fn create(config: &Config) -> Result<Self, Failure> {
        let store = Self::store(config).await?;
        let provisioning = ProvisioningStore::create(store.clone(), &crate::storage::key_file(config)).await?;
        Ok(Self::over(store, provisioning))
    }

    async fn store(config: &Config) -> Result<Db, Failure> {
        crate::data_dir::create(&config.node.data_dir)?;
        Ok(crate::storage::open_store(config).await?)
    }

    fn over(store: Db, provisioning: ProvisioningStore) -> Self {
        Self { store, provisioning, clock: Arc::new(SystemClock), ids: Arc::new(SystemIds) }
    }

    /// The context of the system itself: every permission, the whole installation.
    pub async fn system(&self) -> Result<Ctx, Failure> {
        let ctx = self.provisioning.system(Arc::clone(&self.clock), Arc::clone(&self.ids)).await?;
        Ok(ctx.ok_or(NotInitialised)?)
    }

    /// Billing over the same store.
    pub async fn billing(&self, config: &Config) -> Result<billing_store::BillingStore, Failure> {
        let installation = self.provisioning.installation().await?.ok_or(NotInitialised)?;
        let (store, files) = (self.store.clone(), config.billing_files_dir());
        let (clock, ids) = (Arc::clone(&self.clock), Arc::clone(&self.ids));
        Ok(billing_store::BillingStore::new(store, files, installation, clock, ids))
    }
}

//! Reads, each within the caller's scope.

use async_trait::async_trait;
use model::actor::Permission;
use model::ctx::Ctx;
use model::id::{AccountId, ChangeId, DomainId, NumberId, SiteId, SubscriberId, TokenId, TrunkId};
use model::page::{Page, PageRequest, ReadError};
use provisioning::port::{AuditEntry, AuditFilter, Queries};
use provisioning::resource::{Account, Domain, Number, Site, Subscriber, Token, Trunk};

use crate::row::{get, list};
use crate::{ProvisioningStore, account, audit, domain, number, site, subscriber, token, trunk};

#[async_trait]
impl Queries for ProvisioningStore {
    async fn account_get(&self, ctx: &Ctx, id: AccountId) -> Result<Option<Account>, ReadError> {
        ctx.require(Permission::ProvisioningRead)?;
        get::<account::Row>(&self.db, account::GET, &ctx.scope, id.uuid()).await
    }

    async fn account_list(
        &self,
        ctx: &Ctx,
        parent: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<Account>, ReadError> {
        ctx.require(Permission::ProvisioningRead)?;
        account::account_list(&self.db, &ctx.scope, parent, &page).await
    }

    async fn domain_get(&self, ctx: &Ctx, id: DomainId) -> Result<Option<Domain>, ReadError> {
        ctx.require(Permission::ProvisioningRead)?;
        get::<domain::Row>(&self.db, domain::GET, &ctx.scope, id.uuid()).await
    }

    async fn domain_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<Domain>, ReadError> {
        ctx.require(Permission::ProvisioningRead)?;
        let statements = (domain::LIST, domain::LIST_OWNED);
        list::<domain::Row>(&self.db, statements, &ctx.scope, account, &page, |r| r.id.uuid()).await
    }

    async fn site_get(&self, ctx: &Ctx, id: SiteId) -> Result<Option<Site>, ReadError> {
        ctx.require(Permission::ProvisioningRead)?;
        get::<site::Row>(&self.db, site::GET, &ctx.scope, id.uuid()).await
    }

    async fn site_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<Site>, ReadError> {
        ctx.require(Permission::ProvisioningRead)?;
        let statements = (site::LIST, site::LIST_OWNED);
        list::<site::Row>(&self.db, statements, &ctx.scope, account, &page, |r| r.id.uuid()).await
    }

    async fn subscriber_get(&self, ctx: &Ctx, id: SubscriberId) -> Result<Option<Subscriber>, ReadError> {
        ctx.require(Permission::ProvisioningRead)?;
        get::<subscriber::Row>(&self.db, subscriber::GET, &ctx.scope, id.uuid()).await
    }

    async fn subscriber_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<Subscriber>, ReadError> {
        ctx.require(Permission::ProvisioningRead)?;
        let statements = (subscriber::LIST, subscriber::LIST_OWNED);
        list::<subscriber::Row>(&self.db, statements, &ctx.scope, account, &page, |r| r.id.uuid()).await
    }

    async fn number_get(&self, ctx: &Ctx, id: NumberId) -> Result<Option<Number>, ReadError> {
        ctx.require(Permission::ProvisioningRead)?;
        get::<number::Row>(&self.db, number::GET, &ctx.scope, id.uuid()).await
    }

    async fn number_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<Number>, ReadError> {
        ctx.require(Permission::ProvisioningRead)?;
        let statements = (number::LIST, number::LIST_OWNED);
        list::<number::Row>(&self.db, statements, &ctx.scope, account, &page, |r| r.id.uuid()).await
    }

    async fn trunk_get(&self, ctx: &Ctx, id: TrunkId) -> Result<Option<Trunk>, ReadError> {
        ctx.require(Permission::ProvisioningRead)?;
        get::<trunk::Row>(&self.db, trunk::GET, &ctx.scope, id.uuid()).await
    }

    async fn trunk_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<Trunk>, ReadError> {
        ctx.require(Permission::ProvisioningRead)?;
        let statements = (trunk::LIST, trunk::LIST_OWNED);
        list::<trunk::Row>(&self.db, statements, &ctx.scope, account, &page, |r| r.id.uuid()).await
    }

    async fn token_get(&self, ctx: &Ctx, id: TokenId) -> Result<Option<Token>, ReadError> {
        ctx.require(Permission::TokenWrite)?;
        get::<token::Row>(&self.db, token::GET, &ctx.scope, id.uuid()).await
    }

    async fn token_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<Token>, ReadError> {
        ctx.require(Permission::TokenWrite)?;
        let statements = (token::LIST, token::LIST_OWNED);
        list::<token::Row>(&self.db, statements, &ctx.scope, account, &page, |r| r.id.uuid()).await
    }

    async fn audit_get(&self, ctx: &Ctx, change: ChangeId) -> Result<Option<AuditEntry>, ReadError> {
        ctx.require(Permission::AuditRead)?;
        get::<audit::Row>(&self.db, audit::GET, &ctx.scope, change.uuid()).await
    }

    async fn audit_list(
        &self,
        ctx: &Ctx,
        filter: AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditEntry>, ReadError> {
        ctx.require(Permission::AuditRead)?;
        audit::audit_list(&self.db, &ctx.scope, filter, &page).await
    }
}

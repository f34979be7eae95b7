//! The queries: `node`, `viewer`, one connection per resource.

use std::sync::Arc;

use api_http::global_id;
use async_graphql::connection::Connection;
use async_graphql::{Context, ID, Object, Result, SimpleObject};
use model::actor::Permission as Right;
use model::change::ResourceKind;
use model::ctx::Ctx;
use model::page::Page;
use provisioning::port::AuditFilter;
use reports::resource::Subject;

use crate::argument::{
    allowed, caller, connection, deps, filter, interval_complexity, list_complexity, page, page_complexity, required,
    resource_key,
};
use crate::batch::Tariffs;
use crate::error;
use crate::object::billing::{LedgerBalance, RatedUsage, Suspense, TariffAssignment, Usage};
use crate::object::fault::alarm_key;
use crate::object::reports::PerformanceInterval;
use crate::object::{
    Account, Alarm, BillingFile, BulkJob, Change, Domain, Node, Number, ReportRun, Site, Stream, Subscriber, Tariff,
    Token, Trunk, global,
};
use crate::scalar::{Permission, Timestamp};
use crate::schema::GraphqlDeps;

/// Who asks.
#[derive(Debug, SimpleObject)]
pub struct Viewer {
    /// Name of the token or person.
    name: String,
    /// The account whose subtree is within reach.
    account_id: ID,
    /// What may be done there.
    permissions: Vec<Permission>,
}

/// Everything that can be read. What lies outside the subtree of the token's account looks as if it were not there.
pub struct Query;

#[Object]
impl Query {
    /// The object with a global identifier; null when there is none within reach.
    async fn node(&self, context: &Context<'_>, id: ID) -> Result<Option<Node>> {
        let ctx = caller(context)?;
        let Some((kind, key)) = global_id::decode(&id) else { return Ok(None) };
        ctx.require(read_permission(kind)).map_err(error::forbidden)?;
        node(deps(context)?, ctx, kind, &key).await
    }

    /// Who asks.
    async fn viewer(&self, context: &Context<'_>) -> Result<Viewer> {
        let actor = &caller(context)?.actor;
        Ok(Viewer {
            name: actor.name.clone(),
            account_id: global(ResourceKind::Account, actor.account),
            permissions: actor.permissions.iter().map(Permission).collect(),
        })
    }

    /// Accounts directly below `parentId`; without it, all within reach.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn accounts(
        &self,
        context: &Context<'_>,
        parent_id: Option<ID>,
        #[graphql(default = 50)] first: u32,
        after: Option<String>,
    ) -> Result<Connection<String, Account>> {
        let ctx = allowed(context, Right::ProvisioningRead)?;
        let parent = filter(ResourceKind::Account, "parentId", parent_id)?;
        let (page, later) = (page(first, after.clone())?, after.is_some());
        let page = deps(context)?.provisioning.account_list(ctx, parent, page).await.map_err(error::read)?;
        Ok(connection(page, later))
    }

    /// SIP domains.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn domains(
        &self,
        context: &Context<'_>,
        account_id: Option<ID>,
        #[graphql(default = 50)] first: u32,
        after: Option<String>,
    ) -> Result<Connection<String, Domain>> {
        let ctx = allowed(context, Right::ProvisioningRead)?;
        let account = filter(ResourceKind::Account, "accountId", account_id)?;
        let (page, later) = (page(first, after.clone())?, after.is_some());
        let page = deps(context)?.provisioning.domain_list(ctx, account, page).await.map_err(error::read)?;
        Ok(connection(page, later))
    }

    /// Sites of customers.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn sites(
        &self,
        context: &Context<'_>,
        account_id: Option<ID>,
        #[graphql(default = 50)] first: u32,
        after: Option<String>,
    ) -> Result<Connection<String, Site>> {
        let ctx = allowed(context, Right::ProvisioningRead)?;
        let account = filter(ResourceKind::Account, "accountId", account_id)?;
        let (page, later) = (page(first, after.clone())?, after.is_some());
        let page = deps(context)?.provisioning.site_list(ctx, account, page).await.map_err(error::read)?;
        Ok(connection(page, later))
    }

    /// Subscribers.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn subscribers(
        &self,
        context: &Context<'_>,
        account_id: Option<ID>,
        #[graphql(default = 50)] first: u32,
        after: Option<String>,
    ) -> Result<Connection<String, Subscriber>> {
        let ctx = allowed(context, Right::ProvisioningRead)?;
        let account = filter(ResourceKind::Account, "accountId", account_id)?;
        let (page, later) = (page(first, after.clone())?, after.is_some());
        let page = deps(context)?.provisioning.subscriber_list(ctx, account, page).await.map_err(error::read)?;
        Ok(connection(page, later))
    }

    /// Numbers of the inventory.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn numbers(
        &self,
        context: &Context<'_>,
        account_id: Option<ID>,
        #[graphql(default = 50)] first: u32,
        after: Option<String>,
    ) -> Result<Connection<String, Number>> {
        let ctx = allowed(context, Right::ProvisioningRead)?;
        let account = filter(ResourceKind::Account, "accountId", account_id)?;
        let (page, later) = (page(first, after.clone())?, after.is_some());
        let page = deps(context)?.provisioning.number_list(ctx, account, page).await.map_err(error::read)?;
        Ok(connection(page, later))
    }

    /// SIP trunks.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn trunks(
        &self,
        context: &Context<'_>,
        account_id: Option<ID>,
        #[graphql(default = 50)] first: u32,
        after: Option<String>,
    ) -> Result<Connection<String, Trunk>> {
        let ctx = allowed(context, Right::ProvisioningRead)?;
        let account = filter(ResourceKind::Account, "accountId", account_id)?;
        let (page, later) = (page(first, after.clone())?, after.is_some());
        let page = deps(context)?.provisioning.trunk_list(ctx, account, page).await.map_err(error::read)?;
        Ok(connection(page, later))
    }

    /// API tokens, without the tokens themselves.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn tokens(
        &self,
        context: &Context<'_>,
        account_id: Option<ID>,
        #[graphql(default = 50)] first: u32,
        after: Option<String>,
    ) -> Result<Connection<String, Token>> {
        let ctx = allowed(context, Right::TokenWrite)?;
        let account = filter(ResourceKind::Account, "accountId", account_id)?;
        let (page, later) = (page(first, after.clone())?, after.is_some());
        let page = deps(context)?.provisioning.token_list(ctx, account, page).await.map_err(error::read)?;
        Ok(connection(page, later))
    }

    /// The changes that were made, at and below an account or all within reach: the audit trail; or the history of one
    /// object. The newest first, or from the first one on.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn changes(
        &self,
        context: &Context<'_>,
        account_id: Option<ID>,
        resource_id: Option<ID>,
        #[graphql(default = false)] oldest_first: bool,
        #[graphql(default = 50)] first: u32,
        after: Option<String>,
    ) -> Result<Connection<String, Change>> {
        let ctx = allowed(context, Right::AuditRead)?;
        let account = filter(ResourceKind::Account, "accountId", account_id)?;
        let (page, later) = (page(first, after.clone())?, after.is_some());
        let resource = resource_id.map(|id| resource_key("resourceId", &id)).transpose()?;
        let filter = AuditFilter { account, resource, oldest_first };
        let page = deps(context)?.provisioning.audit_list(ctx, filter, page).await.map_err(error::read)?;
        Ok(connection(page, later))
    }

    /// Bulk jobs.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn bulk_jobs(
        &self,
        context: &Context<'_>,
        account_id: Option<ID>,
        #[graphql(default = 50)] first: u32,
        after: Option<String>,
    ) -> Result<Connection<String, BulkJob>> {
        let ctx = allowed(context, Right::ProvisioningRead)?;
        let account = filter(ResourceKind::Account, "accountId", account_id)?;
        let (page, later) = (page(first, after.clone())?, after.is_some());
        let page = deps(context)?.bulk.job_list(ctx, account, page).await.map_err(error::read)?;
        Ok(connection(page, later))
    }

    /// Tariffs.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn tariffs(
        &self,
        context: &Context<'_>,
        account_id: Option<ID>,
        #[graphql(default = 50)] first: u32,
        after: Option<String>,
    ) -> Result<Connection<String, Tariff>> {
        let ctx = allowed(context, Right::BillingRead)?;
        let account = filter(ResourceKind::Account, "accountId", account_id)?;
        let (page, later) = (page(first, after.clone())?, after.is_some());
        let Page { items, has_next } =
            deps(context)?.billing.tariff_list(ctx, account, page).await.map_err(error::read)?;
        let siblings = Tariffs::new(items.iter().map(|(_, tariff)| tariff.id));
        let items = items.into_iter().map(|(cursor, tariff)| (cursor, (tariff, Arc::clone(&siblings)))).collect();
        Ok(connection(Page { items, has_next }, later))
    }

    /// To whom tariffs apply.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn tariff_assignments(
        &self,
        context: &Context<'_>,
        #[graphql(default = 50)] first: u32,
        after: Option<String>,
    ) -> Result<Connection<String, TariffAssignment>> {
        let ctx = allowed(context, Right::BillingRead)?;
        let (page, later) = (page(first, after.clone())?, after.is_some());
        let page = deps(context)?.billing.tariff_assignment_list(ctx, page).await.map_err(error::read)?;
        Ok(connection(page, later))
    }

    /// Streams of billing files.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn streams(
        &self,
        context: &Context<'_>,
        account_id: Option<ID>,
        #[graphql(default = 50)] first: u32,
        after: Option<String>,
    ) -> Result<Connection<String, Stream>> {
        let ctx = allowed(context, Right::BillingRead)?;
        let account = filter(ResourceKind::Account, "accountId", account_id)?;
        let (page, later) = (page(first, after.clone())?, after.is_some());
        let page = deps(context)?.billing.stream_list(ctx, account, page).await.map_err(error::read)?;
        Ok(connection(page, later))
    }

    /// Closed files of a stream, in the order of the sequence.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn billing_files(
        &self,
        context: &Context<'_>,
        stream_id: ID,
        #[graphql(default = 50)] first: u32,
        after: Option<String>,
    ) -> Result<Connection<String, BillingFile>> {
        let ctx = allowed(context, Right::BillingRead)?;
        let stream = required(ResourceKind::Stream, "streamId", &stream_id)?;
        let (page, later) = (page(first, after.clone())?, after.is_some());
        let page = deps(context)?.billing.file_list(ctx, stream, page).await.map_err(error::read)?;
        Ok(connection(page, later))
    }

    /// Legs of answered calls, account by account, in the order of the call.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn usage(
        &self,
        context: &Context<'_>,
        account_id: Option<ID>,
        #[graphql(default = 50)] first: u32,
        after: Option<String>,
    ) -> Result<Connection<String, Usage>> {
        let ctx = allowed(context, Right::BillingRead)?;
        let account = filter(ResourceKind::Account, "accountId", account_id)?;
        let (page, later) = (page(first, after.clone())?, after.is_some());
        let page = deps(context)?.billing.usage_list(ctx, account, page).await.map_err(error::read)?;
        Ok(connection(page, later))
    }

    /// All legs and parts of one call; empty when there is no such call within reach.
    #[graphql(complexity = "list_complexity(child_complexity)")]
    async fn call(&self, context: &Context<'_>, call_id: ID) -> Result<Vec<Usage>> {
        let ctx = allowed(context, Right::BillingRead)?;
        let Ok(call) = call_id.parse() else { return Ok(Vec::new()) };
        let legs = deps(context)?.billing.usage_get(ctx, call).await.map_err(error::read)?;
        Ok(legs.into_iter().map(Usage::from).collect())
    }

    /// Charges, account by account, in the order of the call.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn rated_usage(
        &self,
        context: &Context<'_>,
        account_id: Option<ID>,
        #[graphql(default = 50)] first: u32,
        after: Option<String>,
    ) -> Result<Connection<String, RatedUsage>> {
        let ctx = allowed(context, Right::BillingRead)?;
        let account = filter(ResourceKind::Account, "accountId", account_id)?;
        let (page, later) = (page(first, after.clone())?, after.is_some());
        let page = deps(context)?.billing.rated_list(ctx, account, page).await.map_err(error::read)?;
        Ok(connection(page, later))
    }

    /// Charges that could not be rated and wait, account by account.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn suspense(
        &self,
        context: &Context<'_>,
        account_id: Option<ID>,
        #[graphql(default = 50)] first: u32,
        after: Option<String>,
    ) -> Result<Connection<String, Suspense>> {
        let ctx = allowed(context, Right::BillingRead)?;
        let account = filter(ResourceKind::Account, "accountId", account_id)?;
        let (page, later) = (page(first, after.clone())?, after.is_some());
        let page = deps(context)?.billing.suspense_list(ctx, account, page).await.map_err(error::read)?;
        Ok(connection(page, later))
    }

    /// Balances, account by account.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn ledger_balances(
        &self,
        context: &Context<'_>,
        account_id: Option<ID>,
        #[graphql(default = 50)] first: u32,
        after: Option<String>,
    ) -> Result<Connection<String, LedgerBalance>> {
        let ctx = allowed(context, Right::BillingRead)?;
        let account = filter(ResourceKind::Account, "accountId", account_id)?;
        let (page, later) = (page(first, after.clone())?, after.is_some());
        let page = deps(context)?.billing.ledger_balance_list(ctx, account, page).await.map_err(error::read)?;
        Ok(connection(page, later))
    }

    /// Alarms, newest first: the active ones, or all.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn alarms(
        &self,
        context: &Context<'_>,
        #[graphql(default = true)] active: bool,
        #[graphql(default = 50)] first: u32,
        after: Option<String>,
    ) -> Result<Connection<String, Alarm>> {
        let ctx = allowed(context, Right::AlarmRead)?;
        let (page, later) = (page(first, after.clone())?, after.is_some());
        let page = deps(context)?.fault.alarm_list(ctx, active, page).await.map_err(error::read)?;
        Ok(connection(page, later))
    }

    /// Runs of reports.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn report_runs(
        &self,
        context: &Context<'_>,
        #[graphql(default = 50)] first: u32,
        after: Option<String>,
    ) -> Result<Connection<String, ReportRun>> {
        let ctx = allowed(context, Right::ReportRead)?;
        let (page, later) = (page(first, after.clone())?, after.is_some());
        let page = deps(context)?.reports.run_list(ctx, page).await.map_err(error::read)?;
        Ok(connection(page, later))
    }

    /// Counters of 15 minutes of an account and all below it, or of a trunk, or (neither given) of the installation;
    /// intervals without calls are left out. At most 31 days; each interval that `from` and `to` span costs what is
    /// selected of it.
    #[graphql(complexity = "interval_complexity(from, to, child_complexity)")]
    async fn performance_intervals(
        &self,
        context: &Context<'_>,
        account_id: Option<ID>,
        trunk_id: Option<ID>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<PerformanceInterval>> {
        let ctx = allowed(context, Right::ReportRead)?;
        let account = filter(ResourceKind::Account, "accountId", account_id)?;
        let trunk = filter(ResourceKind::Trunk, "trunkId", trunk_id)?;
        let subject = match (account, trunk) {
            (Some(account), None) => Subject::Account(account),
            (None, Some(trunk)) => Subject::Trunk(trunk),
            (None, None) => Subject::Installation,
            (Some(_), Some(_)) => {
                return Err(error::coded(error::BAD_REQUEST, "trunkId: send either accountId or trunkId"));
            }
        };
        let intervals = deps(context)?.reports.interval_list(ctx, subject, from.0, to.0).await.map_err(error::read)?;
        Ok(intervals.into_iter().map(PerformanceInterval::from).collect())
    }
}

/// What must be held to read an object of a kind.
const fn read_permission(kind: ResourceKind) -> Right {
    match kind {
        ResourceKind::Account
        | ResourceKind::Domain
        | ResourceKind::Site
        | ResourceKind::Subscriber
        | ResourceKind::Number
        | ResourceKind::Trunk
        | ResourceKind::BulkJob => Right::ProvisioningRead,
        ResourceKind::Token => Right::TokenWrite,
        ResourceKind::Tariff | ResourceKind::TariffAssignment | ResourceKind::Stream | ResourceKind::BillingFile => {
            Right::BillingRead
        }
        ResourceKind::Alarm | ResourceKind::NotificationTarget => Right::AlarmRead,
        ResourceKind::ReportRun => Right::ReportRead,
        ResourceKind::Change => Right::AuditRead,
    }
}

async fn node(deps: &GraphqlDeps, ctx: &Ctx, kind: ResourceKind, key: &str) -> Result<Option<Node>> {
    macro_rules! get {
        ($port:ident . $method:ident, $object:ident) => {{
            let Ok(id) = key.parse() else { return Ok(None) };
            deps.$port.$method(ctx, id).await.map(|found| found.map(|found| Node::$object($object::from(found))))
        }};
    }
    let found = match kind {
        ResourceKind::Account => get!(provisioning.account_get, Account),
        ResourceKind::Domain => get!(provisioning.domain_get, Domain),
        ResourceKind::Site => get!(provisioning.site_get, Site),
        ResourceKind::Subscriber => get!(provisioning.subscriber_get, Subscriber),
        ResourceKind::Number => get!(provisioning.number_get, Number),
        ResourceKind::Trunk => get!(provisioning.trunk_get, Trunk),
        ResourceKind::Token => get!(provisioning.token_get, Token),
        ResourceKind::Tariff => get!(billing.tariff_get, Tariff),
        ResourceKind::Stream => get!(billing.stream_get, Stream),
        ResourceKind::BillingFile => get!(billing.file_get, BillingFile),
        ResourceKind::ReportRun => get!(reports.run_get, ReportRun),
        ResourceKind::BulkJob => get!(bulk.job_get, BulkJob),
        ResourceKind::Change => get!(provisioning.audit_get, Change),
        ResourceKind::Alarm => {
            let Some((name, number)) = alarm_key(key) else { return Ok(None) };
            let found = deps.fault.alarm_get(ctx, &name, number).await;
            found.map(|found| found.map(|alarm| Node::Alarm(Alarm::from(alarm))))
        }
        // read in lists alone, or not at all
        ResourceKind::TariffAssignment | ResourceKind::NotificationTarget => return Ok(None),
    };
    found.map_err(error::read)
}

//! The mutations: one per command of the four folders, all through `plan` and `commit`.

use std::sync::Arc;

use async_graphql::{Context, ID, Object, Result};
use model::actor::Permission;
use model::change::Change;

use crate::argument::{allowed, deps};
use crate::input::{self, ExpectedVersion, Input};
use crate::payload::ChangePayload;

/// How a client wants a change.
struct Wish {
    dry_run: bool,
    idempotency_key: Option<String>,
    expected_versions: Option<Vec<ExpectedVersion>>,
}

/// Authorises, then plans or commits.
async fn change<I: Input<Command: Send + Sync + 'static>>(
    context: &Context<'_>,
    pipeline: &Arc<dyn Change<I::Command>>,
    permission: Permission,
    input: I,
    named: Option<ID>,
    wish: Wish,
) -> Result<ChangePayload> {
    let ctx = allowed(context, permission)?;
    let prepared = input::options(wish.idempotency_key, wish.expected_versions)
        .and_then(|options| input.command().map(|command| (command, options)));
    let (command, options) = match prepared {
        Ok(prepared) => prepared,
        Err(refusal) => return Ok(ChangePayload::refused(vec![refusal])),
    };
    if wish.dry_run {
        return match pipeline.plan(ctx, &command).await {
            Ok(plan) => Ok(ChangePayload::planned(plan)),
            Err(failure) => ChangePayload::failed(failure),
        };
    }
    match api_http::commit(pipeline, ctx, command, options).await {
        Ok(committed) => Ok(ChangePayload::committed(committed, named)),
        Err(failure) => ChangePayload::failed(failure),
    }
}

/// An alarm is named by node and number, a target by node and name; the plan's identifier of them says less.
trait Named {
    fn named(&self) -> Option<ID> {
        None
    }
}

impl Named for input::AlarmAcknowledgeInput {
    fn named(&self) -> Option<ID> {
        Some(self.id.clone())
    }
}

impl Named for input::AlarmResyncInput {
    fn named(&self) -> Option<ID> {
        Some(self.target.clone())
    }
}

macro_rules! mutations {
    ($($(#[$doc:meta])+ $field:ident($input:ident) $pipeline:ident $permission:ident;)+) => {
        /// Every change. `dryRun` gives the plan and changes nothing; an `idempotencyKey` makes a repetition safe: the same
        /// key with the same input gives the stored answer; `expectedVersions` refuses when an object has changed since.
        pub struct Mutation;

        #[Object]
        impl Mutation {
            $(
                $(#[$doc])+
                async fn $field(
                    &self,
                    context: &Context<'_>,
                    input: input::$input,
                    #[graphql(default = false)] dry_run: bool,
                    idempotency_key: Option<String>,
                    expected_versions: Option<Vec<ExpectedVersion>>,
                ) -> Result<ChangePayload> {
                    let wish = Wish { dry_run, idempotency_key, expected_versions };
                    let named = input.named();
                    change(context, &deps(context)?.$pipeline, Permission::$permission, input, named, wish).await
                }
            )+
        }
    };
}

macro_rules! named_by_their_plan {
    ($($input:ident),+ $(,)?) => { $(impl Named for input::$input {})+ };
}

named_by_their_plan!(
    AccountCreateInput,
    AccountUpdateInput,
    DomainCreateInput,
    SiteCreateInput,
    SubscriberCreateInput,
    SubscriberUpdateInput,
    SubscriberPasswordSetInput,
    SubscriberDeleteInput,
    NumberCreateInput,
    NumberAssignInput,
    NumberReserveInput,
    NumberReleaseInput,
    NumberDeleteInput,
    TrunkCreateInput,
    TrunkUpdateInput,
    TokenIssueInput,
    TokenUpdateInput,
    TokenRotateInput,
    TokenRevokeInput,
    ChangeRevertInput,
    BulkJobStartInput,
    BulkJobCancelInput,
    DomainUpdateInput,
    DomainDeleteInput,
    SiteUpdateInput,
    SiteDeleteInput,
    TariffCreateInput,
    TariffAssignInput,
    StreamCreateInput,
    BillingFileCloseInput,
    BillingFileAcknowledgeInput,
    SuspenseRetryInput,
    ReportRunInput,
);

mutations! {
    /// Makes an account below another.
    account_create(AccountCreateInput) provisioning_change ProvisioningWrite;
    /// Changes an account.
    account_update(AccountUpdateInput) provisioning_change ProvisioningWrite;
    /// Makes a SIP domain of a customer.
    domain_create(DomainCreateInput) provisioning_change ProvisioningWrite;
    /// Makes a site of a customer.
    site_create(SiteCreateInput) provisioning_change ProvisioningWrite;
    /// Changes how a domain reads dialled digits.
    domain_update(DomainUpdateInput) provisioning_change ProvisioningWrite;
    /// Gives up a domain without subscribers; its name is free again.
    domain_delete(DomainDeleteInput) provisioning_change ProvisioningWrite;
    /// Changes a site.
    site_update(SiteUpdateInput) provisioning_change ProvisioningWrite;
    /// Removes a site where no subscriber sits.
    site_delete(SiteDeleteInput) provisioning_change ProvisioningWrite;
    /// Makes a subscriber in a domain.
    subscriber_create(SubscriberCreateInput) provisioning_change ProvisioningWrite;
    /// Changes a subscriber.
    subscriber_update(SubscriberUpdateInput) provisioning_change ProvisioningWrite;
    /// Gives a subscriber a new SIP password. Cannot be taken back.
    subscriber_password_set(SubscriberPasswordSetInput) provisioning_change ProvisioningWrite;
    /// Removes a subscriber; its numbers stay with the customer, unassigned.
    subscriber_delete(SubscriberDeleteInput) provisioning_change ProvisioningWrite;
    /// Takes a number into the inventory of an account.
    number_create(NumberCreateInput) provisioning_change ProvisioningWrite;
    /// Assigns a number, or frees it: then it is quarantined, and only the customer who had it can have it at once.
    number_assign(NumberAssignInput) provisioning_change ProvisioningWrite;
    /// Keeps a number that nobody answers for an account, until an instant.
    number_reserve(NumberReserveInput) provisioning_change ProvisioningWrite;
    /// Ends the reservation or the quarantine of a number.
    number_release(NumberReleaseInput) provisioning_change ProvisioningWrite;
    /// Gives a number back.
    number_delete(NumberDeleteInput) provisioning_change ProvisioningWrite;
    /// Makes a SIP trunk.
    trunk_create(TrunkCreateInput) provisioning_change ProvisioningWrite;
    /// Changes a SIP trunk.
    trunk_update(TrunkUpdateInput) provisioning_change ProvisioningWrite;
    /// Issues an API token; it is revealed once. The grant never exceeds the granter's.
    token_issue(TokenIssueInput) provisioning_change TokenWrite;
    /// Changes the end of an API token, or from where it may be used; never to more than the changer has.
    token_update(TokenUpdateInput) provisioning_change TokenWrite;
    /// Draws an API token anew; it is revealed once. The one before works on for `overlapS` seconds. Cannot be taken back.
    token_rotate(TokenRotateInput) provisioning_change TokenWrite;
    /// Ends an API token at once. Cannot be taken back.
    token_revoke(TokenRevokeInput) provisioning_change TokenWrite;
    /// Takes a change back, as far as nothing was built on it. It is a change itself, and can be taken back in its turn.
    change_revert(ChangeRevertInput) provisioning_change ProvisioningWrite;
    /// Starts a bulk job whose lines are there, or lets it go on where it was cancelled or stopped. It runs with the rights
    /// of the token that starts it.
    bulk_job_start(BulkJobStartInput) provisioning_change ProvisioningWrite;
    /// Cancels a bulk job. What it did stays, and is taken back change by change.
    bulk_job_cancel(BulkJobCancelInput) provisioning_change ProvisioningWrite;
    /// Makes a tariff with its rates.
    tariff_create(TariffCreateInput) billing_change BillingWrite;
    /// Assigns a tariff for a time.
    tariff_assign(TariffAssignInput) billing_change BillingWrite;
    /// Makes a stream of billing files.
    stream_create(StreamCreateInput) billing_change BillingWrite;
    /// Closes the open file of a stream, also when it is empty. Cannot be taken back.
    billing_file_close(BillingFileCloseInput) billing_change BillingWrite;
    /// Says whether the BSS took a file; the last word counts. Cannot be taken back.
    billing_file_acknowledge(BillingFileAcknowledgeInput) billing_change BillingAcknowledge;
    /// Rates charges in suspense again, with the tariffs of now for the time of each call.
    suspense_retry(SuspenseRetryInput) billing_change BillingWrite;
    /// Takes note of an alarm; it stays until its condition is gone. Cannot be taken back.
    alarm_acknowledge(AlarmAcknowledgeInput) fault_change AlarmWrite;
    /// Tells a target of SNMP notifications every active alarm of a node again. Cannot be taken back.
    alarm_resync(AlarmResyncInput) fault_change AlarmWrite;
    /// Runs the monthly report of an account for one month and mails it. Cannot be taken back.
    report_run(ReportRunInput) reports_change ReportWrite;
}

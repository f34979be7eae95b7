//! The commands. A field of an update that is `None` stays as it is; where a value can be taken away, the field is
//! an `Option` in an `Option`.

use std::net::SocketAddr;

use model::actor::Permissions;
use model::domain::SipDomain;
use model::id::{AccountId, BulkJobId, ChangeId, DomainId, NumberId, SiteId, SubscriberId, TokenId, TrunkId};
use model::money::Currency;
use model::network::Networks;
use model::number::{E164, Extension};
use model::secret::Secret;
use model::tenancy::AccountKind;
use model::time::Timestamp;

use crate::bulk::job::JobMode;
use crate::resource::DialPlan;

/// Digest credentials of a trunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkCredentials {
    /// The user.
    pub username: String,
    /// The password; sealed in the store.
    pub password: Secret<String>,
}

/// The registration that a carrier wants; see [`crate::resource::TrunkRegistration`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkRegistrar {
    /// Where REGISTER goes.
    pub registrar: SocketAddr,
    /// Host of our address of record; none: the registrar's IP address.
    pub domain: Option<String>,
    /// Seconds.
    pub expires_s: u32,
}

/// A mutation of the provisioning folder.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the resources, documented there")]
pub enum Command {
    /// An account below `parent`.
    AccountCreate {
        parent: AccountId,
        kind: AccountKind,
        name: String,
        timezone: String,
        currency: Currency,
        call_limit: Option<u32>,
        subscriber_quota: Option<u32>,
    },
    /// Changes an account.
    AccountUpdate {
        id: AccountId,
        name: Option<String>,
        call_limit: Option<Option<u32>>,
        subscriber_quota: Option<Option<u32>>,
        enabled: Option<bool>,
    },
    /// A domain of a customer.
    DomainCreate { account: AccountId, name: SipDomain, dial_plan: DialPlan },
    /// Changes a domain. Its name stays: credentials are bound to it.
    DomainUpdate { id: DomainId, dial_plan: DialPlan },
    /// Gives up a domain without subscribers; its name is free again.
    DomainDelete { id: DomainId },
    /// A site of a customer.
    SiteCreate { account: AccountId, name: String },
    /// Changes a site.
    SiteUpdate { id: SiteId, name: String },
    /// Removes a site where no subscriber sits.
    SiteDelete { id: SiteId },
    /// A subscriber in a domain. Without a password one is drawn and revealed once.
    SubscriberCreate {
        domain: DomainId,
        site: Option<SiteId>,
        username: String,
        display_name: String,
        extension: Option<Extension>,
        password: Option<Secret<String>>,
        call_limit: Option<u32>,
    },
    /// Changes a subscriber.
    SubscriberUpdate {
        id: SubscriberId,
        display_name: Option<String>,
        site: Option<Option<SiteId>>,
        extension: Option<Option<Extension>>,
        call_limit: Option<Option<u32>>,
        enabled: Option<bool>,
    },
    /// A new password; without one it is drawn and revealed once. Cannot be taken back.
    SubscriberPasswordSet { id: SubscriberId, password: Option<Secret<String>> },
    /// Removes a subscriber; its numbers stay with the customer, unassigned.
    SubscriberDelete { id: SubscriberId },
    /// A number for an account, at once assigned where a subscriber is named.
    NumberCreate { account: AccountId, e164: E164, subscriber: Option<SubscriberId> },
    /// Assigns a number, or frees it: then it is quarantined for whoever else might get it.
    NumberAssign { id: NumberId, subscriber: Option<SubscriberId> },
    /// Keeps a number that nobody answers for an account, until then.
    NumberReserve { id: NumberId, account: AccountId, until: Timestamp },
    /// Ends the reservation or the quarantine of a number.
    NumberRelease { id: NumberId },
    /// Gives a number back.
    NumberDelete { id: NumberId },
    /// A trunk.
    TrunkCreate {
        account: AccountId,
        name: String,
        address: SocketAddr,
        credentials: Option<TrunkCredentials>,
        registration: Option<TrunkRegistrar>,
        call_limit: Option<u32>,
        priority: u32,
        keepalive_ms: u32,
    },
    /// Changes a trunk.
    TrunkUpdate {
        id: TrunkId,
        registration: Option<Option<TrunkRegistrar>>,
        call_limit: Option<Option<u32>>,
        priority: Option<u32>,
        keepalive_ms: Option<u32>,
        enabled: Option<bool>,
    },
    /// A token for an account's subtree; it is revealed once. The grant never exceeds the granter's.
    TokenIssue {
        account: AccountId,
        name: String,
        permissions: Permissions,
        expires_at: Option<Timestamp>,
        networks: Networks,
    },
    /// Changes a token: never to more than the changer has.
    TokenUpdate { id: TokenId, expires_at: Option<Option<Timestamp>>, networks: Option<Networks> },
    /// Draws a token anew, which is revealed once; the one before works for so many seconds more. Cannot be taken back.
    TokenRotate { id: TokenId, overlap_s: u32 },
    /// Ends a token at once. Cannot be taken back.
    TokenRevoke { id: TokenId },
    /// Takes a change back, as far as nothing was built on it: what it created goes, what it removed comes again, what it
    /// changed is as before. It is a change like any other, and can be taken back in its turn.
    ChangeRevert { change: ChangeId },
    /// Starts a bulk job whose lines are there, or lets it go on.
    BulkJobStart { id: BulkJobId, mode: JobMode },
    /// Cancels a bulk job; what it did before stays.
    BulkJobCancel { id: BulkJobId },
}

impl Command {
    /// The name in audit, idempotency and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AccountCreate { .. } => "account_create",
            Self::AccountUpdate { .. } => "account_update",
            Self::DomainCreate { .. } => "domain_create",
            Self::DomainUpdate { .. } => "domain_update",
            Self::DomainDelete { .. } => "domain_delete",
            Self::SiteCreate { .. } => "site_create",
            Self::SiteUpdate { .. } => "site_update",
            Self::SiteDelete { .. } => "site_delete",
            Self::SubscriberCreate { .. } => "subscriber_create",
            Self::SubscriberUpdate { .. } => "subscriber_update",
            Self::SubscriberPasswordSet { .. } => "subscriber_password_set",
            Self::SubscriberDelete { .. } => "subscriber_delete",
            Self::NumberCreate { .. } => "number_create",
            Self::NumberAssign { .. } => "number_assign",
            Self::NumberReserve { .. } => "number_reserve",
            Self::NumberRelease { .. } => "number_release",
            Self::NumberDelete { .. } => "number_delete",
            Self::TrunkCreate { .. } => "trunk_create",
            Self::TrunkUpdate { .. } => "trunk_update",
            Self::TokenIssue { .. } => "token_issue",
            Self::TokenUpdate { .. } => "token_update",
            Self::TokenRotate { .. } => "token_rotate",
            Self::TokenRevoke { .. } => "token_revoke",
            Self::ChangeRevert { .. } => "change_revert",
            Self::BulkJobStart { .. } => "bulk_job_start",
            Self::BulkJobCancel { .. } => "bulk_job_cancel",
        }
    }
}

//! Accounts, domains, sites, subscribers, numbers, trunks, tokens, audit.

use async_graphql::{ComplexObject, Context, Enum, ID, SimpleObject};
use model::change::ResourceKind;
use model::id::TrunkId;
use provisioning::port::AuditEntry;
use provisioning::resource as row;

use super::global;
use super::trunk_state::TrunkState;
use crate::argument::caller;
use crate::payload::Plan;
use crate::scalar::{Currency, E164, Long, Permission, Timestamp};
use crate::schema::GraphqlDeps;

/// What an account is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "model::tenancy::AccountKind")]
pub enum AccountKind {
    /// The root: who runs the installation.
    Provider,
    /// Sells on to resellers or customers below.
    Reseller,
    /// Owns domains, sites and subscribers, and is charged for calls.
    Customer,
}

/// A node of the account tree.
#[derive(Debug, SimpleObject)]
pub struct Account {
    /// Its global identifier.
    pub id: ID,
    /// The account above; none for the provider.
    pub parent_id: Option<ID>,
    /// Provider, reseller or customer.
    pub kind: AccountKind,
    /// Unique among its siblings.
    pub name: String,
    /// IANA zone, such as `Europe/Vienna`.
    pub timezone: String,
    /// Currency of its bills.
    pub currency: Currency,
    /// Concurrent calls at and below; none: no limit of its own.
    pub call_limit: Option<u32>,
    /// Subscribers at and below; none: no limit of its own.
    pub subscriber_quota: Option<u32>,
    /// Subscribers at and below now.
    pub subscriber_count: u32,
    /// Calls and changes are refused while it is not enabled.
    pub enabled: bool,
    /// Counted from 1; grows with each change.
    pub version: Long,
    /// When it came into being.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl From<row::Account> for Account {
    fn from(account: row::Account) -> Self {
        Self {
            id: global(ResourceKind::Account, account.id),
            parent_id: account.parent.map(|id| global(ResourceKind::Account, id)),
            kind: account.kind.into(),
            name: account.name,
            timezone: account.timezone,
            currency: Currency(account.currency),
            call_limit: account.call_limit,
            subscriber_quota: account.subscriber_quota,
            subscriber_count: account.subscriber_count,
            enabled: account.enabled,
            version: Long(account.revision.version),
            created_at: Timestamp(account.revision.created_at),
            updated_at: Timestamp(account.revision.updated_at),
        }
    }
}

/// How dialled digits become E.164.
#[derive(Debug, SimpleObject)]
pub struct DialPlan {
    /// Digits of the country code, such as `43`.
    pub country_code: String,
    /// What precedes a national number, such as `0`; may be empty.
    pub national_prefix: String,
    /// What precedes an international number, such as `00`.
    pub international_prefix: String,
}

/// A SIP domain, which is also the digest realm.
#[derive(Debug, SimpleObject)]
pub struct Domain {
    /// Its global identifier.
    pub id: ID,
    /// The customer that owns it.
    pub account_id: ID,
    /// Canonical name, globally unique, immutable.
    pub name: String,
    /// How dialled digits become E.164.
    pub dial_plan: DialPlan,
    /// Counted from 1; grows with each change.
    pub version: Long,
    /// When it came into being.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl From<row::Domain> for Domain {
    fn from(domain: row::Domain) -> Self {
        Self {
            id: global(ResourceKind::Domain, domain.id),
            account_id: global(ResourceKind::Account, domain.account),
            name: domain.name.into(),
            dial_plan: DialPlan {
                country_code: domain.dial_plan.country_code,
                national_prefix: domain.dial_plan.national_prefix,
                international_prefix: domain.dial_plan.international_prefix,
            },
            version: Long(domain.revision.version),
            created_at: Timestamp(domain.revision.created_at),
            updated_at: Timestamp(domain.revision.updated_at),
        }
    }
}

/// A site of a customer.
#[derive(Debug, SimpleObject)]
pub struct Site {
    /// Its global identifier.
    pub id: ID,
    /// The customer.
    pub account_id: ID,
    /// Unique within the customer.
    pub name: String,
    /// Counted from 1; grows with each change.
    pub version: Long,
    /// When it came into being.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl From<row::Site> for Site {
    fn from(site: row::Site) -> Self {
        Self {
            id: global(ResourceKind::Site, site.id),
            account_id: global(ResourceKind::Account, site.account),
            name: site.name,
            version: Long(site.revision.version),
            created_at: Timestamp(site.revision.created_at),
            updated_at: Timestamp(site.revision.updated_at),
        }
    }
}

/// A user or device with SIP credentials, which nobody can read.
#[derive(Debug, SimpleObject)]
pub struct Subscriber {
    /// Its global identifier.
    pub id: ID,
    /// The customer.
    pub account_id: ID,
    /// The domain of its address of record.
    pub domain_id: ID,
    /// Where it sits.
    pub site_id: Option<ID>,
    /// User part of its address of record, unique within the domain.
    pub username: String,
    /// For people.
    pub display_name: String,
    /// Short number, unique within the customer.
    pub extension: Option<String>,
    /// Concurrent calls; none: no limit of its own.
    pub call_limit: Option<u32>,
    /// A disabled subscriber neither registers nor calls.
    pub enabled: bool,
    /// Counted from 1; grows with each change.
    pub version: Long,
    /// When it came into being.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl From<row::Subscriber> for Subscriber {
    fn from(subscriber: row::Subscriber) -> Self {
        Self {
            id: global(ResourceKind::Subscriber, subscriber.id),
            account_id: global(ResourceKind::Account, subscriber.account),
            domain_id: global(ResourceKind::Domain, subscriber.domain),
            site_id: subscriber.site.map(|id| global(ResourceKind::Site, id)),
            username: subscriber.username,
            display_name: subscriber.display_name,
            extension: subscriber.extension.map(String::from),
            call_limit: subscriber.call_limit,
            enabled: subscriber.enabled,
            version: Long(subscriber.revision.version),
            created_at: Timestamp(subscriber.revision.created_at),
            updated_at: Timestamp(subscriber.revision.updated_at),
        }
    }
}

/// Where a number stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum NumberState {
    /// Nobody has it.
    Free,
    /// It is kept for an account.
    Reserved,
    /// A subscriber answers it.
    Assigned,
    /// It was given back, and rests: only the customer who had it can have it at once.
    Quarantined,
}

/// An E.164 number in the inventory.
#[derive(Debug, SimpleObject)]
#[graphql(complex)]
pub struct Number {
    #[graphql(skip)]
    row: row::Number,
    /// Its global identifier.
    pub id: ID,
    /// The account that holds it.
    pub account_id: ID,
    /// The number, unique in the installation.
    pub e164: E164,
    /// Who answers it.
    pub subscriber_id: Option<ID>,
    /// Counted from 1; grows with each change.
    pub version: Long,
    /// When it came into being.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Number {
    fn now(&self, context: &Context<'_>) -> async_graphql::Result<row::NumberState> {
        Ok(self.row.state(caller(context)?.now()))
    }
}

#[ComplexObject]
impl Number {
    /// Where it stands now. Reservation and quarantine end by themselves.
    async fn state(&self, context: &Context<'_>) -> async_graphql::Result<NumberState> {
        Ok(match self.now(context)? {
            row::NumberState::Free => NumberState::Free,
            row::NumberState::Reserved(_) => NumberState::Reserved,
            row::NumberState::Assigned(_) => NumberState::Assigned,
            row::NumberState::Quarantined(_) => NumberState::Quarantined,
        })
    }

    /// For whom it is reserved.
    async fn reserved_for_id(&self, context: &Context<'_>) -> async_graphql::Result<Option<ID>> {
        let row::NumberState::Reserved(hold) = self.now(context)? else { return Ok(None) };
        Ok(Some(global(ResourceKind::Account, hold.account)))
    }

    /// Until when it is reserved.
    async fn reserved_until(&self, context: &Context<'_>) -> async_graphql::Result<Option<Timestamp>> {
        let row::NumberState::Reserved(hold) = self.now(context)? else { return Ok(None) };
        Ok(Some(Timestamp(hold.until)))
    }

    /// Until when it is quarantined.
    async fn quarantined_until(&self, context: &Context<'_>) -> async_graphql::Result<Option<Timestamp>> {
        let row::NumberState::Quarantined(hold) = self.now(context)? else { return Ok(None) };
        Ok(Some(Timestamp(hold.until)))
    }
}

impl From<row::Number> for Number {
    fn from(number: row::Number) -> Self {
        Self {
            id: global(ResourceKind::Number, number.id),
            account_id: global(ResourceKind::Account, number.account),
            e164: E164(number.e164),
            subscriber_id: number.subscriber.map(|id| global(ResourceKind::Subscriber, id)),
            version: Long(number.revision.version),
            created_at: Timestamp(number.revision.created_at),
            updated_at: Timestamp(number.revision.updated_at),
            row: number,
        }
    }
}

/// The registration that a carrier wants from us: REGISTER with the trunk's credentials.
#[derive(Debug, SimpleObject)]
pub struct TrunkRegistration {
    /// Where REGISTER goes: address and port.
    pub registrar: String,
    /// Host of our address of record there; its user is that of the credentials.
    pub domain: String,
    /// How long a registration is wished for, seconds; the carrier decides.
    pub expires_s: u32,
}

impl From<row::TrunkRegistration> for TrunkRegistration {
    fn from(registration: row::TrunkRegistration) -> Self {
        Self {
            registrar: registration.registrar.to_string(),
            domain: registration.domain,
            expires_s: registration.expires_s,
        }
    }
}

/// A SIP trunk: a peer by address. The password of its digest credentials cannot be read.
#[derive(Debug, SimpleObject)]
#[graphql(complex)]
pub struct Trunk {
    #[graphql(skip)]
    key: TrunkId,
    /// Its global identifier.
    pub id: ID,
    /// The owner; the trunk serves the subtree.
    pub account_id: ID,
    /// Unique within the owner.
    pub name: String,
    /// Where requests go and come from: address and port.
    pub address: String,
    /// User of the digest credentials.
    pub username: Option<String>,
    /// Present when the carrier wants REGISTER from us.
    pub registration: Option<TrunkRegistration>,
    /// Concurrent calls; none: no limit.
    pub call_limit: Option<u32>,
    /// Lower is tried first.
    pub priority: u32,
    /// Period of OPTIONS pings, milliseconds; 0: none, the trunk counts as up.
    pub keepalive_ms: u32,
    /// A disabled trunk carries no calls.
    pub enabled: bool,
    /// Counted from 1; grows with each change.
    pub version: Long,
    /// When it came into being.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

#[ComplexObject]
impl Trunk {
    /// How it stands now, in the call core of the node that answers; null while that starts or stops.
    async fn state(&self, ctx: &Context<'_>) -> async_graphql::Result<Option<TrunkState>> {
        Ok(ctx.data::<GraphqlDeps>()?.trunk_states.trunk_state(self.key).map(Into::into))
    }
}

impl From<row::Trunk> for Trunk {
    fn from(trunk: row::Trunk) -> Self {
        Self {
            key: trunk.id,
            id: global(ResourceKind::Trunk, trunk.id),
            account_id: global(ResourceKind::Account, trunk.account),
            name: trunk.name,
            address: trunk.address.to_string(),
            username: trunk.username,
            registration: trunk.registration.map(Into::into),
            call_limit: trunk.call_limit,
            priority: trunk.priority,
            keepalive_ms: trunk.keepalive_ms,
            enabled: trunk.enabled,
            version: Long(trunk.revision.version),
            created_at: Timestamp(trunk.revision.created_at),
            updated_at: Timestamp(trunk.revision.updated_at),
        }
    }
}

/// An API token. The token itself is shown once, in the payload of its issue.
#[derive(Debug, SimpleObject)]
pub struct Token {
    /// Its global identifier.
    pub id: ID,
    /// The account whose subtree it may touch.
    pub account_id: ID,
    /// Unique within the account.
    pub name: String,
    /// What it may do.
    pub permissions: Vec<Permission>,
    /// When it ceases to work.
    pub expires_at: Option<Timestamp>,
    /// From where it may be used; empty: from anywhere.
    pub networks: Vec<String>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// Until when the token before the last rotation works beside it.
    pub previous_until: Option<Timestamp>,
    /// When it was last used, within a minute.
    pub last_used_at: Option<Timestamp>,
    /// Counted from 1; grows with each change.
    pub version: Long,
    /// When it came into being.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl From<row::Token> for Token {
    fn from(token: row::Token) -> Self {
        Self {
            id: global(ResourceKind::Token, token.id),
            account_id: global(ResourceKind::Account, token.account),
            name: token.name,
            permissions: token.permissions.iter().map(Permission).collect(),
            expires_at: token.expires_at.map(Timestamp),
            networks: token.networks.iter().map(ToString::to_string).collect(),
            revoked_at: token.revoked_at.map(Timestamp),
            previous_until: token.previous_until.map(Timestamp),
            last_used_at: token.last_used_at.map(Timestamp),
            version: Long(token.revision.version),
            created_at: Timestamp(token.revision.created_at),
            updated_at: Timestamp(token.revision.updated_at),
        }
    }
}

/// A change: one entry of the audit trail.
#[derive(Debug, SimpleObject)]
pub struct Change {
    /// Its global identifier, as mutations answer it.
    pub id: ID,
    /// Dense number in the installation.
    pub sequence: Long,
    /// When.
    pub at: Timestamp,
    /// Person, machine, device or system.
    pub actor_kind: String,
    /// Name of the actor at that time.
    pub actor_name: String,
    /// The command.
    pub command: String,
    /// What was done.
    pub plan: Plan,
    /// The change by which this one is taken back.
    pub reverted_by_id: Option<ID>,
    /// SHA-256 in hex that chains this entry to the one before.
    pub hash: String,
}

impl From<AuditEntry> for Change {
    fn from(entry: AuditEntry) -> Self {
        Self {
            id: global(ResourceKind::Change, entry.change),
            sequence: Long(entry.sequence),
            at: Timestamp(entry.at),
            actor_kind: entry.actor_kind,
            actor_name: entry.actor_name,
            command: entry.command,
            plan: entry.plan.into(),
            reverted_by_id: entry.reverted_by.map(|change| global(ResourceKind::Change, change)),
            hash: entry.hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

//! The resources, public fields only: what any face may show. Secrets have no field here.

use std::net::SocketAddr;

use model::actor::Permissions;
use model::domain::SipDomain;
use model::id::{AccountId, DomainId, NumberId, SiteId, SubscriberId, TokenId, TrunkId};
use model::money::Currency;
use model::network::Networks;
use model::number::{E164, Extension};
use model::tenancy::{AccountKind, AccountPath};
use model::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What every resource carries beside its own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Counted from 1; grows with each change.
    pub version: i64,
    /// When it came into being.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A node of the account tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its identifier.
    pub id: AccountId,
    /// The account above; none for the provider.
    pub parent: Option<AccountId>,
    /// Where it sits in the tree.
    pub path: AccountPath,
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
    /// Version and times.
    pub revision: Revision,
}

/// How dialled digits become E.164 (per domain).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialPlan {
    /// Digits of the country code, such as `43`.
    pub country_code: String,
    /// What precedes a national number, such as `0`; may be empty.
    pub national_prefix: String,
    /// What precedes an international number, such as `00`.
    pub international_prefix: String,
}

/// A SIP domain, which is also the digest realm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Its identifier.
    pub id: DomainId,
    /// The customer that owns it.
    pub account: AccountId,
    /// Canonical name, globally unique, immutable.
    pub name: SipDomain,
    /// How dialled digits become E.164.
    pub dial_plan: DialPlan,
    /// Version and times.
    pub revision: Revision,
}

/// A site of a customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Its identifier.
    pub id: SiteId,
    /// The customer.
    pub account: AccountId,
    /// Unique within the customer.
    pub name: String,
    /// Version and times.
    pub revision: Revision,
}

/// A subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscriber {
    /// Its identifier.
    pub id: SubscriberId,
    /// The customer.
    pub account: AccountId,
    /// The domain of its address of record.
    pub domain: DomainId,
    /// Where it sits.
    pub site: Option<SiteId>,
    /// User part of its address of record, unique within the domain.
    pub username: String,
    /// For people.
    pub display_name: String,
    /// Short number, unique within the customer.
    pub extension: Option<Extension>,
    /// Concurrent calls; none: no limit of its own.
    pub call_limit: Option<u32>,
    /// A disabled subscriber neither registers nor calls.
    pub enabled: bool,
    /// Version and times.
    pub revision: Revision,
}

/// An E.164 number in the inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Number {
    /// Its identifier.
    pub id: NumberId,
    /// The account that holds it.
    pub account: AccountId,
    /// The number, unique in the installation.
    pub e164: E164,
    /// Who answers it.
    pub subscriber: Option<SubscriberId>,
    /// For whom it is kept while nobody answers it; one that has ended is as none.
    #[serde(default)]
    pub hold: Option<Hold>,
    /// Version and times.
    pub revision: Revision,
}

/// Why a number that nobody answers is not for everybody. It ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Why.
    pub kind: HoldKind,
    /// Who may have it meanwhile: for whom it is reserved, or who had it until it was given back.
    pub account: AccountId,
    /// When it ends.
    pub until: Timestamp,
}

/// Why a number is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldKind {
    /// It is promised to an account.
    Reserved,
    /// It was given back: calls for the one who had it must not reach a stranger.
    Quarantined,
}

/// Where a number stands at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberState {
    /// Nobody has it.
    Free,
    /// It is promised to an account.
    Reserved(Hold),
    /// A subscriber answers it.
    Assigned(SubscriberId),
    /// It was given back, and rests.
    Quarantined(Hold),
}

impl Number {
    /// Where it stands at `now`.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> NumberState {
        match (self.subscriber, self.hold.filter(|hold| hold.until > now)) {
            (Some(subscriber), _) => NumberState::Assigned(subscriber),
            (None, None) => NumberState::Free,
            (None, Some(hold)) => match hold.kind {
                HoldKind::Reserved => NumberState::Reserved(hold),
                HoldKind::Quarantined => NumberState::Quarantined(hold),
            },
        }
    }
}

impl HoldKind {
    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Quarantined => "quarantined",
        }
    }

    /// The kind of a stored name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Reserved, Self::Quarantined].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What a carrier wants that we register with it: REGISTER with the trunk's credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrunkRegistration {
    /// Where REGISTER goes.
    pub registrar: SocketAddr,
    /// Host of our address of record there; its user is that of the credentials.
    pub domain: String,
    /// How long a registration is wished for, seconds; the carrier decides.
    pub expires_s: u32,
}

/// A SIP trunk: a peer by address, with digest credentials where the peer asks for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trunk {
    /// Its identifier.
    pub id: TrunkId,
    /// The owner; the trunk serves the subtree.
    pub account: AccountId,
    /// Unique within the owner.
    pub name: String,
    /// Where requests go and come from.
    pub address: SocketAddr,
    /// User of the digest credentials.
    pub username: Option<String>,
    /// Present when the carrier wants REGISTER from us.
    #[serde(default)]
    pub registration: Option<TrunkRegistration>,
    /// Concurrent calls; none: no limit.
    pub call_limit: Option<u32>,
    /// Lower is tried first.
    pub priority: u32,
    /// Period of OPTIONS pings; 0: none, the trunk counts as up.
    pub keepalive_ms: u32,
    /// A disabled trunk carries no calls.
    pub enabled: bool,
    /// Version and times.
    pub revision: Revision,
}

/// An API token; the token itself is shown once, at its issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its identifier.
    pub id: TokenId,
    /// The account whose subtree it may touch.
    pub account: AccountId,
    /// Unique within the account.
    pub name: String,
    /// What it may do.
    pub permissions: Permissions,
    /// When it ceases to work.
    pub expires_at: Option<Timestamp>,
    /// From where it may be used.
    pub networks: Networks,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// Until when the token before a rotation works beside it.
    pub previous_until: Option<Timestamp>,
    /// When it was last used, within a minute.
    pub last_used_at: Option<Timestamp>,
    /// Version and times.
    pub revision: Revision,
}

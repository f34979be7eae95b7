//! The inputs of the mutations and the commands that they become. Text that is no value of its type is refused here,
//! naming the field, so that a client finds all refusals in one place: `userErrors`.

use std::fmt::Display;
use std::str::FromStr;

use api_http::global_id;
use async_graphql::{ID, InputObject, MaybeUndefined};
use billing::command::Command as Billing;
use billing::resource as row;
use fault::command::Command as Fault;
use model::change::{CommitOptions, IdempotencyKey, Refusal, RefusalCode, ResourceKind, ResourceRef, ResourceVersion};
use model::network::Networks;
use model::secret::Secret;
use provisioning::command::{Command as Provisioning, TrunkCredentials, TrunkRegistrar};
use reports::command::Command as Reports;

use crate::limit::EXPECTED_VERSIONS_MAX;
use crate::object::billing::{RoundingMode, Side};
use crate::object::bulk::BulkJobMode;
use crate::object::fault::alarm_key;
use crate::object::provisioning::AccountKind;
use crate::scalar::{Currency, Decimal, E164, Long, Permission, Timestamp};

/// An input that becomes a command.
pub(crate) trait Input {
    /// The folder's commands.
    type Command;
    /// The command, or why there is none.
    fn command(self) -> Result<Self::Command, Refusal>;
}

/// The version of an object that a client expects, as an earlier plan or query gave it.
#[derive(InputObject)]
pub struct ExpectedVersion {
    /// Which object.
    id: ID,
    /// Its version.
    version: Long,
}

/// How a change is to be committed.
pub(crate) fn options(key: Option<String>, expected: Option<Vec<ExpectedVersion>>) -> Result<CommitOptions, Refusal> {
    let expected = expected.unwrap_or_default();
    if expected.len() > EXPECTED_VERSIONS_MAX {
        let message = format!("a change expects at most {EXPECTED_VERSIONS_MAX} versions");
        return Err(Refusal::new(RefusalCode::Invalid, "expectedVersions", message, "send those of the plan"));
    }
    let version = |expected: ExpectedVersion| {
        let unknown = || missing("expectedVersions.id");
        let (kind, key) = global_id::decode(&expected.id).ok_or_else(unknown)?;
        let id = key.parse().map_err(|_| unknown())?;
        Ok(ResourceVersion { resource: ResourceRef { kind, id }, version: expected.version.0 })
    };
    Ok(CommitOptions {
        idempotency_key: key.as_deref().map(IdempotencyKey::new).transpose()?,
        expected: expected.into_iter().map(version).collect::<Result<_, Refusal>>()?,
    })
}

fn missing(field: &str) -> Refusal {
    let message = "there is no such object within reach of this token";
    Refusal::new(RefusalCode::NotFound, field, message, "send an identifier that a query or mutation gave")
}

/// The key behind an identifier; what can be none looks like a missing object.
fn id<K: FromStr>(kind: ResourceKind, field: &str, id: &ID) -> Result<K, Refusal> {
    global_id::key(kind, id).ok_or_else(|| missing(field))
}

fn optional_id<K: FromStr>(kind: ResourceKind, field: &str, given: Option<&ID>) -> Result<Option<K>, Refusal> {
    given.map(|given| id(kind, field, given)).transpose()
}

fn text<T: FromStr<Err: Display>>(field: &str, text: &str) -> Result<T, Refusal> {
    text.parse().map_err(|error: T::Err| {
        Refusal::new(RefusalCode::Invalid, field, error.to_string(), "send a value of that form")
    })
}

/// Left out: stays. Null: is taken away.
fn change<T, U>(
    given: MaybeUndefined<T>,
    convert: impl FnOnce(T) -> Result<U, Refusal>,
) -> Result<Option<Option<U>>, Refusal> {
    match given {
        MaybeUndefined::Undefined => Ok(None),
        MaybeUndefined::Null => Ok(Some(None)),
        MaybeUndefined::Value(value) => Ok(Some(Some(convert(value)?))),
    }
}

/// An account below another.
#[derive(InputObject)]
pub struct AccountCreateInput {
    /// The account above.
    parent_id: ID,
    /// Reseller or customer.
    kind: AccountKind,
    /// Unique among its siblings.
    name: String,
    /// IANA zone, such as `Europe/Vienna`.
    timezone: String,
    /// Currency of its bills.
    currency: Currency,
    /// Concurrent calls at and below.
    call_limit: Option<u32>,
    /// Subscribers at and below.
    subscriber_quota: Option<u32>,
}

impl Input for AccountCreateInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        Ok(Provisioning::AccountCreate {
            parent: id(ResourceKind::Account, "parentId", &self.parent_id)?,
            kind: self.kind.into(),
            name: self.name,
            timezone: self.timezone,
            currency: self.currency.0,
            call_limit: self.call_limit,
            subscriber_quota: self.subscriber_quota,
        })
    }
}

/// Changes of an account. What is left out stays; null takes a limit away.
#[derive(InputObject)]
pub struct AccountUpdateInput {
    /// Which account.
    id: ID,
    /// Its new name.
    name: Option<String>,
    /// Concurrent calls at and below.
    call_limit: MaybeUndefined<u32>,
    /// Subscribers at and below.
    subscriber_quota: MaybeUndefined<u32>,
    /// Whether calls and changes are allowed.
    enabled: Option<bool>,
}

impl Input for AccountUpdateInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        Ok(Provisioning::AccountUpdate {
            id: id(ResourceKind::Account, "id", &self.id)?,
            name: self.name,
            call_limit: change(self.call_limit, Ok)?,
            subscriber_quota: change(self.subscriber_quota, Ok)?,
            enabled: self.enabled,
        })
    }
}

/// How dialled digits become E.164.
#[derive(InputObject)]
pub struct DialPlanInput {
    /// Digits of the country code, such as `43`.
    country_code: String,
    /// What precedes a national number, such as `0`; may be empty.
    national_prefix: String,
    /// What precedes an international number, such as `00`.
    international_prefix: String,
}

impl From<DialPlanInput> for provisioning::resource::DialPlan {
    fn from(input: DialPlanInput) -> Self {
        let DialPlanInput { country_code, national_prefix, international_prefix } = input;
        Self { country_code, national_prefix, international_prefix }
    }
}

/// A SIP domain of a customer.
#[derive(InputObject)]
pub struct DomainCreateInput {
    /// The customer.
    account_id: ID,
    /// A host name, globally unique, never changed.
    name: String,
    /// How dialled digits become E.164.
    dial_plan: DialPlanInput,
}

impl Input for DomainCreateInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        Ok(Provisioning::DomainCreate {
            account: id(ResourceKind::Account, "accountId", &self.account_id)?,
            name: text("name", &self.name)?,
            dial_plan: self.dial_plan.into(),
        })
    }
}

/// A site of a customer.
#[derive(InputObject)]
pub struct SiteCreateInput {
    /// The customer.
    account_id: ID,
    /// Unique within the customer.
    name: String,
}

impl Input for SiteCreateInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        let account = id(ResourceKind::Account, "accountId", &self.account_id)?;
        Ok(Provisioning::SiteCreate { account, name: self.name })
    }
}

/// Changes of a domain. Its name stays: credentials are bound to it.
#[derive(InputObject)]
pub struct DomainUpdateInput {
    /// Which domain.
    id: ID,
    /// How dialled digits become E.164.
    dial_plan: DialPlanInput,
}

impl Input for DomainUpdateInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        let domain = id(ResourceKind::Domain, "id", &self.id)?;
        Ok(Provisioning::DomainUpdate { id: domain, dial_plan: self.dial_plan.into() })
    }
}

/// A domain to be given up.
#[derive(InputObject)]
pub struct DomainDeleteInput {
    /// Which domain.
    id: ID,
}

impl Input for DomainDeleteInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        Ok(Provisioning::DomainDelete { id: id(ResourceKind::Domain, "id", &self.id)? })
    }
}

/// Changes of a site.
#[derive(InputObject)]
pub struct SiteUpdateInput {
    /// Which site.
    id: ID,
    /// Its new name, unique within the customer.
    name: String,
}

impl Input for SiteUpdateInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        Ok(Provisioning::SiteUpdate { id: id(ResourceKind::Site, "id", &self.id)?, name: self.name })
    }
}

/// A site to be removed.
#[derive(InputObject)]
pub struct SiteDeleteInput {
    /// Which site.
    id: ID,
}

impl Input for SiteDeleteInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        Ok(Provisioning::SiteDelete { id: id(ResourceKind::Site, "id", &self.id)? })
    }
}

/// A change to be taken back.
#[derive(InputObject)]
pub struct ChangeRevertInput {
    /// Which change: the `changeId` that a mutation answered, or an identifier of the query `changes`.
    change_id: ID,
}

impl Input for ChangeRevertInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        Ok(Provisioning::ChangeRevert { change: id(ResourceKind::Change, "changeId", &self.change_id)? })
    }
}

/// A bulk job to be started.
#[derive(InputObject)]
pub struct BulkJobStartInput {
    /// Which job.
    id: ID,
    /// How lines that are refused bear on the others; `CHECK` changes nothing.
    mode: BulkJobMode,
}

impl Input for BulkJobStartInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        let job = id(ResourceKind::BulkJob, "id", &self.id)?;
        Ok(Provisioning::BulkJobStart { id: job, mode: self.mode.into() })
    }
}

/// A bulk job to be cancelled.
#[derive(InputObject)]
pub struct BulkJobCancelInput {
    /// Which job.
    id: ID,
}

impl Input for BulkJobCancelInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        Ok(Provisioning::BulkJobCancel { id: id(ResourceKind::BulkJob, "id", &self.id)? })
    }
}

/// A subscriber in a domain.
#[derive(InputObject)]
pub struct SubscriberCreateInput {
    /// The domain of its address of record.
    domain_id: ID,
    /// Where it sits.
    site_id: Option<ID>,
    /// User part of its address of record, unique within the domain.
    username: String,
    /// For people.
    display_name: String,
    /// Short number of 2 to 8 digits, unique within the customer.
    extension: Option<String>,
    /// The SIP password; left out: one is drawn and revealed once.
    password: Option<String>,
    /// Concurrent calls.
    call_limit: Option<u32>,
}

impl Input for SubscriberCreateInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        Ok(Provisioning::SubscriberCreate {
            domain: id(ResourceKind::Domain, "domainId", &self.domain_id)?,
            site: optional_id(ResourceKind::Site, "siteId", self.site_id.as_ref())?,
            username: self.username,
            display_name: self.display_name,
            extension: self.extension.as_deref().map(|given| text("extension", given)).transpose()?,
            password: self.password.map(Secret::new),
            call_limit: self.call_limit,
        })
    }
}

/// Changes of a subscriber. What is left out stays; null takes site, extension or limit away.
#[derive(InputObject)]
pub struct SubscriberUpdateInput {
    /// Which subscriber.
    id: ID,
    /// For people.
    display_name: Option<String>,
    /// Where it sits.
    site_id: MaybeUndefined<ID>,
    /// Short number of 2 to 8 digits, unique within the customer.
    extension: MaybeUndefined<String>,
    /// Concurrent calls.
    call_limit: MaybeUndefined<u32>,
    /// Whether it may register and call.
    enabled: Option<bool>,
}

impl Input for SubscriberUpdateInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        Ok(Provisioning::SubscriberUpdate {
            id: id(ResourceKind::Subscriber, "id", &self.id)?,
            display_name: self.display_name,
            site: change(self.site_id, |site| id(ResourceKind::Site, "siteId", &site))?,
            extension: change(self.extension, |given| text("extension", &given))?,
            call_limit: change(self.call_limit, Ok)?,
            enabled: self.enabled,
        })
    }
}

/// A new SIP password.
#[derive(InputObject)]
pub struct SubscriberPasswordSetInput {
    /// Which subscriber.
    id: ID,
    /// The password; left out: one is drawn and revealed once.
    password: Option<String>,
}

impl Input for SubscriberPasswordSetInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        let id = id(ResourceKind::Subscriber, "id", &self.id)?;
        Ok(Provisioning::SubscriberPasswordSet { id, password: self.password.map(Secret::new) })
    }
}

/// The end of a subscriber.
#[derive(InputObject)]
pub struct SubscriberDeleteInput {
    /// Which subscriber.
    id: ID,
}

impl Input for SubscriberDeleteInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        Ok(Provisioning::SubscriberDelete { id: id(ResourceKind::Subscriber, "id", &self.id)? })
    }
}

/// A number for an account.
#[derive(InputObject)]
pub struct NumberCreateInput {
    /// The account.
    account_id: ID,
    /// The number.
    e164: E164,
    /// Who answers it.
    subscriber_id: Option<ID>,
}

impl Input for NumberCreateInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        Ok(Provisioning::NumberCreate {
            account: id(ResourceKind::Account, "accountId", &self.account_id)?,
            e164: self.e164.0,
            subscriber: optional_id(ResourceKind::Subscriber, "subscriberId", self.subscriber_id.as_ref())?,
        })
    }
}

/// Who answers a number.
#[derive(InputObject)]
pub struct NumberAssignInput {
    /// Which number.
    id: ID,
    /// Who answers it; null or left out: nobody.
    subscriber_id: Option<ID>,
}

impl Input for NumberAssignInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        Ok(Provisioning::NumberAssign {
            id: id(ResourceKind::Number, "id", &self.id)?,
            subscriber: optional_id(ResourceKind::Subscriber, "subscriberId", self.subscriber_id.as_ref())?,
        })
    }
}

/// A promise of a number.
#[derive(InputObject)]
pub struct NumberReserveInput {
    /// Which number; nobody answers it.
    id: ID,
    /// For whom: the account that holds the number, or one below it.
    account_id: ID,
    /// When the reservation ends by itself: within 92 days.
    until: Timestamp,
}

impl Input for NumberReserveInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        Ok(Provisioning::NumberReserve {
            id: id(ResourceKind::Number, "id", &self.id)?,
            account: id(ResourceKind::Account, "accountId", &self.account_id)?,
            until: self.until.0,
        })
    }
}

/// The end of a reservation or a quarantine.
#[derive(InputObject)]
pub struct NumberReleaseInput {
    /// Which number.
    id: ID,
}

impl Input for NumberReleaseInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        Ok(Provisioning::NumberRelease { id: id(ResourceKind::Number, "id", &self.id)? })
    }
}

/// The end of a number.
#[derive(InputObject)]
pub struct NumberDeleteInput {
    /// Which number.
    id: ID,
}

impl Input for NumberDeleteInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        Ok(Provisioning::NumberDelete { id: id(ResourceKind::Number, "id", &self.id)? })
    }
}

/// Digest credentials that a peer asks for.
#[derive(InputObject)]
pub struct TrunkCredentialsInput {
    /// The user.
    username: String,
    /// The password; it cannot be read again.
    password: String,
}

/// The registration that a carrier wants from us; it needs credentials.
#[derive(InputObject)]
pub struct TrunkRegistrationInput {
    /// Where REGISTER goes: IP address and port.
    registrar: String,
    /// Host of our address of record there; left out: the registrar's address.
    domain: Option<String>,
    /// How long a registration is wished for, seconds: 30 to 86400; the carrier decides.
    #[graphql(default = 3600)]
    expires_s: u32,
}

impl TrunkRegistrationInput {
    fn registrar(self) -> Result<TrunkRegistrar, Refusal> {
        let registrar = text("registration.registrar", &self.registrar)?;
        Ok(TrunkRegistrar { registrar, domain: self.domain, expires_s: self.expires_s })
    }
}

/// A SIP trunk.
#[derive(InputObject)]
pub struct TrunkCreateInput {
    /// The owner; the trunk serves the subtree.
    account_id: ID,
    /// Unique within the owner.
    name: String,
    /// Where requests go and come from: IP address and port.
    address: String,
    /// Digest credentials, where the peer asks for them.
    credentials: Option<TrunkCredentialsInput>,
    /// The registration that the carrier wants from us; left out: none.
    registration: Option<TrunkRegistrationInput>,
    /// Concurrent calls.
    call_limit: Option<u32>,
    /// Lower is tried first.
    priority: u32,
    /// Period of OPTIONS pings, milliseconds; 0: none, the trunk counts as up.
    keepalive_ms: u32,
}

impl Input for TrunkCreateInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        let credentials = |given: TrunkCredentialsInput| TrunkCredentials {
            username: given.username,
            password: Secret::new(given.password),
        };
        Ok(Provisioning::TrunkCreate {
            account: id(ResourceKind::Account, "accountId", &self.account_id)?,
            name: self.name,
            address: text("address", &self.address)?,
            credentials: self.credentials.map(credentials),
            registration: self.registration.map(TrunkRegistrationInput::registrar).transpose()?,
            call_limit: self.call_limit,
            priority: self.priority,
            keepalive_ms: self.keepalive_ms,
        })
    }
}

/// Changes of a trunk. What is left out stays; null takes the limit or the registration away.
#[derive(InputObject)]
pub struct TrunkUpdateInput {
    /// Which trunk.
    id: ID,
    /// The registration that the carrier wants from us.
    registration: MaybeUndefined<TrunkRegistrationInput>,
    /// Concurrent calls.
    call_limit: MaybeUndefined<u32>,
    /// Lower is tried first.
    priority: Option<u32>,
    /// Period of OPTIONS pings, milliseconds; 0: none.
    keepalive_ms: Option<u32>,
    /// Whether it carries calls.
    enabled: Option<bool>,
}

impl Input for TrunkUpdateInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        Ok(Provisioning::TrunkUpdate {
            id: id(ResourceKind::Trunk, "id", &self.id)?,
            registration: change(self.registration, TrunkRegistrationInput::registrar)?,
            call_limit: change(self.call_limit, Ok)?,
            priority: self.priority,
            keepalive_ms: self.keepalive_ms,
            enabled: self.enabled,
        })
    }
}

/// An API token for an account's subtree.
#[derive(InputObject)]
pub struct TokenIssueInput {
    /// The account.
    account_id: ID,
    /// Unique within the account.
    name: String,
    /// What it may do; never more than the one who issues it.
    permissions: Vec<Permission>,
    /// When it ceases to work; left out: when it is revoked.
    expires_at: Option<Timestamp>,
    /// From where it may be used: networks such as `192.0.2.0/24`, or addresses. Left out: from where the issuer's own
    /// token may be used.
    networks: Option<Vec<String>>,
}

impl Input for TokenIssueInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        Ok(Provisioning::TokenIssue {
            account: id(ResourceKind::Account, "accountId", &self.account_id)?,
            name: self.name,
            permissions: self.permissions.into_iter().map(|permission| permission.0).collect(),
            expires_at: self.expires_at.map(|at| at.0),
            networks: networks(self.networks.unwrap_or_default())?,
        })
    }
}

/// A list of networks; one that is none is named.
fn networks(texts: Vec<String>) -> Result<Networks, Refusal> {
    Networks::new(texts.iter().map(String::as_str)).map_err(|error| {
        Refusal::new(RefusalCode::Invalid, "networks", error.to_string(), "send networks such as 192.0.2.0/24")
    })
}

/// Changes of an API token. What is left out stays; null takes the end away.
#[derive(InputObject)]
pub struct TokenUpdateInput {
    /// Which token.
    id: ID,
    /// When it ceases to work.
    expires_at: MaybeUndefined<Timestamp>,
    /// From where it may be used; an empty list: from anywhere.
    networks: Option<Vec<String>>,
}

impl Input for TokenUpdateInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        Ok(Provisioning::TokenUpdate {
            id: id(ResourceKind::Token, "id", &self.id)?,
            expires_at: change(self.expires_at, |at| Ok(at.0))?,
            networks: self.networks.map(networks).transpose()?,
        })
    }
}

/// A token to be drawn anew.
#[derive(InputObject)]
pub struct TokenRotateInput {
    /// Which token.
    id: ID,
    /// Seconds that the token before works on: time to change the clients. At most a week.
    #[graphql(default)]
    overlap_s: u32,
}

impl Input for TokenRotateInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        Ok(Provisioning::TokenRotate { id: id(ResourceKind::Token, "id", &self.id)?, overlap_s: self.overlap_s })
    }
}

/// The end of an API token.
#[derive(InputObject)]
pub struct TokenRevokeInput {
    /// Which token.
    id: ID,
}

impl Input for TokenRevokeInput {
    type Command = Provisioning;
    fn command(self) -> Result<Provisioning, Refusal> {
        Ok(Provisioning::TokenRevoke { id: id(ResourceKind::Token, "id", &self.id)? })
    }
}

/// How the exact amount of a call becomes the charged one.
#[derive(InputObject)]
pub struct RoundingInput {
    /// The mode.
    mode: RoundingMode,
    /// Decimal places, 0 to 6.
    decimals: u32,
}

/// The price of one destination.
#[derive(InputObject)]
pub struct RateInput {
    /// Digits of E.164 without `+`, or `onnet` for calls within one customer.
    prefix: String,
    /// For people.
    description: String,
    /// Charged once per answered call.
    connect_fee: Decimal,
    /// Charged per `perMs`.
    price: Decimal,
    /// The unit of the price, milliseconds, such as 60000.
    per_ms: Long,
    /// The least that is charged, milliseconds.
    initial_ms: Long,
    /// After it, usage is charged in whole increments of this, milliseconds.
    increment_ms: Long,
}

/// A tariff with its rates.
#[derive(InputObject)]
pub struct TariffCreateInput {
    /// The account that sells (or, for a buy tariff, buys) by it.
    account_id: ID,
    /// Unique within the account.
    name: String,
    /// Currency of its prices.
    currency: Currency,
    /// How the exact amount of a call becomes the charged one.
    rounding: RoundingInput,
    /// Rates; the longest prefix that matches applies.
    rates: Vec<RateInput>,
}

impl Input for TariffCreateInput {
    type Command = Billing;
    fn command(self) -> Result<Billing, Refusal> {
        let rate = |(index, rate): (usize, RateInput)| {
            Ok(row::Rate {
                connect_fee: text(&format!("rates.{index}.connectFee"), &rate.connect_fee.0)?,
                price: text(&format!("rates.{index}.price"), &rate.price.0)?,
                prefix: rate.prefix,
                description: rate.description,
                per_ms: rate.per_ms.0,
                initial_ms: rate.initial_ms.0,
                increment_ms: rate.increment_ms.0,
            })
        };
        Ok(Billing::TariffCreate {
            account: id(ResourceKind::Account, "accountId", &self.account_id)?,
            name: self.name,
            currency: self.currency.0,
            rounding: model::money::Rounding { mode: self.rounding.mode.into(), decimals: self.rounding.decimals },
            rates: self.rates.into_iter().enumerate().map(rate).collect::<Result<_, Refusal>>()?,
        })
    }
}

/// To whom a tariff applies: an account (sell) or a trunk (buy).
#[derive(InputObject)]
pub struct TariffAssignInput {
    /// The tariff.
    tariff_id: ID,
    /// Sell: calls of this account and of accounts below that have no assignment of their own.
    account_id: Option<ID>,
    /// Buy: calls over this trunk.
    trunk_id: Option<ID>,
    /// From when, inclusive; the answer of the call decides.
    valid_from: Timestamp,
    /// Until when, exclusive; left out: without an end.
    valid_to: Option<Timestamp>,
}

impl Input for TariffAssignInput {
    type Command = Billing;
    fn command(self) -> Result<Billing, Refusal> {
        let target = match (&self.account_id, &self.trunk_id) {
            (Some(account), None) => row::AssignmentTarget::Account(id(ResourceKind::Account, "accountId", account)?),
            (None, Some(trunk)) => row::AssignmentTarget::Trunk(id(ResourceKind::Trunk, "trunkId", trunk)?),
            _ => {
                let message = "a tariff is assigned to one account or to one trunk";
                let remedy = "send either accountId or trunkId";
                return Err(Refusal::new(RefusalCode::Invalid, "accountId", message, remedy));
            }
        };
        Ok(Billing::TariffAssign {
            tariff: id(ResourceKind::Tariff, "tariffId", &self.tariff_id)?,
            target,
            valid_from: self.valid_from.0,
            valid_to: self.valid_to.map(|at| at.0),
        })
    }
}

/// A stream of billing files.
#[derive(InputObject)]
pub struct StreamCreateInput {
    /// Whose rows: charged at and below this account.
    account_id: ID,
    /// Unique within the account; part of file names: `a-z 0-9 -`.
    name: String,
    /// Which side.
    side: Side,
    /// The open file is closed after this time, milliseconds; 0: only on request.
    close_period_ms: Long,
}

impl Input for StreamCreateInput {
    type Command = Billing;
    fn command(self) -> Result<Billing, Refusal> {
        Ok(Billing::StreamCreate {
            account: id(ResourceKind::Account, "accountId", &self.account_id)?,
            name: self.name,
            side: self.side.into(),
            close_period_ms: self.close_period_ms.0,
        })
    }
}

/// The close of the open file of a stream.
#[derive(InputObject)]
pub struct BillingFileCloseInput {
    /// Which stream.
    stream_id: ID,
}

impl Input for BillingFileCloseInput {
    type Command = Billing;
    fn command(self) -> Result<Billing, Refusal> {
        Ok(Billing::FileClose { stream: id(ResourceKind::Stream, "streamId", &self.stream_id)? })
    }
}

/// What a BSS says of a file; the last word counts.
#[derive(InputObject)]
pub struct BillingFileAcknowledgeInput {
    /// Which file.
    id: ID,
    /// Accepted or rejected.
    accepted: bool,
    /// Why, when rejected.
    #[graphql(default)]
    reason: String,
}

impl Input for BillingFileAcknowledgeInput {
    type Command = Billing;
    fn command(self) -> Result<Billing, Refusal> {
        let file = id(ResourceKind::BillingFile, "id", &self.id)?;
        Ok(Billing::FileAcknowledge { file, accepted: self.accepted, reason: self.reason })
    }
}

/// Another try for charges in suspense.
#[derive(InputObject)]
pub struct SuspenseRetryInput {
    /// Charges at and below this account.
    account_id: ID,
}

impl Input for SuspenseRetryInput {
    type Command = Billing;
    fn command(self) -> Result<Billing, Refusal> {
        Ok(Billing::SuspenseRetry { account: id(ResourceKind::Account, "accountId", &self.account_id)? })
    }
}

/// Taking note of an alarm.
#[derive(InputObject)]
pub struct AlarmAcknowledgeInput {
    /// Which alarm.
    pub(crate) id: ID,
    /// A note for colleagues, up to 255 octets.
    #[graphql(default)]
    note: String,
}

impl Input for AlarmAcknowledgeInput {
    type Command = Fault;
    fn command(self) -> Result<Fault, Refusal> {
        let unknown = || missing("id");
        let (kind, key) = global_id::decode(&self.id).ok_or_else(unknown)?;
        if kind != ResourceKind::Alarm {
            return Err(unknown());
        }
        let (node, id) = alarm_key(&key).ok_or_else(unknown)?;
        Ok(Fault::AlarmAcknowledge { node, id, note: self.note })
    }
}

/// A synchronisation of a target of notifications.
#[derive(InputObject)]
pub struct AlarmResyncInput {
    /// Which target: the identifier of kind `notification_target` with the node's name, a slash and the target's name.
    pub(crate) target: ID,
}

impl Input for AlarmResyncInput {
    type Command = Fault;
    fn command(self) -> Result<Fault, Refusal> {
        let unknown = || missing("target");
        let (kind, key) = global_id::decode(&self.target).ok_or_else(unknown)?;
        let (node, target) = key.split_once('/').ok_or_else(unknown)?;
        if kind != ResourceKind::NotificationTarget {
            return Err(unknown());
        }
        Ok(Fault::AlarmResync { node: node.to_owned(), target: target.to_owned() })
    }
}

/// A run of the monthly report.
#[derive(InputObject)]
pub struct ReportRunInput {
    /// The account, itself and all below.
    account_id: ID,
    /// The month in the account's zone, `YYYY-MM`.
    period: String,
    /// Mail addresses, at most 20.
    #[graphql(default)]
    recipients: Vec<String>,
}

impl Input for ReportRunInput {
    type Command = Reports;
    fn command(self) -> Result<Reports, Refusal> {
        let account = id(ResourceKind::Account, "accountId", &self.account_id)?;
        Ok(Reports::ReportRun { account, period: self.period, recipients: self.recipients })
    }
}

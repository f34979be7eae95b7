//! What a decision looks at, and what it says is to be written.

use model::change::{Plan, Refusal, RefusalCode};
use model::domain::SipDomain;
use model::id::{NumberId, SubscriberId};
use model::secret::Secret;
use model::tenancy::AccountPath;

use crate::resource::{Account, Domain, Number, Site, Subscriber, Token, Trunk};

/// What the store knows of the objects that a command names. What lies outside the caller's scope is left out, as if
/// it did not exist; only the accounts above the owner are there, since their quotas count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// From the provider down to the account that the command is about (the owner of the object), in the order of the
    /// path. Empty when that account is missing.
    pub ancestry: Vec<Account>,
    /// The domain that is named, or that of the subscriber.
    pub domain: Option<Domain>,
    /// The site that is named.
    pub site: Option<Site>,
    /// The subscriber that is named.
    pub subscriber: Option<Subscriber>,
    /// Where the customer of that subscriber sits.
    pub subscriber_path: Option<AccountPath>,
    /// Its numbers, when it is to go.
    pub subscriber_numbers: Vec<Number>,
    /// The number that is named.
    pub number: Option<Number>,
    /// The trunk that is named.
    pub trunk: Option<Trunk>,
    /// The token that is named.
    pub token: Option<Token>,
    /// What the command wants and something else holds, in or out of scope.
    pub taken: Vec<Taken>,
}

/// What can be held once only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Taken {
    /// A name among siblings: of an account, a site, a trunk, a token.
    Name,
    /// A domain of the installation.
    Domain,
    /// A username of a domain.
    Username,
    /// An extension of a customer.
    Extension,
    /// A number of the installation.
    E164,
    /// An address of a trunk.
    Address,
}

impl Taken {
    /// The refusal. It never tells who holds it: that may be a tenant that the caller must not know of.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        let (field, message, remedy) = match self {
            Self::Name => ("name", "this name is in use here", "choose another name"),
            Self::Domain => ("name", "this domain is not available", "choose another domain"),
            Self::Username => ("username", "this username is in use in the domain", "choose another username"),
            Self::Extension => ("extension", "this extension is in use at the customer", "choose another extension"),
            Self::E164 => ("e164", "this number is not available", "choose another number"),
            Self::Address => ("address", "this address is not available", "choose another address or port"),
        };
        Refusal::new(RefusalCode::Conflict, field, message, remedy)
    }
}

/// One row to be written. Updates and deletes name the version that they replace: it is one below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A new account.
    AccountInsert(Account),
    /// An account as it is to be. The subscriber count has its own write.
    AccountUpdate(Account),
    /// More or fewer subscribers at this account and all above.
    SubscriberCount {
        /// The customer.
        path: AccountPath,
        /// How many more; negative: fewer.
        delta: i64,
    },
    /// A new domain.
    DomainInsert(Domain),
    /// A new site.
    SiteInsert(Site),
    /// A new subscriber.
    SubscriberInsert(Subscriber, SipPassword),
    /// A subscriber as it is to be, with the credentials that it has.
    SubscriberUpdate(Subscriber),
    /// A subscriber as it is to be, with new credentials.
    SubscriberCredentials(Subscriber, SipPassword),
    /// A subscriber of this version goes.
    SubscriberDelete(SubscriberId, i64),
    /// A new number.
    NumberInsert(Number),
    /// A number as it is to be.
    NumberUpdate(Number),
    /// A number of this version goes.
    NumberDelete(NumberId, i64),
    /// A new trunk and its password.
    TrunkInsert(Trunk, Option<Secret<String>>),
    /// A trunk as it is to be, with the credentials that it has.
    TrunkUpdate(Trunk),
    /// A new token; the store draws it.
    TokenInsert(Token),
    /// A token as it is to be.
    TokenUpdate(Token),
}

/// From what the digest secrets of a subscriber are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipPassword {
    /// The domain's canonical name.
    pub realm: SipDomain,
    /// The password; the store draws one when there is none.
    pub password: Option<Secret<String>>,
}

/// What a command does.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What may be shown.
    pub plan: Plan,
    /// The account whose subtree is changed.
    pub path: AccountPath,
    /// What is to be written, in this order.
    pub writes: Vec<Write>,
}

//! What a decision looks at, and what it says is to be written.

use model::change::{Plan, Refusal, RefusalCode};
use model::domain::SipDomain;
use model::id::{AccountId, BulkJobId, ChangeId, DomainId, NumberId, SiteId, SubscriberId, TokenId, TrunkId};
use model::secret::Secret;
use model::tenancy::AccountPath;
use uuid::Uuid;

use crate::bulk::job::BulkJob;
use crate::resource::{Account, Domain, Number, Site, Subscriber, Token, Trunk};

/// What the store knows of the objects that a command names. What lies outside the caller's scope is left out, as if
/// it did not exist; only the accounts above the owner are there, since their quotas count, and what a change touched that
/// is to be taken back, such as a number that an account above holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    /// From the provider down to the account that the command is about (the owner of the object), in the order of the
    /// path. Empty when that account is missing.
    pub ancestry: Vec<Account>,
    /// Domains that are named, and those of the subscribers.
    pub domains: Vec<Domain>,
    /// Sites that are named.
    pub sites: Vec<Site>,
    /// Subscribers that are named, each with where its customer sits.
    pub subscribers: Vec<(Subscriber, AccountPath)>,
    /// Numbers that are named, and those of a subscriber that is to go.
    pub numbers: Vec<Number>,
    /// For whom a number that is named is held, or is to be, and where that account sits.
    pub held_for: Option<(AccountId, AccountPath)>,
    /// Trunks that are named.
    pub trunks: Vec<Trunk>,
    /// Tokens that are named.
    pub tokens: Vec<Token>,
    /// What is wanted and something else holds, in or out of scope: who wants it (none: what the command creates), and
    /// what.
    pub taken: Vec<(Option<Uuid>, Taken)>,
    /// Domains and sites that are to go and have subscribers: which, and how many.
    pub populated: Vec<(Uuid, i64)>,
    /// The bulk job that is named.
    pub job: Option<BulkJob>,
    /// The change that is to be taken back.
    pub reverted: Option<RevertedChange>,
}

/// A change that is to be taken back.
#[derive(Debug, Clone, PartialEq)]
pub struct RevertedChange {
    /// Which.
    pub change: ChangeId,
    /// The command that it carried out.
    pub command: String,
    /// What was done.
    pub plan: Plan,
    /// The change by which it was taken back before.
    pub by: Option<ChangeId>,
    /// What it took back, where it is a reversal.
    pub reverts: Option<RevertedBefore>,
    /// Changes that came after it, are in force, and touched what it touched; the oldest first, at most [`LATER_MAX`].
    pub later: Vec<Later>,
    /// Subscribers that it removed and whose credentials are kept.
    pub kept: Vec<SubscriberId>,
}

/// Later changes that are looked at. Who has more of them mends things by another change.
pub const LATER_MAX: usize = 200;

/// What a reversal took back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevertedBefore {
    /// The change.
    pub change: ChangeId,
    /// Whether that was a reversal itself.
    pub is_reversal: bool,
}

/// A change that came after one that is to be taken back.
#[derive(Debug, Clone, PartialEq)]
pub struct Later {
    /// The account whose subtree it changed.
    pub path: AccountPath,
    /// Which.
    pub change: ChangeId,
    /// The command that it carried out.
    pub command: String,
    /// What was done.
    pub plan: Plan,
}

impl View {
    /// Notes that `what` is held by somebody else than the one who wants it (none: what the command creates).
    pub fn takes(&mut self, what: Taken, holder: Option<Uuid>, itself: Option<Uuid>) {
        if holder.is_some() && holder != itself {
            self.taken.push((itself, what));
        }
    }

    /// A domain that was loaded.
    #[must_use]
    pub fn domain(&self, id: DomainId) -> Option<&Domain> {
        self.domains.iter().find(|domain| domain.id == id)
    }

    /// A site that was loaded.
    #[must_use]
    pub fn site(&self, id: SiteId) -> Option<&Site> {
        self.sites.iter().find(|site| site.id == id)
    }

    /// A subscriber that was loaded, and where its customer sits.
    #[must_use]
    pub fn subscriber(&self, id: SubscriberId) -> Option<&(Subscriber, AccountPath)> {
        self.subscribers.iter().find(|(subscriber, _)| subscriber.id == id)
    }

    /// A number that was loaded.
    #[must_use]
    pub fn number(&self, id: NumberId) -> Option<&Number> {
        self.numbers.iter().find(|number| number.id == id)
    }

    /// A trunk that was loaded.
    #[must_use]
    pub fn trunk(&self, id: TrunkId) -> Option<&Trunk> {
        self.trunks.iter().find(|trunk| trunk.id == id)
    }

    /// A token that was loaded.
    #[must_use]
    pub fn token(&self, id: TokenId) -> Option<&Token> {
        self.tokens.iter().find(|token| token.id == id)
    }
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
    /// A domain as it is to be.
    DomainUpdate(Domain),
    /// A domain of this version goes.
    DomainDelete(DomainId, i64),
    /// A new site.
    SiteInsert(Site),
    /// A site as it is to be.
    SiteUpdate(Site),
    /// A site of this version goes.
    SiteDelete(SiteId, i64),
    /// A new subscriber.
    SubscriberInsert(Subscriber, SipPassword),
    /// A subscriber as it is to be, with the credentials that it has.
    SubscriberUpdate(Subscriber),
    /// A subscriber as it is to be, with new credentials.
    SubscriberCredentials(Subscriber, SipPassword),
    /// A subscriber of this version goes; its credentials are kept for a while.
    SubscriberDelete(SubscriberId, i64),
    /// A subscriber that went comes again, with the credentials that were kept.
    SubscriberRestore(Subscriber),
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
    /// A token as it is to be, drawn anew by the store; the one before works until `previous_until`.
    TokenRotate(Token),
    /// A bulk job as it is to be.
    BulkJobUpdate(BulkJob),
    /// A bulk job begins, or goes on, with the rights of this token.
    BulkJobBegun {
        /// The job.
        job: BulkJobId,
        /// The token.
        token: Uuid,
    },
    /// The one that is written takes this change back.
    Reversal(ChangeId),
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

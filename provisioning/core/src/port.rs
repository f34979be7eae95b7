//! What faces, wiring and call core ask of provisioning. Implemented by the store.

use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use model::actor::Actor;
use model::change::{ChangeError, Plan, Refusal, ResourceRef};
use model::ctx::Ctx;
use model::id::{AccountId, BulkJobId, ChangeId, DomainId, NumberId, SiteId, SubscriberId, TokenId, TrunkId};
use model::page::{Page, PageRequest, ReadError};
use model::secret::Secret;
use model::tenancy::AccountPath;
use model::time::Timestamp;
use uuid::Uuid;

use crate::bulk::job::{BulkJob, LineResult};
use crate::bulk::{Fields, Kind};
use crate::resource::{Account, Domain, Number, Site, Subscriber, Token, Trunk};

/// Reads of the provisioning folder. Each requires `provisioning:read` (tokens: `token:write`, audit: `audit:read`)
/// and is confined to the scope of `ctx`; what lies outside looks missing. Lists are in the order of the identifier,
/// accounts in the order of the path.
#[async_trait]
#[expect(missing_docs, reason = "one pair per resource: `_get` by identifier, `_list` by owner (none: whole scope)")]
pub trait Queries: Send + Sync {
    async fn account_get(&self, ctx: &Ctx, id: AccountId) -> Result<Option<Account>, ReadError>;
    /// Accounts directly below `parent`; without one, all of the scope.
    async fn account_list(
        &self,
        ctx: &Ctx,
        parent: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<Account>, ReadError>;
    async fn domain_get(&self, ctx: &Ctx, id: DomainId) -> Result<Option<Domain>, ReadError>;
    async fn domain_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<Domain>, ReadError>;
    async fn site_get(&self, ctx: &Ctx, id: SiteId) -> Result<Option<Site>, ReadError>;
    async fn site_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<Site>, ReadError>;
    async fn subscriber_get(&self, ctx: &Ctx, id: SubscriberId) -> Result<Option<Subscriber>, ReadError>;
    async fn subscriber_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<Subscriber>, ReadError>;
    async fn number_get(&self, ctx: &Ctx, id: NumberId) -> Result<Option<Number>, ReadError>;
    async fn number_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<Number>, ReadError>;
    async fn trunk_get(&self, ctx: &Ctx, id: TrunkId) -> Result<Option<Trunk>, ReadError>;
    async fn trunk_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<Trunk>, ReadError>;
    async fn token_get(&self, ctx: &Ctx, id: TokenId) -> Result<Option<Token>, ReadError>;
    async fn token_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<Token>, ReadError>;
    async fn audit_get(&self, ctx: &Ctx, change: ChangeId) -> Result<Option<AuditEntry>, ReadError>;
    /// The audit trail.
    async fn audit_list(
        &self,
        ctx: &Ctx,
        filter: AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditEntry>, ReadError>;
}

/// Which entries of the audit trail, and in which order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Changes at and below this account; none: in the whole scope.
    pub account: Option<AccountId>,
    /// Changes that touched this resource; none: any.
    pub resource: Option<Uuid>,
    /// From the first one on, to follow the trail; else the newest first.
    pub oldest_first: bool,
}

/// One entry of the audit trail.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// Dense number in the installation.
    pub sequence: i64,
    /// The change set.
    pub change: ChangeId,
    /// When.
    pub at: Timestamp,
    /// The account whose subtree was changed.
    pub path: AccountPath,
    /// Who: kind and name.
    pub actor_kind: String,
    /// Name of the actor at that time.
    pub actor_name: String,
    /// The command.
    pub command: String,
    /// What was done: the plan, without secrets.
    pub plan: Plan,
    /// The change by which it is taken back.
    pub reverted_by: Option<ChangeId>,
    /// SHA-256 that chains this entry to the one before.
    pub hash: Vec<u8>,
}

/// Turns a bearer token into an actor.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// The actor of a token that is known, not expired and not revoked, may be used at this address, and whose account
    /// is enabled.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] when the store cannot be asked.
    async fn token_authenticate(&self, token: &str, from: IpAddr, now: Timestamp) -> Result<Option<Actor>, ReadError>;
}

/// What the call core knows of one resource. The wiring turns it into the core's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectoryEntry {
    /// An account.
    Account(Account),
    /// A domain.
    Domain(Domain),
    /// A subscriber with its digest secrets, unsealed for the core alone.
    Subscriber(Subscriber, SubscriberSecrets),
    /// A number.
    Number(Number),
    /// A trunk with the path of its owner, and its password, unsealed for the core alone.
    Trunk(Trunk, AccountPath, Option<Secret<String>>),
    /// The resource is gone, or of a kind that the core does not need.
    Gone(ResourceRef),
    /// The resource is there, and its row cannot be read or its secret not unsealed: it is left out, the others are not.
    Unreadable(ResourceRef, String),
}

/// HA1 = H(username:realm:password) for both algorithms (RFC 7616, section 3.4.2), as lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriberSecrets {
    /// For MD5: 32 hex digits.
    pub ha1_md5: Secret<String>,
    /// For SHA-256: 64 hex digits.
    pub ha1_sha256: Secret<String>,
}

/// Feeds the call core's directory.
#[async_trait]
pub trait DirectorySource: Send + Sync {
    /// Everything, with the event sequence up to which it holds.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn directory_snapshot(&self) -> Result<(i64, Vec<DirectoryEntry>), ReadError>;
    /// The named resources as they are now.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn directory_entries(&self, resources: &[ResourceRef]) -> Result<Vec<DirectoryEntry>, ReadError>;
}

/// A registration binding (RFC 3261, section 10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Whose.
    pub subscriber: SubscriberId,
    /// The contact URI as registered.
    pub contact: String,
    /// Where requests go: the source of the REGISTER (RFC 3581).
    pub source: SocketAddr,
    /// Call-ID of the REGISTER.
    pub call_id: String,
    /// `CSeq` of the REGISTER.
    pub cseq: u32,
    /// What registered.
    pub user_agent: String,
    /// When the binding ends.
    pub expires_at: Timestamp,
}

/// A change of a binding, in the order of its making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationChange {
    /// Made or refreshed.
    Bound(Registration),
    /// Ended: subscriber and contact.
    Unbound(SubscriberId, String),
}

/// Keeps registrations over a restart. The core works from memory and never waits for it.
#[async_trait]
pub trait Registrations: Send + Sync {
    /// Bindings that have not ended at `now`.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn registration_list(&self, now: Timestamp) -> Result<Vec<Registration>, ReadError>;
    /// Writes a batch of changes; bindings of subscribers that are gone are dropped.
    ///
    /// # Errors
    /// When the store cannot be written; the batch is safe to repeat.
    async fn registration_store(&self, changes: Vec<RegistrationChange>) -> Result<(), ReadError>;
}

/// A line of a file on its way in.
#[derive(Debug)]
pub struct StagedLine {
    /// The line of the file, counted from 1.
    pub line: u32,
    /// Its fields, or why it has none.
    pub fields: Result<Fields, Refusal>,
}

/// Files of many changes. All but the reads require `provisioning:write`; what lies outside the scope looks missing.
#[async_trait]
pub trait Bulk: Send + Sync {
    /// A job of the caller's account, for lines that are to come.
    ///
    /// # Errors
    /// Refused, or the store cannot be written.
    async fn job_create(&self, ctx: &Ctx, name: &str) -> Result<BulkJob, ChangeError>;
    /// Adds lines to a job that is being sent. Their numbers grow.
    ///
    /// # Errors
    /// Refused when the job is not being sent or has too many lines, or the store cannot be written.
    async fn job_append(&self, ctx: &Ctx, id: BulkJobId, lines: Vec<StagedLine>) -> Result<(), ChangeError>;
    /// All lines are there.
    ///
    /// # Errors
    /// Refused when the job is not being sent, or the store cannot be written.
    async fn job_staged(&self, ctx: &Ctx, id: BulkJobId) -> Result<BulkJob, ChangeError>;
    /// A job.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn job_get(&self, ctx: &Ctx, id: BulkJobId) -> Result<Option<BulkJob>, ReadError>;
    /// Jobs of one account, or of the whole scope.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn job_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<BulkJob>, ReadError>;
    /// Results after a line, in the order of the lines; at most `limit`. They hold drawn passwords, so
    /// `provisioning:write` is required.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn job_results(&self, ctx: &Ctx, id: BulkJobId, after: u32, limit: u32)
    -> Result<Vec<LineResult>, ReadError>;
    /// What there is of a kind within the scope, as lines that put it, in an order in which they can be sent; from a
    /// cursor that the page before gave. Requires `provisioning:read`.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn export(&self, ctx: &Ctx, kind: Kind, page: PageRequest) -> Result<Page<Fields>, ReadError>;
}

/// The first account and token of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// The provider.
    pub provider: AccountId,
    /// A token with every permission, revealed this once.
    pub token: Secret<String>,
}

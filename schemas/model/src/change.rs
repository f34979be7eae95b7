//! The shape of a change: every mutation is planned, then committed.
//!
//! `plan` is pure over a view that the store loads; `commit` loads the view again and writes rows, audit entry, change
//! event and idempotency answer in one transaction. A dry-run is `plan` alone and is never executed later. Plans hold
//! what may be shown: never a secret.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::ctx::Ctx;
use crate::id::ChangeId;
use crate::secret::Secret;

/// Longest idempotency key; a UUID has 36 characters, a hash in hex 64.
pub const IDEMPOTENCY_KEY_MAX: usize = 128;

macro_rules! resource_kinds {
    ($($(#[$doc:meta])+ $name:ident = $text:literal;)+) => {
        /// What a change touches.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum ResourceKind { $($(#[$doc])+ #[serde(rename = $text)] $name,)+ }
        impl ResourceKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];
            /// The stored name.
            #[must_use]
            pub const fn as_str(self) -> &'static str { match self { $(Self::$name => $text,)+ } }
            /// The kind of a stored name.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> { match text { $($text => Some(Self::$name),)+ _ => None } }
        }
    };
}

resource_kinds! {
    /// An account.
    Account = "account";
    /// A SIP domain.
    Domain = "domain";
    /// A site.
    Site = "site";
    /// A subscriber.
    Subscriber = "subscriber";
    /// A number.
    Number = "number";
    /// A trunk.
    Trunk = "trunk";
    /// A tariff.
    Tariff = "tariff";
    /// An assignment of a tariff.
    TariffAssignment = "tariff_assignment";
    /// A stream of billing files.
    Stream = "stream";
    /// A billing file.
    BillingFile = "billing_file";
    /// An API token.
    Token = "token";
    /// An alarm.
    Alarm = "alarm";
    /// A target of notifications of a node.
    NotificationTarget = "notification_target";
    /// A run of a report.
    ReportRun = "report_run";
    /// A change: an entry of the audit trail.
    Change = "change";
    /// A bulk job.
    BulkJob = "bulk_job";
}

/// One resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResourceRef {
    /// Its kind.
    pub kind: ResourceKind,
    /// Its identifier.
    pub id: Uuid,
}

/// The version of a resource that a plan was made against; a new resource has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceVersion {
    /// Which resource.
    pub resource: ResourceRef,
    /// Its version, counted from 1.
    pub version: i64,
}

/// What happens to one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectKind {
    /// It comes into being.
    Created,
    /// It changes.
    Updated,
    /// It goes.
    Deleted,
}

/// The effect of a change on one resource, as it may be shown and kept in the audit trail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// What happens.
    pub kind: EffectKind,
    /// To which resource.
    pub resource: ResourceRef,
    /// A name that a person recognises.
    pub name: String,
    /// The resource before, public fields only.
    pub before: Option<Value>,
    /// The resource after, public fields only.
    pub after: Option<Value>,
}

/// Whether a change can be taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "reason", rename_all = "snake_case")]
pub enum Reversibility {
    /// The inverse plan exists and is checked like any other.
    Reversible,
    /// It cannot be taken back, for this reason.
    Final(String),
}

/// What a command would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The effects, in the order in which they are written.
    pub effects: Vec<Effect>,
    /// The versions that the plan was made against.
    pub versions: Vec<ResourceVersion>,
    /// Whether it can be taken back.
    pub reversibility: Reversibility,
}

/// Why a command was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RefusalCode {
    /// The object does not exist, or not for you.
    NotFound,
    /// A field is malformed or out of range.
    Invalid,
    /// Something else holds the name, number or address.
    Conflict,
    /// A quota is used up.
    QuotaExceeded,
    /// A permission is missing, or a grant would exceed the granter's.
    Forbidden,
    /// The object changed since it was read.
    VersionMismatch,
    /// The idempotency key was used with another payload.
    IdempotencyConflict,
    /// Something still depends on the object.
    InUse,
}

impl RefusalCode {
    /// The name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "NOT_FOUND",
            Self::Invalid => "INVALID",
            Self::Conflict => "CONFLICT",
            Self::QuotaExceeded => "QUOTA_EXCEEDED",
            Self::Forbidden => "FORBIDDEN",
            Self::VersionMismatch => "VERSION_MISMATCH",
            Self::IdempotencyConflict => "IDEMPOTENCY_CONFLICT",
            Self::InUse => "IN_USE",
        }
    }
}

/// One reason for a refusal: which field, what is wrong, what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The class of the reason.
    pub code: RefusalCode,
    /// The field, as a path from the input's root: `subscriber.extension`. Empty when no field is to blame.
    pub field: String,
    /// What is wrong, as a sentence.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Refusal {
    /// Builds a refusal.
    #[must_use]
    pub fn new(code: RefusalCode, field: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, field: field.to_owned(), message: message.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            write!(f, "{} ({})", self.message, self.remedy)
        } else {
            write!(f, "{}: {} ({})", self.field, self.message, self.remedy)
        }
    }
}

/// Why a change did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The command is refused, for these reasons. Nothing was written.
    #[error("refused: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Refused(Vec<Refusal>),
    /// The store cannot be reached or is too busy. Nothing was written; the same call with the same key is safe.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// A defect of ours; the log has the detail under the trace.
    #[error("internal error: {0}")]
    Internal(String),
}

impl From<Refusal> for ChangeError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(vec![refusal])
    }
}

impl From<crate::ctx::Denied> for ChangeError {
    fn from(denied: crate::ctx::Denied) -> Self {
        Refusal::new(
            RefusalCode::Forbidden,
            "",
            format!("the permission {} is missing", denied.permission),
            "ask for a token that carries it",
        )
        .into()
    }
}

/// A client's own key for one change: the same key with the same payload gives the stored answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Takes a key of 1 to [`IDEMPOTENCY_KEY_MAX`] visible ASCII characters.
    ///
    /// # Errors
    /// When it is empty, too long or has other characters.
    pub fn new(text: &str) -> Result<Self, Refusal> {
        if text.is_empty() || text.len() > IDEMPOTENCY_KEY_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Refusal::new(
                RefusalCode::Invalid,
                "idempotencyKey",
                format!("an idempotency key is 1 to {IDEMPOTENCY_KEY_MAX} visible ASCII characters"),
                "send a UUID",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How a change is to be committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitOptions {
    /// The client's key, when it sent one.
    pub idempotency_key: Option<IdempotencyKey>,
    /// Versions that the client expects; a difference is refused.
    pub expected: Vec<ResourceVersion>,
}

/// A committed change.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    /// The change set.
    pub change: ChangeId,
    /// What was done.
    pub plan: Plan,
    /// Whether this is the stored answer of an earlier call with the same key.
    pub replayed: bool,
    /// A secret that is shown this once (a new token, a generated password). Absent on a replay.
    pub revealed: Option<Secret<String>>,
}

/// The pipeline of all mutations: one implementation per folder, over that folder's commands.
#[async_trait]
pub trait Change<C: Send + Sync + 'static>: Send + Sync {
    /// What the command would do now. Writes nothing and does not hold the writer.
    ///
    /// # Errors
    /// [`ChangeError`].
    async fn plan(&self, ctx: &Ctx, command: &C) -> Result<Plan, ChangeError>;

    /// Does it: rows, audit, event and answer in one transaction.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing was written then.
    async fn commit(&self, ctx: &Ctx, command: C, options: CommitOptions) -> Result<Committed, ChangeError>;
}

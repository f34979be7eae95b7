//! Store events: what happened in the store, as JSON in the table `event`.

use serde::{Deserialize, Serialize};

use crate::change::{EffectKind, ResourceRef};
use crate::id::{AccountId, BatchId, ChangeId, FileId, RunId, StreamId};
use crate::tenancy::AccountPath;
use crate::time::Timestamp;

/// An event of the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StoreEvent {
    /// A change set was committed.
    Changed(Changed),
    /// A batch of usage was rated; one event per batch, not per call.
    Rated(Rated),
    /// A billing file was closed.
    Billed(Billed),
    /// A report was finished.
    Reported(Reported),
}

impl StoreEvent {
    /// The name of the kind, as it is stored.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Changed(_) => "changed",
            Self::Rated(_) => "rated",
            Self::Billed(_) => "billed",
            Self::Reported(_) => "reported",
        }
    }

    /// The path of the account that the event belongs to; subscriptions and webhooks filter on it.
    #[must_use]
    pub const fn path(&self) -> Option<&AccountPath> {
        match self {
            Self::Changed(e) => Some(&e.path),
            Self::Rated(_) => None,
            Self::Billed(e) => Some(&e.path),
            Self::Reported(e) => Some(&e.path),
        }
    }
}

/// One resource of a change set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedResource {
    /// What happened to it.
    pub effect: EffectKind,
    /// Which one.
    pub resource: ResourceRef,
}

/// A change set was committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The change set.
    pub change: ChangeId,
    /// The account whose subtree was changed.
    pub path: AccountPath,
    /// What was touched.
    pub resources: Vec<ChangedResource>,
}

/// A batch of rated usage: every row of `rated` with this batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rated {
    /// The batch.
    pub batch: BatchId,
    /// Rows of usage in it.
    pub usage_count: i64,
    /// Rated rows in it.
    pub rated_count: i64,
    /// Rows put in suspense.
    pub suspense_count: i64,
}

/// A billing file was closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Billed {
    /// The file.
    pub file: FileId,
    /// Its stream.
    pub stream: StreamId,
    /// Its sequence in the stream.
    pub sequence: i64,
    /// The stream's account.
    pub account: AccountId,
    /// The path of that account.
    pub path: AccountPath,
    /// Records in it.
    pub record_count: i64,
}

/// A report was finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// The run.
    pub run: RunId,
    /// The path of the account that it is about.
    pub path: AccountPath,
    /// When.
    pub at: Timestamp,
}

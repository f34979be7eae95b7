//! Bulk jobs.

use async_graphql::{Enum, ID, SimpleObject};
use model::change::ResourceKind;
use provisioning::bulk::job;

use super::global;
use crate::scalar::{Long, Timestamp};

/// How lines that are refused bear on the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "job::JobMode")]
pub enum BulkJobMode {
    /// Each line is done or refused for itself.
    PerLine,
    /// One refused line, and none is done. At most 10,000 lines.
    AllOrNothing,
    /// Every line is decided, as if those before it were done, and nothing is done: a dry-run.
    Check,
}

/// How far a bulk job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "job::JobState")]
pub enum BulkJobState {
    /// Its lines are on their way in.
    Uploading,
    /// All lines are there; it can be started. Also after a check.
    Staged,
    /// Lines are done, or checked.
    Running,
    /// Every line has a result.
    Finished,
    /// A line was refused, and all were to be done or none: nothing was done.
    Refused,
    /// It was cancelled; what was done before stays.
    Cancelled,
    /// It cannot go on, `reason` says why; what was done before stays.
    Stopped,
}

/// A file of many changes, sent to `POST /bulk/jobs`. The results of its lines are at `GET /bulk/jobs/{id}/results`.
#[derive(Debug, SimpleObject)]
pub struct BulkJob {
    /// Its global identifier.
    pub id: ID,
    /// Whose it is: names in its lines are read from this account down.
    pub account_id: ID,
    /// Name of the file.
    pub name: String,
    /// How far it is.
    pub state: BulkJobState,
    /// How it was started last.
    pub mode: Option<BulkJobMode>,
    /// Lines that it has.
    pub total: u32,
    /// Lines that were done, or would be.
    pub applied: u32,
    /// Lines that ask for what is so already.
    pub unchanged: u32,
    /// Lines that were refused.
    pub refused: u32,
    /// Who started it last.
    pub started_by: Option<String>,
    /// Why it cannot go on.
    pub reason: Option<String>,
    /// When it was started last.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Counted from 1; grows with each change.
    pub version: Long,
    /// When it came into being.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl From<job::BulkJob> for BulkJob {
    fn from(job: job::BulkJob) -> Self {
        Self {
            id: global(ResourceKind::BulkJob, job.id),
            account_id: global(ResourceKind::Account, job.account),
            name: job.name,
            state: job.state.into(),
            mode: job.mode.map(Into::into),
            total: job.total,
            applied: job.applied,
            unchanged: job.unchanged,
            refused: job.refused,
            started_by: job.started_by,
            reason: job.reason,
            started_at: job.started_at.map(Timestamp),
            finished_at: job.finished_at.map(Timestamp),
            version: Long(job.revision.version),
            created_at: Timestamp(job.revision.created_at),
            updated_at: Timestamp(job.revision.updated_at),
        }
    }
}

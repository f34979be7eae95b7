//! What faces and wiring ask of reports. Implemented by the store beside it.

use async_trait::async_trait;
use model::ctx::Ctx;
use model::id::RunId;
use model::page::{Page, PageRequest, ReadError};
use model::time::Timestamp;

use crate::resource::{Format, Interval, ReportRun, Subject};

/// Reads of reports. Each requires `report:read` and is confined to the scope of `ctx`.
#[async_trait]
pub trait Queries: Send + Sync {
    /// One run.
    async fn run_get(&self, ctx: &Ctx, id: RunId) -> Result<Option<ReportRun>, ReadError>;
    /// Runs, in the order of their identifiers.
    async fn run_list(&self, ctx: &Ctx, page: PageRequest) -> Result<Page<ReportRun>, ReadError>;
    /// The bytes of a finished run.
    async fn artefact_read(&self, ctx: &Ctx, id: RunId, format: Format) -> Result<Option<Vec<u8>>, ReadError>;
    /// Counters of a subject, summed over nodes, intervals without calls left out; at most 31 days.
    async fn interval_list(
        &self,
        ctx: &Ctx,
        subject: Subject,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Interval>, ReadError>;
}

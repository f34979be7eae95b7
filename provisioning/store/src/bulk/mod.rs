//! Bulk jobs in the store: lines come in sealed, since they may hold passwords, are done some at a time, and leave
//! results. What is done of a job, and what is not, is one transaction with what the lines did: a job that was killed goes
//! on with the first line that has no result.

mod export;
pub(crate) mod lines;
mod load;
pub(crate) mod run;

use std::convert::Infallible;
use std::sync::Arc;

use async_trait::async_trait;
use db::sqlx::{self, FromRow};
use db::{DbError, Tx, WriteError, on_tx};
use model::actor::Permission;
use model::change::{ChangeError, Refusal, RefusalCode};
use model::ctx::Ctx;
use model::id::{AccountId, BulkJobId};
use model::page::{Page, PageRequest, ReadError};
use model::time::Timestamp;
use provisioning::bulk::job::{BulkJob, JobState, LINES_MAX, LineResult};
use provisioning::bulk::{Fields, Kind};
use provisioning::port::{Bulk, StagedLine};
use provisioning::resource::Revision;
use uuid::Uuid;

pub use self::run::BulkStep;
use crate::ProvisioningStore;
use crate::row::{Lock, Stored, get, list, load, one_row, owned_statements, parsed, read_error, revision, unsigned};

/// Longest name of a job, in characters: that of a file.
const NAME_MAX: usize = 255;
/// Jobs of one account that have not ended: each may hold a file, and has its turns.
const OPEN_MAX: i64 = 20;
/// How long an upload may be silent.
const UPLOAD_MS: i64 = 3_600_000;

owned_statements! {
    "bulk_job", "x.id, x.account_id, x.name, x.state, x.mode, x.total, x.applied, x.unchanged, x.refused, x.started_by, \
        x.reason, x.started_at, x.finished_at, x.version, x.created_at, x.updated_at";
    INSERT = "INSERT INTO bulk_job (id, account_id, name, state, total, applied, unchanged, refused, stepped_at, version, \
        created_at, updated_at) VALUES ($1, $2, $3, 'uploading', 0, 0, 0, 0, $4, 1, $4, $4)";
    UPDATE = "UPDATE bulk_job SET state = $3, mode = $4, started_by = $5, reason = $6, started_at = $7, finished_at = $8, \
        version = version + 1, updated_at = $9 WHERE id = $1 AND version = $2";
    BEGUN = "UPDATE bulk_job SET token_id = $2, run = run + 1, failures = 0 WHERE id = $1";
    /// Jobs of an account that have not ended.
    OPEN = "SELECT COUNT(*) FROM bulk_job WHERE account_id = $1 AND state IN ('uploading', 'staged', 'running')";
    TOTAL = "UPDATE bulk_job SET total = total + $2, updated_at = $3 WHERE id = $1 AND state = 'uploading'";
    STAGED = "UPDATE bulk_job SET state = 'staged', version = version + 1, updated_at = $2 \
        WHERE id = $1 AND state = 'uploading'";
    /// Jobs that nobody touched since an instant, and uploads that broke off before another.
    FORGET = "DELETE FROM bulk_job WHERE id IN (SELECT id FROM bulk_job WHERE (updated_at < $1 AND state <> 'running') \
        OR (updated_at < $2 AND state = 'uploading') ORDER BY updated_at LIMIT 1)";
}

#[derive(Debug, FromRow)]
pub(crate) struct Row {
    id: Uuid,
    account_id: Uuid,
    name: String,
    state: String,
    mode: Option<String>,
    total: i64,
    applied: i64,
    unchanged: i64,
    refused: i64,
    started_by: Option<String>,
    reason: Option<String>,
    started_at: Option<i64>,
    finished_at: Option<i64>,
    version: i64,
    created_at: i64,
    updated_at: i64,
}

impl Stored for Row {
    type Resource = BulkJob;
    fn resource(self) -> Result<BulkJob, DbError> {
        Ok(BulkJob {
            id: BulkJobId::from_uuid(self.id),
            account: AccountId::from_uuid(self.account_id),
            name: self.name,
            state: parsed("bulk_job.state", &self.state)?,
            mode: self.mode.map(|mode| parsed("bulk_job.mode", &mode)).transpose()?,
            total: unsigned("bulk_job.total", self.total)?,
            applied: unsigned("bulk_job.applied", self.applied)?,
            unchanged: unsigned("bulk_job.unchanged", self.unchanged)?,
            refused: unsigned("bulk_job.refused", self.refused)?,
            started_by: self.started_by,
            reason: self.reason,
            started_at: self.started_at.map(Timestamp),
            finished_at: self.finished_at.map(Timestamp),
            revision: revision(self.version, self.created_at, self.updated_at),
        })
    }
}

/// A job that was started or cancelled.
pub(crate) async fn update(tx: &mut Tx, job: &BulkJob) -> Result<(), DbError> {
    let (started_at, finished_at) = (job.started_at.map(|at| at.0), job.finished_at.map(|at| at.0));
    let affected = on_tx!(tx, c => sqlx::query(UPDATE)
        .bind(job.id.uuid()).bind(job.revision.version - 1).bind(job.state.as_str()).bind(job.mode.map(|m| m.as_str()))
        .bind(&job.started_by).bind(&job.reason).bind(started_at).bind(finished_at).bind(job.revision.updated_at.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    one_row(affected)
}

/// A job begins, or goes on, with the rights of a token.
pub(crate) async fn begun(tx: &mut Tx, job: BulkJobId, token: Uuid) -> Result<(), DbError> {
    on_tx!(tx, c => sqlx::query(BEGUN).bind(job.uuid()).bind(token).execute(c).await.map(|_| ()))?;
    lines::wait_anew(tx, job).await
}

#[async_trait]
impl Bulk for ProvisioningStore {
    async fn job_create(&self, ctx: &Ctx, name: &str) -> Result<BulkJob, ChangeError> {
        ctx.require(Permission::ProvisioningWrite)?;
        let name: String = name.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect();
        let now = ctx.now();
        let job = BulkJob {
            id: BulkJobId::new(&*ctx.ids),
            account: ctx.actor.account,
            name,
            state: JobState::Uploading,
            mode: None,
            total: 0,
            applied: 0,
            unchanged: 0,
            refused: 0,
            started_by: None,
            reason: None,
            started_at: None,
            finished_at: None,
            revision: Revision { version: 1, created_at: now, updated_at: now },
        };
        let made = Arc::new(job.clone());
        let written = self.db.write(move |tx| {
            let job = Arc::clone(&made);
            Box::pin(async move {
                let account = job.account.uuid();
                db::dialect::serialize_on(tx, &[b"bulk", account.as_bytes()]).await?;
                let open: i64 = on_tx!(tx, c => sqlx::query_scalar(OPEN).bind(account).fetch_one(c).await)?;
                if open >= OPEN_MAX {
                    return Err(WriteError::Refused(too_many()));
                }
                on_tx!(tx, c => sqlx::query(INSERT)
                    .bind(job.id.uuid()).bind(job.account.uuid()).bind(&job.name).bind(now.0)
                    .execute(c).await.map(|_| ()))?;
                Ok(())
            })
        });
        written.await.map_err(ChangeError::from)?;
        Ok(job)
    }

    async fn job_append(&self, ctx: &Ctx, id: BulkJobId, lines: Vec<StagedLine>) -> Result<(), ChangeError> {
        ctx.require(Permission::ProvisioningWrite)?;
        let job = uploading(self.job_get(ctx, id).await.map_err(unread)?)?;
        let more = u32::try_from(lines.len()).unwrap_or(u32::MAX);
        if job.total.saturating_add(more) > LINES_MAX {
            let message = format!("a job has at most {LINES_MAX} lines");
            return Err(Refusal::new(RefusalCode::Invalid, "", message, "divide the file").into());
        }
        let sealed = Arc::new(lines::seal(&self.sealer, id, &lines)?);
        let now = ctx.now();
        let written = self.db.write(move |tx| {
            let sealed = Arc::clone(&sealed);
            Box::pin(async move {
                let affected = on_tx!(tx, c => sqlx::query(TOTAL)
                    .bind(id.uuid()).bind(i64::from(more)).bind(now.0)
                    .execute(c).await.map(|done| done.rows_affected()))?;
                if affected != 1 {
                    return Err(WriteError::Refused(not_uploading()));
                }
                db::dialect::bulk_insert(tx, &sealed, "").await?;
                Ok(())
            })
        });
        written.await.map_err(|error| match error {
            WriteError::Db(DbError::Unique { .. }) => {
                let message = "a line has the number of another";
                Refusal::new(RefusalCode::Invalid, "", message, "number the lines of a job as they rise").into()
            }
            other => other.into(),
        })
    }

    async fn job_staged(&self, ctx: &Ctx, id: BulkJobId) -> Result<BulkJob, ChangeError> {
        ctx.require(Permission::ProvisioningWrite)?;
        uploading(self.job_get(ctx, id).await.map_err(unread)?)?;
        let now = ctx.now();
        let staged = self.db.write(move |tx| {
            Box::pin(async move {
                let affected = on_tx!(tx, c => sqlx::query(STAGED)
                    .bind(id.uuid()).bind(now.0).execute(c).await.map(|done| done.rows_affected()))?;
                let job = load::<Row>(tx, LOAD, id.uuid(), Lock::Free).await?;
                job.filter(|_| affected == 1).ok_or_else(|| WriteError::Refused(not_uploading()))
            })
        });
        staged.await.map_err(ChangeError::from)
    }

    async fn job_get(&self, ctx: &Ctx, id: BulkJobId) -> Result<Option<BulkJob>, ReadError> {
        ctx.require(Permission::ProvisioningRead)?;
        get::<Row>(&self.db, GET, &ctx.scope, id.uuid()).await
    }

    async fn job_list(
        &self,
        ctx: &Ctx,
        account: Option<AccountId>,
        page: PageRequest,
    ) -> Result<Page<BulkJob>, ReadError> {
        ctx.require(Permission::ProvisioningRead)?;
        list::<Row>(&self.db, (LIST, LIST_OWNED), &ctx.scope, account, &page, |job| job.id.uuid()).await
    }

    async fn job_results(
        &self,
        ctx: &Ctx,
        id: BulkJobId,
        after: u32,
        limit: u32,
    ) -> Result<Vec<LineResult>, ReadError> {
        ctx.require(Permission::ProvisioningWrite)?;
        if self.job_get(ctx, id).await?.is_none() {
            return Ok(Vec::new());
        }
        lines::results(&self.db, &self.sealer, id, after, limit).await.map_err(read_error)
    }

    async fn export(&self, ctx: &Ctx, kind: Kind, page: PageRequest) -> Result<Page<Fields>, ReadError> {
        ctx.require(Permission::ProvisioningRead)?;
        export::export(self, ctx, kind, page).await
    }
}

impl ProvisioningStore {
    /// Forgets a job that ended, or was never started, before `before`, or whose upload broke off, with its lines and
    /// results. One at a time, since it may have many. Whether there was one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_job(&self, before: Timestamp, now: Timestamp) -> Result<bool, DbError> {
        let silent = now.plus_ms(-UPLOAD_MS);
        let forgotten = self.db.write::<_, Infallible, _>(move |tx| {
            Box::pin(async move {
                Ok(on_tx!(tx, c => sqlx::query(FORGET).bind(before.0).bind(silent.0)
                    .execute(c).await.map(|done| done.rows_affected()))?)
            })
        });
        match forgotten.await {
            Ok(count) => Ok(count > 0),
            Err(WriteError::Db(error)) => Err(error),
            Err(WriteError::Refused(never)) => match never {},
        }
    }
}

fn uploading(job: Option<BulkJob>) -> Result<BulkJob, ChangeError> {
    let missing = || Refusal::new(RefusalCode::NotFound, "id", "there is no such bulk job", "send the file anew");
    let job = job.ok_or_else(missing)?;
    if job.state == JobState::Uploading { Ok(job) } else { Err(not_uploading()) }
}

fn unread(error: ReadError) -> ChangeError {
    match error {
        ReadError::Denied(denied) => denied.into(),
        ReadError::Unavailable(message) => ChangeError::Unavailable(message),
        other => ChangeError::Internal(other.to_string()),
    }
}

fn not_uploading() -> ChangeError {
    Refusal::new(RefusalCode::Conflict, "id", "the job takes no more lines", "send them as a new job").into()
}

fn too_many() -> ChangeError {
    let message = format!("the account has {OPEN_MAX} bulk jobs that have not ended");
    Refusal::new(RefusalCode::Conflict, "", message, "start or cancel one of them first").into()
}

/// The statements that are put together at run time, for tests that prepare them.
#[cfg(test)]
pub(crate) fn put_together() -> Vec<String> {
    use crate::row::New;
    use crate::subscriber::NewSubscriber;
    use crate::{account, domain, number};
    use db::dialect::{bulk_statement, keyed_statement};
    use provisioning::resource::{Account, Domain, Number, Site};
    // PostgreSQL learns that a key is an identifier from its value alone: such statements are run by tests, not prepared
    let keyed = |columns, table, key: &[&str]| keyed_statement(columns, table, key, 2, "ORDER BY x.id");
    let mut statements = vec![
        bulk_statement::<New<Account>>(2, ""),
        bulk_statement::<New<Domain>>(2, ""),
        bulk_statement::<New<Site>>(2, ""),
        bulk_statement::<New<Number>>(2, ""),
        bulk_statement::<NewSubscriber>(2, ""),
        keyed(account::COLUMNS, "account", &["path"]),
        keyed(domain::COLUMNS, "domain", &["name"]),
        keyed(number::COLUMNS, "number", &["e164"]),
    ];
    statements.extend(lines::put_together());
    statements
}

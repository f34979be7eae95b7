//! Lines that wait, sealed, and the results of those that were done.

use db::dialect::{BulkRow, Value, bulk_insert};
use db::sqlx::{self, FromRow};
use db::{Db, DbError, Tx, on_db, on_tx};
use model::change::{Refusal, RefusalCode, ResourceKind, ResourceRef};
use model::id::{BulkJobId, ChangeId};
use provisioning::bulk::Fields;
use provisioning::bulk::job::LineResult;
use provisioning::port::StagedLine;
use uuid::Uuid;

use crate::row::{parsed, unsigned};
use crate::seal::{Column, Sealer};

const SEALED: Column = "bulk_line.sealed";
const PASSWORD: Column = "bulk_result.password";
/// What a line begins with that had no fields: the reason follows.
const MALFORMED: char = '!';

db::statements! {
    WAITING = "SELECT line, sealed FROM bulk_line WHERE job_id = $1 AND line > $2 ORDER BY line LIMIT $3";
    DONE = "DELETE FROM bulk_line WHERE job_id = $1 AND line <= $2";
    RESULTS = "SELECT line, outcome, kind, resource_id, changes, refusals, password FROM bulk_result \
        WHERE job_id = $1 AND line > $2 ORDER BY line LIMIT $3";
    /// Lines that wait have a result of a check only, or of a try of all.
    FORGET_RESULTS = "DELETE FROM bulk_result WHERE job_id = $1 \
        AND line IN (SELECT line FROM bulk_line WHERE job_id = $1)";
    COUNT_RESULTS = "UPDATE bulk_job SET \
        applied = (SELECT COUNT(*) FROM bulk_result WHERE job_id = $1 AND outcome = 'applied'), \
        unchanged = (SELECT COUNT(*) FROM bulk_result WHERE job_id = $1 AND outcome = 'unchanged'), \
        refused = (SELECT COUNT(*) FROM bulk_result WHERE job_id = $1 AND outcome = 'refused') WHERE id = $1";
}

/// A line as it waits.
pub(crate) struct SealedLine {
    job: Uuid,
    line: i64,
    sealed: Vec<u8>,
}

impl BulkRow for SealedLine {
    const TABLE: &'static str = "bulk_line";
    const COLUMNS: &'static [&'static str] = &["job_id", "line", "sealed"];

    fn values<'a>(&'a self, out: &mut Vec<Value<'a>>) {
        out.extend([self.job.into(), self.line.into(), self.sealed.as_slice().into()]);
    }
}

/// What a sealed value of a line is bound to.
fn bound(job: BulkJobId, line: u32) -> Uuid {
    Uuid::from_u128(job.uuid().as_u128() ^ u128::from(line))
}

pub(super) fn seal(sealer: &Sealer, job: BulkJobId, lines: &[StagedLine]) -> Result<Vec<SealedLine>, DbError> {
    let seal = |line: &StagedLine| {
        let text = match &line.fields {
            Ok(fields) => fields.to_json(),
            Err(refusal) => {
                let refusal = serde_json::to_string(refusal).map_err(|e| DbError::corrupt(SEALED, e))?;
                format!("{MALFORMED}{refusal}")
            }
        };
        let sealed = sealer.seal(SEALED, bound(job, line.line), &text)?;
        Ok(SealedLine { job: job.uuid(), line: i64::from(line.line), sealed })
    };
    lines.iter().map(seal).collect()
}

/// Lines that have no result, after one.
pub(super) async fn waiting(
    tx: &mut Tx,
    sealer: &Sealer,
    job: BulkJobId,
    after: u32,
    limit: u32,
) -> Result<Vec<StagedLine>, DbError> {
    let rows: Vec<(i64, Vec<u8>)> = on_tx!(tx, c => sqlx::query_as(WAITING)
        .bind(job.uuid()).bind(i64::from(after)).bind(i64::from(limit)).fetch_all(c).await)?;
    let open = |(line, sealed): (i64, Vec<u8>)| {
        let line = unsigned("bulk_line.line", line)?;
        // One line that cannot be read must not keep the others from being done.
        let broken = |error: String| {
            tracing::error!(job.id = %job, line, error, "a line of a bulk job cannot be read");
            Refusal::new(RefusalCode::Invalid, "", "the line cannot be read any more", "send it again")
        };
        let fields = match sealer.open(SEALED, bound(job, line), &sealed) {
            Ok(text) => match text.expose().strip_prefix(MALFORMED) {
                None => Fields::from_json(text.expose()),
                Some(refusal) => Err(serde_json::from_str(refusal).unwrap_or_else(|error| broken(error.to_string()))),
            },
            Err(error) => Err(broken(error.to_string())),
        };
        Ok(StagedLine { line, fields })
    };
    rows.into_iter().map(open).collect()
}

/// The lines up to one wait no longer.
pub(super) async fn done(tx: &mut Tx, job: BulkJobId, up_to: u32) -> Result<(), DbError> {
    on_tx!(tx, c => sqlx::query(DONE).bind(job.uuid()).bind(i64::from(up_to)).execute(c).await.map(|_| ()))?;
    Ok(())
}

/// The results that waiting lines have go, before they are looked at again.
pub(super) async fn wait_anew(tx: &mut Tx, job: BulkJobId) -> Result<(), DbError> {
    for sql in [FORGET_RESULTS, COUNT_RESULTS] {
        on_tx!(tx, c => sqlx::query(sql).bind(job.uuid()).execute(c).await.map(|_| ()))?;
    }
    Ok(())
}

/// A result as it is stored.
struct ResultRow<'a> {
    job: Uuid,
    result: &'a LineResult,
    changes: Option<String>,
    refusals: Option<String>,
    password: Option<Vec<u8>>,
}

impl<'a> ResultRow<'a> {
    fn of(sealer: &Sealer, job: BulkJobId, result: &'a LineResult) -> Result<Self, DbError> {
        let LineResult { line, refusals, password, .. } = result;
        let changes: Vec<String> = result.changes.iter().map(ToString::to_string).collect();
        let refusals = (!refusals.is_empty()).then(|| serde_json::to_string(refusals)).transpose();
        let password = password.as_ref().map(|password| sealer.seal(PASSWORD, bound(job, *line), password.expose()));
        Ok(Self {
            job: job.uuid(),
            result,
            changes: (!changes.is_empty()).then(|| changes.join(" ")),
            refusals: refusals.map_err(|e| DbError::corrupt("bulk_result.refusals", e))?,
            password: password.transpose()?,
        })
    }
}

impl BulkRow for ResultRow<'_> {
    const TABLE: &'static str = "bulk_result";
    const COLUMNS: &'static [&'static str] =
        &["job_id", "line", "outcome", "kind", "resource_id", "changes", "refusals", "password"];

    fn values<'a>(&'a self, out: &mut Vec<Value<'a>>) {
        let result = self.result;
        out.extend([
            self.job.into(),
            i64::from(result.line).into(),
            result.outcome.as_str().into(),
            result.object.map(|object| object.kind.as_str()).into(),
            result.object.map(|object| object.id).into(),
            self.changes.as_deref().into(),
            self.refusals.as_deref().into(),
            self.password.as_deref().into(),
        ]);
    }
}

pub(super) async fn store_results(
    tx: &mut Tx,
    sealer: &Sealer,
    job: BulkJobId,
    results: &[LineResult],
) -> Result<(), DbError> {
    let rows = results.iter().map(|result| ResultRow::of(sealer, job, result)).collect::<Result<Vec<_>, _>>()?;
    bulk_insert(tx, &rows, "").await?;
    Ok(())
}

#[derive(Debug, FromRow)]
struct StoredResult {
    line: i64,
    outcome: String,
    kind: Option<String>,
    resource_id: Option<Uuid>,
    changes: Option<String>,
    refusals: Option<String>,
    password: Option<Vec<u8>>,
}

pub(super) async fn results(
    db: &Db,
    sealer: &Sealer,
    job: BulkJobId,
    after: u32,
    limit: u32,
) -> Result<Vec<LineResult>, DbError> {
    let rows: Vec<StoredResult> = on_db!(db, c => sqlx::query_as(RESULTS)
        .bind(job.uuid()).bind(i64::from(after)).bind(i64::from(limit)).fetch_all(c).await)?;
    let result = |row: StoredResult| {
        let line = unsigned("bulk_result.line", row.line)?;
        let kind = row.kind.as_deref().and_then(ResourceKind::parse);
        let refusals: Option<Vec<Refusal>> = row
            .refusals
            .map(|refusals| serde_json::from_str(&refusals).map_err(|e| DbError::corrupt("bulk_result.refusals", e)))
            .transpose()?;
        Ok(LineResult {
            line,
            outcome: parsed("bulk_result.outcome", &row.outcome)?,
            object: kind.zip(row.resource_id).map(|(kind, id)| ResourceRef { kind, id }),
            changes: row
                .changes
                .iter()
                .flat_map(|changes| changes.split(' '))
                .map(|change| parsed::<ChangeId>("bulk_result.changes", change))
                .collect::<Result<_, _>>()?,
            refusals: refusals.unwrap_or_default(),
            password: row.password.map(|sealed| sealer.open(PASSWORD, bound(job, line), &sealed)).transpose()?,
        })
    };
    rows.into_iter().map(result).collect()
}

/// The statements that are put together at run time, for tests that prepare them.
#[cfg(test)]
pub(super) fn put_together() -> [String; 2] {
    [db::dialect::bulk_statement::<SealedLine>(2, ""), db::dialect::bulk_statement::<ResultRow<'_>>(2, "")]
}

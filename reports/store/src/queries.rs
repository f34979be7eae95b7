//! The reads of reports, confined to a scope.

use async_trait::async_trait;
use db::{DbError, on_db};
use model::actor::Permission;
use model::change::ChangeError;
use model::ctx::Ctx;
use model::id::RunId;
use model::page::{Page, PageRequest, ReadError};
use model::tenancy::Scope;
use model::time::Timestamp;
use reports::figures::Figures;
use reports::port::Queries;
use reports::resource::{Format, Interval, ReportRun, Subject};
use uuid::Uuid;

use crate::rows::{CounterRow, RunRow, counter_sums, run_columns};
use crate::{ReportsStore, artefact, render};

/// Longest range of counters: a month, with the hour that a change of the clock can add.
const RANGE_MAX_MS: i64 = 31 * 86_400_000 + 3_600_000;

db::statements! {
    GET = concat!("SELECT ", run_columns!(), " FROM report_run WHERE id = $1 AND path >= $2 AND path < $3");
    LIST = concat!("SELECT ", run_columns!(), " FROM report_run WHERE path >= $1 AND path < $2 AND id > $3 \
        ORDER BY id LIMIT $4");
    /// What a finished run was made of, and what came of it.
    MADE = "SELECT figures, html_sha256, csv_sha256, xlsx_sha256 FROM report_run \
        WHERE id = $1 AND path >= $2 AND path < $3 AND state = 'finished'";
    PATH_OF_ACCOUNT = "SELECT path FROM account WHERE id = $1 AND path >= $2 AND path < $3";
    PATH_OF_TRUNK = "SELECT a.path FROM trunk t JOIN account a ON a.id = t.account_id \
        WHERE t.id = $1 AND a.path >= $2 AND a.path < $3";
    /// The path leads to the rows; kind and id pick them.
    INTERVALS = concat!("SELECT start_at, ", counter_sums!(""), " FROM pm_interval WHERE path = $1 \
        AND scope_kind = $2 AND scope_id = $3 AND start_at >= $4 AND start_at < $5 \
        GROUP BY start_at ORDER BY start_at");
}

#[derive(sqlx::FromRow)]
struct IntervalRow {
    start_at: i64,
    #[sqlx(flatten)]
    counters: CounterRow,
}

#[derive(sqlx::FromRow)]
struct Made {
    figures: Option<String>,
    html_sha256: Option<Vec<u8>>,
    csv_sha256: Option<Vec<u8>>,
    xlsx_sha256: Option<Vec<u8>>,
}

#[async_trait]
impl Queries for ReportsStore {
    async fn run_get(&self, ctx: &Ctx, id: RunId) -> Result<Option<ReportRun>, ReadError> {
        ctx.require(Permission::ReportRead)?;
        self.run_find(&ctx.scope, id).await.map_err(read_error)
    }

    async fn run_list(&self, ctx: &Ctx, page: PageRequest) -> Result<Page<ReportRun>, ReadError> {
        ctx.require(Permission::ReportRead)?;
        page.check()?;
        let after = match &page.after {
            None => Uuid::nil(),
            Some(text) => text.parse::<RunId>().map(RunId::uuid).map_err(|_| ReadError::Invalid {
                field: "after",
                message: "send the cursor of an item that you got, or none".to_owned(),
            })?,
        };
        let rows: Vec<RunRow> = on_db!(&self.db, c => sqlx::query_as(LIST)
            .bind(ctx.scope.lower()).bind(ctx.scope.upper()).bind(after).bind(i64::from(page.first) + 1)
            .fetch_all(c).await)
        .map_err(|e| read_error(e.into()))?;
        let runs = rows.into_iter().map(RunRow::run).collect::<Result<Vec<_>, _>>().map_err(read_error)?;
        Ok(Page::cut(runs, &page, |run| run.id.to_string()))
    }

    async fn artefact_read(&self, ctx: &Ctx, id: RunId, format: Format) -> Result<Option<Vec<u8>>, ReadError> {
        ctx.require(Permission::ReportRead)?;
        self.artefact(&ctx.scope, id, format).await
    }

    async fn interval_list(
        &self,
        ctx: &Ctx,
        subject: Subject,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Interval>, ReadError> {
        ctx.require(Permission::ReportRead)?;
        if to <= from || to.ms_since(from) > RANGE_MAX_MS {
            let message = "ask for a range that ends after its begin and is at most 31 days long".to_owned();
            return Err(ReadError::Invalid { field: "to", message });
        }
        self.intervals(&ctx.scope, subject, from, to).await.map_err(read_error)
    }
}

impl ReportsStore {
    pub(crate) async fn run_find(&self, scope: &Scope, id: RunId) -> Result<Option<ReportRun>, DbError> {
        let row: Option<RunRow> = on_db!(&self.db, c => sqlx::query_as(GET)
            .bind(id.uuid()).bind(scope.lower()).bind(scope.upper()).fetch_optional(c).await)?;
        row.map(RunRow::run).transpose()
    }

    /// The kept figures of a finished run, and the hashes of its renderings.
    async fn made(&self, scope: &Scope, id: RunId) -> Result<Option<Made>, DbError> {
        Ok(on_db!(&self.db, c => sqlx::query_as(MADE)
            .bind(id.uuid()).bind(scope.lower()).bind(scope.upper()).fetch_optional(c).await)?)
    }

    /// The kept figures of a finished run.
    pub(crate) async fn figures_of(&self, scope: &Scope, id: RunId) -> Result<Option<Figures>, DbError> {
        let text = self.made(scope, id).await?.and_then(|made| made.figures);
        text.map(|text| serde_json::from_str(&text).map_err(|e| DbError::corrupt("report_run.figures", e))).transpose()
    }

    /// The bytes of a finished run. The file lies on the node that made it; elsewhere, or when it was lost, it is made
    /// again from the kept figures. What differs from the recorded hash is not handed out.
    pub(crate) async fn artefact(
        &self,
        scope: &Scope,
        id: RunId,
        format: Format,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let Some(made) = self.made(scope, id).await.map_err(read_error)? else { return Ok(None) };
        let hash = match format {
            Format::Html => made.html_sha256,
            Format::Csv => made.csv_sha256,
            Format::Xlsx => made.xlsx_sha256,
        };
        // A run from before there were workbooks has no hash of one: it is made from the figures each time.
        let unknown = hash.is_none() && format == Format::Xlsx;
        let is_whole = |bytes: &Vec<u8>| hash.as_deref() == Some(&artefact::sha256(bytes)[..]);
        match artefact::read(&self.artefacts, id, format).await {
            Ok(Some(bytes)) if is_whole(&bytes) => return Ok(Some(bytes)),
            Ok(_) => {}
            Err(error) => tracing::warn!(run.id = %id, %error, "a finished report cannot be read from disk"),
        }
        let internal = |error: String| ReadError::Internal(error);
        let text = made.figures.ok_or_else(|| internal(format!("the run {id} has no figures")))?;
        let figures: Figures = serde_json::from_str(&text).map_err(|e| internal(e.to_string()))?;
        let bytes = render::render(format, &figures).map_err(|e| internal(e.to_string()))?;
        if unknown || is_whole(&bytes) {
            return Ok(Some(bytes));
        }
        let version = "its file is gone and this version of the program renders other bytes; run the report again";
        Err(internal(format!("the run {id} cannot be shown: {version}")))
    }

    async fn intervals(
        &self,
        scope: &Scope,
        subject: Subject,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Interval>, DbError> {
        let (kind, id, find) = match subject {
            Subject::Installation => ("installation", Uuid::nil(), None),
            Subject::Account(account) => ("account", account.uuid(), Some(PATH_OF_ACCOUNT)),
            Subject::Trunk(trunk) => ("trunk", trunk.uuid(), Some(PATH_OF_TRUNK)),
        };
        let path: Option<String> = match find {
            // Only who runs the installation sees all of it.
            None => (*scope == Scope::installation()).then(String::new),
            Some(find) => on_db!(&self.db, c => sqlx::query_scalar(find)
                .bind(id).bind(scope.lower()).bind(scope.upper()).fetch_optional(c).await)?,
        };
        let Some(path) = path else { return Ok(Vec::new()) };
        let rows: Vec<IntervalRow> = on_db!(&self.db, c => sqlx::query_as(INTERVALS)
            .bind(path).bind(kind).bind(id).bind(from.0).bind(to.0).fetch_all(c).await)?;
        let interval = |row: IntervalRow| Interval { start: Timestamp(row.start_at), counters: row.counters.into() };
        Ok(rows.into_iter().map(interval).filter(|interval| !interval.counters.is_empty()).collect())
    }
}

pub(crate) fn read_error(error: DbError) -> ReadError {
    match ChangeError::from(error) {
        ChangeError::Unavailable(text) => ReadError::Unavailable(text),
        other => ReadError::Internal(other.to_string()),
    }
}

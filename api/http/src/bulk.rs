//! Files of many changes: send one, look how far its job is, fetch the results; and fetch what there is in the same form.
//! Starting and cancelling are mutations of GraphQL, so that they are planned, audited and repeated like any other.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::{Stream, TryStreamExt, stream};
use model::change::{Refusal, ResourceKind};
use model::ctx::Ctx;
use model::id::{AccountId, BulkJobId};
use model::page::{PAGE_MAX, PageRequest, ReadError};
use model::time::Timestamp;
use provisioning::bulk::file::{Format, read};
use provisioning::bulk::job::{BulkJob, LineResult};
use provisioning::bulk::{Kind, columns, to_cell};
use provisioning::port::StagedLine;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::deps::HttpDeps;
use crate::limit::{BULK_BODY_MAX, BULK_LINES, BULK_RESULTS, BULK_UPLOADS_MAX};
use crate::problem::Problem;
use crate::{body, global_id};

/// Files that are being taken in by this process: each is held in memory.
static UPLOADS: Semaphore = Semaphore::const_new(BULK_UPLOADS_MAX);

/// A job.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JobDto {
    id: String,
    account_id: AccountId,
    name: String,
    state: &'static str,
    mode: Option<&'static str>,
    total: u32,
    applied: u32,
    unchanged: u32,
    refused: u32,
    started_by: Option<String>,
    reason: Option<String>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
}

impl From<BulkJob> for JobDto {
    fn from(job: BulkJob) -> Self {
        Self {
            id: global_id::encode(ResourceKind::BulkJob, job.id),
            account_id: job.account,
            name: job.name,
            state: job.state.as_str(),
            mode: job.mode.map(|mode| mode.as_str()),
            total: job.total,
            applied: job.applied,
            unchanged: job.unchanged,
            refused: job.refused,
            started_by: job.started_by,
            reason: job.reason,
            created_at: job.revision.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UploadQuery {
    #[serde(default)]
    name: String,
}

/// Takes a file in. Its lines are stored as they are read; the job can be started when all are there.
pub(crate) async fn upload(
    State(deps): State<HttpDeps>,
    Extension(ctx): Extension<Ctx>,
    query: Result<Query<UploadQuery>, QueryRejection>,
    headers: HeaderMap,
    request_body: Body,
) -> Result<Response, Problem> {
    let Query(UploadQuery { name }) = query.map_err(|e| Problem::invalid("", e.body_text(), "send ?name=FILE"))?;
    let format = format_of(&headers)?;
    let Ok(_place) = UPLOADS.try_acquire() else {
        let detail = format!("{BULK_UPLOADS_MAX} files are being taken in");
        let remedy = "send the file again when one of them is done";
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "uploads-busy", detail, remedy);
        return Err(problem.retry_after_s(5));
    };
    let file = body::read(request_body, BULK_BODY_MAX).await?;
    let refused = |refusal| Problem::from(model::change::ChangeError::from(refusal));
    // A file that cannot be read at all becomes no job.
    drop(read(format, &file).map_err(refused)?);
    let refused = |refusal| Problem::from(model::change::ChangeError::from(refusal));
    // A file that cannot be read at all becomes no job.
    drop(read(format, &file).map_err(refused)?);
    let job = deps.bulk.job_create(&ctx, &name).await?.id;
    // Reading and sealing lines is work for a processor, and not for the executor of requests.
    let (sender, mut parts) = tokio::sync::mpsc::channel::<Vec<StagedLine>>(2);
    let reader = tokio::task::spawn_blocking(move || staged(format, &file, &sender));
    while let Some(part) = parts.recv().await {
        deps.bulk.job_append(&ctx, job, part).await?;
    }
    reader.await.map_err(|_| Problem::internal())?.map_err(refused)?;
    let job = JobDto::from(deps.bulk.job_staged(&ctx, job).await?);
    let location = format!("/bulk/jobs/{}", job.id);
    let mut response = (StatusCode::CREATED, Json(job)).into_response();
    put(&mut response, LOCATION, &location);
    Ok(response)
}

/// Reads the lines, some at a time; ends early when nobody takes them any more.
fn staged(format: Format, file: &Bytes, sender: &tokio::sync::mpsc::Sender<Vec<StagedLine>>) -> Result<(), Refusal> {
    let mut lines = read(format, file)?;
    loop {
        let part: Vec<StagedLine> = lines.by_ref().take(BULK_LINES).collect();
        if part.is_empty() || sender.blocking_send(part).is_err() {
            return Ok(());
        }
    }
}

fn format_of(headers: &HeaderMap) -> Result<Format, Problem> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/jsonl" | "application/x-ndjson" | "application/x-jsonlines" => Ok(Format::JsonLines),
        "text/csv" => Ok(Format::Csv),
        _ => {
            let detail = "the content type is neither application/jsonl nor text/csv";
            let remedy = "send Content-Type: application/jsonl or text/csv";
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail, remedy))
        }
    }
}

pub(crate) async fn job_get(
    State(deps): State<HttpDeps>,
    Extension(ctx): Extension<Ctx>,
    Path(job): Path<String>,
) -> Result<Response, Problem> {
    Ok(Json(JobDto::from(find(&deps, &ctx, &job).await?)).into_response())
}

/// How results and exports are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Written {
    #[default]
    Jsonl,
    Csv,
}

impl Written {
    const fn content_type(self) -> &'static str {
        match self {
            Self::Jsonl => "application/jsonl",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }

    const fn extension(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResultsQuery {
    #[serde(default)]
    format: Written,
}

/// Why a line was refused.
#[derive(Debug, Serialize)]
struct ErrorDto<'a> {
    code: &'static str,
    field: &'a str,
    message: &'a str,
    remedy: &'a str,
}

/// The result of a line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResultDto<'a> {
    line: u32,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    change_ids: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<ErrorDto<'a>>,
}

const RESULT_COLUMNS: [&str; 10] =
    ["line", "outcome", "kind", "id", "changeIds", "password", "code", "field", "message", "remedy"];

impl<'a> ResultDto<'a> {
    fn of(result: &'a LineResult) -> Self {
        let error = |refusal: &'a Refusal| ErrorDto {
            code: refusal.code.as_str(),
            field: &refusal.field,
            message: &refusal.message,
            remedy: &refusal.remedy,
        };
        Self {
            line: result.line,
            outcome: result.outcome.as_str(),
            kind: result.object.map(|object| object.kind.as_str()),
            id: result.object.map(|object| global_id::encode(object.kind, object.id)),
            change_ids: result.changes.iter().map(|change| global_id::encode(ResourceKind::Change, change)).collect(),
            password: result.password.as_ref().map(|password| password.expose().as_str()),
            errors: result.refusals.iter().map(error).collect(),
        }
    }

    /// One record, or one for each reason.
    fn records(&self) -> Vec<[String; 10]> {
        let cell = |text: Option<&str>| to_cell(text.unwrap_or_default());
        let record = |error: Option<&ErrorDto<'_>>| {
            [
                self.line.to_string(),
                self.outcome.to_owned(),
                cell(self.kind),
                cell(self.id.as_deref()),
                to_cell(&self.change_ids.join(" ")),
                cell(self.password),
                cell(error.map(|error| error.code)),
                cell(error.map(|error| error.field)),
                cell(error.map(|error| error.message)),
                cell(error.map(|error| error.remedy)),
            ]
        };
        if self.errors.is_empty() { vec![record(None)] } else { self.errors.iter().map(|e| record(Some(e))).collect() }
    }
}

/// The results that there are, in the order of the lines. Of a job that runs, those so far.
pub(crate) async fn results(
    State(deps): State<HttpDeps>,
    Extension(ctx): Extension<Ctx>,
    Path(job): Path<String>,
    query: Result<Query<ResultsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(ResultsQuery { format }) =
        query.map_err(|e| Problem::invalid("format", e.body_text(), "send jsonl or csv"))?;
    let job = find(&deps, &ctx, &job).await?;
    let bulk = Arc::clone(&deps.bulk);
    let pages = stream::try_unfold((bulk, ctx, Some(0)), move |(bulk, ctx, after)| async move {
        let Some(after) = after else { return Ok(None) };
        let page = bulk.job_results(&ctx, job.id, after, BULK_RESULTS).await?;
        let next = page.last().map(|result| result.line);
        let written = page.iter().map(ResultDto::of);
        let text = match format {
            Written::Jsonl => written.map(|result| json_line(&result)).collect::<Result<String, _>>()?,
            Written::Csv => records(written.flat_map(|result| result.records()))?,
        };
        Ok::<_, ReadError>(Some((text, (bulk, ctx, next))))
    });
    let head = csv_head(format, &RESULT_COLUMNS)?;
    let name = format!("results-{}.{}", job.id, format.extension());
    Ok(streamed(format, &name, stream::iter([Ok(head)]), pages))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExportQuery {
    #[serde(default)]
    format: Written,
    /// Kinds, separated by commas; left out: all.
    #[serde(default)]
    kinds: String,
}

/// What there is at and below the caller's account, as lines that put it; in an order in which they can be sent.
pub(crate) async fn export(
    State(deps): State<HttpDeps>,
    Extension(ctx): Extension<Ctx>,
    query: Result<Query<ExportQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let query = query.map_err(|e| Problem::invalid("format", e.body_text(), "send format=jsonl or csv, and kinds"))?;
    let Query(ExportQuery { format, kinds }) = query;
    let asked = kinds.split(',').filter(|kind| !kind.is_empty()).map(str::parse::<Kind>);
    let asked: Vec<Kind> =
        asked.collect::<Result<_, _>>().map_err(|e| Problem::invalid("kinds", e, "send such kinds"))?;
    let mut wanted: Vec<Kind> =
        Kind::ALL.into_iter().filter(|kind| asked.is_empty() || asked.contains(kind)).rev().collect();
    let first = wanted.pop();
    let state = (Arc::clone(&deps.bulk), ctx, first.map(|kind| (kind, None)), wanted);
    let pages = stream::try_unfold(state, move |(bulk, ctx, at, mut wanted)| async move {
        let Some((kind, after)) = at else { return Ok(None) };
        let page = bulk.export(&ctx, kind, PageRequest { first: PAGE_MAX, after }).await?;
        let last = page.items.last().map(|(cursor, _)| cursor.clone()).filter(|_| page.has_next);
        let next = match last {
            Some(cursor) => Some((kind, Some(cursor))),
            None => wanted.pop().map(|kind| (kind, None)),
        };
        let lines = page.items.iter().map(|(_, fields)| fields);
        let text = match format {
            Written::Jsonl => lines.map(|fields| fields.to_json() + "\n").collect(),
            Written::Csv => records(lines.map(provisioning::bulk::Fields::to_record))?,
        };
        Ok::<_, ReadError>(Some((text, (bulk, ctx, next, wanted))))
    });
    let head = csv_head(format, columns())?;
    Ok(streamed(format, &format!("export.{}", format.extension()), stream::iter([Ok(head)]), pages))
}

fn streamed(
    format: Written,
    name: &str,
    head: impl Stream<Item = Result<String, ReadError>> + Send + 'static,
    pages: impl Stream<Item = Result<String, ReadError>> + Send + 'static,
) -> Response {
    let whole = futures::StreamExt::chain(head, pages);
    let octets = whole.try_filter(|text| std::future::ready(!text.is_empty())).map_ok(Bytes::from);
    let mut response = Response::new(Body::from_stream(octets));
    put(&mut response, CONTENT_TYPE, format.content_type());
    put(&mut response, CACHE_CONTROL, "private, no-store");
    put(&mut response, CONTENT_DISPOSITION, &format!("attachment; filename=\"{name}\""));
    response
}

fn csv_head(format: Written, columns: &[&str]) -> Result<String, Problem> {
    match format {
        Written::Jsonl => Ok(String::new()),
        Written::Csv => Ok(records([columns])?),
    }
}

fn json_line(value: &impl Serialize) -> Result<String, ReadError> {
    let text = serde_json::to_string(value).map_err(|error| ReadError::Internal(error.to_string()))?;
    Ok(text + "\n")
}

fn records<R: IntoIterator<Item: AsRef<[u8]>>>(records: impl IntoIterator<Item = R>) -> Result<String, ReadError> {
    let broken = |error: &dyn std::fmt::Display| ReadError::Internal(format!("a record was not written: {error}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    for record in records {
        writer.write_record(record).map_err(|error| broken(&error))?;
    }
    let octets = writer.into_inner().map_err(|error| broken(&error.error()))?;
    String::from_utf8(octets).map_err(|error| broken(&error))
}

/// A malformed identifier looks like a missing object: it names none.
async fn find(deps: &HttpDeps, ctx: &Ctx, text: &str) -> Result<BulkJob, Problem> {
    let missing = || Problem::not_found("job");
    let id: BulkJobId = global_id::key(ResourceKind::BulkJob, text).ok_or_else(missing)?;
    deps.bulk.job_get(ctx, id).await?.ok_or_else(missing)
}

fn put(response: &mut Response, name: axum::http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

//! Billing files for a BSS: list, fetch (again, in part, from where it broke off), verify, acknowledge, close.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LOCATION,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use billing::command::Command;
use billing::port::Queries;
use billing::resource::{Acknowledgement, BillingFile, CurrencyTotal, Stream};
use futures::stream;
use model::change::{CommitOptions, Committed, IdempotencyKey, ResourceKind};
use model::ctx::Ctx;
use model::id::{AccountId, ChangeId, FileId, StreamId};
use model::page::ReadError;
use model::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::byte_range::{Wanted, wanted};
use crate::deps::HttpDeps;
use crate::limit::{CHUNK, SMALL_BODY_MAX};
use crate::page::{PageDto, PageQuery, page_request};
use crate::problem::Problem;
use crate::{body, commit, global_id};

/// The client's own key for a change (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: &str = "idempotency-key";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StreamDto {
    id: StreamId,
    account_id: AccountId,
    name: String,
    side: &'static str,
    close_period_ms: i64,
    next_sequence: i64,
    version: i64,
}

impl From<Stream> for StreamDto {
    fn from(stream: Stream) -> Self {
        Self {
            id: stream.id,
            account_id: stream.account,
            name: stream.name,
            side: stream.side.as_str(),
            close_period_ms: stream.close_period_ms,
            next_sequence: stream.next_sequence,
            version: stream.version,
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TotalDto {
    currency: String,
    amount: String,
    record_count: i64,
}

impl From<CurrencyTotal> for TotalDto {
    fn from(total: CurrencyTotal) -> Self {
        Self { currency: total.currency.to_string(), amount: total.amount, record_count: total.record_count }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AcknowledgementDto {
    accepted: bool,
    reason: String,
    by: String,
    at: Timestamp,
}

impl From<Acknowledgement> for AcknowledgementDto {
    fn from(ack: Acknowledgement) -> Self {
        Self { accepted: ack.accepted, reason: ack.reason, by: ack.by, at: ack.at }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FileDto {
    id: FileId,
    stream_id: StreamId,
    sequence: i64,
    name: String,
    published: bool,
    closure_reason: String,
    closed_at: Timestamp,
    record_count: i64,
    billed_ms: i64,
    totals: Vec<TotalDto>,
    first_answered_at: Option<Timestamp>,
    last_answered_at: Option<Timestamp>,
    size: Option<i64>,
    sha256: Option<String>,
    previous_sha256: Option<String>,
    acknowledgement: Option<AcknowledgementDto>,
}

impl From<BillingFile> for FileDto {
    fn from(file: BillingFile) -> Self {
        let (first_answered_at, last_answered_at) = file.answered_range.unzip();
        Self {
            id: file.id,
            stream_id: file.stream,
            sequence: file.sequence,
            name: file.name,
            published: file.published,
            closure_reason: file.closure_reason,
            closed_at: file.closed_at,
            record_count: file.record_count,
            billed_ms: file.billed_ms,
            totals: file.totals.into_iter().map(TotalDto::from).collect(),
            first_answered_at,
            last_answered_at,
            size: file.size,
            sha256: file.sha256,
            previous_sha256: file.previous_sha256,
            acknowledgement: file.acknowledgement.map(AcknowledgementDto::from),
        }
    }
}

/// What a change of a file answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ChangedDto {
    change_id: ChangeId,
    replayed: bool,
    file: FileDto,
}

type PageArguments = Result<Query<PageQuery>, QueryRejection>;

pub(crate) async fn stream_list(
    State(deps): State<HttpDeps>,
    Extension(ctx): Extension<Ctx>,
    query: PageArguments,
) -> Result<Response, Problem> {
    let page = deps.billing.stream_list(&ctx, None, page_request(query)?).await?;
    Ok(Json(PageDto::of(page, StreamDto::from)).into_response())
}

pub(crate) async fn file_list(
    State(deps): State<HttpDeps>,
    Extension(ctx): Extension<Ctx>,
    Path(stream): Path<String>,
    query: PageArguments,
) -> Result<Response, Problem> {
    let page = page_request(query)?;
    let stream = find_stream(&deps, &ctx, &stream).await?;
    let page = deps.billing.file_list(&ctx, stream, page).await?;
    Ok(Json(PageDto::of(page, FileDto::from)).into_response())
}

pub(crate) async fn file_get(
    State(deps): State<HttpDeps>,
    Extension(ctx): Extension<Ctx>,
    Path(path): Path<(String, String)>,
) -> Result<Response, Problem> {
    let file = find_file(&deps, &ctx, &path).await?;
    Ok(Json(FileDto::from(file)).into_response())
}

pub(crate) async fn content(
    State(deps): State<HttpDeps>,
    Extension(ctx): Extension<Ctx>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let file = find_file(&deps, &ctx, &path).await?;
    let (Some(size), Some(sha256)) = (file.size.and_then(|size| u64::try_from(size).ok()), &file.sha256) else {
        return Err(unpublished());
    };
    let etag = format!("\"{sha256}\"");
    let mut response = match wanted(&headers, &etag, size) {
        Wanted::NotModified => StatusCode::NOT_MODIFIED.into_response(),
        Wanted::Unsatisfiable => {
            let detail = format!("the file has {size} octets, the range begins after them");
            let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "range", detail, "ask for an earlier range");
            let mut response = problem.into_response();
            put(&mut response, CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok(response);
        }
        Wanted::Whole => octets(&deps.billing, &ctx, file.id, 0, size).await?,
        Wanted::Part { first, last } => {
            let mut response = octets(&deps.billing, &ctx, file.id, first, last - first + 1).await?;
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            put(&mut response, CONTENT_RANGE, &format!("bytes {first}-{last}/{size}"));
            response
        }
    };
    put(&mut response, ETAG, &etag);
    put(&mut response, ACCEPT_RANGES, "bytes");
    put(&mut response, CACHE_CONTROL, "private, no-cache");
    if response.status() != StatusCode::NOT_MODIFIED {
        put(&mut response, CONTENT_TYPE, "text/csv; charset=utf-8");
        put(&mut response, CONTENT_DISPOSITION, &format!("attachment; filename=\"{}\"", quotable(&file.name)));
    }
    Ok(response)
}

pub(crate) async fn manifest(
    State(deps): State<HttpDeps>,
    Extension(ctx): Extension<Ctx>,
    Path(path): Path<(String, String)>,
) -> Result<Response, Problem> {
    let file = find_file(&deps, &ctx, &path).await?;
    let bytes = deps.billing.manifest_read(&ctx, file.id).await?.ok_or_else(unpublished)?;
    let mut response = Response::new(Body::from(bytes));
    put(&mut response, CONTENT_TYPE, "application/json");
    Ok(response)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AckBody {
    accepted: bool,
    #[serde(default)]
    reason: String,
}

pub(crate) async fn acknowledge(
    State(deps): State<HttpDeps>,
    Extension(ctx): Extension<Ctx>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
    request_body: Body,
) -> Result<Response, Problem> {
    let options = options(&headers)?;
    let ack: AckBody = body::json(&headers, request_body, SMALL_BODY_MAX).await?;
    let file = find_file(&deps, &ctx, &path).await?.id;
    let command = Command::FileAcknowledge { file, accepted: ack.accepted, reason: ack.reason };
    let committed = commit(&deps.billing_change, &ctx, command, options).await?;
    let file = deps.billing.file_get(&ctx, file).await?.ok_or_else(|| Problem::not_found("file"))?;
    Ok(Json(changed(&committed, file)).into_response())
}

pub(crate) async fn close(
    State(deps): State<HttpDeps>,
    Extension(ctx): Extension<Ctx>,
    Path(stream): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let options = options(&headers)?;
    let stream = find_stream(&deps, &ctx, &stream).await?;
    let committed = commit(&deps.billing_change, &ctx, Command::FileClose { stream }, options).await?;
    let closed = committed.plan.effects.iter().find(|effect| effect.resource.kind == ResourceKind::BillingFile);
    let closed = closed.map(|effect| FileId::from_uuid(effect.resource.id)).ok_or_else(|| {
        tracing::error!(change.id = %committed.change, "the close of a stream names no file");
        Problem::internal()
    })?;
    let file = deps.billing.file_get(&ctx, closed).await?.ok_or_else(|| Problem::not_found("file"))?;
    let location = format!("/billing/streams/{stream}/files/{}", file.sequence);
    let mut response = (StatusCode::CREATED, Json(changed(&committed, file))).into_response();
    put(&mut response, LOCATION, &location);
    Ok(response)
}

fn changed(committed: &Committed, file: BillingFile) -> ChangedDto {
    ChangedDto { change_id: committed.change, replayed: committed.replayed, file: file.into() }
}

/// The key may stand bare or as a quoted string, as the draft has it.
fn options(headers: &HeaderMap) -> Result<CommitOptions, Problem> {
    let Some(field) = headers.get(IDEMPOTENCY_KEY) else { return Ok(CommitOptions::default()) };
    let text = field.to_str().unwrap_or_default().trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let key = IdempotencyKey::new(text).map_err(|refusal| Problem::from(model::change::ChangeError::from(refusal)))?;
    Ok(CommitOptions { idempotency_key: Some(key), expected: Vec::new() })
}

/// A malformed identifier looks like a missing object: it names none.
async fn find_stream(deps: &HttpDeps, ctx: &Ctx, text: &str) -> Result<StreamId, Problem> {
    let id = global_id::key(ResourceKind::Stream, text).ok_or_else(|| Problem::not_found("stream"))?;
    let stream = deps.billing.stream_get(ctx, id).await?;
    stream.map(|stream| stream.id).ok_or_else(|| Problem::not_found("stream"))
}

async fn find_file(deps: &HttpDeps, ctx: &Ctx, path: &(String, String)) -> Result<BillingFile, Problem> {
    let missing = || Problem::not_found("file");
    let stream = global_id::key(ResourceKind::Stream, &path.0).ok_or_else(missing)?;
    let sequence = path.1.parse().map_err(|_| missing())?;
    deps.billing.file_find(ctx, stream, sequence).await?.ok_or_else(missing)
}

fn unpublished() -> Problem {
    let detail = "the file is closed, its bytes are being written";
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unpublished", detail, "fetch it again in a moment");
    problem.retry_after_s(1)
}

/// Octets of a file as a stream of chunks. The first is read before the answer begins, so that a file that cannot be
/// read is an error and not a broken answer; a later failure ends the connection short of its Content-Length.
async fn octets(
    queries: &Arc<dyn Queries>,
    ctx: &Ctx,
    id: FileId,
    offset: u64,
    length: u64,
) -> Result<Response, Problem> {
    let first = chunk(&**queries, ctx, id, offset, length).await?;
    let sent = u64::try_from(first.len()).unwrap_or(u64::MAX);
    let state = (Arc::clone(queries), ctx.clone(), offset.saturating_add(sent), length.saturating_sub(sent));
    let rest = stream::try_unfold(state, move |(queries, ctx, offset, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let bytes = chunk(&*queries, &ctx, id, offset, left).await?;
        let sent = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok::<_, ReadError>(Some((bytes, (queries, ctx, offset.saturating_add(sent), left.saturating_sub(sent)))))
    });
    let whole = futures::StreamExt::chain(stream::iter([Ok::<Bytes, ReadError>(first)]), rest);
    let mut response = Response::new(Body::from_stream(whole));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

async fn chunk(queries: &dyn Queries, ctx: &Ctx, id: FileId, offset: u64, left: u64) -> Result<Bytes, ReadError> {
    let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
    if length == 0 {
        return Ok(Bytes::new());
    }
    let bytes = queries.file_read(ctx, id, offset, length).await?.unwrap_or_default();
    if bytes.is_empty() || bytes.len() > length {
        return Err(ReadError::Internal(format!("the bytes of billing file {id} end early, at octet {offset}")));
    }
    Ok(Bytes::from(bytes))
}

fn put(response: &mut Response, name: axum::http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn quotable(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\')).collect()
}

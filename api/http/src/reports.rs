//! Runs of reports and their finished forms.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use model::change::ResourceKind;
use model::ctx::Ctx;
use model::id::{AccountId, RunId};
use model::time::Timestamp;
use reports::resource::{Format, ReportRun, RunState};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::byte_range::{Wanted, wanted};
use crate::deps::HttpDeps;
use crate::global_id;
use crate::page::{PageDto, PageQuery, page_request};
use crate::problem::Problem;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RunDto {
    id: RunId,
    definition: String,
    period: String,
    revision: i32,
    account_id: AccountId,
    timezone: String,
    period_from: Timestamp,
    period_to: Timestamp,
    provisional: bool,
    state: &'static str,
    error: Option<String>,
    created_at: Timestamp,
    finished_at: Option<Timestamp>,
}

impl From<ReportRun> for RunDto {
    fn from(run: ReportRun) -> Self {
        Self {
            id: run.id,
            definition: run.definition,
            period: run.period,
            revision: run.revision,
            account_id: run.account,
            timezone: run.timezone,
            period_from: run.period_from,
            period_to: run.period_to,
            provisional: run.provisional,
            state: state_name(run.state),
            error: run.error,
            created_at: run.created_at,
            finished_at: run.finished_at,
        }
    }
}

const fn state_name(state: RunState) -> &'static str {
    match state {
        RunState::Due => "due",
        RunState::Running => "running",
        RunState::Finished => "finished",
        RunState::Failed => "failed",
    }
}

pub(crate) async fn run_list(
    State(deps): State<HttpDeps>,
    Extension(ctx): Extension<Ctx>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let page = deps.reports.run_list(&ctx, page_request(query)?).await?;
    Ok(Json(PageDto::of(page, RunDto::from)).into_response())
}

pub(crate) async fn run_get(
    State(deps): State<HttpDeps>,
    Extension(ctx): Extension<Ctx>,
    Path(run): Path<String>,
) -> Result<Response, Problem> {
    Ok(Json(RunDto::from(find_run(&deps, &ctx, &run).await?)).into_response())
}

pub(crate) async fn html(
    State(deps): State<HttpDeps>,
    Extension(ctx): Extension<Ctx>,
    Path(run): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut response = artefact(&deps, &ctx, &run, Format::Html, &headers).await?;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    // the report is complete in itself: nothing that its texts smuggle in may run or be fetched
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; img-src data:");
    fields.insert(CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

pub(crate) async fn csv(
    State(deps): State<HttpDeps>,
    Extension(ctx): Extension<Ctx>,
    Path(run): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut response = artefact(&deps, &ctx, &run, Format::Csv, &headers).await?;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    fields.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"report.csv\""));
    Ok(response)
}

pub(crate) async fn xlsx(
    State(deps): State<HttpDeps>,
    Extension(ctx): Extension<Ctx>,
    Path(run): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut response = artefact(&deps, &ctx, &run, Format::Xlsx, &headers).await?;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(Format::XLSX_MEDIA_TYPE));
    fields.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"report.xlsx\""));
    Ok(response)
}

async fn find_run(deps: &HttpDeps, ctx: &Ctx, text: &str) -> Result<ReportRun, Problem> {
    let missing = || Problem::not_found("run");
    let id = global_id::key(ResourceKind::ReportRun, text).ok_or_else(missing)?;
    deps.reports.run_get(ctx, id).await?.ok_or_else(missing)
}

async fn artefact(
    deps: &HttpDeps,
    ctx: &Ctx,
    run: &str,
    format: Format,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let run = find_run(deps, ctx, run).await?;
    let Some(bytes) = deps.reports.artefact_read(ctx, run.id, format).await? else {
        let detail = format!("the run is {}, its report is not there", state_name(run.state));
        return Err(Problem::new(StatusCode::CONFLICT, "unfinished", detail, "ask again when the run is finished"));
    };
    let etag = format!("\"{}\"", hex::encode(Sha256::digest(&bytes)));
    // reports are small: a range is answered whole
    let mut response = match wanted(headers, &etag, 0) {
        Wanted::NotModified => StatusCode::NOT_MODIFIED.into_response(),
        _ => Response::new(Body::from(bytes)),
    };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(response)
}

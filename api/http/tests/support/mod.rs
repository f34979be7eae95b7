//! In-memory ports for the mechanics of the face: tokens, permissions, scopes. What the stores do is tested in the stores.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use billing::resource::{
    BillingFile, CurrencyTotal, LedgerBalance, Rate, RatedUsage, Side, Stream, Suspense, TariffAssignment, TariffHead,
    Usage,
};
use http_body_util::BodyExt;
use model::actor::{Actor, ActorKind, Permission, Permissions};
use model::change::{
    Change, ChangeError, CommitOptions, Committed, Effect, EffectKind, Plan, Refusal, RefusalCode, ResourceKind,
    ResourceRef, Reversibility,
};
use model::ctx::Ctx;
use model::id::{AccountId, BulkJobId, CallId, ChangeId, FileId, RunId, StreamId, TariffId};
use model::money::{Rounding, RoundingMode};
use model::network::Networks;
use model::page::{Page, PageRequest, ReadError};
use model::secret::Secret;
use model::tenancy::AccountPath;
use model::time::Timestamp;
use provisioning::bulk::job::{BulkJob, JobState, LineOutcome, LineResult};
use provisioning::bulk::{Fields, Kind};
use provisioning::port::{Bulk, StagedLine};
use provisioning::resource::Revision;
use reports::resource::{Format, Interval, ReportRun, RunState, Subject};
use testkit::{CountingIds, ManualClock};
use tower::ServiceExt;
use uuid::Uuid;

/// Bytes of the one billing file: larger than a chunk.
pub const FILE_SIZE: u64 = 150_000;

pub fn account(n: u128) -> AccountId {
    AccountId::from_uuid(Uuid::from_u128(n))
}

/// The reseller whose objects the fakes hold.
pub fn owner() -> AccountPath {
    AccountPath::root(account(1)).child(account(2)).unwrap()
}

pub fn stream_id() -> StreamId {
    StreamId::from_uuid(Uuid::from_u128(10))
}

pub fn file_id() -> FileId {
    FileId::from_uuid(Uuid::from_u128(11))
}

pub fn run_id() -> RunId {
    RunId::from_uuid(Uuid::from_u128(12))
}

pub fn file_bytes() -> Vec<u8> {
    (0..FILE_SIZE).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

/// Tokens: `full`, `none` (no permission), `foreign` (all, of another reseller), `of:<number>` (all, of that account),
/// `only:<permission>`, `down`.
pub struct Tokens;

#[async_trait]
impl provisioning::port::Authenticator for Tokens {
    async fn token_authenticate(
        &self,
        token: &str,
        _from: IpAddr,
        _now: Timestamp,
    ) -> Result<Option<Actor>, ReadError> {
        let root = AccountPath::root(account(1));
        let (id, path, permissions) = match token {
            "full" => (account(2), owner(), Permissions::all()),
            "none" => (account(2), owner(), Permissions::default()),
            "foreign" => (account(3), root.child(account(3)).unwrap(), Permissions::all()),
            other if other.starts_with("of:") => {
                let id = account(other.trim_start_matches("of:").parse().unwrap());
                (id, root.child(id).unwrap(), Permissions::all())
            }
            "down" => return Err(ReadError::Unavailable("no connection".to_owned())),
            "panic" => panic!("a planted panic"),
            other => match other.strip_prefix("only:").map(str::parse::<Permission>) {
                Some(Ok(permission)) => (account(2), owner(), [permission].into_iter().collect()),
                _ => return Ok(None),
            },
        };
        let name = token.to_owned();
        let (kind, token_id) = (ActorKind::Machine, Uuid::from_u128(99));
        Ok(Some(Actor {
            kind,
            id: token_id,
            name,
            account: id,
            path,
            permissions,
            expires_at: None,
            networks: Networks::default(),
        }))
    }
}

pub fn visible<T>(ctx: &Ctx, item: T) -> Option<T> {
    ctx.scope.contains(&owner()).then_some(item)
}

pub fn page<T>(ctx: &Ctx, item: T, request: &PageRequest) -> Page<T> {
    let rows = if request.after.is_some() { Vec::new() } else { visible(ctx, item).into_iter().collect() };
    Page::cut(rows, request, |_| "1".to_owned())
}

/// One job with two results, one of them refused.
pub struct Jobs;

pub fn job_id() -> BulkJobId {
    BulkJobId::from_uuid(Uuid::from_u128(14))
}

pub fn job() -> BulkJob {
    BulkJob {
        id: job_id(),
        account: account(2),
        name: "customers.csv".to_owned(),
        state: JobState::Staged,
        mode: None,
        total: 2,
        applied: 0,
        unchanged: 0,
        refused: 0,
        started_by: None,
        reason: None,
        started_at: None,
        finished_at: None,
        revision: Revision { version: 1, created_at: Timestamp(0), updated_at: Timestamp(0) },
    }
}

#[async_trait]
impl Bulk for Jobs {
    async fn job_create(&self, _: &Ctx, _: &str) -> Result<BulkJob, ChangeError> {
        Ok(job())
    }

    async fn job_append(&self, _: &Ctx, _: BulkJobId, _: Vec<StagedLine>) -> Result<(), ChangeError> {
        Ok(())
    }

    async fn job_staged(&self, _: &Ctx, _: BulkJobId) -> Result<BulkJob, ChangeError> {
        Ok(job())
    }

    async fn job_get(&self, ctx: &Ctx, id: BulkJobId) -> Result<Option<BulkJob>, ReadError> {
        Ok(visible(ctx, job()).filter(|job| job.id == id))
    }

    async fn job_list(
        &self,
        ctx: &Ctx,
        _: Option<AccountId>,
        request: PageRequest,
    ) -> Result<Page<BulkJob>, ReadError> {
        Ok(page(ctx, job(), &request))
    }

    async fn job_results(&self, _: &Ctx, _: BulkJobId, after: u32, _: u32) -> Result<Vec<LineResult>, ReadError> {
        let refusal = Refusal::new(RefusalCode::Conflict, "number", "=1+1", "choose another");
        let password = Some(Secret::new("=drawn".to_owned()));
        let applied = LineResult {
            line: 2,
            outcome: LineOutcome::Applied,
            object: Some(ResourceRef { kind: ResourceKind::Subscriber, id: Uuid::from_u128(15) }),
            changes: vec![ChangeId::from_uuid(Uuid::from_u128(16))],
            refusals: Vec::new(),
            password,
        };
        let refused = LineResult {
            line: 3,
            outcome: LineOutcome::Refused,
            object: None,
            changes: Vec::new(),
            refusals: vec![refusal],
            password: None,
        };
        Ok([applied, refused].into_iter().filter(|result| result.line > after).collect())
    }

    async fn export(&self, ctx: &Ctx, kind: Kind, request: PageRequest) -> Result<Page<Fields>, ReadError> {
        let fields = [("kind", Some(kind.as_str().into())), ("displayName", Some("=1+1".into()))];
        Ok(page(ctx, Fields::of(fields), &request))
    }
}

/// One stream with one published file.
#[derive(Default)]
pub struct Billing {
    pub reads: AtomicUsize,
    pub unpublished: bool,
}

pub fn stream() -> Stream {
    Stream {
        id: stream_id(),
        account: account(2),
        name: "retail".to_owned(),
        side: Side::Sell,
        close_period_ms: 0,
        next_sequence: 2,
        version: 1,
    }
}

/// A tariff with three rates.
pub fn tariff() -> TariffHead {
    TariffHead {
        id: TariffId::from_uuid(Uuid::from_u128(13)),
        account: account(2),
        name: "Retail".to_owned(),
        currency: "EUR".parse().unwrap(),
        rounding: Rounding { mode: RoundingMode::HalfUp, decimals: 2 },
        version: 1,
    }
}

fn rate(prefix: &str) -> Rate {
    Rate {
        prefix: prefix.to_owned(),
        description: String::new(),
        connect_fee: "0".parse().unwrap(),
        price: "0.05".parse().unwrap(),
        per_ms: 60_000,
        initial_ms: 1_000,
        increment_ms: 1_000,
    }
}

impl Billing {
    fn file(&self) -> BillingFile {
        let published = !self.unpublished;
        BillingFile {
            id: file_id(),
            stream: stream_id(),
            sequence: 1,
            name: "retail-000001.csv".to_owned(),
            format_version: 1,
            published,
            closure_reason: "request".to_owned(),
            closed_at: Timestamp(1),
            record_count: 3,
            billed_ms: 180_000,
            totals: vec![CurrencyTotal {
                currency: "EUR".parse().unwrap(),
                amount: "0.30".to_owned(),
                record_count: 3,
            }],
            answered_range: Some((Timestamp(1), Timestamp(2))),
            size: published.then(|| i64::try_from(FILE_SIZE).unwrap()),
            sha256: published.then(|| "abc123".to_owned()),
            previous_sha256: None,
            acknowledgement: None,
        }
    }
}

#[async_trait]
impl billing::port::Queries for Billing {
    async fn tariff_get(&self, ctx: &Ctx, id: TariffId) -> Result<Option<TariffHead>, ReadError> {
        Ok(visible(ctx, tariff()).filter(|tariff| tariff.id == id))
    }
    async fn tariff_list(
        &self,
        ctx: &Ctx,
        _: Option<AccountId>,
        r: PageRequest,
    ) -> Result<Page<TariffHead>, ReadError> {
        Ok(page(ctx, tariff(), &r))
    }
    async fn rate_lists(&self, ctx: &Ctx, ids: &[TariffId], r: PageRequest) -> Result<Vec<Page<Rate>>, ReadError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let of = |id: &TariffId| {
            let rates =
                ["1", "43", "44"].into_iter().filter(|prefix| r.after.as_deref().is_none_or(|after| *prefix > after));
            let rates = rates.map(rate).filter(|_| *id == tariff().id).filter_map(|rate| visible(ctx, rate)).collect();
            Page::cut(rates, &r, |rate: &Rate| rate.prefix.clone())
        };
        Ok(ids.iter().map(of).collect())
    }
    async fn tariff_assignment_list(&self, _: &Ctx, r: PageRequest) -> Result<Page<TariffAssignment>, ReadError> {
        Ok(Page::cut(Vec::new(), &r, |_| String::new()))
    }
    async fn stream_get(&self, ctx: &Ctx, id: StreamId) -> Result<Option<Stream>, ReadError> {
        Ok(visible(ctx, stream()).filter(|stream| stream.id == id))
    }
    async fn stream_list(&self, ctx: &Ctx, _: Option<AccountId>, r: PageRequest) -> Result<Page<Stream>, ReadError> {
        Ok(page(ctx, stream(), &r))
    }
    async fn file_get(&self, ctx: &Ctx, id: FileId) -> Result<Option<BillingFile>, ReadError> {
        Ok(visible(ctx, self.file()).filter(|file| file.id == id))
    }
    async fn file_find(&self, ctx: &Ctx, id: StreamId, sequence: i64) -> Result<Option<BillingFile>, ReadError> {
        Ok(visible(ctx, self.file()).filter(|file| file.stream == id && file.sequence == sequence))
    }
    async fn file_list(&self, ctx: &Ctx, _: StreamId, r: PageRequest) -> Result<Page<BillingFile>, ReadError> {
        Ok(page(ctx, self.file(), &r))
    }
    async fn file_read(&self, ctx: &Ctx, _: FileId, offset: u64, length: usize) -> Result<Option<Vec<u8>>, ReadError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let bytes = file_bytes().into_iter().skip(usize::try_from(offset).unwrap()).take(length).collect();
        Ok(visible(ctx, bytes))
    }
    async fn manifest_read(&self, ctx: &Ctx, _: FileId) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(visible(ctx, b"{\"sequence\":1}".to_vec()))
    }
    async fn usage_get(&self, _: &Ctx, _: CallId) -> Result<Vec<Usage>, ReadError> {
        Ok(Vec::new())
    }
    async fn usage_list(&self, _: &Ctx, _: Option<AccountId>, r: PageRequest) -> Result<Page<Usage>, ReadError> {
        Ok(Page::cut(Vec::new(), &r, |_| String::new()))
    }
    async fn rated_list(&self, _: &Ctx, _: Option<AccountId>, r: PageRequest) -> Result<Page<RatedUsage>, ReadError> {
        Ok(Page::cut(Vec::new(), &r, |_| String::new()))
    }
    async fn suspense_list(&self, _: &Ctx, _: Option<AccountId>, r: PageRequest) -> Result<Page<Suspense>, ReadError> {
        Ok(Page::cut(Vec::new(), &r, |_| String::new()))
    }
    async fn ledger_balance_list(
        &self,
        _: &Ctx,
        _: Option<AccountId>,
        r: PageRequest,
    ) -> Result<Page<LedgerBalance>, ReadError> {
        Ok(Page::cut(Vec::new(), &r, |_| String::new()))
    }
}

/// One finished run.
pub struct Reports;

#[async_trait]
impl reports::port::Queries for Reports {
    async fn run_get(&self, ctx: &Ctx, id: RunId) -> Result<Option<ReportRun>, ReadError> {
        Ok(visible(ctx, run()).filter(|run| run.id == id))
    }
    async fn run_list(&self, ctx: &Ctx, r: PageRequest) -> Result<Page<ReportRun>, ReadError> {
        Ok(page(ctx, run(), &r))
    }
    async fn artefact_read(&self, ctx: &Ctx, _: RunId, format: Format) -> Result<Option<Vec<u8>>, ReadError> {
        let text: &[u8] = if format == Format::Html { b"<!doctype html>" } else { b"kpi,value\r\n" };
        Ok(visible(ctx, text.to_vec()))
    }
    async fn interval_list(&self, _: &Ctx, _: Subject, _: Timestamp, _: Timestamp) -> Result<Vec<Interval>, ReadError> {
        Ok(Vec::new())
    }
}

fn run() -> ReportRun {
    ReportRun {
        id: run_id(),
        definition: "monthly".to_owned(),
        period: "2026-11".to_owned(),
        revision: 0,
        account: account(2),
        path: owner(),
        timezone: "Europe/Vienna".to_owned(),
        period_from: Timestamp(0),
        period_to: Timestamp(1),
        provisional: false,
        state: RunState::Finished,
        error: None,
        created_at: Timestamp(0),
        finished_at: Some(Timestamp(1)),
    }
}

/// A pipeline that changes the billing file, or refuses when the idempotency key says so. Counts its commits.
#[derive(Default)]
pub struct Pipeline {
    pub commits: AtomicUsize,
}

fn plan() -> Plan {
    let resource = ResourceRef { kind: ResourceKind::BillingFile, id: file_id().uuid() };
    let effect = |kind| Effect { kind, resource, name: "retail".to_owned(), before: None, after: None };
    Plan { effects: vec![effect(EffectKind::Created)], versions: Vec::new(), reversibility: Reversibility::Reversible }
}

#[async_trait]
impl<C: Send + Sync + 'static> Change<C> for Pipeline {
    async fn plan(&self, _: &Ctx, _: &C) -> Result<Plan, ChangeError> {
        Ok(plan())
    }

    async fn commit(&self, _: &Ctx, _: C, options: CommitOptions) -> Result<Committed, ChangeError> {
        let key = options.idempotency_key.as_ref().map(|key| key.as_str().to_owned()).unwrap_or_default();
        let refused = |code, field: &str| ChangeError::from(Refusal::new(code, field, "it is so", "do otherwise"));
        match key.as_str() {
            "conflict" => return Err(refused(RefusalCode::Conflict, "name")),
            "grant" => return Err(refused(RefusalCode::Forbidden, "permissions")),
            "denied" => return Err(refused(RefusalCode::Forbidden, "")),
            "reused" => return Err(refused(RefusalCode::IdempotencyConflict, "idempotencyKey")),
            "down" => return Err(ChangeError::Unavailable("no connection".to_owned())),
            "panic" => panic!("a planted panic"),
            _ => {}
        }
        self.commits.fetch_add(1, Ordering::Relaxed);
        let change = ChangeId::from_uuid(Uuid::from_u128(77));
        let revealed = (key != "replayed").then(|| Secret::new("once".to_owned()));
        Ok(Committed { change, plan: plan(), replayed: key == "replayed", revealed })
    }
}

pub struct Face {
    pub router: Router,
    pub billing: Arc<Billing>,
    pub pipeline: Arc<Pipeline>,
}

pub fn face_with(billing: Billing, graphql: Router) -> Face {
    let (billing, pipeline) = (Arc::new(billing), Arc::new(Pipeline::default()));
    let deps = api_http::HttpDeps {
        authenticator: Arc::new(Tokens),
        bulk: Arc::new(Jobs),
        billing: billing.clone(),
        billing_change: pipeline.clone(),
        reports: Arc::new(Reports),
        clock: Arc::new(ManualClock::default()),
        ids: Arc::new(CountingIds::default()),
    };
    Face { router: api_http::router(deps, graphql), billing, pipeline }
}

/// Sends one request; status, header fields and body.
pub async fn send(router: &Router, request: Request<Body>) -> Response<Vec<u8>> {
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes().to_vec();
    Response::from_parts(parts, bytes)
}

pub fn request(method: &str, uri: &str, token: Option<&str>) -> axum::http::request::Builder {
    let builder = Request::builder().method(method).uri(uri);
    match token {
        Some(token) => builder.header("authorization", format!("Bearer {token}")),
        None => builder,
    }
}

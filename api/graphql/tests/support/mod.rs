//! In-memory ports of provisioning and fault beside those of the HTTP face.
#![allow(dead_code, reason = "each test binary uses a part")]

#[path = "../../../http/tests/support/mod.rs"]
pub mod http;
pub mod node;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::body::Body;
use axum::http::Response;
use fault::catalogue::AlarmType;
use fault::resource::{Alarm, Severity};
use model::actor::Actor;
use model::change::{Plan, Reversibility};
use model::ctx::Ctx;
use model::event::store::Changed;
use model::id::{AccountId, ChangeId, DomainId, NumberId, SiteId, SubscriberId, TokenId, TrunkId};
use model::page::{Page, PageRequest, ReadError};
use model::tenancy::{AccountKind, AccountPath};
use model::time::Timestamp;
use provisioning::port::{AuditEntry, AuditFilter};
use provisioning::resource::{Account, Domain, Number, Revision, Site, Subscriber, Token, Trunk};
use serde_json::{Value, json};
use tandem_graphql::{
    ChangeFeed, ChangeNotice, GraphqlDeps, TrunkRegistrationState, TrunkState, TrunkStates, graphql_router,
};
use testkit::{CountingIds, ManualClock};
use tokio::sync::{Semaphore, broadcast, watch};
use uuid::Uuid;

use self::http::{
    Billing, Face, Jobs, Pipeline, Reports, Tokens, account, face_with, owner, page, request, send, visible,
};

/// One account, and the changes of a feed; everything else is empty.
pub struct Provisioning(pub Arc<Feed>);

fn row() -> Account {
    Account {
        id: account(2),
        parent: Some(account(1)),
        path: owner(),
        kind: AccountKind::Reseller,
        name: "North".to_owned(),
        timezone: "Europe/Vienna".to_owned(),
        currency: "EUR".parse().unwrap(),
        call_limit: None,
        subscriber_quota: Some(10),
        subscriber_count: 0,
        enabled: true,
        revision: Revision { version: 1, created_at: Timestamp(0), updated_at: Timestamp(0) },
    }
}

macro_rules! nothing {
    ($request:ident) => {
        Ok(Page::cut(Vec::new(), &$request, |_| String::new()))
    };
}

#[async_trait]
impl provisioning::port::Queries for Provisioning {
    async fn account_get(&self, ctx: &Ctx, id: AccountId) -> Result<Option<Account>, ReadError> {
        Ok(visible(ctx, row()).filter(|row| row.id == id))
    }
    async fn account_list(&self, ctx: &Ctx, _: Option<AccountId>, r: PageRequest) -> Result<Page<Account>, ReadError> {
        Ok(page(ctx, row(), &r))
    }
    async fn domain_get(&self, _: &Ctx, _: DomainId) -> Result<Option<Domain>, ReadError> {
        Ok(None)
    }
    async fn domain_list(&self, _: &Ctx, _: Option<AccountId>, r: PageRequest) -> Result<Page<Domain>, ReadError> {
        nothing!(r)
    }
    async fn site_get(&self, _: &Ctx, _: SiteId) -> Result<Option<Site>, ReadError> {
        Ok(None)
    }
    async fn site_list(&self, _: &Ctx, _: Option<AccountId>, r: PageRequest) -> Result<Page<Site>, ReadError> {
        nothing!(r)
    }
    async fn subscriber_get(&self, _: &Ctx, _: SubscriberId) -> Result<Option<Subscriber>, ReadError> {
        Ok(None)
    }
    async fn subscriber_list(
        &self,
        _: &Ctx,
        _: Option<AccountId>,
        r: PageRequest,
    ) -> Result<Page<Subscriber>, ReadError> {
        nothing!(r)
    }
    async fn number_get(&self, _: &Ctx, _: NumberId) -> Result<Option<Number>, ReadError> {
        Ok(None)
    }
    async fn number_list(&self, _: &Ctx, _: Option<AccountId>, r: PageRequest) -> Result<Page<Number>, ReadError> {
        nothing!(r)
    }
    async fn trunk_get(&self, _: &Ctx, _: TrunkId) -> Result<Option<Trunk>, ReadError> {
        Ok(None)
    }
    async fn trunk_list(&self, _: &Ctx, _: Option<AccountId>, r: PageRequest) -> Result<Page<Trunk>, ReadError> {
        nothing!(r)
    }
    async fn token_get(&self, _: &Ctx, _: TokenId) -> Result<Option<Token>, ReadError> {
        Ok(None)
    }
    async fn token_list(&self, _: &Ctx, _: Option<AccountId>, r: PageRequest) -> Result<Page<Token>, ReadError> {
        nothing!(r)
    }
    async fn audit_get(&self, ctx: &Ctx, change: ChangeId) -> Result<Option<AuditEntry>, ReadError> {
        let _connection = self.0.connection.acquire().await.unwrap();
        tokio::task::yield_now().await;
        Ok(self.0.entry(change).filter(|entry| ctx.scope.contains(&entry.path)))
    }
    async fn audit_list(&self, _: &Ctx, _: AuditFilter, r: PageRequest) -> Result<Page<AuditEntry>, ReadError> {
        nothing!(r)
    }
}

fn entry(sequence: i64, change: ChangeId, path: AccountPath) -> AuditEntry {
    AuditEntry {
        sequence,
        change,
        at: Timestamp(0),
        path,
        actor_kind: "machine".to_owned(),
        actor_name: "full".to_owned(),
        command: "account_update".to_owned(),
        plan: Plan { effects: Vec::new(), versions: Vec::new(), reversibility: Reversibility::Reversible },
        reverted_by: None,
        hash: vec![0; 32],
    }
}

/// A feed that a test writes.
pub struct Feed {
    pub told: broadcast::Sender<ChangeNotice>,
    pub paths: Mutex<Vec<AccountPath>>,
    /// The only one to the store: who holds it while waiting for something else stops everybody.
    pub connection: Semaphore,
}

/// Changes that a subscriber may be behind.
pub const KEPT: usize = 64;

impl Default for Feed {
    fn default() -> Self {
        Self { told: broadcast::Sender::new(KEPT), paths: Mutex::default(), connection: Semaphore::new(1) }
    }
}

impl Feed {
    /// Commits the next change, of an account. Its place is its identifier.
    pub fn commit(&self, path: AccountPath) {
        let mut paths = self.paths.lock().unwrap();
        paths.push(path.clone());
        let sequence = i64::try_from(paths.len()).unwrap();
        let change = ChangeId::from_uuid(Uuid::from_u128(u128::try_from(sequence).unwrap()));
        let changed = Arc::new(Changed { change, path, resources: Vec::new() });
        let _ = self.told.send(ChangeNotice { sequence, changed });
    }

    fn entry(&self, change: ChangeId) -> Option<AuditEntry> {
        let sequence = usize::try_from(change.uuid().as_u128()).ok()?;
        let path = self.paths.lock().unwrap().get(sequence.checked_sub(1)?)?.clone();
        Some(entry(i64::try_from(sequence).unwrap(), change, path))
    }
}

#[async_trait]
impl ChangeFeed for Feed {
    async fn head(&self) -> Result<i64, ReadError> {
        Ok(i64::try_from(self.paths.lock().unwrap().len()).unwrap())
    }
    fn listen(&self) -> broadcast::Receiver<ChangeNotice> {
        self.told.subscribe()
    }
}

/// The tokens of the HTTP face, until they are revoked.
#[derive(Default)]
pub struct Revocable {
    pub revoked: AtomicBool,
}

#[async_trait]
impl provisioning::port::Authenticator for Revocable {
    async fn token_authenticate(&self, token: &str, from: IpAddr, now: Timestamp) -> Result<Option<Actor>, ReadError> {
        if self.revoked.load(Ordering::SeqCst) {
            return Ok(None);
        }
        Tokens.token_authenticate(token, from, now).await
    }
}

/// What streams live on, in the hands of a test.
#[derive(Clone)]
pub struct Streaming {
    pub feed: Arc<Feed>,
    pub tokens: Arc<Revocable>,
    pub stop: watch::Sender<bool>,
}

impl Default for Streaming {
    fn default() -> Self {
        Self { feed: Arc::default(), tokens: Arc::default(), stop: watch::Sender::new(false) }
    }
}

/// One alarm: number 7 of node1.
pub struct Fault;

#[async_trait]
impl fault::port::Queries for Fault {
    async fn alarm_get(&self, ctx: &Ctx, node: &str, id: u32) -> Result<Option<Alarm>, ReadError> {
        Ok(visible(ctx, alarm()).filter(|alarm| alarm.node == node && alarm.id == id))
    }
    async fn alarm_list(&self, ctx: &Ctx, _: bool, r: PageRequest) -> Result<Page<Alarm>, ReadError> {
        Ok(page(ctx, alarm(), &r))
    }
}

fn alarm() -> Alarm {
    Alarm {
        node: "node1".to_owned(),
        id: 7,
        alarm_type: AlarmType::TrunkDown,
        resource: "trunk:1".to_owned(),
        path: Some(owner()),
        severity: Severity::Major,
        text: "carrier-a does not answer".to_owned(),
        raised_at: Timestamp(0),
        changed_at: Timestamp(0),
        last_seen_at: Timestamp(0),
        cleared_at: None,
        count: 1,
        acknowledgement: None,
    }
}

/// The whole public face with GraphQL in it.
pub fn face() -> Face {
    face_over(Arc::default(), &Streaming::default())
}

/// The same over a billing whose reads the test counts.
pub fn face_with_billing(billing: Arc<Billing>) -> Face {
    face_over(billing, &Streaming::default())
}

/// The same with streams that the test feeds.
pub fn face_over(billing: Arc<Billing>, streaming: &Streaming) -> Face {
    let pipeline = Arc::new(Pipeline::default());
    let deps = GraphqlDeps {
        provisioning: Arc::new(Provisioning(streaming.feed.clone())),
        provisioning_change: pipeline.clone(),
        bulk: Arc::new(Jobs),
        trunk_states: Arc::new(Trunks),
        billing,
        billing_change: pipeline.clone(),
        fault: Arc::new(Fault),
        fault_change: pipeline.clone(),
        reports: Arc::new(Reports),
        reports_change: pipeline.clone(),
        changes: streaming.feed.clone(),
        authenticator: streaming.tokens.clone(),
        clock: Arc::new(ManualClock::default()),
        ids: Arc::new(CountingIds::default()),
        stop: streaming.stop.subscribe(),
    };
    Face { pipeline, ..face_with(Billing::default(), graphql_router(deps)) }
}

/// Every trunk is down and refuses us.
pub struct Trunks;

impl TrunkStates for Trunks {
    fn trunk_state(&self, _: TrunkId) -> Option<TrunkState> {
        let registration = Some(TrunkRegistrationState::Refused(403));
        Some(TrunkState { down: Some((Timestamp(1_000), "registration_refused")), registration })
    }
}

/// Sends a document by POST.
pub async fn post(face: &Face, token: Option<&str>, document: &str, variables: Value) -> Response<Vec<u8>> {
    let body = json!({ "query": document, "variables": variables }).to_string();
    let builder = request("POST", "/graphql", token).header("content-type", "application/json");
    send(&face.router, builder.body(Body::from(body)).unwrap()).await
}

/// Sends a document and gives the whole answer.
pub async fn ask(face: &Face, token: &str, document: &str, variables: Value) -> Value {
    serde_json::from_slice(post(face, Some(token), document, variables).await.body()).unwrap()
}

/// The code of the first error.
pub fn code(answer: &Value) -> &str {
    answer["errors"][0]["extensions"]["code"].as_str().unwrap_or_default()
}

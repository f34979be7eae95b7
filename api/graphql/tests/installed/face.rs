//! The whole public face over real stores: an installation with a reseller, a customer and one object of each kind.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use api_http::global_id;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use billing_store::BillingStore;
use db::sqlx::{self, AssertSqlSafe};
use db::{Db, on_tx};
use fault_store::StoreAlarms;
use model::change::ResourceKind;
use model::tenancy::AccountPath;
use provisioning_store::{KeyFile, ProvisioningStore};
use reports_store::ReportsStore;
use serde_json::{Value, json};
use tandem_graphql::{GraphqlDeps, graphql_router};
use testkit::{TestDb, World};

use super::support::Trunks;
use super::support::http::{request, send};

/// Where requests come from.
pub const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

/// The face, and the identifiers of what was made through it.
pub struct Installed {
    pub db: TestDb,
    pub world: World,
    pub router: Router,
    /// The provider's token, with every permission.
    pub token: String,
    pub provider: String,
    pub reseller: String,
    pub customer: String,
    /// Without anything.
    pub bare_customer: String,
    pub domain: String,
    /// Without subscribers.
    pub bare_domain: String,
    pub site: String,
    pub subscriber: String,
    pub number: String,
    pub trunk: String,
    pub issued: String,
    pub tariff: String,
    pub stream: String,
    pub file: String,
    /// A change that can be taken back.
    pub change: String,
    fresh: AtomicU32,
    _dir: tempfile::TempDir,
}

impl Installed {
    pub async fn new(db: TestDb) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyFile::open_or_create(&dir.path().join("secrets.key")).unwrap();
        let world = World::new();
        let (clock, ids) = (world.clock.clone(), world.ids.clone());
        let provisioning = ProvisioningStore::new(Db::clone(&db), &key);
        let eur = "EUR".parse().unwrap();
        let made = provisioning.bootstrap("Demo Telecom", "Europe/Vienna", eur, clock, ids).await.unwrap();
        let installation = provisioning.installation().await.unwrap().unwrap();
        let (clock, ids) = (world.clock.clone(), world.ids.clone());
        let files = dir.path().join("files");
        let billing = BillingStore::new(Db::clone(&db), files, installation, clock.clone(), ids.clone());
        let reports = ReportsStore::new(Db::clone(&db), clock, ids, dir.path().join("reports"));
        let provider = global_id::encode(ResourceKind::Account, made.provider);
        let mut installed = Self {
            router: router(&world, provisioning, billing.clone(), Arc::new(StoreAlarms::new(Db::clone(&db))), reports),
            db,
            world,
            token: made.token.expose().clone(),
            provider,
            reseller: String::new(),
            customer: String::new(),
            bare_customer: String::new(),
            domain: String::new(),
            bare_domain: String::new(),
            site: String::new(),
            subscriber: String::new(),
            number: String::new(),
            trunk: String::new(),
            issued: String::new(),
            tariff: String::new(),
            stream: String::new(),
            file: String::new(),
            change: String::new(),
            fresh: AtomicU32::new(100),
            _dir: dir,
        };
        installed.furnish().await;
        billing.publish_planned().await.unwrap();
        installed
    }

    async fn furnish(&mut self) {
        let plan = json!({ "countryCode": "43", "nationalPrefix": "0", "internationalPrefix": "00" });
        let account = |parent: &str, kind: &str, name: &str| {
            let (timezone, currency) = ("UTC", "EUR");
            json!({ "parentId": parent, "kind": kind, "name": name, "timezone": timezone, "currency": currency })
        };
        self.reseller = self.make("accountCreate", account(&self.provider, "RESELLER", "North")).await;
        self.customer = self.make("accountCreate", account(&self.reseller, "CUSTOMER", "Mill")).await;
        self.bare_customer = self.make("accountCreate", account(&self.reseller, "CUSTOMER", "Bare")).await;
        let domain = |name: &str| json!({ "accountId": self.customer, "name": name, "dialPlan": plan });
        let (domain, bare) = (domain("c1.example"), domain("bare.example"));
        self.domain = self.make("domainCreate", domain).await;
        self.bare_domain = self.make("domainCreate", bare).await;
        self.site = self.make("siteCreate", json!({ "accountId": self.customer, "name": "Harbour" })).await;
        let subscriber = json!({ "domainId": self.domain, "username": "alice", "displayName": "Alice" });
        self.subscriber = self.make("subscriberCreate", subscriber).await;
        let number = json!({ "accountId": self.customer, "e164": "+4372000001" });
        self.number = self.make("numberCreate", number).await;
        let trunk = json!({ "accountId": self.reseller, "name": "Carrier", "address": "192.0.2.1:5060",
            "credentials": { "username": "tandem", "password": "staple-of-the-carrier" },
            "priority": 1, "keepaliveMs": 0 });
        self.trunk = self.make("trunkCreate", trunk).await;
        let token = json!({ "accountId": self.customer, "name": "ci", "permissions": ["billing:read"] });
        self.issued = self.make("tokenIssue", token).await;
        let rate = json!({ "prefix": "43", "description": "Austria", "connectFee": "0", "price": "0.05",
            "perMs": 60_000, "initialMs": 1_000, "incrementMs": 1_000 });
        let tariff = json!({ "accountId": self.reseller, "name": "Retail", "currency": "EUR",
            "rounding": { "mode": "HALF_UP", "decimals": 2 }, "rates": [rate] });
        self.tariff = self.make("tariffCreate", tariff).await;
        let stream = json!({ "accountId": self.reseller, "name": "retail", "side": "SELL", "closePeriodMs": 0 });
        self.stream = self.make("streamCreate", stream).await;
        self.file = self.make("billingFileClose", json!({ "streamId": self.stream })).await;
        let site = json!({ "id": self.site, "name": "Quay" });
        let changed = self.change("siteUpdate", json!({ "input": site })).await;
        self.change = changed["data"]["siteUpdate"]["changeId"].as_str().unwrap_or_else(|| panic!("{changed}")).into();
    }

    /// A number that was not given before, below 60,000.
    pub fn fresh(&self) -> u32 {
        self.fresh.fetch_add(1, Ordering::Relaxed)
    }

    /// Commits a change and gives what it made.
    pub async fn make(&self, mutation: &str, input: Value) -> String {
        let answer = self.change(mutation, json!({ "input": input })).await;
        answer["data"][mutation]["id"].as_str().unwrap_or_else(|| panic!("{mutation}: {answer}")).to_owned()
    }

    /// Sends a mutation with its arguments by the provider.
    pub async fn change(&self, mutation: &str, arguments: Value) -> Value {
        let response = self.post(&self.token, &mutation_document(mutation), arguments).await;
        serde_json::from_slice(response.body()).unwrap_or_else(|_| panic!("{mutation}: {response:?}"))
    }

    /// Sends a document by the provider, and gives the answer.
    pub async fn ask(&self, document: &str, variables: Value) -> Value {
        let response = self.post(&self.token, document, variables).await;
        serde_json::from_slice(response.body()).unwrap_or_else(|_| panic!("{document}: {response:?}"))
    }

    pub async fn post(&self, token: &str, document: &str, variables: Value) -> Response<Vec<u8>> {
        let body = json!({ "query": document, "variables": variables }).to_string();
        self.send_from(HERE, request("POST", "/graphql", Some(token)), body.into_bytes()).await
    }

    /// Sends a JSON body from an address.
    pub async fn send_from(
        &self,
        from: IpAddr,
        builder: axum::http::request::Builder,
        body: Vec<u8>,
    ) -> Response<Vec<u8>> {
        let builder = builder.header("content-type", "application/json");
        let mut request: Request<Body> = builder.body(Body::from(body)).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(from, 50_000)));
        send(&self.router, request).await
    }

    /// So many rows of a fault: alarms of `node1` from `first` on, of the customer's account, and a target that nothing
    /// waits for.
    pub async fn alarms(&self, first: u32, count: u32) {
        let (_, account) = global_id::decode(&self.customer).unwrap();
        let path = self.path_of(&account).await.to_string();
        self.execute(
            (first..first + count)
                .map(|id| {
                    format!(
                        "INSERT INTO alarm (node, id, type, resource, path, severity, text, raised_at, changed_at, \
                         last_seen_at, count) VALUES ('node1', {id}, 'trunk_down', 'trunk:1', '{path}', 'major', \
                         'no answer', 1, 1, 1, 1)"
                    )
                })
                .collect(),
        )
        .await;
    }

    async fn path_of(&self, account: &str) -> AccountPath {
        let id: uuid::Uuid = account.parse().unwrap();
        let sql = "SELECT path FROM account WHERE id = $1";
        let path: String = db::on_db!(&*self.db, c => sqlx::query_scalar(sql).bind(id).fetch_one(c).await).unwrap();
        path.parse().unwrap()
    }

    /// Runs statements of a test in one transaction.
    pub async fn execute(&self, statements: Vec<String>) {
        let done = self.db.write::<(), (), _>(move |tx| {
            let statements = statements.clone();
            Box::pin(async move {
                for sql in statements {
                    on_tx!(&mut *tx, c => sqlx::query(AssertSqlSafe(sql)).execute(c).await.map(|_| ()))?;
                }
                Ok(())
            })
        });
        done.await.unwrap();
    }

    pub async fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT COUNT(*) FROM {table}");
        db::on_db!(&*self.db, c => sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(c).await).unwrap()
    }
}

/// A mutation whose input stands in variables.
pub fn mutation_document(mutation: &str) -> String {
    let mut letters = mutation.chars();
    let first = letters.next().unwrap().to_ascii_uppercase();
    let input = format!("{first}{}Input", letters.as_str());
    format!(
        "mutation($input: {input}!, $dryRun: Boolean! = false, $idempotencyKey: String, \
         $expectedVersions: [ExpectedVersion!]) {{ {mutation}(input: $input, dryRun: $dryRun, \
         idempotencyKey: $idempotencyKey, expectedVersions: $expectedVersions) {{ id changeId revealedSecret \
         plan {{ effects {{ kind }} }} userErrors {{ code field message remedy }} }} }}"
    )
}

fn router(
    world: &World,
    provisioning: ProvisioningStore,
    billing: BillingStore,
    fault: Arc<StoreAlarms>,
    reports: ReportsStore,
) -> Router {
    let (provisioning, billing, reports) = (Arc::new(provisioning), Arc::new(billing), Arc::new(reports));
    let http = api_http::HttpDeps {
        authenticator: provisioning.clone(),
        billing: billing.clone(),
        billing_change: billing.clone(),
        reports: reports.clone(),
        clock: world.clock.clone(),
        ids: world.ids.clone(),
    };
    let graphql = graphql_router(GraphqlDeps {
        provisioning: provisioning.clone(),
        provisioning_change: provisioning,
        trunk_states: Arc::new(Trunks),
        billing: billing.clone(),
        billing_change: billing,
        fault: fault.clone(),
        fault_change: fault,
        reports: reports.clone(),
        reports_change: reports,
    });
    api_http::router(http, graphql)
}

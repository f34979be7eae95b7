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

use super::support::http::{request, send};
use super::support::{Streaming, Trunks};

/// Where requests come from.
pub const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

/// The face, and the identifiers of what was made through it.
pub struct Installed {
    pub db: TestDb,
    pub world: World,
    pub router: Router,
    pub provisioning: ProvisioningStore,
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
    /// Where nobody sits.
    pub bare_site: String,
    pub subscriber: String,
    pub number: String,
    /// That nobody answers.
    pub bare_number: String,
    /// That is reserved.
    pub held_number: String,
    pub trunk: String,
    pub issued: String,
    pub tariff: String,
    pub stream: String,
    pub file: String,
    /// A change that can be taken back.
    pub change: String,
    /// A bulk job that can be started.
    pub job: String,
    fresh: AtomicU32,
    /// Its end would be that of the streams.
    _streaming: Streaming,
    _dir: tempfile::TempDir,
}

impl Installed {
    pub async fn new(db: TestDb) -> Self {
        let used = Db::clone(&db);
        Self::over(db, used).await
    }

    /// With stores that reach `db` by a pool of their own.
    pub async fn over(db: TestDb, used: Db) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyFile::open_or_create(&dir.path().join("secrets.key")).unwrap();
        let world = World::new();
        let (clock, ids) = (world.clock.clone(), world.ids.clone());
        let provisioning = ProvisioningStore::new(used.clone(), &key);
        let eur = "EUR".parse().unwrap();
        let made = provisioning.bootstrap("Demo Telecom", "Europe/Vienna", eur, clock, ids).await.unwrap();
        let installation = provisioning.installation().await.unwrap().unwrap();
        let (clock, ids) = (world.clock.clone(), world.ids.clone());
        let files = dir.path().join("files");
        let billing = BillingStore::new(used.clone(), files, installation, clock.clone(), ids.clone());
        let reports = ReportsStore::new(used.clone(), clock, ids, dir.path().join("reports"));
        let provider = global_id::encode(ResourceKind::Account, made.provider);
        let (streaming, fault) = (Streaming::default(), Arc::new(StoreAlarms::new(used.clone())));
        let mut installed = Self {
            provisioning: provisioning.clone(),
            router: router(&world, provisioning, billing.clone(), fault, reports, &streaming),
            _streaming: streaming,
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
            bare_site: String::new(),
            subscriber: String::new(),
            number: String::new(),
            bare_number: String::new(),
            held_number: String::new(),
            trunk: String::new(),
            issued: String::new(),
            tariff: String::new(),
            stream: String::new(),
            file: String::new(),
            change: String::new(),
            job: String::new(),
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
        let site = |name: &str| json!({ "accountId": self.customer, "name": name });
        let (site, bare) = (site("Harbour"), site("Bare"));
        self.site = self.make("siteCreate", site).await;
        self.bare_site = self.make("siteCreate", bare).await;
        let subscriber = json!({ "domainId": self.domain, "username": "alice", "displayName": "Alice" });
        self.subscriber = self.make("subscriberCreate", subscriber).await;
        let number = |e164: &str| json!({ "accountId": self.customer, "e164": e164 });
        let numbers = [number("+4372000001"), number("+4372000002"), number("+4372000003")];
        let [number, bare, held] = numbers;
        self.number = self.make("numberCreate", number).await;
        self.bare_number = self.make("numberCreate", bare).await;
        self.held_number = self.make("numberCreate", held).await;
        let until = "2026-02-01T00:00:00Z";
        let reservation = json!({ "id": self.held_number, "accountId": self.customer, "until": until });
        self.make("numberReserve", reservation).await;
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
        self.job = self.staged().await;
    }

    /// A bulk job of one line.
    async fn staged(&self) -> String {
        let upload = request("POST", "/bulk/jobs", Some(&self.token)).header("content-type", "application/jsonl");
        let line = r#"{"kind":"site","account":"North/Mill","site":"Wharf"}"#;
        let sent = send(&self.router, upload.body(Body::from(line)).unwrap()).await;
        let job: Value = serde_json::from_slice(sent.body()).unwrap_or_else(|_| panic!("{sent:?}"));
        job["id"].as_str().unwrap_or_else(|| panic!("{job}")).to_owned()
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

    /// Fifty rows and more of everything that is listed, on PostgreSQL.
    pub async fn crowd(&self) {
        let (_, customer) = global_id::decode(&self.customer).unwrap();
        let (_, reseller) = global_id::decode(&self.reseller).unwrap();
        let (path, above) = (self.path_of(&customer).await, self.path_of(&reseller).await);
        let (_, domain) = global_id::decode(&self.domain).unwrap();
        let (_, tariff) = global_id::decode(&self.tariff).unwrap();
        let (_, stream) = global_id::decode(&self.stream).unwrap();
        let each = "FROM generate_series(1001, 1060) n";
        self.alarms(1_000, 60).await;
        for n in 0..60 {
            // A path is made from the identifier
            let name = format!("Crowd {n}");
            let account = json!({ "parentId": self.reseller, "kind": "CUSTOMER", "name": name, "timezone": "UTC",
                "currency": "EUR" });
            self.make("accountCreate", account).await;
        }
        self.execute(vec![
            format!(
                "INSERT INTO domain (id, account_id, name, country_code, national_prefix, international_prefix, version, \
                 created_at, updated_at) SELECT gen_random_uuid(), '{customer}', 'd' || n || '.example', '43', '0', '00', \
                 1, 1, 1 {each}"
            ),
            format!(
                "INSERT INTO bulk_job (id, account_id, name, state, total, applied, unchanged, refused, stepped_at, version, \
                 created_at, updated_at) SELECT gen_random_uuid(), '{customer}', 'job', 'staged', 0, 0, 0, 0, 1, 1, 1, 1 \
                 {each}"
            ),
            format!(
                "INSERT INTO site (id, account_id, name, version, created_at, updated_at) \
                 SELECT gen_random_uuid(), '{customer}', 'Site ' || n, 1, 1, 1 {each}"
            ),
            format!(
                "INSERT INTO subscriber (id, account_id, domain_id, username, display_name, enabled, version, created_at, \
                 updated_at, ha1_md5, ha1_sha256) SELECT gen_random_uuid(), '{customer}', '{domain}', 'u' || n, '', true, \
                 1, 1, 1, '', '' {each}"
            ),
            format!(
                "INSERT INTO number (id, account_id, e164, version, created_at, updated_at) \
                 SELECT gen_random_uuid(), '{customer}', '+43720' || n, 1, 1, 1 {each}"
            ),
            format!(
                "INSERT INTO trunk (id, account_id, name, address, priority, keepalive_ms, enabled, version, created_at, \
                 updated_at) SELECT gen_random_uuid(), '{reseller}', 'Trunk ' || n, '192.0.2.1:' || n, 1, 0, true, 1, 1, \
                 1 {each}"
            ),
            format!(
                "INSERT INTO api_token (id, account_id, name, token_hash, permissions, networks, version, created_at, \
                 updated_at) SELECT gen_random_uuid(), '{customer}', 'Token ' || n, ('t' || n)::bytea, 'billing:read', \
                 '', 1, 1, 1 {each}"
            ),
            format!(
                "INSERT INTO tariff (id, account_id, name, currency, rounding_mode, rounding_decimals, version, \
                 created_at, updated_at) SELECT gen_random_uuid(), '{reseller}', 'Tariff ' || n, 'EUR', 'half_up', 2, 1, \
                 1, 1 {each}"
            ),
            "INSERT INTO tariff_rate (tariff_id, prefix, description, connect_fee, price, per_ms, initial_ms, \
             increment_ms) SELECT id, prefix, '', 0, 1, 60000, 1000, 1000 FROM tariff, \
             (VALUES ('1'), ('44'), ('49')) AS rate (prefix)"
                .to_owned(),
            format!(
                "INSERT INTO tariff_assignment (id, tariff_id, account_id, side, valid_from, version, created_at, \
                 updated_at) SELECT gen_random_uuid(), '{tariff}', '{customer}', 'sell', n, 1, 1, 1 {each}"
            ),
            format!(
                "INSERT INTO stream (id, account_id, name, side, close_period_ms, next_sequence, rated_cursor, version, \
                 created_at, updated_at) SELECT gen_random_uuid(), '{reseller}', 'stream-' || n, 'sell', 0, 1, 0, 1, 1, \
                 1 {each}"
            ),
            format!(
                "INSERT INTO billing_file SELECT (jsonb_populate_record(f, jsonb_build_object('id', gen_random_uuid(), \
                 'sequence', n))).* FROM billing_file f, generate_series(1001, 1060) n WHERE f.stream_id = '{stream}'"
            ),
            format!(
                "INSERT INTO usage (call_id, leg, part, is_last, account_id, path, dialled, invited_at, answered_at, \
                 ended_at, duration_ms, pdd_ms, cause, released_by, estimated, aborted, state, node, epoch, sequence, \
                 raw_hash) SELECT gen_random_uuid(), 0, 0, true, '{customer}', '{path}', '100', 1, 2, 3, 1, 1, 'normal_clearing', \
                 'caller', false, false, 'rated', 'node1', 1, n, '' {each}"
            ),
            format!(
                "INSERT INTO rated (call_id, leg, part, account_id, side, version, sequence, batch_id, path, tariff_id, \
                 tariff_version, prefix, billed_ms, currency, exact_numerator, exact_denominator, amount, answered_at, \
                 rated_at) SELECT gen_random_uuid(), 0, 0, '{customer}', 'sell', 1, n, gen_random_uuid(), '{path}', \
                 '{tariff}', 1, '43', 1, 'EUR', 1, 1, 1, 1, 1 {each}"
            ),
            format!(
                "INSERT INTO suspense (call_id, leg, part, account_id, side, path, code, detail, attempts, created_at) \
                 SELECT gen_random_uuid(), 0, 0, '{customer}', 'sell', '{path}', 'no_tariff', '', 1, 1 {each}"
            ),
            format!(
                "INSERT INTO ledger (id, batch_id, account_id, path, book, currency, amount, rated_count, at) \
                 SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), '{path}', 'receivable', 'EUR', 1, 1, 1 \
                 {each}"
            ),
            format!(
                "INSERT INTO report_run (id, definition, period, revision, account_id, path, timezone, period_from, \
                 period_to, provisional, state, attempt, recipients, created_at) SELECT gen_random_uuid(), 'x' || n, \
                 '2026-01', 0, '{reseller}', '{above}', 'UTC', 1, 2, true, 'due', 0, '[]', 1 {each}"
            ),
        ])
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
    streaming: &Streaming,
) -> Router {
    let (provisioning, billing, reports) = (Arc::new(provisioning), Arc::new(billing), Arc::new(reports));
    let http = api_http::HttpDeps {
        authenticator: provisioning.clone(),
        bulk: provisioning.clone(),
        billing: billing.clone(),
        billing_change: billing.clone(),
        reports: reports.clone(),
        clock: world.clock.clone(),
        ids: world.ids.clone(),
    };
    let graphql = graphql_router(GraphqlDeps {
        provisioning: provisioning.clone(),
        bulk: provisioning.clone(),
        provisioning_change: provisioning.clone(),
        trunk_states: Arc::new(Trunks),
        billing: billing.clone(),
        billing_change: billing,
        fault: fault.clone(),
        fault_change: fault,
        reports: reports.clone(),
        reports_change: reports,
        changes: streaming.feed.clone(),
        authenticator: provisioning,
        clock: world.clock.clone(),
        ids: world.ids.clone(),
        stop: streaming.stop.subscribe(),
    });
    api_http::router(http, graphql)
}

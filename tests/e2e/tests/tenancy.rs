//! A reseller's token can't see, list, count, guess or change another reseller's objects: a walk over the whole schema
//! and every route, so that what is added later is walked too.
#![expect(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that fails says why, and one that passes what it measured"
)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use api_http::route::Access;
use db::system::SystemClock;
use model::time::Clock;
use serde_json::{Map, Value, json};
use tandem::call::{Agent, AgentConfig, Behaviour, CallRequest, Caller};
use tandem::client::{Client, ClientError};
use tandem::demo::world::World;
use tandem::demo::{await_settled, calls};
use tandem_e2e::{ENGINES, Engine, install, provision};

/// How far the walk looks to both sides of now.
const HALF_DAY_MS: i64 = 43_200_000;
const INTROSPECTION: &str = "{ __schema { queryType { name } mutationType { name } subscriptionType { name } types { kind name \
    fields { name args { name type { ...T } defaultValue } type { ...T } } \
    inputFields { name type { ...T } defaultValue } enumValues { name } possibleTypes { name } } } } \
    fragment T on __Type { kind name ofType { kind name ofType { kind name ofType { kind name } } } }";

/// The schema, as the introspection of the running daemon gives it.
struct Schema(Value);

impl Schema {
    fn kind(&self, name: &str) -> &Value {
        let types = self.0["types"].as_array().expect("types");
        types.iter().find(|t| t["name"] == name).unwrap_or_else(|| panic!("the schema names {name}"))
    }

    fn fields(&self, of: &str) -> &[Value] {
        let root = self.0[of]["name"].as_str().expect("a root type");
        self.kind(root)["fields"].as_array().expect("fields")
    }

    /// All fields without arguments, down to a few levels: everything that an object can tell.
    fn selection(&self, type_name: &str, depth: u32) -> String {
        let described = self.kind(type_name);
        match described["kind"].as_str() {
            Some("OBJECT") => {
                let fields = described["fields"].as_array().expect("fields");
                let mut parts = Vec::new();
                // `edges` repeats `nodes`, and would make the query too complex.
                let plain = |f: &&Value| f["args"].as_array().is_none_or(Vec::is_empty) && f["name"] != "edges";
                for field in fields.iter().filter(plain) {
                    let (name, inner) = (field["name"].as_str().expect("a name"), named(&field["type"]));
                    let part = self.selection(inner, depth + 1);
                    match self.kind(inner)["kind"].as_str() {
                        Some("OBJECT" | "INTERFACE" | "UNION") if depth >= 4 || part.is_empty() => {}
                        _ => parts.push(format!("{name}{part}")),
                    }
                }
                if parts.is_empty() { String::new() } else { format!(" {{ {} }}", parts.join(" ")) }
            }
            Some("INTERFACE" | "UNION") => {
                let possible = described["possibleTypes"].as_array().expect("possible types");
                let parts: Vec<String> = possible
                    .iter()
                    .map(|t| t["name"].as_str().expect("a name"))
                    .map(|name| format!("... on {name}{}", self.selection(name, depth + 1)))
                    .collect();
                format!(" {{ __typename {} }}", parts.join(" "))
            }
            _ => String::new(),
        }
    }

    /// A value that fits an input type; identifiers are `foreign`'s.
    fn value(&self, ty: &Value, field: &str, foreign: &Foreign) -> Value {
        match ty["kind"].as_str() {
            Some("NON_NULL") => self.value(&ty["ofType"], field, foreign),
            Some("LIST") => Value::from(vec![self.value(&ty["ofType"], field, foreign)]),
            Some("ENUM") => self.kind(named(ty))["enumValues"][0]["name"].clone(),
            Some("INPUT_OBJECT") => {
                let fields = self.kind(named(ty))["inputFields"].as_array().expect("input fields");
                Value::Object(fields.iter().filter_map(|f| self.input_field(f, foreign)).collect::<Map<_, _>>())
            }
            _ => match named(ty) {
                "ID" => json!(foreign.id_for(field)),
                "Int" | "Long" => json!(1),
                "Boolean" => json!(true),
                "Timestamp" => json!("2026-01-01T00:00:00Z"),
                "E164" => json!("+43720999999"),
                "Currency" => json!("EUR"),
                "Decimal" => json!("0.01"),
                "Permission" => json!("provisioning:read"),
                _ => json!(text_for(field)),
            },
        }
    }

    fn input_field(&self, field: &Value, foreign: &Foreign) -> Option<(String, Value)> {
        let name = field["name"].as_str()?;
        // Identifiers are always sent, also optional ones: each is a way to reach something.
        let wanted = field["type"]["kind"] == "NON_NULL" || named(&field["type"]) == "ID";
        // A tariff is assigned to an account or to a trunk.
        (wanted && name != "trunkId").then(|| (name.to_owned(), self.value(&field["type"], name, foreign)))
    }
}

fn text_for(field: &str) -> &'static str {
    match field {
        "timezone" => "Europe/Vienna",
        "period" => "2026-01",
        "address" => "127.0.0.1:5999",
        "prefix" | "countryCode" => "43",
        "nationalPrefix" => "0",
        "internationalPrefix" => "00",
        "recipients" => "x@demo.example",
        _ => "intruder.example",
    }
}

fn named(ty: &Value) -> &str {
    if let Some(name) = ty["name"].as_str() { name } else { named(&ty["ofType"]) }
}

/// What belongs to North (and to the provider), and must stay unseen by South.
struct Foreign {
    account: String,
    ids: BTreeSet<String>,
    of_kind: Map<String, Value>,
}

impl Foreign {
    /// An identifier that fits the name of an argument.
    fn id_for(&self, field: &str) -> String {
        let kind = field.trim_end_matches("Id");
        let found = self.of_kind.get(kind).and_then(Value::as_str);
        found.map_or_else(|| self.account.clone(), str::to_owned)
    }
}

/// Everything that the provider can list, except what lies at and below South.
async fn foreign(world: &World) -> Foreign {
    const QUERY: &str = "{ accounts(first: 100) { nodes { id name } } domains(first: 100) { nodes { id accountId } } \
        sites(first: 100) { nodes { id accountId } } subscribers(first: 100) { nodes { id accountId } } \
        numbers(first: 100) { nodes { id accountId e164 } } trunks(first: 100) { nodes { id accountId } } \
        tokens(first: 100) { nodes { id accountId } } tariffs(first: 100) { nodes { id accountId } } \
        streams(first: 100) { nodes { id accountId } } usage(first: 100) { nodes { callId accountId } } \
        reportRuns(first: 100) { nodes { id } } }";
    let data = world.provider.graphql(QUERY, json!({})).await.expect("the provider sees all");
    let south: BTreeSet<&str> = [&world.resellers[1].account, &world.customers[2].account].map(String::as_str).into();
    let (mut ids, mut of_kind) = (BTreeSet::new(), Map::new());
    for (list, kind) in [
        ("accounts", "account"),
        ("domains", "domain"),
        ("sites", "site"),
        ("subscribers", "subscriber"),
        ("numbers", "number"),
        ("trunks", "trunk"),
        ("tokens", "token"),
        ("tariffs", "tariff"),
        ("streams", "stream"),
        ("usage", "call"),
        ("reportRuns", "reportRun"),
    ] {
        for node in data[list]["nodes"].as_array().expect("a list") {
            let owner = node["accountId"].as_str().or(node["id"].as_str()).unwrap_or_default();
            if south.contains(owner) {
                continue;
            }
            for name in ["id", "callId"] {
                if let Some(id) = node[name].as_str() {
                    ids.insert(id.to_owned());
                    of_kind.insert(kind.to_owned(), json!(id));
                }
            }
            if let Some(e164) = node["e164"].as_str() {
                ids.insert(e164.to_owned());
            }
        }
    }
    let files = world
        .provider
        .graphql("query($id: ID!) { billingFiles(streamId: $id) { nodes { id } } }", json!({ "id": world.stream }));
    let files = files.await.expect("the provider sees the files");
    let file = files["billingFiles"]["nodes"][0]["id"].as_str().expect("a file").to_owned();
    of_kind.insert("billingFile".into(), json!(file));
    ids.insert(file);
    let account = world.customers[0].account.clone();
    let changes = "query($id: ID!) { changes(accountId: $id, first: 100) { nodes { id } } }";
    let changes = world.provider.graphql(changes, json!({ "id": account })).await.expect("the provider sees changes");
    for change in changes["changes"]["nodes"].as_array().expect("a list") {
        ids.insert(change["id"].as_str().expect("an identifier").to_owned());
        of_kind.insert("change".into(), change["id"].clone());
    }
    let line = r#"{"kind":"site","account":"North","site":"Foreign"}"#;
    let job = world.provider.upload("/bulk/jobs", "foreign", "application/jsonl", line.into()).await;
    let job = job.expect("a bulk job")["id"].clone();
    ids.extend(job.as_str().map(str::to_owned));
    of_kind.insert("bulkJob".into(), job);
    of_kind.insert("account".into(), json!(account));
    of_kind.insert("parent".into(), json!(account));
    // South may not see who stands above it either, but its own chain's identifiers are no secret of North's.
    ids.remove(&world.provider_account);
    Foreign { account, ids, of_kind }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reseller_reaches_nothing_of_another_reseller() {
    for engine in ENGINES {
        walk(engine).await;
    }
}

async fn walk(engine: Engine) {
    let at = install(engine, |_| {}).await;
    let daemon = at.installation.start().await.expect("it starts");
    let server = at.installation.config.sip.transport.listen;
    let carrier = calls::start_carrier(server).await.expect("a carrier");
    let world = provision(&at.installation, carrier.local_addr()).await;
    call_in_north(&world, server).await;
    await_settled(&at.installation).await.expect("it is rated");
    world.provider.mutate("billingFileClose", json!({ "streamId": world.stream })).await.expect("a file");
    let report = json!({ "accountId": world.customers[0].account, "period": "2026-01", "recipients": [] });
    world.provider.mutate("reportRun", report).await.expect("a report");

    let rights: Vec<&str> = model::actor::Permission::ALL.iter().map(|p| p.as_str()).collect();
    let token = json!({ "accountId": world.resellers[1].account, "name": "all-rights", "permissions": rights });
    let token = world.provider.mutate("tokenIssue", token).await.expect("a token").secret.expect("revealed");
    let south = world.provider.with_token(token.clone());
    let foreign = foreign(&world).await;
    assert!(foreign.ids.len() > 40, "{engine:?}: there is something to hide: {}", foreign.ids.len());
    let schema = south.graphql(INTROSPECTION, json!({})).await.expect("introspection with a token");
    let schema = Schema(schema["__schema"].clone());

    let before = audit_count(&world.provider).await;
    let (queries, mutations) =
        (walk_queries(&south, &schema, &foreign).await, walk_mutations(&south, &schema, &foreign).await);
    let routes = walk_routes(&south, &foreign).await;
    assert_eq!(audit_count(&world.provider).await, before, "{engine:?}: nothing was changed");
    println!("{engine:?}: {queries} queries, {mutations} mutations, {routes} requests to routes");
    assert!(queries >= 40 && mutations >= 20 && routes >= 10, "{queries} {mutations} {routes}");
    let url = format!("http://{}/graphql", at.installation.config.http.listen);
    walk_subscriptions(&url, token.expose(), &world, &schema, &foreign).await;
    daemon.terminate().await.expect("it stops");
}

/// What a subscriber in the south is told while the north is changed before the south.
async fn walk_subscriptions(url: &str, token: &str, world: &World, schema: &Schema, foreign: &Foreign) {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().expect("a client");
    for (turn, field) in schema.fields("subscriptionType").iter().enumerate() {
        let (name, kind) = (field["name"].as_str().expect("a name"), named(&field["type"]));
        let is_of_one = field["args"].as_array().is_some_and(|args| args.iter().any(|arg| arg["name"] == "id"));
        let one = if is_of_one { format!("(id: {})", foreign.of_kind[name]) } else { String::new() };
        let document = format!("subscription {{ {name}{one}{} }}", schema.selection(kind, 1));
        let request = http.post(url).bearer_auth(token).header("accept", "text/event-stream");
        let events = request.json(&json!({ "query": document })).send().await.expect("it begins");
        if is_of_one {
            let told = events.text().await.expect("it ends");
            assert!(told.contains("there is no such"), "{name}: {told}");
            assert_silent(name, foreign.of_kind[name].as_str().unwrap_or_default(), &told, foreign);
            continue;
        }
        for (reseller, side) in [(0, "Hidden"), (1, "Shown")] {
            let input = json!({ "parentId": world.resellers[reseller].account, "kind": "CUSTOMER",
                "name": format!("{side} {turn}"), "timezone": "Europe/Vienna", "currency": "EUR" });
            world.provider.mutate("accountCreate", input).await.expect("a customer");
        }
        let (mut told, mut events) = (String::new(), events);
        while !told.contains("event: next") || !told.ends_with("\n\n") {
            let piece = events.chunk().await.expect("the stream goes on").expect("the stream has not ended");
            told += &String::from_utf8_lossy(&piece);
        }
        assert!(told.contains("Shown") && !told.contains("Hidden"), "{name}: {told}");
        assert_silent(name, "", &told, foreign);
    }
}

async fn call_in_north(world: &World, server: SocketAddr) {
    let phones = Agent::start(AgentConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)), server)).await.expect("phones");
    let mut accounts = Vec::new();
    for phone in world.phones_of(0).take(2) {
        let account = tandem::call::Account::new(&*phone.username, world.customers[0].domain, phone.password.expose());
        accounts.push(phones.register(account.behaving(Behaviour::default())).await.expect("it registers"));
    }
    let call = CallRequest { caller: Caller::Account(accounts[0]), ..CallRequest::new(accounts[0], "101", 300) };
    assert!(phones.call(call).await.expect("it is placed").is_answered());
}

/// The number of the latest change.
async fn audit_count(provider: &Client) -> i64 {
    let data = provider.graphql("{ changes(first: 1) { nodes { sequence } } }", json!({})).await;
    data.expect("the audit trail")["changes"]["nodes"][0]["sequence"].as_i64().expect("a change")
}

fn assert_silent(what: &str, asked: &str, answer: &str, foreign: &Foreign) {
    for id in &foreign.ids {
        // What the client itself sent may be named in an error.
        assert!(id == asked || !answer.contains(id.as_str()), "{what} tells South of {id}: {answer}");
    }
    for name in ["North", "Alpha GmbH", "Beta OG", "alpha.example", "beta.example", "carrier-a"] {
        assert!(!answer.contains(name), "{what} tells South of {name}: {answer}");
    }
}

async fn walk_queries(south: &Client, schema: &Schema, foreign: &Foreign) -> usize {
    let mut asked = 0;
    let now = SystemClock.now().utc;
    for field in schema.fields("queryType") {
        let name = field["name"].as_str().expect("a name");
        let selection = schema.selection(named(&field["type"]), 1);
        let arguments = field["args"].as_array().expect("arguments");
        let takes_id = |arg: &&Value| named(&arg["type"]) == "ID";
        // Without any identifier where that is allowed, and with each foreign one.
        let mut variants: Vec<Option<&String>> =
            foreign.ids.iter().filter(|_| arguments.iter().any(|a| takes_id(&a))).map(Some).collect();
        if !arguments.iter().any(|a| takes_id(&a) && a["type"]["kind"] == "NON_NULL") {
            variants.push(None);
        }
        for id in variants {
            let mut given = Vec::new();
            for arg in arguments {
                let (arg_name, required) = (arg["name"].as_str().expect("a name"), arg["type"]["kind"] == "NON_NULL");
                match (takes_id(&arg), id) {
                    (true, Some(id)) if required || given.is_empty() => given.push(format!("{arg_name}: {id:?}")),
                    _ if arg_name == "first" => given.push("first: 50".to_owned()),
                    // The day around now: a longer time costs more than one query may.
                    _ if arg_name == "from" => given.push(format!("from: \"{}\"", now.plus_ms(-HALF_DAY_MS))),
                    _ if arg_name == "to" => given.push(format!("to: \"{}\"", now.plus_ms(HALF_DAY_MS))),
                    _ => {}
                }
            }
            let given = if given.is_empty() { String::new() } else { format!("({})", given.join(", ")) };
            let document = format!("{{ {name}{given}{selection} }}");
            let answer = match south.graphql(&document, json!({})).await {
                Ok(data) => data.to_string(),
                Err(ClientError::GraphQl(errors)) => {
                    assert!(!errors.contains("BAD_REQUEST") || id.is_some(), "{document}: {errors}");
                    errors
                }
                Err(other) => panic!("{document}: {other}"),
            };
            assert_silent(&document, id.map_or("", String::as_str), &answer, foreign);
            asked += 1;
        }
    }
    asked
}

async fn walk_mutations(south: &Client, schema: &Schema, foreign: &Foreign) -> usize {
    let mut tried = 0;
    for field in schema.fields("mutationType") {
        let name = field["name"].as_str().expect("a name");
        let input =
            field["args"].as_array().expect("arguments").iter().find(|a| a["name"] == "input").expect("an input");
        // `id` means an object of the mutation's own kind: `subscriberUpdate` takes a subscriber.
        let kinds = foreign.of_kind.iter().filter(|(kind, _)| name.starts_with(kind.as_str()));
        let own_id =
            kinds.max_by_key(|(kind, _)| kind.len()).map_or_else(|| json!(foreign.account), |(_, id)| id.clone());
        let mut own =
            Foreign { account: foreign.account.clone(), ids: foreign.ids.clone(), of_kind: foreign.of_kind.clone() };
        own.of_kind.insert("id".into(), own_id);
        own.of_kind.insert(String::new(), json!(foreign.account));
        let value = schema.value(&input["type"], "input", &own);
        for dry_run in [true, false] {
            let document = format!(
                "mutation($input: {}!, $dry: Boolean!) {{ {name}(input: $input, dryRun: $dry) {{ id changeId plan {{ effects {{ name after }} }} userErrors {{ code field message }} }} }}",
                named(&input["type"])
            );
            let answer = match south.graphql(&document, json!({ "input": value, "dry": dry_run })).await {
                Ok(data) => {
                    let payload = &data[name];
                    let codes: Vec<&str> = payload["userErrors"]
                        .as_array()
                        .expect("userErrors")
                        .iter()
                        .filter_map(|e| e["code"].as_str())
                        .collect();
                    assert!(
                        !codes.is_empty() && payload["changeId"].is_null(),
                        "{name} {value} was not refused: {data}"
                    );
                    assert!(
                        codes.iter().any(|code| matches!(*code, "NOT_FOUND" | "FORBIDDEN")),
                        "{name} {value} was refused for another reason: {data}"
                    );
                    payload.to_string()
                }
                Err(ClientError::GraphQl(errors)) if errors.contains("FORBIDDEN") => errors,
                Err(other) => panic!("{name} {value}: {other}"),
            };
            assert_silent(name, "", &answer, foreign);
            tried += 1;
        }
    }
    tried
}

async fn walk_routes(south: &Client, foreign: &Foreign) -> usize {
    let text = |kind: &str| foreign.of_kind.get(kind).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut asked = 0;
    for route in api_http::route::ROUTES.iter().filter(|route| route.access != Access::Open) {
        let path = route
            .path
            .replace("{stream}", &text("stream"))
            .replace("{run}", &text("reportRun"))
            .replace("{job}", &text("bulkJob"))
            .replace("{sequence}", "1");
        let answer = if route.path == "/bulk/jobs" {
            // it becomes a job of South's own
            let job = south.upload(&path, "own", "application/jsonl", "{}".into()).await;
            job.map(|job| job.to_string().into_bytes())
        } else if route.method == "POST" {
            south.post(&path, &json!({ "accepted": true, "reason": "" })).await
        } else {
            south.get(&path).await
        };
        if route.path.contains('{') {
            match answer {
                Err(ClientError::Status { status: 404, body, .. }) => {
                    assert_silent(&path, &text("stream"), &body, foreign)
                }
                other => panic!("{} {path} must look missing: {other:?}", route.method),
            }
        } else {
            let body = answer.unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_silent(&path, "", &String::from_utf8_lossy(&body), foreign);
        }
        asked += 1;
    }
    asked
}

//! Provisioning at the size of an installation that sells: bulk, single requests beside each other, and how soon the call
//! core knows.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tandem::call::{Account, Agent, AgentConfig};
use tandem::client::Client;
use tandem_e2e::load::machine::memory_kb;
use tandem_e2e::{Engine, TestInstallation, install};
use testkit::postgres::OwnCluster;
use tokio::task::JoinSet;

/// Customers, each with a domain.
const ACCOUNTS: usize = 5_000;
/// Subscribers of each, each with a number.
const SUBSCRIBERS: usize = 20;
/// Requests a second.
const RATE: u64 = 500;
/// Seconds of them.
const SECONDS: u64 = 20;
/// Changes of which it is measured when the call core knows them.
const LIVE: usize = 20;
/// How often the core is asked whether it knows.
const ASK_PERIOD: Duration = Duration::from_millis(5);
/// Until a job has ended.
const JOB_MAX: Duration = Duration::from_secs(600);
const PASSWORD: &str = "correct-horse-battery";

/// What a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    List,
    Get,
    Create,
}

impl Ask {
    const ALL: [Self; 3] = [Self::List, Self::Get, Self::Create];

    const fn name(self) -> &'static str {
        match self {
            Self::List => "list of 50",
            Self::Get => "get",
            Self::Create => "create a subscriber",
        }
    }

    /// Two lists, two gets and a create in turn.
    const fn of(n: u64) -> Self {
        match n % 5 {
            0 | 2 => Self::List,
            1 | 3 => Self::Get,
            _ => Self::Create,
        }
    }
}

/// All figures of a database.
pub async fn figures(engine: Engine) {
    let name = format!("{engine:?}");
    // One that keeps what it commits, as SQLite does here; that of the tests does not.
    let port = tandem::demo::process::free_tcp().expect("a free port").port();
    let cluster = (engine == Engine::Postgres).then(|| OwnCluster::durable(port));
    let at = install(Engine::Sqlite, |config| {
        config.log.level = "warn".into();
        if let Some(cluster) = &cluster {
            config.database.url = cluster.url();
        }
    })
    .await;
    let daemon = at.installation.start().await.expect("the daemon starts");
    let process = daemon.id().expect("it runs");
    let client = at.installation.client().expect("a client");
    let before = memory_kb(process);
    let job = bulk(&name, &client).await;
    live(&name, &at, &client).await;
    let each = (memory_kb(process).saturating_sub(before)) as f64 / (ACCOUNTS * SUBSCRIBERS) as f64;
    line(
        &name,
        &format!("memory of the daemon for a subscriber, its number, and its part of account and domain: {each:.2} kB"),
    );
    requests(&name, &client, &job).await;
    daemon.terminate().await.expect("the daemon ends");
}

/// Sends the file and waits for the job. Gives results of some subscribers.
async fn bulk(name: &str, client: &Client) -> Vec<String> {
    let mut file = String::new();
    for account in 0..ACCOUNTS {
        let (owner, domain) = (format!("C{account}"), format!("c{account}.example"));
        let customer = json!({ "kind": "account", "account": owner, "accountKind": "customer",
            "timezone": "Europe/Vienna", "currency": "EUR" });
        let realm = json!({ "kind": "domain", "account": owner, "domain": domain, "countryCode": "43",
            "nationalPrefix": "0", "internationalPrefix": "00" });
        let _written = writeln!(file, "{customer}\n{realm}");
        for subscriber in 0..SUBSCRIBERS {
            let number = account * SUBSCRIBERS + subscriber;
            let line = json!({ "kind": "subscriber", "domain": domain, "username": format!("u{subscriber}"),
                "extension": (100 + subscriber).to_string(), "password": PASSWORD,
                "numbers": [format!("+4390{number:08}")] });
            let _written = writeln!(file, "{line}");
        }
    }
    let (lines, begun) = (file.lines().count(), Instant::now());
    let sent =
        client.upload("/bulk/jobs", "bench", "application/jsonl", file.into_bytes()).await.expect("it is taken in");
    let id = sent["id"].as_str().expect("an identifier").to_owned();
    let taken_in = begun.elapsed();
    for mode in ["CHECK", "PER_LINE"] {
        let begun = Instant::now();
        client.mutate("bulkJobStart", json!({ "id": id, "mode": mode })).await.expect("it starts");
        let ended = async {
            loop {
                let job = client.get_json(&format!("/bulk/jobs/{id}")).await.expect("a job");
                if job["state"] != "running" {
                    return job;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let job = tokio::time::timeout(JOB_MAX, ended).await.expect("it ends");
        assert_eq!(job["applied"], json!(lines), "{job}");
        let spent = begun.elapsed().as_secs_f64();
        let what = if mode == "CHECK" { "checked" } else { "done" };
        line(
            name,
            &format!(
                "bulk: {lines} lines, {} of subscribers with a number, {what} in {spent:.1} s",
                ACCOUNTS * SUBSCRIBERS
            ),
        );
    }
    line(name, &format!("bulk: the file taken in within {:.1} s", taken_in.as_secs_f64()));
    let page = client.graphql("{ subscribers(first: 100) { nodes { id } } }", json!({})).await.expect("a page");
    let nodes = page["subscribers"]["nodes"].as_array().cloned().unwrap_or_default();
    nodes.iter().filter_map(|node| node["id"].as_str().map(str::to_owned)).collect()
}

/// From the answer of a change until a phone of it is admitted.
async fn live(name: &str, at: &TestInstallation, client: &Client) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let agent =
        Agent::start(AgentConfig::new(any, at.installation.config.sip.transport.listen)).await.expect("an agent");
    let page = client.graphql("{ domains(first: 1) { nodes { id name } } }", json!({})).await.expect("a page");
    let domain = &page["domains"]["nodes"][0];
    let (id, realm) = (domain["id"].clone(), domain["name"].as_str().unwrap_or_default().to_owned());
    let mut spent = Vec::new();
    for n in 0..LIVE {
        let user = format!("live{n}");
        let input = json!({ "domainId": id, "username": user, "displayName": "", "password": PASSWORD });
        client.mutate("subscriberCreate", input).await.expect("it is made");
        let begun = Instant::now();
        let admitted = async {
            while agent.register(Account::new(&*user, &*realm, PASSWORD)).await.is_err() {
                tokio::time::sleep(ASK_PERIOD).await;
            }
        };
        tokio::time::timeout(JOB_MAX, admitted).await.expect("it is known");
        spent.push(begun.elapsed());
    }
    line(name, &format!("a new subscriber registers after its mutation was answered: {}", quantiles(&mut spent)));
}

/// Requests at a fixed rate; each is timed from when it was due.
async fn requests(name: &str, client: &Client, subscribers: &[String]) {
    let (client, ids): (Client, Arc<[String]>) = (client.clone(), subscribers.into());
    let page = client.graphql("{ domains(first: 100) { nodes { id } } }", json!({})).await.expect("a page");
    let domains: Arc<[Value]> = page["domains"]["nodes"].as_array().cloned().unwrap_or_default().into();
    let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut tasks = JoinSet::new();
    for n in 0..RATE * SECONDS {
        let due = tick.tick().await;
        let (client, ids, domains) = (client.clone(), Arc::clone(&ids), Arc::clone(&domains));
        tasks.spawn(async move {
            let place = usize::try_from(n).unwrap_or_default();
            let ask = Ask::of(n);
            let answer = match ask {
                Ask::List => {
                    let list = "{ subscribers(first: 50) { nodes { id username displayName extension enabled } pageInfo { hasNextPage endCursor } } }";
                    client.graphql(list, json!({})).await.map(drop)
                }
                Ask::Get => {
                    let get = "query($id: ID!) { node(id: $id) { ... on Subscriber { id username displayName version } } }";
                    client.graphql(get, json!({ "id": ids[place % ids.len()] })).await.map(drop)
                }
                Ask::Create => {
                    let input = json!({ "domainId": domains[place % domains.len()]["id"], "username": format!("r{n}"),
                        "displayName": "", "password": PASSWORD });
                    client.mutate("subscriberCreate", input).await.map(drop)
                }
            };
            (ask, due.elapsed(), answer.err().map(|error| error.to_string()))
        });
    }
    let mut spent = Vec::new();
    while let Some(done) = tasks.join_next().await {
        spent.push(done.expect("no defect"));
    }
    let failed: Vec<&String> = spent.iter().filter_map(|(.., error)| error.as_ref()).collect();
    if let Some(first) = failed.first() {
        line(name, &format!("{} of {} requests FAILED, the first: {first:.300}", failed.len(), spent.len()));
    }
    for ask in Ask::ALL {
        let mut own: Vec<Duration> = spent.iter().filter(|(of, ..)| *of == ask).map(|(_, spent, _)| *spent).collect();
        line(name, &format!("{RATE} requests/s for {SECONDS} s, {}: {}", ask.name(), quantiles(&mut own)));
    }
}

fn line(engine: &str, text: &str) {
    println!("  {engine:9} {text}");
}

fn quantiles(spent: &mut [Duration]) -> String {
    spent.sort_unstable();
    let at = |hundredths: usize| spent[(spent.len() * hundredths / 100).min(spent.len() - 1)].as_secs_f64() * 1_000.0;
    format!("median {:.1} ms, p99 {:.1} ms, longest {:.1} ms", at(50), at(99), at(100))
}

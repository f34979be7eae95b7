//! SIGKILL at random moments of a bulk job: it goes on by itself, nothing is done twice, nothing is lost, and every line
//! has its result.
#![expect(clippy::print_stdout, reason = "a test says what it drew and measured")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use tandem::client::Client;
use tandem_e2e::ledger::{number, store};
use tandem_e2e::{Engine, TestInstallation, install};

/// Lines of subscribers, each with a number; some say what cannot be.
const LINES: usize = 10_000;
/// Every so many lines there is one that is refused.
const WRONG: usize = 100;
/// Kills while the job runs.
const KILLS: u32 = 4;
/// How long the rest of the job may take.
const BOUND: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_job_goes_on_on_sqlite() {
    killed(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_job_goes_on_on_postgresql() {
    killed(Engine::Postgres).await;
}

fn file() -> String {
    let head = [
        json!({ "kind": "account", "account": "Quay Hotel", "accountKind": "customer", "timezone": "Europe/Vienna",
            "currency": "EUR" }),
        json!({ "kind": "domain", "account": "Quay Hotel", "domain": "quay.example", "countryCode": "43",
            "nationalPrefix": "0", "internationalPrefix": "00" }),
    ];
    let line = |n: usize| {
        let extension = if n.is_multiple_of(WRONG) { "x".to_owned() } else { format!("{:05}", n) };
        json!({ "action": "create", "kind": "subscriber", "domain": "quay.example", "username": format!("u{n}"),
            "extension": extension, "numbers": [format!("+4372{n:07}")] })
    };
    head.into_iter().chain((0..LINES).map(line)).map(|line| format!("{line}\n")).collect()
}

async fn killed(engine: Engine) {
    let seed = u64::from(std::process::id());
    println!("{engine:?}: seed {seed}");
    let mut random = testkit::Random::new(seed);
    let at = install(engine, |_| {}).await;
    let mut daemon = at.installation.start().await.expect("the daemon starts");
    let client = at.installation.client().expect("a client");
    let uploaded = client.upload("/bulk/jobs", "lines.jsonl", "application/jsonl", file().into_bytes()).await;
    let id = uploaded.expect("it is taken in")["id"].as_str().expect("an identifier").to_owned();
    let start = json!({ "id": id, "mode": "PER_LINE" });
    client.mutate_with("bulkJobStart", start.clone(), Some("start")).await.expect("it starts");
    let mut seen = Vec::new();
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(50 + random.draw() % 400)).await;
        seen.push(progress(&client, &id).await);
        daemon.kill().await.expect("it is killed");
        daemon = at.installation.start().await.expect("it starts again");
    }
    let ended = async {
        loop {
            let job = client.get_json(&format!("/bulk/jobs/{id}")).await.expect("a job");
            if job["state"] != "running" {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let job = tokio::time::timeout(BOUND, ended).await.expect("it ends");
    println!("{engine:?}: lines done at the kills: {seen:?}");
    assert!(seen.iter().all(|done| *done < u64::try_from(LINES).expect("few")), "no kill met the job at work");
    let wrong = LINES / WRONG;
    assert_eq!((job["state"].as_str(), job["reason"].as_str()), (Some("finished"), None), "{job}");
    assert_eq!(job["refused"], json!(wrong), "{job}");
    assert_eq!(job["applied"], json!(LINES + 2 - wrong), "{job}");
    results(&client, &id, wrong).await;
    daemon.terminate().await.expect("it drains");
    assert_rows(&at, LINES - wrong).await;
}

async fn progress(client: &Client, id: &str) -> u64 {
    let job = client.get_json(&format!("/bulk/jobs/{id}")).await.expect("a job");
    ["applied", "refused"].iter().filter_map(|field| job[field].as_u64()).sum()
}

/// Every line once, in its order, with the object that it made and the password that was drawn, or why not.
async fn results(client: &Client, id: &str, wrong: usize) {
    let text = client.get(&format!("/bulk/jobs/{id}/results")).await.expect("results");
    let text = String::from_utf8(text).expect("UTF-8");
    let results: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let lines: Vec<u64> = results.iter().filter_map(|result| result["line"].as_u64()).collect();
    assert!(lines.into_iter().eq(1..=u64::try_from(LINES + 2).expect("few lines")));
    let mut of: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for result in &results {
        of.entry(result["outcome"].as_str().expect("an outcome")).or_default().push(result);
    }
    assert_eq!(of["refused"].len(), wrong);
    assert!(of["refused"].iter().all(|result| result["errors"][0]["field"] == "extension"));
    let objects: BTreeSet<&str> = of["applied"].iter().filter_map(|result| result["id"].as_str()).collect();
    assert_eq!(objects.len(), LINES + 2 - wrong, "each made an object of its own");
    let passwords: BTreeSet<&str> = of["applied"].iter().filter_map(|result| result["password"].as_str()).collect();
    assert_eq!(passwords.len(), LINES - wrong);
}

async fn assert_rows(at: &TestInstallation, made: usize) {
    let db = store(&at.installation.config).await;
    let made = i64::try_from(made).expect("few");
    assert_eq!(number(&db, "SELECT COUNT(*) FROM subscriber").await, made);
    assert_eq!(number(&db, "SELECT COUNT(*) FROM number WHERE subscriber_id IS NOT NULL").await, made);
    let counted = number(&db, "SELECT subscriber_count FROM account WHERE name = 'Quay Hotel'").await;
    assert_eq!(counted, made, "the quota counts what there is");
    assert_eq!(number(&db, "SELECT COUNT(*) FROM bulk_line").await, 0);
    // each object was made by one change
    let changes = number(&db, "SELECT COUNT(*) FROM audit_resource t JOIN subscriber s ON s.id = t.resource_id").await;
    assert_eq!(changes, made);
    db::change::verify_audit(&db).await.expect("the audit trail is whole");
}

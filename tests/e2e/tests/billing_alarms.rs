//! A charge without a price and a file that cannot be written are alarms of the tenant whom they concern, on a running
//! daemon, and go when they are mended.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tandem::call::{Account, Agent, AgentConfig, CallRequest};
use tandem::client::Client;
use tandem::demo::{await_settled, calls};
use tandem_e2e::{ENGINES, Engine, install, provision};

/// The detector looks every ten seconds, and the copy for queries follows it; a machine may be busy.
const BOUND: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn unrated_usage_and_failed_exports_are_alarms_until_they_are_mended() {
    for engine in ENGINES {
        raise_and_clear(engine).await;
    }
}

async fn raise_and_clear(engine: Engine) {
    let at = install(engine, |config| config.billing.unrated_records_max = 0).await;
    let daemon = at.installation.start().await.expect("it starts");
    let server = at.installation.config.sip.transport.listen;
    let carrier = calls::start_carrier(server).await.expect("a carrier");
    let world = provision(&at.installation, carrier.local_addr()).await;

    // The tariff knows Austria and Germany.
    let phones = Agent::start(AgentConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)), server)).await.expect("phones");
    let phone = &world.phones[0];
    let account = Account::new(&*phone.username, world.customers[0].domain, phone.password.expose());
    let account = calls::register_phone(&phones, account).await.expect("it registers");
    let outcome = phones.call(CallRequest::new(account, "0041441234567", 300)).await.expect("it is placed");
    assert!(outcome.is_answered(), "{engine:?}: {outcome:?}");
    await_settled(&at.installation).await.expect("all is read");

    // Where the folder of the stream should be there is a file.
    let stream = mutate(&world.provider, "streamCreate", stream_of(&world.resellers[0].account)).await;
    let files: PathBuf = at.installation.config.billing_files_dir();
    std::fs::create_dir_all(&files).expect("a folder");
    let key = uuid_of(&stream);
    std::fs::write(files.join(&key), "").expect("a file in the way");
    mutate(&world.provider, "billingFileClose", json!({ "streamId": stream })).await;

    let (north, south) = (&world.resellers[0].client, &world.resellers[1].client);
    testkit::wait_until(BOUND, async || billing_alarms(north).await.len() == 2).await;
    let alarms = billing_alarms(north).await;
    let text = |of: &str| {
        let alarm = alarms.iter().find(|alarm| alarm["alarmType"] == of);
        alarm.map(|alarm| alarm["text"].to_string()).unwrap_or_default()
    };
    let unrated = text("usage_unrated");
    assert!(unrated.contains("1 charge waits") && unrated.contains("no_rate"), "{engine:?}: {unrated}");
    let failed = text("export_failed");
    assert!(failed.contains("north-sell_0000000001.csv") && failed.contains("stream north-sell"), "{failed}");
    assert!(!failed.contains(&*files.to_string_lossy()), "a tenant learns nothing of our disk: {failed}");
    assert_eq!(billing_alarms(south).await, Vec::<Value>::new(), "{engine:?}: nothing of another tenant");

    // A price for Switzerland, a folder that can be made.
    let rate = json!({ "prefix": "41", "description": "Switzerland", "connectFee": "0.01", "price": "0.05",
        "perMs": 60_000, "initialMs": 1_000, "incrementMs": 1_000 });
    let tariff = json!({ "accountId": world.resellers[0].account, "name": "Switzerland", "currency": "EUR",
        "rounding": { "mode": "HALF_UP", "decimals": 4 }, "rates": [rate] });
    let tariff = mutate(&world.provider, "tariffCreate", tariff).await;
    let assigned = json!({ "tariffId": tariff, "accountId": world.customers[0].account,
        "validFrom": "2020-01-01T00:00:00Z" });
    mutate(&world.provider, "tariffAssign", assigned).await;
    mutate(&world.provider, "suspenseRetry", json!({ "accountId": world.provider_account })).await;
    std::fs::remove_file(files.join(&key)).expect("the file goes");
    testkit::wait_until(BOUND, async || billing_alarms(north).await.is_empty()).await;
    assert!(files.join(&key).join("north-sell_0000000001.csv").is_file(), "{engine:?}: the file is there");
    daemon.terminate().await.expect("it stops");
}

fn stream_of(account: &str) -> Value {
    json!({ "accountId": account, "name": "north-sell", "side": "SELL", "closePeriodMs": 0 })
}

async fn mutate(client: &Client, field: &str, input: Value) -> String {
    client.mutate(field, input).await.expect("it is allowed").id
}

/// The UUID of a stream's global identifier: the name of its folder.
fn uuid_of(stream: &str) -> String {
    let key: Option<model::id::StreamId> = api_http::global_id::key(model::change::ResourceKind::Stream, stream);
    key.expect("a stream's identifier").to_string()
}

/// Active alarms about billing, as a client sees them.
async fn billing_alarms(client: &Client) -> Vec<Value> {
    const QUERY: &str = "{ alarms(first: 100, active: true) { nodes { alarmType resource text } } }";
    let data = client.graphql(QUERY, json!({})).await.expect("the alarms");
    let nodes = data["alarms"]["nodes"].as_array().expect("a list").iter();
    let ours = nodes.filter(|alarm| alarm["alarmType"] == "usage_unrated" || alarm["alarmType"] == "export_failed");
    ours.cloned().collect()
}

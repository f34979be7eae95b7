//! How a trunk stands, and how long it and its node were up: a carrier goes away and comes back, the node is stopped in
//! order and started again, and the report of the month knows.

use std::time::Duration;

use serde_json::{Value, json};
use tandem::client::Client;
use tandem::demo::{await_settled, await_some, calls};
use tandem_e2e::{ENGINES, Engine, install, provision};

/// The trunk is pinged twice a second, and counts as down after several misses; a machine may be busy.
const BOUND: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_report_knows_the_outages_of_trunk_and_node() {
    for engine in ENGINES {
        outages(engine).await;
    }
}

async fn outages(engine: Engine) {
    let at = install(engine, |_| {}).await;
    let daemon = at.installation.start().await.expect("it starts");
    let server = at.installation.config.sip.transport.listen;
    let carrier = calls::start_carrier(server).await.expect("a carrier");
    let world = provision(&at.installation, carrier.local_addr()).await;
    let provider = &world.provider;
    testkit::wait_until(BOUND, async || trunk_state(provider).await["up"] == true).await;

    carrier.set_answering(false);
    testkit::wait_until(BOUND, async || trunk_state(provider).await["up"] == false).await;
    let down = trunk_state(provider).await;
    assert_eq!(
        (&down["downReason"], &down["registration"]),
        (&json!("unanswered"), &Value::Null),
        "{engine:?}: {down}"
    );
    assert!(down["downSince"].is_string(), "{engine:?}: {down}");
    // The history that reports read is a copy: it follows.
    testkit::wait_until(BOUND, async || active_alarms(provider).await == 1).await;
    carrier.set_answering(true);
    testkit::wait_until(BOUND, async || trunk_state(provider).await["up"] == true).await;
    testkit::wait_until(BOUND, async || active_alarms(provider).await == 0).await;
    daemon.terminate().await.expect("it stops");

    let daemon = at.installation.start().await.expect("it starts again");
    await_settled(&at.installation).await.expect("all is read");
    let report = report(provider, &world.provider_account).await;
    let (node, trunk) = (only(&report, "node_availability"), only(&report, "trunk_availability"));
    let ms = |line: &Line, column: &str| line.get(column).parse::<i64>().expect("milliseconds");
    assert!(ms(&node, "stopped_ms") > 0 && ms(&node, "failed_ms") == 0, "{engine:?}: {node:?}");
    assert_eq!(ms(&node, "up_ms") + ms(&node, "stopped_ms"), ms(&node, "observed_ms"), "{engine:?}");
    // The trunk was seen while the node was up, since it was made.
    assert!(ms(&trunk, "observed_ms") <= ms(&node, "up_ms"), "{engine:?}: {trunk:?}");
    assert!((1..ms(&trunk, "observed_ms")).contains(&ms(&trunk, "up_ms")), "{engine:?}: {trunk:?}");
    let outages = report.iter().filter(|line| line.get("section") == "outage");
    let counted =
        |cause: &str| outages.clone().filter(|o| o.get("cause") == cause).map(|o| ms(o, "counted_ms")).sum::<i64>();
    let silent = format!("trunk carrier-a at {} does not answer", carrier.local_addr());
    assert_eq!(counted(&silent), ms(&trunk, "observed_ms") - ms(&trunk, "up_ms"), "{engine:?}");
    assert_eq!(counted("stopped"), ms(&node, "stopped_ms"), "{engine:?}");
    daemon.terminate().await.expect("it stops");
}

/// The state of the one trunk.
async fn trunk_state(client: &Client) -> Value {
    const QUERY: &str =
        "{ trunks(first: 2) { nodes { state { up downSince downReason registration { status expiresAt } } } } }";
    let data = client.graphql(QUERY, json!({})).await.expect("the trunks");
    data["trunks"]["nodes"][0]["state"].clone()
}

/// Alarms of the trunk.
async fn active_alarms(client: &Client) -> usize {
    const QUERY: &str = "{ alarms(first: 100, active: true) { nodes { alarmType } } }";
    let data = client.graphql(QUERY, json!({})).await.expect("the alarms");
    let nodes = data["alarms"]["nodes"].as_array().expect("a list").iter();
    nodes.filter(|alarm| alarm["alarmType"] == "trunk_down").count()
}

/// A line of the report's table, by the names of its columns.
#[derive(Debug, Clone)]
struct Line(Vec<(String, String)>);

impl Line {
    fn get(&self, column: &str) -> &str {
        self.0.iter().find(|(name, _)| name == column).map(|(_, cell)| cell.as_str()).expect("a column")
    }
}

/// The table of this month. No cell of it holds a comma here.
async fn report(provider: &Client, account: &str) -> Vec<Line> {
    let period = tandem::demo::this_month().expect("a month");
    let input = json!({ "accountId": account, "period": period, "recipients": [] });
    let run = provider.mutate("reportRun", input).await.expect("a run").id;
    let path = format!("/reports/runs/{run}");
    let finished = await_some("the finished report", async || {
        let meta = provider.get_json(&path).await?;
        Ok::<_, tandem::client::ClientError>((meta["state"] == "finished").then_some(()))
    });
    finished.await.expect("it is made");
    let table = String::from_utf8(provider.get(&format!("{path}/csv")).await.expect("the table")).expect("UTF-8");
    let mut lines = table.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let columns = lines.next().expect("a header");
    lines.map(|cells| Line(columns.iter().cloned().zip(cells).collect())).collect()
}

fn only(report: &[Line], section: &str) -> Line {
    let found: Vec<&Line> = report.iter().filter(|line| line.get("section") == section).collect();
    assert_eq!(found.len(), 1, "{section}: {found:?}");
    found[0].clone()
}

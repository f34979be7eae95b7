//! The trunk goes down and comes up again: one alarm, one raise, repeats counted and not resent, one clear with the
//! same key.

use std::time::Duration;

use serde_json::json;

use super::books::number;
use super::calls::Party;
use super::check::Checks;
use super::sinks::{Notification, TrapReceiver};
use super::world::World;
use super::{DemoError, await_some};

/// How long the demo listens for a trap that must not come.
const LISTEN: Duration = Duration::from_millis(1_500);

struct Alarms {
    /// Identifier, sightings, whether it is active.
    list: Vec<(String, i64, bool)>,
}

async fn alarms(world: &World) -> Result<Alarms, DemoError> {
    const QUERY: &str = "{ alarms(first: 100, active: false) { nodes { id alarmType resource count clearedAt } } }";
    let data = world.provider.graphql(QUERY, json!({})).await?;
    let nodes = data["alarms"]["nodes"].as_array().cloned().unwrap_or_default();
    let list = nodes
        .iter()
        .filter(|node| node["alarmType"] == "trunk_down")
        .map(|node| {
            let id = node["id"].as_str().unwrap_or_default().to_owned();
            (id, number(&node["count"]).unwrap_or_default(), node["clearedAt"].is_null())
        })
        .collect();
    Ok(Alarms { list })
}

/// Takes the trunk down and up.
///
/// # Errors
/// When the alarm does not come or go in time.
pub async fn trunk_down_and_up(
    checks: &mut Checks,
    world: &World,
    party: &Party,
    traps: &TrapReceiver,
) -> Result<(), DemoError> {
    let heard = || -> Vec<Notification> {
        // Heartbeats come when they come
        traps.notifications().into_iter().filter(|notification| kind(notification) != "heartbeat").collect()
    };
    let before = heard().len();
    let new = || heard().split_off(before);
    party.carrier.set_answering(false);
    await_some("the trunk's alarm", async || {
        let alarms = alarms(world).await?;
        Ok::<_, DemoError>(alarms.list.iter().any(|(_, count, active)| *active && *count >= 3).then_some(()))
    })
    .await?;
    await_some("the raise over SNMP", async || Ok::<_, DemoError>((!new().is_empty()).then_some(()))).await?;
    tokio::time::sleep(LISTEN).await;
    let (seen, raised) = (alarms(world).await?, new());
    checks.equal("trunk down: alarms", 1, seen.list.len());
    let count = seen.list.first().map(|alarm| alarm.1).unwrap_or_default();
    checks.verdict("trunk down: sightings counted", "3 or more", count, count >= 3);
    checks.equal("trunk down: SNMP notifications (repeats are not resent)", 1, raised.len());

    party.carrier.set_answering(true);
    await_some("the end of the trunk's alarm", async || {
        let alarms = alarms(world).await?;
        Ok::<_, DemoError>(alarms.list.iter().all(|(_, _, active)| !active).then_some(()))
    })
    .await?;
    await_some("the clear over SNMP", async || Ok::<_, DemoError>((new().len() >= 2).then_some(()))).await?;
    tokio::time::sleep(LISTEN).await;
    let both = new();
    checks.equal("trunk up: SNMP notifications in all", 2, both.len());
    let kinds: Vec<&str> = both.iter().map(kind).collect();
    checks.equal("SNMP: raise, then clear", "raise, clear", kinds.join(", "));
    let keys: Vec<Option<&str>> = both.iter().map(key).collect();
    let same = keys.len() == 2 && keys[0].is_some() && keys[0] == keys[1];
    checks.verdict("SNMP: raise and clear have the same key", "equal", format!("{keys:?}"), same);
    Ok(())
}

/// By the last arc of `snmpTrapOID`: see TANDEM-MIB, `tandemAlarmRaise`, `tandemAlarmClear` and `tandemHeartbeat`.
fn kind(notification: &Notification) -> &'static str {
    match notification.trap_oid().rsplit('.').next() {
        Some("1") => "raise",
        Some("3") => "clear",
        Some("5") => "heartbeat",
        _ => "another",
    }
}

/// The resource of the alarm: with its type the key of raise and clear.
fn key(notification: &Notification) -> Option<&str> {
    notification.varbinds.iter().map(|(_, value)| value.as_str()).find(|value| value.starts_with("trunk:"))
}

//! What the demo expects of the books: its own sums over what it placed.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::DemoError;
use super::calls::{Placed, Planned, price_of};
use super::check::Checks;
use super::world::World;

/// Half a heartbeat more than the longest time the calls were up: an estimate lies between.
const ESTIMATE_MAX_MS: i64 = 15_000;
/// The calls were up for two heartbeats at least.
const ESTIMATE_MIN_MS: i64 = 1_000;

/// A call that ended at the last heartbeat.
#[derive(Debug, Clone)]
pub struct EstimatedCall {
    /// What was dialled.
    pub dialled: String,
    /// The estimated duration, milliseconds.
    pub duration_ms: i64,
}

/// Charges by what was dialled and what they cost (10⁻⁶ units): how often each must be in the file.
pub type Lines = BTreeMap<(String, i64), usize>;

/// The callers' legs that are marked estimated.
///
/// # Errors
/// When the usage cannot be read.
pub async fn estimated_calls(world: &World) -> Result<Vec<EstimatedCall>, DemoError> {
    const QUERY: &str = "query($after: String) { usage(first: 100, after: $after) { \
                         nodes { leg dialled durationMs estimated } pageInfo { hasNextPage endCursor } } }";
    let (mut after, mut found) = (Value::Null, Vec::new());
    loop {
        let data = world.provider.graphql(QUERY, json!({ "after": after })).await?;
        for node in data["usage"]["nodes"].as_array().into_iter().flatten() {
            if node["estimated"] == true && node["leg"] == 0 {
                let dialled = node["dialled"].as_str().unwrap_or_default().to_owned();
                let duration_ms = number(&node["durationMs"]).unwrap_or(-1);
                found.push(EstimatedCall { dialled, duration_ms });
            }
        }
        if data["usage"]["pageInfo"]["hasNextPage"] != true {
            return Ok(found);
        }
        after = data["usage"]["pageInfo"]["endCursor"].clone();
    }
}

/// A number that may be sent as text, since JSON's numbers end at 2^53.
pub fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// The calls that were up at the kill, each once, ended at a heartbeat.
pub fn check_estimates(checks: &mut Checks, plans: &[Planned], estimated: &[EstimatedCall]) {
    let mut expected: Vec<&str> = plans.iter().map(|plan| plan.dialled.as_str()).collect();
    let mut found: Vec<&str> = estimated.iter().map(|call| call.dialled.as_str()).collect();
    expected.sort_unstable();
    found.sort_unstable();
    checks.equal("calls up at the kill, billed once, marked estimated", expected.join(" "), found.join(" "));
    let range = ESTIMATE_MIN_MS..=ESTIMATE_MAX_MS;
    let good = estimated.iter().filter(|call| range.contains(&call.duration_ms)).count();
    let durations: Vec<String> = estimated.iter().map(|call| format!("{} ms", call.duration_ms)).collect();
    checks.verdict("they end at the last heartbeat", "1 s to 15 s", durations.join(", "), good == plans.len());
}

/// The charges that the file must hold: every answered call of a subscriber, priced by the demo itself.
#[must_use]
pub fn expected_lines(placed: &[Placed], killed: &[Planned], estimated: &[EstimatedCall]) -> Lines {
    let mut lines = Lines::new();
    for call in placed.iter().filter(|call| call.outcome.is_answered()) {
        if let Some(price) = price_of(&call.plan) {
            let talk_ms = i64::try_from(call.plan.talk_ms).unwrap_or(i64::MAX);
            *lines.entry((call.plan.dialled.clone(), price.cost(talk_ms))).or_default() += 1;
        }
    }
    for call in estimated {
        let plan = killed.iter().find(|plan| plan.dialled == call.dialled);
        if let Some(price) = plan.and_then(price_of) {
            *lines.entry((call.dialled.clone(), price.cost(call.duration_ms))).or_default() += 1;
        }
    }
    lines
}

/// 10⁻⁶ units as decimal text with as many places as are needed, two at least.
#[must_use]
pub fn decimal(units: i64) -> String {
    model::money::Amount::from_units(units).to_string()
}

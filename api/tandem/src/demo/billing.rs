//! The billing file, pulled over HTTP as a BSS does, and verified without trusting Tandem.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::books::{Lines, decimal, number};
use super::check::Checks;
use super::world::World;
use super::{DemoError, await_some};

/// What the demo goes on with.
#[derive(Debug)]
pub struct PulledFile {
    /// Sum of the amounts, decimal text.
    pub total: String,
}

/// Closes the file, pulls and checks it.
///
/// # Errors
/// When a request fails.
pub async fn pull_and_check(checks: &mut Checks, world: &World, expected: Lines) -> Result<PulledFile, DemoError> {
    world.provider.mutate("billingFileClose", json!({ "streamId": world.stream })).await?;
    let base = format!("/billing/streams/{}/files/1", world.stream);
    let bss = &world.bss;
    let meta = await_some("the published billing file", async || {
        let meta = bss.get_json(&base).await?;
        Ok::<_, crate::client::ClientError>((meta["published"] == true).then_some(meta))
    })
    .await?;
    let content = bss.get(&format!("{base}/content")).await?;
    let manifest: Value = serde_json::from_slice(&bss.get(&format!("{base}/manifest")).await?)?;
    let again = bss.get(&format!("{base}/content")).await?;

    let rows = rows(&content)?;
    let mut found = Lines::new();
    let (mut total, mut billed_ms) = (0, 0);
    for row in &rows {
        *found.entry((row.dialled.clone(), row.amount)).or_default() += 1;
        total += row.amount;
        billed_ms += row.billed_ms;
    }
    let expected_total: i64 =
        expected.iter().map(|((_, amount), count)| amount * i64::try_from(*count).unwrap_or(0)).sum();
    let expected_count: usize = expected.values().sum();
    let sha256 = hex::encode(Sha256::digest(&content));

    checks.equal("billing file: sequence", 1, number(&meta["sequence"]).unwrap_or_default());
    checks.equal("billing file: charges = answered calls that were placed", expected_count, rows.len());
    checks.equal("billing file: total = the demo's own sum", decimal(expected_total), decimal(total));
    checks.verdict("billing file: each line to the cent", "equal", differences(&expected, &found), expected == found);
    let counts = format!(
        "{} records, {} ms",
        number(&manifest["record_count"]).unwrap_or(-1),
        number(&manifest["billed_ms"]).unwrap_or(-1)
    );
    checks.equal("manifest: count and seconds", format!("{} records, {billed_ms} ms", rows.len()), counts);
    let stated = manifest["totals"].as_array().and_then(|totals| totals.first()).cloned().unwrap_or_default();
    let stated = format!(
        "{} {}",
        stated["amount"].as_str().unwrap_or_default(),
        stated["currency"].as_str().unwrap_or_default()
    );
    checks.equal("manifest: totals per currency", format!("{} EUR", decimal(total)), stated);
    checks.equal("manifest: SHA-256 of the bytes", sha256, manifest["sha256"].as_str().unwrap_or_default());
    checks.equal("the same bytes again on re-fetch", true, content == again);
    bss.post(&format!("{base}/ack"), &json!({ "accepted": true })).await?;
    let meta = bss.get_json(&base).await?;
    checks.equal("the file is acknowledged", true, meta["acknowledgement"]["accepted"].as_bool().unwrap_or_default());
    Ok(PulledFile { total: decimal(total) })
}

struct Row {
    dialled: String,
    amount: i64,
    billed_ms: i64,
}

/// Reads the columns by their names: new ones may be added at the end.
fn rows(content: &[u8]) -> Result<Vec<Row>, DemoError> {
    let text = std::str::from_utf8(content)?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let column = |name: &'static str| {
        header.iter().position(|h| *h == name).ok_or_else(|| DemoError::from(format!("the file has no column {name}")))
    };
    let (dialled, amount, billed_ms) = (column("dialled")?, column("amount")?, column("billed_ms")?);
    lines
        .map(|line| {
            // The demo dials digits only, so no field of its file is quoted.
            let fields: Vec<&str> = line.split(',').collect();
            let field = |index: usize| fields.get(index).copied().unwrap_or_default();
            let amount: model::money::Amount = field(amount).parse()?;
            Ok(Row { dialled: field(dialled).to_owned(), amount: amount.units(), billed_ms: field(billed_ms).parse()? })
        })
        .collect()
}

fn differences(expected: &Lines, found: &Lines) -> String {
    let keys: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let different: Vec<String> = keys
        .into_iter()
        .filter(|key| expected.get(key) != found.get(key))
        .map(|key| {
            let count = |lines: &Lines| lines.get(key).copied().unwrap_or_default();
            format!("{} at {}: {} expected, {} found", key.0, decimal(key.1), count(expected), count(found))
        })
        .collect();
    if different.is_empty() { "equal".to_owned() } else { different.join("; ") }
}

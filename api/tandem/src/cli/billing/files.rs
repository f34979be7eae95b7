//! Lists and changes of streams and files.

use serde_json::{Value, json};

use super::{Failure, Output};
use crate::cli::output::{cell, print};
use crate::client::Client;

const FILE_COLUMNS: [&str; 8] =
    ["sequence", "name", "records", "billed ms", "totals", "closed at", "published", "acknowledged"];

pub async fn streams(client: &Client, output: Output) -> Result<(), Failure> {
    let streams = client.get_all("/billing/streams").await?;
    let columns = ["id", "name", "side", "closePeriodMs", "nextSequence"];
    let rows = streams.iter().map(|stream| columns.iter().map(|column| cell(&stream[*column])).collect());
    print(output, &streams, &["id", "name", "side", "close period ms", "next sequence"], rows)
}

pub async fn files(client: &Client, stream: &str, output: Output) -> Result<(), Failure> {
    let stream = find(client, stream).await?;
    let files = client.get_all(&format!("/billing/streams/{}/files", stream.id)).await?;
    print(output, &files, &FILE_COLUMNS, files.iter().map(row))
}

pub async fn acknowledge(
    client: &Client,
    stream: &str,
    sequence: u64,
    reject: Option<&str>,
    output: Output,
) -> Result<(), Failure> {
    let stream = find(client, stream).await?;
    let said = match reject {
        Some(reason) => json!({ "accepted": false, "reason": reason }),
        None => json!({ "accepted": true }),
    };
    let answer = client.post(&format!("/billing/streams/{}/files/{sequence}/ack", stream.id), &said).await?;
    changed(&answer, output)
}

pub async fn close(client: &Client, stream: &str, output: Output) -> Result<(), Failure> {
    let stream = find(client, stream).await?;
    let answer = client.post(&format!("/billing/streams/{}/close", stream.id), &json!({})).await?;
    changed(&answer, output)
}

/// A stream of the daemon.
#[derive(Debug)]
pub struct Found {
    /// What paths take: a UUID or a global id.
    pub id: String,
    /// Its name, with which the names of its files begin.
    pub name: String,
}

/// The stream that `text` means.
pub async fn find(client: &Client, text: &str) -> Result<Found, Failure> {
    let streams = client.get_all("/billing/streams").await?;
    let id = api_http::global_id::key::<model::id::StreamId>(model::change::ResourceKind::Stream, text)
        .map(|id| id.to_string());
    let means = |stream: &&Value| id.as_deref().map_or(stream["name"] == text, |id| stream["id"] == id);
    let found: Vec<&Value> = streams.iter().filter(means).collect();
    match found[..] {
        [stream] => Ok(Found { id: cell(&stream["id"]), name: cell(&stream["name"]) }),
        [] => Err(format!("no stream '{text}' within the token's reach; see 'tandem billing streams'").into()),
        _ => Err(format!("{} streams are named '{text}'; give an id of 'tandem billing streams'", found.len()).into()),
    }
}

fn changed(answer: &[u8], output: Output) -> Result<(), Failure> {
    let answer: Value = serde_json::from_slice(answer)?;
    print(output, &answer, &FILE_COLUMNS, [row(&answer["file"])])
}

fn row(file: &Value) -> Vec<String> {
    let acknowledged = match &file["acknowledgement"] {
        Value::Null => String::new(),
        said if said["accepted"] == true => "accepted".to_owned(),
        said => format!("rejected: {}", cell(&said["reason"])),
    };
    let (records, billed) = (cell(&file["recordCount"]), cell(&file["billedMs"]));
    let (sequence, name) = (cell(&file["sequence"]), cell(&file["name"]));
    let (closed, published) = (cell(&file["closedAt"]), cell(&file["published"]));
    vec![sequence, name, records, billed, totals(&file["totals"]), closed, published, acknowledged]
}

/// Totals as `1.5 EUR, 2 USD`.
pub fn totals(totals: &Value) -> String {
    let totals = totals.as_array().into_iter().flatten();
    let shown: Vec<String> =
        totals.map(|total| format!("{} {}", cell(&total["amount"]), cell(&total["currency"]))).collect();
    shown.join(", ")
}

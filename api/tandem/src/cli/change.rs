//! `tandem change`: what was changed, and taking it back, through the daemon, as the one whose token it is.

use std::collections::BTreeSet;
use std::process::ExitCode;

use api_http::global_id::encode;
use clap::Subcommand;
use model::change::ResourceKind;
use serde_json::{Value, json};

use super::output::cell;
use super::remote::Remote;
use super::{Failure, Output};
use crate::client::ClientError;
use crate::config::Config;

/// What is asked of changes.
const FRAGMENTS: &str = "fragment Change on Change { id sequence at actorName command revertedById plan { ...Plan } } \
    fragment Plan on Plan { reversible reason effects { kind resourceKind resourceId name before after } }";
/// The same at every change.
const REVISION: &str = "revision";
/// The columns of effects.
const EFFECTS: [&str; 5] = ["what", "of", "field", "before", "after"];

/// What to do with changes.
#[derive(Debug, Subcommand)]
pub enum ChangeCommand {
    /// The latest changes, the newest first.
    List {
        #[command(flatten)]
        remote: Remote,
        /// Changes at and below this account; left out: all that the token reaches.
        #[arg(long)]
        account: Option<String>,
        /// How many.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
        first: u32,
    },
    /// What one change did, field by field.
    Show {
        #[command(flatten)]
        remote: Remote,
        /// The change, as 'list' shows it.
        change: String,
    },
    /// Take a change back. That is a change itself, and can be taken back in its turn.
    Revert {
        #[command(flatten)]
        remote: Remote,
        /// The change, as 'list' shows it.
        change: String,
        /// Show what it would do, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

pub async fn run(command: ChangeCommand, config: Config, output: Output) -> Result<ExitCode, Failure> {
    match command {
        ChangeCommand::List { remote, account, first } => {
            let document = format!(
                "query($account: ID, $first: Int!) {{ changes(accountId: $account, first: $first) {{ nodes {{ ...Change }} }} }} \
                 {FRAGMENTS}"
            );
            let variables = json!({ "account": account, "first": first });
            let mut data = remote.client(&config)?.graphql(&document, variables).await?;
            list(data["changes"]["nodes"].take(), output)
        }
        ChangeCommand::Show { remote, change } => {
            let document = format!("query($id: ID!) {{ node(id: $id) {{ ...Change }} }} {FRAGMENTS}");
            // A refusal names changes by their bare identifier.
            let id = match change.parse::<uuid::Uuid>() {
                Ok(bare) => encode(ResourceKind::Change, bare),
                Err(_) => change.clone(),
            };
            let mut data = remote.client(&config)?.graphql(&document, json!({ "id": id })).await?;
            let found = data["node"].take();
            if found["id"].is_null() {
                return Err(format!("there is no change {change} within reach: 'tandem change list' shows them").into());
            }
            show(&found, &found["plan"], output)
        }
        ChangeCommand::Revert { remote, change, dry_run } => {
            let document = "mutation($input: ChangeRevertInput!, $dry: Boolean!) { \
                changeRevert(input: $input, dryRun: $dry) { changeId plan { ...Plan } \
                userErrors { code field message remedy } } } \
                fragment Plan on Plan { reversible reason effects { kind resourceKind resourceId name before after } }";
            let variables = json!({ "input": { "changeId": change }, "dry": dry_run });
            let mut data = remote.client(&config)?.graphql(document, variables).await?;
            let payload = data["changeRevert"].take();
            match payload["userErrors"].as_array() {
                Some(errors) if errors.is_empty() => {
                    if let (Output::Table, Some(change)) = (output, payload["changeId"].as_str()) {
                        println!("taken back by the change {change}");
                    }
                    show(&payload, &payload["plan"], output)
                }
                errors => {
                    let errors = errors.cloned().unwrap_or_default();
                    let errors = Value::from(errors).to_string();
                    Err(ClientError::Refused { field: "changeRevert".to_owned(), errors }.into())
                }
            }
        }
    }
}

fn list(changes: Value, output: Output) -> Result<ExitCode, Failure> {
    let changes = changes.as_array().cloned().unwrap_or_default();
    let rows = changes.iter().map(|change| {
        let effects = change["plan"]["effects"].as_array().map(Vec::as_slice).unwrap_or_default();
        let names: Vec<String> = effects.iter().map(|effect| cell(&effect["name"])).collect();
        let undo = match (change["revertedById"].as_str(), change["plan"]["reason"].as_str()) {
            (Some(_), _) => "taken back".to_owned(),
            (None, None) => "can be taken back".to_owned(),
            (None, Some(reason)) => format!("final: {reason}"),
        };
        let cells = ["at", "actorName", "command"].map(|field| cell(&change[field]));
        cells.into_iter().chain([names.join(", "), undo, cell(&change["id"])]).collect()
    });
    super::output::print(output, &changes, &["at", "who", "command", "what", "undo", "change"], rows)?;
    Ok(ExitCode::SUCCESS)
}

fn show(json: &Value, plan: &Value, output: Output) -> Result<ExitCode, Failure> {
    let effects = plan["effects"].as_array().map(Vec::as_slice).unwrap_or_default();
    super::output::print(output, json, &EFFECTS, effects.iter().flat_map(fields))?;
    Ok(ExitCode::SUCCESS)
}

/// A row for each field in which an effect makes a difference.
fn fields(effect: &Value) -> Vec<Vec<String>> {
    let (before, after) = (effect["before"].as_object(), effect["after"].as_object());
    let names: BTreeSet<&String> = before.into_iter().chain(after).flat_map(|fields| fields.keys()).collect();
    let value = |fields: Option<&serde_json::Map<String, Value>>, name: &str| {
        fields.and_then(|fields| fields.get(name)).cloned().unwrap_or_default()
    };
    let rows = names.into_iter().filter(|name| *name != REVISION).filter_map(|name| {
        let (before, after) = (value(before, name), value(after, name));
        let of = format!("{} {}", cell(&effect["resourceKind"]), cell(&effect["name"]));
        (before != after)
            .then(|| vec![cell(&effect["kind"]).to_lowercase(), of, name.clone(), cell(&before), cell(&after)])
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_is_shown_by_the_fields_that_differ() {
        let effect = json!({
            "kind": "UPDATED", "resourceKind": "site", "name": "Quay",
            "before": { "name": "Harbour", "account": "a", "revision": { "version": 1 } },
            "after": { "name": "Quay", "account": "a", "revision": { "version": 2 } },
        });
        assert_eq!(fields(&effect), [["updated", "site Quay", "name", "Harbour", "Quay"].map(str::to_owned)]);
        let removed =
            json!({ "kind": "DELETED", "resourceKind": "site", "name": "Quay", "before": { "name": "Quay" } });
        assert_eq!(fields(&removed), [["deleted", "site Quay", "name", "Quay", ""].map(str::to_owned)]);
    }
}

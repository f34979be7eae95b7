//! `tandem alarm`: the alarms of this node, from its own database, at hand while the store is away.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use db::system::SystemIds;
use serde_json::json;

use super::{Failure, Output};
use crate::config::Config;

/// What to do with alarms from here; acknowledging is GraphQL's.
#[derive(Debug, Subcommand)]
pub enum AlarmCommand {
    /// The active alarms of this node, oldest first.
    List,
}

pub async fn run(command: AlarmCommand, config: Config, output: Output) -> Result<ExitCode, Failure> {
    let AlarmCommand::List = command;
    crate::data_dir::create(&config.node.data_dir)?;
    let node_db = db::node::open(&config.node.data_dir).await?;
    let alarms =
        fault_store::NodeAlarms::open(node_db.clone(), &config.node.name, Vec::new(), Arc::new(SystemIds)).await?;
    let active = alarms.active().await?;
    node_db.close().await;
    let json: Vec<_> = active
        .iter()
        .map(|alarm| {
            json!({
                "id": alarm.id, "type": alarm.alarm_type.key(), "resource": alarm.resource,
                "severity": alarm.severity.as_str(), "text": alarm.text, "raised_at": alarm.raised_at,
                "count": alarm.count,
            })
        })
        .collect();
    let rows = active.iter().map(|alarm| {
        vec![
            alarm.id.to_string(),
            alarm.severity.as_str().to_owned(),
            alarm.alarm_type.key().to_owned(),
            alarm.text.clone(),
            alarm.raised_at.to_string(),
            alarm.count.to_string(),
            alarm.alarm_type.definition().action.to_owned(),
        ]
    });
    super::output::print(output, &json, &["id", "severity", "type", "text", "raised", "count", "what to do"], rows)?;
    Ok(ExitCode::SUCCESS)
}

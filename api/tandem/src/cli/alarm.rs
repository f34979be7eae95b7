//! `tandem alarm`: the alarms of this node, from its own database, at hand while the store is away; acknowledging goes
//! through the daemon, which knows who does it.

use std::process::ExitCode;
use std::sync::Arc;

use api_http::global_id::encode;
use clap::Subcommand;
use db::system::SystemIds;
use model::change::ResourceKind;
use serde_json::json;

use super::remote::Remote;
use super::{Failure, Output};
use crate::config::Config;

/// What to do with alarms.
#[derive(Debug, Subcommand)]
pub enum AlarmCommand {
    /// The active alarms of this node, oldest first.
    List,
    /// Acknowledge an alarm: somebody works on it.
    Ack {
        #[command(flatten)]
        remote: Remote,
        /// The alarm: its number on this node, as 'list' shows it, or its global id.
        alarm: String,
        /// A note for colleagues.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Tell a target of SNMP notifications every active alarm of this node again.
    Resync {
        #[command(flatten)]
        remote: Remote,
        /// The target: its name below snmp.targets.
        target: String,
        /// Another node than this one.
        #[arg(long)]
        node: Option<String>,
    },
}

pub async fn run(command: AlarmCommand, config: Config, output: Output) -> Result<ExitCode, Failure> {
    match command {
        AlarmCommand::List => list(config, output).await,
        AlarmCommand::Ack { remote, alarm, note } => {
            let id = match alarm.parse::<u64>() {
                Ok(number) => encode(ResourceKind::Alarm, format_args!("{}/{number}", config.node.name)),
                Err(_) => alarm,
            };
            let client = remote.client(&config)?;
            let done = client.mutate("alarmAcknowledge", json!({ "id": id, "note": note })).await?;
            print_change(output, done.change)
        }
        AlarmCommand::Resync { remote, target, node } => {
            let node = node.unwrap_or_else(|| config.node.name.clone());
            let client = remote.client(&config)?;
            let id = encode(ResourceKind::NotificationTarget, format_args!("{node}/{target}"));
            let done = client.mutate("alarmResync", json!({ "target": id })).await?;
            print_change(output, done.change)
        }
    }
}

fn print_change(output: Output, change: Option<String>) -> Result<ExitCode, Failure> {
    let json = json!({ "changeId": change });
    super::output::print(output, &json, &["change"], [vec![change.unwrap_or_default()]])?;
    Ok(ExitCode::SUCCESS)
}

async fn list(config: Config, output: Output) -> Result<ExitCode, Failure> {
    crate::data_dir::create(&config.node.data_dir)?;
    let node_db = db::node::open(&config.node.data_dir).await?;
    let alarms = fault_store::NodeAlarms::new(node_db.clone(), &config.node.name, Vec::new(), Arc::new(SystemIds));
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

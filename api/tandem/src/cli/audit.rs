//! `tandem audit`.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::local::Local;
use super::{Failure, Output};
use crate::config::Config;

/// What to do with the audit trail from here; reading it is GraphQL's.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check the hash chain from the first entry to the last.
    Verify,
}

pub async fn run(command: AuditCommand, config: Config, output: Output) -> Result<ExitCode, Failure> {
    let AuditCommand::Verify = command;
    let local = Local::open(&config).await?;
    let report = db::change::verify_audit(&local.store).await?;
    local.store.close().await;
    let json = json!({ "entries": report.entries, "head": report.head.map(hex::encode) });
    let row = vec![report.entries.to_string(), report.head.map(hex::encode).unwrap_or_default()];
    super::output::print(output, &json, &["entries", "hash of the last"], [row])?;
    Ok(ExitCode::SUCCESS)
}

//! `tandem backup` and `tandem restore`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use db::system::SystemClock;
use model::time::Clock as _;
use serde_json::json;

use super::{Failure, Output};
use crate::config::Config;

/// Where the copy goes.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// A directory that is not there yet; it will hold the key file too.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// Where the copy lies.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The directory that `tandem backup` made.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
}

pub async fn backup(args: BackupArgs, config: Config, output: Output) -> Result<ExitCode, Failure> {
    let to = args.to.clone();
    let now = SystemClock.now().utc;
    let manifest = tokio::task::spawn_blocking(move || crate::backup::backup(&config, &to, now)).await??;
    let bytes: u64 = manifest.files.iter().map(|entry| entry.bytes).sum();
    let json = json!({ "directory": args.to, "files": manifest.files.len(), "bytes": bytes });
    let row = vec![args.to.display().to_string(), manifest.files.len().to_string(), bytes.to_string()];
    super::output::print(output, &json, &["directory", "files", "bytes"], [row])?;
    Ok(ExitCode::SUCCESS)
}

pub async fn restore(args: RestoreArgs, config: Config, output: Output) -> Result<ExitCode, Failure> {
    let restored = crate::backup::restore(&config, &args.from).await?;
    let json = json!({
        "files": restored.manifest.files.len(), "made_at_ms": restored.manifest.made_at_ms,
        "journal_records": restored.records, "billing_files": restored.billing_files,
    });
    let row = vec![
        restored.manifest.files.len().to_string(),
        model::time::Timestamp(restored.manifest.made_at_ms).to_string(),
        restored.records.to_string(),
        restored.billing_files.to_string(),
    ];
    super::output::print(output, &json, &["files", "copied", "journal records", "billing files"], [row])?;
    Ok(ExitCode::SUCCESS)
}

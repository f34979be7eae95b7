//! `tandem account`.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use model::change::ResourceKind;
use model::money::Currency;
use serde_json::json;

use super::local::Local;
use super::{Failure, Output};
use crate::config::Config;

/// What to do with accounts from here; all else is GraphQL's.
#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Make the provider's account, the first of an installation, and a token with every permission, shown this once.
    Init {
        /// Name of the provider.
        #[arg(long)]
        name: String,
        /// IANA zone, such as Europe/Vienna.
        #[arg(long)]
        timezone: String,
        /// Currency of its books (ISO 4217), such as EUR.
        #[arg(long)]
        currency: Currency,
    },
}

pub async fn run(command: AccountCommand, config: Config, output: Output) -> Result<ExitCode, Failure> {
    let AccountCommand::Init { name, timezone, currency } = command;
    let local = Local::create(&config).await?;
    let (clock, ids) = (Arc::clone(&local.clock), Arc::clone(&local.ids));
    let made = local.provisioning.bootstrap(&name, &timezone, currency, clock, ids).await?;
    local.store.close().await;
    let account = api_http::global_id::encode(ResourceKind::Account, made.provider);
    let (account_shown, token) = (account.clone(), made.token.expose().clone());
    let shown = json!({ "account": account, "token": token });
    super::output::print(output, &shown, &["account", "token (shown this once)"], [vec![account_shown, token]])?;
    Ok(ExitCode::SUCCESS)
}

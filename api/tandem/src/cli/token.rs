//! `tandem token`.

use std::process::ExitCode;

use clap::Subcommand;
use model::actor::{Permission, Permissions};
use model::change::{Change, CommitOptions, ResourceKind};
use model::id::AccountId;
use model::network::Networks;
use provisioning::command::Command;
use serde_json::json;

use super::local::Local;
use super::{Failure, Output};
use crate::config::Config;

/// Tokens from the machine itself, for whoever has lost all of them.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Issue a token for an account's subtree; it is shown this once.
    Issue {
        /// The account, its global id or UUID; left out: the provider.
        #[arg(long, value_parser = account_id)]
        account: Option<AccountId>,
        /// Name of the token, unique within the account.
        #[arg(long)]
        name: String,
        /// What it may do, comma-separated; left out: everything.
        #[arg(long, value_delimiter = ',')]
        permissions: Vec<Permission>,
        /// From where it may be used: networks such as 192.0.2.0/24 or addresses, comma-separated; left out: from
        /// anywhere.
        #[arg(long, value_delimiter = ',')]
        networks: Vec<String>,
    },
}

fn account_id(text: &str) -> Result<AccountId, &'static str> {
    api_http::global_id::key(ResourceKind::Account, text).ok_or("this is no identifier of an account")
}

pub async fn run(command: TokenCommand, config: Config, output: Output) -> Result<ExitCode, Failure> {
    let TokenCommand::Issue { account, name, permissions, networks } = command;
    let networks = Networks::new(networks.iter().map(String::as_str))?;
    let local = Local::open(&config).await?;
    let system = local.system().await?;
    let permissions: Permissions =
        if permissions.is_empty() { Permissions::all() } else { permissions.into_iter().collect() };
    let account = account.unwrap_or(system.actor.account);
    let command = Command::TokenIssue { account, name, permissions, expires_at: None, networks };
    let made = local.provisioning.commit(&system, command, CommitOptions::default()).await?;
    local.store.close().await;
    let token = made.revealed.map(|secret| secret.expose().clone()).unwrap_or_default();
    super::output::print(output, &json!({ "token": token }), &["token (shown this once)"], [vec![token.clone()]])?;
    Ok(ExitCode::SUCCESS)
}

//! `tandem token`.

use std::process::ExitCode;

use clap::Subcommand;
use model::actor::{Permission, Permissions};
use model::change::{Change, CommitOptions, ResourceKind};
use model::id::AccountId;
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
    },
}

fn account_id(text: &str) -> Result<AccountId, &'static str> {
    api_http::global_id::key(ResourceKind::Account, text).ok_or("this is no identifier of an account")
}

pub async fn run(command: TokenCommand, config: Config, output: Output) -> Result<ExitCode, Failure> {
    let TokenCommand::Issue { account, name, permissions } = command;
    let local = Local::open(&config).await?;
    let system = local.system().await?;
    let permissions: Permissions =
        if permissions.is_empty() { Permissions::all() } else { permissions.into_iter().collect() };
    let account = account.unwrap_or(system.actor.account);
    let command = Command::TokenIssue { account, name, permissions, expires_at: None };
    let made = local.provisioning.commit(&system, command, CommitOptions::default()).await?;
    local.store.close().await;
    let token = made.revealed.map(|secret| secret.expose().clone()).unwrap_or_default();
    super::output::print(output, &json!({ "token": token }), &["token (shown this once)"], [vec![token.clone()]])?;
    Ok(ExitCode::SUCCESS)
}

//! `tandem config`.

use std::process::ExitCode;

use clap::Subcommand;

use super::Failure;
use crate::config::{Config, ConfigError};

/// What a reader of the printed file has to know.
const SECRETS_LEFT_OUT: &str =
    "# Without secrets: passwords, keys and communities go into the file or the environment.\n\n";

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether file and environment can be used.
    Check,
    /// Print the configuration in force, defaults included, without secrets.
    Show,
    /// Print the JSON Schema of the file.
    Schema,
}

pub fn run(command: ConfigCommand, config: impl Fn() -> Result<Config, ConfigError>) -> Result<ExitCode, Failure> {
    match command {
        ConfigCommand::Check => {
            config()?;
            println!("the configuration can be used");
        }
        ConfigCommand::Show => print!("{SECRETS_LEFT_OUT}{}", config()?.to_toml()),
        ConfigCommand::Schema => print!("{}", Config::schema()),
    }
    Ok(ExitCode::SUCCESS)
}

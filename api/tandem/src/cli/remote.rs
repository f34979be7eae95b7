//! What the commands that go through the daemon's public interfaces have in common: where it is, and the token.

use std::path::PathBuf;

use clap::Args;
use model::secret::Secret;

use super::Failure;
use crate::client::Client;
use crate::config::Config;

/// The variable with the API token. There is no option for it: a command line can be read by everyone on the machine.
const TOKEN_VARIABLE: &str = "TANDEM_TOKEN";

/// The daemon that is asked, and as whom. The token stands in the variable `TANDEM_TOKEN` or in a file.
#[derive(Debug, Args)]
pub struct Remote {
    /// Base address of the daemon, such as `https://tandem.example.net`; left out: that of the
    /// configuration.
    #[arg(long, env = "TANDEM_URL")]
    url: Option<String>,
    /// File that holds the API token; left out: the variable TANDEM_TOKEN.
    #[arg(long, env = "TANDEM_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file with the certificate of the authority that signed the daemon's, where it is none of the public
    /// ones.
    #[arg(long, env = "TANDEM_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Remote {
    /// A client of the daemon.
    pub fn client(&self, config: &Config) -> Result<Client, Failure> {
        let url = self.url.clone().unwrap_or_else(|| config.http.url());
        let token = match &self.token_file {
            Some(file) => {
                std::fs::read_to_string(file).map_err(|error| format!("the token file {}: {error}", file.display()))?
            }
            None => std::env::var(TOKEN_VARIABLE).map_err(|_| {
                format!(
                    "no API token: set {TOKEN_VARIABLE} or name a file by --token-file ('tandem token issue' makes one)"
                )
            })?,
        };
        let ca = self.ca.as_ref().map(|file| {
            std::fs::read(file).map_err(|error| format!("the file of the authority {}: {error}", file.display()))
        });
        let token = Secret::new(token.trim().to_owned());
        Ok(Client::with_authority(&url, token, ca.transpose()?.as_deref())?)
    }
}

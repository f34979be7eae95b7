//! A throw-away installation on free loopback ports: directory, configuration file, first account. Demo and tests
//! drive it through the same program and the same faces as an operator would.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use model::secret::Secret;
use serde_json::Value;
use tokio::process::Command;

use super::process::{DaemonProcess, ProcessError, free_tcp, free_udp};
use crate::client::{Client, ClientError};
use crate::config::{Config, MailTls};

/// Why an installation could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    /// A file or port could not be had.
    #[error("the throw-away installation could not be made")]
    Io(#[from] std::io::Error),
    /// The first account could not be made.
    #[error("`tandem account init` failed: {0}")]
    Init(String),
    /// The client could not be set up.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// An installation with its provider.
#[derive(Debug)]
pub struct Installation {
    /// The `tandem` program.
    pub program: PathBuf,
    /// Its configuration.
    pub config: Config,
    /// The configuration file.
    pub config_file: PathBuf,
    /// The daemon's log.
    pub log_file: PathBuf,
    /// Global identifier of the provider's account.
    pub provider_account: String,
    /// A token with every permission.
    pub token: Secret<String>,
}

/// A configuration for `dir` on free loopback ports, with timers fit for a demonstration.
///
/// # Errors
/// When no port is free.
pub fn configure(dir: &Path) -> std::io::Result<Config> {
    let mut config = Config::default();
    config.node.data_dir = dir.join("data");
    config.node.drain_max_s = 5;
    config.http.listen = free_tcp()?;
    config.admin.listen = free_tcp()?;
    config.sip.transport.listen = free_udp()?;
    config.sip.transport.shards = 2;
    // The built-in phones know it.
    config.sip.challenge_sha256 = true;
    config.media.port_min = 0;
    config.media.port_max = 0;
    config.media.sessions = 128;
    config.sip.services.ring_timeout_ms = 3_000;
    config.sip.services.trunk_answer_max_ms = 500;
    Ok(config)
}

/// Adds a trap receiver.
pub fn send_traps_to(config: &mut Config, address: SocketAddr) {
    config.snmp.targets.push(fault_snmp::SnmpTargetConfig::v2c("nms", address, "public"));
}

/// Adds a mail server without TLS.
pub fn send_mail_to(config: &mut Config, address: SocketAddr) {
    config.mail.host = address.ip().to_string();
    config.mail.port = address.port();
    config.mail.tls = MailTls::None;
    config.mail.from = "tandem@demo.example".into();
}

impl Installation {
    /// Writes `tandem.toml` into `dir` and makes the provider's account.
    ///
    /// # Errors
    /// [`InstallationError`].
    pub async fn prepare(program: &Path, dir: &Path, config: Config) -> Result<Self, InstallationError> {
        let config_file = dir.join("tandem.toml");
        std::fs::write(&config_file, toml::to_string_pretty(&config).unwrap_or_default())?;
        let made = Command::new(program)
            .args(["account", "init", "--name", "Demo Telecom", "--timezone", super::world::TIMEZONE])
            .args(["--currency", "EUR", "--output", "json", "--config"])
            .arg(&config_file)
            .stdin(Stdio::null())
            .output()
            .await?;
        let answer: Value = serde_json::from_slice(&made.stdout).unwrap_or_default();
        let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
        let (Some(provider_account), Some(token)) = (text("account"), text("token")) else {
            return Err(InstallationError::Init(String::from_utf8_lossy(&made.stderr).into_owned()));
        };
        let (program, log_file) = (program.to_owned(), dir.join("tandem.log"));
        Ok(Self { program, config, config_file, log_file, provider_account, token: Secret::new(token) })
    }

    /// Starts the daemon and waits until it is ready.
    ///
    /// # Errors
    /// [`ProcessError`].
    pub async fn start(&self) -> Result<DaemonProcess, ProcessError> {
        DaemonProcess::start(&self.program, &self.config_file, &self.log_file, self.config.admin.listen).await
    }

    /// Where the HTTP face is.
    #[must_use]
    pub fn base_url(&self) -> String {
        self.config.http.url()
    }

    /// A client with the provider's token.
    ///
    /// # Errors
    /// When the HTTP library cannot be set up.
    pub fn client(&self) -> Result<Client, ClientError> {
        Client::new(&self.base_url(), self.token.clone())
    }
}

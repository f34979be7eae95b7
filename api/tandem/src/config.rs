//! The configuration: one TOML file and the environment (`TANDEM_SECTION__KEY`), checked whole before anything starts.
//! Unknown keys are errors.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Prefix of environment variables; a double underscore separates section and key.
pub const ENVIRONMENT_PREFIX: &str = "TANDEM_";
/// Variables with the prefix that other parts read, and tests, whose daemons inherit them. Any other unknown one is an
/// error: it is a key that was misspelt.
const OTHER_VARIABLES: [&str; 10] = [
    "bench",
    "ca",
    "call_password",
    "config",
    "no_namespaces",
    "soak",
    "test_postgres_url",
    "token",
    "token_file",
    "url",
];

/// Everything that can be set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// This node.
    pub node: NodeConfig,
    /// Where the store lies.
    pub database: DatabaseConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    /// The HTTP face: GraphQL, billing files, reports.
    pub http: HttpConfig,
    /// Metrics and health, for this machine alone.
    pub admin: AdminConfig,
    /// The SIP face.
    pub sip: SipConfig,
    /// The RTP relay.
    pub media: media_relay::RelayConfig,
    /// Billing files.
    pub billing: BillingConfig,
    /// SNMP notifications.
    pub snmp: fault_snmp::SnmpConfig,
    /// Outgoing mail.
    pub mail: MailConfig,
    /// Scheduled reports.
    pub reports: ReportsConfig,
}

/// This node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// Name of the node in cursors, alarms and counters: 1 to 63 of `a-z 0-9 -`. Changing it makes the node a new one:
    /// it would read its journal from the beginning.
    pub name: String,
    /// Directory of journal, node database, key file and (with SQLite) the store. One node per directory.
    pub data_dir: PathBuf,
    /// How long a drain waits for calls to end, seconds. Too low: calls are cut at a restart; too high: a restart
    /// takes long.
    pub drain_max_s: u32,
    /// Days that journal files, events of the store, sent messages and cleared alarms of the node are kept after
    /// every consumer has read them. Too low: a replay is not possible any more; too high: disk.
    pub journal_retention_days: u32,
    /// Age in milliseconds of a record that waits for the journal's disk, above which new calls get 503. Too low:
    /// calls are lost to short stalls of the disk; too high: answers come late, and above
    /// `sip.services.answer_hold_max_ms` answered calls break off.
    pub journal_lag_max_ms: u32,
    /// Free space in MiB below which a disk of the node's directories is an alarm, as a warning; 0: never. Too low:
    /// nobody has time to act; too high: an alarm that is always there.
    pub disk_low_mib: u32,
    /// Free space in MiB below which that alarm is critical; 0: only when writes fail. Not above `disk_low_mib`.
    pub disk_critical_mib: u32,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            name: "node1".into(),
            data_dir: "data".into(),
            drain_max_s: 30,
            journal_retention_days: 30,
            journal_lag_max_ms: 250,
            disk_low_mib: 1_024,
            // Four ballast files of the journal
            disk_critical_mib: 64,
        }
    }
}

/// Where the store lies.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host:port/database`; empty: SQLite in the data directory.
    pub url: String,
    /// Connections to PostgreSQL. Too low: requests wait; too high: the server's `max_connections` is used up.
    pub connections_max: u32,
}

/// The URL may hold a password.
impl std::fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = if self.url.is_empty() { "" } else { "***" };
        f.debug_struct("DatabaseConfig").field("url", &url).field("connections_max", &self.connections_max).finish()
    }
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self { url: String::new(), connections_max: 16 }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Level or filter, such as `info` or `info,tandem_sip_services=debug`.
    pub level: String,
    /// Text or JSON.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// The HTTP face.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Where it listens. When it leaves the machine, set `tls`, or put a TLS proxy before it.
    pub listen: SocketAddr,
    /// TLS on this port.
    pub tls: HttpTlsConfig,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { listen: loopback(8080), tls: HttpTlsConfig::default() }
    }
}

impl HttpConfig {
    /// Where clients on this machine find the face.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_on() { "https" } else { "http" }, self.listen)
    }
}

/// TLS of the HTTP face. SIGHUP reads certificate and key again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpTlsConfig {
    /// PEM file with the certificate of this server, then those of its issuers; empty: HTTP in clear.
    pub certificate: PathBuf,
    /// PEM file with its private key, not encrypted; keep it for the daemon's user alone.
    pub key: PathBuf,
    /// Days before the end of the certificate from which on the alarm `certificate_expiring` is up, as a warning. Too
    /// low: no time to get another; too high: the alarm is up between the renewals of a short-lived certificate.
    pub expiry_warning_days: u32,
    /// Days before its end from which on the alarm is critical.
    pub expiry_critical_days: u32,
}

impl Default for HttpTlsConfig {
    fn default() -> Self {
        Self { certificate: PathBuf::new(), key: PathBuf::new(), expiry_warning_days: 30, expiry_critical_days: 7 }
    }
}

impl HttpTlsConfig {
    /// Whether the face speaks TLS.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.certificate.as_os_str().is_empty()
    }

    /// Reads certificate and key; none: HTTP in clear.
    ///
    /// # Errors
    /// [`api_http::TlsError`], naming key, file and remedy.
    pub fn load(&self) -> Result<Option<api_http::TlsIdentity>, api_http::TlsError> {
        self.is_on().then(|| api_http::TlsIdentity::load(&self.certificate, &self.key)).transpose()
    }
}

/// Metrics and health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Where it listens; it knows no tokens, so keep it on loopback or a management network.
    pub listen: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: loopback(9090) }
    }
}

/// The SIP face.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SipConfig {
    /// Sockets and shards.
    pub transport: sip_transport::TransportConfig,
    /// Registrar, calls and trunks.
    pub services: sip_services::ServicesConfig,
    /// Whether challenges offer SHA-256 before MD5 (RFC 8760). On is stronger, and phones that look at the first
    /// challenge alone and know only MD5 (among them Debian's baresip 1.0 and sipp 3.6) then fail to register. Off,
    /// they are offered MD5, which every phone knows.
    pub challenge_sha256: bool,
}

impl Default for SipConfig {
    fn default() -> Self {
        // Loopback: a node that is not told better reaches nobody, rather than being reached by everybody.
        let transport = sip_transport::TransportConfig { listen: loopback(5060), ..Default::default() };
        Self { transport, services: sip_services::ServicesConfig::default(), challenge_sha256: false }
    }
}

/// Billing files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BillingConfig {
    /// Where files are published; empty: `billing` in the data directory. Nodes that share a store share it too.
    pub files_dir: PathBuf,
    /// Hours that a charge may wait in suspense before the alarm `usage_unrated`. Too low: an alarm before anybody could
    /// have mended the tariff; too high: the charge misses the file of its month.
    pub unrated_age_max_h: u32,
    /// Charges of one account that may wait in suspense before the alarm `usage_unrated`. Too low: an alarm for single
    /// calls to rare destinations; too high: a missing tariff is seen by its age alone.
    pub unrated_records_max: u32,
}

impl Default for BillingConfig {
    fn default() -> Self {
        Self { files_dir: PathBuf::new(), unrated_age_max_h: 24, unrated_records_max: 1_000 }
    }
}

impl BillingConfig {
    /// How much may wait in suspense.
    #[must_use]
    pub fn unrated_limits(&self) -> billing_store::UnratedLimits {
        billing_store::UnratedLimits {
            age_max_ms: i64::from(self.unrated_age_max_h) * 3_600_000,
            records_max: i64::from(self.unrated_records_max),
        }
    }
}

/// How mail leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MailTls {
    /// In clear: for a relay on this machine.
    None,
    /// STARTTLS, required.
    Starttls,
    /// TLS from the first octet.
    Tls,
}

/// Outgoing mail.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MailConfig {
    /// The SMTP server; empty: no mail is sent, it waits in the outbox.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is secured.
    pub tls: MailTls,
    /// The sender.
    pub from: String,
    /// User, where the server asks for one.
    pub username: String,
    /// Its password; better from the environment: `TANDEM_MAIL__PASSWORD`.
    #[serde(skip_serializing)]
    pub password: String,
}

impl std::fmt::Debug for MailConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MailConfig").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Default for MailConfig {
    fn default() -> Self {
        Self {
            host: String::new(),
            port: 587,
            tls: MailTls::Starttls,
            from: "tandem@localhost".into(),
            username: String::new(),
            password: String::new(),
        }
    }
}

/// Scheduled reports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReportsConfig {
    /// Monthly reports.
    pub monthly: Vec<MonthlyReportConfig>,
}

/// A monthly report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MonthlyReportConfig {
    /// The account that it is about: its identifier, as GraphQL shows it or as a UUID.
    pub account: String,
    /// Mail addresses.
    pub recipients: Vec<String>,
}

impl MonthlyReportConfig {
    /// The account; none when the text is no identifier.
    #[must_use]
    pub fn account_id(&self) -> Option<model::id::AccountId> {
        api_http::global_id::key(model::change::ResourceKind::Account, &self.account)
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is missing.
    #[error("the configuration file {} does not exist; write one (see `tandem config show`) or name another with --config", .0.display())]
    Missing(PathBuf),
    /// A key is unknown or a value has the wrong form.
    #[error("{0}")]
    Form(#[from] Box<figment::Error>),
    /// A value is out of range or contradicts another.
    #[error("{key}: {message}")]
    Value {
        /// The key, with its section.
        key: &'static str,
        /// What is wrong, and what would be right.
        message: String,
    },
}

impl Config {
    /// Reads file (when one is named) and environment, and checks the whole.
    ///
    /// # Errors
    /// [`ConfigError`]; nothing has been started then.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = file {
            if !file.is_file() {
                return Err(ConfigError::Missing(file.to_owned()));
            }
            figment = figment.merge(Toml::file_exact(file));
        }
        let figment = figment.merge(Env::prefixed(ENVIRONMENT_PREFIX).split("__").ignore(&OTHER_VARIABLES));
        let config: Self = figment.extract().map_err(Box::new)?;
        config.validate()?;
        Ok(config)
    }

    /// Checks what one field cannot say alone.
    ///
    /// # Errors
    /// [`ConfigError::Value`] naming the key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |key, message: String| Err(ConfigError::Value { key, message });
        let name_ok = |name: &str| {
            (1..=63).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if !name_ok(&self.node.name) {
            return refuse("node.name", "must be 1 to 63 of a-z, 0-9 and hyphen, such as node1".into());
        }
        let hold_max_ms = self.sip.services.answer_hold_max_ms;
        if !(1..=hold_max_ms).contains(&self.node.journal_lag_max_ms) {
            let range = format!("must be 1 to {hold_max_ms}, the value of sip.services.answer_hold_max_ms");
            return refuse("node.journal_lag_max_ms", range);
        }
        if self.node.disk_critical_mib > self.node.disk_low_mib {
            return refuse("node.disk_critical_mib", "must not be above node.disk_low_mib".into());
        }
        if !self.database.url.is_empty() && !self.database.url.starts_with("postgres") {
            return refuse("database.url", "must begin with postgres:// or be empty for SQLite".into());
        }
        if self.database.connections_max < 2 {
            return refuse("database.connections_max", "must be at least 2".into());
        }
        self.sip
            .transport
            .validate()
            .map_err(|error| ConfigError::Value { key: "sip.transport", message: error.to_string() })?;
        self.sip
            .services
            .validate()
            .map_err(|error| ConfigError::Value { key: "sip.services", message: error.to_string() })?;
        self.media.validate().map_err(|error| ConfigError::Value { key: "media", message: error.to_string() })?;
        self.snmp.check().map_err(|error| ConfigError::Value { key: "snmp", message: error.to_string() })?;
        let tls = &self.http.tls;
        if tls.is_on() == tls.key.as_os_str().is_empty() {
            let message = "certificate and key belong together: name both files, or none for HTTP in clear";
            return refuse("http.tls", message.into());
        }
        if tls.expiry_critical_days > tls.expiry_warning_days {
            let message = format!("must be at most {}, the value of expiry_warning_days", tls.expiry_warning_days);
            return refuse("http.tls.expiry_critical_days", message);
        }
        if !self.mail.host.is_empty() && !self.mail.from.contains('@') {
            return refuse("mail.from", "must be a mail address".into());
        }
        for report in &self.reports.monthly {
            if report.account_id().is_none() {
                let message = "must be the identifier of an account, as GraphQL shows it or as a UUID";
                return refuse("reports.monthly.account", message.into());
            }
        }
        Ok(())
    }

    /// Where billing files are published.
    #[must_use]
    pub fn billing_files_dir(&self) -> PathBuf {
        if self.billing.files_dir.as_os_str().is_empty() {
            self.node.data_dir.join("billing")
        } else {
            self.billing.files_dir.clone()
        }
    }

    /// Where finished reports lie.
    #[must_use]
    pub fn reports_dir(&self) -> PathBuf {
        self.node.data_dir.join("reports")
    }

    /// The configuration as TOML, without secrets.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut shown = self.clone();
        if !shown.database.url.is_empty() {
            // A password may hold any character, and may stand among the parameters.
            let host = shown.database.url.rsplit_once('@').map_or("***", |(_, rest)| rest);
            let host = host.split_once('?').map_or(host, |(host, _)| host);
            shown.database.url = format!("postgres://***@{host}");
        }
        toml::to_string_pretty(&shown).unwrap_or_default()
    }

    /// The JSON Schema of the file, as it is committed in `schemas/config.schema.json`.
    #[must_use]
    pub fn schema() -> String {
        let schema = schemars::schema_for!(Self);
        let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_and_print_as_they_are_read() {
        let config = Config::default();
        config.validate().expect("the defaults are valid");
        let read: Config = toml::from_str(&config.to_toml()).expect("what is shown can be read");
        assert_eq!(read, config);
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_named() {
        let error = toml::from_str::<Config>("[node]\nnmae = \"x\"").expect_err("unknown key");
        assert!(error.to_string().contains("nmae"), "{error}");
        let check = |change: fn(&mut Config), key: &str| {
            let mut config = Config::default();
            change(&mut config);
            match config.validate() {
                Err(ConfigError::Value { key: found, .. }) => assert_eq!(found, key),
                other => panic!("{key}: {other:?}"),
            }
        };
        check(|c| c.node.name = "Node 1".into(), "node.name");
        check(|c| c.node.journal_lag_max_ms = 501, "node.journal_lag_max_ms");
        check(|c| c.node.disk_critical_mib = 1_025, "node.disk_critical_mib");
        check(|c| c.database.url = "mysql://x".into(), "database.url");
        check(|c| c.sip.transport.listen = "0.0.0.0:5060".parse().expect("valid"), "sip.transport");
        check(|c| c.media.port_max = 1, "media");
        check(|c| c.http.tls.key = "key.pem".into(), "http.tls");
        check(|c| c.http.tls.certificate = "certificate.pem".into(), "http.tls");
        check(|c| c.http.tls.expiry_critical_days = 31, "http.tls.expiry_critical_days");
        check(|c| c.sip.services.calls_max = 0, "sip.services");
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut config = Config::default();
        config.database.url = "postgres://tandem:geheim@db/tandem".into();
        config.mail.password = "geheim".into();
        assert!(!config.to_toml().contains("geheim"));
        config.database.url = "postgres://tandem:ge@heim@db/tandem?password=geheim".into();
        assert!(config.to_toml().contains("postgres://***@db/tandem\""), "{}", config.to_toml());
        config.database.url = "postgres:///tandem?password=geheim".into();
        assert!(!config.to_toml().contains("geheim"));
        assert!(!format!("{:?}", config.mail).contains("geheim"));
    }

    #[test]
    fn the_committed_schema_is_the_one_of_the_program() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/config.schema.json");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, Config::schema()).expect("the tree is writable");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(committed, Config::schema(), "run the tests once with UPDATE=1 and commit the result");
    }
}

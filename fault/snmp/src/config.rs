//! What an operator sets for SNMP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use fault::port::{InvalidTargetName, NotificationSink, Target, TargetName};
use model::time::Clock;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::agent::AgentConfig;
use crate::engine::Engine;
use crate::objects::{DOCUMENTATION_ENTERPRISE, Oids};
use crate::sink::SnmpSink;
use crate::user::{SnmpUserConfig, USERS_MAX, UserError};

/// Targets of one node: each gets every notification, and each costs a row per notification.
pub const TARGETS_MAX: usize = 32;
/// Octets of a community: receivers and their configuration files take no more.
pub const COMMUNITY_OCTETS_MAX: usize = 255;
/// Longest wait for an acknowledgement, milliseconds: what waits behind it waits as long.
pub const INFORM_TIMEOUT_MAX_MS: u32 = 60_000;
/// Shortest and longest time between heartbeats, seconds.
pub const HEARTBEAT_S: std::ops::RangeInclusive<u32> = 1..=86_400;

/// SNMP notifications and the agent. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SnmpConfig {
    /// Enterprise number below 1.3.6.1.4.1, under which traps and MIB are numbered. The default is the number for
    /// documentation (RFC 5612); with it a warning is logged at start. A change needs the MIB to be loaded anew.
    pub enterprise_number: u32,
    /// Seconds between heartbeats to each target; 0: none. Too low: noise; too high: a lost last notification is
    /// noticed late.
    pub heartbeat_s: u32,
    /// Age in seconds at which an inform that is not acknowledged is given up. Too low: a night without the NMS costs
    /// notifications; too high: it is flooded with old ones when it comes back.
    pub give_up_after_s: u32,
    /// Users of SNMPv3 (USM, RFC 3414), by name; at most 32. Names in lower case can be set in the environment too.
    pub users: BTreeMap<String, SnmpUserConfig>,
    /// Who gets notifications, at most 32.
    pub targets: Vec<SnmpTargetConfig>,
    /// Who may ask.
    pub agent: AgentConfig,
}

impl Default for SnmpConfig {
    fn default() -> Self {
        Self {
            enterprise_number: DOCUMENTATION_ENTERPRISE,
            heartbeat_s: 60,
            give_up_after_s: 86_400,
            users: BTreeMap::new(),
            targets: Vec::new(),
            agent: AgentConfig::default(),
        }
    }
}

/// One receiver of notifications.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnmpTargetConfig {
    /// Its name, unique: its sequence hangs on it. Another name begins another sequence.
    pub name: String,
    /// Where notifications go, usually port 162.
    pub address: SocketAddr,
    /// The version: `v2c` or `v3`.
    #[serde(default)]
    pub version: SnmpVersion,
    /// `trap` (not acknowledged: a loss shows in the sequence alone) or `inform` (acknowledged and repeated). Left out:
    /// traps with v2c, informs with v3.
    #[serde(default)]
    pub kind: Option<SnmpKind>,
    /// The v2c community. It travels in clear.
    #[serde(default = "default_community", skip_serializing)]
    pub community: String,
    /// The v3 user, one of `snmp.users`.
    #[serde(default)]
    pub user: String,
    /// Milliseconds to wait for the acknowledgement of an inform. Too low: a slow receiver gets everything twice; too
    /// high: each lost datagram delays what follows.
    #[serde(default = "default_inform_timeout_ms")]
    pub inform_timeout_ms: u32,
}

impl SnmpTargetConfig {
    /// A target of v2c traps.
    #[must_use]
    pub fn v2c(name: &str, address: SocketAddr, community: &str) -> Self {
        Self {
            name: name.to_owned(),
            address,
            version: SnmpVersion::V2c,
            kind: None,
            community: community.to_owned(),
            user: String::new(),
            inform_timeout_ms: default_inform_timeout_ms(),
        }
    }

    /// A target of v3 informs.
    #[must_use]
    pub fn v3(name: &str, address: SocketAddr, user: &str) -> Self {
        Self { version: SnmpVersion::V3, user: user.to_owned(), ..Self::v2c(name, address, "") }
    }

    /// Trap or inform.
    #[must_use]
    pub fn kind(&self) -> SnmpKind {
        self.kind.unwrap_or(match self.version {
            SnmpVersion::V2c => SnmpKind::Trap,
            SnmpVersion::V3 => SnmpKind::Inform,
        })
    }
}

impl std::fmt::Debug for SnmpTargetConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnmpTargetConfig")
            .field("name", &self.name)
            .field("address", &self.address)
            .field("version", &self.version)
            .field("kind", &self.kind())
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

fn default_community() -> String {
    "public".into()
}

const fn default_inform_timeout_ms() -> u32 {
    2_000
}

/// The version of SNMP that a target speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub enum SnmpVersion {
    /// SNMPv2c (RFC 1901): a community.
    #[default]
    V2c,
    /// SNMPv3 (RFC 3412) with USM (RFC 3414): a user, authentication and privacy.
    V3,
}

impl From<SnmpVersion> for String {
    fn from(version: SnmpVersion) -> Self {
        match version {
            SnmpVersion::V2c => "v2c".to_owned(),
            SnmpVersion::V3 => "v3".to_owned(),
        }
    }
}

impl TryFrom<String> for SnmpVersion {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "v2c" => Ok(Self::V2c),
            "v3" => Ok(Self::V3),
            other => Err(format!("SNMP version \"{other}\" is not supported; take \"v2c\" or \"v3\"")),
        }
    }
}

/// How a notification is sent (RFC 3416, sections 4.2.6 and 4.2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnmpKind {
    /// Not acknowledged.
    Trap,
    /// Acknowledged, and repeated until it is.
    Inform,
}

/// What is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnmpConfigError {
    /// Zero is reserved.
    #[error("snmp.enterprise_number must not be 0; take the number that IANA assigned to you")]
    EnterpriseNumber,
    /// Neither off nor a useful time.
    #[error("snmp.heartbeat_s must be 0 (none) or 1 to 86400")]
    Heartbeat,
    /// Everything would be given up at its first failure.
    #[error("snmp.give_up_after_s must be at least 60")]
    GiveUp,
    /// More than [`USERS_MAX`].
    #[error("snmp.users has {0} entries; at most {USERS_MAX} are served")]
    TooManyUsers(usize),
    /// A user that cannot be served.
    #[error("snmp.users.{name}: {source}")]
    User {
        /// The user.
        name: String,
        /// What is wrong.
        source: UserError,
    },
    /// More than [`TARGETS_MAX`].
    #[error("snmp.targets has {0} entries; at most {TARGETS_MAX} are served")]
    TooManyTargets(usize),
    /// A name that cannot stand in the outbox.
    #[error("snmp.targets: \"{name}\": {source}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: InvalidTargetName,
    },
    /// Two targets would share one sequence.
    #[error("snmp.targets: the name \"{0}\" stands twice")]
    NameTwice(String),
    /// Port 0 cannot be sent to.
    #[error("snmp.targets: \"{0}\": the port must not be 0; notifications usually go to 162")]
    Port(String),
    /// No receiver takes it.
    #[error("snmp.targets: \"{0}\": a community is 1 to {COMMUNITY_OCTETS_MAX} octets")]
    Community(String),
    /// A v3 target without a user that is configured.
    #[error("snmp.targets: \"{target}\": \"{user}\" is no user; add [snmp.users.NAME] and name it")]
    TargetUser {
        /// The target.
        target: String,
        /// What stands as its user.
        user: String,
    },
    /// Neither a wait nor a bound.
    #[error("snmp.targets: \"{0}\": inform_timeout_ms must be 100 to {INFORM_TIMEOUT_MAX_MS}")]
    InformTimeout(String),
    /// The agent cannot work so.
    #[error("snmp.agent: {0}")]
    Agent(String),
}

impl SnmpConfig {
    /// Checks all of it and gives what the operator should be told at start.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn check(&self) -> Result<Vec<String>, SnmpConfigError> {
        if self.enterprise_number == 0 {
            return Err(SnmpConfigError::EnterpriseNumber);
        }
        if self.heartbeat_s != 0 && !HEARTBEAT_S.contains(&self.heartbeat_s) {
            return Err(SnmpConfigError::Heartbeat);
        }
        if self.give_up_after_s < 60 {
            return Err(SnmpConfigError::GiveUp);
        }
        if self.users.len() > USERS_MAX {
            return Err(SnmpConfigError::TooManyUsers(self.users.len()));
        }
        for (name, user) in &self.users {
            user.check(name).map_err(|source| SnmpConfigError::User { name: name.clone(), source })?;
        }
        if self.targets.len() > TARGETS_MAX {
            return Err(SnmpConfigError::TooManyTargets(self.targets.len()));
        }
        let mut names = BTreeSet::new();
        for target in &self.targets {
            if !names.insert(&target.name) {
                return Err(SnmpConfigError::NameTwice(target.name.clone()));
            }
            self.check_target(target)?;
        }
        self.agent.check(&self.users).map_err(SnmpConfigError::Agent)?;
        let documentation = self.enterprise_number == DOCUMENTATION_ENTERPRISE;
        let warning = format!(
            "snmp.enterprise_number is {DOCUMENTATION_ENTERPRISE}, the number for documentation (RFC 5612); set the \
             number that IANA assigned to you and load the MIB that `tandem snmp mib` writes"
        );
        Ok(if documentation { vec![warning] } else { Vec::new() })
    }

    fn check_target(&self, target: &SnmpTargetConfig) -> Result<(), SnmpConfigError> {
        target.target_name()?;
        let name = || target.name.clone();
        if target.address.port() == 0 {
            return Err(SnmpConfigError::Port(name()));
        }
        if !(100..=INFORM_TIMEOUT_MAX_MS).contains(&target.inform_timeout_ms) {
            return Err(SnmpConfigError::InformTimeout(name()));
        }
        match target.version {
            SnmpVersion::V2c if target.community.is_empty() || target.community.len() > COMMUNITY_OCTETS_MAX => {
                Err(SnmpConfigError::Community(name()))
            }
            SnmpVersion::V3 if !self.users.contains_key(&target.user) => {
                Err(SnmpConfigError::TargetUser { target: name(), user: target.user.clone() })
            }
            SnmpVersion::V2c | SnmpVersion::V3 => Ok(()),
        }
    }

    /// The sink of one target. `engine` is that of this node: v3 traps are sent by it.
    ///
    /// # Errors
    /// When the target names a user that is not there.
    pub fn sink(
        &self,
        target: &SnmpTargetConfig,
        clock: &Arc<dyn Clock>,
        engine: Option<&Engine>,
    ) -> Result<SnmpSink, SnmpConfigError> {
        self.check_target(target)?;
        let oids = Oids::new(self.enterprise_number);
        let user = self.users.get(&target.user).filter(|_| target.version == SnmpVersion::V3);
        Ok(SnmpSink::new(target, user, oids, Arc::clone(clock), engine.cloned()))
    }
}

impl SnmpTargetConfig {
    /// Its name in the outbox.
    ///
    /// # Errors
    /// When the name cannot stand there.
    pub fn target_name(&self) -> Result<TargetName, SnmpConfigError> {
        TargetName::snmp(&self.name).map_err(|source| SnmpConfigError::Name { name: self.name.clone(), source })
    }
}

/// The sinks of all targets, for the sender. Nothing is opened before the first notification.
///
/// # Errors
/// As [`SnmpConfig::check`].
pub fn sinks(
    config: &SnmpConfig,
    clock: &Arc<dyn Clock>,
    engine: Option<&Engine>,
) -> Result<Vec<Target>, SnmpConfigError> {
    config.check()?;
    let sink = |target: &SnmpTargetConfig| {
        let sink: Arc<dyn NotificationSink> = Arc::new(config.sink(target, clock, engine)?);
        Ok((target.target_name()?, sink))
    };
    config.targets.iter().map(sink).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::{Authentication, Privacy};

    fn target(name: &str) -> SnmpTargetConfig {
        SnmpTargetConfig::v2c(name, "127.0.0.1:162".parse().unwrap(), "public")
    }

    fn check(change: impl FnOnce(&mut SnmpConfig), expected: Result<usize, SnmpConfigError>) {
        let mut config = SnmpConfig { enterprise_number: 4711, ..SnmpConfig::default() };
        change(&mut config);
        assert_eq!(config.check().map(|warnings| warnings.len()), expected);
    }

    #[test]
    fn settings_are_checked() {
        check(|c| c.enterprise_number = DOCUMENTATION_ENTERPRISE, Ok(1));
        check(|c| c.targets = vec![target("a"), target("b")], Ok(0));
        check(|c| c.enterprise_number = 0, Err(SnmpConfigError::EnterpriseNumber));
        check(|c| c.heartbeat_s = 86_401, Err(SnmpConfigError::Heartbeat));
        check(|c| c.give_up_after_s = 59, Err(SnmpConfigError::GiveUp));
        let many: Vec<_> = (0..33).map(|n| target(&n.to_string())).collect();
        check(|c| c.targets = many, Err(SnmpConfigError::TooManyTargets(33)));
        check(|c| c.targets = vec![target("a"), target("a")], Err(SnmpConfigError::NameTwice("a".to_owned())));
        let name = SnmpConfigError::Name { name: "a b".to_owned(), source: InvalidTargetName };
        check(|c| c.targets = vec![target("a b")], Err(name));
        let port = SnmpTargetConfig { address: "127.0.0.1:0".parse().unwrap(), ..target("a") };
        check(|c| c.targets = vec![port], Err(SnmpConfigError::Port("a".to_owned())));
        let community = SnmpTargetConfig { community: String::new(), ..target("a") };
        check(|c| c.targets = vec![community], Err(SnmpConfigError::Community("a".to_owned())));
        let hasty = SnmpTargetConfig { inform_timeout_ms: 99, ..target("a") };
        check(|c| c.targets = vec![hasty], Err(SnmpConfigError::InformTimeout("a".to_owned())));
        let v3 = SnmpTargetConfig::v3("a", "127.0.0.1:162".parse().unwrap(), "noc");
        let unknown = SnmpConfigError::TargetUser { target: "a".to_owned(), user: "noc".to_owned() };
        check(|c| c.targets = vec![v3.clone()], Err(unknown));
        let user = SnmpUserConfig::new(Authentication::Sha256, "authentic1", Privacy::Aes128, "private12");
        let users = |user: &SnmpUserConfig| BTreeMap::from([("noc".to_owned(), user.clone())]);
        check(|c| (c.targets, c.users) = (vec![v3.clone()], users(&user)), Ok(0));
        let short = SnmpUserConfig::new(Authentication::Sha256, "seven77", Privacy::Aes128, "private12");
        let error = SnmpConfigError::User { name: "noc".to_owned(), source: UserError::AuthenticationPassword };
        check(|c| c.users = users(&short), Err(error));
    }

    #[test]
    fn kinds_follow_versions_unless_said() {
        let parse = |version: &str| {
            serde_json::from_value::<SnmpTargetConfig>(serde_json::json!({
                "name": "nms", "address": "192.0.2.1:162", "version": version
            }))
        };
        let v2c = parse("v2c").unwrap();
        assert_eq!((v2c.community.as_str(), v2c.kind()), ("public", SnmpKind::Trap));
        let v3 = parse("v3").unwrap();
        assert_eq!(v3.kind(), SnmpKind::Inform);
        assert_eq!(SnmpTargetConfig { kind: Some(SnmpKind::Trap), ..v3 }.kind(), SnmpKind::Trap);
        let error = parse("v1").unwrap_err().to_string();
        assert!(error.contains("\"v1\" is not supported; take \"v2c\" or \"v3\""), "{error}");
    }

    #[test]
    fn secrets_are_neither_printed_nor_written() {
        let target = SnmpTargetConfig { community: "hidden".to_owned(), ..target("a") };
        assert!(!format!("{target:?}").contains("hidden"));
        let user = SnmpUserConfig::new(Authentication::Sha1, "hidden-one", Privacy::Aes128, "hidden-two");
        assert!(!format!("{user:?}").contains("hidden"));
        let mut config = SnmpConfig { targets: vec![target], ..SnmpConfig::default() };
        config.users.insert("noc".to_owned(), user);
        let written = serde_json::to_string(&config).unwrap();
        assert!(!written.contains("hidden") && written.contains("noc"), "{written}");
    }
}

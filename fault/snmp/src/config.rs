//! What an operator sets for SNMP.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use fault::port::{InvalidTargetName, NotificationSink, Target, TargetName};
use model::time::Clock;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::objects::{DOCUMENTATION_ENTERPRISE, Oids};
use crate::trap::SnmpSink;

/// Targets of one node: each gets every notification, and each costs a row per notification.
pub const TARGETS_MAX: usize = 32;
/// Octets of a community: receivers and their configuration files take no more.
pub const COMMUNITY_OCTETS_MAX: usize = 255;

/// SNMP notifications. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SnmpConfig {
    /// Enterprise number below 1.3.6.1.4.1, under which traps and MIB are numbered. The default is the number for
    /// documentation (RFC 5612); with it a warning is logged at start. A change needs the MIB to be loaded anew.
    pub enterprise_number: u32,
    /// Who gets notifications, at most 32.
    pub targets: Vec<SnmpTargetConfig>,
}

impl Default for SnmpConfig {
    fn default() -> Self {
        Self { enterprise_number: DOCUMENTATION_ENTERPRISE, targets: Vec::new() }
    }
}

/// One receiver of notifications.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnmpTargetConfig {
    /// Its name, unique: its sequence hangs on it. Another name begins another sequence.
    pub name: String,
    /// Where traps go, usually port 162.
    pub address: SocketAddr,
    /// The version; `v2c` is the only one so far.
    #[serde(default)]
    pub version: SnmpVersion,
    /// The v2c community. Not a secret in any strict sense: it travels in clear.
    #[serde(default = "default_community")]
    pub community: String,
}

impl std::fmt::Debug for SnmpTargetConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnmpTargetConfig")
            .field("name", &self.name)
            .field("address", &self.address)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

fn default_community() -> String {
    "public".into()
}

/// The version of SNMP that a target speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub enum SnmpVersion {
    /// SNMPv2c (RFC 1901): traps with a community.
    #[default]
    V2c,
}

impl From<SnmpVersion> for String {
    fn from(version: SnmpVersion) -> Self {
        match version {
            SnmpVersion::V2c => "v2c".to_owned(),
        }
    }
}

impl TryFrom<String> for SnmpVersion {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "v2c" => Ok(Self::V2c),
            other => Err(format!("SNMP version \"{other}\" is not supported; the only one so far is \"v2c\"")),
        }
    }
}

/// What is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnmpConfigError {
    /// Zero is reserved.
    #[error("snmp.enterprise_number must not be 0; take the number that IANA assigned to you")]
    EnterpriseNumber,
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
    #[error("snmp.targets: \"{0}\": the port must not be 0; traps usually go to 162")]
    Port(String),
    /// No receiver takes it.
    #[error("snmp.targets: \"{0}\": a community is 1 to {COMMUNITY_OCTETS_MAX} octets")]
    Community(String),
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
        if self.targets.len() > TARGETS_MAX {
            return Err(SnmpConfigError::TooManyTargets(self.targets.len()));
        }
        let mut names = BTreeSet::new();
        for target in &self.targets {
            target.target_name()?;
            if !names.insert(&target.name) {
                return Err(SnmpConfigError::NameTwice(target.name.clone()));
            }
            if target.address.port() == 0 {
                return Err(SnmpConfigError::Port(target.name.clone()));
            }
            if target.community.is_empty() || target.community.len() > COMMUNITY_OCTETS_MAX {
                return Err(SnmpConfigError::Community(target.name.clone()));
            }
        }
        let documentation = self.enterprise_number == DOCUMENTATION_ENTERPRISE;
        let warning = format!(
            "snmp.enterprise_number is {DOCUMENTATION_ENTERPRISE}, the number for documentation (RFC 5612); set the \
             number that IANA assigned to you and load the MIB that `tandem snmp mib` writes"
        );
        Ok(if documentation { vec![warning] } else { Vec::new() })
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
pub fn sinks(config: &SnmpConfig, clock: &Arc<dyn Clock>) -> Result<Vec<Target>, SnmpConfigError> {
    config.check()?;
    let oids = Oids::new(config.enterprise_number);
    let sink = |target: &SnmpTargetConfig| {
        let sink: Arc<dyn NotificationSink> = Arc::new(SnmpSink::new(target, oids, Arc::clone(clock)));
        Ok((target.target_name()?, sink))
    };
    config.targets.iter().map(sink).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str) -> SnmpTargetConfig {
        SnmpTargetConfig {
            name: name.to_owned(),
            address: "127.0.0.1:162".parse().unwrap(),
            version: SnmpVersion::V2c,
            community: default_community(),
        }
    }

    #[test]
    fn settings_are_checked() {
        let check = |enterprise_number, targets: Vec<SnmpTargetConfig>, expected: Result<usize, SnmpConfigError>| {
            let config = SnmpConfig { enterprise_number, targets };
            assert_eq!(config.check().map(|warnings| warnings.len()), expected);
        };
        check(DOCUMENTATION_ENTERPRISE, vec![target("nms")], Ok(1));
        check(4711, vec![target("a"), target("b")], Ok(0));
        check(0, vec![], Err(SnmpConfigError::EnterpriseNumber));
        check(1, (0..33).map(|n| target(&n.to_string())).collect(), Err(SnmpConfigError::TooManyTargets(33)));
        check(1, vec![target("a"), target("a")], Err(SnmpConfigError::NameTwice("a".to_owned())));
        let name = SnmpConfigError::Name { name: "a b".to_owned(), source: InvalidTargetName };
        check(1, vec![target("a b")], Err(name));
        let port = SnmpTargetConfig { address: "127.0.0.1:0".parse().unwrap(), ..target("a") };
        check(1, vec![port], Err(SnmpConfigError::Port("a".to_owned())));
        let community = SnmpTargetConfig { community: String::new(), ..target("a") };
        check(1, vec![community], Err(SnmpConfigError::Community("a".to_owned())));
    }

    #[test]
    fn other_versions_are_refused_with_the_remedy() {
        let parse = |version: &str| {
            serde_json::from_value::<SnmpTargetConfig>(serde_json::json!({
                "name": "nms", "address": "192.0.2.1:162", "version": version
            }))
        };
        assert_eq!(parse("v2c").unwrap().community, "public");
        let error = parse("v3").unwrap_err().to_string();
        assert!(error.contains("\"v3\" is not supported; the only one so far is \"v2c\""), "{error}");
    }

    #[test]
    fn the_community_is_not_printed() {
        let target = SnmpTargetConfig { community: "hidden".to_owned(), ..target("a") };
        assert!(!format!("{target:?}").contains("hidden"));
    }
}

//! Users of SNMPv3: the User-based Security Model (RFC 3414) with HMAC-SHA-2 (RFC 7860) and AES-128 (RFC 3826).
//!
//! There is no user without authentication and privacy: whoever needs none has v2c.

use async_snmp::{AuthProtocol, PrivProtocol, UsmConfig, UsmUser};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Users of one node.
pub const USERS_MAX: usize = 32;
/// `usmUserName` has at most so many octets (RFC 3414, section 5).
pub const USER_NAME_MAX: usize = 32;
/// Octets of a password (RFC 3414, section 11.2).
pub const PASSWORD_OCTETS_MIN: usize = 8;
/// Longest password that is looked at.
pub const PASSWORD_OCTETS_MAX: usize = 255;

/// How a user is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Authentication {
    /// HMAC-SHA-96 (RFC 3414): for receivers that know nothing better.
    Sha1,
    /// HMAC-192-SHA-256 (RFC 7860).
    #[default]
    Sha256,
    /// HMAC-256-SHA-384 (RFC 7860).
    Sha384,
    /// HMAC-384-SHA-512 (RFC 7860).
    Sha512,
}

/// How messages are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Privacy {
    /// CFB128-AES-128 (RFC 3826).
    #[default]
    Aes128,
}

/// One user.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnmpUserConfig {
    /// `sha1`, `sha256`, `sha384` or `sha512`.
    #[serde(default)]
    pub authentication: Authentication,
    /// At least 8 octets; better from the environment: `TANDEM_SNMP__USERS__<NAME>__AUTHENTICATION_PASSWORD`.
    #[serde(default, skip_serializing)]
    pub authentication_password: String,
    /// `aes128`.
    #[serde(default)]
    pub privacy: Privacy,
    /// At least 8 octets; better from the environment: `TANDEM_SNMP__USERS__<NAME>__PRIVACY_PASSWORD`.
    #[serde(default, skip_serializing)]
    pub privacy_password: String,
}

impl std::fmt::Debug for SnmpUserConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnmpUserConfig")
            .field("authentication", &self.authentication)
            .field("privacy", &self.privacy)
            .finish_non_exhaustive()
    }
}

/// Why a user cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// Its name is too long, or empty.
    #[error("the name of a user is 1 to {USER_NAME_MAX} octets")]
    Name,
    /// Too short or too long.
    #[error("authentication_password has {PASSWORD_OCTETS_MIN} to {PASSWORD_OCTETS_MAX} octets")]
    AuthenticationPassword,
    /// Too short or too long.
    #[error("privacy_password has {PASSWORD_OCTETS_MIN} to {PASSWORD_OCTETS_MAX} octets")]
    PrivacyPassword,
    /// The library does not take them.
    #[error("the keys cannot be made of these passwords")]
    Keys,
}

impl SnmpUserConfig {
    /// A user with these protocols and passwords.
    #[must_use]
    pub fn new(authentication: Authentication, password: &str, privacy: Privacy, privacy_password: &str) -> Self {
        Self {
            authentication,
            authentication_password: password.to_owned(),
            privacy,
            privacy_password: privacy_password.to_owned(),
        }
    }

    /// Whether it can be served.
    ///
    /// # Errors
    /// [`UserError`].
    pub fn check(&self, name: &str) -> Result<(), UserError> {
        let fits = |password: &str| (PASSWORD_OCTETS_MIN..=PASSWORD_OCTETS_MAX).contains(&password.len());
        if name.is_empty() || name.len() > USER_NAME_MAX {
            return Err(UserError::Name);
        }
        if !fits(&self.authentication_password) {
            return Err(UserError::AuthenticationPassword);
        }
        if fits(&self.privacy_password) { Ok(()) } else { Err(UserError::PrivacyPassword) }
    }

    /// As the originator of messages.
    pub(crate) fn originator(&self, name: &str) -> Result<UsmConfig, UserError> {
        let (authentication, privacy) = self.protocols();
        UsmConfig::new(name.as_bytes().to_vec())
            .auth_priv(authentication, &self.authentication_password, privacy, &self.privacy_password)
            .map_err(|_| UserError::Keys)
    }

    /// As one who asks the agent.
    pub(crate) fn inbound(&self, user: UsmUser) -> async_snmp::CryptoResult<UsmUser> {
        let (authentication, privacy) = self.protocols();
        user.auth_priv(authentication, &self.authentication_password, privacy, &self.privacy_password)
    }

    const fn protocols(&self) -> (AuthProtocol, PrivProtocol) {
        let authentication = match self.authentication {
            Authentication::Sha1 => AuthProtocol::Sha1,
            Authentication::Sha256 => AuthProtocol::Sha256,
            Authentication::Sha384 => AuthProtocol::Sha384,
            Authentication::Sha512 => AuthProtocol::Sha512,
        };
        let Privacy::Aes128 = self.privacy;
        (authentication, PrivProtocol::Aes128)
    }
}

//! Who acts: people, machines, devices and the system itself, and what they may do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::id::AccountId;
use crate::network::Networks;
use crate::tenancy::AccountPath;
use crate::time::Timestamp;

/// The kind of an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// A person with a password or an identity of a federation.
    Person,
    /// An API token.
    Machine,
    /// A SIP device.
    Device,
    /// The daemon's own work and its command line.
    System,
}

impl ActorKind {
    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Machine => "machine",
            Self::Device => "device",
            Self::System => "system",
        }
    }
}

macro_rules! permissions {
    ($($(#[$doc:meta])+ $name:ident = $bit:literal, $text:literal;)+) => {
        /// One right. A token's scopes are a set of these; a grant never exceeds the granter's.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Permission { $($(#[$doc])+ $name,)+ }

        impl Permission {
            /// All rights there are.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];
            /// The name in tokens and in the API.
            #[must_use]
            pub const fn as_str(self) -> &'static str { match self { $(Self::$name => $text,)+ } }
            const fn bit(self) -> u32 { match self { $(Self::$name => 1 << $bit,)+ } }
        }

        impl FromStr for Permission {
            type Err = UnknownPermission;
            fn from_str(text: &str) -> Result<Self, UnknownPermission> {
                match text { $($text => Ok(Self::$name),)+ _ => Err(UnknownPermission(text.to_owned())) }
            }
        }
    };
}

permissions! {
    /// Read accounts, domains, sites, subscribers, numbers, trunks, tariffs, streams.
    ProvisioningRead = 0, "provisioning:read";
    /// Change them.
    ProvisioningWrite = 1, "provisioning:write";
    /// Read usage, rated usage, suspense, ledger and billing files.
    BillingRead = 2, "billing:read";
    /// Make tariffs and streams, close billing files, rate suspense again.
    BillingWrite = 3, "billing:write";
    /// Read alarms.
    AlarmRead = 4, "alarm:read";
    /// Acknowledge alarms.
    AlarmWrite = 5, "alarm:write";
    /// Read reports.
    ReportRead = 6, "report:read";
    /// Run reports.
    ReportWrite = 7, "report:write";
    /// Issue and revoke API tokens.
    TokenWrite = 8, "token:write";
    /// Read the audit trail.
    AuditRead = 9, "audit:read";
    /// Say whether a billing file was taken: what a BSS that pulls files needs beside `billing:read`.
    BillingAcknowledge = 10, "billing:acknowledge";
}

/// The text names no permission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is no permission; the permissions are provisioning, billing, alarm, report :read and :write, billing:acknowledge, \
     token:write, audit:read"
)]
pub struct UnknownPermission(pub String);

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions(u32);

impl Permissions {
    /// Every permission.
    #[must_use]
    pub fn all() -> Self {
        Permission::ALL.iter().copied().collect()
    }

    /// Whether `permission` is in the set.
    #[must_use]
    pub const fn has(self, permission: Permission) -> bool {
        self.0 & permission.bit() != 0
    }

    /// Whether every permission of `other` is in the set: a grant never exceeds the granter's.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The permissions in order.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.iter().copied().filter(move |p| self.has(*p))
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(permissions.into_iter().fold(0, |bits, p| bits | p.bit()))
    }
}

impl fmt::Display for Permissions {
    /// Space-separated names, as they are stored.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Permission::as_str).collect();
        f.write_str(&names.join(" "))
    }
}

impl FromStr for Permissions {
    type Err = UnknownPermission;
    fn from_str(text: &str) -> Result<Self, UnknownPermission> {
        text.split_whitespace().map(str::parse).collect()
    }
}

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Its kind.
    pub kind: ActorKind,
    /// Identifier of the token, person or device; nil for the system.
    pub id: Uuid,
    /// A name for audit and logs.
    pub name: String,
    /// The account that it belongs to.
    pub account: AccountId,
    /// Where that account sits.
    pub path: AccountPath,
    /// What it may do.
    pub permissions: Permissions,
    /// When its right to act ends; none: it does not. What it grants ends no later.
    pub expires_at: Option<Timestamp>,
    /// From where it may act. What it grants may be used from nowhere else.
    pub networks: Networks,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_round_trip_and_cover() {
        let all = Permissions::all();
        assert_eq!(all.to_string().parse(), Ok(all));
        let read: Permissions = "billing:read alarm:read".parse().expect("known");
        assert!(all.covers(read) && !read.covers(all));
        assert!("billing:steal".parse::<Permissions>().is_err());
    }
}

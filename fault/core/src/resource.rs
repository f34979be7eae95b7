//! Alarms as they are shown.

use model::tenancy::AccountPath;
use model::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::catalogue::AlarmType;

/// Perceived severity (X.733; numbers of IANA-ITU-ALARM-TC-MIB `ItuPerceivedSeverity`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The condition is gone.
    Cleared,
    /// The severity cannot be told.
    Indeterminate,
    /// Service is out.
    Critical,
    /// Service is badly degraded.
    Major,
    /// Not yet affecting service.
    Minor,
    /// A possible fault ahead.
    Warning,
}

impl Severity {
    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cleared => "cleared",
            Self::Indeterminate => "indeterminate",
            Self::Critical => "critical",
            Self::Major => "major",
            Self::Minor => "minor",
            Self::Warning => "warning",
        }
    }

    /// The number of `ItuPerceivedSeverity`: cleared 1, indeterminate 2, critical 3, major 4, minor 5, warning 6.
    #[must_use]
    pub const fn itu(self) -> u32 {
        match self {
            Self::Cleared => 1,
            Self::Indeterminate => 2,
            Self::Critical => 3,
            Self::Major => 4,
            Self::Minor => 5,
            Self::Warning => 6,
        }
    }

    /// The severity of a stored name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Cleared, Self::Indeterminate, Self::Critical, Self::Major, Self::Minor, Self::Warning]
            .into_iter()
            .find(|severity| severity.as_str() == text)
    }
}

/// One instance of an alarm: raised once, cleared once. Its key is type and resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// The node that detected it.
    pub node: String,
    /// Its number on that node, never used again.
    pub id: u32,
    /// What kind of condition.
    pub alarm_type: AlarmType,
    /// Which object, such as `trunk:0190b5c8-…`.
    pub resource: String,
    /// The account that it belongs to; none: the platform.
    pub path: Option<AccountPath>,
    /// How bad it is (the last severity while active; kept after the clear).
    pub severity: Severity,
    /// One sentence with the values, as it was last notified.
    pub text: String,
    /// First sight.
    pub raised_at: Timestamp,
    /// Last change of severity, text class or acknowledgement.
    pub changed_at: Timestamp,
    /// Last sight.
    pub last_seen_at: Timestamp,
    /// When it was cleared.
    pub cleared_at: Option<Timestamp>,
    /// Sightings, repeats included.
    pub count: i64,
    /// Who acknowledged it, when, and the note.
    pub acknowledgement: Option<(String, Timestamp, String)>,
}

impl Alarm {
    /// The identifier of an alarm in plans, audit and events, made of its key: node and number.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        alarm_uuid(&self.node, self.id)
    }
}

/// As [`Alarm::uuid`], from the key alone. UUIDv8 (RFC 9562, section 5.8): a hash of the node's name (FNV-1a, the
/// same in every version of the program), then the number.
#[must_use]
pub fn alarm_uuid(node: &str, id: u32) -> Uuid {
    uuid::Builder::from_custom_bytes((u128::from(fnv(node)) << 64 | u128::from(id)).to_be_bytes()).into_uuid()
}

/// The identifier of a target of notifications in plans, audit and events, made as [`alarm_uuid`].
#[must_use]
pub fn target_uuid(node: &str, target: &str) -> Uuid {
    let bits = u128::from(fnv(node)) << 64 | u128::from(fnv(target));
    uuid::Builder::from_custom_bytes(bits.to_be_bytes()).into_uuid()
}

fn fnv(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A condition that a detector sees now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What kind.
    pub alarm_type: AlarmType,
    /// Which object.
    pub resource: String,
    /// The account that it belongs to; none: the platform.
    pub path: Option<AccountPath>,
    /// Severity, where it differs from the catalogue's default.
    pub severity: Option<Severity>,
    /// One sentence with the values.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_tell_nodes_and_numbers_apart() {
        let check = |node, id, expected: &str| assert_eq!(alarm_uuid(node, id).to_string(), expected);
        check("a", 1, "af63dc4c-8601-8c8c-8000-000000000001");
        check("a", u32::MAX, "af63dc4c-8601-8c8c-8000-0000ffffffff");
        assert_ne!(alarm_uuid("a", 1), alarm_uuid("b", 1));
        assert_ne!(target_uuid("a", "nms"), target_uuid("a", "other"));
        assert_ne!(target_uuid("a", "nms"), target_uuid("b", "nms"));
    }
}

//! Typed identifiers, all UUIDv7 (RFC 9562, section 5.7): ordered by time, so that bulk tables grow at their end.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where identifiers come from. The real source is `db::system::SystemIds`; tests pass a counting one.
pub trait IdSource: Send + Sync + fmt::Debug {
    /// The next UUIDv7.
    fn next(&self) -> Uuid;
}

/// The text was no UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} must be a UUID such as 0190b5c8-7a3e-7cc1-8f4e-2b6d1c0a9e55")]
pub struct InvalidId {
    /// Which identifier was meant.
    pub kind: &'static str,
}

macro_rules! typed_ids {
    ($($(#[$doc:meta])+ $name:ident;)+) => {$(
        $(#[$doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Draws a new identifier.
            #[must_use]
            pub fn new(ids: &dyn IdSource) -> Self { Self(ids.next()) }
            /// Wraps a known UUID, for instance one read from a row.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self { Self(uuid) }
            /// The bare UUID, as it is bound in SQL.
            #[must_use]
            pub const fn uuid(self) -> Uuid { self.0 }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Uuid::from_str(text).map(Self).map_err(|_| InvalidId { kind: stringify!($name) })
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self, e: &mut minicbor::Encoder<W>, _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(self.0.as_bytes())?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Uuid::from_slice(d.bytes()?).map(Self)
                    .map_err(|_| minicbor::decode::Error::message("an identifier has 16 octets"))
            }
        }
    )+};
}

typed_ids! {
    /// A node of the account tree: provider, reseller or customer.
    AccountId;
    /// A SIP domain.
    DomainId;
    /// A site of a customer.
    SiteId;
    /// A subscriber: a user or device with SIP credentials.
    SubscriberId;
    /// An E.164 number in the inventory.
    NumberId;
    /// A bulk job.
    BulkJobId;
    /// A SIP trunk.
    TrunkId;
    /// A tariff.
    TariffId;
    /// An assignment of a tariff to an account or a trunk.
    AssignmentId;
    /// A stream of billing files.
    StreamId;
    /// A billing file.
    FileId;
    /// An API token.
    TokenId;
    /// A committed change set.
    ChangeId;
    /// A call, minted at its INVITE and the same on all legs.
    CallId;
    /// A batch of rated usage.
    BatchId;
    /// One run of a report.
    RunId;
    /// A message in an outbox.
    MessageId;
    /// An installation: minted once, when the store is made.
    InstallationId;
    /// A request as it is followed through the logs.
    TraceId;
}

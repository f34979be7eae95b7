//! The objects of the schema: one file per folder of the product. They are built from what the ports give; secrets
//! have no field there, so they have none here.

pub mod billing;
pub mod bulk;
pub mod fault;
pub mod provisioning;
pub mod reports;
pub mod trunk_state;

use async_graphql::{ID, Interface, SimpleObject};
use model::change::ResourceKind;

use crate::scalar::{Currency, Decimal};

pub use self::billing::{BillingFile, Stream, Tariff};
pub use self::bulk::BulkJob;
pub use self::fault::Alarm;
pub use self::provisioning::{Account, Change, Domain, Number, Site, Subscriber, Token, Trunk};
pub use self::reports::ReportRun;

/// An object with a global identifier.
#[derive(Debug, Interface)]
#[graphql(field(name = "id", ty = "&ID", desc = "Its global identifier."))]
pub enum Node {
    Account(Account),
    Domain(Domain),
    Site(Site),
    Subscriber(Subscriber),
    Number(Number),
    Trunk(Trunk),
    Token(Token),
    Tariff(Tariff),
    Stream(Stream),
    BillingFile(BillingFile),
    Alarm(Alarm),
    ReportRun(ReportRun),
    Change(Change),
    BulkJob(BulkJob),
}

/// An amount of money in one currency.
#[derive(Debug, SimpleObject)]
pub struct Money {
    /// Decimal text.
    pub amount: Decimal,
    /// The currency.
    pub currency: Currency,
}

/// The global identifier of an object.
pub(crate) fn global(kind: ResourceKind, key: impl std::fmt::Display) -> ID {
    ID(api_http::global_id::encode(kind, key))
}

//! SIP domains.

use db::dialect::{BulkRow, Value};
use db::sqlx::{self, FromRow};
use db::{DbError, Tx, on_tx};
use model::id::{AccountId, DomainId};
use provisioning::resource::{DialPlan, Domain};
use uuid::Uuid;

use crate::row::{New, Stored, one_row, owned_statements, parsed, revision};

owned_statements! {
    "domain", "x.id, x.account_id, x.name, x.country_code, x.national_prefix, x.international_prefix, x.version, \
        x.created_at, x.updated_at";
    /// Who has this name.
    NAME = "SELECT id FROM domain WHERE name = $1";
    UPDATE = "UPDATE domain SET country_code = $3, national_prefix = $4, international_prefix = $5, version = version + 1, \
        updated_at = $6 WHERE id = $1 AND version = $2";
    DELETE = "DELETE FROM domain WHERE id = $1 AND version = $2";
    /// Subscribers of one.
    POPULATION = "SELECT COUNT(*) FROM subscriber WHERE domain_id = $1";
}

#[derive(Debug, FromRow)]
pub(crate) struct Row {
    id: Uuid,
    account_id: Uuid,
    name: String,
    country_code: String,
    national_prefix: String,
    international_prefix: String,
    version: i64,
    created_at: i64,
    updated_at: i64,
}

impl Stored for Row {
    type Resource = Domain;
    fn resource(self) -> Result<Domain, DbError> {
        Ok(Domain {
            id: DomainId::from_uuid(self.id),
            account: AccountId::from_uuid(self.account_id),
            name: parsed("domain.name", &self.name)?,
            dial_plan: DialPlan {
                country_code: self.country_code,
                national_prefix: self.national_prefix,
                international_prefix: self.international_prefix,
            },
            revision: revision(self.version, self.created_at, self.updated_at),
        })
    }
}

impl BulkRow for New<Domain> {
    const TABLE: &'static str = "domain";
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "account_id",
        "name",
        "country_code",
        "national_prefix",
        "international_prefix",
        "version",
        "created_at",
        "updated_at",
    ];

    fn values<'a>(&'a self, out: &mut Vec<Value<'a>>) {
        let new = &self.0;
        out.extend([
            new.id.uuid().into(),
            new.account.uuid().into(),
            new.name.as_str().into(),
            new.dial_plan.country_code.as_str().into(),
            new.dial_plan.national_prefix.as_str().into(),
            new.dial_plan.international_prefix.as_str().into(),
            new.revision.version.into(),
            new.revision.created_at.0.into(),
            new.revision.updated_at.0.into(),
        ]);
    }
}

pub(crate) async fn update(tx: &mut Tx, d: &Domain) -> Result<(), DbError> {
    let affected = on_tx!(tx, c => sqlx::query(UPDATE)
        .bind(d.id.uuid()).bind(d.revision.version - 1).bind(&d.dial_plan.country_code)
        .bind(&d.dial_plan.national_prefix).bind(&d.dial_plan.international_prefix)
        .bind(d.revision.updated_at.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    one_row(affected)
}

pub(crate) async fn delete(tx: &mut Tx, id: DomainId, version: i64) -> Result<(), DbError> {
    let affected = on_tx!(tx, c => sqlx::query(DELETE)
        .bind(id.uuid()).bind(version).execute(c).await.map(|done| done.rows_affected()))?;
    one_row(affected)
}

//! Sites.

use db::dialect::{BulkRow, Value};
use db::sqlx::{self, FromRow};
use db::{DbError, Tx, on_tx};
use model::id::{AccountId, SiteId};
use provisioning::resource::Site;
use uuid::Uuid;

use crate::row::{New, Stored, one_row, owned_statements, revision};

owned_statements! {
    "site", "x.id, x.account_id, x.name, x.version, x.created_at, x.updated_at";
    /// Who has this name at a customer.
    NAME = "SELECT id FROM site WHERE account_id = $1 AND name = $2";
    UPDATE = "UPDATE site SET name = $3, version = version + 1, updated_at = $4 WHERE id = $1 AND version = $2";
    DELETE = "DELETE FROM site WHERE id = $1 AND version = $2";
    /// Subscribers of one.
    POPULATION = "SELECT COUNT(*) FROM subscriber WHERE site_id = $1";
}

#[derive(Debug, FromRow)]
pub(crate) struct Row {
    id: Uuid,
    account_id: Uuid,
    name: String,
    version: i64,
    created_at: i64,
    updated_at: i64,
}

impl Stored for Row {
    type Resource = Site;
    fn resource(self) -> Result<Site, DbError> {
        Ok(Site {
            id: SiteId::from_uuid(self.id),
            account: AccountId::from_uuid(self.account_id),
            name: self.name,
            revision: revision(self.version, self.created_at, self.updated_at),
        })
    }
}

impl BulkRow for New<Site> {
    const TABLE: &'static str = "site";
    const COLUMNS: &'static [&'static str] = &["id", "account_id", "name", "version", "created_at", "updated_at"];

    fn values<'a>(&'a self, out: &mut Vec<Value<'a>>) {
        let new = &self.0;
        out.extend([
            new.id.uuid().into(),
            new.account.uuid().into(),
            new.name.as_str().into(),
            new.revision.version.into(),
            new.revision.created_at.0.into(),
            new.revision.updated_at.0.into(),
        ]);
    }
}

pub(crate) async fn update(tx: &mut Tx, s: &Site) -> Result<(), DbError> {
    let affected = on_tx!(tx, c => sqlx::query(UPDATE)
        .bind(s.id.uuid()).bind(s.revision.version - 1).bind(&s.name)
        .bind(s.revision.updated_at.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    one_row(affected)
}

pub(crate) async fn delete(tx: &mut Tx, id: SiteId, version: i64) -> Result<(), DbError> {
    let affected = on_tx!(tx, c => sqlx::query(DELETE)
        .bind(id.uuid()).bind(version).execute(c).await.map(|done| done.rows_affected()))?;
    one_row(affected)
}

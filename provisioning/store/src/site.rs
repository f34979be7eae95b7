//! Sites.

use db::sqlx::{self, FromRow};
use db::{DbError, Tx, on_tx};
use model::id::{AccountId, SiteId};
use provisioning::resource::Site;
use uuid::Uuid;

use crate::row::{Stored, owned_statements, revision};

owned_statements! {
    "site", "x.id, x.account_id, x.name, x.version, x.created_at, x.updated_at";
    /// Who has this name at a customer.
    NAME = "SELECT id FROM site WHERE account_id = $1 AND name = $2";
    INSERT = "INSERT INTO site (id, account_id, name, version, created_at, updated_at) \
        VALUES ($1, $2, $3, $4, $5, $6)";
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

pub(crate) async fn insert(tx: &mut Tx, s: &Site) -> Result<(), DbError> {
    on_tx!(tx, c => sqlx::query(INSERT)
        .bind(s.id.uuid()).bind(s.account.uuid()).bind(&s.name)
        .bind(s.revision.version).bind(s.revision.created_at.0).bind(s.revision.updated_at.0)
        .execute(c).await.map(|_| ()))?;
    Ok(())
}

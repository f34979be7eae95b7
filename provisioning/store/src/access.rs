//! Bearer tokens.

use async_trait::async_trait;
use db::on_db;
use db::sqlx::{self, FromRow};
use model::actor::{Actor, ActorKind};
use model::id::AccountId;
use model::page::ReadError;
use model::time::Timestamp;
use provisioning::port::Authenticator;
use uuid::Uuid;

use crate::row::{failed, parsed, read_error};
use crate::{ProvisioningStore, account, token};

db::statements! {
    TOKEN = "SELECT t.id, t.name, t.account_id, t.permissions, t.expires_at, a.path FROM api_token t \
        JOIN account a ON a.id = t.account_id \
        WHERE t.token_hash = $1 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > $2)";
}

#[derive(Debug, FromRow)]
struct Row {
    id: Uuid,
    name: String,
    account_id: Uuid,
    permissions: String,
    expires_at: Option<i64>,
    path: String,
}

#[async_trait]
impl Authenticator for ProvisioningStore {
    async fn token_authenticate(&self, token: &str, now: Timestamp) -> Result<Option<Actor>, ReadError> {
        let Some(hash) = token::token_hash(token) else { return Ok(None) };
        let row: Option<Row> = on_db!(&self.db, c => sqlx::query_as(TOKEN)
            .bind(&hash[..]).bind(now.0).fetch_optional(c).await)
        .map_err(failed)?;
        let Some(row) = row else { return Ok(None) };
        let path = parsed("account.path", &row.path).map_err(read_error)?;
        if !account::is_enabled(&self.db, &path).await.map_err(read_error)? {
            return Ok(None);
        }
        Ok(Some(Actor {
            kind: ActorKind::Machine,
            id: row.id,
            name: row.name,
            account: AccountId::from_uuid(row.account_id),
            path,
            permissions: parsed("api_token.permissions", &row.permissions).map_err(read_error)?,
            expires_at: row.expires_at.map(Timestamp),
        }))
    }
}

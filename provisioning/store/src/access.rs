//! Bearer tokens.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use db::sqlx::{self, FromRow};
use db::{DbError, Tx, WriteError, on_db, on_tx};
use model::actor::{Actor, ActorKind};
use model::id::AccountId;
use model::network::Networks;
use model::page::ReadError;
use model::time::Timestamp;
use provisioning::port::Authenticator;
use uuid::Uuid;

use crate::row::{failed, parsed, read_error};
use crate::{ProvisioningStore, account, token};

db::statements! {
    /// One that works, by its identifier.
    TOKEN_BY_ID = "SELECT t.id, t.name, t.account_id, t.permissions, t.expires_at, t.networks, a.path FROM api_token t \
        JOIN account a ON a.id = t.account_id \
        WHERE t.id = $1 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > $2)";
    TOKEN = "SELECT t.id, t.name, t.account_id, t.permissions, t.expires_at, t.networks, a.path FROM api_token t \
        JOIN account a ON a.id = t.account_id \
        WHERE (t.token_hash = $1 OR (t.previous_hash = $1 AND t.previous_until > $2)) \
        AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > $2)";
}

#[derive(Debug, FromRow)]
struct Row {
    id: Uuid,
    name: String,
    account_id: Uuid,
    permissions: String,
    expires_at: Option<i64>,
    networks: String,
    path: String,
}

#[async_trait]
impl Authenticator for ProvisioningStore {
    async fn token_authenticate(&self, token: &str, from: IpAddr, now: Timestamp) -> Result<Option<Actor>, ReadError> {
        let Some(hash) = token::token_hash(token) else { return Ok(None) };
        let row: Option<Row> = on_db!(&self.db, c => sqlx::query_as(TOKEN)
            .bind(&hash[..]).bind(now.0).fetch_optional(c).await)
        .map_err(failed)?;
        let Some(row) = row else { return Ok(None) };
        let path = parsed("account.path", &row.path).map_err(read_error)?;
        if !account::is_enabled(&self.db, &path).await.map_err(read_error)? {
            return Ok(None);
        }
        let networks: Networks = parsed("api_token.networks", &row.networks).map_err(read_error)?;
        if !networks.admits(from) {
            // Whoever stole it learns nothing, and fills no log.
            metrics::counter!("tandem_tokens_from_elsewhere_total").increment(1);
            tracing::debug!(token.id = %row.id, %from, "a token was refused: it may not be used from there");
            return Ok(None);
        }
        self.uses.lock().unwrap_or_else(PoisonError::into_inner).insert(row.id, now.0);
        row.actor().map(Some).map_err(read_error)
    }
}

/// The actor of a token that works now, for what goes on without a request.
pub(crate) async fn actor(tx: &mut Tx, token: Uuid, now: Timestamp) -> Result<Option<Actor>, DbError> {
    let row: Option<Row> =
        on_tx!(tx, c => sqlx::query_as(TOKEN_BY_ID).bind(token).bind(now.0).fetch_optional(c).await)?;
    row.map(Row::actor).transpose()
}

impl Row {
    fn actor(self) -> Result<Actor, DbError> {
        Ok(Actor {
            kind: ActorKind::Machine,
            id: self.id,
            name: self.name,
            account: AccountId::from_uuid(self.account_id),
            path: parsed("account.path", &self.path)?,
            permissions: parsed("api_token.permissions", &self.permissions)?,
            expires_at: self.expires_at.map(Timestamp),
            networks: parsed("api_token.networks", &self.networks)?,
        })
    }
}

impl ProvisioningStore {
    /// Writes when tokens were last used, as far as it is not written. A crash before it forgets at most one round.
    ///
    /// # Errors
    /// When the database fails; the next round writes it.
    pub async fn store_token_uses(&self) -> Result<usize, DbError> {
        let uses = std::mem::take(&mut *self.uses.lock().unwrap_or_else(PoisonError::into_inner));
        if uses.is_empty() {
            return Ok(0);
        }
        let uses = Arc::new(uses);
        let writing = Arc::clone(&uses);
        let written = self.db.write::<_, Infallible, _>(move |tx| {
            let uses = Arc::clone(&writing);
            Box::pin(async move { Ok(token::used(tx, &uses).await?) })
        });
        match written.await {
            Ok(()) => Ok(uses.len()),
            Err(WriteError::Db(error)) => {
                let mut later = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
                for (id, at) in uses.iter() {
                    later.entry(*id).or_insert(*at);
                }
                Err(error)
            }
            Err(WriteError::Refused(never)) => match never {},
        }
    }
}

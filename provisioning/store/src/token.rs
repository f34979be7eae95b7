//! API tokens. The token is drawn here, shown once, and stored as its hash: 256 random bits need no slow hash.

use std::collections::BTreeMap;

use db::sqlx::{self, FromRow};
use db::{DbError, Tx, on_tx};
use model::id::{AccountId, TokenId};
use model::secret::Secret;
use model::time::Timestamp;
use provisioning::resource::Token;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::row::{Stored, one_row, owned_statements, parsed, revision};
use crate::seal::drawn;

/// Begins every token, so that scanners of leaked secrets know it.
const PREFIX: &str = "tdm_";
/// Random octets of a token.
const RANDOM_LENGTH: usize = 32;

owned_statements! {
    "api_token", "x.id, x.account_id, x.name, x.permissions, x.expires_at, x.networks, x.revoked_at, x.previous_until, \
        x.last_used_at, x.version, x.created_at, x.updated_at";
    /// Who has this name at an account.
    NAME = "SELECT id FROM api_token WHERE account_id = $1 AND name = $2";
    INSERT = "INSERT INTO api_token (id, account_id, name, token_hash, permissions, expires_at, networks, revoked_at, \
        version, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    UPDATE = "UPDATE api_token SET expires_at = $3, networks = $4, revoked_at = $5, previous_until = $6, \
        version = version + 1, updated_at = $7 WHERE id = $1 AND version = $2";
    /// The token before is kept where it works on for a while.
    ROTATE = "UPDATE api_token SET previous_hash = CASE WHEN $3 THEN token_hash END, previous_until = $4, \
        token_hash = $5, version = version + 1, updated_at = $6 WHERE id = $1 AND version = $2";
    /// No change: neither version nor audit speak of it.
    USED = "UPDATE api_token SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)";
}

#[derive(Debug, FromRow)]
pub(crate) struct Row {
    id: Uuid,
    account_id: Uuid,
    name: String,
    permissions: String,
    expires_at: Option<i64>,
    networks: String,
    revoked_at: Option<i64>,
    previous_until: Option<i64>,
    last_used_at: Option<i64>,
    version: i64,
    created_at: i64,
    updated_at: i64,
}

impl Stored for Row {
    type Resource = Token;
    fn resource(self) -> Result<Token, DbError> {
        Ok(Token {
            id: TokenId::from_uuid(self.id),
            account: AccountId::from_uuid(self.account_id),
            name: self.name,
            permissions: parsed("api_token.permissions", &self.permissions)?,
            expires_at: self.expires_at.map(Timestamp),
            networks: parsed("api_token.networks", &self.networks)?,
            revoked_at: self.revoked_at.map(Timestamp),
            previous_until: self.previous_until.map(Timestamp),
            last_used_at: self.last_used_at.map(Timestamp),
            revision: revision(self.version, self.created_at, self.updated_at),
        })
    }
}

/// What is stored of a token; none when the text cannot be one.
pub(crate) fn token_hash(token: &str) -> Option<[u8; 32]> {
    let digits = token.strip_prefix(PREFIX)?;
    let is_token = digits.len() == 2 * RANDOM_LENGTH && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_token.then(|| Sha256::digest(token).into())
}

/// A new token and its hash.
fn new_token() -> Result<(Secret<String>, [u8; 32]), DbError> {
    let token = format!("{PREFIX}{}", hex::encode(drawn::<RANDOM_LENGTH>()?));
    let hash = Sha256::digest(&token).into();
    Ok((Secret::new(token), hash))
}

pub(crate) async fn insert(tx: &mut Tx, t: &Token) -> Result<Secret<String>, DbError> {
    let (token, hash) = new_token()?;
    on_tx!(tx, c => sqlx::query(INSERT)
        .bind(t.id.uuid()).bind(t.account.uuid()).bind(&t.name).bind(&hash[..]).bind(t.permissions.to_string())
        .bind(t.expires_at.map(|at| at.0)).bind(t.networks.to_string()).bind(t.revoked_at.map(|at| at.0))
        .bind(t.revision.version).bind(t.revision.created_at.0).bind(t.revision.updated_at.0)
        .execute(c).await.map(|_| ()))?;
    Ok(token)
}

pub(crate) async fn update(tx: &mut Tx, t: &Token) -> Result<(), DbError> {
    let affected = on_tx!(tx, c => sqlx::query(UPDATE)
        .bind(t.id.uuid()).bind(t.revision.version - 1).bind(t.expires_at.map(|at| at.0)).bind(t.networks.to_string())
        .bind(t.revoked_at.map(|at| at.0)).bind(t.previous_until.map(|at| at.0)).bind(t.revision.updated_at.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    one_row(affected)
}

/// Draws the token anew.
pub(crate) async fn rotate(tx: &mut Tx, t: &Token) -> Result<Secret<String>, DbError> {
    let (token, hash) = new_token()?;
    let affected = on_tx!(tx, c => sqlx::query(ROTATE)
        .bind(t.id.uuid()).bind(t.revision.version - 1).bind(t.previous_until.is_some())
        .bind(t.previous_until.map(|at| at.0)).bind(&hash[..]).bind(t.revision.updated_at.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    one_row(affected)?;
    Ok(token)
}

/// Notes when tokens were last used.
pub(crate) async fn used(tx: &mut Tx, uses: &BTreeMap<Uuid, i64>) -> Result<(), DbError> {
    for (id, at) in uses {
        on_tx!(tx, c => sqlx::query(USED).bind(id).bind(at).execute(c).await.map(|_| ()))?;
    }
    Ok(())
}

//! SIP trunks.

use db::sqlx::{self, FromRow};
use db::{DbError, Tx, on_tx};
use model::id::{AccountId, TrunkId};
use model::secret::Secret;
use model::tenancy::AccountPath;
use provisioning::resource::{Trunk, TrunkRegistration};
use uuid::Uuid;

use crate::row::{Stored, limit, one_row, owned_statements, parsed, revision, unsigned};
use crate::seal::{Column, Sealer};

pub(crate) const PASSWORD: Column = "trunk.password";

owned_statements! {
    "trunk", "x.id, x.account_id, x.name, x.address, x.username, x.call_limit, x.priority, x.keepalive_ms, x.enabled, \
        x.registrar, x.registration_domain, x.registration_expires_s, x.version, x.created_at, x.updated_at";
    /// Who has this name at an account.
    NAME = "SELECT id FROM trunk WHERE account_id = $1 AND name = $2";
    /// Who has this address.
    ADDRESS = "SELECT id FROM trunk WHERE address = $1";
    INSERT = "INSERT INTO trunk (id, account_id, name, address, username, password, call_limit, priority, keepalive_ms, \
        enabled, version, created_at, updated_at, registrar, registration_domain, registration_expires_s) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";
    UPDATE = "UPDATE trunk SET call_limit = $3, priority = $4, keepalive_ms = $5, enabled = $6, version = version + 1, \
        updated_at = $7, registrar = $8, registration_domain = $9, registration_expires_s = $10 WHERE id = $1 AND version = $2";
}

#[derive(Debug, FromRow)]
pub(crate) struct Row {
    id: Uuid,
    account_id: Uuid,
    name: String,
    address: String,
    username: Option<String>,
    call_limit: Option<i64>,
    priority: i64,
    keepalive_ms: i64,
    enabled: bool,
    registrar: Option<String>,
    registration_domain: Option<String>,
    registration_expires_s: Option<i64>,
    version: i64,
    created_at: i64,
    updated_at: i64,
}

impl Stored for Row {
    type Resource = Trunk;
    fn resource(self) -> Result<Trunk, DbError> {
        Ok(Trunk {
            id: TrunkId::from_uuid(self.id),
            account: AccountId::from_uuid(self.account_id),
            name: self.name,
            address: parsed("trunk.address", &self.address)?,
            username: self.username,
            registration: registration(self.registrar, self.registration_domain, self.registration_expires_s)?,
            call_limit: limit("trunk.call_limit", self.call_limit)?,
            priority: unsigned("trunk.priority", self.priority)?,
            keepalive_ms: unsigned("trunk.keepalive_ms", self.keepalive_ms)?,
            enabled: self.enabled,
            revision: revision(self.version, self.created_at, self.updated_at),
        })
    }
}

/// The three columns are there together or not at all.
fn registration(
    registrar: Option<String>,
    domain: Option<String>,
    expires_s: Option<i64>,
) -> Result<Option<TrunkRegistration>, DbError> {
    match (registrar, domain, expires_s) {
        (None, None, None) => Ok(None),
        (Some(registrar), Some(domain), Some(expires_s)) => Ok(Some(TrunkRegistration {
            registrar: parsed("trunk.registrar", &registrar)?,
            domain,
            expires_s: unsigned("trunk.registration_expires_s", expires_s)?,
        })),
        _ => Err(DbError::corrupt("trunk.registrar", "a part of the registration is missing")),
    }
}

/// A trunk with its owner's path and sealed password: for the directory alone.
#[derive(FromRow)]
pub(crate) struct SealedRow {
    #[sqlx(flatten)]
    trunk: Row,
    path: String,
    password: Option<Vec<u8>>,
}

impl SealedRow {
    pub(crate) const fn id(&self) -> Uuid {
        self.trunk.id
    }

    pub(crate) fn open(self, sealer: &Sealer) -> Result<(Trunk, AccountPath, Option<Secret<String>>), DbError> {
        let password = self.password.map(|sealed| sealer.open(PASSWORD, self.trunk.id, &sealed)).transpose()?;
        Ok((self.trunk.resource()?, parsed("account.path", &self.path)?, password))
    }
}

pub(crate) async fn insert(
    tx: &mut Tx,
    sealer: &Sealer,
    t: &Trunk,
    password: Option<&Secret<String>>,
) -> Result<(), DbError> {
    let password = password.map(|password| sealer.seal(PASSWORD, t.id.uuid(), password.expose())).transpose()?;
    on_tx!(tx, c => sqlx::query(INSERT)
        .bind(t.id.uuid()).bind(t.account.uuid()).bind(&t.name).bind(t.address.to_string()).bind(&t.username)
        .bind(password).bind(t.call_limit.map(i64::from)).bind(i64::from(t.priority)).bind(i64::from(t.keepalive_ms))
        .bind(t.enabled)
        .bind(t.revision.version).bind(t.revision.created_at.0).bind(t.revision.updated_at.0)
        .bind(t.registration.as_ref().map(|r| r.registrar.to_string()))
        .bind(t.registration.as_ref().map(|r| &r.domain))
        .bind(t.registration.as_ref().map(|r| i64::from(r.expires_s)))
        .execute(c).await.map(|_| ()))?;
    Ok(())
}

pub(crate) async fn update(tx: &mut Tx, t: &Trunk) -> Result<(), DbError> {
    let affected = on_tx!(tx, c => sqlx::query(UPDATE)
        .bind(t.id.uuid()).bind(t.revision.version - 1).bind(t.call_limit.map(i64::from)).bind(i64::from(t.priority))
        .bind(i64::from(t.keepalive_ms)).bind(t.enabled).bind(t.revision.updated_at.0)
        .bind(t.registration.as_ref().map(|r| r.registrar.to_string()))
        .bind(t.registration.as_ref().map(|r| &r.domain))
        .bind(t.registration.as_ref().map(|r| i64::from(r.expires_s)))
        .execute(c).await.map(|done| done.rows_affected()))?;
    one_row(affected)
}

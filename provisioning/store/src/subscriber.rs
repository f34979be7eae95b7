//! Subscribers and their digest credentials.

use db::dialect::{BulkRow, Value};
use db::sqlx::{self, FromRow};
use db::{DbError, Tx, on_tx};
use md5::{Digest as _, Md5};
use model::id::{AccountId, DomainId, SiteId, SubscriberId};
use model::number::Extension;
use model::secret::Secret;
use model::time::Timestamp;
use provisioning::port::SubscriberSecrets;
use provisioning::resource::Subscriber;
use provisioning::view::SipPassword;
use sha2::Sha256;
use uuid::Uuid;

use crate::row::{Stored, limit, one_row, owned_statements, parsed, revision};
use crate::seal::{Column, Sealer, drawn};

pub(crate) const HA1_MD5: Column = "subscriber.ha1_md5";
const HA1_SHA256: Column = "subscriber.ha1_sha256";

/// Letters of a drawn password: 32 that are not mistaken for each other, so 5 bits each.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Letters of a drawn password: 120 bits, more than MD5's use deserves, and still typed in a minute.
const PASSWORD_LENGTH: usize = 24;

owned_statements! {
    "subscriber", "x.id, x.account_id, x.domain_id, x.site_id, x.username, x.display_name, x.extension, x.call_limit, \
        x.enabled, x.version, x.created_at, x.updated_at";
    /// Who has this username in a domain.
    USERNAME = "SELECT id FROM subscriber WHERE domain_id = $1 AND username = $2";
    /// Who has this extension at a customer.
    EXTENSION = "SELECT id FROM subscriber WHERE account_id = $1 AND extension = $2";
    UPDATE = "UPDATE subscriber SET site_id = $3, display_name = $4, extension = $5, call_limit = $6, enabled = $7, \
        version = version + 1, updated_at = $8 WHERE id = $1 AND version = $2";
    CREDENTIALS = "UPDATE subscriber SET ha1_md5 = $3, ha1_sha256 = $4, version = version + 1, updated_at = $5 \
        WHERE id = $1 AND version = $2";
    DELETE = "DELETE FROM subscriber WHERE id = $1 AND version = $2";
    /// Its credentials, before it goes.
    KEEP = "INSERT INTO kept_credentials (subscriber_id, ha1_md5, ha1_sha256, kept_at) \
        SELECT id, ha1_md5, ha1_sha256, $2 FROM subscriber WHERE id = $1";
    KEPT = "SELECT ha1_md5, ha1_sha256 FROM kept_credentials WHERE subscriber_id = $1";
    UNKEEP = "DELETE FROM kept_credentials WHERE subscriber_id = $1";
    /// What nobody took back.
    FORGET = "DELETE FROM kept_credentials WHERE kept_at < $1";
}

#[derive(Debug, FromRow)]
pub(crate) struct Row {
    id: Uuid,
    account_id: Uuid,
    domain_id: Uuid,
    site_id: Option<Uuid>,
    username: String,
    display_name: String,
    extension: Option<String>,
    call_limit: Option<i64>,
    enabled: bool,
    version: i64,
    created_at: i64,
    updated_at: i64,
}

impl Stored for Row {
    type Resource = Subscriber;
    fn resource(self) -> Result<Subscriber, DbError> {
        Ok(Subscriber {
            id: SubscriberId::from_uuid(self.id),
            account: AccountId::from_uuid(self.account_id),
            domain: DomainId::from_uuid(self.domain_id),
            site: self.site_id.map(SiteId::from_uuid),
            username: self.username,
            display_name: self.display_name,
            extension: self.extension.map(|e| parsed("subscriber.extension", &e)).transpose()?,
            call_limit: limit("subscriber.call_limit", self.call_limit)?,
            enabled: self.enabled,
            revision: revision(self.version, self.created_at, self.updated_at),
        })
    }
}

/// A subscriber with its sealed secrets: for the directory alone.
#[derive(FromRow)]
pub(crate) struct SealedRow {
    #[sqlx(flatten)]
    subscriber: Row,
    ha1_md5: Vec<u8>,
    ha1_sha256: Vec<u8>,
}

impl SealedRow {
    pub(crate) const fn id(&self) -> Uuid {
        self.subscriber.id
    }

    pub(crate) fn open(self, sealer: &Sealer) -> Result<(Subscriber, SubscriberSecrets), DbError> {
        let row = self.subscriber.id;
        let secrets = SubscriberSecrets {
            ha1_md5: sealer.open(HA1_MD5, row, &self.ha1_md5)?,
            ha1_sha256: sealer.open(HA1_SHA256, row, &self.ha1_sha256)?,
        };
        Ok((self.subscriber.resource()?, secrets))
    }
}

/// Digest secrets as they are stored, and the password when it was drawn here.
pub(crate) struct Credentials {
    ha1_md5: Vec<u8>,
    ha1_sha256: Vec<u8>,
    pub(crate) revealed: Option<Secret<String>>,
}

/// HA1 = H(username:realm:password) (RFC 7616, section 3.4.2), sealed.
pub(crate) fn credentials(
    sealer: &Sealer,
    subscriber: &Subscriber,
    sip_password: SipPassword,
) -> Result<Credentials, DbError> {
    let (password, is_drawn) = match sip_password.password {
        Some(password) => (password, false),
        None => (password_drawn()?, true),
    };
    let input = format!("{}:{}:{}", subscriber.username, sip_password.realm, password.expose());
    let row = subscriber.id.uuid();
    Ok(Credentials {
        ha1_md5: sealer.seal(HA1_MD5, row, &hex::encode(Md5::digest(&input)))?,
        ha1_sha256: sealer.seal(HA1_SHA256, row, &hex::encode(Sha256::digest(&input)))?,
        revealed: is_drawn.then_some(password),
    })
}

fn password_drawn() -> Result<Secret<String>, DbError> {
    let letters = drawn::<PASSWORD_LENGTH>()?.map(|octet| char::from(ALPHABET[usize::from(octet & 31)]));
    Ok(Secret::new(letters.iter().collect()))
}

/// A subscriber that comes into being, with its credentials.
pub(crate) struct NewSubscriber {
    pub(crate) subscriber: Subscriber,
    pub(crate) credentials: Credentials,
}

impl BulkRow for NewSubscriber {
    const TABLE: &'static str = "subscriber";
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "account_id",
        "domain_id",
        "site_id",
        "username",
        "display_name",
        "extension",
        "call_limit",
        "enabled",
        "version",
        "created_at",
        "updated_at",
        "ha1_md5",
        "ha1_sha256",
    ];

    fn values<'a>(&'a self, out: &mut Vec<Value<'a>>) {
        let (s, credentials) = (&self.subscriber, &self.credentials);
        out.extend([
            s.id.uuid().into(),
            s.account.uuid().into(),
            s.domain.uuid().into(),
            s.site.map(SiteId::uuid).into(),
            s.username.as_str().into(),
            s.display_name.as_str().into(),
            s.extension.as_ref().map(Extension::as_str).into(),
            s.call_limit.map(i64::from).into(),
            s.enabled.into(),
            s.revision.version.into(),
            s.revision.created_at.0.into(),
            s.revision.updated_at.0.into(),
            credentials.ha1_md5.as_slice().into(),
            credentials.ha1_sha256.as_slice().into(),
        ]);
    }
}

pub(crate) async fn update(tx: &mut Tx, s: &Subscriber) -> Result<(), DbError> {
    let affected = on_tx!(tx, c => sqlx::query(UPDATE)
        .bind(s.id.uuid()).bind(s.revision.version - 1).bind(s.site.map(SiteId::uuid)).bind(&s.display_name)
        .bind(s.extension.as_ref().map(Extension::as_str)).bind(s.call_limit.map(i64::from)).bind(s.enabled)
        .bind(s.revision.updated_at.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    one_row(affected)
}

pub(crate) async fn credentials_update(tx: &mut Tx, s: &Subscriber, secrets: &Credentials) -> Result<(), DbError> {
    let affected = on_tx!(tx, c => sqlx::query(CREDENTIALS)
        .bind(s.id.uuid()).bind(s.revision.version - 1).bind(&secrets.ha1_md5).bind(&secrets.ha1_sha256)
        .bind(s.revision.updated_at.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    one_row(affected)
}

/// Its credentials are kept for [`restored`], sealed as they are.
pub(crate) async fn delete(tx: &mut Tx, id: SubscriberId, version: i64, now: Timestamp) -> Result<(), DbError> {
    on_tx!(tx, c => sqlx::query(KEEP).bind(id.uuid()).bind(now.0).execute(c).await.map(|_| ()))?;
    let affected = on_tx!(tx, c => sqlx::query(DELETE)
        .bind(id.uuid()).bind(version).execute(c).await.map(|done| done.rows_affected()))?;
    one_row(affected)
}

/// The credentials of a subscriber that was removed.
pub(crate) async fn kept(tx: &mut Tx, id: SubscriberId) -> Result<Option<Credentials>, DbError> {
    let row: Option<(Vec<u8>, Vec<u8>)> =
        on_tx!(tx, c => sqlx::query_as(KEPT).bind(id.uuid()).fetch_optional(c).await)?;
    Ok(row.map(|(ha1_md5, ha1_sha256)| Credentials { ha1_md5, ha1_sha256, revealed: None }))
}

/// A subscriber that was removed, with the credentials that it had; they are kept no longer.
pub(crate) async fn restored(tx: &mut Tx, subscriber: Subscriber) -> Result<NewSubscriber, DbError> {
    let id = subscriber.id;
    let lost = || DbError::corrupt("kept_credentials.subscriber_id", format!("{id} went after it was planned"));
    let credentials = kept(tx, id).await?.ok_or_else(lost)?;
    on_tx!(tx, c => sqlx::query(UNKEEP).bind(id.uuid()).execute(c).await.map(|_| ()))?;
    Ok(NewSubscriber { subscriber, credentials })
}

/// Forgets credentials that were kept before `before`. Gives how many.
pub(crate) async fn forget(tx: &mut Tx, before: Timestamp) -> Result<u64, DbError> {
    Ok(on_tx!(tx, c => sqlx::query(FORGET).bind(before.0).execute(c).await.map(|done| done.rows_affected()))?)
}

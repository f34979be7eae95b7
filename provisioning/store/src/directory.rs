//! What the call core knows, with secrets unsealed for it alone.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use db::dialect::{Value, select_keyed};
use db::sqlx;
use db::{DbError, Tx, on_tx};
use model::change::{ResourceKind, ResourceRef};
use model::page::ReadError;
use provisioning::port::{DirectoryEntry, DirectorySource};
use uuid::Uuid;

use crate::row::{Row, Stored, read_error};
use crate::seal::Sealer;
use crate::{ProvisioningStore, account, domain, number, subscriber, trunk};

macro_rules! sealed_subscriber {
    () => {
        "x.id, x.account_id, x.domain_id, x.site_id, x.username, x.display_name, x.extension, x.call_limit, \
         x.enabled, x.version, x.created_at, x.updated_at, x.ha1_md5, x.ha1_sha256"
    };
}

macro_rules! sealed_trunks {
    () => {
        "SELECT x.id, x.account_id, x.name, x.address, x.username, x.call_limit, x.priority, x.keepalive_ms, \
         x.enabled, x.registrar, x.registration_domain, x.registration_expires_s, x.version, x.created_at, \
         x.updated_at, x.password, a.path FROM trunk x \
         JOIN account a ON a.id = x.account_id"
    };
}

const BY_ID: &str = "ORDER BY x.id";

db::statements! {
    SEQUENCE = "SELECT value FROM counter WHERE name = 'event'";
    ACCOUNTS = "SELECT * FROM account ORDER BY path";
    DOMAINS = "SELECT * FROM domain ORDER BY id";
    NUMBERS = "SELECT * FROM number ORDER BY id";
    SUBSCRIBERS = concat!("SELECT ", sealed_subscriber!(), " FROM subscriber x ORDER BY x.id");
    TRUNKS = concat!(sealed_trunks!(), " ORDER BY x.id");
    TRUNK = concat!(sealed_trunks!(), " WHERE x.id = $1");
}

#[async_trait]
impl DirectorySource for ProvisioningStore {
    async fn directory_snapshot(&self) -> Result<(i64, Vec<DirectoryEntry>), ReadError> {
        let sealer = Arc::clone(&self.sealer);
        let read = self.db.read(|tx| Box::pin(async move { snapshot(tx, &sealer).await }));
        read.await.map_err(read_error)
    }

    async fn directory_entries(&self, resources: &[ResourceRef]) -> Result<Vec<DirectoryEntry>, ReadError> {
        let (sealer, resources) = (Arc::clone(&self.sealer), resources.to_vec());
        let entries = self.db.read(|tx| Box::pin(async move { entries(tx, &sealer, &resources).await }));
        entries.await.map_err(read_error)
    }
}

async fn snapshot(tx: &mut Tx, sealer: &Sealer) -> Result<(i64, Vec<DirectoryEntry>), DbError> {
    let sequence: i64 = on_tx!(tx, c => sqlx::query_scalar(SEQUENCE).fetch_one(c).await)?;
    let mut entries = Vec::new();
    for row in all::<account::Row>(tx, ACCOUNTS).await? {
        entries.push(DirectoryEntry::Account(row.resource()?));
    }
    for row in all::<domain::Row>(tx, DOMAINS).await? {
        entries.push(DirectoryEntry::Domain(row.resource()?));
    }
    for row in all::<subscriber::SealedRow>(tx, SUBSCRIBERS).await? {
        let resource = ResourceRef { kind: ResourceKind::Subscriber, id: row.id() };
        entries.push(readable(resource, row.open(sealer).map(|(s, secrets)| DirectoryEntry::Subscriber(s, secrets))));
    }
    for row in all::<number::Row>(tx, NUMBERS).await? {
        entries.push(DirectoryEntry::Number(row.resource()?));
    }
    for row in all::<trunk::SealedRow>(tx, TRUNKS).await? {
        let resource = ResourceRef { kind: ResourceKind::Trunk, id: row.id() };
        entries.push(readable(resource, row.open(sealer).map(|(t, path, key)| DirectoryEntry::Trunk(t, path, key))));
    }
    Ok((sequence, entries))
}

/// One row that cannot be read must not keep all others from the call core.
fn readable(resource: ResourceRef, opened: Result<DirectoryEntry, DbError>) -> DirectoryEntry {
    opened.unwrap_or_else(|error| DirectoryEntry::Unreadable(resource, error.to_string()))
}

/// What there is of the named resources, a few statements for any number of them.
async fn entries(tx: &mut Tx, sealer: &Sealer, resources: &[ResourceRef]) -> Result<Vec<DirectoryEntry>, DbError> {
    let mut found: HashMap<ResourceRef, DirectoryEntry> = HashMap::with_capacity(resources.len());
    let keys = |kind: ResourceKind| -> Vec<Vec<Value<'static>>> {
        resources.iter().filter(|resource| resource.kind == kind).map(|resource| vec![resource.id.into()]).collect()
    };
    let of = |kind: ResourceKind, id: Uuid| ResourceRef { kind, id };
    for account in named::<account::Row>(tx, (account::COLUMNS, "account"), &keys(ResourceKind::Account)).await? {
        found.insert(of(ResourceKind::Account, account.id.uuid()), DirectoryEntry::Account(account));
    }
    for domain in named::<domain::Row>(tx, (domain::COLUMNS, "domain"), &keys(ResourceKind::Domain)).await? {
        found.insert(of(ResourceKind::Domain, domain.id.uuid()), DirectoryEntry::Domain(domain));
    }
    for number in named::<number::Row>(tx, (number::COLUMNS, "number"), &keys(ResourceKind::Number)).await? {
        found.insert(of(ResourceKind::Number, number.id.uuid()), DirectoryEntry::Number(number));
    }
    let table = (sealed_subscriber!(), "subscriber");
    let rows: Vec<subscriber::SealedRow> =
        select_keyed(tx, table, &["id"], &keys(ResourceKind::Subscriber), BY_ID).await?;
    for row in rows {
        let resource = of(ResourceKind::Subscriber, row.id());
        let opened = row.open(sealer).map(|(s, secrets)| DirectoryEntry::Subscriber(s, secrets));
        found.insert(resource, readable(resource, opened));
    }
    // few, and seldom changed
    for resource in resources.iter().filter(|resource| resource.kind == ResourceKind::Trunk) {
        if let Some(row) = one::<trunk::SealedRow>(tx, TRUNK, resource.id).await? {
            let opened = row.open(sealer).map(|(t, path, key)| DirectoryEntry::Trunk(t, path, key));
            found.insert(*resource, readable(*resource, opened));
        }
    }
    let entry = |resource: &ResourceRef| found.remove(resource).unwrap_or(DirectoryEntry::Gone(*resource));
    Ok(resources.iter().map(entry).collect())
}

async fn named<R: Stored>(
    tx: &mut Tx,
    table: (&str, &str),
    keys: &[Vec<Value<'_>>],
) -> Result<Vec<R::Resource>, DbError> {
    let rows: Vec<R> = select_keyed(tx, table, &["id"], keys, BY_ID).await?;
    rows.into_iter().map(R::resource).collect()
}

async fn all<R: Row>(tx: &mut Tx, sql: &'static str) -> Result<Vec<R>, DbError> {
    Ok(on_tx!(tx, c => sqlx::query_as(sql).fetch_all(c).await)?)
}

async fn one<R: Row>(tx: &mut Tx, sql: &'static str, id: Uuid) -> Result<Option<R>, DbError> {
    Ok(on_tx!(tx, c => sqlx::query_as(sql).bind(id).fetch_optional(c).await)?)
}

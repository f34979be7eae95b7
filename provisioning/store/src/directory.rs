//! What the call core knows, with secrets unsealed for it alone.

use std::sync::Arc;

use async_trait::async_trait;
use db::sqlx;
use db::{DbError, Tx, on_tx};
use model::change::{ResourceKind, ResourceRef};
use model::page::ReadError;
use provisioning::port::{DirectoryEntry, DirectorySource};
use uuid::Uuid;

use crate::row::{Lock, Row, Stored, load, read_error};
use crate::seal::Sealer;
use crate::{ProvisioningStore, account, domain, number, subscriber, trunk};

macro_rules! sealed_subscribers {
    () => {
        "SELECT x.id, x.account_id, x.domain_id, x.site_id, x.username, x.display_name, x.extension, x.call_limit, \
         x.enabled, x.version, x.created_at, x.updated_at, x.ha1_md5, x.ha1_sha256 FROM subscriber x"
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

db::statements! {
    SEQUENCE = "SELECT value FROM counter WHERE name = 'event'";
    ACCOUNTS = "SELECT * FROM account ORDER BY path";
    DOMAINS = "SELECT * FROM domain ORDER BY id";
    NUMBERS = "SELECT * FROM number ORDER BY id";
    SUBSCRIBERS = concat!(sealed_subscribers!(), " ORDER BY x.id");
    SUBSCRIBER = concat!(sealed_subscribers!(), " WHERE x.id = $1");
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
        let entries = self.db.read(|tx| {
            Box::pin(async move {
                let mut entries = Vec::with_capacity(resources.len());
                for resource in resources {
                    entries.push(entry(tx, &sealer, resource).await?);
                }
                Ok(entries)
            })
        });
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

async fn entry(tx: &mut Tx, sealer: &Sealer, resource: ResourceRef) -> Result<DirectoryEntry, DbError> {
    let id = resource.id;
    let entry = match resource.kind {
        ResourceKind::Account => {
            load::<account::Row>(tx, account::LOAD, id, Lock::Free).await?.map(DirectoryEntry::Account)
        }
        ResourceKind::Domain => {
            load::<domain::Row>(tx, domain::LOAD, id, Lock::Free).await?.map(DirectoryEntry::Domain)
        }
        ResourceKind::Number => {
            load::<number::Row>(tx, number::LOAD, id, Lock::Free).await?.map(DirectoryEntry::Number)
        }
        ResourceKind::Subscriber => {
            let row = one::<subscriber::SealedRow>(tx, SUBSCRIBER, id).await?;
            let opened = row.map(|row| row.open(sealer));
            opened.map(|opened| readable(resource, opened.map(|(s, secrets)| DirectoryEntry::Subscriber(s, secrets))))
        }
        ResourceKind::Trunk => {
            let row = one::<trunk::SealedRow>(tx, TRUNK, id).await?;
            let opened = row.map(|row| row.open(sealer));
            opened.map(|opened| readable(resource, opened.map(|(t, path, key)| DirectoryEntry::Trunk(t, path, key))))
        }
        _ => None,
    };
    Ok(entry.unwrap_or(DirectoryEntry::Gone(resource)))
}

async fn all<R: Row>(tx: &mut Tx, sql: &'static str) -> Result<Vec<R>, DbError> {
    Ok(on_tx!(tx, c => sqlx::query_as(sql).fetch_all(c).await)?)
}

async fn one<R: Row>(tx: &mut Tx, sql: &'static str, id: Uuid) -> Result<Option<R>, DbError> {
    Ok(on_tx!(tx, c => sqlx::query_as(sql).bind(id).fetch_optional(c).await)?)
}

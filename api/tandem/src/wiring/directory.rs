//! Keeps the call core's directory equal to what provisioning says.
//!
//! A change event names the resources that it touched; they are read as they are now and applied as one step, in
//! batches of at most [`BATCH_PERIOD`]. A full comparison every [`COMPARE_PERIOD`] heals whatever was missed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use model::change::{ResourceKind, ResourceRef};
use model::event::store::StoreEvent;
use model::id::{AccountId, DomainId, NumberId, SubscriberId, TrunkId};
use model::page::ReadError;
use provisioning::port::{DirectoryEntry as Provisioned, DirectorySource, SubscriberSecrets};
use provisioning::resource::Trunk;
use sip_services::directory::{
    Account, Directory, DirectoryChange, DirectoryEntry, DirectoryKey, Domain, Number, Subscriber, TrunkCredentials,
    TrunkRegistration,
};
use tokio::sync::watch;

/// How often the feed is looked at: a change reaches the core well within a second.
pub const BATCH_PERIOD: Duration = Duration::from_millis(50);
/// How often everything is compared. Long, since it reads all subscribers; short enough that a missed change does not
/// last a day.
pub const COMPARE_PERIOD: Duration = Duration::from_secs(600);
/// Events that one look at the feed takes. Those of bulk jobs name some hundred resources each: what they touched is in
/// the picture before the next are read.
const EVENTS_MAX: u32 = 20;

/// Why the directory could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Provisioning could not be read.
    #[error("provisioning could not be read")]
    Read(#[from] ReadError),
    /// The feed of the store could not be read.
    #[error("the feed of the store could not be read")]
    Feed(#[from] db::feed::FeedError),
}

/// What the core cannot use, and why. It acts as if these did not exist.
pub type LeftOut = BTreeMap<ResourceRef, String>;

/// The reconciler of the directory.
pub struct DirectoryFeed {
    source: Arc<dyn DirectorySource>,
    store: db::Db,
    directory: Arc<ArcSwap<Directory>>,
    sequence: i64,
    version: watch::Sender<u64>,
    left_out: Arc<ArcSwap<LeftOut>>,
    compare_at: Option<Instant>,
}

impl DirectoryFeed {
    /// Loads everything.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn load(source: Arc<dyn DirectorySource>, store: db::Db) -> Result<Self, DirectoryError> {
        let (sequence, entries) = source.directory_snapshot().await?;
        let mut left_out = LeftOut::new();
        let directory = Directory::default().apply(changes(entries, &mut left_out));
        let directory = Arc::new(ArcSwap::from_pointee(directory));
        let left_out = Arc::new(ArcSwap::from_pointee(left_out));
        Ok(Self { source, store, directory, sequence, version: watch::Sender::new(0), left_out, compare_at: None })
    }

    /// What the core cannot use.
    #[must_use]
    pub fn left_out(&self) -> Arc<ArcSwap<LeftOut>> {
        Arc::clone(&self.left_out)
    }

    /// Applies what the feed says, and compares everything when it is time to.
    ///
    /// # Errors
    /// When the store cannot be read; the next call goes on from the same place.
    pub async fn keep(&mut self, now: Instant) -> Result<(), DirectoryError> {
        let compare_at = *self.compare_at.get_or_insert(now + COMPARE_PERIOD);
        if now >= compare_at {
            self.compare().await?;
            self.compare_at = Some(now + COMPARE_PERIOD);
        }
        self.catch_up().await
    }

    /// The picture that the shards read.
    #[must_use]
    pub fn directory(&self) -> Arc<ArcSwap<Directory>> {
        Arc::clone(&self.directory)
    }

    /// Grows whenever another picture was swapped in.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Applies what the feed says since the last call.
    ///
    /// # Errors
    /// When the store cannot be read; the next call goes on from the same place.
    async fn catch_up(&mut self) -> Result<(), DirectoryError> {
        loop {
            let records = db::feed::read_after(&self.store, self.sequence, EVENTS_MAX).await?;
            let Some(last) = records.last().map(|record| record.sequence) else {
                return Ok(());
            };
            let mut touched: Vec<ResourceRef> = records
                .iter()
                .filter_map(|record| match &record.event {
                    StoreEvent::Changed(changed) => Some(changed.resources.iter().map(|r| r.resource)),
                    _ => None,
                })
                .flatten()
                .filter(|resource| matters(resource.kind))
                .collect();
            touched.sort_unstable();
            touched.dedup();
            if !touched.is_empty() {
                let entries = self.source.directory_entries(&touched).await?;
                let mut left_out = LeftOut::clone(&self.left_out.load());
                left_out.retain(|resource, _| touched.binary_search(resource).is_err());
                let next = self.directory.load().apply(changes(entries, &mut left_out));
                self.swap(next, left_out);
            }
            self.sequence = last;
        }
    }

    /// Compares everything and swaps in what the store says.
    ///
    /// # Errors
    /// When the store cannot be read; the picture stays as it is.
    async fn compare(&mut self) -> Result<(), DirectoryError> {
        let (sequence, entries) = self.source.directory_snapshot().await?;
        let mut left_out = LeftOut::new();
        let changes = changes(entries, &mut left_out);
        let next = self.directory.load().rebuilt(changes.into_iter().filter_map(|change| match change {
            DirectoryChange::Upsert(entry) => Some(entry),
            DirectoryChange::Removed(_) => None,
        }));
        self.swap(next, left_out);
        self.sequence = self.sequence.max(sequence);
        Ok(())
    }

    fn swap(&self, next: Directory, left_out: LeftOut) {
        if *self.left_out.load_full() != left_out {
            for (resource, why) in &left_out {
                tracing::warn!(kind = resource.kind.as_str(), id = %resource.id, why, "left out of the directory");
            }
            self.left_out.store(Arc::new(left_out));
        }
        self.directory.store(Arc::new(next));
        self.version.send_modify(|version| *version += 1);
    }
}

const fn matters(kind: ResourceKind) -> bool {
    matches!(
        kind,
        ResourceKind::Account
            | ResourceKind::Domain
            | ResourceKind::Subscriber
            | ResourceKind::Number
            | ResourceKind::Trunk
    )
}

fn changes(entries: Vec<Provisioned>, left_out: &mut LeftOut) -> Vec<DirectoryChange> {
    entries.into_iter().filter_map(|entry| change(entry, left_out)).collect()
}

/// What one provisioned resource means for the core; sites and tokens mean nothing to it.
fn change(provisioned: Provisioned, left_out: &mut LeftOut) -> Option<DirectoryChange> {
    let entry = match provisioned {
        Provisioned::Account(a) => {
            DirectoryEntry::Account(Account { id: a.id, path: a.path, call_limit: a.call_limit, enabled: a.enabled })
        }
        Provisioned::Domain(d) => DirectoryEntry::Domain(Domain {
            id: d.id,
            name: d.name,
            account: d.account,
            country_code: d.dial_plan.country_code,
            national_prefix: d.dial_plan.national_prefix,
            international_prefix: d.dial_plan.international_prefix,
        }),
        Provisioned::Subscriber(s, secrets) => {
            let Some((ha1_md5, ha1_sha256)) = digests(&secrets) else {
                let resource = ResourceRef { kind: ResourceKind::Subscriber, id: s.id.uuid() };
                left_out.insert(resource, "the digest secret is malformed".to_owned());
                return removed(resource);
            };
            DirectoryEntry::Subscriber(Subscriber {
                id: s.id,
                account: s.account,
                domain: s.domain,
                site: s.site,
                username: s.username,
                extension: s.extension.map(|e| e.to_string()),
                ha1_md5: model::secret::Secret::new(ha1_md5),
                ha1_sha256: model::secret::Secret::new(ha1_sha256),
                call_limit: s.call_limit,
                enabled: s.enabled,
            })
        }
        Provisioned::Number(n) => {
            DirectoryEntry::Number(Number { id: n.id, e164: n.e164, account: n.account, subscriber: n.subscriber })
        }
        Provisioned::Trunk(t, path, password) => DirectoryEntry::Trunk(trunk(t, path, password)),
        Provisioned::Gone(resource) => return removed(resource),
        Provisioned::Unreadable(resource, why) => {
            left_out.insert(resource, why);
            return removed(resource);
        }
    };
    Some(DirectoryChange::Upsert(entry))
}

fn removed(resource: ResourceRef) -> Option<DirectoryChange> {
    let key = match resource.kind {
        ResourceKind::Account => DirectoryKey::Account(AccountId::from_uuid(resource.id)),
        ResourceKind::Domain => DirectoryKey::Domain(DomainId::from_uuid(resource.id)),
        ResourceKind::Subscriber => DirectoryKey::Subscriber(SubscriberId::from_uuid(resource.id)),
        ResourceKind::Number => DirectoryKey::Number(NumberId::from_uuid(resource.id)),
        ResourceKind::Trunk => DirectoryKey::Trunk(TrunkId::from_uuid(resource.id)),
        _ => return None,
    };
    Some(DirectoryChange::Removed(key))
}

fn trunk(
    t: Trunk,
    path: model::tenancy::AccountPath,
    password: Option<model::secret::Secret<String>>,
) -> sip_services::directory::Trunk {
    sip_services::directory::Trunk {
        id: t.id,
        account: t.account,
        path,
        name: t.name,
        address: t.address,
        credentials: t.username.zip(password).map(|(username, password)| TrunkCredentials { username, password }),
        registration: t.registration.map(|r| TrunkRegistration {
            registrar: r.registrar,
            domain: r.domain,
            expires_s: r.expires_s,
        }),
        call_limit: t.call_limit,
        priority: i32::try_from(t.priority).unwrap_or(i32::MAX),
        keepalive_ms: t.keepalive_ms,
        enabled: t.enabled,
    }
}

fn digests(secrets: &SubscriberSecrets) -> Option<([u8; 16], [u8; 32])> {
    let md5 = hex::decode(secrets.ha1_md5.expose()).ok()?.try_into().ok()?;
    let sha256 = hex::decode(secrets.ha1_sha256.expose()).ok()?.try_into().ok()?;
    Some((md5, sha256))
}

//! The call core's picture of tenants, subscribers, numbers and trunks.
//!
//! An immutable value: [`Directory::apply`] makes the next one, sharing what did not change, and the root swaps it in.
//! Counters of current calls are carried from one picture to the next, so that a change of a limit never forgets calls.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use imbl::HashMap;
use model::domain::SipDomain;
use model::id::{AccountId, DomainId, NumberId, SiteId, SubscriberId, TrunkId};
use model::number::E164;
use model::secret::Secret;
use model::tenancy::AccountPath;
use smallvec::SmallVec;

use crate::limits::Counter;

/// An account as the call core sees it.
#[derive(Debug, Clone)]
pub struct Account {
    /// The account.
    pub id: AccountId,
    /// Where it sits in the tree.
    pub path: AccountPath,
    /// Concurrent calls at and below; none: no limit of its own.
    pub call_limit: Option<u32>,
    /// A disabled account's subscribers and trunks (and those below) can neither register nor call.
    pub enabled: bool,
}

/// A SIP domain and how digits dialled in it become E.164.
#[derive(Debug, Clone)]
pub struct Domain {
    /// The domain.
    pub id: DomainId,
    /// Its canonical name, which is also the digest realm.
    pub name: SipDomain,
    /// Its customer.
    pub account: AccountId,
    /// Digits of the country code, without `+`.
    pub country_code: String,
    /// Digits before a national number, such as `0`; empty where there are none.
    pub national_prefix: String,
    /// Digits before an international number, such as `00`.
    pub international_prefix: String,
}

/// A subscriber.
#[derive(Debug, Clone)]
pub struct Subscriber {
    /// The subscriber.
    pub id: SubscriberId,
    /// Its customer.
    pub account: AccountId,
    /// Its domain.
    pub domain: DomainId,
    /// Its site, where it has one.
    pub site: Option<SiteId>,
    /// The user part of its address of record, which is also its digest user name.
    pub username: String,
    /// Its extension, where it has one.
    pub extension: Option<String>,
    /// MD5 over `username:realm:password`, as 16 octets.
    pub ha1_md5: Secret<[u8; 16]>,
    /// SHA-256 over the same, as 32 octets.
    pub ha1_sha256: Secret<[u8; 32]>,
    /// Concurrent calls; none: no limit of its own.
    pub call_limit: Option<u32>,
    /// Whether it may register and call.
    pub enabled: bool,
}

/// A number of the inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number {
    /// The inventory entry.
    pub id: NumberId,
    /// The number.
    pub e164: E164,
    /// Its customer.
    pub account: AccountId,
    /// Whom it rings, where it is assigned.
    pub subscriber: Option<SubscriberId>,
}

/// User name and password for requests that we send to a trunk.
#[derive(Debug, Clone)]
pub struct TrunkCredentials {
    /// Digest user name.
    pub username: String,
    /// Password in clear: the realm is the peer's, so there is no HA1 beforehand.
    pub password: Secret<String>,
}

/// What a carrier wants that we register with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkRegistration {
    /// Where REGISTER goes.
    pub registrar: SocketAddr,
    /// Host of our address of record there; its user is that of the credentials.
    pub domain: String,
    /// How long a registration is wished for, seconds.
    pub expires_s: u32,
}

/// A trunk.
#[derive(Debug, Clone)]
pub struct Trunk {
    /// The trunk.
    pub id: TrunkId,
    /// Its owner; it serves the owner's whole subtree.
    pub account: AccountId,
    /// The owner's path.
    pub path: AccountPath,
    /// Its name, for logs and alarms.
    pub name: String,
    /// Where requests go and where its requests come from.
    pub address: SocketAddr,
    /// For 401 and 407.
    pub credentials: Option<TrunkCredentials>,
    /// Present when the carrier wants REGISTER from us; it needs credentials.
    pub registration: Option<TrunkRegistration>,
    /// Concurrent calls; none: no limit.
    pub call_limit: Option<u32>,
    /// Lower is tried first.
    pub priority: i32,
    /// Period of OPTIONS; 0: none, the trunk counts as up.
    pub keepalive_ms: u32,
    /// Whether it may be used.
    pub enabled: bool,
}

/// An entry with the calls that are up on it.
#[derive(Debug, Clone)]
pub struct Listed<T> {
    entry: T,
    /// Calls that are up; the same counter in every later picture.
    pub calls: Counter,
}

impl<T> Deref for Listed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.entry
    }
}

/// What an entry of the directory is.
#[derive(Debug, Clone)]
pub enum DirectoryEntry {
    /// An account.
    Account(Account),
    /// A domain.
    Domain(Domain),
    /// A subscriber.
    Subscriber(Subscriber),
    /// A number.
    Number(Number),
    /// A trunk.
    Trunk(Trunk),
}

/// Which entry is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DirectoryKey {
    /// An account.
    Account(AccountId),
    /// A domain.
    Domain(DomainId),
    /// A subscriber.
    Subscriber(SubscriberId),
    /// A number.
    Number(NumberId),
    /// A trunk.
    Trunk(TrunkId),
}

/// One step from a picture to the next.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "nearly all are entries; a box would be an allocation for each")]
pub enum DirectoryChange {
    /// The entry is new or has changed.
    Upsert(DirectoryEntry),
    /// The entry is gone.
    Removed(DirectoryKey),
}

/// Numbers of one subscriber, in the order of their making; nearly all have one.
type OwnNumbers = SmallVec<[(NumberId, E164); 1]>;

/// The picture. Cloning is cheap: the maps are persistent.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    accounts: HashMap<AccountId, Arc<Listed<Account>>>,
    accounts_by_path: HashMap<AccountPath, AccountId>,
    domains: HashMap<DomainId, Arc<Domain>>,
    domains_by_name: HashMap<SipDomain, DomainId>,
    subscribers: HashMap<SubscriberId, Arc<Listed<Subscriber>>>,
    subscribers_by_name: HashMap<(DomainId, Box<str>), SubscriberId>,
    subscribers_by_extension: HashMap<(AccountId, Box<str>), SubscriberId>,
    numbers: HashMap<E164, Arc<Number>>,
    numbers_by_id: HashMap<NumberId, E164>,
    numbers_by_subscriber: HashMap<SubscriberId, OwnNumbers>,
    trunks: HashMap<TrunkId, Arc<Listed<Trunk>>>,
    trunks_by_address: HashMap<SocketAddr, TrunkId>,
    /// Sorted by priority, then by id: an installation has few trunks.
    trunk_order: Arc<[TrunkId]>,
}

impl Directory {
    /// The next picture. Changes apply in order; an unknown removal is no error, since a change may come twice.
    #[must_use]
    pub fn apply(&self, changes: impl IntoIterator<Item = DirectoryChange>) -> Self {
        let mut next = self.clone();
        let mut trunks_changed = false;
        for change in changes {
            match change {
                DirectoryChange::Upsert(DirectoryEntry::Account(account)) => next.account_put(account),
                DirectoryChange::Upsert(DirectoryEntry::Domain(domain)) => next.domain_put(domain),
                DirectoryChange::Upsert(DirectoryEntry::Subscriber(subscriber)) => next.subscriber_put(subscriber),
                DirectoryChange::Upsert(DirectoryEntry::Number(number)) => next.number_put(number),
                DirectoryChange::Upsert(DirectoryEntry::Trunk(trunk)) => {
                    trunks_changed = true;
                    next.trunk_put(trunk);
                }
                DirectoryChange::Removed(key) => {
                    trunks_changed |= matches!(key, DirectoryKey::Trunk(_));
                    next.remove(key);
                }
            }
        }
        if trunks_changed {
            let mut order: Vec<_> = next.trunks.values().map(|t| (t.priority, t.id)).collect();
            order.sort_unstable();
            next.trunk_order = order.into_iter().map(|(_, id)| id).collect();
        }
        next
    }

    /// The picture made of exactly these entries, with the call counters of `self`: the periodic full comparison.
    #[must_use]
    pub fn rebuilt(&self, entries: impl IntoIterator<Item = DirectoryEntry>) -> Self {
        let mut next = Self::default().apply(entries.into_iter().map(DirectoryChange::Upsert));
        fn carry<K: Clone + Eq + std::hash::Hash, T: Clone>(
            next: &mut HashMap<K, Arc<Listed<T>>>,
            old: &HashMap<K, Arc<Listed<T>>>,
        ) {
            for (key, before) in old {
                if let Some(now) = next.get_mut(key) {
                    *now = Arc::new(Listed { entry: now.entry.clone(), calls: before.calls.clone() });
                }
            }
        }
        carry(&mut next.accounts, &self.accounts);
        carry(&mut next.subscribers, &self.subscribers);
        carry(&mut next.trunks, &self.trunks);
        next
    }

    /// An account.
    #[must_use]
    pub fn account(&self, id: AccountId) -> Option<&Arc<Listed<Account>>> {
        self.accounts.get(&id)
    }

    /// The accounts from the root down to `path`, as far as they are known.
    pub fn ancestry(&self, path: &AccountPath) -> impl Iterator<Item = &Arc<Listed<Account>>> {
        path.ancestry().into_iter().filter_map(|p| self.accounts.get(self.accounts_by_path.get(&p)?))
    }

    /// Whether the account and everyone above it are enabled.
    #[must_use]
    pub fn account_enabled(&self, id: AccountId) -> bool {
        self.accounts.get(&id).is_some_and(|account| self.ancestry(&account.path).all(|a| a.enabled))
    }

    /// A domain.
    #[must_use]
    pub fn domain(&self, id: DomainId) -> Option<&Arc<Domain>> {
        self.domains.get(&id)
    }

    /// The domain with this host name, in any case.
    #[must_use]
    pub fn domain_by_name(&self, host: &str) -> Option<&Arc<Domain>> {
        let name: SipDomain = host.parse().ok()?;
        self.domains.get(self.domains_by_name.get(&name)?)
    }

    /// A subscriber.
    #[must_use]
    pub fn subscriber(&self, id: SubscriberId) -> Option<&Arc<Listed<Subscriber>>> {
        self.subscribers.get(&id)
    }

    /// The subscriber with this user part in this domain.
    #[must_use]
    pub fn subscriber_by_name(&self, domain: DomainId, username: &str) -> Option<&Arc<Listed<Subscriber>>> {
        self.subscribers.get(self.subscribers_by_name.get(&(domain, username.into()))?)
    }

    /// The subscriber with this extension at this customer.
    #[must_use]
    pub fn subscriber_by_extension(&self, account: AccountId, extension: &str) -> Option<&Arc<Listed<Subscriber>>> {
        self.subscribers.get(self.subscribers_by_extension.get(&(account, extension.into()))?)
    }

    /// A hosted number.
    #[must_use]
    pub fn number(&self, e164: E164) -> Option<&Arc<Number>> {
        self.numbers.get(&e164)
    }

    /// The number that a subscriber presents: the first that it got.
    #[must_use]
    pub fn calling_number(&self, subscriber: SubscriberId) -> Option<E164> {
        self.numbers_by_subscriber.get(&subscriber)?.first().map(|(_, e164)| *e164)
    }

    /// A trunk.
    #[must_use]
    pub fn trunk(&self, id: TrunkId) -> Option<&Arc<Listed<Trunk>>> {
        self.trunks.get(&id)
    }

    /// The trunk whose requests come from this address.
    #[must_use]
    pub fn trunk_by_address(&self, source: SocketAddr) -> Option<&Arc<Listed<Trunk>>> {
        self.trunks.get(self.trunks_by_address.get(&source)?)
    }

    /// All trunks, by priority.
    pub fn trunks(&self) -> impl Iterator<Item = &Arc<Listed<Trunk>>> {
        self.trunk_order.iter().filter_map(|id| self.trunks.get(id))
    }

    /// The enabled trunks that serve the account at `path`, by priority.
    pub fn trunks_serving(&self, path: &AccountPath) -> impl Iterator<Item = &Arc<Listed<Trunk>>> {
        self.trunks().filter(move |trunk| trunk.enabled && trunk.path.contains(path))
    }

    /// Entries of each kind: accounts, domains, subscribers, numbers, trunks.
    #[must_use]
    pub fn counts(&self) -> [usize; 5] {
        [self.accounts.len(), self.domains.len(), self.subscribers.len(), self.numbers.len(), self.trunks.len()]
    }

    fn account_put(&mut self, entry: Account) {
        let (id, path) = (entry.id, entry.path.clone());
        let calls = match self.accounts.get(&id) {
            Some(old) => {
                self.accounts_by_path.remove(&old.path);
                old.calls.clone()
            }
            None => Counter::default(),
        };
        self.accounts_by_path.insert(path, id);
        self.accounts.insert(id, Arc::new(Listed { entry, calls }));
    }

    fn domain_put(&mut self, entry: Domain) {
        if let Some(old) = self.domains.get(&entry.id).cloned() {
            self.domain_unlink(&old);
        }
        self.domains_by_name.insert(entry.name.clone(), entry.id);
        self.domains.insert(entry.id, Arc::new(entry));
    }

    /// Removes the index entry of `old`, unless another domain has taken the name over meanwhile.
    fn domain_unlink(&mut self, old: &Domain) {
        if self.domains_by_name.get(&old.name) == Some(&old.id) {
            self.domains_by_name.remove(&old.name);
        }
    }

    fn subscriber_put(&mut self, entry: Subscriber) {
        let id = entry.id;
        let calls = match self.subscribers.get(&id).cloned() {
            Some(old) => {
                self.subscriber_unlink(&old);
                old.calls.clone()
            }
            None => Counter::default(),
        };
        self.subscribers_by_name.insert((entry.domain, entry.username.as_str().into()), id);
        if let Some(extension) = &entry.extension {
            self.subscribers_by_extension.insert((entry.account, extension.as_str().into()), id);
        }
        self.subscribers.insert(id, Arc::new(Listed { entry, calls }));
    }

    /// Removes the index entries of `old`, unless another subscriber has taken the name over meanwhile.
    fn subscriber_unlink(&mut self, old: &Subscriber) {
        let name = (old.domain, old.username.as_str().into());
        if self.subscribers_by_name.get(&name) == Some(&old.id) {
            self.subscribers_by_name.remove(&name);
        }
        if let Some(extension) = &old.extension {
            let key = (old.account, extension.as_str().into());
            if self.subscribers_by_extension.get(&key) == Some(&old.id) {
                self.subscribers_by_extension.remove(&key);
            }
        }
    }

    fn number_put(&mut self, entry: Number) {
        self.number_remove(entry.id);
        if let Some(displaced) = self.numbers.get(&entry.e164).cloned() {
            self.number_unlink(&displaced);
        }
        if let Some(subscriber) = entry.subscriber {
            let mut own = self.numbers_by_subscriber.get(&subscriber).cloned().unwrap_or_default();
            own.push((entry.id, entry.e164));
            own.sort_unstable();
            self.numbers_by_subscriber.insert(subscriber, own);
        }
        self.numbers_by_id.insert(entry.id, entry.e164);
        self.numbers.insert(entry.e164, Arc::new(entry));
    }

    fn number_remove(&mut self, id: NumberId) {
        let Some(e164) = self.numbers_by_id.remove(&id) else { return };
        // The same number may have come back under another id.
        let Some(old) = self.numbers.get(&e164).filter(|n| n.id == id).cloned() else { return };
        self.numbers.remove(&e164);
        self.number_unlink(&old);
    }

    /// Takes a number from the list of its subscriber.
    fn number_unlink(&mut self, old: &Number) {
        let Some(subscriber) = old.subscriber else { return };
        let mut own = self.numbers_by_subscriber.get(&subscriber).cloned().unwrap_or_default();
        own.retain(|(number, _)| *number != old.id);
        if own.is_empty() {
            self.numbers_by_subscriber.remove(&subscriber);
        } else {
            self.numbers_by_subscriber.insert(subscriber, own);
        }
    }

    fn trunk_put(&mut self, entry: Trunk) {
        let calls = match self.trunks.get(&entry.id) {
            Some(old) => {
                if self.trunks_by_address.get(&old.address) == Some(&entry.id) {
                    self.trunks_by_address.remove(&old.address);
                }
                old.calls.clone()
            }
            None => Counter::default(),
        };
        self.trunks_by_address.insert(entry.address, entry.id);
        self.trunks.insert(entry.id, Arc::new(Listed { entry, calls }));
    }

    fn remove(&mut self, key: DirectoryKey) {
        match key {
            DirectoryKey::Account(id) => {
                if let Some(old) = self.accounts.remove(&id) {
                    self.accounts_by_path.remove(&old.path);
                }
            }
            DirectoryKey::Domain(id) => {
                if let Some(old) = self.domains.remove(&id) {
                    self.domain_unlink(&old);
                }
            }
            DirectoryKey::Subscriber(id) => {
                if let Some(old) = self.subscribers.remove(&id) {
                    self.subscriber_unlink(&old);
                }
            }
            DirectoryKey::Number(id) => self.number_remove(id),
            DirectoryKey::Trunk(id) => {
                if let Some(old) = self.trunks.remove(&id)
                    && self.trunks_by_address.get(&old.address) == Some(&id)
                {
                    self.trunks_by_address.remove(&old.address);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn entries_are_found_by_every_name() {
        let world = World::new();
        let directory = world.directory();
        let alice = &world.alice;
        let domain = directory.domain_by_name("ALPHA.example").expect("hosted");
        assert_eq!(directory.subscriber_by_name(domain.id, "alice").map(|s| s.id), Some(alice.id));
        assert_eq!(directory.subscriber_by_extension(alice.account, "100").map(|s| s.id), Some(alice.id));
        assert_eq!(directory.calling_number(alice.id), Some(world.alice_number));
        assert_eq!(
            directory.trunks_serving(&world.customer_path).map(|t| t.id).collect::<Vec<_>>(),
            vec![world.trunk.id, world.backup_trunk.id]
        );
        assert_eq!(directory.ancestry(&world.customer_path).count(), 3);
    }

    #[test]
    fn counters_outlive_changes_and_names_follow_them() {
        let world = World::new();
        let before = world.directory();
        let slot = before.subscriber(world.alice.id).expect("there").calls.acquire(Some(1)).expect("free");
        let renamed = Subscriber { username: "alicia".to_owned(), ..world.alice.clone() };
        let after = before.apply([DirectoryChange::Upsert(DirectoryEntry::Subscriber(renamed))]);
        assert_eq!(after.subscriber(world.alice.id).expect("there").calls.current(), 1);
        assert!(after.subscriber_by_name(world.alice.domain, "alice").is_none());
        assert!(after.subscriber_by_name(world.alice.domain, "alicia").is_some());
        let rebuilt = after.rebuilt([DirectoryEntry::Subscriber(world.alice.clone())]);
        assert_eq!(rebuilt.subscriber(world.alice.id).expect("there").calls.current(), 1);
        assert_eq!(rebuilt.counts(), [0, 0, 1, 0, 0]);
        drop(slot);
        assert_eq!(rebuilt.subscriber(world.alice.id).expect("there").calls.current(), 0);
    }

    #[test]
    fn removal_leaves_no_trace_in_the_indices() {
        let world = World::new();
        let directory = world.directory();
        let number = directory.number(world.alice_number).expect("there").id;
        let after = directory.apply([
            DirectoryChange::Removed(DirectoryKey::Subscriber(world.alice.id)),
            DirectoryChange::Removed(DirectoryKey::Number(number)),
            DirectoryChange::Removed(DirectoryKey::Trunk(world.trunk.id)),
            DirectoryChange::Removed(DirectoryKey::Trunk(world.trunk.id)),
        ]);
        assert!(after.subscriber_by_extension(world.alice.account, "100").is_none());
        assert!(after.number(world.alice_number).is_none() && after.calling_number(world.alice.id).is_none());
        assert!(after.trunk_by_address(world.trunk.address).is_none());
        assert_eq!(after.trunks().count(), 1);
    }

    /// A change that is taken back brings an old identifier again: in one batch it comes before the removal of the one
    /// that held the name meanwhile.
    #[test]
    fn a_name_stays_with_who_took_it_over() {
        let world = World::new();
        let directory = world.directory();
        let domain = directory.domain_by_name("alpha.example").expect("hosted").clone();
        let number = directory.number(world.alice_number).expect("there").clone();
        let (held_domain, held_number) = (DomainId::from_uuid(uuid(1)), NumberId::from_uuid(uuid(2)));
        let meanwhile = directory.apply([
            DirectoryChange::Removed(DirectoryKey::Domain(domain.id)),
            DirectoryChange::Upsert(DirectoryEntry::Domain(Domain { id: held_domain, ..(*domain).clone() })),
            DirectoryChange::Removed(DirectoryKey::Number(number.id)),
            DirectoryChange::Upsert(DirectoryEntry::Number(Number { id: held_number, ..(*number).clone() })),
        ]);
        assert_eq!(meanwhile.domain_by_name("alpha.example").map(|d| d.id), Some(held_domain));
        let again = meanwhile.apply([
            DirectoryChange::Upsert(DirectoryEntry::Domain((*domain).clone())),
            DirectoryChange::Removed(DirectoryKey::Domain(held_domain)),
            DirectoryChange::Upsert(DirectoryEntry::Number(Number { subscriber: None, ..(*number).clone() })),
            DirectoryChange::Removed(DirectoryKey::Number(held_number)),
        ]);
        assert_eq!(again.domain_by_name("alpha.example").map(|d| d.id), Some(domain.id));
        assert_eq!(again.number(world.alice_number).map(|n| n.id), Some(number.id));
        assert_eq!(again.calling_number(world.alice.id), None, "it is nobody's number now");
    }

    fn uuid(n: u128) -> uuid::Uuid {
        uuid::Uuid::from_u128(n)
    }
}

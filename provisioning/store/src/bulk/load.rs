//! Takes in what lines name, a few statements for any number of lines. In a transaction that writes, on PostgreSQL, what
//! is changed or counted is locked, in the order that the crate's doc gives: names are looked up first without a lock,
//! since an object never changes its owner.

use std::collections::{BTreeSet, HashMap, HashSet};

use db::dialect::{Value, select_keyed};
use db::{DbError, Tx};
use model::domain::SipDomain;
use model::id::{AccountId, DomainId, SiteId, SubscriberId};
use model::number::{E164, Extension};
use model::tenancy::AccountPath;
use provisioning::bulk::{AccountName, Action, AddressOfRecord, Line, Object, Picture};
use provisioning::resource::Domain;
use uuid::Uuid;

use crate::row::{Lock, Row, Stored, parsed};
use crate::view::populated;
use crate::{account, domain, number, site, subscriber};

const BY_PATH: &str = "ORDER BY x.path";
const BY_ID: &str = "ORDER BY x.id";

/// What the lines name, by what they know it.
#[derive(Debug, Default)]
struct Named<'a> {
    accounts: HashSet<&'a AccountName>,
    domains: HashSet<&'a SipDomain>,
    addresses: HashSet<&'a AddressOfRecord>,
    extensions: HashSet<(&'a SipDomain, &'a Extension)>,
    sites: HashSet<(&'a AccountName, &'a str)>,
    sites_of_domains: HashSet<(&'a SipDomain, &'a str)>,
    numbers: HashSet<E164>,
    /// Whose numbers are looked at.
    answering: HashSet<&'a AddressOfRecord>,
    deleted_domains: HashSet<&'a SipDomain>,
    deleted_sites: HashSet<(&'a AccountName, &'a str)>,
}

impl<'a> Named<'a> {
    fn of(lines: impl Iterator<Item = &'a Line>) -> Self {
        let mut named = Self::default();
        for Line { action, object } in lines {
            named.add(*action == Action::Delete, object);
        }
        named
    }

    fn add(&mut self, deletes: bool, object: &'a Object) {
        match object {
            Object::Account { name, .. } => {
                self.accounts.insert(name);
            }
            Object::Domain { name, account, .. } => {
                self.domains.insert(name);
                self.accounts.extend(account);
                self.deleted_domains.extend(deletes.then_some(name));
            }
            Object::Site { account, name } => {
                self.accounts.insert(account);
                self.sites.insert((account, name));
                self.deleted_sites.extend(deletes.then_some((account, name.as_str())));
            }
            Object::Subscriber { address, site, extension, numbers, .. } => {
                self.addresses.insert(address);
                self.domains.insert(&address.domain);
                self.extensions.extend(extension.iter().flatten().map(|extension| (&address.domain, extension)));
                self.sites_of_domains.extend(site.iter().flatten().map(|site| (&address.domain, site.as_str())));
                if deletes || numbers.is_some() {
                    self.answering.insert(address);
                }
                self.numbers.extend(numbers.iter().flatten());
            }
            Object::Number { number, account, subscriber } => {
                self.numbers.insert(*number);
                self.accounts.extend(account);
                if let Some(address) = subscriber.as_ref().and_then(Option::as_ref) {
                    self.addresses.insert(address);
                    self.domains.insert(&address.domain);
                }
            }
        }
    }
}

/// Takes in what `lines` name, with names of accounts from `root` down.
pub(super) async fn load<'a>(
    tx: &mut Tx,
    root: (AccountId, &AccountPath),
    lines: impl Iterator<Item = &'a Line>,
    picture: &mut Picture,
) -> Result<(), DbError> {
    let named = Named::of(lines);
    let lock = Lock::Held.clause(tx);
    let lock = if lock.is_empty() { String::new() } else { format!("{lock} OF x") };

    // Who owns what, without a lock.
    let below = named_accounts(tx, root.0, &named.accounts, picture).await?;
    let account_of = |name: &AccountName, picture: &Picture| {
        name.names().iter().try_fold(root.0, |above, name| {
            picture.account_below(above, name).or_else(|| below.get(&(above, name.clone())).copied())
        })
    };
    let keys: Vec<_> = named.domains.iter().map(|name| vec![Value::Text(Some(name.as_str()))]).collect();
    let domains = select::<domain::Row>(tx, ("domain", domain::COLUMNS), &["name"], &keys, BY_ID).await?;
    let by_name: HashMap<SipDomain, Domain> = domains.into_iter().map(|d| (d.name.clone(), d)).collect();
    let domain = |name: &SipDomain, picture: &Picture| -> Option<(DomainId, AccountId)> {
        let known = picture.domain_by_name(name).or_else(|| by_name.get(name));
        known.map(|domain| (domain.id, domain.account))
    };
    let e164s: Vec<_> = named.numbers.iter().map(|e164| vec![Value::Owned(e164.to_string())]).collect();
    let numbers = select::<number::Row>(tx, ("number", number::COLUMNS), &["e164"], &e164s, BY_ID).await?;
    // who has them: a number that is given back rests for its customer
    let ids: BTreeSet<Uuid> = numbers.iter().filter_map(|number| number.subscriber).map(SubscriberId::uuid).collect();
    let keys: Vec<_> = ids.into_iter().map(|id| vec![id.into()]).collect();
    let table = ("subscriber", subscriber::COLUMNS);
    let answering_now = select::<subscriber::Row>(tx, table, &["id"], &keys, BY_ID).await?;

    // Accounts, with all above them, in the order of the path.
    let mut ids: BTreeSet<Uuid> =
        named.accounts.iter().filter_map(|name| account_of(name, picture)).map(AccountId::uuid).collect();
    ids.extend(by_name.values().map(|domain| domain.account.uuid()));
    ids.extend(numbers.iter().map(|number| number.account.uuid()));
    ids.extend(numbers.iter().filter_map(|number| number.hold).map(|hold| hold.account.uuid()));
    ids.extend(answering_now.iter().map(|subscriber| subscriber.account.uuid()));
    ids.retain(|id| picture.account_by_id(AccountId::from_uuid(*id)).is_none());
    let keys: Vec<_> = ids.into_iter().map(|id| vec![id.into()]).collect();
    let found: Vec<(String,)> = select_keyed(tx, ("x.path", "account"), &["id"], &keys, BY_PATH).await?;
    let mut paths: BTreeSet<AccountPath> = root.1.ancestry().into_iter().collect();
    for (path,) in found {
        paths.extend(parsed::<AccountPath>("account.path", &path)?.ancestry());
    }
    let keys: Vec<_> = paths.iter().map(|path| vec![Value::Text(Some(path.as_str()))]).collect();
    let tail = format!("{BY_PATH}{lock}");
    for account in select::<account::Row>(tx, ("account", account::COLUMNS), &["path"], &keys, &tail).await? {
        picture.account(account);
    }

    // Subscribers by their names, and who holds the extensions that they want.
    let tail = format!("{BY_ID}{lock}");
    let mut keys = Vec::new();
    for address in &named.addresses {
        if let Some((id, _)) = domain(&address.domain, picture) {
            keys.push(vec![id.uuid().into(), Value::Text(Some(&address.username))]);
        }
    }
    let mut subscribers = Vec::new();
    subscribers.extend(select::<subscriber::Row>(tx, table, &["domain_id", "username"], &keys, &tail).await?);
    let mut keys = Vec::new();
    for (name, extension) in &named.extensions {
        if let Some((_, account)) = domain(name, picture) {
            keys.push(vec![account.uuid().into(), Value::Text(Some(extension.as_str()))]);
        }
    }
    subscribers.extend(select::<subscriber::Row>(tx, table, &["account_id", "extension"], &keys, BY_ID).await?);
    let answering: HashSet<(DomainId, &str)> = named
        .answering
        .iter()
        .filter_map(|address| Some((domain(&address.domain, picture)?.0, address.username.as_str())))
        .collect();
    let answering: BTreeSet<Uuid> = subscribers
        .iter()
        .filter(|subscriber| answering.contains(&(subscriber.domain, subscriber.username.as_str())))
        .map(|subscriber| SubscriberId::uuid(subscriber.id))
        .collect();
    for subscriber in subscribers.into_iter().chain(answering_now) {
        picture.subscriber(subscriber);
    }

    // Numbers by their digits, and those of subscribers.
    let table = ("number", number::COLUMNS);
    for number in select::<number::Row>(tx, table, &["e164"], &e164s, &tail).await? {
        picture.number(number);
    }
    let keys: Vec<_> = answering.into_iter().map(|id| vec![id.into()]).collect();
    for number in select::<number::Row>(tx, table, &["subscriber_id"], &keys, &tail).await? {
        picture.number(number);
    }

    // Domains and sites; a line changes few of them.
    let keys: Vec<_> = named.domains.iter().map(|name| vec![Value::Text(Some(name.as_str()))]).collect();
    for domain in select::<domain::Row>(tx, ("domain", domain::COLUMNS), &["name"], &keys, &tail).await? {
        picture.domain(domain);
    }
    let mut wanted: BTreeSet<(Uuid, &str)> = BTreeSet::new();
    for (name, site) in &named.sites {
        wanted.extend(account_of(name, picture).map(|account| (account.uuid(), *site)));
    }
    for (name, site) in &named.sites_of_domains {
        wanted.extend(domain(name, picture).map(|(_, account)| (account.uuid(), *site)));
    }
    let keys: Vec<_> =
        wanted.into_iter().map(|(account, name)| vec![account.into(), Value::Text(Some(name))]).collect();
    for site in select::<site::Row>(tx, ("site", site::COLUMNS), &["account_id", "name"], &keys, &tail).await? {
        picture.site(site);
    }

    // How many subscribers those have that are to go.
    for name in &named.deleted_domains {
        if let Some(id) = picture.domain_by_name(name).map(|domain| domain.id.uuid()) {
            count(tx, domain::POPULATION, id, picture).await?;
        }
    }
    for (name, site) in &named.deleted_sites {
        let account = account_of(name, picture);
        let site = account.and_then(|account| picture.site_by_name(account, site));
        if let Some(id) = site.map(|site| SiteId::uuid(site.id)) {
            count(tx, site::POPULATION, id, picture).await?;
        }
    }
    Ok(())
}

async fn count(tx: &mut Tx, sql: &'static str, id: Uuid, picture: &mut Picture) -> Result<(), DbError> {
    if !picture.knows_population(id) {
        let count = populated(tx, sql, id).await?.map_or(0, |(_, count)| count);
        picture.population(id, count);
    }
    Ok(())
}

/// Accounts by their names, level by level, as far as the picture does not know them.
async fn named_accounts(
    tx: &mut Tx,
    root: AccountId,
    names: &HashSet<&AccountName>,
    picture: &Picture,
) -> Result<HashMap<(AccountId, String), AccountId>, DbError> {
    let mut below: HashMap<(AccountId, String), AccountId> = HashMap::new();
    let depth = names.iter().map(|name| name.names().len()).max().unwrap_or(0);
    for level in 0..depth {
        let mut keys: BTreeSet<(Uuid, &str)> = BTreeSet::new();
        for name in names {
            let Some((own, above)) = name.names().get(..=level).and_then(<[String]>::split_last) else { continue };
            let parent = above.iter().try_fold(root, |above, name| {
                picture.account_below(above, name).or_else(|| below.get(&(above, name.clone())).copied())
            });
            let parent = parent.filter(|parent| picture.account_below(*parent, own).is_none());
            keys.extend(parent.map(|parent| (parent.uuid(), own.as_str())));
        }
        let keys: Vec<_> =
            keys.into_iter().map(|(parent, name)| vec![parent.into(), Value::Text(Some(name))]).collect();
        let columns = ("x.parent_id, x.name, x.id", "account");
        let found: Vec<(Uuid, String, Uuid)> = select_keyed(tx, columns, &["parent_id", "name"], &keys, BY_ID).await?;
        let found = found.into_iter();
        below.extend(found.map(|(parent, name, id)| ((AccountId::from_uuid(parent), name), AccountId::from_uuid(id))));
    }
    Ok(below)
}

async fn select<R: Stored + Row>(
    tx: &mut Tx,
    (table, columns): (&str, &str),
    key: &[&str],
    keys: &[Vec<Value<'_>>],
    tail: &str,
) -> Result<Vec<R::Resource>, DbError> {
    let rows: Vec<R> = select_keyed(tx, (columns, table), key, keys, tail).await?;
    rows.into_iter().map(R::resource).collect()
}

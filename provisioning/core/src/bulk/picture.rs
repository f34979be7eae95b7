//! What the lines of a bulk look at, and how it is after those that were decided. Cheap to clone: a line that is refused
//! leaves it as it was.

use std::sync::Arc;

use imbl::{HashMap, HashSet};
use model::domain::SipDomain;
use model::id::{AccountId, DomainId, NumberId, SiteId, SubscriberId};
use model::number::{E164, Extension};
use model::tenancy::{AccountPath, Scope};
use uuid::Uuid;

use super::line::AddressOfRecord;
use super::name::AccountName;
use crate::command::Command;
use crate::resource::{Account, Domain, Number, Site, Subscriber};
use crate::view::{Taken, View, Write};

/// The objects that lines name, in and out of the caller's scope: names are unique beyond it. What it was told once stays
/// as the lines left it.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    accounts: HashMap<AccountPath, Arc<Account>>,
    paths: HashMap<AccountId, AccountPath>,
    below: HashMap<(AccountId, String), AccountId>,
    domains: HashMap<DomainId, Arc<Domain>>,
    domain_names: HashMap<SipDomain, DomainId>,
    sites: HashMap<SiteId, Arc<Site>>,
    site_names: HashMap<(AccountId, String), SiteId>,
    subscribers: HashMap<SubscriberId, Arc<Subscriber>>,
    usernames: HashMap<(DomainId, String), SubscriberId>,
    extensions: HashMap<(AccountId, Extension), SubscriberId>,
    numbers: HashMap<NumberId, Arc<Number>>,
    e164s: HashMap<E164, NumberId>,
    answered: HashMap<SubscriberId, HashSet<NumberId>>,
    population: HashMap<Uuid, i64>,
    /// How many more subscribers a domain or site has than it had.
    moved: HashMap<Uuid, i64>,
    gone: HashSet<Uuid>,
}

impl Picture {
    /// Takes an account in.
    pub fn account(&mut self, account: Account) {
        if !self.accounts.contains_key(&account.path) {
            self.set_account(account);
        }
    }

    /// Takes a domain in.
    pub fn domain(&mut self, domain: Domain) {
        if !self.domains.contains_key(&domain.id) && !self.gone.contains(&domain.id.uuid()) {
            self.set_domain(domain);
        }
    }

    /// Takes a site in.
    pub fn site(&mut self, site: Site) {
        if !self.sites.contains_key(&site.id) && !self.gone.contains(&site.id.uuid()) {
            self.set_site(site);
        }
    }

    /// Takes a subscriber in.
    pub fn subscriber(&mut self, subscriber: Subscriber) {
        if !self.subscribers.contains_key(&subscriber.id) && !self.gone.contains(&subscriber.id.uuid()) {
            self.set_subscriber(subscriber);
        }
    }

    /// Takes a number in.
    pub fn number(&mut self, number: Number) {
        if !self.numbers.contains_key(&number.id) && !self.gone.contains(&number.id.uuid()) {
            self.set_number(number);
        }
    }

    /// Takes in how many subscribers a domain or site has, without those that lines made or removed.
    pub fn population(&mut self, id: Uuid, count: i64) {
        self.population.entry(id).or_insert(count);
    }

    /// Whether the population of a domain or site was taken in.
    #[must_use]
    pub fn knows_population(&self, id: Uuid) -> bool {
        self.population.contains_key(&id)
    }

    /// The account that was taken in, by its identifier.
    #[must_use]
    pub fn account_by_id(&self, id: AccountId) -> Option<&Account> {
        self.accounts.get(self.paths.get(&id)?).map(|account| &**account)
    }

    /// The account of a name, read from `root` down.
    #[must_use]
    pub fn account_by_name(&self, root: AccountId, name: &AccountName) -> Option<&Account> {
        let id = name.names().iter().try_fold(root, |above, name| self.account_below(above, name));
        self.account_by_id(id?)
    }

    /// The account of this name directly below another.
    #[must_use]
    pub fn account_below(&self, above: AccountId, name: &str) -> Option<AccountId> {
        self.below.get(&(above, name.to_owned())).copied()
    }

    /// The domain of a name.
    #[must_use]
    pub fn domain_by_name(&self, name: &SipDomain) -> Option<&Domain> {
        self.domains.get(self.domain_names.get(name)?).map(|domain| &**domain)
    }

    /// The site of a name at a customer.
    #[must_use]
    pub fn site_by_name(&self, account: AccountId, name: &str) -> Option<&Site> {
        self.sites.get(self.site_names.get(&(account, name.to_owned()))?).map(|site| &**site)
    }

    /// The subscriber of an address.
    #[must_use]
    pub fn subscriber_by_address(&self, address: &AddressOfRecord) -> Option<&Subscriber> {
        let domain = self.domain_names.get(&address.domain)?;
        self.subscribers.get(self.usernames.get(&(*domain, address.username.clone()))?).map(|subscriber| &**subscriber)
    }

    /// A number by its digits.
    #[must_use]
    pub fn number_by_e164(&self, e164: E164) -> Option<&Number> {
        self.numbers.get(self.e164s.get(&e164)?).map(|number| &**number)
    }

    /// The numbers that a subscriber answers, as far as they were taken in.
    pub fn numbers_of(&self, subscriber: SubscriberId) -> impl Iterator<Item = &Number> {
        let numbers = self.answered.get(&subscriber);
        numbers.into_iter().flatten().filter_map(|id| self.numbers.get(id).map(|number| &**number))
    }

    /// Whether the account is within `scope`.
    #[must_use]
    pub fn reaches(&self, scope: &Scope, account: AccountId) -> bool {
        self.paths.get(&account).is_some_and(|path| scope.contains(path))
    }

    /// What a decision on `command` looks at.
    #[must_use]
    pub fn view(&self, scope: &Scope, command: &Command) -> View {
        self.viewed(scope, command).unwrap_or_default()
    }

    fn viewed(&self, scope: &Scope, command: &Command) -> Option<View> {
        let mut view = View::default();
        match command {
            Command::AccountCreate { parent, name, .. } => {
                self.owner(scope, *parent, &mut view)?;
                view.takes(Taken::Name, self.account_below(*parent, name).map(AccountId::uuid), None);
            }
            Command::AccountUpdate { id, .. } => self.owner(scope, *id, &mut view)?,
            Command::DomainCreate { account, name, .. } => {
                self.owner(scope, *account, &mut view)?;
                view.takes(Taken::Domain, self.domain_names.get(name).map(|id| id.uuid()), None);
            }
            Command::DomainUpdate { id, .. } | Command::DomainDelete { id } => {
                let domain = self.domains.get(id)?;
                self.owner(scope, domain.account, &mut view)?;
                view.domains.push((**domain).clone());
                self.populated(id.uuid(), &mut view);
            }
            Command::SiteCreate { account, name } => {
                self.owner(scope, *account, &mut view)?;
                view.takes(Taken::Name, self.site_by_name(*account, name).map(|site| site.id.uuid()), None);
            }
            Command::SiteDelete { id } => {
                let site = self.sites.get(id)?;
                self.owner(scope, site.account, &mut view)?;
                view.sites.push((**site).clone());
                self.populated(id.uuid(), &mut view);
            }
            Command::SubscriberCreate { domain, site, username, extension, .. } => {
                let domain = self.domains.get(domain)?;
                self.owner(scope, domain.account, &mut view)?;
                view.domains.push((**domain).clone());
                view.sites.extend(site.and_then(|site| self.sites.get(&site)).map(|site| (**site).clone()));
                let holder = self.usernames.get(&(domain.id, username.clone()));
                view.takes(Taken::Username, holder.map(|id| id.uuid()), None);
                self.extension(domain.account, extension.as_ref(), None, &mut view);
            }
            Command::SubscriberUpdate { id, site, extension, .. } => {
                let account = self.named_subscriber(scope, *id, &mut view)?;
                let site = site.flatten().and_then(|site| self.sites.get(&site));
                view.sites.extend(site.map(|site| (**site).clone()));
                self.extension(account, extension.as_ref().and_then(Option::as_ref), Some(id.uuid()), &mut view);
            }
            Command::SubscriberPasswordSet { id, .. } => {
                self.named_subscriber(scope, *id, &mut view)?;
            }
            Command::SubscriberDelete { id } => {
                self.named_subscriber(scope, *id, &mut view)?;
                view.numbers.extend(self.numbers_of(*id).cloned());
                view.numbers.sort_by_key(|number| number.id.uuid());
            }
            Command::NumberCreate { account, e164, subscriber } => {
                self.owner(scope, *account, &mut view)?;
                self.assignee(scope, *subscriber, &mut view);
                view.takes(Taken::E164, self.e164s.get(e164).map(|id| id.uuid()), None);
            }
            Command::NumberAssign { id, subscriber } => {
                let number = self.numbers.get(id)?;
                self.owner(scope, number.account, &mut view)?;
                self.assignee(scope, *subscriber, &mut view);
                // who has it, or for whom it is held
                self.assignee(scope, number.subscriber.filter(|had| Some(*had) != *subscriber), &mut view);
                if let Some(hold) = number.hold.filter(|_| number.subscriber.is_none()) {
                    let path = self.paths.get(&hold.account).filter(|path| scope.contains(path));
                    view.held_for = path.map(|path| (hold.account, path.clone()));
                }
                view.numbers.push((**number).clone());
            }
            Command::NumberDelete { id } => {
                let number = self.numbers.get(id)?;
                self.owner(scope, number.account, &mut view)?;
                view.numbers.push((**number).clone());
            }
            // No line asks for these.
            _ => return None,
        }
        Some(view)
    }

    fn owner(&self, scope: &Scope, account: AccountId, view: &mut View) -> Option<()> {
        let path = self.paths.get(&account).filter(|path| scope.contains(path))?;
        let levels = path.ancestry();
        view.ancestry = levels.iter().filter_map(|path| self.accounts.get(path)).map(|a| (**a).clone()).collect();
        (view.ancestry.len() == levels.len()).then_some(())
    }

    fn named_subscriber(&self, scope: &Scope, id: SubscriberId, view: &mut View) -> Option<AccountId> {
        let subscriber = self.subscribers.get(&id)?;
        self.owner(scope, subscriber.account, view)?;
        view.domains.extend(self.domains.get(&subscriber.domain).map(|domain| (**domain).clone()));
        view.subscribers.push(((**subscriber).clone(), self.paths.get(&subscriber.account)?.clone()));
        Some(subscriber.account)
    }

    fn assignee(&self, scope: &Scope, id: Option<SubscriberId>, view: &mut View) {
        let subscriber = id.and_then(|id| self.subscribers.get(&id));
        let found = subscriber.and_then(|s| Some((s, self.paths.get(&s.account).filter(|path| scope.contains(path))?)));
        view.subscribers.extend(found.map(|(subscriber, path)| ((**subscriber).clone(), path.clone())));
    }

    fn extension(&self, account: AccountId, extension: Option<&Extension>, itself: Option<Uuid>, view: &mut View) {
        if let Some(extension) = extension {
            let holder = self.extensions.get(&(account, extension.clone()));
            view.takes(Taken::Extension, holder.map(|id| id.uuid()), itself);
        }
    }

    fn populated(&self, id: Uuid, view: &mut View) {
        let of = |counts: &HashMap<Uuid, i64>| counts.get(&id).copied().unwrap_or_default();
        let count = of(&self.population) + of(&self.moved);
        view.populated.extend((count > 0).then_some((id, count)));
    }

    /// Takes in what a decision says is to be written.
    pub fn apply(&mut self, writes: &[Write]) {
        for write in writes {
            match write {
                Write::AccountInsert(account) | Write::AccountUpdate(account) => self.set_account(account.clone()),
                Write::SubscriberCount { path, delta } => self.count(path, *delta),
                Write::DomainInsert(domain) | Write::DomainUpdate(domain) => self.set_domain(domain.clone()),
                Write::DomainDelete(id, _) => self.remove_domain(*id),
                Write::SiteInsert(site) | Write::SiteUpdate(site) => self.set_site(site.clone()),
                Write::SiteDelete(id, _) => self.remove_site(*id),
                Write::SubscriberInsert(subscriber, _) => {
                    self.resident(subscriber, 1);
                    self.set_subscriber(subscriber.clone());
                }
                Write::SubscriberUpdate(subscriber) | Write::SubscriberCredentials(subscriber, _) => {
                    self.remove_subscriber(subscriber.id);
                    self.resident(subscriber, 1);
                    self.set_subscriber(subscriber.clone());
                }
                Write::SubscriberDelete(id, _) => {
                    self.remove_subscriber(*id);
                    self.gone.insert(id.uuid());
                }
                Write::NumberInsert(number) => self.set_number(number.clone()),
                Write::NumberUpdate(number) => {
                    self.remove_number(number.id);
                    self.set_number(number.clone());
                }
                Write::NumberDelete(id, _) => {
                    self.remove_number(*id);
                    self.gone.insert(id.uuid());
                }
                // No line asks for these.
                Write::SubscriberRestore(_)
                | Write::TrunkInsert(..)
                | Write::TrunkUpdate(_)
                | Write::TokenInsert(_)
                | Write::TokenUpdate(_)
                | Write::TokenRotate(_)
                | Write::BulkJobUpdate(_)
                | Write::BulkJobBegun { .. }
                | Write::Reversal(_) => {}
            }
        }
    }

    fn set_account(&mut self, mut account: Account) {
        if let Some(before) = self.accounts.get(&account.path) {
            // The count has its own write.
            account.subscriber_count = before.subscriber_count;
            if let Some(above) = before.parent {
                self.below.remove(&(above, before.name.clone()));
            }
        }
        self.paths.insert(account.id, account.path.clone());
        if let Some(above) = account.parent {
            self.below.insert((above, account.name.clone()), account.id);
        }
        self.accounts.insert(account.path.clone(), Arc::new(account));
    }

    fn count(&mut self, path: &AccountPath, delta: i64) {
        for level in path.ancestry() {
            if let Some(account) = self.accounts.get_mut(&level) {
                let count = i64::from(account.subscriber_count).saturating_add(delta);
                Arc::make_mut(account).subscriber_count = u32::try_from(count).unwrap_or_default();
            }
        }
    }

    fn set_domain(&mut self, domain: Domain) {
        self.domain_names.insert(domain.name.clone(), domain.id);
        self.domains.insert(domain.id, Arc::new(domain));
    }

    fn remove_domain(&mut self, id: DomainId) {
        self.gone.insert(id.uuid());
        if let Some(domain) = self.domains.remove(&id) {
            self.domain_names.remove(&domain.name);
        }
    }

    fn set_site(&mut self, site: Site) {
        self.site_names.insert((site.account, site.name.clone()), site.id);
        self.sites.insert(site.id, Arc::new(site));
    }

    fn remove_site(&mut self, id: SiteId) {
        self.gone.insert(id.uuid());
        if let Some(site) = self.sites.remove(&id) {
            self.site_names.remove(&(site.account, site.name.clone()));
        }
    }

    /// One subscriber more or less in its domain and at its site.
    fn resident(&mut self, subscriber: &Subscriber, delta: i64) {
        for id in [Some(subscriber.domain.uuid()), subscriber.site.map(SiteId::uuid)].into_iter().flatten() {
            *self.moved.entry(id).or_default() += delta;
        }
    }

    fn set_subscriber(&mut self, subscriber: Subscriber) {
        self.usernames.insert((subscriber.domain, subscriber.username.clone()), subscriber.id);
        if let Some(extension) = &subscriber.extension {
            self.extensions.insert((subscriber.account, extension.clone()), subscriber.id);
        }
        self.subscribers.insert(subscriber.id, Arc::new(subscriber));
    }

    fn remove_subscriber(&mut self, id: SubscriberId) {
        let Some(subscriber) = self.subscribers.remove(&id) else { return };
        self.resident(&subscriber, -1);
        self.usernames.remove(&(subscriber.domain, subscriber.username.clone()));
        if let Some(extension) = &subscriber.extension {
            self.extensions.remove(&(subscriber.account, extension.clone()));
        }
    }

    fn set_number(&mut self, number: Number) {
        if let Some(subscriber) = number.subscriber {
            self.answered.entry(subscriber).or_default().insert(number.id);
        }
        self.e164s.insert(number.e164, number.id);
        self.numbers.insert(number.id, Arc::new(number));
    }

    fn remove_number(&mut self, id: NumberId) {
        let Some(number) = self.numbers.remove(&id) else { return };
        self.e164s.remove(&number.e164);
        if let Some(numbers) = number.subscriber.and_then(|subscriber| self.answered.get_mut(&subscriber)) {
            numbers.remove(&id);
        }
    }
}

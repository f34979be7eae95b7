//! Fifty clients fight for the same few numbers, names, places of a quota, versions and idempotency keys.
//!
//! Each attempt ends in success or in a refusal that its kind explains. What is left is judged by the audit trail, which
//! is written in the order of the commits: replayed, it must be a history in which every change saw what the one before
//! it had left, no quota was ever exceeded, and the end is what the tables hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use RefusalCode::{Conflict, IdempotencyConflict, InUse, NotFound, QuotaExceeded, VersionMismatch};
use db::PostgresOptions;
use model::change::{Effect, EffectKind, Plan, ResourceKind, ResourceRef, ResourceVersion};
use model::id::ChangeId;
use model::tenancy::AccountPath;
use serde_json::{Map, Value};
use testkit::clock::START;
use testkit::seeded::Random;

use super::reversals::{present, revert};
use super::*;

/// Clients at a time.
const CLIENTS: usize = 50;
/// Attempts of each.
const ATTEMPTS: usize = 60;
/// As many in the long run.
const ATTEMPTS_SOAK: usize = 500;
/// What each client draws from.
const SEED: u64 = 0x7a6d_0050;
/// An attempt that waits for something in vain ends after ten seconds by itself, a deadlock after one; the fight as a
/// whole must not take longer than this on a busy machine.
const BOUND: Duration = Duration::from_secs(180);
/// Of the things that came into being, so many of the latest are fought for.
const LATEST: usize = 8;
/// Connections of the fight, so that all clients are in a transaction at a time where the engine lets them.
const CONNECTIONS: u32 = 50;

/// What there is to fight for.
struct Arena {
    store: ProvisioningStore,
    /// The provider and the reseller: both reach everything that is fought for but the reseller's own quota.
    callers: [Ctx; 2],
    /// Reseller, the reseller below it, and a customer: a quota each, one below the other.
    levels: [AccountId; 3],
    /// Customers with a domain each, below the resellers.
    customers: [(AccountId, DomainId); 3],
    trunk: TrunkId,
    /// What came into being, by kind, and is not known to be gone.
    made: Mutex<BTreeMap<&'static str, Vec<Uuid>>>,
    /// What was committed, with the kind of attempt.
    done: Mutex<Vec<(Kind, Committed)>>,
    /// Answers by idempotency key.
    answers: Mutex<BTreeMap<String, Vec<(ChangeId, bool)>>>,
    /// Refusals by kind and code.
    refused: Mutex<BTreeMap<(Kind, &'static str), usize>>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident may $codes:expr;)+) => {
        /// A kind of attempt.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        enum Kind { $($(#[$doc])* $name,)+ }
        impl Kind {
            const ALL: &'static [Self] = &[$(Self::$name,)+];
            /// How it may be refused, when others were faster.
            const fn may(self) -> &'static [RefusalCode] { match self { $(Self::$name => &$codes,)+ } }
        }
    };
}

kinds! {
    NumberCreate may [Conflict, NotFound];
    NumberAssign may [Conflict, NotFound];
    NumberFree may [NotFound];
    NumberReserve may [Conflict, InUse, NotFound];
    /// Without it, what one customer gave back would soon be out of the fight.
    NumberRelease may [Conflict, InUse, NotFound];
    NumberDelete may [InUse, NotFound];
    /// Of accounts that are never removed: the names are given soon, and go round by renaming.
    AccountCreate may [Conflict];
    AccountRename may [Conflict];
    SiteCreate may [Conflict];
    SiteRename may [Conflict, NotFound];
    SiteDelete may [Conflict, InUse, NotFound];
    DomainCreate may [Conflict];
    DomainDelete may [Conflict, InUse, NotFound];
    SubscriberCreate may [Conflict, NotFound, QuotaExceeded];
    SubscriberUpdate may [Conflict, NotFound];
    SubscriberDelete may [NotFound];
    Quota may [QuotaExceeded];
    /// Reads, adds one, writes what it read plus one.
    Increment may [VersionMismatch];
    /// Sends what others send with the same key, seldom something else.
    Key may [IdempotencyConflict];
    Revert may [Conflict, InUse, NotFound, QuotaExceeded];
}

impl Arena {
    async fn new(house: &House, db: Db) -> Self {
        let t = house.tenant(1).await;
        let below = house.account(t.reseller.id, AccountKind::Reseller, "Below").await.id;
        let mut customers = [(t.customer.id, t.domain); 3];
        for (n, (customer, domain)) in customers.iter_mut().enumerate().skip(1) {
            *customer = house.account(below, AccountKind::Customer, &format!("Fighter {n}")).await.id;
            *domain = DomainId::from_uuid(house.done(&t.ctx, domain_create(*customer, &format!("f{n}.example"))).await);
        }
        Self {
            store: ProvisioningStore { db, ..house.store.clone() },
            callers: [house.provider.clone(), t.ctx.clone()],
            levels: [t.reseller.id, below, customers[2].0],
            customers,
            trunk: t.trunk,
            made: Mutex::default(),
            done: Mutex::default(),
            answers: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    /// One of the latest of a kind; when there is none, one that never was.
    fn one(&self, random: &mut Random, kind: ResourceKind) -> Uuid {
        let made = held(&self.made);
        let all = made.get(kind.as_str()).map_or(&[][..], Vec::as_slice);
        let latest = &all[all.len().saturating_sub(LATEST)..];
        if latest.is_empty() { Uuid::max() } else { *random.pick(latest) }
    }

    async fn client(&self, seed: u64, number: u64, attempts: usize) {
        let mut random = Random::of_round(seed, number);
        for step in 0..attempts {
            let kind = *random.pick(Kind::ALL);
            let (command, options) = self.attempt(&mut random, kind, step).await;
            // Limits are set from above, and a key is its caller's own.
            let is_one_caller = matches!(kind, Kind::Quota | Kind::Increment | Kind::Key | Kind::Revert);
            let caller = if is_one_caller { &self.callers[0] } else { random.pick(&self.callers) };
            let key = options.idempotency_key.clone();
            match self.store.commit(caller, command.clone(), options).await {
                Ok(committed) => self.won(kind, key, committed),
                Err(ChangeError::Refused(refusals)) => {
                    for refusal in refusals {
                        assert!(kind.may().contains(&refusal.code), "{command:?}: {refusal:?}");
                        *held(&self.refused).entry((kind, refusal.code.as_str())).or_default() += 1;
                    }
                }
                Err(error) => panic!("seed {seed}, client {number}, step {step}: {command:?}: {error}"),
            }
        }
    }

    fn won(&self, kind: Kind, key: Option<IdempotencyKey>, committed: Committed) {
        if let Some(key) = key {
            let answer = (committed.change, committed.replayed);
            held(&self.answers).entry(key.as_str().to_owned()).or_default().push(answer);
        }
        if committed.replayed {
            return;
        }
        let mut made = held(&self.made);
        for Effect { kind, resource, .. } in &committed.plan.effects {
            let of_kind = made.entry(resource.kind.as_str()).or_default();
            match kind {
                EffectKind::Created => of_kind.push(resource.id),
                EffectKind::Updated => {}
                EffectKind::Deleted => of_kind.retain(|id| *id != resource.id),
            }
        }
        // A reversal must not take a number from those who count.
        if !matches!(kind, Kind::Increment | Kind::Key) {
            made.entry(ResourceKind::Change.as_str()).or_default().push(committed.change.uuid());
        }
        held(&self.done).push((kind, committed));
    }

    async fn attempt(&self, random: &mut Random, kind: Kind, step: usize) -> (Command, CommitOptions) {
        let n = random.below(4);
        let is_set = random.below(2) == 0;
        let (customer, domain) = *random.pick(&self.customers);
        let mut one = |of| self.one(random, of);
        let number = NumberId::from_uuid(one(ResourceKind::Number));
        let site = SiteId::from_uuid(one(ResourceKind::Site));
        let subscriber = SubscriberId::from_uuid(one(ResourceKind::Subscriber));
        let contested = DomainId::from_uuid(one(ResourceKind::Domain));
        let change = ChangeId::from_uuid(one(ResourceKind::Change));
        let extension = || is_set.then(|| ["300", "301", "302", "303"][n].parse().unwrap());
        let command = match kind {
            Kind::NumberCreate => number_create(self.levels[0], &format!("+4372100{n}"), is_set.then_some(subscriber)),
            Kind::NumberAssign => Command::NumberAssign { id: number, subscriber: Some(subscriber) },
            Kind::NumberFree => Command::NumberAssign { id: number, subscriber: None },
            Kind::NumberReserve => {
                Command::NumberReserve { id: number, account: customer, until: START.plus_ms(86_400_000) }
            }
            Kind::NumberRelease => Command::NumberRelease { id: number },
            Kind::NumberDelete => Command::NumberDelete { id: number },
            Kind::AccountCreate => account_create(self.levels[1], AccountKind::Customer, &format!("Name {n}")),
            Kind::AccountRename => {
                let mut command = account_update(self.customers[1 + n % 2].0);
                if let Command::AccountUpdate { name, .. } = &mut command {
                    *name = Some(format!("Name {}", random.below(6)));
                }
                command
            }
            Kind::SiteCreate => Command::SiteCreate { account: self.customers[0].0, name: format!("Site {n}") },
            Kind::SiteRename => Command::SiteUpdate { id: site, name: format!("Site {n}") },
            Kind::SiteDelete => Command::SiteDelete { id: site },
            Kind::DomainCreate => domain_create(customer, &format!("d{n}.example")),
            Kind::DomainDelete => Command::DomainDelete { id: contested },
            Kind::SubscriberCreate => {
                let domain = if random.below(4) == 0 { contested } else { domain };
                let mut command = subscriber_create(domain, &format!("user{}", random.below(4)), None);
                if let Command::SubscriberCreate { extension: at, .. } = &mut command {
                    *at = extension();
                }
                command
            }
            Kind::SubscriberUpdate => {
                let mut command = subscriber_update(subscriber);
                if let Command::SubscriberUpdate { extension: at, site: sits, .. } = &mut command {
                    *at = Some(extension());
                    *sits = (n == 0).then_some(Some(site));
                }
                command
            }
            Kind::SubscriberDelete => Command::SubscriberDelete { id: subscriber },
            Kind::Quota => {
                let quota = if n == 0 { None } else { Some(u32::try_from(2 + random.below(12)).unwrap()) };
                let mut command = account_update(*random.pick(&self.levels));
                if let Command::AccountUpdate { subscriber_quota, .. } = &mut command {
                    *subscriber_quota = Some(quota);
                }
                command
            }
            Kind::Increment => return self.increment(is_set).await,
            Kind::Key => {
                // Clients that are about as far send the same.
                let country = if random.below(8) == 0 { "1" } else { "43" };
                return (domain_update(self.customers[step % 3].1, country), key(&format!("key-{step}")));
            }
            Kind::Revert => revert(change),
        };
        (command, CommitOptions::default())
    }

    /// One more than was read, if it is still as it was read: of a customer that others rename and limit, or of a trunk
    /// that nobody else touches.
    async fn increment(&self, is_account: bool) -> (Command, CommitOptions) {
        let caller = &self.callers[0];
        let (command, resource, version) = if is_account {
            let account = self.store.account_get(caller, self.levels[2]).await.unwrap().unwrap();
            let mut command = account_update(account.id);
            if let Command::AccountUpdate { call_limit, .. } = &mut command {
                *call_limit = Some(Some(account.call_limit.unwrap_or(0) + 1));
            }
            let resource = ResourceRef { kind: ResourceKind::Account, id: account.id.uuid() };
            (command, resource, account.revision.version)
        } else {
            let trunk = self.store.trunk_get(caller, self.trunk).await.unwrap().unwrap();
            let command = Command::TrunkUpdate {
                id: trunk.id,
                registration: None,
                call_limit: None,
                priority: Some(trunk.priority + 1),
                keepalive_ms: None,
                enabled: None,
            };
            (command, ResourceRef { kind: ResourceKind::Trunk, id: trunk.id.uuid() }, trunk.revision.version)
        };
        let expected = vec![ResourceVersion { resource, version }];
        (command, CommitOptions { idempotency_key: None, expected })
    }
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_clients_fight_for_the_same_few_things() {
    let attempts = if testkit::soak::is_long() { ATTEMPTS_SOAK } else { ATTEMPTS };
    println!("seed {SEED:#x}");
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let fought = match house.db.url() {
            Some(url) => {
                let options = PostgresOptions { url: url.to_owned(), connections_max: CONNECTIONS };
                Db::connect_postgres(&options).await.unwrap()
            }
            None => Db::clone(&house.db),
        };
        let arena = Arc::new(Arena::new(&house, fought.clone()).await);
        let before = house.count("audit").await;
        let begun = present(&house).await;
        let mut clients = tokio::task::JoinSet::new();
        for number in 0..u64::try_from(CLIENTS).unwrap() {
            let arena = Arc::clone(&arena);
            clients.spawn(async move { arena.client(SEED, number, attempts).await });
        }
        tokio::time::timeout(BOUND, clients.join_all()).await.expect("nobody waits for ever");
        if house.db.url().is_some() {
            fought.close().await;
            assert_eq!(deadlocks(&house.db).await, 0, "the order of the locks is kept");
        }

        check_tallies(house.db.name(), &arena);
        check_keys(&house, &arena).await;
        check_increments(&house, &arena, &begun).await;
        check_trail(&house, &arena, before).await;
        check_counts(&house).await;
    })
    .await;
}

/// What PostgreSQL has counted, once the statistics of those who fought are in.
async fn deadlocks(db: &Db) -> i64 {
    let Db::Postgres(pool) = db else { return 0 };
    let others = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()";
    testkit::wait_until(Duration::from_secs(10), async || {
        let connected: i64 = sqlx::query_scalar(others).fetch_one(pool).await.unwrap();
        connected <= i64::from(pool.size())
    })
    .await;
    let counted = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    sqlx::query_scalar(counted).fetch_one(pool).await.unwrap()
}

/// Each kind of attempt succeeded now and then, and each reason for a refusal came up: it was a fight.
fn check_tallies(engine: &str, arena: &Arena) {
    let (done, refused) = (held(&arena.done), held(&arena.refused));
    for kind in Kind::ALL {
        let won = done.iter().filter(|(of, _)| of == kind).count();
        let lost: Vec<_> = refused.iter().filter(|((of, _), _)| of == kind).map(|((_, code), n)| (code, n)).collect();
        println!("{engine}: {kind:?}: {won} done, refused {lost:?}");
        assert!(won > 0, "{kind:?}");
    }
    for code in [Conflict, NotFound, InUse, QuotaExceeded, VersionMismatch, IdempotencyConflict] {
        assert!(refused.keys().any(|(_, at)| *at == code.as_str()), "{code:?} never came up");
    }
}

/// Each key was executed once, and everybody got the answer of that.
async fn check_keys(house: &House, arena: &Arena) {
    let answers = held(&arena.answers).clone();
    for (key, answers) in &answers {
        assert_eq!(answers.iter().filter(|(_, replayed)| !replayed).count(), 1, "{key}: {answers:?}");
        assert!(answers.iter().all(|(change, _)| *change == answers[0].0), "{key}: {answers:?}");
    }
    assert!(answers.values().any(|answers| answers.len() > 1), "no key was sent twice");
    assert_eq!(house.count("idempotency").await, i64::try_from(answers.len()).unwrap());
}

/// Nobody's increment was lost.
async fn check_increments(house: &House, arena: &Arena, begun: &State) {
    let increments = |kind: ResourceKind| {
        let done = held(&arena.done);
        let of_kind = |plan: &Plan| plan.effects.iter().any(|effect| effect.resource.kind == kind);
        done.iter().filter(|(of, committed)| *of == Kind::Increment && of_kind(&committed.plan)).count()
    };
    let account = house.store.account_get(&house.provider, arena.levels[2]).await.unwrap().unwrap();
    assert_eq!(usize::try_from(account.call_limit.unwrap_or(0)).unwrap(), increments(ResourceKind::Account));
    let trunk = house.store.trunk_get(&house.provider, arena.trunk).await.unwrap().unwrap();
    let made = begun[&format!("trunk:{}", trunk.id)]["priority"].as_u64().unwrap();
    assert_eq!(usize::try_from(u64::from(trunk.priority) - made).unwrap(), increments(ResourceKind::Trunk));
    assert_eq!(trunk.revision.version, 1 + i64::try_from(increments(ResourceKind::Trunk)).unwrap());
}

/// The resources by `kind:id`.
type State = BTreeMap<String, Map<String, Value>>;

/// The trail is whole, has one entry per change that was answered, and replayed it gives what there is: each change saw
/// what the one before it had left, in its version, and no quota was exceeded at any time.
async fn check_trail(house: &House, arena: &Arena, before: i64) {
    let report = db::change::verify_audit(&house.db).await.unwrap();
    let sql = "SELECT change_id, command, plan FROM audit ORDER BY sequence";
    let entries: Vec<(Uuid, String, String)> = on_db!(&*house.db, c => sqlx::query_as(sql).fetch_all(c).await).unwrap();
    assert_eq!(i64::try_from(entries.len()).unwrap(), report.entries);
    let fought = &entries[usize::try_from(before).unwrap()..];
    let answered: BTreeSet<Uuid> = held(&arena.done).iter().map(|(_, committed)| committed.change.uuid()).collect();
    assert_eq!(fought.iter().map(|(change, ..)| *change).collect::<BTreeSet<_>>(), answered);
    assert_eq!(fought.len(), held(&arena.done).len());
    assert_eq!(house.count("event").await, report.entries);

    let (mut state, mut counts) = (State::new(), BTreeMap::<String, u64>::new());
    for (change, command, plan) in entries {
        let plan: Plan = serde_json::from_str(&plan).unwrap();
        for effect in &plan.effects {
            let told = |what: &str| format!("{change} {command}: {what}: {effect:?}");
            follow(&mut state, &mut counts, effect).unwrap_or_else(|what| panic!("{}", told(&what)));
        }
        for account in state.iter().filter(|(key, _)| key.starts_with("account:")).map(|(_, account)| account) {
            let (count, quota) = (counts[account["path"].as_str().unwrap()], account["subscriber_quota"].as_u64());
            assert!(
                quota.is_none_or(|quota| count <= quota),
                "{change} {command}: {count} beyond {quota:?}: {account:?}"
            );
        }
    }
    let numbers = state.iter().filter(|(key, _)| key.starts_with("number:")).map(|(_, number)| &number["e164"]);
    let numbers: Vec<&Value> = numbers.collect();
    assert_eq!(numbers.iter().map(|e164| e164.as_str()).collect::<BTreeSet<_>>().len(), numbers.len());
    state.retain(|key, _| !key.starts_with("token:"));
    let found = without_counts(present(house).await);
    for key in found.keys().chain(state.keys()) {
        assert_eq!(found.get(key), state.get(key), "{key}");
    }
}

/// One effect more: the state after it, and how many subscribers sit at and below each account.
fn follow(state: &mut State, counts: &mut BTreeMap<String, u64>, effect: &Effect) -> Result<(), String> {
    let key = format!("{}:{}", effect.resource.kind.as_str(), effect.resource.id);
    let shown = |value: &Option<Value>| value.as_ref().and_then(Value::as_object).cloned();
    let (mut before, mut after) = (shown(&effect.before), shown(&effect.after));
    if effect.resource.kind == ResourceKind::Account {
        for account in [&mut before, &mut after].into_iter().flatten() {
            let path = account["path"].as_str().unwrap_or_default().to_owned();
            let (said, count) = (account.remove("subscriber_count"), *counts.entry(path).or_default());
            if said != Some(Value::from(count)) {
                return Err(format!("it saw {said:?} subscribers of {count}"));
            }
        }
    }
    let present = state.remove(&key);
    if present != before {
        return Err(format!("it did not see what was left: {present:?}"));
    }
    if effect.resource.kind == ResourceKind::Subscriber && effect.kind != EffectKind::Updated {
        let subscriber = before.as_ref().or(after.as_ref()).ok_or("an effect on nothing")?;
        let account = format!("account:{}", subscriber["account"].as_str().unwrap_or_default());
        let path: AccountPath = state[&account]["path"].as_str().unwrap_or_default().parse().map_err(|_| "no path")?;
        for above in path.ancestry() {
            let count = counts.entry(above.to_string()).or_default();
            *count = if after.is_some() { *count + 1 } else { count.checked_sub(1).ok_or("fewer than none")? };
        }
    }
    let version = |resource: &Map<String, Value>| resource["revision"]["version"].as_i64();
    if let (Some(before), Some(after)) = (&before, &after)
        && effect.resource.kind != ResourceKind::Token
        && version(before).map(|version| version + 1) != version(after)
    {
        return Err("its version did not grow by one".to_owned());
    }
    if let Some(after) = after {
        state.insert(key, after);
    }
    Ok(())
}

fn without_counts(mut state: State) -> State {
    for resource in state.values_mut() {
        resource.remove("subscriber_count");
    }
    state
}

/// The counters are what is counted, at every level.
async fn check_counts(house: &House) {
    let sql = "SELECT a.name, a.subscriber_count, (SELECT COUNT(*) FROM subscriber s JOIN account o ON o.id = s.account_id \
        WHERE o.path >= a.path AND o.path < a.path || 'z') FROM account a";
    let counts: Vec<(String, i64, i64)> = on_db!(&*house.db, c => sqlx::query_as(sql).fetch_all(c).await).unwrap();
    assert!(counts.iter().all(|(_, counter, counted)| counter == counted), "{counts:?}");
    assert!(counts.iter().any(|(_, counter, _)| *counter > 0), "nobody is left to be counted");
}

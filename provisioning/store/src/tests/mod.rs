//! The contract of the store, on both engines.

mod bulk;
mod changes;
mod contention;
mod numbers;
mod ports;
mod reversals;
mod tenancy;

use std::sync::Arc;

use db::sqlx::{self, AssertSqlSafe};
use db::{Db, on_db};
use model::actor::Permissions;
use model::change::{Change as _, ChangeError, CommitOptions, Committed, IdempotencyKey, RefusalCode};
use model::ctx::Ctx;
use model::domain::SipDomain;
use model::id::{AccountId, DomainId, NumberId, SiteId, SubscriberId, TokenId, TrunkId};
use model::money::Currency;
use model::network::Networks;
use model::secret::Secret;
use model::tenancy::AccountKind;
use provisioning::command::{Command, TrunkCredentials, TrunkRegistrar};
use provisioning::port::{Bootstrap, Queries as _};
use provisioning::resource::{Account, DialPlan};
use testkit::{TestDb, World, on_each_database, prepare_all};
use uuid::Uuid;

use crate::{KeyFile, OpenError, ProvisioningStore};

const SIP_PASSWORD: &str = "correct-horse-battery";
const TRUNK_PASSWORD: &str = "staple-of-the-carrier";

/// An installation with two resellers, a customer below each, and everything that a customer can have.
pub(super) struct House {
    pub db: TestDb,
    pub store: ProvisioningStore,
    pub world: World,
    pub bootstrap: Bootstrap,
    /// The provider's caller.
    pub provider: Ctx,
    _dir: tempfile::TempDir,
}

/// The objects of one tenant.
pub(super) struct Tenant {
    pub reseller: Account,
    pub customer: Account,
    pub domain: DomainId,
    pub site: SiteId,
    pub subscriber: SubscriberId,
    pub number: NumberId,
    pub trunk: TrunkId,
    pub token: TokenId,
    /// A caller of the reseller with every permission.
    pub ctx: Ctx,
}

impl House {
    pub async fn new(db: TestDb) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyFile::open_or_create(&dir.path().join("secrets.key")).unwrap();
        let world = World::new();
        let store = ProvisioningStore::new(Db::clone(&db), &key);
        let (clock, ids) = (world.clock.clone(), world.ids.clone());
        let bootstrap = store.bootstrap("Demo Telecom", "Europe/Vienna", eur(), clock, ids).await.unwrap();
        let provider = world.system();
        let account = store.account_get(&provider, bootstrap.provider).await.unwrap().unwrap();
        let provider = world.ctx(Permissions::all(), account.id, &account.path);
        Self { db, store, world, bootstrap, provider, _dir: dir }
    }

    pub async fn commit(&self, ctx: &Ctx, command: Command) -> Result<Committed, ChangeError> {
        self.store.commit(ctx, command, CommitOptions::default()).await
    }

    /// Commits and gives the identifier of the last resource that was touched.
    pub async fn done(&self, ctx: &Ctx, command: Command) -> Uuid {
        let committed = self.commit(ctx, command).await.unwrap();
        committed.plan.effects.last().unwrap().resource.id
    }

    pub async fn account(&self, parent: AccountId, kind: AccountKind, name: &str) -> Account {
        let id = self.done(&self.provider, account_create(parent, kind, name)).await;
        self.store.account_get(&self.provider, AccountId::from_uuid(id)).await.unwrap().unwrap()
    }

    /// A tenant with one of each; `n` tells it from others.
    pub async fn tenant(&self, n: u16) -> Tenant {
        let reseller = self.account(self.bootstrap.provider, AccountKind::Reseller, &format!("Reseller {n}")).await;
        let customer = self.account(reseller.id, AccountKind::Customer, &format!("Customer {n}")).await;
        let ctx = self.world.ctx(Permissions::all(), reseller.id, &reseller.path);
        let domain = DomainId::from_uuid(self.done(&ctx, domain_create(customer.id, &format!("c{n}.example"))).await);
        let site = Command::SiteCreate { account: customer.id, name: "Harbour".to_owned() };
        let site = SiteId::from_uuid(self.done(&ctx, site).await);
        let mut create = subscriber_create(domain, "alice", Some("100"));
        if let Command::SubscriberCreate { site: at, .. } = &mut create {
            *at = Some(site);
        }
        let subscriber = SubscriberId::from_uuid(self.done(&ctx, create).await);
        let number = number_create(customer.id, &format!("+4372000{n:04}"), Some(subscriber));
        let number = NumberId::from_uuid(self.done(&ctx, number).await);
        let trunk = TrunkId::from_uuid(self.done(&ctx, trunk_create(reseller.id, "Carrier", 5060 + n)).await);
        let token = token_issue(customer.id, "ci", "provisioning:read");
        let token = TokenId::from_uuid(self.done(&ctx, token).await);
        let reseller = self.store.account_get(&self.provider, reseller.id).await.unwrap().unwrap();
        let customer = self.store.account_get(&self.provider, customer.id).await.unwrap().unwrap();
        Tenant { reseller, customer, domain, site, subscriber, number, trunk, token, ctx }
    }

    pub async fn count(&self, table: &str) -> i64 {
        count(&self.db, table).await
    }
}

pub(super) async fn count(db: &Db, table: &str) -> i64 {
    let sql = format!("SELECT COUNT(*) FROM {table}");
    on_db!(db, c => sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(c).await).unwrap()
}

pub(super) fn eur() -> Currency {
    "EUR".parse().unwrap()
}

pub(super) fn account_create(parent: AccountId, kind: AccountKind, name: &str) -> Command {
    Command::AccountCreate {
        parent,
        kind,
        name: name.to_owned(),
        timezone: "Europe/Vienna".to_owned(),
        currency: eur(),
        call_limit: None,
        subscriber_quota: None,
    }
}

pub(super) fn account_update(id: AccountId) -> Command {
    Command::AccountUpdate { id, name: None, call_limit: None, subscriber_quota: None, enabled: None }
}

pub(super) fn quota(id: AccountId, quota: u32) -> Command {
    Command::AccountUpdate { id, name: None, call_limit: None, subscriber_quota: Some(Some(quota)), enabled: None }
}

pub(super) fn enabled(id: AccountId, enabled: bool) -> Command {
    Command::AccountUpdate { id, name: None, call_limit: None, subscriber_quota: None, enabled: Some(enabled) }
}

pub(super) fn domain_create(account: AccountId, name: &str) -> Command {
    let name: SipDomain = name.parse().unwrap();
    let dial_plan = DialPlan {
        country_code: "43".to_owned(),
        national_prefix: "0".to_owned(),
        international_prefix: "00".to_owned(),
    };
    Command::DomainCreate { account, name, dial_plan }
}

pub(super) fn domain_update(id: DomainId, country_code: &str) -> Command {
    let dial_plan = DialPlan {
        country_code: country_code.to_owned(),
        national_prefix: "0".to_owned(),
        international_prefix: "00".to_owned(),
    };
    Command::DomainUpdate { id, dial_plan }
}

pub(super) fn subscriber_create(domain: DomainId, username: &str, extension: Option<&str>) -> Command {
    Command::SubscriberCreate {
        domain,
        site: None,
        username: username.to_owned(),
        display_name: username.to_owned(),
        extension: extension.map(|e| e.parse().unwrap()),
        password: Some(Secret::new(SIP_PASSWORD.to_owned())),
        call_limit: None,
    }
}

pub(super) fn subscriber_update(id: SubscriberId) -> Command {
    Command::SubscriberUpdate { id, display_name: None, site: None, extension: None, call_limit: None, enabled: None }
}

pub(super) fn number_create(account: AccountId, e164: &str, subscriber: Option<SubscriberId>) -> Command {
    Command::NumberCreate { account, e164: e164.parse().unwrap(), subscriber }
}

pub(super) fn trunk_create(account: AccountId, name: &str, port: u16) -> Command {
    Command::TrunkCreate {
        account,
        name: name.to_owned(),
        address: ([192, 0, 2, 1], port).into(),
        credentials: Some(TrunkCredentials {
            username: "tandem".to_owned(),
            password: Secret::new(TRUNK_PASSWORD.to_owned()),
        }),
        registration: None,
        call_limit: Some(10),
        priority: 1,
        keepalive_ms: 500,
    }
}

pub(super) fn registrar(port: u16) -> TrunkRegistrar {
    TrunkRegistrar { registrar: ([192, 0, 2, 7], port).into(), domain: None, expires_s: 600 }
}

pub(super) fn token_issue(account: AccountId, name: &str, permissions: &str) -> Command {
    let permissions = permissions.parse().unwrap();
    Command::TokenIssue { account, name: name.to_owned(), permissions, expires_at: None, networks: Networks::default() }
}

pub(super) fn key(text: &str) -> CommitOptions {
    CommitOptions { idempotency_key: Some(IdempotencyKey::new(text).unwrap()), expected: Vec::new() }
}

/// Where requests of tests come from.
pub(super) const HERE: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

/// The codes and fields of a refusal.
#[track_caller]
pub(super) fn refused<T: std::fmt::Debug>(result: Result<T, ChangeError>) -> Vec<(RefusalCode, String)> {
    match result {
        Err(ChangeError::Refused(refusals)) => refusals.into_iter().map(|r| (r.code, r.field)).collect(),
        other => panic!("should be refused: {other:?}"),
    }
}

#[track_caller]
pub(super) fn refused_as<T: std::fmt::Debug>(result: Result<T, ChangeError>, code: RefusalCode, field: &str) {
    assert_eq!(refused(result), [(code, field.to_owned())]);
}

#[tokio::test]
async fn every_statement_is_understood_by_both_engines() {
    let mut put_together = vec![crate::registration::present_statement(), crate::registration::bulk_statement()];
    put_together.extend(crate::bulk::put_together());
    let put_together: Vec<&str> = put_together.iter().map(String::as_str).collect();
    on_each_database(async |db: TestDb| {
        prepare_all(&db, &crate::all_statements()).await;
        prepare_all(&db, &put_together).await;
    })
    .await;
}

#[tokio::test]
async fn an_installation_is_made_once() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let (clock, ids) = (house.world.clock.clone(), house.world.ids.clone());
        let again = house.store.bootstrap("Another", "UTC", eur(), clock.clone(), ids.clone()).await;
        refused_as(again, RefusalCode::Conflict, "");
        let system = house.store.system(clock, ids).await.unwrap().unwrap();
        assert_eq!(system.actor.account, house.bootstrap.provider);
        // Who is locked out issues another token.
        let issued = house.commit(&system, token_issue(house.bootstrap.provider, "rescue", "token:write")).await;
        assert!(issued.unwrap().revealed.is_some());
        assert_eq!(house.count("installation").await, 1);
        assert_eq!(db::change::verify_audit(&house.db).await.unwrap().entries, 2);
    })
    .await;
}

#[tokio::test]
async fn an_installation_is_not_made_from_nonsense() {
    let db = TestDb::sqlite().await;
    let dir = tempfile::tempdir().unwrap();
    let key = KeyFile::open_or_create(&dir.path().join("k")).unwrap();
    let (store, world) = (ProvisioningStore::new(Db::clone(&db), &key), World::new());
    let (clock, ids): (Arc<dyn model::time::Clock>, Arc<dyn model::id::IdSource>) = (world.clock, world.ids);
    assert!(store.system(clock.clone(), ids.clone()).await.unwrap().is_none());
    let made = store.bootstrap("", "Vienna", eur(), clock, ids).await;
    let invalid = |field: &str| (RefusalCode::Invalid, field.to_owned());
    assert_eq!(refused(made), [invalid("name"), invalid("timezone")]);
    assert_eq!(count(&db, "account").await + count(&db, "audit").await, 0);
}

/// A node starts with the key of its store, and with no other; none is drawn beside an installation.
#[tokio::test]
async fn store_and_key_file_belong_together() {
    on_each_database(async |db: TestDb| {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let open = async |name: &str| ProvisioningStore::open(Db::clone(&db), &path(name)).await;
        assert!(matches!(open("right").await, Err(OpenError::Empty)));
        assert!(!path("right").exists());
        let store = ProvisioningStore::create(Db::clone(&db), &path("right")).await.unwrap();
        let world = World::new();
        let (clock, ids) = (world.clock.clone(), world.ids.clone());
        store.bootstrap("Demo Telecom", "Europe/Vienna", eur(), clock, ids).await.unwrap();
        open("right").await.unwrap();
        // Another data directory, with and without a key of its own.
        for made in [open("elsewhere").await, ProvisioningStore::create(Db::clone(&db), &path("elsewhere")).await] {
            let Err(error @ OpenError::Missing { .. }) = made else { panic!("{made:?}") };
            assert!(error.to_string().contains("elsewhere"), "{error}");
        }
        assert!(!path("elsewhere").exists());
        KeyFile::open_or_create(&path("wrong")).unwrap();
        assert!(matches!(open("wrong").await, Err(OpenError::Foreign { .. })));
        // An installation from before the check is known by what it sealed, and then keeps the check.
        let provider = world.system();
        let made = store.account_list(&provider, None, model::page::PageRequest::default()).await.unwrap();
        let ctx = world.ctx(Permissions::all(), made.items[0].1.id, &made.items[0].1.path);
        let trunk = trunk_create(made.items[0].1.id, "carrier", 5060);
        store.commit(&ctx, trunk, CommitOptions::default()).await.unwrap();
        let forgotten = db.write::<(), ChangeError, _>(|tx| {
            Box::pin(async move {
                let sql = "UPDATE installation SET key_check = NULL";
                db::on_tx!(tx, c => db::sqlx::query(sql).execute(c).await.map(|_| ()))?;
                Ok(())
            })
        });
        assert!(forgotten.await.is_ok());
        assert!(matches!(open("wrong").await, Err(OpenError::Foreign { .. })));
        assert_eq!(count(&db, "installation WHERE key_check IS NOT NULL").await, 0);
        open("right").await.unwrap();
        assert_eq!(count(&db, "installation WHERE key_check IS NOT NULL").await, 1);
        assert!(matches!(open("wrong").await, Err(OpenError::Foreign { .. })));
    })
    .await;
}

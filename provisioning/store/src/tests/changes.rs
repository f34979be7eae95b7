//! Commands: what they do, what they refuse, and that they do it once.

use model::change::{EffectKind, RefusalCode, ResourceKind, ResourceRef, ResourceVersion, Reversibility};
use model::page::PageRequest;
use model::time::Timestamp;
use provisioning::port::AuditFilter;
use testkit::clock::START;

use super::*;

/// Runs them at the same time.
async fn join_all<T: Send + 'static>(
    tasks: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    tasks.into_iter().collect::<tokio::task::JoinSet<T>>().join_all().await
}

#[tokio::test]
async fn each_command_does_what_it_says() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let store = &house.store;
        assert_eq!((t.customer.subscriber_count, t.reseller.subscriber_count), (1, 1));

        let renamed = Command::AccountUpdate {
            id: t.customer.id,
            name: Some("Mühle".to_owned()),
            call_limit: Some(Some(5)),
            subscriber_quota: Some(None),
            enabled: None,
        };
        let committed = house.commit(&t.ctx, renamed).await.unwrap();
        assert_eq!(committed.plan.reversibility, Reversibility::Reversible);
        let customer = store.account_get(&t.ctx, t.customer.id).await.unwrap().unwrap();
        assert_eq!((customer.name.as_str(), customer.call_limit, customer.revision.version), ("Mühle", Some(5), 2));

        let update = Command::SubscriberUpdate {
            id: t.subscriber,
            display_name: Some("Alice".to_owned()),
            site: Some(None),
            extension: Some(Some("101".parse().unwrap())),
            call_limit: Some(Some(2)),
            enabled: Some(false),
        };
        house.world.clock.advance_ms(1_000);
        house.done(&t.ctx, update).await;
        let s = store.subscriber_get(&t.ctx, t.subscriber).await.unwrap().unwrap();
        assert_eq!((s.display_name.as_str(), s.site, s.call_limit, s.enabled), ("Alice", None, Some(2), false));
        assert_eq!(s.extension.as_ref().unwrap().as_str(), "101");
        assert_eq!(s.revision.updated_at.ms_since(s.revision.created_at), 1_000);

        // The extension that is its own is no conflict.
        let mut same = subscriber_update(t.subscriber);
        if let Command::SubscriberUpdate { extension, .. } = &mut same {
            *extension = Some(s.extension.clone());
        }
        house.done(&t.ctx, same).await;

        let set = Command::SubscriberPasswordSet { id: t.subscriber, password: None };
        let set = house.commit(&t.ctx, set).await.unwrap();
        assert!(matches!(set.plan.reversibility, Reversibility::Final(_)));
        assert!(set.revealed.unwrap().expose().len() >= 20);

        house.done(&t.ctx, Command::NumberAssign { id: t.number, subscriber: None }).await;
        assert_eq!(store.number_get(&t.ctx, t.number).await.unwrap().unwrap().subscriber, None);
        house.done(&t.ctx, Command::NumberAssign { id: t.number, subscriber: Some(t.subscriber) }).await;

        let trunk = Command::TrunkUpdate {
            id: t.trunk,
            registration: Some(Some(registrar(5070))),
            call_limit: Some(None),
            priority: Some(9),
            keepalive_ms: Some(0),
            enabled: Some(false),
        };
        house.done(&t.ctx, trunk).await;
        let trunk = store.trunk_get(&t.ctx, t.trunk).await.unwrap().unwrap();
        assert_eq!((trunk.call_limit, trunk.priority, trunk.keepalive_ms, trunk.enabled), (None, 9, 0, false));
        assert_eq!(trunk.username.as_deref(), Some("tandem"));
        let registration = trunk.registration.unwrap();
        assert_eq!((registration.registrar.to_string().as_str(), registration.expires_s), ("192.0.2.7:5070", 600));
        assert_eq!(registration.domain, "192.0.2.7", "the registrar's address when no domain is named");
        let without = |registration| Command::TrunkUpdate {
            id: t.trunk,
            registration,
            call_limit: None,
            priority: Some(8),
            keepalive_ms: None,
            enabled: None,
        };
        house.done(&t.ctx, without(None)).await;
        assert!(store.trunk_get(&t.ctx, t.trunk).await.unwrap().unwrap().registration.is_some(), "left as it is");
        house.done(&t.ctx, without(Some(None))).await;
        assert_eq!(store.trunk_get(&t.ctx, t.trunk).await.unwrap().unwrap().registration, None);

        let site = Command::SiteUpdate { id: t.site, name: "Quay".to_owned() };
        assert_eq!(house.commit(&t.ctx, site).await.unwrap().plan.reversibility, Reversibility::Reversible);
        assert_eq!(store.site_get(&t.ctx, t.site).await.unwrap().unwrap().name, "Quay");
        house.done(&t.ctx, domain_update(t.domain, "44")).await;
        let domain = store.domain_get(&t.ctx, t.domain).await.unwrap().unwrap();
        assert_eq!((domain.dial_plan.country_code.as_str(), domain.revision.version), ("44", 2));
        refused_as(house.commit(&t.ctx, Command::DomainDelete { id: t.domain }).await, RefusalCode::InUse, "id");

        // A subscriber goes: its number stays with the customer, the counts sink along the path.
        let gone = house.commit(&t.ctx, Command::SubscriberDelete { id: t.subscriber }).await.unwrap();
        let effects: Vec<_> = gone.plan.effects.iter().map(|e| (e.kind, e.resource.kind)).collect();
        let expected = [(EffectKind::Updated, ResourceKind::Number), (EffectKind::Deleted, ResourceKind::Subscriber)];
        assert_eq!(effects, expected);
        assert_eq!(store.number_get(&t.ctx, t.number).await.unwrap().unwrap().subscriber, None);
        assert!(store.subscriber_get(&t.ctx, t.subscriber).await.unwrap().is_none());
        for id in [t.customer.id, t.reseller.id, house.bootstrap.provider] {
            let account = store.account_get(&house.provider, id).await.unwrap().unwrap();
            assert_eq!(account.subscriber_count, 0);
        }
        house.done(&t.ctx, Command::NumberDelete { id: t.number }).await;
        house.done(&t.ctx, Command::SiteDelete { id: t.site }).await;
        house.done(&t.ctx, Command::DomainDelete { id: t.domain }).await;
        assert!(store.site_get(&t.ctx, t.site).await.unwrap().is_none());
        assert!(store.domain_get(&t.ctx, t.domain).await.unwrap().is_none());
        house.done(&t.ctx, Command::TokenRevoke { id: t.token }).await;
        assert!(store.token_get(&t.ctx, t.token).await.unwrap().unwrap().revoked_at.is_some());

        let report = db::change::verify_audit(&house.db).await.unwrap();
        assert_eq!(report.entries, house.count("event").await);
        let trail = store.audit_list(&t.ctx, AuditFilter::default(), PageRequest::default()).await.unwrap();
        assert_eq!(trail.items.first().unwrap().1.command, "token_revoke");
    })
    .await;
}

#[tokio::test]
async fn refusals_name_the_field() {
    on_each_database(async |db: TestDb| {
        use RefusalCode::{Conflict, Forbidden, InUse, Invalid, NotFound, QuotaExceeded};
        let house = House::new(db).await;
        let (t, other) = (house.tenant(1).await, house.tenant(2).await);
        let (reseller, customer, ctx) = (t.reseller.id, t.customer.id, &t.ctx);
        let named = |mut command: Command, to: &str| {
            if let Command::AccountCreate { name, .. } | Command::SiteCreate { name, .. } = &mut command {
                to.clone_into(name);
            }
            command
        };
        let mut odd_zone = account_create(reseller, AccountKind::Customer, "x");
        if let Command::AccountCreate { timezone, call_limit, .. } = &mut odd_zone {
            "Mars/Olympus".clone_into(timezone);
            *call_limit = Some(u32::MAX);
        }
        let mut short_password = subscriber_create(t.domain, "a:b", None);
        if let Command::SubscriberCreate { password, site, .. } = &mut short_password {
            *password = Some(Secret::new("short".to_owned()));
            *site = Some(other.site);
        }
        let mut renamed = account_update(customer);
        if let Command::AccountUpdate { name, .. } = &mut renamed {
            *name = Some("Twin".to_owned());
        }
        house.account(reseller, AccountKind::Customer, "Twin").await;
        let expired = Command::TokenIssue {
            account: customer,
            name: "old".to_owned(),
            permissions: Permissions::default(),
            expires_at: Some(Timestamp(1)),
            networks: Networks::default(),
        };
        let site = Command::SiteCreate { account: customer, name: "Harbour".to_owned() };
        let mut no_address = trunk_create(reseller, "Other", 0);
        if let Command::TrunkCreate { keepalive_ms, .. } = &mut no_address {
            *keepalive_ms = 1;
        }
        let mut nobody = trunk_create(reseller, "Other", 9);
        if let Command::TrunkCreate { credentials, registration, .. } = &mut nobody {
            *credentials = None;
            *registration = Some(TrunkRegistrar { domain: Some("a b".to_owned()), expires_s: 1, ..registrar(0) });
        }
        let assign = |subscriber| Command::NumberAssign { id: t.number, subscriber: Some(subscriber) };
        let cases: Vec<(Command, Vec<(RefusalCode, &str)>)> = vec![
            (named(account_create(reseller, AccountKind::Customer, ""), "a\u{202e}b"), vec![(Invalid, "name")]),
            (odd_zone, vec![(Invalid, "timezone"), (Invalid, "callLimit")]),
            (account_create(reseller, AccountKind::Customer, "Customer 1"), vec![(Conflict, "name")]),
            (account_create(customer, AccountKind::Customer, "x"), vec![(Invalid, "parent")]),
            (account_create(reseller, AccountKind::Provider, "x"), vec![(Invalid, "kind")]),
            (renamed, vec![(Conflict, "name")]),
            (account_update(customer), vec![(Invalid, "")]),
            (quota(customer, 0), vec![(QuotaExceeded, "subscriberQuota")]),
            (quota(reseller, 9), vec![(Forbidden, "subscriberQuota")]),
            (enabled(reseller, false), vec![(Forbidden, "enabled")]),
            (domain_create(reseller, "new.example"), vec![(Invalid, "account")]),
            (domain_create(customer, "c2.example"), vec![(Conflict, "name")]),
            (site, vec![(Conflict, "name")]),
            (subscriber_create(t.domain, "alice", None), vec![(Conflict, "username")]),
            (subscriber_create(t.domain, "bob", Some("100")), vec![(Conflict, "extension")]),
            (short_password, vec![(Invalid, "username"), (Invalid, "password"), (NotFound, "site")]),
            (number_create(customer, "+43720002", None), vec![]),
            (number_create(customer, "+43720000002", None), vec![(Conflict, "e164")]),
            (assign(other.subscriber), vec![(NotFound, "subscriber")]),
            (Command::NumberDelete { id: t.number }, vec![(InUse, "id")]),
            (trunk_create(reseller, "Carrier", 9), vec![(Conflict, "name")]),
            (trunk_create(reseller, "Other", 5062), vec![(Conflict, "address")]),
            (no_address, vec![(Invalid, "address"), (Invalid, "keepaliveMs")]),
            (
                nobody,
                vec![
                    (Invalid, "registration.registrar"),
                    (Invalid, "registration"),
                    (Invalid, "registration.expiresS"),
                    (Invalid, "registration.domain"),
                ],
            ),
            (token_issue(customer, "ci", "audit:read"), vec![(Conflict, "name")]),
            (expired, vec![(Invalid, "permissions"), (Invalid, "expiresAt")]),
        ];
        for (command, expected) in cases {
            let expected: Vec<_> = expected.into_iter().map(|(code, field)| (code, field.to_owned())).collect();
            let before = house.count("audit").await;
            if expected.is_empty() {
                house.store.plan(ctx, &command).await.unwrap();
                continue;
            }
            assert_eq!(refused(house.store.plan(ctx, &command).await), expected, "{command:?}");
            assert_eq!(refused(house.commit(ctx, command.clone()).await), expected, "{command:?}");
            assert_eq!(house.count("audit").await, before);
        }
        // A number of the reseller's neighbour, seen by the provider, who reaches both.
        let across = Command::NumberAssign { id: t.number, subscriber: Some(other.subscriber) };
        refused_as(house.commit(&house.provider, across).await, Invalid, "subscriber");
        // Held by the reseller, answered below it.
        let held = number_create(reseller, "+4372099", Some(t.subscriber));
        house.done(ctx, held).await;

        house.done(&house.provider, enabled(reseller, false)).await;
        refused_as(house.commit(&house.provider, domain_create(customer, "late.example")).await, Conflict, "");
        house.done(&house.provider, Command::TokenRevoke { id: t.token }).await;
        house.done(&house.provider, enabled(reseller, true)).await;
    })
    .await;
}

#[tokio::test]
async fn quotas_hold_along_the_path_and_under_load() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        house.done(&house.provider, quota(t.reseller.id, 4)).await;
        let creates = (0..10).map(|n| {
            let (store, ctx) = (house.store.clone(), t.ctx.clone());
            let command = subscriber_create(t.domain, &format!("user{n}"), None);
            async move { store.commit(&ctx, command, CommitOptions::default()).await }
        });
        let outcomes = join_all(creates).await;
        assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 3, "one was there before");
        for outcome in outcomes.into_iter().filter(Result::is_err) {
            refused_as(outcome, RefusalCode::QuotaExceeded, "");
        }
        assert_eq!(house.count("subscriber").await, 4);
        let customer = house.world.ctx(Permissions::all(), t.customer.id, &t.customer.path);
        let refused = house.commit(&customer, subscriber_create(t.domain, "late", None)).await;
        assert!(!refused.unwrap_err().to_string().contains("Reseller 1"), "who is above is not named");
        let provider = house.store.account_get(&house.provider, house.bootstrap.provider).await.unwrap().unwrap();
        assert_eq!(provider.subscriber_count, 4);
    })
    .await;
}

#[tokio::test]
async fn of_many_who_want_a_number_one_gets_it() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let tenants = [house.tenant(1).await, house.tenant(2).await];
        let creates = (0..20).map(|n| {
            let t = &tenants[n % 2];
            let (store, ctx) = (house.store.clone(), t.ctx.clone());
            let command = number_create(t.customer.id, "+431234567", None);
            async move { store.commit(&ctx, command, CommitOptions::default()).await }
        });
        let outcomes = join_all(creates).await;
        assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1);
        for outcome in outcomes.into_iter().filter(Result::is_err) {
            let text = outcome.as_ref().unwrap_err().to_string();
            assert!(!text.contains("Reseller") && !text.contains("Customer"), "{text}");
            refused_as(outcome, RefusalCode::Conflict, "e164");
        }
        assert_eq!(house.count("number").await, 3);
        db::change::verify_audit(&house.db).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_race_on_every_unique_name_is_a_conflict() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let commands: Vec<(Command, &str)> = vec![
            (account_create(t.reseller.id, AccountKind::Customer, "Raced"), "name"),
            (domain_create(t.customer.id, "raced.example"), "name"),
            (Command::SiteCreate { account: t.customer.id, name: "Raced".to_owned() }, "name"),
            (subscriber_create(t.domain, "raced", None), "username"),
            (trunk_create(t.reseller.id, "Raced", 7000), "name"),
            (token_issue(t.customer.id, "raced", "audit:read"), "name"),
        ];
        for (command, field) in commands {
            let creates = (0..6).map(|_| {
                let (store, ctx, command) = (house.store.clone(), t.ctx.clone(), command.clone());
                async move { store.commit(&ctx, command, CommitOptions::default()).await }
            });
            let outcomes = join_all(creates).await;
            assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1, "{field}");
            for outcome in outcomes.into_iter().filter(Result::is_err) {
                let codes = refused(outcome);
                assert!(codes.iter().all(|(code, _)| *code == RefusalCode::Conflict), "{codes:?}");
                assert!(codes.iter().any(|(_, at)| at == field || at == "address"), "{codes:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_writes_nothing() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let empty = DomainId::from_uuid(house.done(&t.ctx, domain_create(t.customer.id, "empty.example")).await);
        let site = Command::SiteCreate { account: t.customer.id, name: "Bare".to_owned() };
        let made = house.commit(&t.ctx, site).await.unwrap();
        let (bare, made) = (SiteId::from_uuid(made.plan.effects[0].resource.id), made.change);
        let [bare_number, held_number] =
            [number_create(t.customer.id, "+4397", None), number_create(t.customer.id, "+4396", None)];
        let bare_number = NumberId::from_uuid(house.done(&t.ctx, bare_number).await);
        let held_number = NumberId::from_uuid(house.done(&t.ctx, held_number).await);
        let reserve = Command::NumberReserve { id: held_number, account: t.customer.id, until: START.plus_ms(1) };
        house.done(&t.ctx, reserve).await;
        let before = fingerprint(&house.db).await;
        let commands = [
            account_create(t.reseller.id, AccountKind::Customer, "x"),
            quota(t.customer.id, 3),
            domain_create(t.customer.id, "new.example"),
            Command::SiteCreate { account: t.customer.id, name: "x".to_owned() },
            subscriber_create(t.domain, "bob", None),
            enabled_subscriber(t.subscriber),
            Command::SubscriberPasswordSet { id: t.subscriber, password: None },
            Command::SubscriberDelete { id: t.subscriber },
            number_create(t.customer.id, "+4399", None),
            Command::NumberAssign { id: t.number, subscriber: None },
            Command::NumberReserve { id: bare_number, account: t.customer.id, until: START.plus_ms(1) },
            Command::NumberRelease { id: held_number },
            trunk_create(t.reseller.id, "x", 9),
            token_issue(t.customer.id, "x", "audit:read"),
            Command::TokenRevoke { id: t.token },
            domain_update(t.domain, "44"),
            Command::DomainDelete { id: empty },
            Command::SiteUpdate { id: t.site, name: "Quay".to_owned() },
            Command::SiteDelete { id: bare },
            Command::ChangeRevert { change: made },
        ];
        for command in commands {
            let plan = house.store.plan(&t.ctx, &command).await.unwrap();
            assert!(!plan.effects.is_empty(), "{command:?}");
        }
        assert_eq!(fingerprint(&house.db).await, before);
    })
    .await;
}

fn enabled_subscriber(id: SubscriberId) -> Command {
    let mut command = subscriber_update(id);
    if let Command::SubscriberUpdate { enabled, .. } = &mut command {
        *enabled = Some(true);
    }
    command
}

/// Rows and versions of every table that a change touches.
async fn fingerprint(db: &Db) -> Vec<i64> {
    let mut values = Vec::new();
    for table in ["account", "domain", "site", "subscriber", "number", "trunk", "api_token"] {
        let sql = format!("SELECT CAST(COUNT(*) + COALESCE(SUM(version), 0) AS BIGINT) FROM {table}");
        values.push(on_db!(db, c => sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(c).await).unwrap());
    }
    for table in ["audit", "event", "idempotency"] {
        values.push(count(db, table).await);
    }
    values
}

#[tokio::test]
async fn a_repeated_request_gets_the_stored_answer() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let create = |password: &str| {
            let mut command = subscriber_create(t.domain, "bob", None);
            if let Command::SubscriberCreate { password: at, .. } = &mut command {
                *at = (!password.is_empty()).then(|| Secret::new(password.to_owned()));
            }
            command
        };
        let commit =
            async |ctx: &Ctx, command: Command, options: CommitOptions| house.store.commit(ctx, command, options).await;
        let first = commit(&t.ctx, create(""), key("k1")).await.unwrap();
        assert!(!first.replayed && first.revealed.is_some());
        let again = commit(&t.ctx, create(""), key("k1")).await.unwrap();
        assert!(again.replayed && again.revealed.is_none(), "a secret is shown once");
        assert_eq!((again.change, &again.plan), (first.change, &first.plan));
        assert_eq!(house.count("subscriber").await, 2);
        // Another payload, even when only the secret differs.
        let conflict = RefusalCode::IdempotencyConflict;
        refused_as(commit(&t.ctx, create("another-password"), key("k1")).await, conflict, "idempotencyKey");
        let other = Command::SubscriberDelete { id: t.subscriber };
        refused_as(commit(&t.ctx, other, key("k1")).await, conflict, "idempotencyKey");
        // Keys are the actor's own.
        let number = number_create(t.customer.id, "+4399", None);
        assert!(!commit(&house.provider, number, key("k1")).await.unwrap().replayed);
        // Many at once: one does it, all get its answer.
        let commits = (0..8).map(|_| {
            let (store, ctx) = (house.store.clone(), t.ctx.clone());
            let command = number_create(t.customer.id, "+4398", None);
            async move { store.commit(&ctx, command, key("k2")).await.unwrap() }
        });
        let answers = join_all(commits).await;
        assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
        assert!(answers.iter().all(|answer| answer.change == answers[0].change));
    })
    .await;
}

#[tokio::test]
async fn expected_versions_are_compared() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let command = enabled_subscriber(t.subscriber);
        let plan = house.store.plan(&t.ctx, &command).await.unwrap();
        let options = CommitOptions { idempotency_key: None, expected: plan.versions };
        house.store.commit(&t.ctx, command.clone(), options.clone()).await.unwrap();
        let stale = house.store.commit(&t.ctx, command.clone(), options).await;
        refused_as(stale, RefusalCode::VersionMismatch, "expected");
        let resource = ResourceRef { kind: ResourceKind::Subscriber, id: t.subscriber.uuid() };
        let expected = vec![ResourceVersion { resource, version: 2 }];
        let options = CommitOptions { idempotency_key: None, expected };
        house.store.commit(&t.ctx, command, options).await.unwrap();
    })
    .await;
}

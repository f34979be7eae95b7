//! Tenants: who lies outside a scope looks missing, for every query and every command.

use model::change::RefusalCode;
use model::page::{PAGE_MAX, PageRequest, ReadError};
use provisioning::port::{AuditFilter, Authenticator as _};

use super::*;

/// Each command, aimed at objects of `t`.
fn commands_on(t: &Tenant) -> Vec<Command> {
    let mut rename = account_update(t.customer.id);
    if let Command::AccountUpdate { name, .. } = &mut rename {
        *name = Some("Renamed".to_owned());
    }
    let mut disable = subscriber_update(t.subscriber);
    if let Command::SubscriberUpdate { enabled, .. } = &mut disable {
        *enabled = Some(false);
    }
    let trunk = Command::TrunkUpdate {
        id: t.trunk,
        registration: Some(Some(registrar(5060))),
        call_limit: None,
        priority: None,
        keepalive_ms: None,
        enabled: Some(false),
    };
    vec![
        account_create(t.reseller.id, AccountKind::Customer, "Mine"),
        rename,
        domain_create(t.customer.id, "mine.example"),
        Command::SiteCreate { account: t.customer.id, name: "Mine".to_owned() },
        domain_update(t.domain, "44"),
        Command::SiteUpdate { id: t.site, name: "Quay".to_owned() },
        subscriber_create(t.domain, "mine", None),
        disable,
        Command::SubscriberPasswordSet { id: t.subscriber, password: None },
        Command::SubscriberDelete { id: t.subscriber },
        Command::SiteDelete { id: t.site },
        number_create(t.customer.id, "+4377777", None),
        Command::NumberAssign { id: t.number, subscriber: None },
        Command::NumberDelete { id: t.number },
        trunk_create(t.reseller.id, "Mine", 6000),
        trunk,
        token_issue(t.customer.id, "mine", "audit:read"),
        Command::TokenRevoke { id: t.token },
    ]
}

#[tokio::test]
async fn nobody_changes_what_is_beside_or_above() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let (mine, foreign) = (house.tenant(1).await, house.tenant(2).await);
        let audit = house.count("audit").await;
        let missing_id = |ctx: &Ctx| AccountId::new(&*ctx.ids);
        for command in commands_on(&foreign) {
            for result in [
                house.store.plan(&mine.ctx, &command).await.map(|_| ()),
                house.commit(&mine.ctx, command.clone()).await.map(|_| ()),
            ] {
                let codes = refused(result);
                assert_eq!(codes.len(), 1, "{command:?}: {codes:?}");
                assert_eq!(codes[0].0, RefusalCode::NotFound, "{command:?}");
            }
        }
        // The words are those for an object that never was.
        let domain_at = |account| domain_create(account, "x.example");
        let text = |result: Result<Committed, ChangeError>, id: AccountId| {
            result.unwrap_err().to_string().replace(&id.to_string(), "ID")
        };
        let never = missing_id(&mine.ctx);
        let of_never = text(house.commit(&mine.ctx, domain_at(never)).await, never);
        let of_foreign = text(house.commit(&mine.ctx, domain_at(foreign.customer.id)).await, foreign.customer.id);
        assert_eq!(of_never, of_foreign);
        // The parent is foreign too.
        let provider = house.bootstrap.provider;
        for command in [
            account_create(provider, AccountKind::Reseller, "x"),
            quota(provider, 9),
            number_create(provider, "+4377778", None),
            trunk_create(provider, "x", 6001),
            token_issue(provider, "x", "audit:read"),
        ] {
            let codes = refused(house.commit(&mine.ctx, command).await);
            assert!(codes.iter().all(|(code, _)| *code == RefusalCode::NotFound), "{codes:?}");
        }
        assert_eq!(house.count("audit").await, audit);
        // The same commands work for who owns the objects, in this order.
        for command in commands_on(&foreign) {
            if let Err(error) = house.commit(&foreign.ctx, command.clone()).await {
                panic!("{command:?}: {error}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn nobody_reads_what_is_beside_or_above() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let (mine, foreign) = (house.tenant(1).await, house.tenant(2).await);
        let (store, ctx) = (&house.store, &mine.ctx);
        let page = PageRequest::default;
        macro_rules! confined {
            ($get:ident, $list:ident, $own:expr, $foreign:expr) => {
                assert!(store.$get(ctx, $own).await.unwrap().is_some(), stringify!($get));
                assert!(store.$get(ctx, $foreign).await.unwrap().is_none(), stringify!($get));
                assert!(store.$get(&house.provider, $foreign).await.unwrap().is_some(), stringify!($get));
                let listed = store.$list(ctx, None, page()).await.unwrap();
                assert!(listed.items.iter().any(|(_, r)| r.id == $own), stringify!($list));
                assert!(listed.items.iter().all(|(_, r)| r.id != $foreign), stringify!($list));
                for owner in [foreign.customer.id, foreign.reseller.id] {
                    assert!(store.$list(ctx, Some(owner), page()).await.unwrap().items.is_empty(), stringify!($list));
                }
                let all = store.$list(&house.provider, None, page()).await.unwrap();
                assert!(all.items.len() > listed.items.len(), stringify!($list));
            };
        }
        confined! { account_get, account_list, mine.customer.id, foreign.customer.id }
        confined! { domain_get, domain_list, mine.domain, foreign.domain }
        confined! { site_get, site_list, mine.site, foreign.site }
        confined! { subscriber_get, subscriber_list, mine.subscriber, foreign.subscriber }
        confined! { number_get, number_list, mine.number, foreign.number }
        confined! { trunk_get, trunk_list, mine.trunk, foreign.trunk }
        confined! { token_get, token_list, mine.token, foreign.token }
        assert!(store.account_get(ctx, house.bootstrap.provider).await.unwrap().is_none());
        let own = store.domain_list(ctx, Some(mine.customer.id), page()).await.unwrap();
        assert_eq!(own.items.len(), 1);
        let trail = store.audit_list(ctx, AuditFilter::default(), page()).await.unwrap();
        assert!(!trail.items.is_empty() && trail.items.iter().all(|(_, e)| ctx.scope.contains(&e.path)));
    })
    .await;
}

#[tokio::test]
async fn reads_and_changes_need_their_permission() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let holder = |permissions: &str| {
            let permissions: Permissions = permissions.parse().unwrap();
            house.world.ctx(permissions, t.reseller.id, &t.reseller.path)
        };
        let page = PageRequest::default;
        let none = holder("billing:read");
        assert!(matches!(house.store.domain_get(&none, t.domain).await, Err(ReadError::Denied(_))));
        assert!(matches!(house.store.account_list(&none, None, page()).await, Err(ReadError::Denied(_))));
        let reader = holder("provisioning:read");
        assert!(house.store.domain_get(&reader, t.domain).await.unwrap().is_some());
        assert!(matches!(house.store.token_list(&reader, None, page()).await, Err(ReadError::Denied(_))));
        assert!(matches!(
            house.store.audit_list(&reader, AuditFilter::default(), page()).await,
            Err(ReadError::Denied(_))
        ));
        for command in commands_on(&t) {
            refused_as(house.store.plan(&reader, &command).await, RefusalCode::Forbidden, "");
            refused_as(house.commit(&reader, command).await, RefusalCode::Forbidden, "");
        }
        // A grant never exceeds the granter's.
        let issuer = holder("token:write provisioning:read");
        let more = token_issue(t.customer.id, "more", "provisioning:read audit:read");
        refused_as(house.commit(&issuer, more).await, RefusalCode::Forbidden, "permissions");
        house.done(&issuer, token_issue(t.customer.id, "less", "provisioning:read")).await;
        // Nor does it outlive the token by which it was made.
        let now = house.world.system().now();
        let issue = |name: &str, expires_at| Command::TokenIssue {
            account: t.customer.id,
            name: name.to_owned(),
            permissions: "token:write".parse().unwrap(),
            expires_at,
            networks: Networks::default(),
        };
        let hour = Some(now.plus_ms(3_600_000));
        let lent = house.commit(&holder("token:write"), issue("lent", hour)).await.unwrap();
        let lent = lent.revealed.unwrap();
        let actor = house.store.token_authenticate(lent.expose(), HERE, now).await.unwrap().unwrap();
        assert_eq!(actor.expires_at, hour);
        let mut borrower = holder("token:write");
        borrower.actor = actor;
        for (name, ends) in [("ever", None), ("later", Some(now.plus_ms(3_600_001)))] {
            refused_as(house.commit(&borrower, issue(name, ends)).await, RefusalCode::Forbidden, "expiresAt");
        }
        house.done(&borrower, issue("within", hour)).await;
    })
    .await;
}

#[tokio::test]
async fn pages_follow_each_other() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        for n in 0..5 {
            house.done(&t.ctx, number_create(t.customer.id, &format!("+43999{n}"), None)).await;
            house.account(t.reseller.id, AccountKind::Customer, &format!("More {n}")).await;
        }
        let mut seen = Vec::new();
        let mut page = PageRequest { first: 2, after: None };
        loop {
            let numbers = house.store.number_list(&t.ctx, Some(t.customer.id), page.clone()).await.unwrap();
            seen.extend(numbers.items.iter().map(|(_, n)| n.id));
            page.after = numbers.items.last().map(|(cursor, _)| cursor.clone());
            if !numbers.has_next {
                break;
            }
        }
        assert_eq!(seen.len(), 6);
        assert!(seen.is_sorted());
        let mut paths = Vec::new();
        let mut page = PageRequest { first: 3, after: None };
        loop {
            let accounts = house.store.account_list(&t.ctx, Some(t.reseller.id), page.clone()).await.unwrap();
            paths.extend(accounts.items.iter().map(|(_, a)| a.path.clone()));
            page.after = accounts.items.last().map(|(cursor, _)| cursor.clone());
            if !accounts.has_next {
                break;
            }
        }
        assert_eq!(paths.len(), 6);
        assert!(paths.is_sorted());
        let bad = |first, after: Option<&str>| PageRequest { first, after: after.map(str::to_owned) };
        for page in [bad(0, None), bad(PAGE_MAX + 1, None), bad(1, Some("x"))] {
            let refused = house.store.number_list(&t.ctx, None, page.clone()).await;
            assert!(matches!(refused, Err(ReadError::Invalid { .. })));
            let refused = house.store.account_list(&t.ctx, None, page.clone()).await;
            assert!(matches!(refused, Err(ReadError::Invalid { .. })));
            let refused = house.store.audit_list(&t.ctx, AuditFilter::default(), page).await;
            assert!(matches!(refused, Err(ReadError::Invalid { .. })));
        }
    })
    .await;
}

#[tokio::test]
async fn a_token_lives_until_it_ends() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let (store, clock) = (&house.store, &house.world.clock);
        let now = || model::time::Clock::now(&**clock).utc;
        let first = store.token_authenticate(house.bootstrap.token.expose(), HERE, now()).await.unwrap().unwrap();
        assert_eq!((first.account, first.permissions), (house.bootstrap.provider, Permissions::all()));
        assert!(house.bootstrap.token.expose().starts_with("tdm_"));
        for wrong in ["", "tdm_", "tdm_00", &"x".repeat(100_000), &format!("tdm_{}", "0".repeat(64))] {
            assert!(store.token_authenticate(wrong, HERE, now()).await.unwrap().is_none());
        }
        let command = Command::TokenIssue {
            account: t.customer.id,
            name: "short".to_owned(),
            permissions: "alarm:read".parse().unwrap(),
            expires_at: Some(now().plus_ms(60_000)),
            networks: Networks::default(),
        };
        let issued = house.commit(&t.ctx, command).await.unwrap();
        let (id, token) = (issued.plan.effects[0].resource.id, issued.revealed.unwrap());
        let token = token.expose();
        let actor = store.token_authenticate(token, HERE, now()).await.unwrap().unwrap();
        assert_eq!((actor.id, &actor.path, actor.name.as_str()), (id, &t.customer.path, "short"));
        // A disabled reseller takes everybody below along.
        house.done(&house.provider, enabled(t.reseller.id, false)).await;
        assert!(store.token_authenticate(token, HERE, now()).await.unwrap().is_none());
        house.done(&house.provider, enabled(t.reseller.id, true)).await;
        assert!(store.token_authenticate(token, HERE, now()).await.unwrap().is_some());
        clock.advance_ms(60_000);
        assert!(store.token_authenticate(token, HERE, now()).await.unwrap().is_none());

        let lasting = house.commit(&t.ctx, token_issue(t.customer.id, "lasting", "alarm:read")).await.unwrap();
        let (id, token) = (lasting.plan.effects[0].resource.id, lasting.revealed.unwrap());
        assert!(store.token_authenticate(token.expose(), HERE, now()).await.unwrap().is_some());
        house.done(&t.ctx, Command::TokenRevoke { id: TokenId::from_uuid(id) }).await;
        assert!(store.token_authenticate(token.expose(), HERE, now()).await.unwrap().is_none());
        let twice = house.commit(&t.ctx, Command::TokenRevoke { id: TokenId::from_uuid(id) }).await;
        refused_as(twice, RefusalCode::Conflict, "id");
    })
    .await;
}

#[tokio::test]
async fn a_token_is_used_from_where_it_may_and_drawn_anew() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let (store, now) = (&house.store, || house.provider.now());
        let issue = |name: &str, networks: &str| Command::TokenIssue {
            account: t.customer.id,
            name: name.to_owned(),
            permissions: "token:write".parse().unwrap(),
            expires_at: None,
            networks: networks.parse().unwrap(),
        };
        let bound = house.commit(&t.ctx, issue("office", "192.0.2.0/24 2001:db8::/48")).await.unwrap();
        let (id, bound) = (TokenId::from_uuid(bound.plan.effects[0].resource.id), bound.revealed.unwrap());
        for (from, is_in) in
            [("192.0.2.9", true), ("::ffff:192.0.2.9", true), ("2001:db8::1", true), ("192.0.3.9", false)]
        {
            let actor = store.token_authenticate(bound.expose(), from.parse().unwrap(), now()).await.unwrap();
            assert_eq!(actor.is_some(), is_in, "{from}");
        }
        // What it grants is used from nowhere else
        let mut borrower = t.ctx.clone();
        borrower.actor = store.token_authenticate(bound.expose(), HERE, now()).await.unwrap().unwrap();
        borrower.scope = model::tenancy::Scope::of(&borrower.actor.path);
        refused_as(house.commit(&borrower, issue("home", "198.51.100.1")).await, RefusalCode::Forbidden, "networks");
        let inherited = TokenId::from_uuid(house.done(&borrower, issue("same", "")).await);
        let inherited = store.token_get(&t.ctx, inherited).await.unwrap().unwrap();
        assert_eq!(inherited.networks, "192.0.2.0/24 2001:db8::/48".parse().unwrap());
        let widen =
            |networks: &str| Command::TokenUpdate { id, expires_at: None, networks: Some(networks.parse().unwrap()) };
        refused_as(house.commit(&borrower, widen("")).await, RefusalCode::Forbidden, "networks");
        house.done(&borrower, widen("192.0.2.7")).await;
        let elsewhere = "192.0.2.9".parse().unwrap();
        assert!(store.token_authenticate(bound.expose(), elsewhere, now()).await.unwrap().is_none());

        // Drawn anew, with time to change the clients
        let rotate = |overlap_s| Command::TokenRotate { id, overlap_s };
        refused_as(house.commit(&t.ctx, rotate(8 * 86_400)).await, RefusalCode::Invalid, "overlapS");
        let rotated = house.commit(&t.ctx, rotate(60)).await.unwrap();
        assert!(!serde_json::to_string(&rotated.plan).unwrap().contains("tdm_"));
        let fresh = rotated.revealed.unwrap();
        for token in [&bound, &fresh] {
            assert!(store.token_authenticate(token.expose(), HERE, now()).await.unwrap().is_some());
        }
        house.world.clock.advance_ms(60_000);
        assert!(store.token_authenticate(bound.expose(), HERE, now()).await.unwrap().is_none());
        assert!(store.token_authenticate(fresh.expose(), HERE, now()).await.unwrap().is_some());
        let last = house.commit(&t.ctx, rotate(0)).await.unwrap().revealed.unwrap();
        assert!(store.token_authenticate(fresh.expose(), HERE, now()).await.unwrap().is_none());

        // When it was last used is written behind, and is no change
        assert_eq!(store.token_get(&t.ctx, id).await.unwrap().unwrap().last_used_at, None);
        assert!(store.token_authenticate(last.expose(), HERE, now()).await.unwrap().is_some());
        assert!(store.store_token_uses().await.unwrap() > 0);
        assert_eq!(store.store_token_uses().await.unwrap(), 0);
        let token = store.token_get(&t.ctx, id).await.unwrap().unwrap();
        assert_eq!((token.last_used_at, token.revision.version), (Some(now()), 4));

        house.done(&t.ctx, Command::TokenRevoke { id }).await;
        refused_as(house.commit(&t.ctx, rotate(0)).await, RefusalCode::Conflict, "id");
        assert!(store.token_authenticate(last.expose(), HERE, now()).await.unwrap().is_none());
    })
    .await;
}

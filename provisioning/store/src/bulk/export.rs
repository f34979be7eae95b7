//! What there is, as lines that put it.

use std::collections::{BTreeSet, HashMap};

use db::dialect::{Value, select_keyed};
use db::{DbError, Tx};
use model::ctx::Ctx;
use model::id::{AccountId, DomainId, SiteId, SubscriberId};
use model::page::{Page, PageRequest, ReadError};
use model::tenancy::AccountPath;
use provisioning::bulk::{AccountName, Fields, Kind};
use provisioning::port::Queries;
use provisioning::resource::{Account, Domain, Site};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::ProvisioningStore;
use crate::row::{Stored, read_error};
use crate::{account, domain, number, site};

pub(super) async fn export(
    store: &ProvisioningStore,
    ctx: &Ctx,
    kind: Kind,
    page: PageRequest,
) -> Result<Page<Fields>, ReadError> {
    match kind {
        Kind::Account => accounts(store, ctx, page).await,
        Kind::Domain => {
            let page = store.domain_list(ctx, None, page).await?;
            let names = names(store, ctx, page.items.iter().map(|(_, domain)| domain.account)).await?;
            Ok(fields(page, |domain| {
                let plan = domain.dial_plan;
                Fields::of([
                    ("kind", text(kind.as_str())),
                    ("account", names.get(&domain.account).map(|name| Json::from(name.to_string()))),
                    ("domain", text(domain.name.as_str())),
                    ("countryCode", text(&plan.country_code)),
                    ("nationalPrefix", text(&plan.national_prefix)),
                    ("internationalPrefix", text(&plan.international_prefix)),
                    ("id", text(&domain.id.to_string())),
                ])
            }))
        }
        Kind::Site => {
            let page = store.site_list(ctx, None, page).await?;
            let names = names(store, ctx, page.items.iter().map(|(_, site)| site.account)).await?;
            Ok(fields(page, |site| {
                Fields::of([
                    ("kind", text(kind.as_str())),
                    ("account", names.get(&site.account).map(|name| Json::from(name.to_string()))),
                    ("site", text(&site.name)),
                    ("id", text(&site.id.to_string())),
                ])
            }))
        }
        Kind::Number => {
            let page = store.number_list(ctx, None, page).await?;
            let names = names(store, ctx, page.items.iter().map(|(_, number)| number.account)).await?;
            Ok(fields(page, |number| {
                Fields::of([
                    ("kind", text(kind.as_str())),
                    ("account", names.get(&number.account).map(|name| Json::from(name.to_string()))),
                    ("number", text(&number.e164.to_string())),
                    ("id", text(&number.id.to_string())),
                ])
            }))
        }
        Kind::Subscriber => subscribers(store, ctx, page).await,
    }
}

/// Accounts below the caller's own.
async fn accounts(store: &ProvisioningStore, ctx: &Ctx, page: PageRequest) -> Result<Page<Fields>, ReadError> {
    let page = store.account_list(ctx, None, page).await?;
    let names = names(store, ctx, page.items.iter().map(|(_, account)| account.id)).await?;
    let Page { items, has_next } = page;
    let below = items.into_iter().filter(|(_, account)| account.id != ctx.actor.account).collect();
    Ok(fields(Page { items: below, has_next }, |account: Account| {
        Fields::of([
            ("kind", text(Kind::Account.as_str())),
            ("account", names.get(&account.id).map(|name| Json::from(name.to_string()))),
            ("accountKind", text(account.kind.as_str())),
            ("timezone", text(&account.timezone)),
            ("currency", text(account.currency.code())),
            ("callLimit", Some(account.call_limit.into())),
            ("subscriberQuota", Some(account.subscriber_quota.into())),
            ("enabled", Some(account.enabled.into())),
            ("id", text(&account.id.to_string())),
        ])
    }))
}

async fn subscribers(store: &ProvisioningStore, ctx: &Ctx, page: PageRequest) -> Result<Page<Fields>, ReadError> {
    let page = store.subscriber_list(ctx, None, page).await?;
    let of = |id: fn(&provisioning::resource::Subscriber) -> Option<Uuid>| -> Vec<Uuid> {
        page.items.iter().filter_map(|(_, subscriber)| id(subscriber)).collect()
    };
    let (domain_ids, site_ids) = (of(|s| Some(s.domain.uuid())), of(|s| s.site.map(SiteId::uuid)));
    let subscriber_ids = of(|s| Some(s.id.uuid()));
    let related = store.db.read::<_, DbError, _>(move |tx| {
        Box::pin(async move {
            let domains: Vec<Domain> = among::<domain::Row>(tx, ("domain", domain::COLUMNS), "id", &domain_ids).await?;
            let sites: Vec<Site> = among::<site::Row>(tx, ("site", site::COLUMNS), "id", &site_ids).await?;
            let table = ("number", number::COLUMNS);
            let numbers = among::<number::Row>(tx, table, "subscriber_id", &subscriber_ids).await?;
            Ok((domains, sites, numbers))
        })
    });
    let (domains, sites, numbers) = related.await.map_err(read_error)?;
    let domains: HashMap<DomainId, Domain> = domains.into_iter().map(|domain| (domain.id, domain)).collect();
    let sites: HashMap<SiteId, Site> = sites.into_iter().map(|site| (site.id, site)).collect();
    let mut answered: HashMap<SubscriberId, Vec<String>> = HashMap::new();
    for number in numbers {
        if let Some(subscriber) = number.subscriber {
            answered.entry(subscriber).or_default().push(number.e164.to_string());
        }
    }
    let names = names(store, ctx, page.items.iter().map(|(_, subscriber)| subscriber.account)).await?;
    Ok(fields(page, |subscriber| {
        let mut numbers = answered.remove(&subscriber.id).unwrap_or_default();
        numbers.sort_unstable();
        let site = subscriber.site.and_then(|site| sites.get(&site)).map(|site| site.name.clone());
        Fields::of([
            ("kind", text(Kind::Subscriber.as_str())),
            ("account", names.get(&subscriber.account).map(|name| Json::from(name.to_string()))),
            ("domain", domains.get(&subscriber.domain).map(|domain| Json::from(domain.name.as_str()))),
            ("username", text(&subscriber.username)),
            ("displayName", text(&subscriber.display_name)),
            ("site", Some(site.into())),
            ("extension", Some(subscriber.extension.map(|extension| extension.to_string()).into())),
            ("numbers", Some(numbers.into())),
            ("callLimit", Some(subscriber.call_limit.into())),
            ("enabled", Some(subscriber.enabled.into())),
            ("id", text(&subscriber.id.to_string())),
        ])
    }))
}

fn text(text: &str) -> Option<Json> {
    Some(Json::from(text))
}

fn fields<T>(page: Page<T>, mut line: impl FnMut(T) -> Fields) -> Page<Fields> {
    let Page { items, has_next } = page;
    Page { items: items.into_iter().map(|(cursor, item)| (cursor, line(item))).collect(), has_next }
}

/// The names of accounts, from the caller's down.
async fn names(
    store: &ProvisioningStore,
    ctx: &Ctx,
    accounts: impl Iterator<Item = AccountId>,
) -> Result<HashMap<AccountId, AccountName>, ReadError> {
    let ids: BTreeSet<Uuid> = accounts.map(AccountId::uuid).collect();
    let ids: Vec<Uuid> = ids.into_iter().collect();
    let root = ctx.actor.path.clone();
    let named = store.db.read::<_, DbError, _>(move |tx| {
        Box::pin(async move {
            let table = ("account", account::COLUMNS);
            let accounts: Vec<Account> = among::<account::Row>(tx, table, "id", &ids).await?;
            let paths: BTreeSet<AccountPath> = accounts.iter().flat_map(|account| account.path.ancestry()).collect();
            let keys: Vec<_> = paths.iter().map(|path| vec![Value::Text(Some(path.as_str()))]).collect();
            let rows: Vec<(String, String)> =
                select_keyed(tx, ("x.path, x.name", "account"), &["path"], &keys, "ORDER BY x.path").await?;
            let name_of: HashMap<String, String> = rows.into_iter().collect();
            let name = |account: &Account| {
                let below = account.path.ancestry().into_iter().filter(|path| root.contains(path) && *path != root);
                let names = below.filter_map(|path| name_of.get(path.as_str()).cloned()).collect();
                (account.id, AccountName::new(names))
            };
            Ok(accounts.iter().map(name).collect())
        })
    });
    named.await.map_err(read_error)
}

/// Rows whose column has one of these values.
async fn among<R: Stored>(
    tx: &mut Tx,
    (table, columns): (&str, &str),
    column: &str,
    ids: &[Uuid],
) -> Result<Vec<R::Resource>, DbError> {
    let ids: BTreeSet<Uuid> = ids.iter().copied().collect();
    let keys: Vec<_> = ids.into_iter().map(|id| vec![id.into()]).collect();
    let rows: Vec<R> = select_keyed(tx, (columns, table), &[column], &keys, "ORDER BY x.id").await?;
    rows.into_iter().map(R::resource).collect()
}

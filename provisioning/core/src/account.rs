//! Accounts: who sits below whom, and the limits that only those above may set.

use model::actor::Permissions;
use model::change::{RefusalCode, ResourceKind};
use model::id::AccountId;
use model::money::Currency;
use model::network::Networks;
use model::tenancy::{AccountKind, AccountPath};

use crate::command::Command;
use crate::decide::Case;
use crate::resource::Account;
use crate::token::Grant;
use crate::view::{Taken, Write};

/// Highest quota of subscribers: more than one installation holds.
const SUBSCRIBER_QUOTA_MAX: u32 = 10_000_000;

/// Name of the first token.
const FIRST_TOKEN: &str = "first";

pub(crate) fn provider(case: &mut Case<'_>, name: &str, timezone: &str, currency: Currency) {
    case.check_name("name", name, 1);
    check_timezone(case, timezone);
    let id = AccountId::new(&*case.ctx.ids);
    let account = Account {
        id,
        parent: None,
        path: AccountPath::root(id),
        kind: AccountKind::Provider,
        name: name.to_owned(),
        timezone: timezone.to_owned(),
        currency,
        call_limit: None,
        subscriber_quota: None,
        subscriber_count: 0,
        enabled: true,
        revision: case.first_revision(),
    };
    case.is_final("an installation keeps its provider");
    let write = Write::AccountInsert(account.clone());
    case.effect((ResourceKind::Account, id.uuid()), name, None, Some(&account), write);
    let grant = Grant { permissions: Permissions::all(), expires_at: None, networks: &Networks::default() };
    crate::token::issued(case, id, FIRST_TOKEN, grant);
}

pub(crate) fn create(case: &mut Case<'_>, command: &Command) {
    let Command::AccountCreate { parent, kind, name, timezone, currency, call_limit, subscriber_quota } = command
    else {
        return;
    };
    case.check_name("name", name, 1);
    check_timezone(case, timezone);
    check_limits(case, *call_limit, *subscriber_quota);
    let Some(above) = case.owner() else { return case.missing("parent", "account", parent) };
    if *kind == AccountKind::Provider {
        case.invalid("kind", "an installation has one provider", "create a reseller or a customer");
    }
    if above.kind == AccountKind::Customer {
        case.invalid("parent", "a customer has no accounts below it", "name a reseller or the provider");
    }
    case.check_taken(None, Taken::Name);
    let id = AccountId::new(&*case.ctx.ids);
    let path = match above.path.child(id) {
        Ok(path) => path,
        Err(error) => return case.invalid("parent", &error.to_string(), "create it further up"),
    };
    let account = Account {
        id,
        parent: Some(above.id),
        path,
        kind: *kind,
        name: name.clone(),
        timezone: timezone.clone(),
        currency: *currency,
        call_limit: *call_limit,
        subscriber_quota: *subscriber_quota,
        subscriber_count: 0,
        enabled: true,
        revision: case.first_revision(),
    };
    case.is_final("an account is never removed, since its bills name it; it can be disabled");
    let write = Write::AccountInsert(account.clone());
    case.effect((ResourceKind::Account, id.uuid()), name, None, Some(&account), write);
}

pub(crate) fn update(case: &mut Case<'_>, command: &Command) {
    let Command::AccountUpdate { id, name, call_limit, subscriber_quota, enabled } = command else { return };
    let Some(before) = case.view.ancestry.last().filter(|a| a.id == *id && case.ctx.scope.contains(&a.path)) else {
        return case.missing("id", "account", id);
    };
    case.looked_at(ResourceKind::Account, before.id.uuid(), before.revision);
    let asked = [
        ("callLimit", call_limit.is_some()),
        ("subscriberQuota", subscriber_quota.is_some()),
        ("enabled", enabled.is_some()),
    ];
    if name.is_none() && asked.iter().all(|(_, is_asked)| !is_asked) {
        case.invalid("", "no field is to change", "send at least one field");
    }
    check_authority(case, before, asked);
    let after = Account {
        name: name.clone().unwrap_or_else(|| before.name.clone()),
        call_limit: call_limit.unwrap_or(before.call_limit),
        subscriber_quota: subscriber_quota.unwrap_or(before.subscriber_quota),
        enabled: enabled.unwrap_or(before.enabled),
        revision: case.next_revision(before.revision),
        ..before.clone()
    };
    replaced(case, before, &after);
}

/// The account is as it was before a change that is taken back.
pub(crate) fn restored(case: &mut Case<'_>, before: &Account, after: &Account) {
    let changed = [
        ("callLimit", before.call_limit != after.call_limit),
        ("subscriberQuota", before.subscriber_quota != after.subscriber_quota),
        ("enabled", before.enabled != after.enabled),
    ];
    check_authority(case, before, changed);
    replaced(case, before, after);
}

/// Who is held by a limit must not be the one who lifts it.
fn check_authority(case: &mut Case<'_>, account: &Account, asked: [(&'static str, bool); 3]) {
    let is_above = match case.view.ancestry.iter().rev().nth(1) {
        Some(parent) => case.ctx.scope.contains(&parent.path),
        None => account.parent.is_none(),
    };
    if is_above {
        return;
    }
    let message = "the limits of an account, and whether it is enabled, are set by the account above it";
    for (field, _) in asked.into_iter().filter(|(_, is_asked)| *is_asked) {
        case.refuse(RefusalCode::Forbidden, field, message, "ask the account above");
    }
}

fn replaced(case: &mut Case<'_>, before: &Account, after: &Account) {
    if after.name != before.name {
        case.check_name("name", &after.name, 1);
        case.check_taken(Some(after.id.uuid()), Taken::Name);
    }
    check_limits(case, after.call_limit, after.subscriber_quota);
    let is_new = after.subscriber_quota != before.subscriber_quota;
    if is_new && after.subscriber_quota.is_some_and(|quota| quota < before.subscriber_count) {
        let message = format!("there are {} subscribers at and below this account", before.subscriber_count);
        case.refuse(RefusalCode::QuotaExceeded, "subscriberQuota", &message, "send no less, or remove some first");
    }
    let write = Write::AccountUpdate(after.clone());
    case.effect((ResourceKind::Account, after.id.uuid()), after.name.clone(), Some(before), Some(after), write);
}

fn check_timezone(case: &mut Case<'_>, timezone: &str) {
    if timezone.parse::<chrono_tz::Tz>().is_err() {
        case.invalid("timezone", "this is no IANA time zone", "send a name such as Europe/Vienna or UTC");
    }
}

fn check_limits(case: &mut Case<'_>, call_limit: Option<u32>, subscriber_quota: Option<u32>) {
    case.check_call_limit(call_limit);
    if subscriber_quota.is_some_and(|quota| quota > SUBSCRIBER_QUOTA_MAX) {
        let remedy = format!("send at most {SUBSCRIBER_QUOTA_MAX}, or none for no quota");
        case.invalid("subscriberQuota", "the quota is too high", &remedy);
    }
}

//! Subscribers: users and devices with SIP credentials.

use model::change::{RefusalCode, ResourceKind};
use model::id::{AccountId, SiteId, SubscriberId};
use model::secret::Secret;

use crate::command::Command;
use crate::decide::Case;
use crate::number;
use crate::resource::{Domain, Number, Subscriber};
use crate::view::{SipPassword, Taken, Write};

pub(crate) fn create(case: &mut Case<'_>, command: &Command) {
    let Command::SubscriberCreate { domain, site, username, display_name, extension, password, call_limit } = command
    else {
        return;
    };
    case.check_username("username", username);
    case.check_name("displayName", display_name, 0);
    case.check_call_limit(*call_limit);
    if let Some(password) = password {
        case.check_password("password", password);
    }
    let (Some(in_domain), Some(customer)) = (case.view.domain(*domain), case.owner()) else {
        return case.missing("domain", "domain", domain);
    };
    case.looked_at(ResourceKind::Domain, in_domain.id.uuid(), in_domain.revision);
    check_site(case, *site, customer.id);
    check_quota(case);
    case.check_taken(None, Taken::Username);
    case.check_taken(None, Taken::Extension);
    let id = SubscriberId::new(&*case.ctx.ids);
    let subscriber = Subscriber {
        id,
        account: customer.id,
        domain: in_domain.id,
        site: *site,
        username: username.clone(),
        display_name: display_name.clone(),
        extension: extension.clone(),
        call_limit: *call_limit,
        enabled: true,
        revision: case.first_revision(),
    };
    let write = Write::SubscriberInsert(subscriber.clone(), sip_password(in_domain, password.as_ref()));
    let name = address_of_record(&subscriber, in_domain);
    case.effect((ResourceKind::Subscriber, id.uuid()), name, None, Some(&subscriber), write);
    case.write(Write::SubscriberCount { path: customer.path.clone(), delta: 1 });
}

pub(crate) fn update(case: &mut Case<'_>, command: &Command) {
    let Command::SubscriberUpdate { id, display_name, site, extension, call_limit, enabled } = command else { return };
    let Some((before, domain)) = named(case, *id) else { return };
    if display_name.is_none() && site.is_none() && extension.is_none() && call_limit.is_none() && enabled.is_none() {
        case.invalid("", "no field is to change", "send at least one field");
    }
    let after = Subscriber {
        display_name: display_name.clone().unwrap_or_else(|| before.display_name.clone()),
        site: site.unwrap_or(before.site),
        extension: extension.clone().unwrap_or_else(|| before.extension.clone()),
        call_limit: call_limit.unwrap_or(before.call_limit),
        enabled: enabled.unwrap_or(before.enabled),
        revision: case.next_revision(before.revision),
        ..before.clone()
    };
    replaced(case, before, &after, domain);
}

pub(crate) fn password_set(case: &mut Case<'_>, id: SubscriberId, password: Option<&Secret<String>>) {
    if let Some(password) = password {
        case.check_password("password", password);
    }
    let Some((before, domain)) = named(case, id) else { return };
    let after = Subscriber { revision: case.next_revision(before.revision), ..before.clone() };
    case.is_final("the password before is not kept");
    let write = Write::SubscriberCredentials(after.clone(), sip_password(domain, password));
    changed(case, before, &after, domain, write);
}

pub(crate) fn delete(case: &mut Case<'_>, id: SubscriberId) {
    let Some((before, domain)) = named(case, id) else { return };
    for number in case.view.numbers.iter().filter(|number| number.subscriber == Some(id)) {
        case.looked_at(ResourceKind::Number, number.id.uuid(), number.revision);
        let hold = Some(number::quarantine(case, before.account));
        let free = Number { subscriber: None, hold, revision: case.next_revision(number.revision), ..number.clone() };
        let write = Write::NumberUpdate(free.clone());
        let resource = (ResourceKind::Number, number.id.uuid());
        case.effect(resource, number.e164.to_string(), Some(number), Some(&free), write);
    }
    removed(case, before, domain);
}

/// The subscriber is as `after` from now on, with the credentials that it has.
pub(crate) fn replaced(case: &mut Case<'_>, before: &Subscriber, after: &Subscriber, domain: &Domain) {
    if after.display_name != before.display_name {
        case.check_name("displayName", &after.display_name, 0);
    }
    case.check_call_limit(after.call_limit);
    if after.site != before.site {
        check_site(case, after.site, after.account);
    }
    if after.extension != before.extension {
        case.check_taken(Some(after.id.uuid()), Taken::Extension);
    }
    changed(case, before, after, domain, Write::SubscriberUpdate(after.clone()));
}

/// The subscriber goes.
pub(crate) fn removed(case: &mut Case<'_>, before: &Subscriber, domain: &Domain) {
    let write = Write::SubscriberDelete(before.id, before.revision.version);
    let resource = (ResourceKind::Subscriber, before.id.uuid());
    case.effect(resource, address_of_record(before, domain), Some(before), None, write);
    if let Some(customer) = case.view.ancestry.last() {
        case.write(Write::SubscriberCount { path: customer.path.clone(), delta: -1 });
        case.balance -= 1;
    }
}

/// The subscriber, which was removed, comes again, with the credentials that were kept.
pub(crate) fn restored(case: &mut Case<'_>, subscriber: &Subscriber, domain: &Domain) {
    check_site(case, subscriber.site, subscriber.account);
    check_quota(case);
    let id = subscriber.id.uuid();
    case.check_taken(Some(id), Taken::Username);
    case.check_taken(Some(id), Taken::Extension);
    let write = Write::SubscriberRestore(subscriber.clone());
    let name = address_of_record(subscriber, domain);
    case.effect((ResourceKind::Subscriber, id), name, None, Some(subscriber), write);
    if let Some(customer) = case.view.ancestry.last() {
        case.write(Write::SubscriberCount { path: customer.path.clone(), delta: 1 });
        case.made.push((subscriber.clone(), customer.path.clone()));
        case.balance += 1;
    }
}

fn named<'a>(case: &mut Case<'a>, id: SubscriberId) -> Option<(&'a Subscriber, &'a Domain)> {
    let view = case.view;
    let found = view.subscriber(id).map(|(subscriber, _)| subscriber);
    let found = found.and_then(|subscriber| Some((subscriber, view.domain(subscriber.domain)?)));
    let found = found.filter(|_| case.owner().is_some());
    match found {
        Some((subscriber, _)) => {
            case.looked_at(ResourceKind::Subscriber, subscriber.id.uuid(), subscriber.revision);
        }
        None => case.missing("id", "subscriber", id),
    }
    found
}

fn changed(case: &mut Case<'_>, before: &Subscriber, after: &Subscriber, domain: &Domain, write: Write) {
    let resource = (ResourceKind::Subscriber, after.id.uuid());
    case.effect(resource, address_of_record(after, domain), Some(before), Some(after), write);
}

fn check_site(case: &mut Case<'_>, site: Option<SiteId>, customer: AccountId) {
    let Some(id) = site else { return };
    match case.view.site(id).filter(|site| site.account == customer) {
        Some(site) => case.looked_at(ResourceKind::Site, site.id.uuid(), site.revision),
        None => case.missing("site", "site at this customer", id),
    }
}

/// One more subscriber must fit into the quota of the customer and of every account above.
fn check_quota(case: &mut Case<'_>) {
    for account in &case.view.ancestry {
        let count = i64::from(account.subscriber_count).saturating_add(case.balance);
        let Some(quota) = account.subscriber_quota.filter(|quota| count >= i64::from(*quota)) else { continue };
        if case.ctx.scope.contains(&account.path) {
            let message = format!("{} has used its quota of {quota} subscribers", account.name);
            case.refuse(RefusalCode::QuotaExceeded, "", &message, "raise the quota, or remove a subscriber");
        } else {
            let message = "the quota of an account above is used up";
            case.refuse(RefusalCode::QuotaExceeded, "", message, "ask the account above for a higher quota");
        }
    }
}

fn sip_password(domain: &Domain, password: Option<&Secret<String>>) -> SipPassword {
    SipPassword { realm: domain.name.clone(), password: password.cloned() }
}

fn address_of_record(subscriber: &Subscriber, domain: &Domain) -> String {
    format!("{}@{}", subscriber.username, domain.name)
}

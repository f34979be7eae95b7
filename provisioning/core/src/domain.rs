//! SIP domains of customers.

use model::change::ResourceKind;
use model::domain::SipDomain;
use model::id::{AccountId, DomainId};

use crate::decide::Case;
use crate::resource::{DialPlan, Domain};
use crate::view::{Taken, Write};

/// Digits of a country code (ITU-T E.164, section 6.2.1).
const COUNTRY_CODE_MAX: usize = 3;
/// Digits of a national or international prefix; the longest in use have five.
const PREFIX_MAX: usize = 8;

pub(crate) fn create(case: &mut Case<'_>, account: AccountId, name: &SipDomain, dial_plan: &DialPlan) {
    check_dial_plan(case, dial_plan);
    let Some(customer) = case.customer("account", "domain") else { return case.missing("account", "account", account) };
    case.check_taken(None, Taken::Domain);
    let id = DomainId::new(&*case.ctx.ids);
    let domain = Domain {
        id,
        account: customer.id,
        name: name.clone(),
        dial_plan: dial_plan.clone(),
        revision: case.first_revision(),
    };
    let write = Write::DomainInsert(domain.clone());
    case.effect((ResourceKind::Domain, id.uuid()), name.as_str(), None, Some(&domain), write);
}

pub(crate) fn update(case: &mut Case<'_>, id: DomainId, dial_plan: &DialPlan) {
    let Some(before) = named(case, id) else { return };
    let after =
        Domain { dial_plan: dial_plan.clone(), revision: case.next_revision(before.revision), ..before.clone() };
    replaced(case, before, &after);
}

pub(crate) fn delete(case: &mut Case<'_>, id: DomainId) {
    let Some(before) = named(case, id) else { return };
    removed(case, before);
}

/// The domain is as `after` from now on.
pub(crate) fn replaced(case: &mut Case<'_>, before: &Domain, after: &Domain) {
    check_dial_plan(case, &after.dial_plan);
    let write = Write::DomainUpdate(after.clone());
    case.effect((ResourceKind::Domain, after.id.uuid()), after.name.as_str(), Some(before), Some(after), write);
}

/// The domain goes.
pub(crate) fn removed(case: &mut Case<'_>, before: &Domain) {
    case.check_empty(before.id.uuid(), "domain");
    let write = Write::DomainDelete(before.id, before.revision.version);
    case.effect((ResourceKind::Domain, before.id.uuid()), before.name.as_str(), Some(before), None, write);
}

/// The domain, which was removed, comes again.
pub(crate) fn restored(case: &mut Case<'_>, domain: &Domain) {
    case.check_taken(Some(domain.id.uuid()), Taken::Domain);
    let write = Write::DomainInsert(domain.clone());
    case.effect((ResourceKind::Domain, domain.id.uuid()), domain.name.as_str(), None, Some(domain), write);
}

fn named<'a>(case: &mut Case<'a>, id: DomainId) -> Option<&'a Domain> {
    let Some(domain) = case.view.domain(id).filter(|_| case.owner().is_some()) else {
        case.missing("id", "domain", id);
        return None;
    };
    case.looked_at(ResourceKind::Domain, domain.id.uuid(), domain.revision);
    Some(domain)
}

fn check_dial_plan(case: &mut Case<'_>, plan: &DialPlan) {
    let digits = |text: &str, min: usize, max: usize| {
        (min..=max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
    };
    if !digits(&plan.country_code, 1, COUNTRY_CODE_MAX) || plan.country_code.starts_with('0') {
        case.invalid("dialPlan.countryCode", "this is no country code", "send 1 to 3 digits such as 43");
    }
    if !digits(&plan.national_prefix, 0, PREFIX_MAX) {
        case.invalid("dialPlan.nationalPrefix", "this is no prefix", "send up to 8 digits such as 0, or nothing");
    }
    if !digits(&plan.international_prefix, 1, PREFIX_MAX) {
        case.invalid("dialPlan.internationalPrefix", "this is no prefix", "send 1 to 8 digits such as 00");
    } else if plan.international_prefix == plan.national_prefix {
        let message = "national and international prefix are the same";
        case.invalid("dialPlan.internationalPrefix", message, "send two that differ, such as 0 and 00");
    }
}

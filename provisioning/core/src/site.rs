//! Sites of customers.

use model::change::ResourceKind;
use model::id::{AccountId, SiteId};

use crate::decide::Case;
use crate::resource::Site;
use crate::view::{Taken, Write};

pub(crate) fn create(case: &mut Case<'_>, account: AccountId, name: &str) {
    case.check_name("name", name, 1);
    let Some(customer) = case.customer("account", "site") else { return case.missing("account", "account", account) };
    case.check_taken(None, Taken::Name);
    let id = SiteId::new(&*case.ctx.ids);
    let site = Site { id, account: customer.id, name: name.to_owned(), revision: case.first_revision() };
    let write = Write::SiteInsert(site.clone());
    case.effect((ResourceKind::Site, id.uuid()), name, None, Some(&site), write);
}

pub(crate) fn update(case: &mut Case<'_>, id: SiteId, name: &str) {
    let Some(before) = named(case, id) else { return };
    let after = Site { name: name.to_owned(), revision: case.next_revision(before.revision), ..before.clone() };
    replaced(case, before, &after);
}

pub(crate) fn delete(case: &mut Case<'_>, id: SiteId) {
    let Some(before) = named(case, id) else { return };
    removed(case, before);
}

/// The site is as `after` from now on.
pub(crate) fn replaced(case: &mut Case<'_>, before: &Site, after: &Site) {
    if after.name != before.name {
        case.check_name("name", &after.name, 1);
        case.check_taken(Some(after.id.uuid()), Taken::Name);
    }
    let write = Write::SiteUpdate(after.clone());
    case.effect((ResourceKind::Site, after.id.uuid()), after.name.clone(), Some(before), Some(after), write);
}

/// The site goes.
pub(crate) fn removed(case: &mut Case<'_>, before: &Site) {
    case.check_empty(before.id.uuid(), "site");
    let write = Write::SiteDelete(before.id, before.revision.version);
    case.effect((ResourceKind::Site, before.id.uuid()), before.name.clone(), Some(before), None, write);
}

/// The site, which was removed, comes again.
pub(crate) fn restored(case: &mut Case<'_>, site: &Site) {
    case.check_taken(Some(site.id.uuid()), Taken::Name);
    let write = Write::SiteInsert(site.clone());
    case.effect((ResourceKind::Site, site.id.uuid()), site.name.clone(), None, Some(site), write);
}

fn named<'a>(case: &mut Case<'a>, id: SiteId) -> Option<&'a Site> {
    let Some(site) = case.view.site(id).filter(|_| case.owner().is_some()) else {
        case.missing("id", "site", id);
        return None;
    };
    case.looked_at(ResourceKind::Site, site.id.uuid(), site.revision);
    Some(site)
}

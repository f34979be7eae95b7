//! Sites of customers.

use model::change::ResourceKind;
use model::id::{AccountId, SiteId};

use crate::decide::Case;
use crate::resource::Site;
use crate::view::{Taken, Write};

pub(crate) fn create(case: &mut Case<'_>, account: AccountId, name: &str) {
    case.check_name("name", name, 1);
    let Some(customer) = case.customer("account", "site") else { return case.missing("account", "account", account) };
    case.check_taken(Taken::Name);
    let id = SiteId::new(&*case.ctx.ids);
    let site = Site { id, account: customer.id, name: name.to_owned(), revision: case.first_revision() };
    case.is_final("there is no command that removes a site");
    let write = Write::SiteInsert(site.clone());
    case.effect((ResourceKind::Site, id.uuid()), name, None, Some(&site), write);
}

//! Numbers: the inventory of E.164 numbers and who answers them.

use model::change::{RefusalCode, ResourceKind};
use model::id::{AccountId, NumberId, SubscriberId};
use model::number::E164;

use crate::decide::Case;
use crate::resource::{Account, Number};
use crate::view::{Taken, Write};

pub(crate) fn create(case: &mut Case<'_>, account: AccountId, e164: E164, subscriber: Option<SubscriberId>) {
    let Some(holder) = case.owner() else { return case.missing("account", "account", account) };
    check_subscriber(case, subscriber, holder);
    case.check_taken(None, Taken::E164);
    let id = NumberId::new(&*case.ctx.ids);
    let number = Number { id, account: holder.id, e164, subscriber, revision: case.first_revision() };
    made(case, &number);
}

pub(crate) fn assign(case: &mut Case<'_>, id: NumberId, subscriber: Option<SubscriberId>) {
    let Some((before, _)) = named(case, id) else { return };
    let after = Number { subscriber, revision: case.next_revision(before.revision), ..before.clone() };
    replaced(case, before, &after);
}

pub(crate) fn delete(case: &mut Case<'_>, id: NumberId) {
    let Some((before, _)) = named(case, id) else { return };
    if before.subscriber.is_some() {
        case.refuse(RefusalCode::InUse, "id", "a subscriber answers this number", "free the number first");
    }
    removed(case, before);
}

/// The number is as `after` from now on.
pub(crate) fn replaced(case: &mut Case<'_>, before: &Number, after: &Number) {
    if after.subscriber != before.subscriber {
        if let Some(holder) = case.view.ancestry.last() {
            check_subscriber(case, after.subscriber, holder);
        }
        case.freed.push(before.id);
    }
    let write = Write::NumberUpdate(after.clone());
    let resource = (ResourceKind::Number, after.id.uuid());
    case.effect(resource, after.e164.to_string(), Some(before), Some(after), write);
}

/// The number goes.
pub(crate) fn removed(case: &mut Case<'_>, before: &Number) {
    case.freed.push(before.id);
    let write = Write::NumberDelete(before.id, before.revision.version);
    let resource = (ResourceKind::Number, before.id.uuid());
    case.effect(resource, before.e164.to_string(), Some(before), None, write);
}

/// The number, which was removed, comes again.
pub(crate) fn restored(case: &mut Case<'_>, number: &Number) {
    if let Some(holder) = case.view.ancestry.last() {
        check_subscriber(case, number.subscriber, holder);
    }
    case.check_taken(Some(number.id.uuid()), Taken::E164);
    made(case, number);
}

fn made(case: &mut Case<'_>, number: &Number) {
    let write = Write::NumberInsert(number.clone());
    case.effect((ResourceKind::Number, number.id.uuid()), number.e164.to_string(), None, Some(number), write);
}

fn named<'a>(case: &mut Case<'a>, id: NumberId) -> Option<(&'a Number, &'a Account)> {
    let Some((number, holder)) = case.view.number(id).zip(case.owner()) else {
        case.missing("id", "number", id);
        return None;
    };
    case.looked_at(ResourceKind::Number, number.id.uuid(), number.revision);
    Some((number, holder))
}

/// Who answers a number sits at or below the account that holds it.
fn check_subscriber(case: &mut Case<'_>, subscriber: Option<SubscriberId>, holder: &Account) {
    let Some(id) = subscriber else { return };
    if let Some((_, path)) = case.made.iter().find(|(subscriber, _)| subscriber.id == id) {
        if !holder.path.contains(path) {
            misplaced(case);
        }
        return;
    }
    let found = case.view.subscriber(id).filter(|(_, path)| case.ctx.scope.contains(path));
    let Some((subscriber, path)) = found else {
        return case.missing("subscriber", "subscriber", id);
    };
    case.looked_at(ResourceKind::Subscriber, subscriber.id.uuid(), subscriber.revision);
    if !holder.path.contains(path) {
        misplaced(case);
    }
}

fn misplaced(case: &mut Case<'_>) {
    let message = "the subscriber is neither at nor below the account that holds the number";
    case.invalid("subscriber", message, "choose a subscriber of that account, or a number of the subscriber's");
}

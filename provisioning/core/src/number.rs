//! Numbers: the inventory of E.164 numbers, who answers them, and for whom they are held.
//!
//! A number is free, reserved, assigned or quarantined ([`NumberState`]). Reservation and quarantine end by themselves, by
//! the clock of who looks; nothing has to run for it. A number that is given back rests for [`QUARANTINE_MS`], so that
//! calls for the customer who had it do not reach a stranger; that customer can have it again at once.

use model::change::{RefusalCode, ResourceKind};
use model::id::{AccountId, NumberId, SubscriberId};
use model::number::E164;
use model::time::Timestamp;

use crate::decide::Case;
use crate::resource::{Account, Hold, HoldKind, Number, NumberState};
use crate::view::{Taken, Write};

/// A day.
const DAY_MS: i64 = 86_400_000;
/// How long a number rests after it was given back: callers and directories have mostly learnt of it by then.
pub const QUARANTINE_MS: i64 = 30 * DAY_MS;
/// The longest reservation: a quarter. Who wants a number for longer takes it.
pub const RESERVATION_MAX_MS: i64 = 92 * DAY_MS;

pub(crate) fn create(case: &mut Case<'_>, account: AccountId, e164: E164, subscriber: Option<SubscriberId>) {
    let Some(holder) = case.owner() else { return case.missing("account", "account", account) };
    check_subscriber(case, subscriber, holder);
    case.check_taken(None, Taken::E164);
    let id = NumberId::new(&*case.ctx.ids);
    let number = Number { id, account: holder.id, e164, subscriber, hold: None, revision: case.first_revision() };
    made(case, &number);
}

pub(crate) fn assign(case: &mut Case<'_>, id: NumberId, subscriber: Option<SubscriberId>) {
    let Some((before, _)) = named(case, id) else { return };
    let hold = match (subscriber, before.subscriber) {
        (Some(subscriber), _) => {
            check_hold(case, before, subscriber);
            None
        }
        // Who had it is there: a subscriber does not go before its numbers are given back.
        (None, Some(had)) => case.view.subscriber(had).map(|(had, _)| quarantine(case, had.account)),
        (None, None) => before.hold,
    };
    let after = Number { subscriber, hold, revision: case.next_revision(before.revision), ..before.clone() };
    replaced(case, before, &after);
}

pub(crate) fn reserve(case: &mut Case<'_>, id: NumberId, account: AccountId, until: Timestamp) {
    let Some((before, holder)) = named(case, id) else { return };
    let reaches = |path| holder.path.contains(path) && case.ctx.scope.contains(path);
    if !case.view.held_for.as_ref().is_some_and(|(found, path)| *found == account && reaches(path)) {
        return case.missing("account", "account at or below the one that holds the number", account);
    }
    let longest = case.now.plus_ms(RESERVATION_MAX_MS);
    if until <= case.now || until > longest {
        let message = "a reservation ends in the future, within a quarter";
        case.invalid("until", message, &format!("send an instant up to {longest}"));
    }
    match before.state(case.now) {
        NumberState::Free | NumberState::Reserved(_) => {}
        NumberState::Assigned(_) => return in_use(case),
        NumberState::Quarantined(hold) => {
            // A promise must not end the rest early.
            if hold.account != account || until < hold.until {
                resting(case, hold);
            }
        }
    }
    let hold = Some(Hold { kind: HoldKind::Reserved, account, until });
    let after = Number { hold, revision: case.next_revision(before.revision), ..before.clone() };
    replaced(case, before, &after);
}

pub(crate) fn release(case: &mut Case<'_>, id: NumberId) {
    let Some((before, _)) = named(case, id) else { return };
    match before.state(case.now) {
        NumberState::Reserved(_) | NumberState::Quarantined(_) => {}
        NumberState::Assigned(_) => return in_use(case),
        NumberState::Free => {
            let message = "the number is neither reserved nor quarantined";
            case.refuse(RefusalCode::Conflict, "id", message, "there is nothing left to do");
        }
    }
    let after = Number { hold: None, revision: case.next_revision(before.revision), ..before.clone() };
    replaced(case, before, &after);
}

pub(crate) fn delete(case: &mut Case<'_>, id: NumberId) {
    let Some((before, _)) = named(case, id) else { return };
    match before.state(case.now) {
        NumberState::Free | NumberState::Quarantined(_) => {}
        NumberState::Assigned(_) => in_use(case),
        NumberState::Reserved(hold) => {
            let message = format!("the number is reserved until {}", hold.until);
            case.refuse(RefusalCode::InUse, "id", &message, "release the number first");
        }
    }
    removed(case, before);
}

/// What a number that `account` gives back is held by from now on.
pub(crate) fn quarantine(case: &Case<'_>, account: AccountId) -> Hold {
    Hold { kind: HoldKind::Quarantined, account, until: case.now.plus_ms(QUARANTINE_MS) }
}

/// Whether `subscriber` may have the number in spite of what it is held by.
fn check_hold(case: &mut Case<'_>, number: &Number, subscriber: SubscriberId) {
    let Some((subscriber, path)) = case.view.subscriber(subscriber) else { return };
    match number.state(case.now) {
        NumberState::Free | NumberState::Assigned(_) => {}
        NumberState::Quarantined(hold) => {
            if hold.account != subscriber.account {
                resting(case, hold);
            }
        }
        NumberState::Reserved(hold) => {
            let held_for = case.view.held_for.as_ref().filter(|(account, _)| *account == hold.account);
            if !held_for.is_some_and(|(_, above)| above.contains(path)) {
                let message = format!("the number is reserved for another account until {}", hold.until);
                case.refuse(RefusalCode::Conflict, "id", &message, "release it, or choose another number");
            }
        }
    }
}

fn resting(case: &mut Case<'_>, hold: Hold) {
    let message = format!("the number was given back, and is quarantined until {}", hold.until);
    let remedy = "wait, release it, choose another number, or give it to the customer who had it";
    case.refuse(RefusalCode::Conflict, "id", &message, remedy);
}

fn in_use(case: &mut Case<'_>) {
    case.refuse(RefusalCode::InUse, "id", "a subscriber answers this number", "free the number first");
}

/// The number is as `after` from now on.
pub(crate) fn replaced(case: &mut Case<'_>, before: &Number, after: &Number) {
    if after.subscriber != before.subscriber {
        if let Some(holder) = case.view.ancestry.last() {
            check_subscriber(case, after.subscriber, holder);
        }
        case.freed.push(before.id);
    }
    let mut after = after.clone();
    // A reversal of a change from before numbers were held says nothing of it.
    if after.subscriber.is_some()
        && let Some(hold) = after.hold.take()
        && hold.until > case.now
    {
        let message = format!("{} is {} until {}", after.e164, hold.kind.as_str(), hold.until);
        case.refuse(RefusalCode::Conflict, "id", &message, "release it first");
    }
    let write = Write::NumberUpdate(after.clone());
    let resource = (ResourceKind::Number, after.id.uuid());
    case.effect(resource, after.e164.to_string(), Some(before), Some(&after), write);
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

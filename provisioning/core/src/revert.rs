//! Taking a change back: the inverse of each of its effects, the last one first, decided like any other change.
//!
//! What was built on the change stays whole: a field that was changed again since, a thing that something new refers to
//! or that somebody else holds by now is a refusal that says what. So the state after it is the one that the remaining
//! changes describe, whatever their order (decision 0010).

use model::change::{Effect, EffectKind, RefusalCode, ResourceKind, Reversibility};
use model::id::{ChangeId, DomainId, NumberId, SiteId, SubscriberId, TrunkId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::decide::Case;
use crate::resource::{Account, Domain, Number, Revision, Site, Subscriber, Trunk};
use crate::view::{LATER_MAX, Write};
use crate::{account, domain, number, site, subscriber, trunk};

/// Later changes that a refusal names one by one.
const TOLD_MAX: usize = 5;

/// Fields that follow from others, and are no part of what a change says.
const DERIVED: [&str; 2] = ["revision", "subscriber_count"];

pub(crate) fn revert(case: &mut Case<'_>, change: ChangeId) {
    let view = case.view;
    let in_scope = view.ancestry.last().is_some_and(|owner| case.ctx.scope.contains(&owner.path));
    let Some(reverted) = view.reverted.as_ref().filter(|_| in_scope) else {
        return case.missing("change", "change", change);
    };
    if let Reversibility::Final(reason) = &reverted.plan.reversibility {
        let message = format!("{} cannot be taken back: {reason}", reverted.command);
        return case.refuse(RefusalCode::Conflict, "change", &message, "make another change that mends it");
    }
    if let Some(by) = reverted.by {
        let message = format!("it was taken back by the change {by}");
        return case.refuse(RefusalCode::Conflict, "change", &message, "take that one back to have it again");
    }
    // Two steps say all there is to say: the third is the first again.
    if let Some(reinstated) = reverted.reverts.filter(|reverts| reverts.is_reversal) {
        let message = format!("it took the reversal {} back", reinstated.change);
        let remedy = "take the change itself, which is in force again, back once more";
        return case.refuse(RefusalCode::Conflict, "change", &message, remedy);
    }
    if reverted.later.len() >= LATER_MAX {
        let message = format!("what it touched was changed {LATER_MAX} times since, or more");
        return case.refuse(RefusalCode::Conflict, "change", &message, "make another change that mends it");
    }
    if reverted.plan.effects.iter().any(|effect| effect.resource.kind != ResourceKind::Account) {
        // Says when the account, or one above it, is disabled.
        let _owner = case.owner();
    }
    for effect in reverted.plan.effects.iter().rev() {
        invert(case, effect);
    }
    case.refuse_reversal();
    case.write(Write::Reversal(change));
}

fn invert(case: &mut Case<'_>, effect: &Effect) {
    let (view, id) = (case.view, effect.resource.id);
    match effect.resource.kind {
        ResourceKind::Account => {
            let present = view.ancestry.last().filter(|account| account.id.uuid() == id);
            match inverse(case, effect, present) {
                Some(Inverse::Change(before, after)) => account::restored(case, before, &after),
                Some(Inverse::Remove(_) | Inverse::Make(_)) => unknown(case, effect),
                None => {}
            }
        }
        ResourceKind::Domain => match inverse(case, effect, view.domain(DomainId::from_uuid(id))) {
            Some(Inverse::Remove(domain)) => domain::removed(case, domain),
            Some(Inverse::Change(before, after)) => domain::replaced(case, before, &after),
            Some(Inverse::Make(domain)) => domain::restored(case, &domain),
            None => {}
        },
        ResourceKind::Site => match inverse(case, effect, view.site(SiteId::from_uuid(id))) {
            Some(Inverse::Remove(site)) => site::removed(case, site),
            Some(Inverse::Change(before, after)) => site::replaced(case, before, &after),
            Some(Inverse::Make(site)) => site::restored(case, &site),
            None => {}
        },
        ResourceKind::Subscriber => {
            let present = view.subscriber(SubscriberId::from_uuid(id)).map(|(subscriber, _)| subscriber);
            let Some(inverse) = inverse(case, effect, present) else { return };
            invert_subscriber(case, effect, inverse);
        }
        ResourceKind::Number => match inverse(case, effect, view.number(NumberId::from_uuid(id))) {
            Some(Inverse::Remove(number)) => number::removed(case, number),
            Some(Inverse::Change(before, after)) => number::replaced(case, before, &after),
            Some(Inverse::Make(number)) => number::restored(case, &number),
            None => {}
        },
        ResourceKind::Trunk => match inverse(case, effect, view.trunk(TrunkId::from_uuid(id))) {
            Some(Inverse::Change(before, after)) => trunk::replaced(case, before, &after),
            Some(Inverse::Remove(_) | Inverse::Make(_)) => unknown(case, effect),
            None => {}
        },
        _ => unknown(case, effect),
    }
}

/// An effect whose command should have said that it is final.
fn unknown(case: &mut Case<'_>, effect: &Effect) {
    let message = format!("what was done to {} {} cannot be taken back", effect.resource.kind.as_str(), effect.name);
    case.refuse(RefusalCode::Conflict, "change", &message, "make another change that mends it");
}

fn invert_subscriber(case: &mut Case<'_>, effect: &Effect, inverse: Inverse<'_, Subscriber>) {
    let subscriber = match &inverse {
        Inverse::Remove(subscriber) | Inverse::Change(subscriber, _) => *subscriber,
        Inverse::Make(subscriber) => subscriber,
    };
    let view = case.view;
    let Some(domain) = view.domain(subscriber.domain) else {
        let message = format!("the domain of subscriber {} is gone", effect.name);
        return case.refuse(RefusalCode::Conflict, "change", &message, "have the domain again first");
    };
    match inverse {
        Inverse::Remove(subscriber) => {
            let assigned = |number: &&Number| number.subscriber == Some(subscriber.id);
            let freed = case.freed.clone();
            for number in view.numbers.iter().filter(assigned).filter(|number| !freed.contains(&number.id)) {
                let message = format!("{} was assigned to {} since", number.e164, effect.name);
                case.refuse(
                    RefusalCode::InUse,
                    "change",
                    &message,
                    "free the number, or take its assignment back first",
                );
            }
            subscriber::removed(case, subscriber, domain);
        }
        Inverse::Change(before, after) => subscriber::replaced(case, before, &after, domain),
        Inverse::Make(subscriber) => {
            if !view.reverted.as_ref().is_some_and(|reverted| reverted.kept.contains(&subscriber.id)) {
                let message = format!("the credentials of {} are not kept any more", effect.name);
                return case.refuse(RefusalCode::Conflict, "change", &message, "create the subscriber anew");
            }
            subscriber::restored(case, &subscriber, domain);
        }
    }
}

/// What takes an effect back.
enum Inverse<'a, T> {
    /// What was created goes.
    Remove(&'a T),
    /// What was changed, as it is, becomes as it is to be.
    Change(&'a T, T),
    /// What was removed comes again.
    Make(T),
}

/// A resource that can be put back.
trait Restorable: Serialize + DeserializeOwned {
    fn key(&self) -> (ResourceKind, Uuid, Revision);
    fn set_revision(&mut self, revision: Revision);
}

macro_rules! restorable {
    ($($kind:ident),+) => {
        $(impl Restorable for $kind {
            fn key(&self) -> (ResourceKind, Uuid, Revision) {
                (ResourceKind::$kind, self.id.uuid(), self.revision)
            }
            fn set_revision(&mut self, revision: Revision) {
                self.revision = revision;
            }
        })+
    };
}

restorable!(Account, Domain, Site, Subscriber, Number, Trunk);

/// The inverse of `effect` on what is there at `present`; none when it was refused.
fn inverse<'a, T: Restorable>(case: &mut Case<'_>, effect: &Effect, present: Option<&'a T>) -> Option<Inverse<'a, T>> {
    let name = format!("{} {}", effect.resource.kind.as_str(), effect.name);
    if let Some(present) = present {
        let (kind, id, revision) = present.key();
        case.looked_at(kind, id, revision);
    }
    let (before, after) = (fields(effect.before.as_ref()), fields(effect.after.as_ref()));
    match (effect.kind, present) {
        (EffectKind::Created, Some(present)) => {
            let changed = differences(&object(present), &after);
            is_as_left(case, effect, &name, &changed, |_| true).then_some(Inverse::Remove(present))
        }
        (EffectKind::Updated, Some(present)) => {
            let touched = differences(&before, &after);
            let mut object = object(present);
            let changed: Vec<String> = touched.iter().filter(|f| object.get(*f) != after.get(*f)).cloned().collect();
            if !is_as_left(case, effect, &name, &changed, |field| touched.contains(field)) {
                return None;
            }
            for field in touched {
                object.insert(field.clone(), before.get(&field).cloned().unwrap_or(Value::Null));
            }
            let revision = case.next_revision(present.key().2);
            read(case, &name, object, revision).map(|restored| Inverse::Change(present, restored))
        }
        (EffectKind::Deleted, None) => {
            let object = before;
            let revision = object.get("revision").and_then(|r| serde_json::from_value::<Revision>(r.clone()).ok());
            // Whoever still expects the version of before sees that it is another.
            let revision = revision.map_or_else(|| case.first_revision(), |revision| case.next_revision(revision));
            read(case, &name, object, revision).map(Inverse::Make)
        }
        (EffectKind::Created | EffectKind::Updated, None) => {
            let message = format!("{name} was removed since");
            case.refuse(RefusalCode::Conflict, "change", &message, "take its removal back first");
            None
        }
        (EffectKind::Deleted, Some(_)) => {
            let message = format!("{name} is there again");
            case.refuse(RefusalCode::Conflict, "change", &message, "there is nothing left to do");
            None
        }
    }
}

/// Refuses when what the change did to a resource is not as it left it: fields have another value, or a later change
/// that is in force set one of those that `counts` names, be it to the same value.
fn is_as_left(
    case: &mut Case<'_>,
    effect: &Effect,
    name: &str,
    changed: &[String],
    counts: impl Fn(&String) -> bool,
) -> bool {
    let later = case.view.reverted.iter().flat_map(|reverted| &reverted.later);
    let set_later = later.filter_map(|later| {
        let same = later.plan.effects.iter().find(|same| same.resource == effect.resource)?;
        let mut set = differences(&fields(same.before.as_ref()), &fields(same.after.as_ref()));
        set.retain(&counts);
        // What an account above did is not told.
        let by = match case.ctx.scope.contains(&later.path) {
            true => format!("{} ({})", later.change, later.command),
            false => "an account above".to_owned(),
        };
        (!set.is_empty()).then(|| format!("{} by {by}", set.join(", ")))
    });
    let set_later: Vec<String> = set_later.collect();
    if set_later.is_empty() && changed.is_empty() {
        return true;
    }
    let (message, remedy) = match set_later.as_slice() {
        [] => {
            let fields = changed.join(", ");
            (
                format!("{name} was changed since, by a reversal: {fields}"),
                "take the latest reversal in its history back",
            )
        }
        [told @ .., last] if told.len() < TOLD_MAX => {
            let told: String = told.iter().map(|told| format!("{told}; ")).collect();
            (format!("{name} was changed since: {told}{last}"), "take the later change back first")
        }
        [.., last] => (
            format!("{name} was changed {} times since, the last time: {last}", set_later.len()),
            "take the later changes back first, the last one first",
        ),
    };
    case.refuse(RefusalCode::Conflict, "change", &message, remedy);
    false
}

fn read<T: Restorable>(case: &mut Case<'_>, name: &str, object: Map<String, Value>, revision: Revision) -> Option<T> {
    match serde_json::from_value::<T>(Value::Object(object)) {
        Ok(mut restored) => {
            restored.set_revision(revision);
            Some(restored)
        }
        Err(error) => {
            let message = format!("what was noted of {name} is not understood by this version: {error}");
            case.refuse(RefusalCode::Conflict, "change", &message, "make another change that mends it");
            None
        }
    }
}

/// The fields in which two differ, less those that follow from others.
fn differences(a: &Map<String, Value>, b: &Map<String, Value>) -> Vec<String> {
    let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let is_said = |name: &&String| !DERIVED.contains(&name.as_str());
    let differ = |name: &&String| a.get(*name).unwrap_or(&Value::Null) != b.get(*name).unwrap_or(&Value::Null);
    names.into_iter().filter(is_said).filter(differ).cloned().collect()
}

fn object<T: Serialize>(resource: &T) -> Map<String, Value> {
    fields(serde_json::to_value(resource).ok().as_ref())
}

fn fields(value: Option<&Value>) -> Map<String, Value> {
    value.and_then(Value::as_object).cloned().unwrap_or_default()
}

//! Changes that are taken back: each kind, what is in the way, and random sequences against a model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use model::change::{Effect, EffectKind, Plan, RefusalCode, Reversibility};
use model::id::ChangeId;
use model::page::PageRequest;
use provisioning::port::{AuditFilter, DirectoryEntry, DirectorySource as _};
use serde_json::{Map, Value};
use testkit::clock::START;
use testkit::seeded::Random;

use super::*;

/// Changes and reversals of one random sequence.
const STEPS: usize = 60;
/// Random sequences per engine.
const SEQUENCES: u64 = 6;
/// As many in the long run.
const SEQUENCES_SOAK: u64 = 200;

pub(super) fn revert(change: ChangeId) -> Command {
    Command::ChangeRevert { change }
}

/// What refusals say.
#[track_caller]
fn told<T: std::fmt::Debug>(result: Result<T, ChangeError>) -> String {
    match result {
        Err(ChangeError::Refused(refusals)) => refusals.into_iter().map(|r| r.message).collect::<Vec<_>>().join("; "),
        other => panic!("should be refused: {other:?}"),
    }
}

async fn secrets(house: &House, id: SubscriberId) -> provisioning::port::SubscriberSecrets {
    let resource = model::change::ResourceRef { kind: model::change::ResourceKind::Subscriber, id: id.uuid() };
    match house.store.directory_entries(&[resource]).await.unwrap().remove(0) {
        DirectoryEntry::Subscriber(_, secrets) => secrets,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_removed_subscriber_comes_again_with_its_numbers_and_its_password() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let before = secrets(&house, t.subscriber).await;
        let count = async || house.store.account_get(&t.ctx, t.reseller.id).await.unwrap().unwrap().subscriber_count;
        let removed = house.commit(&t.ctx, Command::SubscriberDelete { id: t.subscriber }).await.unwrap();
        assert_eq!(removed.plan.reversibility, Reversibility::Reversible);
        assert_eq!((count().await, house.count("kept_credentials").await), (0, 1));

        let planned = house.store.plan(&t.ctx, &revert(removed.change)).await.unwrap();
        assert_eq!(house.count("subscriber").await, 0, "a dry-run writes nothing");
        let back = house.commit(&t.ctx, revert(removed.change)).await.unwrap();
        let kinds = |plan: &Plan| plan.effects.iter().map(|e| (e.kind, e.resource)).collect::<Vec<_>>();
        assert_eq!(kinds(&planned), kinds(&back.plan));
        let subscriber = house.store.subscriber_get(&t.ctx, t.subscriber).await.unwrap().unwrap();
        assert_eq!((subscriber.username.as_str(), subscriber.site), ("alice", Some(t.site)));
        assert!(subscriber.revision.version > 1, "whoever expects the version of before is told");
        assert_eq!(secrets(&house, t.subscriber).await, before);
        let number = house.store.number_get(&t.ctx, t.number).await.unwrap().unwrap();
        assert_eq!(number.subscriber, Some(t.subscriber));
        assert_eq!((count().await, house.count("kept_credentials").await), (1, 0));

        // Taken back twice, and the reversal itself
        let again = told(house.commit(&t.ctx, revert(removed.change)).await);
        assert!(again.contains(&back.change.to_string()), "{again}");
        let away = house.commit(&t.ctx, revert(back.change)).await.unwrap();
        let third = told(house.commit(&t.ctx, revert(away.change)).await);
        assert_eq!(third, format!("it took the reversal {} back", back.change));
        assert!(house.store.subscriber_get(&t.ctx, t.subscriber).await.unwrap().is_none());
        let number = house.store.number_get(&t.ctx, t.number).await.unwrap().unwrap();
        assert_eq!(number.subscriber, None);
        house.commit(&t.ctx, revert(removed.change)).await.unwrap();

        // Nobody keeps credentials for ever
        let removed = house.commit(&t.ctx, Command::SubscriberDelete { id: t.subscriber }).await.unwrap();
        house.world.clock.advance_ms(1);
        let now = t.ctx.now();
        assert_eq!(house.store.forget_credentials(now.plus_ms(-1)).await.unwrap(), 0);
        assert_eq!(house.store.forget_credentials(now).await.unwrap(), 1);
        let gone = told(house.commit(&t.ctx, revert(removed.change)).await);
        assert!(gone.contains("credentials of alice@c1.example are not kept"), "{gone}");
    })
    .await;
}

#[tokio::test]
async fn what_was_built_on_a_change_is_in_the_way_and_named() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let commit = async |command| house.commit(&t.ctx, command).await.unwrap().change;
        let domain = commit(domain_create(t.customer.id, "second.example")).await;
        let id = DomainId::from_uuid(
            house.store.audit_get(&t.ctx, domain).await.unwrap().unwrap().plan.effects[0].resource.id,
        );
        let bob = commit(subscriber_create(id, "bob", Some("200"))).await;
        let entry = house.store.audit_get(&t.ctx, bob).await.unwrap().unwrap();
        let bob_id = SubscriberId::from_uuid(entry.plan.effects[0].resource.id);
        let refused = told(house.commit(&t.ctx, revert(domain)).await);
        assert!(refused.contains("the domain is in use: subscribers in it: 1"), "{refused}");

        // A later change of the same field, and of another one
        let mut renamed = subscriber_update(bob_id);
        if let Command::SubscriberUpdate { display_name, .. } = &mut renamed {
            *display_name = Some("Bob".to_owned());
        }
        let renamed = commit(renamed).await;
        let mut moved = subscriber_update(bob_id);
        if let Command::SubscriberUpdate { display_name, extension, .. } = &mut moved {
            (*display_name, *extension) = (Some("Robert".to_owned()), Some(None));
        }
        let moved = commit(moved).await;
        let refused = told(house.commit(&t.ctx, revert(renamed)).await);
        let by =
            format!("subscriber bob@second.example was changed since: display_name by {moved} (subscriber_update)");
        assert!(refused.contains(&by), "{refused}");
        let refused = told(house.commit(&t.ctx, revert(bob)).await);
        let by = format!("display_name by {renamed} (subscriber_update); display_name, extension by {moved}");
        assert!(refused.contains(&by), "{refused}");

        // Somebody else took what was free
        let carol = commit(subscriber_create(id, "carol", Some("200"))).await;
        refused_as(house.commit(&t.ctx, revert(moved)).await, RefusalCode::Conflict, "change");
        commit(revert(carol)).await;
        commit(revert(moved)).await;
        commit(revert(renamed)).await;

        // A number that was given to it since
        let number = commit(number_create(t.customer.id, "+43720999", Some(bob_id))).await;
        let refused = told(house.commit(&t.ctx, revert(bob)).await);
        assert!(refused.contains("+43720999 was assigned to bob@second.example since"), "{refused}");
        commit(revert(number)).await;
        commit(revert(bob)).await;
        commit(revert(domain)).await;
        assert_eq!(house.count("domain").await, 1);

        // Another holder of the name, and then the place again
        let other = house.tenant(2).await;
        let taken = house.commit(&other.ctx, domain_create(other.customer.id, "second.example")).await.unwrap();
        let reinstated = house.store.audit_get(&t.ctx, domain).await.unwrap().unwrap().reverted_by.unwrap();
        refused_as(house.commit(&t.ctx, revert(reinstated)).await, RefusalCode::Conflict, "change");
        house.commit(&other.ctx, revert(taken.change)).await.unwrap();
        commit(revert(reinstated)).await;
        assert_eq!(house.store.audit_get(&t.ctx, domain).await.unwrap().unwrap().reverted_by, None);
    })
    .await;
}

#[tokio::test]
async fn nobody_takes_back_what_they_may_not_do() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let (t, other) = (house.tenant(1).await, house.tenant(2).await);
        let site = Command::SiteCreate { account: t.customer.id, name: "Depot".to_owned() };
        let site = house.commit(&t.ctx, site).await.unwrap().change;
        // A stranger's change looks like none
        refused_as(house.commit(&other.ctx, revert(site)).await, RefusalCode::NotFound, "change");
        refused_as(house.commit(&other.ctx, Command::DomainDelete { id: t.domain }).await, RefusalCode::NotFound, "id");
        let none = ChangeId::new(&*house.world.ids);
        refused_as(house.commit(&t.ctx, revert(none)).await, RefusalCode::NotFound, "change");
        assert!(house.store.audit_get(&other.ctx, site).await.unwrap().is_none());
        // Who is held by a limit does not lift it
        let limited = house.commit(&house.provider, quota(t.reseller.id, 5)).await.unwrap().change;
        refused_as(house.commit(&t.ctx, revert(limited)).await, RefusalCode::Forbidden, "change");
        house.commit(&house.provider, revert(limited)).await.unwrap();
        // The quota of now counts, not that of then
        let removed = house.commit(&t.ctx, Command::SubscriberDelete { id: t.subscriber }).await.unwrap().change;
        house.commit(&house.provider, quota(t.reseller.id, 0)).await.unwrap();
        refused_as(house.commit(&t.ctx, revert(removed)).await, RefusalCode::QuotaExceeded, "change");
        // What is final says why
        let issued = house.commit(&t.ctx, token_issue(t.customer.id, "second", "audit:read")).await.unwrap().change;
        let refused = told(house.commit(&t.ctx, revert(issued)).await);
        assert_eq!(refused, "token_issue cannot be taken back: a token stays in the list: revoke it");
        // A disabled account is enabled again by taking that back, and nothing below it changes meanwhile
        let disabled = house.commit(&house.provider, enabled(t.customer.id, false)).await.unwrap().change;
        refused_as(house.commit(&house.provider, revert(site)).await, RefusalCode::Conflict, "change");
        house.commit(&house.provider, revert(disabled)).await.unwrap();
        house.commit(&house.provider, revert(site)).await.unwrap();
    })
    .await;
}

/// A number that the reseller holds goes with the customer's subscriber, and comes back with it; what the reseller does
/// with it meanwhile is in the way, and the customer is not told of it.
#[tokio::test]
async fn a_number_from_above_comes_back_and_what_is_done_above_is_not_told() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let customer = house.world.ctx(Permissions::all(), t.customer.id, &t.customer.path);
        let lent = house.done(&t.ctx, number_create(t.reseller.id, "+43720777", Some(t.subscriber))).await;
        let lent = NumberId::from_uuid(lent);
        let assignee = async || house.store.number_get(&t.ctx, lent).await.unwrap().unwrap().subscriber;
        let removed = house.commit(&customer, Command::SubscriberDelete { id: t.subscriber }).await.unwrap().change;
        assert_eq!(assignee().await, None);
        house.commit(&customer, revert(removed)).await.unwrap();
        assert_eq!(assignee().await, Some(t.subscriber));

        let removed = house.commit(&customer, Command::SubscriberDelete { id: t.subscriber }).await.unwrap().change;
        let bob = SubscriberId::from_uuid(house.done(&t.ctx, subscriber_create(t.domain, "bob", None)).await);
        let taken = Command::NumberAssign { id: lent, subscriber: Some(bob) };
        let taken = house.commit(&t.ctx, taken).await.unwrap().change;
        let refused = told(house.commit(&customer, revert(removed)).await);
        assert!(
            refused.contains("number +43720777 was changed since: hold, subscriber by an account above"),
            "{refused}"
        );
        let refused = told(house.commit(&t.ctx, revert(removed)).await);
        assert!(refused.contains(&format!("subscriber by {taken} (number_assign)")), "{refused}");
        assert_eq!(assignee().await, Some(bob));
    })
    .await;
}

#[tokio::test]
async fn what_it_was_bound_to_must_be_there_again() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let commit = async |command| house.commit(&t.ctx, command).await.unwrap().change;
        let subscriber = commit(Command::SubscriberDelete { id: t.subscriber }).await;
        let site = commit(Command::SiteDelete { id: t.site }).await;
        let domain = commit(Command::DomainDelete { id: t.domain }).await;
        let refused = told(house.commit(&t.ctx, revert(subscriber)).await);
        assert!(refused.contains("the domain of subscriber alice@c1.example is gone"), "{refused}");
        commit(revert(domain)).await;
        refused_as(house.commit(&t.ctx, revert(subscriber)).await, RefusalCode::NotFound, "change");
        commit(revert(site)).await;
        commit(revert(subscriber)).await;
        // What is about a field that it does not touch is not in the way
        let mut renamed = subscriber_update(t.subscriber);
        if let Command::SubscriberUpdate { display_name, .. } = &mut renamed {
            *display_name = Some("Alice".to_owned());
        }
        let renamed = commit(renamed).await;
        let mut freed = subscriber_update(t.subscriber);
        if let Command::SubscriberUpdate { extension, .. } = &mut freed {
            *extension = Some(None);
        }
        commit(freed).await;
        commit(subscriber_create(t.domain, "carol", Some("100"))).await;
        commit(revert(renamed)).await;
    })
    .await;
}

#[tokio::test]
async fn two_who_take_the_same_change_back_do_it_once() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let assigned = Command::NumberAssign { id: t.number, subscriber: None };
        let assigned = house.commit(&t.ctx, assigned).await.unwrap().change;
        let mut tries = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (store, ctx) = (house.store.clone(), t.ctx.clone());
            tries.spawn(async move { store.commit(&ctx, revert(assigned), CommitOptions::default()).await });
        }
        let mut done = 0;
        for attempt in tries.join_all().await {
            match attempt {
                Ok(_) => done += 1,
                refused => assert!(told(refused).contains("taken back")),
            }
        }
        assert_eq!((done, house.count("reversal").await), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn the_audit_trail_is_read_from_either_end_and_per_account() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let (t, other) = (house.tenant(1).await, house.tenant(2).await);
        let read = async |ctx: &Ctx, account, oldest_first| {
            let (mut sequences, mut after) = (Vec::new(), None);
            loop {
                let page = PageRequest { first: 3, after };
                let page = house
                    .store
                    .audit_list(ctx, AuditFilter { account, oldest_first, resource: None }, page)
                    .await
                    .unwrap();
                sequences.extend(page.items.iter().map(|(_, entry)| entry.sequence));
                if !page.has_next {
                    return sequences;
                }
                after = page.items.last().map(|(cursor, _)| cursor.clone());
            }
        };
        let mut all = read(&house.provider, None, true).await;
        assert_eq!(all, (1..=i64::try_from(all.len()).unwrap()).collect::<Vec<_>>());
        all.reverse();
        assert_eq!(read(&house.provider, None, false).await, all);
        let mine = read(&t.ctx, None, false).await;
        assert_eq!(read(&house.provider, Some(t.reseller.id), false).await, mine);
        let below: BTreeSet<i64> = read(&t.ctx, Some(t.customer.id), true).await.into_iter().collect();
        assert!(below.len() < mine.len() && below.iter().all(|sequence| mine.contains(sequence)));
        assert!(read(&t.ctx, Some(other.customer.id), true).await.is_empty());
        assert!(read(&other.ctx, None, true).await.iter().all(|sequence| !mine.contains(sequence)));
        // The history of one object
        house.done(&t.ctx, Command::NumberAssign { id: t.number, subscriber: None }).await;
        let history = async |ctx: &Ctx| {
            let filter = AuditFilter { resource: Some(t.number.uuid()), ..AuditFilter::default() };
            let page = house.store.audit_list(ctx, filter, PageRequest::default()).await.unwrap();
            page.items.into_iter().map(|(_, entry)| entry.command).collect::<Vec<_>>()
        };
        assert_eq!(history(&t.ctx).await, ["number_assign", "number_create"]);
        assert_eq!(history(&house.provider).await.len(), 2);
        assert!(history(&other.ctx).await.is_empty());
    })
    .await;
}

/// What an effect makes of the resources: the model of the property below.
fn apply(state: &mut BTreeMap<String, Map<String, Value>>, effect: &Effect) {
    let key = format!("{}:{}", effect.resource.kind.as_str(), effect.resource.id);
    let fields = |value: &Option<Value>| value.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
    let (before, after) = (fields(&effect.before), fields(&effect.after));
    match effect.kind {
        EffectKind::Created => {
            state.insert(key, after);
        }
        EffectKind::Deleted => {
            state.remove(&key);
        }
        EffectKind::Updated => {
            for (field, value) in after {
                // An update that says the same makes nothing.
                if before.get(&field) != Some(&value) && field != "revision" {
                    state.entry(key.clone()).or_default().insert(field, value);
                }
            }
        }
    }
}

/// Everything that there is, less what follows from other things.
pub(super) async fn present(house: &House) -> BTreeMap<String, Map<String, Value>> {
    let mut state = BTreeMap::new();
    let page = || PageRequest { first: 100, after: None };
    macro_rules! list {
        ($kind:literal, $method:ident) => {
            let found = house.store.$method(&house.provider, None, page()).await.unwrap();
            assert!(!found.has_next);
            for (_, resource) in found.items {
                let value = serde_json::to_value(&resource).unwrap();
                state.insert(format!("{}:{}", $kind, resource.id), value.as_object().unwrap().clone());
            }
        };
    }
    list!("account", account_list);
    list!("domain", domain_list);
    list!("site", site_list);
    list!("subscriber", subscriber_list);
    list!("number", number_list);
    list!("trunk", trunk_list);
    state
}

fn bare(mut state: BTreeMap<String, Map<String, Value>>) -> BTreeMap<String, Map<String, Value>> {
    for fields in state.values_mut() {
        fields.remove("revision");
        fields.remove("subscriber_count");
    }
    state
}

/// One more change of the things that there are: many are refused, which is no less a case.
fn random_command(random: &mut Random, t: &Tenant, state: &BTreeMap<String, Map<String, Value>>) -> Command {
    let mut pick = |kind: &str| {
        let of_kind: Vec<&String> = state.keys().filter(|key| key.starts_with(kind)).collect();
        let index = random.below(of_kind.len().max(1));
        let key = of_kind.get(index).map_or("", |key| key.as_str());
        Uuid::parse_str(key.split(':').nth(1).unwrap_or_default()).unwrap_or_else(|_| Uuid::nil())
    };
    let (domain, site) = (DomainId::from_uuid(pick("domain")), SiteId::from_uuid(pick("site")));
    let (subscriber, number) = (SubscriberId::from_uuid(pick("subscriber")), NumberId::from_uuid(pick("number")));
    let n = random.below(4);
    let is_set = random.below(2) == 0;
    let until = START.plus_ms(86_400_000);
    match random.below(16) {
        0 => domain_create(t.customer.id, &format!("d{n}.example")),
        1 => Command::DomainDelete { id: domain },
        2 => domain_update(domain, &format!("4{n}")),
        3 => Command::SiteCreate { account: t.customer.id, name: format!("Site {n}") },
        4 => Command::SiteUpdate { id: site, name: format!("Site {n}") },
        5 => Command::SiteDelete { id: site },
        6 | 7 => subscriber_create(domain, &format!("user{n}"), is_set.then_some(["300", "301", "302", "303"][n])),
        8 => Command::SubscriberUpdate {
            id: subscriber,
            display_name: is_set.then(|| format!("Name {n}")),
            site: Some((n > 1).then_some(site)),
            extension: None,
            call_limit: None,
            enabled: Some(n == 0),
        },
        9 => Command::SubscriberDelete { id: subscriber },
        10 => number_create(t.customer.id, &format!("+4372100{n}"), is_set.then_some(subscriber)),
        11 => Command::NumberAssign { id: number, subscriber: is_set.then_some(subscriber) },
        12 => Command::NumberDelete { id: number },
        13 => Command::NumberReserve { id: number, account: t.customer.id, until },
        14 => Command::NumberRelease { id: number },
        _ => Command::AccountUpdate {
            id: t.customer.id,
            name: is_set.then(|| format!("Customer {n}")),
            call_limit: Some((n > 0).then_some(10)),
            subscriber_quota: None,
            enabled: None,
        },
    }
}

/// Random changes and reversals of random earlier ones: after each step what there is is what those changes say, in
/// their order, that are not taken back.
#[tokio::test]
async fn the_state_is_what_the_remaining_changes_describe() {
    let (reverted, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let sequences = if testkit::soak::is_long() { SEQUENCES_SOAK } else { SEQUENCES };
    for seed in 1..=sequences {
        on_each_database(async |db: TestDb| random_sequence(db, seed, &reverted, &refused).await).await;
    }
    let (reverted, refused) = (reverted.into_inner(), refused.into_inner());
    assert!(reverted > 50 && refused > 50, "{reverted} reversals, {refused} refused");
}

async fn random_sequence(db: TestDb, seed: u64, reverted: &AtomicUsize, refused: &AtomicUsize) {
    let house = House::new(db).await;
    let t = house.tenant(1).await;
    let mut random = Random::of_round(seed, 0);
    let begin = bare(present(&house).await);
    let mut made: Vec<(ChangeId, Plan)> = Vec::new();
    for step in 0..STEPS {
        let customer = Value::from(t.customer.id.to_string());
        let state = bare(present(&house).await);
        let mine = state.into_iter().filter(|(_, fields)| fields.get("account") == Some(&customer)).collect();
        let is_reversal = random.below(5) < 2 && !made.is_empty();
        // Nothing is in the way of taking the latest change back, unless it says the third time what two said.
        let is_latest = is_reversal && random.below(3) == 0;
        let command = match made.last() {
            Some((latest, _)) if is_latest => revert(*latest),
            Some(_) if is_reversal => revert(random.pick(&made).0),
            _ => random_command(&mut random, &t, &mine),
        };
        match house.commit(&t.ctx, command.clone()).await {
            Ok(committed) => {
                reverted.fetch_add(usize::from(is_reversal), Ordering::Relaxed);
                made.push((committed.change, committed.plan));
            }
            Err(ChangeError::Refused(why)) => {
                let is_third = why.iter().all(|refusal| refusal.message.starts_with("it took the reversal"));
                assert!(!is_latest || is_third, "seed {seed}, step {step}: {command:?}: {why:?}");
                refused.fetch_add(usize::from(is_reversal), Ordering::Relaxed);
            }
            Err(error) => panic!("seed {seed}, step {step}: {command:?}: {error}"),
        }
        let (mut described, mut history) = (begin.clone(), Vec::new());
        for (change, plan) in &made {
            let entry = house.store.audit_get(&t.ctx, *change).await.unwrap().unwrap();
            if entry.reverted_by.is_none() && entry.command != "change_revert" {
                plan.effects.iter().for_each(|effect| apply(&mut described, effect));
            }
            history.push((entry, plan));
        }
        let (found, described) = (bare(present(&house).await), bare(described));
        let differs = |key: &&String| found.get(*key) != described.get(*key);
        if let Some(key) = found.keys().chain(described.keys()).find(differs) {
            for (entry, plan) in history {
                for effect in plan.effects.iter().filter(|e| key.ends_with(&e.resource.id.to_string())) {
                    println!("{} {}, reverted by {:?}: {effect:?}", entry.change, entry.command, entry.reverted_by);
                }
            }
            let (found, described) = (found.get(key), described.get(key));
            panic!("seed {seed}, step {step}: {command:?}: {key} is\n{found:?}, not\n{described:?}");
        }
    }
    db::change::verify_audit(&house.db).await.unwrap();
}

//! What a reversal looks at: the change that is to be taken back, from the audit trail, and what became of what it
//! touched.

use db::sqlx;
use db::{DbError, Tx, on_tx};
use model::change::{Effect, EffectKind, Plan, ResourceKind};
use model::id::{ChangeId, DomainId, NumberId, SiteId, SubscriberId};
use model::tenancy::{AccountPath, Scope};
use provisioning::resource::{Account, Domain, Number, Site, Subscriber};
use provisioning::view::{LATER_MAX, Later, RevertedBefore, RevertedChange, Taken, View};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::row::{Lock, global_holder, holder, load, parsed};
use crate::view::{Parts as _, populated};
use crate::{account, domain, number, site, subscriber, trunk};

db::statements! {
    /// The path of the account whose subtree a change was made in, in scope.
    OWNER = "SELECT path FROM audit WHERE change_id = $1 AND path >= $2 AND path < $3";
    CHANGE = "SELECT sequence, command, plan FROM audit WHERE change_id = $1";
    /// Changes after one that touched a resource and are in force. A reversal has no effect of its own: what it takes back
    /// is not in force.
    LATER = "SELECT x.change_id, x.path, x.command, x.plan FROM audit_resource r JOIN audit x ON x.sequence = r.sequence \
        WHERE r.resource_id = $1 AND r.sequence > $2 \
        AND NOT EXISTS (SELECT 1 FROM reversal w WHERE w.change_id = x.change_id) \
        AND NOT EXISTS (SELECT 1 FROM reversal v WHERE v.reverts = x.change_id AND v.in_force) ORDER BY r.sequence LIMIT $3";
    /// The change by which one is taken back now.
    BY = "SELECT change_id FROM reversal WHERE reverts = $1 AND in_force";
    /// What a change takes back, and whether that is a reversal itself.
    REVERTS = "SELECT v.reverts, w.change_id IS NOT NULL FROM reversal v \
        LEFT JOIN reversal w ON w.change_id = v.reverts WHERE v.change_id = $1";
    INSERT = "INSERT INTO reversal (change_id, reverts, in_force) VALUES ($1, $2, $3)";
    END = "UPDATE reversal SET in_force = $2 WHERE change_id = $1";
}

/// Loads the change and what it touched, in the order of the locks: subscribers, numbers, the rest.
pub(crate) async fn view(tx: &mut Tx, path: AccountPath, change: ChangeId, view: &mut View) -> Result<(), DbError> {
    let row: Option<(i64, String, String)> =
        on_tx!(tx, c => sqlx::query_as(CHANGE).bind(change.uuid()).fetch_optional(c).await)?;
    let Some((sequence, command, plan)) = row else { return Ok(()) };
    let plan = parsed_plan(&plan)?;
    let by: Option<Uuid> = on_tx!(tx, c => sqlx::query_scalar(BY).bind(change.uuid()).fetch_optional(c).await)?;
    let reverts = reverts(tx, change).await?;
    let mut kept = Vec::new();
    for effect in of_kind(&plan, ResourceKind::Subscriber) {
        load_subscriber(tx, &path, effect, view).await?;
        let id = SubscriberId::from_uuid(effect.resource.id);
        if effect.kind == EffectKind::Deleted && subscriber::kept(tx, id).await?.is_some() {
            kept.push(id);
        }
    }
    for effect in of_kind(&plan, ResourceKind::Number) {
        let assignee = shown::<Number>(effect).and_then(|before| before.subscriber);
        if assignee.is_some_and(|subscriber| view.subscriber(subscriber).is_none()) {
            view.load_assignee(tx, &Scope::installation(), assignee).await?;
        }
    }
    for effect in of_kind(&plan, ResourceKind::Subscriber).filter(|effect| effect.kind == EffectKind::Created) {
        view.numbers.extend(number::assigned(tx, SubscriberId::from_uuid(effect.resource.id)).await?);
    }
    for effect in of_kind(&plan, ResourceKind::Number) {
        load_number(tx, effect, view).await?;
    }
    for effect in of_kind(&plan, ResourceKind::Account) {
        if let (Some(before), [.., parent, _]) = (shown::<Account>(effect), view.ancestry.as_slice()) {
            let holder = holder(tx, account::NAME, parent.id.uuid(), &before.name).await?;
            view.takes(Taken::Name, holder, Some(effect.resource.id));
        }
    }
    for effect in of_kind(&plan, ResourceKind::Domain) {
        view.load_domain(tx, DomainId::from_uuid(effect.resource.id), Lock::Held).await?;
        if let Some(before) = shown::<Domain>(effect) {
            let holder = global_holder(tx, domain::NAME, before.name.as_str()).await?;
            view.takes(Taken::Domain, holder, Some(effect.resource.id));
        }
        if effect.kind == EffectKind::Created {
            view.populated.extend(populated(tx, domain::POPULATION, effect.resource.id).await?);
        }
    }
    for effect in of_kind(&plan, ResourceKind::Site) {
        view.load_site(tx, Some(SiteId::from_uuid(effect.resource.id)), Lock::Held).await?;
        if let Some(before) = shown::<Site>(effect) {
            let holder = holder(tx, site::NAME, before.account.uuid(), &before.name).await?;
            view.takes(Taken::Name, holder, Some(effect.resource.id));
        }
        if effect.kind == EffectKind::Created {
            view.populated.extend(populated(tx, site::POPULATION, effect.resource.id).await?);
        }
    }
    for effect in of_kind(&plan, ResourceKind::Trunk) {
        view.trunks.extend(load::<trunk::Row>(tx, trunk::LOAD, effect.resource.id, Lock::Held).await?);
    }
    let later = later(tx, &plan, sequence).await?;
    let by = by.map(ChangeId::from_uuid);
    view.reverted = Some(RevertedChange { change, command, plan, by, reverts, later, kept });
    Ok(())
}

async fn reverts(tx: &mut Tx, change: ChangeId) -> Result<Option<RevertedBefore>, DbError> {
    let row: Option<(Uuid, bool)> =
        on_tx!(tx, c => sqlx::query_as(REVERTS).bind(change.uuid()).fetch_optional(c).await)?;
    Ok(row.map(|(change, is_reversal)| RevertedBefore { change: ChangeId::from_uuid(change), is_reversal }))
}

/// What came after the change with this number and touched the same, once each, in their order.
async fn later(tx: &mut Tx, plan: &Plan, sequence: i64) -> Result<Vec<Later>, DbError> {
    let limit = i64::try_from(LATER_MAX).unwrap_or(i64::MAX);
    let mut later: Vec<Later> = Vec::new();
    for effect in &plan.effects {
        let rows: Vec<(Uuid, String, String, String)> = on_tx!(tx, c => sqlx::query_as(LATER)
            .bind(effect.resource.id).bind(sequence).bind(limit).fetch_all(c).await)?;
        for (change, path, command, plan) in rows {
            let change = ChangeId::from_uuid(change);
            if later.iter().all(|known| known.change != change) {
                let path = parsed("audit.path", &path)?;
                later.push(Later { path, change, command, plan: parsed_plan(&plan)? });
            }
        }
        if later.len() >= LATER_MAX {
            break;
        }
    }
    Ok(later)
}

fn parsed_plan(plan: &str) -> Result<Plan, DbError> {
    serde_json::from_str(plan).map_err(|e| DbError::corrupt("audit.plan", e))
}

/// The subscriber as it is, and what it was bound to where it is to be as before.
async fn load_subscriber(tx: &mut Tx, path: &AccountPath, effect: &Effect, view: &mut View) -> Result<(), DbError> {
    let id = SubscriberId::from_uuid(effect.resource.id);
    view.load_subscriber(tx, id, path.clone()).await?;
    let Some(before) = shown::<Subscriber>(effect) else { return Ok(()) };
    view.load_domain(tx, before.domain, Lock::Free).await?;
    view.load_site(tx, before.site, Lock::Free).await?;
    let username = holder(tx, subscriber::USERNAME, before.domain.uuid(), &before.username).await?;
    view.takes(Taken::Username, username, Some(id.uuid()));
    view.load_extension(tx, before.account.uuid(), before.extension.as_ref(), Some(id.uuid())).await
}

/// The number as it is, and who holds it now.
async fn load_number(tx: &mut Tx, effect: &Effect, view: &mut View) -> Result<(), DbError> {
    let id = NumberId::from_uuid(effect.resource.id);
    if view.number(id).is_none() {
        view.numbers.extend(load::<number::Row>(tx, number::LOAD, id.uuid(), Lock::Held).await?);
    }
    let Some(before) = shown::<Number>(effect) else { return Ok(()) };
    let holder = global_holder(tx, number::E164, &before.e164.to_string()).await?;
    view.takes(Taken::E164, holder, Some(id.uuid()));
    Ok(())
}

/// Notes that `by` takes `change` back. Where `change` is a reversal itself, what it took back is in force again.
pub(crate) async fn insert(tx: &mut Tx, change: ChangeId, by: ChangeId) -> Result<(), DbError> {
    on_tx!(tx, c => sqlx::query(END).bind(change.uuid()).bind(false).execute(c).await.map(|_| ()))?;
    on_tx!(tx, c => sqlx::query(INSERT).bind(by.uuid()).bind(change.uuid()).bind(true).execute(c).await.map(|_| ()))?;
    Ok(())
}

fn of_kind(plan: &Plan, kind: ResourceKind) -> impl Iterator<Item = &Effect> {
    plan.effects.iter().filter(move |effect| effect.resource.kind == kind)
}

/// What the effect's resource was before; none when it is not understood, which the decision tells.
fn shown<T: DeserializeOwned>(effect: &Effect) -> Option<T> {
    effect.before.clone().and_then(|before| serde_json::from_value(before).ok())
}

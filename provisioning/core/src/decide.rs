//! The decision: from a view and a command to a plan with its writes, or to every reason against it.
//!
//! The field of a refusal is the name of the command's field in camel case, such as `callLimit`, as a path where it
//! lies deeper, such as `credentials.username`. Faces give it the name of their input.

use std::fmt::Display;

use model::actor::Permission;
use model::change::{
    Effect, EffectKind, Plan, Refusal, RefusalCode, ResourceKind, ResourceRef, ResourceVersion, Reversibility,
};
use model::ctx::Ctx;
use model::id::NumberId;
use model::money::Currency;
use model::tenancy::{AccountKind, AccountPath};
use model::time::Timestamp;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::command::Command;
use crate::resource::{Account, Revision, Subscriber};
use crate::token::Grant;
use crate::view::{Decision, Taken, View, Write};
use crate::{account, bulk, domain, number, revert, site, subscriber, token, trunk};

/// Decides on `command`. Identifiers of new resources come from `ctx`, so a plan that is committed later has others.
///
/// # Errors
/// Every reason that was found.
pub fn decide(ctx: &Ctx, view: &View, command: &Command) -> Result<Decision, Vec<Refusal>> {
    let permission = required(command);
    if ctx.require(permission).is_err() {
        let message = format!("the permission {permission} is missing");
        return Err(vec![Refusal::new(RefusalCode::Forbidden, "", message, "ask for a token that carries it")]);
    }
    let mut case = Case::new(ctx, view);
    match command {
        Command::AccountCreate { .. } => account::create(&mut case, command),
        Command::AccountUpdate { .. } => account::update(&mut case, command),
        Command::DomainCreate { account, name, dial_plan } => domain::create(&mut case, *account, name, dial_plan),
        Command::DomainUpdate { id, dial_plan } => domain::update(&mut case, *id, dial_plan),
        Command::DomainDelete { id } => domain::delete(&mut case, *id),
        Command::SiteCreate { account, name } => site::create(&mut case, *account, name),
        Command::SiteUpdate { id, name } => site::update(&mut case, *id, name),
        Command::SiteDelete { id } => site::delete(&mut case, *id),
        Command::SubscriberCreate { .. } => subscriber::create(&mut case, command),
        Command::SubscriberUpdate { .. } => subscriber::update(&mut case, command),
        Command::SubscriberPasswordSet { id, password } => subscriber::password_set(&mut case, *id, password.as_ref()),
        Command::SubscriberDelete { id } => subscriber::delete(&mut case, *id),
        Command::NumberCreate { account, e164, subscriber } => number::create(&mut case, *account, *e164, *subscriber),
        Command::NumberAssign { id, subscriber } => number::assign(&mut case, *id, *subscriber),
        Command::NumberReserve { id, account, until } => number::reserve(&mut case, *id, *account, *until),
        Command::NumberRelease { id } => number::release(&mut case, *id),
        Command::NumberDelete { id } => number::delete(&mut case, *id),
        Command::TrunkCreate { .. } => trunk::create(&mut case, command),
        Command::TrunkUpdate { .. } => trunk::update(&mut case, command),
        Command::TokenIssue { account, name, permissions, expires_at, networks } => {
            let grant = Grant { permissions: *permissions, expires_at: *expires_at, networks };
            token::issue(&mut case, *account, name, grant)
        }
        Command::TokenUpdate { id, expires_at, networks } => {
            token::update(&mut case, *id, *expires_at, networks.as_ref())
        }
        Command::TokenRotate { id, overlap_s } => token::rotate(&mut case, *id, *overlap_s),
        Command::TokenRevoke { id } => token::revoke(&mut case, *id),
        Command::ChangeRevert { change } => revert::revert(&mut case, *change),
        Command::BulkJobStart { id, mode } => bulk::start::start(&mut case, *id, *mode),
        Command::BulkJobCancel { id } => bulk::start::cancel(&mut case, *id),
    }
    case.finish()
}

/// The first account of an installation and its first token, made before there is anybody to ask.
///
/// # Errors
/// What is wrong with name or zone.
pub fn bootstrap(ctx: &Ctx, name: &str, timezone: &str, currency: Currency) -> Result<Decision, Vec<Refusal>> {
    let view = View::default();
    let mut case = Case::new(ctx, &view);
    account::provider(&mut case, name, timezone, currency);
    case.finish()
}

/// The permission that a command needs.
#[must_use]
pub const fn required(command: &Command) -> Permission {
    match command {
        Command::TokenIssue { .. }
        | Command::TokenUpdate { .. }
        | Command::TokenRotate { .. }
        | Command::TokenRevoke { .. } => Permission::TokenWrite,
        _ => Permission::ProvisioningWrite,
    }
}

/// One command being decided: gathers reasons against it, effects, versions and writes.
pub(crate) struct Case<'a> {
    pub(crate) ctx: &'a Ctx,
    pub(crate) view: &'a View,
    pub(crate) now: Timestamp,
    /// Subscribers that this change makes, with where their customer sits.
    pub(crate) made: Vec<(Subscriber, AccountPath)>,
    /// Subscribers that this change makes less those that it removes, of those that it brings back or takes away again.
    pub(crate) balance: i64,
    /// Numbers that this change takes from a subscriber.
    pub(crate) freed: Vec<NumberId>,
    refusals: Vec<Refusal>,
    effects: Vec<Effect>,
    versions: Vec<ResourceVersion>,
    writes: Vec<Write>,
    reversibility: Reversibility,
}

impl<'a> Case<'a> {
    pub(crate) fn new(ctx: &'a Ctx, view: &'a View) -> Self {
        Self {
            ctx,
            view,
            now: ctx.now(),
            made: Vec::new(),
            balance: 0,
            freed: Vec::new(),
            refusals: Vec::new(),
            effects: Vec::new(),
            versions: Vec::new(),
            writes: Vec::new(),
            reversibility: Reversibility::Reversible,
        }
    }

    pub(crate) fn refuse(&mut self, code: RefusalCode, field: &str, message: &str, remedy: &str) {
        self.refusals.push(Refusal::new(code, field, message, remedy));
    }

    pub(crate) fn invalid(&mut self, field: &str, message: &str, remedy: &str) {
        self.refuse(RefusalCode::Invalid, field, message, remedy);
    }

    /// It does not exist, or not for the caller: both look alike.
    pub(crate) fn missing(&mut self, field: &str, what: &str, id: impl Display) {
        let message = format!("there is no {what} {id}");
        self.refuse(RefusalCode::NotFound, field, &message, "look the identifier up in the list");
    }

    /// Whether something else holds what the new object wants, or the object with this identifier.
    pub(crate) fn check_taken(&mut self, id: Option<Uuid>, taken: Taken) {
        if self.view.taken.contains(&(id, taken)) {
            self.refusals.push(taken.refusal());
        }
    }

    /// A domain or site that is to go must have no subscribers.
    pub(crate) fn check_empty(&mut self, id: Uuid, what: &str) {
        if let Some((_, count)) = self.view.populated.iter().find(|(populated, _)| *populated == id) {
            let message = format!("the {what} is in use: subscribers in it: {count}");
            self.refuse(RefusalCode::InUse, "id", &message, "move or remove them first");
        }
    }

    /// The account that the command is about, when it is in scope and may be changed.
    pub(crate) fn owner(&mut self) -> Option<&'a Account> {
        let (owner, above) = self.view.ancestry.split_last()?;
        if !self.ctx.scope.contains(&owner.path) {
            return None;
        }
        self.looked_at(ResourceKind::Account, owner.id.uuid(), owner.revision);
        if !owner.enabled || above.iter().any(|account| !account.enabled) {
            let message = "the account, or one above it, is disabled";
            self.refuse(RefusalCode::Conflict, "", message, "enable it, then repeat the change");
        }
        Some(owner)
    }

    /// As [`Case::owner`], for what only customers have.
    pub(crate) fn customer(&mut self, field: &str, what: &str) -> Option<&'a Account> {
        let owner = self.owner()?;
        if owner.kind != AccountKind::Customer {
            let message = format!("a {what} belongs to a customer, and {} is a {}", owner.name, owner.kind.as_str());
            self.invalid(field, &message, "name a customer");
        }
        Some(owner)
    }

    pub(crate) fn looked_at(&mut self, kind: ResourceKind, id: Uuid, revision: Revision) {
        let seen = ResourceVersion { resource: ResourceRef { kind, id }, version: revision.version };
        if !self.versions.contains(&seen) {
            self.versions.push(seen);
        }
    }

    pub(crate) const fn first_revision(&self) -> Revision {
        Revision { version: 1, created_at: self.now, updated_at: self.now }
    }

    pub(crate) const fn next_revision(&self, revision: Revision) -> Revision {
        Revision { version: revision.version + 1, created_at: revision.created_at, updated_at: self.now }
    }

    pub(crate) fn effect<T: Serialize>(
        &mut self,
        (kind, id): (ResourceKind, Uuid),
        name: impl Into<String>,
        before: Option<&T>,
        after: Option<&T>,
        write: Write,
    ) {
        let shown = |resource: &T| serde_json::to_value(resource).unwrap_or(Value::Null);
        let effect = match (before, after) {
            (None, _) => EffectKind::Created,
            (Some(_), Some(_)) => EffectKind::Updated,
            (Some(_), None) => EffectKind::Deleted,
        };
        self.effects.push(Effect {
            kind: effect,
            resource: ResourceRef { kind, id },
            name: name.into(),
            before: before.map(shown),
            after: after.map(shown),
        });
        self.writes.push(write);
    }

    pub(crate) fn write(&mut self, write: Write) {
        self.writes.push(write);
    }

    pub(crate) fn is_final(&mut self, reason: &str) {
        self.reversibility = Reversibility::Final(reason.to_owned());
    }

    /// Reasons are told of the reversal, whose input has no other field, with what helps there.
    pub(crate) fn refuse_reversal(&mut self) {
        for Refusal { code, field, remedy, .. } in self.refusals.iter_mut().filter(|refusal| refusal.field != "change")
        {
            let helps = match code {
                // Not about a field of the command: the remedy holds here, too.
                _ if field.is_empty() => None,
                RefusalCode::Conflict => Some("free it, then take the change back"),
                RefusalCode::NotFound => Some("take its removal back first"),
                RefusalCode::QuotaExceeded => Some("remove some first"),
                RefusalCode::Invalid => Some("make another change that mends it"),
                _ => None,
            };
            if let Some(helps) = helps {
                helps.clone_into(remedy);
            }
            "change".clone_into(field);
        }
    }

    fn finish(self) -> Result<Decision, Vec<Refusal>> {
        if !self.refusals.is_empty() {
            return Err(self.refusals);
        }
        let path = self.writes.iter().find_map(|write| match write {
            // A new account is its own subtree.
            Write::AccountInsert(account) => Some(account.path.clone()),
            _ => None,
        });
        let Some(path) = path.or_else(|| self.view.ancestry.last().map(|owner| owner.path.clone())) else {
            let message = "there is no such object";
            return Err(vec![Refusal::new(RefusalCode::NotFound, "", message, "look the identifier up in the list")]);
        };
        let plan = Plan { effects: self.effects, versions: self.versions, reversibility: self.reversibility };
        Ok(Decision { plan, path, writes: self.writes })
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use model::actor::Permissions;
    use testkit::World;

    use super::*;

    /// A caller with every permission who reaches everything, and the world that it lives in.
    pub(crate) fn world() -> (Ctx, World) {
        let world = World::new();
        let mut ctx = world.system();
        ctx.actor.permissions = Permissions::all();
        (ctx, world)
    }

    /// What `check` finds.
    pub(crate) fn refusals(ctx: &Ctx, check: impl FnOnce(&mut Case<'_>)) -> Vec<Refusal> {
        let view = View::default();
        let mut case = Case::new(ctx, &view);
        check(&mut case);
        case.refusals
    }
}

#[cfg(test)]
mod tests {
    use model::actor::Permissions;
    use model::id::{AccountId, DomainId, SubscriberId};
    use model::tenancy::Scope;
    use proptest::prelude::*;

    use super::testing::world;
    use super::*;
    use crate::resource::{DialPlan, Domain, Number};

    /// A provider, a reseller and a customer with a domain, and a caller of the reseller.
    fn view() -> (Ctx, View) {
        let (mut ctx, _) = world();
        let mut ancestry: Vec<Account> = Vec::new();
        for kind in [AccountKind::Provider, AccountKind::Reseller, AccountKind::Customer] {
            let id = AccountId::new(&*ctx.ids);
            let parent = ancestry.last();
            ancestry.push(Account {
                id,
                parent: parent.map(|p| p.id),
                path: parent.map_or_else(|| AccountPath::root(id), |p| p.path.child(id).unwrap()),
                kind,
                name: kind.as_str().to_owned(),
                timezone: "UTC".to_owned(),
                currency: "EUR".parse().unwrap(),
                call_limit: None,
                subscriber_quota: None,
                subscriber_count: 0,
                enabled: true,
                revision: Revision { version: 3, created_at: Timestamp(0), updated_at: Timestamp(0) },
            });
        }
        ctx.scope = Scope::subtree(&ancestry[1].path);
        let domain = Domain {
            id: DomainId::new(&*ctx.ids),
            account: ancestry[2].id,
            name: "alpha.example".parse().unwrap(),
            dial_plan: DialPlan {
                country_code: "43".to_owned(),
                national_prefix: "0".to_owned(),
                international_prefix: "00".to_owned(),
            },
            revision: Revision { version: 1, created_at: Timestamp(0), updated_at: Timestamp(0) },
        };
        (ctx, View { ancestry, domains: vec![domain], ..View::default() })
    }

    fn subscriber_create(view: &View) -> Command {
        Command::SubscriberCreate {
            domain: view.domains[0].id,
            site: None,
            username: "alice".to_owned(),
            display_name: String::new(),
            extension: None,
            password: None,
            call_limit: None,
        }
    }

    fn codes(result: Result<Decision, Vec<Refusal>>) -> Vec<RefusalCode> {
        result.map_or_else(|refusals| refusals.iter().map(|r| r.code).collect(), |_| Vec::new())
    }

    #[test]
    fn a_subscriber_counts_in_the_same_decision() {
        let (ctx, view) = view();
        let decision = decide(&ctx, &view, &subscriber_create(&view)).unwrap();
        assert_eq!(decision.path, view.ancestry[2].path);
        assert!(matches!(decision.writes[0], Write::SubscriberInsert(..)));
        assert_eq!(decision.writes[1], Write::SubscriberCount { path: decision.path.clone(), delta: 1 });
        assert_eq!(decision.plan.effects[0].name, "alice@alpha.example");
        let versions: Vec<_> = decision.plan.versions.iter().map(|v| (v.resource.kind, v.version)).collect();
        assert_eq!(versions, [(ResourceKind::Account, 3), (ResourceKind::Domain, 1)]);
    }

    #[test]
    fn what_is_out_of_scope_is_missing_whatever_the_view_holds() {
        let (mut ctx, view) = view();
        let command = subscriber_create(&view);
        ctx.scope = Scope::subtree(&AccountPath::root(AccountId::new(&*ctx.ids)));
        assert_eq!(codes(decide(&ctx, &view, &command)), [RefusalCode::NotFound]);
        assert_eq!(codes(decide(&ctx, &View::default(), &command)), [RefusalCode::NotFound]);
        ctx.actor.permissions = Permissions::default();
        assert_eq!(codes(decide(&ctx, &view, &command)), [RefusalCode::Forbidden]);
    }

    #[test]
    fn a_deleted_subscriber_leaves_its_numbers() {
        let (ctx, mut view) = view();
        let created = decide(&ctx, &view, &subscriber_create(&view)).unwrap();
        let Some(Write::SubscriberInsert(subscriber, _)) = created.writes.into_iter().next() else { panic!() };
        let number = Number {
            id: model::id::NumberId::new(&*ctx.ids),
            account: view.ancestry[1].id,
            e164: "+4312345".parse().unwrap(),
            subscriber: Some(subscriber.id),
            hold: None,
            revision: subscriber.revision,
        };
        let id: SubscriberId = subscriber.id;
        view.subscribers = vec![(subscriber, view.ancestry[2].path.clone())];
        view.numbers = vec![number.clone()];
        let decision = decide(&ctx, &view, &Command::SubscriberDelete { id }).unwrap();
        let Write::NumberUpdate(free) = &decision.writes[0] else { panic!("{:?}", decision.writes) };
        assert_eq!((free.subscriber, free.revision.version), (None, number.revision.version + 1));
        assert_eq!(decision.writes[1], Write::SubscriberDelete(id, 1));
    }

    proptest! {
        #[test]
        fn a_quota_anywhere_above_holds(levels in proptest::array::uniform3((0_u32..4, proptest::option::of(0_u32..4)))) {
            let (ctx, mut view) = view();
            for (account, (count, quota)) in view.ancestry.iter_mut().zip(levels) {
                (account.subscriber_count, account.subscriber_quota) = (count, quota);
            }
            let full = levels.iter().filter(|(count, quota)| quota.is_some_and(|quota| *count >= quota)).count();
            let codes = codes(decide(&ctx, &view, &subscriber_create(&view)));
            prop_assert_eq!(codes, vec![RefusalCode::QuotaExceeded; full]);
        }
    }
}

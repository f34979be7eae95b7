//! What a line does: one command or several, each decided on what the one before left.

use std::collections::BTreeSet;

use model::change::{Effect, EffectKind, Refusal, RefusalCode, ResourceKind, Reversibility};
use model::ctx::Ctx;
use model::id::{AccountId, SubscriberId};
use model::number::E164;
use model::tenancy::AccountPath;
use uuid::Uuid;

use super::line::{Action, AddressOfRecord, Line, Object};
use super::name::AccountName;
use super::picture::Picture;
use crate::command::Command;
use crate::decide::decide;
use crate::resource::{Account, DialPlan, Domain, Number, Subscriber};
use crate::view::{Decision, Write};

/// What a line comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Something is changed.
    Applied,
    /// All is as the line says.
    Unchanged,
}

/// A decided line.
#[derive(Debug)]
pub struct LineDecision {
    /// What it does, account by account: commands in a row that change the same account and can be taken back alike are
    /// one step.
    pub steps: Vec<Step>,
    /// The object that it is about.
    pub object: Option<(ResourceKind, Uuid)>,
}

/// What a line does to the subtree of one account.
#[derive(Debug)]
pub struct Step {
    /// The account whose subtree is changed.
    pub path: AccountPath,
    /// The effects, one for each object.
    pub effects: Vec<Effect>,
    /// What is to be written.
    pub writes: Vec<Write>,
    /// Whether it can be taken back.
    pub reversibility: Reversibility,
}

impl LineDecision {
    /// What the line comes to.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        if self.steps.is_empty() { Outcome::Unchanged } else { Outcome::Applied }
    }
}

impl Step {
    /// Takes in the step of another line, when both together can be taken back as well as each: what a reversal looks at
    /// is what there is before it. So objects and what lies in them, and two steps on the same object, are apart.
    ///
    /// # Errors
    /// The step that does not go with this one.
    pub fn join(&mut self, next: Self) -> Result<(), Self> {
        let touches = |effect: &Effect| self.effects.iter().any(|own| own.resource == effect.resource);
        let is_other = |effect: &Effect| self.effects.iter().any(|own| !are_alike(own, effect));
        if next.effects.iter().any(|effect| touches(effect) || is_other(effect)) {
            return Err(next);
        }
        self.go_on(next)
    }

    /// Takes in the next step of the same line.
    fn go_on(&mut self, next: Self) -> Result<(), Self> {
        if next.path != self.path || next.reversibility != self.reversibility {
            return Err(next);
        }
        self.writes.extend(next.writes);
        for effect in next.effects {
            join_effect(&mut self.effects, effect);
        }
        Ok(())
    }
}

/// Whether neither of two objects can lie in the other. Subscribers and their numbers go together, as a subscriber that is
/// removed and comes again has them.
fn are_alike(one: &Effect, other: &Effect) -> bool {
    let class = |effect: &Effect| match effect.resource.kind {
        ResourceKind::Number => ResourceKind::Subscriber,
        kind => kind,
    };
    class(one) == class(other)
}

/// Adds an effect; two on the same object are one, from the first state to the last.
fn join_effect(effects: &mut Vec<Effect>, next: Effect) {
    let Some(place) = effects.iter().rposition(|effect| effect.resource == next.resource) else {
        return effects.push(next);
    };
    let Some(before) = effects.get_mut(place) else { return };
    // a line does not remove what it makes
    let kind = if before.kind == EffectKind::Created { EffectKind::Created } else { next.kind };
    (before.kind, before.after, before.name) = (kind, next.after, next.name);
}

/// Decides on a line, and takes what it does into the picture. A refused line leaves the picture as it was.
///
/// # Errors
/// All that is wrong with the line, by its fields.
pub fn decide_line(ctx: &Ctx, picture: &mut Picture, line: &Line) -> Result<LineDecision, Vec<Refusal>> {
    let before = picture.clone();
    let mut work = Work { ctx, picture, steps: Vec::new() };
    let decided = match &line.object {
        Object::Account { .. } => work.account(line.action, &line.object),
        Object::Domain { .. } => work.domain(line.action, &line.object),
        Object::Site { account, name } => work.site(line.action, account, name),
        Object::Subscriber { .. } => work.subscriber(line.action, &line.object),
        Object::Number { number, account, subscriber } => {
            work.number(line.action, *number, account.as_ref(), subscriber.as_ref().map(Option::as_ref))
        }
    };
    let steps = work.steps;
    match decided {
        Ok(object) => Ok(LineDecision { steps, object }),
        Err(mut refusals) => {
            *picture = before;
            for refusal in &mut refusals {
                refusal.field = line_field(&line.object, &refusal.field);
            }
            Err(refusals)
        }
    }
}

/// The line's name of a command's field.
fn line_field(object: &Object, field: &str) -> String {
    match (object, field) {
        (Object::Account { .. }, "name" | "id" | "parent") => "account",
        (Object::Account { .. }, "kind") => "accountKind",
        (Object::Domain { .. }, "name" | "id") => "domain",
        (Object::Site { .. }, "name" | "id") => "site",
        (Object::Subscriber { .. }, "id") => "username",
        (Object::Number { .. }, "e164" | "id") => "number",
        (_, field) => field.strip_prefix("dialPlan.").unwrap_or(field),
    }
    .to_owned()
}

type Decided = Result<Option<(ResourceKind, Uuid)>, Vec<Refusal>>;

struct Work<'a> {
    ctx: &'a Ctx,
    picture: &'a mut Picture,
    steps: Vec<Step>,
}

impl Work<'_> {
    /// Decides on a command, and takes it in.
    fn run(&mut self, command: &Command) -> Result<(), Vec<Refusal>> {
        let view = self.picture.view(&self.ctx.scope, command);
        let Decision { plan, path, writes } = decide(self.ctx, &view, command)?;
        self.picture.apply(&writes);
        let next = Step { path, effects: plan.effects, writes, reversibility: plan.reversibility };
        let next = match self.steps.last_mut() {
            Some(step) => step.go_on(next),
            None => Err(next),
        };
        if let Err(next) = next {
            self.steps.push(next);
        }
        Ok(())
    }

    fn account(&mut self, action: Action, object: &Object) -> Decided {
        let Object::Account { name, kind, timezone, currency, call_limit, subscriber_quota, enabled } = object else {
            return Ok(None);
        };
        let root = self.ctx.actor.account;
        let found = self.picture.account_by_name(root, name).cloned();
        if action == Action::Delete {
            let message = "an account is never removed, since its bills name it";
            return Err(vec![Refusal::new(RefusalCode::Conflict, "action", message, "update it with enabled false")]);
        }
        let Some(before) = self.existing(action, "account", found)? else {
            let (above, own) = name.split().ok_or_else(|| missing("account", "account", "."))?;
            let parent = self.account_named("account", &above)?.id;
            let mut lacking = Vec::new();
            if kind.is_none() {
                lacking.push(lacks("accountKind", "send reseller or customer"));
            }
            if timezone.is_none() {
                lacking.push(lacks("timezone", "send an IANA zone, such as Europe/Vienna"));
            }
            if currency.is_none() {
                lacking.push(lacks("currency", "send a code of ISO 4217, such as EUR"));
            }
            let (Some(kind), Some(timezone), Some(currency)) = (*kind, timezone.clone(), *currency) else {
                return Err(lacking);
            };
            self.run(&Command::AccountCreate {
                parent,
                kind,
                name: own.to_owned(),
                timezone,
                currency,
                call_limit: call_limit.flatten(),
                subscriber_quota: subscriber_quota.flatten(),
            })?;
            let made = self.picture.account_by_name(root, name).cloned();
            let Some(made) = made else { return Ok(None) };
            self.account_changed(&made, None, None, *enabled)?;
            return Ok(Some((ResourceKind::Account, made.id.uuid())));
        };
        for (field, differs) in [
            ("accountKind", kind.is_some_and(|kind| kind != before.kind)),
            ("timezone", timezone.as_ref().is_some_and(|timezone| *timezone != before.timezone)),
            ("currency", currency.is_some_and(|currency| currency != before.currency)),
        ] {
            if differs {
                let message = "it is set when the account is made, and stays";
                return Err(vec![Refusal::new(RefusalCode::Invalid, field, message, "leave it out, or as it is")]);
            }
        }
        self.account_changed(&before, *call_limit, *subscriber_quota, *enabled)?;
        Ok(Some((ResourceKind::Account, before.id.uuid())))
    }

    fn account_changed(
        &mut self,
        before: &Account,
        call_limit: Option<Option<u32>>,
        subscriber_quota: Option<Option<u32>>,
        enabled: Option<bool>,
    ) -> Result<(), Vec<Refusal>> {
        let call_limit = call_limit.filter(|limit| *limit != before.call_limit);
        let subscriber_quota = subscriber_quota.filter(|quota| *quota != before.subscriber_quota);
        let enabled = enabled.filter(|enabled| *enabled != before.enabled);
        if call_limit.is_none() && subscriber_quota.is_none() && enabled.is_none() {
            return Ok(());
        }
        self.run(&Command::AccountUpdate { id: before.id, name: None, call_limit, subscriber_quota, enabled })
    }

    fn domain(&mut self, action: Action, object: &Object) -> Decided {
        let Object::Domain { name, account, country_code, national_prefix, international_prefix } = object else {
            return Ok(None);
        };
        let found = self.picture.domain_by_name(name).filter(|d| self.picture.reaches(&self.ctx.scope, d.account));
        let found = self.existing(action, "domain", found.cloned())?;
        let Some(before) = found else {
            let Some(account) = account else { return Err(vec![lacks("account", "name the customer")]) };
            let account = self.account_named("account", account)?.id;
            let dial_plan = DialPlan {
                country_code: country_code.clone().ok_or_else(|| vec![lacks("countryCode", "send it, such as 43")])?,
                national_prefix: national_prefix.clone().unwrap_or_default(),
                international_prefix: international_prefix
                    .clone()
                    .ok_or_else(|| vec![lacks("internationalPrefix", "send it, such as 00")])?,
            };
            self.run(&Command::DomainCreate { account, name: name.clone(), dial_plan })?;
            let made = self.picture.domain_by_name(name);
            return Ok(made.map(|made| (ResourceKind::Domain, made.id.uuid())));
        };
        self.same_account(account.as_ref(), before.account)?;
        if action == Action::Delete {
            self.run(&Command::DomainDelete { id: before.id })?;
        } else {
            self.domain_changed(&before, [country_code, national_prefix, international_prefix])?;
        }
        Ok(Some((ResourceKind::Domain, before.id.uuid())))
    }

    fn domain_changed(&mut self, before: &Domain, given: [&Option<String>; 3]) -> Result<(), Vec<Refusal>> {
        let plan = &before.dial_plan;
        let [country_code, national_prefix, international_prefix] = given;
        let dial_plan = DialPlan {
            country_code: country_code.clone().unwrap_or_else(|| plan.country_code.clone()),
            national_prefix: national_prefix.clone().unwrap_or_else(|| plan.national_prefix.clone()),
            international_prefix: international_prefix.clone().unwrap_or_else(|| plan.international_prefix.clone()),
        };
        if dial_plan == *plan { Ok(()) } else { self.run(&Command::DomainUpdate { id: before.id, dial_plan }) }
    }

    fn site(&mut self, action: Action, account: &AccountName, name: &str) -> Decided {
        let account = self.account_named("account", account)?.id;
        let found = self.picture.site_by_name(account, name).cloned();
        match self.existing(action, "site", found)? {
            None => {
                self.run(&Command::SiteCreate { account, name: name.to_owned() })?;
                let made = self.picture.site_by_name(account, name);
                Ok(made.map(|made| (ResourceKind::Site, made.id.uuid())))
            }
            Some(before) => {
                if action == Action::Delete {
                    self.run(&Command::SiteDelete { id: before.id })?;
                }
                Ok(Some((ResourceKind::Site, before.id.uuid())))
            }
        }
    }

    fn subscriber(&mut self, action: Action, object: &Object) -> Decided {
        let Object::Subscriber { address, display_name, site, extension, password, call_limit, enabled, numbers } =
            object
        else {
            return Ok(None);
        };
        let domain = self.picture.domain_by_name(&address.domain);
        let domain = domain.filter(|domain| self.picture.reaches(&self.ctx.scope, domain.account)).cloned();
        let domain = domain.ok_or_else(|| missing("domain", "domain", address.domain.as_str()))?;
        let found = self.picture.subscriber_by_address(address).cloned();
        let found = self.existing(action, "username", found)?;
        let site = match site {
            Some(Some(name)) => {
                let found = self.picture.site_by_name(domain.account, name);
                Some(Some(found.ok_or_else(|| missing("site", "site at this customer", name))?.id))
            }
            Some(None) => Some(None),
            None => None,
        };
        let id = match found {
            Some(before) if action == Action::Delete => {
                self.run(&Command::SubscriberDelete { id: before.id })?;
                return Ok(Some((ResourceKind::Subscriber, before.id.uuid())));
            }
            Some(before) => {
                self.subscriber_changed(
                    &before,
                    &SubscriberChange {
                        display_name: display_name.clone(),
                        site,
                        extension: extension.clone(),
                        call_limit: *call_limit,
                        enabled: *enabled,
                    },
                )?;
                // a line that is sent again must not undo what its user chose since
                if let (Action::Update, Some(password)) = (action, password) {
                    let password = Some(password.clone());
                    self.run(&Command::SubscriberPasswordSet { id: before.id, password })?;
                }
                before.id
            }
            None => {
                self.run(&Command::SubscriberCreate {
                    domain: domain.id,
                    site: site.flatten(),
                    username: address.username.clone(),
                    display_name: display_name.clone().unwrap_or_default(),
                    extension: extension.clone().flatten(),
                    password: password.clone(),
                    call_limit: call_limit.flatten(),
                })?;
                let Some(made) = self.picture.subscriber_by_address(address).cloned() else { return Ok(None) };
                let change = SubscriberChange { enabled: *enabled, ..SubscriberChange::default() };
                self.subscriber_changed(&made, &change)?;
                made.id
            }
        };
        if let Some(numbers) = numbers {
            self.numbers(id, domain.account, numbers)?;
        }
        Ok(Some((ResourceKind::Subscriber, id.uuid())))
    }

    fn subscriber_changed(&mut self, before: &Subscriber, asked: &SubscriberChange) -> Result<(), Vec<Refusal>> {
        let SubscriberChange { display_name, site, extension, call_limit, enabled } = asked.clone();
        let display_name = display_name.filter(|name| *name != before.display_name);
        let site = site.filter(|site| *site != before.site);
        let extension = extension.filter(|extension| *extension != before.extension);
        let call_limit = call_limit.filter(|limit| *limit != before.call_limit);
        let enabled = enabled.filter(|enabled| *enabled != before.enabled);
        if display_name.is_none() && site.is_none() && extension.is_none() && call_limit.is_none() && enabled.is_none()
        {
            return Ok(());
        }
        self.run(&Command::SubscriberUpdate { id: before.id, display_name, site, extension, call_limit, enabled })
    }

    /// The subscriber answers these numbers and no others.
    fn numbers(&mut self, id: SubscriberId, customer: AccountId, wanted: &[E164]) -> Result<(), Vec<Refusal>> {
        let kept: BTreeSet<E164> = wanted.iter().copied().collect();
        let freed: Vec<Number> =
            self.picture.numbers_of(id).filter(|number| !kept.contains(&number.e164)).cloned().collect();
        // one that an account above gave stays
        let freed: Vec<Number> =
            freed.into_iter().filter(|number| self.picture.reaches(&self.ctx.scope, number.account)).collect();
        for number in freed {
            self.run(&Command::NumberAssign { id: number.id, subscriber: None })?;
        }
        for e164 in kept {
            let place = wanted.iter().position(|wanted| *wanted == e164).unwrap_or_default();
            let done = self.number_answered(id, customer, e164);
            done.map_err(|refusals| {
                let field = format!("numbers[{place}]");
                refusals.into_iter().map(|refusal| Refusal { field: field.clone(), ..refusal }).collect::<Vec<_>>()
            })?;
        }
        Ok(())
    }

    /// A number that is free is given to the subscriber; one that is not in the inventory is taken into the customer's.
    fn number_answered(&mut self, id: SubscriberId, customer: AccountId, e164: E164) -> Result<(), Vec<Refusal>> {
        let number = self.picture.number_by_e164(e164);
        if number.is_some_and(|number| number.subscriber == Some(id)) {
            return Ok(());
        }
        let number = number.filter(|number| self.picture.reaches(&self.ctx.scope, number.account));
        match number.map(|number| (number.id, number.subscriber)) {
            Some((_, Some(_))) => {
                let message = "another subscriber answers this number";
                Err(vec![Refusal::new(RefusalCode::Conflict, "", message, "free the number first")])
            }
            Some((number, None)) => self.run(&Command::NumberAssign { id: number, subscriber: Some(id) }),
            None => self.run(&Command::NumberCreate { account: customer, e164, subscriber: Some(id) }),
        }
    }

    fn number(
        &mut self,
        action: Action,
        e164: E164,
        account: Option<&AccountName>,
        subscriber: Option<Option<&AddressOfRecord>>,
    ) -> Decided {
        let found = self.picture.number_by_e164(e164).filter(|n| self.picture.reaches(&self.ctx.scope, n.account));
        let found = self.existing(action, "number", found.cloned())?;
        let assignee = match subscriber {
            Some(Some(address)) => {
                let found = self.picture.subscriber_by_address(address);
                let found = found.filter(|s| self.picture.reaches(&self.ctx.scope, s.account));
                Some(Some(found.cloned().ok_or_else(|| missing("subscriber", "subscriber", address))?))
            }
            Some(None) => Some(None),
            None => None,
        };
        let Some(before) = found else {
            let holder = match (account, assignee.as_ref().and_then(Option::as_ref)) {
                (Some(name), _) => self.account_named("account", name)?.id,
                (None, Some(subscriber)) => subscriber.account,
                (None, None) => return Err(vec![lacks("account", "name the account that holds it")]),
            };
            let subscriber = assignee.flatten().map(|subscriber| subscriber.id);
            self.run(&Command::NumberCreate { account: holder, e164, subscriber })?;
            let made = self.picture.number_by_e164(e164);
            return Ok(made.map(|made| (ResourceKind::Number, made.id.uuid())));
        };
        self.same_account(account, before.account)?;
        if action == Action::Delete {
            self.run(&Command::NumberDelete { id: before.id })?;
        } else if let Some(assignee) = assignee {
            let subscriber = assignee.map(|subscriber| subscriber.id);
            if subscriber != before.subscriber {
                self.run(&Command::NumberAssign { id: before.id, subscriber })?;
            }
        }
        Ok(Some((ResourceKind::Number, before.id.uuid())))
    }

    /// The object as far as the action goes with it: none is to be made.
    fn existing<T>(&self, action: Action, field: &str, found: Option<T>) -> Result<Option<T>, Vec<Refusal>> {
        match (action, found) {
            (Action::Create, Some(_)) => {
                let message = "there is one of this name";
                let remedy = "choose another name, or put or update it";
                Err(vec![Refusal::new(RefusalCode::Conflict, field, message, remedy)])
            }
            (Action::Update | Action::Delete, None) => {
                let message = "there is none of this name";
                Err(vec![Refusal::new(RefusalCode::NotFound, field, message, "look the name up, or put or create it")])
            }
            (_, found) => Ok(found),
        }
    }

    fn account_named(&self, field: &str, name: &AccountName) -> Result<&Account, Vec<Refusal>> {
        let found = self.picture.account_by_name(self.ctx.actor.account, name);
        found.ok_or_else(|| missing(field, "account", name))
    }

    /// An object does not move to another account.
    fn same_account(&self, named: Option<&AccountName>, account: AccountId) -> Result<(), Vec<Refusal>> {
        let Some(named) = named else { return Ok(()) };
        if self.account_named("account", named)?.id == account {
            return Ok(());
        }
        let message = "it belongs to another account, and does not move";
        Err(vec![Refusal::new(RefusalCode::Invalid, "account", message, "leave it out, or as it is")])
    }
}

/// What is asked of a subscriber that is there.
#[derive(Debug, Clone, Default)]
struct SubscriberChange {
    display_name: Option<String>,
    site: Option<Option<model::id::SiteId>>,
    extension: Option<Option<model::number::Extension>>,
    call_limit: Option<Option<u32>>,
    enabled: Option<bool>,
}

fn missing(field: &str, what: &str, name: impl std::fmt::Display) -> Vec<Refusal> {
    let message = format!("there is no {what} {name}");
    vec![Refusal::new(RefusalCode::NotFound, field, message, "look the name up, or make it in a line before")]
}

fn lacks(field: &str, remedy: &str) -> Refusal {
    Refusal::new(RefusalCode::Invalid, field, "it is missing, and the object is to be made", remedy)
}

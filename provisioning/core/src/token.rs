//! API tokens: a grant never exceeds the granter's.

use model::actor::Permissions;
use model::change::{RefusalCode, ResourceKind};
use model::id::{AccountId, TokenId};
use model::network::Networks;
use model::time::Timestamp;
use serde::{Serialize, Serializer};

use crate::decide::Case;
use crate::resource::{Revision, Token};
use crate::view::{Taken, Write};

/// Longest overlap of a rotation: a week, for clients that are changed by hand.
const OVERLAP_MAX_S: u32 = 7 * 86_400;

/// What a token lets its holder do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grant<'a> {
    pub(crate) permissions: Permissions,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) networks: &'a Networks,
}

pub(crate) fn issue(case: &mut Case<'_>, account: AccountId, name: &str, grant: Grant<'_>) {
    case.check_name("name", name, 1);
    if grant.permissions == Permissions::default() {
        case.invalid("permissions", "a token without permissions can do nothing", "name at least one permission");
    }
    // Who names no networks grants what they have.
    let own = &case.ctx.actor.networks;
    let networks = if *grant.networks == Networks::default() { own } else { grant.networks };
    let grant = Grant { networks, ..grant };
    check_grant(case, grant);
    let Some(owner) = case.owner() else { return case.missing("account", "account", account) };
    case.check_taken(None, Taken::Name);
    case.is_final("a token stays in the list: revoke it");
    issued(case, owner.id, name, grant);
}

/// A grant never exceeds the granter's: neither in what, nor for how long, nor from where.
fn check_grant(case: &mut Case<'_>, grant: Grant<'_>) {
    let Grant { permissions, expires_at, networks } = grant;
    let own = &case.ctx.actor;
    if !own.permissions.covers(permissions) {
        let excess = permissions.iter().filter(|p| !own.permissions.has(*p)).collect::<Permissions>();
        let message = format!("you do not have {excess} yourself");
        case.refuse(RefusalCode::Forbidden, "permissions", &message, "grant only what you have");
    }
    if expires_at.is_some_and(|at| at <= case.now) {
        case.invalid("expiresAt", "this instant has passed", "send one in the future, or none");
    }
    if let Some(ends) = own.expires_at
        && expires_at.is_none_or(|at| at > ends)
    {
        let message = format!("your own token ends at {ends}");
        case.refuse(RefusalCode::Forbidden, "expiresAt", &message, "let it end no later than yours");
    }
    if !own.networks.covers(networks) {
        let message = format!("your own token may be used from {} alone", own.networks);
        case.refuse(RefusalCode::Forbidden, "networks", &message, "name networks within these");
    }
}

/// Writes the new token.
pub(crate) fn issued(case: &mut Case<'_>, account: AccountId, name: &str, grant: Grant<'_>) {
    let id = TokenId::new(&*case.ctx.ids);
    let token = Token {
        id,
        account,
        name: name.to_owned(),
        permissions: grant.permissions,
        expires_at: grant.expires_at,
        networks: grant.networks.clone(),
        revoked_at: None,
        previous_until: None,
        last_used_at: None,
        revision: case.first_revision(),
    };
    let write = Write::TokenInsert(token.clone());
    case.effect((ResourceKind::Token, id.uuid()), name, None, Some(&Shown(&token)), write);
}

pub(crate) fn update(
    case: &mut Case<'_>,
    id: TokenId,
    expires_at: Option<Option<Timestamp>>,
    networks: Option<&Networks>,
) {
    let Some(before) = usable(case, id) else { return };
    if expires_at.is_none() && networks.is_none() {
        case.invalid("", "no field is to change", "send at least one field");
    }
    let after = Token {
        expires_at: expires_at.unwrap_or(before.expires_at),
        networks: networks.unwrap_or(&before.networks).clone(),
        revision: case.next_revision(before.revision),
        ..before.clone()
    };
    // Whoever changes it answers for all that it may do from now on.
    let grant = Grant { permissions: after.permissions, expires_at: after.expires_at, networks: &after.networks };
    check_grant(case, grant);
    case.is_final("what it was used for meanwhile is done: change it again");
    changed(case, before, &after, Write::TokenUpdate(after.clone()));
}

pub(crate) fn rotate(case: &mut Case<'_>, id: TokenId, overlap_s: u32) {
    let Some(before) = usable(case, id) else { return };
    if overlap_s > OVERLAP_MAX_S {
        let remedy = format!("send at most {OVERLAP_MAX_S} seconds, or 0 to end it at once");
        case.invalid("overlapS", "the token before would work for too long", &remedy);
    }
    // Who learns the token can do all that it may do.
    let grant = Grant { permissions: before.permissions, expires_at: before.expires_at, networks: &before.networks };
    check_grant(case, grant);
    let previous_until = (overlap_s > 0).then(|| case.now.plus_ms(i64::from(overlap_s) * 1_000));
    let revision = case.next_revision(before.revision);
    let after = Token { previous_until, revision, ..before.clone() };
    case.is_final("the token before is not kept");
    changed(case, before, &after, Write::TokenRotate(after.clone()));
}

pub(crate) fn revoke(case: &mut Case<'_>, id: TokenId) {
    let Some(before) = named(case, id) else { return };
    if before.revoked_at.is_some() {
        case.refuse(RefusalCode::Conflict, "id", "this token has been revoked", "there is nothing left to do");
    }
    let revision = case.next_revision(before.revision);
    let after = Token { revoked_at: Some(case.now), previous_until: None, revision, ..before.clone() };
    case.is_final("a revoked token stays revoked; issue another");
    changed(case, before, &after, Write::TokenUpdate(after.clone()));
}

/// The token, when it is in scope. A disabled account must not keep anybody from revoking its tokens, so `owner` is not
/// asked.
fn named<'a>(case: &mut Case<'a>, id: TokenId) -> Option<&'a Token> {
    let in_scope = |account: &crate::resource::Account| case.ctx.scope.contains(&account.path);
    let view = case.view;
    let Some(token) = view.token(id).filter(|_| view.ancestry.last().is_some_and(in_scope)) else {
        case.missing("id", "token", id);
        return None;
    };
    case.looked_at(ResourceKind::Token, token.id.uuid(), token.revision);
    Some(token)
}

/// As [`named`], for what a token is good for.
fn usable<'a>(case: &mut Case<'a>, id: TokenId) -> Option<&'a Token> {
    let token = named(case, id)?;
    if token.revoked_at.is_some() {
        case.refuse(RefusalCode::Conflict, "id", "this token has been revoked", "issue another");
    }
    Some(token)
}

fn changed(case: &mut Case<'_>, before: &Token, after: &Token, write: Write) {
    let resource = (ResourceKind::Token, before.id.uuid());
    case.effect(resource, before.name.clone(), Some(&Shown(before)), Some(&Shown(after)), write);
}

/// A token as plans show it: the permissions as a list of names. When it was last used is no part of a change.
struct Shown<'a>(&'a Token);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            id: TokenId,
            account: AccountId,
            name: &'a str,
            permissions: Vec<&'static str>,
            expires_at: Option<Timestamp>,
            networks: Vec<String>,
            revoked_at: Option<Timestamp>,
            previous_until: Option<Timestamp>,
            revision: Revision,
        }
        let Token {
            id, account, name, permissions, expires_at, networks, revoked_at, previous_until, revision, ..
        } = self.0;
        Fields {
            id: *id,
            account: *account,
            name,
            permissions: permissions.iter().map(model::actor::Permission::as_str).collect(),
            expires_at: *expires_at,
            networks: networks.iter().map(ToString::to_string).collect(),
            revoked_at: *revoked_at,
            previous_until: *previous_until,
            revision: *revision,
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use model::change::Refusal;

    use super::*;
    use crate::decide::testing::{refusals, world};

    #[test]
    fn a_token_lives_no_longer_than_its_granter() {
        let (mut ctx, _) = world();
        let account = AccountId::new(&*ctx.ids);
        let now = ctx.now();
        let permissions = "billing:read".parse().unwrap();
        let fields = |found: Vec<Refusal>| -> Vec<(RefusalCode, String)> {
            found.into_iter().filter(|r| r.field.contains("expiresAt")).map(|r| (r.code, r.field)).collect()
        };
        for (own, asked, is_refused) in [
            (None, None, false),
            (None, Some(1), false),
            (Some(2), None, true),
            (Some(2), Some(3), true),
            (Some(2), Some(2), false),
            (Some(2), Some(1), false),
        ] {
            ctx.actor.expires_at = own.map(|ms| now.plus_ms(ms));
            let found = refusals(&ctx, |case| {
                let expires_at = asked.map(|ms| now.plus_ms(ms));
                issue(case, account, "bss", Grant { permissions, expires_at, networks: &Networks::default() });
            });
            let found = fields(found);
            assert_eq!(found.len(), usize::from(is_refused), "{own:?} {asked:?}: {found:?}");
            assert!(found.iter().all(|(code, _)| *code == RefusalCode::Forbidden));
        }
    }
}

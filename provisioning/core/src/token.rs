//! API tokens: a grant never exceeds the granter's.

use model::actor::Permissions;
use model::change::{RefusalCode, ResourceKind};
use model::id::{AccountId, TokenId};
use model::time::Timestamp;
use serde::{Serialize, Serializer};

use crate::decide::Case;
use crate::resource::{Revision, Token};
use crate::view::{Taken, Write};

pub(crate) fn issue(
    case: &mut Case<'_>,
    account: AccountId,
    name: &str,
    permissions: Permissions,
    expires_at: Option<Timestamp>,
) {
    case.check_name("name", name, 1);
    if permissions == Permissions::default() {
        case.invalid("permissions", "a token without permissions can do nothing", "name at least one permission");
    }
    if !case.ctx.actor.permissions.covers(permissions) {
        let excess = permissions.iter().filter(|p| !case.ctx.actor.permissions.has(*p)).collect::<Permissions>();
        let message = format!("you do not have {excess} yourself");
        case.refuse(RefusalCode::Forbidden, "permissions", &message, "grant only what you have");
    }
    if expires_at.is_some_and(|at| at <= case.now) {
        case.invalid("expiresAt", "this instant has passed", "send one in the future, or none");
    }
    if let Some(own) = case.ctx.actor.expires_at
        && expires_at.is_none_or(|at| at > own)
    {
        let message = format!("your own token ends at {own}");
        case.refuse(RefusalCode::Forbidden, "expiresAt", &message, "let it end no later than yours");
    }
    let Some(owner) = case.owner() else { return case.missing("account", "account", account) };
    case.check_taken(None, Taken::Name);
    case.is_final("a token stays in the list: revoke it");
    issued(case, owner.id, name, permissions, expires_at);
}

pub(crate) fn issued(
    case: &mut Case<'_>,
    account: AccountId,
    name: &str,
    permissions: Permissions,
    expires_at: Option<Timestamp>,
) {
    let id = TokenId::new(&*case.ctx.ids);
    let token = Token {
        id,
        account,
        name: name.to_owned(),
        permissions,
        expires_at,
        revoked_at: None,
        revision: case.first_revision(),
    };
    let write = Write::TokenInsert(token.clone());
    case.effect((ResourceKind::Token, id.uuid()), name, None, Some(&Shown(&token)), write);
}

pub(crate) fn revoke(case: &mut Case<'_>, id: TokenId) {
    // A disabled account must not keep anybody from revoking its tokens, so `owner` is not asked.
    let in_scope = |account: &crate::resource::Account| case.ctx.scope.contains(&account.path);
    let view = case.view;
    let Some(before) = view.token(id).filter(|_| view.ancestry.last().is_some_and(in_scope)) else {
        return case.missing("id", "token", id);
    };
    case.looked_at(ResourceKind::Token, before.id.uuid(), before.revision);
    if before.revoked_at.is_some() {
        case.refuse(RefusalCode::Conflict, "id", "this token has been revoked", "there is nothing left to do");
    }
    let revision = case.next_revision(before.revision);
    let after = Token { revoked_at: Some(case.now), revision, ..before.clone() };
    case.is_final("a revoked token stays revoked; issue another");
    let write = Write::TokenUpdate(after.clone());
    let resource = (ResourceKind::Token, before.id.uuid());
    case.effect(resource, before.name.clone(), Some(&Shown(before)), Some(&Shown(&after)), write);
}

/// A token in a plan: the permissions by their names.
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
            revoked_at: Option<Timestamp>,
            revision: Revision,
        }
        let Token { id, account, name, permissions, expires_at, revoked_at, revision } = self.0;
        Fields {
            id: *id,
            account: *account,
            name,
            permissions: permissions.iter().map(model::actor::Permission::as_str).collect(),
            expires_at: *expires_at,
            revoked_at: *revoked_at,
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
            let found =
                refusals(&ctx, |case| issue(case, account, "bss", permissions, asked.map(|ms| now.plus_ms(ms))));
            let found = fields(found);
            assert_eq!(found.len(), usize::from(is_refused), "{own:?} {asked:?}: {found:?}");
            assert!(found.iter().all(|(code, _)| *code == RefusalCode::Forbidden));
        }
    }
}

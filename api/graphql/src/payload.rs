//! What every mutation answers.

use async_graphql::{Enum, ID, Result, SimpleObject};
use model::change::{self, ChangeError, Committed, Refusal, RefusalCode, Reversibility};
use serde_json::Value;

use crate::error;
use crate::object::global;
use crate::scalar::Long;

/// Why a change was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "RefusalCode")]
pub enum UserErrorCode {
    /// The object does not exist, or not for you.
    NotFound,
    /// A field is malformed or out of range.
    Invalid,
    /// Something else holds the name, number or address.
    Conflict,
    /// A quota is used up.
    QuotaExceeded,
    /// A grant would exceed the granter's.
    Forbidden,
    /// The object changed since it was read.
    VersionMismatch,
    /// The idempotency key was used with another payload.
    IdempotencyConflict,
    /// Something still depends on the object.
    InUse,
}

/// One reason for a refusal: which field, what is wrong, what to do. Nothing was changed.
#[derive(Debug, SimpleObject)]
pub struct UserError {
    /// The class of the reason.
    code: UserErrorCode,
    /// The field, as a path from the input's root; empty when no field is to blame.
    field: String,
    /// What is wrong.
    message: String,
    /// What to do about it.
    remedy: String,
}

impl From<Refusal> for UserError {
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, field, message, remedy } = refusal;
        Self { code: code.into(), field: input_field(&field), message, remedy }
    }
}

/// The input's name of a command's field: references end in `Id` here, places in lists are steps of the path, and words
/// are joined in camel case.
fn input_field(field: &str) -> String {
    match field {
        "parent" | "account" | "domain" | "site" | "subscriber" | "trunk" | "tariff" | "stream" | "change" => {
            format!("{field}Id")
        }
        "file" => "id".to_owned(),
        _ => {
            let path = field.replace('[', ".").replace(']', "");
            let mut words = path.split('_');
            let first = words.next().unwrap_or_default().to_owned();
            words.fold(first, |mut name, word| {
                let mut letters = word.chars();
                name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
                name + letters.as_str()
            })
        }
    }
}

/// What happens to one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "change::EffectKind")]
pub enum EffectKind {
    /// It comes into being.
    Created,
    /// It changes.
    Updated,
    /// It goes.
    Deleted,
}

/// The effect of a change on one object.
#[derive(Debug, SimpleObject)]
pub struct Effect {
    /// What happens.
    kind: EffectKind,
    /// To what kind of object, such as `subscriber`.
    resource_kind: String,
    /// Its global identifier; of an object that a dry-run would create, one that is never used.
    resource_id: ID,
    /// A name that a person recognises.
    name: String,
    /// The object before, without secrets.
    before: Option<Value>,
    /// The object after, without secrets.
    after: Option<Value>,
}

/// The version of an object that the plan was made against. May be sent as `expectedVersions`.
#[derive(Debug, SimpleObject)]
pub struct SeenVersion {
    /// Which object.
    id: ID,
    /// Its version.
    version: Long,
}

/// What a change does, or would do.
#[derive(Debug, SimpleObject)]
pub struct Plan {
    /// The effects, in the order in which they are written.
    effects: Vec<Effect>,
    /// The versions that the plan was made against.
    versions: Vec<SeenVersion>,
    /// Whether it can be taken back.
    reversible: bool,
    /// Why it cannot be taken back.
    reason: Option<String>,
}

impl From<change::Plan> for Plan {
    fn from(plan: change::Plan) -> Self {
        let reason = match plan.reversibility {
            Reversibility::Reversible => None,
            Reversibility::Final(reason) => Some(reason),
        };
        let effect = |effect: change::Effect| Effect {
            kind: effect.kind.into(),
            resource_kind: effect.resource.kind.as_str().to_owned(),
            resource_id: global(effect.resource.kind, effect.resource.id),
            name: effect.name,
            before: effect.before,
            after: effect.after,
        };
        let version = |seen: change::ResourceVersion| SeenVersion {
            id: global(seen.resource.kind, seen.resource.id),
            version: Long(seen.version),
        };
        Self {
            effects: plan.effects.into_iter().map(effect).collect(),
            versions: plan.versions.into_iter().map(version).collect(),
            reversible: reason.is_none(),
            reason,
        }
    }
}

/// What a mutation answers. With `userErrors` nothing was changed.
#[derive(Debug, Default, SimpleObject)]
pub struct ChangePayload {
    /// The object that was created, or else the first that was changed; null after a dry-run.
    id: Option<ID>,
    /// The change set in the audit trail; null after a dry-run.
    change_id: Option<ID>,
    /// Whether this is the stored answer of an earlier request with the same idempotency key.
    replayed: bool,
    /// What was done, or would be done.
    plan: Option<Plan>,
    /// A token or drawn password, shown this once and never on a replay.
    revealed_secret: Option<String>,
    /// Why nothing was changed.
    user_errors: Vec<UserError>,
}

impl ChangePayload {
    /// A dry-run.
    pub(crate) fn planned(plan: change::Plan) -> Self {
        Self { plan: Some(plan.into()), ..Self::default() }
    }

    /// A committed change. `named` is the object's own identifier where the plan's says less (alarms).
    pub(crate) fn committed(committed: Committed, named: Option<ID>) -> Self {
        let effects = &committed.plan.effects;
        let created = effects.iter().find(|effect| effect.kind == change::EffectKind::Created);
        let subject = created.or_else(|| effects.first()).map(|effect| effect.resource);
        Self {
            id: named.or_else(|| subject.map(|subject| global(subject.kind, subject.id))),
            change_id: Some(global(change::ResourceKind::Change, committed.change)),
            replayed: committed.replayed,
            plan: Some(committed.plan.into()),
            revealed_secret: committed.revealed.map(|secret| secret.expose().clone()),
            user_errors: Vec::new(),
        }
    }

    /// Refusals become `userErrors`; a missing permission, an absent store and a defect are errors of the request.
    ///
    /// # Errors
    /// For what is no refusal.
    pub(crate) fn failed(failure: ChangeError) -> Result<Self> {
        match failure {
            // a refusal of a grant names its field; without one the permission for the whole command is missing
            ChangeError::Refused(refusals) => {
                let denied = refusals.iter().find(|r| r.code == RefusalCode::Forbidden && r.field.is_empty());
                match denied {
                    Some(denied) => Err(error::coded(error::FORBIDDEN, denied.to_string())),
                    None => Ok(Self::refused(refusals)),
                }
            }
            ChangeError::Unavailable(cause) => Err(error::unavailable(&cause)),
            ChangeError::Internal(cause) => Err(error::internal(&cause)),
        }
    }

    pub(crate) fn refused(refusals: Vec<Refusal>) -> Self {
        Self { user_errors: refusals.into_iter().map(UserError::from).collect(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_fields_of_the_input() {
        for (field, expected) in [
            ("account", "accountId"),
            ("file", "id"),
            ("display_name", "displayName"),
            ("validFrom", "validFrom"),
            ("rates.3.price", "rates.3.price"),
            ("rates[3].price", "rates.3.price"),
            ("credentials.username", "credentials.username"),
            ("", ""),
        ] {
            assert_eq!(input_field(field), expected);
        }
    }

    /// Every field that a command's refusal can blame is one of its input.
    #[test]
    fn every_field_of_a_refusal_is_one_of_the_input() {
        let sdl = crate::sdl();
        let inputs: [(&str, &[&str]); 32] = [
            ("AccountCreate", &["parent", "kind", "name", "timezone", "callLimit", "subscriberQuota"]),
            ("AccountUpdate", &["id", "name", "callLimit", "subscriberQuota", "enabled"]),
            ("DomainCreate", &["account", "name", "dialPlan.countryCode"]),
            ("SiteCreate", &["account", "name"]),
            ("DomainUpdate", &["id", "dialPlan.countryCode"]),
            ("DomainDelete", &["id"]),
            ("SiteUpdate", &["id", "name"]),
            ("SiteDelete", &["id"]),
            ("ChangeRevert", &["change"]),
            ("SubscriberCreate", &["domain", "site", "username", "extension", "password", "displayName", "callLimit"]),
            ("SubscriberUpdate", &["id", "site", "extension", "displayName", "callLimit"]),
            ("SubscriberPasswordSet", &["id", "password"]),
            ("SubscriberDelete", &["id"]),
            ("NumberCreate", &["account", "e164", "subscriber"]),
            ("NumberAssign", &["id", "subscriber"]),
            ("NumberReserve", &["id", "account", "until"]),
            ("NumberRelease", &["id"]),
            ("NumberDelete", &["id"]),
            ("TrunkCreate", &["account", "name", "address", "credentials.username", "callLimit", "keepaliveMs"]),
            ("TrunkUpdate", &["id", "callLimit", "keepaliveMs"]),
            ("TokenIssue", &["account", "name", "permissions", "expiresAt", "networks"]),
            ("TokenUpdate", &["id", "expiresAt", "networks"]),
            ("TokenRotate", &["id", "overlapS"]),
            ("TokenRevoke", &["id"]),
            ("TariffCreate", &["account", "name", "rounding.decimals", "rates[0].prefix"]),
            ("TariffAssign", &["tariff", "account", "trunk", "validFrom", "validTo"]),
            ("StreamCreate", &["account", "name", "closePeriodMs"]),
            ("BillingFileClose", &["stream"]),
            ("BillingFileAcknowledge", &["file", "reason"]),
            ("SuspenseRetry", &["account"]),
            ("AlarmAcknowledge", &["id", "note"]),
            ("ReportRun", &["account", "period", "recipients[0]"]),
        ];
        for (input, fields) in inputs {
            let begin = sdl.split_once(&format!("input {input}Input {{")).map(|(_, rest)| rest);
            let body = begin.and_then(|rest| rest.split_once("\n}")).map_or("", |(body, _)| body);
            for field in fields {
                let mapped = input_field(field);
                let root = mapped.split('.').next().unwrap_or_default();
                let named = body.lines().any(|line| line.trim_start().starts_with(&format!("{root}: ")));
                assert!(named, "{input}: {field} became {mapped}, in\n{body}");
            }
        }
    }
}

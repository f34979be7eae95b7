//! One form of a command for the hash behind an idempotency key: all that the client said, and the secret apart, so
//! that the store can take it in under its key.

use model::network::Networks;
use model::secret::Secret;
use serde_json::{Value, json};

use crate::command::{Command, TrunkRegistrar};

/// A command in its canonical form.
#[derive(Debug, Clone, PartialEq)]
pub struct Canonical<'a> {
    /// The fields without the secret, their names in order.
    pub fields: Value,
    /// The secret, when the client sent one.
    pub secret: Option<&'a Secret<String>>,
}

impl Command {
    /// The canonical form. A field that is not sent is not there; one that is taken away is null.
    #[must_use]
    pub fn canonical(&self) -> Canonical<'_> {
        let mut secret = None;
        let fields = match self {
            Self::AccountCreate { parent, kind, name, timezone, currency, call_limit, subscriber_quota } => json!({
                "parent": parent, "kind": kind, "name": name, "timezone": timezone, "currency": currency,
                "call_limit": call_limit, "subscriber_quota": subscriber_quota,
            }),
            Self::AccountUpdate { id, name, call_limit, subscriber_quota, enabled } => sent([
                ("id", Some(json!(id))),
                ("name", name.as_ref().map(|v| json!(v))),
                ("call_limit", call_limit.map(|v| json!(v))),
                ("subscriber_quota", subscriber_quota.map(|v| json!(v))),
                ("enabled", enabled.map(|v| json!(v))),
            ]),
            Self::DomainCreate { account, name, dial_plan } => {
                json!({ "account": account, "name": name, "dial_plan": dial_plan })
            }
            Self::DomainUpdate { id, dial_plan } => json!({ "id": id, "dial_plan": dial_plan }),
            Self::DomainDelete { id } => json!({ "id": id }),
            Self::SiteCreate { account, name } => json!({ "account": account, "name": name }),
            Self::SiteUpdate { id, name } => json!({ "id": id, "name": name }),
            Self::SiteDelete { id } => json!({ "id": id }),
            Self::SubscriberCreate { domain, site, username, display_name, extension, password, call_limit } => {
                secret = password.as_ref();
                json!({
                    "domain": domain, "site": site, "username": username, "display_name": display_name,
                    "extension": extension, "call_limit": call_limit,
                })
            }
            Self::SubscriberUpdate { id, display_name, site, extension, call_limit, enabled } => sent([
                ("id", Some(json!(id))),
                ("display_name", display_name.as_ref().map(|v| json!(v))),
                ("site", site.map(|v| json!(v))),
                ("extension", extension.as_ref().map(|v| json!(v))),
                ("call_limit", call_limit.map(|v| json!(v))),
                ("enabled", enabled.map(|v| json!(v))),
            ]),
            Self::SubscriberPasswordSet { id, password } => {
                secret = password.as_ref();
                json!({ "id": id })
            }
            Self::SubscriberDelete { id } => json!({ "id": id }),
            Self::NumberCreate { account, e164, subscriber } => {
                json!({ "account": account, "e164": e164, "subscriber": subscriber })
            }
            Self::NumberAssign { id, subscriber } => json!({ "id": id, "subscriber": subscriber }),
            Self::NumberReserve { id, account, until } => json!({ "id": id, "account": account, "until": until }),
            Self::NumberRelease { id } | Self::NumberDelete { id } => json!({ "id": id }),
            Self::TrunkCreate {
                account,
                name,
                address,
                credentials,
                registration,
                call_limit,
                priority,
                keepalive_ms,
            } => {
                secret = credentials.as_ref().map(|c| &c.password);
                // A command without the field has the same form as before there was one.
                let mut fields = json!({
                    "account": account, "name": name, "address": address,
                    "username": credentials.as_ref().map(|c| &c.username),
                    "call_limit": call_limit, "priority": priority, "keepalive_ms": keepalive_ms,
                });
                if let (Some(registration), Some(map)) = (registration, fields.as_object_mut()) {
                    map.insert("registration".to_owned(), registrar(registration));
                }
                fields
            }
            Self::TrunkUpdate { id, registration, call_limit, priority, keepalive_ms, enabled } => sent([
                ("id", Some(json!(id))),
                ("registration", registration.as_ref().map(|v| json!(v.as_ref().map(registrar)))),
                ("call_limit", call_limit.map(|v| json!(v))),
                ("priority", priority.map(|v| json!(v))),
                ("keepalive_ms", keepalive_ms.map(|v| json!(v))),
                ("enabled", enabled.map(|v| json!(v))),
            ]),
            Self::TokenIssue { account, name, permissions, expires_at, networks } => {
                // A command without the field has the same form as before there was one.
                let mut fields = json!({
                    "account": account, "name": name, "permissions": permissions.to_string(), "expires_at": expires_at,
                });
                if let (true, Some(map)) = (*networks != Networks::default(), fields.as_object_mut()) {
                    map.insert("networks".to_owned(), json!(networks.to_string()));
                }
                fields
            }
            Self::TokenUpdate { id, expires_at, networks } => sent([
                ("id", Some(json!(id))),
                ("expires_at", expires_at.map(|v| json!(v))),
                ("networks", networks.as_ref().map(|v| json!(v.to_string()))),
            ]),
            Self::TokenRotate { id, overlap_s } => json!({ "id": id, "overlap_s": overlap_s }),
            Self::TokenRevoke { id } => json!({ "id": id }),
            Self::ChangeRevert { change } => json!({ "change": change }),
            Self::BulkJobStart { id, mode } => json!({ "id": id, "mode": mode }),
            Self::BulkJobCancel { id } => json!({ "id": id }),
        };
        Canonical { fields, secret }
    }
}

fn registrar(given: &TrunkRegistrar) -> Value {
    json!({ "registrar": given.registrar, "domain": given.domain, "expires_s": given.expires_s })
}

fn sent<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

#[cfg(test)]
mod tests {
    use model::id::TrunkId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn left_as_it_is_differs_from_taken_away() {
        let update = |call_limit| Command::TrunkUpdate {
            id: TrunkId::from_uuid(Uuid::nil()),
            registration: None,
            call_limit,
            priority: None,
            keepalive_ms: None,
            enabled: None,
        };
        let left = update(None).canonical().fields.clone();
        let removed = update(Some(None)).canonical().fields.clone();
        let set = update(Some(Some(1))).canonical().fields.clone();
        assert!(left != removed && removed != set && left != set);
    }
}

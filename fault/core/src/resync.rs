//! The plan of a synchronisation: a target of notifications is told every active alarm again.

use model::change::{Effect, EffectKind, Plan, Refusal, RefusalCode, ResourceKind, ResourceRef, Reversibility};
use model::ctx::Ctx;
use serde_json::json;

use crate::resource::target_uuid;

/// What the store knows of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetView {
    /// The node that sends to it.
    pub node: String,
    /// Its name there.
    pub target: String,
    /// Whether a synchronisation was asked for that the node has not begun.
    pub pending: bool,
}

/// Whether the actor may see targets at all: they belong to the platform, not to an account.
#[must_use]
pub fn sees_targets(ctx: &Ctx) -> bool {
    ctx.scope.lower().is_empty()
}

/// What the command would do.
///
/// # Errors
/// `NOT_FOUND` without a target (or for an actor who does not see the platform), `CONFLICT` while one is under way.
pub fn plan(view: Option<&TargetView>, ctx: &Ctx) -> Result<Plan, Refusal> {
    let Some(target) = view.filter(|_| sees_targets(ctx)) else {
        return Err(Refusal::new(
            RefusalCode::NotFound,
            "target",
            "there is no such target of notifications on this node",
            "take the node's name and a name below snmp.targets of its configuration; the node must have been started",
        ));
    };
    if target.pending {
        return Err(Refusal::new(
            RefusalCode::Conflict,
            "target",
            "a synchronisation of this target was asked for and has not begun",
            "wait until the node has begun it, within seconds while it runs",
        ));
    }
    let effect = Effect {
        kind: EffectKind::Updated,
        resource: ResourceRef { kind: ResourceKind::NotificationTarget, id: target_uuid(&target.node, &target.target) },
        name: format!("target {} of {}", target.target, target.node),
        before: Some(json!({ "resync": false })),
        after: Some(json!({ "resync": true, "by": ctx.actor.name, "at": ctx.now() })),
    };
    Ok(Plan {
        effects: vec![effect],
        versions: Vec::new(),
        reversibility: Reversibility::Final("notifications cannot be called back".to_owned()),
    })
}

//! The plan of an acknowledgement: it is a change like any other, with audit, idempotency and dry-run.

use model::change::{Effect, EffectKind, Plan, Refusal, RefusalCode, ResourceKind, ResourceRef, Reversibility};
use model::text::is_deceptive;
use model::time::Timestamp;
use serde_json::json;

use crate::resource::Alarm;
use crate::state;

/// Octets of a note: it travels in rows and lists, and is one line for colleagues.
pub const NOTE_OCTETS_MAX: usize = 255;

/// What the command would do to the alarm, as far as the actor sees one: the plan, and the alarm afterwards.
///
/// # Errors
/// `NOT_FOUND` without an alarm, `INVALID` for a note that is too long or has control or text direction characters, `CONFLICT` when
/// somebody was faster.
pub fn plan(view: Option<&Alarm>, by: &str, now: Timestamp, note: &str) -> Result<(Plan, Alarm), Refusal> {
    let Some(alarm) = view else {
        return Err(Refusal::new(
            RefusalCode::NotFound,
            "id",
            "there is no such alarm",
            "take node and number from the list of alarms",
        ));
    };
    if note.len() > NOTE_OCTETS_MAX || note.chars().any(is_deceptive) {
        return Err(Refusal::new(
            RefusalCode::Invalid,
            "note",
            format!("a note is one line of at most {NOTE_OCTETS_MAX} octets"),
            "shorten it",
        ));
    }
    let transition = state::acknowledge(alarm, by, now, note);
    let Some(after) = transition.alarm() else {
        let by = alarm.acknowledgement.as_ref().map_or("somebody", |(by, ..)| by.as_str());
        return Err(Refusal::new(
            RefusalCode::Conflict,
            "id",
            format!("the alarm was acknowledged by {by}"),
            "nothing is to be done: the first acknowledgement counts",
        ));
    };
    let effect = Effect {
        kind: EffectKind::Updated,
        resource: ResourceRef { kind: ResourceKind::Alarm, id: alarm.uuid() },
        name: format!("{} {} on {} (alarm {})", alarm.alarm_type.key(), alarm.resource, alarm.node, alarm.id),
        before: Some(json!({ "acknowledged": false })),
        after: Some(json!({ "acknowledged": true, "by": by, "at": now, "note": note })),
    };
    let plan = Plan {
        effects: vec![effect],
        versions: Vec::new(),
        reversibility: Reversibility::Final("an acknowledgement was seen by the receivers of notifications".to_owned()),
    };
    Ok((plan, after.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::AlarmType;
    use crate::resource::Severity;
    use crate::state::NewAlarm;

    #[test]
    fn it_is_planned_or_refused() {
        let new = NewAlarm {
            alarm_type: AlarmType::TrunkDown,
            resource: "trunk:a".to_owned(),
            path: None,
            severity: Severity::Major,
            text: "no answer".to_owned(),
            at: Timestamp(1),
        };
        let alarm = new.numbered("node-a", 7);
        let check = |view: Option<&Alarm>, note: &str, expected: Option<RefusalCode>| {
            assert_eq!(plan(view, "noc", Timestamp(2), note).err().map(|refusal| refusal.code), expected, "{note}");
        };
        check(None, "", Some(RefusalCode::NotFound));
        check(Some(&alarm), &"a".repeat(256), Some(RefusalCode::Invalid));
        check(Some(&alarm), "two\nlines", Some(RefusalCode::Invalid));
        check(Some(&alarm), "a\u{202e}b", Some(RefusalCode::Invalid));
        check(Some(&alarm), "", None);
        let (plan, after) = plan(Some(&alarm), "noc", Timestamp(2), "seen").expect("it is free");
        assert_eq!(plan.effects.first().map(|effect| effect.resource.id), Some(alarm.uuid()));
        assert!(matches!(plan.reversibility, Reversibility::Final(_)));
        check(Some(&after), "", Some(RefusalCode::Conflict));
    }
}

//! Alarms that stand although nobody can say yet whether their cause does, as after a start: they are asserted again,
//! so that a restart neither clears them nor tells them anew.

use fault::catalogue::AlarmType;
use fault::resource::{Alarm, Condition};

/// Adds the active alarms of a type whose resource `is_unknown`, as they are, and unless something is said of them.
pub fn keep_standing(
    conditions: &mut Vec<Condition>,
    active: Vec<Alarm>,
    alarm_type: AlarmType,
    is_unknown: impl Fn(&str) -> bool,
) {
    let said = |alarm: &Alarm, conditions: &[Condition]| conditions.iter().any(|c| c.resource == alarm.resource);
    for alarm in active.into_iter().filter(|alarm| alarm.alarm_type == alarm_type && is_unknown(&alarm.resource)) {
        if !said(&alarm, conditions) {
            conditions.push(Condition {
                alarm_type,
                resource: alarm.resource,
                path: alarm.path,
                severity: Some(alarm.severity),
                text: alarm.text,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use fault::resource::Severity;
    use model::time::Timestamp;

    use super::*;

    fn alarm(id: u32, alarm_type: AlarmType, resource: &str) -> Alarm {
        let at = Timestamp(i64::from(id));
        Alarm {
            node: "node1".to_owned(),
            id,
            alarm_type,
            resource: resource.to_owned(),
            path: None,
            severity: Severity::Major,
            text: format!("as {id} was told"),
            raised_at: at,
            changed_at: at,
            last_seen_at: at,
            cleared_at: None,
            count: 1,
            acknowledgement: None,
        }
    }

    #[test]
    fn what_is_unknown_stands_as_it_was_told_and_what_is_known_goes() {
        let trunk = |id, resource| alarm(id, AlarmType::TrunkDown, resource);
        let active =
            vec![trunk(1, "trunk:a"), trunk(2, "trunk:b"), trunk(3, "trunk:c"), alarm(4, AlarmType::Disk, "trunk:a")];
        let said = Condition {
            alarm_type: AlarmType::TrunkDown,
            resource: "trunk:c".to_owned(),
            path: None,
            severity: None,
            text: "new".to_owned(),
        };
        let mut conditions = vec![said];
        keep_standing(&mut conditions, active, AlarmType::TrunkDown, |resource| resource != "trunk:b");
        let told: Vec<_> = conditions.iter().map(|c| (&*c.resource, c.severity, &*c.text)).collect();
        assert_eq!(told, [("trunk:c", None, "new"), ("trunk:a", Some(Severity::Major), "as 1 was told")]);
    }
}

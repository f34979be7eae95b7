use proptest::prelude::*;

use super::*;

const T0: Timestamp = Timestamp(1_000_000);

fn trunk(resource: &str, severity: Option<Severity>) -> Condition {
    Condition {
        alarm_type: AlarmType::TrunkDown,
        resource: resource.to_owned(),
        path: None,
        severity,
        text: format!("trunk {resource} leaves OPTIONS unanswered"),
    }
}

fn active(condition: &Condition) -> Alarm {
    match decide(None, Observation::Present(condition), T0) {
        Transition::Raise(new) => new.numbered("node-a", 1),
        other => panic!("a first sight raises, not {other:?}"),
    }
}

#[test]
fn the_table_of_transitions() {
    let check = |active: Option<&Alarm>, severity: Option<Option<Severity>>, expected: Option<NotificationKind>| {
        let condition = severity.map(|severity| trunk("a", severity));
        let observation = condition.as_ref().map_or(Observation::Absent, Observation::Present);
        assert_eq!(decide(active, observation, T0.plus_ms(5)).kind(), expected, "{active:?} {observation:?}");
    };
    let major = active(&trunk("a", None));
    check(None, None, None);
    check(None, Some(None), Some(NotificationKind::Raise));
    check(None, Some(Some(Severity::Cleared)), None);
    check(Some(&major), Some(None), None);
    check(Some(&major), Some(Some(Severity::Major)), None);
    check(Some(&major), Some(Some(Severity::Critical)), Some(NotificationKind::Change));
    check(Some(&major), Some(Some(Severity::Warning)), Some(NotificationKind::Change));
    check(Some(&major), Some(Some(Severity::Cleared)), Some(NotificationKind::Clear));
    check(Some(&major), None, Some(NotificationKind::Clear));
}

#[test]
fn a_repeat_counts_and_keeps_what_was_notified() {
    let alarm = active(&trunk("a", None));
    let mut again = trunk("a", None);
    "other words".clone_into(&mut again.text);
    let Transition::Repeat(seen) = decide(Some(&alarm), Observation::Present(&again), T0.plus_ms(9)) else {
        panic!("it is the same")
    };
    assert_eq!(seen, Alarm { count: 2, last_seen_at: T0.plus_ms(9), ..alarm });
}

#[test]
fn a_clear_carries_the_fields_of_its_raise() {
    let alarm = active(&trunk("a", None));
    let raised = Notification::of(NotificationKind::Raise, &alarm);
    let Transition::Repeat(alarm) = decide(Some(&alarm), Observation::Present(&trunk("a", None)), T0) else {
        panic!("it is the same")
    };
    let cleared = decide(Some(&alarm), Observation::Absent, T0.plus_ms(60_000)).notification().expect("notified");
    let expected = Notification { kind: NotificationKind::Clear, severity: Severity::Cleared, count: 2, ..raised };
    assert_eq!(cleared, expected);
}

#[test]
fn a_clock_set_back_does_not_move_an_alarm_back() {
    let alarm = active(&trunk("a", None));
    let Transition::Clear(cleared) = decide(Some(&alarm), Observation::Absent, Timestamp(5)) else {
        panic!("it is gone")
    };
    assert_eq!((cleared.cleared_at, cleared.changed_at), (Some(T0), T0));
}

#[test]
fn the_first_acknowledgement_counts() {
    let alarm = active(&trunk("a", None));
    let first = acknowledge(&alarm, "noc", T0.plus_ms(1), "on it");
    assert_eq!(first.kind(), Some(NotificationKind::Ack));
    let acknowledged = first.alarm().expect("it exists");
    assert_eq!(acknowledge(acknowledged, "other", T0, ""), Transition::Nothing);
    // Severity and text of the notification are those of the alarm, which stays
    let told = first.notification().expect("notified");
    assert_eq!((told.severity, told.text.as_str()), (Severity::Major, alarm.text.as_str()));
}

#[test]
fn a_condition_that_stands_twice_counts_once() {
    let (transitions, left_out) =
        decide_all(&[], &[trunk("a", Some(Severity::Minor)), trunk("a", None), trunk("b", None)], T0);
    let severities: Vec<_> = transitions
        .iter()
        .map(|transition| match transition {
            Transition::Raise(new) => (new.resource.as_str(), new.severity),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((severities, left_out), (vec![("a", Severity::Major), ("b", Severity::Major)], 0));
}

#[test]
fn too_many_alarms_are_left_out_and_counted() {
    let conditions: Vec<_> = (0..ACTIVE_MAX + 3).map(|n| trunk(&n.to_string(), None)).collect();
    let (transitions, left_out) = decide_all(&[], &conditions, T0);
    assert_eq!((transitions.len(), left_out), (ACTIVE_MAX, 3));
}

proptest! {
    /// Any run of sights: notifications alternate raise, change*, clear; the count of a clear is the number of sights
    /// since its raise; instants never go back.
    #[test]
    fn raise_and_clear_alternate(sights in prop::collection::vec((0_u8..4, -20_i64..500), 0..200)) {
        let (mut alarm, mut now, mut sights_since, mut next_id): (Option<Alarm>, _, i64, u32) = (None, T0, 0, 1);
        for (sight, step) in sights {
            now = now.plus_ms(step);
            let severity = [None, None, Some(Severity::Critical), Some(Severity::Minor)][usize::from(sight)];
            let condition = (sight > 0).then(|| trunk("a", severity));
            let observation = condition.as_ref().map_or(Observation::Absent, Observation::Present);
            let transition = decide(alarm.as_ref(), observation, now);
            match &transition {
                Transition::Nothing => prop_assert!(alarm.is_none() && condition.is_none()),
                Transition::Raise(_) => { prop_assert!(alarm.is_none()); sights_since = 1; }
                Transition::Repeat(_) | Transition::Change(_) => { prop_assert!(alarm.is_some()); sights_since += 1; }
                Transition::Clear(cleared) => {
                    prop_assert!(alarm.is_some() && condition.is_none());
                    prop_assert_eq!(cleared.count, sights_since);
                }
                Transition::Acknowledge(_) => prop_assert!(false, "nobody acknowledged"),
            }
            let before = alarm.take();
            alarm = match transition {
                Transition::Raise(new) => { next_id += 1; Some(new.numbered("node-a", next_id)) }
                Transition::Repeat(alarm) | Transition::Change(alarm) => Some(alarm),
                _ => None,
            };
            if let (Some(before), Some(after)) = (&before, &alarm) {
                prop_assert!(after.id == before.id && after.raised_at == before.raised_at);
                prop_assert!(after.last_seen_at >= before.last_seen_at && after.changed_at >= before.changed_at);
                prop_assert_eq!(after.count, before.count + 1);
            }
        }
    }

    /// After any observation exactly the conditions of the set are active.
    #[test]
    fn the_full_set_decides(before in prop::collection::btree_set(0_u8..20, 0..20), after in prop::collection::btree_set(0_u8..20, 0..20)) {
        let alarms: Vec<_> = before.iter().map(|n| active(&trunk(&n.to_string(), None))).collect();
        let conditions: Vec<_> = after.iter().map(|n| trunk(&n.to_string(), None)).collect();
        let (transitions, _) = decide_all(&alarms, &conditions, T0);
        let left: std::collections::BTreeSet<u8> = transitions.iter().filter_map(|transition| match transition {
            Transition::Raise(new) => Some(new.resource.parse().unwrap()),
            Transition::Repeat(alarm) => Some(alarm.resource.parse().unwrap()),
            _ => None,
        }).collect();
        prop_assert_eq!(left, after);
    }
}

//! What an observation does to an alarm (ITU-T X.733; reduction as RFC 3877, section 3.4): one alarm per type and
//! resource, raised once, counted while its condition stays, cleared once.
//!
//! Raise and clear delays, shelving, flapping and parents are not decided here yet; they become further arms of
//! [`Transition`].

use std::collections::BTreeMap;

use model::tenancy::AccountPath;
use model::time::Timestamp;

use crate::catalogue::AlarmType;
use crate::notification::{Notification, NotificationKind, one_line};
use crate::resource::{Alarm, Condition, Severity};

/// Alarms of one detector that may be active at once. More are no longer told apart by anybody; the bound keeps the
/// set of one observation in one short transaction.
pub const ACTIVE_MAX: usize = 10_000;

/// A new alarm, which has no number yet: the node database draws it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAlarm {
    /// What kind of condition.
    pub alarm_type: AlarmType,
    /// Which object.
    pub resource: String,
    /// The account that it belongs to; none: the platform.
    pub path: Option<AccountPath>,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence.
    pub text: String,
    /// First sight.
    pub at: Timestamp,
}

impl NewAlarm {
    /// The alarm under its number.
    #[must_use]
    pub fn numbered(self, node: &str, id: u32) -> Alarm {
        Alarm {
            node: node.to_owned(),
            id,
            alarm_type: self.alarm_type,
            resource: self.resource,
            path: self.path,
            severity: self.severity,
            text: self.text,
            raised_at: self.at,
            changed_at: self.at,
            last_seen_at: self.at,
            cleared_at: None,
            count: 1,
            acknowledgement: None,
        }
    }
}

/// What becomes of an alarm; the alarm is the one after the transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// There is none and none comes.
    Nothing,
    /// It comes into being.
    Raise(NewAlarm),
    /// It was seen again: counted, not notified. Its text stays the notified one.
    Repeat(Alarm),
    /// Its severity changed, and with it the text.
    Change(Alarm),
    /// Its condition is gone. Everything stays as it was notified, so that receivers find the pair.
    Clear(Alarm),
    /// Somebody took note of it.
    Acknowledge(Alarm),
}

impl Transition {
    /// The alarm that exists after the transition, where it is not a new one.
    #[must_use]
    pub const fn alarm(&self) -> Option<&Alarm> {
        match self {
            Self::Nothing | Self::Raise(_) => None,
            Self::Repeat(alarm) | Self::Change(alarm) | Self::Clear(alarm) | Self::Acknowledge(alarm) => Some(alarm),
        }
    }

    /// What is notified and kept in the history: not a repeat.
    #[must_use]
    pub const fn kind(&self) -> Option<NotificationKind> {
        match self {
            Self::Nothing | Self::Repeat(_) => None,
            Self::Raise(_) => Some(NotificationKind::Raise),
            Self::Change(_) => Some(NotificationKind::Change),
            Self::Clear(_) => Some(NotificationKind::Clear),
            Self::Acknowledge(_) => Some(NotificationKind::Ack),
        }
    }

    /// The notification, where there is one and the alarm has its number.
    #[must_use]
    pub fn notification(&self) -> Option<Notification> {
        Some(Notification::of(self.kind()?, self.alarm()?))
    }
}

/// What a detector sees of one type and resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation<'a> {
    /// The condition is there.
    Present(&'a Condition),
    /// It is not.
    Absent,
}

/// What `observation` does to the active alarm of the same type and resource. A clock that was set back does not move
/// an alarm's instants back.
#[must_use]
pub fn decide(active: Option<&Alarm>, observation: Observation<'_>, now: Timestamp) -> Transition {
    let present = match observation {
        // A detector that says "cleared" and one that says nothing mean the same
        Observation::Present(condition) => Some(condition).filter(|c| severity_of(c) != Severity::Cleared),
        Observation::Absent => None,
    };
    match (active, present) {
        (None, None) => Transition::Nothing,
        (None, Some(condition)) => Transition::Raise(NewAlarm {
            alarm_type: condition.alarm_type,
            resource: one_line(&condition.resource),
            path: condition.path.clone(),
            severity: severity_of(condition),
            text: one_line(&condition.text),
            at: now,
        }),
        (Some(active), Some(condition)) => {
            let now = now.max(active.last_seen_at);
            let severity = severity_of(condition);
            let seen = Alarm { last_seen_at: now, count: active.count.saturating_add(1), ..active.clone() };
            if severity == active.severity {
                Transition::Repeat(seen)
            } else {
                Transition::Change(Alarm { severity, text: one_line(&condition.text), changed_at: now, ..seen })
            }
        }
        (Some(active), None) => {
            let now = now.max(active.last_seen_at);
            Transition::Clear(Alarm { cleared_at: Some(now), changed_at: now, ..active.clone() })
        }
    }
}

/// What the full set of a detector does to all of its active alarms. A condition that stands twice counts once, with
/// the worse severity. New alarms beyond [`ACTIVE_MAX`] are left out; the second value says how many.
#[must_use]
pub fn decide_all(active: &[Alarm], conditions: &[Condition], now: Timestamp) -> (Vec<Transition>, usize) {
    let mut present: BTreeMap<(AlarmType, String), &Condition> = BTreeMap::new();
    for condition in conditions {
        let entry = present.entry((condition.alarm_type, one_line(&condition.resource))).or_insert(condition);
        if rank(severity_of(condition)) > rank(severity_of(entry)) {
            *entry = condition;
        }
    }
    let mut transitions = Vec::with_capacity(active.len().max(present.len()));
    let mut remaining = 0;
    for alarm in active {
        let observation = present
            .remove(&(alarm.alarm_type, alarm.resource.clone()))
            .map_or(Observation::Absent, Observation::Present);
        let transition = decide(Some(alarm), observation, now);
        remaining += usize::from(!matches!(transition, Transition::Clear(_)));
        transitions.push(transition);
    }
    let mut left_out = 0;
    for condition in present.values() {
        let transition = decide(None, Observation::Present(condition), now);
        match transition {
            Transition::Nothing => {}
            _ if remaining >= ACTIVE_MAX => left_out += 1,
            _ => {
                remaining += 1;
                transitions.push(transition);
            }
        }
    }
    (transitions, left_out)
}

/// Takes note of an alarm, once: the first word counts. It neither clears nor ends anything.
#[must_use]
pub fn acknowledge(alarm: &Alarm, by: &str, at: Timestamp, note: &str) -> Transition {
    if alarm.acknowledgement.is_some() {
        return Transition::Nothing;
    }
    Transition::Acknowledge(Alarm {
        changed_at: at.max(alarm.changed_at),
        acknowledgement: Some((by.to_owned(), at, note.to_owned())),
        ..alarm.clone()
    })
}

fn severity_of(condition: &Condition) -> Severity {
    condition.severity.unwrap_or(condition.alarm_type.definition().severity)
}

/// The order of badness; indeterminate is worse than a warning, for it may be anything.
const fn rank(severity: Severity) -> u8 {
    match severity {
        Severity::Cleared => 0,
        Severity::Warning => 1,
        Severity::Indeterminate => 2,
        Severity::Minor => 3,
        Severity::Major => 4,
        Severity::Critical => 5,
    }
}

#[cfg(test)]
mod tests;

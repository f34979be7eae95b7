//! Alarms, with the texts of the catalogue.

use async_graphql::{Enum, ID, SimpleObject};
use fault::resource as row;
use model::change::ResourceKind;

use super::global;
use crate::scalar::{Long, Timestamp};

/// Perceived severity (ITU-T X.733).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "row::Severity")]
pub enum Severity {
    /// The condition is gone.
    Cleared,
    /// The severity cannot be told.
    Indeterminate,
    /// Service is out.
    Critical,
    /// Service is badly degraded.
    Major,
    /// Not yet affecting service.
    Minor,
    /// A possible fault ahead.
    Warning,
}

/// Who took note of an alarm.
#[derive(Debug, SimpleObject)]
pub struct AlarmNote {
    /// Name of the actor.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// The note for colleagues.
    pub note: String,
}

/// One instance of an alarm: raised once, cleared once.
#[derive(Debug, SimpleObject)]
pub struct Alarm {
    /// Its global identifier.
    pub id: ID,
    /// The node that detected it.
    pub node: String,
    /// Its number on that node, never used again; also in SNMP.
    pub number: u32,
    /// What kind of condition.
    pub alarm_type: String,
    /// Which object.
    pub resource: String,
    /// How bad it is (the last severity while active; kept after the clear).
    pub severity: Severity,
    /// One sentence with the values.
    pub text: String,
    /// What brings such an alarm about.
    pub cause: String,
    /// What it means for service.
    pub effect: String,
    /// What the operator should do.
    pub action: String,
    /// First sight.
    pub raised_at: Timestamp,
    /// Last change of severity, text class or acknowledgement.
    pub changed_at: Timestamp,
    /// Last sight.
    pub last_seen_at: Timestamp,
    /// When it was cleared.
    pub cleared_at: Option<Timestamp>,
    /// Sightings, repeats included.
    pub count: Long,
    /// Who acknowledged it.
    pub acknowledgement: Option<AlarmNote>,
}

impl From<row::Alarm> for Alarm {
    fn from(alarm: row::Alarm) -> Self {
        let definition = alarm.alarm_type.definition();
        Self {
            id: alarm_id(&alarm.node, alarm.id),
            node: alarm.node,
            number: alarm.id,
            alarm_type: definition.key.to_owned(),
            resource: alarm.resource,
            severity: alarm.severity.into(),
            text: alarm.text,
            cause: definition.cause.to_owned(),
            effect: definition.effect.to_owned(),
            action: definition.action.to_owned(),
            raised_at: Timestamp(alarm.raised_at),
            changed_at: Timestamp(alarm.changed_at),
            last_seen_at: Timestamp(alarm.last_seen_at),
            cleared_at: alarm.cleared_at.map(Timestamp),
            count: Long(alarm.count),
            acknowledgement: alarm.acknowledgement.map(|(by, at, note)| AlarmNote { by, at: Timestamp(at), note }),
        }
    }
}

/// An alarm is named by its node and its number there.
pub(crate) fn alarm_id(node: &str, number: u32) -> ID {
    global(ResourceKind::Alarm, format_args!("{node}/{number}"))
}

/// Node and number of an alarm's key.
pub(crate) fn alarm_key(key: &str) -> Option<(String, u32)> {
    let (node, number) = key.rsplit_once('/')?;
    Some((node.to_owned(), number.parse().ok()?))
}

//! What a target is told of an alarm: the payload of an outbox row, independent of the protocol that carries it.

use model::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::resource::{Alarm, Severity};

/// Octets of a text in a notification and in the alarm's row: the bound of `SnmpAdminString` (RFC 3411, section 5),
/// so that a notification fits one datagram.
pub const TEXT_OCTETS_MAX: usize = 255;

/// The kind under which notifications of alarms stand in the outbox.
pub const OUTBOX_KIND: &str = "alarm";

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotificationKind {
    /// The alarm was raised.
    Raise,
    /// Its severity changed.
    Change,
    /// Its condition is gone.
    Clear,
    /// Somebody took note of it.
    Ack,
}

impl NotificationKind {
    /// The stored name, also of the transition in the history.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raise => "raise",
            Self::Change => "change",
            Self::Clear => "clear",
            Self::Ack => "ack",
        }
    }
}

/// One notification. All kinds carry the same fields, and a clear those of its raise, so that a receiver pairs them
/// by any of them. Kept as text: a version that does not know a type still delivers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// What happened.
    pub kind: NotificationKind,
    /// The alarm's number on its node.
    pub id: u32,
    /// The key of its type in the catalogue.
    pub alarm_type: String,
    /// Which object.
    pub resource: String,
    /// How bad it is now; cleared in a clear.
    pub severity: Severity,
    /// `IANAItuEventType`.
    pub event_type: u32,
    /// `IANAItuProbableCause`.
    pub probable_cause: u32,
    /// One sentence, at most [`TEXT_OCTETS_MAX`] octets.
    pub text: String,
    /// When the alarm was raised.
    pub raised_at: Timestamp,
    /// Sightings so far.
    pub count: i64,
    /// Whether it tells again what holds, as part of a synchronisation; nothing happened just now.
    #[serde(default)]
    pub resync: bool,
}

impl Notification {
    /// What is said of `alarm` as it stands after the transition.
    #[must_use]
    pub fn of(kind: NotificationKind, alarm: &Alarm) -> Self {
        let definition = alarm.alarm_type.definition();
        Self {
            kind,
            id: alarm.id,
            alarm_type: definition.key.to_owned(),
            resource: one_line(&alarm.resource),
            severity: if alarm.cleared_at.is_some() { Severity::Cleared } else { alarm.severity },
            event_type: definition.event_type,
            probable_cause: definition.probable_cause,
            text: one_line(&alarm.text),
            raised_at: alarm.raised_at,
            count: alarm.count,
            resync: false,
        }
    }
}

/// The bounds of a synchronisation of one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResyncMark {
    /// Active alarms at its begin; as many raises stand between begin and end.
    pub active: u32,
}

/// What an operator wants to see arrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestMessage {
    /// One sentence.
    pub text: String,
}

/// What stands in an outbox row, by its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A transition of an alarm, or an active alarm told again.
    Alarm(Notification),
    /// What the target knew is to be forgotten; every active alarm follows.
    ResyncBegin(ResyncMark),
    /// Every active alarm was told.
    ResyncEnd(ResyncMark),
    /// A test; nothing is wrong.
    Test(TestMessage),
}

/// A payload that this version cannot read.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// A message of a newer version.
    #[error("this version knows no messages of kind {0}")]
    Kind(String),
    /// Not what its kind says.
    #[error("the payload is not of its kind: {0}")]
    Payload(#[source] serde_json::Error),
}

impl Content {
    /// The kind in the outbox.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Alarm(_) => OUTBOX_KIND,
            Self::ResyncBegin(_) => "resync_begin",
            Self::ResyncEnd(_) => "resync_end",
            Self::Test(_) => "test",
        }
    }

    /// The payload in the outbox.
    ///
    /// # Errors
    /// Never for what this crate makes; serde's signature says otherwise.
    pub fn payload(&self) -> Result<String, serde_json::Error> {
        match self {
            Self::Alarm(notification) => serde_json::to_string(notification),
            Self::ResyncBegin(mark) | Self::ResyncEnd(mark) => serde_json::to_string(mark),
            Self::Test(test) => serde_json::to_string(test),
        }
    }

    /// The content of a row.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn parse(kind: &str, payload: &str) -> Result<Self, ContentError> {
        let parsed = match kind {
            OUTBOX_KIND => serde_json::from_str(payload).map(Self::Alarm),
            "resync_begin" => serde_json::from_str(payload).map(Self::ResyncBegin),
            "resync_end" => serde_json::from_str(payload).map(Self::ResyncEnd),
            "test" => serde_json::from_str(payload).map(Self::Test),
            other => return Err(ContentError::Kind(other.to_owned())),
        };
        parsed.map_err(ContentError::Payload)
    }
}

/// The text on one line of at most [`TEXT_OCTETS_MAX`] octets, cut between characters.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(TEXT_OCTETS_MAX));
    for c in text.trim().chars() {
        let c = if c.is_control() { ' ' } else { c };
        if line.len() + c.len_utf8() > TEXT_OCTETS_MAX {
            break;
        }
        line.push(c);
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_row_reads_as_it_was_written_and_one_of_the_first_version_too() {
        let mark = ResyncMark { active: 7 };
        let test = TestMessage { text: "x".to_owned() };
        let first_version = r#"{"kind":"raise","id":1,"alarm_type":"trunk_down","resource":"trunk:a","severity":"major",
            "event_type":2,"probable_cause":612,"text":"t","raised_at":"2026-11-24T17:08:09.730Z","count":1}"#;
        let Content::Alarm(alarm) = Content::parse(OUTBOX_KIND, first_version).expect("it is read") else {
            panic!("an alarm is one")
        };
        assert!(!alarm.resync);
        for content in
            [Content::Alarm(alarm), Content::ResyncBegin(mark), Content::ResyncEnd(mark), Content::Test(test)]
        {
            let payload = content.payload().expect("it is written");
            assert_eq!(Content::parse(content.kind(), &payload).expect("it is read"), content);
        }
        assert!(matches!(Content::parse("fax", "{}"), Err(ContentError::Kind(_))));
        assert!(matches!(Content::parse("test", "{}"), Err(ContentError::Payload(_))));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let check = |text: &str, expected: &str| assert_eq!(one_line(text), expected);
        check("", "");
        check(" two\nlines\t", "two lines");
        check(&"a".repeat(256), &"a".repeat(255));
        // Two octets each: 255 is odd
        check(&"ä".repeat(200), &"ä".repeat(127));
    }

    proptest! {
        #[test]
        fn any_text_becomes_one_line(text in "\\PC*|(?s).{0,400}") {
            let line = one_line(&text);
            prop_assert!(line.len() <= TEXT_OCTETS_MAX && !line.chars().any(char::is_control));
        }
    }
}

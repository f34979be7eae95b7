//! The object identifiers of TANDEM-MIB: what notifications carry, what the agent answers, and what the MIB names. Never renumbered: an object that is no
//! longer sent is deprecated.

use fault::notification::NotificationKind;

/// The number for documentation (RFC 5612): not for a network with other products in it.
pub const DOCUMENTATION_ENTERPRISE: u32 = 32_473;

/// `enterprises` (RFC 2578, section 2).
const ENTERPRISES: [u32; 6] = [1, 3, 6, 1, 4, 1];

/// Arcs below the enterprise number.
pub(crate) mod arc {
    /// `tandemMIB`.
    pub(crate) const MIB: u32 = 1;
    /// `tandemNotifications`: the 0 makes them reverse mappable (RFC 2578, section 8.5).
    pub(crate) const NOTIFICATIONS: u32 = 0;
    /// `tandemNotificationObjects`.
    pub(crate) const OBJECTS: u32 = 1;
    /// `tandemConformance`.
    pub(crate) const CONFORMANCE: u32 = 2;
    /// `tandemAlarmTypes`.
    pub(crate) const ALARM_TYPES: u32 = 3;
    /// `tandemAlarmObjects`: what the agent answers.
    pub(crate) const AGENT: u32 = 4;
}

/// Below which node an object stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// `tandemNotificationObjects`: in notifications alone.
    Notifications,
    /// `tandemAlarmObjects`: the agent answers it too.
    Agent,
}

macro_rules! objects {
    ($($(#[$doc:meta])+ $variant:ident = $place:ident $arc:literal, $name:literal, $syntax:literal, $description:literal;)+) => {
        /// An object that notifications carry, in the order of the varbinds.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Object { $($(#[$doc])+ $variant,)+ }

        impl Object {
            /// Every object.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// Its arc below its node.
            #[must_use]
            pub const fn arc(self) -> u32 { match self { $(Self::$variant => $arc,)+ } }
            /// Its node.
            pub(crate) const fn place(self) -> Place { match self { $(Self::$variant => Place::$place,)+ } }
            /// Its descriptor in the MIB.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $(Self::$variant => $name,)+ } }
            /// Its syntax in the MIB.
            pub(crate) const fn syntax(self) -> &'static str { match self { $(Self::$variant => $syntax,)+ } }
            /// Its description in the MIB.
            pub(crate) const fn description(self) -> &'static str {
                match self { $(Self::$variant => $description,)+ }
            }
        }
    };
}

objects! {
    /// The place in the target's sequence.
    Sequence = Notifications 1, "tandemNotificationSequence", "Unsigned32",
        "The place of this notification in the sequence of its target. It begins at 1 in each epoch and has no gaps: a \
         receiver that misses one has lost a notification. One that comes twice is the same notification, sent again \
         after a restart.";
    /// The epoch of the sequence.
    Epoch = Notifications 2, "tandemNotificationEpoch", "Unsigned32",
        "The epoch of the sequence. A new one begins when the target is synchronised again: every active alarm is then \
         raised again, and what the receiver knew before is to be forgotten.";
    /// The node that detected.
    Node = Notifications 3, "tandemNotificationNode", "TandemText",
        "The name of the node that detected the alarm and sends its notifications.";
    /// The alarm's number.
    Id = Notifications 4, "tandemAlarmId", "Unsigned32",
        "The number of the alarm on its node. Raise, change, acknowledgement and clear of one alarm carry the same \
         number; it is never used again.";
    /// The key of its type.
    Type = Notifications 5, "tandemAlarmType", "TandemText",
        "The key of the type of the alarm in the catalogue, such as trunk_down. The types are described below \
         tandemAlarmTypes.";
    /// Which object.
    Resource = Notifications 6, "tandemAlarmResource", "TandemText",
        "The object that the alarm is about, as kind and identifier, such as trunk:0190b5c8-7a3e-7cc1-8f4e-2b6d1c0a9e55. \
         At most one alarm is active per node, type and resource.";
    /// How bad it is.
    Severity = Notifications 7, "tandemAlarmSeverity", "TandemSeverity",
        "The perceived severity of the alarm now; cleared in a tandemAlarmClear.";
    /// The kind of event.
    EventType = Notifications 8, "tandemAlarmEventType", "TandemEventType",
        "The type of event of the alarm.";
    /// The probable cause.
    ProbableCause = Notifications 9, "tandemAlarmProbableCause", "Unsigned32",
        "The probable cause of the alarm, a number of IANAItuProbableCause in the IANA-ITU-ALARM-TC-MIB.";
    /// One sentence.
    Text = Notifications 10, "tandemAlarmText", "TandemText",
        "One sentence with the values that matter. A clear carries the text of its raise or of the last change.";
    /// When it was raised.
    RaisedTime = Notifications 11, "tandemAlarmRaisedTime", "DateAndTime",
        "When the alarm was raised, in UTC.";
    /// Sightings.
    Count = Notifications 12, "tandemAlarmCount", "Unsigned32",
        "How often the condition was seen while the alarm is active. Repeats are counted and not notified.";
    /// Whether it is told again.
    Resync = Notifications 13, "tandemNotificationResync", "TruthValue",
        "True when nothing happened just now: the notification stands between a tandemResyncBegin and a tandemResyncEnd \
         and tells again what holds.";
    /// Active alarms.
    ActiveCount = Agent 1, "tandemAlarmActiveCount", "Gauge32",
        "Alarms of this node that are active: the rows of tandemActiveAlarmTable.";
    /// Between heartbeats.
    HeartbeatPeriod = Agent 2, "tandemHeartbeatPeriod", "Unsigned32",
        "Seconds between the tandemHeartbeat notifications to each target; 0 when there are none. A receiver that hears \
         none for two periods has lost the node or the path.";
}

impl Object {
    /// The place of a notification in the sequence of its target, in the order of the varbinds: first in all of them.
    pub const OF_PLACE: &'static [Self] = &[Self::Sequence, Self::Epoch, Self::Node];
    /// What follows in the notifications of an alarm.
    pub const OF_ALARMS: &'static [Self] = &[
        Self::Id,
        Self::Type,
        Self::Resource,
        Self::Severity,
        Self::EventType,
        Self::ProbableCause,
        Self::Text,
        Self::RaisedTime,
        Self::Count,
        Self::Resync,
    ];
}

/// The notifications, each with its arc below `tandemNotifications`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotificationName {
    /// An alarm was raised.
    Raise,
    /// Its severity changed.
    Change,
    /// It was cleared.
    Clear,
    /// Somebody took note of it.
    Ack,
    /// The node is there.
    Heartbeat,
    /// What is known is to be forgotten.
    ResyncBegin,
    /// Everything was told.
    ResyncEnd,
    /// An operator tests.
    Test,
}

impl NotificationName {
    /// Every notification.
    pub const ALL: &'static [Self] = &[
        Self::Raise,
        Self::Change,
        Self::Clear,
        Self::Ack,
        Self::Heartbeat,
        Self::ResyncBegin,
        Self::ResyncEnd,
        Self::Test,
    ];

    /// That of a transition.
    #[must_use]
    pub const fn of(kind: NotificationKind) -> Self {
        match kind {
            NotificationKind::Raise => Self::Raise,
            NotificationKind::Change => Self::Change,
            NotificationKind::Clear => Self::Clear,
            NotificationKind::Ack => Self::Ack,
        }
    }

    /// Its arc; 8 is kept.
    #[must_use]
    pub const fn arc(self) -> u32 {
        match self {
            Self::Raise => 1,
            Self::Change => 2,
            Self::Clear => 3,
            Self::Ack => 4,
            Self::Heartbeat => 5,
            Self::ResyncBegin => 6,
            Self::ResyncEnd => 7,
            Self::Test => 9,
        }
    }

    /// Its descriptor in the MIB.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raise => "tandemAlarmRaise",
            Self::Change => "tandemAlarmChange",
            Self::Clear => "tandemAlarmClear",
            Self::Ack => "tandemAlarmAck",
            Self::Heartbeat => "tandemHeartbeat",
            Self::ResyncBegin => "tandemResyncBegin",
            Self::ResyncEnd => "tandemResyncEnd",
            Self::Test => "tandemTestNotification",
        }
    }

    /// What it carries, in order.
    pub(crate) fn objects(self) -> Vec<Object> {
        match self {
            Self::Raise | Self::Change | Self::Clear | Self::Ack => [Object::OF_PLACE, Object::OF_ALARMS].concat(),
            Self::Heartbeat => [Object::OF_PLACE, &[Object::ActiveCount, Object::HeartbeatPeriod]].concat(),
            Self::ResyncBegin | Self::ResyncEnd => [Object::OF_PLACE, &[Object::ActiveCount]].concat(),
            Self::Test => vec![Object::Node, Object::Text],
        }
    }

    /// Its description in the MIB.
    pub(crate) const fn description(self) -> &'static str {
        match self {
            Self::Raise => "An alarm was raised.",
            Self::Change => "The severity of an alarm changed.",
            Self::Clear => {
                "The condition of an alarm is gone. Number, type, resource, raised time and text are those of its raise \
                 or last change."
            }
            Self::Ack => "Somebody took note of an alarm; it stays until its condition is gone.",
            Self::Heartbeat => {
                "The node is there. It takes no place in the sequence: its tandemNotificationSequence is the last place \
                 that left for this target in the epoch. A receiver that has not seen that place has lost notifications; \
                 it walks tandemActiveAlarmTable, or has itself synchronised."
            }
            Self::ResyncBegin => {
                "The target is synchronised, in a new epoch: what the receiver knew of this node is to be forgotten. As \
                 many tandemAlarmRaise follow as tandemAlarmActiveCount says, with a tandemAlarmAck where somebody took \
                 note, and then a tandemResyncEnd."
            }
            Self::ResyncEnd => {
                "Every active alarm was told. When a place since the tandemResyncBegin is missing, something was lost \
                 again."
            }
            Self::Test => {
                "Sent when an operator tests a target. Nothing is wrong. When it took a place in the sequence, that \
                 follows as tandemNotificationSequence and tandemNotificationEpoch."
            }
        }
    }
}

/// The identifiers below one enterprise number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oids {
    enterprise_number: u32,
}

impl Oids {
    /// Those below `enterprise_number`.
    #[must_use]
    pub const fn new(enterprise_number: u32) -> Self {
        Self { enterprise_number }
    }

    /// The value of `snmpTrapOID.0`.
    #[must_use]
    pub fn notification(self, name: NotificationName) -> Vec<u32> {
        self.below(&[arc::MIB, arc::NOTIFICATIONS, name.arc()])
    }

    /// The instance of an object, as a varbind names it.
    #[must_use]
    pub fn instance(self, object: Object) -> Vec<u32> {
        let node = match object.place() {
            Place::Notifications => arc::OBJECTS,
            Place::Agent => arc::AGENT,
        };
        self.below(&[arc::MIB, node, object.arc(), 0])
    }

    /// `tandem`: all that is registered, and the value of `sysObjectID.0`.
    #[must_use]
    pub fn root(self) -> Vec<u32> {
        self.below(&[])
    }

    /// An arc below `tandemAlarmObjects`.
    pub(crate) fn of_agent(self, arcs: &[u32]) -> Vec<u32> {
        [self.below(&[arc::MIB, arc::AGENT]), arcs.to_vec()].concat()
    }

    fn below(self, arcs: &[u32]) -> Vec<u32> {
        [&ENTERPRISES[..], &[self.enterprise_number], arcs].concat()
    }
}

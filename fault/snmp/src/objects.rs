//! The object identifiers of TANDEM-MIB: what the traps carry and the MIB names. Never renumbered: an object that is no
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
    /// `tandemTestNotification`.
    pub(crate) const TEST: u32 = 9;
}

macro_rules! objects {
    ($($(#[$doc:meta])+ $variant:ident = $arc:literal, $name:literal, $syntax:literal, $description:literal;)+) => {
        /// An object that notifications carry, in the order of the varbinds.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Object { $($(#[$doc])+ $variant,)+ }

        impl Object {
            /// Every object, in the order in which a notification of an alarm carries them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// Its arc below `tandemNotificationObjects`.
            #[must_use]
            pub const fn arc(self) -> u32 { match self { $(Self::$variant => $arc,)+ } }
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
    Sequence = 1, "tandemNotificationSequence", "Unsigned32",
        "The place of this notification in the sequence of its target. It begins at 1 in each epoch and has no gaps: a \
         receiver that misses one has lost a notification. One that comes twice is the same notification, sent again \
         after a restart.";
    /// The epoch of the sequence.
    Epoch = 2, "tandemNotificationEpoch", "Unsigned32",
        "The epoch of the sequence. A new one begins when the target is synchronised again: every active alarm is then \
         raised again, and what the receiver knew before is to be forgotten.";
    /// The node that detected.
    Node = 3, "tandemNotificationNode", "TandemText",
        "The name of the node that detected the alarm and sends its notifications.";
    /// The alarm's number.
    Id = 4, "tandemAlarmId", "Unsigned32",
        "The number of the alarm on its node. Raise, change, acknowledgement and clear of one alarm carry the same \
         number; it is never used again.";
    /// The key of its type.
    Type = 5, "tandemAlarmType", "TandemText",
        "The key of the type of the alarm in the catalogue, such as trunk_down. The types are described below \
         tandemAlarmTypes.";
    /// Which object.
    Resource = 6, "tandemAlarmResource", "TandemText",
        "The object that the alarm is about, as kind and identifier, such as trunk:0190b5c8-7a3e-7cc1-8f4e-2b6d1c0a9e55. \
         At most one alarm is active per node, type and resource.";
    /// How bad it is.
    Severity = 7, "tandemAlarmSeverity", "TandemSeverity",
        "The perceived severity of the alarm now; cleared in a tandemAlarmClear.";
    /// The kind of event.
    EventType = 8, "tandemAlarmEventType", "TandemEventType",
        "The type of event of the alarm.";
    /// The probable cause.
    ProbableCause = 9, "tandemAlarmProbableCause", "Unsigned32",
        "The probable cause of the alarm, a number of IANAItuProbableCause in the IANA-ITU-ALARM-TC-MIB.";
    /// One sentence.
    Text = 10, "tandemAlarmText", "TandemText",
        "One sentence with the values that matter. A clear carries the text of its raise or of the last change.";
    /// When it was raised.
    RaisedTime = 11, "tandemAlarmRaisedTime", "DateAndTime",
        "When the alarm was raised, in UTC.";
    /// Sightings.
    Count = 12, "tandemAlarmCount", "Unsigned32",
        "How often the condition was seen while the alarm is active. Repeats are counted and not notified.";
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
    pub fn notification(self, kind: NotificationKind) -> Vec<u32> {
        self.below(&[arc::MIB, arc::NOTIFICATIONS, notification_arc(kind)])
    }

    /// The value of `snmpTrapOID.0` of a test.
    #[must_use]
    pub fn test_notification(self) -> Vec<u32> {
        self.below(&[arc::MIB, arc::NOTIFICATIONS, arc::TEST])
    }

    /// The instance of an object, as a varbind names it.
    #[must_use]
    pub fn instance(self, object: Object) -> Vec<u32> {
        self.below(&[arc::MIB, arc::OBJECTS, object.arc(), 0])
    }

    fn below(self, arcs: &[u32]) -> Vec<u32> {
        [&ENTERPRISES[..], &[self.enterprise_number], arcs].concat()
    }
}

/// 5 to 8 are kept for heartbeat, resync needed, started and shutdown.
pub(crate) const fn notification_arc(kind: NotificationKind) -> u32 {
    match kind {
        NotificationKind::Raise => 1,
        NotificationKind::Change => 2,
        NotificationKind::Clear => 3,
        NotificationKind::Ack => 4,
    }
}

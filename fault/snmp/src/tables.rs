//! The scalars and tables below `tandemAlarmObjects`: arcs, names and descriptions, from which the MIB is written and the
//! agent answers. Never renumbered.

/// An object of the agent.
pub(crate) struct Column {
    /// Its arc below its entry, or below `tandemAlarmObjects`.
    pub(crate) arc: u32,
    /// Its descriptor.
    pub(crate) name: &'static str,
    /// Its syntax in the MIB.
    pub(crate) syntax: &'static str,
    /// Its description in the MIB.
    pub(crate) description: &'static str,
}

const fn column(arc: u32, name: &'static str, syntax: &'static str, description: &'static str) -> Column {
    Column { arc, name, syntax, description }
}

/// A table: the first column is the index.
pub(crate) struct Table {
    /// Its arc below `tandemAlarmObjects`.
    pub(crate) arc: u32,
    /// Its descriptor.
    pub(crate) name: &'static str,
    /// The descriptor of its entry.
    pub(crate) entry: &'static str,
    /// The type of its entry.
    pub(crate) entry_type: &'static str,
    /// The index clause.
    pub(crate) index: &'static str,
    /// What it is.
    pub(crate) description: &'static str,
    /// What a row is.
    pub(crate) row: &'static str,
    /// Its columns.
    pub(crate) columns: &'static [Column],
}

/// Active alarms by severity; 1 and 2 are objects of notifications too.
pub(crate) const SCALARS: &[Column] = &[
    column(3, "tandemAlarmCriticalCount", "Gauge32", "Active alarms whose severity is critical."),
    column(4, "tandemAlarmMajorCount", "Gauge32", "Active alarms whose severity is major."),
    column(5, "tandemAlarmMinorCount", "Gauge32", "Active alarms whose severity is minor."),
    column(6, "tandemAlarmWarningCount", "Gauge32", "Active alarms whose severity is warning."),
    column(7, "tandemAlarmIndeterminateCount", "Gauge32", "Active alarms whose severity is indeterminate."),
    column(
        8,
        "tandemAgentForeignRequests",
        "Counter32",
        "Requests that got no answer, for their source is not on the list.",
    ),
    column(
        9,
        "tandemAgentExcessRequests",
        "Counter32",
        "Requests that got no answer, for their source asks too much at once.",
    ),
    column(
        10,
        "tandemAgentUserRefusals",
        "Counter32",
        "Requests of SNMPv3 that got no answer, for their user is unknown, their key is wrong, or they are not encrypted.",
    ),
];

pub(crate) const ACTIVE: Table = Table {
    arc: 11,
    name: "tandemActiveAlarmTable",
    entry: "tandemActiveAlarmEntry",
    entry_type: "TandemActiveAlarmEntry",
    index: "tandemActiveAlarmId",
    description: "The alarms of this node that are active, by their numbers: the oldest first. A manager that lost \
        notifications walks it and forgets every alarm of this node that is not in it.",
    row: "One active alarm. The row comes with its tandemAlarmRaise and goes with its tandemAlarmClear.",
    columns: &[
        column(
            1,
            "tandemActiveAlarmId",
            "Unsigned32 (1..4294967295)",
            "The number of the alarm on this node; tandemAlarmId of its notifications. It is never used again.",
        ),
        column(2, "tandemActiveAlarmType", "TandemText", "The key of its type in the catalogue; see tandemAlarmTypes."),
        column(3, "tandemActiveAlarmResource", "TandemText", "The object that it is about, as kind and identifier."),
        column(4, "tandemActiveAlarmSeverity", "TandemSeverity", "Its perceived severity."),
        column(5, "tandemActiveAlarmEventType", "TandemEventType", "Its type of event."),
        column(
            6,
            "tandemActiveAlarmProbableCause",
            "Unsigned32",
            "Its probable cause, a number of IANAItuProbableCause in the IANA-ITU-ALARM-TC-MIB.",
        ),
        column(
            7,
            "tandemActiveAlarmText",
            "TandemText",
            "One sentence with the values that matter, as it was notified.",
        ),
        column(8, "tandemActiveAlarmRaisedTime", "DateAndTime", "When it was raised, in UTC."),
        column(
            9,
            "tandemActiveAlarmChangedTime",
            "DateAndTime",
            "When its severity or its acknowledgement last changed, in UTC.",
        ),
        column(10, "tandemActiveAlarmSeenTime", "DateAndTime", "When its condition was last seen, in UTC."),
        column(11, "tandemActiveAlarmCount", "Unsigned32", "How often its condition was seen."),
        column(12, "tandemActiveAlarmAcknowledged", "TruthValue", "Whether somebody took note of it."),
        column(13, "tandemActiveAlarmAcknowledgedBy", "TandemText", "Who took note of it; empty when nobody did."),
    ],
};

pub(crate) const TARGETS: Table = Table {
    arc: 12,
    name: "tandemTargetTable",
    entry: "tandemTargetEntry",
    entry_type: "TandemTargetEntry",
    index: "IMPLIED tandemTargetName",
    description: "The targets of notifications of this node, and how far the sequence of each has come.",
    row: "One target.",
    columns: &[
        column(1, "tandemTargetName", "TandemText (SIZE (1..64))", "Its name in the configuration of the node."),
        column(
            2,
            "tandemTargetKind",
            "INTEGER {\n        trapV2c(1),\n        informV2c(2),\n        trapV3(3),\n        informV3(4)\n    }",
            "How notifications are sent to it.",
        ),
        column(
            3,
            "tandemTargetEpoch",
            "Unsigned32",
            "The epoch of its sequence. It begins at 1 and grows with each synchronisation.",
        ),
        column(
            4,
            "tandemTargetLastSequence",
            "Unsigned32",
            "The last place of the sequence that left in this epoch, or was given up; 0 when there was none. A receiver \
             that has not seen it has lost something.",
        ),
        column(5, "tandemTargetWaiting", "Gauge32", "Notifications that wait for it."),
        column(
            6,
            "tandemTargetSent",
            "Counter32",
            "Notifications that left for it since the start of the program: of informs, those that were acknowledged.",
        ),
        column(7, "tandemTargetFailures", "Counter32", "Attempts that failed since the start of the program."),
        column(
            8,
            "tandemTargetReachable",
            "TruthValue",
            "False while there is an alarm notification_target_unreachable about it. Of traps nothing is known.",
        ),
    ],
};

/// The arc of the entry below its table.
pub(crate) const ENTRY: u32 = 1;

//! The MIB modules (SMIv2: RFC 2578, 2579, 2580), written from the objects that traps carry and from the catalogue of
//! alarms. They import from SNMPv2-SMI, SNMPv2-TC and SNMPv2-CONF alone.
//!
//! A change of what they say needs a new `REVISIONS` entry: managers keep modules for years and tell them apart by it.

use std::fmt::Write as _;

use fault::catalogue::AlarmType;

use crate::objects::{NotificationName, Object, Place, arc};
use crate::tables::{ACTIVE, Column, ENTRY, SCALARS, TARGETS, Table};

/// The revisions, newest first: when, and what changed.
const REVISIONS: [(&str, &str); 3] = [
    ("202611250800Z", "Further types of alarms."),
    (
        "202611250000Z",
        "Heartbeat and synchronisation; the tables of active alarms and of targets; tandemNotificationResync at the end of \
         the notifications of alarms.",
    ),
    ("202611240000Z", "The first version."),
];

/// Columns of a line of description.
const WIDTH: usize = 72;

const CONTACT: &str = "Whoever runs this installation of Tandem: the enterprise number is theirs.";

const OBJECT_GROUP: &str = "tandemNotificationObjectGroup";
const NOTIFICATION_GROUP: &str = "tandemNotificationGroup";
const RESYNC_OBJECT_GROUP: &str = "tandemResyncObjectGroup";
const RESYNC_NOTIFICATION_GROUP: &str = "tandemResyncNotificationGroup";
const AGENT_GROUP: &str = "tandemAgentGroup";

/// File name and text of each module, the one that others import first.
#[must_use]
pub fn render(enterprise_number: u32) -> Vec<(&'static str, String)> {
    vec![("TANDEM-SMI-MIB.mib", registration(enterprise_number)), ("TANDEM-MIB.mib", tandem())]
}

/// The one module that knows the enterprise number.
fn registration(enterprise_number: u32) -> String {
    let mut out = String::from(
        "TANDEM-SMI-MIB DEFINITIONS ::= BEGIN\n\nIMPORTS\n    MODULE-IDENTITY, enterprises\n        FROM SNMPv2-SMI;\n\n",
    );
    identity(&mut out, "tandem", "The root of what Tandem registers.", &format!("enterprises {enterprise_number}"));
    out.push_str("END\n");
    out
}

fn tandem() -> String {
    let mut out = String::from(
        "TANDEM-MIB DEFINITIONS ::= BEGIN\n\n\
         IMPORTS\n    MODULE-IDENTITY, OBJECT-TYPE, OBJECT-IDENTITY, NOTIFICATION-TYPE, Unsigned32,\n    \
         Gauge32, Counter32\n        FROM SNMPv2-SMI\n    TEXTUAL-CONVENTION, DateAndTime, TruthValue\n        FROM SNMPv2-TC\n    \
         MODULE-COMPLIANCE, OBJECT-GROUP, NOTIFICATION-GROUP\n        FROM SNMPv2-CONF\n    \
         tandem\n        FROM TANDEM-SMI-MIB;\n\n",
    );
    identity(
        &mut out,
        "tandemMIB",
        "Alarms of Tandem, a management plane of communications as a service, and the notifications about them.",
        &format!("tandem {}", arc::MIB),
    );
    for (name, number) in [
        ("tandemNotifications", arc::NOTIFICATIONS),
        ("tandemNotificationObjects", arc::OBJECTS),
        ("tandemConformance", arc::CONFORMANCE),
        ("tandemAlarmTypes", arc::ALARM_TYPES),
        ("tandemAlarmObjects", arc::AGENT),
    ] {
        writeln_to(&mut out, &format!("{name} OBJECT IDENTIFIER ::= {{ tandemMIB {number} }}"));
    }
    writeln_to(&mut out, "tandemCompliances OBJECT IDENTIFIER ::= { tandemConformance 1 }");
    writeln_to(&mut out, "tandemGroups OBJECT IDENTIFIER ::= { tandemConformance 2 }\n");
    conventions(&mut out);
    for object in Object::ALL {
        writeln_to(&mut out, &format!("{} OBJECT-TYPE", object.name()));
        writeln_to(&mut out, &format!("    SYNTAX      {}", object.syntax()));
        let (access, node) = match object.place() {
            Place::Notifications => ("accessible-for-notify", "tandemNotificationObjects"),
            Place::Agent => ("read-only", "tandemAlarmObjects"),
        };
        writeln_to(&mut out, &format!("    MAX-ACCESS  {access}\n    STATUS      current"));
        description(&mut out, object.description());
        writeln_to(&mut out, &format!("    ::= {{ {node} {} }}\n", object.arc()));
    }
    for scalar in SCALARS {
        object(&mut out, scalar, "read-only", "tandemAlarmObjects");
    }
    table(&mut out, &ACTIVE);
    table(&mut out, &TARGETS);
    notifications(&mut out);
    alarm_types(&mut out);
    conformance(&mut out);
    out.push_str("END\n");
    out
}

fn conventions(out: &mut String) {
    writeln_to(out, "TandemText ::= TEXTUAL-CONVENTION\n    DISPLAY-HINT \"255t\"\n    STATUS      current");
    description(out, "Text in UTF-8 on one line, cut between characters.");
    writeln_to(out, "    SYNTAX      OCTET STRING (SIZE (0..255))\n");
    let severities =
        [("cleared", 1), ("indeterminate", 2), ("critical", 3), ("major", 4), ("minor", 5), ("warning", 6)];
    enumeration(out, "TandemSeverity", "Perceived severity, with the numbers of ItuPerceivedSeverity.", &severities);
    let event_types = [
        ("other", 1),
        ("communicationsAlarm", 2),
        ("qualityOfServiceAlarm", 3),
        ("processingErrorAlarm", 4),
        ("equipmentAlarm", 5),
        ("environmentalAlarm", 6),
        ("integrityViolation", 7),
        ("operationalViolation", 8),
        ("physicalViolation", 9),
        ("securityServiceOrMechanismViolation", 10),
        ("timeDomainViolation", 11),
    ];
    enumeration(out, "TandemEventType", "Type of event, with the numbers of IANAItuEventType.", &event_types);
}

fn enumeration(out: &mut String, name: &str, text: &str, values: &[(&str, u32)]) {
    writeln_to(out, &format!("{name} ::= TEXTUAL-CONVENTION\n    STATUS      current"));
    description(out, text);
    let values: Vec<String> = values.iter().map(|(label, number)| format!("        {label}({number})")).collect();
    writeln_to(out, &format!("    SYNTAX      INTEGER {{\n{}\n    }}\n", values.join(",\n")));
}

fn object(out: &mut String, column: &Column, access: &str, parent: &str) {
    writeln_to(out, &format!("{} OBJECT-TYPE\n    SYNTAX      {}", column.name, column.syntax));
    writeln_to(out, &format!("    MAX-ACCESS  {access}\n    STATUS      current"));
    description(out, column.description);
    writeln_to(out, &format!("    ::= {{ {parent} {} }}\n", column.arc));
}

fn table(out: &mut String, table: &Table) {
    let Table { arc, name, entry, entry_type, index, .. } = table;
    writeln_to(out, &format!("{name} OBJECT-TYPE\n    SYNTAX      SEQUENCE OF {entry_type}"));
    writeln_to(out, "    MAX-ACCESS  not-accessible\n    STATUS      current");
    description(out, table.description);
    writeln_to(out, &format!("    ::= {{ tandemAlarmObjects {arc} }}\n"));
    writeln_to(out, &format!("{entry} OBJECT-TYPE\n    SYNTAX      {entry_type}"));
    writeln_to(out, "    MAX-ACCESS  not-accessible\n    STATUS      current");
    description(out, table.row);
    writeln_to(out, &format!("    INDEX       {{ {index} }}\n    ::= {{ {name} {ENTRY} }}\n"));
    // Without ranges and labels: they stand at the columns
    let base = |syntax: &'static str| syntax.split_whitespace().next().unwrap_or(syntax);
    let members: Vec<String> =
        table.columns.iter().map(|column| format!("    {} {}", column.name, base(column.syntax))).collect();
    writeln_to(out, &format!("{entry_type} ::= SEQUENCE {{\n{}\n}}\n", members.join(",\n")));
    for (place, column) in table.columns.iter().enumerate() {
        object(out, column, if place == 0 { "not-accessible" } else { "read-only" }, entry);
    }
}

fn notifications(out: &mut String) {
    for name in NotificationName::ALL {
        if *name == NotificationName::Test {
            writeln_to(out, "-- 8 is kept for a later notification\n");
        }
        let objects: Vec<&str> = name.objects().iter().map(|object| object.name()).collect();
        notification(out, name.name(), &objects, name.description(), name.arc());
    }
}

fn notification(out: &mut String, name: &str, objects: &[&str], text: &str, number: u32) {
    let objects: Vec<String> = objects.iter().map(|object| format!("        {object}")).collect();
    writeln_to(out, &format!("{name} NOTIFICATION-TYPE\n    OBJECTS {{\n{}\n    }}", objects.join(",\n")));
    writeln_to(out, "    STATUS      current");
    description(out, text);
    writeln_to(out, &format!("    ::= {{ tandemNotifications {number} }}\n"));
}

fn alarm_types(out: &mut String) {
    for alarm_type in AlarmType::ALL {
        let entry = alarm_type.definition();
        writeln_to(out, &format!("{} OBJECT-IDENTITY\n    STATUS      current", alarm_type_name(entry.key)));
        let severity = entry.severity.as_str();
        let text = format!(
            "{}: {}. Severity {severity} unless said otherwise.\n\nCause: {}\n\nEffect: {}\n\nAction: {}",
            entry.key, entry.text, entry.cause, entry.effect, entry.action
        );
        description(out, &text);
        writeln_to(out, &format!("    ::= {{ tandemAlarmTypes {} }}\n", entry.index));
    }
}

/// `trunk_down` becomes `tandemAlarmTypeTrunkDown`.
fn alarm_type_name(key: &str) -> String {
    let words = key.split('_').filter_map(|word| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
    });
    format!("tandemAlarmType{}", words.collect::<String>())
}

fn conformance(out: &mut String) {
    writeln_to(out, "tandemCompliance MODULE-COMPLIANCE\n    STATUS      current");
    description(out, "What a sender of these notifications does.");
    writeln_to(out, "    MODULE");
    writeln_to(out, &format!("        MANDATORY-GROUPS {{ {OBJECT_GROUP}, {NOTIFICATION_GROUP} }}"));
    writeln_to(out, "    ::= { tandemCompliances 1 }\n");
    writeln_to(out, "tandemFullCompliance MODULE-COMPLIANCE\n    STATUS      current");
    description(out, "What a node does that can synchronise its targets and has an agent.");
    writeln_to(out, "    MODULE\n        MANDATORY-GROUPS {");
    let groups = [OBJECT_GROUP, NOTIFICATION_GROUP, RESYNC_OBJECT_GROUP, RESYNC_NOTIFICATION_GROUP, AGENT_GROUP];
    writeln_to(out, &format!("            {}\n        }}", groups.join(",\n            ")));
    writeln_to(out, "    ::= { tandemCompliances 2 }\n");
    let first = |object: &&Object| object.place() == Place::Notifications && **object != Object::Resync;
    let objects: Vec<&str> = Object::ALL.iter().filter(first).map(|object| object.name()).collect();
    group(out, OBJECT_GROUP, "OBJECT-GROUP", "OBJECTS", &objects, "The objects that notifications carry.", 1);
    let later = [NotificationName::Heartbeat, NotificationName::ResyncBegin, NotificationName::ResyncEnd];
    let first = NotificationName::ALL.iter().filter(|name| !later.contains(name));
    let names: Vec<&str> = first.map(|name| name.name()).collect();
    group(out, NOTIFICATION_GROUP, "NOTIFICATION-GROUP", "NOTIFICATIONS", &names, "The notifications.", 2);
    let names = [Object::Resync.name()];
    let text = "The object that tells what is told again.";
    group(out, RESYNC_OBJECT_GROUP, "OBJECT-GROUP", "OBJECTS", &names, text, 3);
    let names = later.map(NotificationName::name);
    let text = "The notifications by which a loss is noticed and mended.";
    group(out, RESYNC_NOTIFICATION_GROUP, "NOTIFICATION-GROUP", "NOTIFICATIONS", &names, text, 4);
    let agent = Object::ALL.iter().filter(|object| object.place() == Place::Agent).map(|object| object.name());
    let tables = [&ACTIVE, &TARGETS].into_iter().flat_map(|table| table.columns.iter().skip(1));
    let names: Vec<&str> = agent.chain(SCALARS.iter().chain(tables).map(|column| column.name)).collect();
    group(out, AGENT_GROUP, "OBJECT-GROUP", "OBJECTS", &names, "What the agent answers.", 5);
}

fn group(out: &mut String, name: &str, macro_name: &str, clause: &str, members: &[&str], text: &str, number: u32) {
    let members: Vec<String> = members.iter().map(|member| format!("        {member}")).collect();
    writeln_to(out, &format!("{name} {macro_name}\n    {clause} {{\n{}\n    }}", members.join(",\n")));
    writeln_to(out, "    STATUS      current");
    description(out, text);
    writeln_to(out, &format!("    ::= {{ tandemGroups {number} }}\n"));
}

fn identity(out: &mut String, name: &str, text: &str, place: &str) {
    let newest = REVISIONS.first().map_or("", |(at, _)| at);
    writeln_to(out, &format!("{name} MODULE-IDENTITY\n    LAST-UPDATED \"{newest}\""));
    writeln_to(out, &format!("    ORGANIZATION \"Tandem\"\n    CONTACT-INFO\n        \"{CONTACT}\""));
    description(out, text);
    for (at, what) in REVISIONS {
        writeln_to(out, &format!("    REVISION    \"{at}\""));
        description(out, what);
    }
    writeln_to(out, &format!("    ::= {{ {place} }}\n"));
}

/// A DESCRIPTION clause, wrapped; an empty line in the text stays one.
fn description(out: &mut String, text: &str) {
    out.push_str("    DESCRIPTION\n        \"");
    let mut first = true;
    for paragraph in text.split("\n\n") {
        if !first {
            out.push('\n');
        }
        let mut column = 0;
        for word in paragraph.split_whitespace() {
            if column > 0 && column + 1 + word.len() > WIDTH {
                column = 0;
            }
            match (column, first) {
                (0, true) => first = false,
                (0, false) => out.push_str("\n         "),
                _ => {
                    out.push(' ');
                    column += 1;
                }
            }
            out.push_str(word);
            column += word.len();
        }
    }
    out.push_str("\"\n");
}

fn writeln_to(out: &mut String, line: &str) {
    writeln!(out, "{line}").expect("a String can always be written to");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_keys() {
        assert_eq!(alarm_type_name("trunk_down"), "tandemAlarmTypeTrunkDown");
    }

    #[test]
    fn the_enterprise_number_stands_in_one_module() {
        let (ours, other) = (render(32_473), render(4_711));
        assert_ne!(ours[0], other[0]);
        assert_eq!(ours[1], other[1]);
        for (name, text) in ours {
            assert!(text.is_ascii(), "{name}");
            assert!(text.lines().all(|line| line.len() <= 100 && line == line.trim_end()), "{name}");
        }
    }
}

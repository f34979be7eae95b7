//! What a receiver of traps has heard of an alarm.

use tandem::demo::sinks::TrapReceiver;

/// What a notification says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// `tandemAlarmRaise`.
    Raise,
    /// `tandemAlarmChange`.
    Change,
    /// `tandemAlarmClear`.
    Clear,
}

impl Said {
    /// The last arc of `snmpTrapOID`: see TANDEM-MIB.
    const fn arc(self) -> &'static str {
        match self {
            Self::Raise => "1",
            Self::Change => "2",
            Self::Clear => "3",
        }
    }
}

/// How often the receiver was told this of the alarm on `resource`.
#[must_use]
pub fn told(traps: &TrapReceiver, said: Said, resource: &str) -> usize {
    let about = |values: &[(String, String)]| values.iter().any(|(_, value)| value == resource);
    let all = traps.notifications();
    let same = all.iter().filter(|trap| trap.trap_oid().rsplit('.').next() == Some(said.arc()));
    same.filter(|trap| about(&trap.varbinds)).count()
}

/// All that the receiver was told, for messages of failed tests.
#[must_use]
pub fn everything(traps: &TrapReceiver) -> String {
    let all = traps.notifications();
    let line = |(oid, values): (&str, &[(String, String)])| {
        let values: Vec<&str> = values.iter().skip(2).map(|(_, value)| value.as_str()).collect();
        format!("{oid}: {}", values.join(" | "))
    };
    all.iter().map(|trap| line((trap.trap_oid(), &trap.varbinds))).collect::<Vec<_>>().join("\n")
}

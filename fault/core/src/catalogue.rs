//! The catalogue of alarms: key, OID arc, event type, probable cause, default severity, and the texts of the manual.

use crate::resource::Severity;

/// What an alarm type means, and what to do about it. MIB and manual are generated from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlarmDefinition {
    /// The key in rows, notifications and APIs.
    pub key: &'static str,
    /// The index in `tandemAlarmModelTable`; never renumbered.
    pub index: u32,
    /// `IANAItuEventType`.
    pub event_type: u32,
    /// `IANAItuProbableCause`.
    pub probable_cause: u32,
    /// Severity unless the detector says otherwise.
    pub severity: Severity,
    /// One line.
    pub text: &'static str,
    /// What brings it about.
    pub cause: &'static str,
    /// What it means for service.
    pub effect: &'static str,
    /// What the operator should do.
    pub action: &'static str,
    /// The one detector that reports this type: its full set of conditions decides what is cleared.
    pub detector: &'static str,
}

/// The detectors: each reports the full set of the conditions of its types.
pub mod detector {
    /// Trunks that do not answer.
    pub const TRUNKS: &str = "trunks";
    /// The journal of this node.
    pub const JOURNAL: &str = "journal";
    /// The consumers of the journal and of the store's feed.
    pub const CONSUMERS: &str = "consumers";
    /// The background workers of the daemon.
    pub const WORKERS: &str = "workers";
    /// The call core's directory.
    pub const DIRECTORY: &str = "directory";
    /// Reports that could not be made or mailed.
    pub const REPORTS: &str = "reports";
    /// The store, by whether it takes writes.
    pub const STORE: &str = "store";
    /// The disks below the node's directories.
    pub const DISKS: &str = "disks";
    /// Charges without a price, and billing files that are due and not there.
    pub const BILLING: &str = "billing";
    /// The targets of notifications of this node.
    pub const TARGETS: &str = "targets";
    /// The certificates that this node shows.
    pub const CERTIFICATES: &str = "certificates";
    /// The wall clock of this node.
    pub const CLOCK: &str = "clock";
}

macro_rules! catalogue {
    ($($(#[$doc:meta])+ $name:ident = $definition:expr;)+) => {
        /// A type of alarm.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum AlarmType { $($(#[$doc])+ $name,)+ }

        impl AlarmType {
            /// Every type.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];
            /// Its entry in the catalogue.
            #[must_use]
            pub const fn definition(self) -> AlarmDefinition { match self { $(Self::$name => $definition,)+ } }
        }
    };
}

catalogue! {
    /// A trunk does not answer.
    TrunkDown = AlarmDefinition {
        key: "trunk_down",
        index: 1,
        // communications
        event_type: 2,
        // outOfService
        probable_cause: 612,
        severity: Severity::Major,
        text: "A SIP trunk does not answer",
        cause: "The peer left several OPTIONS pings in a row unanswered.",
        effect: "Calls take the next trunk, or are refused with 503 when there is none.",
        action: "Check address, network path and the peer; the alarm clears with the first answer.",
        detector: detector::TRUNKS,
    };
    /// The journal of the node cannot keep up or cannot be written.
    JournalLag = AlarmDefinition {
        key: "journal_lag",
        index: 2,
        // quality of service
        event_type: 3,
        // queueSizeExceeded
        probable_cause: 537,
        severity: Severity::Critical,
        text: "The call journal cannot keep up",
        cause: "The disk is slow or full, or records arrive faster than they can be made durable.",
        effect: "New calls are refused with 503; admitted calls go on and keep their records.",
        action: "Free space or look at the disk's latency; the alarm clears when the backlog is gone.",
        detector: detector::JOURNAL,
    };
    /// A consumer of the journal or of the store's feed is behind.
    ConsumerLag = AlarmDefinition {
        key: "consumer_lag",
        index: 3,
        // quality of service
        event_type: 3,
        // queueSizeExceeded
        probable_cause: 537,
        severity: Severity::Minor,
        text: "A consumer of the call journal is behind",
        cause: "The store is slower than the calls, or the consumer was stopped and catches up.",
        effect: "Usage, rating and counters are late; nothing is lost, the journal keeps the records.",
        action: "Look at the store's load; the alarm clears when the consumer has caught up.",
        detector: detector::CONSUMERS,
    };
    /// A background worker fails or does not come back.
    WorkerFailing = AlarmDefinition {
        key: "worker_failing",
        index: 4,
        // processing error
        event_type: 4,
        // applicationSubsystemFailure
        probable_cause: 158,
        severity: Severity::Major,
        text: "A background worker fails",
        cause: "The store is away, a record cannot be understood by this version, or the program has a defect.",
        effect: "What the worker does (usage, counters, files, mail, notifications) is late; it tries again.",
        action: "Read the alarm's text: bring the store back, or upgrade the program.",
        detector: detector::WORKERS,
    };
    /// A provisioned resource cannot be used by the call core.
    DirectoryIncomplete = AlarmDefinition {
        key: "directory_incomplete",
        index: 5,
        // processing error
        event_type: 4,
        // corruptData
        probable_cause: 153,
        severity: Severity::Major,
        text: "A provisioned resource cannot be used by the call core",
        cause: "A stored secret or field cannot be read: another key file, a damaged row, or a newer version's.",
        effect: "The call core acts as if the resource did not exist; all others are used.",
        action: "Put the right key file back, or set the password of the resource named in the text anew.",
        detector: detector::DIRECTORY,
    };
    /// The store does not take writes.
    StoreUnavailable = AlarmDefinition {
        key: "store_unavailable",
        index: 6,
        // processing error
        event_type: 4,
        // underlayingResourceUnavailable
        probable_cause: 165,
        severity: Severity::Critical,
        text: "The store cannot be written",
        cause: "The database server is down or cannot be reached, or the disk of the store is full or defective.",
        effect: "Calls go on and are kept in the journal; usage, files and reports wait, changes are refused.",
        action: "Read the alarm's text: bring the server back, or free space; what waits is caught up by itself, once.",
        detector: detector::STORE,
    };
    /// A disk is full, or soon will be.
    Disk = AlarmDefinition {
        key: "disk",
        index: 7,
        // processing error
        event_type: 4,
        // storageCapacityProblem
        probable_cause: 151,
        severity: Severity::Critical,
        text: "A disk is full or cannot be written",
        cause: "Files of the node or of others fill the file system, or it refuses writes.",
        effect: "Warning: none yet. Critical: by the directory in the resource, calls are refused (journal), usage waits \
            (store), billing files or reports are held back.",
        action: "Free space or enlarge the file system; work goes on by itself, and the alarm clears.",
        detector: detector::DISKS,
    };
    /// A run of a report was given up.
    ReportFailed = AlarmDefinition {
        key: "report_failed",
        index: 8,
        // processing error
        event_type: 4,
        // applicationSubsystemFailure
        probable_cause: 158,
        severity: Severity::Minor,
        text: "A report could not be made",
        cause: "Every attempt of the run failed: the disk of the reports is full or away, or the program has a defect.",
        effect: "The recipients have no report of the month; calls and billing go on, the figures are kept.",
        action: "Read the alarm's text, mend the cause, run the report of the account and month again.",
        detector: detector::REPORTS,
    };
    /// Mail of a report was given up.
    MailUndeliverable = AlarmDefinition {
        key: "mail_undeliverable",
        index: 9,
        // communications
        event_type: 2,
        // communicationsProtocolError
        probable_cause: 504,
        severity: Severity::Minor,
        text: "A report could not be mailed",
        cause: "The mail server refused a recipient for good, or took no mail for three days.",
        effect: "The named recipients do not have the report; it can be fetched.",
        action: "Correct recipient or server, run the report again with the recipients; it clears then, or after a week.",
        detector: detector::REPORTS,
    };
    /// A certificate that the node shows is near its end, or beyond it.
    CertificateExpiring = AlarmDefinition {
        key: "certificate_expiring",
        index: 10,
        // time domain violation
        event_type: 11,
        // keyExpired
        probable_cause: 609,
        severity: Severity::Warning,
        text: "A certificate expires soon or is not valid",
        cause: "The certificate of the HTTP face was not renewed, or the renewed one was not taken in. Critical from \
            http.tls.expiry_critical_days on.",
        effect: "From its end on clients refuse the connection: billing files are not fetched, GraphQL is not reached. \
            Calls go on.",
        action: "Renew the certificate, put it and its key where http.tls says, then systemctl reload tandem (SIGHUP); \
            the alarm clears at once.",
        detector: detector::CERTIFICATES,
    };
    /// The wall clock of the node was set.
    ClockStepped = AlarmDefinition {
        key: "clock_stepped",
        index: 13,
        // processing error
        event_type: 4,
        // other
        probable_cause: 1024,
        severity: Severity::Minor,
        text: "The clock of the machine was set",
        cause: "Somebody or an NTP client set the clock by a second or more, or the machine was suspended.",
        effect: "Durations of calls are right; begins of calls, counters and closings of files and reports around the \
            step are off by as much.",
        action: "Let an NTP client slew the clock (tandem doctor tells whether one does), and check the files closed \
            around the step; it clears five minutes after the last one.",
        detector: detector::CLOCK,
    };
    /// Charges wait without a price for too long.
    UsageUnrated = AlarmDefinition {
        key: "usage_unrated",
        index: 11,
        // processing error
        event_type: 4,
        // configurationOrCustomisationError
        probable_cause: 159,
        severity: Severity::Minor,
        text: "Calls could not be rated",
        cause: "No tariff is assigned or none has a price for the destination, or a record cannot be charged: the text \
            says why the oldest one waits.",
        effect: "The charges are in no billing file and in no balance; the usage is kept.",
        action: "List the suspense of the account, mend tariff or assignment, then retry it; the alarm clears with it.",
        detector: detector::BILLING,
    };
    /// A billing file is due and not there.
    ExportFailed = AlarmDefinition {
        key: "export_failed",
        index: 12,
        // processing error
        event_type: 4,
        // fileError
        probable_cause: 161,
        severity: Severity::Major,
        text: "A billing file could not be closed or written",
        cause: "The disk of the billing files is full or away, or rows of the store are damaged: the text says which.",
        effect: "The BSS gets no file of the stream; calls and rating go on, and later files of the stream wait.",
        action: "Mend disk or folder (billing.files_dir); the file is then made by itself and the alarm clears.",
        detector: detector::BILLING,
    };
    /// A target of notifications does not take them.
    NotificationTargetUnreachable = AlarmDefinition {
        key: "notification_target_unreachable",
        index: 20,
        // communications
        event_type: 2,
        // communicationsSubsystemFailure
        probable_cause: 505,
        severity: Severity::Major,
        text: "A target of notifications does not answer",
        cause: "Several informs or heartbeats in a row were not acknowledged: the receiver is down, the path is cut, or \
            its user and keys differ.",
        effect: "Notifications wait, in order; beyond the bound of the queue and after the time to give up they are lost, \
            and the gap in the sequence says so.",
        action: "Try tandem snmp test, then look at the receiver; after an outage with losses it is synchronised by itself.",
        detector: detector::TARGETS,
    };
}

impl AlarmType {
    /// The key in rows, notifications and APIs.
    #[must_use]
    pub const fn key(self) -> &'static str {
        self.definition().key
    }

    /// The detector that reports it.
    #[must_use]
    pub const fn detector(self) -> &'static str {
        self.definition().detector
    }

    /// The type of a stored key.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|alarm_type| alarm_type.key() == key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn entries_are_complete_and_apart() {
        let (mut keys, mut indexes) = (BTreeSet::new(), BTreeSet::new());
        for alarm_type in AlarmType::ALL {
            let entry = alarm_type.definition();
            assert!(keys.insert(entry.key) && indexes.insert(entry.index), "{} stands twice", entry.key);
            assert_eq!(AlarmType::parse(entry.key), Some(*alarm_type));
            assert!(entry.key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", entry.key);
            // The numbers of IANAItuEventType and the bound of the MIB's texts
            assert!((1..=11).contains(&entry.event_type) && entry.probable_cause > 0 && entry.index > 0);
            assert!(!matches!(entry.severity, Severity::Cleared), "{} cannot begin cleared", entry.key);
            for text in [entry.text, entry.cause, entry.effect, entry.action, entry.detector] {
                assert!(
                    !text.is_empty() && text.len() <= 255 && text.is_ascii() && !text.contains('"'),
                    "{}: {text}",
                    entry.key
                );
            }
        }
        assert_eq!(AlarmType::parse("sun_spots"), None);
    }
}

//! Call facts: the records of the node journal, in minicbor with numbered fields.

use minicbor::{Decode, Encode};

use crate::cause::ReleaseCause;
use crate::domain::SipDomain;
use crate::id::{AccountId, CallId, DomainId, SiteId, SubscriberId, TrunkId};
use crate::number::E164;
use crate::tenancy::AccountPath;
use crate::time::Timestamp;

/// A record of the journal. An unknown kind stops its consumer with an alarm; it is never skipped.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[expect(clippy::large_enum_variant, reason = "moved a few times per call; a box would be an allocation for each")]
pub enum Fact {
    /// First record of an epoch.
    #[n(0)]
    Started(#[n(0)] Started),
    /// Once a second while calls are up, else every [`IDLE_HEARTBEAT_PERIOD_MS`], and at an orderly end: a call still
    /// open at a crash ends at the last of these, and the node was down since then.
    #[n(1)]
    Heartbeat(#[n(0)] Heartbeat),
    /// A call ended without an answer.
    #[n(2)]
    Attempted(#[n(0)] Attempted),
    /// The callee answered; the caller's 200 waits for this record.
    #[n(3)]
    Answered(#[n(0)] Answered),
    /// A long call goes on; every [`INTERIM_PERIOD_MS`].
    #[n(4)]
    Interim(#[n(0)] Interim),
    /// An answered call ended.
    #[n(5)]
    Ended(#[n(0)] Ended),
    /// The callee answered, yet the caller never got the 200.
    #[n(6)]
    AnswerAborted(#[n(0)] AnswerAborted),
}

/// Period of [`Fact::Interim`]: 15 minutes bound what a lost end can cost.
pub const INTERIM_PERIOD_MS: i64 = 900_000;
/// Period of [`Fact::Heartbeat`] while calls are up: the error of an estimated end is below this.
pub const HEARTBEAT_PERIOD_MS: i64 = 1_000;
/// Period of [`Fact::Heartbeat`] while no call is up: an outage of an idle node seems longer by less than this.
pub const IDLE_HEARTBEAT_PERIOD_MS: i64 = 15_000;
/// The same in the first [`IDLE_HEARTBEAT_PERIOD_MS`] of a run: a run that lasts shows it soon.
pub const EARLY_HEARTBEAT_PERIOD_MS: i64 = 5_000;

impl Fact {
    /// The name of the kind in samples, alarms and `journal show`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Started(_) => "started",
            Self::Heartbeat(_) => "heartbeat",
            Self::Attempted(_) => "attempted",
            Self::Answered(_) => "answered",
            Self::Interim(_) => "interim",
            Self::Ended(_) => "ended",
            Self::AnswerAborted(_) => "answer_aborted",
        }
    }

    /// Encodes the record.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Encoding into a Vec has no failure: the writer is infallible and no field refuses.
        minicbor::to_vec(self).unwrap_or_default()
    }

    /// Decodes a record.
    ///
    /// # Errors
    /// When the octets are not a record of a known kind.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        minicbor::decode(bytes)
    }
}

/// First record of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Started {
    /// When the epoch began.
    #[n(0)]
    pub at: Timestamp,
    /// Version of the program.
    #[n(1)]
    pub version: String,
}

/// Sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Heartbeat {
    /// When.
    #[n(0)]
    pub at: Timestamp,
    /// Answered calls that are up.
    #[n(1)]
    pub calls_up: u32,
    /// Whether the node stops in order after this record; none from versions that did not say.
    #[n(2)]
    pub stopping: Option<bool>,
}

/// Who stands at one side of a call.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Party {
    /// A subscriber of ours.
    #[n(0)]
    Subscriber(#[n(0)] SubscriberParty),
    /// A trunk.
    #[n(1)]
    Trunk(#[n(0)] TrunkParty),
}

impl Party {
    /// The account that owns this side, and its path.
    #[must_use]
    pub const fn account(&self) -> (AccountId, &AccountPath) {
        match self {
            Self::Subscriber(s) => (s.account, &s.path),
            Self::Trunk(t) => (t.account, &t.path),
        }
    }
}

/// A subscriber as party of a call.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SubscriberParty {
    /// The subscriber.
    #[n(0)]
    pub subscriber: SubscriberId,
    /// Its customer.
    #[n(1)]
    pub account: AccountId,
    /// The customer's path at the time of the call.
    #[n(2)]
    pub path: AccountPath,
    /// Its domain.
    #[n(3)]
    pub domain: DomainId,
    /// The domain's name at the time of the call.
    #[n(4)]
    pub domain_name: SipDomain,
    /// Its site, where it has one.
    #[n(5)]
    pub site: Option<SiteId>,
    /// Its extension, where it has one.
    #[n(6)]
    pub extension: Option<String>,
}

/// A trunk as party of a call.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TrunkParty {
    /// The trunk.
    #[n(0)]
    pub trunk: TrunkId,
    /// Its owner.
    #[n(1)]
    pub account: AccountId,
    /// The owner's path at the time of the call.
    #[n(2)]
    pub path: AccountPath,
}

/// What is known of a call from its INVITE on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CallSetup {
    /// The call.
    #[n(0)]
    pub call: CallId,
    /// Receipt of the caller's (authenticated) INVITE.
    #[n(1)]
    pub invited_at: Timestamp,
    /// The caller's side.
    #[n(2)]
    pub a: Party,
    /// The callee's side; absent when no target was found.
    #[n(3)]
    pub b: Option<Party>,
    /// What the caller dialled, as received: the user part of the Request-URI.
    #[n(4)]
    pub dialled: String,
    /// The called number, where the call went to a number.
    #[n(5)]
    pub called: Option<E164>,
    /// The calling number that was presented, where there was one.
    #[n(6)]
    pub calling: Option<E164>,
    /// Call-ID of the A leg (SIP), to find the call in traces.
    #[n(7)]
    pub a_sip_call_id: String,
    /// Call-ID of the B leg (SIP), when one was made.
    #[n(8)]
    pub b_sip_call_id: Option<String>,
    /// Trunks that were tried before `b` and could not carry the call, in their order; absent when none was.
    #[n(9)]
    pub tried: Option<Vec<TriedTrunk>>,
}

/// A trunk that could not carry a call; another was tried after it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TriedTrunk {
    /// The trunk.
    #[n(0)]
    pub trunk: TrunkParty,
    /// Its final status; 408 when it did not respond.
    #[n(1)]
    pub status: u16,
    /// Why it did not carry the call.
    #[n(2)]
    pub cause: ReleaseCause,
}

/// A call that ended unanswered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Attempted {
    /// The call.
    #[n(0)]
    pub setup: CallSetup,
    /// When the final response left for the caller.
    #[n(1)]
    pub ended_at: Timestamp,
    /// The final status that the caller got.
    #[n(2)]
    pub status: u16,
    /// Why.
    #[n(3)]
    pub cause: ReleaseCause,
    /// Post-dial delay: INVITE to the first 180 or 183, milliseconds; absent when none came.
    #[n(4)]
    pub pdd_ms: Option<i64>,
}

/// A call that was answered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Answered {
    /// The call.
    #[n(0)]
    pub setup: CallSetup,
    /// Receipt of the callee's 200.
    #[n(1)]
    pub answered_at: Timestamp,
    /// Post-dial delay: INVITE to the first 180, 183 or 200, milliseconds.
    #[n(2)]
    pub pdd_ms: i64,
}

/// An answered call goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Interim {
    /// The call.
    #[n(0)]
    pub call: CallId,
    /// When this was written.
    #[n(1)]
    pub at: Timestamp,
    /// Milliseconds since the answer, by the monotonic clock.
    #[n(2)]
    pub elapsed_ms: i64,
}

/// Who ended a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum ReleasedBy {
    /// The caller.
    #[n(0)]
    Caller,
    /// The callee.
    #[n(1)]
    Callee,
    /// Tandem.
    #[n(2)]
    Network,
}

impl ReleasedBy {
    /// The name in rows and files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Callee => "callee",
            Self::Network => "network",
        }
    }
}

/// Media of one leg, as the relay saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct MediaStats {
    /// RTP packets received from this leg.
    #[n(0)]
    pub packets_received: u64,
    /// RTP packets sent to this leg.
    #[n(1)]
    pub packets_sent: u64,
    /// Packets of this leg that never came: expected minus received (RFC 3550, A.3), not below zero.
    #[n(2)]
    pub packets_lost: u64,
    /// Payload octets received from this leg.
    #[n(3)]
    pub octets_received: u64,
    /// How it sounded; absent where no audio came from this leg, and in records from before it was measured.
    #[n(4)]
    pub quality: Option<MediaQuality>,
}

/// The quality of one leg's audio. "From the leg" is what it sends, measured as it arrives at the relay; "to the leg"
/// is what it says in its RTCP receiver reports of what it heard, with all that was lost on the way from the other leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MediaQuality {
    /// The codec of the last audio from the leg.
    #[n(0)]
    pub codec: Codec,
    /// Packets from the leg that came a second time.
    #[n(1)]
    pub packets_duplicate: u64,
    /// Packets from the leg that came after a later one.
    #[n(2)]
    pub packets_late: u64,
    /// Longest run of packets from the leg that were missing in a row when the next came.
    #[n(3)]
    pub loss_run_max: u64,
    /// Interarrival jitter from the leg (RFC 3550, A.8), mean over its packets, microseconds.
    #[n(4)]
    pub jitter_us: u64,
    /// The same, highest, microseconds.
    #[n(5)]
    pub jitter_max_us: u64,
    /// Round trip between relay and leg by RTCP (RFC 3550, section 6.4.1), mean, microseconds.
    #[n(6)]
    pub round_trip_us: Option<u64>,
    /// Mean opinion score from the leg in hundredths (ITU-T G.107): 441 is 4.41. Absent for codecs without narrow-band
    /// values.
    #[n(7)]
    pub mos: Option<u16>,
    /// Packets to the leg that it lost, by its reports.
    #[n(8)]
    pub reported_lost: Option<u64>,
    /// Jitter to the leg by its reports, mean, microseconds.
    #[n(9)]
    pub reported_jitter_us: Option<u64>,
    /// Mean opinion score to the leg in hundredths, by its reports.
    #[n(10)]
    pub reported_mos: Option<u16>,
}

/// An audio codec that Tandem knows by name; it carries the others as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Codec {
    /// G.711 µ-law.
    #[n(0)]
    Pcmu,
    /// G.711 A-law.
    #[n(1)]
    Pcma,
    /// GSM full rate.
    #[n(2)]
    Gsm,
    /// G.723.1.
    #[n(3)]
    G723,
    /// G.722.
    #[n(4)]
    G722,
    /// G.729 with its annexes.
    #[n(5)]
    G729,
    /// GSM enhanced full rate.
    #[n(6)]
    GsmEfr,
    /// iLBC.
    #[n(7)]
    Ilbc,
    /// AMR.
    #[n(8)]
    Amr,
    /// AMR wide band.
    #[n(9)]
    AmrWb,
    /// Opus.
    #[n(10)]
    Opus,
    /// Any other.
    #[n(11)]
    Other,
}

impl Codec {
    /// All, by number.
    pub const ALL: [Self; 12] = [
        Self::Pcmu,
        Self::Pcma,
        Self::Gsm,
        Self::G723,
        Self::G722,
        Self::G729,
        Self::GsmEfr,
        Self::Ilbc,
        Self::Amr,
        Self::AmrWb,
        Self::Opus,
        Self::Other,
    ];

    /// The encoding name of `a=rtpmap` (IANA "RTP Payload Format Media Types"), also in rows and APIs; `other` for the
    /// rest.
    #[must_use]
    pub const fn rtp_name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::Gsm => "GSM",
            Self::G723 => "G723",
            Self::G722 => "G722",
            Self::G729 => "G729",
            Self::GsmEfr => "GSM-EFR",
            Self::Ilbc => "iLBC",
            Self::Amr => "AMR",
            Self::AmrWb => "AMR-WB",
            Self::Opus => "opus",
            Self::Other => "other",
        }
    }

    /// The codec of a stored name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.rtp_name() == name)
    }

    /// The number in records.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Pcmu => 0,
            Self::Pcma => 1,
            Self::Gsm => 2,
            Self::G723 => 3,
            Self::G722 => 4,
            Self::G729 => 5,
            Self::GsmEfr => 6,
            Self::Ilbc => 7,
            Self::Amr => 8,
            Self::AmrWb => 9,
            Self::Opus => 10,
            Self::Other => 11,
        }
    }

    /// The codec of a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// An answered call that ended. It repeats the answer, so that it can be billed alone.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ended {
    /// The answer.
    #[n(0)]
    pub answered: Answered,
    /// When it ended.
    #[n(1)]
    pub ended_at: Timestamp,
    /// Answer to end by the monotonic clock, milliseconds.
    #[n(2)]
    pub duration_ms: i64,
    /// Why.
    #[n(3)]
    pub cause: ReleaseCause,
    /// By whom.
    #[n(4)]
    pub released_by: ReleasedBy,
    /// Whether end and duration are estimated from a heartbeat.
    #[n(5)]
    pub estimated: bool,
    /// Media of the caller's leg; absent where media did not pass through us or was lost with the node.
    #[n(6)]
    pub a_media: Option<MediaStats>,
    /// Media of the callee's leg.
    #[n(7)]
    pub b_media: Option<MediaStats>,
}

/// The callee answered, but the caller never got the 200: nothing is owed on the customer side; the supplier leg,
/// which may be charged to us, is kept.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AnswerAborted {
    /// The call.
    #[n(0)]
    pub setup: CallSetup,
    /// Receipt of the callee's 200.
    #[n(1)]
    pub answered_at: Timestamp,
    /// When the callee was released.
    #[n(2)]
    pub ended_at: Timestamp,
    /// Milliseconds between the two, by the monotonic clock.
    #[n(3)]
    pub duration_ms: i64,
    /// The final status that the caller got: 487, 480 or 503.
    #[n(4)]
    pub status: u16,
    /// Why.
    #[n(5)]
    pub cause: ReleaseCause,
    /// Post-dial delay, milliseconds.
    #[n(6)]
    pub pdd_ms: i64,
    /// Whether `answered` stands before it in the journal: the caller gave up while that was on its way to the disk.
    /// False when the callee's answer was unwanted from the start, as after a CANCEL.
    #[n(7)]
    #[cbor(default)]
    pub after_answered: bool,
}

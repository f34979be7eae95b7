//! What a caller is told to do, and what it reports.

use model::event::fact::ReleasedBy;
use model::secret::Secret;
use model::time::Timestamp;
use serde::{Serialize, Serializer};

/// An account of an agent, in the order of registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(pub(super) u32);

/// A phone's account at the server.
#[derive(Debug, Clone)]
pub struct Account {
    /// User part of the address of record, and user name in digest.
    pub user: String,
    /// SIP domain.
    pub domain: String,
    /// Password.
    pub password: Secret<String>,
    /// What the phone does with calls.
    pub behaviour: Behaviour,
    /// Seconds of registration to ask for; it is refreshed after four fifths.
    pub expires_s: u32,
}

impl Account {
    /// An account that answers at once, registered for ten minutes.
    #[must_use]
    pub fn new(user: impl Into<String>, domain: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            domain: domain.into(),
            password: Secret::new(password.into()),
            behaviour: Behaviour::default(),
            expires_s: 600,
        }
    }

    /// The same account with another behaviour.
    #[must_use]
    pub const fn behaving(mut self, behaviour: Behaviour) -> Self {
        self.behaviour = behaviour;
        self
    }
}

/// What is done with an incoming call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// 180, and 200 after a while.
    Answer {
        /// Milliseconds of ringing.
        after_ms: u64,
        /// How long to talk.
        talk: Talk,
    },
    /// 486.
    Busy,
    /// 180 and nothing more.
    NoAnswer,
    /// 603.
    Decline,
    /// This status, 300 to 699.
    Reject(u16),
}

impl Default for Behaviour {
    fn default() -> Self {
        Self::Answer { after_ms: 0, talk: Talk::UntilFarEnd }
    }
}

/// How long an answerer talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Talk {
    /// Until the far end hangs up.
    UntilFarEnd,
    /// Hangs up itself after these milliseconds.
    Ms(u64),
}

/// A route of a trunk: what a carrier does with numbers that begin so. The longest prefix wins; "" takes all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trunk {
    /// Beginning of the user part of the Request-URI, as received (with `+` where the server sends it).
    pub prefix: String,
    /// What is done with such calls.
    pub behaviour: Behaviour,
}

/// Who places a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// An account: digest is answered with its password.
    Account(AccountId),
    /// A carrier: this calling number, from our address, without digest.
    Number(String),
}

/// A call to be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRequest {
    /// Who calls.
    pub caller: Caller,
    /// A user, an extension or a number; or `user@host`.
    pub to: String,
    /// Hang up this long after the answer, milliseconds; absent: when the far end does.
    pub hang_up_after_ms: Option<u64>,
    /// CANCEL this long after the INVITE when there was no answer, milliseconds.
    pub cancel_after_ms: Option<u64>,
    /// As `cancel_after_ms`, for a caller who waits in vain.
    pub ring_timeout_ms: u64,
}

impl CallRequest {
    /// A call of an account that lasts `talk_ms`.
    #[must_use]
    pub fn new(caller: AccountId, to: impl Into<String>, talk_ms: u64) -> Self {
        Self {
            caller: Caller::Account(caller),
            to: to.into(),
            hang_up_after_ms: Some(talk_ms),
            cancel_after_ms: None,
            ring_timeout_ms: 120_000,
        }
    }

    /// A carrier's call that lasts `talk_ms`.
    #[must_use]
    pub fn from_number(number: impl Into<String>, to: impl Into<String>, talk_ms: u64) -> Self {
        Self { caller: Caller::Number(number.into()), ..Self::new(AccountId(0), to, talk_ms) }
    }

    /// The same call, cancelled when it was not answered after `ms`.
    #[must_use]
    pub const fn cancelled_after(mut self, ms: u64) -> Self {
        self.cancel_after_ms = Some(ms);
        self
    }
}

/// Which side of a call the agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It placed the call.
    Caller,
    /// It was called.
    Callee,
}

/// How far a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    /// INVITE sent.
    Calling,
    /// 180 or 183 seen.
    Ringing,
    /// 200 seen and acknowledged.
    Answered,
    /// Over.
    Ended,
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CallOutcome {
    /// Which side the agent was.
    pub role: Role,
    /// User part of From.
    pub from: String,
    /// User part of the Request-URI.
    pub to: String,
    /// The final status of the INVITE: as received by a caller, as sent by a callee. 408 and 503 also stand for no
    /// response and a failed transport.
    pub status: u16,
    /// Its reason phrase.
    pub reason: String,
    /// Call-ID of this leg.
    pub call_id: String,
    /// When the first INVITE was sent or received.
    pub invited_at: Timestamp,
    /// When 180 or 183 was seen or sent.
    pub ringing_at: Option<Timestamp>,
    /// When the 200 was seen or sent.
    pub answered_at: Option<Timestamp>,
    /// When it was over: BYE, CANCEL's 487, or the final response.
    pub ended_at: Timestamp,
    /// Who ended it, as far as a phone can tell: a BYE that the server sent of its own looks like the far end.
    #[serde(serialize_with = "released_by")]
    pub released_by: Option<ReleasedBy>,
    /// What our BYE was answered with; absent when we sent none or nobody answered.
    pub bye_status: Option<u16>,
    /// RTP packets sent.
    pub rtp_sent: u64,
    /// RTP packets received.
    pub rtp_received: u64,
    /// Answer to end, by the monotonic clock, milliseconds.
    pub talk_ms: u64,
}

impl CallOutcome {
    /// Whether the call was answered.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        self.answered_at.is_some()
    }
}

#[expect(clippy::ref_option, reason = "the shape that serde calls")]
fn released_by<S: Serializer>(by: &Option<ReleasedBy>, serializer: S) -> Result<S::Ok, S::Error> {
    by.map(ReleasedBy::as_str).serialize(serializer)
}

/// Why a call could not even be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// No such account at this agent.
    #[error("the account is not known to this agent")]
    Account,
    /// The number or user makes no SIP URI.
    #[error("the called number or user makes no SIP URI")]
    Address,
    /// No RTP port could be bound.
    #[error("no port for RTP could be bound")]
    Media,
    /// Too many calls at once.
    #[error("the agent holds as many calls as it can")]
    Full,
    /// The agent has ended.
    #[error("the agent has ended")]
    Gone,
}

/// Why a registration failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The server refused.
    #[error("the server refused the registration: {status} {reason}")]
    Refused {
        /// Its status; 408 when it did not answer.
        status: u16,
        /// Its reason phrase.
        reason: String,
    },
    /// User or domain make no SIP URI.
    #[error("user and domain make no SIP URI")]
    Address,
    /// The agent has ended.
    #[error("the agent has ended")]
    Gone,
}

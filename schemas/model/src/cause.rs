//! Why a call ended, in the terms of RFC 3261 and ITU-T Q.850, and what it counts as in the ratios of E.425.

use serde::{Deserialize, Serialize};

macro_rules! causes {
    ($($(#[$doc:meta])+ $name:ident = $n:literal, $text:literal, q850 $q850:literal, $class:ident;)+) => {
        /// The cause of a call's end. The numbers are those of the journal: additive, never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, minicbor::Encode, minicbor::Decode)]
        #[serde(rename_all = "snake_case")]
        #[cbor(index_only)]
        pub enum ReleaseCause { $($(#[$doc])+ #[n($n)] $name,)+ }

        impl ReleaseCause {
            /// Every cause.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];
            /// The name in rows, files and logs.
            #[must_use]
            pub const fn as_str(self) -> &'static str { match self { $(Self::$name => $text,)+ } }
            /// The cause value of ITU-T Q.850.
            #[must_use]
            pub const fn q850(self) -> u8 { match self { $(Self::$name => $q850,)+ } }
            /// What an attempt with this cause counts as in NER (E.425).
            #[must_use]
            pub const fn class(self) -> AttemptClass { match self { $(Self::$name => AttemptClass::$class,)+ } }
            /// The cause of a stored name.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> { match text { $($text => Some(Self::$name),)+ _ => None } }
        }
    };
}

/// How an unanswered attempt counts: the network was effective when the called side decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttemptClass {
    /// Answered.
    Answered,
    /// User busy: in the NER numerator.
    UserBusy,
    /// Rang without an answer: in the NER numerator.
    NoAnswer,
    /// Refused by the terminal: in the NER numerator.
    TerminalReject,
    /// A fault of the dialled address.
    AddressError,
    /// A fault or limit of the network.
    NetworkFailure,
}

impl AttemptClass {
    /// Whether E.425 counts the attempt as effective.
    #[must_use]
    pub const fn is_effective(self) -> bool {
        matches!(self, Self::Answered | Self::UserBusy | Self::NoAnswer | Self::TerminalReject)
    }
}

causes! {
    /// An answered call was hung up.
    NormalClearing = 0, "normal_clearing", q850 16, Answered;
    /// 486 or 600.
    UserBusy = 1, "user_busy", q850 17, UserBusy;
    /// It rang and nobody answered: 408 after a 180, 480, or our own ring timeout.
    NoAnswer = 2, "no_answer", q850 19, NoAnswer;
    /// The caller gave up while it rang.
    CancelledRinging = 3, "cancelled_ringing", q850 16, NoAnswer;
    /// The caller gave up before it rang.
    CancelledEarly = 4, "cancelled_early", q850 16, NetworkFailure;
    /// 603, 607 or another refusal by the terminal.
    Rejected = 5, "rejected", q850 21, TerminalReject;
    /// No such number or user: 404, 410, 484.
    UnallocatedNumber = 6, "unallocated_number", q850 1, AddressError;
    /// The called subscriber has no contact.
    SubscriberAbsent = 7, "subscriber_absent", q850 20, NetworkFailure;
    /// No trunk was up or allowed.
    NoRoute = 8, "no_route", q850 3, NetworkFailure;
    /// A limit of tenant, trunk or node.
    LimitReached = 9, "limit_reached", q850 42, NetworkFailure;
    /// The callee or trunk did not respond.
    NoResponse = 10, "no_response", q850 18, NetworkFailure;
    /// 5xx or an unusable response.
    NetworkFailure = 11, "network_failure", q850 38, NetworkFailure;
    /// 488, 415, 420 and the like.
    Incompatible = 12, "incompatible", q850 88, TerminalReject;
    /// No media for the configured time.
    MediaTimeout = 13, "media_timeout", q850 41, Answered;
    /// The node died; ended at its last heartbeat.
    SystemFailure = 14, "system_failure", q850 41, Answered;
    /// The answer could not be made durable in time.
    AnswerHoldExpired = 15, "answer_hold_expired", q850 41, NetworkFailure;
    /// An operator or a drain ended the call.
    AdministrativeClearing = 16, "administrative_clearing", q850 31, Answered;
    /// A dialog's peer vanished: no response within an answered call.
    PeerLost = 17, "peer_lost", q850 41, Answered;
    /// Not allowed to place this call.
    Forbidden = 18, "forbidden", q850 21, NetworkFailure;
    /// The longest allowed duration was reached.
    DurationLimit = 19, "duration_limit", q850 16, Answered;
}

impl ReleaseCause {
    /// The cause of a final SIP response to an INVITE; `rang` says whether a 180 had come.
    #[must_use]
    pub const fn from_status(status: u16, rang: bool) -> Self {
        match status {
            200..=299 => Self::NormalClearing,
            486 | 600 => Self::UserBusy,
            480 => Self::NoAnswer,
            408 if rang => Self::NoAnswer,
            408 => Self::NoResponse,
            487 if rang => Self::CancelledRinging,
            487 => Self::CancelledEarly,
            403 | 603 | 607 | 608 => Self::Rejected,
            404 | 410 | 484 | 604 => Self::UnallocatedNumber,
            415 | 420 | 488 | 606 => Self::Incompatible,
            _ => Self::NetworkFailure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_round_trip() {
        for cause in ReleaseCause::ALL {
            assert_eq!(ReleaseCause::parse(cause.as_str()), Some(*cause));
        }
    }

    #[test]
    fn ner_counts_what_the_called_side_decided() {
        let check = |status, rang, effective| {
            assert_eq!(ReleaseCause::from_status(status, rang).class().is_effective(), effective, "{status} {rang}");
        };
        check(486, false, true);
        check(408, true, true);
        check(408, false, false);
        check(487, true, true);
        check(603, false, true);
        check(404, false, false);
        check(503, false, false);
    }
}

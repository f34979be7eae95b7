//! From call facts to usage, and who is charged for a leg.
//!
//! A call is billed whole at its end: `ended` (which repeats the answer) gives leg 0 of the caller and leg 1 of the
//! callee, each as part 0. Interim facts bound what a lost end can cost; they make no part of their own yet.
//! An aborted answer gives the same two legs, of which only the supplier's can be charged.

use model::cause::ReleaseCause;
use model::event::fact::{CallSetup, Fact, MediaStats, Party, ReleasedBy};
use model::id::TrunkId;
use model::number::E164;
use model::text::is_deceptive;
use model::time::Timestamp;

use crate::resource::{Usage, UsageMedia};

/// The leg of the caller.
pub const LEG_CALLER: i16 = 0;
/// The leg of the callee.
pub const LEG_CALLEE: i16 = 1;
/// Characters of a dialled string that usage keeps; the journal has it whole. A URI's user part that serves as an
/// address is far shorter.
pub const DIALLED_MAX: usize = 128;
/// The longest call that is believed, a week: beyond it a clock or a counter is broken.
pub const DURATION_MAX_MS: i64 = 7 * 86_400_000;

/// Where a charged call went, as far as its price is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Within one customer.
    OnNet,
    /// To a number.
    Number(E164),
    /// Neither: there is nothing to find a price by.
    Unknown,
}

/// Who is to be charged for a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nobody.
    Nobody,
    /// The account of the leg, by its tariff.
    Sell(Destination),
    /// We, by the operator behind the trunk.
    Buy(TrunkId, Destination),
}

/// A leg with its claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// What was used. Its state is set by [`crate::charging::assess`].
    pub usage: Usage,
    /// Who is to be charged.
    pub claim: Claim,
}

/// The usage that a fact gives: none, or the legs of a call.
#[must_use]
pub fn mediate(fact: &Fact) -> Vec<Leg> {
    match fact {
        Fact::Ended(f) => legs(&Call {
            setup: &f.answered.setup,
            answered_at: f.answered.answered_at,
            pdd_ms: f.answered.pdd_ms,
            ended_at: f.ended_at,
            duration_ms: f.duration_ms,
            cause: f.cause,
            released_by: f.released_by,
            estimated: f.estimated,
            aborted: false,
            media: [f.a_media, f.b_media],
        }),
        Fact::AnswerAborted(f) => legs(&Call {
            setup: &f.setup,
            answered_at: f.answered_at,
            pdd_ms: f.pdd_ms,
            ended_at: f.ended_at,
            duration_ms: f.duration_ms,
            cause: f.cause,
            released_by: released_by(f.cause),
            estimated: false,
            aborted: true,
            media: [None, None],
        }),
        Fact::Started(_) | Fact::Heartbeat(_) | Fact::Attempted(_) | Fact::Answered(_) | Fact::Interim(_) => Vec::new(),
    }
}

/// Who is charged for the leg `usage`; `other` is the other leg of its call. The rule for a live call and for one
/// that waited in suspense is the same.
#[must_use]
pub fn claim(usage: &Usage, other: Option<&Usage>) -> Claim {
    let number = usage.called.map_or(Destination::Unknown, Destination::Number);
    match (usage.leg, usage.subscriber, usage.trunk) {
        (LEG_CALLER, Some(_), None) if !usage.aborted => {
            let within = other.is_some_and(|other| other.subscriber.is_some() && other.account == usage.account);
            Claim::Sell(if within { Destination::OnNet } else { number })
        }
        (LEG_CALLEE, None, Some(trunk)) => Claim::Buy(trunk, number),
        _ => Claim::Nobody,
    }
}

/// What a call has in common, whichever fact told of its end.
struct Call<'a> {
    setup: &'a CallSetup,
    answered_at: Timestamp,
    pdd_ms: i64,
    ended_at: Timestamp,
    duration_ms: i64,
    cause: ReleaseCause,
    released_by: ReleasedBy,
    estimated: bool,
    aborted: bool,
    media: [Option<MediaStats>; 2],
}

fn legs(call: &Call<'_>) -> Vec<Leg> {
    let a = usage(call, LEG_CALLER, &call.setup.a, call.media[0]);
    let b = call.setup.b.as_ref().map(|party| usage(call, LEG_CALLEE, party, call.media[1]));
    let mut legs = vec![Leg { claim: claim(&a, b.as_ref()), usage: a }];
    if let Some(b) = b {
        let claim = claim(&b, legs.first().map(|leg| &leg.usage));
        legs.push(Leg { claim, usage: b });
    }
    legs
}

fn usage(call: &Call<'_>, leg: i16, party: &Party, media: Option<MediaStats>) -> Usage {
    let (account, path) = party.account();
    let (subscriber, trunk) = match party {
        Party::Subscriber(s) => (Some(s.subscriber), None),
        Party::Trunk(t) => (None, Some(t.trunk)),
    };
    Usage {
        call: call.setup.call,
        leg,
        part: 0,
        is_last: true,
        account,
        path: path.clone(),
        subscriber,
        trunk,
        dialled: printable(&call.setup.dialled),
        called: call.setup.called,
        calling: call.setup.calling,
        invited_at: call.setup.invited_at,
        answered_at: call.answered_at,
        ended_at: call.ended_at,
        duration_ms: call.duration_ms,
        pdd_ms: call.pdd_ms,
        cause: call.cause,
        released_by: call.released_by.as_str().to_owned(),
        estimated: call.estimated,
        aborted: call.aborted,
        media: media.map(UsageMedia::from),
        state: crate::resource::UsageState::Uncharged,
    }
}

/// Who gave up before the caller's 200: a CANCEL is the caller's, all else ours.
const fn released_by(cause: ReleaseCause) -> ReleasedBy {
    match cause {
        ReleaseCause::CancelledRinging | ReleaseCause::CancelledEarly => ReleasedBy::Caller,
        ReleaseCause::NormalClearing => ReleasedBy::Callee,
        _ => ReleasedBy::Network,
    }
}

/// Control characters would break a loader's lines, text direction and zero-width ones a reader's, and PostgreSQL keeps
/// no NUL.
fn printable(text: &str) -> String {
    text.chars().take(DIALLED_MAX).map(|c| if is_deceptive(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use model::event::fact::{Codec, Heartbeat, Interim};

    use super::*;
    use crate::samples::{aborted, ended, subscriber, trunk};

    fn claims(fact: Fact) -> Vec<Claim> {
        mediate(&fact).into_iter().map(|leg| leg.claim).collect()
    }

    const NUMBER: Option<&str> = Some("+43720123456");

    #[test]
    fn an_ended_call_has_two_legs_and_the_right_claims() {
        let number = Destination::Number("+43720123456".parse().unwrap());
        let Party::Trunk(over) = trunk() else { unreachable!() };
        let check = |a, b, called, expected: &[Claim]| {
            assert_eq!(claims(Fact::Ended(ended(a, b, called, 1_000))), expected);
        };
        check(subscriber(2), Some(trunk()), NUMBER, &[Claim::Sell(number), Claim::Buy(over.trunk, number)]);
        check(subscriber(2), Some(subscriber(3)), NUMBER, &[Claim::Sell(number), Claim::Nobody]);
        check(subscriber(2), Some(subscriber(2)), NUMBER, &[Claim::Sell(Destination::OnNet), Claim::Nobody]);
        check(subscriber(2), Some(subscriber(2)), None, &[Claim::Sell(Destination::OnNet), Claim::Nobody]);
        check(subscriber(2), None, None, &[Claim::Sell(Destination::Unknown)]);
        check(trunk(), Some(subscriber(2)), NUMBER, &[Claim::Nobody, Claim::Nobody]);
        check(trunk(), Some(trunk()), NUMBER, &[Claim::Nobody, Claim::Buy(over.trunk, number)]);
        let aborted = Fact::AnswerAborted(aborted(subscriber(2), Some(trunk()), NUMBER, 300));
        assert_eq!(claims(aborted), [Claim::Nobody, Claim::Buy(over.trunk, number)]);
    }

    #[test]
    fn legs_carry_the_facts_of_the_call() {
        let mut fact = ended(subscriber(2), Some(trunk()), NUMBER, 65_500);
        fact.answered.setup.dialled = format!("0\u{0}\n\u{202e}{}", "1".repeat(500));
        let legs = mediate(&Fact::Ended(fact));
        let [a, b] = &legs[..] else { panic!("two legs") };
        assert_eq!((a.usage.leg, a.usage.part, a.usage.is_last, a.usage.duration_ms), (0, 0, true, 65_500));
        let media = a.usage.media.unwrap();
        assert_eq!((media.packets_received, media.packets_sent, media.packets_lost), (10, 9, 1));
        let quality = media.quality.unwrap();
        assert_eq!((quality.codec, quality.mos, quality.reported_mos), (Codec::Pcmu, Some(433), None));
        assert_eq!((quality.jitter_max_us, quality.round_trip_us), (i64::MAX, Some(24_000)));
        assert_eq!(b.usage.media, None);
        assert!(a.usage.subscriber.is_some() && a.usage.trunk.is_none() && b.usage.trunk.is_some());
        assert!(a.usage.dialled.starts_with("0\u{fffd}\u{fffd}\u{fffd}1"));
        assert_eq!(a.usage.dialled.chars().count(), DIALLED_MAX);
    }

    #[test]
    fn other_facts_give_no_usage() {
        let fact = ended(subscriber(2), Some(trunk()), NUMBER, 1);
        let call = fact.answered.setup.call;
        let facts = [
            Fact::Answered(fact.answered),
            Fact::Heartbeat(Heartbeat { at: Timestamp(1), calls_up: 1, stopping: None }),
            Fact::Interim(Interim { call, at: Timestamp(1), elapsed_ms: 900_000 }),
        ];
        assert!(facts.iter().all(|fact| mediate(fact).is_empty()));
    }
}
